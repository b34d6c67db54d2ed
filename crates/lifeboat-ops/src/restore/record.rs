//! What restores put where: one small file for each restore in the state folder.
//!
//! For people, it makes ids useful: `restore promote ID`, `restore undo ID`, `restore --resume`. Nothing rests on it: whether something can
//! be undone is written beside the data ([`super::quarantine`]), and a lost record only means that a path has to be typed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::staging;

const VERSION: u32 = 1;

/// How the name of a marker ends.
const UNDERWAY: &str = "underway";

/// Restores that are remembered.
const KEPT: usize = 200;

/// One restore that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    version: u32,
    /// The restore's id.
    pub id: String,
    /// Of which component.
    pub component: String,
    /// From which backup (`SEQ-HASH`).
    pub backup: String,
    /// When it was published, microseconds since 1970.
    pub at_us: i64,
    /// Where the restored data is.
    pub path: PathBuf,
    /// Whether it took the place of what was there.
    pub replaced: bool,
    /// Device and inode of the restored file or folder.
    identity: (u64, u64),
    /// Size and time of the last change (nanoseconds) when it was published.
    seen: (u64, i64),
}

impl Restored {
    /// Describes what now lies at `path`.
    pub fn here(id: &str, component: &str, backup: &str, at_us: i64, path: &Path, replaced: bool) -> Result<Self> {
        let path = std::path::absolute(path).map_err(|error| Error::io("resolve", path.display(), error))?;
        let meta = path
            .symlink_metadata()
            .map_err(|error| Error::io("look at", path.display(), error))?;
        Ok(Self {
            version: VERSION,
            id: id.to_owned(),
            component: component.to_owned(),
            backup: backup.to_owned(),
            at_us,
            path,
            replaced,
            identity: (meta.dev(), meta.ino()),
            seen: seen(&meta),
        })
    }

    /// The same, once it is renamed to `path`.
    pub(super) fn renamed(self, path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            ..self
        }
    }

    /// Whether the restored data still lies at its path. `None` when nothing is there.
    pub fn is_there(&self) -> Result<Option<bool>> {
        match self.path.symlink_metadata() {
            Ok(meta) => Ok(Some((meta.dev(), meta.ino()) == self.identity)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("look at", self.path.display(), error)),
        }
    }

    /// Whether nobody wrote to the file since.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|meta| seen(&meta) == self.seen)
    }
}

fn seen(meta: &std::fs::Metadata) -> (u64, i64) {
    let nanos = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    (meta.len(), nanos)
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("restores")
}

/// Remembers a restore; the oldest ones beyond the newest 200 are forgotten.
pub fn remember(state_dir: &Path, restored: &Restored) -> Result<()> {
    let folder = folder(state_dir);
    durable::create_folder(&folder)?;
    let bytes = serde_json::to_vec_pretty(restored)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "a record of a restore", error.to_string()))?;
    durable::replace_file(&folder.join(format!("{}.json", restored.id)), &bytes, durable::FILE_MODE)?;
    let known = known(state_dir)?;
    for old in known.iter().take(known.len().saturating_sub(KEPT)) {
        durable::remove_file(&folder.join(format!("{}.json", old.id)))?;
    }
    Ok(())
}

/// Forgets a restore: what it put somewhere is not there any more.
pub fn forget(state_dir: &Path, id: &str) -> Result<()> {
    durable::remove_file(&folder(state_dir).join(format!("{id}.json")))
}

/// A restore that is under way: until [`Underway`] is dropped, a small file says in which folder it stages.
#[derive(Debug)]
pub(super) struct Underway {
    path: PathBuf,
    /// Locked as long as the run lives: only a dead run's marker is swept.
    _lock: std::fs::File,
}

impl Underway {
    /// Says that restore `id` stages in the folder of `destination`.
    pub(super) fn begin(state_dir: &Path, id: &str, destination: &Path) -> Result<Self> {
        let absolute = std::path::absolute(destination).map_err(|error| Error::io("resolve", destination.display(), error))?;
        Self::begin_in(state_dir, id, &[durable::parent_of(&absolute)])
    }

    /// Says that restore `id` stages in these folders.
    pub(super) fn begin_in(state_dir: &Path, id: &str, folders: &[PathBuf]) -> Result<Self> {
        let folder = folder(state_dir);
        durable::create_folder(&folder)?;
        let path = folder.join(format!("{id}.{UNDERWAY}"));
        let bytes = serde_json::to_vec(folders)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the folder of a restore", error.to_string()))?;
        durable::replace_file(&path, &bytes, durable::FILE_MODE)?;
        let lock = std::fs::File::open(&path).map_err(|error| Error::io("open", path.display(), error))?;
        // Nobody else can have it: the name is the run's own.
        lock.try_lock()
            .map_err(|error| Error::new(ErrorKind::Locked, "lock", path.display(), error.to_string()))?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next sweep.
        if durable::remove_file(&self.path).is_err() {}
    }
}

/// Removes what killed restores left: copies of the data in the clear, wherever they were staging. Runs that are under way keep theirs.
///
/// # Errors
/// When the state folder cannot be read. A folder that is gone, or belongs to somebody else, is in nobody's way.
pub fn sweep_killed(state_dir: &Path) -> Result<()> {
    let folder = folder(state_dir);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", folder.display(), error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| Error::io("list", folder.display(), error))?.path();
        if path.extension().is_none_or(|extension| extension != UNDERWAY) {
            continue;
        }
        if std::fs::File::open(&path).is_ok_and(|marker| marker.try_lock().is_err()) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let staged: Vec<PathBuf> = serde_json::from_slice(&bytes).unwrap_or_default();
        let is_left = |staged: &PathBuf| match staging::sweep(staged) {
            Ok(()) => staging::is_left(staged, &path),
            Err(error) => error.kind() != ErrorKind::NotFound,
        };
        // All of them are swept, whatever is left in one.
        if staged.iter().filter(|staged| is_left(staged)).count() == 0 {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What is remembered, oldest first. A record that cannot be understood is passed over.
pub fn known(state_dir: &Path) -> Result<Vec<Restored>> {
    let folder = folder(state_dir);
    let failed = |error| Error::io("list", folder.display(), error);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found: Vec<Restored> = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?;
        if let Ok(restored) = serde_json::from_slice::<Restored>(&bytes)
            && restored.version == VERSION
        {
            found.push(restored);
        }
    }
    found.sort_by(|a, b| (a.at_us, &a.id).cmp(&(b.at_us, &b.id)));
    Ok(found)
}

/// The restore of that id.
///
/// # Errors
/// `NoSuchPoint` when none is remembered; the hint names those of `component` that are.
pub fn find(state_dir: &Path, id: &str) -> Result<Restored> {
    let known = known(state_dir)?;
    known.iter().find(|restored| restored.id == id).cloned().ok_or_else(|| {
        let newest: Vec<String> = known
            .iter()
            .rev()
            .take(5)
            .map(|restored| format!("{} ({}, {})", restored.id, restored.component, restored.path.display()))
            .collect();
        let hint = if newest.is_empty() {
            "`lifeboat restore WHAT` makes a copy beside the original and prints its id".to_owned()
        } else {
            format!("the newest are: {}", newest.join("; "))
        };
        Error::new(
            ErrorKind::NoSuchPoint,
            "find restore",
            id,
            "no restore of that id is remembered on this machine",
        )
        .with_hint(hint)
    })
}
