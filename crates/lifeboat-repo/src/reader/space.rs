//! Reading the row space and the overlay space, extent by extent.

use std::collections::VecDeque;
use std::sync::Arc;

use lifeboat_io::flow::EXTENT_BYTES;
use lifeboat_model::{Error, ErrorKind, Result};

use super::{Inner, extent_length};
use crate::bytes::size;
use crate::key::Id;
use crate::manifest::Inline;
use crate::map::Row;
use crate::pack::Class;
use crate::sync::lock;

/// Extents kept in memory.
const CACHED_EXTENTS: usize = 16;

#[derive(Debug)]
pub(super) struct SpaceReader<'a> {
    inner: &'a Inner,
    inline: &'a Inline,
    cache: VecDeque<(u64, Arc<Vec<u8>>)>,
}

impl<'a> SpaceReader<'a> {
    pub(super) fn new(inner: &'a Inner, inline: &'a Inline) -> Self {
        Self {
            inner,
            inline,
            cache: VecDeque::new(),
        }
    }

    /// Appends the bytes `offset..offset + length` to `out`.
    pub(super) async fn read(&mut self, offset: u64, length: u64, out: &mut Vec<u8>) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let index = at / EXTENT_BYTES as u64;
            let start = index * EXTENT_BYTES as u64;
            let extent = self.extent(index).await?;
            let from = size(at - start, "a map")?;
            let to = size((end - start).min(extent.len() as u64), "a map")?;
            let part = extent.get(from..to).filter(|part| !part.is_empty());
            let part =
                part.ok_or_else(|| Error::new(ErrorKind::Corrupt, "read", "the maps", "a row or slot lies outside of them"))?;
            out.extend_from_slice(part);
            at = start + to as u64;
        }
        Ok(())
    }

    async fn extent(&mut self, index: u64) -> Result<&[u8]> {
        if let Some(position) = self.cache.iter().position(|(cached, _)| *cached == index) {
            return Ok(self
                .cache
                .get(position)
                .map(|(_, bytes)| bytes.as_slice())
                .unwrap_or_default());
        }
        let outside = || Error::new(ErrorKind::Corrupt, "read", "the maps", "a row or slot lies outside of them");
        let row = self.inline.rows.get(size(index, "a map")?).ok_or_else(outside)?;
        let Row::Blob { place, id, .. } = row else {
            return Err(outside());
        };
        let raw_bytes = extent_length(self.inline.size_bytes, index)?;
        let bytes = match self.inner.known_extent(id) {
            Some(known) => known,
            None => {
                let bytes = Arc::new(self.inner.blob(*place, Class::MapExtent, raw_bytes, *id).await?);
                self.inner.remember_extent(*id, Arc::clone(&bytes));
                bytes
            }
        };
        if self.cache.len() >= CACHED_EXTENTS {
            self.cache.pop_front();
        }
        self.cache.push_back((index, bytes));
        Ok(self.cache.back().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}

impl Inner {
    /// A piece of the maps that another file has needed just now.
    fn known_extent(&self, id: &Id) -> Option<Arc<Vec<u8>>> {
        let known = lock(&self.extents);
        known
            .iter()
            .find(|(known, _)| known == id)
            .map(|(_, bytes)| Arc::clone(bytes))
    }

    fn remember_extent(&self, id: Id, bytes: Arc<Vec<u8>>) {
        let mut known = lock(&self.extents);
        if known.len() >= CACHED_EXTENTS {
            known.pop_front();
        }
        known.push_back((id, bytes));
    }
}
