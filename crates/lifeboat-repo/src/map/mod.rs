//! Maps: which bytes of which file lie where (format 7).

mod row;
mod slot;

pub(crate) use row::{ROW_BYTES, Row};
pub(crate) use slot::{SLOT_BYTES, Slot, max_overlay_pages};

/// Map files are page files with pages of this size.
pub(crate) const MAP_PAGE_BYTES: u64 = 4096;
/// Ranges of rows begin at multiples of this: one page of the row space.
pub(crate) const ROWS_PER_PAGE: u64 = MAP_PAGE_BYTES / ROW_BYTES as u64;
/// Overlays that one extent may carry.
pub(crate) const MAX_OVERLAYS: usize = 8;
