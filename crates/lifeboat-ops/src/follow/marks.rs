//! What the server says about times: everything that it had flushed when it sent a message lies before the end that the message names.
//!
//! The time of a commit is taken before its record is flushed: by up to three times `wal_writer_delay` (0.6 s unless told) where commits do not
//! wait. So a time counts for a position only with a margin. It is a promise about where to look, not a proof: a restore proves what it reached.

use std::collections::VecDeque;

use lifeboat_model::{Lsn, Position, Timeline};

const MARGIN_US: i64 = 1_000_000;
const KEPT: usize = 1024;

/// The newest messages.
#[derive(Debug, Default)]
pub(crate) struct Marks(VecDeque<(Position, i64)>);

impl Marks {
    /// The server had flushed to `end` at `at_us` of its clock (microseconds since 1970).
    pub(crate) fn observe(&mut self, end: Position, at_us: i64) {
        match self.0.back_mut() {
            Some((last, known_us)) if *last == end => *known_us = at_us.max(*known_us),
            _ => {
                if self.0.len() == KEPT {
                    self.0.pop_front();
                }
                self.0.push_back((end, at_us));
            }
        }
    }

    /// Everything that was committed before this time lies before `end`; none where nobody said so.
    pub(crate) fn as_of(&mut self, timeline: Timeline, end: Lsn) -> Option<i64> {
        while self
            .0
            .get(1)
            .is_some_and(|(next, _)| next.timeline == timeline && next.lsn <= end)
        {
            self.0.pop_front();
        }
        let (position, at_us) = self.0.front()?;
        (position.timeline == timeline && position.lsn <= end).then(|| at_us.saturating_sub(MARGIN_US))
    }

    /// Another server, perhaps with another clock.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_once_its_end_is_reached() {
        let mut marks = Marks::default();
        let at = |lsn| Position::new(Timeline::FIRST, Lsn(lsn));
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
}
