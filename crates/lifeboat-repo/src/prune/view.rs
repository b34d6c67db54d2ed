//! What the pruner sees: files first, then sessions and holds, then backups (steps 2 and 5 of `docs/deletion.md`).
//!
//! Whatever cannot be judged ends the run: an unknown name, an announcement that nobody known signed, a backup file that does not read.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::protocol::{self, Marks, Session, StoredFile, View};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{Entry, Key};

use super::Amount;
use super::hold::Hold;
use super::log::{self, Log};
use super::records::{Listed, Place, below, owner_of, session_of, since_1970};
use crate::id::SessionId;
use crate::listing::{Backup, Listing};
use crate::log::LogPlace;

/// Everything that was listed, in the order that matters.
#[derive(Debug)]
pub(super) struct Seen {
    /// Without log.
    pub(super) view: View<Key>,
    pub(super) log: Log,
    pub(super) listing: Listing,
    pub(super) holds: Vec<Hold>,
    /// Announcements with the entry they came from.
    pub(super) sessions: Vec<(Key, Session<Key>)>,
    /// Marks of damage, listed before everything else.
    pub(super) bad: Vec<Key>,
    pub(super) now_us: i64,
    pub(super) notes: Vec<String>,
}

impl Seen {
    /// What `marks` come to.
    pub(super) fn amount(&self, marks: &Marks<Key>) -> Amount {
        let size = |key: &Key| self.listing.files.get(key).copied().unwrap_or(0);
        Amount {
            backups: marks.backups.iter().filter_map(|key| key.file_name().parse().ok()).collect(),
            files: marks.files.len() as u64,
            bytes: marks.backups.iter().chain(&marks.files).map(size).sum(),
        }
    }
}

/// Looks at everything. `asked_at_us`: the store's time, taken before.
pub(super) async fn look(place: &Place<'_>, asked_at_us: i64) -> Result<Seen> {
    let folder = place.folder()?;
    let store = place.store();
    let bad = store
        .list(&folder.join("bad")?)
        .await?
        .into_iter()
        .map(|entry| entry.key)
        .collect();
    let mut files = Vec::new();
    for below in ["packs", "maps", "keys"] {
        files.extend(store.list(&folder.join(below)?).await?);
    }
    let log = store.list(&folder.join("log")?).await?;
    let mut sessions = Vec::new();
    for entry in store.list(&folder.join("sessions")?).await? {
        if let Some(session) = present(place.session(&entry).await)? {
            sessions.push((entry.key, session));
        }
    }
    let holds: Vec<Hold> = super::hold::list_of(place)
        .await?
        .into_iter()
        .filter(|hold| hold.until_us.is_none_or(|until| asked_at_us < until))
        .collect();
    let log = log::look(place, log).await?;
    let listing = place.repository.backups(place.component, place.trust).await?;
    refuse_unknown(&folder, &listing)?;
    let standing = standing(&listing)?;
    let stored = files
        .iter()
        .map(|entry| stored_file(&folder, entry))
        .collect::<Result<Vec<_>>>()?;
    let backups = as_protocol(&folder, &standing, &stored)?;
    let held = held(&folder, &holds, &backups)?;
    let notes = listing
        .unjudged
        .iter()
        .map(|list| format!("{} cannot be judged and is left alone: {}", list.name, list.reason));
    Ok(Seen {
        notes: notes.collect(),
        view: View {
            files: stored,
            sessions: sessions.iter().map(|(_, session)| session.clone()).collect(),
            asked_at: since_1970(asked_at_us),
            held,
            backups,
        },
        log,
        listing,
        holds,
        sessions,
        bad,
        now_us: asked_at_us,
    })
}

/// Every file that stands in `prune/`, judged. One that cannot be judged ends the run.
pub(super) async fn prune_files(place: &Place<'_>) -> Result<Vec<Listed>> {
    let mut lists = Vec::new();
    for entry in place.store().list(&place.folder()?.join("prune")?).await? {
        if let Some(list) = present(place.marks(&entry).await)? {
            lists.push(list);
        }
    }
    Ok(lists)
}

/// All names of the component.
pub(super) async fn names(place: &Place<'_>) -> Result<BTreeSet<Key>> {
    let entries = place.store().list(&place.folder()?).await?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

/// A file that went between its listing and its reading is not there; anything else that cannot be judged ends the run.
fn present<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unjudged(error)),
    }
}

/// What cannot be judged ends the run.
pub(super) fn judged<T>(read: Result<T>) -> Result<T> {
    read.map_err(unjudged)
}

/// A file that has gone, or does not fit, says nothing.
pub(super) fn present_or_unfit<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Incompatible
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn unjudged(error: Error) -> Error {
    if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) {
        let detail = format!("it cannot be judged, so nothing is deleted: {}", error.detail());
        let hint = error
            .hint()
            .unwrap_or("look at the file; once it is explained and removed, prune again")
            .to_owned();
        Error::new(ErrorKind::Refused, "prune beside", error.subject().to_owned(), detail)
            .with_hint(hint)
            .with_source(error)
    } else {
        error
    }
}

/// All backup files that stand, whether they count or not.
fn standing(listing: &Listing) -> Result<Vec<&Backup>> {
    let mut standing: Vec<&Backup> = listing.backups.iter().chain(&listing.leaving).collect();
    for rejected in &listing.rejected {
        let Some(backup) = &rejected.backup else {
            let detail = format!("it cannot be judged, so nothing is deleted: {}", rejected.reason.detail());
            let hint = rejected
                .reason
                .hint()
                .unwrap_or("once the file is explained and removed, prune again");
            return Err(Error::new(
                ErrorKind::Refused,
                "prune beside",
                format!("backups/{}", rejected.name),
                detail,
            )
            .with_hint(hint.to_owned()));
        };
        standing.push(backup);
    }
    Ok(standing)
}

fn stored_file(folder: &Key, entry: &Entry) -> Result<StoredFile<Key>> {
    let session = owner_of(below(folder, &entry.key)).ok_or_else(|| unknown(&entry.key))?;
    Ok(StoredFile {
        name: entry.key.clone(),
        session: folder.join(&format!("sessions/{session}"))?,
    })
}

/// Backups with everything that they protect: their packs, and every key file of a session whose packs they need.
fn as_protocol(folder: &Key, standing: &[&Backup], stored: &[StoredFile<Key>]) -> Result<Vec<protocol::Backup<Key>>> {
    let keys_folder = folder.join("keys")?;
    let mut keys: BTreeMap<SessionId, Vec<&Key>> = BTreeMap::new();
    for file in stored.iter().filter(|file| file.name.is_under(&keys_folder)) {
        if let Some(session) = owner_of(below(folder, &file.name)) {
            keys.entry(session).or_default().push(&file.name);
        }
    }
    let mut backups = Vec::new();
    for backup in standing {
        let packs = backup.closure.pack_files(&backup.header.component)?;
        let mut files: BTreeSet<Key> = packs.into_iter().map(|(key, _)| key).collect();
        for key in &backup.closure.sessions {
            files.extend(keys.get(&key.session).into_iter().flatten().copied().cloned());
        }
        backups.push(protocol::Backup {
            name: folder.join(&format!("backups/{}", backup.id))?,
            files,
        });
    }
    Ok(backups)
}

fn held(folder: &Key, holds: &[Hold], backups: &[protocol::Backup<Key>]) -> Result<BTreeSet<Key>> {
    let mut held = BTreeSet::new();
    for hold in holds {
        match &hold.backup {
            Some(id) => held.insert(folder.join(&format!("backups/{id}"))?),
            None => {
                held.extend(backups.iter().map(|backup| backup.name.clone()));
                true
            }
        };
    }
    Ok(held)
}

/// Every name has to be one that this version knows (format 1).
fn refuse_unknown(folder: &Key, listing: &Listing) -> Result<()> {
    for key in listing.files.keys() {
        let name = below(folder, key);
        let known = match name.split_once('/') {
            Some(("packs" | "maps" | "keys", _)) => owner_of(name).is_some(),
            Some(("sessions", session)) => session_of(session).is_some(),
            // Read and judged one by one.
            Some(("backups" | "prune" | "holds", _)) => true,
            Some(("bad", mark)) => !mark.contains('/'),
            Some(("log", _)) => LogPlace::parse(name).is_some(),
            Some(("ledger" | "lease", _)) => true,
            _ => false,
        };
        if !known {
            return Err(unknown(key));
        }
    }
    Ok(())
}

fn unknown(key: &Key) -> Error {
    Error::new(
        ErrorKind::Refused,
        "prune beside",
        key,
        "this Lifeboat does not know what a file of that name is for, so nothing is deleted",
    )
    .with_hint("use the newest Lifeboat that writes to this store; a file that is nobody's can be removed by hand")
}
