//! One log file's bytes: a signed header in front, sealed log behind it.
//!
//! The header alone says what the file is and who says so, so a range read of its beginning is enough to judge it (INV-16). INV-05: the salt
//! depends on everything that is sealed and on where it stands.

use lifeboat_model::wal::{Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result, Timeline};
use ring::aead::{Aad, Nonce};

use super::BLOCK_BYTES;
use super::name::{LogFileKind, LogName};
use super::prepared::PreparedLog;
use crate::bytes::{Fields, len_u32};
use crate::id::{Lineage, SessionId};
use crate::key::age::SessionKeys;
use crate::key::instance::{Instance, Trust};
use crate::key::{Id, IdKeys, Scope, draw_secret, file_key};
use crate::pack::{Form, TAG_BYTES, aead_key};
use crate::signed::{self, Kind, TRAILER_BYTES};

const MAGIC: &[u8; 8] = b"LBWLOG01";
/// Bytes of a header that replaces no frame.
const FIXED_BYTES: usize = 264;
/// How many frames one file may replace.
pub(crate) const MOST_REPLACED: usize = 1024;
/// The longest header with its signature: what has to be read to judge a file.
pub(crate) const HEADER_LIMIT_BYTES: u64 = (FIXED_BYTES + 32 * MOST_REPLACED + TRAILER_BYTES) as u64;
/// No log file is longer.
pub(crate) const LOG_FILE_LIMIT_BYTES: u64 = BLOCK_BYTES + HEADER_LIMIT_BYTES + TAG_BYTES as u64;
const SEALED_LENGTH: std::ops::Range<usize> = 224..228;
const SEALED_HASH: std::ops::Range<usize> = 232..264;

/// What a log file says of itself, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHeader {
    /// What it holds.
    pub kind: LogFileKind,
    /// Of which log; empty for a history.
    pub range: Range,
    /// The cluster's system identifier.
    pub system: u64,
    /// The cluster's segments.
    pub segment: SegmentSize,
    /// The lineage that it lies in.
    pub lineage: Lineage,
    /// Whose keys seal it.
    pub session: SessionId,
    /// At this time (microseconds since 1970) the source said that its log ended at the end of `range` or behind it.
    pub as_of_us: Option<i64>,
    /// Its place in its chain; the first is 0.
    pub number: u64,
    /// Hash of the file before it in its chain.
    pub previous: Option<[u8; 32]>,
    /// The frames that it replaces, by the hashes in their names.
    pub replaces: Vec<[u8; 32]>,
    pub(crate) key_check: [u8; 32],
    pub(crate) content: Id,
    /// Content ids of files with the same one can be compared.
    pub(crate) id_check: Id,
    form: Form,
    raw_bytes: u32,
    salt: [u8; 32],
    sealed_bytes: u32,
    sealed_hash: [u8; 32],
}

/// What a new log file is to say; the rest follows from the session and the bytes.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: LogFileKind,
    pub(crate) range: Range,
    pub(crate) system: u64,
    pub(crate) segment: SegmentSize,
    pub(crate) as_of_us: Option<i64>,
    pub(crate) number: u64,
    pub(crate) previous: Option<[u8; 32]>,
    pub(crate) replaces: Vec<[u8; 32]>,
    pub(crate) log: &'a PreparedLog,
}

/// A sealed, signed file and its name.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    pub(crate) name: LogName,
    /// The id of its content.
    pub(crate) content: Id,
    pub(crate) bytes: Vec<u8>,
}

/// Seals and signs a log file.
pub(crate) fn seal(env: &Env, draft: Draft<'_>, keys: &SessionKeys, scope: &Scope, instance: &Instance) -> Result<Sealed> {
    let Draft { range, log, .. } = draft;
    let raw = &log.raw;
    let wrong = |detail: &str| Error::new(ErrorKind::Bug, "seal log", range, detail);
    let is_history = draft.kind == LogFileKind::History;
    if !is_history && range.bytes() != raw.len() as u64 {
        return Err(wrong("its bytes are not as many as its range"));
    }
    if raw.is_empty() || raw.len() as u64 > BLOCK_BYTES || draft.replaces.len() > MOST_REPLACED {
        return Err(wrong("it is longer, or replaces more, than one file may"));
    }
    let mut header = LogHeader {
        kind: draft.kind,
        range,
        system: draft.system,
        segment: draft.segment,
        lineage: keys.lineage,
        session: keys.session,
        as_of_us: draft.as_of_us,
        number: draft.number,
        previous: draft.previous,
        replaces: draft.replaces,
        key_check: keys.check(scope),
        content: log.content,
        id_check: log.id_check,
        form: log.form,
        raw_bytes: len_u32(raw.len(), "log")?,
        salt: [0; 32],
        sealed_bytes: 0,
        sealed_hash: [0; 32],
    };
    let mut salted = blake3::Hasher::new_keyed(&*draw_secret(env)?);
    // INV-05: the salt depends on all that is sealed: of the bytes, the header has the keyed hash.
    salted.update(blake3::hash(&header.encode()).as_bytes());
    header.salt = *salted.finalize().as_bytes();
    let key = aead_key(&file_key(&keys.data_key, &header.salt, scope))?;
    let associated = header.associated();
    let mut sealed = log.plain().to_vec();
    #[cfg(test)]
    crate::tests::sealed::note(&key, &[0; 12], associated.as_ref(), &sealed);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), associated, &mut sealed)
        .map_err(|error| Error::new(ErrorKind::Bug, "seal", "log", error.to_string()))?;
    header.sealed_bytes = len_u32(sealed.len(), "sealed log")?;
    header.sealed_hash = *blake3::hash(&sealed).as_bytes();
    let mut bytes = signed::sign(Kind::Log, header.encode(), instance);
    bytes.extend_from_slice(&sealed);
    let name = LogName {
        kind: header.kind,
        range,
        size_bytes: len_u32(bytes.len(), "a log file")?,
        session: header.session,
        hash: *blake3::hash(&bytes).as_bytes(),
    };
    Ok(Sealed {
        name,
        content: header.content,
        bytes,
    })
}

impl LogHeader {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + 32 * self.replaces.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[self.kind.byte(), self.form.byte(), 0, 0]);
        bytes.extend_from_slice(&self.range.timeline.number().to_le_bytes());
        bytes.extend_from_slice(&self.range.start.0.to_le_bytes());
        bytes.extend_from_slice(&self.range.end.0.to_le_bytes());
        bytes.extend_from_slice(&self.system.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.segment.bytes()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.raw_bytes.to_le_bytes());
        bytes.extend_from_slice(self.lineage.as_bytes());
        bytes.extend_from_slice(self.session.as_bytes());
        bytes.extend_from_slice(&self.key_check);
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.content);
        bytes.extend_from_slice(&self.id_check);
        bytes.extend_from_slice(&self.previous.unwrap_or_default());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.as_of_us.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.sealed_bytes.to_le_bytes());
        // Bounded by MOST_REPLACED.
        bytes.extend_from_slice(&u32::try_from(self.replaces.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.sealed_hash);
        self.replaces.iter().for_each(|hash| bytes.extend_from_slice(hash));
        bytes
    }

    fn associated(&self) -> Aad<[u8; 40]> {
        let mut clear = self.encode();
        for part in [SEALED_LENGTH, SEALED_HASH] {
            clear.get_mut(part).into_iter().for_each(|part| part.fill(0));
        }
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(b"LBv1 log");
        bytes[8..].copy_from_slice(blake3::hash(&clear).as_bytes());
        Aad::from(bytes)
    }

    fn decode(bytes: &[u8], what: &str) -> Result<Self> {
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept log", what, detail);
        let mut fields = Fields::new(bytes, "the header of a log file");
        if fields.array()? != *MAGIC {
            return Err(wrong("it does not begin like a log file"));
        }
        let kind = match fields.u8()? {
            1 => LogFileKind::Piece,
            2 => LogFileKind::Frame,
            3 => LogFileKind::History,
            _ => return Err(wrong("it is of a kind that this version does not know")),
        };
        let form = Form::from_byte(fields.u8()?)?;
        fields.take(2)?;
        let timeline = Timeline::new(fields.u32()?)?;
        let range = Range::new(timeline, Lsn(fields.u64()?), Lsn(fields.u64()?));
        let system = fields.u64()?;
        let segment = SegmentSize::new(u64::from(fields.u32()?))?;
        let raw_bytes = fields.u32()?;
        let (lineage, session) = (Lineage(fields.array()?), SessionId(fields.array()?));
        let (key_check, salt) = (fields.array()?, fields.array()?);
        let (content, id_check) = (fields.array()?, fields.array()?);
        let previous: [u8; 32] = fields.array()?;
        let number = fields.u64()?;
        let as_of_us = i64::from_le_bytes(fields.array()?);
        let (sealed_bytes, replaced) = (fields.u32()?, fields.u32()?);
        let sealed_hash = fields.array()?;
        let mut replaces = Vec::new();
        for _ in 0..replaced {
            replaces.push(fields.array()?);
        }
        let is_history = kind == LogFileKind::History;
        if !fields.is_empty() || u64::from(raw_bytes) > BLOCK_BYTES || (!is_history && range.bytes() != u64::from(raw_bytes)) {
            return Err(wrong("its lengths do not add up"));
        }
        Ok(Self {
            kind,
            range,
            system,
            segment,
            lineage,
            session,
            as_of_us: (as_of_us != 0).then_some(as_of_us),
            number,
            previous: (previous != [0; 32]).then_some(previous),
            replaces,
            key_check,
            content,
            id_check,
            form,
            raw_bytes,
            salt,
            sealed_bytes,
            sealed_hash,
        })
    }

    /// Reads the beginning of a stored file: signature, and that it is what its name and place say (INV-16). Returns the header and where
    /// the sealed bytes begin.
    pub(crate) fn read(stored: &[u8], name: &LogName, lineage: Lineage, trust: &Trust) -> Result<(Self, usize)> {
        let what = name.to_string();
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept log", &what, detail);
        let counted = stored
            .get(228..232)
            .map(|bytes| Fields::new(bytes, "the header of a log file").u32());
        let replaced = counted.transpose()?.and_then(|count| usize::try_from(count).ok());
        let Some(replaced) = replaced.filter(|count| *count <= MOST_REPLACED) else {
            return Err(wrong("it is cut short, or names more replaced frames than it may"));
        };
        let end = FIXED_BYTES + 32 * replaced + TRAILER_BYTES;
        let Some(front) = stored.get(..end) else {
            return Err(wrong("it is cut short"));
        };
        let (body, _) = signed::open(Kind::Log, &what, front, trust)?;
        let header = Self::decode(body, &what)?;
        let size = end as u64 + u64::from(header.sealed_bytes);
        if header.kind != name.kind
            || header.range != name.range
            || header.session != name.session
            || header.lineage != lineage
            || size != u64::from(name.size_bytes)
        {
            return Err(wrong("it says another place than its name does"));
        }
        Ok((header, end))
    }

    /// Opens a whole stored file, whose header this is and whose sealed bytes begin at `at`, and compares everything (INV-10, INV-16).
    pub(crate) fn open(
        &self,
        mut stored: Vec<u8>,
        at: usize,
        name: &LogName,
        keys: &SessionKeys,
        scope: &Scope,
    ) -> Result<Vec<u8>> {
        let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "open log", name, detail);
        if stored.len() as u64 != u64::from(name.size_bytes) || blake3::hash(&stored).as_bytes() != &name.hash {
            return Err(damaged("its bytes do not hash to its name: it is damaged or was overwritten"));
        }
        let sealed = stored.get_mut(at..).unwrap_or_default();
        if blake3::hash(sealed).as_bytes() != &self.sealed_hash {
            return Err(damaged("what is sealed in it is not what was signed"));
        }
        let key = aead_key(&file_key(&keys.data_key, &self.salt, scope))?;
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key([0; 12]), self.associated(), sealed)
            .map_err(|_unspecified| damaged("its authentication tag does not fit: it is damaged, or belongs elsewhere"))?;
        let expected = usize::try_from(self.raw_bytes).unwrap_or(usize::MAX);
        let raw = match self.form {
            Form::Raw => plain.to_vec(),
            Form::Zstd => {
                zstd::bulk::decompress(plain, expected).map_err(|error| damaged("it does not decompress").with_source(error))?
            }
        };
        if raw.len() != expected {
            return Err(damaged("it has another length than it says"));
        }
        if IdKeys::derive(&keys.id_key).chunk(&raw) != self.content {
            return Err(damaged("its content is not what was sealed"));
        }
        Ok(raw)
    }
}
