//! The closure: every file that a backup needs, readable without keys (format 8.3).

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::Key;

use crate::bytes::{Fields, len_u32};
use crate::id::{ComponentName, SessionId};
use crate::pack::PackClass;

/// A session's key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyFile {
    /// The session whose packs it opens.
    pub session: SessionId,
    /// BLAKE3 of the stored file.
    pub hash: [u8; 32],
    /// Bytes of the stored file.
    pub size_bytes: u32,
    /// Not encrypted.
    pub clear: bool,
}

impl KeyFile {
    /// Its name in the store.
    pub fn key(&self, component: &ComponentName) -> Result<Key> {
        let ending = if self.clear { "clear" } else { "age" };
        component
            .folder()?
            .join(&format!("keys/{}-{}.{ending}", self.session, hex::encode(self.hash)))
    }
}

/// A pack or map file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pack {
    /// Its number in the lineage.
    pub number: u32,
    /// Which of [`Closure::keys`] opens it.
    pub key: u32,
    /// Bytes of the stored file.
    pub size_bytes: u32,
    pub(crate) class: PackClass,
    /// BLAKE3 of the stored file.
    pub hash: [u8; 32],
}

/// Every file that any row of a backup reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// Key files; the first belongs to the backup's own session.
    pub keys: Vec<KeyFile>,
    /// Packs and maps, ascending by number.
    pub packs: Vec<Pack>,
}

impl Closure {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(16 + self.keys.len() * 56 + self.packs.len() * 48);
        bytes.extend_from_slice(&len_u32(self.keys.len(), "a closure")?.to_le_bytes());
        bytes.extend_from_slice(&len_u32(self.packs.len(), "a closure")?.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        for key in &self.keys {
            bytes.extend_from_slice(key.session.as_bytes());
            bytes.extend_from_slice(&key.hash);
            bytes.extend_from_slice(&key.size_bytes.to_le_bytes());
            bytes.extend_from_slice(&[u8::from(key.clear), 0, 0, 0]);
        }
        for pack in &self.packs {
            bytes.extend_from_slice(&pack.number.to_le_bytes());
            bytes.extend_from_slice(&pack.key.to_le_bytes());
            bytes.extend_from_slice(&pack.size_bytes.to_le_bytes());
            bytes.extend_from_slice(&[pack.class.byte(), 0, 0, 0]);
            bytes.extend_from_slice(&pack.hash);
        }
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "decode", "a closure", detail);
        let mut fields = Fields::new(bytes, "a closure");
        let (keys, packs, logs) = (fields.u32()?, fields.u32()?, fields.u64()?);
        if logs != 0 {
            return Err(damaged("it names log ranges, which need a newer Lifeboat").with_kind(ErrorKind::Incompatible));
        }
        let mut closure = Self::default();
        for _ in 0..keys {
            let (session, hash, size_bytes) = (SessionId(fields.array()?), fields.array()?, fields.u32()?);
            let clear = fields.u8()? != 0;
            fields.take(3)?;
            closure.keys.push(KeyFile {
                session,
                hash,
                size_bytes,
                clear,
            });
        }
        for _ in 0..packs {
            let (number, key, size_bytes) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let class = PackClass::from_byte(fields.u8()?)?;
            fields.take(3)?;
            let hash = fields.array()?;
            if key >= keys {
                return Err(damaged("a pack names a key file that is not there"));
            }
            if closure.packs.last().is_some_and(|last: &Pack| last.number >= number) {
                return Err(damaged("its packs are not in order"));
            }
            closure.packs.push(Pack {
                number,
                key,
                size_bytes,
                class,
                hash,
            });
        }
        if closure.keys.is_empty() || !fields.is_empty() {
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

    /// The key file that opens a pack.
    #[must_use]
    pub fn key_of(&self, pack: &Pack) -> Option<&KeyFile> {
        self.keys.get(pack.key as usize)
    }

    /// A pack's name in the store.
    pub fn pack_key(&self, pack: &Pack, component: &ComponentName) -> Result<Key> {
        let key = self.key_of(pack).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "decode",
                "a closure",
                "a pack names a key file that is not there",
            )
        })?;
        pack_name(component, pack.class, key.session, &pack.hash)
    }

    /// Every file and its size in bytes.
    pub fn files(&self, component: &ComponentName) -> Result<Vec<(Key, u64)>> {
        let mut files = Vec::with_capacity(self.keys.len() + self.packs.len());
        for key in &self.keys {
            files.push((key.key(component)?, u64::from(key.size_bytes)));
        }
        for pack in &self.packs {
            files.push((self.pack_key(pack, component)?, u64::from(pack.size_bytes)));
        }
        Ok(files)
    }
}

/// The name of a pack.
pub(crate) fn pack_name(component: &ComponentName, class: PackClass, session: SessionId, hash: &[u8; 32]) -> Result<Key> {
    component
        .folder()?
        .join(&format!("{}/{session}/{}", class.folder(), hex::encode(hash)))
}
