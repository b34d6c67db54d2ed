//! Positions in a write-ahead log: how far (`Lsn`), in which history (`Timeline`), and both (`Position`).
//!
//! Apart from `wal`, because engines and commands speak of positions without deciding anything. Only numbers and their texts live here.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// A byte position in the log, counted from the beginning of the cluster's life; PostgreSQL's `pg_lsn`, written `16/B374D848`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// "No position": PostgreSQL never writes log at zero.
    pub const INVALID: Self = Self(0);

    /// `bytes` further on; the end of all positions where that is beyond it.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// How many bytes this lies behind `earlier`; 0 where it does not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    /// Reads what the server and `Display` write: two hexadecimal numbers of at most eight digits, with a slash between them. Kind `Usage`
    /// for anything else.
    fn from_str(text: &str) -> Result<Self> {
        let part = |part: &str| {
            let sound = (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            sound.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        let parts = text.split_once('/').map(|(high, low)| (part(high), part(low)));
        if let Some((Some(high), Some(low))) = parts {
            return Ok(Self((high << 32) | low));
        }
        let detail = "a position in the log is written like 16/B374D848";
        Err(Error::new(
            ErrorKind::Usage,
            "read the log position",
            format!("{text:?}"),
            detail,
        ))
    }
}

/// Which history of the cluster: 1 from its making on, another number after each promotion or recovery to an earlier moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(u32);

impl Timeline {
    /// The history that every cluster begins with.
    pub const FIRST: Self = Self(1);

    /// Takes the server's number; kind `Corrupt` for zero, which no timeline has.
    pub fn new(number: u32) -> Result<Self> {
        if number == 0 {
            let detail = "timelines are counted from 1";
            return Err(Error::new(ErrorKind::Corrupt, "use the timeline", number, detail));
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timeline {}", self.0)
    }
}

impl FromStr for Timeline {
    type Err = Error;

    /// Reads a decimal number. Kind `Usage` for what is none, `Corrupt` for zero.
    fn from_str(text: &str) -> Result<Self> {
        let number = text.parse().map_err(|error| {
            let detail = "a timeline is a number from 1 on";
            Error::new(ErrorKind::Usage, "read the timeline", format!("{text:?}"), detail).with_source(error)
        })?;
        Self::new(number)
    }
}

/// A point of the log in one history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// In which history.
    pub timeline: Timeline,
    /// How far.
    pub lsn: Lsn,
}

impl Position {
    /// Both together.
    #[must_use]
    pub const fn new(timeline: Timeline, lsn: Lsn) -> Self {
        Self { timeline, lsn }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on timeline {}", self.lsn, self.timeline)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
