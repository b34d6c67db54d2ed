//! Records in the log: where each begins and ends, whether it is whole, and when transactions ended.
//!
//! The layout is that of `src/include/access/{xlog_internal,xlogrecord,xact}.h`, unchanged from 14 to 18. A record is whole where its pages
//! are in their places, it names the one before it, and its sum fits: the server's own rules for where the log ends, so what [`Scan`] calls the
//! end is what recovery would call it. Pure: bytes in, records out; memory does not grow with what is read.

use lifeboat_model::wal::SegmentSize;
use lifeboat_model::{Lsn, Timeline};
use serde::{Deserialize, Serialize};

use super::crc::Crc32c;

/// Bytes of a page of the log. Other sizes are a matter of how the server was built, and nobody does.
pub const PAGE_BYTES: u64 = 8192;
const PAGE: usize = 8192;
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
/// `SizeOfXLogRecord`.
const RECORD_HEADER: usize = 24;
/// Where the sum stands in it.
const RECORD_SUM: usize = 20;
/// `XLogRecordMaxSize`, rounded up.
const RECORD_MOST_BYTES: u32 = 1 << 30;
/// As much of a record as is kept to look into it: header, headers of parts, and the time that a transaction's end begins with.
const FRONT_BYTES: usize = 64;
/// From 1970 to 2000, where the server's times begin.
const EPOCH_US: i64 = 946_684_800_000_000;

/// `XLR_MAX_BLOCK_ID`
const MOST_BLOCKS: u8 = 32;
/// In the flags of a reference to a page (`BKPBLOCK_…`): the fork, and whether a copy of the page follows.
const FORK: u8 = 0x0f;
const HAS_IMAGE: u8 = 0x10;
/// In those of the copy (`BKPIMAGE_…`).
const HAS_HOLE: u8 = 0x01;
/// `XLOG_PAGE_MAGIC` of 14: the flags of a copy's compression became others later.
const MAGIC_14: u16 = 0xd10d;

/// Flags of a page (`XLP_…`).
const FIRST_IS_CONTINUED: u16 = 1;
const LONG: u16 = 2;
const FIRST_REPLACES_BROKEN: u16 = 8;

/// A whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its first byte; what `recovery_target_lsn` is compared with.
    pub start: Lsn,
    /// Behind its last byte, rounded up as the server rounds: what `pg_current_wal_flush_lsn` says once it is durable.
    pub end: Lsn,
    /// Its transaction; 0 for none.
    pub xid: u32,
    /// What it is: the resource manager, and that one's own number.
    pub kind: (u8, u8),
    /// A transaction that ended here.
    pub ended: Option<Ended>,
    /// Whose rows or index entries it changes; none where it changes no page, or one of a map. A change of rows is of one relation.
    pub relation: Option<Locator>,
}

/// Where a relation's pages are (`RelFileLocator`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u32)", into = "(u32, u32, u32)")]
pub struct Locator {
    /// The tablespace.
    pub space: u32,
    /// The database; 0 for what all share.
    pub database: u32,
    /// The number of the file.
    pub number: u32,
}

impl From<(u32, u32, u32)> for Locator {
    fn from((space, database, number): (u32, u32, u32)) -> Self {
        Self { space, database, number }
    }
}

impl From<Locator> for (u32, u32, u32) {
    fn from(place: Locator) -> Self {
        (place.space, place.database, place.number)
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its time by the server's clock, microseconds since 1970.
    pub at_us: i64,
    /// It was committed; else aborted.
    pub committed: bool,
}

/// Why there is no whole record behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// What was given ends there; perhaps in the middle of a record.
    NoMore,
    /// The log ends there: nothing was written behind it.
    Blank,
    /// What stands there is no record: said in words.
    Broken(&'static str),
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Behind the last whole record; where none was found, where the scan began.
    pub at: Lsn,
    /// Why it ended there.
    pub why: Why,
}

/// What a page's header says about the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// Changes with the major.
    pub magic: u16,
    /// The timeline on which it was written.
    pub timeline: Timeline,
    /// Its place.
    pub at: Lsn,
    /// The first page of a segment names the cluster, and the bytes of a segment.
    pub cluster: Option<(u64, u32)>,
    flags: u16,
    continued_bytes: u32,
}

impl PageHeader {
    /// Reads the beginning of a page; `None` where it is too short for one, or is none.
    #[must_use]
    pub fn read(page: &[u8]) -> Option<Self> {
        let flags = u16::from_le_bytes(at(page, 2)?);
        let cluster = if flags & LONG == 0 {
            page.get(..SHORT_HEADER)?;
            None
        } else {
            Some((u64::from_le_bytes(at(page, 24)?), u32::from_le_bytes(at(page, 32)?)))
        };
        Some(Self {
            magic: u16::from_le_bytes(at(page, 0)?),
            flags,
            timeline: Timeline::new(u32::from_le_bytes(at(page, 4)?)).ok()?,
            at: Lsn(u64::from_le_bytes(at(page, 8)?)),
            continued_bytes: u32::from_le_bytes(at(page, 16)?),
            cluster,
        })
    }

    const fn bytes(&self) -> usize {
        if self.cluster.is_some() { LONG_HEADER } else { SHORT_HEADER }
    }
}

/// Where in the records a scan is.
#[derive(Debug, Clone)]
enum State {
    /// In front of the first record, whose beginning has to be found: the rest of one that began earlier goes by.
    Seeking,
    /// A record begins next.
    Between,
    /// Inside of one.
    Inside(Partial),
    /// What follows until here was left out when the server switched to the next segment.
    Skipping(Lsn),
    /// There is no more.
    Over(Why),
}

#[derive(Debug, Clone)]
struct Partial {
    start: Lsn,
    total: u32,
    got: u32,
    front: [u8; FRONT_BYTES],
    /// Of what stands behind the header.
    sum: Crc32c,
}

/// Finds the records of a stretch of log, given piece by piece.
#[derive(Debug, Clone)]
pub struct Scan {
    size: SegmentSize,
    /// The page that comes next, or of which a part is there.
    page_at: Lsn,
    page: Vec<u8>,
    state: State,
    magic: Option<u16>,
    /// The record before.
    previous: Option<Lsn>,
    end: Lsn,
}

impl Scan {
    /// Begins with the page that holds `from`: the next bytes given are those from its beginning ([`Scan::begins`]) on.
    #[must_use]
    pub fn new(from: Lsn, size: SegmentSize) -> Self {
        let page_at = Lsn(from.0 & !(PAGE_BYTES - 1));
        Self {
            size,
            page_at,
            page: Vec::with_capacity(PAGE),
            state: State::Seeking,
            magic: None,
            previous: None,
            end: page_at,
        }
    }

    /// The first byte that is wanted.
    #[must_use]
    pub const fn begins(&self) -> Lsn {
        self.page_at
    }

    /// Whether nothing that follows can change the answer.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    /// Takes the next bytes, and hands out each record that is whole with them.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&Record)) {
        while !bytes.is_empty() && !self.is_over() {
            if self.page.is_empty()
                && let Some((page, rest)) = bytes.split_at_checked(PAGE)
            {
                self.read_page(page, &mut each);
                bytes = rest;
            } else {
                let (part, rest) = bytes.split_at(bytes.len().min(PAGE - self.page.len()));
                self.page.extend_from_slice(part);
                bytes = rest;
                if self.page.len() < PAGE {
                    return;
                }
                let page = std::mem::take(&mut self.page);
                self.read_page(&page, &mut each);
                self.page = page;
                self.page.clear();
            }
            self.page_at = self.page_at.plus(PAGE_BYTES);
        }
    }

    /// Hands out the records of the last page, of which only a part was given, and says where it ended.
    pub fn finish(mut self, mut each: impl FnMut(&Record)) -> End {
        let page = std::mem::take(&mut self.page);
        if !page.is_empty() && !self.is_over() {
            self.read_page(&page, &mut each);
        }
        let why = match self.state {
            State::Over(why) => why,
            _ => Why::NoMore,
        };
        End { at: self.end, why }
    }

    fn read_page(&mut self, page: &[u8], each: &mut impl FnMut(&Record)) {
        if let State::Skipping(until) = self.state {
            if self.page_at < until {
                return;
            }
            self.state = State::Between;
        }
        let Some(mut at) = self.enter(page) else { return };
        while at < page.len() {
            at = match &mut self.state {
                State::Between => self.begin_record(page, at),
                State::Inside(_) => self.go_on(page, at, each),
                State::Seeking | State::Skipping(_) | State::Over(_) => return,
            };
        }
    }

    /// Checks the page's header. Returns where its first record, or the rest of one, begins.
    fn enter(&mut self, page: &[u8]) -> Option<usize> {
        let Some(header) = PageHeader::read(page).filter(|header| self.fits(header)) else {
            let blank = page.iter().all(|byte| *byte == 0);
            let why = match (blank, page.len() < LONG_HEADER) {
                (_, true) => Why::NoMore,
                (true, _) => Why::Blank,
                (false, _) => Why::Broken("a page is not in its place"),
            };
            self.state = State::Over(why);
            return None;
        };
        self.magic = Some(header.magic);
        let first = header.bytes();
        let continued = header.flags & FIRST_IS_CONTINUED != 0;
        let replaces = header.flags & FIRST_REPLACES_BROKEN != 0;
        match &self.state {
            State::Seeking if continued => {
                let rest = usize::try_from(header.continued_bytes)
                    .unwrap_or(usize::MAX)
                    .next_multiple_of(8);
                let begins = first.saturating_add(rest);
                if begins < PAGE {
                    self.state = State::Between;
                    self.end = self.page_at.plus(begins as u64);
                }
                Some(begins)
            }
            State::Seeking => {
                self.state = State::Between;
                self.end = self.page_at.plus(first as u64);
                Some(first)
            }
            // The server died in the middle of a record and went on in another way: the next one says so too, and names the one before both.
            State::Inside(_) if replaces => {
                self.state = State::Between;
                Some(first)
            }
            State::Inside(partial) if continued && header.continued_bytes == partial.total - partial.got => Some(first),
            State::Inside(_) => {
                self.state = State::Over(Why::Broken("a record is not continued on the next page"));
                None
            }
            State::Between if continued => {
                self.state = State::Over(Why::Broken("a page continues a record that did not begin"));
                None
            }
            State::Between => Some(first),
            State::Skipping(_) | State::Over(_) => None,
        }
    }

    fn fits(&self, header: &PageHeader) -> bool {
        let long = self.size.offset_of(self.page_at) == 0;
        let cluster = header.cluster.is_none_or(|(_, bytes)| u64::from(bytes) == self.size.bytes());
        let magic = self.magic.is_none_or(|magic| magic == header.magic);
        header.at == self.page_at && magic && header.cluster.is_some() == long && cluster
    }

    /// A record begins at `at` of the page. Returns where to go on.
    fn begin_record(&mut self, page: &[u8], at: usize) -> usize {
        let Some(total) = self::at(page, at).map(u32::from_le_bytes) else {
            return page.len();
        };
        if total == 0 {
            self.state = State::Over(Why::Blank);
        } else if usize::try_from(total).is_ok_and(|total| total < RECORD_HEADER) || total > RECORD_MOST_BYTES {
            self.state = State::Over(Why::Broken("a record has an impossible length"));
        } else {
            self.state = State::Inside(Partial {
                start: self.page_at.plus(at as u64),
                total,
                got: 0,
                front: [0; FRONT_BYTES],
                sum: Crc32c::new(),
            });
        }
        at
    }

    /// Takes what the page holds of the record. Returns where to go on.
    fn go_on(&mut self, page: &[u8], at: usize, each: &mut impl FnMut(&Record)) -> usize {
        let State::Inside(partial) = &mut self.state else {
            return page.len();
        };
        let here = page.get(at..).unwrap_or_default();
        let missing = usize::try_from(partial.total - partial.got).unwrap_or(usize::MAX);
        let (part, _) = here.split_at(here.len().min(missing));
        partial.take(part);
        if part.len() < missing {
            return page.len();
        }
        let behind = (at + part.len()).next_multiple_of(8);
        let end = self.page_at.plus(behind as u64);
        let partial = partial.clone();
        match partial.whole(end, self.previous, self.magic) {
            Ok(mut record) => {
                self.state = State::Between;
                // XLOG_SWITCH: nothing else is in this segment, and the server counts what is left of it to the record.
                if record.kind.0 == 0 && record.kind.1 & 0xf0 == 0x40 {
                    record.end = self.size.align_up(end);
                    self.state = State::Skipping(record.end);
                }
                (self.previous, self.end) = (Some(record.start), record.end);
                each(&record);
            }
            Err(why) => self.state = State::Over(Why::Broken(why)),
        }
        behind
    }
}

impl Partial {
    fn take(&mut self, part: &[u8]) {
        // Bounded by the page.
        let got = usize::try_from(self.got).unwrap_or(usize::MAX);
        if let Some(room) = self.front.get_mut(got..) {
            let length = room.len().min(part.len());
            room[..length].copy_from_slice(&part[..length]);
        }
        let header = RECORD_HEADER.saturating_sub(got).min(part.len());
        self.sum.add(&part[header..]);
        self.got = self.got.saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
    }

    /// The record, once all of it is there; else what is wrong with it.
    fn whole(mut self, end: Lsn, previous: Option<Lsn>, magic: Option<u16>) -> Result<Record, &'static str> {
        let four = |from| self::at(&self.front, from).map_or(0, u32::from_le_bytes);
        let (xid, sum) = (four(4), four(RECORD_SUM));
        let named = Lsn(self::at(&self.front, 8).map_or(0, u64::from_le_bytes));
        let kind = (self.front[17], self.front[16]);
        // The server asks the same of the first record that it reads by itself.
        if previous.map_or(named >= self.start, |previous| previous != named) {
            return Err("a record names another one as the one before it");
        }
        self.sum.add(&self.front[..RECORD_SUM]);
        if self.sum.sum() != sum {
            return Err("the sum of a record does not fit");
        }
        Ok(Record {
            start: self.start,
            end,
            xid,
            kind,
            ended: self.ended(kind),
            relation: self.relation(magic),
        })
    }

    /// The relation of the first page that the record refers to (`XLogRecordBlockHeader`), if it is one of its main fork.
    fn relation(&self, magic: Option<u16>) -> Option<Locator> {
        let [number, flags]: [u8; 2] = at(&self.front, RECORD_HEADER)?;
        // Whole records have more than their header; what is behind a short one is not its own.
        if self.total <= 28 || number > MOST_BLOCKS || flags & FORK != 0 {
            return None;
        }
        let mut from = RECORD_HEADER + 4;
        if flags & HAS_IMAGE != 0 {
            let about = *self.front.get(from + 4)?;
            let compressed = if magic == Some(MAGIC_14) { 0x02 } else { 0x1c };
            from += if about & HAS_HOLE != 0 && about & compressed != 0 {
                7
            } else {
                5
            };
        }
        let four = |from| at(&self.front, from).map(u32::from_le_bytes);
        Some(Locator {
            space: four(from)?,
            database: four(from + 4)?,
            number: four(from + 8)?,
        })
    }

    /// The end of a transaction (`RM_XACT_ID`): its main data begins with the time.
    fn ended(&self, (manager, info): (u8, u8)) -> Option<Ended> {
        let committed = match (manager, info & 0x70) {
            // Commit and commit of a prepared one; abort and abort of a prepared one.
            (1, 0x00 | 0x30) => true,
            (1, 0x20 | 0x40) => false,
            _ => return None,
        };
        let mut from = RECORD_HEADER;
        // In front of the main data's own header may stand where it was replicated from, and the transaction above it.
        loop {
            from += match self.front.get(from)? {
                253 => 3,
                252 => 5,
                255 => {
                    from += 2;
                    break;
                }
                254 => {
                    from += 5;
                    break;
                }
                _ => return None,
            };
        }
        let at_us = i64::from_le_bytes(self::at(&self.front, from)?).checked_add(EPOCH_US)?;
        Some(Ended { at_us, committed })
    }
}

fn at<const N: usize>(bytes: &[u8], from: usize) -> Option<[u8; N]> {
    bytes.get(from..from.checked_add(N)?)?.try_into().ok()
}
