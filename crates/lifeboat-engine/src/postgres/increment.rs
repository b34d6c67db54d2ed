//! A file that a server sent as an increment (PostgreSQL 17 and newer): which blocks changed, and how long the file is.
//!
//! Layout (`backup/basebackup_incremental.c`): magic, number of blocks, truncation length in blocks, the block numbers, each a 32-bit word
//! of the server's byte order; with blocks, zeros up to a whole page; then the blocks. Every number is checked before it is used.

use lifeboat_model::{Error, ErrorKind, Result};

use super::page::{PAGE_BYTES, SEGMENT_PAGES};

/// How the name of such a file begins, in front of the name of the file that it belongs to.
pub const PREFIX: &str = "INCREMENTAL.";

const MAGIC: u32 = 0xd3ae_1f0d;
const WORD: usize = 4;
/// The words in front of the block numbers.
const FIXED_BYTES: usize = 3 * WORD;

/// What stands in front of the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The parent's blocks from here on are gone.
    truncation_blocks: u32,
    /// The blocks that follow, in ascending order.
    blocks: Vec<u32>,
}

/// What the beginning of a file turned out to be.
#[derive(Debug)]
pub enum Begun {
    /// This many bytes of the file are needed to say more.
    Needs(usize),
    /// The header, and the offset in the file where the first block stands.
    Header(Header, usize),
}

impl Header {
    /// Reads the header from the file's first bytes. `subject` is the file's name for errors; kind `Corrupt` for what makes no sense.
    pub fn parse(subject: &str, bytes: &[u8]) -> Result<Begun> {
        let broken = |detail: String| Error::new(ErrorKind::Corrupt, "read the increment", subject, detail);
        let words = |at: usize| {
            let four = bytes.get(at * WORD..(at + 1) * WORD)?;
            four.try_into().ok().map(u32::from_le_bytes)
        };
        let (Some(magic), Some(count), Some(truncation_blocks)) = (words(0), words(1), words(2)) else {
            return Ok(Begun::Needs(FIXED_BYTES));
        };
        if magic != MAGIC {
            return Err(broken("it does not begin as one".into()));
        }
        if count > SEGMENT_PAGES || truncation_blocks > SEGMENT_PAGES {
            return Err(broken(format!(
                "a file of {SEGMENT_PAGES} blocks cannot have {count}, or {truncation_blocks}"
            )));
        }
        let raw = FIXED_BYTES + count as usize * WORD;
        let end = if count == 0 { raw } else { raw.next_multiple_of(PAGE_BYTES) };
        if bytes.len() < end {
            return Ok(Begun::Needs(end));
        }
        let mut blocks = Vec::with_capacity(count as usize);
        for index in 0..count as usize {
            let block = words(3 + index).unwrap_or(u32::MAX);
            if block >= SEGMENT_PAGES {
                return Err(broken(format!("block {block} cannot be in a file of {SEGMENT_PAGES}")));
            }
            if blocks.last().is_some_and(|last| *last >= block) {
                return Err(broken(format!("block {block} is not behind the one before it")));
            }
            blocks.push(block);
        }
        Ok(Begun::Header(
            Self {
                truncation_blocks,
                blocks,
            },
            end,
        ))
    }

    /// The blocks that follow the header, in ascending order.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// How many blocks the file has once the increment lies on its parent.
    #[must_use]
    pub fn file_blocks(&self) -> u32 {
        let behind_last = self.blocks.last().map_or(0, |last| last + 1);
        self.truncation_blocks.max(behind_last)
    }

    /// Whether `block`, which is not among [`Header::blocks`], is the parent's; otherwise it is zeros. A parent that is shorter has zeros
    /// there, too.
    #[must_use]
    pub fn from_parent(&self, block: u32) -> bool {
        block < self.truncation_blocks
    }

    /// The parent's blocks from here on are gone; see [`Header::from_parent`].
    #[must_use]
    pub fn kept_blocks(&self) -> u32 {
        self.truncation_blocks
    }

    /// Bytes of the whole increment; a file of another length is cut or foreign.
    #[must_use]
    pub fn increment_bytes(&self) -> u64 {
        let header = FIXED_BYTES + self.blocks.len() * WORD;
        let header = if self.blocks.is_empty() {
            header
        } else {
            header.next_multiple_of(PAGE_BYTES)
        };
        header as u64 + self.blocks.len() as u64 * PAGE_BYTES as u64
    }
}

/// The name of the file that the increment `path` belongs to; `None` where it is a whole file.
#[must_use]
pub fn target(path: &str) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let name = name.strip_prefix(PREFIX)?;
    Some(if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(truncation: u32, blocks: &[u32]) -> Vec<u8> {
        let count = u32::try_from(blocks.len()).unwrap();
        let words = [MAGIC, count, truncation].into_iter().chain(blocks.iter().copied());
        let mut bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        if count > 0 {
            bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Header> {
        match Header::parse("INCREMENTAL.1", bytes)? {
            Begun::Header(header, at) => {
                assert_eq!(at, bytes.len());
                Ok(header)
            }
            Begun::Needs(more) => panic!("{more} bytes are needed"),
        }
    }

    #[test]
    fn no_blocks_and_many_are_read() {
        let none = parse(&encode(17, &[])).unwrap();
        assert_eq!((none.file_blocks(), none.increment_bytes(), none.blocks().len()), (17, 12, 0));
        assert!(none.from_parent(16) && !none.from_parent(17));
        for blocks in [vec![0], vec![3, 900], (0..5000).map(|block| block * 3).collect()] {
            let bytes = encode(2, &blocks);
            let header = parse(&bytes).unwrap();
            assert_eq!(header.blocks(), blocks);
            assert_eq!(header.file_blocks(), blocks[blocks.len() - 1].max(1) + 1);
            assert_eq!(header.increment_bytes(), (bytes.len() + blocks.len() * PAGE_BYTES) as u64);
        }
    }

    #[test]
    fn a_beginning_says_how_much_it_needs() {
        let bytes = encode(2, &[1, 2]);
        for length in 0..bytes.len() {
            match Header::parse("f", &bytes[..length]).unwrap() {
                Begun::Needs(more) => assert_eq!(more, if length < 12 { 12 } else { PAGE_BYTES }),
                Begun::Header(..) => panic!("from {length} bytes"),
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_damaged_and_allocates_nothing() {
        let mut foreign = encode(1, &[]);
        foreign[0] ^= 1;
        for bytes in [
            foreign,
            encode(SEGMENT_PAGES + 1, &[]),
            encode(1, &[SEGMENT_PAGES]),
            encode(1, &[4, 4]),
            encode(1, &[5, 4]),
            [MAGIC, u32::MAX, 0].into_iter().flat_map(u32::to_le_bytes).collect(),
        ] {
            assert_eq!(Header::parse("f", &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn names_lead_to_their_files() {
        assert_eq!(target("base/5/INCREMENTAL.16384.1").as_deref(), Some("base/5/16384.1"));
        assert_eq!(target("INCREMENTAL.x").as_deref(), Some("x"));
        assert_eq!(target("base/5/16384"), None);
    }
}
