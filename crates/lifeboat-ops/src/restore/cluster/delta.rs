//! Restoring onto a stopped cluster: what is right in it already stays (a delta restore).
//!
//! Order: the folder is locked → a marker names the cluster → `pg_control` is taken away, so that from here on no server starts there (PG-09) →
//! what the backup does not have is removed, the log and its own recovery settings included → files are compared by content and mended → as in
//! any other restore, `pg_control` last → the marker goes. If we die anywhere in between, the directory cannot be used as a cluster, and the same
//! command goes on with whatever is right by then: nothing is believed of the earlier run but the marker.
//!
//! Must not write through links, nor into files that have a second name: both may be somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::layout;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::FileRecord;
use serde::{Deserialize, Serialize};

use super::existing::refuse_running;
use super::files::{CONTROL_WAITING, Layout, is_placed};

/// In a directory that is being restored onto.
const MARKER: &str = "lifeboat-delta.json";
/// Where the old `pg_control` goes first; it is removed with everything else that the backup does not have.
const CONTROL_TAKEN: &str = "global/pg_control.replaced";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    version: u32,
    /// The cluster that was there, in decimal digits.
    system_identifier: String,
}

/// The cluster in whose directory a delta restore was begun; none where there is no marker that can be understood.
pub(super) fn marked(data_dir: &Path) -> Result<Option<u64>> {
    let path = data_dir.join(MARKER);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("read", path.display(), error)),
    };
    let marker: Option<Marker> = serde_json::from_slice(&bytes).ok();
    let known = marker.filter(|marker| marker.version == VERSION);
    Ok(known.and_then(|marker| marker.system_identifier.parse().ok()))
}

/// A delta restore under way: the directory is locked and cannot be started. Dropped before it is [`Delta::done`], it stays so.
#[derive(Debug)]
pub(super) struct Delta {
    data_dir: PathBuf,
    is_done: bool,
    lock: Option<File>,
    /// Files that are compared with those of the backup.
    pub(super) kept: BTreeSet<String>,
}

impl Delta {
    /// Takes `pg_control` away and removes what the backup does not have. Safe to repeat, and to die in. What is refused is refused before
    /// anything is changed.
    pub(super) fn begin(layout: &Layout, facts: &Facts, files: &[FileRecord]) -> Result<Self> {
        let data_dir = layout.data_dir.clone();
        let mut delta = Self {
            lock: lock(&data_dir)?,
            data_dir,
            is_done: true,
            kept: BTreeSet::new(),
        };
        let data_dir = delta.data_dir.as_path();
        let unfinished = marked(data_dir)?.is_some();
        refuse_running(data_dir, unfinished)?;
        let survey = Survey::of(layout, facts, files)?;
        let marker = Marker {
            version: VERSION,
            system_identifier: facts.system_identifier.clone(),
        };
        let bytes = serde_json::to_vec(&marker)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the marker of a restore", error.to_string()))?;
        durable::replace_file(&data_dir.join(MARKER), &bytes, durable::FILE_MODE)?;
        let (control, taken) = (data_dir.join(layout::CONTROL), data_dir.join(CONTROL_TAKEN));
        if control.symlink_metadata().is_ok() {
            durable::rename(&control, &taken)?;
            // One that was started in between has seen it.
            if let Err(running) = refuse_running(data_dir, unfinished) {
                durable::rename(&taken, &control)?;
                durable::remove_file(&data_dir.join(MARKER))?;
                return Err(running);
            }
        }
        delta.is_done = false;
        survey.clear()?;
        durable::remove_file(&taken)?;
        delta.kept = survey.kept.into_keys().collect();
        Ok(delta)
    }

    /// The directory is whole.
    pub(super) fn done(mut self) -> Result<()> {
        self.is_done = true;
        durable::remove_file(&self.data_dir.join(MARKER))?;
        durable::sync_folder(&self.data_dir)
    }
}

impl Drop for Delta {
    fn drop(&mut self) {
        if !self.is_done {
            // The server of a replay that failed had it. Where this fails, too, the marker is there, and the server has no log to start with.
            let control = self.data_dir.join(layout::CONTROL);
            drop(durable::rename(&control, &self.data_dir.join(CONTROL_WAITING)));
        }
        if let Some(lock) = &self.lock {
            // Closing the file unlocks it as well, only later.
            drop(lock.unlock());
        }
    }
}

/// What the error of a delta restore says besides: what state the directory is in.
pub(super) fn unfinished(error: Error, data_dir: &Path) -> Error {
    let state = format!(
        "{} is half restored and cannot be started: run the same command again, it goes on from what is right by then",
        data_dir.display()
    );
    let hint = match error.hint() {
        Some(hint) if error.kind() != ErrorKind::NoSpace => format!("{hint}. {state}"),
        Some(_) => format!("free space there. {state}"),
        None => state,
    };
    error.with_hint(hint)
}

fn lock(data_dir: &Path) -> Result<Option<File>> {
    let folder = File::open(data_dir).map_err(|error| Error::io("open", data_dir.display(), error))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => {
            let detail = "another restore writes onto it";
            Err(Error::new(ErrorKind::Locked, "restore to", data_dir.display(), detail)
                .with_hint("wait for it, then run the same command again"))
        }
        // A file system without locks on folders: there, nothing but care keeps two restores apart.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn link_in_the_way(place: &Path) -> Error {
    let detail = "it is no folder of its own but a link: what it leads to may be somebody else's, and is not written into";
    Error::new(ErrorKind::Refused, "restore onto", place.display(), detail).with_hint(
        "restore to a new folder with --to, or in its place with --in-place; or move the folder back to where the link is",
    )
}

/// Folders that the backup has must be folders here.
fn refuse_links(data_dir: &Path, facts: &Facts) -> Result<()> {
    for path in facts.folders.keys().filter(|path| !path.starts_with("pg_tblspc/")) {
        let place = data_dir.join(path);
        if place.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(link_in_the_way(&place));
        }
    }
    Ok(())
}

/// What a delta restore would keep and remove; nothing is changed by looking.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Files of the backup of which something is there, with their lengths: what of it is right shows when it is compared.
    pub(super) kept: BTreeMap<String, u64>,
    /// Files and links that the backup does not have.
    pub(super) files: Vec<PathBuf>,
    /// Folders that it does not have.
    pub(super) folders: Vec<PathBuf>,
}

impl Survey {
    /// Looks at the data directory and the tablespaces. `Refused` where something in them is not the cluster's alone.
    pub(super) fn of(layout: &Layout, facts: &Facts, files: &[FileRecord]) -> Result<Self> {
        refuse_links(&layout.data_dir, facts)?;
        let wanted = Wanted {
            files: files
                .iter()
                .map(|file| file.meta.path.as_str())
                .filter(|path| is_placed(path))
                .collect(),
            facts,
            layout,
        };
        let mut survey = Self::default();
        wanted.folder(&layout.data_dir, "", &mut survey)?;
        for (oid, place) in &layout.tablespaces {
            let prefix = format!("pg_tblspc/{oid}/");
            // A location can hold the folders of other servers: only ours is looked into.
            let ours = facts.folders.keys().filter_map(|path| path.strip_prefix(&prefix));
            for name in ours.filter(|name| !name.contains('/')) {
                let inner = place.join(name);
                match inner.symlink_metadata() {
                    Ok(meta) if meta.is_dir() => wanted.folder(&inner, &format!("{prefix}{name}"), &mut survey)?,
                    Ok(_) => return Err(link_in_the_way(&inner)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io("look at", inner.display(), error)),
                }
            }
        }
        Ok(survey)
    }

    /// Bytes of the backup for which something is there.
    pub(super) fn present_bytes(&self, files: &[FileRecord]) -> u64 {
        let one = |file: &FileRecord| {
            self.kept
                .get(&file.meta.path)
                .map_or(0, |length| (*length).min(file.size_bytes))
        };
        files.iter().map(one).fold(0, u64::saturating_add)
    }

    fn clear(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| durable::remove_file(file))?;
        self.folders.iter().try_for_each(|folder| durable::remove_folder(folder))
    }
}

/// What a directory is to have.
struct Wanted<'a> {
    files: BTreeSet<&'a str>,
    facts: &'a Facts,
    layout: &'a Layout,
}

impl Wanted<'_> {
    fn folder(&self, place: &Path, path: &str, survey: &mut Survey) -> Result<()> {
        let failed = |error| Error::io("read", place.display(), error);
        for entry in place.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (name, here) = (entry.file_name(), entry.path());
            let below = name.to_str().map(|name| {
                if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}/{name}")
                }
            });
            let meta = here
                .symlink_metadata()
                .map_err(|error| Error::io("look at", here.display(), error))?;
            match below {
                Some(below) if meta.is_dir() && self.facts.folders.contains_key(&below) => self.folder(&here, &below, survey)?,
                Some(below) if meta.is_symlink() && self.keeps_link(&here, &below) => {}
                Some(below) if below == MARKER => {}
                // A file with a second name is somebody else's, too: a copy of hard links, the cluster from before an upgrade.
                Some(below) if meta.is_file() && meta.nlink() == 1 && self.files.contains(below.as_str()) => {
                    survey.kept.insert(below, meta.len());
                }
                _ if meta.is_dir() => {
                    refuse_other_disks(&here, folder_device(place)?)?;
                    survey.folders.push(here);
                }
                _ => survey.files.push(here),
            }
        }
        Ok(())
    }

    fn keeps_link(&self, here: &Path, path: &str) -> bool {
        let leads_to = |target: &Path| here.read_link().is_ok_and(|found| found == target);
        let oid = path.strip_prefix("pg_tblspc/").and_then(|oid| oid.parse().ok());
        match oid.and_then(|oid: u32| self.layout.tablespaces.get(&oid)) {
            Some(place) => leads_to(place),
            None => self.facts.links.get(path).is_some_and(|target| leads_to(Path::new(target))),
        }
    }
}

fn folder_device(place: &Path) -> Result<u64> {
    let meta = place.symlink_metadata();
    meta.map(|meta| meta.dev())
        .map_err(|error| Error::io("look at", place.display(), error))
}

/// What would be removed must not be somebody's disk.
fn refuse_other_disks(place: &Path, device: u64) -> Result<()> {
    if folder_device(place)? != device {
        let detail = "another disk is mounted there, in the middle of the cluster, and the backup does not have that folder";
        return Err(Error::new(ErrorKind::Refused, "restore onto", place.display(), detail)
            .with_hint("unmount it, or restore to a new folder with --to"));
    }
    let failed = |error| Error::io("read", place.display(), error);
    for entry in place.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            refuse_other_disks(&entry.path(), device)?;
        }
    }
    Ok(())
}
