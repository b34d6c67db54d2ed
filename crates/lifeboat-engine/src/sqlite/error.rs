//! From SQLite's result codes to what a person can do about them.

use std::path::Path;

use lifeboat_model::{Error, ErrorKind};
use rusqlite::ErrorCode;

/// Translates an error of SQLite that came up while `op` was done to the database `path`.
pub(crate) fn sqlite(op: &'static str, path: &Path, error: rusqlite::Error) -> Error {
    let code = match &error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.code),
        _ => None,
    };
    let (kind, detail, hint) = match code {
        Some(ErrorCode::NotADatabase) => (
            ErrorKind::Corrupt,
            "it is not a SQLite database, or its pages are encrypted",
            Some(
                "check the path; databases encrypted by SQLCipher or SEE cannot be read without their key and are not supported",
            ),
        ),
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "SQLite finds it damaged",
            Some("run `PRAGMA integrity_check` on a copy; restore the last good backup (`lifeboat list`)"),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Locked,
            "another process keeps it locked",
            Some("wait for that process, or raise `busy_timeout`"),
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => (
            ErrorKind::Unreachable,
            "SQLite cannot open it: reading needs the file, and write access to its folder while it is in WAL mode or has a journal to roll back",
            Some("run as a user who may write there (the application's own), and mount the folder read-write"),
        ),
        Some(ErrorCode::DiskFull) => (
            ErrorKind::NoSpace,
            "the disk is full",
            Some("free space on that file system and run the same command again"),
        ),
        Some(ErrorCode::SystemIoFailure) => (
            ErrorKind::Unreachable,
            "reading it failed",
            Some("check the disk and the mount; nothing was published"),
        ),
        _ => (ErrorKind::Failed, "SQLite reports an error", None),
    };
    let error_text = error.to_string();
    let result = Error::new(kind, op, path.display(), format!("{detail} ({error_text})"));
    match hint {
        Some(hint) => result.with_hint(hint),
        None => result,
    }
}
