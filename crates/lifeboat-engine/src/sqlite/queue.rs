//! A bounded queue of segments between the SQLite thread and the workers, with buffers that go round.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};

/// Segments that wait at most; with [`lifeboat_io::flow::SEGMENT_BYTES`] each this bounds memory.
const CAPACITY: usize = 4;

/// A piece of the database: its offset and its bytes.
pub(super) type Segment = (u64, Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    segments: VecDeque<Segment>,
    spare: Vec<Vec<u8>>,
    /// No more segments will come.
    done: bool,
    /// The reading side failed: takers must fail, too, and not take this for the end.
    failed: bool,
    /// Nobody takes any more.
    abandoned: bool,
}

/// What became of a segment that was to be queued.
pub(super) enum Pushed {
    Queued,
    /// The queue stayed full; here is the segment back.
    Full(Segment),
    /// Nobody takes segments any more.
    Abandoned,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer to fill: one that came back, or a new one.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// Queues a segment; waits no longer than `patience` for room, for ever without one.
    pub(super) fn push(&self, segment: Segment, patience: Option<Duration>) -> Pushed {
        let inner = self.lock();
        let full = |inner: &mut Inner| inner.segments.len() >= CAPACITY && !inner.abandoned;
        let mut inner = match patience {
            None => self.changed.wait_while(inner, full).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.changed
                    .wait_timeout_while(inner, patience, full)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        if inner.abandoned {
            return Pushed::Abandoned;
        }
        if inner.segments.len() >= CAPACITY {
            return Pushed::Full(segment);
        }
        inner.segments.push_back(segment);
        drop(inner);
        self.changed.notify_all();
        Pushed::Queued
    }

    /// Ends the queue: normally, or because reading failed.
    pub(super) fn finish(&self, failed: bool) {
        let mut inner = self.lock();
        inner.done = true;
        inner.failed = failed;
        drop(inner);
        self.changed.notify_all();
    }

    /// Lets the reading side go: nobody will take the rest.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.changed.notify_all();
    }

    /// Swaps `buffer` for the next segment's bytes and returns its offset.
    pub(super) fn take(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
        let inner = self.lock();
        let waiting = |inner: &mut Inner| inner.segments.is_empty() && !inner.done;
        let mut inner = self
            .changed
            .wait_while(inner, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        if inner.failed {
            // The capture's own `finish` tells why.
            return Err(Error::new(
                ErrorKind::Interrupted,
                "read",
                "the database",
                "its capture failed",
            ));
        }
        let Some((offset, bytes)) = inner.segments.pop_front() else {
            return Ok(None);
        };
        let old = std::mem::replace(buffer, bytes);
        inner.spare.push(old);
        drop(inner);
        self.changed.notify_all();
        Ok(Some(offset))
    }
}
