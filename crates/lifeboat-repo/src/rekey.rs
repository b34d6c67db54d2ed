//! Wrapping the keys of sessions that are there for other recipients: key files come and go, backups stay as they are (format 5).
//!
//! Order, so that every backup can be opened at every moment: a new key file is put and seen in a listing, then older ones are removed, and only
//! those that were listed **before** the put. So of two that do this at once neither removes the newer one's file, and the last stands. If
//! we die, files stand beside each other; the next run does the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};

use crate::closure::SessionKey;
use crate::id::{ComponentName, Lineage, RepositoryId, SessionId};
use crate::key::Scope;
use crate::key::age::{Encryption, SessionKeys};
use crate::key::file::{KeyFile, KeyFileName, put_key_file, read_key_files};
use crate::key::identity::Identities;
use crate::key::instance::Trust;
use crate::key::recipient::Fingerprint;
use crate::listing::{Backup, Listing};
use crate::log::{LogReader, list_log};
use crate::reader::keys::{Of, genuine, open_session};
use crate::repository::Repository;
use crate::state::StateFolder;

/// What becomes of the key files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rekey {
    /// They stay; recipients that none of them has get one more.
    Add,
    /// One for exactly the wanted recipients takes their place, and no backup builds on the session any more.
    Replace,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// Sessions that are needed.
    pub sessions: usize,
    /// Sessions that got a new key file.
    pub wrapped: usize,
    /// Key files that were removed.
    pub removed: usize,
    /// Sessions that are in the clear: there is nothing to wrap.
    pub clear: usize,
    /// Sessions that could not be opened or written, with the reason.
    pub failed: Vec<(SessionId, Error)>,
}

impl Rekeyed {
    /// Takes in what was done for others.
    pub fn unite(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.wrapped += other.wrapped;
        self.removed += other.removed;
        self.clear += other.clear;
        self.failed.extend(other.failed);
    }
}

/// Wraps the keys of every session that a backup of `listing` needs for the recipients of `encryption`. A session that none of
/// `identities` opens is reported in [`Rekeyed::failed`], and the others are done all the same; a store that does not answer is an error.
pub async fn rekey(
    env: &Env,
    repository: &Repository,
    component: &ComponentName,
    listing: &Listing,
    encryption: &Encryption,
    identities: &Identities,
    how: Rekey,
) -> Result<Rekeyed> {
    let mut sessions = Sessions::new();
    for backup in &listing.backups {
        for session in &backup.closure.sessions {
            sessions.entry(session.session).or_insert((backup.header.lineage, *session));
        }
    }
    wrap(env, repository, component, sessions, (encryption, identities, how)).await
}

/// The same for every session of which log stands: what a follower or `wal push` has written.
pub async fn rekey_log(
    env: &Env,
    repository: &Repository,
    component: &ComponentName,
    trust: &Trust,
    encryption: &Encryption,
    identities: &Identities,
    how: Rekey,
) -> Result<Rekeyed> {
    let log = list_log(repository, component, trust).await?;
    let clear = clear_sessions(repository, component).await?;
    let (mut sessions, mut unfit) = (Sessions::new(), BTreeMap::new());
    for record in &log.lineages {
        let reader = LogReader::of(repository, component, trust, identities.clone(), record.lineage, &log);
        for name in reader.files() {
            let session = name.session;
            if sessions.contains_key(&session) {
                continue;
            }
            // The key check stands in every file of the session; one that fits is enough.
            match reader.header(name).await {
                Ok(header) => {
                    let key = SessionKey {
                        session,
                        check: header.key_check,
                        clear: clear.contains(&session),
                    };
                    sessions.insert(session, (record.lineage, key));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
                    ) =>
                {
                    unfit.insert(session, error);
                }
                Err(error) => return Err(error),
            }
        }
    }
    unfit.retain(|session, _| !sessions.contains_key(session));
    let mut done = wrap(env, repository, component, sessions, (encryption, identities, how)).await?;
    done.failed.extend(unfit);
    Ok(done)
}

/// Sessions that have a key file in the clear and none that is encrypted.
async fn clear_sessions(repository: &Repository, component: &ComponentName) -> Result<BTreeSet<SessionId>> {
    let entries = repository.store().list(&component.folder()?.join("keys")?).await?;
    let names = || entries.iter().filter_map(|entry| KeyFileName::parse(entry.key.file_name()));
    let sealed: BTreeSet<SessionId> = names().filter(|name| !name.clear).map(|name| name.session).collect();
    Ok(names()
        .filter(|name| name.clear && !sealed.contains(&name.session))
        .map(|name| name.session)
        .collect())
}

/// Sessions with the lineage that their keys have to be of.
type Sessions = BTreeMap<SessionId, (Lineage, SessionKey)>;

async fn wrap(
    env: &Env,
    repository: &Repository,
    component: &ComponentName,
    sessions: Sessions,
    (encryption, identities, how): (&Encryption, &Identities, Rekey),
) -> Result<Rekeyed> {
    let wanted = encryption.fingerprints()?;
    if wanted.is_empty() {
        return Err(Error::new(
            ErrorKind::Usage,
            "wrap the keys of",
            component,
            "there is no recipient to wrap them for",
        ));
    }
    let mut done = Rekeyed {
        sessions: sessions.len(),
        ..Rekeyed::default()
    };
    env.progress.step("wrap keys", Some(sessions.len() as u64));
    let job = Job {
        repository,
        component,
        encryption,
        wanted,
        identities,
        how,
    };
    for (id, (lineage, session)) in sessions {
        if session.clear {
            done.clear += 1;
        } else {
            match job.session(lineage, &session, &mut done).await {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WrongKey | ErrorKind::Corrupt) => done.failed.push((id, error)),
                Err(error) => return Err(error),
            }
        }
        env.progress.advance(1);
    }
    env.progress.finish();
    Ok(done)
}

struct Job<'a> {
    repository: &'a Repository,
    component: &'a ComponentName,
    encryption: &'a Encryption,
    wanted: BTreeSet<Fingerprint>,
    identities: &'a Identities,
    how: Rekey,
}

impl Job<'_> {
    async fn session(&self, lineage: Lineage, session: &SessionKey, done: &mut Rekeyed) -> Result<()> {
        let of = Of {
            component: self.component,
            lineage,
        };
        let scope = Scope::new(self.repository.id(), self.component);
        let (names, before) = self.list(session).await?;
        let keys = open_session(self.repository, of, session, names.iter(), self.identities, &scope).await?;
        // What a key file says of itself is believed only where this machine can open it and its content fits.
        let mut known = BTreeSet::new();
        let mut exact = before.len() == 1;
        for file in &before {
            let is_genuine = genuine(self.repository, of, session, &file.name, self.identities, &scope).await?;
            if is_genuine {
                known.extend(file.roster.recipients.iter().flatten().copied());
            }
            exact &= is_genuine && file.roster.retired && file.roster.recipients.as_ref() == Some(&self.wanted);
        }
        match self.how {
            Rekey::Add if known.is_superset(&self.wanted) => return Ok(()),
            Rekey::Replace if exact && names.len() == 1 => return Ok(()),
            Rekey::Add | Rekey::Replace => {}
        }
        // A session that is retired stays so: the new file says it as well.
        let retired = self.how == Rekey::Replace || before.iter().any(|file| file.roster.retired);
        let new = self.put(&keys, retired).await?;
        done.wrapped += 1;
        let (after, _) = self.list(session).await?;
        if !after.contains(&new.name) {
            return Err(Error::new(
                ErrorKind::Failed,
                "wrap the keys of",
                session.session,
                "the new key file was stored, but is not listed",
            )
            .with_hint("something else deletes from this store; find it, then run this again"));
        }
        if self.how == Rekey::Replace {
            for name in names.iter().filter(|name| **name != new.name) {
                self.repository.store().delete(&name.key(self.component)?).await?;
                done.removed += 1;
            }
        }
        Ok(())
    }

    async fn put(&self, keys: &SessionKeys, retired: bool) -> Result<KeyFile> {
        let bytes = keys.wrap(self.repository.id(), self.component, self.encryption, retired)?;
        put_key_file(self.repository, self.component, keys.session, false, bytes).await
    }

    /// The key files of a session by name, and those that are whole.
    async fn list(&self, session: &SessionKey) -> Result<(Vec<KeyFileName>, Vec<KeyFile>)> {
        let entries = self.repository.store().list(&self.component.folder()?.join("keys")?).await?;
        let ours = |name: &KeyFileName| name.session == session.session && name.clear == session.clear;
        let names = entries
            .iter()
            .filter_map(|entry| KeyFileName::parse(entry.key.file_name()))
            .filter(ours)
            .collect();
        let mut files = read_key_files(&Arc::clone(self.repository.store()), entries.iter(), ours).await?;
        let files = files.remove(&(session.session, session.clear)).unwrap_or_default();
        Ok((names, files))
    }
}

/// Makes the next backup from this machine a full one under new keys, by forgetting what it may build on. Returns whether there was
/// anything to forget. Kind `Locked` while a backup of the component runs here.
pub fn forget_parent(state_dir: &Path, repository: RepositoryId, component: &ComponentName) -> Result<bool> {
    let folder = state_dir.join(repository.to_string()).join(component.segment());
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io("list", folder.display(), error)),
    };
    let mut forgotten = false;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", folder.display(), error))?;
        let method = entry.file_name().to_string_lossy().into_owned();
        // Other verbs have their locks beside: a follower may go on.
        if matches!(method.as_str(), "log" | "prune") {
            continue;
        }
        let state = StateFolder::lock(state_dir, repository, component, &method)?;
        // The pending state first: alone, the other is an older one that is still true.
        for name in ["pending.json", "state.json"] {
            let path = state.path.join(name);
            let there = path
                .try_exists()
                .map_err(|error| Error::io("look for", path.display(), error))?;
            if there {
                durable::remove_file(&path)?;
                forgotten = true;
            }
        }
    }
    Ok(forgotten)
}

/// Who can open a backup, as far as its key files say, and how old its keys are.
#[derive(Debug, Clone)]
pub struct Access {
    /// Sessions it needs.
    pub sessions: usize,
    /// Those who can open all of its sessions; `None` where it is in the clear or a key file does not say for whom it is.
    pub readers: Option<BTreeSet<Fingerprint>>,
    /// Those who can open one of its sessions and not all.
    pub partly: BTreeSet<Fingerprint>,
    /// No backup builds on its keys any more.
    pub retired: bool,
    /// When the oldest of its data keys was drawn, microseconds since 1970, as far as the backup that drew it is still there.
    pub oldest_key_us: Option<i64>,
}

/// Reads [`Access`] of `backup` from the listing; needs no key.
#[must_use]
pub fn access(listing: &Listing, backup: &Backup) -> Access {
    let mut all: Option<BTreeSet<Fingerprint>> = None;
    let mut some = BTreeSet::new();
    let (mut said, mut retired) = (true, false);
    for session in &backup.closure.sessions {
        let mut readers = BTreeSet::new();
        for file in backup.key_files.iter().filter(|file| file.name.session == session.session) {
            match &file.roster.recipients {
                Some(recipients) => readers.extend(recipients.iter().copied()),
                None => said = false,
            }
            retired |= file.roster.retired;
        }
        some.extend(readers.iter().copied());
        all = Some(match all {
            Some(before) => before.intersection(&readers).copied().collect(),
            None => readers,
        });
    }
    let drawn = |session: &SessionKey| {
        let writers = listing.backups.iter().filter(|other| other.header.session == session.session);
        writers.map(|other| other.header.began_us).min()
    };
    let all = all.unwrap_or_default();
    Access {
        sessions: backup.closure.sessions.len(),
        partly: some.difference(&all).copied().collect(),
        readers: said.then_some(all),
        retired,
        oldest_key_us: backup.closure.sessions.iter().filter_map(drawn).min(),
    }
}
