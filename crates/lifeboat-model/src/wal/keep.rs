//! Which log has to stay (PG-12).
//!
//! A base needs the log from its start to its end. The anchor (the newest good base that is older than the beginning of the window) and
//! everything newer need all log behind the anchor's start, on every timeline. Without a window, or without a base older than its
//! beginning, the oldest base is the anchor, and nothing behind its start goes. Must not look at time or names: the caller says which bases stay.

use super::{Range, SegmentSize};
use crate::{Lsn, Timeline};

/// A base that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBase {
    /// The history that it was made in.
    pub timeline: Timeline,
    /// Where replaying begins.
    pub start: Lsn,
    /// From where on it is consistent.
    pub end: Lsn,
    /// When it was consistent, microseconds since 1970.
    pub end_us: i64,
    /// Whether a restore may rest on it: its log is held, it counts, and no page of it is known to be bad.
    pub good: bool,
}

/// The log of one lineage that has to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// What is needed from here on, on every timeline. None: nothing was decided, everything stays.
    from: Option<Lsn>,
    /// Ranges in front of that, each for one base that is kept for itself; they count on every timeline.
    ranges: Vec<(Lsn, Lsn)>,
}

impl Keep {
    /// What the bases that are kept need. `window_from_us`: since when every moment has to be reachable; none asks for all that the
    /// oldest base reaches. Without any base everything stays.
    #[must_use]
    pub fn of(size: SegmentSize, bases: &[KeptBase], window_from_us: Option<i64>) -> Self {
        let anchors = bases
            .iter()
            .filter(|base| base.good && window_from_us.is_some_and(|from| base.end_us <= from));
        let anchor = anchors.max_by_key(|base| (base.end_us, base.start)).map(|base| base.start);
        let oldest = bases.iter().map(|base| base.start).min();
        let inside = bases
            .iter()
            // One that is newer than the anchor may still begin in front of it, on another timeline.
            .filter(|base| window_from_us.is_none_or(|from| base.end_us > from))
            .map(|base| base.start)
            .min();
        let from = match anchor {
            Some(anchor) => Some(inside.map_or(anchor, |inside| inside.min(anchor))),
            None => oldest,
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
