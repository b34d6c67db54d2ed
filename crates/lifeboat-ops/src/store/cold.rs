//! Packs in archive classes: moving there what recent backups no longer reach, and bringing back what a restore needs.
//!
//! Which packs move is decided by `lifeboat_model::cold`, by reach and never by age. Only packs move: maps, keys and backup files stay
//! where they can be read at once, so listing, planning and pruning never wait. If we die in the middle, some packs have moved
//! and some have not; both kinds restore.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_model::cold::{Reaches, SMALLEST_COLD_BYTES, is_archive, may_go_cold, retrieval};
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, ComponentName, Listing};
use lifeboat_store::Key;
use lifeboat_store::s3admin::{Bucket, Restoring};
use tokio::task::JoinSet;

use super::Cold;
use crate::words::counted;

/// Requests about single files that are under way at once.
pub(super) const AT_ONCE: usize = 16;

/// For how many days a file that was brought back stays readable: long enough to find a weekend in between.
const READABLE_DAYS: u32 = 7;

/// What went cold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chilled {
    /// Packs that moved now.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that were cold already.
    pub cold_before: u64,
}

impl Chilled {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            packs: self.packs + other.packs,
            bytes: self.bytes + other.bytes,
            cold_before: self.cold_before + other.cold_before,
        }
    }
}

/// Moves the packs of a component that may go cold. A step after pruning, with the maintenance credentials: what no backup reaches was
/// deleted before. `listing` must be complete; backups that do not count keep what they name warm.
pub async fn chill(env: &Env, bucket: &Bucket, component: &ComponentName, listing: &Listing, cold: &Cold) -> Result<Chilled> {
    let mut stored = BTreeMap::new();
    let mut chilled = Chilled::default();
    for file in bucket.classes(&component.folder()?.join("packs")?).await? {
        if file.storage_class == cold.storage_class || is_archive(&file.storage_class) {
            chilled.cold_before += 1;
        } else if file.size_bytes >= SMALLEST_COLD_BYTES {
            stored.insert(file.key, file.size_bytes);
        }
    }
    if !listing.rejected.is_empty() {
        // What they need is not known; a restore may want them once they count again.
        return Ok(chilled);
    }
    let newest = listing.latest().map(|backup| backup.id);
    let mut backups = Vec::new();
    for backup in &listing.backups {
        backups.push(Reaches {
            moment_us: backup.header.moment_us,
            always_warm: Some(backup.id) == newest,
            packs: names(backup, component)?,
        });
    }
    let candidates: BTreeSet<Key> = stored.keys().cloned().collect();
    let moving = may_go_cold(env.clock.wall_us(), cold.unreached_for, &backups, &candidates);
    let mut waiting = moving.into_iter();
    let mut tasks: JoinSet<Result<Key>> = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some(key) = waiting.next() else { break };
            let (bucket, class) = (bucket.clone(), cold.storage_class.clone());
            tasks.spawn(async move { bucket.set_storage_class(&key, &class).await.map(|()| key) });
        }
        let Some(joined) = tasks.join_next().await else {
            return Ok(chilled);
        };
        let key = joined.map_err(lost)??;
        chilled.packs += 1;
        chilled.bytes += stored.get(&key).copied().unwrap_or(0);
    }
}

/// What of a restore lies in an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thaw {
    /// Files that cannot be read yet.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that were asked for now, by this call.
    pub asked_now: u64,
    /// The storage classes that they lie in.
    pub classes: BTreeSet<String>,
    /// How long the service usually takes; from the moment they were asked for.
    pub expected: Duration,
    /// How long it takes at most.
    pub slowest: Duration,
}

impl Thaw {
    /// Whether everything can be read.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.files == 0
    }

    /// How things stand, as a sentence without a final stop.
    #[must_use]
    pub fn says(&self) -> String {
        let classes: Vec<&str> = self.classes.iter().map(String::as_str).collect();
        format!(
            "{} ({}) of it lie in {} and take about {} to come back, at most {}",
            counted(self.files, "file"),
            human_bytes(self.bytes),
            classes.join(", "),
            human_duration(self.expected),
            human_duration(self.slowest)
        )
    }

    /// The error of a restore that has to wait.
    #[must_use]
    pub fn into_error(self, component: &ComponentName) -> Error {
        Error::new(ErrorKind::Unreachable, "restore", component, self.says()).with_hint(format!(
            "they were asked for, all at once: run the same command again in about {}; an older or newer backup may be readable now (`lifeboat list`)",
            human_duration(self.expected)
        ))
    }
}

/// Finds the files of a backup that lie in an archive; asks for all of them in one batch where `ask` says so. One listing, and one request for
/// each file that is archived.
pub async fn thaw(bucket: &Bucket, component: &ComponentName, backup: &Backup, ask: bool) -> Result<Thaw> {
    let needed: BTreeSet<Key> = names(backup, component)?.into_iter().collect();
    let stored = bucket.classes(&component.folder()?.join("packs")?).await?;
    let mut waiting = stored
        .into_iter()
        .filter(|file| is_archive(&file.storage_class) && needed.contains(&file.key));
    let mut thaw = Thaw::default();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some(file) = waiting.next() else { break };
            let bucket = bucket.clone();
            tasks.spawn(async move {
                let state = bucket.file(&file.key).await?.restoring;
                let state = match state {
                    Restoring::NotAsked if ask => (bucket.bring_back(&file.key, READABLE_DAYS).await?, true),
                    state => (state, false),
                };
                Ok::<_, Error>((file, state))
            });
        }
        let Some(joined) = tasks.join_next().await else { break };
        let (file, (state, asked)) = joined.map_err(lost)??;
        thaw.asked_now += u64::from(asked);
        if state != Restoring::Readable {
            thaw.files += 1;
            thaw.bytes += file.size_bytes;
            thaw.classes.insert(file.storage_class);
        }
    }
    (thaw.expected, thaw.slowest) = retrieval(thaw.classes.iter().map(String::as_str));
    Ok(thaw)
}

/// The names of a backup's packs, maps among them.
fn names(backup: &Backup, component: &ComponentName) -> Result<Vec<Key>> {
    backup
        .closure
        .packs
        .iter()
        .map(|pack| backup.closure.pack_key(pack, component))
        .collect()
}

pub(super) fn lost(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Bug, "wait for", "a request", "a task panicked").with_source(error)
}
