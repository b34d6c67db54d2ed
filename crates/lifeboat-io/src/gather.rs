//! Pieces of large files that come in almost any order, gathered into blocks that go to the disk around the page cache, and the same
//! files read back from there.
//!
//! Chunks of a stream begin and end anywhere; the disk wants whole blocks. A block that is whole is written at once; one that is not when
//! the room is needed, or at the end, goes through the cache. Nothing is durable before the file is synced.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_model::{Error, Result};

use crate::direct::{self, Aligned};

/// Bytes of a block; each begins at a multiple of it.
pub const BLOCK: usize = 1 << 20;

/// Rooms kept for the next blocks.
const SPARE: usize = 8;

/// Finds a file by its number, and what errors call it; files are opened when a block of them is written.
pub type Open<'a> = &'a dyn Fn(u64) -> Result<(File, String)>;

/// Is told what was handed to the disk.
pub trait Watch: std::fmt::Debug + Send + Sync {
    /// All bytes of the block of `file` that begins at `offset`: a whole one, or at the end the beginning of one. Nobody is told of a block
    /// that had to be written in parts.
    fn written(&self, file: u64, offset: u64, bytes: &[u8]);
}

/// A block that is not whole yet.
#[derive(Debug)]
struct Block {
    file: u64,
    /// Its number in the file.
    number: u64,
    bytes: Aligned,
    /// What has come, as begin and end in the block, in order.
    pieces: Vec<(usize, usize)>,
}

impl Block {
    /// How long the beginning is that has come without a hole; nothing where something lies behind a hole.
    fn unbroken(&self) -> Option<usize> {
        self.pieces
            .iter()
            .try_fold(0, |end, (from, to)| (*from == end).then_some(*to))
    }

    /// Notes that these bytes came; what they touch becomes one piece with them.
    fn insert(&mut self, mut from: usize, mut to: usize) {
        self.pieces.retain(|(begin, end)| {
            let apart = *end < from || *begin > to;
            if !apart {
                from = from.min(*begin);
                to = to.max(*end);
            }
            apart
        });
        let at = self.pieces.partition_point(|(begin, _)| *begin < from);
        self.pieces.insert(at, (from, to));
    }

    fn is_whole(&self) -> bool {
        self.unbroken() == Some(BLOCK)
    }

    fn write(&self, file: &File) -> std::io::Result<()> {
        let offset = self.number * BLOCK as u64;
        if self.is_whole()
            && let Some(around) = direct::open(file)
        {
            match around.write_all_at(self.bytes.bytes(), offset) {
                Err(error) if direct::refused(&error) => {}
                written => return written,
            }
        }
        for (from, to) in &self.pieces {
            let piece = self.bytes.bytes().get(*from..*to).unwrap_or_default();
            file.write_all_at(piece, offset + *from as u64)?;
        }
        Ok(())
    }
}

/// Blocks of many files, on their way.
#[derive(Debug)]
pub struct Gather {
    blocks: Mutex<Vec<Block>>,
    spare: Mutex<Vec<Aligned>>,
    most: usize,
    watch: Option<Arc<dyn Watch>>,
}

impl Gather {
    /// Gathers at most `most` MiB at once, and tells `watch`, if there is one, what was written.
    #[must_use]
    pub fn new(most: usize, watch: Option<Arc<dyn Watch>>) -> Self {
        Self {
            blocks: Mutex::default(),
            spare: Mutex::default(),
            most,
            watch,
        }
    }

    /// Takes a piece of the file `file`, which belongs at `offset`. A byte may come again when no call from before is
    /// still under way: the later one counts.
    pub fn put(&self, file: u64, mut offset: u64, mut piece: &[u8], open: Open<'_>) -> Result<()> {
        while !piece.is_empty() {
            let (number, from) = (
                offset / BLOCK as u64,
                usize::try_from(offset % BLOCK as u64).unwrap_or_default(),
            );
            let (here, rest) = piece.split_at(piece.len().min(BLOCK - from));
            for block in self.add(file, number, from, here) {
                self.write(block, open)?;
            }
            offset += here.len() as u64;
            piece = rest;
        }
        Ok(())
    }

    /// Writes everything that has come of `file` and is still gathered.
    pub fn end(&self, file: u64, open: Open<'_>) -> Result<()> {
        let left: Vec<Block> = {
            let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            blocks.extract_if(.., |block| block.file == file).collect()
        };
        left.into_iter().try_for_each(|block| self.write(block, open))
    }

    /// Puts a piece into its block; returns the blocks that are to be written now.
    fn add(&self, file: u64, number: u64, from: usize, piece: &[u8]) -> Vec<Block> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        let known = blocks.iter().position(|block| block.file == file && block.number == number);
        let index = known.unwrap_or_else(|| {
            if blocks.len() >= self.most {
                // The oldest: what is missing of it comes last, if ever.
                due.push(blocks.remove(0));
            }
            let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
            blocks.push(Block {
                file,
                number,
                bytes: spare.unwrap_or_else(|| Aligned::new(BLOCK)),
                pieces: Vec::new(),
            });
            blocks.len() - 1
        });
        let to = from + piece.len();
        let whole = blocks.get_mut(index).is_some_and(|block| {
            if let Some(room) = block.bytes.bytes_mut().get_mut(from..to) {
                room.copy_from_slice(piece);
            }
            block.insert(from, to);
            block.is_whole()
        });
        if whole {
            due.push(blocks.remove(index));
        }
        due
    }

    fn write(&self, block: Block, open: Open<'_>) -> Result<()> {
        let (file, name) = open(block.file)?;
        block
            .write(&file)
            .map_err(|error| Error::io("write", format!("{name} at {} MiB", block.number), error))?;
        if let Some((watch, end)) = self.watch.as_ref().zip(block.unbroken()) {
            let bytes = block.bytes.bytes().get(..end).unwrap_or_default();
            watch.written(block.file, block.number * BLOCK as u64, bytes);
        }
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // What is gathered takes from here first, so that both together are not much more than asked for.
        if spare.len() < SPARE.min(self.most) {
            spare.push(block.bytes);
        }
        Ok(())
    }
}

/// A file, read piece by piece: around the page cache where that is offered.
#[derive(Debug)]
pub struct ReadBack<'a> {
    file: &'a File,
    around: Option<File>,
}

impl<'a> ReadBack<'a> {
    /// Reads `file`: from the disk itself where `around` is wanted and possible.
    #[must_use]
    pub fn new(file: &'a File, around: bool) -> Self {
        let around = if around { direct::open(file) } else { None };
        Self { file, around }
    }

    /// Fills the beginning of `buffer` with what is at `offset`: at least one byte and at most `wanted`.
    pub fn read_at(&mut self, offset: u64, wanted: usize, buffer: &mut Aligned) -> std::io::Result<usize> {
        loop {
            match self.read_some(offset, wanted, buffer) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => return Ok(count.min(wanted)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn read_some(&mut self, offset: u64, wanted: usize, buffer: &mut Aligned) -> std::io::Result<usize> {
        if let Some(around) = &self.around
            && offset.is_multiple_of(direct::BLOCK_BYTES as u64)
        {
            // Whole blocks: the last one of the file comes short.
            let blocks = wanted.next_multiple_of(direct::BLOCK_BYTES).min(buffer.len());
            match around.read_at(buffer.bytes_mut().get_mut(..blocks).unwrap_or_default(), offset) {
                Err(error) if direct::refused(&error) => self.around = None,
                read => return read,
            }
        }
        let most = wanted.min(buffer.len());
        self.file
            .read_at(buffer.bytes_mut().get_mut(..most).unwrap_or_default(), offset)
    }
}
