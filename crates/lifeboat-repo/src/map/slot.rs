//! An overlay slot: 64 bytes that say which pages of an extent are newer than its base, and where they lie.

use lifeboat_model::Result;

use super::row::{pack_length, unpack_length};
use crate::bytes::Fields;
use crate::key::Id;
use crate::pack::Placement;

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 64;

/// One overlay of one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The next older overlay; 0: none.
    pub(crate) next: u32,
    pub(crate) place: Placement,
    pub(crate) raw_bytes: u32,
    /// Index of this overlay's first page in the group.
    pub(crate) first: u16,
    /// Id of the group; its last 8 bytes are zero.
    pub(crate) group: Id,
    /// Pages of the extent; bit 0 is page 0.
    pub(crate) pages: u128,
    /// Id of the base blob; only in the oldest overlay, else zeros.
    pub(crate) base: Id,
}

impl Slot {
    pub(crate) fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&self.next.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.place.pack.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.place.offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&pack_length(&self.place).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.raw_bytes.to_le_bytes());
        bytes[20..22].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.group[..8]);
        bytes[32..48].copy_from_slice(&self.pages.to_le_bytes());
        bytes[48..].copy_from_slice(&self.base);
        bytes
    }

    /// `None` for an unused slot.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let mut fields = Fields::new(bytes, "an overlay slot");
        let (next, pack, offset, length, raw_bytes) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let first = fields.u16()?;
        fields.take(2)?;
        let mut group = Id::default();
        group[..8].copy_from_slice(fields.take(8)?);
        let pages = u128::from_le_bytes(fields.array()?);
        let base = fields.array()?;
        match length >> 24 {
            0 => Ok(None),
            form => Ok(Some(Self {
                next,
                place: unpack_length(pack, offset, length, form)?,
                raw_bytes,
                first,
                group,
                pages,
                base,
            })),
        }
    }
}

/// How many pages of an extent with `pages` pages overlays may replace: half. None where the bitmap is too short.
pub(crate) fn max_overlay_pages(pages: usize) -> u32 {
    if pages > 128 {
        0
    } else {
        u32::try_from(pages / 2).unwrap_or(0)
    }
}
