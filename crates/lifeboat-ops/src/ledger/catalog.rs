//! The catalog: records that were read before, so that they need not be fetched again. A SQLite file in the state folder.
//!
//! It decides nothing. Records in it are judged anew whenever they are used, as if they came from a store; a catalog that is missing, damaged, of
//! another version or of another instance is made anew, and one that cannot be made is done without.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{ChainId, ComponentName, LedgerName, LedgerRecord, PublicKey, RepositoryId, flaws, parse_utc};
use rusqlite::Connection;
use serde_json::Value;

use super::read::{Chains, read_with};
use crate::attest::{self, Heard, Said};
use crate::proof::{self, Level, Proof};
use crate::protected::Protected;

const VERSION: &str = "1";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS records (
        repository TEXT NOT NULL, component TEXT NOT NULL, name TEXT NOT NULL,
        at_us INTEGER NOT NULL, verb TEXT NOT NULL, outcome TEXT NOT NULL, stored BLOB NOT NULL,
        PRIMARY KEY (repository, component, name)
    ) STRICT;";

/// The catalog of this state folder.
#[derive(Debug)]
pub struct Catalog {
    /// None where there can be none: everything works without.
    connection: Option<Connection>,
    /// Whether it was made anew.
    is_new: bool,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("catalog.sqlite")
}

fn failed(error: rusqlite::Error) -> Error {
    Error::new(ErrorKind::Failed, "use", "the catalog", error.to_string()).with_hint("`lifeboat catalog rebuild` makes it anew")
}

impl Catalog {
    /// Opens the catalog of the instance that signs with `instance`.
    #[must_use]
    pub fn open(state_dir: &Path, instance: Option<PublicKey>) -> Self {
        if let Ok((connection, is_new)) = try_open(state_dir, instance) {
            return Self {
                connection: Some(connection),
                is_new,
            };
        }
        Self::remake(state_dir, instance).unwrap_or(Self {
            connection: None,
            is_new: true,
        })
    }

    /// Throws the catalog away and makes an empty one.
    ///
    /// # Errors
    /// Where the state folder cannot be written to.
    pub fn remake(state_dir: &Path, instance: Option<PublicKey>) -> Result<Self> {
        let file = path(state_dir);
        for ending in ["", "-wal", "-shm", "-journal"] {
            let mut name = file.clone().into_os_string();
            name.push(ending);
            durable::remove_file(Path::new(&name))?;
        }
        let (connection, _) = try_open(state_dir, instance)?;
        Ok(Self {
            connection: Some(connection),
            is_new: true,
        })
    }

    /// Whether it holds nothing from before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The stored bytes of records that it has. A catalog that fails has none.
    pub(super) fn known(&self, repository: RepositoryId, component: &ComponentName) -> BTreeMap<LedgerName, Bytes> {
        let read = || {
            let Some(connection) = &self.connection else {
                return Ok(BTreeMap::new());
            };
            let mut query = connection.prepare("SELECT name, stored FROM records WHERE repository = ?1 AND component = ?2")?;
            let rows = query.query_map((repository.to_string(), component.as_str()), |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
            })?;
            let mut known = BTreeMap::new();
            for row in rows {
                let (name, stored) = row?;
                if let Ok(name) = name.parse::<LedgerName>() {
                    known.insert(name, Bytes::from(stored));
                }
            }
            Ok::<_, rusqlite::Error>(known)
        };
        read().unwrap_or_default()
    }

    /// Keeps a record. One that cannot be kept is fetched again next time.
    pub(super) fn keep(&mut self, repository: RepositoryId, component: &ComponentName, record: &LedgerRecord, stored: &[u8]) {
        let Some(connection) = &self.connection else { return };
        let kept = connection.execute(
            "INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                repository.to_string(),
                component.as_str(),
                record.name.to_string(),
                record.at_us,
                &record.verb,
                &record.outcome,
                stored,
            ),
        );
        if kept.is_err() {
            self.connection = None;
        }
    }

    fn begin(&self) {
        self.run("BEGIN");
    }

    fn end(&self) {
        self.run("COMMIT");
    }

    fn run(&self, sql: &str) {
        let Some(connection) = &self.connection else { return };
        // What is not kept is fetched again.
        if connection.execute_batch(sql).is_err() {}
    }
}

fn try_open(state_dir: &Path, instance: Option<PublicKey>) -> Result<(Connection, bool)> {
    durable::create_folder(state_dir)?;
    let file = path(state_dir);
    let is_new = !file
        .try_exists()
        .map_err(|error| Error::io("look at", file.display(), error))?;
    let connection = Connection::open(&file).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(failed)?;
    // It is a cache: what a power cut takes away is fetched again.
    connection
        .execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE")
        .map_err(failed)?;
    connection.execute_batch(SCHEMA).map_err(failed)?;
    let instance = instance.map(|key| key.to_string()).unwrap_or_default();
    for (name, value) in [("version", VERSION), ("instance", instance.as_str())] {
        connection
            .execute("INSERT OR IGNORE INTO about VALUES (?1, ?2)", (name, value))
            .map_err(failed)?;
        let there: String = connection
            .query_row("SELECT value FROM about WHERE name = ?1", [name], |row| row.get(0))
            .map_err(failed)?;
        if there != value {
            let detail = format!("it is of another {name} ({there})");
            return Err(Error::new(ErrorKind::Incompatible, "use", "the catalog", detail));
        }
    }
    Ok((connection, is_new))
}

/// What a rebuild found.
#[derive(Debug, Default)]
#[must_use]
pub struct Rebuilt {
    /// Records in the catalog.
    pub records: u64,
    /// Proofs that this machine did not know and knows now.
    pub proofs: u64,
    /// What people said of checklists that this machine did not know and knows now.
    pub attestations: u64,
    /// Chains that do not hold (`audit verify`): what people said is not taken from them.
    pub broken_chains: u64,
    /// Files under `ledger/` that are no record.
    pub refused: u64,
    /// Stores that did not answer.
    pub away: Vec<(String, Error)>,
}

/// Fills the catalog with the records of a component, tells `status` what they prove, and checklists what people said.
///
/// # Errors
/// Where no store answers, the state folder cannot be written to, or what it has of checklists cannot be understood.
pub async fn rebuild(protected: &Protected, catalog: &mut Catalog) -> Result<Rebuilt> {
    catalog.begin();
    let read = read_with(protected, catalog).await;
    catalog.end();
    let chains = read?;
    let proofs = proofs(&chains.records);
    let broken = broken(&chains);
    let heard: Vec<Heard> = chains
        .records
        .iter()
        .filter(|record| record.verb == "attest" && !broken.contains(&record.name.chain))
        .flat_map(|record| attested(&protected.component, record))
        .collect();
    Ok(Rebuilt {
        records: chains.records.len() as u64,
        proofs: proof::adopt(&protected.state_dir, &protected.component, proofs)?,
        attestations: attest::adopt(&protected.state_dir, &heard)?,
        broken_chains: broken.len() as u64,
        refused: chains.refused.len() as u64,
        away: chains.away,
    })
}

/// What the records prove: successful verifications, of which none found anything wrong later. After bad news nothing older counts; what is
/// forgotten by that is unknown, never good.
fn proofs(records: &[LedgerRecord]) -> Vec<Proof> {
    let mut proofs = Vec::new();
    for record in records
        .iter()
        .filter(|record| matches!(record.verb.as_str(), "verify" | "drill" | "init"))
    {
        if bad_news(&Value::Object(record.facts.clone())) {
            proofs.clear();
        }
        let Some(result) = record.facts.get("result") else { continue };
        let rows = result.as_array().map_or(std::slice::from_ref(result), Vec::as_slice);
        for row in rows {
            let proven = row.get("proofs").and_then(Value::as_array);
            let proven = proven.into_iter().flatten().chain(row.get("proof"));
            proofs.extend(proven.filter_map(|proven| proof_of(proven, record.at_us)));
        }
    }
    proofs
}

fn proof_of(proven: &Value, at_us: i64) -> Option<Proof> {
    if bad_news(proven) {
        return None;
    }
    let level: Level = serde_json::from_value(proven.get("level")?.clone()).ok()?;
    Some(Proof {
        backup: proven.get("backup")?.get("name")?.as_str()?.to_owned(),
        level,
        at_us,
        took_s: proven.get("took_s")?.as_f64()?,
        bytes: proven.get("bytes")?.as_u64()?,
    })
}

/// Whether anything in these facts says that data or a check was bad.
fn bad_news(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| match (name.as_str(), value) {
            ("kind", Value::String(kind)) => kind == "corrupt",
            ("verdict", Value::String(verdict)) => verdict == "failed",
            (_, value) => bad_news(value),
        }),
        Value::Array(items) => items.iter().any(bad_news),
        _ => false,
    }
}

/// The chains that do not hold. Where a record is missing or cannot be read, somebody may have taken back in it what he said before.
fn broken(chains: &Chains) -> BTreeSet<ChainId> {
    let mut broken: BTreeSet<ChainId> = flaws(&chains.records).into_iter().map(|flaw| flaw.chain).collect();
    let refused = chains
        .refused
        .iter()
        .filter_map(|refused| refused.name.parse::<LedgerName>().ok());
    let elsewhere: BTreeSet<LedgerName> = chains.records.iter().map(|record| record.name).collect();
    broken.extend(refused.filter(|name| !elsewhere.contains(name)).map(|name| name.chain));
    broken
}

/// What a record tells that somebody said. It was written down before it was told, so it was said however the command ended.
fn attested(component: &ComponentName, record: &LedgerRecord) -> Vec<Heard> {
    let Some(result) = record.facts.get("result") else {
        return Vec::new();
    };
    let rows = result.as_array().map_or(std::slice::from_ref(result), Vec::as_slice);
    rows.iter().filter_map(|row| heard(component, row, record.at_us)).collect()
}

fn heard(component: &ComponentName, row: &Value, recorded_us: i64) -> Option<Heard> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    let checklist = text("checklist")?;
    let (system, list) = checklist.split_once('/')?;
    if component.as_str().split_once('/')?.0 != system {
        return None;
    }
    let at_us = text("at").and_then(|at| parse_utc(&at).ok());
    Some(Heard {
        said: Said {
            system: system.to_owned(),
            list: list.to_owned(),
            item: text("item")?,
            good: row.get("good")?.as_bool()?,
            who: text("who")?,
            at_us: at_us.unwrap_or(recorded_us),
            note: text("note"),
        },
        has_time: at_us.is_some(),
    })
}
