//! Which backups count (INV-09): signed by a known instance, standing where they say, with every file of their closure there.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use lifeboat_model::protocol::{self, Marks};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{Entry, Key};

use crate::closure::Closure;
use crate::header::{self, Header};
use crate::id::{BackupId, ComponentName, SessionId};
use crate::key::file::{KeyFile, KeyFiles, read_key_files};
use crate::key::instance::Trust;
use crate::prune::marks::read_sweeps;
use crate::prune::records::{Place, keys_of};
use crate::repository::Repository;
use crate::signed::{self, Kind};

/// The method of backups that were made of old files of other programs.
pub const IMPORTED: &str = "imported";

/// A backup file is at most this long.
pub(crate) const BACKUP_LIMIT_BYTES: u64 = 1 << 30;

/// A backup that counts.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its name.
    pub id: BackupId,
    /// What it says of itself.
    pub header: Header,
    /// The files it needs.
    pub closure: Closure,
    /// The key files of its sessions that stand and hash to their names; at least one for each session.
    pub key_files: Vec<KeyFile>,
}

impl Backup {
    /// Every file of the backup with its size in bytes: its key files, then its packs.
    pub fn files(&self) -> Result<Vec<(Key, u64)>> {
        let component = &self.header.component;
        let mut files = Vec::with_capacity(self.key_files.len() + self.closure.packs.len());
        for file in &self.key_files {
            files.push((file.name.key(component)?, file.size_bytes));
        }
        files.extend(self.closure.pack_files(component)?);
        Ok(files)
    }
}

/// Something under `backups/` that does not count.
#[derive(Debug)]
pub struct Rejected {
    /// Its name in the store.
    pub name: String,
    /// Why.
    pub reason: Error,
    /// The backup, where its file is whole and signed by a known instance and only what it needs is wanting.
    pub backup: Option<Box<Backup>>,
}

/// All backups of a component in one store.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that count, ascending by sequence.
    pub backups: Vec<Backup>,
    /// What does not count, with the reason.
    pub rejected: Vec<Rejected>,
    /// Backups that a pruner is deleting, or that landed too late: they count nowhere (INV-15).
    pub leaving: Vec<Backup>,
    /// Sweep lists that cannot be judged, with the reason: they are never used.
    pub unjudged: Vec<Rejected>,
    /// Every file of the component: name and size in bytes.
    pub(crate) files: BTreeMap<Key, u64>,
    /// The key files that stand, of every session that a backup names.
    pub(crate) key_files: KeyFiles,
}

impl Listing {
    /// Backups that were found to count, as one listing: for choosing among those of several stores.
    #[must_use]
    pub fn of(mut backups: Vec<Backup>) -> Self {
        backups.sort_by_key(|backup| backup.id);
        Self {
            backups,
            ..Self::default()
        }
    }

    /// Hashes of files that somebody found damaged (`bad/`).
    pub(crate) fn marked_bad(&self, component: &ComponentName) -> Result<BTreeSet<String>> {
        let folder = component.folder()?.join("bad")?;
        let marks = self.files.keys().filter(|key| key.is_under(&folder));
        Ok(marks.map(|key| key.file_name().to_owned()).collect())
    }

    /// Puts a backup whose file is sound where it belongs.
    fn judge(&mut self, mut backup: Backup, sweeps: &[Marks<Key>]) -> Result<()> {
        let as_listed = protocol_backup(&backup.header.component, &backup.id, &backup.closure)?;
        if sweeps.iter().any(|marks| marks.touches(&as_listed)) {
            self.leaving.push(backup);
            return Ok(());
        }
        match find_files(&mut backup, self)? {
            None => self.backups.push(backup),
            Some(reason) => self.rejected.push(Rejected {
                name: backup.id.to_string(),
                reason,
                backup: Some(Box::new(backup)),
            }),
        }
        Ok(())
    }

    /// The newest complete backup: the highest sequence. Extracts and incomplete ones are never "latest"; imported ones only where there is
    /// nothing else, and then the one of the latest moment: they were stored late, and hold what is old.
    #[must_use]
    pub fn latest(&self) -> Option<&Backup> {
        let whole = || {
            self.backups
                .iter()
                .filter(|backup| !backup.header.extract && !backup.header.incomplete)
        };
        let own = whole().rev().find(|backup| backup.header.method != IMPORTED);
        own.or_else(|| whole().max_by_key(|backup| (backup.header.moment_us, backup.id)))
    }

    /// Finds a backup by what people type: `latest`, a sequence number, or the beginning of `SEQ-HASH`.
    pub fn find(&self, text: &str) -> Result<&Backup> {
        if text == "latest" {
            return self.latest().ok_or_else(|| no_such(text, "there is no backup"));
        }
        let matches: Vec<&Backup> = self.backups.iter().filter(|backup| names(&backup.id, text)).collect();
        match matches.as_slice() {
            [one] => Ok(one),
            [] => Err(self.not_found(text)),
            _ => Err(Error::new(
                ErrorKind::Usage,
                "choose a backup by",
                format!("{text:?}"),
                "several backups have that name: give more of it",
            )),
        }
    }

    fn not_found(&self, text: &str) -> Error {
        if let Some(rejected) = self
            .rejected
            .iter()
            .find(|rejected| rejected.name.parse::<BackupId>().is_ok_and(|id| names(&id, text)))
        {
            return no_such(text, &format!("it is stored, but does not count: {}", rejected.reason));
        }
        let known: Vec<String> = self.backups.iter().rev().take(5).map(|backup| backup.id.short()).collect();
        let detail = if known.is_empty() {
            "there is no backup".to_owned()
        } else {
            format!("there is no such backup; the newest are {}", known.join(", "))
        };
        no_such(text, &detail)
    }
}

fn no_such(text: &str, detail: &str) -> Error {
    Error::new(ErrorKind::NoSuchPoint, "find backup", format!("{text:?}"), detail).with_hint("`lifeboat list` shows all backups")
}

fn names(id: &BackupId, text: &str) -> bool {
    let hash = hex::encode(id.hash);
    let by_parts = |seq: Option<u64>, prefix: &str| seq == Some(id.seq) && hash.starts_with(prefix);
    match text.split_once('-') {
        None => text.parse() == Ok(id.seq),
        Some((seq, prefix)) if seq.len() == 16 => by_parts(u64::from_str_radix(seq, 16).ok(), prefix),
        Some((seq, prefix)) => by_parts(seq.parse().ok(), prefix),
    }
}

pub(crate) async fn list_backups(repository: &Repository, component: &ComponentName, trust: &Trust) -> Result<Listing> {
    let folder = component.folder()?;
    let entries = repository.store().list(&folder).await?;
    let backups_folder = folder.join("backups")?;
    let mut listing = Listing {
        files: entries.iter().map(|entry| (entry.key.clone(), entry.size_bytes)).collect(),
        ..Listing::default()
    };
    let place = Place {
        repository,
        component,
        trust,
    };
    let prune_folder = folder.join("prune")?;
    let prune = entries.iter().filter(|entry| entry.key.is_under(&prune_folder));
    let (sweeps, unjudged) = read_sweeps(&place, prune).await?;
    listing.unjudged = unjudged;
    // Made before they are awaited: a closure inside the stream would not be `Send` for every caller.
    let reads: Vec<_> = entries
        .iter()
        .filter(|entry| entry.key.is_under(&backups_folder))
        .map(|entry| async move { (entry.key.file_name(), read_backup(repository, component, trust, entry).await) })
        .collect();
    let read: Vec<(&str, Result<Backup>)> = stream::iter(reads)
        .buffered(repository.store().requests_at_once())
        .collect()
        .await;
    let keys_folder = folder.join("keys")?;
    let named: BTreeSet<SessionId> = read
        .iter()
        .filter_map(|(_, backup)| backup.as_ref().ok())
        .flat_map(|backup| &backup.closure.sessions)
        .map(|session| session.session)
        .collect();
    let key_entries = entries.iter().filter(|entry| entry.key.is_under(&keys_folder));
    listing.key_files = read_key_files(repository.store(), key_entries, |name| named.contains(&name.session)).await?;
    for (name, backup) in read {
        match backup {
            Ok(backup) => listing.judge(backup, &sweeps)?,
            // Only what was read and judged is rejected. A store that does not answer says nothing about the backup: then the whole
            // listing fails (INV-13).
            Err(reason)
                if matches!(
                    reason.kind(),
                    ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
                ) =>
            {
                listing.rejected.push(Rejected {
                    name: name.to_owned(),
                    reason,
                    backup: None,
                });
            }
            Err(error) => return Err(error),
        }
    }
    listing.backups.sort_by_key(|backup| backup.id);
    Ok(listing)
}

async fn read_backup(repository: &Repository, component: &ComponentName, trust: &Trust, entry: &Entry) -> Result<Backup> {
    let name = entry.key.file_name();
    let id: BackupId = name.parse()?;
    let stored = repository.store().get(&entry.key, BACKUP_LIMIT_BYTES).await?;
    let body = check_backup_file(&id, name, &stored, trust)?;
    let parts = header::decode(body)?;
    let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept backup", name, detail);
    if parts.header.repository != repository.id() || &parts.header.component != component || parts.header.seq != id.seq {
        return Err(wrong(
            "it was copied here from another repository, component or place in the order",
        ));
    }
    Ok(Backup {
        id,
        header: parts.header,
        closure: parts.closure,
        key_files: Vec::new(),
    })
}

/// INV-09: fills in the backup's key files, and says what is missing: every pack must be listed with its size, and every session have a
/// key file.
fn find_files(backup: &mut Backup, listing: &Listing) -> Result<Option<Error>> {
    let component = &backup.header.component;
    let mut missing = 0_usize;
    let mut example = None;
    for (key, size_bytes) in backup.closure.pack_files(component)? {
        if listing.files.get(&key) != Some(&size_bytes) {
            missing += 1;
            example.get_or_insert_with(|| key.to_string());
        }
    }
    for session in &backup.closure.sessions {
        match listing.key_files.get(&(session.session, session.clear)) {
            Some(files) => backup.key_files.extend(files.iter().cloned()),
            None => {
                missing += 1;
                example.get_or_insert_with(|| format!("any whole key file of session {}", session.session));
            }
        }
    }
    let id = backup.id;
    Ok(example.map(|example| {
        Error::new(
            ErrorKind::Corrupt,
            "accept backup",
            id,
            format!("{missing} of the files it needs are missing or damaged, for example {example}"),
        )
        .with_hint("run a backup: what is missing is stored again from the source, and later backups are whole")
    }))
}

/// Name hash and signature of a backup file; returns its body.
pub(crate) fn check_backup_file<'a>(id: &BackupId, name: &str, stored: &'a [u8], trust: &Trust) -> Result<&'a [u8]> {
    if blake3::hash(stored).as_bytes() != &id.hash {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "accept backup",
            name,
            "its bytes do not hash to its name: it is damaged or was overwritten",
        ));
    }
    let (body, _) = signed::open(Kind::Backup, name, stored, trust)?;
    Ok(body)
}

/// A backup as the protocol knows it: its packs, and its sessions' keys under one name for each, because key files come and go.
pub(crate) fn protocol_backup(component: &ComponentName, id: &BackupId, closure: &Closure) -> Result<protocol::Backup<Key>> {
    let folder = component.folder()?;
    let packs = closure.pack_files(component)?.into_iter().map(|(key, _)| Ok(key));
    let sessions = closure.sessions.iter().map(|session| keys_of(&folder, session.session));
    Ok(protocol::Backup {
        name: folder.join(&format!("backups/{id}"))?,
        files: packs.chain(sessions).collect::<Result<_>>()?,
    })
}
