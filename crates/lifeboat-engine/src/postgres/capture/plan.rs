//! What of a data directory is read, in which order: a list made after the server said that the backup has begun.
//!
//! What is created later comes back from the log; what vanishes before it is read is taken out by the log. Anything else that cannot be
//! looked at is an error (INV-03).

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};

use crate::postgres::label::Tablespace;
use crate::postgres::layout::{self, Class, Fork, Relation};

/// A file as the file system describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Relative to the data directory, `/`-separated; what lies in a tablespace under `pg_tblspc/OID/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change, microseconds since 1970.
    pub modified_us: i64,
}

/// A file that is to be read.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) file: FileInfo,
    /// Where it is read from.
    pub(super) place: PathBuf,
    pub(super) size_bytes: u64,
    /// The number of its first page in its relation; `None` where it is not made of pages.
    pub(super) first_block: Option<u32>,
}

/// The data directory at a glance.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Files of pages, the longest first, then the others; `pg_control` last.
    pub(super) files: Vec<Planned>,
    /// Folders, parents first, those included that are restored empty.
    pub(super) folders: Vec<FileInfo>,
    /// Links that stay links: path and target.
    pub(super) links: Vec<(String, String)>,
    /// Links whose content was taken in their place.
    pub(super) followed: Vec<(String, String)>,
    pub(super) tablespaces: Vec<Tablespace>,
}

/// Looks at everything below `data_dir`. `version_folder` is the name that the server gives its folder in a tablespace.
pub(super) fn look(data_dir: &Path, version_folder: &str) -> Result<Tree> {
    let mut walk = Walk {
        version_folder: version_folder.to_owned(),
        tree: Tree::default(),
    };
    walk.folder(data_dir, "")?;
    let mut tree = walk.tree;
    tree.files.sort_by_key(|planned| {
        let control = planned.file.path == layout::CONTROL;
        (
            control,
            planned.first_block.is_none(),
            u64::MAX - planned.size_bytes,
            planned.file.path.clone(),
        )
    });
    match tree.files.last() {
        Some(last) if last.file.path == layout::CONTROL => Ok(tree),
        _ => Err(Error::new(
            ErrorKind::Unreachable,
            "back up",
            data_dir.display(),
            "there is no global/pg_control in it",
        )
        .with_hint("check that its disk is mounted, and that the path is that of a data directory")),
    }
}

struct Walk {
    version_folder: String,
    tree: Tree,
}

impl Walk {
    fn folder(&mut self, place: &Path, path: &str) -> Result<()> {
        let failed = |error| Error::io("read", place.display(), error).with_kind(ErrorKind::Unreachable);
        let entries = match place.read_dir() {
            Ok(entries) => entries,
            // A database that was dropped; the data directory itself has to be there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_empty() => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else {
                let shown = place.join(&name);
                let detail = "its name is not UTF-8, which no file of PostgreSQL is";
                return Err(Error::new(ErrorKind::Refused, "back up", shown.display(), detail)
                    .with_hint("move it out of the data directory: it does not belong there"));
            };
            names.push(name.to_owned());
        }
        names.sort();
        let under = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            }
        };
        let paths: Vec<String> = names.iter().map(|name| under(name)).collect();
        let init: BTreeSet<u32> = paths
            .iter()
            .filter_map(|path| Relation::parse(path))
            .filter(|relation| relation.fork == Fork::Init)
            .map(|relation| relation.number)
            .collect();
        for (name, path) in names.iter().zip(paths) {
            let relation = Relation::parse(&path);
            let unlogged = relation.is_some_and(|relation| relation.is_unlogged(init.contains(&relation.number)));
            if !unlogged {
                self.name(&place.join(name), path)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, place: &Path, path: String) -> Result<()> {
        let class = layout::classify(&path);
        if class == Class::LeftOut {
            return Ok(());
        }
        let failed = |error| Error::io("look at", place.display(), error).with_kind(ErrorKind::Unreachable);
        let mut meta = match place.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if meta.is_symlink() {
            let target = match place.read_link() {
                Ok(target) => target,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            let shown = target.to_string_lossy().into_owned();
            if let Some(oid) = path.strip_prefix("pg_tblspc/").and_then(|oid| oid.parse().ok()) {
                return self.tablespace(oid, place, &path, target.as_os_str().as_bytes());
            }
            // What the cluster needs may lie elsewhere, and is the cluster's all the same.
            meta = match place.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && class == Class::Taken => {
                    self.tree.links.push((path, shown));
                    return Ok(());
                }
                Err(error) => return Err(failed(error)),
            };
            if meta.is_dir() && class == Class::Taken && !layout::is_own_folder(&path) {
                self.tree.links.push((path, shown));
                return Ok(());
            }
            self.tree.followed.push((path.clone(), shown));
        }
        let file = info(&path, &meta);
        if meta.is_dir() {
            self.tree.folders.push(file);
            // Folders in `pg_wal` have names of their own.
            if class == Class::Taken || path == "pg_wal" {
                self.folder(place, &path)?;
            }
        } else if meta.is_file() && class == Class::Taken {
            let first_block = Relation::parse(&path).map(|relation| relation.first_block());
            self.tree.files.push(Planned {
                file,
                place: place.to_owned(),
                size_bytes: meta.len(),
                first_block,
            });
        }
        // Sockets and pipes are of the running server.
        Ok(())
    }

    /// Of a tablespace only the folder of this server's version is ours: a location can hold those of several.
    fn tablespace(&mut self, oid: u32, place: &Path, path: &str, location: &[u8]) -> Result<()> {
        let failed = |error| {
            Error::io("look at the tablespace", place.display(), error)
                .with_kind(ErrorKind::Unreachable)
                .with_hint("check that the disk of the tablespace is mounted")
        };
        let name = self.version_folder.clone();
        let inner = place.join(&name);
        let looked = place.metadata().and_then(|outer| Ok((outer, inner.symlink_metadata()?)));
        let (outer, meta) = match looked {
            Ok(looked) => looked,
            // It was dropped since its link was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && place.symlink_metadata().is_err() => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        self.tree.tablespaces.push(Tablespace {
            oid,
            location: location.to_vec(),
        });
        self.tree.folders.push(info(path, &outer));
        let path = format!("{path}/{name}");
        self.tree.folders.push(info(&path, &meta));
        self.folder(&inner, &path)
    }
}

pub(super) fn info(path: &str, meta: &std::fs::Metadata) -> FileInfo {
    FileInfo {
        path: path.to_owned(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        modified_us: meta
            .mtime()
            .saturating_mul(1_000_000)
            .saturating_add(meta.mtime_nsec() / 1000),
    }
}
