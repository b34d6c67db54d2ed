//! What the server says about times: everything that it had flushed when it sent a message lies before the end that the message names.
//!
//! Only a message of log says that, and only on the timeline on which the server is: a sign of life names what was sent (see `idle`). The time of a
//! commit is taken before its record is flushed: by up to three times `wal_writer_delay` (0.6 s unless told) where commits do not
//! wait. So a time counts for a position only with a margin. It is a promise about where to look, not a proof: a restore proves what it reached.

use std::collections::VecDeque;

use lifeboat_model::{Lsn, Position, Timeline};

const MARGIN_US: i64 = 1_000_000;
const KEPT: usize = 1024;

/// What was said and is not reached yet; far behind, not all of it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// By position.
    said: VecDeque<(Position, i64)>,
    /// All but the last are so many bytes of log apart.
    step: u64,
}

impl Marks {
    /// The server had flushed to `end` at `at_us` (microseconds since 1970), and no further.
    pub(crate) fn observe(&mut self, end: Position, at_us: i64) {
        if let Some((_, known_us)) = self.said.back_mut().filter(|(last, _)| *last == end) {
            *known_us = at_us.max(*known_us);
            return;
        }
        let before = self.said.len().checked_sub(2).and_then(|place| self.said.get(place));
        if before.is_some_and(|(before, _)| end.lsn.since(before.lsn) < self.step) {
            self.said.pop_back();
        }
        if self.said.len() == KEPT {
            self.thin();
        }
        self.said.push_back((end, at_us));
    }

    /// Far behind a server that writes: what is reached next matters as much as what was said last.
    fn thin(&mut self) {
        let ends = self.said.front().zip(self.said.back());
        let span = ends.map_or(0, |((first, _), (last, _))| last.lsn.since(first.lsn));
        self.step = (span / (KEPT as u64 / 2)).max(1);
        let (step, mut kept) = (self.step, None);
        self.said.retain(|(position, _)| {
            let is_apart = kept.is_none_or(|kept| position.lsn.since(kept) >= step);
            if is_apart {
                kept = Some(position.lsn);
            }
            is_apart
        });
    }

    /// Everything that was committed before this time lies before `end`; none where nobody said so.
    pub(crate) fn as_of(&mut self, timeline: Timeline, end: Lsn) -> Option<i64> {
        while self
            .said
            .get(1)
            .is_some_and(|(next, _)| next.timeline == timeline && next.lsn <= end)
        {
            self.said.pop_front();
        }
        if self.said.len() < 2 {
            self.step = 0;
        }
        let (position, at_us) = self.said.front()?;
        (position.timeline == timeline && position.lsn <= end).then(|| at_us.saturating_sub(MARGIN_US))
    }

    /// Another server, perhaps with another clock.
    pub(crate) fn clear(&mut self) {
        self.said.clear();
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lsn: u64) -> Position {
        Position::new(Timeline::FIRST, Lsn(lsn))
    }

    #[test]
    fn a_time_counts_once_its_end_is_reached() {
        let mut marks = Marks::default();
        assert_eq!(marks.as_of(Timeline::FIRST, Lsn(10)), None);
        marks.observe(at(10), 5_000_000);
        marks.observe(at(10), 6_000_000);
        marks.observe(at(30), 7_000_000);
        assert_eq!(marks.as_of(Timeline::FIRST, Lsn(9)), None);
        assert_eq!(marks.as_of(Timeline::FIRST, Lsn(29)), Some(5_000_000));
        assert_eq!(marks.as_of(Timeline::FIRST, Lsn(31)), Some(6_000_000));
        let two = Timeline::new(2).unwrap();
        assert_eq!(marks.as_of(two, Lsn(31)), None);
        marks.clear();
        assert_eq!(marks.as_of(Timeline::FIRST, Lsn(31)), None);
    }

    /// Far behind a server that writes, what it said first is reached first.
    #[test]
    fn many_messages_ahead_leave_some_that_are_reached_soon() {
        let mut marks = Marks::default();
        for step in 1..=100_000 {
            marks.observe(at(step * 100), i64::try_from(step).unwrap() * 1_000_000);
        }
        assert!(marks.said.len() <= KEPT);
        let reached = marks.as_of(Timeline::FIRST, Lsn(5_000_000)).unwrap();
        assert!((49_000_000_000..50_000_000_000).contains(&reached), "{reached}");
    }
}
