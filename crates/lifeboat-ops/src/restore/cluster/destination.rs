//! Where a restored cluster goes, and whether it can: a free name, space, and a way there for the server's user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_io::durable;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::Reader;

use super::Options;
use crate::restore::nearest_folder;

/// What the folder of tablespaces beside a data directory is called at its end.
const TABLESPACES: &str = "tablespaces";

/// The destination must be free: absent, or an empty folder.
pub(super) fn refuse_taken(to: &Path) -> Result<()> {
    let refuse = |detail: &str, hint: &str| {
        Err(Error::new(ErrorKind::Refused, "restore to", to.display(), detail).with_hint(hint.to_owned()))
    };
    let mut entries = match to.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return refuse("it is a file", "name a folder that is not there yet");
        }
        Err(error) => return Err(Error::io("look at", to.display(), error)),
    };
    if to.join("postmaster.pid").try_exists().unwrap_or(true) {
        return refuse(
            "a server runs on it, or did until it was killed",
            "restore to another folder with --to; a running cluster is never written to",
        );
    }
    match entries.next() {
        None => Ok(()),
        Some(_) => refuse(
            "something is there already; a restore never writes onto it",
            "name another folder with --to, or move the old one away",
        ),
    }
}

/// The server's user must get there.
pub(super) fn refuse_hidden(to: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let Some((user, group)) = owner else { return Ok(()) };
    for folder in to.ancestors().skip(1) {
        let meta = match folder.metadata() {
            Ok(meta) => meta,
            // It will be made, and belong to that user.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("look at", folder.display(), error)),
        };
        let bit = match (meta.uid() == user, meta.gid() == group) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if meta.mode() & bit == 0 {
            let detail = format!(
                "the user {user}, whom the cluster belongs to, may not enter {}",
                folder.display()
            );
            return Err(Error::new(ErrorKind::Refused, "restore to", to.display(), detail)
                .with_hint("name a folder with --to that this user can reach, for example below /var/lib/postgresql"));
        }
    }
    Ok(())
}

/// Where each tablespace goes: where it was asked for, otherwise beside the data directory. Never to where it was: production may be there.
pub(super) fn places(facts: &Facts, to: &Path, options: &Options) -> Result<BTreeMap<u32, PathBuf>> {
    if let Some(oid) = options.tablespaces.keys().find(|oid| !facts.tablespaces.contains_key(oid)) {
        let known: Vec<String> = facts.tablespaces.iter().map(|(oid, was)| format!("{oid} ({was})")).collect();
        let detail = format!("the cluster has no tablespace of that number; it has {}", known.join(", "));
        return Err(Error::new(ErrorKind::Usage, "place the tablespace", oid, detail));
    }
    let mut places = BTreeMap::new();
    for oid in facts.tablespaces.keys() {
        let place = match options.tablespaces.get(oid) {
            Some(place) => std::path::absolute(place).map_err(|error| Error::io("resolve", place.display(), error))?,
            None => {
                let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
                to.with_file_name(format!("{name}.{TABLESPACES}")).join(oid.to_string())
            }
        };
        refuse_taken(&place)?;
        places.insert(*oid, place);
    }
    Ok(places)
}

pub(super) fn space(to: &Path, needed: u64) -> Result<u64> {
    let existing = nearest_folder(&durable::parent_of(to))?;
    let stat = rustix::fs::statvfs(&existing)
        .map_err(|error| Error::io("ask for the free space of", existing.display(), error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        let detail = format!("it needs {}, and {} are free", human_bytes(needed), human_bytes(free));
        return Err(Error::new(ErrorKind::NoSpace, "restore to", to.display(), detail)
            .with_hint("free space there, or choose another place with --to"));
    }
    Ok(free)
}

/// As root everything gets the owner that it had; otherwise it belongs to whoever restores.
pub(super) fn owner(reader: &Reader) -> Option<(u32, u32)> {
    let control = reader
        .files()
        .iter()
        .find(|file| file.meta.path == lifeboat_engine::postgres::layout::CONTROL)?;
    rustix::process::geteuid()
        .is_root()
        .then_some((control.meta.uid, control.meta.gid))
}

pub(super) fn publish(from: &Path, to: &Path) -> Result<()> {
    match std::fs::remove_dir(to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(Error::io("publish", to.display(), error)
                .with_hint("the empty folder at that name must be removable: restore to a folder inside a mounted disk, not to the disk itself"));
        }
    }
    match durable::rename_new(from, to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            refuse_taken(to)?;
            Err(error)
        }
        published => published,
    }
}
/// Tablespaces of a restore that is not done: they go if it fails.
pub(super) struct Spaces(pub(super) Vec<PathBuf>);

impl Spaces {
    pub(super) fn remove(&mut self) -> Result<()> {
        for place in self.0.drain(..) {
            durable::remove_folder(&place)?;
            let parent = durable::parent_of(&place);
            if parent.extension().is_some_and(|ending| ending == TABLESPACES) {
                // The last one takes the folder with it; others are still in it.
                drop(std::fs::remove_dir(parent));
            }
        }
        Ok(())
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        // After Ctrl-C nobody is left to be told.
        drop(self.remove());
    }
}
