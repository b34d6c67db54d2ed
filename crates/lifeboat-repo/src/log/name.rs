//! Names of log files: what may be held, told by a listing alone. Each has one spelling.

use std::fmt;

use lifeboat_model::wal::Range;
use lifeboat_model::{Lsn, Result, Timeline};
use lifeboat_store::Key;

use super::BLOCK_BYTES;
use crate::bytes::hex_array;
use crate::id::{ComponentName, Lineage, SessionId};

/// What a log file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogFileKind {
    /// Log that stays.
    Piece,
    /// Log at the end, to be replaced soon.
    Frame,
    /// The history file of a timeline.
    History,
}

impl LogFileKind {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Piece => 1,
            Self::Frame => 2,
            Self::History => 3,
        }
    }
}

/// A piece, a frame or a history as its name tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName {
    /// What it is.
    pub kind: LogFileKind,
    /// Of which log; empty for a history, which only says the timeline.
    pub range: Range,
    /// Bytes of the stored file.
    pub size_bytes: u32,
    /// Whose keys seal it.
    pub session: SessionId,
    /// BLAKE3 of the stored file.
    pub hash: [u8; 32],
}

impl LogName {
    /// Reads a name from the lineage's folder on; none where it is not one.
    #[must_use]
    pub fn parse(below: &str) -> Option<Self> {
        let (folder, name) = below.split_once('/')?;
        let parts: Vec<&str> = name.split('-').collect();
        let (kind, timeline, start, end, rest) = match (folder, parts.as_slice()) {
            ("tail", [timeline, start, end, rest @ ..]) => (LogFileKind::Frame, *timeline, *start, *end, rest),
            ("history", [timeline, rest @ ..]) => (LogFileKind::History, *timeline, "", "", rest),
            (timeline, [start, end, rest @ ..]) => (LogFileKind::Piece, timeline, *start, *end, rest),
            _ => return None,
        };
        let [size, session, hash] = rest else { return None };
        let position = |text: &str| -> Option<Lsn> {
            let number = hex_array::<8>(text, "a position").ok()?;
            Some(Lsn(u64::from_be_bytes(number)))
        };
        let number = |text: &str| hex_array::<4>(text, "a number").ok().map(u32::from_be_bytes);
        let (start, end) = if kind == LogFileKind::History {
            (Lsn::INVALID, Lsn::INVALID)
        } else {
            (position(start)?, position(end)?)
        };
        let name = Self {
            kind,
            range: Range::new(Timeline::new(number(timeline)?).ok()?, start, end),
            size_bytes: number(size)?,
            session: session.parse().ok()?,
            hash: hex_array(hash, "a log file").ok()?,
        };
        // One file has one name: no upper case. And no file is empty, or reaches over the end of its block.
        (name.to_string() == below && name.is_sound()).then_some(name)
    }

    fn is_sound(&self) -> bool {
        let Range { start, end, .. } = self.range;
        let within = !self.range.is_empty() && start.0 / BLOCK_BYTES == (end.0 - 1) / BLOCK_BYTES;
        self.kind == LogFileKind::History || within
    }

    /// Its name in the store.
    pub fn key(&self, component: &ComponentName, lineage: Lineage) -> Result<Key> {
        component.folder()?.join(&format!("log/{lineage}/{self}"))
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { timeline, start, end } = self.range;
        let timeline = timeline.number();
        match self.kind {
            LogFileKind::Piece => write!(f, "{timeline:08x}/{:016x}-{:016x}", start.0, end.0)?,
            LogFileKind::Frame => write!(f, "tail/{timeline:08x}-{:016x}-{:016x}", start.0, end.0)?,
            LogFileKind::History => write!(f, "history/{timeline:08x}")?,
        }
        write!(f, "-{:08x}-{}-{}", self.size_bytes, self.session, hex::encode(self.hash))
    }
}

/// Any file under `log/`, from the component's folder on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogPlace {
    /// A piece, a frame or a history.
    File(Lineage, LogName),
    /// Why a lineage began.
    Lineage(Lineage),
    /// Log that is gone.
    Gap(Lineage),
}

impl LogPlace {
    /// Reads a name from the component's folder on; none where no version 1 file has it.
    pub(crate) fn parse(below: &str) -> Option<Self> {
        let (lineage_text, rest) = below.strip_prefix("log/")?.split_once('/')?;
        let lineage: Lineage = lineage_text.parse().ok()?;
        if lineage.to_string() != lineage_text {
            return None;
        }
        let is_hash =
            |text: &str| text.len() == 64 && hex_array::<32>(text, "a hash").is_ok_and(|hash| hex::encode(hash) == text);
        if let Some(hash) = rest.strip_prefix("lineage-") {
            return is_hash(hash).then_some(Self::Lineage(lineage));
        }
        if let Some(gap) = rest.strip_prefix("gaps/") {
            let parts: Vec<&str> = gap.split('-').collect();
            let [timeline, start, end, hash] = parts.as_slice() else {
                return None;
            };
            let sound = timeline.len() == 8 && start.len() == 16 && end.len() == 16 && is_hash(hash);
            return sound.then_some(Self::Gap(lineage));
        }
        LogName::parse(rest).map(|name| Self::File(lineage, name))
    }
}
