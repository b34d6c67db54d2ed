//! The shapes in which bytes flow between an engine and the repository; neither knows the other.
//!
//! Must not know what the bytes mean.

use std::fmt::Debug;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use lifeboat_model::{Error, ErrorKind, Result};

/// Bytes that one segment of a [`PageSource`] holds at most, a multiple of [`EXTENT_BYTES`].
pub const SEGMENT_BYTES: usize = 1 << 20;

/// Page files are handled in extents of this many bytes, aligned to their position in the file.
pub const EXTENT_BYTES: usize = 128 << 10;

/// A file made of fixed-size pages, read front to back by several threads.
///
/// Contract: segments are disjoint, start at multiples of [`EXTENT_BYTES`], are as long as a multiple of it (the last one
/// may be shorter), hold at most [`SEGMENT_BYTES`], and together cover exactly `size_bytes`. An error ends the capture.
pub trait PageSource: Debug + Send + Sync {
    /// Bytes of one page: a power of two, 512 to 65,536.
    fn page_size(&self) -> u32;
    /// Bytes of the whole file, fixed when the capture began.
    fn size_bytes(&self) -> u64;
    /// Replaces `buffer` by the next segment and returns the byte offset it starts at; `None` when all were given out.
    fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>>;
}

/// A file made of pages, told as what became of an older state of it that whoever takes it knows: the pages that are new, front to back.
pub trait PageChanges: Debug + Send {
    /// Bytes of one page: a power of two, 512 to 65,536.
    fn page_size(&self) -> u32;
    /// Bytes of the whole file as it is now, a multiple of the page size.
    fn size_bytes(&self) -> u64;
    /// A page that is not new is that of the older state in front of this number; from here on, and where the older state was shorter, it is zeros.
    fn kept_pages(&self) -> u64;
    /// Replaces `page` by the next new page and returns its number, greater than the one before; `None` behind the last.
    fn next_page(&mut self, page: &mut Vec<u8>) -> Result<Option<u64>>;
}

/// Where restored bytes go; written by several threads at disjoint places.
pub trait PageSink: Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`, extending the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Fills `buffer` from `offset`; bytes past the end or never written read as zero.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Makes everything written so far durable, and the file exactly `size_bytes` long.
    fn finish(&self, size_bytes: u64) -> Result<()>;
}

/// Gives out the segments of a file of known size, front to back, each once.
#[derive(Debug)]
pub struct Segments {
    size_bytes: u64,
    given: AtomicU64,
}

impl Segments {
    /// The segments of a file of `size_bytes`.
    #[must_use]
    pub fn of(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            given: AtomicU64::new(0),
        }
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Where the next one begins and how long it is, in bytes; `None` when all were given out.
    #[must_use]
    pub fn next(&self) -> Option<(u64, usize)> {
        let step = SEGMENT_BYTES as u64;
        let offset = self.given.fetch_add(step, Ordering::Relaxed);
        let left = self.size_bytes.checked_sub(offset).filter(|left| *left > 0)?;
        Some((offset, usize::try_from(step.min(left)).unwrap_or(SEGMENT_BYTES)))
    }
}

/// A [`PageSource`] over an ordinary file that nobody writes to, read in parallel.
#[derive(Debug)]
pub struct FilePages {
    file: std::fs::File,
    name: String,
    page_size: u32,
    segments: Segments,
}

impl FilePages {
    /// Reads `file` (called `name` in errors) as pages of `page_size` bytes.
    pub fn new(file: std::fs::File, name: impl Into<String>, page_size: u32) -> Result<Self> {
        let name = name.into();
        let size_bytes = file
            .metadata()
            .map_err(|error| Error::io("read the size of", &name, error))?
            .len();
        Ok(Self {
            file,
            name,
            page_size,
            segments: Segments::of(size_bytes),
        })
    }
}

impl PageSource for FilePages {
    fn page_size(&self) -> u32 {
        self.page_size
    }

    fn size_bytes(&self) -> u64 {
        self.segments.size_bytes()
    }

    fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
        let Some((offset, length)) = self.segments.next() else {
            return Ok(None);
        };
        buffer.resize(length, 0);
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                Error::new(
                    ErrorKind::Unreachable,
                    "read",
                    &self.name,
                    "it became shorter while it was read",
                )
            } else {
                Error::io("read", &self.name, error)
            }
        })?;
        Ok(Some(offset))
    }
}
