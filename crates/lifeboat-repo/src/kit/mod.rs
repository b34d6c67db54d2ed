//! Recovery kits (`docs/format.md` 13, `docs/kit.md`): what a person with nothing but the store and the key needs to begin.
//!
//! Bytes in and out. What stands in a kit, and when one is put, is decided by the command line, which has the configuration. Nothing here deletes
//! anything, and nothing of a kit is given out before its signature was judged (INV-19).

mod name;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Key, Put};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::RepositoryId;
use crate::key::age;
use crate::key::age::Encryption;
use crate::key::identity::Identities;
use crate::key::instance::{Instance, PublicKey, Trust};
use crate::ledger::{chain_of, digest};
use crate::repository::Repository;
use crate::signed::{self, Kind};
use crate::time::{format_utc, parse_utc};

pub use name::KitName;

/// No kit is longer.
pub const KIT_LIMIT_BYTES: u64 = 4 << 20;

/// What everybody who reads the store may know of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitComponent {
    /// `system/component`.
    pub name: String,
    /// `sqlite`, `postgres`, `files`, `pki`.
    pub kind: String,
    /// How soon it is recovered, as the configuration says it.
    pub priority: String,
    /// What is recovered before it.
    pub depends_on: Vec<String>,
}

/// What only the holders of the keys read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitConfiguration {
    /// Where it was, on the machine that is gone.
    pub path: String,
    /// The text, as it stood there.
    pub text: String,
    /// By name of the key: the public keys that it comes to, also where the text only names a file or a passphrase.
    pub recipients: std::collections::BTreeMap<String, Vec<String>>,
}

impl std::fmt::Debug for KitConfiguration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KitConfiguration")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The configuration in a kit, or why it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// To be kept as the backups are: for these recipients, or for everybody.
    Kept(KitConfiguration, Encryption),
    /// Left out, and why: one sentence without a final stop.
    LeftOut(String),
}

/// What a kit is made of.
#[derive(Debug, Clone)]
pub struct NewKit {
    /// Version of Lifeboat that makes it.
    pub lifeboat: String,
    /// The name of this store in the configuration.
    pub store: String,
    /// What is in this store, in the order of recovery.
    pub components: Vec<KitComponent>,
    /// How to get on: sentences.
    pub how: Vec<String>,
    /// The configuration.
    pub content: Content,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "lowercase")]
enum Stored {
    Age { age: String },
    Clear { clear: KitConfiguration },
    None { why: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Json {
    version: u32,
    repository: String,
    instance: String,
    at: String,
    lifeboat: String,
    store: String,
    how: Vec<String>,
    components: Vec<KitComponent>,
    configuration: Stored,
}

/// A kit whose signature was judged.
#[derive(Debug, Clone)]
pub struct Kit {
    /// Its name.
    pub name: KitName,
    /// The name of the instance, as it called itself.
    pub instance: String,
    /// The key that signed it.
    pub signer: PublicKey,
    /// When, by the clock of that machine, microseconds since 1970.
    pub at_us: i64,
    /// Version of Lifeboat that made it.
    pub lifeboat: String,
    /// What that machine calls this store.
    pub store: String,
    /// What is in this store, in the order of recovery.
    pub components: Vec<KitComponent>,
    /// How to get on.
    pub how: Vec<String>,
    configuration: Stored,
}

/// What lies under `kit/`.
#[derive(Debug, Default)]
pub struct KitListing {
    /// Names of kits, oldest first.
    pub names: Vec<KitName>,
    /// What has no name of a kit.
    pub unknown: Vec<String>,
}

fn folder() -> Result<Key> {
    Key::new("kit")
}

fn bug(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Bug, "encode", "a kit", error.to_string())
}

/// A digest of all that a kit says, but for its time: two with the same say the same to the same people.
pub fn kit_digest(repository: RepositoryId, instance: &Instance, new: &NewKit) -> Result<String> {
    let said = match &new.content {
        Content::Kept(configuration, Encryption::Clear) => serde_json::json!([configuration]),
        Content::Kept(configuration, Encryption::Age(recipients)) => serde_json::json!([configuration, recipients]),
        Content::LeftOut(why) => serde_json::json!(why),
    };
    let all = serde_json::json!([
        repository.to_string(),
        instance.name(),
        instance.public_key().to_string(),
        new.lifeboat,
        new.store,
        new.components,
        new.how,
        said,
    ]);
    Ok(digest(&serde_json::to_vec(&all).map_err(|error| bug(&error))?))
}

/// Encrypts and signs a kit of the time `at_us`.
///
/// # Errors
/// Kind `ConfigInvalid` where it is to be encrypted and there is no recipient, `Refused` where it would be longer than any reader accepts.
pub fn seal_kit(repository: RepositoryId, instance: &Instance, at_us: i64, new: &NewKit) -> Result<(KitName, Bytes)> {
    let configuration = match &new.content {
        Content::LeftOut(why) => Stored::None { why: why.clone() },
        Content::Kept(configuration, Encryption::Clear) => Stored::Clear {
            clear: configuration.clone(),
        },
        Content::Kept(configuration, Encryption::Age(recipients)) => {
            let plain = Zeroizing::new(serde_json::to_vec(configuration).map_err(|error| bug(&error))?);
            Stored::Age {
                age: BASE64.encode(age::encrypt(&plain, &age::parse_recipients(recipients)?, false)?),
            }
        }
    };
    let json = Json {
        version: 1,
        repository: repository.to_string(),
        instance: instance.name().to_owned(),
        at: format_utc(at_us),
        lifeboat: new.lifeboat.clone(),
        store: new.store.clone(),
        how: new.how.clone(),
        components: new.components.clone(),
        configuration,
    };
    let mut body = serde_json::to_vec_pretty(&json).map_err(|error| bug(&error))?;
    body.push(b'\n');
    let stored = signed::sign(Kind::Kit, body, instance);
    if stored.len() as u64 > KIT_LIMIT_BYTES {
        return Err(Error::new(
            ErrorKind::Refused,
            "make",
            "the recovery kit",
            format!("it would be longer than {KIT_LIMIT_BYTES} bytes"),
        ));
    }
    let name = KitName {
        at_us: u64::try_from(at_us).unwrap_or(0),
        signer: chain_of(&instance.public_key()),
        hash: *blake3::hash(&stored).as_bytes(),
    };
    Ok((name, Bytes::from(stored)))
}

/// Stores a kit under its name. It is never put over another one: the name holds its hash (INV-01, INV-19).
pub async fn put_kit(store: &dyn BlobStore, name: &KitName, stored: Bytes) -> Result<()> {
    match store.put(&folder()?.join(&name.to_string())?, stored).await? {
        Put::Created | Put::AlreadyThere => Ok(()),
    }
}

/// The names of all kits of a store.
///
/// # Errors
/// When the store cannot be listed (INV-13).
pub async fn list_kits(repository: &Repository) -> Result<KitListing> {
    let folder = folder()?;
    let mut listing = KitListing::default();
    for entry in repository.store().list(&folder).await? {
        let below = entry.key.as_str().strip_prefix(folder.as_str()).unwrap_or_default();
        match below.trim_start_matches('/').parse() {
            Ok(name) => listing.names.push(name),
            Err(_) => listing.unknown.push(entry.key.as_str().to_owned()),
        }
    }
    listing.names.sort_unstable();
    Ok(listing)
}

/// The bytes of a kit as they are stored; nothing about them has been looked at.
pub async fn get_kit(repository: &Repository, name: &KitName) -> Result<Bytes> {
    let key = folder()?.join(&name.to_string())?;
    repository.store().get(&key, KIT_LIMIT_BYTES).await
}

/// Who signed a kit, by its own word: somebody has to say whether to believe it. `Corrupt` where the signature does not fit the bytes.
pub fn kit_signer(name: &KitName, stored: &[u8]) -> Result<PublicKey> {
    signed::signer(Kind::Kit, &format!("kit/{name}"), stored)
}

/// Judges the stored bytes of the kit `name` (INV-19): its hash, its signature by somebody in `trust`, its place. `Corrupt` for anything else.
pub fn open_kit(repository: RepositoryId, trust: &Trust, name: &KitName, stored: &[u8]) -> Result<Kit> {
    let shown = format!("kit/{name}");
    let bad = |detail: &str| Error::new(ErrorKind::Corrupt, "accept", &shown, detail);
    if *blake3::hash(stored).as_bytes() != name.hash {
        return Err(bad("its bytes do not hash to its name: it is damaged"));
    }
    let (body, signer) = signed::open(Kind::Kit, &shown, stored, trust)?;
    if chain_of(&signer) != name.signer {
        return Err(bad("its name is that of another instance's kit"));
    }
    let json: Json = serde_json::from_slice(body).map_err(|error| bad("it is not a kit").with_source(error))?;
    if json.version != 1 {
        return Err(bad("it has another format version").with_kind(ErrorKind::Incompatible));
    }
    if json.repository != repository.to_string() {
        return Err(bad("it was copied here from another repository"));
    }
    let at_us = parse_utc(&json.at)?;
    if u64::try_from(at_us).ok() != Some(name.at_us) {
        return Err(bad("its time is not that of its name"));
    }
    Ok(Kit {
        name: *name,
        instance: json.instance,
        signer,
        at_us,
        lifeboat: json.lifeboat,
        store: json.store,
        components: json.components,
        how: json.how,
        configuration: json.configuration,
    })
}

impl Kit {
    /// Whether the configuration needs a private key.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self.configuration, Stored::Age { .. })
    }

    /// The configuration. Kind `WrongKey` where no private key fits, `NoSuchPoint` where it was left out, `Corrupt` where it is damaged.
    pub fn configuration(&self, identities: &Identities) -> Result<KitConfiguration> {
        let bad = |detail: &str| Error::new(ErrorKind::Corrupt, "open", format!("kit/{}", self.name), detail);
        let sealed = match &self.configuration {
            Stored::Clear { clear } => return Ok(clear.clone()),
            Stored::None { why } => {
                return Err(Error::new(
                    ErrorKind::NoSuchPoint,
                    "open",
                    "the configuration in the kit",
                    format!("it was left out when the kit was made: {why}"),
                )
                .with_hint("write a lifeboat.yaml by hand: the store, the key, and the components that the kit names are all that a restore needs"));
            }
            Stored::Age { age } => BASE64
                .decode(age)
                .map_err(|error| bad("it is not base64").with_source(error))?,
        };
        let plain = age::decrypt(&sealed, identities).map_err(|error| match error.kind() {
            ErrorKind::WrongKey => Error::new(
                ErrorKind::WrongKey,
                "open",
                "the configuration in the kit",
                "the private key does not fit: it was encrypted to other recipients",
            )
            .with_hint("find the file with the key that these backups are encrypted to; it begins with AGE-SECRET-KEY-, or is an ssh key")
            .with_source(error),
            _ => bad("its encrypted part is damaged").with_source(error),
        })?;
        serde_json::from_slice(&plain).map_err(|error| bad("what is in it is not a configuration").with_source(error))
    }
}
