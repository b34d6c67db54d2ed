//! Page files in memory: sources that can fail or change length on purpose, sinks that can be looked into, and seeded content.
//!
//! Must not touch a disk.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lifeboat_io::flow::{PageSink, PageSource, SEGMENT_BYTES};
use lifeboat_model::{Error, ErrorKind, Result};

use crate::env::stream_of;

/// `size_bytes` bytes that do not compress, decided by `seed`.
#[must_use]
pub fn random_bytes(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    stream_of(seed, "bytes").fill(&mut bytes);
    bytes
}

/// `count` pages of `page_size` bytes that do not compress and of which no two are equal, decided by `seed`.
#[must_use]
pub fn random_pages(seed: u64, page_size: u32, count: usize) -> Vec<u8> {
    random_bytes(seed, page_size as usize * count)
}

/// `count` pages that look like a table: rows with a counter, words that repeat and some random digits; they compress to
/// about a third, and no two pages are equal. Decided by `seed`.
#[must_use]
pub fn table_pages(seed: u64, page_size: u32, count: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "open", "paid", "shipped", "returned", "Berlin", "Lisbon", "customer", "invoice",
    ];
    let size = page_size as usize * count;
    let mut stream = stream_of(seed, "table");
    let mut bytes = Vec::with_capacity(size + 64);
    let mut row = 0_u64;
    while bytes.len() < size {
        let mut random = [0; 8];
        stream.fill(&mut random);
        let word = WORDS[usize::from(random[0]) % WORDS.len()];
        let digits = u64::from_le_bytes(random);
        bytes.extend_from_slice(format!("|{row:012}|{word:<12}|{digits:016x}|2026-01-01|").as_bytes());
        row += 1;
    }
    bytes.truncate(size);
    bytes
}

/// Overwrites `count` different pages of `bytes` with new random content, decided by `seed`, and returns their numbers in
/// ascending order. At most all pages change.
pub fn change_pages(bytes: &mut [u8], page_size: u32, seed: u64, count: usize) -> Vec<usize> {
    let size = page_size as usize;
    let total = bytes.len() / size;
    let mut stream = stream_of(seed, "changes");
    let mut chosen = BTreeSet::new();
    while chosen.len() < count.min(total) {
        let mut random = [0; 8];
        stream.fill(&mut random);
        let page = u64::from_le_bytes(random) % (total as u64);
        chosen.insert(usize::try_from(page).unwrap_or(0));
    }
    for page in &chosen {
        stream.fill(&mut bytes[page * size..(page + 1) * size]);
    }
    chosen.into_iter().collect()
}

/// A [`PageSource`] over bytes in memory; can be told to fail.
#[derive(Debug)]
pub struct MemoryPages {
    bytes: Vec<u8>,
    page_size: u32,
    segment_bytes: usize,
    next: AtomicU64,
    fail_at: Option<u64>,
}

impl MemoryPages {
    /// Gives out `bytes` as pages of `page_size` bytes, in segments of [`SEGMENT_BYTES`].
    #[must_use]
    pub fn new(bytes: Vec<u8>, page_size: u32) -> Self {
        Self {
            bytes,
            page_size,
            segment_bytes: SEGMENT_BYTES,
            next: AtomicU64::new(0),
            fail_at: None,
        }
    }

    /// Uses segments of `segment_bytes`: a multiple of `EXTENT_BYTES`, at most [`SEGMENT_BYTES`].
    #[must_use]
    pub fn with_segments_of(mut self, segment_bytes: usize) -> Self {
        assert!(
            segment_bytes > 0 && segment_bytes <= SEGMENT_BYTES && segment_bytes.is_multiple_of(lifeboat_io::flow::EXTENT_BYTES)
        );
        self.segment_bytes = segment_bytes;
        self
    }

    /// The segment with this number (the first is 0) and every later one is an error of kind `Unreachable` instead. The number one past the last
    /// makes the end fail: everything was read, and then the source says no.
    #[must_use]
    pub fn failing_at(mut self, segment: u64) -> Self {
        self.fail_at = Some(segment);
        self
    }

    /// How many segments there are.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment_bytes) as u64
    }
}

impl PageSource for MemoryPages {
    fn page_size(&self) -> u32 {
        self.page_size
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
        let segment = self.next.fetch_add(1, Ordering::SeqCst);
        if self.fail_at.is_some_and(|fail_at| segment >= fail_at) {
            return Err(Error::new(
                ErrorKind::Unreachable,
                "read",
                "the source in memory",
                format!("the test made segment {segment} fail"),
            ));
        }
        let offset = segment * self.segment_bytes as u64;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start >= self.bytes.len() {
            return Ok(None);
        }
        let end = self.bytes.len().min(start + self.segment_bytes);
        buffer.clear();
        buffer.extend_from_slice(&self.bytes[start..end]);
        Ok(Some(offset))
    }
}

/// A [`PageSink`] into memory; can be told to fail.
#[derive(Debug, Default)]
pub struct MemorySink {
    bytes: Mutex<Vec<u8>>,
    finished: Mutex<Option<u64>>,
    writes: AtomicU64,
    fail_at: Option<u64>,
}

impl MemorySink {
    /// An empty file in memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The write with this number (the first is 0) and every later one is an error of kind `NoSpace`.
    #[must_use]
    pub fn failing_at(write: u64) -> Self {
        Self {
            fail_at: Some(write),
            ..Self::default()
        }
    }

    /// What was written so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The size that `finish` was called with; `None` while it was not.
    #[must_use]
    pub fn finished(&self) -> Option<u64> {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(offset: u64) -> Result<usize> {
    usize::try_from(offset)
        .map_err(|error| Error::new(ErrorKind::Bug, "write", "memory", "the offset does not fit").with_source(error))
}

impl PageSink for MemorySink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        if self.fail_at.is_some_and(|fail_at| number >= fail_at) {
            return Err(Error::new(
                ErrorKind::NoSpace,
                "write",
                "memory",
                format!("the test made write {number} fail"),
            ));
        }
        let start = place(offset)?;
        let mut file = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if file.len() < start + bytes.len() {
            file.resize(start + bytes.len(), 0);
        }
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let there = file.get(place(offset)?..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        buffer[count..].fill(0);
        Ok(())
    }

    fn finish(&self, size_bytes: u64) -> Result<()> {
        self.bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .resize(place(size_bytes)?, 0);
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(size_bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(source: &MemoryPages) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        let mut buffer = vec![9; 3];
        while let Some(offset) = source.next_segment(&mut buffer)? {
            assert_eq!(offset, whole.len() as u64);
            whole.extend_from_slice(&buffer);
        }
        Ok(whole)
    }

    #[test]
    fn a_source_gives_out_all_its_bytes_in_segments() {
        for size in [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 4096] {
            let bytes = random_bytes(1, size);
            assert_eq!(read_all(&MemoryPages::new(bytes.clone(), 4096)).unwrap(), bytes);
        }
    }

    #[test]
    fn a_source_fails_where_it_was_told_also_at_the_end() {
        for fail_at in 0..=3 {
            let source = MemoryPages::new(random_bytes(1, 3 * 131_072), 4096)
                .with_segments_of(131_072)
                .failing_at(fail_at);
            assert_eq!(source.segments(), 3);
            assert_eq!(read_all(&source).unwrap_err().kind(), ErrorKind::Unreachable, "at {fail_at}");
        }
    }

    #[test]
    fn a_sink_reads_zeros_where_nobody_wrote() {
        let sink = MemorySink::new();
        sink.write_at(4, b"abcd").unwrap();
        let mut buffer = [9; 10];
        sink.read_at(2, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0\0abcd\0\0\0\0");
        assert_eq!(sink.finished(), None);
        sink.finish(6).unwrap();
        assert_eq!(sink.bytes(), b"\0\0\0\0ab");
        assert_eq!(sink.finished(), Some(6));
        assert_eq!(
            MemorySink::failing_at(0).write_at(0, b"x").unwrap_err().kind(),
            ErrorKind::NoSpace
        );
    }

    #[test]
    fn changes_touch_exactly_the_pages_they_name() {
        let before = table_pages(3, 512, 64);
        assert_eq!(before.len(), 512 * 64);
        let mut after = before.clone();
        let changed = change_pages(&mut after, 512, 9, 7);
        assert_eq!(changed.len(), 7);
        for page in 0..64 {
            let range = page * 512..(page + 1) * 512;
            assert_eq!(before[range.clone()] != after[range], changed.contains(&page), "page {page}");
        }
        assert_eq!(random_pages(1, 512, 2).len(), 1024);
    }
}
