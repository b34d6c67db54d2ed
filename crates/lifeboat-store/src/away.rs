//! A store that could not be opened: every operation answers why.
//!
//! So that one of several stores may be away without every caller having to think of it: it is a store like the others, and fails like one.
//! Must not answer anything but that error; in particular no listing is empty (INV-13).

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Error, Result};

use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// A store that is not there.
#[derive(Debug)]
pub struct AwayStore {
    name: String,
    reason: Error,
}

impl AwayStore {
    /// The store `name`, which could not be opened because of `reason`.
    #[must_use]
    pub fn new(name: impl Into<String>, reason: Error) -> Self {
        Self {
            name: name.into(),
            reason,
        }
    }

    fn answer<T>(&self) -> Result<T> {
        Err(self.reason.duplicate())
    }
}

#[async_trait]
impl BlobStore for AwayStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: false,
            versioning: false,
            object_lock: false,
        }
    }

    async fn put(&self, _key: &Key, _body: Bytes) -> Result<Put> {
        self.answer()
    }

    async fn get(&self, _key: &Key, _limit_bytes: u64) -> Result<Bytes> {
        self.answer()
    }

    async fn get_range(&self, _key: &Key, _range: Range<u64>) -> Result<Bytes> {
        self.answer()
    }

    async fn head(&self, _key: &Key) -> Result<Entry> {
        self.answer()
    }

    async fn list(&self, _prefix: &Key) -> Result<Vec<Entry>> {
        self.answer()
    }

    async fn delete(&self, _key: &Key) -> Result<()> {
        self.answer()
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_model::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn a_store_that_is_away_answers_nothing_but_why() {
        let reason = Error::new(ErrorKind::Unreachable, "open store", "/mnt", "it is not mounted").with_hint("mount it");
        let store = AwayStore::new("disk", reason);
        let key = Key::new("c/a").unwrap();
        let errors = [
            store.put(&key, Bytes::new()).await.unwrap_err(),
            store.get(&key, 1).await.unwrap_err(),
            store.get_range(&key, 0..1).await.unwrap_err(),
            store.head(&key).await.unwrap_err(),
            store.list(&key).await.unwrap_err(),
            store.delete(&key).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unreachable);
            assert_eq!((error.subject(), error.hint()), ("/mnt", Some("mount it")));
        }
    }
}
