//! The pruner: census → grace → recheck → sweep list → delete in order → confirm → remove list and census (`docs/deletion.md`).
//!
//! It needs no key that opens anything. Each run does the steps that are due and can die anywhere: after the census nothing is deleted
//! yet, and writers build on nothing that it names; after the sweep list nothing in it counts any more, and the next run of the same
//! instance finishes the deletion. What may go is decided by `lifeboat_model::protocol` (INV-14) and, for whole backups, by the caller.
//! A listing that fails, a file that cannot be judged, or a backup that has gone since the census ends the run with nothing deleted.

pub(crate) mod hold;
mod log;
pub(crate) mod marks;
pub(crate) mod records;
mod sweep;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::protocol::{self, Census, Marks, Stop};
use lifeboat_model::wal::HeldLog;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::Key;

use crate::id::{BackupId, ComponentName, Lineage};
use crate::key::instance::{Instance, Trust};
use crate::listing::Listing;
use crate::repository::Repository;
use crate::session::SESSION_DEADLINE;
use crate::signed::Kind;
use crate::state::StateFolder;
use crate::time::format_utc;
use records::{About, Listed, MarksJson, Place, below, marks_name, pruner_id, since_1970};
use view::Seen;

/// Decides which backups may go, from everything that is listed; an error ends the run with nothing deleted.
pub type Retire<'a> = dyn Fn(&Standing<'_>) -> Result<Retired> + Send + Sync + 'a;

/// What retention decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// The backups that may go.
    pub backups: BTreeSet<BackupId>,
    /// The backups that need all log behind their start, because moments behind them are to stay reachable: all others that stay need their
    /// own log only (PG-12). None: every one that stays does.
    pub onward: Option<BTreeSet<BackupId>>,
}

impl From<BTreeSet<BackupId>> for Retired {
    fn from(backups: BTreeSet<BackupId>) -> Self {
        Self { backups, onward: None }
    }
}

/// What retention decides from.
#[derive(Debug)]
pub struct Standing<'a> {
    /// All backups, those that do not count among them.
    pub listing: &'a Listing,
    /// The holds in force.
    pub holds: &'a [hold::Hold],
    /// The log that stands, by lineage: as names and sizes tell.
    pub log: &'a BTreeMap<Lineage, HeldLog>,
    /// The time by the store, microseconds since 1970.
    pub now_us: i64,
}

/// How to prune.
pub struct PrunePlan<'a> {
    /// Of what.
    pub component: ComponentName,
    /// Who prunes; it must be allowed to.
    pub instance: Arc<Instance>,
    /// Whose files count.
    pub trust: Trust,
    /// Where the lock is kept: one pruner of an instance at a time.
    pub state_dir: PathBuf,
    /// How long what is condemned stays: never shorter than a session may last.
    pub grace: Duration,
    /// Only say what would be condemned.
    pub dry_run: bool,
    /// Which backups may go.
    pub retire: &'a Retire<'a>,
}

impl fmt::Debug for PrunePlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrunePlan")
            .field("component", &self.component)
            .field("grace", &self.grace)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// Backups and bytes that a step names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Amount {
    /// The backups.
    pub backups: Vec<BackupId>,
    /// Keys, packs and maps.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Amount {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.files == 0
    }
}

/// What a run did.
#[derive(Debug, Default)]
#[must_use]
pub struct Pruned {
    /// What it deleted.
    pub swept: Amount,
    /// What its census condemns: published now or earlier. In a dry run, what a census would condemn.
    pub condemned: Amount,
    /// When that may be deleted, by the store's time; none in a dry run and when nothing is condemned.
    pub due_us: Option<i64>,
    /// Old announcements, spent censuses of others and healed marks of damage that it removed.
    pub tidied: u64,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Does the steps of a prune that are due.
pub async fn prune(env: &Env, repository: &Repository, plan: &PrunePlan<'_>) -> Result<Pruned> {
    let own = plan.instance.public_key();
    if !plan.trust.rights_of(&own).is_some_and(|rights| rights.prune) {
        let detail = format!("the instance {} may not delete", plan.instance.name());
        return Err(Error::new(ErrorKind::Refused, "prune", &plan.component, detail).with_hint(
            "run it where an instance may prune, or allow it: `may: [backup, prune]` under `instances:` in lifeboat.yaml",
        ));
    }
    if plan.grace < SESSION_DEADLINE {
        let detail = "the grace period is shorter than a backup may take (48 h)";
        return Err(Error::new(ErrorKind::Usage, "prune", &plan.component, detail).with_hint("choose 48h or more"));
    }
    let run = Run {
        env,
        plan,
        place: Place {
            repository,
            component: &plan.component,
            trust: &plan.trust,
        },
    };
    if plan.dry_run {
        return run.look().await;
    }
    let _lock = StateFolder::lock_for(&plan.state_dir, repository.id(), &plan.component, "prune", "a prune")?;
    // The announcement tells others that somebody prunes, and this run the time by the store.
    let session = run.place.announce(env, &plan.instance, "prune", SESSION_DEADLINE).await?;
    let outcome = run.steps(&session).await;
    let removed = run.place.store().delete(&session).await;
    // What went wrong first is what counts; an announcement that stays is removed by a later run.
    outcome.and_then(|pruned| removed.map(|()| pruned))
}

struct Run<'a> {
    env: &'a Env,
    plan: &'a PrunePlan<'a>,
    place: Place<'a>,
}

impl Run<'_> {
    /// What a census would condemn now. Nothing is written.
    async fn look(&self) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let seen = view::look(&self.place, self.env.clock.wall_us()).await?;
        let (marks, ..) = self.condemn(&seen)?;
        pruned.condemned = seen.amount(&marks);
        pruned.notes = seen.notes;
        Ok(pruned)
    }

    async fn steps(&self, session: &Key) -> Result<Pruned> {
        let asked_at_us = self.place.store().head(session).await?.stored_at_us;
        let mut pruned = Pruned::default();
        let own = self.plan.instance.public_key();
        let lists = view::prune_files(&self.place).await?;
        let names: BTreeSet<&Key> = lists.iter().map(|list| &list.key).collect();
        for list in lists.iter().filter(|list| list.signer == own && list.census.is_none()) {
            if !marks::is_in_force(list, &names) {
                // It landed when all was over.
                self.place.store().delete(&list.key).await?;
                continue;
            }
            pruned
                .notes
                .push("an earlier prune had stopped in the middle: it was finished".to_owned());
            pruned.swept = self.carry_out(&list.marks, &list.key, list.of_census.as_ref(), None).await?;
        }
        pruned.tidied += self.remove_spent().await?;
        let mut mine: Vec<Listed> = view::prune_files(&self.place).await?;
        mine.retain(|list| list.signer == own && list.census.is_some());
        for census in mine {
            match self.sweep(&census, asked_at_us, &mut pruned).await? {
                After::Done => {}
                After::Wait => return Ok(pruned),
            }
        }
        self.publish(asked_at_us, &mut pruned).await?;
        Ok(pruned)
    }

    /// Step 1: censuses that others left behind, once nothing that they condemned is left.
    async fn remove_spent(&self) -> Result<u64> {
        let own = self.plan.instance.public_key();
        let lists = view::prune_files(&self.place).await?;
        let others: Vec<&Listed> = lists
            .iter()
            .filter(|list| list.signer != own && list.census.is_some())
            .collect();
        if others.is_empty() {
            return Ok(0);
        }
        // Listed after the censuses: what is condemned and not listed now had gone before.
        let present = view::names(&self.place).await?;
        let mut removed = 0;
        for census in others {
            if protocol::is_spent(&census.marks, &present) {
                self.place.store().delete(&census.key).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Steps 5 to 9 for an own census, if its grace period is over.
    async fn sweep(&self, listed: &Listed, asked_at_us: i64, pruned: &mut Pruned) -> Result<After> {
        let Some((seen_then, written_grace)) = &listed.census else {
            return Ok(After::Done);
        };
        let grace = self.plan.grace.max(*written_grace);
        let due_us = listed
            .stored_at_us
            .saturating_add(i64::try_from(grace.as_micros()).unwrap_or(i64::MAX));
        let seen = view::look(&self.place, asked_at_us).await?;
        let (again, _, retired) = self.condemn(&seen)?;
        let census = Census {
            name: listed.key.clone(),
            published_at: since_1970(listed.stored_at_us),
            seen: seen_then.clone(),
            condemned: Marks {
                // Retention is asked again: what it has come to need since stays.
                backups: listed.marks.backups.intersection(&again.backups).cloned().collect(),
                files: listed.marks.files.clone(),
            },
        };
        let shown = log::with_log(&seen, &census.condemned.backups, &retired);
        let marks = match shown.and_then(|view| protocol::may_sweep(&census, grace, &view)) {
            Ok(marks) => marks,
            Err(Stop::TooEarly) => {
                pruned.condemned = seen.amount(&listed.marks);
                pruned.due_us = Some(due_us);
                pruned.notes.extend(seen.notes);
                return Ok(After::Wait);
            }
            Err(Stop::BackupMissing(name)) => {
                // Hidden, or swept by somebody else: nothing is deleted on the strength of this census. It is this pruner's own, so it can go.
                self.drop_census(&listed.key).await?;
                pruned.notes.push(format!(
                    "backup {} was there when the census was taken and is not listed now: nothing was deleted, and a new census begins",
                    name.file_name()
                ));
                return Ok(After::Done);
            }
            Err(stop) => return Err(stopped(&self.plan.component, &stop)),
        };
        if marks.is_empty() {
            self.drop_census(&listed.key).await?;
            return Ok(After::Done);
        }
        let list = match self.put_marks(Kind::Sweep, &marks, None, Some(&listed.key)).await {
            Ok(list) => list,
            Err(error) => {
                // It may land all the same, when more is held than now. Without its census it says nothing; what fails here is
                // tried by the next run as if nothing had been.
                drop(self.drop_census(&listed.key).await);
                return Err(error);
            }
        };
        let swept = self.carry_out(&marks, &list, Some(&listed.key), Some(&seen)).await?;
        pruned.swept.backups.extend(swept.backups);
        pruned.swept.files += swept.files;
        pruned.swept.bytes += swept.bytes;
        Ok(After::Done)
    }

    /// Steps 2 and 3: a look at everything, and a census of what may go.
    async fn publish(&self, asked_at_us: i64, pruned: &mut Pruned) -> Result<()> {
        let seen = view::look(&self.place, asked_at_us).await?;
        let (marks, all, _) = self.condemn(&seen)?;
        pruned.tidied += sweep::tidy(&self.place, &seen).await?;
        pruned.notes.extend(seen.notes.iter().cloned());
        if marks.is_empty() {
            return Ok(());
        }
        let census = self.put_marks(Kind::Census, &marks, Some(&all), None).await?;
        let published = self.place.store().head(&census).await?.stored_at_us;
        pruned.condemned = seen.amount(&marks);
        pruned.due_us = Some(published.saturating_add(i64::try_from(self.plan.grace.as_micros()).unwrap_or(i64::MAX)));
        Ok(())
    }

    /// What may go by everything that was seen, all backups that were seen, and what retention decided.
    fn condemn(&self, seen: &Seen) -> Result<(Marks<Key>, BTreeSet<Key>, Retired)> {
        let folder = self.place.folder()?;
        let standing = Standing {
            listing: &seen.listing,
            holds: &seen.holds,
            log: &seen.log.standing(),
            now_us: seen.now_us,
        };
        let retired = (self.plan.retire)(&standing)?;
        let mut retire = BTreeSet::new();
        for id in &retired.backups {
            retire.insert(folder.join(&format!("backups/{id}"))?);
        }
        // A backup that is being deleted already is condemned, whoever deletes it: what it alone needs can go.
        for backup in &seen.listing.leaving {
            retire.insert(folder.join(&format!("backups/{}", backup.id))?);
        }
        let shown = log::with_log(seen, &retire, &retired);
        let condemned = shown.and_then(|view| protocol::condemn(&view, &retire));
        let marks = condemned.map_err(|stop| stopped(&self.plan.component, &stop))?;
        let all = seen.view.backups.iter().map(|backup| backup.name.clone()).collect();
        Ok((marks, all, retired))
    }

    async fn put_marks(&self, kind: Kind, marks: &Marks<Key>, seen: Option<&BTreeSet<Key>>, census: Option<&Key>) -> Result<Key> {
        let folder = self.place.folder()?;
        let names = |keys: &BTreeSet<Key>| keys.iter().map(|key| key.file_name().to_owned()).collect::<Vec<_>>();
        let pruner = pruner_id(&self.plan.instance.public_key());
        let json = MarksJson {
            about: About::new(self.place.repository.id(), self.place.component, &self.plan.instance),
            pruner: pruner.clone(),
            published_at: format_utc(self.env.clock.wall_us()),
            grace_s: seen.map(|_| self.plan.grace.as_secs()),
            seen: seen.map(names),
            census: census.map(|key| key.file_name().to_owned()),
            backups: names(&marks.backups),
            files: marks.files.iter().map(|key| below(&folder, key).to_owned()).collect(),
        };
        let name = marks_name(kind, &pruner);
        self.place
            .put(kind, &self.plan.instance, &json, |hash| format!("prune/{name}{hash}"))
            .await
    }

    /// Deletes what a sweep list of this pruner names, in order, and then the list and its census.
    async fn carry_out(&self, marks: &Marks<Key>, list: &Key, census: Option<&Key>, seen: Option<&Seen>) -> Result<Amount> {
        let amount = sweep::carry_out(&self.place, marks).await?;
        self.place.store().delete(list).await?;
        if let Some(census) = census {
            self.drop_census(census).await?;
        }
        Ok(seen.map_or(amount, |seen| seen.amount(marks)))
    }

    /// Removes an own census, unless a sweep list of it stands (a cloned machine has put it): that is in force only beside it.
    async fn drop_census(&self, census: &Key) -> Result<()> {
        let standing = self.place.store().list(&self.place.folder()?.join("prune")?).await?;
        for entry in standing.iter().filter(|entry| entry.key.file_name().starts_with("sweep-")) {
            if self.place.marks(entry).await?.of_census.as_ref() == Some(census) {
                return Ok(());
            }
        }
        self.place.store().delete(census).await
    }
}

/// Whether a new census may follow.
enum After {
    Done,
    Wait,
}

fn stopped(component: &ComponentName, stop: &Stop<Key>) -> Error {
    let error = Error::new(ErrorKind::Refused, "prune", component, stop.to_string());
    match stop {
        Stop::UnknownParent(_) => error.with_hint(
            "a hold of a backup that has gone is released with `lifeboat hold release`; a copy that is under way ends by itself: prune again later",
        ),
        Stop::TooEarly | Stop::BackupMissing(_) => error.with_hint("prune again later"),
    }
}
