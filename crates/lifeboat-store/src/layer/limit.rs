//! Limits how fast bytes go to a store and come from it, so that a backup leaves room for others on the line.
//!
//! One bucket of tokens for each direction. Whoever wants to move bytes books them and waits until they are due; bookings are served in
//! the order in which they came, so several uploads share the line fairly. A call that is dropped while it waits gives back what
//! no later one has been promised. Limits hold on average over a few seconds: one file goes out in one burst. Must not change any
//! outcome.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Clock, Result};

use super::retry::Sleep;
use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// Bytes per second in each direction; none is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// To the store.
    pub upload: Option<u64>,
    /// From the store.
    pub download: Option<u64>,
}

/// One direction.
#[derive(Debug)]
struct Line {
    bytes_per_s: u64,
    /// When everything that was booked has gone, on the monotonic clock.
    free_at: Mutex<Duration>,
}

/// A booking that is given back when nobody waits for it any more.
struct Booking<'a> {
    line: &'a Line,
    from: Duration,
    until: Duration,
    kept: bool,
}

impl Drop for Booking<'_> {
    fn drop(&mut self) {
        let mut free_at = self.line.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.kept && *free_at == self.until {
            *free_at = self.from;
        }
    }
}

impl Line {
    fn new(bytes_per_s: u64) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            free_at: Mutex::new(Duration::ZERO),
        }
    }

    fn book(&self, bytes: u64, now: Duration) -> Booking<'_> {
        let takes = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_s);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (*free_at).max(now);
        *free_at = from.saturating_add(takes);
        Booking {
            line: self,
            from,
            until: *free_at,
            kept: false,
        }
    }
}

/// A store with a limit.
#[derive(Debug)]
pub struct Limited<S> {
    inner: S,
    up: Option<Line>,
    down: Option<Line>,
    clock: Arc<dyn Clock>,
    sleep: Arc<dyn Sleep>,
}

impl<S: BlobStore> Limited<S> {
    /// Limits `inner` to `bandwidth`, by `clock`, waiting by `sleep`.
    pub fn new(inner: S, bandwidth: Bandwidth, clock: Arc<dyn Clock>, sleep: Arc<dyn Sleep>) -> Self {
        Self {
            inner,
            up: bandwidth.upload.map(Line::new),
            down: bandwidth.download.map(Line::new),
            clock,
            sleep,
        }
    }

    /// Waits until the bytes before these have gone.
    async fn wait(&self, line: Option<&Line>, bytes: u64) {
        let Some(line) = line else { return };
        let now = self.clock.monotonic();
        let mut booking = line.book(bytes, now);
        let pause = booking.from.saturating_sub(now);
        if !pause.is_zero() {
            self.sleep.sleep(pause).await;
        }
        booking.kept = true;
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Limited<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn requests_at_once(&self) -> usize {
        self.inner.requests_at_once()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.wait(self.up.as_ref(), body.len() as u64).await;
        self.inner.put(key, body).await
    }

    /// How long the file is shows only afterwards: it is booked then, and the next reader waits for it.
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.wait(self.down.as_ref(), 0).await;
        let body = self.inner.get(key, limit_bytes).await?;
        if let Some(line) = &self.down {
            line.book(body.len() as u64, self.clock.monotonic()).kept = true;
        }
        Ok(body)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.wait(self.down.as_ref(), range.end.saturating_sub(range.start)).await;
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}
