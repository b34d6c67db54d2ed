//! Page files of which only the changes since the parent are known: new rows are made of the parent's rows, and nothing is read from a store.
//!
//! An extent without a new page keeps its row. One with new pages gets an overlay on the parent's base; its id comes of the hashes of the new
//! pages and those that the local state has of the old ones. Where the extent's length changes, the base does not fit any more: then it has to be
//! one of zeros, with every old page in overlays, which can be laid over zeros of any length. Last extents are stored so from the beginning
//! ([`Way::loose_ends`]). What can be told in none of these ways is named, and its file has to come whole.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lifeboat_io::compute;
use lifeboat_io::flow::{EXTENT_BYTES, PageChanges};
use lifeboat_model::{Error, ErrorKind, Result};

use super::overlay::Base;
use super::pages::{PageJob, ParentFile, Way, Worker, state_io, whole_pages};
use super::{Writer, for_each_row};
use crate::key::{ID_BYTES, Id};
use crate::manifest::{FileMeta, FileRecord, Role};
use crate::map::{MAX_OVERLAYS, ROW_BYTES, Row, Slot};
use crate::pack::Placement;

/// In a file that comes whole because some of its extents carry all the overlays they may, those with more than this are stored anew.
const THINNED: usize = MAX_OVERLAYS / 2;

/// What a session knows of files that are told as what changed.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Whether later backups may be told so.
    expected: bool,
    /// Files of whose extents some carry as many overlays as they may, in the parent.
    crowded: BTreeSet<String>,
    /// Files that came so and could not be laid on the parent.
    pub(super) unknown: Vec<String>,
}

impl Writer {
    /// Says that later backups may be told only what changed: the ends of page files are stored so that they can grow and shrink. To be called
    /// before anything is put.
    ///
    /// Returns the page files of the parent of which changes can be taken; the others have to come whole.
    pub fn expect_changes(&mut self, page_size: u32) -> Result<BTreeSet<String>> {
        self.changes.expected = true;
        let mut takers = BTreeSet::new();
        let (Some(state), Some(generation)) = (&self.parent, &self.generation.parent) else {
            return Ok(takers);
        };
        for file in &state.files {
            let record = &file.record;
            if record.page_size != page_size || record.role != Role::File {
                continue;
            }
            let (mut is_whole, mut longest) = (true, 0);
            for_each_row(&generation.rows, &record.ranges, |row| {
                let Row::Blob { place, extra, .. } = row else { return Ok(()) };
                let chain = self.generation.slots.chain(extra)?;
                let lost = |pack: u32| self.shared.lost.contains(&pack);
                is_whole &= !lost(place.pack) && chain.is_some();
                for (_, slot) in chain.iter().flatten() {
                    is_whole &= !lost(slot.place.pack);
                }
                longest = longest.max(chain.map_or(0, |chain| chain.len()));
                Ok(())
            })?;
            if longest >= MAX_OVERLAYS {
                self.changes.crowded.insert(record.meta.path.clone());
            } else if is_whole {
                takers.insert(record.meta.path.clone());
            }
        }
        Ok(takers)
    }

    /// Stores a page file of which `source` knows the changes since the parent. `None`: it has to come whole, and this session cannot be committed
    /// any more; [`Writer::unknown`] names it.
    pub async fn put_changes(&mut self, meta: FileMeta, mut source: Box<dyn PageChanges>) -> Result<Option<FileRecord>> {
        self.start_file(&meta.path)?;
        let job = Arc::new(self.page_job(&meta.path, source.page_size(), source.size_bytes())?);
        let working = Arc::clone(&job);
        let laid = compute::run("lay changes on the last backup", move || run(&working, source.as_mut())).await;
        match laid {
            Ok(true) => self.end_pages(meta, &job).map(Some),
            Ok(false) => {
                self.unfinished = None;
                self.changes.unknown.push(meta.path);
                Ok(None)
            }
            Err(error) => Err(self.first_cause(error).await),
        }
    }

    /// Files that came as changes and have to come whole. While there are any, nothing can be committed.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.changes.unknown
    }

    /// How the extents of the file `path` are stored.
    pub(super) fn way_of(&self, path: &str) -> Way {
        if !self.changes.expected {
            return Way::default();
        }
        Way {
            loose_ends: true,
            overlays: if self.changes.crowded.contains(path) {
                THINNED
            } else {
                MAX_OVERLAYS
            },
        }
    }
}

/// Whether everything could be laid on the parent; the source is read to its end in any case.
fn run(job: &PageJob, source: &mut dyn PageChanges) -> Result<bool> {
    let mut laying = Laying {
        worker: Worker::new(job)?,
        page: Vec::new(),
        ahead: None,
        kept_pages: source.kept_pages(),
        bytes: Vec::new(),
        hashes: Vec::new(),
    };
    laying.advance(source, None)?;
    let mut is_known = true;
    for number in 0..job.size_bytes.div_ceil(EXTENT_BYTES as u64) {
        job.shared.check_cancelled()?;
        is_known &= laying.extent(number, source)?;
    }
    if laying.ahead.is_some() {
        return Err(broken(source.size_bytes()));
    }
    laying.worker.finish()?;
    Ok(is_known)
}

fn broken(size_bytes: u64) -> Error {
    let detail = format!("a page is not behind the one before it, or not within {size_bytes} bytes");
    Error::new(ErrorKind::Unreachable, "read", "the changes of a file", detail)
}

/// What is known of an extent of the parent.
struct Old {
    row: Row,
    chain: Vec<(u32, Slot)>,
    /// How many pages it has.
    pages: u32,
}

struct Laying<'a> {
    worker: Worker<'a>,
    /// The bytes of the page `ahead`.
    page: Vec<u8>,
    ahead: Option<u64>,
    kept_pages: u64,
    /// The extent in hand, zeros where it is not new.
    bytes: Vec<u8>,
    hashes: Vec<u8>,
}

impl Laying<'_> {
    /// Reads the next page ahead.
    fn advance(&mut self, source: &mut dyn PageChanges, last: Option<u64>) -> Result<()> {
        let job = self.worker.job;
        let next = source.next_page(&mut self.page)?;
        if let Some(next) = next {
            let pages = job.size_bytes / job.page_size as u64;
            if next >= pages || last.is_some_and(|last| next <= last) || self.page.len() != job.page_size {
                return Err(broken(job.size_bytes));
            }
            job.shared.read_bytes.fetch_add(job.page_size as u64, Ordering::Relaxed);
            job.shared.env.progress.advance(job.page_size as u64);
        }
        self.ahead = next;
        Ok(())
    }

    /// Takes the next extent; false where the parent's bytes would be needed.
    fn extent(&mut self, number: u64, source: &mut dyn PageChanges) -> Result<bool> {
        let job = self.worker.job;
        let offset = number * EXTENT_BYTES as u64;
        let length = usize::try_from((job.size_bytes - offset).min(EXTENT_BYTES as u64)).unwrap_or(EXTENT_BYTES);
        let all = whole_pages(length, job.page_size)
            .ok_or_else(|| Error::new(ErrorKind::Bug, "store", "the changes of a file", "a page of it is cut"))?;
        let first = offset / job.page_size as u64;
        self.bytes.clear();
        self.bytes.resize(length, 0);
        let mut new = 0_u128;
        while let Some(page) = self.ahead.filter(|page| *page < first + u64::from(all.count_ones())) {
            let index = usize::try_from(page - first).unwrap_or(0);
            let place = index * job.page_size..(index + 1) * job.page_size;
            if let Some(place) = self.bytes.get_mut(place) {
                place.copy_from_slice(&self.page);
            }
            new |= 1 << index;
            self.advance(source, Some(page))?;
        }
        let old = match &job.parent {
            Some(parent) => old(job, parent, number)?,
            None => None,
        };
        // Where there is no file to speak of, everything that is kept is unknown; behind the end of a shorter one there are zeros.
        let old_pages = job.parent.as_ref().map_or(u64::MAX, |parent| {
            let left = parent.size_bytes.saturating_sub(offset);
            left.div_ceil(job.page_size as u64)
        });
        let kept = self.kept_pages.saturating_sub(first).min(old_pages);
        // What is neither new nor the parent's is zeros, which is as good as new.
        let known = new | all & !low_bits(kept);
        let needed = all & !known;
        self.hash(job.parent.as_ref(), first, needed, known)?;
        match old {
            Some(old) if needed != 0 => self.lay(number, &old, known, needed, all),
            // Nobody could say what the parent has there.
            None if needed != 0 => Ok(false),
            _ => self.store(number),
        }
    }

    /// Stores the extent in hand as any other.
    fn store(&mut self, number: u64) -> Result<bool> {
        let (bytes, hashes) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.hashes));
        let stored = self.worker.extent(number, &bytes, &hashes);
        (self.bytes, self.hashes) = (bytes, hashes);
        stored.map(|()| true)
    }

    /// The hashes of the extent's pages, into the new generation as well.
    fn hash(&mut self, parent: Option<&ParentFile>, first: u64, needed: u128, known: u128) -> Result<()> {
        let job = self.worker.job;
        self.hashes.clear();
        let pages = self.bytes.len() / job.page_size;
        if let Some(parent) = parent.filter(|_parent| needed != 0) {
            // The needed ones are the first of the extent, and the parent has them all.
            let last = 128 - usize::try_from(needed.leading_zeros()).unwrap_or(0);
            self.hashes.resize(last * ID_BYTES, 0);
            let at = parent.hashes_at + first * ID_BYTES as u64;
            parent.hashes.read_exact_at(&mut self.hashes, at).map_err(state_io)?;
        }
        self.hashes.resize(pages * ID_BYTES, 0);
        let mut one = Vec::new();
        for (index, page) in self.bytes.chunks(job.page_size).enumerate() {
            if known >> index & 1 == 1 {
                one.clear();
                job.shared.ids.page_hashes(page, job.page_size, &mut one);
                if let Some(place) = self.hashes.get_mut(index * ID_BYTES..(index + 1) * ID_BYTES) {
                    place.copy_from_slice(&one);
                }
            }
        }
        let at = job.hashes_at + first * ID_BYTES as u64;
        job.hashes.write_all_at(&self.hashes, at).map_err(state_io)
    }

    /// An extent of which the pages `needed` are the parent's.
    fn lay(&mut self, number: u64, old: &Old, known: u128, needed: u128, all: u128) -> Result<bool> {
        let job = self.worker.job;
        let same_length = old.pages == all.count_ones();
        if known == 0 && same_length {
            self.keep(number, old)?;
            return Ok(true);
        }
        let id = job.shared.ids.extent(&self.hashes);
        let base = match old.row {
            Row::Unused => return Ok(false),
            // Zeros on zeros: all is known after all.
            Row::Zero { .. } => return self.store(number),
            Row::Blob { place, extra, id } if same_length && old.chain.len() < MAX_OVERLAYS => Base {
                place,
                head: extra,
                base_id: old.chain.last().map_or(id, |(_, slot)| slot.base),
                chain: old.chain.clone(),
            },
            Row::Blob { .. } => match self.onto_zeros(old, needed)? {
                Some(base) => base,
                None => return Ok(false),
            },
        };
        if known == 0 {
            // It only became shorter.
            job.shared.reach(base.place.pack);
            for (_, slot) in &base.chain {
                job.shared.reach(slot.place.pack);
            }
            let row = Row::Blob {
                place: base.place,
                extra: base.head,
                id,
            };
            job.write_row(number, &row)?;
            return Ok(true);
        }
        let changed = u64::from(known.count_ones()) * job.page_size as u64;
        job.shared.changed_bytes.fetch_add(changed, Ordering::Relaxed);
        let bytes = std::mem::take(&mut self.bytes);
        let laid = self.worker.lay(number, id, base, known, &bytes);
        self.bytes = bytes;
        laid.map(|()| true)
    }

    fn keep(&self, number: u64, old: &Old) -> Result<()> {
        let job = self.worker.job;
        if let Row::Blob { place, .. } = &old.row {
            job.shared.reach(place.pack);
        }
        for (_, slot) in &old.chain {
            job.shared.reach(slot.place.pack);
        }
        job.slots.keep(&old.chain);
        job.write_row(number, &old.row)
    }

    /// The overlays that hold `needed`, on zeros of the new length; `None` where the old base holds some of it.
    fn onto_zeros(&mut self, old: &Old, needed: u128) -> Result<Option<Base>> {
        let mut holders = Vec::new();
        let mut missing = needed;
        for (_, slot) in &old.chain {
            if slot.pages & missing != 0 {
                missing &= !slot.pages;
                holders.push(*slot);
            }
        }
        if missing != 0 || holders.len() >= MAX_OVERLAYS {
            return Ok(None);
        }
        let mut base = self.worker.zeros(self.bytes.len())?;
        let beyond = !low_bits((self.bytes.len() / self.worker.job.page_size) as u64);
        // From the oldest on: each names the one below it.
        for mut slot in holders.into_iter().rev() {
            // Those in front stay where they are in the group.
            slot.pages &= !beyond;
            slot.next = base.head;
            slot.base = if base.head == 0 { base.base_id } else { Id::default() };
            base.head = self.worker.job.slots.add(&slot)?;
            base.chain.insert(0, (base.head, slot));
        }
        Ok(Some(base))
    }
}

fn low_bits(count: u64) -> u128 {
    match u32::try_from(count) {
        Ok(0) => 0,
        Ok(count) if count < 128 => u128::MAX >> (128 - count),
        _ => u128::MAX,
    }
}

/// The parent's extent `number`; `None` where it has none, or it cannot be used (INV-04).
fn old(job: &PageJob, parent: &ParentFile, number: u64) -> Result<Option<Old>> {
    let left = parent
        .size_bytes
        .saturating_sub(number * EXTENT_BYTES as u64)
        .min(EXTENT_BYTES as u64);
    let length = usize::try_from(left).unwrap_or(0);
    let (Some(row_number), Some(pages)) = (parent.ranges.row(number), whole_pages(length, job.page_size)) else {
        return Ok(None);
    };
    let mut row = [0; ROW_BYTES];
    let at = row_number * ROW_BYTES as u64;
    parent.rows.read_exact_at(&mut row, at).map_err(state_io)?;
    let row = Row::decode(&row)?;
    let lost = |place: &Placement| job.shared.lost.contains(&place.pack);
    let chain = match &row {
        Row::Blob { place, extra, .. } if !lost(place) => match job.slots.chain(*extra)? {
            Some(chain) if !chain.iter().any(|(_, slot)| lost(&slot.place)) => chain,
            _ => return Ok(None),
        },
        Row::Zero { .. } => Vec::new(),
        _ => return Ok(None),
    };
    Ok(Some(Old {
        row,
        chain,
        pages: pages.count_ones(),
    }))
}
