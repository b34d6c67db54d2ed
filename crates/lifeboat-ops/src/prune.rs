//! The verb `prune`: which backups may go by the rules, and the steps of their deletion that are due.
//!
//! The decision is `lifeboat_model::retention`, the deletion `lifeboat_repo::prune`. Retention never runs on an error: whatever cannot be
//! listed or judged ends the run, and nothing is condemned or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_model::retention::{self, Candidate, Known, Policy, Verdict};
use lifeboat_model::{Env, Result};
use lifeboat_repo::{Backup, BackupId, Calendar, Hold, Instance, Listing, PrunePlan, Pruned, Standing};

use crate::proof::{self, Level};
use crate::protected::Protected;

/// How to prune.
#[derive(Debug, Clone)]
pub struct Request {
    /// The rules; none keeps every backup, and only what no backup needs goes.
    pub policy: Option<Policy>,
    /// How long what is condemned stays.
    pub grace: Duration,
    /// Name of the time zone in which days begin.
    pub timezone: String,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What becomes of one backup.
#[derive(Debug, Clone)]
pub struct Fate {
    /// Which.
    pub backup: Backup,
    /// Whether it stays.
    pub stays: bool,
    /// Every reason, in words.
    pub why: String,
}

/// What came of it.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Every backup that stands, newest first, with its reason.
    pub fates: Vec<Fate>,
    /// What was condemned and deleted.
    pub pruned: Pruned,
    /// How long it took.
    pub took: Duration,
}

/// Does the steps of a prune that are due, in the one store of `protected`.
pub async fn run(env: &Env, protected: &Protected, instance: Arc<Instance>, request: &Request) -> Result<Report> {
    let began = env.clock.monotonic();
    let calendar = Calendar::of(&request.timezone)?;
    let repository = protected.repository().await?;
    let fates = Mutex::new(Vec::new());
    let retire = |standing: &Standing<'_>| {
        let judged = judge(protected, request.policy.as_ref(), &calendar, standing);
        let going = judged.iter().filter(|fate| !fate.stays).map(|fate| fate.backup.id).collect();
        *fates.lock().unwrap_or_else(PoisonError::into_inner) = judged;
        Ok::<BTreeSet<BackupId>, lifeboat_model::Error>(going)
    };
    let plan = PrunePlan {
        log_window: None,
        component: protected.component.clone(),
        instance,
        trust: protected.trust.clone(),
        state_dir: protected.state_dir.clone(),
        grace: request.grace,
        dry_run: request.dry_run,
        retire: &retire,
    };
    let pruned = lifeboat_repo::prune(env, &repository, &plan).await?;
    let fates = std::mem::take(&mut *fates.lock().unwrap_or_else(PoisonError::into_inner));
    let took = env.clock.monotonic().saturating_sub(began);
    Ok(Report { fates, pruned, took })
}

/// Every backup that stands, newest first, with what becomes of it.
fn judge(protected: &Protected, policy: Option<&Policy>, calendar: &Calendar, standing: &Standing<'_>) -> Vec<Fate> {
    let listing = standing.listing;
    let wanting = listing.rejected.iter().filter_map(|rejected| {
        let backup = rejected.backup.as_deref()?;
        Some((backup, Some(rejected.reason.detail().to_owned())))
    });
    let good = listing.backups.iter().map(|backup| {
        let wanting = backup.header.incomplete.then(|| "it is incomplete".to_owned());
        (backup, wanting)
    });
    let mut all: Vec<(&Backup, Option<String>)> = good.chain(wanting).collect();
    all.sort_by_key(|(backup, _)| std::cmp::Reverse(backup.id));
    let candidates: Vec<Candidate> = all
        .iter()
        .map(|(backup, wanting)| candidate(protected, standing, backup, wanting.clone()))
        .collect();
    let verdicts = match policy {
        Some(policy) => retention::decide(policy, standing.now_us, &|us| calendar.local(us), &candidates),
        None => candidates.iter().map(|_| unlimited()).collect(),
    };
    all.into_iter()
        .zip(verdicts)
        .map(|((backup, _), verdict)| Fate {
            backup: backup.clone(),
            stays: verdict.keeps(),
            why: verdict.why(),
        })
        .collect()
}

/// Which of `candidates` the rules would keep in the store of `listing`, if they stood there too.
pub(crate) fn worth_having(
    protected: &Protected,
    policy: &Policy,
    timezone: &str,
    listing: &Listing,
    holds: &[Hold],
    candidates: &[Backup],
    now_us: i64,
) -> Result<BTreeSet<BackupId>> {
    let calendar = Calendar::of(timezone)?;
    let there = listing
        .backups
        .iter()
        .chain(candidates)
        .map(|backup| (backup.id, backup.clone()));
    let all: BTreeMap<BackupId, Backup> = there.collect();
    let listing = Listing::of(all.into_values().collect());
    let standing = Standing {
        listing: &listing,
        holds,
        now_us,
    };
    let judged = judge(protected, Some(policy), &calendar, &standing);
    Ok(judged.iter().filter(|fate| fate.stays).map(|fate| fate.backup.id).collect())
}

fn unlimited() -> Verdict {
    Verdict {
        stays: vec![retention::Stays::NoRules],
        goes: String::new(),
    }
}

fn candidate(protected: &Protected, standing: &Standing<'_>, backup: &Backup, wanting: Option<String>) -> Candidate {
    let header = &backup.header;
    Candidate {
        name: backup.id.short(),
        seq: backup.id.seq,
        moment_us: header.moment_us,
        method: header.method.clone(),
        extract: header.extract,
        wanting,
        known: known(protected, backup),
        tags: header.tags.clone(),
        keep_for: header.keep_for_s.map(Duration::from_secs),
        held: standing
            .holds
            .iter()
            .find(|hold| holds(hold, backup))
            .map(|hold| hold.reason.clone()),
    }
}

fn holds(hold: &Hold, backup: &Backup) -> bool {
    hold.backup.is_none_or(|id| id == backup.id)
}

/// The most that is known about a backup here.
fn known(protected: &Protected, backup: &Backup) -> Known {
    let name = backup.id.to_string();
    let damaged = proof::damage(&protected.state_dir, &protected.component);
    if damaged.iter().any(|damage| damage.backup == name) {
        return Known::Damaged;
    }
    proof::load(&protected.state_dir, &protected.component)
        .iter()
        .filter(|proof| proof.backup == name)
        .map(|proof| match proof.level {
            Level::List => Known::Unproven,
            Level::Hash => Known::Intact,
            Level::Decrypt => Known::Opened,
            Level::Restore | Level::App => Known::Restored,
        })
        .max()
        .unwrap_or(Known::Unproven)
}
