//! The stores against their contract, and each against what only it can meet.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod child;
mod cloud_moto;
mod cloud_s3;
mod cloud_servers;
mod conformance;
mod fs_disk;
mod fs_folder;
mod layers;
mod s3admin;

use bytes::Bytes;
use lifeboat_store::{BlobStore, Key, Put};

pub fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// Stores a file that is not there yet.
pub async fn put_new(store: &dyn BlobStore, key: &Key, body: Bytes) {
    assert_eq!(store.put(key, body).await.unwrap(), Put::Created, "{key}");
}

pub async fn names(store: &dyn BlobStore, prefix: &str) -> Vec<String> {
    let entries = store.list(&key(prefix)).await.unwrap();
    entries.into_iter().map(|entry| entry.key.as_str().to_owned()).collect()
}
