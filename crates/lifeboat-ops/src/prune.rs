//! The verb `prune`: which backups may go by the rules, and the steps of their deletion that are due.
//!
//! The decision is `lifeboat_model::retention`, the deletion `lifeboat_repo::prune`. Retention never runs on an error: whatever cannot be
//! listed or judged ends the run, and nothing is condemned or deleted.

mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_model::retention::{self, Candidate, Compliance, InWindow, Known, Policy, Verdict};
use lifeboat_model::wal::HeldLog;
use lifeboat_model::{Env, Result};
use lifeboat_repo::{Backup, BackupId, Calendar, Hold, Instance, Lineage, Listing, PrunePlan, Pruned, Retired, Standing};

use crate::proof::{self, Level};
use crate::protected::Protected;
pub use window::{Missing, Window};

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
    /// What each rule promises, and what is there; empty where there are no rules.
    pub compliance: Vec<Compliance>,
    /// What becomes of the recovery window, where there is one and a log.
    pub window: Option<Window>,
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
    let last = Mutex::new(Judged::default());
    let retire = |standing: &Standing<'_>| {
        let judged = judge(protected, request.policy.as_ref(), &calendar, standing);
        let going = judged.fates.iter().filter(|fate| !fate.stays);
        let retired = Retired {
            backups: going.map(|fate| fate.backup.id).collect(),
            onward: judged.onward.clone(),
        };
        *last.lock().unwrap_or_else(PoisonError::into_inner) = judged;
        Ok::<Retired, lifeboat_model::Error>(retired)
    };
    let plan = PrunePlan {
        component: protected.component.clone(),
        instance,
        trust: protected.trust.clone(),
        state_dir: protected.state_dir.clone(),
        grace: request.grace,
        dry_run: request.dry_run,
        retire: &retire,
    };
    let pruned = lifeboat_repo::prune(env, &repository, &plan).await?;
    let Judged {
        fates,
        compliance,
        window,
        ..
    } = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
    let took = env.clock.monotonic().saturating_sub(began);
    Ok(Report {
        fates,
        compliance,
        window,
        pruned,
        took,
    })
}

/// What the rules say.
#[derive(Debug, Default)]
struct Judged {
    /// Every backup that stands, newest first, with what becomes of it.
    fates: Vec<Fate>,
    compliance: Vec<Compliance>,
    /// The backups that need all log behind their start; none: every one that stays does.
    onward: Option<BTreeSet<BackupId>>,
    window: Option<Window>,
}

fn judge(protected: &Protected, policy: Option<&Policy>, calendar: &Calendar, standing: &Standing<'_>) -> Judged {
    let listing = standing.listing;
    let wanting = listing.rejected.iter().filter_map(|rejected| {
        let backup = rejected.backup.as_deref()?;
        Some((backup, Some(rejected.reason.detail().to_owned())))
    });
    let good = listing.backups.iter().map(|backup| {
        let wanting = backup.header.incomplete.then(|| "it is incomplete".to_owned());
        (backup, wanting.or_else(|| without_log(backup, standing)))
    });
    let mut all: Vec<(&Backup, Option<String>)> = good.chain(wanting).collect();
    all.sort_by_key(|(backup, _)| std::cmp::Reverse(backup.id));
    let mut candidates: Vec<Candidate> = all
        .iter()
        .map(|(backup, wanting)| candidate(protected, standing, backup, wanting.clone()))
        .collect();
    let backups: Vec<&Backup> = all.iter().map(|(backup, _)| *backup).collect();
    let asked = policy.and_then(|policy| policy.keep.window);
    let decided = asked.map(|asked| window::decide(asked, standing, &backups, &mut candidates));
    let verdicts = match policy {
        Some(policy) => retention::decide(policy, standing.now_us, &|us| calendar.local(us), &candidates),
        None => candidates.iter().map(|_| unlimited()).collect(),
    };
    let compliance = policy.map(|policy| retention::comply(policy, standing.now_us, &|us| calendar.local(us), &candidates));
    let fates = backups.into_iter().zip(verdicts).map(|(backup, verdict)| Fate {
        backup: backup.clone(),
        stays: verdict.keeps(),
        why: verdict.why(),
    });
    let fates = fates.collect();
    let (onward, window) = decided.unzip();
    Judged {
        fates,
        compliance: compliance.unwrap_or_default(),
        onward,
        window: window.flatten(),
    }
}

/// PG-01: a backup whose own log does not stand beside it counts for nothing.
fn without_log(backup: &Backup, standing: &Standing<'_>) -> Option<String> {
    let need = backup.header.log?;
    let held = standing.log.get(&need.lineage);
    let is_held = held.is_some_and(|held| held.coverage.holds(need.range));
    (!is_held).then(|| format!("its own log is not held: {}", need.range))
}

/// Which of `candidates` the rules would keep in the store of `listing`, if they stood there too with the log in `log`.
pub(crate) fn worth_having(
    protected: &Protected,
    policy: &Policy,
    timezone: &str,
    (listing, log): (&Listing, &BTreeMap<Lineage, HeldLog>),
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
        log,
        now_us,
    };
    let judged = judge(protected, Some(policy), &calendar, &standing);
    Ok(judged
        .fates
        .iter()
        .filter(|fate| fate.stays)
        .map(|fate| fate.backup.id)
        .collect())
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
        window: InWindow::Moment,
        bad_pages: header.bad_pages,
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
