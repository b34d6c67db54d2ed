//! Packs: files of sealed blobs (format 6). The same layout serves data (`packs/`) and maps (`maps/`).

mod blob;
mod builder;
mod pool;

use lifeboat_model::{Error, ErrorKind, Result};

pub(crate) use blob::{Class, Form, Opener, Placement};
pub(crate) use blob::{TAG_BYTES, aead_key, read_pack_header};
pub(crate) use builder::{Compressor, Effort, FinishedPack, PackBuilder};
pub(crate) use pool::Pool;

/// A pack is closed when it holds this much or more.
pub(crate) const PACK_TARGET_BYTES: usize = 16 << 20;
/// No pack is longer.
pub(crate) const PACK_LIMIT_BYTES: u64 = 40 << 20;
/// Bytes before the first blob.
pub(crate) const PACK_HEADER_BYTES: usize = 64;

/// Which folder a pack lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PackClass {
    /// `packs/`
    Data,
    /// `maps/`
    Map,
}

impl PackClass {
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Data => "packs",
            Self::Map => "maps",
        }
    }

    pub(crate) fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Data => b"LBPACK01",
            Self::Map => b"LBMAPS01",
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Map => 2,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            1 => Ok(Self::Data),
            2 => Ok(Self::Map),
            other => Err(Error::new(
                ErrorKind::Corrupt,
                "decode",
                "a closure",
                format!("there is no pack class {other}"),
            )),
        }
    }
}
