//! Files of a cluster as sinks: new ones, and those in which something is kept.
//!
//! Small files are synced with all the others at the end; a cluster has thousands of them.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lifeboat_io::flow::PageSink;
use lifeboat_io::sink::FileSink;
use lifeboat_model::{Error, ErrorKind, Result};

/// Files from here on go around the page cache; the server reads them when it needs them.
const AROUND_BYTES: u64 = 4 << 20;
/// `O_NOFOLLOW`
const NO_LINK: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// A file as it is to be.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub(super) place: PathBuf,
    pub(super) size_bytes: u64,
    pub(super) mode: u32,
    pub(super) owner: Option<(u32, u32)>,
}

impl Fresh {
    /// A sink that makes it, where nothing is yet.
    pub(super) fn lazy(self) -> Lazy {
        Lazy {
            fresh: self,
            file: Mutex::default(),
        }
    }

    /// Mode and owner.
    fn dress(&self, file: &File) -> Result<()> {
        file.set_permissions(PermissionsExt::from_mode(self.mode))
            .map_err(|error| Error::io("set the mode of", self.place.display(), error))?;
        match self.owner {
            None => Ok(()),
            Some((user, group)) => std::os::unix::fs::fchown(file, Some(user), Some(group))
                .map_err(|error| Error::io("give away", self.place.display(), error)),
        }
    }
}

/// A file that is opened when its first bytes come, and closed when its last ones did: a cluster has more files than a process may open.
#[derive(Debug)]
pub(super) struct Lazy {
    fresh: Fresh,
    file: Mutex<Option<Arc<Opened>>>,
}

#[derive(Debug)]
enum Opened {
    /// Synced with all the others at the end.
    Small(File),
    Large(FileSink),
}

impl Lazy {
    fn open(&self) -> Result<Arc<Opened>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = file.as_ref() {
            return Ok(Arc::clone(opened));
        }
        let created = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&self.fresh.place);
        let created = created.map_err(|error| Error::io("create", self.fresh.place.display(), error))?;
        self.fresh.dress(&created)?;
        let opened = Arc::new(if self.fresh.size_bytes < AROUND_BYTES {
            Opened::Small(created)
        } else {
            Opened::Large(FileSink::new(created, self.fresh.place.display().to_string()).around_cache(self.fresh.size_bytes)?)
        });
        *file = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl PageSink for Lazy {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match &*self.open()? {
            Opened::Small(file) => file
                .write_all_at(bytes, offset)
                .map_err(|error| Error::io("write", self.fresh.place.display(), error)),
            Opened::Large(sink) => sink.write_at(offset, bytes),
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &*self.open()? {
            Opened::Large(sink) => sink.read_at(offset, buffer),
            Opened::Small(file) => {
                read_at(file, offset, buffer).map_err(|error| Error::io("read", self.fresh.place.display(), error))
            }
        }
    }

    fn finish(&self, size_bytes: u64) -> Result<()> {
        let opened = self.open()?;
        match &*opened {
            Opened::Small(file) => file
                .set_len(size_bytes)
                .map_err(|error| Error::io("set the size of", self.fresh.place.display(), error))?,
            Opened::Large(sink) => sink.finish(size_bytes)?,
        }
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

/// A file that is there, of which what is right stays: it is written to only where it is wrong, so that a file that is right is not even
/// touched.
#[derive(Debug)]
pub(super) struct Kept {
    fresh: Fresh,
    file: Mutex<Option<Arc<There>>>,
}

#[derive(Debug)]
struct There {
    file: File,
    size_bytes: u64,
    is_written: AtomicBool,
    /// For the changes of a large file, from the first on.
    large: OnceLock<FileSink>,
}

impl Kept {
    pub(super) fn new(fresh: Fresh) -> Self {
        Self {
            fresh,
            file: Mutex::default(),
        }
    }

    fn failed(&self, op: &'static str) -> impl Fn(std::io::Error) -> Error {
        move |error| Error::io(op, self.fresh.place.display(), error)
    }

    fn open(&self) -> Result<Arc<There>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = file.as_ref() {
            return Ok(Arc::clone(there));
        }
        let mut options = File::options();
        let opened = options.read(true).write(true).custom_flags(NO_LINK).open(&self.fresh.place);
        let opened = opened.map_err(self.failed("open"))?;
        let meta = opened.metadata().map_err(self.failed("look at"))?;
        if !meta.is_file() || meta.nlink() != 1 {
            let detail = "it changed while the restore looked at it";
            return Err(Error::new(
                ErrorKind::Refused,
                "restore onto",
                self.fresh.place.display(),
                detail,
            ));
        }
        let is_dressed =
            meta.mode() & 0o7777 == self.fresh.mode && self.fresh.owner.is_none_or(|owner| owner == (meta.uid(), meta.gid()));
        if !is_dressed {
            self.fresh.dress(&opened)?;
        }
        let there = Arc::new(There {
            size_bytes: meta.len(),
            file: opened,
            is_written: AtomicBool::new(false),
            large: OnceLock::new(),
        });
        *file = Some(Arc::clone(&there));
        Ok(there)
    }

    /// The way for changes of a large file: they are made durable while more of them come.
    fn large<'a>(&self, there: &'a There) -> Result<&'a FileSink> {
        if let Some(sink) = there.large.get() {
            return Ok(sink);
        }
        let file = there.file.try_clone().map_err(self.failed("open"))?;
        Ok(there
            .large
            .get_or_init(|| FileSink::new(file, self.fresh.place.display().to_string())))
    }
}

impl PageSink for Kept {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let there = self.open()?;
        there.is_written.store(true, Ordering::Relaxed);
        if self.fresh.size_bytes >= AROUND_BYTES {
            return self.large(&there)?.write_at(offset, bytes);
        }
        there.file.write_all_at(bytes, offset).map_err(self.failed("write"))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read_at(&self.open()?.file, offset, buffer).map_err(self.failed("read"))
    }

    fn finish(&self, size_bytes: u64) -> Result<()> {
        let there = self.open()?;
        if there.size_bytes != size_bytes || there.is_written.load(Ordering::Relaxed) {
            match there.large.get() {
                Some(sink) => sink.finish(size_bytes)?,
                None => there.file.set_len(size_bytes).map_err(self.failed("set the size of"))?,
            }
        }
        self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

/// Fills `buffer`; what lies behind the end is zeros.
fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => {
                rest.fill(0);
                return Ok(());
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
