//! The configuration without a file: the variables that disaster-recovery guides use, as they stand in containers and cron jobs.
//!
//! Pure but for the one look at the environment in [`Variables::real`]: variables in, the text of a configuration out, which then takes the
//! same way as a file. Only where no file is found: a `DATABASE_URL` that happens to be set must not redirect the backups of a system that
//! a file describes ([why](../../../../docs/decisions/0010-environment-below-the-file.md)).

use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};

use super::initial::{MIN_FREE, quoted};

/// Where the backups go unless a file says so.
const STORES: &str = "set BACKUP_DIR to a folder, or BACKUP_S3_BUCKET to a bucket";

/// Recognised, and of no effect here: name and why.
const WITHOUT_EFFECT: [(&str, &str); 4] = [
    (
        "BACKUP_COMPRESS",
        "backups are always compressed where that makes them smaller",
    ),
    (
        "BACKUP_SCHEDULE",
        "the scheduler follows; until then cron or a timer starts `lifeboat backup`",
    ),
    (
        "BACKUP_TIMEOUT_MINUTES",
        "a backup has no time limit yet; whoever starts it may set one, with `timeout`",
    ),
    ("BACKUP_WEBHOOK_URL", "notifications follow; until then the exit code tells"),
];

/// Whether and how backups are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// To a key pair in a file, which the first backup makes.
    KeyFile,
    /// To a key that the passphrase in `BACKUP_ENCRYPTION_KEY` stands for.
    Passphrase,
    /// The same, from the file that `BACKUP_ENCRYPTION_KEY_FILE` names.
    PassphraseFile,
    /// Not at all, because `BACKUP_ENCRYPT` says so in full.
    None,
}

/// What the variables say, checked.
#[derive(Debug, Clone)]
pub(crate) struct Variables {
    /// The database, and the variable that names it.
    database: (PathBuf, &'static str),
    /// What people call the system.
    pub(crate) system: String,
    /// The stores: name, what it is as YAML, and the variable behind it.
    stores: Vec<(&'static str, String, &'static str)>,
    /// The folder among the stores, where there is one.
    pub(crate) folder: Option<PathBuf>,
    /// Days, weeks, months that backups are kept.
    retention: Vec<(&'static str, u32, &'static str)>,
    /// Whether backups are encrypted.
    pub(crate) encryption: Encryption,
    /// Where this installation keeps its own state, where it is said.
    state_dir: Option<PathBuf>,
    /// Where the private key is, where it is said.
    key_file: Option<PathBuf>,
    /// The file that holds the passphrase, where it is said.
    passphrase_file: Option<PathBuf>,
    /// Public keys of other installations: name and key.
    trust: Vec<(String, String)>,
    /// What was said and changes nothing: sentences.
    pub(crate) remarks: Vec<String>,
}

/// What only the machine knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Local {
    /// Name of this installation.
    pub(crate) instance_name: String,
    /// Its public key, once it has one.
    pub(crate) instance_public: Option<String>,
    /// Public half and file of the key, once there is one.
    pub(crate) key: Option<(String, PathBuf)>,
}

impl Variables {
    /// Those of this process; `None` when none of them names a database.
    pub(crate) fn real() -> Result<Option<Self>> {
        Self::read(&|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    /// What `get` says. `ConfigInvalid` where it cannot be followed.
    fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let Some(database) = database(get)? else { return Ok(None) };
        let system = get("LIFEBOAT_SYSTEM").unwrap_or_else(|| {
            let stem = database.0.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let clean = |c: char| {
                if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
                    c
                } else {
                    '-'
                }
            };
            stem.chars().map(clean).take(60).collect()
        });
        let (stores, folder) = stores(get)?;
        let mut remarks: Vec<String> = WITHOUT_EFFECT
            .iter()
            .filter(|(name, _)| get(name).is_some())
            .map(|(name, why)| format!("{name} changes nothing: {why}"))
            .collect();
        let encryption = encryption(get, &mut remarks)?;
        Ok(Some(Self {
            database,
            system,
            stores,
            folder,
            retention: retention(get)?,
            encryption,
            state_dir: get("LIFEBOAT_STATE_DIR").map(PathBuf::from),
            key_file: get("LIFEBOAT_KEY_FILE").map(PathBuf::from),
            passphrase_file: get("BACKUP_ENCRYPTION_KEY_FILE").map(PathBuf::from),
            trust: trust(get)?,
            remarks,
        }))
    }

    /// Where this installation keeps its state.
    pub(crate) fn state_dir(&self, default: Option<PathBuf>) -> Result<PathBuf> {
        self.state_dir.clone().or(default).ok_or_else(|| {
            invalid("LIFEBOAT_STATE_DIR", "it is not set, and without HOME there is no default")
                .with_hint("set it to a folder that outlives the container")
        })
    }

    /// Where the private key is, or is to be: away from the store and from the state.
    pub(crate) fn key_file(&self, config_home: Option<&Path>, state_dir: &Path) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| match config_home {
            Some(home) => home.join("lifeboat").join(format!("{}-key.txt", self.system)),
            None => state_dir.join("key.txt"),
        })
    }

    /// Whether backups of other installations are to be read.
    pub(crate) fn trusts_somebody(&self) -> bool {
        !self.trust.is_empty()
    }

    /// The configuration that these variables stand for. Where `local` has no key, the text has none either.
    pub(crate) fn text(&self, state_dir: &Path, local: &Local) -> String {
        let yaml = |path: &Path| quoted(&path.to_string_lossy());
        let mut lines = vec![
            "version: 1".to_owned(),
            format!(
                "instance: {{ name: {}, state_dir: {} }}",
                quoted(&local.instance_name),
                yaml(state_dir)
            ),
            "instances:".to_owned(),
        ];
        let own = local
            .instance_public
            .iter()
            .map(|key| (local.instance_name.clone(), key.clone()));
        for (name, key) in own.chain(self.trust.iter().cloned()) {
            lines.push(format!("  {}: {}", quoted(&name), quoted(&key)));
        }
        let encrypt = match (&local.key, self.encryption) {
            (Some((public, file)), Encryption::KeyFile) => {
                lines.push(format!(
                    "keys: {{ main: {{ age: {{ recipients: [{}], identity: {{ file: {} }} }} }} }}",
                    quoted(public),
                    yaml(file)
                ));
                "main"
            }
            (_, Encryption::Passphrase) => {
                lines.push("keys: { main: { passphrase: { env: BACKUP_ENCRYPTION_KEY } } }".to_owned());
                "main"
            }
            (_, Encryption::PassphraseFile) => {
                let file = self.passphrase_file.as_deref().unwrap_or(Path::new(""));
                lines.push(format!("keys: {{ main: {{ passphrase: {{ file: {} }} }} }}", yaml(file)));
                "main"
            }
            (_, Encryption::None) | (None, Encryption::KeyFile) => "none",
        };
        lines.push("stores:".to_owned());
        lines.extend(self.stores.iter().map(|(name, yaml, _)| format!("  {name}: {{ {yaml} }}")));
        let names: Vec<&str> = self.stores.iter().map(|(name, ..)| *name).collect();
        let mut backup = format!("to: [{}], encrypt: {encrypt}", names.join(", "));
        if !self.retention.is_empty() {
            let rules: Vec<String> = self
                .retention
                .iter()
                .map(|(rule, count, _)| rule_text(rule, *count))
                .collect();
            lines.push(format!(
                "retention: {{ environment: {{ keep: {{ {} }} }} }}",
                rules.join(", ")
            ));
            backup.push_str(", retention: environment");
        }
        lines.extend([
            "systems:".to_owned(),
            format!("  {}:", quoted(&self.system)),
            "    components:".to_owned(),
            "      db:".to_owned(),
            format!("        sqlite: {{ path: {} }}", yaml(&self.database.0)),
            "        objectives: { rpo: 24h, rto: 1h }".to_owned(),
            format!("        backup: {{ {backup} }}"),
        ]);
        lines.push(String::new());
        lines.join("\n")
    }

    /// Which variable a value of the configuration comes from, by its path.
    pub(crate) fn origin(&self, path: &str) -> Option<String> {
        let db = format!("systems.{}.components.db.", self.system);
        let variable = if let Some(store) = path.strip_prefix("stores.") {
            let (.., variable) = self.stores.iter().find(|(name, ..)| store.starts_with(name))?;
            variable
        } else if path == format!("{db}sqlite.path") {
            self.database.1
        } else if path.starts_with("retention.") {
            let (_, _, variable) = self.retention.iter().find(|(rule, _, _)| path.ends_with(rule))?;
            variable
        } else if path == "instance.state_dir" && self.state_dir.is_some() {
            "LIFEBOAT_STATE_DIR"
        } else if path == format!("{db}backup.encrypt") && self.encryption == Encryption::None {
            "BACKUP_ENCRYPT"
        } else {
            return None;
        };
        Some(format!("${variable}"))
    }
}

fn rule_text(rule: &str, count: u32) -> String {
    if rule == "within" {
        format!("within: {count}d")
    } else {
        format!("{rule}: {count}")
    }
}

fn invalid(variable: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::ConfigInvalid, "use the variable", variable, detail.into())
        .with_hint("correct it, or write a configuration with `lifeboat init`")
}

/// `DATABASE_PATH`, or a `DATABASE_URL` of SQLite: `sqlite:///srv/app.db` (absolute), `sqlite://app.db`, `sqlite:app.db`, `file:app.db`.
fn database(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<(PathBuf, &'static str)>> {
    if let Some(path) = get("DATABASE_PATH") {
        return Ok(Some((PathBuf::from(path), "DATABASE_PATH")));
    }
    let Some(url) = get("DATABASE_URL") else { return Ok(None) };
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url.as_str()));
    match scheme.to_ascii_lowercase().as_str() {
        "sqlite" | "sqlite3" | "file" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            let path = path.split(['?', '#']).next().unwrap_or_default();
            if path.is_empty() || path == ":memory:" {
                return Err(invalid(
                    "DATABASE_URL",
                    "it names no file: a database in memory cannot be backed up",
                ));
            }
            Ok(Some((PathBuf::from(path), "DATABASE_URL")))
        }
        // The address itself may hold a password: it is not quoted.
        "postgres" | "postgresql" => Err(invalid(
            "DATABASE_URL",
            "it names a PostgreSQL database; that kind follows with its engine, this version protects SQLite databases and files",
        )),
        _ => Err(invalid(
            "DATABASE_URL",
            "it is not the address of a SQLite database, which looks like sqlite:///srv/app.db",
        )),
    }
}

/// The stores, and the folder among them.
type Stores = (Vec<(&'static str, String, &'static str)>, Option<PathBuf>);

/// A folder, a bucket, or both: then each backup goes to both.
fn stores(get: &dyn Fn(&str) -> Option<String>) -> Result<Stores> {
    let mut stores = Vec::new();
    let folder = get("BACKUP_DIR").map(PathBuf::from);
    if let Some(folder) = &folder {
        let yaml = format!("fs: {{ path: {}, min_free: {MIN_FREE} }}", quoted(&folder.to_string_lossy()));
        stores.push(("folder", yaml, "BACKUP_DIR"));
    }
    if let Some(bucket) = get("BACKUP_S3_BUCKET") {
        let mut parts = vec![format!("bucket: {}", quoted(&bucket))];
        for (key, variable) in [("prefix", "BACKUP_S3_PREFIX"), ("endpoint", "BACKUP_S3_ENDPOINT")] {
            parts.extend(get(variable).map(|value| format!("{key}: {}", quoted(&value))));
        }
        stores.push(("bucket", format!("s3: {{ {} }}", parts.join(", ")), "BACKUP_S3_BUCKET"));
    }
    if stores.is_empty() {
        return Err(invalid("BACKUP_DIR", "a database is named, and no place for its backups").with_hint(STORES));
    }
    Ok((stores, folder))
}

fn retention(get: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(&'static str, u32, &'static str)>> {
    const RULES: [(&str, &[&str]); 3] = [
        ("within", &["BACKUP_RETENTION_DAYS", "BACKUP_RETAIN", "RETENTION_DAYS"]),
        ("weekly", &["RETENTION_WEEKLY"]),
        ("monthly", &["RETENTION_MONTHLY"]),
    ];
    let mut rules = Vec::new();
    for (rule, variables) in RULES {
        for variable in variables {
            if let Some(value) = get(variable) {
                let count = value.trim().parse::<u32>().ok().filter(|count| *count > 0);
                let count = count.ok_or_else(|| invalid(variable, format!("{value:?} is not a number of 1 or more")))?;
                rules.push((rule, count, *variable));
                break;
            }
        }
    }
    Ok(rules)
}

fn encryption(get: &dyn Fn(&str) -> Option<String>, remarks: &mut Vec<String>) -> Result<Encryption> {
    let word = get("BACKUP_ENCRYPT").map(|word| word.trim().to_ascii_lowercase());
    let secret = if get("BACKUP_ENCRYPTION_KEY").is_some() {
        Some(Encryption::Passphrase)
    } else {
        get("BACKUP_ENCRYPTION_KEY_FILE").map(|_| Encryption::PassphraseFile)
    };
    match word.as_deref() {
        Some("false" | "0" | "no" | "off" | "none") => {
            if secret.is_some() {
                remarks
                    .push("BACKUP_ENCRYPTION_KEY changes nothing: BACKUP_ENCRYPT says that backups are not encrypted".to_owned());
            }
            Ok(Encryption::None)
        }
        None | Some("true" | "1" | "yes" | "on" | "age") => Ok(secret.unwrap_or(Encryption::KeyFile)),
        Some(_) => Err(invalid("BACKUP_ENCRYPT", "it is neither true nor false")),
    }
}

/// `name=ed25519:…, name=ed25519:…`.
fn trust(get: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>> {
    let text = get("LIFEBOAT_TRUST").unwrap_or_default();
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.split_once('=') {
            Some((name, key)) => Ok((name.trim().to_owned(), key.trim().to_owned())),
            None => Err(invalid("LIFEBOAT_TRUST", format!("{entry:?} is not NAME=ed25519:…"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Variables>> {
        Variables::read(&|name| {
            pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn kind(pairs: &[(&str, &str)]) -> ErrorKind {
        read(pairs).unwrap_err().kind()
    }

    #[test]
    fn addresses_of_sqlite_are_understood_and_others_named() {
        let path = |url: &str| {
            read(&[("DATABASE_URL", url), ("BACKUP_DIR", "/b")])
                .unwrap()
                .unwrap()
                .database
                .0
        };
        assert_eq!(path("sqlite:///srv/app.db"), Path::new("/srv/app.db"));
        assert_eq!(path("sqlite://data/app.db?mode=rwc"), Path::new("data/app.db"));
        assert_eq!(path("sqlite:app.db"), Path::new("app.db"));
        assert_eq!(path("file:app.db"), Path::new("app.db"));
        assert!(read(&[("BACKUP_DIR", "/b")]).unwrap().is_none());
        for bad in ["sqlite::memory:", "sqlite://", "mysql://x/y", "app.db"] {
            assert_eq!(
                kind(&[("DATABASE_URL", bad), ("BACKUP_DIR", "/b")]),
                ErrorKind::ConfigInvalid,
                "{bad}"
            );
        }
        let error = read(&[("DATABASE_URL", "postgres://me:geheim@host/db")]).unwrap_err();
        assert!(error.to_string().contains("follows with its engine") && !format!("{error:?}").contains("geheim"));
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let with = |name, value| kind(&[("DATABASE_PATH", "/a.db"), ("BACKUP_DIR", "/b"), (name, value)]);
        assert_eq!(with("BACKUP_ENCRYPT", "perhaps"), ErrorKind::ConfigInvalid);
        assert_eq!(with("BACKUP_RETAIN", "0"), ErrorKind::ConfigInvalid);
        assert_eq!(with("BACKUP_RETENTION_DAYS", "thirty"), ErrorKind::ConfigInvalid);
        assert_eq!(with("LIFEBOAT_TRUST", "ed25519:00"), ErrorKind::ConfigInvalid);
        assert_eq!(kind(&[("DATABASE_PATH", "/a.db")]), ErrorKind::ConfigInvalid);
    }

    #[test]
    fn the_text_holds_what_was_said_and_no_secret() {
        let variables = read(&[
            ("DATABASE_URL", "sqlite:///srv/my app.db"),
            ("BACKUP_S3_BUCKET", "b"),
            ("BACKUP_S3_PREFIX", "x/y"),
            ("BACKUP_S3_ENDPOINT", "http://minio:9000"),
            ("BACKUP_ENCRYPTION_KEY", "geheim"),
            ("BACKUP_COMPRESS", "true"),
            ("BACKUP_RETENTION_DAYS", "60"),
            ("RETENTION_WEEKLY", "12"),
        ])
        .unwrap()
        .unwrap();
        let text = variables.text(Path::new("/state"), &Local::default());
        for part in [
            "\"my-app\"",
            "bucket: b",
            "prefix: x/y",
            "\"http://minio:9000\"",
            "within: 60d",
            "weekly: 12",
        ] {
            assert!(
                text.replace("my-app:", "\"my-app\":").contains(part),
                "{part} is missing in\n{text}"
            );
        }
        assert!(!format!("{text}{variables:?}").contains("geheim"));
        assert_eq!(variables.remarks.len(), 1);
        assert!(text.contains("passphrase: { env: BACKUP_ENCRYPTION_KEY }"), "{text}");
        assert_eq!(
            variables.origin("stores.bucket.s3.bucket").as_deref(),
            Some("$BACKUP_S3_BUCKET")
        );
        assert_eq!(
            variables.origin("retention.environment.keep.weekly").as_deref(),
            Some("$RETENTION_WEEKLY")
        );
        assert_eq!(variables.origin("systems.my-app.components.db.backup.to"), None);
    }
}
