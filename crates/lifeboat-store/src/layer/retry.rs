//! Does again what failed in a way that may pass, a bounded number of times, with growing pauses.
//!
//! Every operation of the contract may be repeated: a put whose reply was lost finds its own file and returns
//! [`crate::Put::AlreadyThere`]. Not needed around a folder. Must not retry what cannot pass by itself.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;

use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// Somebody who waits; tests bring one who does not.
#[async_trait]
pub trait Sleep: Debug + Send + Sync {
    /// Returns after `pause`.
    async fn sleep(&self, pause: Duration);
}

/// Waits in real time.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealSleep;

#[async_trait]
impl Sleep for RealSleep {
    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

/// How often and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all; 0 counts as 1.
    pub attempts: u32,
    /// The pause after the first failure; each later one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
}

impl Default for Policy {
    /// Six attempts, pauses of 0.2 s to 5 s, about six seconds in all.
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl Policy {
    /// The pause after so many failures.
    pub(crate) fn pause_after(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.first_pause.saturating_mul(factor).min(self.longest_pause)
    }
}

/// A store that tries again.
#[derive(Debug)]
pub struct Retry<S> {
    inner: S,
    policy: Policy,
    sleep: Arc<dyn Sleep>,
}

impl<S: BlobStore> Retry<S> {
    /// Tries again what `inner` could not do, by `policy`, waiting by `sleep`.
    pub fn new(inner: S, policy: Policy, sleep: Arc<dyn Sleep>) -> Self {
        Self { inner, policy, sleep }
    }

    async fn again<T, F: Future<Output = Result<T>> + Send>(&self, attempt: impl Fn() -> F + Send + Sync) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Err(error) if error.kind().is_retryable() => {
                    failures += 1;
                    if failures >= self.policy.attempts {
                        return Err(error);
                    }
                    self.sleep.sleep(self.policy.pause_after(failures)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Retry<S> {
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
        self.again(|| self.inner.put(key, body.clone())).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.again(|| self.inner.get(key, limit_bytes)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.again(|| self.inner.get_range(key, range.clone())).await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.again(|| self.inner.head(key)).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.again(|| self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.again(|| self.inner.delete(key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = Policy::default();
        let pauses: Vec<_> = (1..=6).map(|failures| policy.pause_after(failures).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000]);
        assert_eq!(policy.pause_after(u32::MAX), Duration::from_secs(5));
    }
}
