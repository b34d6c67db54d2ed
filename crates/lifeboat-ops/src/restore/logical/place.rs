//! A restored database in the place of the original, and back (docs/logical.md, "Promote").
//!
//! What was restored where is remembered in the state folder; which database is which, the server says: a database is known by its number. So a run
//! that was killed is finished by the same command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::postgres::logical::destination::{Destination, NAME_BYTES};
use lifeboat_engine::postgres::logical::swap::{Standing, Swap};
use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::protected::Protected;

/// How the names of records end.
const ENDING: &str = "database";
/// A database that is nearly always there.
const COMMON: [&str; 2] = ["postgres", "template1"];

/// A database that a restore made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredDatabase {
    /// The restore's id.
    pub id: String,
    /// Of which component.
    pub component: String,
    /// From which backup.
    pub backup: String,
    /// When it got its name, microseconds since 1970.
    pub at_us: i64,
    /// On which server.
    pub server: String,
    /// Its number there.
    pub oid: u32,
    /// The name that it got.
    pub name: String,
    /// What it is a copy of.
    pub original: String,
    /// What it lacks, because the backup does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// Whose place it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
}

/// A database that had to make room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// What it is called now.
    pub name: String,
    /// Its number; none where nobody had the name.
    pub oid: Option<u32>,
}

/// What a swap came to.
#[derive(Debug)]
#[must_use]
pub struct Placed {
    /// The restore's id.
    pub id: String,
    /// The name that was changed.
    pub name: String,
    /// What the database that had it before is called now, where there was one.
    pub kept: Option<String>,
    /// Sessions that were ended.
    pub ended: u64,
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("restores")
}

/// Writes a record down.
pub(in crate::restore) fn remember(state_dir: &Path, restored: &RestoredDatabase) -> Result<()> {
    let folder = folder(state_dir);
    durable::create_folder(&folder)?;
    let bytes = serde_json::to_vec_pretty(restored)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "a record of a restore", error.to_string()))?;
    durable::replace_file(&folder.join(format!("{}.{ENDING}", restored.id)), &bytes, durable::FILE_MODE)
}

/// What is remembered, oldest first. A record that cannot be understood is passed over.
pub fn known(state_dir: &Path) -> Result<Vec<RestoredDatabase>> {
    let folder = folder(state_dir);
    let failed = |error| Error::io("list", folder.display(), error);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found: Vec<RestoredDatabase> = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == ENDING) {
            let bytes = std::fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?;
            found.extend(serde_json::from_slice::<RestoredDatabase>(&bytes).ok());
        }
    }
    found.sort_by(|a, b| (a.at_us, &a.id).cmp(&(b.at_us, &b.id)));
    Ok(found)
}

/// The restore of that id, where it was one of a database.
pub fn find(state_dir: &Path, id: &str) -> Result<Option<RestoredDatabase>> {
    Ok(known(state_dir)?.into_iter().find(|restored| restored.id == id))
}

/// The server of a component, by a session in none of `databases`.
async fn server(protected: &Protected, restored: &RestoredDatabase, databases: &[&str]) -> Result<Destination> {
    let Some(cluster) = protected.source.cluster() else {
        let detail = "it is no PostgreSQL server any more";
        return Err(Error::new(
            ErrorKind::Usage,
            "promote a database of",
            &protected.component,
            detail,
        ));
    };
    let common = COMMON
        .into_iter()
        .find(|name| !databases.contains(name))
        .unwrap_or("postgres");
    let info = cluster.login.conninfo().await?.with_database(common);
    let destination = Destination::connect(&info).await?;
    if destination.identity != restored.server {
        let detail = format!("{} is on another server than {}", restored.name, info);
        return Err(Error::new(ErrorKind::Refused, "promote restore", &restored.id, detail)
            .with_hint("rename it there, or restore to the server of the component"));
    }
    Ok(destination)
}

/// `NAME_WHY_20261122_094500`, cut so that it is a name, and with a number behind it where somebody is called so.
async fn kept_name(destination: &Destination, name: &str, why: &str, at_us: i64) -> Result<String> {
    let mut ending = format!("_{why}_{}", super::stamp(at_us));
    for number in 2_u32.. {
        let mut kept = name.to_owned();
        while kept.len() + ending.len() > NAME_BYTES {
            kept.pop();
        }
        kept.push_str(&ending);
        let (_, taken) = destination.look_up(0, &kept).await?;
        if taken.is_none() {
            return Ok(kept);
        }
        ending = format!("_{why}_{}_{number}", super::stamp(at_us));
    }
    let detail = "all names for what is replaced are taken";
    Err(Error::new(ErrorKind::AlreadyExists, "rename", name, detail))
}

/// Gives a restored database the name of the original, which is kept closed under another. Whoever is connected to either is thrown out.
pub async fn promote(env: &Env, protected: &Protected, mut restored: RestoredDatabase) -> Result<Placed> {
    if let Some(lacks) = &restored.lacks {
        let detail = format!("{} is from an extract: {lacks}", restored.name);
        return Err(Error::new(ErrorKind::Refused, "promote restore", &restored.id, detail)
            .with_hint("restore a whole backup: `lifeboat list` shows which are extracts"));
    }
    let destination = server(protected, &restored, &[&restored.name, &restored.original]).await?;
    // Written down before anything is changed: a run that is killed goes on under the same names.
    let at_us = env.clock.wall_us();
    let replaced = match restored.replaced.clone() {
        Some(replaced) => replaced,
        None => Replaced {
            at_us,
            name: kept_name(&destination, &restored.original, "replaced", at_us).await?,
            oid: None,
        },
    };
    let (_, old) = destination.look_up(0, &restored.original).await?;
    let old = old.filter(|old| old.oid != restored.oid);
    let replaced = Replaced {
        oid: replaced.oid.or(old.as_ref().map(|old| old.oid)),
        ..replaced
    };
    restored.replaced = Some(replaced.clone());
    remember(&protected.state_dir, &restored)?;
    env.progress.step("publish", None);
    let swapped = destination
        .swap(&Swap {
            new: restored.oid,
            name: restored.original.clone(),
            old_name: replaced.name.clone(),
        })
        .await?;
    Ok(Placed {
        id: restored.id,
        name: restored.original,
        kept: swapped.old.map(|_| replaced.name),
        ended: swapped.ended,
    })
}

/// Takes a promotion back: the database that was replaced gets its name again, and the restored one is kept closed under another.
///
/// # Errors
/// `NoSuchPoint` where nothing was replaced, or what was is gone.
pub async fn undo(env: &Env, protected: &Protected, mut restored: RestoredDatabase) -> Result<Placed> {
    let refused = |detail: String| Error::new(ErrorKind::NoSuchPoint, "undo restore", &restored.id, detail);
    let Some(replaced) = restored.replaced.clone() else {
        return Err(refused(format!("{} took nobody's place", restored.name)).with_hint(format!(
            "it is beside the original; remove it with: DROP DATABASE \"{}\"",
            restored.name
        )));
    };
    let Some(oid) = replaced.oid else {
        return Err(refused(format!("no database had the name {} before", restored.original)));
    };
    let destination = server(protected, &restored, &[&restored.original, &replaced.name]).await?;
    let (old, _) = destination.look_up(oid, &restored.original).await?;
    if old.is_none() {
        return Err(refused(format!("the database that was replaced ({}) is gone", replaced.name)));
    }
    // Another restore may have taken its place since: that one is not ours to move.
    let (_, holder) = destination.look_up(0, &restored.original).await?;
    if let Some(holder) = holder.filter(|holder| ![restored.oid, oid].contains(&holder.oid)) {
        let detail = format!("{} (number {}) is not what this restore put there", holder.name, holder.oid);
        return Err(Error::new(ErrorKind::Refused, "undo restore", &restored.id, detail)
            .with_hint("undo the newer restore first; `psql -l` shows which databases are kept"));
    }
    env.progress.step("publish", None);
    let name = kept_name(&destination, &restored.original, "undone", env.clock.wall_us()).await?;
    let swap = Swap {
        new: oid,
        name: restored.original.clone(),
        old_name: name.clone(),
    };
    let swapped = destination.swap(&swap).await?;
    restored.replaced = None;
    name.clone_into(&mut restored.name);
    remember(&protected.state_dir, &restored)?;
    Ok(Placed {
        id: restored.id,
        name: restored.original,
        kept: swapped.old.map(|_: Standing| name),
        ended: swapped.ended,
    })
}

/// A database that was kept for an undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What it is called now.
    pub name: String,
    /// When it was replaced, microseconds since 1970.
    pub since_us: i64,
    /// It is gone now; otherwise it would be.
    pub is_dropped: bool,
}

/// Drops what was replaced longer ago than `keep`, where it still is what was replaced, under the name that it was given, and closed. With `dry_run`
/// only says which these are.
pub async fn drop_old(env: &Env, protected: &Protected, keep: Duration, dry_run: bool) -> Result<Vec<Kept>> {
    let now_us = env.clock.wall_us();
    let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let mut dropped = Vec::new();
    for mut restored in known(&protected.state_dir)? {
        let Some(replaced) = restored.replaced.clone() else { continue };
        let Some(oid) = replaced.oid else { continue };
        if restored.component != protected.component.as_str() || now_us.saturating_sub(replaced.at_us) < keep_us {
            continue;
        }
        let destination = server(protected, &restored, &[&restored.original, &replaced.name]).await?;
        let (there, _) = destination.look_up(oid, &replaced.name).await?;
        // Whoever renamed or opened it has taken it over.
        if let Some(there) = there.filter(|there| there.name == replaced.name && !there.open) {
            if !dry_run {
                destination.drop_kept(&there).await?;
            }
            dropped.push(Kept {
                name: replaced.name.clone(),
                since_us: replaced.at_us,
                is_dropped: !dry_run,
            });
        }
        if !dry_run {
            restored.replaced = Some(Replaced { oid: None, ..replaced });
            remember(&protected.state_dir, &restored)?;
        }
    }
    Ok(dropped)
}
