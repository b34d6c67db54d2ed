//! Where timelines left their parents: what the server calls a history file, and what follows for a way through the log.
//!
//! A timeline's number says nothing about its parent: 5 may have left 2. What no history file says is not known.

use crate::{Error, ErrorKind, Lsn, Position, Result, Timeline};

/// A timeline that another one left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The ancestor.
    pub timeline: Timeline,
    /// Where it was left: the first byte that is not of it any more.
    pub at: Lsn,
}

/// The part of a way through the log that lies on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Which timeline.
    pub timeline: Timeline,
    /// Its first byte.
    pub begin: Lsn,
    /// Where it was left; none for the last.
    pub end: Option<Lsn>,
}

/// The way to a timeline: all its ancestors, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    timeline: Timeline,
    forks: Vec<Fork>,
}

impl History {
    /// The way to the first timeline, which has no history file.
    #[must_use]
    pub const fn first() -> Self {
        Self {
            timeline: Timeline::FIRST,
            forks: Vec::new(),
        }
    }

    /// Reads the history file of `timeline`, as the server does: on each line a timeline, a position and words for people, between white
    /// space; lines that are empty or begin with `#` say nothing. Ancestors ascend, and none is left before the one in front of it.
    /// Kind `Corrupt` for anything else.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self> {
        let wrong = |line: &str, detail: &str| {
            let subject = format!("history of timeline {timeline}, line {line:?}");
            Error::new(ErrorKind::Corrupt, "read", subject, detail)
        };
        let mut forks: Vec<Fork> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(number), Some(at)) = (words.next(), words.next()) else {
                return Err(wrong(line, "it names no timeline and position"));
            };
            let number = number
                .parse()
                .map_err(|error| wrong(line, "its timeline is no number from 1 on").with_source(error))?;
            let at = at
                .parse()
                .map_err(|error| wrong(line, "its position does not read").with_source(error))?;
            let fork = Fork { timeline: number, at };
            if forks.last().is_some_and(|last| last.timeline >= fork.timeline) {
                return Err(wrong(line, "timelines do not ascend"));
            }
            if forks.last().is_some_and(|last| last.at > fork.at) {
                return Err(wrong(line, "it was left before it began"));
            }
            forks.push(fork);
        }
        if forks.last().is_some_and(|last| last.timeline >= timeline) {
            return Err(wrong("", "it names itself, or a later one, as its ancestor"));
        }
        if forks.is_empty() && timeline != Timeline::FIRST {
            return Err(wrong("", "it names no ancestor"));
        }
        Ok(Self { timeline, forks })
    }

    /// Which timeline it leads to.
    #[must_use]
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The ancestors, the oldest first.
    #[must_use]
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// The way, stretch by stretch, the oldest first; the last has no end.
    pub fn stretches(&self) -> impl DoubleEndedIterator<Item = Stretch> + '_ {
        let begins = std::iter::once(Lsn::INVALID).chain(self.forks.iter().map(|fork| fork.at));
        let ends = self.forks.iter().map(|fork| (fork.timeline, Some(fork.at)));
        let parts: Vec<Stretch> = ends
            .chain([(self.timeline, None)])
            .zip(begins)
            .map(|((timeline, end), begin)| Stretch { timeline, begin, end })
            .collect();
        parts.into_iter()
    }

    /// Whether the log up to `position` is part of this way: it lies on the timeline itself, or on an ancestor not behind the point
    /// where that was left.
    #[must_use]
    pub fn passes(&self, position: Position) -> bool {
        self.stretches().any(|stretch| {
            stretch.timeline == position.timeline
                && stretch.begin <= position.lsn
                && stretch.end.is_none_or(|end| position.lsn <= end)
        })
    }

    /// The timeline to which the byte at `lsn` belongs on this way.
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> Timeline {
        let fork = self.forks.iter().find(|fork| lsn < fork.at);
        fork.map_or(self.timeline, |fork| fork.timeline)
    }
}
