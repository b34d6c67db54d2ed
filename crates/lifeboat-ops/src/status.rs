//! The verb `status`: can I recover, to which moment, losing how much, how long will it take, proven when.
//!
//! Here facts are gathered; what they mean is decided by [`readiness::judge`]. What could not be found out is a fact, too.

use std::time::Duration;

use lifeboat_model::estimate::{Estimate, Run, estimate};
use lifeboat_model::readiness::{
    self, Away, Damage, Facts, FailedChecks, FollowedLog, LogReach, Newest, Pki, Readiness, Schedule, Standing, StoredLog,
};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader};

use crate::follow;
use crate::proof::{self, Level, Proof};
use crate::protected::{Choice, Protected, Source};
use crate::reach::{self, LogEnd};
use crate::restore::{quarantine, tree_place};
use crate::store::Thaw;
use crate::stores::{self, Survey};

/// The five answers for one component, and the facts behind them.
#[derive(Debug, Default)]
pub struct Status {
    /// Of what.
    pub component: String,
    /// What is known.
    pub facts: Facts,
    /// The newest backup that counts.
    pub latest: Option<Backup>,
    /// Moment of the oldest backup that counts.
    pub oldest_us: Option<i64>,
    /// Backups that count.
    pub backups: usize,
    /// Stored backups that do not count.
    pub rejected: usize,
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
    /// The stores that hold the newest backup.
    pub holders: Vec<String>,
    /// Why nothing can be said: no store answers, or none holds a repository.
    pub silent: Option<ErrorKind>,
}

/// Asks store, state and source. A store that cannot be reached is an answer, not a failure.
pub async fn run(env: &Env, protected: &Protected) -> Status {
    let mut status = Status {
        component: protected.component.to_string(),
        facts: Facts {
            now_us: env.clock.wall_us(),
            rpo: protected.rpo,
            rto: protected.rto,
            ..Facts::default()
        },
        ..Status::default()
    };
    followed_log(protected, &mut status);
    if let Err(error) = fill(protected, &mut status).await {
        status.not_known(&error);
    }
    status
}

impl Status {
    /// Nothing could be found out, and this is why.
    pub fn unknown(component: &str, error: &Error) -> Self {
        let mut status = Self {
            component: component.to_owned(),
            ..Self::default()
        };
        status.not_known(error);
        status.silent = Some(error.kind());
        status
    }

    fn not_known(&mut self, error: &Error) {
        self.silent = matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::NoRepository).then(|| error.kind());
        self.facts.unknown = Some(with_hint(error));
    }

    /// What the facts mean.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        readiness::judge(&self.facts)
    }

    /// What would be lost now: the age of the newest backup, or the time since the log in the stores is complete.
    #[must_use]
    pub fn loss(&self) -> Option<Duration> {
        readiness::loss(&self.facts).flatten()
    }

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
        self.facts.key = Some(opened.await.map_err(|error| with_hint(&error)));
    }

    /// Takes into account what of the newest backup lies in an archive: a restore begins only when it is back.
    pub fn judge_archive(&mut self, thaw: &Thaw) {
        if !thaw.is_done() {
            self.restore = self.restore.map(|estimate| estimate.after(thaw.expected, thaw.slowest));
            self.facts.archived = Some((thaw.expected, thaw.says()));
        }
    }

    /// Takes into account how often backups are scheduled. `says` is the schedule in words.
    pub fn judge_schedule(&mut self, interval: Duration, whole_run: Duration, says: String) {
        self.facts.schedule = Some(Schedule {
            interval,
            whole_run,
            says,
        });
    }

    /// The kind of error that a script should see: none when ready.
    #[must_use]
    pub fn failure(&self) -> Option<ErrorKind> {
        match self.readiness().standing {
            Standing::Ready => None,
            Standing::AtRisk => Some(ErrorKind::ObjectiveMissed),
            Standing::NotReady => Some(self.silent.unwrap_or(ErrorKind::Failed)),
        }
    }
}

fn with_hint(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{error}{hint}")
}

async fn fill(protected: &Protected, status: &mut Status) -> Result<()> {
    restores(protected, status)?;
    let survey = stores::survey(protected).await?;
    at_stores(&survey, status);
    let listing = survey.listing();
    status.backups = listing.backups.len();
    status.rejected = survey.rejected.len();
    status.oldest_us = listing.backups.iter().map(|backup| backup.header.moment_us).min();
    let rejected = survey.rejected.iter().map(|(_, rejected)| rejected.reason.to_string());
    status.facts.rejected = rejected.collect();
    // Numbers go up for ever: a lower one at the top means that the newest is gone.
    let top = listing.backups.last().map(|backup| backup.id.to_string());
    let vanished = proof::vanished(&protected.state_dir, &protected.component, top.as_deref());
    status.facts.vanished = vanished.filter(|newest| !listing.rejected.iter().any(|rejected| rejected.name == *newest));
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
    status.facts.newest = Some(Newest {
        id: latest.id.to_string(),
        moment_us: latest.header.moment_us,
    });
    stored_log(protected, &survey, latest, status).await;
    proofs(protected, latest, status);
    damage(protected, status);
    status.latest = Some(latest.clone());
    Ok(())
}

/// What whoever follows on this host last said.
fn followed_log(protected: &Protected, status: &mut Status) {
    if protected.source.cluster().is_none() {
        return;
    }
    status.facts.refused_log = follow::refused_pushes(protected);
    status.log = follow::standing(&protected.state_dir, &protected.component);
    status.facts.log = status.log.as_ref().map(|log| FollowedLog {
        stored_us: log.stored_us,
        slot_lag: log.slot_lag(),
        max_slot_lag: log.max_slot_lag,
        spool_bytes: log.spool_bytes,
        max_spool: log.max_spool,
    });
}

/// How far the log in the stores reaches behind the newest backup, and what is missing of it.
async fn stored_log(protected: &Protected, survey: &Survey, latest: &Backup, status: &mut Status) {
    if latest.header.log.is_none() {
        return;
    }
    let mut ends = Vec::new();
    for (store, repository, backup) in survey.holders(&latest.id) {
        let reach = match reach::log_end(protected, &store, &repository, &backup).await {
            Ok(Some(end)) => {
                let missing = end.missing.iter().map(ToString::to_string).collect();
                let reach = LogReach::Until(end.until_us, missing);
                ends.push(end);
                reach
            }
            Ok(None) => LogReach::Nothing,
            Err(error) => LogReach::Unknown(error.to_string()),
        };
        status.facts.stored_log.push(StoredLog { store, reach });
    }
    status.reach = ends.into_iter().max_by_key(|end| (end.until_us, end.position));
}

/// Restores that were interrupted, and those that can be taken back.
fn restores(protected: &Protected, status: &mut Status) -> Result<()> {
    let mut found = Vec::new();
    if let Some(files) = protected.source.files() {
        let records = tree_place::records(&files.root)?.into_iter();
        found.extend(records.map(|(_, record)| (record.is_interrupted(), record.can_undo(), record.id)));
    }
    if let Some(path) = protected.source.path() {
        let records = quarantine::records(path)?.into_iter();
        found.extend(records.map(|(_, record)| (record.is_interrupted(), record.can_undo(), record.id)));
    }
    for (is_interrupted, can_undo, id) in found {
        if is_interrupted {
            status.facts.interrupted.push(id.clone());
        }
        if can_undo || is_interrupted {
            status.undo.push((id, is_interrupted));
        }
    }
    Ok(())
}

/// Every store is to answer and to hold the newest backup.
fn at_stores(survey: &Survey, status: &mut Status) {
    for (store, error) in &survey.away {
        status.facts.away.push(Away {
            store: store.clone(),
            is_empty: error.kind() == ErrorKind::NoRepository,
            says: error.to_string(),
        });
    }
    let Some(newest) = survey.listing().latest().map(|backup| backup.id) else {
        return;
    };
    let Some(held) = survey.backups.iter().find(|held| held.backup.id == newest) else {
        return;
    };
    status.holders.clone_from(&held.stores);
    let lacking = survey.open.iter().filter(|(store, ..)| !held.stores.contains(store));
    status.facts.lacking = lacking.map(|(store, ..)| (store.clone(), newest.short())).collect();
}

/// What was found wrong, and not yet proven to be mended.
fn damage(protected: &Protected, status: &mut Status) {
    let damage = proof::damage(&protected.state_dir, &protected.component).into_iter();
    status.facts.damage = damage
        .map(|damage| Damage {
            backup: damage.backup,
            says: damage.says,
            renewed: damage.renewed,
            marked: damage.marked,
        })
        .collect();
    status.facts.failed_checks = proof::failed_checks(&protected.state_dir, &protected.component).map(|failed| FailedChecks {
        again: format!("lifeboat verify --level {} {}", failed.level.word(), protected.component),
        backup: failed.backup,
        says: failed.says,
    });
    if let Source::Pki { warn_expiry, .. } = &protected.source {
        status.facts.pki = proof::pki(&protected.state_dir, &protected.component).map(|known| Pki {
            problems: known.problems,
            ends: known.ends,
            warn: *warn_expiry,
        });
    }
}

/// What was proven, and how long a restore will take by that.
fn proofs(protected: &Protected, latest: &Backup, status: &mut Status) {
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
    status.facts.restore = Some(estimate.expected);
    status.restore = Some(estimate);
    status.proven = restores.last().map(|proof| (*proof).clone());
    status.facts.proven = status.proven.as_ref().map(|proof| (proof.backup.clone(), proof.at_us));
}
