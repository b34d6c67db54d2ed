//! Finds the SQLite databases of a folder by what the files say of themselves, not by their names.
//!
//! Reads at most the first 100 bytes of a file, follows no symlinks, and never looks into a store of Lifeboat.
//! No connection of this process may have a database below the folder open meanwhile: closing the descriptor would drop its locks.

use std::fs::{File, FileType};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, Result};

use super::probe::MAGIC;

/// A database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where, below the folder that was searched.
    pub path: PathBuf,
    /// Bytes of the file, without its `-wal`.
    pub size_bytes: u64,
    /// Whether its header says WAL mode.
    pub journal_mode_wal: bool,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// The databases, sorted by path.
    pub found: Vec<Found>,
    /// Folders and files that could not be read, sorted: there may be databases among them.
    pub unreadable: Vec<PathBuf>,
}

/// Searches `folder` and, below it, `depth` levels of folders (0: only its own files).
///
/// Not searched: hidden folders, `node_modules`, `target`, stores of Lifeboat (folders with a `lifeboat.json`) and symlinked folders.
///
/// # Errors
/// When `folder` itself cannot be read; what is unreadable below it is named in the result.
pub fn discover(folder: &Path, depth: usize) -> Result<Discovery> {
    let mut discovery = Discovery::default();
    let entries = entries_of(folder).map_err(|error| Error::io("search for databases in", folder.display(), error))?;
    let mut pending = vec![(entries, depth)];
    while let Some((entries, levels)) = pending.pop() {
        if entries
            .iter()
            .any(|(path, _)| path.file_name().is_some_and(|name| name == "lifeboat.json"))
        {
            continue;
        }
        for (path, kind) in entries {
            if kind.is_dir() {
                if levels > 0 && is_searched(&path) {
                    match entries_of(&path) {
                        Ok(below) => pending.push((below, levels - 1)),
                        Err(error) => note(&mut discovery, path, &error),
                    }
                }
            } else if kind.is_file() && may_be_database(&path) {
                match look_at(&path) {
                    Ok(found) => discovery.found.extend(found),
                    Err(error) => note(&mut discovery, path, &error),
                }
            }
        }
    }
    discovery.found.sort_by(|left, right| left.path.cmp(&right.path));
    discovery.unreadable.sort();
    Ok(discovery)
}

/// What vanished while we looked is no gap in the search.
fn note(discovery: &mut Discovery, path: PathBuf, error: &std::io::Error) {
    if error.kind() != std::io::ErrorKind::NotFound {
        discovery.unreadable.push(path);
    }
}

fn entries_of(folder: &Path) -> std::io::Result<Vec<(PathBuf, FileType)>> {
    std::fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.path(), entry.file_type()?))
        })
        .collect()
}

fn is_searched(folder: &Path) -> bool {
    let name = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    !(name.starts_with('.') || name == "node_modules" || name == "target")
}

fn may_be_database(file: &Path) -> bool {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    !(["-wal", "-shm", "-journal"].iter().any(|ending| name.ends_with(ending)) || name.contains(".lifeboat-undo-"))
}

/// The database that `path` is, if it is one.
fn look_at(path: &Path) -> std::io::Result<Option<Found>> {
    // The file may have become a pipe or a symlink since the folder was listed: neither wait for it nor follow it.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    let mut header = Vec::with_capacity(100);
    file.take(100).read_to_end(&mut header)?;
    if !metadata.is_file() || !header.starts_with(MAGIC) {
        return Ok(None);
    }
    let journal_mode_wal = header.get(18) == Some(&2);
    Ok(Some(Found {
        path: path.to_owned(),
        size_bytes: metadata.len(),
        journal_mode_wal,
    }))
}
