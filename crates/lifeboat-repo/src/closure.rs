//! The closure: every file that a backup needs, readable without keys (format 8.3).

use std::collections::BTreeSet;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::Key;

use crate::bytes::{Fields, len_u32};
use crate::id::{ComponentName, SessionId};
use crate::pack::PackClass;

/// A session whose keys open packs of a backup. It names no key file: those come and go; what they hold must fit the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey {
    /// The session whose packs it opens.
    pub session: SessionId,
    /// Derived from the session's keys (format 5).
    pub check: [u8; 32],
    /// Its key files are not encrypted.
    pub clear: bool,
}

/// A pack or map file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Its number in the lineage.
    pub number: u32,
    /// Which of [`Closure::sessions`] it belongs to.
    pub session: u32,
    /// Bytes of the stored file.
    pub size_bytes: u32,
    pub(crate) class: PackClass,
    /// BLAKE3 of the stored file.
    pub hash: [u8; 32],
}

/// Every file that any row of a backup reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// Sessions; the first is the backup's own.
    pub sessions: Vec<SessionKey>,
    /// Packs and maps, ascending by number.
    pub packs: Vec<Pack>,
}

impl Closure {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(16 + self.sessions.len() * 56 + self.packs.len() * 48);
        bytes.extend_from_slice(&len_u32(self.sessions.len(), "a closure")?.to_le_bytes());
        bytes.extend_from_slice(&len_u32(self.packs.len(), "a closure")?.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for session in &self.sessions {
            bytes.extend_from_slice(session.session.as_bytes());
            bytes.extend_from_slice(&session.check);
            bytes.extend_from_slice(&[u8::from(session.clear), 0, 0, 0, 0, 0, 0, 0]);
        }
        for pack in &self.packs {
            bytes.extend_from_slice(&pack.number.to_le_bytes());
            bytes.extend_from_slice(&pack.session.to_le_bytes());
            bytes.extend_from_slice(&pack.size_bytes.to_le_bytes());
            bytes.extend_from_slice(&[pack.class.byte(), 0, 0, 0]);
            bytes.extend_from_slice(&pack.hash);
        }
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "decode", "a closure", detail);
        let mut fields = Fields::new(bytes, "a closure");
        let (sessions, packs, logs) = (fields.u32()?, fields.u32()?, fields.u64()?);
        if logs != 0 {
            return Err(damaged("it names log ranges, which need a newer Lifeboat").with_kind(ErrorKind::Incompatible));
        }
        let mut closure = Self::default();
        let mut seen = BTreeSet::new();
        for _ in 0..sessions {
            let (session, check, form) = (SessionId(fields.array()?), fields.array()?, fields.u8()?);
            fields.take(7)?;
            if form > 1 || !seen.insert(session) {
                return Err(damaged("it names a session twice, or in a form that does not exist"));
            }
            closure.sessions.push(SessionKey {
                session,
                check,
                clear: form == 1,
            });
        }
        for _ in 0..packs {
            let (number, session, size_bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let class = PackClass::from_byte(fields.u8()?)?;
            fields.take(3)?;
            let hash = fields.array()?;
            if session >= sessions {
                return Err(damaged("a pack names a session that is not there"));
            }
            if closure.packs.last().is_some_and(|last: &Pack| last.number >= number) {
                return Err(damaged("its packs are not in order"));
            }
            closure.packs.push(Pack {
                number,
                session,
                size_bytes,
                class,
                hash,
            });
        }
        if closure.sessions.is_empty() || !fields.is_empty() {
            return Err(damaged("its length does not fit its counts"));
        }
        Ok(closure)
    }

    /// The pack with this number.
    #[must_use]
    pub fn pack(&self, number: u32) -> Option<&Pack> {
        self.packs
            .binary_search_by_key(&number, |pack| pack.number)
            .ok()
            .and_then(|index| self.packs.get(index))
    }

    /// The session that a pack belongs to.
    #[must_use]
    pub fn session_of(&self, pack: &Pack) -> Option<&SessionKey> {
        self.sessions.get(pack.session as usize)
    }

    /// Whether any of its sessions is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.sessions.iter().any(|session| !session.clear)
    }

    /// A pack's name in the store.
    pub fn pack_key(&self, pack: &Pack, component: &ComponentName) -> Result<Key> {
        let session = self.session_of(pack).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "decode",
                "a closure",
                "a pack names a session that is not there",
            )
        })?;
        pack_name(component, pack.class, session.session, &pack.hash)
    }

    /// Every pack and its size in bytes. Key files are not among them: a backup needs any of those that stand for each session.
    pub fn pack_files(&self, component: &ComponentName) -> Result<Vec<(Key, u64)>> {
        let mut files = Vec::with_capacity(self.packs.len());
        for pack in &self.packs {
            files.push((self.pack_key(pack, component)?, u64::from(pack.size_bytes)));
        }
        Ok(files)
    }
}

/// Whether a stored file is a pack of data: what may lie in another storage class, because only a restore reads it.
#[must_use]
pub fn is_data_pack(key: &Key) -> bool {
    let mut parts = key.as_str().split('/');
    parts.next() == Some("c") && parts.nth(1) == Some(PackClass::Data.folder())
}

/// The name of a pack.
pub(crate) fn pack_name(component: &ComponentName, class: PackClass, session: SessionId, hash: &[u8; 32]) -> Result<Key> {
    component
        .folder()?
        .join(&format!("{}/{session}/{}", class.folder(), hex::encode(hash)))
}
