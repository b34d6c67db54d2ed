//! Where a restored cluster goes, and whether it can: a free name, space, and a way there for the server's user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_io::durable;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::Reader;

use super::spaces::identity;
use super::{Options, Way};
use crate::restore::nearest_folder;
use crate::restore::staging::PREFIX;

/// What the folder of tablespaces beside a data directory is called at its end.
const TABLESPACES: &str = "tablespaces";

/// Whether a name is free: absent, or an empty folder. What a restore to it stages there does not count.
pub(super) fn is_free(to: &Path) -> Result<bool> {
    let failed = |error| Error::io("look at", to.display(), error);
    let entries = match to.read_dir() {
        Ok(entries) => entries,
        // Also of a link that leads nowhere.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(to.symlink_metadata().is_err()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            let error = Error::new(ErrorKind::Refused, "restore to", to.display(), "it is a file");
            return Err(error.with_hint("name a folder that is not there yet"));
        }
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The destination must be free.
pub(super) fn refuse_taken(to: &Path) -> Result<()> {
    if is_free(to)? { Ok(()) } else { Err(taken(to)) }
}

/// What stands where something is to go.
pub(super) fn taken(to: &Path) -> Error {
    let error = Error::new(
        ErrorKind::Refused,
        "restore to",
        to.display(),
        "something is there already; a restore never writes onto it by itself",
    );
    error.with_hint(if to.join("PG_VERSION").is_file() {
        "name a new folder with --to; or, if this cluster is to be replaced: --in-place moves it away, for `lifeboat restore undo`, and --overwrite writes what differs onto it, which needs no room and has no undo"
    } else {
        "name another folder, or move what is there away"
    })
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

/// Where each tablespace goes: where it was asked for, otherwise beside the data directory. Never by itself to where it was: another cluster may
/// be there, the one that the backup is of above all.
pub(super) fn places(facts: &Facts, to: &Path, way: Way, options: &Options) -> Result<BTreeMap<u32, PathBuf>> {
    if let Some(oid) = options.tablespaces.keys().find(|oid| !facts.tablespaces.contains_key(oid)) {
        let known: Vec<String> = facts.tablespaces.iter().map(|(oid, was)| format!("{oid} ({was})")).collect();
        let detail = format!("the cluster has no tablespace of that number; it has {}", known.join(", "));
        return Err(Error::new(ErrorKind::Usage, "place the tablespace", oid, detail));
    }
    let beside = beside(to, way);
    let mut places = BTreeMap::new();
    for oid in facts.tablespaces.keys() {
        let asked = options.tablespaces.get(oid);
        let place = match asked {
            Some(place) => std::path::absolute(place).map_err(|error| Error::io("resolve", place.display(), error))?,
            None => beside.join(oid.to_string()),
        };
        let leads_to = match way {
            Way::Onto => to.join(format!("pg_tblspc/{oid}")).read_link().ok(),
            Way::New | Way::InPlace => None,
        };
        match leads_to {
            // The cluster's own: what is right in it is kept.
            Some(leads_to) if leads_to == place => {}
            Some(leads_to) if asked.is_none() => return Err(unnamed(*oid, &leads_to, &place)),
            _ => refuse_taken(&place)?,
        }
        places.insert(*oid, place);
    }
    refuse_nested(to, &places)?;
    Ok(places)
}

/// The folder of tablespaces beside the data directory. The old cluster's own may lie there: in place, another name is found.
fn beside(to: &Path, way: Way) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plain = to.with_file_name(format!("{name}.{TABLESPACES}"));
    if way != Way::InPlace {
        return plain;
    }
    let numbered = (2..1000).map(|number| to.with_file_name(format!("{name}.{TABLESPACES}-{number}")));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    names.find(|name| name.symlink_metadata().is_err()).unwrap_or(plain)
}

/// Links are copied with a data directory: where they lead may belong to the cluster that was copied.
fn unnamed(oid: u32, leads_to: &Path, beside: &Path) -> Error {
    let detail = format!(
        "in the cluster that is there it lies in {}, which may be another cluster's as well: a data directory that was copied leads to the tablespaces of the original",
        leads_to.display()
    );
    Error::new(ErrorKind::Refused, "write onto the tablespace", oid, detail).with_hint(format!(
        "if that folder belongs to this cluster alone, add --tablespace {oid}={}; otherwise name a new one, for example --tablespace {oid}={}",
        leads_to.display(),
        beside.display()
    ))
}

/// Two in one folder would take each other for their own.
fn refuse_nested(to: &Path, places: &BTreeMap<u32, PathBuf>) -> Result<()> {
    for (oid, place) in places {
        let others = places
            .iter()
            .filter(|(other, _)| *other != oid)
            .map(|(_, other)| other.as_path());
        if let Some(other) = others.chain([to]).find(|other| place.starts_with(other)) {
            let detail = format!("{} lies in {}", place.display(), other.display());
            return Err(Error::new(ErrorKind::Usage, "place the tablespace", oid, detail).with_hint(
                "give each tablespace a folder of its own with --tablespace OID=PATH, outside of the data directory",
            ));
        }
    }
    Ok(())
}

/// Room for `needed` bytes more; returns what is free.
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

/// Gives the data directory its name. Says what is left to say where that is done but not known to be durable.
pub(super) fn publish(from: &Path, to: &Path) -> Result<Option<String>> {
    let restored = identity(from)?;
    // An empty folder is replaced in one step, and by nothing else.
    let outcome = if to.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        durable::rename(from, to)
    } else {
        durable::rename_new(from, to)
    };
    match outcome {
        Ok(()) => Ok(None),
        Err(error) if restored.is_some() && identity(to)? == restored => Ok(Some(format!(
            "{} is there, but whether it would be after a power failure is not known: {error}",
            to.display()
        ))),
        Err(error) => {
            refuse_taken(to)?;
            Err(error.with_hint(
                "the name must be free to be given: restore to a folder inside a mounted disk, not to the disk itself",
            ))
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "somebody else's files")]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_and_nothing_are_free() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        assert!(is_free(&to).unwrap());
        std::fs::create_dir(&to).unwrap();
        assert!(is_free(&to).unwrap());
        // What another restore left, or is about to use.
        std::fs::create_dir(to.join(format!("{PREFIX}x"))).unwrap();
        assert!(is_free(&to).unwrap());
        std::fs::write(to.join("somebody's"), "").unwrap();
        assert!(!is_free(&to).unwrap());
        assert_eq!(is_free(&to.join("somebody's")).unwrap_err().kind(), ErrorKind::Refused);
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert!(!is_free(&folder.path().join("link")).unwrap());
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(to.join("somebody's"), "x").unwrap();
        assert_eq!(publish(&from, &to).unwrap_err().kind(), ErrorKind::Refused);
        std::fs::remove_file(to.join("somebody's")).unwrap();
        assert_eq!(publish(&from, &to).unwrap(), None);
        assert!(!from.exists());
    }

    #[test]
    fn a_tablespace_lies_in_no_other_and_not_in_the_cluster() {
        let to = Path::new("/data");
        let nested = |places: &[(u32, &str)]| {
            let places = places.iter().map(|(oid, place)| (*oid, PathBuf::from(place))).collect();
            refuse_nested(to, &places).is_err()
        };
        assert!(!nested(&[(1, "/data.tablespaces/1"), (2, "/data.tablespaces/2")]));
        assert!(nested(&[(1, "/data/spaces")]));
        assert!(nested(&[(1, "/a"), (2, "/a")]));
        assert!(nested(&[(1, "/a/b"), (2, "/a")]));
    }
}
