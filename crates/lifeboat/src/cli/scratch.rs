//! Scratch folders for restored copies: locked while in use, removed afterwards; what killed runs left is removed by the next one.
//!
//! A copy in a scratch folder is the data in the clear: it must not outlive the command by more than a crash.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_ops::Protected;
use lifeboat_ops::restore::record;

const LOCK: &str = "lock";

/// A folder of its own; removed when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in the state folder of `protected`.
    pub(super) fn create(env: &Env, protected: &Protected) -> Result<Self> {
        Self::below(env, &protected.state_dir)
    }

    /// Makes one in a state folder.
    pub(super) fn below(env: &Env, state_dir: &Path) -> Result<Self> {
        let parent = state_dir.join("scratch");
        durable::create_folder(&parent)?;
        sweep(&parent)?;
        let mut random = [0; 8];
        env.entropy.fill(&mut random)?;
        let folder = parent.join(hex::encode(random));
        let lock_path = folder.with_extension(LOCK);
        let lock =
            take(&lock_path)?.ok_or_else(|| Error::new(ErrorKind::Locked, "use", folder.display(), "another run took it"))?;
        durable::create_folder(&folder)?;
        Ok(Self {
            folder,
            lock_path,
            _lock: lock,
        })
    }

    /// A name inside that does not exist yet.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("copy")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever cannot be removed now is removed by the next run.
        if durable::remove_folder(&self.folder).is_ok() && durable::remove_file(&self.lock_path).is_err() {}
    }
}

/// Removes what killed runs left of the data in the clear: scratch folders and staged restores.
pub(super) fn sweep_killed(state_dir: &Path) -> Result<()> {
    let parent = state_dir.join("scratch");
    if parent.is_dir() {
        sweep(&parent)?;
    }
    record::sweep_killed(state_dir)
}

/// Removes the folders whose owner is gone.
fn sweep(parent: &Path) -> Result<()> {
    let failed = |error| Error::io("list", parent.display(), error);
    for entry in std::fs::read_dir(parent).map_err(failed)? {
        let lock_path = entry.map_err(failed)?.path();
        if lock_path.extension().is_some_and(|extension| extension == LOCK)
            && let Some(_lock) = take(&lock_path)?
        {
            durable::remove_folder(&lock_path.with_extension(""))?;
            durable::remove_file(&lock_path)?;
        }
    }
    Ok(())
}

/// Locks a lock file; `None` when somebody else has it, or had it removed meanwhile.
fn take(path: &Path) -> Result<Option<File>> {
    let failed = |error| Error::io("open", path.display(), error);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    if file.try_lock().is_err() {
        return Ok(None);
    }
    let ours = file.metadata().map_err(failed)?;
    // Locked after a sweep had removed it, the name belongs to nobody or to another file.
    Ok(path
        .symlink_metadata()
        .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
        .then_some(file))
}
