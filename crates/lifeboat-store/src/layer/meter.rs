//! Counts what a store was asked for, for tests and for figures that people see. Must not change any outcome.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;

use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// What one kind of operation amounted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How often it was called.
    pub calls: u64,
    /// How many of these calls failed.
    pub failures: u64,
    /// Bytes sent or received by the calls that succeeded; for a listing, the names it returned. A put that found its file there
    /// already counts no bytes.
    pub volume: u64,
}

/// What a store was asked for so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Puts; volume in bytes.
    pub put: Amount,
    /// Whole reads; volume in bytes.
    pub get: Amount,
    /// Partial reads; volume in bytes.
    pub get_range: Amount,
    /// Looks at one file; no volume.
    pub head: Amount,
    /// Listings; volume in names.
    pub list: Amount,
    /// Deletions; no volume.
    pub delete: Amount,
}

#[derive(Debug, Default)]
struct Counter {
    calls: AtomicU64,
    failures: AtomicU64,
    volume: AtomicU64,
}

impl Counter {
    /// Counts a call when it begins, so that one which is dropped half-way is counted too.
    fn begin(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn end<T>(&self, outcome: &Result<T>, volume: impl FnOnce(&T) -> usize) {
        match outcome {
            Ok(value) => self.volume.fetch_add(volume(value) as u64, Ordering::Relaxed),
            Err(_) => self.failures.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn amount(&self) -> Amount {
        Amount {
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            volume: self.volume.load(Ordering::Relaxed),
        }
    }
}

/// The counters of one [`Metered`] store; stays readable after the store is gone.
#[derive(Debug, Default)]
pub struct Meter {
    put: Counter,
    get: Counter,
    get_range: Counter,
    head: Counter,
    list: Counter,
    delete: Counter,
}

impl Meter {
    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            put: self.put.amount(),
            get: self.get.amount(),
            get_range: self.get_range.amount(),
            head: self.head.amount(),
            list: self.list.amount(),
            delete: self.delete.amount(),
        }
    }
}

/// A store that counts.
#[derive(Debug)]
pub struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    /// Counts what `inner` is asked for.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            meter: Arc::default(),
        }
    }

    /// The counters.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Metered<S> {
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
        self.meter.put.begin();
        let size = body.len();
        let outcome = self.inner.put(key, body).await;
        self.meter
            .put
            .end(&outcome, |put| if *put == Put::Created { size } else { 0 });
        outcome
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.meter.get.begin();
        let outcome = self.inner.get(key, limit_bytes).await;
        self.meter.get.end(&outcome, Bytes::len);
        outcome
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.meter.get_range.begin();
        let outcome = self.inner.get_range(key, range).await;
        self.meter.get_range.end(&outcome, Bytes::len);
        outcome
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.meter.head.begin();
        let outcome = self.inner.head(key).await;
        self.meter.head.end(&outcome, |_| 0);
        outcome
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.meter.list.begin();
        let outcome = self.inner.list(prefix).await;
        self.meter.list.end(&outcome, Vec::len);
        outcome
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.meter.delete.begin();
        let outcome = self.inner.delete(key).await;
        self.meter.delete.end(&outcome, |()| 0);
        outcome
    }
}
