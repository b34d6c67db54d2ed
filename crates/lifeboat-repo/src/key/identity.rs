//! Private keys: age identity files, plain or under a passphrase, and OpenSSH keys. What they open is `age.rs`'s business.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use ::age::secrecy::{ExposeSecret, SecretString};
use ::age::{DecryptError, scrypt, ssh, x25519};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lifeboat_model::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use super::recipient::Recipient;

const ARMOR_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";
/// What a passphrase costs to try: 2^18 rounds of scrypt, about a second and 256 MiB; the default of `age -p`.
const WORK_FACTOR: u8 = 18;
/// More than 1 GiB of memory is refused: whoever may replace the file could otherwise stop this machine with it.
const WORK_FACTOR_LIMIT: u8 = 20;
/// An identity file is at most this long.
const IDENTITY_LIMIT_BYTES: u64 = 1 << 20;
const FORMS: &str = "an identity file holds a line that begins with AGE-SECRET-KEY-1 (`lifeboat key new` makes one), or is an OpenSSH private key";

/// Private keys that open sessions.
#[derive(Default, Clone)]
pub struct Identities(Vec<PrivateKey>);

#[derive(Clone)]
struct PrivateKey {
    recipient: Recipient,
    key: Arc<dyn ::age::Identity + Send + Sync>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identities").field(&self.public_keys()).finish()
    }
}

/// Asks for the passphrase of an identity file; called only where there is one.
pub type AskPassphrase<'a> = dyn FnMut() -> Result<Zeroizing<String>> + Send + 'a;

/// Makes a new key pair: secret (`AGE-SECRET-KEY-1…`) and public key (`age1…`).
#[must_use]
pub fn generate_identity() -> (String, String) {
    let identity = x25519::Identity::generate();
    (
        identity.to_string().expose_secret().to_owned(),
        identity.to_public().to_string(),
    )
}

/// The text of an identity file under a passphrase, as an armored age file: `age -d` opens it, and `age -d -i` takes it as it is.
pub fn protect_identity(text: &str, passphrase: &str) -> Result<String> {
    let failed = |detail: String| Error::new(ErrorKind::Failed, "protect", "the identity", detail);
    if passphrase.is_empty() {
        return Err(Error::new(
            ErrorKind::Usage,
            "protect",
            "the identity",
            "the passphrase is empty",
        ));
    }
    let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
    recipient.set_work_factor(WORK_FACTOR);
    let encryptor = ::age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn ::age::Recipient))
        .map_err(|error| failed(error.to_string()))?;
    let mut sealed = Vec::new();
    let written = encryptor.wrap_output(&mut sealed).and_then(|mut writer| {
        writer.write_all(text.as_bytes())?;
        writer.finish().map(|_| ())
    });
    written.map_err(|error| failed(error.to_string()))?;
    let mut armored = format!("{ARMOR_BEGIN}\n");
    let encoded = BASE64.encode(sealed);
    for line in encoded.as_bytes().chunks(64) {
        armored.extend(line.iter().copied().map(char::from));
        armored.push('\n');
    }
    armored.push_str(ARMOR_END);
    armored.push('\n');
    Ok(armored)
}

impl Identities {
    /// No private key: encrypted backups cannot be read, those in the clear can.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads an identity file that has no passphrase: `AGE-SECRET-KEY-1…` lines with `#` comments, or an OpenSSH private key.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text.as_bytes(), &mut || {
            Err(
                refused("the identity file", "it is protected by a passphrase, and none was given").with_hint(
                    "give the passphrase in the configuration (`passphrase:`), or run this on a terminal to be asked for it",
                ),
            )
        })
    }

    /// Reads any identity file; `ask` is called where it needs a passphrase. Kind `WrongKey` for all that is wrong with it.
    pub fn read(stored: &[u8], ask: &mut AskPassphrase<'_>) -> Result<Self> {
        let Some(sealed) = sealed_identity(stored)? else {
            return Self::read_plain(stored, ask);
        };
        let passphrase = ask()?;
        let plain = open_sealed(&sealed, &passphrase)?;
        if sealed_identity(&plain)?.is_some() {
            return Err(refused("the identity file", "it is protected by a passphrase twice"));
        }
        Self::read_plain(&plain, ask)
    }

    fn read_plain(stored: &[u8], ask: &mut AskPassphrase<'_>) -> Result<Self> {
        let text = std::str::from_utf8(stored).map_err(|error| {
            refused("the identity file", "it is not text")
                .with_hint(FORMS)
                .with_source(error)
        })?;
        if text.trim_start().starts_with("-----BEGIN") {
            return read_ssh(text.trim_start(), ask);
        }
        let mut keys = Vec::new();
        for (index, line) in text
            .lines()
            .map(str::trim)
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        {
            let identity = line.parse::<x25519::Identity>().map_err(|reason| {
                let detail = if line.starts_with("AGE-PLUGIN-") {
                    "identities of age plugins are not supported".to_owned()
                } else {
                    format!("it is not an age X25519 identity ({reason})")
                };
                refused(&format!("line {}", index + 1), &detail).with_hint(FORMS)
            })?;
            keys.push(PrivateKey {
                recipient: Recipient::of_x25519(&identity),
                key: Arc::new(identity),
            });
        }
        if keys.is_empty() {
            return Err(refused("the identity file", "it holds no key").with_hint(FORMS));
        }
        Ok(Self(keys))
    }

    /// Adds the keys of `others`.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Whether there is no private key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The public keys that belong to these.
    #[must_use]
    pub fn public_keys(&self) -> Vec<String> {
        self.0.iter().map(|key| key.recipient.to_string()).collect()
    }

    /// The public halves.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.0.iter().map(|key| &key.recipient)
    }

    pub(crate) fn as_age(&self) -> impl Iterator<Item = &dyn ::age::Identity> {
        self.0.iter().map(|key| key.key.as_ref() as &dyn ::age::Identity)
    }
}

fn refused(subject: &str, detail: &str) -> Error {
    Error::new(ErrorKind::WrongKey, "read the identity", subject, detail)
}

/// Whether an identity file lies under a passphrase, without asking for it.
#[must_use]
pub fn needs_passphrase(stored: &[u8]) -> bool {
    let text = std::str::from_utf8(stored).map(str::trim_start).unwrap_or_default();
    stored.starts_with(b"age-encryption.org/") || text.starts_with(ARMOR_BEGIN) || {
        let key = text
            .starts_with("-----BEGIN")
            .then(|| ssh::Identity::from_buffer(text.as_bytes(), None));
        matches!(key, Some(Ok(ssh::Identity::Encrypted(_))))
    }
}

/// The binary age file of an identity under a passphrase; `None` where it is something else.
fn sealed_identity(stored: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
    if stored.starts_with(b"age-encryption.org/") {
        return Ok(Some(Zeroizing::new(stored.to_vec())));
    }
    let Some(rest) = std::str::from_utf8(stored)
        .ok()
        .and_then(|text| text.trim().strip_prefix(ARMOR_BEGIN))
    else {
        return Ok(None);
    };
    let broken = || refused("the identity file", "its age armor is cut off or damaged");
    let body: String = rest
        .trim_end()
        .strip_suffix(ARMOR_END)
        .ok_or_else(broken)?
        .split_whitespace()
        .collect();
    let sealed = BASE64.decode(body).map_err(|error| broken().with_source(error))?;
    Ok(Some(Zeroizing::new(sealed)))
}

fn open_sealed(sealed: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
    identity.set_max_work_factor(WORK_FACTOR_LIMIT);
    let judge = |error: DecryptError| {
        match error {
        DecryptError::ExcessiveWork { required, .. } => refused(
            "the identity file",
            &format!("its passphrase has a work factor of {required}, and more than {WORK_FACTOR_LIMIT} is refused: it would take over 1 GiB of memory"),
        )
        .with_hint("open it with `age -d` on a large machine and protect it anew: `age -p` uses 18"),
        DecryptError::NoMatchingKeys => refused("the identity file", "it is encrypted, but not with a passphrase")
            .with_hint("decrypt it with `age -d` first"),
        DecryptError::KeyDecryptionFailed | DecryptError::DecryptionFailed => wrong_passphrase(),
        other => refused("the identity file", &format!("it is damaged ({other})")),
    }
    };
    let decryptor = ::age::Decryptor::new(sealed).map_err(judge)?;
    let reader = decryptor
        .decrypt(std::iter::once(&identity as &dyn ::age::Identity))
        .map_err(judge)?;
    let mut plain = Zeroizing::new(Vec::new());
    reader
        .take(IDENTITY_LIMIT_BYTES)
        .read_to_end(&mut plain)
        .map_err(|error| refused("the identity file", "it is damaged").with_source(error))?;
    Ok(plain)
}

fn wrong_passphrase() -> Error {
    refused("the identity file", "the passphrase is wrong").with_hint("try again; `lifeboat key check` proves that it fits")
}

fn read_ssh(text: &str, ask: &mut AskPassphrase<'_>) -> Result<Identities> {
    use ssh::UnsupportedKey as Unsupported;
    const OTHER: &str = "use an ssh-ed25519 or ssh-rsa key in OpenSSH's format, or an age key (`lifeboat key new` makes one)";
    let what = "the ssh private key";
    let identity = ssh::Identity::from_buffer(text.as_bytes(), None).map_err(|error| {
        let first = text.lines().next().unwrap_or_default();
        refused(
            what,
            &format!("{first:?} begins no private key that can open backups, or the file is damaged"),
        )
        .with_hint(OTHER)
        .with_source(error)
    })?;
    let public = || {
        ssh::Recipient::try_from(identity.clone())
            .map(Recipient::of_ssh)
            .map_err(|reason| refused(what, &format!("its public half cannot be read ({reason:?})")).with_hint(OTHER))
    };
    let key = match &identity {
        ssh::Identity::Unencrypted(_) => identity.clone(),
        ssh::Identity::Encrypted(key) => {
            let passphrase = ask()?;
            let opened = key.decrypt(SecretString::from(passphrase.as_str().to_owned()));
            ssh::Identity::Unencrypted(opened.map_err(|error| wrong_passphrase().with_source(error))?)
        }
        ssh::Identity::Unsupported(Unsupported::EncryptedPem) => {
            return Err(
                refused(what, "it is an old PEM file with a passphrase, which is badly protected")
                    .with_hint("`ssh-keygen -p -f FILE` writes it in OpenSSH's format"),
            );
        }
        ssh::Identity::Unsupported(Unsupported::EncryptedSsh(cipher)) => {
            return Err(refused(
                what,
                &format!("its passphrase protection uses {cipher}, which is not supported"),
            )
            .with_hint("`ssh-keygen -p -Z aes256-ctr -f FILE` changes that"));
        }
        ssh::Identity::Unsupported(Unsupported::Hardware(kind) | Unsupported::Type(kind)) => {
            return Err(refused(what, &format!("keys of type {kind} cannot open backups")).with_hint(OTHER));
        }
    };
    Ok(Identities(vec![PrivateKey {
        recipient: public()?,
        key: Arc::new(key),
    }]))
}
