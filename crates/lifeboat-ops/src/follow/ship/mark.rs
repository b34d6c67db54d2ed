//! Until when the log in the stores is complete, said while nothing is written (docs/postgres.md, "Following").

use std::time::Duration;

use lifeboat_io::compute;
use lifeboat_model::wal::Range;
use lifeboat_model::{Lsn, Result};

use super::{Shipper, Tail};

/// So many of the last bytes are put again to say it.
pub(super) const TAIL_BYTES: u64 = 512;

impl Shipper {
    /// While nothing is written, the stores are told now and then that the log there is complete until now: by its last bytes, put again.
    pub(super) async fn mark(&mut self) -> Result<()> {
        let every = self.shared.options.mark_every;
        let now = self.shared.env.clock.monotonic();
        let is_stale = {
            let state = self.shared.state();
            let is_last = |tail: &Tail| state.stored.end(tail.range.timeline) == Some(tail.range.end);
            !state.tail.as_ref().is_some_and(is_last)
        };
        if is_stale {
            self.tail_of_spool(now).await?;
        }
        let next = {
            let mut state = self.shared.state();
            let is_due = |tail: &Tail| {
                now.saturating_sub(tail.said) >= every && state.stored.end(tail.range.timeline) == Some(tail.range.end)
            };
            let tail = state.tail.clone().filter(is_due);
            tail.and_then(|tail| {
                let as_of_us = state.marks.as_of(tail.range.timeline, tail.range.end);
                (as_of_us > tail.as_of_us).then_some((tail, as_of_us?))
            })
        };
        let Some((tail, as_of_us)) = next.filter(|_| !every.is_zero()) else {
            return Ok(());
        };
        let done = self.opened.writer.renew(tail.range, tail.raw.clone(), as_of_us).await?;
        self.note_stores(&done);
        self.shared.state().tail = Some(Tail {
            said: now,
            as_of_us: Some(as_of_us),
            ..tail
        });
        self.clean(done);
        Ok(())
    }

    /// After a start, the last bytes that are stored may lie in the spool, too.
    async fn tail_of_spool(&self, now: Duration) -> Result<()> {
        let reading = {
            let timeline = self.shared.state().timeline;
            let end = timeline.and_then(|timeline| self.opened.stored.end(timeline));
            let spool = self.shared.spool();
            let range = spool
                .ranges()
                .find(|range| Some(range.timeline) == timeline && Some(range.end) == end);
            let Some(range) = range else { return Ok(()) };
            let start = range.start.max(Lsn(range.end.0.saturating_sub(TAIL_BYTES)));
            let range = Range::new(range.timeline, start, range.end);
            (range, spool.reading(range)?)
        };
        let (range, reading) = reading;
        let raw = compute::run("read the spool", move || reading.read()).await?;
        self.shared.state().tail = Some(Tail {
            range,
            raw,
            said: now,
            as_of_us: None,
        });
        Ok(())
    }
}
