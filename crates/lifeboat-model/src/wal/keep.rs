//! Which log has to stay (PG-12).
//!
//! Every base that stays needs the log from its start to its end. Those on which moments behind them rest (all of them, or with a recovery
//! window those that [`super::needed()`] names) need all log behind their start, on every timeline. Must not look at time or names: the caller says
//! which bases stay, and why.

use super::{Range, SegmentSize};
use crate::Lsn;

/// What a base that stays needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Its own log, and everything behind it.
    Onward,
    /// Its own log: it is kept for itself, by a count or by somebody.
    Own,
}

/// A base that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBase {
    /// Where replaying begins.
    pub start: Lsn,
    /// From where on it is consistent.
    pub end: Lsn,
    /// How much log it needs.
    pub needs: Needs,
}

/// The log of one lineage that has to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// What is needed from here on, on every timeline. None: nothing was decided, everything stays.
    from: Option<Lsn>,
    /// Ranges in front of that, each for one base; they count on every timeline.
    ranges: Vec<(Lsn, Lsn)>,
}

impl Keep {
    /// What the bases that are kept need. Without any base everything stays.
    #[must_use]
    pub fn of(size: SegmentSize, bases: &[KeptBase]) -> Self {
        let onward = bases.iter().filter(|base| base.needs == Needs::Onward);
        let from = match onward.map(|base| base.start).min() {
            None if bases.is_empty() => None,
            from => Some(from.unwrap_or(Lsn(u64::MAX))),
        };
        let aligned = |base: &KeptBase| (size.align_down(base.start), size.align_up(base.end));
        Self {
            from: from.map(|from| size.align_down(from)),
            ranges: bases.iter().map(aligned).collect(),
        }
    }

    /// Whether a piece of log may go. Never answers yes for a byte behind the start of what is needed.
    #[must_use]
    pub fn may_go(&self, range: &Range) -> bool {
        let in_front = self.from.is_some_and(|from| range.end <= from);
        let needed = |(start, end): &(Lsn, Lsn)| *start < range.end && range.start < *end;
        in_front && !self.ranges.iter().any(needed)
    }
}
