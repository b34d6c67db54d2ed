//! Files whose log stands elsewhere by now, kept to be written again: their room is there already, so that a sync, for which commits may be waiting,
//! makes no new blocks durable, and the disk is told of none that went.
//!
//! What such a file held stays in it until it is written over. Zeros behind each record, in the place of the next head, keep it from being read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::Result;
use lifeboat_repo::BLOCK_BYTES;

use super::Stretch;

/// Files that are kept to be written again begin so.
const SPARE: &str = "spare-";
/// One that is needed next, and one behind it.
const MOST: usize = 2;

/// The files, the one that was kept last at the end.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<(PathBuf, Arc<File>, u64)>);

impl Spares {
    /// Whether a file of that name is one that a process before this one has kept.
    pub(super) fn is_one(name: &str) -> bool {
        name.starts_with(SPARE)
    }

    /// Keeps the file of a stretch that is given up, and says so; not where there are enough, where it is of less than a block, or where somebody still reads it.
    pub(super) fn keep(&mut self, stretch: &Stretch) -> Result<bool> {
        // Who begins to read asks the spool first, which is ours now.
        let is_read = Arc::strong_count(&stretch.file) > 1;
        if self.0.len() >= MOST || stretch.size < BLOCK_BYTES || is_read {
            return Ok(false);
        }
        let name = stretch.path.file_name().unwrap_or_default().display();
        let path = durable::parent_of(&stretch.path).join(format!("{SPARE}{name}"));
        durable::move_file(&stretch.path, &path)?;
        self.0.push((path, Arc::clone(&stretch.file), stretch.size));
        Ok(true)
    }

    /// A file of that name, and its size in bytes. None where none is kept, or none can be moved.
    pub(super) fn take(&mut self, path: &Path) -> Option<(Arc<File>, u64)> {
        let (from, file, size) = self.0.pop()?;
        if durable::move_file(&from, path).is_ok() {
            return Some((file, size));
        }
        // A new one does as well, and this one goes with the next start.
        None
    }
}

impl Drop for Spares {
    /// Following ends: the next process would remove them.
    fn drop(&mut self) {
        for (path, ..) in &self.0 {
            if durable::remove_file(path).is_err() {
                // It does, then.
            }
        }
    }
}
