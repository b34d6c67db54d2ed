//! A check: one statement about restored data that a machine evaluated, with what it saw.

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It could not be evaluated, or not for everything. Never a pass.
    NotAvailable,
    /// It does not hold.
    Failed,
}

impl Verdict {
    /// The words people see.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::NotAvailable => "not available",
            Self::Failed => "failed",
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which check.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was looked at, or why it could not be, in one sentence.
    pub says: String,
    /// What was seen: the first of what is wrong, one line each.
    pub evidence: Vec<String>,
}

impl Outcome {
    /// It holds.
    #[must_use]
    pub fn passed(name: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Passed, says)
    }

    /// It could not be evaluated.
    #[must_use]
    pub fn not_available(name: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::NotAvailable, says)
    }

    /// It does not hold.
    #[must_use]
    pub fn failed(name: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Failed, says)
    }

    /// The same with what was seen.
    #[must_use]
    pub fn with_evidence(mut self, evidence: Vec<String>) -> Self {
        self.evidence = evidence;
        self
    }

    fn new(name: impl Into<String>, verdict: Verdict, says: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            verdict,
            says: says.into(),
            evidence: Vec::new(),
        }
    }
}

/// The worst of several; `None` where there are none.
#[must_use]
pub fn worst(outcomes: &[Outcome]) -> Option<Verdict> {
    outcomes.iter().map(|outcome| outcome.verdict).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_available_is_no_pass_and_a_failure_is_the_worst() {
        let (passed, absent, failed) = (
            Outcome::passed("a", ""),
            Outcome::not_available("b", ""),
            Outcome::failed("c", ""),
        );
        assert_eq!(worst(&[]), None);
        assert_eq!(worst(std::slice::from_ref(&passed)), Some(Verdict::Passed));
        assert_eq!(worst(&[absent.clone(), passed.clone()]), Some(Verdict::NotAvailable));
        assert_eq!(worst(&[passed, failed, absent]), Some(Verdict::Failed));
    }
}
