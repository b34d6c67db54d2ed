//! Around the page cache (`O_DIRECT`): what that asks of memory, offsets and lengths, in one place.
//!
//! A guest whose host takes free memory back pays for every page that is new in its cache; a machine whose memory serves a database loses
//! what that had there. Large files that nobody reads soon need neither.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use lifeboat_model::{Error, Result};

/// What memory, offsets and lengths must be multiples of: the largest block of any disk met so far.
pub const BLOCK_BYTES: usize = 4096;

/// Room in memory that begins at a multiple of [`BLOCK_BYTES`].
#[derive(Debug, Default)]
pub struct Aligned {
    // Safe code cannot ask the allocator for an alignment: one block more, and the aligned part of it.
    room: Vec<u8>,
    bytes: usize,
}

impl Aligned {
    /// Room for `bytes` bytes, zeroed.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            room: vec![0; bytes + BLOCK_BYTES],
            bytes,
        }
    }

    /// How many bytes have room.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is no room at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The room, aligned.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let start = self.room.as_ptr().align_offset(BLOCK_BYTES);
        self.room.get(start..start + self.bytes).unwrap_or_default()
    }

    /// The room, aligned.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.room.as_ptr().align_offset(BLOCK_BYTES);
        self.room.get_mut(start..start + self.bytes).unwrap_or_default()
    }
}

/// The same file, opened once more to be read and written around the page cache; nothing where its file system does not offer that.
#[must_use]
pub fn open(file: &File) -> Option<File> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).custom_flags(flags).open(path).ok()
}

/// Takes the room of a file of `size_bytes` from the disk, where its file system can do that ahead of the data. Writes around the page cache
/// into room that is not there yet, or beyond the end, make the kernel take turns; and a disk that is too small is found now.
pub fn make_room(file: &File, size_bytes: u64, name: &str) -> Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    if size_bytes == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, size_bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            // A signal came: what was taken so far is taken already.
            Err(Errno::INTR) => {}
            Err(error) => return Err(Error::io("make room for", name, error.into())),
        }
    }
}

/// Some file systems take the flag and then refuse to read or write: whoever asked goes through the cache.
#[must_use]
pub fn refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())
}
