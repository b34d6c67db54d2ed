//! Who wrote: the signing key of an installation, and the public keys a reader trusts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::draw_secret;
use crate::bytes::hex_array;

/// The public half of an instance's signing key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub(crate) [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// With what everything begins that is signed of a repository (docs/format.md).
pub(crate) const SIGNED_FILES: &[u8] = b"lifeboat v1 ";

impl PublicKey {
    /// Its 32 bytes (RFC 8032).
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it signed a document, as [`Instance::sign_document`] does.
    #[must_use]
    pub fn has_signed(&self, document: &[u8], signature: &[u8]) -> bool {
        !document.starts_with(SIGNED_FILES) && UnparsedPublicKey::new(&ED25519, self.0).verify(document, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let hex = text.strip_prefix("ed25519:").ok_or_else(|| {
            Error::new(
                ErrorKind::ConfigInvalid,
                "use as an instance's public key",
                format!("{text:?}"),
                "it does not begin with \"ed25519:\"",
            )
        })?;
        let key = hex_array(hex, "an instance's public key").map_err(|error| error.with_kind(ErrorKind::ConfigInvalid))?;
        Ok(Self(key))
    }
}

/// Checks `signature` over `message`.
pub(crate) fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// What an instance may do. A stolen host that may only back up makes no pruner delete anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Its announcements and backups count.
    pub backup: bool,
    /// Its censuses and sweep lists count.
    pub prune: bool,
    /// Its holds count.
    pub hold: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self {
        backup: true,
        prune: true,
        hold: true,
    };
}

/// The public keys of the instances whose files count, with their names and what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust(BTreeMap<PublicKey, (String, Rights)>);

impl Trust {
    /// Trusts nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the instance `name` with everything.
    pub fn add(&mut self, name: impl Into<String>, key: PublicKey) {
        self.add_with(name, key, Rights::ALL);
    }

    /// Trusts the instance `name` as far as `rights` go.
    pub fn add_with(&mut self, name: impl Into<String>, key: PublicKey, rights: Rights) {
        self.0.insert(key, (name.into(), rights));
    }

    /// The name of a trusted key.
    #[must_use]
    pub fn name_of(&self, key: &PublicKey) -> Option<&str> {
        self.get(key).map(|(name, _)| name)
    }

    /// What a trusted key may do.
    #[must_use]
    pub fn rights_of(&self, key: &PublicKey) -> Option<Rights> {
        self.get(key).map(|(_, rights)| rights)
    }

    pub(crate) fn get(&self, key: &PublicKey) -> Option<(&str, Rights)> {
        self.0.get(key).map(|(name, rights)| (name.as_str(), *rights))
    }
}

/// This installation: its name and its signing key.
pub struct Instance {
    name: String,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("name", &self.name)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Makes a signing key and writes it to the new file `path` (0600).
    pub fn create(env: &Env, name: &str, path: &Path) -> Result<Self> {
        let seed = draw_secret(env)?;
        let instance = Self::from_seed(name, seed.as_slice(), path)?;
        durable::create_folder(&durable::parent_of(path))?;
        let text = Zeroizing::new(format!(
            "# Lifeboat instance signing key of {name}; private\nLIFEBOAT-INSTANCE-KEY-1 {}\n",
            hex::encode(seed.as_slice())
        ));
        match durable::create_file(path, text.as_bytes(), durable::FILE_MODE)? {
            durable::Created::New => Ok(instance),
            durable::Created::AlreadyThere => Err(Error::new(
                ErrorKind::AlreadyExists,
                "create",
                path.display(),
                "an instance key is there already",
            )),
        }
    }

    /// Reads the signing key of the instance `name` from `path`. Kind `NotFound` when there is none.
    pub fn load(name: &str, path: &Path) -> Result<Self> {
        let text = Zeroizing::new(
            std::fs::read_to_string(path).map_err(|error| Error::io("read the instance key", path.display(), error))?,
        );
        let damaged = || {
            Error::new(
                ErrorKind::Corrupt,
                "read the instance key",
                path.display(),
                "it holds no LIFEBOAT-INSTANCE-KEY-1 line",
            )
        };
        let hex = text
            .lines()
            .find_map(|line| line.strip_prefix("LIFEBOAT-INSTANCE-KEY-1 "))
            .ok_or_else(damaged)?;
        let seed = Zeroizing::new(hex_array::<32>(hex.trim(), "an instance key")?);
        Self::from_seed(name, seed.as_slice(), path)
    }

    fn from_seed(name: &str, seed: &[u8], path: &Path) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "use the instance key", path.display(), error.to_string()))?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self {
            name: name.to_owned(),
            pair,
            public: PublicKey(public),
        })
    }

    /// What the configuration calls this installation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key by which others know it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// Signs a document that is no file of a repository, over its bytes: other programs can check that. It cannot be taken for one of a file, which is
    /// over text that begins with `lifeboat v1`.
    ///
    /// # Errors
    /// `Bug` for a document that begins so.
    pub fn sign_document(&self, document: &[u8]) -> Result<[u8; 64]> {
        if document.starts_with(SIGNED_FILES) {
            let detail = "it begins as the signatures of a repository's files do";
            return Err(Error::new(ErrorKind::Bug, "sign", "a document", detail));
        }
        Ok(self.sign(document))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}
