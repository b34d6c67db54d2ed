//! What is remembered of a tree until the next capture: each line with what the file system said, then which segment is needed how much.
//!
//! ```text
//! root line
//! <ctime seconds>.<nanoseconds> <inode> <f|s>\t{tree line}       s: settled, f: changed so shortly before that the times prove nothing
//! -\t{tree line}                                                  not a file
//! {"segments": {"<path>": [size, needed], …}}  then its length, 8 bytes
//! ```
//! It moves with the local state and under its checksum. Whatever does not parse is not remembered: then files are read again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::entry::{Content, Entry, Kind, Root, Time, order};

/// Bytes and needed bytes of each segment.
pub(super) type Segments = BTreeMap<String, (u64, u64)>;

#[derive(Serialize, Deserialize, Default)]
struct Trailer {
    segments: Segments,
}

/// What decides whether a file is the one that was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) ctime: Time,
    pub(super) inode: u64,
    /// Nothing can have been written since without showing in the times.
    pub(super) settled: bool,
}

impl Stamp {
    fn encode(self) -> String {
        let word = if self.settled { 's' } else { 'f' };
        format!("{}.{} {} {word}", self.ctime.0, self.ctime.1, self.inode)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (seconds, nanoseconds) = words.next()?.split_once('.')?;
        Some(Self {
            ctime: (seconds.parse().ok()?, nanoseconds.parse().ok()?),
            inode: words.next()?.parse().ok()?,
            settled: words.next()? == "s",
        })
    }
}

/// A part of a file, read without moving anybody's place in it.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("use", "the memory of the last capture", error)
}

/// Writes the memory of a capture.
#[derive(Debug)]
pub(super) struct Recorder {
    out: BufWriter<Arc<File>>,
    bytes: u64,
}

impl Recorder {
    pub(super) fn new(file: Arc<File>, root: &Root) -> Result<Self> {
        let mut recorder = Self {
            out: BufWriter::with_capacity(1 << 18, file),
            bytes: 0,
        };
        recorder.line(b"-", &root.encode()?)?;
        Ok(recorder)
    }

    pub(super) fn add(&mut self, stamp: Option<Stamp>, entry: &Entry) -> Result<()> {
        let stamp = stamp.map_or_else(|| "-".to_owned(), Stamp::encode);
        self.line(stamp.as_bytes(), &entry.encode()?)
    }

    fn line(&mut self, stamp: &[u8], line: &[u8]) -> Result<()> {
        for part in [stamp, b"\t", line, b"\n"] {
            self.out.write_all(part).map_err(failed)?;
            self.bytes += part.len() as u64;
        }
        Ok(())
    }

    /// Ends the memory; the tree is read from what it returns.
    pub(super) fn finish(mut self, segments: Segments) -> Result<TreeStream> {
        let trailer = serde_json::to_vec(&Trailer { segments })
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the memory of a capture", error.to_string()))?;
        self.out.write_all(&trailer).map_err(failed)?;
        self.out.write_all(&(trailer.len() as u64).to_le_bytes()).map_err(failed)?;
        self.out.flush().map_err(failed)?;
        let file = Arc::clone(self.out.get_ref());
        let part = Part {
            file,
            at: 0,
            end: self.bytes,
        };
        Ok(TreeStream {
            lines: BufReader::with_capacity(1 << 18, part),
            line: Vec::new(),
            at: 0,
        })
    }
}

/// The tree as it is stored: the memory without the stamps.
#[derive(Debug)]
pub struct TreeStream {
    lines: BufReader<Part>,
    line: Vec<u8>,
    at: usize,
}

impl Read for TreeStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at >= self.line.len() {
            self.line.clear();
            self.lines.read_until(b'\n', &mut self.line)?;
            self.at = self.line.iter().position(|byte| *byte == b'\t').map_or(0, |tab| tab + 1);
        }
        let left = &self.line[self.at..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}

/// What the last capture wrote down, read along with the walk of this one.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    lines: Option<BufReader<Part>>,
    next: Option<(Option<Stamp>, Entry)>,
    /// Bytes and needed bytes of each segment.
    pub(super) segments: Segments,
}

impl Recalled {
    /// What cannot be read is nothing remembered.
    pub(super) fn open(file: Option<&Arc<File>>) -> Self {
        file.and_then(Self::try_open).unwrap_or_default()
    }

    fn try_open(file: &Arc<File>) -> Option<Self> {
        let size = file.metadata().ok()?.len();
        let mut length = [0; 8];
        let length_at = size.checked_sub(8)?;
        file.read_exact_at(&mut length, length_at).ok()?;
        let end = length_at.checked_sub(u64::from_le_bytes(length))?;
        let mut trailer = vec![0; usize::try_from(length_at - end).ok()?];
        file.read_exact_at(&mut trailer, end).ok()?;
        let trailer: Trailer = serde_json::from_slice(&trailer).ok()?;
        let part = Part {
            file: Arc::clone(file),
            at: 0,
            end,
        };
        let mut recalled = Self {
            lines: Some(BufReader::with_capacity(1 << 18, part)),
            next: None,
            segments: trailer.segments,
        };
        // The first line is the root's.
        recalled.raw_line()?;
        recalled.advance();
        Some(recalled)
    }

    fn raw_line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        self.lines.as_mut()?.read_until(b'\n', &mut line).ok()?;
        (line.pop() == Some(b'\n')).then_some(line)
    }

    fn advance(&mut self) {
        self.next = self.raw_line().and_then(|line| {
            let tab = line.iter().position(|byte| *byte == b'\t')?;
            let stamp = Stamp::decode(std::str::from_utf8(&line[..tab]).ok()?);
            Some((stamp, Entry::decode(&line[tab + 1..]).ok()?))
        });
    }

    /// What is remembered of the file at `path`. Paths must be asked for in order.
    pub(super) fn file(&mut self, path: &[u8]) -> Option<(Stamp, Entry, Content)> {
        while self.next.as_ref().is_some_and(|(_, entry)| order(&entry.path, path).is_lt()) {
            self.advance();
        }
        let found = self.next.as_ref().is_some_and(|(_, entry)| entry.path == path);
        if !found {
            return None;
        }
        let (stamp, entry) = self.next.take()?;
        self.advance();
        match (stamp, &entry.kind) {
            (Some(stamp), Kind::File(content)) => {
                let content = content.clone();
                Some((stamp, entry, content))
            }
            _ => None,
        }
    }
}
