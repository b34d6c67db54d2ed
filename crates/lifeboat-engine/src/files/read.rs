//! The content of one file, read so that it is one state of it: opened, looked at, read, looked at again.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::entry::{Content, shown};
use super::segments::Segments;
use super::system::{Stat, data_ranges, look_at, open_file, unreadable, xattrs};

/// Files up to here are read whole before a byte of them goes anywhere.
const SMALL_BYTES: u64 = 1 << 20;
/// Read at once from larger ones.
const BLOCK_BYTES: usize = 1 << 20;
/// The first pause before a changed file is read again; each is twice as long as the one before, up to a second.
const PAUSE: Duration = Duration::from_millis(20);

/// How a file is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) follow: bool,
    pub(super) retries: u32,
    /// Only its structure, as a `.env` file.
    pub(super) env: bool,
    /// Give the bytes out as well.
    pub(super) keep: bool,
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) stat: Stat,
    pub(super) content: Content,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    /// Its bytes, where they were asked for.
    pub(super) bytes: Option<Vec<u8>>,
}

/// What one attempt came to.
enum Attempt {
    Taken(Box<Taken>),
    Changed,
    Gone,
}

/// Reads the file `name` in `folder` into segments. `known` is content that is stored already, if it is the same.
pub(super) fn take(
    folder: impl AsFd,
    name: &OsStr,
    path: &[u8],
    how: How,
    known: Option<&Content>,
    segments: &mut Segments,
) -> Result<Taken> {
    let mut pause = PAUSE;
    let mut gone = false;
    for attempt in 0..=how.retries {
        if attempt > 0 {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        match try_take(&folder, name, path, how, known, segments)? {
            Attempt::Taken(taken) => return Ok(*taken),
            Attempt::Changed => gone = false,
            Attempt::Gone => gone = true,
        }
    }
    let error = |detail: String| Error::new(ErrorKind::Unreachable, "read", shown(path), detail);
    Err(if gone {
        error("it was there when the folder was listed, and went away before it could be read".into())
            .with_hint("run the backup again; name files that come and go under `exclude`")
    } else {
        error(format!("it changed every time while it was read, {} times", how.retries.saturating_add(1)))
            .with_hint("back it up in a quiet moment, raise `max_change_retries`, or name it under `exclude`; a database is a component of its own kind")
    })
}

fn try_take(
    folder: impl AsFd,
    name: &OsStr,
    path: &[u8],
    how: How,
    known: Option<&Content>,
    segments: &mut Segments,
) -> Result<Attempt> {
    let failed = |error| unreadable("read", path, error);
    let file = match open_file(folder, name, how.follow) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Attempt::Gone),
        // It is a link or a socket now.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(Attempt::Changed),
        Err(error) => return Err(failed(error)),
    };
    let before = look_at(&file).map_err(failed)?;
    if before.kind != FileType::RegularFile {
        return Ok(Attempt::Changed);
    }
    let attributes = xattrs(&file, path)?;
    let data = if how.env {
        None
    } else {
        data_ranges(&file, &before).map_err(failed)?
    };
    let mut content = Content {
        size: before.size,
        data,
        ..Content::default()
    };
    let bytes = if how.env || how.keep || content.stored() <= SMALL_BYTES {
        let Some(bytes) = read_whole(&file, path, &content)? else {
            return Ok(Attempt::Changed);
        };
        Some(bytes)
    } else {
        if !read_large(&file, path, &mut content, segments)? {
            return Ok(Attempt::Changed);
        }
        None
    };
    if !look_at(&file).map_err(failed)?.same_content(&before) {
        return Ok(Attempt::Changed);
    }
    let bytes = match bytes {
        Some(bytes) => Some(keep(bytes, how, known, &mut content, segments)?).filter(|_| how.keep),
        None => None,
    };
    Ok(Attempt::Taken(Box::new(Taken {
        stat: before,
        content,
        xattrs: attributes,
        bytes,
    })))
}

/// Puts what was read whole into a segment, unless it is stored already. Returns what was stored.
fn keep(bytes: Vec<u8>, how: How, known: Option<&Content>, content: &mut Content, segments: &mut Segments) -> Result<Vec<u8>> {
    let mut bytes = bytes;
    if how.env {
        let (kept, keys) = super::env::structure(&bytes);
        content.size = kept.len() as u64;
        content.env = Some(keys);
        bytes = kept;
    }
    content.hash = *blake3::hash(&bytes).as_bytes();
    content.at = match known {
        Some(known) if known.hash == content.hash && known.stored() == bytes.len() as u64 => known.at.clone(),
        _ => segments.add(&bytes)?,
    };
    Ok(bytes)
}

/// Reads a file that is looked into, or is small; `None` when it became shorter.
fn read_whole(file: &File, path: &[u8], content: &Content) -> Result<Option<Vec<u8>>> {
    let (stored, limit) = (content.stored(), 4 * SMALL_BYTES);
    if stored > limit {
        return Err(Error::new(
            ErrorKind::Unreachable,
            "read",
            shown(path),
            format!("it has {stored} bytes, and what is looked into has {limit} at most"),
        )
        .with_hint("is this the right file? Name large files under `files: { include: … }`"));
    }
    read_small(file, content).map_err(|error| Error::io("read", shown(path), error))
}

/// Reads a large file straight into a segment; `false` when it became shorter.
fn read_large(file: &File, path: &[u8], content: &mut Content, segments: &mut Segments) -> Result<bool> {
    content.at = segments.place()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BLOCK_BYTES];
    for (offset, length) in content.ranges() {
        let mut done = 0;
        while done < length {
            let wanted = usize::try_from(length - done).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            let count = file
                .read_at(&mut buffer[..wanted], offset + done)
                .map_err(|error| Error::io("read", shown(path), error))?;
            if count == 0 {
                return Ok(false);
            }
            hasher.update(&buffer[..count]);
            segments.append(&buffer[..count])?;
            done += count as u64;
        }
    }
    content.hash = *hasher.finalize().as_bytes();
    Ok(true)
}

/// All stored bytes; `None` when the file became shorter.
fn read_small(file: &File, content: &Content) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    for (offset, length) in content.ranges() {
        let begin = bytes.len();
        bytes.resize(begin + usize::try_from(length).unwrap_or(usize::MAX), 0);
        match file.read_exact_at(&mut bytes[begin..], offset) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(bytes))
}
