//! Which packs may go cold, and how long cold ones take to come back.
//!
//! A pack goes cold by what recent backups **reach**, never by its age: the newest backup reaches packs of the very first day. Pure
//! arithmetic; the step that moves packs lives with the verbs.

use std::collections::BTreeSet;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// How soon a file of a storage class can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// In milliseconds.
    AtOnce,
    /// Only after it was asked for, and after this long.
    Hours {
        /// What the service says for the standard tier: the usual time.
        expected: Duration,
        /// The longest that it says for that tier.
        slowest: Duration,
    },
}

/// Storage classes of S3 and what AWS says about reading them in the standard retrieval tier (Amazon S3 User Guide, "Archive retrieval
/// options": Glacier Flexible Retrieval 3 to 5 hours, Deep Archive within 12 hours). Other services use the same words.
const CLASSES: &[(&str, Access)] = &[
    ("STANDARD", Access::AtOnce),
    ("REDUCED_REDUNDANCY", Access::AtOnce),
    ("STANDARD_IA", Access::AtOnce),
    ("ONEZONE_IA", Access::AtOnce),
    ("INTELLIGENT_TIERING", Access::AtOnce),
    ("GLACIER_IR", Access::AtOnce),
    ("EXPRESS_ONEZONE", Access::AtOnce),
    (
        "GLACIER",
        Access::Hours {
            expected: HOUR.saturating_mul(4),
            slowest: HOUR.saturating_mul(5),
        },
    ),
    (
        "DEEP_ARCHIVE",
        Access::Hours {
            expected: HOUR.saturating_mul(12),
            slowest: HOUR.saturating_mul(12),
        },
    ),
];

/// Archive classes bill every file as at least this much (AWS: 40 KiB of overhead, 128 KiB minimum in the infrequent ones): a smaller
/// pack stays where it is.
pub const SMALLEST_COLD_BYTES: u64 = 128 << 10;

/// How soon a file of this class can be read; `None` for a class that is not known.
#[must_use]
pub fn access(class: &str) -> Option<Access> {
    CLASSES.iter().find(|(name, _)| *name == class).map(|(_, access)| *access)
}

/// Whether files of this class must be asked for before they can be read. An unknown class counts as readable: the service says so
/// otherwise.
#[must_use]
pub fn is_archive(class: &str) -> bool {
    matches!(access(class), Some(Access::Hours { .. }))
}

/// How long all of `classes` take to come back when they are asked for together: the slowest decides. Zero where nothing is archived.
#[must_use]
pub fn retrieval<'a>(classes: impl IntoIterator<Item = &'a str>) -> (Duration, Duration) {
    let mut longest = (Duration::ZERO, Duration::ZERO);
    for class in classes {
        if let Some(Access::Hours { expected, slowest }) = access(class) {
            longest = (longest.0.max(expected), longest.1.max(slowest));
        }
    }
    longest
}

/// One backup that counts.
#[derive(Debug, Clone)]
pub struct Reaches<Pack> {
    /// Its moment, microseconds since 1970.
    pub moment_us: i64,
    /// It stays warm whatever its age: the newest complete one, which a restore takes unless told otherwise.
    pub always_warm: bool,
    /// Every pack of its closure.
    pub packs: Vec<Pack>,
}

/// The packs that may go cold: reached by some backup, but by none that is younger than `unreached_for` at `now_us`, and by
/// none that always stays warm. Only packs named in `candidates` are asked about (data packs that are large enough and still warm).
///
/// What no backup reaches is not moved: it is the pruner's. A backup from the future counts as recent. Where no backup is marked to stay
/// warm, nobody knows what a restore would take, and nothing moves.
#[must_use]
pub fn may_go_cold<Pack: Ord + Clone>(
    now_us: i64,
    unreached_for: Duration,
    backups: &[Reaches<Pack>],
    candidates: &BTreeSet<Pack>,
) -> BTreeSet<Pack> {
    let reach_us = i64::try_from(unreached_for.as_micros()).unwrap_or(i64::MAX);
    let since_us = now_us.saturating_sub(reach_us);
    if !backups.iter().any(|backup| backup.always_warm) {
        return BTreeSet::new();
    }
    let is_recent = |backup: &&Reaches<Pack>| backup.moment_us >= since_us || backup.always_warm;
    let warm: BTreeSet<&Pack> = backups.iter().filter(is_recent).flat_map(|backup| &backup.packs).collect();
    backups
        .iter()
        .flat_map(|backup| &backup.packs)
        .filter(|pack| !warm.contains(pack) && candidates.contains(pack))
        .cloned()
        .collect()
}
