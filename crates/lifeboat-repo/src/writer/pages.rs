//! Page files: extents compared by position with the parent, changed ones stored whole or as overlays.
//!
//! Several workers pull segments from the source; each fills its own pack. Nothing here is kept per extent in memory (INV-08):
//! rows and page hashes go to the files of the new generation.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lifeboat_io::flow::{EXTENT_BYTES, PageSource, SEGMENT_BYTES};
use lifeboat_model::{Error, ErrorKind, Result};

use super::overlay::{Base, Group};
use super::shared::Shared;
use super::slots::Slots;
use crate::key::{ID_BYTES, Id};
use crate::map::{MAX_OVERLAYS, ROW_BYTES, Row, Slot, max_overlay_pages};
use crate::pack::{Class, Compressor, PackBuilder, Placement};

/// Where a file's rows stand in the row space.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ranges(pub(crate) Vec<(u64, u64)>);

impl Ranges {
    /// The row of extent `index`.
    pub(crate) fn row(&self, mut index: u64) -> Option<u64> {
        for (first, count) in &self.0 {
            if index < *count {
                return Some(first + index);
            }
            index -= count;
        }
        None
    }
}

/// The same file in the parent.
#[derive(Debug)]
pub(crate) struct ParentFile {
    pub(crate) rows: Arc<File>,
    pub(crate) hashes: Arc<File>,
    pub(crate) ranges: Ranges,
    pub(crate) hashes_at: u64,
    pub(crate) size_bytes: u64,
}

/// One page file on its way into the repository.
#[derive(Debug)]
pub(crate) struct PageJob {
    pub(crate) shared: Arc<Shared>,
    pub(crate) page_size: usize,
    pub(crate) size_bytes: u64,
    pub(crate) ranges: Ranges,
    pub(crate) rows: Arc<File>,
    pub(crate) hashes: Arc<File>,
    pub(crate) hashes_at: u64,
    pub(crate) slots: Arc<Slots>,
    pub(crate) parent: Option<ParentFile>,
    pub(crate) way: Way,
}

/// How extents are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// The last extent of a file lies as an overlay on zeros, so that it can grow and shrink without being read ([`super::changes`]).
    pub(crate) loose_ends: bool,
    /// An extent with more overlays than this is stored whole, even if it is the same.
    pub(crate) overlays: usize,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            loose_ends: false,
            overlays: MAX_OVERLAYS,
        }
    }
}

pub(crate) fn state_io(error: std::io::Error) -> Error {
    Error::io("use", "the local state", error)
}

impl PageJob {
    pub(crate) fn write_row(&self, extent: u64, row: &Row) -> Result<()> {
        let number = self
            .ranges
            .row(extent)
            .ok_or_else(|| Error::new(ErrorKind::Bug, "place", "a row", "the source gave more than it announced"))?;
        self.rows
            .write_all_at(&row.encode(), number * ROW_BYTES as u64)
            .map_err(state_io)
    }
}

/// What the parent knows of one extent.
enum Known {
    Nothing,
    /// The same bytes at the same place, on packs that are there.
    Same {
        row: Row,
        chain: Vec<(u32, Slot)>,
    },
    /// Some pages differ, and an overlay is allowed.
    Differs {
        pages: u128,
        base: Base,
    },
}

/// One thread of a [`PageJob`].
pub(crate) struct Worker<'a> {
    pub(super) job: &'a PageJob,
    pack: PackBuilder,
    compressor: Compressor,
    pub(super) group: Group,
    hashes: Vec<u8>,
    parent_hashes: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(job: &'a PageJob) -> Result<Self> {
        Ok(Worker {
            job,
            pack: job.shared.take_open()?,
            compressor: Compressor::new()?,
            group: Group::new(job.page_size),
            hashes: Vec::new(),
            parent_hashes: Vec::new(),
        })
    }

    /// Works until the source is empty.
    pub(crate) fn run(job: &'a PageJob, source: &dyn PageSource) -> Result<()> {
        let mut worker = Self::new(job)?;
        let mut segment = Vec::with_capacity(SEGMENT_BYTES);
        while let Some(offset) = source.next_segment(&mut segment)? {
            job.shared.check_cancelled()?;
            check_segment(offset, segment.len() as u64, job.size_bytes)?;
            worker.segment(offset, &segment)?;
            job.shared.read_bytes.fetch_add(segment.len() as u64, Ordering::Relaxed);
            job.shared.env.progress.advance(segment.len() as u64);
        }
        worker.finish()
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.flush_group()?;
        self.job.shared.give_back(self.pack);
        Ok(())
    }

    fn segment(&mut self, offset: u64, segment: &[u8]) -> Result<()> {
        let page_size = self.job.page_size;
        self.hashes.clear();
        self.job.shared.ids.page_hashes(segment, page_size, &mut self.hashes);
        let hashes = std::mem::take(&mut self.hashes);
        let result = self.extents(offset, segment, &hashes);
        self.hashes = hashes;
        result?;
        let at = self.job.hashes_at + offset / page_size as u64 * ID_BYTES as u64;
        self.job.hashes.write_all_at(&self.hashes, at).map_err(state_io)
    }

    fn extents(&mut self, offset: u64, segment: &[u8], hashes: &[u8]) -> Result<()> {
        let pages_per_extent = EXTENT_BYTES / self.job.page_size;
        let first = offset / EXTENT_BYTES as u64;
        for (index, (bytes, hashes)) in segment
            .chunks(EXTENT_BYTES)
            .zip(hashes.chunks(pages_per_extent * ID_BYTES))
            .enumerate()
        {
            self.extent(first + index as u64, bytes, hashes)?;
        }
        Ok(())
    }

    pub(super) fn extent(&mut self, number: u64, bytes: &[u8], hashes: &[u8]) -> Result<()> {
        let job = self.job;
        let known = self.known(number, bytes.len(), hashes)?;
        if let Known::Same { row, chain } = known {
            if let Row::Blob { place, .. } = &row {
                job.shared.reach(place.pack);
            }
            for (_, slot) in &chain {
                job.shared.reach(slot.place.pack);
            }
            job.slots.keep(&chain);
            return job.write_row(number, &row);
        }
        let id = job.shared.ids.extent(hashes);
        if is_zero(bytes) {
            job.shared.changed_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return job.write_row(number, &Row::Zero { id });
        }
        if let Known::Differs { pages, base } = known {
            let changed = u64::from(pages.count_ones()) * job.page_size as u64;
            job.shared.changed_bytes.fetch_add(changed, Ordering::Relaxed);
            return self.lay(number, id, base, pages, bytes);
        }
        job.shared.changed_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if job.way.loose_ends
            && bytes.len() < EXTENT_BYTES
            && let Some(pages) = whole_pages(bytes.len(), job.page_size)
        {
            let base = self.zeros(bytes.len())?;
            return self.lay(number, id, base, pages, bytes);
        }
        let place = self.store(Class::Extent, bytes, &id)?;
        job.write_row(number, &Row::Blob { place, extra: 0, id })
    }

    /// Lays `pages` of the extent `bytes` over `base`.
    pub(super) fn lay(&mut self, number: u64, id: Id, base: Base, pages: u128, bytes: &[u8]) -> Result<()> {
        self.group.add(number, id, base, pages, bytes);
        if self.group.is_full() { self.flush_group() } else { Ok(()) }
    }

    /// A base of `length` zeros, stored as a blob: a few bytes that anything can be laid over.
    pub(super) fn zeros(&mut self, length: usize) -> Result<Base> {
        let zeros = vec![0; length];
        let mut hashes = Vec::new();
        self.job.shared.ids.page_hashes(&zeros, self.job.page_size, &mut hashes);
        let base_id = self.job.shared.ids.extent(&hashes);
        Ok(Base {
            place: self.store(Class::Extent, &zeros, &base_id)?,
            head: 0,
            base_id,
            chain: Vec::new(),
        })
    }

    /// Compares an extent with the parent's, page hash by page hash. A doubt about the parent is `Nothing` (INV-04).
    fn known(&mut self, number: u64, length: usize, hashes: &[u8]) -> Result<Known> {
        let job = self.job;
        let Some(parent) = &job.parent else {
            return Ok(Known::Nothing);
        };
        let offset = number * EXTENT_BYTES as u64;
        let parent_length = parent.size_bytes.saturating_sub(offset).min(EXTENT_BYTES as u64);
        let row_number = parent.ranges.row(number);
        let (Some(row_number), true) = (row_number, parent_length == length as u64) else {
            return Ok(Known::Nothing);
        };
        self.parent_hashes.resize(hashes.len(), 0);
        let at = parent.hashes_at + offset / job.page_size as u64 * ID_BYTES as u64;
        parent.hashes.read_exact_at(&mut self.parent_hashes, at).map_err(state_io)?;
        let same = self.parent_hashes == hashes;
        let mut row = [0; ROW_BYTES];
        parent
            .rows
            .read_exact_at(&mut row, row_number * ROW_BYTES as u64)
            .map_err(state_io)?;
        let row = Row::decode(&row)?;
        let (place, head, id) = match row {
            Row::Unused => return Ok(Known::Nothing),
            Row::Zero { .. } if same => return Ok(Known::Same { row, chain: Vec::new() }),
            Row::Zero { .. } => return Ok(Known::Nothing),
            Row::Blob { place, extra, id } => (place, extra, id),
        };
        let Some(chain) = job.slots.chain(head)? else {
            return Ok(Known::Nothing);
        };
        let lost = |pack: u32| job.shared.lost.contains(&pack);
        if lost(place.pack) || chain.iter().any(|(_, slot)| lost(slot.place.pack)) || chain.len() > job.way.overlays {
            return Ok(Known::Nothing);
        }
        if same {
            return Ok(Known::Same { row, chain });
        }
        // Groups hold whole pages only.
        if !length.is_multiple_of(job.page_size) {
            return Ok(Known::Nothing);
        }
        Ok(self.overlay(place, head, &id, chain, hashes))
    }

    /// Whether the change is small enough for an overlay.
    fn overlay(&self, place: Placement, head: u32, row_id: &Id, chain: Vec<(u32, Slot)>, hashes: &[u8]) -> Known {
        let pages = hashes.len() / ID_BYTES;
        let allowed = max_overlay_pages(pages);
        if allowed == 0 || chain.len() >= self.job.way.overlays.min(MAX_OVERLAYS) {
            return Known::Nothing;
        }
        let mut changed = 0_u128;
        for (index, (new, old)) in hashes.chunks(ID_BYTES).zip(self.parent_hashes.chunks(ID_BYTES)).enumerate() {
            if new != old {
                changed |= 1 << index;
            }
        }
        let replaced = chain.iter().fold(changed, |pages, (_, slot)| pages | slot.pages);
        if replaced.count_ones() > allowed {
            return Known::Nothing;
        }
        let base_id = chain.last().map_or(*row_id, |(_, slot)| slot.base);
        Known::Differs {
            pages: changed,
            base: Base {
                place,
                head,
                base_id,
                chain,
            },
        }
    }

    fn store(&mut self, class: Class, raw: &[u8], id: &Id) -> Result<Placement> {
        self.compressor.set(self.job.shared.effort(raw.len()))?;
        let place = self.pack.add(&mut self.compressor, class, raw, id)?;
        self.job.shared.reach(place.pack);
        if self.pack.is_full() {
            let next = self.job.shared.begin_pack(crate::pack::PackClass::Data)?;
            let full = std::mem::replace(&mut self.pack, next);
            self.job.shared.upload(full.finish())?;
        }
        Ok(place)
    }

    pub(super) fn flush_group(&mut self) -> Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let group = std::mem::replace(&mut self.group, Group::new(self.job.page_size));
        let id = self.job.shared.ids.group(group.bytes());
        let place = self.store(Class::Group, group.bytes(), &id)?;
        group.place(self.job, place, id)
    }
}

/// The bits of all pages of `length` bytes; `None` where a page is cut, or there are more than overlays can name.
pub(super) fn whole_pages(length: usize, page_size: usize) -> Option<u128> {
    let pages = u32::try_from(length / page_size)
        .ok()
        .filter(|pages| (1..=128).contains(pages))?;
    length.is_multiple_of(page_size).then(|| u128::MAX >> (128 - pages))
}

/// Holds a source to its contract: whole extents, and an end exactly where it was announced.
fn check_segment(offset: u64, length: u64, size_bytes: u64) -> Result<()> {
    let extent = EXTENT_BYTES as u64;
    let end = offset.checked_add(length).filter(|end| *end <= size_bytes);
    let whole = end.is_some_and(|end| end == size_bytes || end.is_multiple_of(extent));
    if length > 0 && offset.is_multiple_of(extent) && whole {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Unreachable,
            "read",
            "the source",
            format!("it gave {length} bytes at {offset}, which does not fit the {size_bytes} bytes it announced"),
        ))
    }
}

/// Whether all bytes are zero; looks at the first word first, since most data fails there.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().take(16).all(|byte| *byte == 0) && bytes.iter().all(|byte| *byte == 0)
}
