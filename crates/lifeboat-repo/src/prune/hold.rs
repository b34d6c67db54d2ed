//! Holds: backups that nobody may delete until they are released or run out (format 9).

use std::collections::BTreeMap;

use lifeboat_model::{Env, Error, ErrorKind, Result};

pub use super::records::Hold;
use super::records::{About, HoldJson, Place};
use crate::id::{BackupId, ComponentName, SessionId};
use crate::key::instance::{Instance, Trust};
use crate::repository::Repository;
use crate::signed::Kind;
use crate::time::format_utc;

/// What to hold, how long and why.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// Its id, where it lies in several stores under one; none draws one.
    pub id: Option<SessionId>,
    /// A backup; none holds every one that there is and will be.
    pub backup: Option<BackupId>,
    /// Until when, microseconds since 1970; none has no end.
    pub until_us: Option<i64>,
    /// Why: it is told wherever the hold keeps something.
    pub reason: String,
}

/// Holds backups of a component. It holds from the moment when it is listed: a backup that a sweep names already is lost.
pub async fn add_hold(
    env: &Env,
    repository: &Repository,
    component: &ComponentName,
    instance: &Instance,
    trust: &Trust,
    request: &HoldRequest,
) -> Result<Hold> {
    if !trust.rights_of(&instance.public_key()).is_some_and(|rights| rights.hold) {
        return Err(may_not(component, instance));
    }
    let place = Place {
        repository,
        component,
        trust,
    };
    let id = match request.id {
        Some(id) => id.to_string(),
        None => SessionId::draw(env)?.to_string(),
    };
    let json = HoldJson {
        about: About::new(repository.id(), component, instance),
        hold: id.clone(),
        held_at: format_utc(env.clock.wall_us()),
        backup: request.backup.map(|backup| backup.to_string()),
        until: request.until_us.map(format_utc),
        reason: request.reason.clone(),
    };
    let key = place
        .put(Kind::Hold, instance, &json, |hash| format!("holds/{id}-{hash}"))
        .await?;
    place.hold(&key).await
}

/// All holds of a component, those that have run out among them, oldest first. One that cannot be judged is an error: nobody can say what
/// it holds.
pub async fn list_holds(repository: &Repository, component: &ComponentName, trust: &Trust) -> Result<Vec<Hold>> {
    list_of(&Place {
        repository,
        component,
        trust,
    })
    .await
}

pub(super) async fn list_of(place: &Place<'_>) -> Result<Vec<Hold>> {
    let mut holds = Vec::new();
    for entry in place.store().list(&place.folder()?.join("holds")?).await? {
        match place.hold(&entry.key).await {
            Ok(hold) => holds.push(hold),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let detail = format!("nobody can say what it holds: {}", error.detail());
                let hint = error
                    .hint()
                    .unwrap_or("look at the file; once it is explained and removed, go on")
                    .to_owned();
                return Err(Error::new(ErrorKind::Refused, "judge", &entry.key, detail)
                    .with_hint(hint)
                    .with_source(error));
            }
        }
    }
    holds.sort_by(|a, b| (a.held_at_us, &a.id).cmp(&(b.held_at_us, &b.id)));
    Ok(holds)
}

/// Releases the hold whose id begins with `id`.
pub async fn release_hold(
    repository: &Repository,
    component: &ComponentName,
    instance: &Instance,
    trust: &Trust,
    id: &str,
) -> Result<Hold> {
    if !trust.rights_of(&instance.public_key()).is_some_and(|rights| rights.hold) {
        return Err(may_not(component, instance));
    }
    let mut found: BTreeMap<String, Hold> = list_holds(repository, component, trust)
        .await?
        .into_iter()
        .filter(|hold| !id.is_empty() && hold.id.starts_with(id))
        .map(|hold| (hold.id.clone(), hold))
        .collect();
    let error = |detail: &str| {
        Error::new(ErrorKind::NoSuchPoint, "release the hold", format!("{id:?}"), detail)
            .with_hint("`lifeboat hold list` shows all holds")
    };
    let (Some((_, hold)), true) = (found.pop_first(), found.is_empty()) else {
        return Err(if found.is_empty() {
            error("there is no such hold")
        } else {
            error("several holds begin like that: give more of it")
        });
    };
    repository.store().delete(&hold.key).await?;
    Ok(hold)
}

fn may_not(component: &ComponentName, instance: &Instance) -> Error {
    let detail = format!("the instance {} may not hold or release", instance.name());
    Error::new(ErrorKind::Refused, "hold backups of", component, detail)
        .with_hint("allow it: `may: [backup, prune, hold]` under `instances:` in lifeboat.yaml")
}
