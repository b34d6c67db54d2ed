//! Where a restore goes, and whether it can: space, a free name, nobody who uses it.

use std::path::{Path, PathBuf};

use lifeboat_engine::sqlite;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};

use super::quarantine;

/// Where restored data goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A name that is free; nothing existing is touched.
    Beside {
        /// The new file.
        path: PathBuf,
        /// Give it the captured owner (needs privileges); without, it belongs to whoever restores.
        keep_owner: bool,
    },
    /// An existing database, which is moved into an undo folder.
    InPlace {
        /// The database.
        path: PathBuf,
    },
}

impl Destination {
    /// The file that will exist afterwards.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Beside { path, .. } | Self::InPlace { path } => path,
        }
    }
}

/// Where an in-place restore really goes, and what can be said about it before it begins.
pub(crate) fn settle_destination(destination: Destination) -> Result<(Destination, Vec<String>)> {
    let Destination::InPlace { path } = destination else {
        return Ok((destination, Vec::new()));
    };
    let mut notes = Vec::new();
    let real = quarantine::real_path(&path)?;
    if real != path {
        notes.push(format!(
            "{} is a link to {}: that file is replaced, and the link stays",
            path.display(),
            real.display()
        ));
    }
    notes.extend(blind_note(&sqlite::holders(&real)?));
    Ok((Destination::InPlace { path: real }, notes))
}

/// What a look at the running processes leaves open.
fn blind_note(holders: &sqlite::Holders) -> Option<String> {
    holders.blind.then(|| {
        "some processes could not be looked into (those of other users, or outside this container): a lock of theirs would be seen, an idle connection may not. Make sure that the application is stopped".to_owned()
    })
}

/// Space, free name, no users. Returns the free bytes where it goes.
pub(crate) fn preflight(destination: &Destination, size_bytes: u64) -> Result<u64> {
    let path = destination.path();
    let folder = durable::parent_of(path);
    match destination {
        Destination::Beside { .. } => refuse_taken(path)?,
        Destination::InPlace { .. } => sqlite::prove_unused(path)?,
    }
    let existing = nearest_folder(&folder)?;
    let stat = rustix::fs::statvfs(&existing)
        .map_err(|error| Error::io("ask for the free space of", existing.display(), error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < size_bytes {
        return Err(Error::new(
            ErrorKind::NoSpace,
            "restore to",
            path.display(),
            format!(
                "it needs {}, and {} are free",
                lifeboat_model::time::human_bytes(size_bytes),
                lifeboat_model::time::human_bytes(free)
            ),
        )
        .with_hint("free space there, or choose another place with --to"));
    }
    Ok(free)
}

pub(crate) fn nearest_folder(folder: &Path) -> Result<PathBuf> {
    for ancestor in folder.ancestors() {
        let candidate = if ancestor.as_os_str().is_empty() {
            Path::new(".")
        } else {
            ancestor
        };
        match candidate.metadata() {
            Ok(meta) if meta.is_dir() => return Ok(candidate.to_path_buf()),
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "restore into",
                    candidate.display(),
                    "it is a file, not a folder",
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", candidate.display(), error)),
        }
    }
    Ok(PathBuf::from("/"))
}

pub(crate) fn taken(path: &Path) -> Error {
    if path.is_dir() {
        return Error::new(
            ErrorKind::Refused,
            "restore to",
            path.display(),
            "it is a folder; a restore makes a file",
        )
        .with_hint(format!(
            "name a file in it, for example `--to {}`",
            path.join("restored.db").display()
        ));
    }
    Error::new(
        ErrorKind::Refused,
        "restore to",
        path.display(),
        "something is there already; a restore never writes onto it",
    )
    .with_hint(
        "choose another name with --to, or replace it with --in-place (the old files are kept for `lifeboat restore undo`)",
    )
}

/// The name and the names that SQLite would read along with it must be free: a stale -wal would be replayed into the restored database.
pub(crate) fn refuse_taken(path: &Path) -> Result<()> {
    let mut names = vec![path.to_path_buf()];
    names.extend(sqlite::companions(path));
    for name in names {
        match name.symlink_metadata() {
            Ok(_) => return Err(taken(&name)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", name.display(), error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_missed_processes_is_told() {
        let mut holders = sqlite::Holders::default();
        assert_eq!(blind_note(&holders), None);
        holders.blind = true;
        assert!(blind_note(&holders).is_some_and(|note| note.contains("some processes could not be looked into")));
    }
}
