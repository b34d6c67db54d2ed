//! The report of a drill: what is written down for every one that began (docs/drills.md, "The report"). Its JSON is the evidence; pages are made of it.

use std::time::Duration;

use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::drill::{Measured, Standing, Tick, judge};
use serde::{Deserialize, Serialize};

use crate::restore::CLEAN_UP;

/// What the JSON is.
pub const SCHEMA: &str = "lifeboat/v1/drill-report";

/// Everything that is known about one drill. Times are RFC 3339 in UTC, durations seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names are those of the document, which docs/drills.md describes"
)]
pub struct Report {
    pub schema: String,
    pub id: String,
    pub component: String,
    /// `sqlite`, `postgres`, …
    pub kind: String,
    /// Why it was done: `by hand`, or the name of a plan.
    pub trigger: String,
    pub who: Who,
    pub program: Program,
    pub began_at: String,
    pub ended_at: Option<String>,
    pub objectives: Objectives,
    pub point: Chosen,
    pub backup: Option<Used>,
    pub sandbox: Option<String>,
    pub steps: Vec<Step>,
    /// What the plan gives each phase of the whole drill, and how long it took; those of people are told by a tick.
    #[serde(default)]
    pub phases: Vec<Phase>,
    pub measures: Measures,
    pub checks: Vec<Check>,
    /// What waits for people; what they said is in [`Tick`](super::Said)s beside the report.
    pub manual: Vec<String>,
    /// Without what people said since.
    pub verdict: String,
    /// Why it is not better.
    pub reasons: Vec<String>,
    pub notes: Vec<String>,
    pub cleanup: Option<Cleanup>,
    pub error: Option<Failure>,
}

/// Who did it, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Who {
    pub tester: String,
    pub host: String,
    pub instance: String,
}

/// With what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Program {
    pub version: String,
    /// SHA-256 of the program, hexadecimal.
    pub sha256: String,
    /// SHA-256 of the configuration file, hexadecimal.
    pub configuration_sha256: String,
}

/// What was promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Objectives {
    pub rto_s: Option<f64>,
    pub rpo_s: Option<f64>,
}

/// Which point was restored, and how it was chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// `latest`, `random` or `time`.
    pub rule: String,
    /// Of a random one; text, because it has 64 bits.
    pub seed: Option<String>,
    /// What it was drawn from: `[from, to]`, or the moments of the backups.
    pub drawn_from: Vec<(String, String)>,
    /// The time that was asked for or drawn.
    pub asked: Option<String>,
}

/// What it was restored from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Used {
    /// As commands take it: `12-3fa9c1d2`.
    pub id: String,
    pub name: String,
    pub moment: String,
    pub method: String,
    pub size_bytes: u64,
    /// Its age when the drill began.
    pub age_s: f64,
    pub stores: Vec<String>,
    pub encrypted: bool,
    /// Of a cluster: bytes of log that were replayed.
    pub log_bytes: Option<u64>,
}

/// A step, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Step {
    pub name: String,
    pub at: String,
    pub offset_s: f64,
    pub took_s: f64,
}

/// The phase of a plan that is the restore itself: everything in front of the checks.
pub const RESTORE: &str = "restore";
/// The one that is the checks.
pub const CHECKS: &str = "checks";
/// The one that removes the sandbox.
pub const CLEANUP: &str = "cleanup";

/// A phase of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Phase {
    pub name: String,
    pub planned_s: f64,
    /// None where nobody measured it.
    pub took_s: Option<f64>,
}

impl Phase {
    /// Whether we measure it ourselves. The others are for people.
    #[must_use]
    pub fn is_measured(name: &str) -> bool {
        [RESTORE, CHECKS, CLEANUP].contains(&name)
    }
}

/// How long the phases took that we measure.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the phases")]
pub struct Took {
    pub restore_s: f64,
    pub checks_s: f64,
    pub cleanup_s: f64,
}

/// Steps that check what was restored.
const CHECKING: &[&str] = &[
    "check",
    "check tables and indexes",
    "count rows",
    "check pages",
    "ask what is wanted",
];

impl Took {
    /// Of one component. A drill that failed early has what it came to.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        let recovery = || report.steps.iter().take_while(|step| step.name != CLEAN_UP);
        let whole_s: f64 = recovery().map(|step| step.took_s).sum();
        let checking = recovery().filter(|step| CHECKING.contains(&step.name.as_str()));
        let checks_s: f64 = checking.map(|step| step.took_s).sum();
        Self {
            restore_s: (whole_s - checks_s).max(0.0),
            checks_s,
            cleanup_s: report.measures.cleanup_s.unwrap_or(0.0),
        }
    }

    /// With those of another component of the same drill.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            restore_s: self.restore_s + other.restore_s,
            checks_s: self.checks_s + other.checks_s,
            cleanup_s: self.cleanup_s + other.cleanup_s,
        }
    }

    /// Beside what was planned.
    #[must_use]
    pub fn beside(self, planned: &[(String, Duration)]) -> Vec<Phase> {
        let phase = |(name, length): &(String, Duration)| Phase {
            name: name.clone(),
            planned_s: length.as_secs_f64(),
            took_s: match name.as_str() {
                RESTORE => Some(self.restore_s),
                CHECKS => Some(self.checks_s),
                CLEANUP => Some(self.cleanup_s),
                _ => None,
            },
        };
        planned.iter().map(phase).collect()
    }
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// From the beginning to the end of the last check; none where one failed.
    pub recovery_s: Option<f64>,
    /// Removing the sandbox.
    pub cleanup_s: Option<f64>,
    /// The newest moment that is in the restored data.
    pub recovery_point: Option<String>,
    /// By what it is known: `heartbeat`, `log`, `backup`.
    pub recovery_point_by: Option<String>,
    /// What would have been lost; of a drill of the latest point.
    pub loss_s: Option<f64>,
    /// The last commit that came back, of a cluster: position and time.
    pub last_commit: Option<String>,
    /// The first that did not, where it is held.
    pub first_commit_left_out: Option<String>,
    /// Bytes restored for each second of recovery.
    pub bytes_per_s: Option<f64>,
}

/// What came of a check. It does not change any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Check {
    pub name: String,
    /// `passed`, `failed`, `not_available`.
    pub verdict: String,
    pub says: String,
    pub evidence: Vec<String>,
}

/// What became of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Cleanup {
    pub removed: bool,
    pub says: String,
}

/// What ended it early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the document")]
pub struct Failure {
    pub says: String,
    pub hint: Option<String>,
}

impl From<&Outcome> for Check {
    fn from(outcome: &Outcome) -> Self {
        Self {
            name: outcome.name.clone(),
            verdict: underscored(outcome.verdict.words()),
            says: outcome.says.clone(),
            evidence: outcome.evidence.clone(),
        }
    }
}

impl Check {
    /// The same as an outcome. A word that nobody knows is no pass.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let known = [Verdict::Passed, Verdict::NotAvailable, Verdict::Failed];
        let found = known.into_iter().find(|verdict| underscored(verdict.words()) == self.verdict);
        let (name, says) = (self.name.clone(), self.says.clone());
        match found {
            Some(Verdict::Passed) => Outcome::passed(name, says),
            Some(Verdict::Failed) => Outcome::failed(name, says),
            Some(Verdict::NotAvailable) | None => Outcome::not_available(name, says),
        }
    }
}

impl Report {
    /// What came of it, with what people said since.
    #[must_use]
    pub fn standing(&self, ticks: &[Tick]) -> Standing {
        let outcomes: Vec<Outcome> = self.checks.iter().map(Check::outcome).collect();
        let seconds = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let measured = Measured {
            rto: seconds(self.objectives.rto_s),
            rpo: seconds(self.objectives.rpo_s),
            recovery: seconds(self.measures.recovery_s),
            loss: seconds(self.measures.loss_s),
        };
        judge(self.error.is_some(), &outcomes, ticks, &measured)
    }

    /// Why it is not better, one sentence each.
    #[must_use]
    pub fn why(&self) -> Vec<String> {
        let mut why: Vec<String> = self.error.iter().map(|error| error.says.clone()).collect();
        for check in self.checks.iter().filter(|check| check.verdict != Verdict::Passed.words()) {
            why.push(format!("{} {}: {}", check.name, check.verdict.replace('_', " "), check.says));
        }
        let over = |promised: Option<f64>, found: Option<f64>| promised.zip(found).filter(|(promised, found)| found > promised);
        if let Some((promised, found)) = over(self.objectives.rto_s, self.measures.recovery_s) {
            why.push(format!("it took {found:.1} s, and {promised:.0} s were promised"));
        }
        if let Some((promised, found)) = over(self.objectives.rpo_s, self.measures.loss_s) {
            why.push(format!(
                "{found:.0} s of work would have been lost, and at most {promised:.0} s were promised"
            ));
        }
        why
    }
}

/// A word as it stands in JSON.
#[must_use]
pub fn underscored(words: &str) -> String {
    words.replace(' ', "_")
}

/// Bytes for each second.
pub(super) fn rate(bytes: u64, took: Duration) -> Option<f64> {
    let micros = u64::try_from(took.as_micros()).ok().filter(|micros| *micros > 0)?;
    let per_s = u128::from(bytes) * 1_000_000 / u128::from(micros);
    u32::try_from(per_s).ok().map(f64::from)
}
