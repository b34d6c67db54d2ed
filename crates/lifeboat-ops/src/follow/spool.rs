//! The spool: log that is on this disk and not yet in every store that the plan requires (PG-02, PG-03).
//!
//! A folder for each lineage. One file for each stretch of log within a block of 16 MiB, named `<timeline>-<start>` in hexadecimal digits, and
//! history files `<timeline>.history`. A stretch is a row of records, each with its hash, so that a torn end is seen for what it is:
//! ```text
//!    0   4  "LBSX"
//!    4   4  length of the bytes
//!    8   8  the position of the first
//!   16  16  XXH3 (128 bits, no seed) of timeline, position, length, and the XXH3 of the bytes
//!   32   …  the bytes
//! ```
//! Numbers are little-endian; in what is hashed the timeline has 4 bytes, position and length have 8 each. Records that begin with "LBSR" have BLAKE3 there, cut, of
//! timeline, position, length and bytes; they are read, too. Whatever record comes later begins with "LBS" as well.
//!
//! Behind the last record there may be zeros: room that was made durable beforehand, so that the fsync of a small record, for which a commit
//! may be waiting, writes the record alone and neither a new size nor new blocks. Files of whole blocks are used again (`spare-…`), with what they
//! held before: 32 zeros behind a record, or the end of its block, say that none follows, whatever comes then. A record that stands there all the same,
//! in its place, is one behind damage.
//!
//! Order: records are written → file fsync → folder fsync where a file is new → the bytes count. If we die before, the next opening cuts what is
//! torn and makes durable what is whole. What is damaged and not torn (a sound record follows, a newer file stands, or what stands there is not the
//! beginning of a record: a newer program may have written it) is kept aside as `damaged-…`, sound records behind the damage are taken over, and
//! what is missing is a hole. A failed write or fsync takes back everything since the last one that succeeded: the caller asks the
//! server for it again. What this module holds is never given up by itself. Blocks; callers cross over with `lifeboat_io::compute`.

mod record;
mod spare;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_io::durable;
use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{block_end, block_start};

use record::{HEAD_BYTES, RECORD_LIMIT_BYTES, Record, encode, scan};
pub(crate) use record::{Reading, is_damage};
use spare::Spares;

/// What is written together and is shorter than this is followed by room.
const SMALL_BYTES: u64 = 128 << 10;
/// Room is made for so many bytes at once: more would hold up the commit that waits for it, less would come more often.
const ROOM_BYTES: u64 = 1 << 20;
/// The zeros are written in pieces: the kernel keeps what is written at once together, and a sync writes all of that again for one byte in it (measured: 80 times as much as was new, where a MiB was written at once).
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
/// The kernel writes no less, and reads none of it that is written whole.
const PAGE_BYTES: u64 = 4 << 10;

const OTHER_BYTES: &str = "take log into the spool for";
const OTHER_HISTORY: &str = "take the history of";

/// Files that are kept aside begin so.
pub(super) const DAMAGED: &str = "damaged-";

/// The folder, and what is in it.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    stretches: BTreeMap<(Timeline, Lsn), Stretch>,
    histories: BTreeMap<Timeline, Vec<u8>>,
    spares: Spares,
    /// A file was made or removed since the folder was made durable.
    folder_dirty: bool,
    /// What was kept aside, in words.
    damaged: Vec<String>,
}

/// A file that was read, and is to be cut where it is whole.
struct Cut {
    path: PathBuf,
    timeline: Timeline,
    file: Arc<File>,
    length: u64,
    is_cut: bool,
    behind: Vec<(Lsn, Vec<u8>)>,
}

/// One file.
#[derive(Debug)]
struct Stretch {
    path: PathBuf,
    file: Arc<File>,
    range: Range,
    records: Vec<Record>,
    /// Where the records end.
    length: u64,
    /// Of the file: what is behind the records is room.
    size: u64,
    /// What was durable: records, and where they end.
    durable: (usize, u64),
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
            spares: Spares::default(),
            folder_dirty: false,
            damaged: Vec::new(),
        };
        let failed = |error| Error::io("look into", folder.display(), error);
        let mut files = BTreeMap::new();
        for found in folder.read_dir().map_err(failed)? {
            let found = found.map_err(failed)?;
            let name = found.file_name();
            let name = name.to_str().unwrap_or_default();
            if let Some(timeline) = name.strip_suffix(".history").and_then(timeline_of) {
                let text = std::fs::read(found.path()).map_err(|error| Error::io("read", found.path().display(), error))?;
                spool.histories.insert(timeline, text);
            } else if let Some((timeline, start)) = parse_name(name) {
                files.insert((timeline, start), found.path());
            } else if Spares::is_one(name) {
                durable::remove_file(&found.path())?;
            }
        }
        let newest = files.keys().next_back().copied();
        let mut cuts = Vec::new();
        for ((timeline, start), path) in files {
            cuts.push(spool.take(path, timeline, start, Some((timeline, start)) == newest)?);
        }
        // Everything that is whole is known by now: what lay behind damage may have been taken over before.
        for cut in cuts {
            spool.cut(cut)?;
        }
        durable::sync_folder(folder)?;
        Ok(spool)
    }

    fn take(&mut self, path: PathBuf, timeline: Timeline, start: Lsn, is_newest: bool) -> Result<Cut> {
        let failed = |error| Error::io("read", path.display(), error);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let scanned = scan(&file, timeline, start).map_err(failed)?;
        let end = scanned.records.last().map_or(start, Record::end);
        let is_torn = is_newest && scanned.behind.is_empty() && !scanned.is_strange;
        if scanned.is_cut && !is_torn {
            // Its last records were acknowledged long ago, or may have been: nothing of it goes before it lies elsewhere.
            let aside = keep_aside(&path)?;
            let kept: usize = scanned.behind.iter().map(|(_, bytes)| bytes.len()).sum();
            let why = if scanned.is_strange {
                ", or written by a newer Lifeboat,"
            } else {
                ""
            };
            self.damaged.push(format!(
                "THE SPOOL WAS DAMAGED{why} at {}: the file is kept as {}, {kept} bytes behind the damage are taken over, and what is missing is asked for again",
                Position::new(timeline, end),
                aside.display()
            ));
        }
        let stretch = Stretch {
            path: path.clone(),
            file: Arc::new(file),
            range: Range::new(timeline, start, end),
            durable: (scanned.records.len(), scanned.length),
            records: scanned.records,
            length: scanned.length,
            size: if scanned.is_cut { scanned.length } else { scanned.size },
        };
        let cut = Cut {
            path,
            timeline,
            file: Arc::clone(&stretch.file),
            length: scanned.length,
            is_cut: scanned.is_cut,
            behind: scanned.behind,
        };
        if !stretch.records.is_empty() {
            self.stretches.insert((timeline, start), stretch);
        }
        Ok(cut)
    }

    /// Takes over what is sound behind damage, then cuts the file where it is whole.
    fn cut(&mut self, cut: Cut) -> Result<()> {
        let failed = |error| Error::io("cut", cut.path.display(), error);
        for (at, bytes) in &cut.behind {
            self.append(Position::new(cut.timeline, *at), bytes)?;
        }
        self.sync()?;
        if cut.length == 0 {
            return durable::remove_file(&cut.path);
        }
        if cut.is_cut {
            cut.file.set_len(cut.length).map_err(failed)?;
        }
        cut.file.sync_all().map_err(failed)
    }

    /// What was kept aside since the last time this was asked, in words.
    pub(crate) fn take_damaged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.damaged)
    }

    /// Reads everything again: what is damaged by now is kept aside. What was not yet durable is given up. Says what was found.
    pub(crate) fn look_through(&mut self) -> Result<Vec<String>> {
        self.take_back()?;
        let keys: Vec<_> = self.stretches.keys().copied().collect();
        for key in keys {
            let Some(stretch) = self.stretches.get(&key) else { continue };
            let failed = |error| Error::io("read", stretch.path.display(), error);
            let scanned = scan(&stretch.file, key.0, key.1).map_err(failed)?;
            if scanned.records.len() >= stretch.records.len() {
                continue;
            }
            // Not torn: it was whole once.
            let path = stretch.path.clone();
            self.stretches.remove(&key);
            let cut = self.take(path, key.0, key.1, false)?;
            self.cut(cut)?;
        }
        Ok(self.take_damaged())
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
            if done.is_err() {
                return done.and(self.take_back());
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
        let (file, size) = match self.spares.take(&path) {
            Some(spare) => spare,
            None => (Arc::new(create(&path)?), 0),
        };
        self.folder_dirty = true;
        let mut stretch = Stretch {
            path,
            file,
            range: Range::new(at.timeline, at.lsn, at.lsn),
            records: Vec::new(),
            length: 0,
            size,
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
            // The first error is the one to tell.
            return synced.and(self.take_back());
        }
        // Only now: a file counts with its name.
        for stretch in self.stretches.values_mut().filter(|stretch| stretch.is_dirty()) {
            stretch.durable = (stretch.records.len(), stretch.length);
        }
        Ok(())
    }

    fn try_sync(&mut self) -> Result<()> {
        for stretch in self.stretches.values().filter(|stretch| stretch.is_dirty()) {
            let synced = stretch.file.sync_data();
            synced.map_err(|error| Error::io("make durable", stretch.path.display(), error))?;
        }
        if self.folder_dirty {
            durable::sync_folder(&self.folder)?;
            self.folder_dirty = false;
        }
        Ok(())
    }

    /// Forgets what is not durable: after a failed fsync nobody knows what of it is on the disk. All of it, whatever error comes on the way.
    fn take_back(&mut self) -> Result<()> {
        let mut done = Ok(());
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
            stretch.size = length;
            done = done.and(cut.map_err(|error| Error::io("cut", stretch.path.display(), error)));
        }
        for key in gone {
            if let Some(stretch) = self.stretches.remove(&key) {
                done = done.and(durable::remove_file(&stretch.path));
            }
        }
        done
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

    /// What it takes of the disk; files that are kept to be used again, two at most, come on top.
    pub(crate) fn bytes(&self) -> u64 {
        self.stretches.values().map(|stretch| stretch.size).sum()
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

    /// Gives up the stretches inside `range`: it stands in every store that is required (PG-03). Returns the bytes of disk that they took.
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
                if !self.spares.keep(stretch)? {
                    durable::remove_file(&stretch.path)?;
                }
                freed += stretch.size;
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

impl Stretch {
    fn is_dirty(&self) -> bool {
        self.durable.1 != self.length
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let start = self.range.end;
        let length = HEAD_BYTES + bytes.len() as u64;
        self.make_room(length);
        let record = encode(self.range.timeline, start, bytes, self.zeros_behind(length));
        if let Err(error) = self.file.write_all_at(&record, self.length) {
            // What was written of it is not taken for damage later. Only tidiness: the next record is written there.
            if self.file.set_len(self.length).is_ok() {
                self.size = self.length;
            }
            return Err(Error::io("write", self.path.display(), error));
        }
        self.records.push(Record {
            start,
            at: self.length + HEAD_BYTES,
            length: bytes.len(),
        });
        self.length += length;
        self.size = self.size.max(self.length);
        self.range.end = start.plus(bytes.len() as u64);
        Ok(())
    }

    /// How many zeros are to follow a record of that length: the next head's, and up to the end of a page. Behind the end of the file none are needed.
    fn zeros_behind(&self, record: u64) -> usize {
        let end = self.length + record;
        let until = (end + HEAD_BYTES).next_multiple_of(PAGE_BYTES).min(self.size);
        usize::try_from(until.saturating_sub(end)).unwrap_or_default()
    }

    /// Writes zeros behind where a small record will end, unless there are some. The next fsync makes both durable. A disk that has no room for them may
    /// have some for the record.
    fn make_room(&mut self, record: u64) {
        let end = self.length + record;
        if end <= self.size || record > SMALL_BYTES {
            return;
        }
        let size = end.next_multiple_of(ROOM_BYTES);
        while self.size < size {
            // Up to where the next piece begins, so that none lies across two.
            let to = (self.size + 1).next_multiple_of(ZEROS.len() as u64).min(size);
            let zeros = ZEROS.get(..usize::try_from(to - self.size).unwrap_or_default());
            if self.file.write_all_at(zeros.unwrap_or_default(), self.size).is_err() {
                return;
            }
            self.size = to;
        }
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

fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    // One that is there without being known was taken back, and could not be removed.
    let opened = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(durable::FILE_MODE)
        .open(path);
    opened.map_err(|error| Error::io("write", path.display(), error))
}

/// A copy of a damaged file, durable, under a name that is never read again.
fn keep_aside(path: &Path) -> Result<PathBuf> {
    let bytes = std::fs::read(path).map_err(|error| Error::io("read", path.display(), error))?;
    let name = path.file_name().unwrap_or_default().display().to_string();
    let mut number = 1_u32;
    loop {
        let aside = durable::parent_of(path).join(format!("{DAMAGED}{name}-{number}"));
        match durable::create_file(&aside, &bytes, durable::FILE_MODE)? {
            durable::Created::New => return Ok(aside),
            // Found before, when we died on the way.
            durable::Created::AlreadyThere => number += 1,
        }
    }
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
