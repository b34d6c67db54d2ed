//! From what somebody wants back to the exact record with which recovery ends, and the commits on both sides of that.
//!
//! Only the log itself can tell: a position may lie in the middle of a record, a time between two commits, and the last bytes that are held may
//! be the first half of one. What is found here becomes `recovery_target_lsn`, so that the server ends with an error, and not early, where
//! something in front of it is missing.

use lifeboat_engine::postgres::records::{End, Record, Scan, Why};
use lifeboat_engine::postgres::recovery::Target;
use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{BLOCK_BYTES, block_end, block_start};

use super::archive::Archive;

/// So many blocks are read to find the commit in front of the target, or behind it, where none is needed to find the target itself.
const CURIOSITY_BLOCKS: u64 = 4;
/// Transactions take the time of their end before they write it down, so times in the log ascend only about: where one ended so much before a time
/// (microseconds), everything in front of it ended before that time too. A clock that was set back by more is taken at its first word.
pub const MARGIN_US: i64 = 10_000_000;

/// What somebody wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Everything up to a position; for the latest moment, the end of what is held.
    Lsn(Lsn),
    /// Every commit until a time, microseconds since 1970.
    Time {
        /// Until when.
        at_us: i64,
        /// Where to begin to look. A guess: what lies there shows whether it is early enough.
        from: Lsn,
    },
}

/// The end of a transaction in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Its time by the server's clock, microseconds since 1970.
    pub at_us: i64,
    /// Behind its record.
    pub end: Lsn,
    /// Its number.
    pub xid: u32,
}

/// What is the last to come back, and the first that does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bracket {
    /// The last commit that comes back, as far as it was looked for.
    pub last: Option<Commit>,
    /// The first one that does not, where it is held.
    pub next: Option<Commit>,
}

/// How a recovery ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What the server is told.
    pub target: Target,
    /// Behind the last record: where the server will stand.
    pub end: Lsn,
    /// Nothing from here on is needed. In front of [`Resolved::end`] where the record is one that leaves the rest of its segment out, and that rest
    /// is not held.
    pub until: Lsn,
    /// The commits on both sides.
    pub bracket: Bracket,
    /// The log breaks off there although more is held behind it, and why: nothing behind it can be replayed.
    pub broken: Option<(Lsn, &'static str)>,
}

/// Finds the last record that `goal` wants, in the log of `archive`, whose limit is the end of what is held. `base`: the positions from which
/// the base needs log, and from which on it is consistent.
///
/// # Errors
/// `NoSuchPoint` where the log has no whole record behind the base's end, `Corrupt` and the store's own where it cannot be read.
pub async fn resolve(archive: &Archive, base: (Lsn, Lsn), goal: Goal) -> Result<Resolved> {
    let (oldest, consistent) = base;
    let held = archive.limit().until;
    let mut begin = match goal {
        Goal::Lsn(lsn) => block_start(Lsn(lsn.min(held).0.saturating_sub(1))),
        Goal::Time { from, .. } => block_start(from.min(held)),
    };
    let (mut steps, mut back) = (0, BLOCK_BYTES);
    loop {
        let (found, end) = walk(archive, begin.max(archive.segment_size().align_down(oldest)), goal).await?;
        let at_first = begin <= oldest;
        if !at_first && !found.is_enough(steps) {
            begin = Lsn(begin.0.saturating_sub(back));
            steps += 1;
            if matches!(goal, Goal::Time { .. }) {
                // It may be the base's start that is far enough back: not so many blocks, but so many times as much.
                back = back.saturating_mul(2);
            }
            continue;
        }
        let broken = match end.why {
            Why::Broken(why) if !found.passed => Some((end.at, why)),
            _ => None,
        };
        let last = found.last.filter(|last| last.end >= consistent);
        let last = last.ok_or_else(|| {
            let detail = format!(
                "the log that is held has no whole record behind {consistent}, where the base is consistent; it ends at {}",
                end.at
            );
            Error::new(ErrorKind::NoSuchPoint, "find the target in", "the log", detail)
                .with_hint("`lifeboat points` shows what can be restored; choose an older base")
        })?;
        return Ok(Resolved {
            target: Target::Record(last.start),
            end: last.end,
            until: last.end.min(held),
            bracket: Bracket {
                last: found.commit,
                next: found.next,
            },
            broken,
        });
    }
}

/// Reads the log from `begin` on until what is wanted was passed.
async fn walk(archive: &Archive, begin: Lsn, goal: Goal) -> Result<(Finder, End)> {
    let held = archive.limit().until;
    let mut scan = Scan::new(begin, archive.segment_size());
    let mut finder = Finder {
        goal,
        first: None,
        last: None,
        commit: None,
        next: None,
        passed: false,
    };
    let (mut at, mut behind) = (scan.begins(), 0);
    while at < held && finder.next.is_none() && behind <= CURIOSITY_BLOCKS {
        let end = block_end(at).min(held);
        let bytes = archive.along_way(at, end).await?;
        (scan, finder) = compute::run("look for records", move || {
            scan.take(&bytes, |record| finder.see(record));
            Ok((scan, finder))
        })
        .await?;
        if scan.is_over() {
            break;
        }
        behind += u64::from(finder.passed);
        at = end;
    }
    let end = scan.finish(|record| finder.see(record));
    Ok((finder, end))
}

#[derive(Debug)]
struct Finder {
    goal: Goal,
    /// When the first transaction ended that did in what was looked at.
    first: Option<i64>,
    last: Option<Record>,
    commit: Option<Commit>,
    next: Option<Commit>,
    passed: bool,
}

impl Finder {
    /// Whether what was looked at began early enough. For a time: with a transaction that ended well before it, so that none of those in front of it
    /// ended later. A mark alone does not say so.
    fn is_enough(&self, steps: u64) -> bool {
        let proven = match self.goal {
            Goal::Lsn(_) => true,
            Goal::Time { at_us, .. } => self.first.is_some_and(|first| first <= at_us.saturating_sub(MARGIN_US)),
        };
        proven && self.last.is_some() && (self.commit.is_some() || steps >= CURIOSITY_BLOCKS)
    }

    fn see(&mut self, record: &Record) {
        let ended = record.ended;
        self.first = self.first.or(ended.map(|ended| ended.at_us));
        let commit = ended.filter(|ended| ended.committed).map(|ended| Commit {
            at_us: ended.at_us,
            end: record.end,
            xid: record.xid,
        });
        self.passed |= match self.goal {
            Goal::Lsn(lsn) => record.end > lsn,
            // The server, too, goes by the first end of a transaction that is later, whatever comes behind it.
            Goal::Time { at_us, .. } => ended.is_some_and(|ended| ended.at_us > at_us),
        };
        if self.passed {
            self.next = self.next.or(commit);
        } else {
            self.last = Some(*record);
            self.commit = commit.or(self.commit);
        }
    }
}
