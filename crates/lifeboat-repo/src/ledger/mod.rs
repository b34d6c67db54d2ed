//! The ledger (`docs/format.md` 12, `docs/ledger.md`): what was done, as signed records, each of which names the one before it (INV-18).
//!
//! Bytes in and out, and what a set of records says about itself. When something is recorded, and where a machine keeps what it could not store
//! yet, is decided by the verbs. Nothing here deletes anything, and nothing is written but new names.

mod chain;
mod name;
mod record;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{Key, Put};

use crate::id::{ChainId, ComponentName};
use crate::key::instance::Trust;
use crate::repository::Repository;

pub use chain::{Flaw, FlawKind, clock_steps, flaws};
pub use name::{LedgerHead, LedgerName};
pub use record::{LEDGER_LIMIT_BYTES, LedgerRecord, NewLedgerRecord, open_record, seal_record};

/// What lies under `ledger/` of a component in one store.
#[derive(Debug, Default)]
pub struct LedgerListing {
    /// Names of records, ascending by chain and number.
    pub names: Vec<LedgerName>,
    /// What has no name of a record.
    pub unknown: Vec<String>,
}

fn folder(component: &ComponentName) -> Result<Key> {
    component.folder()?.join("ledger")
}

/// The names of all records of a component.
///
/// # Errors
/// When the store cannot be listed (INV-13).
pub async fn list_ledger(repository: &Repository, component: &ComponentName) -> Result<LedgerListing> {
    let folder = folder(component)?;
    let mut listing = LedgerListing::default();
    for entry in repository.store().list(&folder).await? {
        let below = entry.key.as_str().strip_prefix(folder.as_str()).unwrap_or_default();
        match below.trim_start_matches('/').parse() {
            Ok(name) => listing.names.push(name),
            Err(_) => listing.unknown.push(entry.key.as_str().to_owned()),
        }
    }
    listing.names.sort_unstable();
    Ok(listing)
}

/// Stores a record under its name. It is never put over another one: the name holds its hash (INV-01, INV-18).
pub async fn put_record(repository: &Repository, component: &ComponentName, name: &LedgerName, stored: Bytes) -> Result<()> {
    let key = folder(component)?.join(&name.to_string())?;
    match repository.store().put(&key, stored).await? {
        Put::Created | Put::AlreadyThere => Ok(()),
    }
}

/// The bytes of a record as they are stored; nothing about them has been looked at.
pub async fn get_record(repository: &Repository, component: &ComponentName, name: &LedgerName) -> Result<Bytes> {
    let key = folder(component)?.join(&name.to_string())?;
    repository.store().get(&key, LEDGER_LIMIT_BYTES).await
}

/// A name and what reading and judging it gave: the record with its bytes.
pub type ReadRecord = (LedgerName, Result<(LedgerRecord, Bytes)>);

/// Reads and judges the records of these names.
///
/// # Errors
/// When the store does not answer. A record that is not what its name says is an answer, not an error.
pub async fn read_ledger(
    repository: &Repository,
    component: &ComponentName,
    trust: &Trust,
    names: Vec<LedgerName>,
) -> Result<Vec<ReadRecord>> {
    let reads: Vec<_> = names
        .into_iter()
        .map(|name| async move {
            let read = match get_record(repository, component, &name).await {
                Ok(stored) => open_record(repository.id(), component, trust, &name, &stored).map(|record| (record, stored)),
                Err(error) => Err(error),
            };
            (name, read)
        })
        .collect();
    let read: Vec<ReadRecord> = stream::iter(reads)
        .buffered(repository.store().requests_at_once())
        .collect()
        .await;
    let mut judged = Vec::with_capacity(read.len());
    for (name, read) in read {
        match read {
            Err(error) if !says_something(&error) => return Err(error),
            read => judged.push((name, read)),
        }
    }
    Ok(judged)
}

/// Whether an error is about the record, and not about the way to it.
fn says_something(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
    )
}

/// The chain that an instance writes.
#[must_use]
pub fn chain_of(key: &crate::key::instance::PublicKey) -> ChainId {
    let mut id = [0; 16];
    id.copy_from_slice(blake3::hash(&key.0).as_bytes().get(..16).unwrap_or(&[0; 16]));
    ChainId(id)
}

/// A short digest (64 bits in hex) of something that is not secret: to see that it changed.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().chars().take(16).collect()
}
