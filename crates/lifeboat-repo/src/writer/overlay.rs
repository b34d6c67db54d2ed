//! Overlay groups: changed pages of many extents, compressed and sealed together.
//!
//! A page alone compresses badly (measured: 8 KiB pages alone take 1.7 times the space of the same pages in a row).

use lifeboat_io::flow::EXTENT_BYTES;
use lifeboat_model::Result;

use super::pages::PageJob;
use crate::bytes::len_u32;
use crate::key::Id;
use crate::map::{Row, Slot};
use crate::pack::Placement;

/// A group is closed when it holds this much raw data or more.
const GROUP_TARGET_BYTES: usize = 256 << 10;

/// What an overlay lies on.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) place: Placement,
    /// The newest overlay so far; 0: none.
    pub(crate) head: u32,
    pub(crate) base_id: Id,
    pub(crate) chain: Vec<(u32, Slot)>,
}

#[derive(Debug)]
struct Pending {
    extent: u64,
    id: Id,
    base: Base,
    pages: u128,
    first: u16,
}

/// Pages that wait to be sealed together.
#[derive(Debug)]
pub(crate) struct Group {
    page_size: usize,
    bytes: Vec<u8>,
    pending: Vec<Pending>,
}

impl Group {
    pub(crate) fn new(page_size: usize) -> Self {
        Self {
            page_size,
            bytes: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= GROUP_TARGET_BYTES
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the pages `pages` of the extent `bytes`.
    pub(crate) fn add(&mut self, extent: u64, id: Id, base: Base, pages: u128, bytes: &[u8]) {
        // The target bounds a group to 256 KiB plus half an extent: 640 pages of 512 bytes at most.
        let first = u16::try_from(self.bytes.len() / self.page_size).unwrap_or(u16::MAX);
        for (index, page) in bytes.chunks(self.page_size).enumerate() {
            if pages >> index & 1 == 1 {
                self.bytes.extend_from_slice(page);
            }
        }
        debug_assert!(bytes.len() <= EXTENT_BYTES, "an extent");
        self.pending.push(Pending {
            extent,
            id,
            base,
            pages,
            first,
        });
    }

    /// Writes slots and rows, now that the group lies at `place`.
    pub(crate) fn place(self, job: &PageJob, place: Placement, group: Id) -> Result<()> {
        let raw_bytes = len_u32(self.bytes.len(), "an overlay group")?;
        for pending in self.pending {
            let Base {
                place: base,
                head,
                base_id,
                chain,
            } = pending.base;
            let oldest = if head == 0 { base_id } else { Id::default() };
            let slot = Slot {
                next: head,
                place,
                raw_bytes,
                first: pending.first,
                group,
                pages: pending.pages,
                base: oldest,
            };
            let number = job.slots.add(&slot)?;
            job.slots.keep(&chain);
            job.shared.reach(base.pack);
            for (_, older) in &chain {
                job.shared.reach(older.place.pack);
            }
            job.write_row(
                pending.extent,
                &Row::Blob {
                    place: base,
                    extra: number,
                    id: pending.id,
                },
            )?;
        }
        Ok(())
    }
}
