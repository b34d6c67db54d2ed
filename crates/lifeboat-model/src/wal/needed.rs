//! Which bases a recovery window needs (PG-12): with them, and all log behind their starts, every moment since the window began that can be
//! reached can still be reached.
//!
//! Decided without a key: where one timeline left another stands in history files, which are sealed. So a way from one timeline to a higher one
//! is taken for possible unless positions rule it out, and what is not known keeps a base. Times are the caller's: those of the store and, for
//! bases, of the server, as far as their order bears them out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coverage, Range, SegmentSize};
use crate::{Lsn, Timeline};

/// A good base: it counts, and its own log is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowBase {
    /// The history that it was made in.
    pub timeline: Timeline,
    /// Where replaying begins.
    pub start: Lsn,
    /// From where on it is consistent.
    pub end: Lsn,
    /// Its place in time, microseconds since 1970: everything that it holds was committed before.
    pub at_us: i64,
    /// No page of it is known to be bad: one that has bad pages takes the place of none that has not (PG-11).
    pub clean: bool,
}

/// The log of one lineage, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLog {
    /// Its segments.
    pub size: SegmentSize,
    /// What is held.
    pub coverage: Coverage,
    /// When the newest file of each timeline was stored: microseconds since 1970, by the store.
    pub stored_us: BTreeMap<Timeline, i64>,
}

/// What a window needs a base for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needed {
    /// It is the newest in front of the window's beginning.
    Begins,
    /// It lies in the window, and no earlier one that stays reaches it: log is missing in front of it, or it is the first.
    Continues,
}

/// The bases that a window since `from_us` needs, by their places among those given. `is_newest`: of all lineages; its end is in every window,
/// however long nothing was written.
#[must_use]
pub fn needed(log: &HeldLog, bases: &[WindowBase], from_us: i64, is_newest: bool) -> BTreeMap<usize, Needed> {
    let live = live(log, bases, from_us, is_newest);
    let mut order: Vec<usize> = (0..bases.len()).collect();
    order.sort_by_key(|place| bases.get(*place).map(|base| (base.timeline, base.end, *place)));
    let mut needed = BTreeMap::new();
    for place in order {
        let Some(base) = bases.get(place) else { continue };
        if base.at_us < from_us {
            if !is_superseded(log, bases, from_us, &live, place) {
                needed.insert(place, Needed::Begins);
            }
            continue;
        }
        let reaches = |earlier: &WindowBase| {
            let between = Range::new(base.timeline, earlier.start, base.end);
            earlier.timeline == base.timeline && stands_in(earlier, base) && log.coverage.holds(between)
        };
        let stay = || needed.keys().filter_map(|place| bases.get(*place));
        // Somebody has to say afterwards that this moment lies on this timeline, for as long as it is in the window: log that was stored since, or another
        // base. Backups of a standby to which nothing comes end where they began, and each reaches the next.
        let is_told = log
            .stored_us
            .get(&base.timeline)
            .is_some_and(|stored_us| *stored_us >= base.at_us)
            || stay().any(|other| other.timeline == base.timeline && other.at_us >= base.at_us);
        if !is_told || !stay().any(reaches) {
            needed.insert(place, Needed::Continues);
        }
    }
    needed
}

/// The timelines on which moments of the window may lie: log is stored after it is written.
fn live(log: &HeldLog, bases: &[WindowBase], from_us: i64, is_newest: bool) -> BTreeSet<Timeline> {
    let stored = log.stored_us.iter().filter(|(_, stored_us)| **stored_us >= from_us);
    let made = bases.iter().filter(|base| base.at_us >= from_us);
    let mut live: BTreeSet<Timeline> = stored
        .map(|(timeline, _)| *timeline)
        .chain(made.map(|base| base.timeline))
        .collect();
    if is_newest {
        let latest = log
            .stored_us
            .iter()
            .max_by_key(|(timeline, stored_us)| (**stored_us, **timeline));
        live.extend(latest.map(|(timeline, _)| *timeline));
        let known = log.stored_us.keys().copied().chain(bases.iter().map(|base| base.timeline));
        live.extend(known.max());
    }
    live
}

const fn stands_in(other: &WindowBase, base: &WindowBase) -> bool {
    other.clean || !base.clean
}

/// Whether newer bases in front of the window reach every moment of it that this one reaches. Whoever takes its place may be superseded itself: by
/// one that does all the same.
fn is_superseded(log: &HeldLog, bases: &[WindowBase], from_us: i64, live: &BTreeSet<Timeline>, place: usize) -> bool {
    let Some(base) = bases.get(place) else { return false };
    let reached = live.iter().filter(|timeline| **timeline >= base.timeline);
    let newer = |(other, candidate): &(usize, &WindowBase)| {
        candidate.at_us < from_us
            && stands_in(candidate, base)
            && (candidate.timeline, candidate.end, *other) > (base.timeline, base.end, place)
    };
    let takes = |candidate: &WindowBase, live: Timeline| {
        candidate.timeline == live || (candidate.timeline == base.timeline && leads_the_same_way(log, base, candidate, live))
    };
    let candidates: Vec<&WindowBase> = bases.iter().enumerate().filter(newer).map(|(_, newer)| newer).collect();
    reached
        .into_iter()
        .all(|live| candidates.iter().any(|candidate| takes(candidate, *live)))
}

/// Whether no timeline up to `to` can have left theirs between the ends of the two: it begins with a copy of the segment in which it left.
fn leads_the_same_way(log: &HeldLog, earlier: &WindowBase, later: &WindowBase, to: Timeline) -> bool {
    let between = |timeline: &Timeline| *timeline > earlier.timeline && *timeline <= to;
    log.coverage.timelines().filter(between).all(|timeline| {
        let begin = log
            .coverage
            .ranges()
            .find(|range| range.timeline == timeline)
            .map(|range| range.start);
        begin.is_none_or(|begin| {
            let begin = log.size.align_down(begin);
            later.end <= begin || earlier.end >= begin.plus(log.size.bytes())
        })
    })
}
