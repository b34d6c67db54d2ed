//! The steps of a restore of files, in the order of [`super::STEPS`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::{compute, durable};
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, ReadPlan, Reader};

use super::staging::Staging;
use super::tree::{self, How, Selection, StagedTree};
use super::{Destination, Findings, Plan, Report, draw_id, nearest_folder, past_runs, quarantine, record, tree_place};
use crate::proof::{self, Level, Proof};
use crate::protected::Protected;
use crate::words::counted;

/// What a restore of files would do.
pub(super) async fn plan(
    protected: &Protected,
    reader: &Reader,
    backup: &Backup,
    destination: Destination,
    selection: &Selection,
) -> Result<Plan> {
    let mut read = ReadPlan::default();
    for file in reader.files() {
        let one = reader.plan(file).await?;
        read.fetch_bytes += one.fetch_bytes;
        read.blobs += one.blobs;
        read.packs += one.packs;
    }
    read.size_bytes = backup.header.size_bytes;
    let path = destination.path();
    let in_place = matches!(destination, Destination::InPlace { .. });
    if !in_place && path.symlink_metadata().is_ok() {
        return Err(taken(path));
    }
    let existing = nearest_folder(path)?;
    let stat = rustix::fs::statvfs(&existing)
        .map_err(|error| Error::io("ask for the free space of", existing.display(), error.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    // How much some of the files need is known when the tree was read: a full disk stops that before anything gets its name.
    if selection.paths.is_empty() && free_bytes < read.size_bytes {
        return Err(Error::new(
            ErrorKind::NoSpace,
            "restore to",
            path.display(),
            format!(
                "it needs {}, and {} are free",
                human_bytes(read.size_bytes),
                human_bytes(free_bytes)
            ),
        )
        .with_hint("free space there, or choose another place with --to"));
    }
    let mut steps = vec![
        format!(
            "preflight: {} may be written, {} are free",
            path.display(),
            human_bytes(free_bytes)
        ),
        format!("fetch: {} of stored data, every byte verified", human_bytes(read.fetch_bytes)),
        format!(
            "check: {} compared with what was captured",
            counted(backup.header.files, "file")
        ),
    ];
    if in_place {
        steps.push("quarantine: what differs moves into an undo folder; what is not part of the backup stays".to_owned());
    }
    steps.push(format!(
        "publish: the restored files get their names in {}, last",
        path.display()
    ));
    if in_place {
        steps.push("fresh backup: so that the restored state is protected at once".to_owned());
    }
    Ok(Plan {
        backup: backup.clone(),
        reader: reader.clone(),
        estimate: lifeboat_model::estimate::estimate(read.size_bytes, &past_runs(protected)),
        destination,
        read,
        free_bytes,
        steps,
        notes: Vec::new(),
    })
}

fn taken(path: &Path) -> Error {
    Error::new(
        ErrorKind::Refused,
        "restore to",
        path.display(),
        "something is there already; a restore never writes into it",
    )
    .with_hint(
        "name a folder that does not exist yet with --to, or replace what is there with --in-place (the old files are kept for `lifeboat restore undo`)",
    )
}

/// Restores, checks and publishes.
pub(super) async fn run(
    env: &Env,
    protected: &Protected,
    backup: &Backup,
    reader: &Reader,
    destination: Destination,
    selection: &Selection,
) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = draw_id(env)?;
    let plan = plan(protected, reader, backup, destination, selection).await?;
    let asked_in_place = matches!(plan.destination, Destination::InPlace { .. });
    let (path, owner, in_place) = match &plan.destination {
        Destination::Beside { path, keep_owner } => (path.clone(), *keep_owner, false),
        // A folder that is gone whole comes back by one rename.
        Destination::InPlace { path } => (path.clone(), true, path.is_dir()),
    };
    if in_place {
        tree_place::settle_interrupted(&path)?;
    }
    // Where the state folder cannot be written to, a restore works all the same: it is how one gets that back.
    let _underway = record::Underway::begin(&protected.state_dir, &id, &near_of(&path, in_place)).ok();
    let near = near_of(&path, in_place);
    let how = How {
        keep_owner: owner,
        durable: true,
        read_back: false,
    };
    let (staging, staged) = stage(env, reader, &near, &id, selection, how).await?;
    let StagedTree {
        folder,
        list,
        mut findings,
        fetched,
        mut notes,
    } = staged;
    let intent = quarantine::Intent {
        id: id.clone(),
        component: protected.component.to_string(),
        backup: backup.id.to_string(),
        at_us: env.clock.wall_us(),
    };
    let target = path.clone();
    let published = compute::run("publish", move || {
        let undo = if in_place {
            Some(tree_place::replace(&intent, &target, &folder, &list, &BTreeSet::new())?)
        } else {
            match durable::rename_new(&folder, &target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken(&target)),
                other => other?,
            }
            None
        };
        // The data is back: litter is worth a word, not a failure.
        Ok((undo, staging.remove().err()))
    });
    let (undo, litter) = published.await?;
    let took = env.clock.monotonic().saturating_sub(began);
    notes.extend(litter.map(|error| error.to_string()));
    if let Some(placed) = &undo {
        notes.extend(placed.notes());
        findings
            .missing_values
            .retain(|(path, _)| !placed.kept.iter().any(|(kept, _)| kept == path));
    }
    if selection.paths.is_empty() {
        notes.extend(remember_proof(env, protected, backup, took));
    }
    notes.extend(super::remember_place(env, protected, backup, &id, &path, asked_in_place));
    Ok(Report {
        id,
        backup: backup.clone(),
        path,
        fetched,
        findings,
        undo_folder: undo.map(|placed| placed.folder),
        took,
        notes,
    })
}

/// The data is back: that its proof cannot be written down is worth a word, not a failure.
fn remember_proof(env: &Env, protected: &Protected, backup: &Backup, took: Duration) -> Option<String> {
    let record = Proof {
        backup: backup.id.to_string(),
        level: Level::Restore,
        at_us: env.clock.wall_us(),
        took_s: took.as_secs_f64(),
        bytes: backup.header.size_bytes,
    };
    proof::record(&protected.state_dir, &protected.component, record)
        .err()
        .map(|error| format!("the run could not be recorded: {error}"))
}

/// Inside a root that is there: beside it may be another disk.
fn near_of(path: &Path, in_place: bool) -> PathBuf {
    if in_place { path.join("restored") } else { path.to_path_buf() }
}

async fn stage(
    env: &Env,
    reader: &Reader,
    near: &Path,
    id: &str,
    selection: &Selection,
    how: How,
) -> Result<(Staging, StagedTree)> {
    let staging = Staging::create(near, id)?;
    match tree::stage(env, reader, &staging, selection, how).await {
        Ok(staged) => Ok((staging, staged)),
        Err(error) => {
            staging.remove()?;
            Err(error)
        }
    }
}

/// What is looked at and removed.
const PASSING: How = How {
    keep_owner: false,
    durable: false,
    read_back: true,
};

/// Restores into a scratch folder and checks everything there; nothing of it stays.
pub(crate) async fn prove(env: &Env, reader: &Reader, scratch: &Path) -> Result<Findings> {
    let selection = Selection {
        paths: Vec::new(),
        // Nobody gets to see them.
        outside_links: true,
    };
    let (staging, staged) = stage(env, reader, &scratch.join("files"), "verify", &selection, PASSING).await?;
    staging.remove()?;
    Ok(staged.findings)
}

/// Restores into a scratch folder, checks everything there, and writes it to `out` as a tar archive.
pub(crate) async fn archive(env: &Env, reader: &Reader, scratch: &Path, backup: &Backup, out: std::fs::File) -> Result<()> {
    if !is_files(reader) {
        return Err(super::tar::refuse(&backup.id.short()));
    }
    let selection = Selection {
        paths: Vec::new(),
        outside_links: true,
    };
    let (staging, staged) = stage(env, reader, &scratch.join("files"), "export", &selection, PASSING).await?;
    let written = compute::run("write an archive", move || {
        super::tar::write(&staged.list, &staged.folder, out)
    })
    .await;
    staging.remove()?;
    written
}

/// Whether a backup holds files.
pub(crate) fn is_files(reader: &Reader) -> bool {
    tree::record(reader).is_some()
}

/// Some files can only be taken from a backup of files.
pub(super) fn refuse_database(reader: &Reader, backup: &Backup) -> Result<()> {
    if is_files(reader) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Usage,
        "restore some files of",
        backup.id.short(),
        "it is the backup of a database, which is restored as a whole",
    ))
}
