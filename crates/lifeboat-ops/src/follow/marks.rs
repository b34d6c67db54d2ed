//! What the server says about times: everything that it had flushed when it sent log lies before the end that the message names.
//!
//! The time of a commit is taken before its record is flushed: by up to three times `wal_writer_delay` (0.6 s unless told) where commits do not
//! wait. So a time counts for a position only with a margin. It is a promise about where to look, not a proof: a restore proves what it reached.
//!
//! A message that only says that the server is alive names what it has **sent** so far, and not what it has: while it cannot send, its log grows.
//! So the time of one counts only once a later one names the same end, with no log between them: then the server had nothing to send.

use std::collections::VecDeque;
use std::time::Duration;

use lifeboat_model::{Lsn, Position, Timeline};

const MARGIN_US: i64 = 1_000_000;
const KEPT: usize = 1024;
/// Two signs of life count as apart only where they came in so long one after the other: what waited in a queue comes at once.
const APART: Duration = Duration::from_millis(500);

/// The newest messages.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    said: VecDeque<(Position, i64)>,
    alive: Option<Alive>,
}

/// A sign of life.
#[derive(Debug, Clone, Copy)]
struct Alive {
    sent: Position,
    at_us: i64,
    heard: Duration,
}

impl Marks {
    /// The server had flushed to `end` at `at_us` of its clock (microseconds since 1970), and sent some of it.
    pub(crate) fn observe(&mut self, end: Position, at_us: i64) {
        self.alive = None;
        self.take(end, at_us);
    }

    /// The server says at `at_us` of its clock that it has sent everything before `sent`; heard at `heard` of ours.
    pub(crate) fn alive(&mut self, sent: Position, at_us: i64, heard: Duration) {
        let before = self.alive.replace(Alive { sent, at_us, heard });
        let Some(before) = before.filter(|before| before.sent == sent) else {
            return;
        };
        let waited = heard.saturating_sub(before.heard);
        let waited_us = i64::try_from((waited + APART).as_micros()).unwrap_or(i64::MAX);
        let is_apart = waited >= APART && at_us.saturating_sub(before.at_us) <= waited_us;
        let is_all = self
            .said
            .back()
            .is_none_or(|(end, _)| end.timeline == sent.timeline && end.lsn <= sent.lsn);
        if is_apart && is_all {
            self.take(sent, before.at_us);
        }
    }

    fn take(&mut self, end: Position, at_us: i64) {
        match self.said.back_mut() {
            Some((last, known_us)) if *last == end => *known_us = at_us.max(*known_us),
            _ => {
                if self.said.len() == KEPT {
                    self.said.pop_front();
                }
                self.said.push_back((end, at_us));
            }
        }
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
        let (position, at_us) = self.said.front()?;
        (position.timeline == timeline && position.lsn <= end).then(|| at_us.saturating_sub(MARGIN_US))
    }

    /// Another server, perhaps with another clock.
    pub(crate) fn clear(&mut self) {
        self.said.clear();
        self.alive = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Timeline = Timeline::FIRST;

    fn at(lsn: u64) -> Position {
        Position::new(ONE, Lsn(lsn))
    }

    #[test]
    fn a_time_counts_once_its_end_is_reached() {
        let mut marks = Marks::default();
        assert_eq!(marks.as_of(ONE, Lsn(10)), None);
        marks.observe(at(10), 5_000_000);
        marks.observe(at(10), 6_000_000);
        marks.observe(at(30), 7_000_000);
        assert_eq!(marks.as_of(ONE, Lsn(9)), None);
        assert_eq!(marks.as_of(ONE, Lsn(29)), Some(5_000_000));
        assert_eq!(marks.as_of(ONE, Lsn(31)), Some(6_000_000));
        let two = Timeline::new(2).unwrap();
        assert_eq!(marks.as_of(two, Lsn(31)), None);
        marks.clear();
        assert_eq!(marks.as_of(ONE, Lsn(31)), None);
    }

    /// While the server sends, what it has sent is not what it has: a time taken from that would promise commits that are not there.
    #[test]
    fn a_sign_of_life_counts_once_another_follows_with_nothing_between() {
        let heard = Duration::from_secs;
        let mut marks = Marks::default();
        marks.observe(at(50), 1_000_000);
        marks.alive(at(20), 20_000_000, heard(20));
        marks.alive(at(20), 30_000_000, heard(30));
        assert_eq!(marks.as_of(ONE, Lsn(20)), None, "the server said that it has more");
        marks.alive(at(50), 40_000_000, heard(40));
        assert_eq!(marks.as_of(ONE, Lsn(50)), Some(0), "nobody knows yet whether that was all");
        marks.alive(at(50), 50_000_000, heard(50));
        assert_eq!(marks.as_of(ONE, Lsn(50)), Some(39_000_000));
        // Log came in between.
        marks.observe(at(60), 55_000_000);
        marks.alive(at(60), 60_000_000, heard(60));
        assert_eq!(marks.as_of(ONE, Lsn(60)), Some(54_000_000));
        // Two that had waited in a queue.
        marks.alive(at(60), 70_000_000, heard(60));
        assert_eq!(marks.as_of(ONE, Lsn(60)), Some(54_000_000));
        marks.alive(at(60), 95_000_000, heard(70));
        assert_eq!(marks.as_of(ONE, Lsn(60)), Some(54_000_000));
        marks.alive(at(60), 105_000_000, heard(80));
        assert_eq!(marks.as_of(ONE, Lsn(60)), Some(94_000_000));
    }
}
