//! Names of records: `<chain>/<seq>-<hash>`.

use std::fmt;
use std::str::FromStr;

use lifeboat_model::{Error, ErrorKind, Result};

use crate::bytes::hex_array;
use crate::id::ChainId;

/// A place in a chain: the number of a record and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerHead {
    /// Its number; the first is 1.
    pub seq: u64,
    /// BLAKE3 of the stored record.
    pub hash: [u8; 32],
}

impl fmt::Display for LedgerHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.seq, hex::encode(self.hash))
    }
}

impl FromStr for LedgerHead {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(
                ErrorKind::Corrupt,
                "read the name of a record",
                format!("{text:?}"),
                "it is not SEQ-HASH",
            )
        };
        let (seq, hash) = text.split_once('-').ok_or_else(bad)?;
        let seq = u64::from_str_radix(seq, 16).map_err(|error| bad().with_source(error))?;
        let head = Self {
            seq,
            hash: hex_array(hash, "the name of a record")?,
        };
        // One record has one name: no upper case, no sign, no other width.
        if head.to_string() == text && seq > 0 {
            Ok(head)
        } else {
            Err(bad())
        }
    }
}

/// The name of a record below `ledger/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerName {
    /// Whose chain.
    pub chain: ChainId,
    /// Which place in it.
    pub at: LedgerHead,
}

impl LedgerName {
    /// How people name it: the beginning of the chain, the number, the beginning of the hash.
    #[must_use]
    pub fn short(&self) -> String {
        let chain: String = self.chain.to_string().chars().take(8).collect();
        format!(
            "{chain}/{}-{}",
            self.at.seq,
            hex::encode(self.at.hash.get(..4).unwrap_or_default())
        )
    }
}

impl fmt::Display for LedgerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chain, self.at)
    }
}

impl FromStr for LedgerName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(
                ErrorKind::Corrupt,
                "read the name of a record",
                format!("{text:?}"),
                "it is not CHAIN/SEQ-HASH",
            )
        };
        let (chain, at) = text.split_once('/').ok_or_else(bad)?;
        let name = Self {
            chain: chain.parse()?,
            at: at.parse()?,
        };
        if name.to_string() == text { Ok(name) } else { Err(bad()) }
    }
}
