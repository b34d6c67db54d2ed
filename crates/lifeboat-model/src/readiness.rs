//! Whether a component can be recovered as promised: one pure function from facts to a verdict with its reasons.
//!
//! What is not known is never green: a fact that could not be found out is a reason of its own. Who gathers facts decides nothing, and who decides asks
//! nobody, so every rule here is tested by calling it.

pub mod checklist;
mod rules;

use std::time::Duration;

/// How a component stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A restore was proven, and the objectives hold.
    Ready,
    /// It can probably be recovered, but something is not as promised or not proven.
    AtRisk,
    /// It cannot be recovered, or nobody knows.
    NotReady,
}

impl Standing {
    /// The words people see.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::AtRisk => "at risk",
            Self::NotReady => "not ready",
        }
    }

    /// The word programs see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::AtRisk => "at_risk",
            Self::NotReady => "not_ready",
        }
    }
}

/// Why a component is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What it is about, one word that stays the same: for programs.
    pub code: &'static str,
    /// What it makes of the component.
    pub standing: Standing,
    /// What is wrong and what to do, one sentence without a final stop.
    pub says: String,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The worst of the reasons.
    pub standing: Standing,
    /// Why it is not ready; empty when it is.
    pub reasons: Vec<Reason>,
}

/// Everything that is known of a component.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The moment of the question, microseconds since 1970.
    pub now_us: i64,
    /// How much work may be lost.
    pub rpo: Option<Duration>,
    /// How long a recovery may take.
    pub rto: Option<Duration>,
    /// Why nothing could be found out in the stores.
    pub unknown: Option<String>,
    /// What a server pushed and nobody took, because other bytes are held under that name.
    pub refused_log: Vec<String>,
    /// How far the log is followed on this host.
    pub log: Option<FollowedLog>,
    /// Restores that were interrupted in the middle, by id.
    pub interrupted: Vec<String>,
    /// Stores that do not answer.
    pub away: Vec<Away>,
    /// Stores that lack the newest backup, and how that is called.
    pub lacking: Vec<(String, String)>,
    /// Why stored backups do not count, one reason each.
    pub rejected: Vec<String>,
    /// The newest backup that was ever seen, where it is gone.
    pub vanished: Option<String>,
    /// The newest backup that counts.
    pub newest: Option<Newest>,
    /// How far the log in each store reaches behind the newest backup.
    pub stored_log: Vec<StoredLog>,
    /// How long a restore is expected to take.
    pub restore: Option<Duration>,
    /// The newest proof by a restore: of which backup, and when (microseconds since 1970).
    pub proven: Option<(String, i64)>,
    /// Damage that was found and not yet proven to be mended.
    pub damage: Vec<Damage>,
    /// Checks of what was restored that failed.
    pub failed_checks: Option<FailedChecks>,
    /// What the last backup of a PKI found.
    pub pki: Option<Pki>,
    /// Whether the private key that is configured here opens the newest backup; `None` where none is configured, and a restore happens elsewhere.
    pub key: Option<Result<(), String>>,
    /// What of the newest backup lies in an archive, and comes back only after this time.
    pub archived: Option<(Duration, String)>,
    /// How often backups are scheduled.
    pub schedule: Option<Schedule>,
    /// What is to be proven at least so often.
    pub verifications: Vec<Verification>,
}

/// A proof that is wanted again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// How far it goes, as `lifeboat verify` calls it.
    pub level: String,
    /// At least so often.
    pub every: Duration,
    /// When it was done last, microseconds since 1970.
    pub last_us: Option<i64>,
}

impl Verification {
    /// When it was done last; what was done in the future was not done.
    #[must_use]
    pub fn done_us(&self, now_us: i64) -> Option<i64> {
        self.last_us.filter(|last_us| *last_us <= now_us)
    }

    /// When it is due, microseconds since 1970; what was never done is due.
    #[must_use]
    pub fn due_us(&self, now_us: i64) -> i64 {
        let every_us = i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX);
        self.done_us(now_us)
            .map_or(now_us, |last_us| last_us.saturating_add(every_us))
    }

    /// Whether it is to be done now: a little before its time, because whoever runs daily is never exactly a day apart, and the next run is a day away.
    #[must_use]
    pub fn is_due(&self, now_us: i64) -> bool {
        let early = (self.every / 8).min(VERIFICATION_GRACE);
        let early_us = i64::try_from(early.as_micros()).unwrap_or(i64::MAX);
        self.due_us(now_us).saturating_sub(early_us) <= now_us
    }

    /// Whether somebody should have done it by now.
    #[must_use]
    pub fn is_late(&self, now_us: i64) -> bool {
        let grace = (self.every / 4).max(VERIFICATION_GRACE);
        let grace_us = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
        self.done_us(now_us).is_none() || self.due_us(now_us).saturating_add(grace_us) <= now_us
    }
}

/// A proof may be so late at least, and so early at most.
const VERIFICATION_GRACE: Duration = Duration::from_secs(3600);

/// The newest backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// `SEQ-HASH`
    pub id: String,
    /// The moment it is of, microseconds since 1970.
    pub moment_us: i64,
}

/// A store that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Which.
    pub store: String,
    /// It answers, and holds nothing of ours.
    pub is_empty: bool,
    /// Why it does not.
    pub says: String,
}

/// The log that is followed on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowedLog {
    /// When it was last known to be stored whole, microseconds since 1970.
    pub stored_us: i64,
    /// Bytes that our slot holds back on the server.
    pub slot_lag: Option<u64>,
    /// How many that may be; 0 for any.
    pub max_slot_lag: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// How many that may be; 0 for any.
    pub max_spool: u64,
}

/// The log in one store behind the newest backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLog {
    /// Which store.
    pub store: String,
    /// How far it reaches.
    pub reach: LogReach,
}

/// How far log reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogReach {
    /// Up to a time (microseconds since 1970), and what is missing behind it, one range each.
    Until(i64, Vec<String>),
    /// The backup's own log is not there.
    Nothing,
    /// That could not be found out, and why.
    Unknown(String),
}

/// Damage of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Of which.
    pub backup: String,
    /// What was found.
    pub says: String,
    /// What it had lost was stored anew since.
    pub renewed: bool,
    /// The store knows which files are damaged.
    pub marked: bool,
}

/// Checks that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedChecks {
    /// Of which backup.
    pub backup: String,
    /// What they said.
    pub says: String,
    /// The command that asks again.
    pub again: String,
}

/// What a PKI looked like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pki {
    /// What does not fit.
    pub problems: Vec<String>,
    /// What ends, and when (seconds since 1970).
    pub ends: Vec<(String, i64)>,
    /// How long before that somebody is told.
    pub warn: Duration,
}

/// When backups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The longest time between two.
    pub interval: Duration,
    /// How long one takes with everything that belongs to it.
    pub whole_run: Duration,
    /// In words.
    pub says: String,
}

/// The verdict on `facts`.
#[must_use]
pub fn judge(facts: &Facts) -> Readiness {
    let mut reasons = Vec::new();
    for rule in rules::RULES {
        rule(facts, &mut reasons);
    }
    let standing = reasons.iter().map(|reason| reason.standing).max().unwrap_or(Standing::Ready);
    Readiness { standing, reasons }
}

/// Until when one can recover, and how long ago that is: the newest backup, or the end of the log behind it, of whatever store reaches farthest. The server's
/// clock may be a little ahead of ours.
///
/// `None` where there is no backup; the inner one where it is from the future, and nobody knows how old it is.
#[must_use]
pub fn loss(facts: &Facts) -> Option<Option<Duration>> {
    let newest = facts.newest.as_ref()?;
    let until = reached(facts).map_or(newest.moment_us, |until| until.min(facts.now_us).max(newest.moment_us));
    Some(since(facts.now_us, until))
}

/// The end of the log behind the newest backup, where it goes on behind it.
fn reached(facts: &Facts) -> Option<i64> {
    let ends = facts.stored_log.iter().filter_map(|log| match &log.reach {
        LogReach::Until(until_us, _) => Some(*until_us),
        LogReach::Nothing | LogReach::Unknown(_) => None,
    });
    ends.max()
}

/// How long ago; `None` for what is yet to come.
fn since(now_us: i64, then_us: i64) -> Option<Duration> {
    u64::try_from(now_us.saturating_sub(then_us)).ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests;
