//! Key files by name: which stand for a session, and whose they are. What is in them is in `age.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Entry, Key, Put};
use tokio::task::JoinSet;

use super::recipient::Roster;
use crate::bytes::hex_array;
use crate::id::{ComponentName, SessionId};
use crate::repository::Repository;

/// A key file is at most this long.
pub(crate) const KEY_FILE_LIMIT_BYTES: u64 = 1 << 20;
const READS_AT_ONCE: usize = 16;

/// The name of a key file: one of the files that hold a session's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyFileName {
    /// The session whose packs it opens.
    pub session: SessionId,
    /// Not encrypted.
    pub clear: bool,
    /// BLAKE3 of the stored file.
    pub hash: [u8; 32],
}

impl KeyFileName {
    /// Reads the last part of a name under `keys/`; `None` for one that is no key file.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, clear) = match (name.strip_suffix(".age"), name.strip_suffix(".clear")) {
            (Some(stem), _) => (stem, false),
            (_, Some(stem)) => (stem, true),
            _ => return None,
        };
        let (session, hash) = stem.split_once('-')?;
        Some(Self {
            session: session.parse().ok()?,
            clear,
            hash: hex_array(hash, "a key file").ok()?,
        })
    }

    /// Its name in the store.
    pub fn key(&self, component: &ComponentName) -> Result<Key> {
        let ending = if self.clear { "clear" } else { "age" };
        component
            .folder()?
            .join(&format!("keys/{}-{}.{ending}", self.session, hex::encode(self.hash)))
    }
}

/// A key file that stands in a store and hashes to its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// Its name.
    pub name: KeyFileName,
    /// Bytes of the stored file.
    pub size_bytes: u64,
    /// For whom it says that it is.
    pub roster: Roster,
}

/// Puts a key file for a session.
pub(crate) async fn put_key_file(
    repository: &Repository,
    component: &ComponentName,
    session: SessionId,
    clear: bool,
    bytes: Vec<u8>,
) -> Result<KeyFile> {
    let file = KeyFile {
        name: KeyFileName {
            session,
            clear,
            hash: *blake3::hash(&bytes).as_bytes(),
        },
        size_bytes: bytes.len() as u64,
        roster: if clear { Roster::default() } else { Roster::read(&bytes) },
    };
    match repository.store().put(&file.name.key(component)?, Bytes::from(bytes)).await? {
        Put::Created | Put::AlreadyThere => Ok(file),
    }
}

/// The key files of a component, by session and form.
pub(crate) type KeyFiles = BTreeMap<(SessionId, bool), Vec<KeyFile>>;

/// Reads and hashes those of `entries` that are key files of a wanted session. One that does not hash to its name, or is too long, is
/// left out: it is damaged. Any other failure to read is an error (INV-13).
pub(crate) async fn read_key_files(
    store: &Arc<dyn BlobStore>,
    entries: impl Iterator<Item = &Entry>,
    wanted: impl Fn(&KeyFileName) -> bool,
) -> Result<KeyFiles> {
    let mut pending = entries.filter_map(|entry| {
        let name = KeyFileName::parse(entry.key.file_name())?;
        (entry.size_bytes <= KEY_FILE_LIMIT_BYTES && wanted(&name)).then(|| (name, entry.key.clone()))
    });
    let mut files = KeyFiles::new();
    let mut reads = JoinSet::new();
    loop {
        while reads.len() < READS_AT_ONCE {
            let Some((name, key)) = pending.next() else { break };
            let store = Arc::clone(store);
            reads.spawn(async move { read(&*store, name, &key).await });
        }
        let Some(joined) = reads.join_next().await else { break };
        let read = joined
            .map_err(|error| Error::new(ErrorKind::Bug, "read", "the key files", "a task panicked").with_source(error))??;
        if let Some(file) = read {
            files.entry((file.name.session, file.name.clear)).or_default().push(file);
        }
    }
    for found in files.values_mut() {
        found.sort_by_key(|file| file.name);
    }
    Ok(files)
}

async fn read(store: &dyn BlobStore, name: KeyFileName, key: &Key) -> Result<Option<KeyFile>> {
    let stored = match store.get(key, KEY_FILE_LIMIT_BYTES).await {
        Ok(stored) => stored,
        // Replaced since it was listed, or longer than its listing said.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => return Ok(None),
        Err(error) => return Err(error),
    };
    let sound = blake3::hash(&stored).as_bytes() == &name.hash;
    Ok(sound.then(|| KeyFile {
        name,
        size_bytes: stored.len() as u64,
        roster: if name.clear {
            Roster::default()
        } else {
            Roster::read(&stored)
        },
    }))
}
