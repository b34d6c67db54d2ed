//! Segments: the files that a log is cut into, and how PostgreSQL names them (`src/include/access/xlog_internal.h`).
//!
//! Names are taken from outside: only the one spelling that the server writes is read.

use std::fmt;

use crate::{Error, ErrorKind, Lsn, Result, Timeline};

/// Bytes of a segment, fixed when a cluster is made: a power of two from 1 MiB to 1 GiB; 16 MiB unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What `initdb` takes unless told.
    pub const USUAL: Self = Self(16 << 20);

    /// Takes a number of bytes; kind `Corrupt` for one that no cluster has.
    pub fn new(bytes: u64) -> Result<Self> {
        match u32::try_from(bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) => Ok(Self(size)),
            _ => {
                let detail = "a segment of log has 1 MiB to 1 GiB, a power of two";
                Err(Error::new(ErrorKind::Corrupt, "use the segment size", bytes, detail))
            }
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        // A u32 fits; `From` is not const.
        self.0 as u64
    }

    /// The number of the segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn number_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// Where segment `number` begins; the end of all positions for one that is beyond it.
    #[must_use]
    pub const fn start_of(self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.bytes()))
    }

    /// The beginning of the segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn align_down(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !(self.bytes() - 1))
    }

    /// The first segment boundary at or behind `lsn`.
    #[must_use]
    pub const fn align_up(self, lsn: Lsn) -> Lsn {
        self.align_down(Lsn(lsn.0.saturating_add(self.bytes() - 1)))
    }

    /// How far `lsn` lies in its segment.
    #[must_use]
    pub const fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.bytes() - 1)
    }

    /// How many segments share one middle part of the name.
    const fn per_id(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }

    /// The name of segment `number`: timeline, then the number in two parts. `None` for a number that no position reaches.
    #[must_use]
    pub fn name_of(self, timeline: Timeline, number: u64) -> Option<String> {
        let id = u32::try_from(number / self.per_id()).ok()?;
        Some(format!("{:08X}{id:08X}{:08X}", timeline.number(), number % self.per_id()))
    }
}

/// What stands behind a name that the server writes into, or asks from, an archive of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFile {
    /// A whole segment.
    Segment {
        /// In which history.
        timeline: Timeline,
        /// Counted from the beginning of the log.
        number: u64,
    },
    /// The beginning of a segment in which its timeline ended (`.partial`). Recovery never asks for it.
    Partial {
        /// The timeline that ended.
        timeline: Timeline,
        /// Counted from the beginning of the log.
        number: u64,
    },
    /// Where a timeline left its parents (`.history`).
    History {
        /// The timeline that it describes.
        timeline: Timeline,
    },
    /// A note that a backup began here (`.backup`). Recovery never asks for it.
    Backup {
        /// In which history.
        timeline: Timeline,
        /// Where the backup began.
        start: Lsn,
    },
}

impl LogFile {
    /// Reads a file name; `None` for one that the server does not write for segments of this size.
    #[must_use]
    pub fn parse(name: &str, size: SegmentSize) -> Option<Self> {
        let (stem, ending) = match name.split_once('.') {
            None => (name, None),
            Some((stem, ending)) => (stem, Some(ending)),
        };
        if ending == Some("history") {
            let timeline = Timeline::new(part(stem)?).ok()?;
            return Some(Self::History { timeline });
        }
        if stem.len() != 24 {
            return None;
        }
        let timeline = Timeline::new(part(stem.get(..8)?)?).ok()?;
        let (id, low) = (u64::from(part(stem.get(8..16)?)?), u64::from(part(stem.get(16..)?)?));
        if low >= size.per_id() {
            return None;
        }
        let number = id * size.per_id() + low;
        match ending {
            None => Some(Self::Segment { timeline, number }),
            Some("partial") => Some(Self::Partial { timeline, number }),
            Some(ending) => {
                let offset = u64::from(part(ending.strip_suffix(".backup")?)?);
                (offset < size.bytes()).then(|| Self::Backup {
                    timeline,
                    start: size.start_of(number).plus(offset),
                })
            }
        }
    }

    /// Its name, for segments of this size. `None` where the number has none.
    #[must_use]
    pub fn name(&self, size: SegmentSize) -> Option<String> {
        Some(match *self {
            Self::Segment { timeline, number } => size.name_of(timeline, number)?,
            Self::Partial { timeline, number } => format!("{}.partial", size.name_of(timeline, number)?),
            Self::History { timeline } => format!("{:08X}.history", timeline.number()),
            Self::Backup { timeline, start } => {
                let segment = size.name_of(timeline, size.number_of(start))?;
                format!("{segment}.{:08X}.backup", size.offset_of(start))
            }
        })
    }
}

/// Eight upper-case hexadecimal digits.
fn part(text: &str) -> Option<u32> {
    let upper = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    (text.len() == 8 && text.bytes().all(upper))
        .then(|| u32::from_str_radix(text, 16).ok())
        .flatten()
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}
