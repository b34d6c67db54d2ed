//! Names of kits: `<at>-<signer>-<hash>`. Of one signer, the highest is the newest.

use std::fmt;
use std::str::FromStr;

use lifeboat_model::{Error, ErrorKind, Result};

use crate::bytes::hex_array;
use crate::id::ChainId;

/// The name of a kit below `kit/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KitName {
    /// When it was made, microseconds since 1970, by the clock of its machine; later than the one before it.
    pub at_us: u64,
    /// Who signed it: the first 16 bytes of `B3` of the public key.
    pub signer: ChainId,
    /// BLAKE3 of the stored file.
    pub hash: [u8; 32],
}

impl fmt::Display for KitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}", self.at_us, self.signer, hex::encode(self.hash))
    }
}

impl FromStr for KitName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(
                ErrorKind::Corrupt,
                "read the name of a kit",
                format!("{text:?}"),
                "it is not TIME-SIGNER-HASH",
            )
        };
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or_else(bad);
        let name = Self {
            at_us: u64::from_str_radix(part()?, 16).map_err(|error| bad().with_source(error))?,
            signer: part()?.parse()?,
            hash: hex_array(part()?, "the name of a kit")?,
        };
        // One kit has one name: no upper case, no sign, no other width.
        if name.to_string() == text { Ok(name) } else { Err(bad()) }
    }
}
