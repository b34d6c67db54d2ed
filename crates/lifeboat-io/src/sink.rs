//! A file that restored bytes are written to, and made durable while more of them come.
//!
//! Left alone, the kernel begins to write when gigabytes are dirty, so that a restore would first compute and then wait for the disk. A
//! thread of its own syncs every 16 MiB: computing and writing go side by side, and little is left for the end.
//!
//! Where nobody reads the file back soon, what comes is gathered into blocks of a MiB, and whole ones go around the page cache altogether
//! (`O_DIRECT`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use lifeboat_model::{Error, ErrorKind, Result};

use crate::direct;
use crate::flow::PageSink;
use crate::gather::Gather;

/// Bytes between two syncs.
const FLUSH_BYTES: u64 = 16 << 20;
/// MiB of one file that are gathered at once: as many as threads write, and some that wait for their ends.
const GATHERED: usize = 6;

/// A [`PageSink`] over a file.
#[derive(Debug)]
pub struct FileSink {
    file: Arc<File>,
    name: String,
    written: AtomicU64,
    /// Around the page cache; nothing else is written then.
    gather: Option<Gather>,
    flusher: Mutex<Option<Flusher>>,
}

/// The syncing thread; it ends when nobody can wake it any more.
#[derive(Debug)]
struct Flusher {
    wake: SyncSender<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl FileSink {
    /// Writes into `file` (opened for reading and writing; called `name` in errors).
    pub fn new(file: File, name: impl Into<String>) -> Self {
        Self {
            file: Arc::new(file),
            name: name.into(),
            written: AtomicU64::new(0),
            gather: None,
            flusher: Mutex::new(None),
        }
    }

    /// For a file of `size_bytes`, most of it data, that nobody reads back soon: blocks of a MiB go around the page cache, where the file
    /// system lets them. What replaces bytes that were written comes when all writes from before have returned. A restore then neither pushes out of memory what the machine's other programs read, nor waits for memory to copy
    /// into. Its room is taken at once: a disk that is too small is found now.
    pub fn around_cache(mut self, size_bytes: u64) -> Result<Self> {
        direct::make_room(&self.file, size_bytes, &self.name)?;
        self.gather = Some(Gather::new(GATHERED, None));
        Ok(self)
    }

    /// The file, as a gatherer of one file asks for it.
    fn opened(&self) -> Result<(File, String)> {
        let file = self.file.try_clone();
        let file = file.map_err(|error| Error::io("open once more", &self.name, error))?;
        Ok((file, self.name.clone()))
    }

    /// Hands over what is gathered.
    fn end_gather(&self) -> Result<()> {
        match &self.gather {
            Some(gather) => gather.end(0, &|_| self.opened()),
            None => Ok(()),
        }
    }

    /// Wakes the flusher, or starts it. Where no thread can be had, `finish` does all the syncing.
    fn flush_soon(&self) {
        let mut flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flusher) = flusher.as_ref() {
            match flusher.wake.try_send(()) {
                // A wake that is already waiting is enough; a thread that ended has an error for `finish`.
                Ok(()) | Err(_) => return,
            }
        }
        let (wake, woken) = sync_channel(1);
        let file = Arc::clone(&self.file);
        let thread = std::thread::Builder::new().name("flush".into()).spawn(move || {
            while woken.recv().is_ok() {
                file.sync_data()?;
            }
            Ok(())
        });
        *flusher = thread.ok().map(|thread| Flusher { wake, thread });
    }

    /// Ends the flusher. The kernel reports a failed write once: if it told the flusher, the error comes from here.
    fn end_flusher(&self) -> Result<()> {
        let flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Flusher { wake, thread }) = flusher else {
            return Ok(());
        };
        drop(wake);
        match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::io("make durable", &self.name, error)),
            Err(_panic) => Err(Error::new(
                ErrorKind::Bug,
                "make durable",
                &self.name,
                "the flushing thread panicked",
            )),
        }
    }
}

impl PageSink for FileSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(gather) = &self.gather {
            return gather.put(0, offset, bytes, &|_| self.opened());
        }
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| Error::io("write", &self.name, error))?;
        let length = bytes.len() as u64;
        let before = self.written.fetch_add(length, Ordering::Relaxed);
        if before / FLUSH_BYTES != (before + length) / FLUSH_BYTES {
            self.flush_soon();
        }
        Ok(())
    }

    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        self.end_gather()?;
        while !buffer.is_empty() {
            let count = self
                .file
                .read_at(buffer, offset)
                .map_err(|error| Error::io("read", &self.name, error))?;
            if count == 0 {
                buffer.fill(0);
                return Ok(());
            }
            buffer = &mut buffer[count..];
            offset += count as u64;
        }
        Ok(())
    }

    fn finish(&self, size_bytes: u64) -> Result<()> {
        self.end_gather()?;
        self.end_flusher()?;
        self.file
            .set_len(size_bytes)
            .map_err(|error| Error::io("set the size of", &self.name, error))?;
        self.file
            .sync_all()
            .map_err(|error| Error::io("make durable", &self.name, error))
    }
}
