//! The overlay space while a backup is written: a file of slots, taken over from the parent and changed in place.
//!
//! The file belongs to the generation that is being written; the parent's own generation stays as it was.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use lifeboat_model::{Error, ErrorKind, Result};

use crate::map::{MAP_PAGE_BYTES, MAX_OVERLAYS, SLOT_BYTES, Slot};
use crate::sync::lock;

/// A bit for each number.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn get(&self, index: u32) -> bool {
        self.0
            .get(index as usize / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn set(&mut self, index: u32) {
        let word = index as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (index % 64);
    }
}

#[derive(Debug)]
pub(crate) struct Slots {
    file: File,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Slots that hold something.
    taken: Bits,
    /// Slots that a row of this backup reaches.
    reached: Bits,
    cursor: u32,
    end: u32,
}

fn io(error: std::io::Error) -> Error {
    Error::io("use", "the overlay slots of the local state", error)
}

impl Slots {
    /// Takes over `file`, a copy of the parent's overlay space (empty for a full backup).
    pub(crate) fn open(file: File) -> Result<Self> {
        let bytes = file.metadata().map_err(io)?.len();
        let mut inner = Inner {
            cursor: 1,
            end: 1,
            ..Inner::default()
        };
        let mut buffer = vec![0; usize::try_from(MAP_PAGE_BYTES).unwrap_or(4096) * 16];
        let mut at = 0;
        while at < bytes {
            let count = usize::try_from((bytes - at).min(buffer.len() as u64)).unwrap_or(buffer.len());
            file.read_exact_at(&mut buffer[..count], at).map_err(io)?;
            for (index, slot) in buffer[..count].chunks_exact(SLOT_BYTES).enumerate() {
                if Slot::decode(slot)?.is_some() {
                    let number = number_at(at / SLOT_BYTES as u64 + index as u64)?;
                    inner.taken.set(number);
                    inner.end = number + 1;
                }
            }
            at += count as u64;
        }
        Ok(Self {
            file,
            inner: Mutex::new(inner),
        })
    }

    fn read(&self, number: u32) -> Result<Option<Slot>> {
        let mut bytes = [0; SLOT_BYTES];
        self.file
            .read_exact_at(&mut bytes, u64::from(number) * SLOT_BYTES as u64)
            .map_err(io)?;
        Slot::decode(&bytes)
    }

    /// The overlays of a row, newest first, with their numbers. An impossible chain is `None`: the extent is then stored whole.
    pub(crate) fn chain(&self, head: u32) -> Result<Option<Vec<(u32, Slot)>>> {
        let mut chain = Vec::new();
        let mut next = head;
        while next != 0 {
            let known = lock(&self.inner).taken.get(next);
            let slot = if known && chain.len() < MAX_OVERLAYS {
                self.read(next)?
            } else {
                None
            };
            let Some(slot) = slot else { return Ok(None) };
            chain.push((next, slot));
            next = slot.next;
        }
        Ok(Some(chain))
    }

    /// A row of this backup keeps these.
    pub(crate) fn keep(&self, chain: &[(u32, Slot)]) {
        let mut inner = lock(&self.inner);
        for (number, _) in chain {
            inner.reached.set(*number);
        }
    }

    /// Puts a new slot into a free place.
    pub(crate) fn add(&self, slot: &Slot) -> Result<u32> {
        let number = {
            let mut inner = lock(&self.inner);
            while inner.taken.get(inner.cursor) {
                inner.cursor = inner.cursor.checked_add(1).ok_or_else(full)?;
            }
            let number = inner.cursor;
            inner.taken.set(number);
            inner.reached.set(number);
            inner.end = inner.end.max(number.checked_add(1).ok_or_else(full)?);
            number
        };
        self.file
            .write_all_at(&slot.encode(), u64::from(number) * SLOT_BYTES as u64)
            .map_err(io)?;
        Ok(number)
    }

    /// Clears what no row reaches, pads to a page, and gives the file back with its length in bytes.
    pub(crate) fn finish(&self) -> Result<(&File, u64)> {
        let inner = lock(&self.inner);
        for number in 1..inner.end {
            if inner.taken.get(number) && !inner.reached.get(number) {
                self.file
                    .write_all_at(&[0; SLOT_BYTES], u64::from(number) * SLOT_BYTES as u64)
                    .map_err(io)?;
            }
        }
        let last = (1..inner.end).rev().find(|number| inner.reached.get(*number));
        let bytes = last
            .map_or(0, |number| (u64::from(number) + 1) * SLOT_BYTES as u64)
            .next_multiple_of(MAP_PAGE_BYTES);
        self.file.set_len(bytes).map_err(io)?;
        Ok((&self.file, bytes))
    }
}

fn number_at(index: u64) -> Result<u32> {
    u32::try_from(index).map_err(|error| full().with_source(error))
}

fn full() -> Error {
    Error::new(
        ErrorKind::Failed,
        "use",
        "the overlay space",
        "it has no free slot left; run `lifeboat backup --full`",
    )
}
