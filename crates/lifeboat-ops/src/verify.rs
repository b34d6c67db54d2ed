//! The verb `verify`: how much of a backup can be proven, level by level.

pub(crate) mod cluster;
pub mod due;
mod slice;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::checks::Beat;
use lifeboat_engine::sqlite;
use lifeboat_io::{compute, durable};
use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Instance, Listing, Marker, Reader, Repository, scrub, scrub_and_mark};

pub use crate::proof::Level;
use crate::proof::{self, Damage, FailedChecks, Proof};
use crate::protected::{Protected, Source, is_logical};
use crate::restore::{self, Destination, Findings};
pub use slice::{SliceReport, slice};

/// What was proven of one backup.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Which backup.
    pub backup: Backup,
    /// How far.
    pub level: Level,
    /// Stored files hashed, or blobs opened; 0 where the level does not count them.
    pub checked: u64,
    /// Bytes read from the store, or restored.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// What the checks of a restored copy found.
    pub findings: Option<Findings>,
}

impl Report {
    /// Checks that failed. What is stored is what was captured all the same.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        let outcomes = self.findings.iter().flat_map(|findings| &findings.checks);
        outcomes.filter(|outcome| outcome.verdict == Verdict::Failed)
    }
}

/// What does not count is an error of kind `Corrupt`: `verify` never passes over it.
pub fn check_listing(protected: &Protected, listing: &Listing) -> Result<()> {
    match listing.rejected.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::new(
            ErrorKind::Corrupt,
            "verify",
            &protected.component,
            format!("1 stored backup does not count: {}", one.reason),
        )
        .with_hint(
            one.reason
                .hint()
                .unwrap_or("run `lifeboat backup`: a new one is made and what is missing is stored again")
                .to_owned(),
        )),
        many => Err(Error::new(
            ErrorKind::Corrupt,
            "verify",
            &protected.component,
            format!(
                "{} stored backups do not count, for example {}: {}",
                many.len(),
                many[0].name,
                many[0].reason
            ),
        )
        .with_hint("run `lifeboat backup`: a new one is made and what is missing is stored again")),
    }
}

/// Proves one backup. `scratch` is where level `restore` restores to; it is removed afterwards, also after a failure.
pub async fn run(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    level: Level,
    identities: &Identities,
    scratch: PathBuf,
) -> Result<Report> {
    let proven = prove(env, protected, repository, backup, level, identities, scratch).await;
    if let Err(error) = &proven {
        // A state folder that cannot be written to must not hide what is wrong with the backup.
        drop(remember_damage(env, protected, backup, error));
    }
    proven
}

/// Writes down that a stored backup is damaged: `status` tells it, and the next backup does not build on it.
pub(crate) fn remember_damage(env: &Env, protected: &Protected, backup: &Backup, error: &Error) -> Result<()> {
    if error.kind() != ErrorKind::Corrupt {
        return Ok(());
    }
    let damage = Damage {
        backup: backup.id.to_string(),
        at_us: env.clock.wall_us(),
        says: error.to_string(),
        renewed: false,
        marked: false,
    };
    proof::record_damage(&protected.state_dir, &protected.component, damage)
}

/// Marks every damaged file of a backup in the store, so that the next backup of any host stores again what it held. Returns their names.
pub async fn mark_damage(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    instance: &Instance,
) -> Result<Vec<String>> {
    let marker = Marker {
        instance,
        trust: &protected.trust,
    };
    let (_, damaged) = scrub_and_mark(env, repository, backup, marker).await?;
    if !damaged.is_empty() {
        proof::record_marks(&protected.state_dir, &protected.component, &backup.id.to_string())?;
    }
    Ok(damaged.iter().map(ToString::to_string).collect())
}

async fn prove(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    level: Level,
    identities: &Identities,
    scratch: PathBuf,
) -> Result<Report> {
    let began = env.clock.monotonic();
    // Where nothing more is asked there are no checks but those of a restore.
    let level = match protected.source.asks_more() {
        false => level.min(Level::Restore),
        true => level,
    };
    let (mut checked, mut bytes, mut findings) = (0, 0, None);
    match level {
        Level::List => checked = backup.files()?.len() as u64,
        Level::Hash => {
            let verified = scrub(env, repository, backup).await?;
            (checked, bytes) = (verified.blobs, verified.bytes);
        }
        Level::Decrypt => {
            env.progress.step("decrypt", Some(backup.header.size_bytes));
            let verified = Reader::open(env, repository, backup, identities).await?.verify().await?;
            (checked, bytes) = (verified.blobs, verified.bytes);
        }
        Level::Restore | Level::App => {
            let app = level == Level::App;
            let found = restore_to_scratch(env, protected, repository, backup, identities, (scratch, app)).await?;
            bytes = backup.header.size_bytes;
            findings = Some(found);
        }
    }
    env.progress.finish();
    let took = env.clock.monotonic().saturating_sub(began);
    let report = Report {
        backup: backup.clone(),
        level,
        checked,
        bytes,
        took,
        findings,
    };
    remember(env, protected, &report)?;
    Ok(report)
}

/// Writes down what was proven, or which checks failed.
fn remember(env: &Env, protected: &Protected, report: &Report) -> Result<()> {
    let (state_dir, component) = (&protected.state_dir, &protected.component);
    let failed: Vec<String> = (report.failed())
        .map(|outcome| format!("{}: {}", outcome.name, outcome.says))
        .collect();
    if !failed.is_empty() {
        let failed = FailedChecks {
            backup: report.backup.id.to_string(),
            level: report.level,
            at_us: env.clock.wall_us(),
            says: failed.join("; "),
        };
        return proof::record_failed_checks(state_dir, component, failed);
    }
    let proof = Proof {
        backup: report.backup.id.to_string(),
        level: report.level,
        at_us: env.clock.wall_us(),
        took_s: report.took.as_secs_f64(),
        bytes: report.bytes,
    };
    proof::record(state_dir, component, proof)
}

pub(crate) async fn restore_to_scratch(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    (scratch, app): (PathBuf, bool),
) -> Result<Findings> {
    durable::create_folder(&scratch)?;
    let reader = Reader::open(env, repository, backup, identities).await?;
    let destination = Destination::Beside {
        path: scratch.join("database"),
        keep_owner: false,
    };
    let restored = if backup.header.log.is_some() {
        restore::cluster::prove(env, protected, repository, backup, identities, &scratch, app).await
    } else if is_logical(&backup.header) {
        restore::logical::prove(env, protected, repository, backup, identities, &scratch, app).await
    } else if restore::is_files(&reader) {
        restore::prove(env, &reader, &scratch).await
    } else {
        let staged = restore::fetch_and_check(env, &reader, &destination, "verify", false).await;
        match staged {
            Ok(staged) if app => wanted(env, protected, staged).await,
            staged => staged.map(|staged| staged.findings),
        }
    };
    env.progress.step(restore::CLEAN_UP, None);
    durable::remove_folder(&scratch)?;
    restored.map_err(|error| {
        if error.kind() == ErrorKind::Corrupt {
            error.with_hint(format!(
                "{} cannot be trusted: `lifeboat list {}` shows the others, `lifeboat backup` makes a new one",
                backup.id.short(),
                protected.component
            ))
        } else {
            error
        }
    })
}

/// Asks a restored SQLite database what the configuration wants.
async fn wanted(env: &Env, protected: &Protected, staged: restore::Staged) -> Result<Findings> {
    let Source::Sqlite { checks, heartbeat, .. } = &protected.source else {
        return Ok(staged.findings);
    };
    if protected.source.asks_more() {
        env.progress.step("ask what is wanted", None);
    }
    let mut findings = staged.findings.clone();
    let (file, clock, checks, sql) = (
        staged.file().to_path_buf(),
        Arc::clone(&env.clock),
        checks.clone(),
        heartbeat.clone(),
    );
    let (outcomes, beat) = compute::run("ask what is wanted", move || {
        let beat = sql.map(|sql| sqlite::checks::newest(&file, &clock, &sql, HEARTBEAT_LIMIT));
        Ok((sqlite::checks::ask(&file, &clock, &checks), beat))
    })
    .await?;
    findings.checks.extend(outcomes);
    findings.checks.extend(beat.as_ref().map(cluster::heartbeat));
    findings.newest_us = match beat {
        Some(Beat::At(at_us)) => Some(at_us),
        Some(Beat::Nothing | Beat::NotAvailable(_) | Beat::Unknown(_)) | None => None,
    };
    Ok(findings)
}

/// How long the query of a heartbeat may take.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(60);

/// A scratch folder of its own name under `state_dir`.
pub fn scratch_folder(env: &Env, protected: &Protected) -> Result<PathBuf> {
    let mut random = [0; 8];
    env.entropy.fill(&mut random)?;
    Ok(protected.state_dir.join("scratch").join(hex::encode(random)))
}
