//! The verb `store`: is the place where backups rest set up so that they survive what may happen to it, and the steps that make it so.
//!
//! Judges and arranges the place alone, never what lies in it: `doctor` and `status` ask about backups. Everything about buckets goes through
//! `lifeboat_store::s3admin`; which rule of a bucket is harmful is decided in `lifeboat_model::lifecycle`.

mod bucket;
mod cold;
mod folder;
mod lock;
mod print;

use std::time::Duration;

use lifeboat_model::lifecycle::Rule;
use lifeboat_store::s3admin::{Bucket, Lock};

pub use bucket::{check as check_bucket, set_up as set_up_bucket};
pub use cold::{Chilled, Thaw, chill, thaw};
pub use folder::check as check_folder;
pub use lock::{Extended, Locked, extend, locked_until};
pub use print::{Plan, plan};

/// The name of the only rule that Lifeboat writes into a bucket.
pub const RULE: &str = "lifeboat-tidy";

/// Days after which uploads that nobody finished vanish.
const UNFINISHED_DAYS: u32 = 7;

/// Days that deleted or overwritten versions stay at least. Whoever has the writer's credentials can overwrite a file; what was there before
/// is then an old version, and this is the time in which somebody can notice.
const OLD_VERSIONS_DAYS: u32 = 30;

/// What the configuration wants of a bucket.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Every new file is locked for this long.
    pub lock: Option<Lock>,
    /// Packs that recent backups do not reach move to another class.
    pub cold: Option<Cold>,
}

/// When packs go cold, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cold {
    /// No backup of this last time reaches the pack.
    pub unreached_for: Duration,
    /// The storage class that it moves to, in the service's words.
    pub storage_class: String,
}

/// The rule that a bucket should have for this store.
fn tidy_rule(bucket: &Bucket, wanted: &Wanted) -> Rule {
    let locked_days = wanted.lock.map_or(0, |lock| lock.days);
    Rule {
        id: RULE.to_owned(),
        enabled: true,
        prefix: bucket.prefix().to_owned(),
        ends_uploads_days: Some(UNFINISHED_DAYS),
        old_versions_days: Some(locked_days.saturating_add(1).max(OLD_VERSIONS_DAYS)),
        ..Rule::default()
    }
}
