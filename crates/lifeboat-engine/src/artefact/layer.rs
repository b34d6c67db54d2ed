//! Readers that take one layer off, and a limit on what all of them give together.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::GzDecoder;

/// What all layers together may still give. A few bytes can be gzip of gzip of terabytes.
#[derive(Clone)]
pub(super) struct Budget {
    left: Rc<Cell<u64>>,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: Rc::new(Cell::new(bytes)),
        }
    }
}

/// The limit was reached; found again among the sources of an error by its type.
#[derive(Debug)]
pub(super) struct OverBudget;

impl std::fmt::Display for OverBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it unpacks to more than the limit")
    }
}

impl std::error::Error for OverBudget {}

/// Charges what passes to a budget.
pub(super) struct Charged<R> {
    inner: R,
    budget: Budget,
}

impl<R: Read> Charged<R> {
    pub(super) fn new(inner: R, budget: &Budget) -> Self {
        Self {
            inner,
            budget: budget.clone(),
        }
    }
}

impl<R: Read> Read for Charged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.budget.left.get();
        match left.checked_sub(count as u64) {
            Some(left) => self.budget.left.set(left),
            None => return Err(io::Error::other(OverBudget)),
        }
        Ok(count)
    }
}

/// Sentences that layers have to say about what they read.
#[derive(Clone, Default)]
pub(super) struct Notes(Rc<std::cell::RefCell<Vec<String>>>);

impl Notes {
    pub(super) fn say(&self, note: impl Into<String>) {
        self.0.borrow_mut().push(note.into());
    }

    pub(super) fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// gzip, all members of a file one after the other. Zeros may follow (tapes pad), anything else is told and ignored: every member's
/// checksum was right.
pub(super) struct Gunzip<R: Read> {
    decoder: Option<GzDecoder<BufReader<R>>>,
    notes: Notes,
}

impl<R: Read> Gunzip<R> {
    pub(super) fn new(inner: R, notes: &Notes) -> Self {
        Self {
            decoder: Some(GzDecoder::new(BufReader::with_capacity(64 << 10, inner))),
            notes: notes.clone(),
        }
    }

    fn next_member(&mut self, mut inner: BufReader<R>) -> io::Result<()> {
        let mut ignored = 0;
        loop {
            let rest = inner.fill_buf()?;
            if rest.is_empty() {
                break;
            }
            if ignored == 0 && rest.starts_with(&[0x1f, 0x8b]) {
                self.decoder = Some(GzDecoder::new(inner));
                return Ok(());
            }
            ignored += rest.iter().filter(|byte| **byte != 0).count();
            let length = rest.len();
            inner.consume(length);
        }
        if ignored > 0 {
            self.notes
                .say("something that is no gzip follows the compressed data; it was ignored, the checksum of the data is right");
        }
        Ok(())
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(decoder) = self.decoder.as_mut() else { return Ok(0) };
            let count = decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if let Some(decoder) = self.decoder.take() {
                self.next_member(decoder.into_inner())?;
            }
        }
    }
}

/// Remembers whether the last block that passed was all zeros: a tar that is whole ends with such.
pub(super) struct EndMark<R> {
    inner: R,
    zeros: Rc<Cell<u64>>,
}

impl<R: Read> EndMark<R> {
    pub(super) fn new(inner: R) -> (Self, Rc<Cell<u64>>) {
        let zeros = Rc::new(Cell::new(0));
        (
            Self {
                inner,
                zeros: Rc::clone(&zeros),
            },
            zeros,
        )
    }
}

impl<R: Read> Read for EndMark<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        let trailing = bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let before = if trailing == count { self.zeros.get() } else { 0 };
        self.zeros.set(before.saturating_add(trailing as u64));
        Ok(count)
    }
}
