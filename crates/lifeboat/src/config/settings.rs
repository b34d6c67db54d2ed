//! The validated configuration, as the rest of the program sees it.
//!
//! Nothing here knows YAML or serde: whatever reaches these types has been checked by `lower`. Secrets are references
//! that are read when they are needed; a value in the clear is never printed, not even by `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat_engine::artefact::OpensslKdf;
use lifeboat_io::process::Process;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Source;
use lifeboat_ops::verify::due::Wanted;
use lifeboat_repo::Rights;
use zeroize::Zeroizing;

use super::plan::{ScheduleSettings, SystemPlan};
use super::retention::RetentionSettings;
use super::store::StoreSettings;

/// How long a command that prints a secret may take.
const SECRET_COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// How large a file that holds a secret may be; more is a wrong path, not a key.
const SECRET_FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Everything `lifeboat.yaml` says, with all defaults filled in and all references checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The file that was read.
    pub(crate) path: PathBuf,
    /// Name of this installation.
    pub(crate) instance_name: String,
    /// Where this installation keeps its own state.
    pub(crate) state_dir: PathBuf,
    /// Time zone of schedules, and in which days begin for retention.
    pub(crate) timezone: String,
    /// Whether the file says so, or it is the default.
    pub(crate) names_timezone: bool,
    /// The installations whose files are trusted, by name: public key (`ed25519:…`) and what they may do.
    pub(crate) instances: BTreeMap<String, (String, Rights)>,
    /// Rules about what is kept, by name.
    pub(crate) retention: BTreeMap<String, RetentionSettings>,
    /// Keys that backups can be encrypted with.
    pub(crate) keys: BTreeMap<String, KeySettings>,
    /// Passphrases of old files made by `openssl enc`, by name.
    pub(crate) openssl_keys: BTreeMap<String, OpensslKeySettings>,
    /// Places that hold backups.
    pub(crate) stores: BTreeMap<String, StoreSettings>,
    /// What is backed up, in the order in which it is recovered.
    pub(crate) components: Vec<ComponentSettings>,
    /// What is deliberately not backed up: system, name, reason.
    pub(crate) not_backed_up: Vec<(String, String, String)>,
    /// What is rehearsed and promised, by system.
    pub(crate) plans: BTreeMap<String, SystemPlan>,
    /// Sentences about what works but deserves a second look.
    pub(crate) warnings: Vec<String>,
    /// Secrets that stand in the file itself: what they are, where, and what to write instead.
    pub(crate) inline_secrets: Vec<String>,
}

/// A key: who can read, and where the secret half is, if this machine has it.
#[derive(Debug, Clone)]
pub(crate) struct KeySettings {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// Public keys: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`.
    pub(crate) recipients: Vec<String>,
    /// The secret half; absent on a machine that only writes backups.
    pub(crate) identity: Option<SecretRef>,
    /// The passphrase of the identity; absent where it has none, or where a person types it.
    pub(crate) passphrase: Option<SecretRef>,
    /// The passphrase that the whole key is derived from; then there are no recipients and no identity.
    pub(crate) derived: Option<SecretRef>,
}

impl KeySettings {
    /// Whether the private half is, or may be, at hand here.
    pub(crate) fn has_identity(&self) -> bool {
        self.identity.is_some() || self.derived.is_some()
    }
}

/// A passphrase that opens old files made by `openssl enc`.
#[derive(Debug, Clone)]
pub(crate) struct OpensslKeySettings {
    /// How a key is made of it; `None` to try all ways.
    pub(crate) kdf: Option<OpensslKdf>,
    /// Rounds of PBKDF2.
    pub(crate) iterations: u32,
    /// Where it is.
    pub(crate) passphrase: SecretRef,
}

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SecretRef {
    /// The content of a file.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// What a program prints: the program and its arguments.
    Command(Vec<String>),
    /// The secret itself, written into the configuration.
    Inline(String),
}

/// How much of a file system must be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MinFree {
    /// A part of the whole, 0 to 99 percent.
    Percent(u8),
    /// An amount in bytes.
    Bytes(u64),
}

/// How soon a component is recovered, the soonest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Before everything else.
    Critical,
    /// Early.
    High,
    /// Unless something else is said.
    Normal,
    /// Last.
    Low,
}

impl Priority {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The word in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// Whether backups of a component are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Encrypt {
    /// With the key of this name.
    Key(String),
    /// Not at all; only ever because the configuration says so in full.
    None,
}

/// One component: its data, its promises and where its backups go.
#[derive(Debug, Clone)]
pub(crate) struct ComponentSettings {
    /// `system/component`.
    pub(crate) name: String,
    /// Where its data lives.
    pub(crate) source: Source,
    /// How much work may be lost.
    pub(crate) rpo: Option<Duration>,
    /// How long a recovery may take.
    pub(crate) rto: Option<Duration>,
    /// Names of the stores, at least one, in the order in which a restore tries them.
    pub(crate) stores: Vec<String>,
    /// Those of them without which a backup has failed.
    pub(crate) required: Vec<String>,
    /// Name of the rules by which old backups go.
    pub(crate) retention: Option<String>,
    /// The key, or a written-out none.
    pub(crate) encrypt: Encrypt,
    /// Its place in the order of recovery.
    pub(crate) priority: Priority,
    /// Components (`system/component`) that are recovered before this one.
    pub(crate) depends_on: Vec<String>,
    /// When backups are expected; empty where nobody said.
    pub(crate) schedules: Vec<ScheduleSettings>,
    /// When somebody is to be told that no backup came.
    pub(crate) alert_after: Option<Duration>,
    /// What is proven again and again, and how often.
    pub(crate) verifications: Vec<Wanted>,
    /// Copies of the application that write into an SQLite database.
    pub(crate) writers: u32,
    /// Whether the log of a cluster is kept between backups.
    pub(crate) follows: bool,
}

impl SecretRef {
    /// Reads the secret, without its last line break. Fails with `ConfigInvalid` if the reference leads nowhere, and as
    /// the operating system does if the file cannot be read or the command cannot be run. No message holds the secret.
    pub(crate) async fn read(&self) -> Result<Zeroizing<String>> {
        let mut bytes = self.read_bytes().await?;
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        let text = std::str::from_utf8(&bytes).map_err(|source| self.invalid("it is not UTF-8 text").with_source(source))?;
        if text.trim().is_empty() {
            return Err(self.invalid("it is empty"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// Reads the secret as it is, which need not be text.
    pub(crate) async fn read_bytes(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Inline(secret) => Ok(Zeroizing::new(secret.clone().into_bytes())),
            Self::Env(name) => Ok(Zeroizing::new(self.read_env(name)?.as_bytes().to_vec())),
            Self::File(path) => self.read_file(path.clone()).await,
            Self::Command(argv) => self.read_command(argv).await,
        }
    }

    fn read_env(&self, name: &str) -> Result<Zeroizing<String>> {
        match std::env::var(name) {
            Ok(value) if !value.trim().is_empty() => Ok(Zeroizing::new(value)),
            Ok(_) => Err(self.invalid("the variable is empty")),
            Err(source) => {
                // The source of "not UTF-8" would carry the value: only the fact goes on.
                let detail = match source {
                    std::env::VarError::NotPresent => "the variable is not set",
                    std::env::VarError::NotUnicode(_) => "the variable is not UTF-8 text",
                };
                Err(self.invalid(detail))
            }
        }
    }

    async fn read_file(&self, path: PathBuf) -> Result<Zeroizing<Vec<u8>>> {
        let shown = self.to_string();
        lifeboat_io::compute::run("read secret", move || {
            use std::io::Read as _;
            let fail = |source| Error::io("read secret", &shown, source);
            let mut bytes = Zeroizing::new(Vec::new());
            let file = std::fs::File::open(&path).map_err(fail)?;
            file.take(SECRET_FILE_LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
            if bytes.len() as u64 > SECRET_FILE_LIMIT_BYTES {
                let detail = format!("the file is larger than {SECRET_FILE_LIMIT_BYTES} bytes and cannot be a key");
                return Err(Error::new(ErrorKind::ConfigInvalid, "read secret", &shown, detail));
            }
            Ok(bytes)
        })
        .await
    }

    async fn read_command(&self, argv: &[String]) -> Result<Zeroizing<Vec<u8>>> {
        let Some((program, args)) = argv.split_first() else {
            return Err(self.invalid("the command is empty"));
        };
        let process = args
            .iter()
            .fold(Process::new(program, SECRET_COMMAND_LIMIT), |process, arg| process.arg(arg));
        // Not `run`: its error quotes what the program said, and that may be the secret.
        let output = process.finish().await?;
        let stdout = Zeroizing::new(output.stdout);
        if output.status.success() {
            Ok(stdout)
        } else {
            let detail = format!("the command ended with {}; what it said is not shown", output.status);
            Err(Error::new(ErrorKind::Failed, "read secret", self, detail)
                .with_hint("run the command by hand to see what is wrong, then `lifeboat key check`"))
        }
    }

    fn invalid(&self, detail: &str) -> Error {
        Error::new(ErrorKind::ConfigInvalid, "read secret", self, detail)
            .with_hint("correct the reference in lifeboat.yaml, then run `lifeboat config check`")
    }
}

/// Says where the secret is, never what it is. Of a command only the program: arguments can hold what is secret.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "‹file:{}›", path.display()),
            Self::Env(name) => write!(f, "‹env:{name}›"),
            Self::Command(argv) => write!(f, "‹command:{}›", argv.first().map_or("", String::as_str)),
            Self::Inline(_) => f.write_str("‹inline›"),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => write!(f, "{bytes}B"),
        }
    }
}

impl fmt::Display for Encrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => f.write_str(name),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_fails_keeps_its_secret() {
        let script = "echo SECRET; echo SECRET >&2; exit 3";
        let reference = SecretRef::Command(["sh", "-c", script].map(str::to_owned).to_vec());
        let error = reference.read().await.unwrap_err();
        assert!(error.detail().contains("exit status: 3"), "{error}");
        let mut said = format!("{error} {error:?} {:?}", error.hint());
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
        while let Some(error) = cause {
            said.push_str(&error.to_string());
            cause = error.source();
        }
        assert!(!said.contains("SECRET"), "{said}");
        let reference = SecretRef::Command(["sh", "-c", "echo SECRET"].map(str::to_owned).to_vec());
        assert_eq!(reference.read().await.unwrap().as_str(), "SECRET");
    }
}
