//! The verb `hold`: backups that nobody may delete, in every store of a component.
//!
//! A hold is one thing with one id, however many stores it lies in. Each store is asked by itself; one that does not answer is told, and
//! never stands for one that holds nothing.

use std::sync::Arc;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Hold, HoldRequest, Instance, Repository, SessionId, add_hold, list_holds, release_hold};

use crate::protected::{Choice, Place, Protected, choose};
use crate::stores;

/// What to hold.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which backup, as people type it; none holds every one that there is and will be.
    pub backup: Option<String>,
    /// Until when, microseconds since 1970; none has no end.
    pub until_us: Option<i64>,
    /// Why.
    pub reason: String,
}

/// Holds of one component, store by store.
#[derive(Debug, Default)]
#[must_use]
pub struct Report {
    /// What is held (or was released), with the store.
    pub holds: Vec<(String, Hold)>,
    /// Stores where the backup does not stand, so that there is nothing to hold.
    pub without: Vec<String>,
    /// Stores that failed, with the reason.
    pub failed: Vec<(String, Error)>,
}

impl Report {
    /// The report, or the first error where nothing came of it in any store.
    fn unless_all_failed(mut self) -> Result<Self> {
        if self.holds.is_empty() && self.without.is_empty() && !self.failed.is_empty() {
            return Err(self.failed.swap_remove(0).1);
        }
        Ok(self)
    }
}

/// Holds a backup in every store where it counts, or all backups in every store. What people type is looked up once, among the backups of
/// all stores, so that `latest` is the same one everywhere.
pub async fn add(env: &Env, protected: &Protected, instance: &Instance, request: &Request) -> Result<Report> {
    let mut report = Report::default();
    let survey = stores::survey(protected).await?;
    report
        .failed
        .extend(survey.away.iter().map(|(name, error)| (name.clone(), error.duplicate())));
    let backup = match &request.backup {
        None => None,
        Some(text) => Some(choose(&survey.listing(), &Choice::Named(text.clone()), &protected.component)?.id),
    };
    let wanted = HoldRequest {
        id: Some(SessionId::draw(env)?),
        backup,
        until_us: request.until_us,
        reason: request.reason.clone(),
    };
    for (name, repository, backups) in &survey.open {
        if backup.is_some_and(|id| !backups.iter().any(|there| there.id == id)) {
            report.without.push(name.clone());
            continue;
        }
        match add_hold(env, repository, &protected.component, instance, &protected.trust, &wanted).await {
            Ok(hold) => report.holds.push((name.clone(), hold)),
            Err(error) => report.failed.push((name.clone(), error)),
        }
    }
    report.unless_all_failed()
}

/// All holds of a component, in every store.
pub async fn list(protected: &Protected) -> Result<Report> {
    let mut report = Report::default();
    for place in &protected.stores {
        match held_in(protected, place).await {
            Ok(holds) if holds.is_empty() => report.without.push(place.name.clone()),
            Ok(holds) => report.holds.extend(holds.into_iter().map(|hold| (place.name.clone(), hold))),
            Err(error) => report.failed.push((place.name.clone(), error)),
        }
    }
    report.unless_all_failed()
}

async fn held_in(protected: &Protected, place: &Place) -> Result<Vec<Hold>> {
    let repository = Repository::open(Arc::clone(&place.store)).await?;
    list_holds(&repository, &protected.component, &protected.trust).await
}

/// Releases the hold of the whole id `id` in every store that has it.
pub async fn release(protected: &Protected, instance: &Instance, id: &str) -> Result<Report> {
    let mut report = Report::default();
    for place in &protected.stores {
        let released = async {
            let repository = Repository::open(Arc::clone(&place.store)).await?;
            release_hold(&repository, &protected.component, instance, &protected.trust, id).await
        };
        match released.await {
            Ok(hold) => report.holds.push((place.name.clone(), hold)),
            Err(error) if error.kind() == ErrorKind::NoSuchPoint => report.without.push(place.name.clone()),
            Err(error) => report.failed.push((place.name.clone(), error)),
        }
    }
    report.unless_all_failed()
}
