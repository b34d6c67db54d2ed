//! What stands at the destination of a restore already: whose cluster it is, and that nobody uses it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::control::Control;
use lifeboat_engine::postgres::layout;
use lifeboat_engine::postgres::running::{PID_FILE, Server, server_on};
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};

use super::Way;
use super::delta;
use super::destination::{is_free, taken};
use crate::restore::quarantine;

/// A cluster at the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Old {
    /// Which one; none where that cannot be read.
    pub(super) system: Option<u64>,
    /// A restore onto it was begun and has not ended.
    pub(super) unfinished: bool,
}

/// Looks at what is at `to`; none where the name is free. Refuses what `way` does not take on: a server that runs, something that is no cluster.
pub(super) fn look(to: &Path, way: Way) -> Result<Option<Old>> {
    if is_free(to)? {
        return Ok(None);
    }
    let unfinished = delta::marked(to)?;
    refuse_running(to, unfinished.is_some())?;
    if way == Way::New {
        return Err(taken(to));
    }
    let refuse = |detail: &str, hint: String| {
        let error = Error::new(ErrorKind::Refused, "restore to", to.display(), detail);
        Err(error.with_hint(hint))
    };
    let place = to.join(layout::CONTROL);
    let system = match std::fs::read(&place) {
        Ok(bytes) => Control::parse(&bytes).ok().map(|control| control.system_identifier),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", place.display(), error)),
    };
    let old = Old {
        system: system.or(unfinished),
        unfinished: unfinished.is_some(),
    };
    if !old.unfinished && !to.join("PG_VERSION").is_file() {
        return refuse(
            "it is no data directory of PostgreSQL: there is no PG_VERSION in it",
            "name the data directory itself, or a folder that is not there yet".to_owned(),
        );
    }
    if way == Way::Onto && old.system.is_none() {
        return refuse(
            "which cluster it is cannot be read from its global/pg_control",
            "--in-place moves it away, for `lifeboat restore undo`, instead of writing onto it".to_owned(),
        );
    }
    if way == Way::InPlace {
        refuse_disk(to)?;
    }
    Ok(Some(old))
}

/// A cluster is only replaced by itself.
pub(super) fn refuse_other(to: &Path, old: &Old, facts: &Facts) -> Result<()> {
    match old.system {
        Some(system) if system.to_string() != facts.system_identifier => {
            let detail = format!(
                "the cluster there has the system identifier {system}, and the backup is of {}: it is another cluster",
                facts.system_identifier
            );
            Err(Error::new(ErrorKind::Refused, "restore to", to.display(), detail)
                .with_hint("restore to a new folder with --to; if this place is to be used, move the other cluster away first"))
        }
        _ => Ok(()),
    }
}

/// The old cluster of this name may lie in an undo folder, and nothing else may take its name.
pub(super) fn refuse_interrupted(to: &Path) -> Result<()> {
    match quarantine::records(to)?.iter().find(|(_, record)| record.is_interrupted()) {
        None => Ok(()),
        Some((folder, record)) => {
            let detail = format!(
                "restore {} was interrupted while it put a cluster there; what was there before is in {}",
                record.id,
                folder.display()
            );
            Err(Error::new(ErrorKind::Refused, "restore to", to.display(), detail)
                .with_hint("run that restore again with --in-place, or restore to another folder with --to"))
        }
    }
}

/// What to know before saying yes to replacing what is there.
pub(super) fn notes(to: &Path, way: Way, facts: &Facts, tablespaces: &BTreeMap<u32, PathBuf>) -> Vec<String> {
    let mut notes = Vec::new();
    if way == Way::New {
        return notes;
    }
    let links = |path: &str| to.join(path).read_link().ok();
    for (oid, place) in tablespaces {
        if let Some(was) = links(&format!("pg_tblspc/{oid}"))
            && was != *place
        {
            notes.push(format!(
                "tablespace {oid} of the old cluster stays in {}; the restored one is in {}",
                was.display(),
                place.display()
            ));
        }
    }
    if way == Way::InPlace {
        let folders = facts.folders.keys().filter(|path| !path.starts_with("pg_tblspc/"));
        for (path, was) in folders.filter_map(|path| Some((path, links(path)?))) {
            notes.push(format!(
                "{path} of the old cluster is a link to {}, which stays; in the restored one it is a folder",
                was.display()
            ));
        }
    } else {
        notes.push("there is no way back: what is written over is gone (--in-place keeps it)".to_owned());
    }
    notes
}

/// Refuses a data directory that a server uses, or may use. `ours`: a restore onto it was begun, whose own server may have been killed.
pub(in crate::restore) fn refuse_running(data_dir: &Path, ours: bool) -> Result<()> {
    let refuse = |detail: String, hint: String| {
        Err(Error::new(ErrorKind::Refused, "restore to", data_dir.display(), detail).with_hint(hint))
    };
    match server_on(data_dir)? {
        Server::Absent => Ok(()),
        Server::Runs(pid) => refuse(
            format!("a server runs on it (process {pid})"),
            format!(
                "stop it (`pg_ctl stop -D {}`), or restore to another folder with --to: a running cluster is never written to",
                data_dir.display()
            ),
        ),
        Server::Unseen {
            socket_folder: Some(folder),
            ..
        } if ours && folder.contains("/lbsb-") => Ok(()),
        Server::Unseen { pid, .. } => {
            let named = pid.map_or_else(|| "no process".to_owned(), |pid| format!("process {pid}"));
            refuse(
                format!(
                    "its {PID_FILE} names {named}, which is no server that can be seen from here: it was killed, or it runs in a container or on another host"
                ),
                format!(
                    "make sure that no server uses it anywhere, remove {}, and run the same command again; or restore to another folder with --to",
                    data_dir.join(PID_FILE).display()
                ),
            )
        }
    }
}

/// The root of a disk has a name that cannot be given to another folder.
fn refuse_disk(to: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| {
        let meta = path.metadata();
        meta.map(|meta| meta.dev())
            .map_err(|error| Error::io("look at", path.display(), error))
    };
    if device(to)? == device(&durable::parent_of(to))? {
        return Ok(());
    }
    let detail = "it is the root of a disk, which cannot be moved away as a whole";
    Err(Error::new(ErrorKind::Refused, "restore in place", to.display(), detail)
        .with_hint("write onto it with `--to DIR --overwrite`, which has no undo, or restore to another folder with --to"))
}
