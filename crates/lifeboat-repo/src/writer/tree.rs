//! Trees: many files in few streams (format 8.5).
//!
//! What a file is, is the engine's business; here are segments, which are written once and then kept as they are, the tree, and the
//! engine's own memory, which moves with the local state (INV-07).

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};

use super::pages::Ranges;
use super::{Writer, for_each_row, write_row};
use crate::manifest::{FileMeta, FileRecord, Role};
use crate::map::Row;
use crate::state::FileState;

/// What a tree holds, for the header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeCount {
    /// Its files by name.
    pub files: u64,
    /// Bytes of their content.
    pub size_bytes: u64,
}

/// A stream that is no file has nobody's owner and no time.
fn plain(path: &str) -> FileMeta {
    FileMeta {
        path: path.to_owned(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        modified_us: 0,
    }
}

impl Writer {
    /// The segments of the parent that can be kept: path and size. What lies on packs that are missing or damaged cannot.
    pub fn segments(&self) -> Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for file in self.parent.iter().flat_map(|state| &state.files) {
            if file.record.role == Role::Segment && self.is_whole(&file.record)? {
                found.push((file.record.meta.path.clone(), file.record.size_bytes));
            }
        }
        Ok(found)
    }

    /// INV-04: whether no row of a stream of the parent lies on a pack that is lost.
    fn is_whole(&self, record: &FileRecord) -> Result<bool> {
        let Some(generation) = &self.generation.parent else {
            return Ok(false);
        };
        let mut whole = true;
        for_each_row(&generation.rows, &record.ranges, |row| {
            whole &= row.pack().is_none_or(|pack| !self.shared.lost.contains(&pack));
            Ok(())
        })?;
        Ok(whole)
    }

    /// Takes a segment over from the parent without reading it from anywhere.
    ///
    /// # Errors
    /// `Bug` when [`Writer::segments`] does not name it.
    pub fn keep_segment(&mut self, path: &str) -> Result<()> {
        self.start_file(path)?;
        let missing = || {
            Error::new(
                ErrorKind::Bug,
                "keep",
                path,
                "the parent has no such segment, or it is not whole",
            )
        };
        let files = self.parent.as_ref().map_or(&[][..], |state| state.files.as_slice());
        let record = files
            .iter()
            .map(|file| &file.record)
            .find(|record| record.role == Role::Segment && record.meta.path == path)
            .ok_or_else(missing)?
            .clone();
        let generation = self.generation.parent.as_ref().ok_or_else(missing)?;
        if !self.is_whole(&record)? {
            return Err(missing());
        }
        let table = Ranges(record.ranges.clone());
        let mut index = 0;
        for_each_row(&generation.rows, &record.ranges, |row: Row| {
            if let Some(pack) = row.pack() {
                self.shared.reach(pack);
            }
            let number = table.row(index).unwrap_or_default();
            index += 1;
            write_row(&self.generation.rows, number, &row)
        })?;
        self.files.push(FileState { record, hashes_at: 0 });
        self.unfinished = None;
        Ok(())
    }

    /// Stores a new segment.
    pub async fn put_segment(&mut self, path: &str, reader: Box<dyn Read + Send>) -> Result<()> {
        self.put_as(Role::Segment, plain(path), reader).await.map(drop)
    }

    /// Stores the tree, and what the header says about it.
    pub async fn put_tree(&mut self, path: &str, reader: Box<dyn Read + Send>, count: TreeCount) -> Result<()> {
        self.put_as(Role::Tree, plain(path), reader).await?;
        self.tree = Some(count);
        Ok(())
    }

    /// What the engine wrote down when the parent was made; `None` without a parent. Only to be read.
    #[must_use]
    pub fn remembered(&self) -> Option<Arc<File>> {
        self.generation
            .parent
            .as_ref()
            .map(|generation| Arc::clone(&generation.engine))
    }

    /// Where the engine writes down what it wants to know next time. It becomes durable and current with the local state.
    #[must_use]
    pub fn memory(&self) -> Arc<File> {
        Arc::clone(&self.generation.engine)
    }
}
