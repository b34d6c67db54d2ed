//! The ledger: what was done to a component, by whom, when, and what came of it; failures too (`docs/ledger.md`, INV-18).
//!
//! [`append`] writes a record into the state folder first and then into every store; what does not get there goes with the next one. [`read()`]
//! gives all records of all instances, judged. Nothing else depends on either: a verb whose record cannot be kept has been done all the same.
//!
//! What is there if we die: before the record's own file in the state folder, nothing; behind it, a record that the next run ships. Shipping twice
//! is shipping once, because the name of a record holds its hash.

mod audit;
mod catalog;
mod facts;
mod home;
mod look;
mod read;
mod ship;

use std::time::Duration;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Instance, LedgerName, Repository, RepositoryId};
use serde_json::{Map, Value};

pub use audit::{Audit, ChainStanding, Finding, Weight, audit};
pub use catalog::{Catalog, Rebuilt, rebuild};
pub use facts::{bounded, config_entry, remember_config};
pub use read::{Chains, Refused, read, read_with};
pub use ship::{Shipped, copy, ship};

use crate::protected::{Place, Protected};
use home::{Home, Standing};

/// A store that takes longer for its records is left out; they go with the next one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Other chains, and what the stores hold of our own, are looked at after so long.
const LOOK_EVERY_US: i64 = 24 * 3600 * 1_000_000;

/// What came of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something that goes on has begun.
    Began,
    /// All of it was done.
    Done,
    /// It was done, and something is missing.
    Incomplete,
    /// It failed.
    Failed,
    /// Somebody stopped it.
    Interrupted,
}

impl Outcome {
    /// The word in the record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Done => "done",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What is to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What was done: the word of the command line.
    pub verb: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Everything else. It is stored in the clear: names, numbers, verdicts and sentences, never a secret and never a row. What is longer than a
    /// record may be is shortened ([`bounded`]).
    pub facts: Map<String, Value>,
}

/// What became of a record.
#[derive(Debug, Default)]
#[must_use]
pub struct Appended {
    /// The records that were written now; none where their place in the chain is not known yet.
    pub records: Vec<LedgerName>,
    /// Stores that hold everything that this machine recorded.
    pub stored: Vec<String>,
    /// Stores that do not, with the reason.
    pub missing: Vec<(String, Error)>,
    /// Records that wait here for a store.
    pub pending: u64,
    /// What somebody should look at.
    pub notes: Vec<String>,
}

/// Records one thing about a component.
///
/// # Errors
/// Only where the state folder cannot be written to. Stores that do not answer are told in what it returns.
pub async fn append(env: &Env, protected: &Protected, instance: &Instance, entry: Entry) -> Result<Appended> {
    append_all(env, protected, instance, vec![entry], || {}).await
}

/// Records several things, in this order. `written` is called when they stand in the state folder, before any store is asked: from there on they are not
/// lost.
///
/// # Errors
/// As [`append`].
pub async fn append_all(
    env: &Env,
    protected: &Protected,
    instance: &Instance,
    entries: Vec<Entry>,
    written: impl FnOnce(),
) -> Result<Appended> {
    let home = Home::of(protected, instance);
    let at_us = env.clock.wall_us();
    let mut entries: Vec<home::Waiting> = entries.into_iter().map(|entry| home::Waiting::new(entry, at_us)).collect();
    for entry in &mut entries {
        entry.facts = bounded(std::mem::take(&mut entry.facts));
    }
    let known = home.repository()?;
    // First of all it stands here (INV-18); which number it has may have to wait for a store.
    let mut appended = Appended::default();
    match known {
        Some(repository) if home.standing(repository)?.is_some() => {
            appended.records = home.write(repository, instance, &entries)?;
        }
        _ => home.keep_waiting(&entries)?,
    }
    written();
    send(env, protected, instance, &home, (known, &entries), &mut appended).await?;
    Ok(appended)
}

/// Brings what waits here into the stores.
async fn send(
    env: &Env,
    protected: &Protected,
    instance: &Instance,
    home: &Home,
    (known, entries): (Option<RepositoryId>, &[home::Waiting]),
    appended: &mut Appended,
) -> Result<()> {
    let mut opened = Vec::new();
    for place in &protected.stores {
        opened.push((place, open(place).await));
    }
    let Some(repository) = which(known, &opened) else {
        leave_out(opened, None, appended);
        appended.pending = home.waiting()?.len() as u64;
        return Ok(());
    };
    if known != Some(repository) {
        home.remember_repository(repository)?;
        if known.is_some() {
            // What was just written belongs to a chain that no store has any more.
            home.keep_waiting(entries)?;
            appended.records.clear();
            appended.notes.push(format!(
                "the stores hold another repository than before ({repository}); its ledger begins anew"
            ));
        }
    }
    let open = leave_out(opened, Some(repository), appended);
    let standing = home.standing(repository)?;
    let looked_us = standing.as_ref().map(|standing| standing.looked_at_us);
    let now_us = env.clock.wall_us();
    let due = looked_us.is_none_or(|at| now_us < at || now_us.saturating_sub(at) >= LOOK_EVERY_US);
    if due {
        let looked = look::look(env, protected, instance, home, repository, &open, appended).await?;
        if !looked && standing.is_none() {
            appended.pending = home.waiting()?.len() as u64;
            return Ok(());
        }
    }
    let waiting = home.waiting()?;
    if !waiting.is_empty() {
        let (files, entries): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        appended.records.extend(home.write(repository, instance, &entries)?);
        home.forget_waiting(&files)?;
    }
    let pending = home.pending(repository)?;
    let names: Vec<&str> = protected.stores.iter().map(|place| place.name.as_str()).collect();
    home.expect_stores(repository, &names)?;
    let standing = home.standing(repository)?.unwrap_or_default();
    for (place, repository_there) in &open {
        match put_all(protected, &standing, place, repository_there, &pending).await {
            Ok(last) => {
                home.shipped(repository, &place.name, last)?;
                appended.stored.push(place.name.clone());
            }
            Err((last, error)) => {
                home.shipped(repository, &place.name, last)?;
                appended.missing.push((place.name.clone(), error));
            }
        }
    }
    appended.pending = home.tidy(repository)?;
    Ok(())
}

/// Opens a store's repository, within the time that a record may take.
async fn open(place: &Place) -> Result<Repository> {
    let opened = tokio::time::timeout(PATIENCE, Repository::open(std::sync::Arc::clone(&place.store))).await;
    opened.unwrap_or_else(|_| Err(too_slow(&place.name)))
}

fn too_slow(store: &str) -> Error {
    Error::new(ErrorKind::TimedOut, "record in", store, "the store did not answer in time")
}

/// The repository that the stores hold. One that is known is believed as long as any store has it, or none answers.
fn which(known: Option<RepositoryId>, opened: &[(&Place, Result<Repository>)]) -> Option<RepositoryId> {
    let mut there = opened
        .iter()
        .filter_map(|(_, repository)| repository.as_ref().ok().map(Repository::id));
    let first = there.next();
    match known {
        Some(known) if first.is_none() || first == Some(known) || there.any(|id| id == known) => Some(known),
        _ => first,
    }
}

/// The stores that hold the repository; the others are told.
fn leave_out<'a>(
    opened: Vec<(&'a Place, Result<Repository>)>,
    wanted: Option<RepositoryId>,
    appended: &mut Appended,
) -> Vec<(&'a Place, Repository)> {
    let mut open = Vec::new();
    for (place, repository) in opened {
        match repository {
            Ok(repository) if wanted == Some(repository.id()) => open.push((place, repository)),
            Ok(repository) => {
                let detail = format!("it holds another repository ({})", repository.id());
                let error = Error::new(ErrorKind::Refused, "record in", &place.name, detail)
                    .with_hint("correct `to:`, or look which disk is mounted there");
                appended.missing.push((place.name.clone(), error));
            }
            Err(error) => appended.missing.push((place.name.clone(), error)),
        }
    }
    open
}

/// Puts what one store lacks, in order, and says how far it got.
async fn put_all(
    protected: &Protected,
    standing: &Standing,
    place: &Place,
    repository: &Repository,
    pending: &[(LedgerName, bytes::Bytes)],
) -> std::result::Result<u64, (u64, Error)> {
    let mut last = standing.shipped_to(&place.name);
    for (name, stored) in pending {
        if name.at.seq <= last {
            continue;
        }
        let put = lifeboat_repo::put_record(repository, &protected.component, name, stored.clone());
        match tokio::time::timeout(PATIENCE, put).await {
            Ok(Ok(())) => last = name.at.seq,
            Ok(Err(error)) => return Err((last, error)),
            Err(_) => return Err((last, too_slow(&place.name))),
        }
    }
    Ok(last)
}
