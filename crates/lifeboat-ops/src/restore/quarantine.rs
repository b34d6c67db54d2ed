//! Replacing a database in place, and taking that back: every step journalled in the undo folder.
//!
//! `<database>.lifeboat-undo-<id>/` holds `record.json` and the old files. Order of [`replace`]:
//! 1. nobody uses the database (proven again, right here);
//! 2. record with phase `quarantining` — from now on a killed run is taken back by [`settle_interrupted`];
//! 3. the old database moves away, then its -wal, -shm, -journal: dying in between leaves no database rather than a stale one;
//! 4. the new file gets the name; 5. phase `published`.
//!
//! Whether the file at the path is the restored one is decided by its inode, which a rename keeps.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_engine::sqlite;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

const RECORD: &str = "record.json";
const REPLACED: &str = "replaced";

/// Which restore replaces something.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The restore's id.
    pub id: String,
    /// Of which component.
    pub component: String,
    /// From which backup.
    pub backup: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Quarantining,
    Published,
    Undoing,
    Undone,
}

/// The journal of one replacement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The restore's id.
    pub id: String,
    /// Of which component.
    pub component: String,
    /// From which backup.
    pub backup: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// The database that was replaced.
    pub path: PathBuf,
    phase: Phase,
    /// Device and inode of the restored file.
    restored: (u64, u64),
}

impl Record {
    /// Whether the old files can be brought back.
    #[must_use]
    pub fn can_undo(&self) -> bool {
        matches!(self.phase, Phase::Published | Phase::Undoing)
    }

    /// Whether a run died in the middle of it.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self.phase, Phase::Quarantining | Phase::Undoing)
    }
}

fn write(folder: &Path, record: &Record) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "an undo record", error.to_string()))?;
    durable::replace_file(&folder.join(RECORD), &bytes, durable::FILE_MODE)
}

fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", path.display(), error)),
    }
}

fn exists(path: &Path) -> Result<bool> {
    Ok(identity(path)?.is_some())
}

/// The database and its companions, the database first.
fn family(path: &Path) -> Vec<PathBuf> {
    let mut family = vec![path.to_path_buf()];
    family.extend(sqlite::companions(path));
    family
}

fn name_in(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.file_name().unwrap_or_default())
}

fn undo_folder(path: &Path, id: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    durable::parent_of(path).join(format!("{name}.lifeboat-undo-{id}"))
}

/// Moves what is at `path` into an undo folder and gives `new` its name. Returns the undo folder.
pub fn replace(intent: &Intent, path: &Path, new: &Path) -> Result<PathBuf> {
    if exists(path)? {
        sqlite::prove_unused(path)?;
    }
    let folder = undo_folder(path, &intent.id);
    durable::create_folder(&folder)?;
    let restored =
        identity(new)?.ok_or_else(|| Error::new(ErrorKind::Bug, "publish", new.display(), "the restored file is gone"))?;
    let mut record = Record {
        version: 1,
        id: intent.id.clone(),
        component: intent.component.clone(),
        backup: intent.backup.clone(),
        at_us: intent.at_us,
        path: std::path::absolute(path).map_err(|error| Error::io("resolve", path.display(), error))?,
        phase: Phase::Quarantining,
        restored,
    };
    write(&folder, &record)?;
    for member in family(path) {
        if exists(&member)? {
            durable::rename_new(&member, &name_in(&folder, &member))?;
        }
    }
    durable::rename_new(new, path)?;
    record.phase = Phase::Published;
    write(&folder, &record)?;
    Ok(folder)
}

/// Undo folders beside a database, oldest first.
pub fn records(path: &Path) -> Result<Vec<(PathBuf, Record)>> {
    let parent = durable::parent_of(path);
    let prefix = format!("{}.lifeboat-undo-", path.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(Error::io("list", parent.display(), error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", parent.display(), error))?;
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let file = entry.path().join(RECORD);
        match std::fs::read(&file) {
            Ok(bytes) => {
                let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
                    Error::new(ErrorKind::Corrupt, "read", file.display(), "it is not an undo record").with_source(error)
                })?;
                found.push((entry.path(), record));
            }
            // Died before the record was written: nothing was moved yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => durable::remove_folder(&entry.path())?,
            Err(error) => return Err(Error::io("read", file.display(), error)),
        }
    }
    found.sort_by(|a, b| (a.1.at_us, &a.1.id).cmp(&(b.1.at_us, &b.1.id)));
    Ok(found)
}

/// Finishes or takes back what a killed run left in the middle. Safe to repeat, and safe to be killed in.
pub fn settle_interrupted(path: &Path) -> Result<()> {
    for (folder, mut record) in records(path)? {
        match record.phase {
            Phase::Published | Phase::Undone => {}
            Phase::Undoing => finish_undo(&folder, &mut record, path)?,
            Phase::Quarantining => settle_quarantine(&folder, &mut record, path)?,
        }
    }
    Ok(())
}

fn settle_quarantine(folder: &Path, record: &mut Record, path: &Path) -> Result<()> {
    let at_path = identity(path)?;
    if at_path == Some(record.restored) {
        record.phase = Phase::Published;
        return write(folder, record);
    }
    if at_path.is_some() && exists(&name_in(folder, path))? {
        return Err(Error::new(
            ErrorKind::Refused,
            "go on with the interrupted restore of",
            path.display(),
            format!(
                "a new file has appeared there meanwhile; the old database is in {}",
                folder.display()
            ),
        )
        .with_hint("stop the application, move the new file away by hand, and run the same command again"));
    }
    bring_back(folder, path)?;
    durable::remove_folder(folder)
}

/// Companions first, the database last: whoever opens it finds it whole.
fn bring_back(folder: &Path, path: &Path) -> Result<()> {
    for member in family(path).into_iter().rev() {
        let kept = name_in(folder, &member);
        if exists(&kept)? {
            durable::rename_new(&kept, &member)?;
        }
    }
    Ok(())
}

/// Brings the old files of restore `id` back; the restored ones move into the undo folder.
pub fn undo(path: &Path, id: &str) -> Result<PathBuf> {
    let found = records(path)?;
    let (folder, mut record) = found.into_iter().find(|(_, record)| record.id == id).ok_or_else(|| {
        Error::new(
            ErrorKind::NoSuchPoint,
            "undo restore",
            id,
            format!("there is no undo folder of that id beside {}", path.display()),
        )
        .with_hint(
            "`lifeboat status` and the restore's own output name the id; undo folders are called DATABASE.lifeboat-undo-ID",
        )
    })?;
    match record.phase {
        Phase::Published | Phase::Undoing => {}
        Phase::Undone => return Err(Error::new(ErrorKind::Refused, "undo restore", id, "it was undone already")),
        Phase::Quarantining => {
            settle_quarantine(&folder, &mut record, path)?;
            if record.phase != Phase::Published {
                return Ok(folder);
            }
        }
    }
    if record.phase == Phase::Published {
        let current = identity(path)?;
        if current.is_some() && current != Some(record.restored) {
            return Err(Error::new(
                ErrorKind::Refused,
                "undo restore",
                id,
                format!("{} was replaced again since", path.display()),
            )
            .with_hint("undo the later restore first"));
        }
        if current.is_some() {
            sqlite::prove_unused(path)?;
        }
        record.phase = Phase::Undoing;
        write(&folder, &record)?;
    }
    finish_undo(&folder, &mut record, path)?;
    Ok(folder)
}

fn finish_undo(folder: &Path, record: &mut Record, path: &Path) -> Result<()> {
    let replaced = folder.join(REPLACED);
    durable::create_folder(&replaced)?;
    // The restored database moves last: as long as it is at the path, a run that died here goes on with whatever is left; once it is
    // gone, none of its companions can be there for the old database to be read with.
    if identity(path)? == Some(record.restored) {
        for member in family(path).into_iter().rev() {
            if exists(&member)? {
                durable::rename_new(&member, &name_in(&replaced, &member))?;
            }
        }
    }
    bring_back(folder, path)?;
    record.phase = Phase::Undone;
    write(folder, record)
}
