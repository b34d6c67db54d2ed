//! The verb `status`: can I recover, to which moment, losing how much, how long will it take, proven when.
//!
//! Unknown is never green: what could not be found out is a reason of its own.

use std::time::Duration;

use lifeboat_model::estimate::{Estimate, Run, estimate};
use lifeboat_model::plan::allowed_age;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader};

use crate::follow;
use crate::proof::{self, Level, Proof};
use crate::protected::{Choice, Protected, Source};
use crate::reach::{self, LogEnd};
use crate::restore::{quarantine, tree_place};
use crate::store::Thaw;
use crate::stores::{self, Survey};

/// Log is expected to be stored so often, where nothing was promised.
const LOG_AGE: Duration = Duration::from_secs(300);

/// How a component stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A restore was proven, and the objectives hold.
    Ready,
    /// It can probably be recovered, but something is not as promised or not proven.
    AtRisk,
    /// It cannot be recovered, or nobody knows.
    NotReady,
}

impl Standing {
    /// The words people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::AtRisk => "at risk",
            Self::NotReady => "not ready",
        }
    }
}

/// The five answers for one component.
#[derive(Debug)]
pub struct Status {
    /// Of what.
    pub component: String,
    /// The verdict.
    pub standing: Standing,
    /// Why it is not ready; empty when it is.
    pub reasons: Vec<String>,
    /// The newest backup that counts.
    pub latest: Option<Backup>,
    /// Moment of the oldest backup that counts.
    pub oldest_us: Option<i64>,
    /// Backups that count.
    pub backups: usize,
    /// Stored backups that do not count.
    pub rejected: usize,
    /// What would be lost now: the age of the newest backup, or the time since the log in the stores is complete.
    pub loss: Option<Duration>,
    /// How long a restore will take.
    pub restore: Option<Estimate>,
    /// The newest proof by a restore.
    pub proven: Option<Proof>,
    /// Restores that can be undone, or were interrupted: id and whether it was interrupted.
    pub undo: Vec<(String, bool)>,
    /// How far the log of a cluster is followed on this host, where it is.
    pub log: Option<follow::Standing>,
    /// How far the log in the stores reaches behind the newest backup: in that where it reaches farthest.
    pub reach: Option<LogEnd>,
    /// Why nothing can be said: no store answers, or none holds a repository.
    pub silent: Option<ErrorKind>,
}

/// Asks store, state and source. A store that cannot be reached is an answer, not a failure.
pub async fn run(env: &Env, protected: &Protected) -> Status {
    let mut status = Status {
        component: protected.component.to_string(),
        standing: Standing::Ready,
        reasons: Vec::new(),
        latest: None,
        oldest_us: None,
        backups: 0,
        rejected: 0,
        loss: None,
        restore: None,
        proven: None,
        undo: Vec::new(),
        log: None,
        reach: None,
        silent: None,
    };
    judge_log(env, protected, &mut status);
    if let Err(error) = fill(env, protected, &mut status).await {
        status.silent = matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::NoRepository).then(|| error.kind());
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        status.worsen(Standing::NotReady, format!("{error}{hint}"));
    }
    status
}

impl Status {
    /// Takes into account whether the private key that is configured here opens the newest backup. Where none is configured, a restore
    /// happens elsewhere, and this is not asked.
    pub async fn judge_key(&mut self, env: &Env, protected: &Protected, identities: Result<Identities>) {
        let Some(latest) = self.latest.clone() else { return };
        let opened = async {
            let found = stores::find(protected, &Choice::Named(latest.id.to_string())).await?;
            let identities = identities?;
            for (_, repository, backup) in found.places.iter().take(1) {
                Reader::open(env, repository, backup, &identities).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = opened.await {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            self.worsen(Standing::NotReady, format!("{error}{hint}"));
        }
    }

    /// Takes into account what of the newest backup lies in an archive: a restore begins only when it is back.
    pub fn judge_archive(&mut self, rto: Option<Duration>, thaw: &Thaw) {
        if thaw.is_done() {
            return;
        }
        self.restore = self.restore.map(|estimate| estimate.after(thaw.expected, thaw.slowest));
        match rto {
            Some(rto) if thaw.expected > rto => self.worsen(
                Standing::AtRisk,
                format!("{}; promised is a restore within {}", thaw.says(), human_duration(rto)),
            ),
            _ => self.worsen(Standing::AtRisk, thaw.says()),
        }
    }

    /// Takes into account how often backups are scheduled: one that is older than the time between two runs, that of a run and some grace has a
    /// missing successor. `says` is the schedule in words.
    pub fn judge_schedule(&mut self, env: &Env, interval: Duration, whole_run: Duration, says: &str) {
        let Some(latest) = &self.latest else { return };
        let age_us = env.clock.wall_us().saturating_sub(latest.header.moment_us);
        // A backup from the future is told elsewhere.
        let age = Duration::from_micros(u64::try_from(age_us).unwrap_or_default());
        if age > allowed_age(interval, whole_run) {
            let says = format!(
                "the newest backup is {} old, and one is made {says}: a run is missing; run `lifeboat backup`, then see why cron or the timer did not",
                human_duration(age)
            );
            self.worsen(Standing::AtRisk, says);
        }
    }

    fn worsen(&mut self, standing: Standing, reason: String) {
        self.standing = self.standing.max(standing);
        self.reasons.push(reason);
    }

    /// The kind of error that a script should see: none when ready.
    #[must_use]
    pub fn failure(&self) -> Option<ErrorKind> {
        match self.standing {
            Standing::Ready => None,
            Standing::AtRisk => Some(ErrorKind::ObjectiveMissed),
            Standing::NotReady => Some(self.silent.unwrap_or(ErrorKind::Failed)),
        }
    }
}

async fn fill(env: &Env, protected: &Protected, status: &mut Status) -> Result<()> {
    judge_restores(protected, status)?;
    let survey = stores::survey(protected).await?;
    judge_stores(&survey, status);
    let listing = survey.listing();
    let rejected: Vec<_> = survey.rejected.iter().map(|(_, rejected)| rejected).collect();
    status.backups = listing.backups.len();
    status.rejected = rejected.len();
    status.oldest_us = listing.backups.iter().map(|backup| backup.header.moment_us).min();
    if let Some(first) = rejected.first() {
        status.worsen(
            Standing::AtRisk,
            match rejected.len() {
                1 => format!("1 stored backup does not count: {}", first.reason),
                many => format!("{many} stored backups do not count, for example: {}", first.reason),
            },
        );
    }
    // Numbers go up for ever: a lower one at the top means that the newest is gone.
    let top = listing.backups.last().map(|backup| backup.id.to_string());
    if let Some(newest) = proof::vanished(&protected.state_dir, &protected.component, top.as_deref())
        && !listing.rejected.iter().any(|rejected| rejected.name == newest)
    {
        status.worsen(
            Standing::AtRisk,
            format!(
                "backup {newest} was the newest one, and it is not in the store any more: somebody deleted it, or the store is an older copy of itself"
            ),
        );
    }
    if let Some(top) = top {
        // A state folder that cannot be written to must not hide how the store stands.
        drop(proof::record_newest(&protected.state_dir, &protected.component, &top));
    }
    let Some(latest) = listing.latest() else {
        return Err(Error::new(
            ErrorKind::NoSuchPoint,
            "recover",
            &protected.component,
            "there is no backup",
        ));
    };
    judge_reach(protected, &survey, latest, status).await;
    judge_age(env, protected, latest, status);
    judge_proof(env, protected, latest, status);
    judge_damage(protected, latest, status);
    judge_checks(protected, status);
    judge_pki(env, protected, status);
    status.latest = Some(latest.clone());
    Ok(())
}

/// Log that has not been stored for longer than may be lost, as whoever follows on this host last said.
fn judge_log(env: &Env, protected: &Protected, status: &mut Status) {
    if protected.source.cluster().is_none() {
        return;
    }
    let refused = follow::refused_pushes(protected);
    if let Some(first) = refused.first() {
        let says = format!(
            "{} of log that the server pushed was refused, because other bytes are held for it ({first}): two servers may archive under one name; look beside the spool, and remove what was looked at",
            counted(refused.len())
        );
        status.worsen(Standing::AtRisk, says);
    }
    status.log = follow::standing(&protected.state_dir, &protected.component);
    let Some(log) = &status.log else { return };
    let age_us = env.clock.wall_us().saturating_sub(log.stored_us).max(0).unsigned_abs();
    let (age, may_lose) = (Duration::from_micros(age_us), protected.rpo.unwrap_or(LOG_AGE));
    let mut says = Vec::new();
    if age > may_lose {
        says.push(format!(
            "the log was last known to be stored whole {} ago: is `lifeboat follow` running?",
            human_duration(age)
        ));
    }
    if let Some(lag) = log.slot_lag().filter(|lag| log.max_slot_lag > 0 && *lag > log.max_slot_lag) {
        says.push(format!(
            "our slot holds back {} of log on the server, whose disk may fill: look at what `lifeboat follow` says",
            human_bytes(lag)
        ));
    }
    if log.max_spool > 0 && log.spool_bytes > log.max_spool / 5 * 4 {
        says.push(format!(
            "the spool has {} of {}: the stores do not take the log fast enough",
            human_bytes(log.spool_bytes),
            human_bytes(log.max_spool)
        ));
    }
    for reason in says {
        status.worsen(Standing::AtRisk, reason);
    }
}

fn counted(files: usize) -> String {
    if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    }
}

/// How far the log in the stores reaches behind the newest backup, and what is missing of it.
async fn judge_reach(protected: &Protected, survey: &Survey, latest: &Backup, status: &mut Status) {
    if latest.header.log.is_none() {
        return;
    }
    let mut ends = Vec::new();
    for (store, repository, backup) in survey.holders(&latest.id) {
        match reach::log_end(protected, &store, &repository, &backup).await {
            Ok(Some(end)) => ends.push(end),
            Ok(None) => status.worsen(
                Standing::AtRisk,
                format!("the store {store} lacks the newest backup's own log: it cannot be restored from there"),
            ),
            Err(error) => status.worsen(
                Standing::AtRisk,
                format!("how far the log in the store {store} reaches is not known: {error}"),
            ),
        }
    }
    let Some(best) = ends.iter().max_by_key(|end| (end.until_us, end.position)).cloned() else {
        return;
    };
    for end in ends.iter().filter(|end| end.position < best.position) {
        let behind = Duration::from_micros(best.until_us.saturating_sub(end.until_us).max(0).unsigned_abs());
        if behind > LOG_AGE {
            let says = format!(
                "the log in the store {} ends {} before that in {}",
                end.store,
                human_duration(behind),
                best.store
            );
            status.worsen(Standing::AtRisk, says);
        }
    }
    for range in &best.missing {
        status.worsen(
            Standing::AtRisk,
            format!("log is missing behind the newest backup ({range}): nothing behind it can be reached before the next one; run `lifeboat backup`"),
        );
    }
    status.reach = Some(best);
}

/// Restores that were interrupted, and those that can be taken back.
fn judge_restores(protected: &Protected, status: &mut Status) -> Result<()> {
    if let Some(files) = protected.source.files() {
        for (_, record) in tree_place::records(&files.root)? {
            if record.is_interrupted() {
                status.worsen(
                    Standing::AtRisk,
                    format!(
                        "restore {} was interrupted in the middle: run it again, or `lifeboat restore undo {}`",
                        record.id, record.id
                    ),
                );
            }
            if record.can_undo() || record.is_interrupted() {
                status.undo.push((record.id.clone(), record.is_interrupted()));
            }
        }
    }
    let Some(path) = protected.source.path() else {
        return Ok(());
    };
    for (_, record) in quarantine::records(path)? {
        if record.is_interrupted() {
            status.worsen(
                Standing::AtRisk,
                format!(
                    "restore {} was interrupted in the middle: run it again, or `lifeboat restore undo {}`",
                    record.id, record.id
                ),
            );
        }
        if record.can_undo() || record.is_interrupted() {
            status.undo.push((record.id.clone(), record.is_interrupted()));
        }
    }
    Ok(())
}

/// Every store is to answer and to hold the newest backup.
fn judge_stores(survey: &Survey, status: &mut Status) {
    for (store, error) in &survey.away {
        let says = if error.kind() == ErrorKind::NoRepository {
            format!(
                "the store {store} holds nothing of Lifeboat: the next backup fills a new one; of an old one the disk may not be mounted"
            )
        } else {
            format!("the store {store} does not answer: {error}")
        };
        status.worsen(Standing::AtRisk, says);
    }
    let Some(newest) = survey.listing().latest().map(|backup| backup.id) else {
        return;
    };
    let held = survey.backups.iter().find(|held| held.backup.id == newest);
    for (store, ..) in &survey.open {
        if held.is_some_and(|held| !held.stores.contains(store)) {
            let detail = format!(
                "the store {store} lacks the newest backup ({}): `lifeboat copy --to {store}` brings it there",
                newest.short()
            );
            status.worsen(Standing::AtRisk, detail);
        }
    }
}

/// A `verify` or `restore` that found damage has the last word until something newer is proven.
fn judge_damage(protected: &Protected, latest: &Backup, status: &mut Status) {
    for damage in proof::damage(&protected.state_dir, &protected.component) {
        let standing = if damage.backup == latest.id.to_string() {
            Standing::NotReady
        } else {
            Standing::AtRisk
        };
        let next = if damage.renewed {
            "what it had lost was stored anew since: `lifeboat verify` proves it"
        } else if damage.marked {
            "`lifeboat backup` stores anew what it has lost, `lifeboat verify` proves it; `lifeboat copy` brings a good copy from another store"
        } else {
            "`lifeboat backup` stores everything anew, `lifeboat verify` proves it"
        };
        status.worsen(
            standing,
            format!("backup {} is damaged ({}); {next}", damage.backup, damage.says),
        );
    }
}

/// Checks of a restored copy that failed have the last word until something newer passes them.
fn judge_checks(protected: &Protected, status: &mut Status) {
    if let Some(failed) = proof::failed_checks(&protected.state_dir, &protected.component) {
        let says = format!(
            "what was restored from backup {} did not pass its checks ({}): `lifeboat verify --level {} {}`",
            failed.backup,
            failed.says,
            failed.level.word(),
            protected.component
        );
        status.worsen(Standing::AtRisk, says);
    }
}

/// What the last backup found in a PKI, and what has ended or ends soon as of now.
fn judge_pki(env: &Env, protected: &Protected, status: &mut Status) {
    let Source::Pki { warn_expiry, .. } = &protected.source else {
        return;
    };
    let Some(known) = proof::pki(&protected.state_dir, &protected.component) else {
        return;
    };
    for problem in known.problems {
        status.worsen(Standing::AtRisk, format!("the PKI has a problem: {problem}"));
    }
    let now_s = env.clock.wall_us().div_euclid(1_000_000);
    for (what, end_s) in known.ends {
        let left = u64::try_from(end_s.saturating_sub(now_s)).map(Duration::from_secs);
        match left {
            Ok(left) if left > *warn_expiry => {}
            Ok(left) => status.worsen(Standing::AtRisk, format!("{what} runs out in {}", human_duration(left))),
            Err(_) => status.worsen(Standing::AtRisk, format!("{what} has run out")),
        }
    }
}

fn judge_age(env: &Env, protected: &Protected, latest: &Backup, status: &mut Status) {
    let reached_us = status.reach.as_ref().map(|reach| reach.until_us);
    let now_us = env.clock.wall_us();
    let has_log = reached_us.is_some_and(|reached_us| reached_us > latest.header.moment_us);
    // The server's clock may be a little ahead of this one's.
    let moment_us = reached_us.map_or(latest.header.moment_us, |reached_us| {
        reached_us.min(now_us).max(latest.header.moment_us)
    });
    let Ok(age_us) = u64::try_from(now_us - moment_us) else {
        status.worsen(Standing::AtRisk, "the newest backup is from the future: the clock of this machine or of the writer is wrong, so nobody knows how old it is".into());
        return;
    };
    let age = Duration::from_micros(age_us);
    status.loss = Some(age);
    match protected.rpo {
        Some(rpo) if age > rpo => {
            status.worsen(
                Standing::AtRisk,
                format!(
                    "{}, promised is a loss of {} at most",
                    if has_log {
                        format!("the log in the stores is complete until {} ago", human_duration(age))
                    } else {
                        format!("the newest backup is {} old", human_duration(age))
                    },
                    human_duration(rpo)
                ),
            );
        }
        Some(_) => {}
        None => status.worsen(
            Standing::AtRisk,
            "no objective is configured (`objectives: { rpo: …, rto: … }`)".into(),
        ),
    }
}

fn judge_proof(env: &Env, protected: &Protected, latest: &Backup, status: &mut Status) {
    let proofs = proof::load(&protected.state_dir, &protected.component);
    let restores: Vec<&Proof> = proofs.iter().filter(|proof| proof.level >= Level::Restore).collect();
    let runs: Vec<Run> = restores
        .iter()
        .filter(|proof| proof.took_s.is_finite() && proof.took_s > 0.0)
        .map(|proof| Run {
            bytes: proof.bytes,
            elapsed: Duration::from_secs_f64(proof.took_s),
        })
        .collect();
    let estimate = estimate(latest.header.size_bytes, &runs);
    if let Some(rto) = protected.rto
        && estimate.expected > rto
    {
        status.worsen(
            Standing::AtRisk,
            format!(
                "a restore takes about {}, promised are {}",
                human_duration(estimate.expected),
                human_duration(rto)
            ),
        );
    }
    status.restore = Some(estimate);
    status.proven = restores.last().map(|proof| (*proof).clone());
    match &status.proven {
        None => status.worsen(
            Standing::AtRisk,
            "no restore of it was ever proven from here (`lifeboat verify` does it)".into(),
        ),
        Some(proof) if proof.backup != latest.id.to_string() => {
            let Ok(age_us) = u64::try_from(env.clock.wall_us() - proof.at_us) else {
                status.worsen(
                    Standing::AtRisk,
                    "the last proven restore is from the future: the clock is or was wrong, so nobody knows how old the proof is"
                        .into(),
                );
                return;
            };
            let at = Duration::from_micros(age_us);
            if at > Duration::from_secs(31 * 24 * 3600) {
                status.worsen(
                    Standing::AtRisk,
                    format!("the last proven restore is {} ago", human_duration(at)),
                );
            }
        }
        Some(_) => {}
    }
}
