//! `restore promote`: a copy that was restored beside takes the place of the original.
//!
//! With the guards of an in-place restore: nobody may use either database, the copy is checked again (somebody may have worked on it), the
//! old files move into an undo folder step by step ([`super::quarantine`]). If we die, the next run finishes or takes back; the copy keeps
//! its own name until it gets the other one, last.

mod files;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::sqlite;
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};

use super::record::{self, Restored};
use super::staging::{self, Staging};
use super::{judge, quarantine};
use crate::protected::Protected;

/// What came of it.
#[derive(Debug)]
#[must_use]
pub struct Promoted {
    /// The restore's id; `restore undo` takes it.
    pub id: String,
    /// From which backup the copy came (`SEQ-HASH`).
    pub backup: String,
    /// The copy that was promoted.
    pub from: PathBuf,
    /// Where it is now.
    pub path: PathBuf,
    /// Where the old files are kept; `None` where nothing was replaced, because nothing was there.
    pub undo_folder: Option<PathBuf>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Puts the copy of restore `restored` in the place of the database, or of the files, of `protected`.
///
/// # Errors
/// `NoSuchPoint` when the copy is gone; `Refused` when something else lies under its name, when it took a place already, when one of the two
/// databases is in use or when changes of the copy are still in its `-wal`; `Corrupt` when the check finds damage and
/// `accept_findings` is not given.
pub async fn run(env: &Env, protected: &Protected, restored: Restored, accept_findings: bool) -> Result<Promoted> {
    if let Some(options) = protected.source.files().cloned() {
        env.progress.step("publish", None);
        let (clock, state_dir) = (Arc::clone(&env.clock), protected.state_dir.clone());
        let promoted = compute::run("promote", move || files::promote(&options, &restored, &clock, &state_dir)).await;
        env.progress.finish();
        return promoted;
    }
    if protected.source.cluster().is_some() {
        let detail = "a restored cluster is not put in another's place afterwards";
        return Err(Error::new(ErrorKind::Refused, "promote", &protected.component, detail).with_hint(
            "start it where it is; or stop the old server and restore in its place: `lifeboat restore WHAT --in-place --to DIR`",
        ));
    }
    let Some(database) = protected.source.database().map(Path::to_path_buf) else {
        return Err(Error::new(
            ErrorKind::Bug,
            "promote",
            &protected.component,
            "it is neither a database nor files",
        ));
    };
    env.progress.step("check", None);
    let (state_dir, at_us) = (protected.state_dir.clone(), env.clock.wall_us());
    let promoted = compute::run("promote", move || {
        promote(&database, &restored, accept_findings, at_us, &state_dir)
    })
    .await;
    env.progress.finish();
    promoted
}

fn promote(database: &Path, restored: &Restored, accept_findings: bool, at_us: i64, state_dir: &Path) -> Result<Promoted> {
    let copy = &restored.path;
    quarantine::settle_interrupted(database)?;
    let target = quarantine::real_path(database)?;
    look(restored)?;
    let mut notes = Vec::new();
    sqlite::prove_unused(copy)?;
    if !restored.is_untouched() {
        notes.push(format!(
            "{} was changed since it was restored; it is taken as it is now",
            copy.display()
        ));
    }
    nothing_in_the_wal(copy)?;
    let findings = judge(sqlite::inspect(copy, None)?, accept_findings)?;
    notes.extend(findings.notes());
    for companion in sqlite::companions(copy) {
        durable::remove_file(&companion)?;
    }
    sqlite::prove_unused(&target)?;
    let intent = quarantine::Intent {
        id: restored.id.clone(),
        component: restored.component.clone(),
        backup: restored.backup.clone(),
        at_us,
    };
    let undo_folder = if on_one_disk(copy, &target)? {
        notes.extend(staging::wear_like(copy, &target)?);
        quarantine::replace(&intent, &target, copy)?
    } else {
        let staging = Staging::create(&target, &restored.id)?;
        let file = staging.file();
        std::fs::copy(copy, &file).map_err(|error| Error::io("copy", copy.display(), error))?;
        notes.extend(staging::wear_like(&file, &target)?);
        let undo_folder = quarantine::replace(&intent, &target, &file)?;
        staging.remove()?;
        notes.push(format!(
            "{} lies on another disk: it was copied, and is still there",
            copy.display()
        ));
        undo_folder
    };
    let now = Restored::here(&restored.id, &restored.component, &restored.backup, at_us, &target, true);
    // The data is in its place: a record that cannot be written is worth a word, not a failure.
    if let Err(error) = now.and_then(|now| record::remember(state_dir, &now)) {
        notes.push(format!("the run could not be recorded: {error}"));
    }
    Ok(Promoted {
        id: restored.id.clone(),
        backup: restored.backup.clone(),
        from: copy.clone(),
        path: target,
        undo_folder: Some(undo_folder),
        notes,
    })
}

/// The copy must be what the restore left.
fn look(restored: &Restored) -> Result<()> {
    let refuse = |detail: &str| Error::new(ErrorKind::Refused, "promote restore", &restored.id, detail);
    if restored.replaced {
        return Err(refuse("it took the place of the original already")
            .with_hint(format!("`lifeboat restore undo {}` takes that back", restored.id)));
    }
    match restored.is_there()? {
        Some(true) => Ok(()),
        Some(false) => Err(refuse(&format!(
            "{} is not what was restored: something else was put there",
            restored.path.display()
        ))
        .with_hint("restore again: `lifeboat restore WHAT`")),
        None => Err(Error::new(
            ErrorKind::NoSuchPoint,
            "promote restore",
            &restored.id,
            format!("the restored copy {} is gone", restored.path.display()),
        )
        .with_hint(format!(
            "restore again: `lifeboat restore {} --backup {}`",
            restored.component, restored.backup
        ))),
    }
}

/// Whoever worked on the copy may have left the newest pages beside it: they would stay behind.
fn nothing_in_the_wal(copy: &Path) -> Result<()> {
    let [wal, _, journal] = sqlite::companions(copy);
    for file in [wal, journal] {
        match file.symlink_metadata() {
            Ok(meta) if meta.len() > 0 => {
                return Err(Error::new(
                    ErrorKind::Refused,
                    "promote",
                    copy.display(),
                    format!("somebody worked on it, and the newest of that lies in {}", file.display()),
                )
                .with_hint(format!(
                    "bring it into the database first: sqlite3 {} 'PRAGMA wal_checkpoint(TRUNCATE)'",
                    copy.display()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", file.display(), error)),
        }
    }
    Ok(())
}

fn on_one_disk(copy: &Path, target: &Path) -> Result<bool> {
    let device = |path: &Path| {
        path.metadata()
            .map(|meta| meta.dev())
            .map_err(|error| Error::io("look at", path.display(), error))
    };
    let folder = durable::parent_of(target);
    durable::create_folder(&folder)?;
    Ok(device(copy)? == device(&folder)?)
}
