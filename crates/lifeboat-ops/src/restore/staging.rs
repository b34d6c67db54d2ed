//! The staging folder: where a restored file lies until it gets its name.
//!
//! It lies in the folder of the destination, so that publishing is one rename. A lock inside tells the leftovers of a dead run from a
//! run that is under way; leftovers are removed by the next restore to the same folder. It must not outlive the run that made it: what
//! lies in it is the data in the clear.

use std::fs::File;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::running::{Server, server_on};
use lifeboat_engine::postgres::sandbox;
use lifeboat_engine::sqlite;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::FileRecord;

use super::Destination;

pub(super) const PREFIX: &str = ".lifeboat-restore-";
/// Where a cluster lies in it.
pub(super) const CLUSTER: &str = "data";

#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    _lock: File,
}

impl Staging {
    /// Makes the staging folder for a restore to `destination`; missing parents are created, dead runs' leftovers removed.
    pub(super) fn create(destination: &Path, id: &str) -> Result<Self> {
        let parent = durable::parent_of(destination);
        durable::create_folder(&parent)?;
        sweep(&parent)?;
        let folder = parent.join(format!("{PREFIX}{id}"));
        durable::create_folder(&folder)?;
        let lock = lock_file(&folder)?;
        lock.try_lock()
            .map_err(|error| Error::new(ErrorKind::Locked, "restore to", destination.display(), error.to_string()))?;
        Ok(Self { folder, _lock: lock })
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("database")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name in the staging folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn remove(&self) -> Result<()> {
        durable::remove_folder(&self.folder)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After Ctrl-C nobody is left to be told. What cannot be removed now is removed by the next restore to this folder.
        drop(self.remove());
    }
}

/// `O_NOFOLLOW`
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

fn lock_file(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        // In a folder that others may write into, a link of theirs would have us make files elsewhere.
        .custom_flags(NO_LINK)
        .open(&path)
        .map_err(|error| Error::io("open", path.display(), error))
}

/// Whether the staging folder of the restore that `marker` is named after is in `parent` still.
pub(super) fn is_left(parent: &Path, marker: &Path) -> bool {
    let id = marker.file_stem().unwrap_or_default().to_string_lossy();
    parent.join(format!("{PREFIX}{id}")).symlink_metadata().is_ok()
}

/// Removes what dead runs left in a folder.
pub(super) fn sweep(parent: &Path) -> Result<()> {
    let failed = |error| Error::io("list", parent.display(), error);
    for entry in std::fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.file_type().map_err(failed)?.is_dir();
        // Another user's leftovers cannot be opened, and another run may have removed these meanwhile: neither is in our way.
        let Some(lock) = ours.then(|| lock_file(&entry.path()).ok()).flatten() else {
            continue;
        };
        if lock.try_lock().is_ok() && !is_served(&entry.path().join(CLUSTER))? {
            durable::remove_folder(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a server runs on a cluster that a dead run has left: it is ended together with its sandbox, and one that is not ours stays.
fn is_served(cluster: &Path) -> Result<bool> {
    if !matches!(server_on(cluster)?, Server::Runs(_)) {
        return Ok(false);
    }
    sandbox::sweep(&std::env::temp_dir())?;
    Ok(matches!(server_on(cluster)?, Server::Runs(_)))
}

/// Gives the checked file its mode and owner and removes what SQLite left beside it. In place, the old file's mode and owner are kept.
pub(super) fn dress(file: &Path, record: &FileRecord, destination: &Destination) -> Result<Vec<String>> {
    dress_as(file, record.meta.mode, (record.meta.uid, record.meta.gid), destination)
}

/// The same for a file of which no mode and owner are known: it belongs to whoever restores.
pub(super) fn dress_plain(file: &Path, destination: &Destination) -> Result<Vec<String>> {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    dress_as(file, 0o600, owner, destination)
}

fn dress_as(file: &Path, recorded: u32, captured: (u32, u32), destination: &Destination) -> Result<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    for companion in sqlite::companions(file) {
        durable::remove_file(&companion)?;
    }
    let mut notes = Vec::new();
    let (mode, owner) = match destination {
        Destination::InPlace { path } => match path.metadata() {
            Ok(meta) => (meta.mode() & 0o7777, Some((meta.uid(), meta.gid()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (recorded, Some(captured)),
            Err(error) => return Err(Error::io("look at", path.display(), error)),
        },
        Destination::Beside { keep_owner: true, .. } => (recorded, Some(captured)),
        Destination::Beside { keep_owner: false, .. } => (recorded, None),
    };
    notes.extend(wear(file, mode, owner)?);
    Ok(notes)
}

/// Gives `file` the mode and the owner of `model`, where that is there; makes it durable.
pub(super) fn wear_like(file: &Path, model: &Path) -> Result<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    let (path, meta) = match model.metadata() {
        Ok(meta) => (model, Ok(meta)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (file, file.metadata()),
        Err(error) => (model, Err(error)),
    };
    let meta = meta.map_err(|error| Error::io("look at", path.display(), error))?;
    wear(file, meta.mode() & 0o7777, Some((meta.uid(), meta.gid())))
}

fn wear(file: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    let mut notes = Vec::new();
    if let Some((uid, gid)) = owner {
        let meta = file.metadata().map_err(|error| Error::io("look at", file.display(), error))?;
        if (meta.uid(), meta.gid()) != (uid, gid)
            && let Err(error) = chown(file, Some(uid), Some(gid))
        {
            notes.push(format!(
                "the owner {uid}:{gid} could not be given to the restored file ({error}); it belongs to the user who restored it"
            ));
        }
    }
    std::fs::set_permissions(file, PermissionsExt::from_mode(mode & 0o7777))
        .map_err(|error| Error::io("set the mode of", file.display(), error))?;
    File::open(file)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| Error::io("make durable", file.display(), error))?;
    durable::sync_folder(&durable::parent_of(file))?;
    Ok(notes)
}
