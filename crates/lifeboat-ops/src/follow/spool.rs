//! The spool: log that is on this disk and not yet in every store that the plan requires (PG-02, PG-03).
//!
//! A folder for each lineage. One file for each stretch of log within a block of 16 MiB, named `<timeline>-<start>` in hexadecimal digits, and
//! history files `<timeline>.history`. A stretch is a row of records, each with its hash, so that a torn end is seen for what it is:
//! ```text
//!    0   4  "LBSR"
//!    4   4  length of the bytes
//!    8   8  the position of the first
//!   16  16  BLAKE3 of timeline, position, length and bytes, cut
//!   32   …  the bytes
//! ```
//! Order: records are written → file fsync → folder fsync where a file is new → the bytes count. If we die before, the next opening cuts what is
//! torn and makes durable what is whole. A failed write or fsync takes back everything since the last one that succeeded: the caller asks the
//! server for it again. What this module holds is never given up by itself. Blocks; callers cross over with `lifeboat_io::compute`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{block_end, block_start};

const OTHER_BYTES: &str = "take log into the spool for";
const OTHER_HISTORY: &str = "take the history of";

const MAGIC: [u8; 4] = *b"LBSR";
const HEAD_BYTES: u64 = 32;
/// A record is at most so long: what was received together is written together.
const RECORD_LIMIT_BYTES: usize = 1 << 20;

/// The folder, and what is in it.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    stretches: BTreeMap<(Timeline, Lsn), Stretch>,
    histories: BTreeMap<Timeline, Vec<u8>>,
    /// A file was made or removed since the folder was made durable.
    folder_dirty: bool,
}

/// One file.
#[derive(Debug)]
struct Stretch {
    path: PathBuf,
    file: Arc<File>,
    range: Range,
    records: Vec<Record>,
    length: u64,
    /// What was durable: records, and the length of the file.
    durable: (usize, u64),
}

#[derive(Debug, Clone, Copy)]
struct Record {
    start: Lsn,
    /// Of the bytes, behind the head.
    at: u64,
    length: usize,
}

/// Bytes that can be read without the spool at hand.
#[derive(Debug)]
pub(crate) struct Reading {
    file: Arc<File>,
    path: PathBuf,
    records: Vec<Record>,
    range: Range,
}

impl Spool {
    /// Opens the spool in `folder`, made where it is not there. Everything that is whole in it is durable afterwards.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        durable::create_folder(folder)?;
        durable::remove_leftovers(folder)?;
        let mut spool = Self {
            folder: folder.to_path_buf(),
            stretches: BTreeMap::new(),
            histories: BTreeMap::new(),
            folder_dirty: false,
        };
        let failed = |error| Error::io("look into", folder.display(), error);
        for found in folder.read_dir().map_err(failed)? {
            let found = found.map_err(failed)?;
            let name = found.file_name();
            let name = name.to_str().unwrap_or_default();
            if let Some(timeline) = name.strip_suffix(".history").and_then(timeline_of) {
                let text = std::fs::read(found.path()).map_err(|error| Error::io("read", found.path().display(), error))?;
                spool.histories.insert(timeline, text);
            } else if let Some((timeline, start)) = parse_name(name) {
                spool.take(found.path(), timeline, start)?;
            }
        }
        durable::sync_folder(folder)?;
        Ok(spool)
    }

    fn take(&mut self, path: PathBuf, timeline: Timeline, start: Lsn) -> Result<()> {
        let failed = |error| Error::io("read", path.display(), error);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let (records, length) = scan(&file, timeline, start).map_err(failed)?;
        if records.is_empty() {
            durable::remove_file(&path)?;
            return Ok(());
        }
        if file.metadata().map_err(failed)?.len() != length {
            file.set_len(length).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        let end = records.last().map_or(start, Record::end);
        let stretch = Stretch {
            path,
            file: Arc::new(file),
            range: Range::new(timeline, start, end),
            durable: (records.len(), length),
            records,
            length,
        };
        self.stretches.insert((timeline, start), stretch);
        Ok(())
    }

    /// Takes log that begins at `at`. What is held already has to be the same; the rest follows behind it, or begins a stretch of its own. It
    /// counts after [`Spool::sync`]. After an error nothing since the last sync counts.
    ///
    /// # Errors
    /// `Refused` where other bytes are held for a position (PG-06): nothing was changed at that position.
    pub(crate) fn append(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
        let (mut lsn, mut rest) = (at.lsn, bytes);
        while !rest.is_empty() {
            let room = usize::try_from(block_end(lsn).since(lsn)).unwrap_or(usize::MAX);
            let room = match self.next_start(at.timeline, lsn) {
                Some(next) => room.min(usize::try_from(next.since(lsn)).unwrap_or(usize::MAX)),
                None => room,
            };
            let (part, behind) = rest.split_at(room.min(rest.len()).min(RECORD_LIMIT_BYTES));
            let done = self.append_part(Position::new(at.timeline, lsn), part);
            if let Err(error) = done {
                self.take_back()?;
                return Err(error);
            }
            lsn = lsn.plus(part.len() as u64);
            rest = behind;
        }
        Ok(())
    }

    /// Where the next stretch behind `lsn` begins.
    fn next_start(&self, timeline: Timeline, lsn: Lsn) -> Option<Lsn> {
        let behind = (std::ops::Bound::Excluded((timeline, lsn)), std::ops::Bound::Unbounded);
        let next = self.stretches.range(behind).next();
        next.map(|((_, start), _)| *start)
            .filter(|_| next.is_some_and(|((other, _), _)| *other == timeline))
    }

    /// Within one block, and not over the start of a stretch.
    fn append_part(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
        let before = self
            .stretches
            .range(..=(at.timeline, at.lsn))
            .next_back()
            .map(|(key, _)| *key);
        let same_block = |key: &(Timeline, Lsn)| key.0 == at.timeline && block_start(key.1) == block_start(at.lsn);
        let within = |stretch: &Stretch| at.lsn <= stretch.range.end;
        let key = before
            .filter(same_block)
            .filter(|key| self.stretches.get(key).is_some_and(within));
        let Some(key) = key else {
            return self.begin(at, bytes);
        };
        let Some(stretch) = self.stretches.get_mut(&key) else {
            return Ok(());
        };
        let held = usize::try_from(stretch.range.end.since(at.lsn)).unwrap_or(usize::MAX);
        let (known, new) = bytes.split_at(held.min(bytes.len()));
        if !known.is_empty() {
            let common = Range::new(at.timeline, at.lsn, at.lsn.plus(known.len() as u64));
            if stretch.reading(common).read()? != known {
                return Err(other_bytes(common));
            }
        }
        stretch.write(new)
    }

    fn begin(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(format!("{:08x}-{:016x}", at.timeline.number(), at.lsn.0));
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(durable::FILE_MODE)
            .open(&path);
        let file = opened.map_err(|error| Error::io("write", path.display(), error))?;
        self.folder_dirty = true;
        let mut stretch = Stretch {
            path,
            file: Arc::new(file),
            range: Range::new(at.timeline, at.lsn, at.lsn),
            records: Vec::new(),
            length: 0,
            durable: (0, 0),
        };
        let written = stretch.write(bytes);
        self.stretches.insert((at.timeline, at.lsn), stretch);
        written
    }

    /// Makes durable what was appended. After an error nothing since the last success counts.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let synced = self.try_sync();
        if synced.is_err() {
            self.take_back()?;
        }
        synced
    }

    fn try_sync(&mut self) -> Result<()> {
        for stretch in self.stretches.values_mut().filter(|stretch| stretch.is_dirty()) {
            let synced = stretch.file.sync_data();
            synced.map_err(|error| Error::io("make durable", stretch.path.display(), error))?;
            stretch.durable = (stretch.records.len(), stretch.length);
        }
        if self.folder_dirty {
            durable::sync_folder(&self.folder)?;
            self.folder_dirty = false;
        }
        Ok(())
    }

    /// Forgets what is not durable: after a failed fsync nobody knows what of it is on the disk.
    fn take_back(&mut self) -> Result<()> {
        let mut gone = Vec::new();
        for (key, stretch) in self.stretches.iter_mut().filter(|(_, stretch)| stretch.is_dirty()) {
            let (records, length) = stretch.durable;
            stretch.records.truncate(records);
            stretch.length = length;
            let Some(last) = stretch.records.last() else {
                gone.push(*key);
                continue;
            };
            stretch.range.end = last.end();
            // Only tidiness: the end is known, and the next record is written there.
            let cut = stretch.file.set_len(length);
            cut.map_err(|error| Error::io("cut", stretch.path.display(), error))?;
        }
        for key in gone {
            if let Some(stretch) = self.stretches.remove(&key) {
                durable::remove_file(&stretch.path)?;
            }
        }
        Ok(())
    }

    /// Keeps the history file of a timeline. Another one than is kept is refused (PG-06).
    pub(crate) fn put_history(&mut self, timeline: Timeline, text: &[u8]) -> Result<()> {
        match self.histories.get(&timeline) {
            Some(known) if known == text => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Refused,
                OTHER_HISTORY,
                format!("timeline {timeline}"),
                "the server gives another one than before",
            )),
            None => {
                let path = self.history_path(timeline);
                durable::replace_file(&path, text, durable::FILE_MODE)?;
                self.histories.insert(timeline, text.to_vec());
                Ok(())
            }
        }
    }

    fn history_path(&self, timeline: Timeline) -> PathBuf {
        self.folder.join(format!("{:08x}.history", timeline.number()))
    }

    /// The history files that are kept.
    pub(crate) fn histories(&self) -> &BTreeMap<Timeline, Vec<u8>> {
        &self.histories
    }

    /// What is held here, and durable.
    pub(crate) fn coverage(&self) -> Coverage {
        let mut coverage = Coverage::new();
        self.ranges().for_each(|range| coverage.add(range));
        coverage
    }

    /// The durable part of each stretch, by timeline and position; each lies within one block.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.stretches.values().filter_map(|stretch| {
            let end = stretch.records.get(..stretch.durable.0)?.last()?.end();
            Some(Range::new(stretch.range.timeline, stretch.range.start, end))
        })
    }

    /// What it takes of the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.stretches.values().map(|stretch| stretch.length).sum()
    }

    /// Prepares to read `range`, which lies within one stretch: the reading itself needs no spool. `NotFound` where it is not held.
    pub(crate) fn reading(&self, range: Range) -> Result<Reading> {
        let before = self.stretches.range(..=(range.timeline, range.start)).next_back();
        match before {
            Some((_, stretch)) if stretch.range.contains(&range) => Ok(stretch.reading(range)),
            _ => Err(Error::new(
                ErrorKind::NotFound,
                "read the spool for",
                range,
                "it is not held there",
            )),
        }
    }

    /// Gives up the stretches inside `range`: it stands in every store that is required (PG-03). Returns the bytes of disk that went.
    pub(crate) fn give_up(&mut self, range: Range) -> Result<u64> {
        let inside = |stretch: &Stretch| range.contains(&stretch.range) && !stretch.is_dirty();
        let keys: Vec<_> = self
            .stretches
            .iter()
            .filter(|(_, stretch)| inside(stretch))
            .map(|(key, _)| *key)
            .collect();
        let mut freed = 0;
        for key in keys {
            if let Some(stretch) = self.stretches.get(&key) {
                durable::remove_file(&stretch.path)?;
                freed += stretch.length;
                self.stretches.remove(&key);
            }
        }
        Ok(freed)
    }

    /// Gives up a history file that stands in every store that is required.
    pub(crate) fn give_up_history(&mut self, timeline: Timeline) -> Result<()> {
        durable::remove_file(&self.history_path(timeline))?;
        self.histories.remove(&timeline);
        Ok(())
    }
}

impl Record {
    fn end(&self) -> Lsn {
        self.start.plus(self.length as u64)
    }
}

impl Stretch {
    fn is_dirty(&self) -> bool {
        self.durable.1 != self.length
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let start = self.range.end;
        let mut record = Vec::with_capacity(bytes.len() + 32);
        record.extend_from_slice(&MAGIC);
        record.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        record.extend_from_slice(&start.0.to_le_bytes());
        record.extend_from_slice(&hash(self.range.timeline, start, bytes));
        record.extend_from_slice(bytes);
        let written = self.file.write_all_at(&record, self.length);
        written.map_err(|error| Error::io("write", self.path.display(), error))?;
        self.records.push(Record {
            start,
            at: self.length + HEAD_BYTES,
            length: bytes.len(),
        });
        self.length += record.len() as u64;
        self.range.end = start.plus(bytes.len() as u64);
        Ok(())
    }

    fn reading(&self, range: Range) -> Reading {
        let from = self.records.partition_point(|record| record.end() <= range.start);
        let until = self.records.partition_point(|record| record.start < range.end);
        Reading {
            file: Arc::clone(&self.file),
            path: self.path.clone(),
            records: self.records.get(from..until).unwrap_or_default().to_vec(),
            range,
        }
    }
}

impl Reading {
    /// The bytes of the range.
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.range.bytes()).unwrap_or_default());
        for record in &self.records {
            let (from, until) = (record.start.max(self.range.start), record.end().min(self.range.end));
            let before = bytes.len();
            bytes.resize(before + usize::try_from(until.since(from)).unwrap_or_default(), 0);
            let part = bytes.get_mut(before..).unwrap_or_default();
            let read = self.file.read_exact_at(part, record.at + from.since(record.start));
            read.map_err(|error| Error::io("read", self.path.display(), error))?;
        }
        Ok(bytes)
    }
}

/// The whole records at the beginning of a file, and where they end. Anything behind them was never durable.
fn scan(file: &File, timeline: Timeline, start: Lsn) -> std::io::Result<(Vec<Record>, u64)> {
    let size = file.metadata()?.len();
    let (mut records, mut at, mut next) = (Vec::new(), 0, start);
    let mut bytes = Vec::new();
    while size.saturating_sub(at) > HEAD_BYTES {
        let mut head = [0; 32];
        file.read_exact_at(&mut head, at)?;
        let part = |from: usize, length: usize| head.get(from..from + length).unwrap_or_default();
        let number = |part: &[u8]| part.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let length = usize::try_from(number(part(4, 4))).unwrap_or(usize::MAX);
        let sound = part(0, 4) == MAGIC.as_slice()
            && number(part(8, 8)) == next.0
            && (1..=RECORD_LIMIT_BYTES).contains(&length)
            && length as u64 <= size - at - HEAD_BYTES
            && next.plus(length as u64) <= block_end(start);
        if !sound {
            break;
        }
        bytes.resize(length, 0);
        file.read_exact_at(&mut bytes, at + HEAD_BYTES)?;
        if hash(timeline, next, &bytes).as_slice() != part(16, 16) {
            break;
        }
        records.push(Record {
            start: next,
            at: at + HEAD_BYTES,
            length,
        });
        at += HEAD_BYTES + length as u64;
        next = next.plus(length as u64);
    }
    Ok((records, at))
}

fn hash(timeline: Timeline, start: Lsn, bytes: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&timeline.number().to_le_bytes());
    hasher.update(&start.0.to_le_bytes());
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
    let mut cut = [0; 16];
    cut.iter_mut()
        .zip(hasher.finalize().as_bytes())
        .for_each(|(to, from)| *to = *from);
    cut
}

fn timeline_of(digits: &str) -> Option<Timeline> {
    (digits.len() == 8).then_some(())?;
    Timeline::new(u32::from_str_radix(digits, 16).ok()?).ok()
}

fn parse_name(name: &str) -> Option<(Timeline, Lsn)> {
    let (timeline, start) = name.split_once('-')?;
    (start.len() == 16).then_some(())?;
    Some((timeline_of(timeline)?, Lsn(u64::from_str_radix(start, 16).ok()?)))
}

/// Whether the spool holds other bytes than the server gives (PG-06).
pub(crate) fn is_conflict(error: &Error) -> bool {
    error.kind() == ErrorKind::Refused && matches!(error.op(), OTHER_BYTES | OTHER_HISTORY)
}

/// PG-06.
fn other_bytes(range: Range) -> Error {
    Error::new(ErrorKind::Refused, OTHER_BYTES, range, "other bytes are held for it already")
        .with_hint("the source was set back to an earlier moment; what is held stays, and a new lineage begins")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn bytes(from: u64, length: usize) -> Vec<u8> {
        (from..)
            .take(length)
            .map(|at| u8::try_from(((at * 7) >> 3) % 251).unwrap())
            .collect()
    }

    fn at(lsn: u64) -> Position {
        Position::new(Timeline::FIRST, Lsn(lsn))
    }

    fn range(start: u64, end: u64) -> Range {
        Range::new(Timeline::FIRST, Lsn(start), Lsn(end))
    }

    fn read(spool: &Spool, range: Range) -> Vec<u8> {
        spool.reading(range).unwrap().read().unwrap()
    }

    #[test]
    fn what_was_synced_is_held_and_nothing_else_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        let start = 16 * MIB - 100;
        spool.append(at(start), &bytes(start, 300)).unwrap();
        assert!(spool.coverage().is_empty(), "it was not synced");
        spool.sync().unwrap();
        assert_eq!(
            spool.ranges().collect::<Vec<_>>(),
            [range(start, 16 * MIB), range(16 * MIB, 16 * MIB + 200)]
        );
        // The same again, in other parts, and on from there.
        spool.append(at(start + 50), &bytes(start + 50, 400)).unwrap();
        spool.sync().unwrap();
        assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(start, start + 450)]);
        assert_eq!(read(&spool, range(start + 120, start + 400)), bytes(start + 120, 280));
        assert_eq!(
            spool.reading(range(start, start + 451)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        drop(spool);
        let mut spool = Spool::open(folder.path()).unwrap();
        assert_eq!(read(&spool, range(16 * MIB, start + 450)), bytes(16 * MIB, 350));
        // Other bytes (PG-06), and what came with them, are not taken.
        let mut other = bytes(start + 440, 30);
        other[3] ^= 1;
        let error = spool.append(at(start + 440), &other).unwrap_err();
        assert!(is_conflict(&error), "{error}");
        spool.sync().unwrap();
        assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(start, start + 450)]);
        // Whole stretches inside the range go, others stay.
        spool.give_up(range(start, 16 * MIB + 1)).unwrap();
        assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(16 * MIB, start + 450)]);
        // Behind a hole a stretch of its own begins, and what fills the hole joins them.
        spool.append(at(16 * MIB + 1000), &bytes(16 * MIB + 1000, 100)).unwrap();
        spool.append(at(16 * MIB + 300), &bytes(16 * MIB + 300, 750)).unwrap();
        spool.sync().unwrap();
        assert_eq!(
            spool.coverage().ranges().collect::<Vec<_>>(),
            [range(16 * MIB, 16 * MIB + 1100)]
        );
    }

    /// PG-02: whatever a crash leaves of the last writes, everything before them is there, and nothing that was not written.
    #[test]
    fn a_torn_end_is_cut_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        spool.append(at(0), &bytes(0, 500)).unwrap();
        spool.sync().unwrap();
        let path = folder.path().join("00000001-0000000000000000");
        let durable = std::fs::read(&path).unwrap();
        spool.append(at(500), &bytes(500, 200)).unwrap();
        drop(spool);
        let whole = std::fs::read(&path).unwrap();
        for length in durable.len()..=whole.len() {
            // Cut there, or zeros from there on, as a file system leaves them.
            for zeros in [0, whole.len() - length] {
                let mut torn = whole[..length].to_vec();
                torn.resize(length + zeros, 0);
                #[expect(clippy::disallowed_methods, reason = "a test tears a file")]
                std::fs::write(&path, &torn).unwrap();
                let mut spool = Spool::open(folder.path()).unwrap();
                let end = if torn == whole { 700 } else { 500 };
                assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(0, end)], "{length}");
                spool.append(at(end), &bytes(end, 10)).unwrap();
                spool.sync().unwrap();
                assert_eq!(read(&spool, range(0, end + 10)), bytes(0, usize::try_from(end).unwrap() + 10));
            }
        }
    }

    #[test]
    fn a_history_is_kept_and_no_other_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path()).unwrap();
        let two = Timeline::new(2).unwrap();
        spool.put_history(two, b"1\t0/3000000\tx\n").unwrap();
        spool.put_history(two, b"1\t0/3000000\tx\n").unwrap();
        assert!(is_conflict(&spool.put_history(two, b"1\t0/4000000\tx\n").unwrap_err()));
        let mut spool = Spool::open(folder.path()).unwrap();
        assert_eq!(spool.histories().len(), 1);
        spool.give_up_history(two).unwrap();
        assert!(Spool::open(folder.path()).unwrap().histories().is_empty());
    }
}
