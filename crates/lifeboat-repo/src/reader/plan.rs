//! From rows to work: which blobs to read for a window of a file, and where their bytes go.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Error, ErrorKind, Result};

use super::fetch::{Job, Target};
use super::space::SpaceReader;
use super::{Inner, extent_length};
use crate::key::Id;
use crate::manifest::FileRecord;
use crate::map::{MAX_OVERLAYS, ROW_BYTES, Row, SLOT_BYTES, Slot};
use crate::pack::{Class, Placement};

/// Rows that are planned together: 2 GiB of a page file; bounds memory (INV-08). With eight overlays on each row a window takes about 40 MiB.
pub(super) const WINDOW_ROWS: u64 = 16_384;

/// The work for a run of rows.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// Ids of its rows, joined.
    pub(super) ids: Vec<u8>,
    /// Raw length of each row.
    pub(super) lengths: Vec<u32>,
    /// Zero extents: offset and length.
    pub(super) zeros: Vec<(u64, u32)>,
    /// Bases and chunks, each written whole.
    pub(super) bases: Vec<Job>,
    /// Overlay groups, read after the bases.
    pub(super) groups: Vec<Job>,
    /// Extents made of several blobs: offset, length, id.
    pub(super) assembled: Vec<(u64, u32, Id)>,
    /// Every pack that a row or slot names, also overlays that newer ones cover.
    pub(super) packs: BTreeSet<u32>,
}

/// Goes through a file window by window.
pub(super) struct Walk<'a> {
    file: &'a FileRecord,
    rows: SpaceReader<'a>,
    slots: SpaceReader<'a>,
    window_rows: u64,
    index: u64,
    total: u64,
    offset: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(inner: &'a Inner, file: &'a FileRecord, window_rows: u64) -> Self {
        let rows = SpaceReader::new(inner, &inner.manifest.row_space);
        let slots = SpaceReader::new(inner, &inner.manifest.overlay_space);
        Self {
            file,
            rows,
            slots,
            window_rows,
            index: 0,
            total: file.rows(),
            offset: 0,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Window>> {
        if self.index >= self.total {
            return if self.offset == self.file.size_bytes {
                Ok(None)
            } else {
                Err(self.damaged("its rows do not add up to its size"))
            };
        }
        let count = (self.total - self.index).min(self.window_rows);
        let mut window = Window {
            offset: self.offset,
            ..Window::default()
        };
        let mut groups = BTreeMap::new();
        let bytes = self.row_bytes(self.index, count).await?;
        for bytes in bytes.chunks(ROW_BYTES) {
            let row = Row::decode(bytes)?;
            let length = self.length(&row)?;
            window.ids.extend_from_slice(&row.id());
            window.lengths.push(length);
            self.plan_row(&row, length, &mut window, &mut groups).await?;
            self.offset += u64::from(length);
            self.index += 1;
        }
        window.groups = groups.into_values().collect();
        Ok(Some(window))
    }

    fn damaged(&self, detail: &str) -> Error {
        Error::new(ErrorKind::Corrupt, "read", &self.file.meta.path, detail)
    }

    fn length(&self, row: &Row) -> Result<u32> {
        match row {
            Row::Unused => Err(self.damaged("one of its rows is empty")),
            _ if self.file.page_size != 0 => extent_length(self.file.size_bytes, self.index),
            Row::Zero { .. } => Err(self.damaged("a stream has a zero row")),
            Row::Blob { extra, .. } => Ok(*extra),
        }
    }

    async fn row_bytes(&mut self, index: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (mut skip, mut left) = (index, count);
        for (first, rows) in &self.file.ranges {
            if skip >= *rows {
                skip -= rows;
                continue;
            }
            let take = (rows - skip).min(left);
            self.rows
                .read((first + skip) * ROW_BYTES as u64, take * ROW_BYTES as u64, &mut bytes)
                .await?;
            left -= take;
            skip = 0;
            if left == 0 {
                break;
            }
        }
        Ok(bytes)
    }

    async fn plan_row(
        &mut self,
        row: &Row,
        length: u32,
        window: &mut Window,
        groups: &mut BTreeMap<Placement, Job>,
    ) -> Result<()> {
        let offset = self.offset;
        let (place, extra, id) = match row {
            Row::Unused => return Ok(()),
            Row::Zero { .. } => {
                window.zeros.push((offset, length));
                return Ok(());
            }
            Row::Blob { place, extra, id } => (*place, *extra, *id),
        };
        window.packs.insert(place.pack);
        let class = if self.file.page_size == 0 {
            Class::Chunk
        } else {
            Class::Extent
        };
        let mut base_id = id;
        if class == Class::Extent && extra != 0 {
            base_id = self.plan_overlays(extra, length, window, groups).await?;
            window.assembled.push((offset, length, id));
        }
        window.bases.push(Job {
            place,
            class,
            raw_bytes: length,
            id: base_id,
            targets: vec![Target::Whole { offset }],
        });
        Ok(())
    }

    /// Adds the overlays of one extent, each with the pages that no newer one replaces; returns the id of the base.
    async fn plan_overlays(
        &mut self,
        head: u32,
        length: u32,
        window: &mut Window,
        groups: &mut BTreeMap<Placement, Job>,
    ) -> Result<Id> {
        let pages = length / self.file.page_size;
        if pages > 128 || !length.is_multiple_of(self.file.page_size) {
            return Err(self.damaged("an extent has overlays that the format does not allow there"));
        }
        let mut covered = 0_u128;
        let mut next = head;
        for _ in 0..MAX_OVERLAYS {
            let mut bytes = Vec::new();
            self.slots
                .read(u64::from(next) * SLOT_BYTES as u64, SLOT_BYTES as u64, &mut bytes)
                .await?;
            let slot = Slot::decode(&bytes)?.ok_or_else(|| self.damaged("an overlay slot is empty"))?;
            // A page beyond the extent would be written over its neighbour.
            if slot.pages.checked_shr(pages).unwrap_or(0) != 0 {
                return Err(self.damaged("an overlay names pages beyond its extent"));
            }
            window.packs.insert(slot.place.pack);
            let wanted = slot.pages & !covered;
            covered |= slot.pages;
            if wanted != 0 {
                let target = Target::Pages {
                    offset: self.offset,
                    pages: slot.pages,
                    wanted,
                    first: slot.first,
                };
                let job = Job {
                    place: slot.place,
                    class: Class::Group,
                    raw_bytes: slot.raw_bytes,
                    id: slot.group,
                    targets: Vec::new(),
                };
                let known = groups.entry(slot.place).or_insert(job);
                if known.id != slot.group || known.raw_bytes != slot.raw_bytes {
                    return Err(self.damaged("two overlay slots disagree about their group"));
                }
                known.targets.push(target);
            }
            next = slot.next;
            if next == 0 {
                return Ok(slot.base);
            }
        }
        Err(self.damaged("an extent has more overlays than the format allows"))
    }
}
