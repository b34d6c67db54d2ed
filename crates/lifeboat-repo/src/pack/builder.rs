//! Filling a pack in memory, blob by blob.

use lifeboat_model::{Env, Error, ErrorKind, Result};
use ring::aead::LessSafeKey;

use super::blob::{Class, Form, Placement, aead_key, seal};
use super::{PACK_HEADER_BYTES, PACK_TARGET_BYTES, PackClass};
use crate::bytes::len_u32;
use crate::id::SessionId;
use crate::key::{Id, Scope, Secret, file_key};

/// zstd level of everything stored: measured, level 3 costs twice the time and saves nothing on database pages.
const LEVEL: i32 = 1;
/// Where there is time: a sixth less than level 1, for five times the processor time (tables and indexes of pgbench). Level 3 saves nothing there, 9 no
/// more than this.
const HARD_LEVEL: i32 = 6;

/// A pack that is being filled.
pub(crate) struct PackBuilder {
    number: u32,
    class: PackClass,
    key: LessSafeKey,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for PackBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackBuilder")
            .field("number", &self.number)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A pack ready to be stored.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) number: u32,
    pub(crate) class: PackClass,
    pub(crate) hash: [u8; 32],
    pub(crate) bytes: Vec<u8>,
}

impl PackBuilder {
    /// Begins pack `number` of `session` with a fresh salt, in the empty buffer `bytes`.
    pub(crate) fn begin(
        env: &Env,
        mut bytes: Vec<u8>,
        number: u32,
        class: PackClass,
        session: SessionId,
        data_key: &Secret,
        scope: &Scope,
    ) -> Result<Self> {
        let mut salt = [0; 32];
        env.entropy.fill(&mut salt)?;
        let key = aead_key(&file_key(data_key, &salt, scope))?;
        bytes.extend_from_slice(class.magic());
        bytes.extend_from_slice(session.as_bytes());
        bytes.extend_from_slice(&salt);
        bytes.extend_from_slice(&[0; 8]);
        Ok(Self {
            number,
            class,
            key,
            bytes,
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Compresses (where that helps), seals and appends `raw`.
    pub(crate) fn add(&mut self, compressor: &mut Compressor, class: Class, raw: &[u8], id: &Id) -> Result<Placement> {
        let offset = len_u32(self.bytes.len(), "a pack")?;
        let (form, body) = compressor.shrink(raw)?;
        self.bytes.extend_from_slice(body);
        seal(
            &self.key,
            &mut self.bytes,
            offset,
            class,
            form,
            len_u32(raw.len(), "a blob")?,
            id,
        )?;
        let stored_bytes = len_u32(self.bytes.len(), "a pack")? - offset;
        if stored_bytes >= 1 << 24 {
            return Err(Error::new(
                ErrorKind::Bug,
                "store",
                "a blob",
                "it is longer than a row can say",
            ));
        }
        Ok(Placement {
            pack: self.number,
            offset,
            stored_bytes,
            form,
        })
    }

    /// Whether the pack should be closed now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_TARGET_BYTES
    }

    /// Whether nothing was added yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= PACK_HEADER_BYTES
    }

    /// Closes the pack; its name is the hash of its bytes.
    pub(crate) fn finish(self) -> FinishedPack {
        let hash = *blake3::hash(&self.bytes).as_bytes();
        FinishedPack {
            number: self.number,
            class: self.class,
            hash,
            bytes: self.bytes,
        }
    }
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Quick,
    Hard,
}

/// A zstd context and its output buffer, used again and again.
pub(crate) struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    effort: Effort,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    pub(crate) fn new() -> Result<Self> {
        let context = zstd::bulk::Compressor::new(LEVEL).map_err(|error| Error::io("start", "a compressor", error))?;
        Ok(Self {
            context,
            effort: Effort::Quick,
            buffer: Vec::new(),
        })
    }

    /// How hard to compress from now on.
    pub(crate) fn set(&mut self, effort: Effort) -> Result<()> {
        if effort == self.effort {
            return Ok(());
        }
        let level = match effort {
            Effort::Quick => LEVEL,
            Effort::Hard => HARD_LEVEL,
        };
        let set = self.context.set_compression_level(level);
        set.map_err(|error| Error::io("set", "the level of a compressor", error))?;
        self.effort = effort;
        Ok(())
    }

    /// The shorter of `raw` and its compressed form; raw unless compression saves at least 1 part in 32.
    pub(crate) fn shrink<'a>(&'a mut self, raw: &'a [u8]) -> Result<(Form, &'a [u8])> {
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let count = self
            .context
            .compress_to_buffer(raw, &mut self.buffer)
            .map_err(|error| Error::io("compress", "a blob", error))?;
        if count + raw.len() / 32 < raw.len() {
            Ok((Form::Zstd, &self.buffer))
        } else {
            Ok((Form::Raw, raw))
        }
    }
}
