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

/// What somebody wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Everything up to a position; for the latest moment, the end of what is held.
    Lsn(Lsn),
    /// Every commit until a time, microseconds since 1970.
    Time {
        /// Until when.
        at_us: i64,
        /// From where on to look first, for example from a mark with an earlier time. A mark has nothing older behind it, but may have something
        /// later in front of it: where that shows, it is looked for from further back.
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
    /// Behind the last record: nothing from here on is needed.
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
        Goal::Time { from, .. } => block_start(from),
    };
    let mut steps = 0;
    loop {
        let (found, end) = walk(archive, begin.max(archive.segment_size().align_down(oldest)), goal).await?;
        let at_first = begin <= oldest;
        // Where the first transaction that ends there is later than the time, one before it may be, too: only one that is wanted, in front of
        // it, says that no other is. `from` is a guess.
        let sure = match goal {
            Goal::Lsn(_) => true,
            Goal::Time { .. } => !found.passed,
        };
        let satisfied = found.last.is_some() && (found.commit.is_some() || (sure && steps >= CURIOSITY_BLOCKS));
        if !satisfied && !at_first {
            begin = Lsn(begin.0.saturating_sub(BLOCK_BYTES));
            steps += 1;
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
    last: Option<Record>,
    commit: Option<Commit>,
    next: Option<Commit>,
    passed: bool,
}

impl Finder {
    fn see(&mut self, record: &Record) {
        let ended = record.ended;
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
