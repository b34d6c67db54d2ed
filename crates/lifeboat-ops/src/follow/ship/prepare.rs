//! Reading the spool and compressing, before anything is put.
//!
//! Where little waits it is done on a thread that gives way to everybody else: a commit on this host does not wait for a processor because of it
//! (docs/decisions/0020).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::background::Background;
use lifeboat_io::compute;
use lifeboat_model::wal::Range;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::PreparedLog;
use tokio::task::JoinSet;

use super::Shipper;
use crate::follow::{Shared, in_a_line, spool};

/// So many stretches of the spool are few: a block that is whole, and the newest one.
pub(super) const FEW: usize = 2;
/// On a host that has no processor for it in this time, log is compressed like everything else is done.
const PATIENCE: Duration = Duration::from_millis(300);
/// And for so long.
const PAUSE: Duration = Duration::from_secs(10);

/// What is prepared, and where.
#[derive(Debug, Default)]
pub(super) struct Preparing {
    /// The next whole block, read and compressed while the one before it is put.
    ahead: BTreeMap<Range, JoinSet<Result<PreparedLog>>>,
    /// Little waits, and nobody for it.
    pub(super) may_give_way: bool,
    /// None before it is needed, and where no thread can be started.
    background: Option<Background>,
    /// It had no processor; by then it is asked again.
    pause_until: Option<Duration>,
}

impl Shipper {
    /// Begins to read `next`, which will be asked for when `now` has been put. Whoever asks hears what is in the way.
    pub(super) fn read_ahead(&mut self, now: Range, next: Range) {
        self.preparing.ahead.retain(|range, _| [now, next].contains(range));
        if !self.preparing.ahead.contains_key(&next)
            && let Ok(read) = Self::reading(&self.shared, next)
        {
            let preparer = self.opened.writer.preparer();
            let mut reading = JoinSet::new();
            reading.spawn(async move {
                let raw = read.await?;
                compute::run("compress log", move || preparer.prepare(raw)).await
            });
            self.preparing.ahead.insert(next, reading);
        }
    }

    pub(super) async fn read(&self, range: Range) -> Result<Vec<u8>> {
        Self::reading(&self.shared, range)?.await
    }

    /// What was read ahead, or is read now.
    pub(super) async fn prepared(&mut self, range: Range) -> Result<PreparedLog> {
        if let Some(mut reading) = self.preparing.ahead.remove(&range)
            && let Some(joined) = reading.join_next().await
        {
            return joined.unwrap_or_else(|panic| {
                Err(Error::new(ErrorKind::Bug, "read", "the spool", "a task panicked").with_source(panic))
            });
        }
        if let Some(log) = self.giving_way(range).await {
            return Ok(log);
        }
        let (raw, preparer) = (self.read(range).await?, self.opened.writer.preparer());
        compute::run("compress log", move || preparer.prepare(raw)).await
    }

    /// None where it is to be done otherwise: much waits, no processor is free, or something is wrong, which whoever reads it then deals with.
    async fn giving_way(&mut self, range: Range) -> Option<PreparedLog> {
        let now = self.shared.env.clock.monotonic();
        if !self.preparing.may_give_way || self.preparing.pause_until.is_some_and(|until| now < until) {
            return None;
        }
        if self.preparing.background.is_none() {
            self.preparing.background = Background::start().ok();
        }
        let background = self.preparing.background.as_ref()?;
        let reading = self.shared.spool().reading(range).ok()?;
        let preparer = self.opened.writer.preparer();
        let prepared = background.run(PATIENCE, move || preparer.prepare(reading.read()?)).await;
        if prepared.is_none() {
            self.preparing.pause_until = Some(now + PAUSE);
        }
        prepared?.ok()
    }

    /// Verified bytes of the spool. What is damaged there is kept aside, and asked for again.
    fn reading(shared: &Arc<Shared>, range: Range) -> Result<impl Future<Output = Result<Vec<u8>>> + use<>> {
        let reading = shared.spool().reading(range)?;
        let shared = Arc::clone(shared);
        Ok(compute::run("read the spool", move || {
            reading.read().inspect_err(|error| {
                if spool::is_damage(error)
                    && let Err(error) = shared.look_through_spool()
                {
                    shared.alarm(format!("the spool cannot be looked through: {}", in_a_line(&error)));
                }
            })
        }))
    }
}
