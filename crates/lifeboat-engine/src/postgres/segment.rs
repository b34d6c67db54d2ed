//! The first page of a segment of log: of which cluster, at which position, of which timeline (`src/include/access/xlog_internal.h`).
//!
//! Only what tells segments apart is read. What is inside the records is the server's business.

use lifeboat_model::wal::SegmentSize;
use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};

/// So many bytes of a segment are needed to read its header.
pub const HEADER_BYTES: usize = 40;

/// `XLP_LONG_HEADER`: the header of a first page.
const LONG: u16 = 0x0002;
/// Magic numbers are `0xD0nn` or `0xD1nn`, one for each major version.
const MAGIC_HIGH: std::ops::RangeInclusive<u16> = 0xD0..=0xD1;

/// What the first page of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The timeline on which this page was written; in the segment in which a timeline was left, that of the parent.
    pub timeline: Timeline,
    /// Where the segment begins.
    pub start: Lsn,
    /// The cluster's system identifier.
    pub system: u64,
    /// How large the cluster's segments are.
    pub segment: SegmentSize,
}

impl SegmentHeader {
    /// Reads the beginning of a segment, written by a server with the same byte order. Kind `Corrupt` where it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "read", "the first page of a segment of log", detail);
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return Err(wrong("it is too short"));
        };
        let number = |at: usize, length: usize| {
            let part = bytes.get(at..at + length).unwrap_or_default();
            part.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte))
        };
        let small = |at: usize| u16::try_from(number(at, 2)).unwrap_or_default();
        if !MAGIC_HIGH.contains(&(small(0) >> 8)) {
            return Err(wrong("it does not begin as PostgreSQL's log does"));
        }
        if small(2) & LONG == 0 {
            return Err(wrong("it is not the first page of a segment"));
        }
        let timeline = u32::try_from(number(4, 4)).unwrap_or_default();
        let header = Self {
            timeline: Timeline::new(timeline).map_err(|error| wrong("it is of no timeline").with_source(error))?,
            start: Lsn(number(8, 8)),
            system: number(24, 8),
            segment: SegmentSize::new(number(32, 4))?,
        };
        if header.segment.offset_of(header.start) != 0 {
            return Err(wrong("it does not begin where a segment does"));
        }
        Ok(header)
    }

    /// Whether this is the segment that is expected: of this cluster (PG-05), of this size, at this position, of this timeline or one before.
    ///
    /// # Errors
    /// `Refused` for another cluster, with both identifiers; `Corrupt` for anything else.
    pub fn check(&self, system: u64, segment: SegmentSize, timeline: Timeline, start: Lsn) -> Result<()> {
        let subject = format!("the segment at {start} of timeline {timeline}");
        if self.system != system {
            let detail = format!("it is of the cluster {}, and this is {system}", self.system);
            return Err(Error::new(ErrorKind::Refused, "accept", subject, detail)
                .with_hint("look at the connection in lifeboat.yaml; another cluster gets a component of its own"));
        }
        if (self.segment, self.start) != (segment, start) || self.timeline > timeline {
            let detail = format!(
                "its first page says {} of timeline {}, in segments of {}",
                self.start, self.timeline, self.segment
            );
            return Err(Error::new(ErrorKind::Corrupt, "accept", subject, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        bytes[2..4].copy_from_slice(&3_u16.to_le_bytes());
        bytes[4..8].copy_from_slice(&2_u32.to_le_bytes());
        bytes[8..16].copy_from_slice(&0x0300_0000_u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&77_u64.to_le_bytes());
        bytes[32..36].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        bytes
    }

    #[test]
    fn a_first_page_tells_its_place_and_anything_else_is_refused() {
        let read = SegmentHeader::parse(&header()).unwrap();
        let size = SegmentSize::new(1 << 20).unwrap();
        let two = Timeline::new(2).unwrap();
        let start = Lsn(0x0300_0000);
        assert_eq!((read.timeline, read.start, read.system, read.segment), (two, start, 77, size));
        read.check(77, size, two, start).unwrap();
        read.check(77, size, Timeline::new(3).unwrap(), start).unwrap();
        let kind = |system, size, timeline, start| read.check(system, size, timeline, start).unwrap_err().kind();
        assert_eq!(kind(78, size, two, start), ErrorKind::Refused);
        assert_eq!(kind(77, SegmentSize::USUAL, two, start), ErrorKind::Corrupt);
        assert_eq!(kind(77, size, Timeline::FIRST, start), ErrorKind::Corrupt);
        assert_eq!(kind(77, size, two, Lsn(0x0400_0000)), ErrorKind::Corrupt);
        for (at, byte) in [(1, 0), (2, 1), (4, 0), (8, 1), (34, 1)] {
            let mut bytes = header();
            bytes[at] = byte;
            assert_eq!(SegmentHeader::parse(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
        }
        assert!(SegmentHeader::parse(&header()[..39]).is_err());
    }
}
