//! Deleting: backup files first, gone before any pack; keys last; then the rest that time has emptied (steps 8 and 9).

use std::collections::BTreeSet;
use std::sync::Arc;

use lifeboat_model::protocol::Marks;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::Key;
use tokio::task::JoinSet;

use super::Amount;
use super::records::{Place, below, since_1970};
use super::view::{self, Seen};

/// Deletions at the same time.
const DELETIONS: usize = 16;
/// How often what was deleted may still be listed before the run gives up; the next one goes on.
const LOOKS: usize = 3;

/// Deletes what `marks` name, which a sweep list of this pruner names too.
pub(super) async fn carry_out(place: &Place<'_>, marks: &Marks<Key>) -> Result<Amount> {
    let folder = place.folder()?;
    let keys_folder = folder.join("keys")?;
    let (keys, packs): (Vec<&Key>, Vec<&Key>) = marks.files.iter().partition(|key| key.is_under(&keys_folder));
    delete(place, &marks.backups.iter().collect::<Vec<_>>()).await?;
    confirm(place, &folder.join("backups")?, marks.backups.iter()).await?;
    delete(place, &packs).await?;
    delete(place, &keys).await?;
    confirm(place, &folder, marks.files.iter()).await?;
    Ok(Amount {
        backups: marks.backups.iter().filter_map(|key| key.file_name().parse().ok()).collect(),
        files: marks.files.len() as u64,
        bytes: 0,
    })
}

/// Deletes several at a time. All are tried; the first failure is the error: what is locked is left, and the sweep list stays.
async fn delete(place: &Place<'_>, keys: &[&Key]) -> Result<()> {
    let mut tasks = JoinSet::new();
    let mut failure: Option<Error> = None;
    let mut pending = keys.iter();
    loop {
        while tasks.len() < DELETIONS {
            let Some(key) = pending.next() else { break };
            let (store, key) = (Arc::clone(place.repository.store()), (*key).clone());
            tasks.spawn(async move { store.delete(&key).await });
        }
        let Some(joined) = tasks.join_next().await else { break };
        let result = joined
            .map_err(|error| Error::new(ErrorKind::Bug, "delete", "a stored file", "a task panicked").with_source(error))?;
        if let Err(error) = result {
            failure.get_or_insert(error);
        }
    }
    match failure {
        None => Ok(()),
        Some(error) => Err(error.with_hint(
            "what could not be deleted counts nowhere any more and is left for the next prune; a locked file goes once its lock has run out",
        )),
    }
}

/// Lists until all of `gone` are gone.
async fn confirm(place: &Place<'_>, prefix: &Key, gone: impl Iterator<Item = &Key> + Clone) -> Result<()> {
    let mut left = None;
    for _ in 0..LOOKS {
        let listed: BTreeSet<Key> = place.store().list(prefix).await?.into_iter().map(|entry| entry.key).collect();
        left = gone.clone().find(|key| listed.contains(key)).cloned();
        if left.is_none() {
            return Ok(());
        }
    }
    let key = left.map_or_else(String::new, |key| key.to_string());
    Err(Error::new(
        ErrorKind::Unreachable,
        "delete",
        key,
        "the store says it is deleted and still lists it",
    )
    .with_hint("run `lifeboat prune` again: it goes on where it stopped"))
}

/// Removes what nobody needs any more: announcements long after their deadline, frames that were replaced, and marks of damage
/// whose file has gone.
pub(super) async fn tidy(place: &Place<'_>, seen: &Seen) -> Result<u64> {
    let folder = place.folder()?;
    let mut removed = super::log::drop_replaced(place, &seen.log).await?;
    for (key, session) in &seen.sessions {
        // As long again as it was open: a machine that slept so long finds its session over in any case.
        let over = session.announced_at.saturating_add(session.deadline.saturating_mul(2));
        if over < since_1970(seen.now_us) {
            place.store().delete(key).await?;
            removed += 1;
        }
    }
    if seen.bad.is_empty() {
        return Ok(removed);
    }
    // The marks were listed first: a file that is not there now was there when it was marked, and has gone since.
    let hashes: BTreeSet<String> = view::names(place)
        .await?
        .iter()
        .filter(|key| !below(&folder, key).starts_with("bad/"))
        .map(|key| hash_of(key.file_name()).to_owned())
        .collect();
    for mark in &seen.bad {
        if !hashes.contains(mark.file_name()) {
            place.store().delete(mark).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The hash in a stored file's name.
pub(crate) fn hash_of(name: &str) -> &str {
    let name = name.trim_end_matches(".age").trim_end_matches(".clear");
    name.rsplit('-').next().unwrap_or(name)
}
