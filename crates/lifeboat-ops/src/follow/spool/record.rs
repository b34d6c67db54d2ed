//! Records of the spool: one hash each, checked whenever they are read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_model::wal::Range;
use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::block_end;
use twox_hash::XxHash3_128;

/// Records begin so.
const MAGIC: [u8; 4] = *b"LBSX";
/// Records of before, with BLAKE3: they are read (docs/decisions/0019).
const MAGIC_BLAKE3: [u8; 4] = *b"LBSR";
/// So does whatever a later release may write.
const FAMILY: [u8; 3] = *b"LBS";
pub(super) const HEAD_BYTES: u64 = 32;
/// A record is at most so long: what was received together is written together.
pub(super) const RECORD_LIMIT_BYTES: usize = 1 << 20;

const READ: &str = "read the spool for";

/// Where a record lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) start: Lsn,
    /// Of the bytes, behind the head.
    pub(super) at: u64,
    pub(super) length: usize,
}

impl Record {
    pub(super) fn end(&self) -> Lsn {
        self.start.plus(self.length as u64)
    }
}

/// Bytes that can be read without the spool at hand.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) records: Vec<Record>,
    pub(super) range: Range,
}

impl Reading {
    /// The bytes of the range, verified. See [`is_damage`].
    pub(crate) fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.range.bytes()).unwrap_or_default());
        let mut whole = Vec::new();
        for record in &self.records {
            whole.resize(record.length + 32, 0);
            let read = self.file.read_exact_at(&mut whole, record.at - HEAD_BYTES);
            read.map_err(|error| Error::io("read", self.path.display(), error))?;
            let (head, content) = whole.split_at(32);
            let is_sound =
                Head::parse(head).is_some_and(|head| head.start == record.start && head.is_of(self.range.timeline, content));
            if !is_sound {
                let detail = format!("the record at {} is damaged", record.start);
                return Err(Error::new(ErrorKind::Corrupt, READ, self.range, detail)
                    .with_hint("the file is kept aside, and the server is asked for it again"));
            }
            let offset = |lsn: Lsn| usize::try_from(lsn.since(record.start)).unwrap_or(usize::MAX);
            let (from, until) = (record.start.max(self.range.start), record.end().min(self.range.end));
            bytes.extend_from_slice(content.get(offset(from)..offset(until)).unwrap_or_default());
        }
        Ok(bytes)
    }
}

/// Whether it says that something in the spool was damaged after it had been written.
pub(crate) fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt && error.op() == READ
}

/// By what a record is hashed, as its first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sum {
    /// Cut.
    Blake3,
    /// 128 bits, of timeline, position, length, and the XXH3 of the bytes.
    Xxh3,
}

impl Sum {
    fn parse(magic: &[u8]) -> Option<Self> {
        if magic.starts_with(&MAGIC) {
            Some(Self::Xxh3)
        } else if magic.starts_with(&MAGIC_BLAKE3) {
            Some(Self::Blake3)
        } else {
            None
        }
    }

    fn of(self, timeline: Timeline, start: Lsn, bytes: &[u8]) -> [u8; 16] {
        let (timeline, start) = (timeline.number().to_le_bytes(), start.0.to_le_bytes());
        let length = (bytes.len() as u64).to_le_bytes();
        match self {
            Self::Xxh3 => {
                let inner = XxHash3_128::oneshot(bytes).to_le_bytes();
                let outer = [&timeline[..], &start, &length, &inner].concat();
                XxHash3_128::oneshot(&outer).to_le_bytes()
            }
            Self::Blake3 => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&timeline);
                hasher.update(&start);
                hasher.update(&length);
                hasher.update(bytes);
                let mut cut = [0; 16];
                let hash = hasher.finalize();
                cut.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
                cut
            }
        }
    }
}

/// What stands in front of the bytes of a record.
struct Head {
    sum: Sum,
    length: usize,
    start: Lsn,
    hash: [u8; 16],
}

impl Head {
    fn parse(head: &[u8]) -> Option<Self> {
        let sum = Sum::parse(head)?;
        let length: [u8; 4] = head.get(4..8)?.try_into().ok()?;
        let start: [u8; 8] = head.get(8..16)?.try_into().ok()?;
        let hash = head.get(16..32)?.try_into().ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        (1..=RECORD_LIMIT_BYTES).contains(&length).then_some(Self {
            sum,
            length,
            start: Lsn(u64::from_le_bytes(start)),
            hash,
        })
    }

    /// Whether these bytes of that timeline are the ones that it stands in front of.
    fn is_of(&self, timeline: Timeline, bytes: &[u8]) -> bool {
        self.length == bytes.len() && self.hash == self.sum.of(timeline, self.start, bytes)
    }
}

/// A record as it is written, and so many zeros behind it.
pub(super) fn encode(timeline: Timeline, start: Lsn, bytes: &[u8], zeros: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(bytes.len() + 32 + zeros);
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&start.0.to_le_bytes());
    record.extend_from_slice(&Sum::Xxh3.of(timeline, start, bytes));
    record.extend_from_slice(bytes);
    record.resize(record.len() + zeros, 0);
    record
}

/// What a file holds.
pub(super) struct Scanned {
    /// The whole records at its beginning.
    pub(super) records: Vec<Record>,
    /// Where they end.
    pub(super) length: u64,
    /// Of the file.
    pub(super) size: u64,
    /// Whether they do not end where the file says that they do: torn, damaged, or strange.
    pub(super) is_cut: bool,
    /// Whether that is the beginning of a record of another sort, or such that no crash of ours leaves it behind: not the beginning of one of ours of
    /// which only a part came to the disk, nor, in a file that was used before, whatever was there then.
    pub(super) is_strange: bool,
    /// Sound records behind that.
    pub(super) behind: Vec<(Lsn, Vec<u8>)>,
}

/// Reads a file that begins at `start`.
pub(super) fn scan(file: &File, timeline: Timeline, start: Lsn) -> std::io::Result<Scanned> {
    let size = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0)?;
    let (mut records, mut at, mut next) = (Vec::new(), 0, start);
    while let Some((first, content)) = record_at(&bytes, at, timeline) {
        let end = next.plus(content.len() as u64);
        if first != next || end > block_end(start) {
            break;
        }
        records.push(Record {
            start: next,
            at: at as u64 + HEAD_BYTES,
            length: content.len(),
        });
        (at, next) = (at + 32 + content.len(), end);
    }
    let length = at as u64;
    let rest = bytes.get(at..).unwrap_or_default();
    // What an earlier use of the file left may follow that.
    let says_end = next == block_end(start) || rest.iter().take(32).all(|byte| *byte == 0);
    let is_part_of = |magic: [u8; 4]| rest.iter().zip(magic).all(|(byte, ours)| *byte == 0 || *byte == ours);
    let is_ours = is_part_of(MAGIC) || is_part_of(MAGIC_BLAKE3);
    let (mut behind, mut was_used) = (Vec::new(), false);
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|window| Sum::parse(window).is_some()))
    {
        at += found;
        let Some((first, content)) = record_at(&bytes, at, timeline) else {
            at += 1;
            continue;
        };
        let end = first.plus(content.len() as u64);
        if first >= next && end <= block_end(start) {
            behind.push((first, content.to_vec()));
            next = end;
        } else {
            was_used = true;
        }
        at += 32 + content.len();
    }
    Ok(Scanned {
        records,
        length,
        size,
        is_cut: !says_end || !behind.is_empty(),
        is_strange: !is_ours && (rest.starts_with(&FAMILY) || !was_used),
        behind,
    })
}

/// A sound record at that place.
fn record_at(bytes: &[u8], at: usize, timeline: Timeline) -> Option<(Lsn, &[u8])> {
    let head = Head::parse(bytes.get(at..at.checked_add(32)?)?)?;
    let content = bytes.get(at + 32..(at + 32).checked_add(head.length)?)?;
    head.is_of(timeline, content).then_some((head.start, content))
}
