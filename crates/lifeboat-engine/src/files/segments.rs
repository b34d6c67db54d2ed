//! Many files in few streams: new content goes behind what is there, a segment ends at a file's end once it is long enough.
//!
//! Handed over in blocks through a bounded queue, so that memory does not grow with the source (INV-08).

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_model::{Error, ErrorKind, Result};

use super::memory;

/// A segment ends at the first file that ends behind this: its rows fill a page of the row space.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Handed over at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that wait.
pub(super) const QUEUE: usize = 4;

/// What the capturing thread says.
#[derive(Debug)]
pub(super) enum Message {
    Begin(String),
    Bytes(Vec<u8>),
    End,
}

/// The writing end.
#[derive(Debug)]
pub(super) struct Segments {
    queue: SyncSender<Message>,
    next: u64,
    current: Option<String>,
    /// Bytes of the current segment so far, those that wait included.
    length: u64,
    waiting: Vec<u8>,
    /// New segments and their bytes.
    pub(super) written: Vec<(String, u64)>,
}

fn abandoned() -> Error {
    Error::new(ErrorKind::Interrupted, "back up", "the files", "the backup was given up")
}

impl Segments {
    /// Continues behind the segments that are known.
    pub(super) fn new<'a>(queue: SyncSender<Message>, known: impl Iterator<Item = &'a String>) -> Self {
        let number = |name: &String| name.strip_prefix("segment-").and_then(|number| number.parse::<u64>().ok());
        Self {
            queue,
            next: known.filter_map(number).max().unwrap_or(0),
            current: None,
            length: 0,
            waiting: Vec::new(),
            written: Vec::new(),
        }
    }

    fn send(&self, message: Message) -> Result<()> {
        self.queue.send(message).map_err(|_gone| abandoned())
    }

    /// Where the next byte will stand.
    pub(super) fn place(&mut self) -> Result<Option<(String, u64)>> {
        if self.length >= SEGMENT_BYTES {
            self.end()?;
        }
        let name = match &self.current {
            Some(name) => name.clone(),
            None => {
                self.next += 1;
                let name = format!("segment-{:08}", self.next);
                self.send(Message::Begin(name.clone()))?;
                self.length = 0;
                self.current = Some(name.clone());
                name
            }
        };
        Ok(Some((name, self.length)))
    }

    /// Adds a small file; returns where it stands, nowhere if it is empty.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<Option<(String, u64)>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let place = self.place()?;
        self.append(bytes)?;
        Ok(place)
    }

    /// Adds bytes at the place that [`Segments::place`] named.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.waiting.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        if self.waiting.len() >= BLOCK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.waiting);
        self.send(Message::Bytes(block))
    }

    fn end(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(name) = self.current.take() {
            self.send(Message::End)?;
            self.written.push((name, self.length));
        }
        self.length = 0;
        Ok(())
    }

    /// Ends the last segment; returns all that were written.
    pub(super) fn finish(mut self) -> Result<Vec<(String, u64)>> {
        self.end()?;
        Ok(std::mem::take(&mut self.written))
    }
}

/// A segment as it comes out of the queue.
#[derive(Debug)]
pub(super) struct SegmentReader {
    queue: Arc<Mutex<Receiver<Message>>>,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

impl SegmentReader {
    pub(super) fn new(queue: Arc<Mutex<Receiver<Message>>>) -> Self {
        Self {
            queue,
            block: Vec::new(),
            at: 0,
            ended: false,
        }
    }
}

impl Read for SegmentReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at >= self.block.len() && !self.ended {
            let message = self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            match message {
                Ok(Message::Bytes(block)) => (self.block, self.at) = (block, 0),
                Ok(Message::End) => self.ended = true,
                Ok(Message::Begin(_)) | Err(_) => return Err(std::io::Error::other("the capture ended early")),
            }
        }
        let left = self.block.get(self.at..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Segments that are not worth keeping: half of their bytes or more are needed by nothing, or they are many and small. What is still
/// needed of them is read again and goes into new ones.
pub(super) fn worn(segments: &memory::Segments) -> BTreeSet<String> {
    const SMALL_BYTES: u64 = 8 << 20;
    const MANY: usize = 16;
    let small: Vec<&String> = segments
        .iter()
        .filter(|(_, (size, _))| *size < SMALL_BYTES)
        .map(|(name, _)| name)
        .collect();
    let many = small.len() > MANY;
    segments
        .iter()
        .filter(|(_, (size, needed))| needed.saturating_mul(2) <= *size)
        .map(|(name, _)| name)
        .chain(small.into_iter().filter(|_| many))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_empty_and_many_small_segments_are_worn() {
        let mut segments = memory::Segments::new();
        segments.insert("a".into(), (100 << 20, 60 << 20));
        segments.insert("b".into(), (100 << 20, 50 << 20));
        segments.insert("c".into(), (1, 1));
        assert_eq!(worn(&segments), BTreeSet::from(["b".to_owned()]));
        for number in 0..16 {
            segments.insert(format!("s{number}"), (10, 10));
        }
        assert_eq!(worn(&segments).len(), 18);
        assert!(!worn(&segments).contains("a"));
    }
}
