//! One sealed blob: compressed where that helps, encrypted, bound to what it is and where it lies.
//!
//! INV-05: the nonce holds the blob's offset and 8 bytes of its id, the key belongs to one file: two different plaintexts never
//! meet under the same key and nonce, also when a cloned machine draws the same salt.

use lifeboat_model::{Error, ErrorKind, Result};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};

use super::PACK_HEADER_BYTES;
use crate::key::{Id, Secret};

/// What a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    Extent,
    Group,
    Chunk,
    MapExtent,
}

impl Class {
    /// The longest raw length a blob of this class may have, in bytes: what a reader makes room for before it has verified anything.
    fn limit_bytes(self) -> u32 {
        match self {
            Self::Extent | Self::MapExtent => 128 << 10,
            Self::Group => (512 << 10) - 1,
            Self::Chunk => 2 << 20,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Extent => 1,
            Self::Group => 2,
            Self::Chunk => 3,
            Self::MapExtent => 4,
        }
    }
}

/// How a blob's bytes are kept, as rows write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    Raw,
    Zstd,
}

impl Form {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Raw => 2,
            Self::Zstd => 3,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            2 => Ok(Self::Raw),
            3 => Ok(Self::Zstd),
            other => Err(Error::new(
                ErrorKind::Corrupt,
                "decode",
                "a row",
                format!("there is no form {other} of a blob"),
            )),
        }
    }
}

/// Where a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Placement {
    pub(crate) pack: u32,
    pub(crate) offset: u32,
    /// With the tag.
    pub(crate) stored_bytes: u32,
    pub(crate) form: Form,
}

pub(crate) const TAG_BYTES: usize = MAX_TAG_LEN;

pub(crate) fn aead_key(secret: &Secret) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_256_GCM, secret.as_slice())
        .map_err(|error| Error::new(ErrorKind::Bug, "use", "a file key", error.to_string()))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(offset: u32, id: &Id) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&offset.to_le_bytes());
    nonce[4..].copy_from_slice(&id[..8]);
    Nonce::assume_unique_for_key(nonce)
}

fn associated(class: Class, form: Form, raw_bytes: u32, id: &Id) -> Aad<[u8; 28]> {
    let mut data = [0; 28];
    data[..4].copy_from_slice(b"LBv1");
    data[4] = class.byte();
    data[5] = form.byte();
    data[8..12].copy_from_slice(&raw_bytes.to_le_bytes());
    data[12..].copy_from_slice(id);
    Aad::from(data)
}

/// Seals the bytes `pack[offset..]` in place and appends the tag.
pub(crate) fn seal(
    key: &LessSafeKey,
    pack: &mut Vec<u8>,
    offset: u32,
    class: Class,
    form: Form,
    raw_bytes: u32,
    id: &Id,
) -> Result<()> {
    let at = offset as usize;
    #[cfg(test)]
    crate::tests::sealed::note(
        key,
        nonce(offset, id).as_ref(),
        associated(class, form, raw_bytes, id).as_ref(),
        &pack[at..],
    );
    let tag = key
        .seal_in_place_separate_tag(nonce(offset, id), associated(class, form, raw_bytes, id), &mut pack[at..])
        .map_err(|error| Error::new(ErrorKind::Bug, "seal", "a blob", error.to_string()))?;
    pack.extend_from_slice(tag.as_ref());
    Ok(())
}

/// Opens blobs of packs; holds the decompressor and its buffer.
pub(crate) struct Opener {
    decompressor: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    pub(crate) fn new() -> Result<Self> {
        let decompressor = zstd::bulk::Decompressor::new().map_err(|error| Error::io("start", "a decompressor", error))?;
        Ok(Self {
            decompressor,
            raw: Vec::new(),
        })
    }

    /// Decrypts `sealed` in place and returns the raw bytes, exactly `raw_bytes` long. The caller compares the id.
    pub(crate) fn open<'a>(
        &'a mut self,
        key: &LessSafeKey,
        sealed: &'a mut [u8],
        place: &Placement,
        class: Class,
        raw_bytes: u32,
        id: &Id,
    ) -> Result<&'a [u8]> {
        let damaged = |detail: &str| {
            Error::new(
                ErrorKind::Corrupt,
                "open",
                format!("blob at {} of pack {}", place.offset, place.pack),
                detail,
            )
        };
        if raw_bytes > class.limit_bytes() {
            return Err(damaged("its row says that it is longer than the format allows"));
        }
        let plain = key
            .open_in_place(nonce(place.offset, id), associated(class, place.form, raw_bytes, id), sealed)
            .map_err(|_unspecified| {
                damaged("its authentication tag does not fit: the pack is damaged, swapped or from another backup")
            })?;
        match place.form {
            Form::Raw if plain.len() == raw_bytes as usize => Ok(plain),
            Form::Raw => Err(damaged("it has another length than its row says")),
            Form::Zstd => {
                self.raw.clear();
                self.raw.reserve(raw_bytes as usize);
                let count = self
                    .decompressor
                    .decompress_to_buffer(plain, &mut self.raw)
                    .map_err(|error| damaged("it does not decompress").with_source(error))?;
                if count != raw_bytes as usize {
                    return Err(damaged("it decompresses to another length than its row says"));
                }
                Ok(&self.raw)
            }
        }
    }
}

/// Checks the first bytes of a pack and returns its salt.
pub(crate) fn read_pack_header(header: &[u8], magic: &[u8; 8], session: &[u8; 16], name: &str) -> Result<[u8; 32]> {
    let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "open pack", name, detail);
    if header.len() < PACK_HEADER_BYTES || &header[..8] != magic {
        return Err(damaged("it does not begin like a pack"));
    }
    if &header[8..24] != session {
        return Err(damaged("it belongs to another session than its folder"));
    }
    let mut salt = [0; 32];
    salt.copy_from_slice(&header[24..56]);
    Ok(salt)
}
