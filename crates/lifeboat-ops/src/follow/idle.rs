//! A server that writes nothing: until when is everything held? Pure.
//!
//! A sign of life names how far the server has *sent*, with the time at which it says so; what it had flushed by then may be more. So an answer counts
//! only once a later one, to a question put a while after the first came, names the same end and no log came in between: the server's loop
//! ran in the meantime, looked for log behind that end, and had none at the time of the first.

use std::collections::VecDeque;
use std::time::Duration;

use lifeboat_model::Lsn;

/// The second question follows the first answer by at least this.
const SPAN: Duration = Duration::from_secs(1);
/// Questions that wait for their answers.
const MOST_ASKED: usize = 8;

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How far the server had sent.
    pub(crate) end: Lsn,
    /// When it answered, by its clock.
    pub(crate) sent_at_us: i64,
    /// When that was received, by ours.
    pub(crate) seen_us: i64,
}

/// Questions and answers on one connection.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    asked: VecDeque<Duration>,
    first: Option<(Answer, Duration)>,
}

impl Idle {
    /// Whether to ask at `now`; if so, it counts as asked.
    pub(crate) fn ask(&mut self, now: Duration) -> bool {
        let may = self.asked.len() < MOST_ASKED;
        if may {
            self.asked.push_back(now);
        }
        may
    }

    /// Log came.
    pub(crate) fn log(&mut self) {
        self.first = None;
    }

    /// The answer to the oldest open question. Returns the one before it that it confirms: nothing had been flushed behind its end at its time.
    pub(crate) fn answer(&mut self, answer: Answer, now: Duration) -> Option<Answer> {
        let asked = self.asked.pop_front()?;
        match self.first {
            Some((first, came)) if first.end == answer.end => {
                let confirms = asked >= came + SPAN;
                if confirms {
                    self.first = Some((answer, now));
                }
                confirms.then_some(first)
            }
            _ => {
                self.first = Some((answer, now));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(end: u64, second: i64) -> Answer {
        Answer {
            end: Lsn(end),
            sent_at_us: second * 1_000_000,
            seen_us: second * 1_000_000 + 5,
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_answer_counts_once_a_later_question_brings_the_same() {
        let mut idle = Idle::default();
        assert_eq!(idle.answer(answer(10, 1), at(0)), None, "nobody asked");
        assert!(idle.ask(at(0)));
        assert_eq!(idle.answer(answer(10, 1), at(100)), None, "it is the first");
        // Asked too soon after it, and once before it came.
        assert!(idle.ask(at(900)));
        assert_eq!(idle.answer(answer(10, 2), at(2000)), None);
        assert!(idle.ask(at(1100)));
        assert_eq!(idle.answer(answer(10, 3), at(3000)), Some(answer(10, 1)));
        // The next one is measured from the answer that confirmed.
        assert!(idle.ask(at(3900)));
        assert_eq!(idle.answer(answer(10, 4), at(4000)), None);
        assert!(idle.ask(at(5000)));
        assert_eq!(idle.answer(answer(10, 5), at(5001)), Some(answer(10, 3)));
    }

    /// A follower that comes back far behind: the server says where it is sending, with the time of now.
    #[test]
    fn log_in_between_takes_the_answer_back() {
        let mut idle = Idle::default();
        assert!(idle.ask(at(0)));
        assert_eq!(idle.answer(answer(10, 1), at(1)), None);
        idle.log();
        assert!(idle.ask(at(5000)));
        assert_eq!(idle.answer(answer(90, 6), at(5001)), None);
        assert!(idle.ask(at(10_000)));
        assert_eq!(idle.answer(answer(95, 11), at(10_001)), None, "another end");
        assert!(idle.ask(at(20_000)));
        assert_eq!(idle.answer(answer(95, 21), at(20_001)), Some(answer(95, 11)));
        assert!((0..20).filter(|_| idle.ask(at(30_000))).count() == MOST_ASKED);
    }
}
