//! Coverage: of which bytes of the log we hold every one, by timeline (PG-04).
//!
//! A set of ranges that are apart from each other. What is not in it is not held: nothing here guesses, rounds up or fills.

use std::collections::BTreeMap;

use super::{History, SegmentSize};
use crate::{Lsn, Timeline};

/// Bytes of one timeline, from the first to just before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// Which timeline.
    pub timeline: Timeline,
    /// The first byte.
    pub start: Lsn,
    /// The byte behind the last.
    pub end: Lsn,
}

impl Range {
    /// From `start` to just before `end`; empty where that is not behind it.
    #[must_use]
    pub const fn new(timeline: Timeline, start: Lsn, end: Lsn) -> Self {
        Self { timeline, start, end }
    }

    /// How many bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.end.since(self.start)
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }

    /// Whether the other one lies inside, on the same timeline.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.timeline == other.timeline && self.start <= other.start && other.end <= self.end
    }

    /// Whether both have a byte in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let start = self.start.max(other.start);
        self.timeline == other.timeline && start < self.end.min(other.end)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {} on timeline {}", self.start, self.end, self.timeline)
    }
}

/// The bytes that are held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<Timeline, BTreeMap<Lsn, Lsn>>);

impl Coverage {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range; ranges that touch become one.
    pub fn add(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let ranges = self.0.entry(range.timeline).or_default();
        let (mut start, mut end) = (range.start, range.end);
        // Those that touch end a row of neighbours, looking backwards from the end.
        while let Some((&low, &high)) = ranges.range(..=end).next_back() {
            if high < start {
                break;
            }
            ranges.remove(&low);
            start = start.min(low);
            end = end.max(high);
        }
        ranges.insert(start, end);
    }

    /// Takes a range away.
    pub fn remove(&mut self, range: Range) {
        if range.is_empty() {
            return;
        }
        let Some(ranges) = self.0.get_mut(&range.timeline) else {
            return;
        };
        while let Some((&low, &high)) = ranges.range(..range.end).next_back() {
            if high <= range.start {
                break;
            }
            ranges.remove(&low);
            if low < range.start {
                ranges.insert(low, range.start);
            }
            if range.end < high {
                ranges.insert(range.end, high);
            }
        }
        if ranges.is_empty() {
            self.0.remove(&range.timeline);
        }
    }

    /// Adds everything that another one holds.
    pub fn unite(&mut self, other: &Self) {
        other.ranges().for_each(|range| self.add(range));
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The timelines of which something is held, ascending.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = Timeline> + '_ {
        self.0.keys().copied()
    }

    /// All ranges: by timeline, ascending, apart from each other.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.0
            .iter()
            .flat_map(|(&timeline, ranges)| ranges.iter().map(move |(&start, &end)| Range { timeline, start, end }))
    }

    /// Whether every byte of `range` is held. An empty one is.
    #[must_use]
    pub fn holds(&self, range: Range) -> bool {
        range.is_empty() || self.end_from(range.timeline, range.start) >= range.end
    }

    /// How far the log is held without a gap from `start` on; `start` itself where the byte there is not held.
    #[must_use]
    pub fn end_from(&self, timeline: Timeline, start: Lsn) -> Lsn {
        let below = self.0.get(&timeline).and_then(|ranges| ranges.range(..=start).next_back());
        below.map_or(start, |(_, &end)| end.max(start))
    }

    /// The end of the last range of a timeline: where following goes on.
    #[must_use]
    pub fn end(&self, timeline: Timeline) -> Option<Lsn> {
        self.0.get(&timeline)?.last_key_value().map(|(_, &end)| end)
    }

    /// What of `range` is not held, ascending.
    #[must_use]
    pub fn gaps(&self, range: Range) -> Vec<Range> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let end = self.end_from(range.timeline, at);
            if end > at {
                at = end;
                continue;
            }
            let next = self.0.get(&range.timeline).and_then(|ranges| ranges.range(at..).next());
            let until = next.map_or(range.end, |(&start, _)| start.min(range.end));
            gaps.push(Range::new(range.timeline, at, until));
            at = until;
        }
        gaps
    }

    /// How far the log is held without a gap from `start` on, along the way to a timeline. The segment in which a timeline was left is
    /// written by the new one from its beginning on, with the same bytes: what is held of it there counts. `start` where nothing is held.
    #[must_use]
    pub fn end_along(&self, way: &History, size: SegmentSize, start: Lsn) -> Lsn {
        let mut at = start;
        loop {
            let mut farthest = at;
            for stretch in way.stretches() {
                let begin = size.align_down(stretch.begin);
                if at < begin || stretch.end.is_some_and(|end| end <= at) {
                    continue;
                }
                let end = self.end_from(stretch.timeline, at);
                farthest = farthest.max(stretch.end.map_or(end, |left| end.min(left)));
            }
            if farthest == at {
                return at;
            }
            at = farthest;
        }
    }
}
