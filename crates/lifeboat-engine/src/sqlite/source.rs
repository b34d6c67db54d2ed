//! The database as the file system sees it, without SQLite.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};

use super::companions;

/// The database file as the file system describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name without folders.
    pub file_name: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, microseconds since 1970.
    pub modified_us: i64,
}

pub(super) fn look_at(path: &Path) -> Result<SourceFile> {
    let meta = path.metadata().map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let result = Error::io("back up", path.display(), error).with_kind(ErrorKind::Unreachable);
        if missing {
            result.with_hint("check the path in lifeboat.yaml, and that its disk is mounted")
        } else {
            result.with_hint("run as a user who may read it")
        }
    })?;
    let refuse = |detail: &str| Error::new(ErrorKind::Corrupt, "back up", path.display(), detail);
    if !meta.is_file() {
        return Err(refuse("it is not a file").with_kind(ErrorKind::ConfigInvalid));
    }
    if meta.len() == 0 {
        return Err(
            refuse("it is empty: an empty file is not a database, although SQLite's integrity check would call it ok")
                .with_hint("check the path; restore the last good backup if the application lost its data (`lifeboat list`)"),
        );
    }
    Ok(SourceFile {
        file_name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        modified_us: meta
            .mtime()
            .saturating_mul(1_000_000)
            .saturating_add(meta.mtime_nsec() / 1000),
    })
}

pub(super) fn inode(path: &Path) -> Result<(u64, u64)> {
    let meta = path
        .metadata()
        .map_err(|error| Error::io("look at", path.display(), error).with_kind(ErrorKind::Unreachable))?;
    Ok((meta.dev(), meta.ino()))
}

/// SQLite names the companions after the file itself, not after a symlink to it.
pub(super) fn real_companions(path: &Path) -> [PathBuf; 3] {
    companions(&std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}

/// Bytes of a file; none where there is no file.
pub(super) fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// Reads the journal mode from the file itself. Only on network file systems, and only before a connection is opened: see the module rules.
pub(super) fn in_wal_mode(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut header = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => Ok(header[18] == 2 || header[19] == 2),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("read", path.display(), error).with_kind(ErrorKind::Unreachable)),
    }
}
