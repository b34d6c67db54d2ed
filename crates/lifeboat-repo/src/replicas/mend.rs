//! Before the parent is used: what one store lacks of it and another has is copied.
//!
//! After the announcement, so that no pruner of that store takes it away again. Keys and packs first, then a look at all of them, then the
//! parent's backup file (INV-02). What no store has in good order stays missing, and the writer stores it again from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Entry, Key, Put};
use tokio::task::JoinSet;

use super::{Member, Replicas, damaged, fits_name};
use crate::closure::Closure;
use crate::id::{BackupId, ComponentName, SessionId};
use crate::listing::BACKUP_LIMIT_BYTES;
use crate::pack::PACK_LIMIT_BYTES;
use crate::state::State;

/// Files on their way at once; each is in memory as a whole.
pub(crate) const COPIES: usize = 3;

/// What has to be in a store for a backup to count there.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The backup file.
    pub(crate) backup: BackupId,
    /// Packs and maps with their sizes in bytes.
    pub(crate) packs: Vec<(Key, u64)>,
    /// Each needs one key file, whichever.
    pub(crate) sessions: Vec<SessionId>,
}

impl Wanted {
    /// What the local state's backup needs.
    pub(crate) fn of(state: &State, component: &ComponentName) -> Result<Self> {
        Self::new(state.backup, &state.closure, component)
    }

    /// What a backup with this closure needs.
    pub(crate) fn new(backup: BackupId, closure: &Closure, component: &ComponentName) -> Result<Self> {
        Ok(Self {
            backup,
            packs: closure.pack_files(component)?,
            sessions: closure.sessions.iter().map(|session| session.session).collect(),
        })
    }

    /// The name of its backup file.
    pub(crate) fn backup_key(&self, component: &ComponentName) -> Result<Key> {
        component.folder()?.join(&format!("backups/{}", self.backup))
    }

    /// What `there` lacks of it, without the backup file, where `elsewhere` says which key files other stores have.
    pub(crate) fn lacking(
        &self,
        component: &ComponentName,
        there: &BTreeMap<Key, Entry>,
        elsewhere: &BTreeMap<Key, u64>,
    ) -> Result<Vec<(Key, u64)>> {
        let mut lacking = Vec::new();
        for session in &self.sessions {
            let prefix = component.folder()?.join("keys")?.to_string() + &format!("/{session}-");
            if !there.keys().any(|key| key.as_str().starts_with(&prefix)) {
                let known = elsewhere.iter().filter(|(key, _)| key.as_str().starts_with(&prefix));
                lacking.extend(known.map(|(key, size)| (key.clone(), *size)));
            }
        }
        let is_there = |key: &Key, size: u64| there.get(key).is_some_and(|entry| entry.size_bytes == size);
        lacking.extend(self.packs.iter().filter(|(key, size)| !is_there(key, *size)).cloned());
        Ok(lacking)
    }

    /// The first thing of it, in words, that is not among the files `there`: a pack, or any key file of a session.
    pub(crate) fn wanting(&self, component: &ComponentName, there: &BTreeMap<Key, Entry>) -> Result<Option<String>> {
        let keys = component.folder()?.join("keys")?;
        let has_key = |session: &SessionId| {
            let prefix = format!("{keys}/{session}-");
            there.keys().any(|key| key.as_str().starts_with(&prefix))
        };
        if let Some(session) = self.sessions.iter().find(|session| !has_key(session)) {
            return Ok(Some(format!("any key file of session {session}")));
        }
        let lacking = self.lacking(component, there, &BTreeMap::new())?;
        Ok(lacking.first().map(|(key, _)| key.to_string()))
    }
}

/// One file that one store lacks.
struct Lack {
    place: usize,
    key: Key,
    size_bytes: u64,
    /// Where it is listed with the right size.
    sources: Vec<usize>,
}

impl Replicas {
    /// Brings what `wanted` needs into every store that takes part, from another that has it; then its backup file. A store that cannot
    /// be written to leaves. Those where something forbids to build on it have left before, so nothing is brought back that a pruner
    /// gives up.
    pub(crate) async fn mend(
        &self,
        env: &Env,
        component: &ComponentName,
        wanted: &Wanted,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let listed = self.list_each(&component.folder()?).await?;
        let lacks = lacks(component, wanted, &listed)?;
        let header = wanted.backup_key(component)?;
        let without_header = |(place, files): &(usize, BTreeMap<Key, Entry>)| (!files.contains_key(&header)).then_some(*place);
        let behind: BTreeSet<usize> = listed.iter().filter_map(without_header).collect();
        if lacks.is_empty() && behind.is_empty() {
            return Ok(());
        }
        let bytes: u64 = lacks.iter().map(|lack| lack.size_bytes).sum();
        env.progress.step("mend", Some(bytes));
        let affected: BTreeSet<usize> = lacks.iter().map(|lack| lack.place).chain(behind.iter().copied()).collect();
        let copied = self.copy_lacking(env, lacks).await?;
        for place in behind {
            self.bring_header(component, wanted, &header, place).await?;
        }
        env.progress.finish();
        for place in affected.into_iter().filter(|place| self.members[*place].is_live()) {
            notes.push(format!(
                "the store {} had missed something of the last backup: {} files were copied there from another store",
                self.members[place].name,
                copied.get(&place).copied().unwrap_or(0)
            ));
        }
        Ok(())
    }

    /// Copies; returns how many files each store got. A file that could not be read anywhere is passed over.
    async fn copy_lacking(&self, env: &Env, lacks: Vec<Lack>) -> Result<BTreeMap<usize, usize>> {
        let mut copied = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut pending = lacks.into_iter();
        loop {
            while tasks.len() < COPIES {
                let Some(lack) = pending.find(|lack| self.members[lack.place].is_live()) else {
                    break;
                };
                let stores = |place: &usize| Arc::clone(&self.members[*place].store);
                let sources: Vec<_> = lack.sources.iter().map(stores).collect();
                let to = stores(&lack.place);
                tasks.spawn(async move {
                    let outcome = copy_file(&sources, &to, &lack.key, lack.size_bytes).await;
                    (lack.place, lack.size_bytes, outcome)
                });
            }
            let Some(joined) = tasks.join_next().await else {
                return Ok(copied);
            };
            let (place, size_bytes, outcome) = joined
                .map_err(|error| Error::new(ErrorKind::Bug, "copy", "a stored file", "a task panicked").with_source(error))?;
            match outcome {
                Ok(_) => {
                    *copied.entry(place).or_insert(0) += 1;
                    env.progress.advance(size_bytes);
                }
                // It is stored again from the source, in all stores.
                Err(NotCopied::Unreadable(_)) => {}
                Err(NotCopied::Unwritable(error)) => self.members[place].leave(error, false),
            }
        }
    }

    /// The backup file, last, if everything else of it is there now.
    async fn bring_header(&self, component: &ComponentName, wanted: &Wanted, header: &Key, place: usize) -> Result<()> {
        let member: &Member = &self.members[place];
        if !member.is_live() {
            return Ok(());
        }
        let listed: BTreeMap<Key, Entry> = match member.store.list(&component.folder()?).await {
            Ok(entries) => entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect(),
            Err(error) => {
                member.leave(error, false);
                return Ok(());
            }
        };
        if wanted.wanting(component, &listed)?.is_some() {
            return Ok(());
        }
        let others = self.live().into_iter().filter(|other| *other != place);
        let sources: Vec<_> = others.map(|other| Arc::clone(&self.members[other].store)).collect();
        match copy_file(&sources, &member.store, header, BACKUP_LIMIT_BYTES).await {
            // Where no store has it in good order, the writer's own listing says what that means.
            Ok(_) | Err(NotCopied::Unreadable(_)) => {}
            Err(NotCopied::Unwritable(error)) => member.leave(error, false),
        }
        Ok(())
    }
}

fn lacks(component: &ComponentName, wanted: &Wanted, listed: &[(usize, BTreeMap<Key, Entry>)]) -> Result<Vec<Lack>> {
    let known: BTreeMap<Key, u64> = listed
        .iter()
        .flat_map(|(_, files)| files.values().map(|entry| (entry.key.clone(), entry.size_bytes)))
        .collect();
    let mut lacks = Vec::new();
    for (place, files) in listed {
        for (key, size_bytes) in wanted.lacking(component, files, &known)? {
            let has = |files: &BTreeMap<Key, Entry>| files.get(&key).is_some_and(|entry| entry.size_bytes == size_bytes);
            let sources: Vec<usize> = listed
                .iter()
                .filter(|(_, files)| has(files))
                .map(|(place, _)| *place)
                .collect();
            // A file of the same name and another size cannot be replaced by a put: it counts as lost.
            if !sources.is_empty() && !files.contains_key(&key) {
                lacks.push(Lack {
                    place: *place,
                    key,
                    size_bytes,
                    sources,
                });
            }
        }
    }
    Ok(lacks)
}

/// Why a file was not copied.
#[derive(Debug)]
pub(crate) enum NotCopied {
    /// No source gave it whole; the last reason.
    Unreadable(Error),
    /// The destination refused it.
    Unwritable(Error),
}

/// Copies one file from the first of `sources` that gives it undamaged, and says which that was. It is compared with the hash in its
/// name before it is put.
pub(crate) async fn copy_file(
    sources: &[Arc<dyn BlobStore>],
    to: &Arc<dyn BlobStore>,
    key: &Key,
    size_bytes: u64,
) -> std::result::Result<usize, NotCopied> {
    let mut reason = Error::new(ErrorKind::NotFound, "copy", key, "no other store has it");
    for (place, source) in sources.iter().enumerate() {
        match read_whole(source, key, size_bytes).await {
            Ok(bytes) => {
                return match to.put(key, bytes).await {
                    Ok(Put::Created | Put::AlreadyThere) => Ok(place),
                    Err(error) => Err(NotCopied::Unwritable(error)),
                };
            }
            Err(error) => reason = error,
        }
    }
    Err(NotCopied::Unreadable(reason))
}

/// A stored file that hashes to its name.
pub(crate) async fn read_whole(source: &Arc<dyn BlobStore>, key: &Key, size_bytes: u64) -> Result<bytes::Bytes> {
    let bytes = source.get(key, PACK_LIMIT_BYTES.max(size_bytes)).await?;
    let name = key.clone();
    let (bytes, fits) = compute::run("hash", move || {
        let fits = fits_name(&name, &bytes);
        Ok((bytes, fits))
    })
    .await?;
    if fits { Ok(bytes) } else { Err(damaged(key)) }
}
