//! Replacing a database, or a cluster's data directory, in place, and taking that back: every step journalled in the undo folder.
//!
//! `<database>.lifeboat-undo-<id>/` holds `record.json` and the old files. Order of [`replace`]:
//! 1. nobody uses the database (proven again, right here);
//! 2. record with phase `quarantining` — from now on a killed run is taken back by [`settle_interrupted`];
//! 3. the old database moves away, then its -wal, -shm, -journal: dying in between leaves no database rather than a stale one;
//! 4. the new file gets the name; 5. phase `published`.
//!
//! Whether the file at the path is the restored one is decided by its inode, which a rename keeps. A path that is a link stands for the
//! file it leads to, as it does to SQLite: that file is replaced, and the link stays. The folder of the database is locked meanwhile:
//! two runs that settle each other's steps could leave the `-wal` of one database beside another one.
//!
//! Must not remove anything but its own records, and those only when no old file lies beside them.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_engine::sqlite;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::cluster::refuse_running;

const RECORD: &str = "record.json";
const REPLACED: &str = "replaced";
const VERSION: u32 = 1;

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

/// What is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A SQLite database and the files beside it.
    #[default]
    Database,
    /// The data directory of a PostgreSQL cluster. Its tablespaces are not moved: its links lead to them wherever it is.
    Cluster,
}

impl Kind {
    /// What moves together, what is used by its name first.
    fn family(self, path: &Path) -> Vec<PathBuf> {
        let mut family = vec![path.to_path_buf()];
        if self == Self::Database {
            family.extend(sqlite::companions(path));
        }
        family
    }

    fn prove_unused(self, path: &Path) -> Result<()> {
        match self {
            Self::Database => sqlite::prove_unused(path),
            Self::Cluster => refuse_running(path, false),
        }
    }
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
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
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

fn name_in(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.file_name().unwrap_or_default())
}

fn undo_folder(path: &Path, id: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    durable::parent_of(path).join(format!("{name}.lifeboat-undo-{id}"))
}

/// The file that `path` leads to, whether it exists or not: links are followed at its last part, where SQLite follows them, too.
///
/// # Errors
/// When a link cannot be read, or when links lead in a circle.
pub fn real_path(path: &Path) -> Result<PathBuf> {
    /// As many as the kernel follows.
    const LINKS: usize = 40;
    let mut real = path.to_path_buf();
    for _ in 0..LINKS {
        match real.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => {
                let target = std::fs::read_link(&real).map_err(|error| Error::io("follow", real.display(), error))?;
                real = durable::parent_of(&real).join(target);
            }
            Ok(_) => return Ok(real),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(real),
            Err(error) => return Err(Error::io("look at", real.display(), error)),
        }
    }
    Err(Error::new(
        ErrorKind::Unreachable,
        "follow",
        path.display(),
        "its links lead in a circle",
    ))
}

/// A locked folder. Unlocked by hand: a child that is just being started has a copy of the descriptor, which would keep it locked.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it as well, only later.
        drop(self.0.unlock());
    }
}

/// Keeps other runs from replacing or settling anything in the folder of `path`. The kernel gives the lock back however a run ends.
fn lock(path: &Path) -> Result<Option<Lock>> {
    let parent = durable::parent_of(path);
    let folder = match File::open(&parent) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", parent.display(), error)),
    };
    match folder.try_lock() {
        Ok(()) => Ok(Some(Lock(folder))),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            ErrorKind::Locked,
            "replace the database",
            path.display(),
            "another restore in this folder is putting files in their place",
        )
        .with_hint("wait for it, then run the same command again")),
        // A file system without locks on folders: there, nothing but care keeps two restores apart.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Moves what is at `path` into an undo folder and gives `new` its name. Returns the undo folder.
///
/// # Errors
/// `Refused` when somebody uses the database, `Locked` when another run is replacing it. After any error the old files are back in their
/// place; where even that fails, the hint says where they are, and the next run brings them back.
pub fn replace(intent: &Intent, path: &Path, new: &Path) -> Result<PathBuf> {
    replace_as(Kind::Database, intent, path, new)
}

/// The same for whatever it is.
pub fn replace_as(kind: Kind, intent: &Intent, path: &Path, new: &Path) -> Result<PathBuf> {
    let path = &real_path(path)?;
    let _lock = lock(path)?;
    kind.prove_unused(path)?;
    let folder = undo_folder(path, &intent.id);
    durable::create_folder(&folder)?;
    let restored =
        identity(new)?.ok_or_else(|| Error::new(ErrorKind::Bug, "publish", new.display(), "the restored file is gone"))?;
    let mut record = Record {
        version: VERSION,
        id: intent.id.clone(),
        component: intent.component.clone(),
        backup: intent.backup.clone(),
        at_us: intent.at_us,
        kind,
        path: std::path::absolute(path).map_err(|error| Error::io("resolve", path.display(), error))?,
        phase: Phase::Quarantining,
        restored,
    };
    match write(&folder, &record).and_then(|()| swap(kind, &folder, path, new)) {
        Ok(()) => {}
        Err(error) => {
            let settled = settle_quarantine(&folder, &mut record, path);
            return Err(match settled {
                Ok(()) if record.phase == Phase::Published => error.with_hint(format!(
                    "the restored database is in its place all the same; the old files are in {}",
                    folder.display()
                )),
                Ok(()) => error,
                Err(_) => error.with_hint(format!(
                    "the old files are in {}; run the same command again: it brings them back first",
                    folder.display()
                )),
            });
        }
    }
    record.phase = Phase::Published;
    write(&folder, &record)?;
    Ok(folder)
}

/// The old files away, the database first; the new one in its place.
fn swap(kind: Kind, folder: &Path, path: &Path, new: &Path) -> Result<()> {
    for member in kind.family(path) {
        if exists(&member)? {
            durable::rename_new(&member, &name_in(folder, &member))?;
        }
    }
    durable::rename_new(new, path)
}

/// Undo folders beside a database, oldest first. Changes nothing; a folder without a record is nobody's here.
pub fn records(path: &Path) -> Result<Vec<(PathBuf, Record)>> {
    let mut found = Vec::new();
    for folder in folders(&real_path(path)?)? {
        if let Some(record) = read(&folder)? {
            found.push((folder, record));
        }
    }
    found.sort_by(|a, b| (a.1.at_us, &a.1.id).cmp(&(b.1.at_us, &b.1.id)));
    Ok(found)
}

/// Folders whose name says that they belong to a replacement of `path`.
fn folders(path: &Path) -> Result<Vec<PathBuf>> {
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
        let is_folder = entry
            .file_type()
            .map_err(|error| Error::io("list", parent.display(), error))?
            .is_dir();
        if is_folder && entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn read(folder: &Path) -> Result<Option<Record>> {
    let file = folder.join(RECORD);
    let bytes = match std::fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", file.display(), error)),
    };
    let unusable = |kind, detail: &str| {
        Error::new(kind, "read", file.display(), detail).with_hint(format!(
            "{} may hold the old database: look into it, then move the folder elsewhere and run the same command again",
            folder.display()
        ))
    };
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| unusable(ErrorKind::Corrupt, "it is not an undo record").with_source(error))?;
    if record.version == VERSION {
        Ok(Some(record))
    } else {
        Err(unusable(ErrorKind::Incompatible, "another version of Lifeboat wrote it"))
    }
}

/// Removes the folders of runs that died before their record was written: nothing was moved into them. One that holds anything stays.
fn sweep_empty(path: &Path) -> Result<()> {
    for folder in folders(path)? {
        if read(&folder)?.is_some() {
            continue;
        }
        durable::remove_leftovers(&folder)?;
        let failed = |error| Error::io("list", folder.display(), error);
        if std::fs::read_dir(&folder).map_err(failed)?.next().is_none() {
            durable::remove_folder(&folder)?;
        }
    }
    Ok(())
}

/// Finishes or takes back what a killed run left in the middle. Safe to repeat, and safe to be killed in.
pub fn settle_interrupted(path: &Path) -> Result<()> {
    let path = &real_path(path)?;
    let _lock = lock(path)?;
    sweep_empty(path)?;
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
    bring_back(record.kind, folder, path)?;
    durable::remove_folder(folder)
}

/// Companions first, the database last: whoever opens it finds it whole.
fn bring_back(kind: Kind, folder: &Path, path: &Path) -> Result<()> {
    for member in kind.family(path).into_iter().rev() {
        let kept = name_in(folder, &member);
        if exists(&kept)? {
            durable::rename_new(&kept, &member)?;
        }
    }
    Ok(())
}

/// Brings the old files of restore `id` back; the restored ones move into the undo folder.
///
/// # Errors
/// `NoSuchPoint` when nothing of that id is there, `Refused` when it was undone, when the database was replaced again since, or when
/// somebody uses it; `Locked` when another run is at work there.
pub fn undo(path: &Path, id: &str) -> Result<PathBuf> {
    let path = &real_path(path)?;
    let _lock = lock(path)?;
    let found = records(path)?;
    let (folder, mut record) = found.iter().find(|(_, record)| record.id == id).cloned().ok_or_else(|| {
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
            .with_hint(match found.iter().find(|(_, later)| Some(later.restored) == current) {
                Some((_, later)) => format!("undo the later restore first: `lifeboat restore undo {}`", later.id),
                None => format!(
                    "something other than Lifeboat put a file there; the old database is in {}",
                    folder.display()
                ),
            }));
        }
        record.kind.prove_unused(path)?;
        if record.kind == Kind::Cluster {
            // Somebody may have started the old one where it lies now.
            record.kind.prove_unused(&name_in(&folder, path))?;
        }
        if current.is_none() {
            // Somebody removed the restored database alone: what lies beside its name is not the old one's.
            move_into(record.kind, &folder.join(REPLACED), path)?;
        }
        record.phase = Phase::Undoing;
        write(&folder, &record)?;
    }
    finish_undo(&folder, &mut record, path)?;
    Ok(folder)
}

fn finish_undo(folder: &Path, record: &mut Record, path: &Path) -> Result<()> {
    // The restored database moves last: as long as it is at the path, a run that died here goes on with whatever is left; once it is
    // gone, none of its companions can be there for the old database to be read with.
    if identity(path)? == Some(record.restored) {
        if record.kind == Kind::Cluster {
            // A run that died here may be finished much later.
            record.kind.prove_unused(path)?;
        }
        move_into(record.kind, &folder.join(REPLACED), path)?;
    }
    bring_back(record.kind, folder, path)?;
    record.phase = Phase::Undone;
    write(folder, record)
}

/// Moves what is at `path` into `folder`, the database last.
fn move_into(kind: Kind, folder: &Path, path: &Path) -> Result<()> {
    durable::create_folder(folder)?;
    for member in kind.family(path).into_iter().rev() {
        if exists(&member)? {
            durable::rename_new(&member, &name_in(folder, &member))?;
        }
    }
    Ok(())
}
