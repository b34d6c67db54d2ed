//! Writing a tree into a folder of its own, without ever going through a link.
//!
//! Every folder on the way is opened by itself and refused if it is a link: a forged tree cannot write outside of its folder, and neither
//! can anybody who puts links into it meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_model::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry::{Entry, Kind, Meta, shown};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder below which a tree is written.
#[derive(Debug)]
pub struct Beneath {
    root: Arc<OwnedFd>,
    /// The folder that was used last: most files lie beside the one before.
    last: Mutex<Option<(Vec<u8>, Arc<OwnedFd>)>>,
}

fn failed(op: &'static str, path: &[u8], error: Errno) -> Error {
    match error {
        Errno::EXIST => Error::new(
            ErrorKind::Refused,
            op,
            shown(path),
            "something of that name is there already: the destination does not tell upper and lower case apart, or writes names in its own way",
        )
        .with_hint("restore to another file system with --to"),
        Errno::LOOP | Errno::NOTDIR => Error::new(ErrorKind::Refused, op, shown(path), "a link or a file stands where a folder should be"),
        _ => Error::io(op, shown(path), error.into()),
    }
}

/// The folder of a path, and its name in it.
fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(end) => (&path[..end], OsStr::from_bytes(&path[end + 1..])),
        None => (&[], OsStr::from_bytes(path)),
    }
}

impl Beneath {
    /// Opens the folder, which must be there and must not be a link.
    pub fn open(folder: &Path) -> Result<Self> {
        let root = rustix::fs::open(folder, FOLDER, Mode::empty())
            .map_err(|error| failed("open the folder", folder.as_os_str().as_bytes(), error))?;
        Ok(Self {
            root: Arc::new(root),
            last: Mutex::default(),
        })
    }

    fn folder(&self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, folder)) = last.as_ref()
            && known == path
        {
            return Ok(Arc::clone(folder));
        }
        let mut folder = Arc::clone(&self.root);
        for name in path.split(|byte| *byte == b'/') {
            let next = rustix::fs::openat(&*folder, OsStr::from_bytes(name), FOLDER, Mode::empty());
            folder = Arc::new(next.map_err(|error| failed("open the folder", path, error))?);
        }
        *last = Some((path.to_vec(), Arc::clone(&folder)));
        Ok(folder)
    }

    /// Makes a folder that only its owner can enter.
    pub fn make_folder(&self, path: &[u8]) -> Result<()> {
        let (folder, name) = split(path);
        rustix::fs::mkdirat(&*self.folder(folder)?, name, Mode::RWXU).map_err(|error| failed("make the folder", path, error))
    }

    /// Makes an empty file of `size` bytes.
    pub fn make_file(&self, path: &[u8], size: u64) -> Result<()> {
        let (folder, name) = split(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*self.folder(folder)?, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("create", path, error))?;
        File::from(file)
            .set_len(size)
            .map_err(|error| Error::io("set the size of", shown(path), error))
    }

    /// Opens a file that was made, to read and write it.
    pub fn file(&self, path: &[u8]) -> Result<File> {
        let (folder, name) = split(path);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*self.folder(folder)?, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| failed("open", path, error))
    }

    /// Opens a folder that was made.
    pub fn open_folder(&self, path: &[u8]) -> Result<File> {
        let folder = self.folder(path)?;
        let copy = folder
            .try_clone()
            .map_err(|error| Error::io("open the folder", shown(path), error))?;
        Ok(File::from(copy))
    }

    /// Makes what has no content of its own. Says `false` for what this user may not make, and for sockets.
    pub fn make_other(&self, entry: &Entry) -> Result<bool> {
        let path = &entry.path;
        let (folder, name) = split(path);
        let folder = self.folder(folder)?;
        let make = |kind: FileType, device: u64| match rustix::fs::mknodat(&*folder, name, kind, Mode::RUSR | Mode::WUSR, device)
        {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS) if kind != FileType::Fifo => Ok(false),
            Err(error) => Err(failed("make", path, error)),
        };
        match &entry.kind {
            Kind::Fifo => make(FileType::Fifo, 0),
            Kind::Char { device } => make(FileType::CharacterDevice, rustix::fs::makedev(device.0, device.1)),
            Kind::Block { device } => make(FileType::BlockDevice, rustix::fs::makedev(device.0, device.1)),
            Kind::Symlink { target } => rustix::fs::symlinkat(OsStr::from_bytes(target), &*folder, name)
                .map(|()| true)
                .map_err(|error| failed("make the link", path, error)),
            Kind::Hardlink { to } => {
                let (from, first) = split(to);
                let from = self.folder(from)?;
                rustix::fs::linkat(&*from, first, &*folder, name, AtFlags::empty())
                    .map(|()| true)
                    .map_err(|error| failed("make the link", path, error))
            }
            Kind::Socket => Ok(false),
            Kind::Folder | Kind::File(_) => Err(Error::new(ErrorKind::Bug, "make", shown(path), "it has content of its own")),
        }
    }

    /// Owner, mode and time of what cannot be opened: links, pipes, devices.
    pub fn dress_other(&self, entry: &Entry, owner: bool, notes: &mut Dressing) -> Result<()> {
        let (folder, name) = split(&entry.path);
        let folder = self.folder(folder)?;
        let failed = |error| failed("set owner and time of", &entry.path, error);
        let meta = &entry.meta;
        if owner {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            match rustix::fs::chownat(&*folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::INVAL) => notes.owners += 1,
                Err(error) => return Err(failed(error)),
            }
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            rustix::fs::chmodat(&*folder, name, Mode::from_raw_mode(meta.mode), AtFlags::empty()).map_err(failed)?;
        }
        rustix::fs::utimensat(&*folder, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Makes everything below durable.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&*self.root).map_err(|error| failed("make durable", b"the restored files", error))
    }
}

/// What could not be given to restored files, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dressing {
    /// Owners: only the superuser can give files away.
    pub owners: u64,
    /// Extended attributes.
    pub attributes: u64,
    /// The first attribute that could not be set, and where.
    pub first_attribute: Option<String>,
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec {
        tv_sec: meta.mtime.0,
        tv_nsec: meta.mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Gives an open file or folder its owner, attributes, mode and time, in the order in which none undoes another: a change of owner takes
/// set-user-id bits and capabilities away.
pub fn dress(file: impl AsFd, entry: &Entry, owner: bool, notes: &mut Dressing) -> Result<()> {
    let failed = |error| failed("set owner, mode and time of", &entry.path, error);
    let meta = &entry.meta;
    // Whoever restores what was theirs is its owner without being made so.
    let mut given = owner || {
        let there = rustix::fs::fstat(&file).map_err(failed)?;
        (there.st_uid, there.st_gid) == (meta.uid, meta.gid)
    };
    if owner {
        match rustix::fs::fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid))) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::INVAL) => {
                notes.owners += 1;
                given = false;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    for (name, value) in &entry.xattrs {
        match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE) => {
                notes.attributes += 1;
                notes
                    .first_attribute
                    .get_or_insert_with(|| format!("{name} of {}", entry.shown()));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    // "Run as the owner" means something else when the owner is somebody else.
    let mode = if given { meta.mode } else { meta.mode & 0o1777 };
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed)?;
    rustix::fs::futimens(&file, &times(meta)).map_err(failed)
}

/// Gives an open folder that stays where it is mode and owner. Says `false` where this user may not give it to that owner.
pub fn dress_folder(folder: impl AsFd, path: &[u8], meta: &Meta) -> Result<bool> {
    let failed = |error| failed("set owner and mode of", path, error);
    let given = match rustix::fs::fchown(&folder, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid))) {
        Ok(()) => true,
        Err(Errno::PERM | Errno::INVAL) => false,
        Err(error) => return Err(failed(error)),
    };
    match rustix::fs::fchmod(&folder, Mode::from_raw_mode(meta.mode)) {
        Ok(()) => Ok(given),
        Err(Errno::PERM) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}
