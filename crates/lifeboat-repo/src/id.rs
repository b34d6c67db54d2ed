//! Names and identities: repositories, components, sessions, lineages, backups.

use std::fmt;
use std::str::FromStr;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::Key;

use crate::bytes::hex_array;

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) [u8; 16]);

        impl $name {
            /// Draws a new one.
            pub fn draw(env: &Env) -> Result<Self> {
                let mut bytes = [0; 16];
                env.entropy.fill(&mut bytes)?;
                Ok(Self(bytes))
            }

            /// The 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                Ok(Self(hex_array(text, $what)?))
            }
        }
    };
}

id16!(
    /// One repository; all its stores share it.
    RepositoryId,
    "a repository id"
);
id16!(
    /// One run that writes.
    SessionId,
    "a session id"
);
id16!(
    /// The run of backups that share page identities and pack numbers.
    Lineage,
    "a lineage id"
);

id16!(
    /// One instance's records about one component: the first 16 bytes of `B3` of its public key.
    ChainId,
    "the id of a chain"
);

/// What is protected, as people write it: `tartware/db`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentName(String);

impl ComponentName {
    /// Checks and takes `SYSTEM/COMPONENT`: two parts, each of `a-z A-Z 0-9 - _ .`, not beginning with a dot or dash.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let sound = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && !part.starts_with(['.', '-'])
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() == 2 && parts.iter().all(|part| sound(part)) {
            Ok(Self(name))
        } else {
            Err(Error::new(
                ErrorKind::Usage,
                "use as a component",
                format!("{name:?}"),
                "a component is written SYSTEM/COMPONENT, with letters, digits, '-', '_' and '.'",
            ))
        }
    }

    /// The name as people write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one path segment (format 1).
    #[must_use]
    pub fn segment(&self) -> String {
        let mut segment = String::with_capacity(self.0.len() + 2);
        for (index, byte) in self.0.bytes().enumerate() {
            let plain =
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_') || (byte == b'.' && index > 0);
            if plain {
                segment.push(char::from(byte));
            } else {
                segment.push_str(&format!("~{byte:02X}"));
            }
        }
        segment
    }

    /// Reads a path segment back; `None` for one that no component has.
    #[must_use]
    pub fn from_segment(segment: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(segment.len());
        let mut rest = segment.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            if first == b'~' {
                let (digits, after) = tail.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = after;
            } else {
                bytes.push(first);
                rest = tail;
            }
        }
        let name = Self::new(String::from_utf8(bytes).ok()?).ok()?;
        (name.segment() == segment).then_some(name)
    }

    /// Its folder in the store.
    pub fn folder(&self) -> Result<Key> {
        Key::new(format!("c/{}", self.segment()))
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One backup: its sequence number and the hash of its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// Higher is newer, within a component.
    pub seq: u64,
    /// BLAKE3 of the backup file.
    pub hash: [u8; 32],
}

impl BackupId {
    /// How people name it: `12-3fa9c1d2`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}-{}", self.seq, hex::encode(self.hash.get(..4).unwrap_or_default()))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.seq, hex::encode(self.hash))
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for BackupId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(
                ErrorKind::Corrupt,
                "read the backup name",
                format!("{text:?}"),
                "it is not SEQ-HASH",
            )
        };
        let (seq, hash) = text.split_once('-').ok_or_else(bad)?;
        if seq.len() != 16 {
            return Err(bad());
        }
        let seq = u64::from_str_radix(seq, 16).map_err(|error| bad().with_source(error))?;
        let id = Self {
            seq,
            hash: hex_array(hash, "a backup name")?,
        };
        // One backup has one name: no upper case, no sign.
        if id.to_string() == text { Ok(id) } else { Err(bad()) }
    }
}
