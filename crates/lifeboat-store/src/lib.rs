//! Where bytes rest. A store knows names and bytes, and nothing about backups.
//!
//! All files but leases are immutable: a name is written once. The contract of [`BlobStore`] is proven for every store by one
//! conformance suite (`lifeboat_testkit::conformance`).

pub mod away;
pub mod cloud;
pub mod fs;
mod key;
pub mod layer;
pub mod memory;
pub mod s3admin;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;

pub use key::Key;

/// What a put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// The file was written by this call.
    Created,
    /// A file of this name with the same size and the same content was there: a retry, or another writer of the same bytes.
    AlreadyThere,
}

/// One stored file in a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its whole name.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was stored, by the store's clock: microseconds since 1970-01-01T00:00:00Z.
    pub stored_at_us: i64,
}

/// What a store can do; found out by trying, never assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A put onto an existing name is refused by the store itself, also when two puts race.
    pub conditional_put: bool,
    /// Overwritten and deleted content can still be read by version.
    pub versioning: bool,
    /// Files can be locked against deletion for a time.
    pub object_lock: bool,
}

/// A place for immutable files.
///
/// Contract, for every implementation:
/// - A put is atomic and durable when it returns: whole under its name, or absent. Never half a file.
/// - After a put returned, `get`, `head` and `list` see it.
/// - `put` onto an existing name never changes it: same size and content is [`Put::AlreadyThere`], anything else an error of kind `AlreadyExists`.
/// - `list` returns everything under the prefix or fails as a whole; a folder that cannot be read, or a store that is not there
///   (an unmounted disk), is an error of kind `Unreachable`, never an empty list. A prefix nobody wrote to in a store that is there is empty.
/// - A missing file is an error of kind `NotFound`; anything that may pass is `Unreachable` or `TimedOut`.
/// - A folder is not a file: `get`, `get_range` and `head` of its name are `NotFound`, and `delete` of its name does nothing.
/// - `delete` of a missing file succeeds. After a delete returned, nothing sees the file, and the name can be put again.
/// - A future that is dropped may have done its work, or do it later; it never leaves half a file.
#[async_trait]
pub trait BlobStore: Debug + Send + Sync {
    /// What to call this store in messages: a path or a URL without secrets.
    fn name(&self) -> &str;
    /// What this store can do.
    fn capabilities(&self) -> Capabilities;
    /// Requests that are worth having on their way together: more where each waits for a network.
    fn requests_at_once(&self) -> usize {
        4
    }
    /// Stores `body` under the new name `key`.
    async fn put(&self, key: &Key, body: Bytes) -> Result<Put>;
    /// Reads a whole file; `limit_bytes` bounds what is accepted (a longer file is an error of kind `Corrupt`).
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes>;
    /// Reads exactly `range` of a file; a file that ends earlier is an error of kind `Corrupt`.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes>;
    /// Looks at one file.
    async fn head(&self, key: &Key) -> Result<Entry>;
    /// Every file whose name lies under the folder `prefix`, at any depth, in ascending order of name.
    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>>;
    /// Removes a file.
    async fn delete(&self, key: &Key) -> Result<()>;
}

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn requests_at_once(&self) -> usize {
        (**self).requests_at_once()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        (**self).put(key, body).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        (**self).get(key, limit_bytes).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        (**self).get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        (**self).head(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        (**self).list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        (**self).delete(key).await
    }
}
