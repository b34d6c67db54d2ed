//! The row space and the overlay space, stored as page files themselves: what did not change is shared with the parent.

use std::fs::File;
use std::os::unix::fs::FileExt;

use lifeboat_io::flow::EXTENT_BYTES;
use lifeboat_model::Result;

use super::pages::state_io;
use super::shared::Shared;
use crate::key::ID_BYTES;
use crate::manifest::Inline;
use crate::map::{MAP_PAGE_BYTES, Row};
use crate::pack::{Class, Compressor, PackBuilder, PackClass};

/// A space and its place in the parent.
pub(crate) struct Space<'a> {
    pub(crate) file: &'a File,
    pub(crate) size_bytes: u64,
    /// Where the page hashes of this generation go.
    pub(crate) hashes: &'a File,
    pub(crate) parent: Option<(&'a Inline, &'a File)>,
}

/// Stores what changed of a space; returns its rows. `pack` is the map pack that is being filled.
pub(crate) fn store(
    shared: &Shared,
    space: &Space<'_>,
    compressor: &mut Compressor,
    pack: &mut Option<PackBuilder>,
) -> Result<Inline> {
    let page_size = usize::try_from(MAP_PAGE_BYTES).unwrap_or(4096);
    let mut inline = Inline {
        size_bytes: space.size_bytes,
        rows: Vec::new(),
    };
    let mut bytes = vec![0; EXTENT_BYTES];
    let (mut hashes, mut old) = (Vec::new(), Vec::new());
    let mut offset = 0;
    while offset < space.size_bytes {
        let length = usize::try_from((space.size_bytes - offset).min(EXTENT_BYTES as u64)).unwrap_or(EXTENT_BYTES);
        let extent = &mut bytes[..length];
        space.file.read_exact_at(extent, offset).map_err(state_io)?;
        hashes.clear();
        shared.ids.page_hashes(extent, page_size, &mut hashes);
        let at = offset / MAP_PAGE_BYTES * ID_BYTES as u64;
        let row = match taken_over(shared, space, inline.rows.len(), length, at, &hashes, &mut old)? {
            Some(row) => row,
            None => {
                let id = shared.ids.extent(&hashes);
                let mut open = match pack.take() {
                    Some(open) => open,
                    None => shared.begin_pack(PackClass::Map)?,
                };
                let place = open.add(compressor, Class::MapExtent, extent, &id)?;
                if open.is_full() {
                    shared.upload(open.finish())?
                } else {
                    *pack = Some(open)
                }
                Row::Blob { place, extra: 0, id }
            }
        };
        if let Row::Blob { place, .. } = &row {
            shared.reach(place.pack);
        }
        space.hashes.write_all_at(&hashes, at).map_err(state_io)?;
        inline.rows.push(row);
        offset += length as u64;
    }
    Ok(inline)
}

fn taken_over(
    shared: &Shared,
    space: &Space<'_>,
    index: usize,
    length: usize,
    at: u64,
    hashes: &[u8],
    old: &mut Vec<u8>,
) -> Result<Option<Row>> {
    let Some((parent, parent_hashes)) = space.parent else {
        return Ok(None);
    };
    let offset = index as u64 * EXTENT_BYTES as u64;
    let parent_length = parent.size_bytes.saturating_sub(offset).min(EXTENT_BYTES as u64);
    let Some(row @ Row::Blob { place, .. }) = parent.rows.get(index) else {
        return Ok(None);
    };
    if parent_length != length as u64 || shared.lost.contains(&place.pack) {
        return Ok(None);
    }
    old.resize(hashes.len(), 0);
    parent_hashes.read_exact_at(old, at).map_err(state_io)?;
    Ok((old.as_slice() == hashes).then_some(*row))
}
