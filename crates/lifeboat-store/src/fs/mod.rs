//! A store in a folder: one file per name, folders 0700, files 0600, everything fsynced before a put returns.
//!
//! A folder is the store that is most easily *not there* while it looks as if it were: the disk is not mounted and its mount point is an
//! empty folder. So the folder is recognised by device and inode from the moment it is opened; when another one stands in its place,
//! every operation fails with kind `Unreachable` and no listing comes back empty. What cannot be noticed here is a disk that was
//! already missing when the store was opened: the repository notices, because its `lifeboat.json` is not there.
//!
//! On the disk if we die: whole files, and temporary files whose names begin with a dot, which nothing reads, and which
//! [`FsStore::remove_leftovers`] removes.
//! Must not know what the bytes mean. Never reads a symbolic link as a file, and a listing that meets one fails.

mod walk;

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{ErrorKind as IoKind, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_io::{compute, durable};
use lifeboat_model::{Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::{BlobStore, Capabilities, Entry, Key, Put};

/// A store in a folder. Cheap to clone; clones share what they know.
#[derive(Debug, Clone)]
pub struct FsStore {
    root: Arc<Root>,
    name: String,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    identity: Identity,
    /// Folders, relative to the root, that this process has made durable in their parents.
    durable: Mutex<HashSet<PathBuf>>,
}

/// What makes a folder this folder and not another one at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
        }
    }
}

impl FsStore {
    /// Opens the store in the existing folder `path`, which must be readable and searchable; anything else is an error of kind
    /// `Unreachable`.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        compute::run("open store", move || Self::open_now(&path)).await
    }

    /// Opens the store in the folder `path` and creates it, and its missing parents, with mode 0700 where it is not there.
    pub async fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        compute::run("create store", move || {
            durable::create_folder(&path)?;
            Self::open_now(&path)
        })
        .await
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root.path
    }

    /// Removes what writers that were killed left behind: temporary files that nothing reads and no living process is writing. Returns
    /// how many bytes that freed. Safe while others write; worth a call before a backup, because a full disk kills writers.
    pub async fn remove_leftovers(&self) -> Result<u64> {
        self.run("clear of leftovers", |root| walk::remove_leftovers(&root.path))
            .await
    }

    fn open_now(path: &Path) -> Result<Self> {
        let not_usable = |error: std::io::Error| {
            Error::new(ErrorKind::Unreachable, "open store", path.display(), &error)
                .with_hint(
                    "check that the disk is mounted and that the path and its permissions are right, then run `lifeboat doctor`; \
                     `lifeboat init` creates a new store",
                )
                .with_source(error)
        };
        // Absolute, so that a later change of the working folder does not move the store.
        let path = std::path::absolute(path).map_err(not_usable)?;
        let meta = path.metadata().map_err(not_usable)?;
        // A file in its place fails here with "not a directory"; an unreadable folder in the first line, an unsearchable one in the second.
        std::fs::read_dir(&path).map_err(not_usable)?;
        path.join(".").metadata().map_err(not_usable)?;
        Ok(Self {
            name: path.display().to_string(),
            root: Arc::new(Root {
                identity: Identity::of(&meta),
                path,
                durable: Mutex::default(),
            }),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Root) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = Arc::clone(&self.root);
        compute::run(op, move || {
            root.check()?;
            let outcome = work(&root);
            // Again afterwards: what was found, missed or written meanwhile counts only if it happened in this folder.
            root.check()?;
            outcome
        })
        .await
    }
}

impl Root {
    /// Fails unless the folder that was opened still stands at its path.
    fn check(&self) -> Result<()> {
        let lost = |detail: String| {
            Error::new(ErrorKind::Unreachable, "use store", self.path.display(), detail)
                .with_hint("mount the disk again or bring the folder back, then run the same command again")
        };
        match self.path.metadata() {
            Ok(meta) if Identity::of(&meta) == self.identity => Ok(()),
            Ok(_) => Err(lost(
                "another folder stands in its place since it was opened; the disk was probably unmounted".to_owned(),
            )),
            Err(error) => Err(lost(error.to_string()).with_source(error)),
        }
    }

    fn path_of(&self, key: &Key) -> PathBuf {
        self.path.join(key.as_str())
    }

    /// Makes the folder of `key`, whole chain durable; once per folder and process.
    fn prepare_folder(&self, key: &Key) -> Result<()> {
        let Some(folder) = Path::new(key.as_str())
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        else {
            return Ok(());
        };
        let known = self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        if known && self.path.join(folder).is_dir() {
            return Ok(());
        }
        durable::create_folders_below(&self.path, folder)?;
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.insert(folder.to_path_buf());
        Ok(())
    }

    /// INV-01: a name in the store is written once.
    fn put(&self, key: &Key, body: &[u8]) -> Result<Put> {
        let path = self.path_of(key);
        self.prepare_folder(key)?;
        // Looking first saves writing a whole file beside one that is there; the creation below decides all the same.
        let there = path.symlink_metadata().is_ok();
        if !there && durable::create_file(&path, body, durable::FILE_MODE)? == durable::Created::New {
            return Ok(Put::Created);
        }
        let file = open_file(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => taken(&path, "a folder of that name is in the way"),
            _ => error,
        })?;
        if !same_content(&file, &path, body)? {
            return Err(taken(&path, "a file of that name with other content is there"));
        }
        // Whoever wrote it may have died before it was durable.
        file.sync_all()
            .map_err(|error| Error::io("make durable", path.display(), error))?;
        durable::sync_folder(&durable::parent_of(&path))?;
        Ok(Put::AlreadyThere)
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        let path = self.path_of(key);
        let file = open_file(&path)?;
        let size = size_of(&file, &path)?;
        if size > limit_bytes {
            let detail = format!("it is {size} bytes long, and no such file is longer than {limit_bytes}");
            return Err(Error::new(ErrorKind::Corrupt, "read", path.display(), detail));
        }
        read_exactly(file, &path, size).map(Bytes::from)
    }

    fn get_range(&self, key: &Key, range: &Range<u64>) -> Result<Bytes> {
        let path = self.path_of(key);
        if range.start > range.end {
            let detail = format!("the range {range:?} ends before it begins");
            return Err(Error::new(ErrorKind::Bug, "read", path.display(), detail));
        }
        let file = open_file(&path)?;
        let size = size_of(&file, &path)?;
        if range.end > size {
            let detail = format!(
                "it is {size} bytes long; bytes {} to {} were expected in it",
                range.start, range.end
            );
            return Err(Error::new(ErrorKind::Corrupt, "read", path.display(), detail));
        }
        let mut bytes = vec![0; length_of(range.end - range.start, &path)?];
        file.read_exact_at(&mut bytes, range.start)
            .map_err(|error| match error.kind() {
                IoKind::UnexpectedEof => changed(&path),
                _ => reading("read", &path, error),
            })?;
        Ok(bytes.into())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path_of(key);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
            Err(error) => return Err(reading("remove", &path, error)),
        }
        durable::remove_file(&path)?;
        // The order of deletions matters to a repository: what is gone stays gone before the next one goes.
        durable::sync_folder(&durable::parent_of(&path))
    }
}

/// Opens a plain file, without waiting at a pipe and without following a link. A folder is `NotFound`.
fn open_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::NXIO) => return Err(not_a_file("open", path)),
        Err(error) => return Err(reading("open", path, error.into())),
    };
    let meta = file.metadata().map_err(|error| reading("look at", path, error))?;
    if meta.is_file() {
        Ok(file)
    } else if meta.is_dir() {
        Err(Error::new(
            ErrorKind::NotFound,
            "open",
            path.display(),
            "a folder and no file is there",
        ))
    } else {
        Err(not_a_file("open", path))
    }
}

fn entry_of(key: Key, path: &Path, meta: &Metadata) -> Result<Entry> {
    let seconds = meta.mtime().checked_mul(1_000_000);
    let stored_at_us = seconds
        .and_then(|us| us.checked_add(meta.mtime_nsec() / 1000))
        .ok_or_else(|| {
            let detail = "its time of modification is out of range";
            Error::new(ErrorKind::Corrupt, "look at", path.display(), detail)
        })?;
    Ok(Entry {
        key,
        size_bytes: meta.size(),
        stored_at_us,
    })
}

fn same_content(file: &File, path: &Path, body: &[u8]) -> Result<bool> {
    if size_of(file, path)? != body.len() as u64 {
        return Ok(false);
    }
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    for expected in body.chunks(buffer.len()) {
        let there = &mut buffer[..expected.len()];
        file.read_exact_at(there, offset).map_err(|error| match error.kind() {
            IoKind::UnexpectedEof => changed(path),
            _ => reading("compare", path, error),
        })?;
        if there != expected {
            return Ok(false);
        }
        offset += expected.len() as u64;
    }
    Ok(true)
}

/// Reads the whole of a file that is `size` bytes long, and nothing else.
fn read_exactly(file: File, path: &Path, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length_of(size, path)?);
    let read = file.take(size.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| reading("read", path, error))?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(changed(path))
    }
}

fn size_of(file: &File, path: &Path) -> Result<u64> {
    Ok(file.metadata().map_err(|error| reading("look at", path, error))?.len())
}

fn length_of(bytes: u64, path: &Path) -> Result<usize> {
    usize::try_from(bytes)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "read", path.display(), "it does not fit into memory").with_source(error))
}

/// An error while reading: an absence stays one; whatever else the disk or the network says may pass.
fn reading(op: &'static str, path: &Path, error: std::io::Error) -> Error {
    let error = Error::io(op, path.display(), error);
    match error.kind() {
        ErrorKind::Failed => error.with_kind(ErrorKind::Unreachable),
        _ => error,
    }
}

fn changed(path: &Path) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "read",
        path.display(),
        "it changed its length while it was read",
    )
}

fn not_a_file(op: &'static str, path: &Path) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        op,
        path.display(),
        "it is neither a plain file nor a folder",
    )
    .with_hint("a store holds only files that Lifeboat wrote; move this one away, then run `lifeboat check`")
}

fn taken(path: &Path, detail: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, "store", path.display(), detail)
}

#[async_trait]
impl BlobStore for FsStore {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // Both ways of publishing, the rename and the hard link, are refused by the kernel on an existing name; there is no third.
            conditional_put: true,
            versioning: false,
            object_lock: false,
        }
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        let key = key.clone();
        self.run("store", move |root| root.put(&key, &body)).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        let key = key.clone();
        self.run("read", move |root| root.get(&key, limit_bytes)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let key = key.clone();
        self.run("read", move |root| root.get_range(&key, &range)).await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        let key = key.clone();
        self.run("look at", move |root| {
            let path = root.path_of(&key);
            let meta = path.symlink_metadata().map_err(|error| reading("look at", &path, error))?;
            if meta.is_file() {
                entry_of(key, &path, &meta)
            } else if meta.is_dir() {
                Err(Error::new(
                    ErrorKind::NotFound,
                    "look at",
                    path.display(),
                    "a folder and no file is there",
                ))
            } else {
                Err(not_a_file("look at", &path))
            }
        })
        .await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        let prefix = prefix.clone();
        self.run("list", move |root| walk::list(&root.path, &prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.run("remove", move |root| root.delete(&key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The disk goes away in the middle of an operation: whatever the operation found counts for nothing.
    #[tokio::test]
    async fn an_answer_counts_only_if_the_folder_was_there_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = FsStore::create(folder.path().join("store")).await.unwrap();
        let aside = folder.path().join("aside");
        let outcome = store
            .run("list", move |root| {
                durable::rename(&root.path, &aside)?;
                durable::create_folder(&root.path)?;
                walk::list(&root.path, &Key::new("c")?)
            })
            .await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unreachable);
    }

    /// A file that is cut or grows between the look at its size and the read.
    #[test]
    fn lengths_are_compared_with_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        durable::replace_file(&path, b"0123456789", durable::FILE_MODE).unwrap();
        let file = open_file(&path).unwrap();
        assert!(same_content(&file, &path, b"0123456789").unwrap());
        assert!(!same_content(&file, &path, b"012345678").unwrap());
        assert!(!same_content(&file, &path, b"012345678x").unwrap());
        assert_eq!(read_exactly(file, &path, 11).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(
            read_exactly(open_file(&path).unwrap(), &path, 9).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(read_exactly(open_file(&path).unwrap(), &path, 10).unwrap(), b"0123456789");
    }

    #[test]
    fn errors_that_may_pass_are_unreachable() {
        let path = Path::new("a");
        for (errno, kind) in [
            (Errno::IO, ErrorKind::Unreachable),
            (Errno::STALE, ErrorKind::Unreachable),
            (Errno::NOTCONN, ErrorKind::Unreachable),
            (Errno::ACCESS, ErrorKind::Unreachable),
            (Errno::NOTDIR, ErrorKind::Unreachable),
            (Errno::TIMEDOUT, ErrorKind::TimedOut),
            (Errno::NOENT, ErrorKind::NotFound),
        ] {
            assert_eq!(reading("read", path, errno.into()).kind(), kind, "{errno:?}");
        }
    }
}
