//! Several stores that hold the same repository, as one store to write through (docs/several-stores.md).
//!
//! A put goes into every store that still takes part, side by side, and is done when each has answered: the slowest sets the pace, so that
//! no more packs are in memory than with one store. One that fails is left out for the rest of the run; the last one left keeps its error.
//! A listing shows keys, packs and maps only where **every** store has them, and everything else where **any** has it: what is missing
//! somewhere is stored again, and what forbids something somewhere forbids it. Must not decide what a copy is worth: callers do.

mod judge;
mod mend;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};
use tokio::task::JoinSet;

use crate::id::{BackupId, RepositoryId};
use crate::repository::{Repository, another};
use crate::sync::lock;
pub(crate) use judge::Condemned;
pub(crate) use mend::{COPIES, NotCopied, Wanted, copy_file, read_whole};

/// How much longer than another store one may take for a single operation before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What became of a backup in one store.
#[derive(Debug)]
pub struct CopyOutcome {
    /// The store, as the caller named it.
    pub store: String,
    /// Why it has no copy; `None` where it has.
    pub missing: Option<Error>,
    /// It is well, but the parent cannot be built upon there: it needs a session of its own.
    pub apart: bool,
    /// The backup that it got instead, from a session of its own.
    pub own: Option<BackupId>,
}

/// Several stores with the same repository.
pub(crate) struct Replicas {
    id: RepositoryId,
    name: String,
    members: Vec<Member>,
    patience: Duration,
}

struct Member {
    name: String,
    store: Arc<dyn BlobStore>,
    left: Mutex<Option<Left>>,
}

/// Why a store no longer takes part.
struct Left {
    reason: Error,
    apart: bool,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Member {
    fn is_live(&self) -> bool {
        lock(&self.left).is_none()
    }

    /// The first reason stays.
    fn leave(&self, reason: Error, apart: bool) {
        let mut left = lock(&self.left);
        if left.is_none() {
            *left = Some(Left { reason, apart });
        }
    }
}

impl Replicas {
    /// See [`Repository::joined`].
    pub(crate) fn join(stores: Vec<(String, Result<Repository>)>) -> Result<Self> {
        let id = stores.iter().find_map(|(_, opened)| opened.as_ref().ok().map(Repository::id));
        let Some(id) = id else {
            let first = stores.into_iter().find_map(|(_, opened)| opened.err());
            return Err(
                first.unwrap_or_else(|| Error::new(ErrorKind::Bug, "open", "the repository", "no store was named for it"))
            );
        };
        let members: Vec<Member> = stores.into_iter().map(|(name, opened)| member(name, opened, id)).collect();
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        Ok(Self {
            id,
            name: names.join(" and "),
            members,
            patience: PATIENCE,
        })
    }

    /// The same stores, as they stand now, with another limit for one that hangs.
    pub(crate) fn with_patience(&self, patience: Duration) -> Self {
        let again = |member: &Member| Member {
            name: member.name.clone(),
            store: Arc::clone(&member.store),
            left: Mutex::new(lock(&member.left).as_ref().map(|left| Left {
                reason: left.reason.duplicate(),
                apart: left.apart,
            })),
        };
        Self {
            id: self.id,
            name: self.name.clone(),
            members: self.members.iter().map(again).collect(),
            patience,
        }
    }

    pub(crate) fn id(&self) -> RepositoryId {
        self.id
    }

    pub(crate) fn outcomes(&self) -> Vec<CopyOutcome> {
        let outcome = |member: &Member| {
            let left = lock(&member.left);
            CopyOutcome {
                store: member.name.clone(),
                missing: left.as_ref().map(|left| left.reason.duplicate()),
                apart: left.as_ref().is_some_and(|left| left.apart),
                own: None,
            }
        };
        self.members.iter().map(outcome).collect()
    }

    /// The places of the members that take part.
    fn live(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|index| self.members[*index].is_live())
            .collect()
    }

    /// Asks the stores at `places` side by side. One that has not answered long after another has is answered for: kind `TimedOut`.
    async fn ask<T, F>(&self, places: &[usize], ask: impl Fn(Arc<dyn BlobStore>) -> F) -> Vec<(usize, Result<T>)>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for place in places.iter().copied() {
            let asked = ask(Arc::clone(&self.members[place].store));
            tasks.spawn(async move { (place, asked.await) });
        }
        let mut answers = BTreeMap::new();
        while !tasks.is_empty() {
            let next = if answers.values().any(Result::is_ok) {
                tokio::time::timeout(self.patience, tasks.join_next()).await.unwrap_or(None)
            } else {
                tasks.join_next().await
            };
            match next {
                Some(Ok((place, answer))) => drop(answers.insert(place, answer)),
                Some(Err(_panicked)) => {}
                // Out of patience: the tasks that are left end with the set.
                None => break,
            }
        }
        let silent = |place: &usize| {
            Error::new(
                ErrorKind::TimedOut,
                "use the store",
                &self.members[*place].name,
                format!(
                    "another store answered, and this one did not for {} s",
                    self.patience.as_secs()
                ),
            )
            .with_hint("find out what makes it hang; `lifeboat copy` brings it what it missed")
        };
        let answer = |place: &usize| (*place, answers.remove(place).unwrap_or_else(|| Err(silent(place))));
        places.iter().map(answer).collect()
    }

    /// Takes the answers apart: those who failed leave. If all of them have, the first error is the answer and nobody leaves.
    fn settle<T>(&self, answers: Vec<(usize, Result<T>)>) -> Result<Vec<(usize, T)>> {
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for (place, answer) in answers {
            match answer {
                Ok(answer) => good.push((place, answer)),
                Err(error) => bad.push((place, error)),
            }
        }
        if good.is_empty() {
            return Err(bad.into_iter().next().map_or_else(
                || Error::new(ErrorKind::Bug, "use", &self.name, "no store takes part any more"),
                |(_, error)| error,
            ));
        }
        for (place, error) in bad {
            self.members[place].leave(error, false);
        }
        Ok(good)
    }

    /// Lists `folder` in every store that takes part, by place.
    async fn list_each(&self, folder: &Key) -> Result<Vec<(usize, BTreeMap<Key, Entry>)>> {
        let answers = self
            .ask(&self.live(), |store| {
                let folder = folder.clone();
                async move { store.list(&folder).await }
            })
            .await;
        let listed = self.settle(answers)?;
        let by_key = |entries: Vec<Entry>| entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Ok(listed.into_iter().map(|(place, entries)| (place, by_key(entries))).collect())
    }

    /// The first good answer of those that take part, in their order. An absence only if all say so.
    async fn first<T, F>(&self, ask: impl Fn(Arc<dyn BlobStore>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut worst: Option<Error> = None;
        for place in self.live() {
            match ask(Arc::clone(&self.members[place].store)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if worst.as_ref().is_none_or(|known| known.kind() == ErrorKind::NotFound) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| Error::new(ErrorKind::Bug, "use", &self.name, "no store takes part any more")))
    }
}

fn member(name: String, opened: Result<Repository>, id: RepositoryId) -> Member {
    let (store, left) = match opened {
        Ok(repository) if repository.id() == id => (Arc::clone(repository.store()), None),
        Ok(repository) => {
            let error = another(&name, repository.id(), id);
            (Arc::clone(repository.store()), Some(error))
        }
        Err(error) => {
            let away = lifeboat_store::away::AwayStore::new(name.as_str(), error.duplicate());
            (Arc::new(away) as Arc<dyn BlobStore>, Some(error))
        }
    };
    Member {
        name,
        store,
        left: Mutex::new(left.map(|reason| Left { reason, apart: false })),
    }
}

/// Whether a name is of those that only count where every store has them.
fn needed_everywhere(key: &Key) -> bool {
    let folder = key.as_str().split('/').nth(2).unwrap_or_default();
    matches!(folder, "keys" | "packs" | "maps")
}

/// The beginning that the names of all key files of the same session share; `None` for what is no key file.
fn session_of_key_file(key: &Key) -> Option<&str> {
    let name = key.as_str();
    let (folder, file) = name.rsplit_once('/')?;
    let session = file.split_once('-')?.0;
    if !folder.ends_with("/keys") {
        return None;
    }
    name.get(..folder.len() + 1 + session.len())
}

/// Whether `bytes` hash to what the name says, where it says something.
pub(crate) fn fits_name(key: &Key, bytes: &[u8]) -> bool {
    let name = key.file_name();
    let stem = name
        .strip_suffix(".age")
        .or_else(|| name.strip_suffix(".clear"))
        .unwrap_or(name);
    let named = stem.rsplit('-').next().unwrap_or_default();
    let folder = key.as_str().split('/').nth(2).unwrap_or_default();
    !matches!(folder, "keys" | "packs" | "maps" | "backups" | "log") || named == blake3::hash(bytes).to_string()
}

#[async_trait]
impl BlobStore for Replicas {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        let all = |has: fn(&Capabilities) -> bool| self.members.iter().all(|member| has(&member.store.capabilities()));
        Capabilities {
            conditional_put: all(|capabilities| capabilities.conditional_put),
            versioning: all(|capabilities| capabilities.versioning),
            object_lock: all(|capabilities| capabilities.object_lock),
        }
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        let mut answers = self
            .ask(&self.live(), |store| {
                let (key, body) = (key.clone(), body.clone());
                async move { store.put(&key, body).await }
            })
            .await;
        // A session number that is taken anywhere is not used anywhere: the caller draws another.
        let is_taken = |answer: &Result<Put>| matches!(answer, Err(error) if error.kind() == ErrorKind::AlreadyExists);
        if key.as_str().split('/').nth(2) == Some("sessions")
            && let Some(at) = answers.iter().position(|(_, answer)| is_taken(answer))
        {
            return answers.swap_remove(at).1;
        }
        let stored = self.settle(answers)?;
        let created = stored.iter().any(|(_, put)| *put == Put::Created);
        Ok(if created { Put::Created } else { Put::AlreadyThere })
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        let get = |store: Arc<dyn BlobStore>| async move {
            let bytes = store.get(key, limit_bytes).await?;
            if fits_name(key, &bytes) {
                Ok(bytes)
            } else {
                Err(damaged(key))
            }
        };
        self.first(get).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.first(|store| {
            let range = range.clone();
            async move { store.get_range(key, range).await }
        })
        .await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.first(|store| async move { store.head(key).await }).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        let listed = self.list_each(prefix).await?;
        let mut together: BTreeMap<&Key, &Entry> = BTreeMap::new();
        for (_, entries) in &listed {
            together.extend(entries);
        }
        let everywhere = |entry: &Entry| {
            let same = |there: &Entry| there.size_bytes == entry.size_bytes;
            match session_of_key_file(&entry.key) {
                // Key files come and go in each store by itself; every store needs one for the session, whichever.
                Some(prefix) => listed
                    .iter()
                    .all(|(_, entries)| entries.keys().any(|key| key.as_str().starts_with(prefix))),
                None => listed.iter().all(|(_, entries)| entries.get(&entry.key).is_some_and(same)),
            }
        };
        let shown = together
            .into_values()
            .filter(|entry| !needed_everywhere(&entry.key) || everywhere(entry));
        Ok(shown.cloned().collect())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let answers = self
            .ask(&self.live(), |store| {
                let key = key.clone();
                async move { store.delete(&key).await }
            })
            .await;
        answers.into_iter().try_for_each(|(_, answer)| answer)
    }
}

/// The error for bytes that do not hash to their name.
pub(crate) fn damaged(key: &Key) -> Error {
    let detail = "its bytes do not hash to its name: it is damaged or was overwritten";
    Error::new(ErrorKind::Corrupt, "read", key, detail)
        .with_hint("run a backup: what is damaged is stored again; `lifeboat copy` brings a good copy from another store")
}
