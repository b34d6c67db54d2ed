//! Reading all that is stored, a slice a day: each run reads the files that nobody read for the longest time, until a budget of bytes is used up.
//!
//! When each file was last read is a cache in the state folder. Without it everything is due, and is read again; nothing is taken for read that was not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, BackupId, ComponentName, DueFile, Repository, files_of, scrub_slice};
use serde::{Deserialize, Serialize};

use super::remember_damage;
use crate::protected::Protected;
use crate::stores::file_name;

/// What a slice came to.
#[derive(Debug)]
#[must_use]
pub struct SliceReport {
    /// Files that were read and are intact.
    pub good: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is damaged or lost: the file, what was found, and the newest backup that needs it.
    pub damaged: Vec<(String, Error, BackupId)>,
    /// Files that all backups need.
    pub files: u64,
    /// Their bytes.
    pub all_bytes: u64,
    /// Files that nobody ever read from here.
    pub never: u64,
    /// How long ago the file was read that was not read for the longest time, where all were read once.
    pub oldest: Option<Duration>,
    /// How long it took.
    pub took: Duration,
    /// Why it ended before the budget was used up.
    pub ended: Option<Error>,
}

#[derive(Default, Serialize, Deserialize)]
struct ReadJson {
    version: u32,
    /// When each file was last read and intact, microseconds since 1970.
    read: BTreeMap<String, i64>,
}

fn path(state_dir: &Path, component: &ComponentName, store: &str) -> PathBuf {
    let folder = state_dir.join("scrubs").join(component.segment());
    folder.join(format!("{}.json", file_name(store)))
}

/// What is not there or not understood was never read.
fn load(state_dir: &Path, component: &ComponentName, store: &str) -> BTreeMap<String, i64> {
    let bytes = std::fs::read(path(state_dir, component, store)).unwrap_or_default();
    let json: ReadJson = serde_json::from_slice(&bytes).unwrap_or_default();
    if json.version == 1 { json.read } else { BTreeMap::new() }
}

fn save(protected: &Protected, store: &str, read: BTreeMap<String, i64>) -> Result<()> {
    let path = path(&protected.state_dir, &protected.component, store);
    if let Some(folder) = path.parent() {
        durable::create_folder(folder)?;
    }
    let bytes = serde_json::to_vec(&ReadJson { version: 1, read })
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what was read", error.to_string()))?;
    durable::replace_file(&path, &bytes, durable::FILE_MODE)
}

/// When the last slice of this store was read, as far as that is not in the future.
pub(super) fn last_us(state_dir: &Path, component: &ComponentName, store: &str, now_us: i64) -> Option<i64> {
    let read = load(state_dir, component, store);
    read.values().filter(|at_us| **at_us <= now_us).max().copied()
}

/// Reads about `budget` bytes of what `backups` need in one store, called `store`.
pub async fn slice(
    env: &Env,
    protected: &Protected,
    (store, repository): (&str, &Repository),
    backups: &[Backup],
    budget: u64,
) -> Result<SliceReport> {
    let began = env.clock.monotonic();
    let mut files = files_of(backups)?;
    let known = load(&protected.state_dir, &protected.component, store);
    let last = |file: &DueFile| known.get(file.key.as_str()).copied();
    // What nobody ever read comes first; a time from the future is worth nothing.
    let now_us = env.clock.wall_us();
    files.sort_by_cached_key(|file| (last(file).filter(|at_us| *at_us <= now_us), file.key.clone()));
    let (slice, ended) = scrub_slice(env, repository, &files, budget).await;
    env.progress.finish();
    let mut read: BTreeMap<String, i64> = files
        .iter()
        .filter_map(|file| Some((file.key.to_string(), last(file)?)))
        .collect();
    for key in &slice.good {
        read.insert(key.to_string(), now_us);
    }
    for (key, error, newest) in &slice.damaged {
        read.remove(key.as_str());
        if let Some(backup) = backups.iter().find(|backup| backup.id == *newest) {
            remember_damage(env, protected, backup, error)?;
        }
    }
    let never = files.iter().filter(|file| !read.contains_key(file.key.as_str())).count() as u64;
    let oldest_us = read.values().min().copied().filter(|_| never == 0);
    let report = SliceReport {
        good: slice.good.len() as u64,
        bytes: slice.bytes,
        damaged: (slice.damaged.into_iter())
            .map(|(key, error, newest)| (key.to_string(), error, newest))
            .collect(),
        files: files.len() as u64,
        all_bytes: files.iter().map(|file| file.size_bytes).sum(),
        never,
        oldest: oldest_us.map(|at_us| Duration::from_micros(now_us.saturating_sub(at_us).max(0).unsigned_abs())),
        took: env.clock.monotonic().saturating_sub(began),
        ended,
    };
    save(protected, store, read)?;
    Ok(report)
}
