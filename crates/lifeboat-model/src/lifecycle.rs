//! Rules by which a bucket itself moves or deletes files, and which of them would take what today's restore needs.
//!
//! A backup of today reaches packs that are as old as its lineage: a page that never changes is stored once, on the first day. A rule that
//! goes by age therefore freezes or deletes exactly what every restore reads. Nothing here asks a bucket; it judges what one answered.

use crate::cold::{Access, access};

/// When a rule strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// So many days after the file was stored.
    Days(u32),
    /// On a fixed date, as the bucket writes it.
    Date(String),
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Days(1) => f.write_str("after 1 day"),
            Self::Days(days) => write!(f, "after {days} days"),
            Self::Date(date) => write!(f, "on {date}"),
        }
    }
}

/// One rule of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its name; may be empty.
    pub id: String,
    /// Whether it is in force.
    pub enabled: bool,
    /// Only names that begin so; empty for all.
    pub prefix: String,
    /// Only files with a tag. Lifeboat tags nothing, so such a rule strikes none of its files.
    pub tagged: bool,
    /// Deletes current files.
    pub expires: Option<When>,
    /// Moves current files to a storage class.
    pub moves: Vec<(When, String)>,
    /// Deletes versions so many days after they were replaced or deleted.
    pub old_versions_days: Option<u32>,
    /// Ends uploads that were begun and not finished, after so many days.
    pub ends_uploads_days: Option<u32>,
}

impl Rule {
    /// Whether it strikes any file below `prefix`, the store's own place in the bucket (empty, or ending in `/`).
    #[must_use]
    pub fn strikes(&self, prefix: &str) -> bool {
        self.enabled && !self.tagged && (prefix.starts_with(&self.prefix) || self.prefix.starts_with(prefix))
    }

    /// Whether it strikes every file below `prefix`.
    #[must_use]
    pub fn covers(&self, prefix: &str) -> bool {
        self.enabled && !self.tagged && prefix.starts_with(&self.prefix)
    }
}

/// What a rule does to what a restore needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// Deletes it.
    Deletes(When),
    /// Moves it to a class from which nothing can be read for hours.
    Freezes(When, String),
    /// Moves it to a class that can be read at once, but charges for reading or for early deletion, or keeps a single copy.
    Charges(When, String),
    /// Moves it to a class that Lifeboat does not know.
    Unknown(When, String),
}

/// What the rules do to the files below `prefix`, rule by rule. Empty is good.
#[must_use]
pub fn harms<'a>(rules: &'a [Rule], prefix: &str) -> Vec<(&'a Rule, Harm)> {
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.strikes(prefix)) {
        if let Some(when) = &rule.expires {
            found.push((rule, Harm::Deletes(when.clone())));
        }
        for (when, class) in &rule.moves {
            let (when, name) = (when.clone(), class.clone());
            match access(class) {
                Some(Access::AtOnce) if class == "STANDARD" || class == "INTELLIGENT_TIERING" => {}
                Some(Access::AtOnce) => found.push((rule, Harm::Charges(when, name))),
                Some(Access::Hours { .. }) => found.push((rule, Harm::Freezes(when, name))),
                None => found.push((rule, Harm::Unknown(when, name))),
            }
        }
    }
    found
}

/// After how many days uploads that were never finished vanish everywhere below `prefix`.
#[must_use]
pub fn unfinished_uploads_days(rules: &[Rule], prefix: &str) -> Option<u32> {
    rules
        .iter()
        .filter(|rule| rule.covers(prefix))
        .filter_map(|rule| rule.ends_uploads_days)
        .min()
}

/// After how many days deleted versions vanish everywhere below `prefix`.
#[must_use]
pub fn old_versions_days(rules: &[Rule], prefix: &str) -> Option<u32> {
    rules
        .iter()
        .filter(|rule| rule.covers(prefix))
        .filter_map(|rule| rule.old_versions_days)
        .min()
}
