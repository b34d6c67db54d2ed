//! The verb `backup`: capture → store → proof of consistency → commit.
//!
//! The engine's transaction ends before the commit: if the source says at its end that something was wrong, nothing was committed (INV-03).

use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::{files as tree, sqlite};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, BackupPlan, FileMeta, Instance, Stats, Writer};

use crate::proof;
use crate::protected::Protected;

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
}

/// What the engine counted.
#[derive(Debug, Clone)]
pub enum Facts {
    /// Of a database, in the transaction that read its pages.
    Sqlite(sqlite::Facts),
    /// Of files, while they were read.
    Files(tree::Facts),
}

impl Facts {
    /// The facts of a database, where it is one.
    #[must_use]
    pub fn sqlite(&self) -> Option<&sqlite::Facts> {
        match self {
            Self::Sqlite(facts) => Some(facts),
            Self::Files(_) => None,
        }
    }

    /// The facts of files, where it is files.
    #[must_use]
    pub fn files(&self) -> Option<&tree::Facts> {
        match self {
            Self::Sqlite(_) => None,
            Self::Files(facts) => Some(facts),
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
}

/// Makes one backup of `protected`, signed by `instance`.
pub async fn run(env: &Env, protected: &Protected, instance: Arc<Instance>, request: Request) -> Result<Report> {
    let began = env.clock.monotonic();
    let repository = protected.repository().await?;
    let damage = proof::damage(&protected.state_dir, &protected.component);
    let damaged = damage.iter().find(|damage| !damage.renewed);
    let options = protected.source.capture_options().ok_or_else(|| {
        Error::new(
            ErrorKind::Refused,
            "back up",
            &protected.component,
            "backing up files is not finished in this version",
        )
    })?;
    let clock = Arc::clone(&env.clock);
    let capture = compute::run("begin a capture", move || sqlite::begin(&options, clock)).await?;
    let plan = BackupPlan {
        component: protected.component.clone(),
        kind: protected.source.kind().to_owned(),
        method: "physical".to_owned(),
        source: capture.identity(),
        instance,
        encryption: protected.encryption.clone(),
        trust: protected.trust.clone(),
        state_dir: protected.state_dir.clone(),
        tags: request.tags,
        reason: request.reason,
        keep_for: request.keep_for,
        // An incremental backup would share the damaged files.
        full: request.full || damaged.is_some(),
    };
    let mut writer = Writer::begin(env, &repository, plan).await?;
    env.progress.step("back up", Some(capture.pages().size_bytes()));
    let file = capture.file();
    let meta = FileMeta {
        path: file.file_name.clone(),
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        modified_us: file.modified_us,
    };
    let moment_us = capture.moment_us();
    let put = put_all(&mut writer, meta, &capture).await;
    let captured = compute::run("finish a capture", move || capture.finish()).await;
    let captured = match (put, captured) {
        (Ok(_), captured) => captured?,
        // The pages stopped coming because the capture failed: its own words say why.
        (Err(_), Err(cause)) if cause.kind() != ErrorKind::Interrupted => return Err(cause),
        (Err(put), _) => return Err(put),
    };
    let facts = serde_json::to_value(&captured.facts)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the facts of a database", error.to_string()))?;
    let committed = writer.commit(moment_us, facts).await?;
    env.progress.finish();
    let mut notes = committed.notes;
    if let Some(damaged) = damaged {
        notes.push(format!(
            "damage was found in backup {} ({}): everything was stored anew; `lifeboat verify` proves it",
            damaged.backup, damaged.says
        ));
        proof::record_renewal(&protected.state_dir, &protected.component)?;
    }
    notes.extend(captured.warnings);
    notes.extend(remember_newest(protected, &committed.backup));
    Ok(Report {
        backup: committed.backup,
        stats: committed.stats,
        facts: Facts::Sqlite(captured.facts),
        took: env.clock.monotonic().saturating_sub(began),
        stall: captured.stall,
        notes,
    })
}

/// The pages, and what the capture gives beside them: SQL text and extracts.
async fn put_all(writer: &mut Writer, meta: FileMeta, capture: &sqlite::Capture) -> Result<()> {
    writer.put_pages(meta.clone(), capture.pages()).await?;
    for beside in capture.beside() {
        let meta = FileMeta {
            path: beside.name.clone(),
            modified_us: capture.moment_us(),
            ..meta.clone()
        };
        writer.put_stream(meta, beside.reader()).await?;
    }
    Ok(())
}

/// The backup stands: that its number cannot be written down is worth a word, not a failure.
fn remember_newest(protected: &Protected, backup: &Backup) -> Option<String> {
    proof::record_newest(&protected.state_dir, &protected.component, &backup.id.to_string())
        .err()
        .map(|error| format!("its number could not be remembered here: {error}"))
}
