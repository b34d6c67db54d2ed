//! Session keys, wrapped to age recipients. `age -d -i identity.txt` opens the same files.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identity::Identities;
use super::recipient::{Fingerprint, Recipient, Roster, RosterStanzas};
use super::{Scope, Secret, key_check};
use crate::bytes::hex_array;
use crate::id::{ComponentName, Lineage, RepositoryId, SessionId};

/// How a session's keys are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// Wrapped to these public keys (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`); at least one.
    Age(Vec<String>),
    /// In the clear beside the data: no secrecy. Only where the configuration writes it out.
    Clear,
}

impl Encryption {
    /// The short names of its recipients; none in the clear.
    pub(crate) fn fingerprints(&self) -> Result<BTreeSet<Fingerprint>> {
        match self {
            Self::Clear => Ok(BTreeSet::new()),
            Self::Age(recipients) => Ok(parse_recipients(recipients)?.iter().map(Recipient::fingerprint).collect()),
        }
    }
}

/// What a key file holds.
#[derive(Clone)]
pub(crate) struct SessionKeys {
    pub(crate) session: SessionId,
    pub(crate) lineage: Lineage,
    pub(crate) data_key: Secret,
    pub(crate) id_key: Secret,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionKeys")
            .field("session", &self.session)
            .field("lineage", &self.lineage)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct KeyFileJson {
    version: u32,
    repository: String,
    component: String,
    session: String,
    lineage: String,
    data_key: String,
    id_key: String,
}

impl SessionKeys {
    /// The key file's bytes. With `retired` it says that no backup may build on the session any more.
    pub(crate) fn wrap(
        &self,
        repository: RepositoryId,
        component: &ComponentName,
        encryption: &Encryption,
        retired: bool,
    ) -> Result<Vec<u8>> {
        let json = KeyFileJson {
            version: 1,
            repository: repository.to_string(),
            component: component.to_string(),
            session: self.session.to_string(),
            lineage: self.lineage.to_string(),
            data_key: hex::encode(self.data_key.as_slice()),
            id_key: hex::encode(self.id_key.as_slice()),
        };
        let plain = Zeroizing::new(serde_json::to_vec(&json).map_err(|error| bug(&error))?);
        match encryption {
            Encryption::Clear => Ok(plain.to_vec()),
            Encryption::Age(recipients) => encrypt(&plain, &parse_recipients(recipients)?, retired),
        }
    }

    /// What a closure says of these keys.
    pub(crate) fn check(&self, scope: &Scope) -> [u8; 32] {
        key_check(&self.data_key, &self.id_key, scope)
    }

    /// Opens a key file. `WrongKey`: intact, but made for others. `Corrupt`: damaged, or not what its place says.
    pub(crate) fn unwrap(
        stored: &[u8],
        clear: bool,
        identities: &Identities,
        repository: RepositoryId,
        component: &ComponentName,
        session: SessionId,
    ) -> Result<Self> {
        let plain = if clear {
            Zeroizing::new(stored.to_vec())
        } else {
            decrypt(stored, identities)?
        };
        let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "open the session key", session, detail);
        let json: KeyFileJson =
            serde_json::from_slice(&plain).map_err(|error| damaged("its content is not a key file").with_source(error))?;
        if json.version != 1 {
            return Err(damaged("it has another format version").with_kind(ErrorKind::Incompatible));
        }
        if json.repository != repository.to_string()
            || json.component != component.as_str()
            || json.session != session.to_string()
        {
            return Err(damaged("it belongs to another repository, component or session"));
        }
        Ok(Self {
            session,
            lineage: json.lineage.parse()?,
            data_key: Zeroizing::new(hex_array(&json.data_key, "a data key")?),
            id_key: Zeroizing::new(hex_array(&json.id_key, "an id key")?),
        })
    }
}

fn bug(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Bug, "encode", "a key file", error.to_string())
}

pub(crate) fn encrypt(plain: &[u8], recipients: &[Recipient], retired: bool) -> Result<Vec<u8>> {
    let roster = RosterStanzas(Roster {
        recipients: Some(recipients.iter().map(Recipient::fingerprint).collect()),
        retired,
    });
    let failed = |detail: String| Error::new(ErrorKind::Failed, "encrypt", "the session key", detail);
    let encryptor = ::age::Encryptor::with_recipients(
        recipients
            .iter()
            .map(Recipient::as_age)
            .chain([&roster as &dyn ::age::Recipient]),
    )
    .map_err(|error| failed(error.to_string()))?;
    let mut sealed = Vec::new();
    let written = encryptor.wrap_output(&mut sealed).and_then(|mut writer| {
        writer.write_all(plain)?;
        writer.finish().map(|_| ())
    });
    written.map_err(|error| failed(error.to_string()))?;
    Ok(sealed)
}

/// Checks public keys as the configuration gives them.
pub(crate) fn parse_recipients(recipients: &[String]) -> Result<Vec<Recipient>> {
    if recipients.is_empty() {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "encrypt to",
            "no recipient",
            "the key has no recipient (age1… or ssh), or the passphrase that it is derived from is not at hand here",
        ));
    }
    recipients.iter().map(|text| Recipient::parse(text)).collect()
}

pub(crate) fn decrypt(stored: &[u8], identities: &Identities) -> Result<Zeroizing<Vec<u8>>> {
    let wrong = |detail: &str| {
        Error::new(ErrorKind::WrongKey, "open", "the session key", detail).with_hint(
            "point `identity` at the file with the private key (`lifeboat key check` shows which public keys it holds)",
        )
    };
    if identities.is_empty() {
        return Err(wrong("the backup is encrypted and no private key was given"));
    }
    let judge = |error: ::age::DecryptError| match error {
        ::age::DecryptError::NoMatchingKeys => {
            wrong("none of the private keys fits: the backup was encrypted to other recipients")
        }
        other => Error::new(
            ErrorKind::Corrupt,
            "open",
            "the session key",
            format!("the key file is damaged ({other})"),
        ),
    };
    let decryptor = ::age::Decryptor::new(stored).map_err(judge)?;
    let mut reader = decryptor.decrypt(identities.as_age()).map_err(judge)?;
    let mut plain = Zeroizing::new(Vec::new());
    reader.read_to_end(&mut plain).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "open", "the session key", "the key file is damaged").with_source(error)
    })?;
    Ok(plain)
}
