//! Who uses a database: by the open files of every process, and by SQLite's own locks.
//!
//! Changes no content: the database and its `-wal` keep every byte. The one exception is a hot rollback journal (see the rules of this
//! folder), which SQLite rolls back before it locks. Reads no file of the database by itself, so that no lock of this process is lost.

use std::collections::BTreeMap;
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode, FileControl, OpenFlags};

use super::companions;
use super::error::sqlite;

const OP: &str = "replace the database";
const STOP: &str = "stop the application first (for a service, `systemctl stop NAME`), then run the same command again";

/// A process that has a file of the database open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name as the kernel keeps it, at most 15 bytes.
    pub process: String,
    /// The file it has open: the database or one of its companions.
    pub file: PathBuf,
}

/// Who has a database open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holders {
    /// Every process that could be seen to have it open, by process id.
    pub seen: Vec<Holder>,
    /// Whether there may be more: the open files of some processes could not be read.
    pub blind: bool,
}

/// Looks through the open files of all other processes for the database and its companions.
///
/// Files are told apart by device and inode, so links and containers' own paths do not matter. Processes of another PID namespace that is
/// not below ours are out of sight.
///
/// # Errors
/// When the files of the database or `/proc` cannot be looked at.
pub fn holders(path: &Path) -> Result<Holders> {
    let wanted = identities(path)?;
    let mut holders = Holders::default();
    if wanted.is_empty() {
        return Ok(holders);
    }
    let own = std::process::id();
    // Mounted with hidepid, /proc shows the own processes alone, and no process 1.
    holders.blind = !Path::new("/proc/1").try_exists().unwrap_or(false);
    let failed = |error| Error::io("list the running processes in", "/proc", error);
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid != own {
            scan(pid, &entry.path(), &wanted, &mut holders);
        }
    }
    holders.seen.sort();
    holders.seen.dedup();
    Ok(holders)
}

/// Device and inode of the database and its companions, as far as they are there.
fn identities(path: &Path) -> Result<BTreeMap<(u64, u64), PathBuf>> {
    let mut files = vec![path.to_owned()];
    files.extend(companions(path));
    match std::fs::canonicalize(path) {
        // SQLite names the companions after the file itself, not after a symlink to it.
        Ok(real) if real != path => files.extend(companions(&real)),
        Ok(_) => {}
        Err(error) if error.kind() == IoKind::NotFound => {}
        Err(error) => return Err(Error::io("find out who uses", path.display(), error)),
    }
    let mut wanted = BTreeMap::new();
    for file in files {
        match std::fs::metadata(&file) {
            Ok(metadata) => {
                wanted.entry((metadata.dev(), metadata.ino())).or_insert(file);
            }
            Err(error) if error.kind() == IoKind::NotFound => {}
            Err(error) => return Err(Error::io("find out who uses", file.display(), error)),
        }
    }
    Ok(wanted)
}

/// Adds what the process `pid` has open. A process that ends meanwhile holds nothing.
fn scan(pid: u32, process: &Path, wanted: &BTreeMap<(u64, u64), PathBuf>, holders: &mut Holders) {
    let descriptors = match std::fs::read_dir(process.join("fd")) {
        Ok(descriptors) => descriptors,
        Err(error) => {
            holders.blind |= !has_ended(&error);
            return;
        }
    };
    for descriptor in descriptors {
        // Through the link: the file that is open, even if the process sees it under another path.
        match descriptor.and_then(|descriptor| std::fs::metadata(descriptor.path())) {
            Ok(metadata) => {
                if let Some(file) = wanted.get(&(metadata.dev(), metadata.ino()))
                    && !is_our_copy(process)
                {
                    holders.seen.push(Holder {
                        pid,
                        process: name_of(process),
                        file: file.clone(),
                    });
                }
            }
            Err(error) => holders.blind |= !has_ended(&error),
        }
    }
}

/// A child that this process is just starting holds copies of our own descriptors until it runs its program.
fn is_our_copy(process: &Path) -> bool {
    let stat = std::fs::read(process.join("stat")).unwrap_or_default();
    has_not_begun(&String::from_utf8_lossy(&stat), std::process::id())
}

/// Whether a line of `/proc/PID/stat` is of a child of `parent` that has not begun to run a program yet.
fn has_not_begun(stat: &str, parent: u32) -> bool {
    /// `PF_FORKNOEXEC` of the kernel.
    const FORKED_ONLY: u32 = 0x40;
    // The name in parentheses may hold anything, spaces and parentheses included.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = fields.split_whitespace().skip(1).map(str::parse::<u32>);
    let (ppid, flags) = (fields.next(), fields.nth(4));
    matches!((ppid, flags), (Some(Ok(ppid)), Some(Ok(flags))) if ppid == parent && flags & FORKED_ONLY != 0)
}

fn has_ended(error: &std::io::Error) -> bool {
    error.kind() == IoKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// A process chooses its name freely; control characters in it must not reach a terminal.
fn name_of(process: &Path) -> String {
    let name = std::fs::read(process.join("comm")).unwrap_or_default();
    let name: String = String::from_utf8_lossy(&name)
        .trim_end()
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if name.is_empty() { "?".to_owned() } else { name }
}

/// Proves that nobody uses the database `path`, so that it can be replaced: no process has it open, and SQLite grants an exclusive lock.
///
/// A file that is not there, and one that is so damaged that SQLite cannot open it, are unused when no process holds them: a person
/// restores because the database is damaged. SQLite may leave an empty `-wal` where there was none.
///
/// # Errors
/// `Refused` when a process has it open (named with its id), when it is locked, or when no lock can be tried for lack of write permission.
pub fn prove_unused(path: &Path) -> Result<()> {
    let holders = holders(path)?;
    if !holders.seen.is_empty() {
        let detail = format!("it is open in: {}", names(&holders.seen));
        return Err(refused(path, detail));
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => return Ok(()),
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(Error::new(ErrorKind::Refused, OP, path.display(), "it is not a file")),
        Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(OP, path.display(), error)),
    }
    match lock_exclusively(path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ErrorKind::Refused,
            OP,
            path.display(),
            "it cannot be written to, so nothing can prove that it is unused",
        )
        .with_hint("run as a user who may write the database (the application's own)")),
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Err(refused(path, "a process that cannot be seen from here keeps it locked".to_owned()).with_source(error))
            }
            _ => Err(sqlite(OP, path, error)),
        },
    }
}

/// Whether an exclusive lock could be had; `false` when the file is read-only to us.
fn lock_exclusively(path: &Path) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    // On close, a last connection would otherwise move the -wal into the database and delete it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let mut keep = 1;
    connection.file_control(DEFAULT_NAME, FileControl::PersistWal(&mut keep))?;
    if connection.is_readonly("main")? {
        return Ok(false);
    }
    // In WAL mode only this makes the transaction below claim the database for itself, and it keeps the -shm out of it.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(true)
}

fn names(seen: &[Holder]) -> String {
    let mut processes: Vec<String> = seen
        .iter()
        .map(|holder| format!("{} (pid {})", holder.process, holder.pid))
        .collect();
    processes.dedup();
    processes.join(", ")
}

fn refused(path: &Path, detail: String) -> Error {
    Error::new(ErrorKind::Refused, OP, path.display(), detail).with_hint(STOP)
}

#[cfg(test)]
mod tests {
    use super::has_not_begun;

    #[test]
    fn only_own_children_before_their_program_are_our_copies() {
        assert!(has_not_begun("77 (a b) c) R 12 77 77 0 -1 4194368 0 0", 12));
        assert!(
            !has_not_begun("77 (a b) c) R 12 77 77 0 -1 4194304 0 0", 12),
            "runs its program"
        );
        assert!(
            !has_not_begun("77 (a b) c) R 13 77 77 0 -1 4194368 0 0", 12),
            "the child of another"
        );
        assert!(!has_not_begun("", 12));
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        assert!(!has_not_begun(&own, std::os::unix::process::parent_id()), "{own}");
    }
}
