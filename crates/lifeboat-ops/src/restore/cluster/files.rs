//! The files of a cluster, put where they belong: folders, links and tablespaces first, then all files side by side, each verified as it is
//! written (INV-10), `pg_control` under another name (PG-09).

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::label::{Tablespace, tablespace_map};
use lifeboat_engine::postgres::layout;
use lifeboat_engine::postgres::recovery::{self, Settings};
use lifeboat_io::compute;
use lifeboat_io::durable;
use lifeboat_io::flow::PageSink;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{Fetched, FileRecord, Reader};

use super::sink::{Fresh, Kept};
use crate::backup::cluster::{LABEL, MANIFEST, TABLESPACE_MAP};

/// What `pg_control` is called until everything else is durable.
pub(super) const CONTROL_WAITING: &str = "global/pg_control.restored";
/// Files on their way at once.
const FILES_AT_ONCE: usize = 8;
/// The labels are small; more is damage.
const LABEL_LIMIT_BYTES: u64 = 1 << 20;
/// Under this name lies what was outside the data directory.
const OUTSIDE: &str = "outside/";

/// Where the parts of a cluster go.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The data directory, for now.
    pub(super) data_dir: PathBuf,
    /// Each tablespace, by its number.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
    /// Who owns it all; `None`: whoever restores.
    pub(super) owner: Option<(u32, u32)>,
}

/// Whether a file of a backup is restored under its own name.
pub(super) fn is_placed(path: &str) -> bool {
    path != layout::CONTROL && is_restored(path)
}

fn is_restored(path: &str) -> bool {
    !path.starts_with(OUTSIDE) && ![LABEL, TABLESPACE_MAP, MANIFEST].contains(&path)
}

/// Fetches everything. Of the files in `kept` something is there: what is right in them is neither fetched nor written.
pub(super) async fn fetch(reader: &Reader, facts: &Facts, layout: &Layout, kept: &BTreeSet<String>) -> Result<Fetched> {
    let (made, folders) = (layout.clone(), facts.clone());
    compute::run("make the folders", move || made.folders(&folders)).await?;
    let mut sinks: Vec<(FileRecord, Arc<dyn PageSink>, bool)> = Vec::new();
    for file in reader.files() {
        let path = file.meta.path.as_str();
        if !is_restored(path) {
            continue;
        }
        let name = if path == layout::CONTROL { CONTROL_WAITING } else { path };
        let fresh = Fresh {
            place: layout.data_dir.join(below(name)?),
            size_bytes: file.size_bytes,
            mode: file.meta.mode,
            owner: layout.owner,
        };
        let is_kept = kept.contains(path);
        let sink: Arc<dyn PageSink> = if is_kept {
            Arc::new(Kept::new(fresh))
        } else {
            Arc::new(fresh.lazy())
        };
        sinks.push((file.clone(), sink, is_kept));
    }
    if !sinks.iter().any(|(file, ..)| file.meta.path == layout::CONTROL) {
        let detail = "it has no pg_control";
        return Err(Error::new(ErrorKind::Corrupt, "restore", "the backup", detail));
    }
    // The largest first, so that none of them is waited for alone at the end.
    sinks.sort_by_key(|(file, ..)| std::cmp::Reverse(file.size_bytes));
    let fetched = reader.restore_onto(sinks, FILES_AT_ONCE).await?;
    let label = small(reader, LABEL).await?.ok_or_else(|| {
        let detail = "it has no backup_label";
        Error::new(ErrorKind::Corrupt, "restore", "the backup", detail)
    })?;
    let layout = layout.clone();
    compute::run("write the labels", move || {
        layout.write(LABEL, &label)?;
        layout.write_map(&layout.tablespaces)
    })
    .await?;
    Ok(fetched)
}

async fn small(reader: &Reader, name: &str) -> Result<Option<Vec<u8>>> {
    match reader.files().iter().find(|file| file.meta.path == name) {
        Some(file) => reader.read_stream(file, LABEL_LIMIT_BYTES).await.map(Some),
        None => Ok(None),
    }
}

impl Layout {
    fn folders(&self, facts: &Facts) -> Result<()> {
        durable::create_folder(&self.data_dir)?;
        self.dress(&self.data_dir, 0o700)?;
        for (oid, location) in &self.tablespaces {
            make_folder(location, self.owner)?;
            self.dress(location, 0o700)?;
            let link = self.data_dir.join(format!("pg_tblspc/{oid}"));
            durable::create_folder(&durable::parent_of(&link))?;
            lead(&link, location)?;
        }
        for (path, (mode, _, _)) in &facts.folders {
            let place = self.data_dir.join(below(path)?);
            if !place.is_dir() {
                durable::create_folder(&place)?;
            }
            self.dress(&place, *mode)?;
        }
        for (path, target) in &facts.links {
            let link = self.data_dir.join(below(path)?);
            lead(&link, Path::new(target))?;
            give(&link, self.owner)?;
        }
        Ok(())
    }

    /// Sets mode and owner of a folder, a tablespace's behind its link.
    fn dress(&self, place: &Path, mode: u32) -> Result<()> {
        std::fs::set_permissions(place, PermissionsExt::from_mode(mode))
            .map_err(|error| Error::io("set the mode of", place.display(), error))?;
        give(place, self.owner)
    }

    /// Says where the server is to make its links.
    pub(super) fn write_map(&self, places: &BTreeMap<u32, PathBuf>) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        if places.is_empty() {
            return Ok(());
        }
        let one = |(oid, location): (&u32, &PathBuf)| Tablespace {
            oid: *oid,
            location: location.as_os_str().as_bytes().to_vec(),
        };
        let all: Vec<Tablespace> = places.iter().map(one).collect();
        self.write(TABLESPACE_MAP, &tablespace_map(&all))
    }

    /// What a server that a person starts is told about its recovery.
    pub(super) fn write_recovery(&self, settings: &Settings) -> Result<()> {
        self.write(recovery::AUTO_CONF, &settings.auto_conf(&self.auto_conf()?, false)?)?;
        self.write(recovery::SIGNAL, b"")
    }

    /// For a server that is told about its recovery on its command line; none that is started later archives or follows anybody.
    pub(super) fn write_settled(&self) -> Result<()> {
        self.write(recovery::AUTO_CONF, &recovery::settled_conf(&self.auto_conf()?)?)?;
        self.write(recovery::SIGNAL, b"")
    }

    /// The settings that came with the base.
    fn auto_conf(&self) -> Result<Vec<u8>> {
        let place = self.data_dir.join(recovery::AUTO_CONF);
        match std::fs::read(&place) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", place.display(), error)),
        }
    }

    /// Writes a small file of ours into the data directory, in place of one that is there.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.data_dir.join(name);
        durable::replace_file(&place, bytes, durable::FILE_MODE)?;
        give(&place, self.owner)
    }

    /// Makes everything durable, and then gives `pg_control` its name (PG-09).
    pub(super) fn complete(&self) -> Result<()> {
        for place in self.tablespaces.values().chain([&self.data_dir]) {
            durable::sync_file_system(place)?;
        }
        let (from, to) = (self.data_dir.join(CONTROL_WAITING), self.data_dir.join(layout::CONTROL));
        durable::rename(&from, &to)
    }
}

/// Makes a folder and those above it that are missing; all of them belong to `owner`, who must get there.
pub(super) fn make_folder(place: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let missing: Vec<&Path> = place
        .ancestors()
        .take_while(|folder| folder.symlink_metadata().is_err())
        .collect();
    durable::create_folder(place)?;
    missing.into_iter().try_for_each(|folder| give(folder, owner))
}

/// Makes a link, unless it is there.
fn lead(link: &Path, target: &Path) -> Result<()> {
    if link.read_link().is_ok_and(|found| found == target) {
        return Ok(());
    }
    symlink(target, link).map_err(|error| Error::io("make the link", link.display(), error))
}

pub(in crate::restore) fn give(place: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    match owner {
        None => Ok(()),
        Some((user, group)) => {
            lchown(place, Some(user), Some(group)).map_err(|error| Error::io("give away", place.display(), error))
        }
    }
}

/// A path of a backup that stays below where it is put.
fn below(path: &str) -> Result<&Path> {
    let place = Path::new(path);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.is_empty() || !place.components().all(plain) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "restore",
            format!("{path:?}"),
            "it leads out of the data directory",
        ));
    }
    Ok(place)
}
