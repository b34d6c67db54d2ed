//! For whom keys are wrapped: age X25519 and ssh public keys, and the short names by which key files and headers list them.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use ::age::{EncryptError, ssh, x25519};
use age_core::format::{FileKey, Stanza};
use lifeboat_model::{Error, ErrorKind, Result};

const WHO: &str = "lifeboat-recipients";
const RETIRED: &str = "lifeboat-retired";

/// A public key that backups can be encrypted to.
#[derive(Clone)]
pub struct Recipient {
    text: String,
    key: PublicKey,
}

#[derive(Clone)]
enum PublicKey {
    X25519(x25519::Recipient),
    Ssh(Box<ssh::Recipient>),
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Recipient {
    /// Checks a public key as people write it: `age1…`, or a line of `id_ed25519.pub` or `id_rsa.pub` with or without its comment.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |detail: String, hint: &'static str| {
            Error::new(ErrorKind::ConfigInvalid, "encrypt to", format!("{text:?}"), detail).with_hint(hint)
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            [] => Err(refused("it is empty".into(), "give an age1… or ssh public key")),
            [kind, blob, ..] if kind.contains('-') && !kind.starts_with("AGE-") => {
                let text = format!("{kind} {blob}");
                let key = text.parse::<ssh::Recipient>().map_err(|reason| {
                    let (detail, hint) = ssh_reason(kind, &reason);
                    refused(detail, hint)
                })?;
                Ok(Self {
                    text: key.to_string(),
                    key: PublicKey::Ssh(Box::new(key)),
                })
            }
            [word] if word.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") => Err(Error::new(
                ErrorKind::ConfigInvalid,
                "encrypt to",
                "a recipient",
                "it is a private key, and private keys do not belong there",
            )
            .with_hint("`lifeboat key check` shows the public key (age1…) that belongs to an identity file")),
            _ => {
                let key = text.trim().parse::<x25519::Recipient>().map_err(|reason| {
                    refused(
                        format!("it is neither an age X25519 recipient ({reason}) nor an ssh public key"),
                        "give an age1… key (`lifeboat key new` makes one), or the line of an id_ed25519.pub",
                    )
                })?;
                Ok(Self {
                    text: key.to_string(),
                    key: PublicKey::X25519(key),
                })
            }
        }
    }

    /// The short name under which key files and headers list it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.text)
    }

    /// The public half of an X25519 identity.
    pub(crate) fn of_x25519(identity: &x25519::Identity) -> Self {
        let key = identity.to_public();
        Self {
            text: key.to_string(),
            key: PublicKey::X25519(key),
        }
    }

    /// The public half of an ssh identity.
    pub(crate) fn of_ssh(key: ssh::Recipient) -> Self {
        Self {
            text: key.to_string(),
            key: PublicKey::Ssh(Box::new(key)),
        }
    }

    pub(crate) fn as_age(&self) -> &dyn ::age::Recipient {
        match &self.key {
            PublicKey::X25519(key) => key,
            PublicKey::Ssh(key) => key.as_ref(),
        }
    }
}

fn ssh_reason(kind: &str, reason: &ssh::ParseRecipientKeyError) -> (String, &'static str) {
    use ssh::ParseRecipientKeyError as Reason;
    const KINDS: &str = "use an ssh-ed25519 or ssh-rsa key, or an age key (`lifeboat key new` makes one)";
    match reason {
        Reason::Invalid(_) | Reason::Ignore if kind == "ssh-ed25519" || kind == "ssh-rsa" => (
            "it is not a whole ssh public key".into(),
            "give the line of the .pub file as it is",
        ),
        Reason::RsaModulusTooSmall => ("an RSA key under 2,048 bits is too weak".into(), KINDS),
        Reason::RsaModulusTooLarge => ("an RSA key over 4,096 bits is not supported".into(), KINDS),
        Reason::Unsupported(kind) => (format!("keys of type {kind} cannot encrypt"), KINDS),
        _ => (format!("keys of type {kind} cannot encrypt"), KINDS),
    }
}

/// The first 8 bytes of the hash of a recipient: enough to tell the keys of one organisation apart, not a proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    fn of(text: &str) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
        Self(first)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(Self(crate::bytes::hex_array(text, "a recipient's fingerprint")?))
    }
}

/// What a key file says about itself to those who cannot open it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Who can open it; `None` where it does not say (another program wrote it).
    pub recipients: Option<BTreeSet<Fingerprint>>,
    /// No backup may build on its session any more.
    pub retired: bool,
}

impl Roster {
    /// Reads the stanzas of an age file's header. Nothing of it is authentic for whoever cannot open the file.
    pub(crate) fn read(stored: &[u8]) -> Self {
        let mut roster = Self::default();
        for line in stored
            .split(|byte| *byte == b'\n')
            .take_while(|line| !line.starts_with(b"---"))
        {
            let Some(words) = line.strip_prefix(b"-> ").and_then(|line| std::str::from_utf8(line).ok()) else {
                continue;
            };
            let mut words = words.split(' ');
            match words.next() {
                Some(WHO) => roster.recipients = words.map(|word| word.parse().ok()).collect(),
                Some(RETIRED) => roster.retired = true,
                _ => {}
            }
        }
        roster
    }
}

/// The stanzas that say for whom a key file is. They open nothing; age programs skip stanzas that they do not know.
pub(crate) struct RosterStanzas(pub(crate) Roster);

impl ::age::Recipient for RosterStanzas {
    fn wrap_file_key(&self, _: &FileKey) -> std::result::Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let stanza = |tag: &str, args: Vec<String>| Stanza {
            tag: tag.to_owned(),
            args,
            body: Vec::new(),
        };
        let known = self.0.recipients.iter().flatten().map(ToString::to_string).collect();
        let mut stanzas = vec![stanza(WHO, known)];
        if self.0.retired {
            stanzas.push(stanza(RETIRED, Vec::new()));
        }
        Ok((stanzas, HashSet::new()))
    }
}
