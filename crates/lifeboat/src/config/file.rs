//! What may be written into `lifeboat.yaml`: the shape of the file, and nothing about whether it makes sense.
//!
//! The doc comments of the fields are the reference manual: the JSON Schema and `docs/configuration.md` are made from
//! them. Every value keeps its place in the file. Kinds are keys (`sqlite: {…}`): tagged, untagged and flattened forms
//! would lose the place. Must not check references, units or paths; `lower` does.

mod care;
mod check;
mod plan;
mod postgres;
mod probe;
mod store;
mod verify;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::retention::{RetentionFile, TrustedFile};
pub(super) use care::{ColdFile, LockFile, MaintenanceFile};
pub(super) use check::{CheckFile, ExpectFile, OrphansFile};
pub(super) use plan::{DrillFile, ItemFile, ScenarioFile, ScheduleFile};
pub(super) use postgres::{PostgresFile, TenantsFile};
pub(super) use probe::{CertificateProbeFile, CommandProbeFile, FileProbeFile, HttpProbeFile, ProbeFile, WebSocketProbeFile};
pub(super) use store::{AzureFile, FsFile, GcsFile, LimitFile, S3File, StoreFile};
use verify::VerifyFile;

/// A value and where it stands. Compares by value only, so that it can be the key of a map.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Location,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self {
            value: spanned.value,
            place: spanned.referenced,
        })
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: Ord> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

/// The place is not part of the schema.
impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A map whose keys are names that people choose.
pub(super) type Named<T> = BTreeMap<At<String>, T>;

/// The configuration of Lifeboat: what is protected, where backups go and who can read them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "lifeboat.yaml")]
pub(super) struct ConfigFile {
    /// Version of this file's shape. This Lifeboat reads version 1.
    #[schemars(with = "u64", range(min = 1, max = 1))]
    pub(super) version: At<u64>,
    /// This installation of Lifeboat.
    pub(super) instance: InstanceFile,
    /// The installations whose files are trusted, by name. `lifeboat init` writes its own key here; add the keys of
    /// other hosts that write into the same stores. A backup signed by anybody else is refused.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, TrustedFile>>")]
    pub(super) instances: Option<Named<At<TrustedFile>>>,
    /// Keys that backups are encrypted with, by name. The name `none` is reserved.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, KeyFile>>")]
    pub(super) keys: Option<Named<KeyFile>>,
    /// Places that hold backups, by name.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, StoreFile>>")]
    pub(super) stores: Option<Named<StoreFile>>,
    /// Rules about which backups are kept, by name. A component without rules keeps everything.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, RetentionFile>>")]
    pub(super) retention: Option<Named<RetentionFile>>,
    /// What is protected: one entry for each thing that people name in an emergency.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, SystemFile>>")]
    pub(super) systems: Option<Named<SystemFile>>,
}

/// This installation of Lifeboat.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceFile {
    /// Name of this installation; it stands in every backup that it writes.
    #[schemars(with = "String", example = &"app-host")]
    pub(super) name: At<String>,
    /// Folder for this installation's own state: its signing key, locks and what it has seen. Default:
    /// `/var/lib/lifeboat` for root, otherwise `$XDG_STATE_HOME/lifeboat` or `~/.local/state/lifeboat`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"/var/lib/lifeboat")]
    pub(super) state_dir: Option<At<String>>,
    /// Time zone of schedules, and in which days, weeks and months begin when backups are chosen to be kept. Default: UTC.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "UTC"), example = &"Europe/Berlin")]
    pub(super) timezone: Option<At<String>>,
}

/// A key. Exactly one kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum KeyFile {
    /// An age key pair. Whoever writes backups needs the public half only.
    Age(AgeFile),
    /// A passphrase that opens old files made by `openssl enc`. Nothing is ever written with it.
    Openssl(OpensslFile),
    /// A key that is derived from a passphrase, which this machine then has to know: whoever takes the machine can read the backups. For
    /// `BACKUP_ENCRYPTION_KEY` of older set-ups; `age` with two recipients is better.
    Passphrase(#[schemars(with = "SecretFile")] At<SecretFile>),
}

/// The passphrase of old files made by `openssl enc`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OpensslFile {
    /// The cipher of the old files: `aes-256-cbc`, which is also the default.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "aes-256-cbc"))]
    pub(super) cipher: Option<At<String>>,
    /// How the old files made a key of the passphrase: `auto` (the default: try all), `pbkdf2` (`-pbkdf2`), `sha256` (openssl 1.1 and later
    /// without `-pbkdf2`) or `md5` (before that).
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "auto"))]
    pub(super) kdf: Option<At<String>>,
    /// The rounds given by `-iter`, where it was given. Default: 10000, as openssl has it.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 100_000_000_u32), extend("default" = 10_000))]
    pub(super) iterations: Option<At<u32>>,
    /// Where the passphrase is.
    #[schemars(with = "SecretFile")]
    pub(super) passphrase: At<SecretFile>,
}

/// An age key pair.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgeFile {
    /// Public keys (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`) that can read the backups, at least one, or files with one in each line. Add a
    /// second one that is kept off-site.
    #[schemars(with = "Vec<RecipientFile>", length(min = 1))]
    pub(super) recipients: At<Vec<At<RecipientFile>>>,
    /// Where the secret half is. Leave it out on a host that writes backups and never reads them.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(super) identity: Option<At<SecretFile>>,
    /// The passphrase of the identity, where it has one. Left out, it is asked for on a terminal.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(super) passphrase: Option<At<SecretFile>>,
}

/// A public key, or a file of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RecipientFile {
    /// The key itself.
    Text(String),
    /// A file with public keys, such as `id_ed25519.pub`.
    File {
        /// Its path.
        file: String,
    },
}

/// Where a secret is. The secret itself, as text, works too and gives a warning.
pub(super) enum SecretFile {
    /// Content of a file.
    File(At<String>),
    /// Value of an environment variable.
    Env(At<String>),
    /// Output of a command.
    Command(At<Vec<String>>),
    /// The secret in the clear.
    Inline(String),
}

/// The referenced forms of [`SecretFile`], for the schema.
#[derive(Debug, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "gives the schema its shape; never made")]
enum SecretReference {
    /// A file that holds the secret.
    File(String),
    /// Name of an environment variable that holds the secret.
    Env(String),
    /// A program and its arguments; it prints the secret. No shell is involved.
    Command(Vec<String>),
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("‹secret›")
    }
}

impl JsonSchema for SecretFile {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = SecretReference::json_schema(generator);
        let inline = json_schema!({ "type": "string", "description": "The secret in the clear; works, and gives a warning." });
        if let Some(variants) = schema.get_mut("oneOf").and_then(serde_json::Value::as_array_mut) {
            variants.push(inline.to_value());
        }
        schema.insert("description".into(), "Where a secret is.".into());
        schema
    }
}

impl<'de> Deserialize<'de> for SecretFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reference to a secret: { file: … }, { env: … } or { command: […] }")
    }

    fn visit_str<E: serde::de::Error>(self, secret: &str) -> Result<SecretFile, E> {
        Ok(SecretFile::Inline(secret.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretFile, A::Error> {
        let Some(kind) = map.next_key::<String>()? else {
            return Err(A::Error::custom("write one of file, env and command"));
        };
        let secret = match kind.as_str() {
            "file" => SecretFile::File(map.next_value()?),
            "env" => SecretFile::Env(map.next_value()?),
            "command" => SecretFile::Command(map.next_value()?),
            other => return Err(A::Error::unknown_field(other, &["file", "env", "command"])),
        };
        match map.next_key::<String>()? {
            None => Ok(secret),
            Some(_) => Err(A::Error::custom("write only one of file, env and command")),
        }
    }
}

/// A system: what people name in an emergency.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SystemFile {
    /// What is deliberately not backed up, and why: `name: reason`. It becomes part of status and reports.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, ReasonText>>")]
    pub(super) not_backed_up: Option<Named<At<String>>>,
    /// Whom to call in an emergency, by role: `role: a name and how to reach it`. It is on the page that `lifeboat kit` prints.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, ContactText>>")]
    pub(super) contacts: Option<Named<At<String>>>,
    /// What is backed up, by name. Everywhere else a component is called `SYSTEM/COMPONENT`.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, ComponentFile>>")]
    pub(super) components: Option<Named<ComponentFile>>,
    /// Rehearsals of the recovery, by name. `lifeboat config check` says whether they prove what was promised.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, DrillFile>>")]
    pub(super) drills: Option<Named<DrillFile>>,
    /// Disasters that were thought of, by name: what is promised for each, and what is restored. `lifeboat config check` says whether that can be.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, ScenarioFile>>")]
    pub(super) scenarios: Option<Named<ScenarioFile>>,
    /// Checklists, by name: what has to hold, and who says so.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, Vec<ItemFile>>>")]
    pub(super) checklists: Option<Named<Vec<At<ItemFile>>>>,
    /// What is asked of the live application, before a disaster or after one: `lifeboat check SYSTEM`, or `lifeboat check SYSTEM --probes` alone.
    #[serde(default)]
    #[schemars(with = "Option<Vec<ProbeFile>>")]
    pub(super) probes: Option<Vec<At<ProbeFile>>>,
}

/// A name, and how to reach it.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "gives the schema its description; never made")]
struct ContactText(String);

/// Why it is not backed up, in a few words.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "gives the schema its description; never made")]
struct ReasonText(String);

/// One protected thing of a system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ComponentFile {
    /// An SQLite database. A component has exactly one of `sqlite`, `postgres`, `files` and `pki`.
    #[serde(default)]
    pub(super) sqlite: Option<SqliteFile>,
    /// A PostgreSQL cluster.
    #[serde(default)]
    pub(super) postgres: Option<PostgresFile>,
    /// Files and folders, such as configuration.
    #[serde(default)]
    pub(super) files: Option<FilesFile>,
    /// Private keys, certificates and revocation lists, which must fit each other.
    #[serde(default)]
    pub(super) pki: Option<PkiFile>,
    /// What was promised to the people who depend on it.
    #[serde(default)]
    pub(super) objectives: Option<ObjectivesFile>,
    /// Order of recovery: `critical` comes before `high`, then `normal`, then `low`. Default: `normal`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "normal", "enum" = ["critical", "high", "normal", "low", null]))]
    pub(super) priority: Option<At<String>>,
    /// Components that must be recovered before this one: `COMPONENT` of the same system, or `SYSTEM/COMPONENT`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) depends_on: Option<Vec<At<String>>>,
    /// What has to hold in a database, besides what is checked without being asked for: in a restored copy (`lifeboat drill`, `lifeboat verify --level
    /// app`); of PostgreSQL also in a database that is restored logically before it gets its name, and in the live one (`lifeboat check`).
    #[serde(default)]
    #[schemars(with = "Option<Vec<CheckFile>>")]
    pub(super) checks: Option<Vec<At<CheckFile>>>,
    /// What is proven again and again, and how often: `lifeboat verify --due` does what is due, `lifeboat status` says what is late.
    #[serde(default)]
    pub(super) verify: Option<VerifyFile>,
    /// Where its backups go.
    pub(super) backup: BackupFile,
}

/// An SQLite database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SqliteFile {
    /// The database file. A relative path begins at the folder of this file.
    #[schemars(with = "String", example = &"/data/sortie.db")]
    pub(super) path: At<String>,
    /// How long a backup waits for a lock that the application holds. Default: 5s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "5s"))]
    pub(super) busy_timeout: Option<At<String>>,
    /// How long a backup may hold up the application at most. Default: 5s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "5s"))]
    pub(super) max_stall: Option<At<String>>,
    /// Whether each backup also holds the database as SQL text, which any `sqlite3` program can load. Default: false.
    #[serde(default)]
    #[schemars(with = "Option<bool>", extend("default" = false))]
    pub(super) sql_dump: Option<At<bool>>,
    /// Results of queries that each backup also holds, as CSV files.
    #[serde(default)]
    pub(super) extract: Option<Vec<ExtractFile>>,
    /// A query that reads and answers with one time: how new the data is by its own account. Text as SQLite writes times (UTC where it has no zone), or
    /// seconds since 1970. `lifeboat drill` measures by it how much would be lost.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"SELECT max(updated_at) FROM sessions")]
    pub(super) heartbeat: Option<At<String>>,
    /// How many copies of the application write into it; more than one is told by `lifeboat config check`. Default: 1.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 100_000), extend("default" = 1))]
    pub(super) writers: Option<At<u32>>,
}

/// The result of a query, kept as a CSV file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtractFile {
    /// Name of the CSV file.
    #[schemars(with = "String", example = &"api_keys_metadata.csv")]
    pub(super) file: At<String>,
    /// One SELECT.
    #[schemars(with = "String", example = &"SELECT id, name, scopes FROM api_keys")]
    pub(super) query: At<String>,
    /// The only columns that the query may read, anywhere in it: `COLUMN` or `TABLE.COLUMN`. Reading any other ends the backup with an error.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(super) columns: At<Vec<At<String>>>,
}

/// Files and folders.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesFile {
    /// What is backed up: paths or patterns (`*`, `?`, `[…]`, `{a,b}`, and `**` for any number of folders). A folder is taken with all that is
    /// in it. Each entry must match something. A relative one begins at `root`, or at the folder of this file.
    #[schemars(with = "Vec<String>", length(min = 1), example = &["docker-compose*.yml", "k8s/*.yaml"])]
    pub(super) include: At<Vec<At<String>>>,
    /// The same, for what may not be there.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub(super) optional: Option<Vec<At<String>>>,
    /// What is left out: a pattern with `/` begins where `include` begins, one without is a name in any folder.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["*.tmp"])]
    pub(super) exclude: Option<Vec<At<String>>>,
    /// Files of `KEY=value` lines (`.env`) of which only the keys are kept; no value is ever stored. Each entry must match something.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &[".env"])]
    pub(super) env_structure: Option<Vec<At<String>>>,
    /// `encrypt`: these files hold secrets, and a backup in the clear is refused.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["encrypt"]))]
    pub(super) secrets: Option<At<String>>,
    /// Take what symbolic links lead to, instead of the links. Default: false.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub(super) follow_symlinks: Option<bool>,
    /// The folder that the paths of the backup are relative to. Default: the deepest folder that all patterns share.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"/etc/n-kudo")]
    pub(super) root: Option<At<String>>,
    /// How often a file is read again that changed while it was read, before the backup fails. Default: 5.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 1000), extend("default" = 5))]
    pub(super) max_change_retries: Option<At<u32>>,
}

/// Private keys, certificates and revocation lists.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PkiFile {
    /// Private keys of certificate authorities: paths or patterns, as in `files`. Links are followed.
    #[schemars(with = "Vec<String>", example = &["/etc/n-kudo/ca/*.key"])]
    pub(super) ca_keys: At<Vec<At<String>>>,
    /// Certificates and chains.
    #[schemars(with = "Vec<String>", example = &["/etc/n-kudo/ca/*.crt"])]
    pub(super) certs: At<Vec<At<String>>>,
    /// Certificate revocation lists.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["/etc/n-kudo/ca/*.crl"])]
    pub(super) crl: Option<Vec<At<String>>>,
    /// How long before a certificate or a revocation list runs out this is said in every report. Default: 30d.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "30d"))]
    pub(super) warn_expiry: Option<At<String>>,
    /// Refuse backups in the clear. Default: true.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    pub(super) encryption_required: Option<bool>,
}

/// What was promised.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectivesFile {
    /// How much work may be lost at most (recovery point objective).
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"24h")]
    pub(super) rpo: Option<At<String>>,
    /// How long a recovery may take at most (recovery time objective).
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"30m")]
    pub(super) rto: Option<At<String>>,
}

/// Where backups go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupFile {
    /// Names of the stores, at least one; each gets a whole copy of every backup. A restore tries them in this order.
    #[schemars(with = "Vec<String>", length(min = 1), example = &["disk", "s3-eu"])]
    pub(super) to: At<Vec<At<String>>>,
    /// Those of the stores without which a backup has failed: exit code 1. A copy that is missing in another store is told with exit
    /// code 3, and mended by the next backup or by `lifeboat copy`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["disk"])]
    pub(super) required: Option<Vec<At<String>>>,
    /// Name of the rules in `retention` by which old backups go. Without it, all backups are kept.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"thirty")]
    pub(super) retention: Option<At<String>>,
    /// Name of the key that encrypts the backups, or `none`, written out. If there is exactly one key, it is the default.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"main")]
    pub(super) encrypt: Option<At<String>>,
    /// Bytes a second that a backup reads at most from a PostgreSQL cluster, 32KiB at least. Default: no limit.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"100MiB")]
    pub(super) max_rate: Option<At<String>>,
    /// When backups are expected, as cron writes it: minute, hour, day of the month, month, day of the week, in `instance.timezone`. Lifeboat does not
    /// start them yet: cron or a timer runs `lifeboat backup`, and `status` says when one is missing.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"0 2 * * *")]
    pub(super) at: Option<At<String>>,
    /// The longest time between two backups. Instead of `at`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"6h")]
    pub(super) every: Option<At<String>>,
    /// Several schedules, by name, where backups differ in method, tag or store. Instead of `at` and `every`. Weeks and months need none of their
    /// own: `retention` keeps them from the backups that are there.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, ScheduleFile>>")]
    pub(super) schedules: Option<Named<ScheduleFile>>,
    /// Somebody is to be told when no backup came for so long: longer than interval and run, shorter than `rpo`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"14h")]
    pub(super) alert_after: Option<At<String>>,
}

/// The JSON Schema of the file, every part of it in place: there is nothing recursive to refer to.
pub(super) fn schema() -> serde_json::Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<ConfigFile>().to_value()
}
