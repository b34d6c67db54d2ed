//! The verb `backup`: capture → store → proof of consistency → commit.
//!
//! The engine's transaction ends before the commit: if the source says at its end that something was wrong, nothing was committed (INV-03).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::logical::tenant::TenantMap;
use lifeboat_engine::postgres::{capture, logical as databases};
use lifeboat_engine::{files as tree, sqlite};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, BackupPlan, CopyOutcome, Instance, Stats, Writer};

pub(crate) mod cluster;
pub(crate) mod log;
pub(crate) mod logical;
mod pki;
mod source;

use crate::durations::{self, Took};
use crate::proof;
use crate::protected::{Method, Protected};
use crate::stores;
use source::Opened;
pub(crate) use source::around;

/// What a person asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Free words kept with the backup.
    pub tags: Vec<String>,
    /// Why it is made.
    pub reason: Option<String>,
    /// Retention does not give it up before it is this old.
    pub keep_for: Option<Duration>,
    /// Do not compare with an older backup.
    pub full: bool,
    /// By which method, where a kind has several; none: as configured.
    pub method: Option<Method>,
    /// Of databases by their definitions and rows: only some of it. An extract.
    pub part: Part,
    /// The stores are others than those of the component: local state is kept apart, so that its own go on from where they were.
    pub elsewhere: bool,
}

/// How much of databases is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    #[default]
    Whole,
    /// Definitions, no rows.
    Definitions,
    /// Definitions, and the rows of some tables of one database.
    Tables {
        /// Which database; none: the only one.
        database: Option<String>,
        /// `TABLE` or `SCHEMA.TABLE`; a partitioned one means all its partitions.
        tables: Vec<String>,
    },
    /// Definitions, the rows of one tenant, and those that are everybody's.
    Tenant(Box<OneTenant>),
}

/// Whose rows are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneTenant {
    /// What names the tenant.
    pub id: String,
    /// In which database.
    pub database: String,
    /// Which rows are whose.
    pub map: TenantMap,
    /// Also of a tenant that is not there, and where its rows refer to those of others: what is there is taken before it is changed.
    pub as_is: bool,
}

impl Part {
    /// The folder of local state for backups of this kind, below that of extracts: each is compared with the last of its own kind. Of any length, and with
    /// any letters in it, is what a person typed: its hash is not.
    fn folder(&self) -> Option<String> {
        let hashed = |what: &str, of: &str| format!("{what}-{}", blake3::hash(of.as_bytes()).to_hex());
        match self {
            Self::Whole => None,
            Self::Definitions => Some("schema".to_owned()),
            Self::Tables { database, tables } => {
                let database = database.as_deref().unwrap_or_default();
                Some(hashed("tables", &format!("{database}\n{}", tables.join("\n"))))
            }
            Self::Tenant(tenant) => Some(hashed("tenant", &format!("{}\n{}", tenant.database, tenant.id))),
        }
    }
}

/// What the engine counted.
#[derive(Debug, Clone)]
pub enum Facts {
    /// Of a database, in the transaction that read its pages.
    Sqlite(sqlite::Facts),
    /// Of files, while they were read.
    Files(tree::Facts),
    /// Of a cluster, while it was read.
    Postgres(Box<capture::Facts>),
    /// Of databases, in the transactions that read them.
    Databases(Box<databases::Facts>),
}

impl Facts {
    /// As a backup keeps them.
    pub(crate) fn as_json(&self) -> Result<serde_json::Value> {
        let json = match self {
            Self::Sqlite(facts) => serde_json::to_value(facts),
            Self::Files(facts) => serde_json::to_value(facts),
            Self::Postgres(facts) => serde_json::to_value(facts),
            Self::Databases(facts) => serde_json::to_value(facts),
        };
        json.map_err(|error| Error::new(ErrorKind::Bug, "encode", "the facts of a backup", error.to_string()))
    }

    /// The facts of a database, where it is one.
    #[must_use]
    pub fn sqlite(&self) -> Option<&sqlite::Facts> {
        match self {
            Self::Sqlite(facts) => Some(facts),
            Self::Files(_) | Self::Postgres(_) | Self::Databases(_) => None,
        }
    }

    /// The facts of files, where it is files.
    #[must_use]
    pub fn files(&self) -> Option<&tree::Facts> {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) | Self::Databases(_) => None,
            Self::Files(facts) => Some(facts),
        }
    }

    /// The facts of a cluster, where it is one.
    #[must_use]
    pub fn postgres(&self) -> Option<&capture::Facts> {
        match self {
            Self::Sqlite(_) | Self::Files(_) | Self::Databases(_) => None,
            Self::Postgres(facts) => Some(facts),
        }
    }

    /// The facts of databases, where they are that.
    #[must_use]
    pub fn databases(&self) -> Option<&databases::Facts> {
        match self {
            Self::Sqlite(_) | Self::Files(_) | Self::Postgres(_) => None,
            Self::Databases(facts) => Some(facts),
        }
    }
}

/// What came of it.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// The backup.
    pub backup: Backup,
    /// Bytes read, changed, stored.
    pub stats: Stats,
    /// What the engine counted.
    pub facts: Facts,
    /// How long it took.
    pub took: Duration,
    /// How long writers were kept waiting at most, where the engine knows.
    pub stall: Duration,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// What became of it in each store, in the order of the configuration.
    pub copies: Vec<CopyOutcome>,
}

impl Report {
    /// The stores that have no copy of it.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &Error)> {
        let missing = |copy: &'_ CopyOutcome| copy.missing.is_some();
        let lacking = self.copies.iter().filter(move |copy| missing(copy));
        lacking.filter_map(|copy| Some((copy.store.as_str(), copy.missing.as_ref()?)))
    }
}

/// Makes one backup of `protected`, signed by `instance`, in all its stores. A store that fails is told in the report as long as another has
/// the backup; one where the last backup cannot be built upon gets one of its own, from a second reading of the source.
pub async fn run(env: &Env, protected: &Protected, instance: Arc<Instance>, request: Request) -> Result<Report> {
    let began = env.clock.monotonic();
    let is_usual = request.part == Part::Whole && !request.elsewhere;
    let common = if let Some(folder) = request.part.folder() {
        // It has not the rows that the next whole one wants to find.
        protected.state_dir.join("extracts").join(folder)
    } else if request.elsewhere {
        let names: Vec<&str> = protected.stores.iter().map(|place| place.name.as_str()).collect();
        apart(protected, &names.join(" "))
    } else {
        protected.state_dir.clone()
    };
    let mut report = Box::pin(once(env, protected, Arc::clone(&instance), request.clone(), common)).await?;
    for copy in report.copies.iter_mut().filter(|copy| copy.apart) {
        let Some(place) = protected.stores.iter().find(|place| place.name == copy.store) else {
            continue;
        };
        let alone = Protected {
            stores: vec![place.clone()],
            ..protected.clone()
        };
        let state_dir = apart(protected, &place.name);
        match Box::pin(once(env, &alone, Arc::clone(&instance), request.clone(), state_dir)).await {
            Ok(own) => {
                copy.own = Some(own.backup.id);
                let why = copy
                    .missing
                    .take()
                    .map(|reason| reason.detail().to_owned())
                    .unwrap_or_default();
                report.notes.push(format!(
                    "the store {} got a backup of its own, {}, from a second reading of the source: {why}",
                    place.name,
                    own.backup.id.short()
                ));
            }
            Err(error) => copy.missing = Some(error),
        }
    }
    // One that a store lacks says nothing about how long all of them take.
    if is_usual && report.missing().next().is_none() {
        let took = env.clock.monotonic().saturating_sub(began);
        report.notes.extend(remember_took(env, protected, &report.backup, took));
    }
    Ok(report)
}

/// Where local state for some stores alone is kept.
fn apart(protected: &Protected, stores: &str) -> PathBuf {
    protected.state_dir.join("apart").join(stores::file_name(stores))
}

/// One session. `state_dir` is where its local state is kept.
async fn once(env: &Env, protected: &Protected, instance: Arc<Instance>, request: Request, state_dir: PathBuf) -> Result<Report> {
    let began = env.clock.monotonic();
    let repository = stores::joined(protected).await?;
    let method = logical::method(protected, &request)?;
    let damage = proof::damage(&protected.state_dir, &protected.component);
    let damaged = damage.iter().find(|damage| !damage.renewed);
    let plan = BackupPlan {
        component: protected.component.clone(),
        kind: protected.source.kind().to_owned(),
        method: method.word().to_owned(),
        source: String::new(),
        instance: Arc::clone(&instance),
        encryption: protected.encryption.clone(),
        trust: protected.trust.clone(),
        state_dir,
        tags: request.tags,
        reason: request.reason,
        keep_for: request.keep_for,
        // An incremental backup would share the damaged files, unless they are marked: then it stores again what they held.
        full: request.full || damage.iter().any(|damage| !damage.renewed && !damage.marked),
        extract: request.part != Part::Whole,
        patient: method == Method::Physical && protected.source.cluster().is_some(),
    };
    let about = log::About {
        env,
        protected,
        repository: &repository,
        instance: &instance,
    };
    let (writer, stored) = read(&about, plan, (method, &request.part)).await?;
    let facts = stored.facts.as_json()?;
    let committed = writer.commit(stored.moment_us, facts).await?;
    env.progress.finish();
    let mut notes = committed.notes;
    if let Some(damaged) = damaged {
        notes.push(format!(
            "damage was found in backup {} ({}): {} was stored anew; `lifeboat verify` proves it",
            damaged.backup,
            damaged.says,
            if damaged.marked { "what it had lost" } else { "everything" }
        ));
        proof::record_renewal(&protected.state_dir, &protected.component)?;
    }
    notes.extend(stored.warnings);
    notes.extend(remember_newest(protected, &committed.backup));
    notes.extend(remember_pki(protected, &stored.facts));
    Ok(Report {
        copies: committed.copies,
        backup: committed.backup,
        stats: committed.stats,
        facts: stored.facts,
        took: env.clock.monotonic().saturating_sub(began),
        stall: stored.stall,
        notes,
    })
}

/// Reads the source into a session, and once more into another where some of it has to come whole.
async fn read(about: &log::About<'_>, plan: BackupPlan, (method, part): (Method, &Part)) -> Result<(Writer, source::Stored)> {
    let mut whole = cluster::Whole::default();
    loop {
        let opened = Opened::open(about.env, about.protected, (method, part), &whole).await?;
        let plan = BackupPlan {
            source: opened.identity(),
            ..plan.clone()
        };
        let mut writer = Writer::begin(about.env, about.repository, plan).await?;
        let stored = opened.store(about, &mut writer).await?;
        if stored.again.is_empty() {
            return Ok((writer, stored));
        }
        whole.add(stored.again);
    }
}

/// What was found in a PKI, for `status`.
fn remember_pki(protected: &Protected, facts: &Facts) -> Option<String> {
    let report = facts.files()?.pki.as_ref()?;
    proof::record_pki(&protected.state_dir, &protected.component, pki::standing(report))
        .err()
        .map(|error| format!("what was found in the PKI could not be remembered here: {error}"))
}

/// The backup stands: that its number cannot be written down is worth a word, not a failure.
fn remember_newest(protected: &Protected, backup: &Backup) -> Option<String> {
    proof::record_newest(&protected.state_dir, &protected.component, &backup.id.to_string())
        .err()
        .map(|error| format!("its number could not be remembered here: {error}"))
}

/// How long it took, for what a plan rests on. The backup stands without it.
fn remember_took(env: &Env, protected: &Protected, backup: &Backup, took: Duration) -> Option<String> {
    let mut stores: Vec<String> = protected.stores.iter().map(|place| place.name.clone()).collect();
    stores.sort();
    let took = Took {
        at_us: env.clock.wall_us(),
        took_s: took.as_secs_f64(),
        method: backup.header.method.clone(),
        stores,
        full: backup.header.parent.is_none(),
    };
    durations::record(&protected.state_dir, &protected.component, took)
        .err()
        .map(|error| format!("how long it took could not be remembered here: {error}"))
}
