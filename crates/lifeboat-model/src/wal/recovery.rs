//! Which moments can be reached, and from which base (PG-01).
//!
//! A base reaches every position from its end on, as far as the log behind its start is held without a gap along the way to a timeline.
//! Times are the server's: a mark says that all that was committed before a time lies before a position. Between two marks nothing is
//! known, so a time counts as reachable only where a mark at or behind it is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coverage, History, Range, SegmentSize};
use crate::{Lsn, Position, Timeline};

/// A backup of a whole cluster, as far as its log is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its name, for the caller.
    pub name: String,
    /// The history that it was made in, from its start to its end.
    pub timeline: Timeline,
    /// Where replaying begins.
    pub start: Lsn,
    /// From where on it is consistent.
    pub end: Lsn,
    /// When it was consistent, by the server: microseconds since 1970.
    pub end_us: i64,
}

impl Base {
    /// The log without which it is nothing.
    #[must_use]
    pub const fn own_log(&self) -> Range {
        Range::new(self.timeline, self.start, self.end)
    }

    const fn end_position(&self) -> Position {
        Position::new(self.timeline, self.end)
    }
}

/// Everything that was committed before `at_us` lies before `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Up to where.
    pub position: Position,
    /// The server's time, microseconds since 1970.
    pub at_us: i64,
}

/// A point that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Where in the log.
    pub position: Position,
    /// The server's time there, as far as a mark or a base says it.
    pub at_us: Option<i64>,
}

/// What somebody wants back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The end of what is held, on the newest timeline.
    Latest,
    /// The moment at which a base was consistent.
    Base(String),
    /// A position, on the newest timeline unless told.
    Lsn(Option<Timeline>, Lsn),
    /// A time, microseconds since 1970, on the newest timeline unless told.
    Time(Option<Timeline>, i64),
}

/// How a target is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The base, by its place among those given.
    pub base: usize,
    /// Along the way to which timeline.
    pub timeline: Timeline,
    /// The log from the base's start to here is needed, and held.
    pub until: Lsn,
}

/// Why a target cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// There is no base on the way to that timeline whose own log is held.
    NoBase,
    /// No base has that name.
    NoSuchBase,
    /// The log between the start and the end of that base is not held: the first range that is missing.
    Incomplete(Range),
    /// It lies before the first base.
    BeforeFirst,
    /// It lies behind what is held.
    Behind,
    /// The log in front of it has a gap.
    Gap(Range),
    /// Nothing is known of that timeline.
    UnknownTimeline(Timeline),
    /// The history file of that timeline is missing, so nobody knows where it came from.
    NoHistory(Timeline),
}

/// A target that cannot be reached, and what can be instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why not.
    pub why: Why,
    /// The last moment before it that can be reached.
    pub before: Option<Moment>,
    /// The first moment behind it that can be reached.
    pub after: Option<Moment>,
}

/// A stretch of moments that can all be reached, on the way to one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The way's timeline.
    pub timeline: Timeline,
    /// The first moment.
    pub from: Moment,
    /// The last one.
    pub to: Moment,
    /// The bases in it, by their places among those given.
    pub bases: Vec<usize>,
}

/// Everything that decides what can be reached.
#[derive(Debug, Clone)]
pub struct Reachable {
    size: SegmentSize,
    bases: Vec<Base>,
    coverage: Coverage,
    ways: BTreeMap<Timeline, History>,
    marks: Vec<Mark>,
    unread: BTreeSet<Timeline>,
}

impl Reachable {
    /// What can be reached with these bases, this log, these history files and these marks, of one lineage.
    #[must_use]
    pub fn new(size: SegmentSize, bases: Vec<Base>, coverage: Coverage, histories: Vec<History>, marks: Vec<Mark>) -> Self {
        let first = std::iter::once(History::first());
        let ways = first.chain(histories).map(|way| (way.timeline(), way)).collect();
        Self {
            size,
            bases,
            coverage,
            ways,
            marks,
            unread: BTreeSet::new(),
        }
    }

    /// The same, where history files of these timelines are held and cannot be read: the timelines are known, the ways to them are not.
    #[must_use]
    pub fn with_unread(mut self, timelines: impl IntoIterator<Item = Timeline>) -> Self {
        self.unread.extend(timelines);
        self
    }

    /// The newest timeline of which anything is known; a newer one than that of the log counts also when only its history file is held.
    #[must_use]
    pub fn newest_timeline(&self) -> Timeline {
        let bases = self.bases.iter().map(|base| base.timeline);
        let known = bases.chain(self.coverage.timelines()).chain(self.ways.keys().copied());
        let known = known.chain(self.unread.iter().copied());
        known.max().unwrap_or(Timeline::FIRST)
    }

    /// Bases whose own log is not held (PG-01): never offered. By their places, with the first range that is missing.
    #[must_use]
    pub fn incomplete(&self) -> Vec<(usize, Range)> {
        let missing = |(place, base): (usize, &Base)| {
            let held = self.ways_of(base).any(|way| self.reach(base, way) >= base.end);
            let gap = || self.coverage.gaps(base.own_log()).first().copied();
            (!held).then(gap).flatten().map(|gap| (place, gap))
        };
        self.bases.iter().enumerate().filter_map(missing).collect()
    }

    /// All stretches of moments, by timeline, ascending. What lies before a timeline began is told with its ancestors.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        let mut windows = Vec::new();
        for way in self.ways.values() {
            let began = way.stretches().next_back().map_or(Lsn::INVALID, |last| last.begin);
            let mut of_way: Vec<Window> = Vec::new();
            for (place, reach) in self.candidates(way) {
                let Some(base) = self.bases.get(place) else { continue };
                match of_way.last_mut() {
                    Some(window) if base.end <= window.to.position.lsn => {
                        window.bases.push(place);
                        window.to = self.moment(way, window.to.position.lsn.max(reach));
                    }
                    _ => of_way.push(Window {
                        timeline: way.timeline(),
                        from: first_moment(base),
                        to: self.moment(way, reach),
                        bases: vec![place],
                    }),
                }
            }
            let own = |window: &Window| began < window.to.position.lsn || way.forks().is_empty();
            windows.extend(of_way.into_iter().filter(own));
        }
        windows
    }

    /// How to reach `target`, or why it cannot be reached and what can be instead.
    pub fn choose(&self, target: &Target) -> Result<Choice, Refusal> {
        match target {
            Target::Base(name) => self.choose_base(name),
            Target::Latest => {
                let way = self.way(None)?;
                let left = way.forks().last().map_or(Lsn::INVALID, |fork| fork.at);
                let end = self.coverage.end(way.timeline()).unwrap_or(Lsn::INVALID).max(left);
                self.choose_lsn(way, end)
            }
            Target::Lsn(timeline, lsn) => self.choose_lsn(self.way(*timeline)?, *lsn),
            Target::Time(timeline, at_us) => self.choose_time(self.way(*timeline)?, *at_us),
        }
    }

    /// Where to begin to look in the log for the last commit until `at_us`: the newest position on the chosen way, not behind the choice, with a
    /// mark that is earlier by `margin_us`; else the base's start. A hint: a mark says what lies in front of its position, not that nothing
    /// later does, so whoever looks has to see that it is early enough there.
    #[must_use]
    pub fn look_from(&self, choice: &Choice, at_us: i64, margin_us: i64) -> Lsn {
        let start = self.bases.get(choice.base).map_or(Lsn::INVALID, |base| base.start);
        let Some(way) = self.ways.get(&choice.timeline) else {
            return start;
        };
        let earlier = self
            .marks_along(way)
            .filter(|mark| mark.at_us <= at_us.saturating_sub(margin_us) && mark.position.lsn <= choice.until);
        earlier.map(|mark| mark.position.lsn).fold(start, Lsn::max)
    }

    /// Whether a target that is refused here may lie in an older lineage of the cluster, which was left when it was set back to an earlier moment:
    /// it is not refused for what this one holds, but for what it does not reach back to. Positions are those of a lineage: one that is held here
    /// means this one.
    #[must_use]
    pub fn may_be_older(&self, target: &Target, refusal: &Refusal) -> bool {
        let reaches_back = |lsn: Lsn| self.coverage.ranges().any(|range| range.start <= lsn);
        match (target, &refusal.why) {
            (Target::Time(..), Why::BeforeFirst | Why::NoBase | Why::UnknownTimeline(_)) => true,
            (Target::Lsn(_, lsn), Why::BeforeFirst | Why::NoBase | Why::UnknownTimeline(_)) => !reaches_back(*lsn),
            _ => false,
        }
    }

    fn way(&self, timeline: Option<Timeline>) -> Result<&History, Refusal> {
        let newest = self.newest_timeline();
        let wanted = timeline.unwrap_or(newest);
        let known = || {
            let bases = self.bases.iter().map(|base| base.timeline);
            self.coverage.timelines().chain(bases).chain(self.unread.iter().copied())
        };
        self.ways.get(&wanted).ok_or_else(|| {
            let why = if known().any(|timeline| timeline == wanted) {
                Why::NoHistory(wanted)
            } else {
                Why::UnknownTimeline(wanted)
            };
            self.refuse(why, |_| false)
        })
    }

    /// The ways on which a base's end lies: its own timeline's first.
    fn ways_of<'a>(&'a self, base: &'a Base) -> impl Iterator<Item = &'a History> {
        let own = self.ways.get(&base.timeline);
        let others = self.ways.values().filter(|way| way.timeline() != base.timeline);
        own.into_iter().chain(others).filter(|way| way.passes(base.end_position()))
    }

    /// How far the log behind a base's start is held along a way.
    fn reach(&self, base: &Base, way: &History) -> Lsn {
        self.coverage.end_along(way, self.size, base.start)
    }

    /// The complete bases on a way with how far each reaches, in the order of their ends.
    fn candidates(&self, way: &History) -> Vec<(usize, Lsn)> {
        let on_way = self
            .bases
            .iter()
            .enumerate()
            .filter(|(_, base)| way.passes(base.end_position()));
        let reaching = on_way.map(|(place, base)| (place, base.end, self.reach(base, way)));
        let mut complete: Vec<_> = reaching.filter(|(_, end, reach)| reach >= end).collect();
        complete.sort_by_key(|(place, end, _)| (*end, *place));
        complete.into_iter().map(|(place, _, reach)| (place, reach)).collect()
    }

    fn choose_base(&self, name: &str) -> Result<Choice, Refusal> {
        let Some((place, base)) = self.bases.iter().enumerate().find(|(_, base)| base.name == name) else {
            return Err(self.refuse(Why::NoSuchBase, |_| false));
        };
        if let Some(way) = self.ways_of(base).find(|way| self.reach(base, way) >= base.end) {
            return Ok(Choice {
                base: place,
                timeline: way.timeline(),
                until: base.end,
            });
        }
        let missing = self.coverage.gaps(base.own_log()).first().copied();
        let why = match missing {
            Some(range) if self.ways.contains_key(&base.timeline) => Why::Incomplete(range),
            _ => Why::NoHistory(base.timeline),
        };
        Err(self.refuse(why, |moment| moment.position.lsn < base.end))
    }

    fn choose_lsn(&self, way: &History, lsn: Lsn) -> Result<Choice, Refusal> {
        let candidates = self.candidates(way);
        let before = |moment: &Moment| moment.position.lsn < lsn;
        let end_of = |place: usize| self.bases.get(place).map_or(Lsn::INVALID, |base| base.end);
        // The newest reaches farthest: an older one that comes as far has passed it.
        let newest = candidates.iter().rev().find(|(place, _)| end_of(*place) <= lsn);
        match newest {
            None if candidates.is_empty() => Err(self.refuse(Why::NoBase, before)),
            None => Err(self.refuse(Why::BeforeFirst, before)),
            Some((place, reach)) if *reach >= lsn => Ok(Choice {
                base: *place,
                timeline: way.timeline(),
                until: lsn,
            }),
            Some((_, reach)) => Err(self.refuse(self.why_not_behind(way, *reach), before)),
        }
    }

    fn choose_time(&self, way: &History, at_us: i64) -> Result<Choice, Refusal> {
        let candidates = self.candidates(way);
        let before = |moment: &Moment| moment.at_us.is_some_and(|at| at < at_us);
        let end_us = |place: usize| self.bases.get(place).map_or(i64::MAX, |base| base.end_us);
        let newest = candidates.iter().rev().find(|(place, _)| end_us(*place) < at_us);
        let Some((place, reach)) = newest else {
            let why = if candidates.is_empty() {
                Why::NoBase
            } else {
                Why::BeforeFirst
            };
            return Err(self.refuse(why, before));
        };
        let base_end = self.bases.get(*place).map_or(Lsn::INVALID, |base| base.end);
        let marks = self
            .marks_along(way)
            .filter(|mark| mark.at_us >= at_us && mark.position.lsn <= *reach);
        match marks.map(|mark| mark.position.lsn).min() {
            Some(until) => Ok(Choice {
                base: *place,
                timeline: way.timeline(),
                until: until.max(base_end),
            }),
            None => Err(self.refuse(self.why_not_behind(way, *reach), before)),
        }
    }

    /// A gap, where more is held behind it on the way; else the end of what is held.
    fn why_not_behind(&self, way: &History, reach: Lsn) -> Why {
        let timeline = way.timeline_at(reach);
        for stretch in way.stretches().filter(|stretch| stretch.end.is_none_or(|end| reach < end)) {
            let starts = self.coverage.ranges().filter(|range| range.timeline == stretch.timeline);
            let behind = starts.map(|range| range.start).filter(|start| *start > reach).min();
            if let Some(start) = behind.filter(|start| stretch.end.is_none_or(|end| *start < end)) {
                return Why::Gap(Range::new(timeline, reach, start));
            }
        }
        Why::Behind
    }

    fn marks_along<'a>(&'a self, way: &'a History) -> impl Iterator<Item = &'a Mark> {
        self.marks.iter().filter(|mark| way.passes(mark.position))
    }

    /// The moment at a position of a way; its time is that of the last mark up to there.
    fn moment(&self, way: &History, lsn: Lsn) -> Moment {
        let marks = self.marks_along(way).filter(|mark| mark.position.lsn <= lsn);
        Moment {
            position: Position::new(way.timeline_at(lsn), lsn),
            at_us: marks.map(|mark| mark.at_us).max(),
        }
    }

    /// A refusal with the nearest moments on either side of what was wanted.
    fn refuse(&self, why: Why, before: impl Fn(&Moment) -> bool) -> Refusal {
        let mut seen = BTreeSet::new();
        let mut ends = Vec::new();
        for window in self.windows() {
            for moment in [window.from, window.to] {
                if seen.insert((moment.position, moment.at_us)) {
                    ends.push(moment);
                }
            }
        }
        let order = |moment: &Moment| (moment.position.lsn, moment.position.timeline, moment.at_us);
        Refusal {
            why,
            before: ends
                .iter()
                .filter(|moment| before(moment))
                .max_by_key(|moment| order(moment))
                .copied(),
            after: ends
                .iter()
                .filter(|moment| !before(moment))
                .min_by_key(|moment| order(moment))
                .copied(),
        }
    }
}

impl Refusal {
    /// The refusal of a target that was looked for in another lineage, too, and is refused there as `other`: what says most, with the nearest moments
    /// of both by their times.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let says_little = matches!(
            other.why,
            Why::NoBase | Why::BeforeFirst | Why::UnknownTimeline(_) | Why::Behind
        );
        let timed = |moments: [Option<Moment>; 2]| moments.into_iter().flatten().filter(|moment| moment.at_us.is_some());
        Self {
            before: timed([self.before, other.before])
                .max_by_key(|moment| moment.at_us)
                .or(self.before)
                .or(other.before),
            after: timed([self.after, other.after])
                .min_by_key(|moment| moment.at_us)
                .or(self.after)
                .or(other.after),
            why: if says_little { self.why } else { other.why },
        }
    }
}

fn first_moment(base: &Base) -> Moment {
    Moment {
        position: base.end_position(),
        at_us: Some(base.end_us),
    }
}
