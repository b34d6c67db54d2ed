//! Streams: ordinary bytes, cut by content, compared with the parent's chunks.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastcdc::v2020::{Normalization, StreamCDC};
use lifeboat_model::{Error, ErrorKind, Result};

use super::shared::Shared;
use crate::bytes::len_u32;
use crate::key::Id;
use crate::map::Row;
use crate::pack::{Class, Compressor, PackBuilder, PackClass};

const CHUNK_MIN_BYTES: usize = 128 << 10;
const CHUNK_AVERAGE_BYTES: usize = 512 << 10;
const CHUNK_MAX_BYTES: usize = 2 << 20;

/// Chunks of the parent that lie on packs which are there.
pub(crate) type KnownChunks = HashMap<Id, Row>;

/// What became of a stream.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) rows: Vec<Row>,
    pub(crate) size_bytes: u64,
    pub(crate) root: [u8; 32],
}

/// Stores streams of one session, several at once, on threads that may block.
#[derive(Debug, Clone)]
pub struct Streams {
    pub(super) shared: Arc<Shared>,
    pub(super) chunks: Arc<KnownChunks>,
}

/// A stream whose bytes are on their way into the store. It is part of a backup once [`super::Writer::add_stream`] has taken it; until then no backup may
/// be made (INV-03).
#[derive(Debug)]
#[must_use]
pub struct StoredStream {
    pub(super) stored: Stored,
}

impl StoredStream {
    /// Bytes that were read.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.stored.size_bytes
    }
}

impl Streams {
    /// Reads `reader` to its end. `name` is for errors. Blocks; ends early where the session was given up.
    pub fn store(&self, name: &str, reader: impl Read) -> Result<StoredStream> {
        // Never less again unless somebody takes what came of it.
        self.shared.open_streams.fetch_add(1, Ordering::Relaxed);
        let stored = store(&self.shared, PackClass::Data, &self.chunks, name, reader);
        if stored.is_err() {
            self.shared.cancel();
        }
        stored.map(|stored| StoredStream { stored })
    }

    /// Tells everybody who stores streams of this session to stop.
    pub fn cancel(&self) {
        self.shared.cancel();
    }

    /// Whether somebody has told them.
    ///
    /// # Errors
    /// `Interrupted` where that is so.
    pub fn check_cancelled(&self) -> Result<()> {
        self.shared.check_cancelled()
    }
}

/// Reads `reader` to its end into packs of `class`. `name` is for errors.
pub(crate) fn store(shared: &Shared, class: PackClass, known: &KnownChunks, name: &str, reader: impl Read) -> Result<Stored> {
    let mut sink = Sink {
        shared,
        class,
        compressor: Compressor::new()?,
        pack: None,
    };
    let seed = shared.ids.chunk_seed;
    let chunker = StreamCDC::with_level_and_seed(
        reader,
        CHUNK_MIN_BYTES,
        CHUNK_AVERAGE_BYTES,
        CHUNK_MAX_BYTES,
        Normalization::Level1,
        seed,
    );
    let mut rows = Vec::new();
    let mut size_bytes = 0;
    for chunk in chunker {
        shared.check_cancelled()?;
        let chunk = chunk
            .map_err(|error| Error::new(ErrorKind::Unreachable, "read", name, error.to_string()))?
            .data;
        size_bytes += chunk.len() as u64;
        if class == PackClass::Data {
            shared.read_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            shared.env.progress.advance(chunk.len() as u64);
        }
        rows.push(sink.chunk(known, &chunk)?);
    }
    sink.finish()?;
    let mut root = shared.ids.root(size_bytes, 0);
    for row in &rows {
        root.add(&row.id());
    }
    Ok(Stored {
        rows,
        size_bytes,
        root: root.finish(),
    })
}

struct Sink<'a> {
    shared: &'a Shared,
    class: PackClass,
    compressor: Compressor,
    pack: Option<PackBuilder>,
}

impl Sink<'_> {
    fn chunk(&mut self, known: &KnownChunks, chunk: &[u8]) -> Result<Row> {
        let id = self.shared.ids.chunk(chunk);
        let extra = len_u32(chunk.len(), "a chunk")?;
        if let Some(
            row @ Row::Blob {
                place, extra: length, ..
            },
        ) = known.get(&id)
            && *length == extra
        {
            self.shared.reach(place.pack);
            return Ok(*row);
        }
        if self.class == PackClass::Data {
            self.shared.changed_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None if self.class == PackClass::Data => self.shared.take_open()?,
            None => self.shared.begin_pack(self.class)?,
        };
        let place = pack.add(&mut self.compressor, Class::Chunk, chunk, &id)?;
        self.shared.reach(pack.number());
        if pack.is_full() {
            self.shared.upload(pack.finish())?;
        } else {
            self.pack = Some(pack);
        }
        Ok(Row::Blob { place, extra, id })
    }

    fn finish(&mut self) -> Result<()> {
        match self.pack.take() {
            Some(pack) if self.class == PackClass::Data => self.shared.give_back(pack),
            Some(pack) => self.shared.upload(pack.finish())?,
            None => {}
        }
        Ok(())
    }
}
