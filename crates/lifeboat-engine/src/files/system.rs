//! What the file system says, in types that can be calculated with.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use lifeboat_model::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{Meta, Time, shown};

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) kind: FileType,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) ctime: Time,
    pub(super) inode: u64,
    pub(super) device: u64,
    pub(super) links: u64,
    /// Bytes that it takes on the disk.
    pub(super) allocated: u64,
    /// Of a device file: which.
    pub(super) special: (u32, u32),
}

impl Stat {
    /// Whether nothing about the content can have changed between two looks.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        (self.kind, self.size, self.meta.mtime, self.ctime, self.inode, self.device)
            == (
                other.kind,
                other.size,
                other.meta.mtime,
                other.ctime,
                other.inode,
                other.device,
            )
    }
}

#[expect(clippy::useless_conversion, reason = "the fields have other widths on other machines")]
fn convert(stat: &rustix::fs::Stat) -> Stat {
    let time = |seconds: i64, nanoseconds: u64| (seconds, u32::try_from(nanoseconds).unwrap_or(0));
    Stat {
        kind: FileType::from_raw_mode(stat.st_mode),
        meta: Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: time(stat.st_mtime.into(), u64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        },
        size: u64::try_from(stat.st_size).unwrap_or(0),
        ctime: time(stat.st_ctime.into(), u64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        inode: stat.st_ino,
        device: stat.st_dev,
        links: u64::from(stat.st_nlink),
        allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        special: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
    }
}

/// The error of a source that cannot be read.
pub(super) fn unreadable(op: &'static str, path: &[u8], error: Errno) -> Error {
    let denied = error == Errno::ACCESS || error == Errno::PERM;
    let result = Error::io(op, shown(path), error.into()).with_kind(ErrorKind::Unreachable);
    if denied {
        result.with_hint("run as a user who may read it, or name it under `exclude`")
    } else {
        result
    }
}

/// Looks at a name without opening it; `None` when it is not there.
pub(super) fn look(folder: impl AsFd, name: &OsStr, follow: bool) -> Result<Option<Stat>, Errno> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    match rustix::fs::statat(folder, name, flags) {
        Ok(stat) => Ok(Some(convert(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks at what is open.
pub(super) fn look_at(file: impl AsFd) -> Result<Stat, Errno> {
    rustix::fs::fstat(file).map(|stat| convert(&stat))
}

fn flags(follow: bool) -> OFlags {
    // A pipe that took the place of a file must not make us wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if follow { flags } else { flags | OFlags::NOFOLLOW }
}

/// Opens a folder below an open one.
pub(super) fn open_folder(folder: impl AsFd, name: &OsStr, follow: bool) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(folder, name, flags(follow) | OFlags::DIRECTORY, Mode::empty())
}

/// Opens a file below an open folder.
pub(super) fn open_file(folder: impl AsFd, name: &OsStr, follow: bool) -> Result<File, Errno> {
    rustix::fs::openat(folder, name, flags(follow), Mode::empty()).map(File::from)
}

/// The names in a folder, sorted byte by byte.
pub(super) fn names(folder: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Where a link leads.
pub(super) fn link_target(folder: impl AsFd, name: &OsStr) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(folder, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

/// Extended attributes of what is open, sorted; none where the file system has none.
pub(super) fn xattrs(file: impl AsFd, path: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let failed = |error| unreadable("read the attributes of", path, error);
    let mut list = vec![0; 1 << 10];
    let length = loop {
        match rustix::fs::flistxattr(&file, list.as_mut_slice()) {
            Ok(length) => break length,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) => list.resize(list.len() * 4, 0),
            Err(error) => return Err(failed(error)),
        }
    };
    list.truncate(length);
    let mut found = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let text = std::str::from_utf8(name).map_err(|error| {
            Error::new(
                ErrorKind::Unreachable,
                "read the attributes of",
                shown(path),
                "the name of one is not UTF-8",
            )
            .with_source(error)
        })?;
        let mut value = vec![0; 1 << 10];
        let length = loop {
            match rustix::fs::fgetxattr(&file, OsStr::from_bytes(name), value.as_mut_slice()) {
                Ok(length) => break Some(length),
                // It went away meanwhile.
                Err(Errno::NODATA) => break None,
                Err(Errno::RANGE) => value.resize(value.len() * 4, 0),
                Err(error) => return Err(failed(error)),
            }
        };
        if let Some(length) = length {
            value.truncate(length);
            found.push((text.to_owned(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The ranges of a file that are not holes; `None` when there are no holes worth the name.
pub(super) fn data_ranges(file: &File, stat: &Stat) -> Result<Option<Vec<(u64, u64)>>, Errno> {
    const RANGES: usize = 65_536;
    if stat.allocated >= stat.size {
        return Ok(None);
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < stat.size {
        let begin = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => break,
            // A file system that knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(begin))?.min(stat.size);
        if begin >= end {
            break;
        }
        match ranges.last_mut() {
            Some((offset, length)) if *offset + *length == begin => *length += end - begin,
            _ => ranges.push((begin, end - begin)),
        }
        // So torn to pieces that the holes are not worth their list.
        if ranges.len() > RANGES {
            return Ok(None);
        }
        at = end;
    }
    Ok(if ranges == [(0, stat.size)] { None } else { Some(ranges) })
}
