//! Going through a folder: listing it, whole or not at all, and clearing it of what dead writers left.
//!
//! INV-13: a listing that fails is an error and never an empty list. Whoever deletes or reuses decides by what a listing does *not*
//! show, so nothing is skipped that cannot be read or is not understood.

use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};

use super::{entry_of, not_a_file};
use crate::{Entry, Key};

/// Every file below the folder `prefix` of `root`, in ascending order of name. The caller makes sure, before and after, that `root` is
/// the store: a missing prefix is empty only in a store that is there.
pub(super) fn list(root: &Path, prefix: &Key) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let top = root.join(prefix.as_str());
    match top.symlink_metadata() {
        Ok(_) => {}
        Err(error) if error.kind() == IoKind::NotFound => return Ok(entries),
        Err(error) => return Err(unreadable(&top, error)),
    }
    let mut folders = vec![(top, prefix.clone())];
    while let Some((path, key)) = folders.pop() {
        list_one(&path, &key, &mut entries, &mut folders)?;
    }
    entries.sort_unstable();
    Ok(entries)
}

fn list_one(folder: &Path, key: &Key, entries: &mut Vec<Entry>, folders: &mut Vec<(PathBuf, Key)>) -> Result<()> {
    // Reading a link's target would leave the store; a file in place of a folder fails as "not a directory".
    let meta = folder.symlink_metadata().map_err(|error| unreadable(folder, error))?;
    if meta.is_symlink() {
        return Err(not_a_file("list", folder));
    }
    for found in folder.read_dir().map_err(|error| unreadable(folder, error))? {
        let found = found.map_err(|error| unreadable(folder, error))?;
        let (name, path) = (found.file_name(), found.path());
        if name.as_encoded_bytes().starts_with(b".") {
            // Temporary files, and what file systems and file managers keep for themselves.
            continue;
        }
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            // Deleted since the folder was read.
            Err(error) if error.kind() == IoKind::NotFound => continue,
            Err(error) => return Err(unreadable(&path, error)),
        };
        let below = name.to_str().map(|name| key.join(name));
        let Some(Ok(below)) = below else {
            return Err(foreign(&path));
        };
        if meta.is_dir() {
            folders.push((path, below));
        } else if meta.is_file() {
            entries.push(entry_of(below, &path, &meta)?);
        } else {
            return Err(not_a_file("list", &path));
        }
    }
    Ok(())
}

/// Removes the temporary files of dead writers from `root` and every folder below it; returns the bytes freed.
pub(super) fn remove_leftovers(root: &Path) -> Result<u64> {
    let mut freed = 0;
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        freed += durable::remove_leftovers(&folder)?;
        for found in folder.read_dir().map_err(|error| unreadable(&folder, error))? {
            let found = found.map_err(|error| unreadable(&folder, error))?;
            let hidden = found.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && found.file_type().map_err(|error| unreadable(&found.path(), error))?.is_dir() {
                folders.push(found.path());
            }
        }
    }
    Ok(freed)
}

/// Whatever keeps a folder from being read, the listing has failed; a repetition may succeed.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unreachable, "list", path.display(), &error)
        .with_hint("check that the disk is mounted and that this user may read the folder, then run the same command again")
        .with_source(error)
}

fn foreign(path: &Path) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "list",
        format!("{path:?}"),
        "no store file has such a name",
    )
    .with_hint("a store holds only files that Lifeboat wrote; move this one away, then run `lifeboat check`")
}
