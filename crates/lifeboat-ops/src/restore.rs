//! The verb `restore`: plan → preflight → fetch → check → quarantine → publish last.
//!
//! INV-12: restored data gets its name last, after it was checked on the disk. Until then it lies in a staging folder beside the destination.
//! In place, the old files are moved into an undo folder first, step by step in a journal, so that a killed run is finished or taken
//! back by the next one ([`quarantine`]).

pub mod artefact;
mod block_hashes;
pub mod cluster;
mod destination;
pub mod dump;
mod files;
pub mod logical;
pub mod promote;
pub mod quarantine;
pub mod record;
mod staging;
mod tar;
mod tree;
pub mod tree_place;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::sqlite::{self, Facts};
use lifeboat_io::compute;
use lifeboat_io::durable;
use lifeboat_io::flow::PageSink;
use lifeboat_io::sink::FileSink;
use lifeboat_model::check::Outcome;
use lifeboat_model::estimate::{Estimate, Run, estimate};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Fetched, FileRecord, Identities, ReadPlan, Reader, Repository};

use crate::proof::{self, Level, Proof};
use crate::protected::Protected;
use crate::verify;
use crate::words::counted;
pub use destination::Destination;
use destination::settle_destination;
pub(crate) use destination::{nearest_folder, preflight, refuse_taken, taken};
pub(crate) use files::{archive, is_files, prove};
use staging::Staging;
pub use tree::Selection;
pub(crate) use tree::record as tree_of;

/// The steps, in order; the same words in progress, plans and tests.
pub const STEPS: [&str; 6] = ["preflight", "fetch", "check", "quarantine", "publish", "fresh backup"];

/// The step with which what was only to be looked at is removed: up to here a recovery is measured.
pub(crate) const CLEAN_UP: &str = "clean up";

/// What a restore would do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// From which backup.
    pub backup: Backup,
    /// The same, opened: what was read for the plan need not be read again.
    pub reader: Reader,
    /// To where.
    pub destination: Destination,
    /// What reading takes.
    pub read: ReadPlan,
    /// How long it will take, and on what that guess rests.
    pub estimate: Estimate,
    /// Free bytes where it goes.
    pub free_bytes: u64,
    /// What will be done, in order.
    pub steps: Vec<String>,
    /// What to know before saying yes.
    pub notes: Vec<String>,
}

/// What the checks of a restored database found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Lines of `integrity_check` other than `ok`.
    pub integrity: Vec<String>,
    /// Rows that point to nothing: they did so in the source, too.
    pub foreign_keys: Vec<String>,
    /// What cannot be checked without the application's own functions and modules. No sign of damage.
    pub unchecked: Vec<String>,
    /// Where counts, schema or pages differ from what was captured.
    pub differences: Vec<String>,
    /// Rows counted in the restored copy.
    pub rows: u64,
    /// Tables counted.
    pub tables: u64,
    /// Files restored and compared, where it is files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were kept as structure, and the keys in them that need values.
    pub missing_values: Vec<(String, Vec<String>)>,
    /// What came of what the configuration asks, and of the checks of a restored cluster.
    pub checks: Vec<Outcome>,
    /// The newest heartbeat of a SQLite database, microseconds since 1970, where it was asked for.
    pub newest_us: Option<i64>,
}

impl From<sqlite::Inspection> for Findings {
    fn from(inspection: sqlite::Inspection) -> Self {
        Self {
            rows: inspection.facts.tables.values().sum(),
            tables: inspection.facts.tables.len() as u64,
            integrity: inspection.integrity.into_iter().filter(|line| line != "ok").collect(),
            foreign_keys: inspection.foreign_keys,
            unchecked: inspection.unchecked,
            differences: inspection.differences,
            ..Self::default()
        }
    }
}

impl Findings {
    /// What a person should know about a copy that is accepted all the same, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let source = |line: &String| format!("{line}; it was so in the source, too");
        let mut notes: Vec<String> = self.integrity.iter().chain(&self.foreign_keys).map(source).collect();
        notes.extend(self.unchecked.iter().cloned());
        notes.extend(
            self.missing_values
                .iter()
                .map(|(path, keys)| format!("{path} was kept without its values: it needs them for {}", keys.join(", "))),
        );
        notes
    }
}

/// What came of a restore.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Names it for `restore undo`.
    pub id: String,
    /// From which backup.
    pub backup: Backup,
    /// Where the data is now.
    pub path: PathBuf,
    /// Bytes fetched and written.
    pub fetched: Fetched,
    /// What the checks found.
    pub findings: Findings,
    /// Where the old files are kept; only in place.
    pub undo_folder: Option<PathBuf>,
    /// How long it took up to the publishing.
    pub took: Duration,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// A restored and checked file that has not got its name yet.
#[derive(Debug)]
#[must_use]
pub struct Staged {
    staging: Staging,
    file: PathBuf,
    /// What the checks found.
    pub findings: Findings,
    fetched: Fetched,
    notes: Vec<String>,
}

impl Staged {
    /// The restored file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Looks at everything that can be known before a byte is fetched.
pub async fn plan(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    destination: Destination,
    selection: &Selection,
) -> Result<Plan> {
    let planned = async {
        let reader = Reader::open(env, repository, backup, identities).await?;
        plan_with(protected, &reader, backup, destination, selection).await
    };
    planned.await.inspect_err(|error| remember(env, protected, backup, error))
}

/// A state folder that cannot be written to must not hide what is wrong with the backup.
fn remember(env: &Env, protected: &Protected, backup: &Backup, error: &Error) {
    drop(verify::remember_damage(env, protected, backup, error));
}

/// How long restores took here before.
fn past_runs(protected: &Protected) -> Vec<Run> {
    proof::load(&protected.state_dir, &protected.component)
        .iter()
        .filter(|proof| proof.level >= Level::Restore && proof.took_s.is_finite() && proof.took_s > 0.0)
        .map(|proof| Run {
            bytes: proof.bytes,
            elapsed: Duration::from_secs_f64(proof.took_s),
        })
        .collect()
}

async fn plan_with(
    protected: &Protected,
    reader: &Reader,
    backup: &Backup,
    destination: Destination,
    selection: &Selection,
) -> Result<Plan> {
    if files::is_files(reader) {
        return files::plan(protected, reader, backup, destination, selection).await;
    }
    let read = reader.plan(database(reader)?).await?;
    let (destination, notes) = settle_destination(destination)?;
    let free_bytes = preflight(&destination, read.size_bytes)?;
    let path = destination.path().display();
    let mut steps = vec![
        format!(
            "preflight: {path} may be written, {} are free",
            lifeboat_model::time::human_bytes(free_bytes)
        ),
        format!(
            "fetch: {} from {}, every byte verified",
            lifeboat_model::time::human_bytes(read.fetch_bytes),
            counted(read.packs, "pack")
        ),
        "check: integrity, foreign keys, row counts, schema and page root against what was captured".to_owned(),
    ];
    if matches!(destination, Destination::InPlace { .. }) {
        steps.push("quarantine: the old database and its -wal, -shm and -journal move into an undo folder beside it".to_owned());
    }
    steps.push(format!("publish: the restored database gets its name, {path}, last"));
    if matches!(destination, Destination::InPlace { .. }) {
        steps.push("fresh backup: so that the restored state is protected at once".to_owned());
    }
    let estimate = estimate(read.size_bytes, &past_runs(protected));
    Ok(Plan {
        backup: backup.clone(),
        reader: reader.clone(),
        destination,
        read,
        estimate,
        free_bytes,
        steps,
        notes,
    })
}

/// Restores a backup of `protected` to `destination`. With `accept_findings`, a database whose integrity check complains is published
/// all the same, if its pages are exactly those that were captured.
pub async fn run(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    destination: Destination,
    accept_findings: bool,
) -> Result<Report> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    run_opened(env, protected, backup, &reader, destination, accept_findings).await
}

/// The same from a backup that is open.
pub async fn run_opened(
    env: &Env,
    protected: &Protected,
    backup: &Backup,
    reader: &Reader,
    destination: Destination,
    accept_findings: bool,
) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = draw_id(env)?;
    if let (Destination::InPlace { path }, Some(_)) = (&destination, protected.source.database()) {
        quarantine::settle_interrupted(path)?;
    }
    if files::is_files(reader) {
        let restored = files::run(env, protected, backup, reader, destination, &Selection::default()).await;
        return restored.inspect_err(|error| remember(env, protected, backup, error));
    }
    let Plan {
        destination,
        notes: before,
        ..
    } = plan_with(protected, reader, backup, destination, &Selection::default()).await?;
    // Where the state folder cannot be written to, a restore works all the same: it is how one gets that back.
    let _underway = record::Underway::begin(&protected.state_dir, &id, destination.path()).ok();
    let staged = fetch_and_check(env, reader, &destination, &id, accept_findings)
        .await
        .inspect_err(|error| remember(env, protected, backup, error))?;
    let (file, path) = (staged.file.clone(), destination.path().to_path_buf());
    let Staged {
        staging,
        findings,
        fetched,
        notes: dressed,
        ..
    } = staged;
    let in_place = matches!(destination, Destination::InPlace { .. });
    let intent = in_place.then(|| quarantine::Intent {
        id: id.clone(),
        component: protected.component.to_string(),
        backup: backup.id.to_string(),
        at_us: env.clock.wall_us(),
    });
    let target = path.clone();
    // The staging folder goes along: a run that is interrupted right now must not lose the restored file between two renames.
    let published = compute::run("publish", move || {
        let undo_folder = publish(intent.as_ref(), &file, &target)?;
        // The data is back: litter is worth a word, not a failure.
        let litter = staging.remove().err();
        Ok((undo_folder, litter))
    });
    let (undo_folder, litter) = published.await?;
    let took = env.clock.monotonic().saturating_sub(began);
    let record = Proof {
        backup: backup.id.to_string(),
        level: Level::Restore,
        at_us: env.clock.wall_us(),
        took_s: took.as_secs_f64(),
        bytes: backup.header.size_bytes,
    };
    let mut notes = before;
    notes.extend(dressed);
    notes.extend(litter.map(|error| error.to_string()));
    // The data is back: that its proof cannot be written down is worth a word, not a failure.
    if let Err(error) = proof::record(&protected.state_dir, &protected.component, record) {
        notes.push(format!("the run could not be recorded: {error}"));
    }
    notes.extend(remember_place(env, protected, backup, &id, &path, undo_folder.is_some()));
    Ok(Report {
        id,
        backup: backup.clone(),
        path,
        fetched,
        findings,
        undo_folder,
        took,
        notes,
    })
}

/// Writes down where the data is now, for `restore promote` and `restore undo`.
fn remember_place(env: &Env, protected: &Protected, backup: &Backup, id: &str, path: &Path, replaced: bool) -> Option<String> {
    let (component, backup) = (protected.component.as_str(), backup.id.to_string());
    record::Restored::here(id, component, &backup, env.clock.wall_us(), path, replaced)
        .and_then(|put| record::remember(&protected.state_dir, &put))
        .err()
        .map(|error| format!("it could not be recorded where the copy is: {error}"))
}

/// Restores what `selection` names of a backup of files.
///
/// # Errors
/// `Usage` when the backup holds no files; the others as [`run`].
pub async fn run_selected(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    destination: Destination,
    selection: &Selection,
) -> Result<Report> {
    let opened = Reader::open(env, repository, backup, identities).await;
    let reader = opened.inspect_err(|error| remember(env, protected, backup, error))?;
    run_selected_opened(env, protected, backup, &reader, destination, selection).await
}

/// The same from a backup that is open.
pub async fn run_selected_opened(
    env: &Env,
    protected: &Protected,
    backup: &Backup,
    reader: &Reader,
    destination: Destination,
    selection: &Selection,
) -> Result<Report> {
    let restored = async {
        files::refuse_database(reader, backup)?;
        files::run(env, protected, backup, reader, destination, selection).await
    };
    restored.await.inspect_err(|error| remember(env, protected, backup, error))
}

/// Gives the checked file its name, in place with the journal of [`quarantine`]. Returns the undo folder, where there is one.
fn publish(intent: Option<&quarantine::Intent>, file: &Path, path: &Path) -> Result<Option<PathBuf>> {
    if let Some(intent) = intent {
        return quarantine::replace(intent, path, file).map(Some);
    }
    refuse_taken(path)?;
    match durable::rename_new(file, path) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(taken(path)),
        Err(error) => Err(error),
    }
}

/// Fetches into a staging folder beside the destination and checks everything there. On an error the staging folder is removed.
pub async fn fetch_and_check(
    env: &Env,
    reader: &Reader,
    destination: &Destination,
    id: &str,
    accept_findings: bool,
) -> Result<Staged> {
    let path = destination.path();
    let staging = Staging::create(path, id)?;
    let result = fetch_into(env, reader, destination, &staging, accept_findings).await;
    match result {
        Ok((file, findings, fetched, notes)) => Ok(Staged {
            staging,
            file,
            findings,
            fetched,
            notes,
        }),
        Err(error) => {
            staging.remove()?;
            Err(error)
        }
    }
}

/// What the engine counted when the backup was made.
pub(crate) fn facts(reader: &Reader) -> Result<Facts> {
    serde_json::from_value(reader.facts().clone()).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            "read",
            "the facts of the backup",
            "they are not those of a SQLite database",
        )
        .with_source(error)
    })
}

async fn fetch_into(
    env: &Env,
    reader: &Reader,
    destination: &Destination,
    staging: &Staging,
    accept_findings: bool,
) -> Result<(PathBuf, Findings, Fetched, Vec<String>)> {
    let record = database(reader)?.clone();
    let facts = facts(reader)?;
    let file = staging.file();
    let sink: Arc<dyn PageSink> = Arc::new(FileSink::new(create(&file)?, file.display().to_string()));
    env.progress.step("fetch", Some(record.size_bytes));
    let fetched = reader.restore(&record, Arc::clone(&sink), false).await?;
    env.progress.step("check", None);
    let (inspected, expected) = (file.clone(), facts);
    let inspection = compute::run("check", move || sqlite::inspect(&inspected, Some(&expected))).await?;
    // After SQLite had the file open: what is published is what was captured, to the byte.
    reader.check_root(&record, sink).await?;
    let findings = judge(inspection, accept_findings)?;
    let notes = staging::dress(&file, &record, destination)?;
    Ok((file, findings, fetched, notes))
}

fn judge(inspection: sqlite::Inspection, accept_findings: bool) -> Result<Findings> {
    let findings = Findings::from(inspection);
    let bad = |detail: String| Error::new(ErrorKind::Corrupt, "accept", "the restored database", detail);
    if let Some(first) = findings.differences.first() {
        return Err(bad(format!("it differs from what was captured: {first}"))
            .with_hint("nothing was published; restore another backup (`lifeboat list`)"));
    }
    if let Some(first) = findings.integrity.first()
        && !accept_findings
    {
        return Err(bad(format!("SQLite's integrity check finds {}, for example: {first}", counted(findings.integrity.len() as u64, "problem"))).with_hint(
            "its pages are exactly those that were captured: the source was damaged then. Restore an older backup, or take this one as it is with --accept-findings",
        ));
    }
    Ok(findings)
}

fn database(reader: &Reader) -> Result<&FileRecord> {
    match reader.files() {
        // SQL text and extracts may be beside it.
        files if files.iter().filter(|file| file.page_size != 0).count() == 1 => {
            let page_file = files.iter().find(|file| file.page_size != 0);
            page_file.ok_or_else(|| Error::new(ErrorKind::Bug, "read", "the file table", "its database vanished"))
        }
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "read",
            "the file table",
            "a SQLite backup holds exactly one database",
        )),
    }
}

fn create(path: &Path) -> Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(durable::FILE_MODE)
        .open(path)
        .map_err(|error| Error::io("create", path.display(), error))
}

pub(crate) fn draw_id(env: &Env) -> Result<String> {
    let mut random = [0; 3];
    env.entropy.fill(&mut random)?;
    let stamp: String = lifeboat_repo::format_utc(env.clock.wall_us())
        .chars()
        .take(19)
        .filter(|c| !matches!(c, '-' | ':'))
        .collect();
    Ok(format!("{stamp}-{}", hex::encode(random)))
}

/// A new file for whoever runs this alone.
pub(crate) fn create_private(path: &Path) -> Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(durable::FILE_MODE)
        .open(path)
        .map_err(|error| Error::io("create", path.display(), error))
}
