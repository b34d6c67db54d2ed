//! Level `hash`: every stored file of a backup against its name, without keys.

use std::collections::BTreeMap;

use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::Key;
use tokio::task::JoinSet;

use crate::id::BackupId;
use crate::key::instance::{Instance, Trust};
use crate::listing::Backup;
use crate::pack::PACK_LIMIT_BYTES;
use crate::prune::records::{About, BadJson, Place, below};
use crate::reader::{Verified, lost_file};
use crate::repository::Repository;
use crate::signed::Kind;
use crate::time::format_utc;

/// Reads every key file and pack that a backup needs and compares its hash with its name. The first file that does not fit is the
/// error, of kind `Corrupt`.
pub async fn scrub(env: &Env, repository: &Repository, backup: &Backup) -> Result<Verified> {
    let files = backup.files()?;
    env.progress
        .step("hash", Some(files.iter().map(|(_, size_bytes)| size_bytes).sum()));
    let mut verified = Verified::default();
    let mut tasks = JoinSet::new();
    let mut pending = files.into_iter();
    loop {
        while tasks.len() < env.threads.max(1) {
            let Some((key, size_bytes)) = pending.next() else { break };
            let repository = repository.clone();
            tasks.spawn(async move { check_one(&repository, &key, size_bytes).await });
        }
        let Some(joined) = tasks.join_next().await else { break };
        let length = joined
            .map_err(|error| Error::new(ErrorKind::Bug, "verify", "a stored file", "a task panicked").with_source(error))??;
        env.progress.advance(length);
        verified.blobs += 1;
        verified.bytes += length;
    }
    env.progress.finish();
    Ok(verified)
}

/// What one slice of a scrub came to.
#[derive(Debug, Default)]
#[must_use]
pub struct Slice {
    /// Files that were read and hash to their names.
    pub good: Vec<Key>,
    /// Damaged or lost files, what was found, and the newest backup that needs each.
    pub damaged: Vec<(Key, Error, BackupId)>,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Reads `files`, which are in the order in which they are due, until `budget` bytes were read: the next one would exceed it. One is always read.
/// Goes on behind damage, and ends with what was read so far where the store does not answer.
pub async fn scrub_slice(env: &Env, repository: &Repository, files: &[DueFile], budget: u64) -> (Slice, Option<Error>) {
    let mut slice = Slice::default();
    let mut planned = 0;
    let fits = files.iter().take_while(|file| {
        let first = planned == 0;
        planned += file.size_bytes;
        first || planned <= budget
    });
    let due: Vec<&DueFile> = fits.collect();
    env.progress.step("hash", Some(due.iter().map(|file| file.size_bytes).sum()));
    for file in due {
        match check_one(repository, &file.key, file.size_bytes).await {
            Ok(length) => {
                env.progress.advance(length);
                slice.bytes += length;
                slice.good.push(file.key.clone());
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => slice.damaged.push((file.key.clone(), error, file.newest)),
            Err(error) => return (slice, Some(error)),
        }
    }
    env.progress.finish();
    (slice, None)
}

/// A file that is to be read.
#[derive(Debug, Clone)]
pub struct DueFile {
    /// Which.
    pub key: Key,
    /// Its bytes.
    pub size_bytes: u64,
    /// The newest backup that needs it.
    pub newest: BackupId,
}

/// Every file that any of `backups` needs, once.
///
/// # Errors
/// `Bug` for a name that is none.
pub fn files_of(backups: &[Backup]) -> Result<Vec<DueFile>> {
    let mut files: BTreeMap<Key, DueFile> = BTreeMap::new();
    for backup in backups {
        for (key, size_bytes) in backup.files()? {
            let newest = backup.id;
            let known = files.entry(key.clone()).or_insert(DueFile { key, size_bytes, newest });
            known.newest = known.newest.max(newest);
        }
    }
    Ok(files.into_values().collect())
}

/// Who marks what a scrub finds.
#[derive(Debug, Clone, Copy)]
pub struct Marker<'a> {
    /// Signs the marks.
    pub instance: &'a Instance,
    /// Whose files count.
    pub trust: &'a Trust,
}

/// Like [`scrub`], but looks at every file, and writes down each one that is damaged: the next backup stores again what it holds. Returns
/// the damaged files; those that are missing are left to the listing, which says so by itself.
pub async fn scrub_and_mark(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    marker: Marker<'_>,
) -> Result<(Verified, Vec<Key>)> {
    let files = backup.files()?;
    env.progress
        .step("hash", Some(files.iter().map(|(_, size_bytes)| size_bytes).sum()));
    let (mut verified, mut damaged) = (Verified::default(), Vec::new());
    for (key, size_bytes) in files {
        match check_one(repository, &key, size_bytes).await {
            Ok(length) => {
                env.progress.advance(length);
                verified.blobs += 1;
                verified.bytes += length;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                mark(env, repository, backup, marker, &key, error.detail()).await?;
                damaged.push(key);
            }
            Err(error) => return Err(error),
        }
    }
    env.progress.finish();
    Ok((verified, damaged))
}

async fn mark(env: &Env, repository: &Repository, backup: &Backup, marker: Marker<'_>, key: &Key, found: &str) -> Result<()> {
    let component = &backup.header.component;
    let folder = component.folder()?;
    let place = Place {
        repository,
        component,
        trust: marker.trust,
    };
    let json = BadJson {
        about: About::new(repository.id(), component, marker.instance),
        file: below(&folder, key).to_owned(),
        found_at: format_utc(env.clock.wall_us()),
        found: found.to_owned(),
    };
    let hash = named_hash(key.file_name()).to_owned();
    match place.put(Kind::Bad, marker.instance, &json, |_| format!("bad/{hash}")).await {
        // Somebody found it before.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// The hash in a stored file's name.
fn named_hash(name: &str) -> &str {
    let stem = name.trim_end_matches(".age").trim_end_matches(".clear");
    stem.rsplit('-').next().unwrap_or(stem)
}

async fn check_one(repository: &Repository, key: &Key, size_bytes: u64) -> Result<u64> {
    let bytes = repository
        .store()
        .get(key, PACK_LIMIT_BYTES.max(size_bytes))
        .await
        .map_err(lost_file)?;
    let length = bytes.len() as u64;
    let hash = compute::run("hash", move || Ok(blake3::hash(&bytes).to_string())).await?;
    if named_hash(key.file_name()) == hash && length == size_bytes {
        return Ok(length);
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        "verify",
        key,
        "its bytes do not hash to its name: it is damaged or was overwritten",
    )
    .with_hint("run a backup: damaged files that are missing are stored again; restore from another copy if there is one"))
}
