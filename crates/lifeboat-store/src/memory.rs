//! A store in memory: for tests, and as the second implementation that shows what is contract and what is only a folder.
//!
//! Nothing survives the process. Must not be offered to people as a store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Clock, Error, ErrorKind, Result};

use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// A store in memory. Clones are the same store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<Key, Stored>>,
    clock: Option<Arc<dyn Clock>>,
    /// Without a clock, each put is one microsecond after the one before.
    ticks: AtomicI64,
}

#[derive(Debug, Clone)]
struct Stored {
    body: Bytes,
    stored_at_us: i64,
}

impl MemoryStore {
    /// An empty store whose time is a counter.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that stamps files by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock: Some(clock),
                ..Shared::default()
            }),
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<Key, Stored>> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, op: &'static str, key: &Key) -> Result<Stored> {
        let found = self.files().get(key).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, op, key, "no such file is in the store"))
    }

    fn now_us(&self) -> i64 {
        match &self.shared.clock {
            Some(clock) => clock.wall_us(),
            None => self.shared.ticks.fetch_add(1, Ordering::SeqCst) + 1,
        }
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    fn name(&self) -> &str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: true,
            versioning: false,
            object_lock: false,
        }
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        let stored_at_us = self.now_us();
        let mut files = self.files();
        match files.get(key) {
            None => {
                files.insert(key.clone(), Stored { body, stored_at_us });
                Ok(Put::Created)
            }
            Some(stored) if stored.body == body => Ok(Put::AlreadyThere),
            Some(_) => {
                let detail = "a file of that name with other content is there";
                Err(Error::new(ErrorKind::AlreadyExists, "store", key, detail))
            }
        }
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        let body = self.find("read", key)?.body;
        if body.len() as u64 > limit_bytes {
            let detail = format!(
                "it is {} bytes long, and no such file is longer than {limit_bytes}",
                body.len()
            );
            return Err(Error::new(ErrorKind::Corrupt, "read", key, detail));
        }
        Ok(body)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            let detail = format!("the range {range:?} ends before it begins");
            return Err(Error::new(ErrorKind::Bug, "read", key, detail));
        }
        let body = self.find("read", key)?.body;
        let within = |at: u64| usize::try_from(at).ok().filter(|at| *at <= body.len());
        match (within(range.start), within(range.end)) {
            (Some(start), Some(end)) => Ok(body.slice(start..end)),
            _ => {
                let size = body.len();
                let detail = format!(
                    "it is {size} bytes long; bytes {} to {} were expected in it",
                    range.start, range.end
                );
                Err(Error::new(ErrorKind::Corrupt, "read", key, detail))
            }
        }
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        let stored = self.find("look at", key)?;
        Ok(entry(key, &stored))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        let files = self.files();
        let under = files.iter().filter(|(key, _)| key.is_under(prefix));
        Ok(under.map(|(key, stored)| entry(key, stored)).collect())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.files().remove(key);
        Ok(())
    }
}

fn entry(key: &Key, stored: &Stored) -> Entry {
    Entry {
        key: key.clone(),
        size_bytes: stored.body.len() as u64,
        stored_at_us: stored.stored_at_us,
    }
}
