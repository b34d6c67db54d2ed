//! Durable publishing: a file appears under its name whole and on the disk, or not at all. The only rename in the product.
//!
//! Order for every file: write under a temporary name in the same folder → fsync the file → give it its name → fsync the folder.
//! Dying in between leaves at most a temporary file, whose name begins with [`TEMPORARY_PREFIX`]; nothing ever reads one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags};

/// How temporary names begin.
pub const TEMPORARY_PREFIX: &str = ".lifeboat-tmp-";

/// Mode of files with private content.
pub const FILE_MODE: u32 = 0o600;
/// Mode of folders with private content.
pub const FOLDER_MODE: u32 = 0o700;

/// Creates `path` and its missing parents, each 0700 and each made durable in its parent. Existing folders stay as they are.
pub fn create_folder(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "create folder",
                path.display(),
                "a file of that name is in the way",
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", path.display(), error)),
    }
    let parent = parent_of(path);
    create_folder(&parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => sync_folder(&parent),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("create folder", path.display(), error)),
    }
}

/// Makes the names inside a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io("make durable", path.display(), error))
}

/// The folder that holds `path`; `.` for a bare name.
#[must_use]
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether a name that was to be created was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The file is there now and was not before.
    New,
    /// A file of that name was there already and stays untouched; its content is not compared here.
    AlreadyThere,
}

/// Writes `bytes` as a new file `path` with `mode`; an existing file is left alone and reported.
pub fn create_file(path: &Path, bytes: &[u8], mode: u32) -> Result<Created> {
    let temporary = write_temporary(path, bytes, mode)?;
    let outcome = rustix::fs::renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE);
    let created = match outcome {
        Ok(()) => Created::New,
        Err(rustix::io::Errno::EXIST) => {
            remove_file(&temporary)?;
            Created::AlreadyThere
        }
        // File systems without NOREPLACE: a hard link fails on an existing name just as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => link_new(&temporary, path)?,
        Err(error) => {
            remove_file(&temporary)?;
            return Err(Error::io("publish", path.display(), error.into()));
        }
    };
    sync_folder(&parent_of(path))?;
    Ok(created)
}

fn link_new(temporary: &Path, path: &Path) -> Result<Created> {
    let linked = std::fs::hard_link(temporary, path);
    remove_file(temporary)?;
    match linked {
        Ok(()) => Ok(Created::New),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Created::AlreadyThere),
        Err(error) => Err(Error::io("publish", path.display(), error)),
    }
}

/// Writes `bytes` as `path` with `mode`, replacing what was there in one step.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = write_temporary(path, bytes, mode)?;
    rename(&temporary, path)
}

/// Moves `from` to `to` on the same file system, replacing a file there, and makes both folders durable.
/// The caller has fsynced the content.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this is the one rename")]
    std::fs::rename(from, to).map_err(|error| Error::io("publish", to.display(), error))?;
    let target = parent_of(to);
    sync_folder(&target)?;
    let origin = parent_of(from);
    if origin != target { sync_folder(&origin) } else { Ok(()) }
}

/// Moves `from` to the new name `to`; an existing `to` is an error of kind `AlreadyExists` and both stay as they were.
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        .map_err(|error| Error::io("publish", to.display(), error.into()))?;
    let target = parent_of(to);
    sync_folder(&target)?;
    let origin = parent_of(from);
    if origin != target { sync_folder(&origin) } else { Ok(()) }
}

/// Removes a file; one that is not there is no error.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path.display(), error)),
    }
}

/// Removes a folder and all in it; one that is not there is no error.
pub fn remove_folder(path: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "deletion is gathered here")]
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove folder", path.display(), error)),
    }
}

/// A name in the folder of `path` that nobody else uses.
pub fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(ErrorKind::Failed, "name a temporary file beside", path.display(), error))?;
    Ok(parent_of(path).join(format!("{TEMPORARY_PREFIX}{:016x}", u64::from_le_bytes(random))))
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf> {
    let temporary = temporary_beside(path)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            // A full disk must not stay full because of us.
            remove_file(&temporary)?;
            Err(Error::io("write", path.display(), error))
        }
    }
}
