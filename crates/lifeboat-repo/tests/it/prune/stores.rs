//! Stores that go wrong as object storage does: one that takes any put, and one that freezes before an operation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};
use tokio::sync::Notify;

/// A store that takes any put as if the name were free: what object storage without conditions does.
#[derive(Debug, Clone)]
pub(crate) struct Careless(pub(super) MemoryStore);

#[async_trait]
impl BlobStore for Careless {
    fn name(&self) -> &str {
        "careless"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: false,
            ..self.0.capabilities()
        }
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        // The newer one stands, with the newer time.
        self.0.delete(key).await?;
        self.0.put(key, body).await
    }
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.0.get(key, limit_bytes).await
    }
    async fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.0.get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<Entry> {
        self.0.head(key).await
    }
    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.0.list(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key).await
    }
}

/// A store that stops before its operation `at` until it is opened.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Arc<dyn BlobStore>,
    at: u64,
    count: AtomicU64,
    frozen: Mutex<Option<String>>,
    reached: Notify,
    open: Notify,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn BlobStore>, at: u64) -> Self {
        Self {
            inner,
            at,
            count: AtomicU64::new(0),
            frozen: Mutex::new(None),
            reached: Notify::new(),
            open: Notify::new(),
        }
    }

    async fn pass(&self, op: &str, key: &Key) {
        if self.count.fetch_add(1, Ordering::SeqCst) == self.at {
            *self.frozen.lock().unwrap() = Some(format!("{op} {key}"));
            self.reached.notify_one();
            self.open.notified().await;
        }
    }

    pub(crate) fn frozen(&self) -> Option<String> {
        self.frozen.lock().unwrap().clone()
    }
}

#[async_trait]
impl BlobStore for Gate {
    fn name(&self) -> &str {
        "gate"
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.pass("put", key).await;
        self.inner.put(key, body).await
    }
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.pass("get", key).await;
        self.inner.get(key, limit_bytes).await
    }
    async fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.pass("get", key).await;
        self.inner.get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<Entry> {
        self.pass("head", key).await;
        self.inner.head(key).await
    }
    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.pass("list", prefix).await;
        self.inner.list(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.pass("delete", key).await;
        self.inner.delete(key).await
    }
}

/// Runs `work` through a gate at operation `at`; while it is frozen there, `meanwhile` runs. False if `work` has fewer operations.
pub(crate) async fn frozen_at<T>(
    gate: &Arc<Gate>,
    work: impl Future<Output = T>,
    meanwhile: impl Future<Output = ()>,
) -> (T, bool) {
    let done = Notify::new();
    let work = async {
        let outcome = work.await;
        done.notify_one();
        outcome
    };
    let others = async {
        tokio::select! {
            () = gate.reached.notified() => {}
            () = done.notified() => return false,
        }
        meanwhile.await;
        gate.open.notify_one();
        true
    };
    tokio::join!(work, others)
}
