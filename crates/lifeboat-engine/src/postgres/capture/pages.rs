//! A file of pages, read by several threads while the server writes to it; every page is checked on its way (PG-11).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_io::flow::{PageSource, Segments};
use lifeboat_model::{Error, ErrorKind, Lsn, Result};

use super::pace::Pace;
use crate::postgres::page::{PAGE_BYTES, Verdict, judge};

/// How often a page is read again before it is called damaged.
const LOOKS: u32 = 6;
/// Before the first further look; doubled each time. A server needs microseconds to write a page.
const PAUSE: Duration = Duration::from_millis(2);
/// Pages that are named one by one; more are counted.
const NAMED: usize = 10_000;

/// A page that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadPage {
    /// The file, relative to the data directory.
    pub path: String,
    /// The block in the file's relation.
    pub block: u32,
    /// The position that the page claims for its last change.
    pub lsn: Lsn,
}

/// What all readers found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    inner: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    bad: Vec<BadPage>,
    bad_count: u64,
    /// Torn pages that the log repairs, if it reaches as far as they claim.
    replayed: Vec<BadPage>,
}

impl Findings {
    fn bad(&self, page: BadPage) {
        let mut found = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        found.bad_count += 1;
        if found.bad.len() < NAMED {
            found.bad.push(page);
        }
    }

    fn replayed(&self, page: BadPage) {
        let mut found = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if found.replayed.len() < NAMED {
            found.replayed.push(page);
        } else {
            // Nobody tears ten thousand pages; what cannot be followed up is not called fine.
            drop(found);
            self.bad(page);
        }
    }

    /// The bad pages and how many there are, now that the log is known to end at `end`: a page cannot have been changed behind it.
    pub(super) fn judge(&self, end: Lsn) -> (Vec<BadPage>, u64) {
        let mut found = std::mem::take(&mut *self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        let future = found.replayed.into_iter().filter(|page| page.lsn > end);
        found.bad.extend(future.inspect(|_page| found.bad_count += 1));
        found.bad.sort();
        (found.bad, found.bad_count)
    }
}

/// How pages are checked.
#[derive(Debug, Clone)]
pub(super) struct Checking {
    pub(super) start: Lsn,
    pub(super) findings: Arc<Findings>,
}

/// A [`PageSource`] over a file that may grow and shrink: its length is what it was when it was opened; what is cut off meanwhile reads as
/// zeros, as in the server's own base backup, and recovery cuts it off again.
#[derive(Debug)]
pub(super) struct PageFile {
    file: File,
    path: String,
    place: PathBuf,
    first_block: u32,
    segments: Segments,
    checking: Option<Checking>,
    pace: Option<Arc<Pace>>,
}

impl PageFile {
    pub(super) fn new(
        file: File,
        place: &Path,
        path: &str,
        first_block: u32,
        size_bytes: u64,
        checking: Option<Checking>,
    ) -> Self {
        Self {
            file,
            path: path.to_owned(),
            place: place.to_owned(),
            first_block,
            segments: Segments::of(size_bytes),
            checking,
            pace: None,
        }
    }

    /// The same, no faster than this.
    pub(super) fn at(self, pace: Option<Arc<Pace>>) -> Self {
        Self { pace, ..self }
    }

    /// Fills `buffer` from `offset`, with zeros behind the file's end.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + done as u64) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io("read", self.place.display(), error)
                        .with_kind(ErrorKind::Unreachable)
                        .with_hint(
                            "the disk may be failing: look at the kernel's log, and restore the last good backup elsewhere",
                        ));
                }
            }
        }
        Ok(())
    }

    fn check(&self, checking: &Checking, offset: u64, buffer: &mut [u8]) -> Result<()> {
        for (index, page) in buffer.chunks_exact_mut(PAGE_BYTES).enumerate() {
            let at = offset + (index * PAGE_BYTES) as u64;
            // A file has at most 131,072 pages; a longer one is none of PostgreSQL's, and its blocks have no names.
            let in_file = u32::try_from(at / PAGE_BYTES as u64).unwrap_or(u32::MAX);
            let block = self.first_block.saturating_add(in_file);
            if judge(page, block, checking.start) != Verdict::Fine {
                self.look_again(checking, at, block, page)?;
            }
        }
        Ok(())
    }

    /// The torn-page rule: what the log repairs is left to it; the rest is read again until it fits, or is still the same.
    fn look_again(&self, checking: &Checking, at: u64, block: u32, page: &mut [u8]) -> Result<()> {
        let (mut pause, mut unchanged) = (PAUSE, 0);
        let mut before = page.to_vec();
        for look in 0.. {
            let (lsn, repaired) = match judge(page, block, checking.start) {
                Verdict::Fine => return Ok(()),
                Verdict::Replayed(lsn) => (lsn, true),
                Verdict::Doubtful(lsn) => (lsn, false),
            };
            let found = BadPage {
                path: self.path.clone(),
                block,
                lsn,
            };
            if repaired {
                checking.findings.replayed(found);
                return Ok(());
            }
            if look == LOOKS || unchanged == 2 {
                checking.findings.bad(found);
                return Ok(());
            }
            std::thread::sleep(pause);
            pause *= 2;
            self.read(at, page)?;
            unchanged = if before == page { unchanged + 1 } else { 0 };
            before.copy_from_slice(page);
        }
        Ok(())
    }
}

/// Checks pages that pass once and cannot be read again: what does not fit is damaged, unless the log repairs it. A stream comes from a server
/// that reads its files as we do, so a page can be torn only where it was changed after the backup began.
pub(super) fn check_once(checking: &Checking, path: &str, first_block: u32, offset: u64, buffer: &[u8]) {
    for (index, page) in buffer.chunks(PAGE_BYTES).enumerate() {
        let in_file = u32::try_from(offset / PAGE_BYTES as u64 + index as u64).unwrap_or(u32::MAX);
        let block = first_block.saturating_add(in_file);
        let (lsn, repaired) = match judge(page, block, checking.start) {
            Verdict::Fine => continue,
            Verdict::Replayed(lsn) => (lsn, true),
            Verdict::Doubtful(lsn) => (lsn, false),
        };
        let found = BadPage {
            path: path.to_owned(),
            block,
            lsn,
        };
        if repaired {
            checking.findings.replayed(found);
        } else {
            checking.findings.bad(found);
        }
    }
}

impl PageSource for PageFile {
    fn page_size(&self) -> u32 {
        // 8,192.
        u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX)
    }

    fn size_bytes(&self) -> u64 {
        self.segments.size_bytes()
    }

    fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
        let Some((offset, length)) = self.segments.next() else {
            return Ok(None);
        };
        if let Some(pace) = &self.pace {
            pace.wait(length as u64);
        }
        buffer.resize(length, 0);
        self.read(offset, buffer)?;
        if let Some(checking) = &self.checking {
            self.check(checking, offset, buffer)?;
        }
        Ok(Some(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::page::checksum;

    fn page(block: u32, lsn: u32) -> Vec<u8> {
        let mut page = [7_u8; PAGE_BYTES];
        page[..4].fill(0);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        let sum = checksum(&page, block).to_le_bytes();
        page[8..10].copy_from_slice(&sum);
        page.to_vec()
    }

    fn source(bytes: &[u8], size_bytes: u64, findings: &Arc<Findings>) -> PageFile {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let checking = Checking {
            start: Lsn(100),
            findings: Arc::clone(findings),
        };
        PageFile::new(file, Path::new("/x"), "base/5/1.1", 131_072, size_bytes, Some(checking))
    }

    fn all(source: &PageFile) -> Vec<u8> {
        let (mut whole, mut buffer) = (Vec::new(), Vec::new());
        while let Some(offset) = source.next_segment(&mut buffer).unwrap() {
            assert_eq!(offset, whole.len() as u64);
            whole.extend_from_slice(&buffer);
        }
        whole
    }

    #[test]
    fn bad_pages_are_named_and_handed_on_as_they_are() {
        let mut bytes: Vec<u8> = (0..300).flat_map(|block| page(131_072 + block, 50)).collect();
        bytes[200 * PAGE_BYTES + 4000] ^= 1;
        // Torn, and written after the beginning: the log repairs the first, and cannot know the second.
        for (block, lsn) in [(210_u32, 150_u32), (220, 9000)] {
            let at = block as usize * PAGE_BYTES;
            bytes[at..at + PAGE_BYTES].copy_from_slice(&page(131_072 + block, lsn));
            bytes[at + 5000] ^= 1;
        }
        let findings = Arc::new(Findings::default());
        assert_eq!(all(&source(&bytes, bytes.len() as u64, &findings)), bytes);
        let (bad, count) = findings.judge(Lsn(1000));
        let blocks: Vec<(u32, Lsn)> = bad.iter().map(|page| (page.block, page.lsn)).collect();
        assert_eq!(blocks, [(131_272, Lsn(50)), (131_292, Lsn(9000))]);
        assert_eq!(count, 2);
    }

    #[test]
    fn a_file_that_shrank_reads_as_zeros_behind_its_end() {
        let bytes = page(131_072, 50);
        let findings = Arc::new(Findings::default());
        let whole = all(&source(&bytes, 3 << 20, &findings));
        assert_eq!(whole.len(), 3 << 20);
        assert!(whole.starts_with(&bytes) && whole[PAGE_BYTES..].iter().all(|byte| *byte == 0));
        assert_eq!(findings.judge(Lsn(1000)).1, 0);
    }

    #[test]
    fn a_page_that_is_whole_at_the_second_look_is_fine() {
        let whole = page(131_072, 50);
        let mut torn = whole.clone();
        torn[4096..].fill(0);
        let findings = Arc::new(Findings::default());
        let source = source(&whole, PAGE_BYTES as u64, &findings);
        let checking = source.checking.clone().unwrap();
        source.check(&checking, 0, &mut torn).unwrap();
        assert_eq!(torn, whole);
        assert_eq!(findings.judge(Lsn(1000)).1, 0);
    }
}
