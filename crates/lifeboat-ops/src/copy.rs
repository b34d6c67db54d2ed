//! The verb `copy`: what one store of a component lacks, brought from another, without a private key.
//!
//! The destination is made where it holds no repository: whoever names it by hand means it. The order of everything else, and what is
//! there if we die, is [`lifeboat_repo::copy`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_model::retention::Policy;
use lifeboat_model::wal::{Coverage, HeldLog};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{BackupId, Copied, CopyPlan, Instance, Lineage, LogNeed, Repository, Which, copy_log, list_holds, list_log};

use crate::protected::{Place, Protected};
use crate::prune;

/// Which backups.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Which, as people ask for it.
    pub which: Which,
    /// The rules of the component and the time zone of their days: where nobody named a backup, what they would give up at once in the
    /// destination is not brought there.
    pub rules: Option<(&'a Policy, &'a str)>,
}

/// Copies backups of `protected` from the store `from` to the store `to`. Other stores of the component help out where a file of `from`
/// is damaged, as far as they answer.
pub async fn run(
    env: &Env,
    protected: &Protected,
    instance: Arc<Instance>,
    from: &Place,
    to: &Place,
    wanted: Wanted<'_>,
) -> Result<Copied> {
    let source = Repository::open(Arc::clone(&from.store)).await?;
    let destination = source.replicate(Arc::clone(&to.store)).await?;
    let mut others = Vec::new();
    for place in &protected.stores {
        if place.name == from.name || place.name == to.name {
            continue;
        }
        // One that is away, or holds something else, cannot help; nobody asked for it.
        if let Ok(other) = Repository::open(Arc::clone(&place.store)).await
            && other.id() == source.id()
        {
            others.push(other);
        }
    }
    let mut notes = Vec::new();
    let which = match (wanted.which, wanted.rules) {
        (Which::Missing, Some((policy, timezone))) => {
            kept_there(env, protected, &source, &destination, (policy, timezone), &mut notes).await?
        }
        (which, _) => which,
    };
    let plan = CopyPlan {
        component: protected.component.clone(),
        instance,
        trust: protected.trust.clone(),
        which,
    };
    // Before the backups: one that counts there is to have its log there (PG-01).
    let log = copy_log(env, &source, &destination, &plan.component, &plan.instance, &plan.trust).await?;
    let mut copied = lifeboat_repo::copy(env, &source, &destination, &others, &plan).await?;
    copied.files += log.files;
    copied.bytes += log.bytes;
    let failed = log.failed.iter();
    notes.extend(failed.map(|(name, error)| format!("the log file {name} was not copied: {error}")));
    without_log(protected, &destination, &mut copied).await?;
    copied.notes.append(&mut notes);
    Ok(copied)
}

/// Backups that were copied and whose log is not there are nothing yet.
async fn without_log(protected: &Protected, to: &Repository, copied: &mut Copied) -> Result<()> {
    let needs: Vec<(BackupId, LogNeed)> = copied
        .copied
        .iter()
        .filter_map(|backup| Some((backup.id, backup.header.log?)))
        .collect();
    if needs.is_empty() {
        return Ok(());
    }
    let there = list_log(to, &protected.component, &protected.trust).await?;
    for (id, need) in needs {
        if !there.candidates(need.lineage).holds(need.range) {
            let detail = format!("its own log is missing there: {}", need.range);
            let error = Error::new(ErrorKind::NotFound, "copy backup", id.short(), detail);
            let hint = "copy again from a store that holds it; until then this copy cannot be restored";
            copied.failed.push((id, error.with_hint(hint)));
        }
    }
    Ok(())
}

/// What the destination has, and what it lacks and its rules would keep.
async fn kept_there(
    env: &Env,
    protected: &Protected,
    from: &Repository,
    to: &Repository,
    (policy, timezone): (&Policy, &str),
    notes: &mut Vec<String>,
) -> Result<Which> {
    let (source, there) = (protected.listing(from).await?, protected.listing(to).await?);
    let holds = list_holds(to, &protected.component, &protected.trust).await?;
    let log = log_of_both(protected, from, to, env.clock.wall_us()).await?;
    let kept = prune::worth_having(
        protected,
        policy,
        timezone,
        (&there, &log),
        &holds,
        &source.backups,
        env.clock.wall_us(),
    )?;
    let is_there = |id: &BackupId| there.backups.iter().any(|backup| backup.id == *id);
    let (wanted, given_up): (Vec<BackupId>, Vec<BackupId>) = source
        .backups
        .iter()
        .map(|backup| backup.id)
        .partition(|id| kept.contains(id) || is_there(id));
    if !given_up.is_empty() {
        let names: Vec<String> = given_up.iter().map(BackupId::short).collect();
        notes.push(format!(
            "not copied, because the rules of retention would give it up there at once: {} (`--backup ID` copies it all the same)",
            names.join(", ")
        ));
    }
    Ok(Which::Named(wanted.iter().map(ToString::to_string).collect()))
}

/// The log that stands in either, as the destination will have it: all of it is as new as can be.
async fn log_of_both(
    protected: &Protected,
    from: &Repository,
    to: &Repository,
    now_us: i64,
) -> Result<BTreeMap<Lineage, HeldLog>> {
    let mut log: BTreeMap<Lineage, HeldLog> = BTreeMap::new();
    for repository in [from, to] {
        let listing = list_log(repository, &protected.component, &protected.trust).await?;
        for record in &listing.lineages {
            let held = log.entry(record.lineage).or_insert_with(|| HeldLog {
                size: record.segment,
                coverage: Coverage::new(),
                stored_us: BTreeMap::new(),
            });
            held.coverage.unite(&listing.candidates(record.lineage));
            held.stored_us = held.coverage.timelines().map(|timeline| (timeline, now_us)).collect();
        }
    }
    Ok(log)
}

/// The store to copy from where nobody said: the first one of the component that answers and is not the destination.
pub async fn source<'a>(protected: &'a Protected, to: &Place) -> Result<&'a Place> {
    let mut reason = None;
    for place in protected.stores.iter().filter(|place| place.name != to.name) {
        match Repository::open(Arc::clone(&place.store)).await {
            Ok(_) => return Ok(place),
            Err(error) => reason = reason.or(Some(error)),
        }
    }
    Err(reason.unwrap_or_else(|| {
        Error::new(ErrorKind::Usage, "copy to", &to.name, "there is no other store to copy from")
            .with_hint("name one with --from")
    }))
}
