//! Restoring databases from their definitions and rows (docs/logical.md, "A restore, step by step"): plan → staging database → definitions → rows →
//! indexes and constraints → read everything back → its name, last.

mod archive;
mod copy_text;
mod csv;
mod json;
pub mod place;
mod prove;
pub(crate) mod rows;
pub mod tables;
pub mod tenant;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::checks::Assertion;
use lifeboat_engine::postgres::logical::destination::{Destination, Inside, NAME_BYTES, STAGING, Wanted};
use lifeboat_engine::postgres::logical::programs::{self, Making, Program, Section};
use lifeboat_engine::postgres::logical::{Database, Facts, Name};
use lifeboat_io::{compute, durable};
use lifeboat_model::check::Outcome;
use lifeboat_model::estimate::{Estimate, estimate};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, FileRecord, IMPORTED, Identities, Reader, Repository};
use tokio::sync::{mpsc, watch};

use rows::{Form, Loading};

use super::{past_runs, remember};
use crate::backup::logical::{DEFINITIONS, binaries};
use crate::check;
use crate::proof::{self, FailedChecks, Level, Proof};
use crate::protected::Protected;
pub(crate) use archive::write as write_archive;
pub(crate) use csv::write as write_csv;
pub(crate) use json::write as write_json;
pub(crate) use prove::{address_as, prove, roles, with_server};
pub(crate) use text::write as write_sql;

/// How long definitions may take: building an index of a large table takes hours.
const DEFINITIONS_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Definitions are not larger.
const DEFINITIONS_BYTES: u64 = 1 << 30;
/// What does not happen where rows are not those that were captured.
const DIFFERING: &str = "accept";

/// What a person may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server; its database is one that is there already.
    pub server: ConnInfo,
    /// The new database; none: the original's name with the moment behind it.
    pub name: Option<String>,
    /// Which database of the backup; none: the only one.
    pub database: Option<String>,
    /// Who owns what, and who may do what, as it was.
    pub keep_owners: bool,
    /// It gets its name also where a check of the configuration fails.
    pub accept_findings: bool,
}

/// What a restore would do.
#[derive(Debug)]
pub struct Plan {
    /// From which backup.
    pub backup: Backup,
    /// Which of its databases.
    pub database: Database,
    /// The new one.
    pub name: String,
    /// Where it is made, for people.
    pub server: String,
    /// How long it will take, and on what that guess rests.
    pub estimate: Estimate,
    /// What will be done, in order.
    pub steps: Vec<String>,
    /// What to know before saying yes.
    pub notes: Vec<String>,
    reader: Reader,
    destination: Destination,
    pg_restore: Program,
    keep_owners: bool,
    accept_findings: bool,
    checks: Vec<Assertion>,
    /// Only to be read from.
    scratch: bool,
    schema_only: bool,
    /// What the backup lacks of the database, where it is an extract: it takes nobody's place.
    pub lacks: Option<String>,
}

/// What came of a restore.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Names it.
    pub id: String,
    /// From which backup.
    pub backup: Backup,
    /// Which of its databases.
    pub original: String,
    /// The new one.
    pub name: String,
    /// Where it is, for people.
    pub server: String,
    /// Tables whose rows were read back and are those that were captured.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// How long it took until it had its name.
    pub took: Duration,
    /// How long each step took.
    pub steps: Vec<(&'static str, Duration)>,
    /// What came of the checks of the configuration.
    pub checks: Vec<Outcome>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What a logical backup says of itself.
///
/// # Errors
/// `Usage` for another kind of backup.
pub fn facts(reader: &Reader, backup: &Backup) -> Result<Facts> {
    let facts = reader.facts().clone();
    serde_json::from_value(facts).map_err(|error| {
        let detail = format!("it is a backup of the method {}", backup.header.method);
        Error::new(ErrorKind::Usage, "restore databases from", backup.id.short(), detail).with_source(error)
    })
}

/// Opens a backup, and remembers where it is damaged.
async fn opened(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
) -> Result<(Reader, Facts)> {
    let reader = Reader::open(env, repository, backup, identities).await;
    let reader = reader.inspect_err(|error| remember(env, protected, backup, error))?;
    let facts = facts(&reader, backup)?;
    Ok((reader, facts))
}

/// The database that is meant, to be exported with its rows.
///
/// # Errors
/// `Refused` where the backup has definitions alone.
fn with_rows<'a>(facts: &'a Facts, name: Option<&str>) -> Result<&'a Database> {
    let database = chosen(facts, name)?;
    if facts.schema_only {
        let detail = "the backup has definitions alone, and no rows";
        return Err(Error::new(ErrorKind::Refused, "export", &database.name, detail).with_hint("choose another with --backup"));
    }
    Ok(database)
}

/// Looks at everything that can be known before anything is made.
pub async fn plan(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    options: &Options,
) -> Result<Plan> {
    let (reader, facts) = opened(env, protected, repository, backup, identities).await?;
    prepare(env, protected, reader, backup, &facts, options).await
}

async fn prepare(
    env: &Env,
    protected: &Protected,
    reader: Reader,
    backup: &Backup,
    facts: &Facts,
    options: &Options,
) -> Result<Plan> {
    if let Some(detail) = facts.lacks().filter(|_| facts.only_tables.is_some()) {
        return Err(
            Error::new(ErrorKind::Usage, "restore a database from", backup.id.short(), detail).with_hint(
                "foreign keys would lead nowhere: restore these tables with --tables, or choose another with --backup",
            ),
        );
    }
    let mut database = chosen(facts, options.database.as_deref())?.clone();
    let name = options.name.clone().unwrap_or_else(|| beside(&database));
    let wrote = facts.pg_dump.split('.').next().and_then(|major| major.parse().ok());
    let destination = Destination::connect(&options.server).await?;
    let wanted = Wanted {
        name: name.clone(),
        keep_owners: options.keep_owners,
    };
    if backup.header.method == IMPORTED {
        // A dump does not say how its database was made.
        database.properties = destination.made_like(&database.name).await?;
    }
    let mut notes = destination.examine(&database, &wanted).await?;
    let pg_restore = Program::find("pg_restore", wrote.unwrap_or(facts.major), binaries(protected)).await?;
    if destination.major < facts.major {
        notes.push(format!(
            "the server is PostgreSQL {}, the backup is of {}: definitions that only the newer one knows stop the restore",
            destination.major, facts.major
        ));
    }
    let checks: Vec<Assertion> = match protected.source.cluster() {
        // Where rows are missing on purpose, checks say nothing.
        Some(cluster) if facts.lacks().is_none() => {
            let asked = cluster.care.checks.iter();
            asked.filter(|check| check.database == database.name).cloned().collect()
        }
        _ => Vec::new(),
    };
    let steps = steps(&database, &name, &pg_restore, env.threads, checks.len());
    Ok(Plan {
        backup: backup.clone(),
        estimate: estimate(database.text_bytes(), &past_runs(protected)),
        server: options.server.to_string(),
        name,
        steps,
        notes,
        reader,
        destination,
        pg_restore,
        keep_owners: options.keep_owners,
        scratch: false,
        accept_findings: options.accept_findings,
        checks,
        schema_only: facts.schema_only,
        lacks: facts.lacks(),
        database,
    })
}

fn steps(database: &Database, name: &str, pg_restore: &Program, threads: usize, checks: usize) -> Vec<String> {
    let mut steps = vec![
        format!(
            "create: an empty database like {}, under a name of its own until the end",
            database.name
        ),
        format!("definitions: up to the tables, by pg_restore {}", pg_restore.version),
        format!(
            "rows: {} of {} tables, by {threads} sessions",
            database.rows(),
            database.tables.len()
        ),
        "constraints: indexes, constraints, triggers and policies; then materialised views".to_owned(),
        "check: every table is read back behind the others; its count and its digest must be those of the capture".to_owned(),
    ];
    if checks > 0 {
        steps.push(format!(
            "assert: what the configuration wants of it, {}",
            crate::words::counted(checks as u64, "check")
        ));
    }
    steps.push(format!("publish: the database gets its name, {name}, last"));
    steps
}

/// The database that is meant.
fn chosen<'a>(facts: &'a Facts, name: Option<&str>) -> Result<&'a Database> {
    let names = || {
        let names: Vec<&str> = facts.databases.iter().map(|database| database.name.as_str()).collect();
        names.join(", ")
    };
    let refused = |detail: String| {
        Error::new(ErrorKind::Usage, "choose a database of", "the backup", detail).with_hint("name one with --database")
    };
    match (name, facts.databases.as_slice()) {
        (Some(name), all) => {
            let found = all.iter().find(|database| database.name == name);
            found.ok_or_else(|| refused(format!("it has no {name}; there are {}", names())))
        }
        (None, [only]) => Ok(only),
        (None, _) => Err(refused(format!("it has several: {}", names()))),
    }
}

/// `20261122_094500`
fn stamp(at_us: i64) -> String {
    let text = lifeboat_repo::format_utc(at_us);
    let letters = text.chars().take(19).map(|letter| if letter == 'T' { '_' } else { letter });
    letters.filter(|letter| letter.is_ascii_digit() || *letter == '_').collect()
}

/// The original's name with the moment of the backup behind it.
fn beside(database: &Database) -> String {
    beside_name(&database.name, database.moment_us)
}

/// The same by its parts.
pub(super) fn beside_name(original: &str, moment_us: i64) -> String {
    let ending = format!("_restored_{}", stamp(moment_us));
    let mut name = original.to_owned();
    while name.len() + ending.len() > NAME_BYTES {
        name.pop();
    }
    name + &ending
}

/// What a database is called until it is proven.
pub(super) fn staging_name(id: &str) -> String {
    format!("{STAGING}{}", id.to_lowercase().replace('-', "_"))
}

/// Restores what `plan` says. On an error the staging database is gone again, unless the server is.
pub async fn run(env: &Env, protected: &Protected, plan: Plan) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = super::draw_id(env)?;
    let staging = staging_name(&id);
    let mut notes = plan.notes.clone();
    for leftover in plan.destination.leftovers().await? {
        plan.destination.drop_staging(&leftover).await?;
        notes.push(format!("removed {leftover}, which an interrupted restore had left"));
    }
    let mut timed = Timed::begin(env);
    let restored = match build(env, protected, &plan, &id, &staging, &mut timed).await {
        Ok(()) => check_and_publish(env, protected, &plan, &staging, &mut timed, &mut notes).await,
        Err(error) => {
            remember(env, protected, &plan.backup, &error);
            Err(error)
        }
    };
    let checks = match restored {
        Ok(checks) => checks,
        Err(error) => return Err(abandoned(&plan.destination, &staging, error).await),
    };
    let took = env.clock.monotonic().saturating_sub(began);
    let record = Proof {
        backup: plan.backup.id.to_string(),
        level: Level::Restore,
        at_us: env.clock.wall_us(),
        took_s: took.as_secs_f64(),
        bytes: plan.database.text_bytes(),
    };
    // The data is back: what cannot be written down is worth a word, not a failure.
    if let Err(error) = remember_place(env, protected, &plan, &id).await {
        notes.push(format!("it could not be recorded where the copy is: {error}"));
    }
    if let Err(error) = proof::record(&protected.state_dir, &protected.component, record) {
        notes.push(format!("the run could not be recorded: {error}"));
    }
    notes.extend(timed.notes);
    Ok(Report {
        id,
        // Of definitions alone nothing was read back.
        tables: if plan.schema_only {
            0
        } else {
            plan.database.tables.len() as u64
        },
        rows: plan.database.rows(),
        bytes: plan.database.text_bytes(),
        original: plan.database.name,
        name: plan.name,
        server: plan.server,
        backup: plan.backup,
        took,
        steps: timed.steps,
        checks,
        notes,
    })
}

/// Removes the staging database; returns why it has to go.
async fn abandoned(destination: &Destination, staging: &str, error: Error) -> Error {
    match destination.drop_staging(staging).await {
        Ok(()) => error,
        // The first error matters more; the next restore removes it.
        Err(left) => error.with_hint(format!(
            "the database {staging} could not be removed ({left}); the next restore to this server does"
        )),
    }
}

async fn remember_place(env: &Env, protected: &Protected, plan: &Plan, id: &str) -> Result<()> {
    let oid = plan.destination.oid(&plan.name).await?;
    let put = place::RestoredDatabase {
        id: id.to_owned(),
        component: protected.component.to_string(),
        backup: plan.backup.id.to_string(),
        at_us: env.clock.wall_us(),
        server: plan.destination.identity.clone(),
        oid,
        name: plan.name.clone(),
        original: plan.database.name.clone(),
        lacks: plan.lacks.clone(),
        replaced: None,
    };
    place::remember(&protected.state_dir, &put)
}

/// The checks of the configuration, in the database that has no name yet; then its name.
async fn check_and_publish(
    env: &Env,
    protected: &Protected,
    plan: &Plan,
    staging: &str,
    timed: &mut Timed<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    if !plan.checks.is_empty() {
        timed.step("assert", None);
        let wanted: Vec<&Assertion> = plan.checks.iter().collect();
        outcomes = check::ask(&plan.destination.info(staging), &wanted).await?;
    }
    let failed = check::failures(&outcomes);
    if !failed.is_empty() {
        let (count, all) = (failed.len(), outcomes.len());
        let says = failed.join("; ");
        let failed = FailedChecks {
            backup: plan.backup.id.to_string(),
            level: Level::App,
            at_us: env.clock.wall_us(),
            says: says.clone(),
        };
        if let Err(error) = proof::record_failed_checks(&protected.state_dir, &protected.component, failed) {
            notes.push(format!("it could not be recorded that checks failed: {error}"));
        }
        if !plan.accept_findings {
            let detail = format!("{count} of {all} checks failed, and nothing was given the name: {says}");
            return Err(Error::new(ErrorKind::Corrupt, "restore the database", &plan.name, detail).with_hint(
                "what came back is what was captured: choose an earlier backup with --backup, or look into this one with --accept-findings, which gives it the name all the same",
            ));
        }
        notes.push(format!(
            "{count} of {all} checks failed, and it was accepted all the same: {says}"
        ));
    }
    publish(plan, staging, timed).await?;
    Ok(outcomes)
}

async fn publish(plan: &Plan, staging: &str, timed: &mut Timed<'_>) -> Result<()> {
    timed.step("publish", None);
    let (destination, properties) = (&plan.destination, &plan.database.properties);
    destination.dress(staging, properties, plan.keep_owners).await?;
    destination.rename(staging, &plan.name).await?;
    timed.end();
    Ok(())
}

/// How long the steps take, and what is worth a word of them.
struct Timed<'a> {
    env: &'a Env,
    last: Duration,
    steps: Vec<(&'static str, Duration)>,
    notes: Vec<String>,
}

impl<'a> Timed<'a> {
    fn begin(env: &'a Env) -> Self {
        Self {
            env,
            last: env.clock.monotonic(),
            steps: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn step(&mut self, step: &'static str, total: Option<u64>) {
        self.end();
        self.env.progress.step(step, total);
        self.steps.push((step, Duration::ZERO));
    }

    fn end(&mut self) {
        let now = self.env.clock.monotonic();
        if let Some((_, took)) = self.steps.last_mut() {
            *took = now.saturating_sub(self.last);
        }
        self.last = now;
    }
}

/// A folder of ours that goes with us.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is definitions, in a folder that only we may enter.
        drop(durable::remove_folder(&self.0));
    }
}

/// Everything but the name. Where what was read back is not what was captured, it is made once more with rows as the server wrote them: before anybody takes
/// the backup for damaged, it was not the form in which they were sent.
async fn build(env: &Env, protected: &Protected, plan: &Plan, id: &str, staging: &str, timed: &mut Timed<'_>) -> Result<()> {
    match build_of(env, protected, plan, id, staging, timed, Form::Quick).await {
        Err(error) if is_differing(&error) => {
            timed
                .notes
                .push(format!("everything was brought in once more, as text: {}", error.detail()));
            plan.destination.drop_staging(staging).await?;
            build_of(env, protected, plan, id, staging, timed, Form::Text).await
        }
        built => built,
    }
}

async fn build_of(
    env: &Env,
    protected: &Protected,
    plan: &Plan,
    id: &str,
    staging: &str,
    timed: &mut Timed<'_>,
    form: Form,
) -> Result<()> {
    let (destination, database) = (&plan.destination, &plan.database);
    timed.step("create", None);
    destination.create(staging, &database.properties).await?;
    let info = destination.info(staging);
    let inside = Inside::enter(&info).await?;
    timed.step("definitions", None);
    let folder = Folder(protected.state_dir.join(format!("restore-{id}")));
    let archive = definitions_of(&plan.reader, database, &folder).await?;
    let making = Making {
        at_once: env.threads.max(1),
        keep_owners: plan.keep_owners,
        replication: !plan.scratch,
        index_memory_kib: inside.index_memory_kib(database.largest_table_bytes()).await?,
        limit: DEFINITIONS_LIMIT,
    };
    programs::make(&plan.pg_restore, &info, &archive, Section::PreData, &making).await?;
    let post_data = async || programs::make(&plan.pg_restore, &info, &archive, Section::PostData, &making).await;
    if plan.schema_only {
        timed.step("constraints", None);
        post_data().await?;
        inside.fill(&database.materialized).await?;
    } else {
        timed.step("rows", Some(database.text_bytes()));
        // A word for each table, and one for the large objects: nobody who loads waits for those who read.
        let ((loaded, hears), (done, built)) = (mpsc::channel(database.tables.len() + 1), watch::channel(false));
        let filling = async {
            let how = Loading::whole(&inside, plan.keep_owners, form, loaded).await?;
            rows::load(env, &plan.reader, database, &info, how).await?;
            inside.set_sequences(&database.sequences).await?;
            // Constraints change no row, so the rest is read back meanwhile.
            timed.step("constraints and check", Some(database.text_bytes()));
            post_data().await?;
            done.send_replace(true);
            Ok(())
        };
        tokio::try_join!(filling, rows::compare_behind(env, database, &inside, &info, hears, built))?;
        inside.fill(&database.materialized).await?;
        timed.step("analyze", None);
        rows::analyze_rest(env, database, &inside, &info).await?;
    }
    // Whoever connects from now on has them: checks see what the application would see.
    destination.set(staging, &database.properties, plan.keep_owners).await
}

/// The definitions as a file, for `pg_restore`.
async fn definitions_of(reader: &Reader, database: &Database, folder: &Folder) -> Result<PathBuf> {
    let record = file(reader, &format!("{}/{DEFINITIONS}", database.folder))?;
    let bytes = reader.read_stream(record, DEFINITIONS_BYTES).await?;
    let (folder, archive) = (folder.0.clone(), folder.0.join(DEFINITIONS));
    let path = archive.clone();
    compute::run("write the definitions", move || {
        durable::create_folder(&folder)?;
        durable::create_file(&path, &bytes, durable::FILE_MODE).map(drop)
    })
    .await?;
    Ok(archive)
}

/// A file of the backup.
fn file<'a>(reader: &'a Reader, path: &str) -> Result<&'a FileRecord> {
    let found = reader.files().iter().find(|file| file.meta.path == path);
    found.ok_or_else(|| Error::new(ErrorKind::Corrupt, "read", path, "the backup names it and does not hold it"))
}

/// Whether rows are not those that were captured.
fn is_differing(error: &Error) -> bool {
    error.kind() == ErrorKind::Corrupt && error.op() == DIFFERING
}

/// The tables whose rows are not those that were captured.
fn differing(differences: &[(Name, String)]) -> Error {
    let told: Vec<String> = differences
        .iter()
        .take(5)
        .map(|(name, says)| format!("{name} {says}"))
        .collect();
    let more = match differences.len() {
        count if count > 5 => format!(", and {} more", count - 5),
        _ => String::new(),
    };
    let detail = format!("it is not what was captured: {}{more}", told.join("; "));
    Error::new(ErrorKind::Corrupt, DIFFERING, "the restored database", detail)
        .with_hint("nothing got its name; `lifeboat verify --level decrypt` says whether the backup is damaged")
}
