//! Which store holds what the spool still has, as that store answers by itself, and bringing it what it missed (PG-03).
//!
//! Asks by listing, header and key file: a name alone proves nothing, and log whose key is elsewhere cannot be opened.

use std::sync::Arc;

use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{ErrorKind, Result};
use lifeboat_repo::{Appended, Lineage, LogFileKind, LogName, Repository, confirm_log, copy_log, list_log};

use super::Shipper;
use crate::follow::{Shared, in_a_line};
use crate::protected::{Place, Protected};

impl Shipper {
    /// Whether something that was put, or stood there, is not yet known to be in every store that is required.
    pub(super) fn lacks(&self) -> bool {
        let stores = &self.shared.protected.stores;
        stores.len() > 1 && self.appended.iter().any(|range| !self.is_held_everywhere(*range))
    }

    pub(super) fn is_held_everywhere(&self, range: Range) -> bool {
        let holds = |place: &Place| self.held_in.get(&place.name).is_some_and(|held| held.holds(range));
        let stores = &self.shared.protected.stores;
        stores.len() < 2 || stores.iter().filter(|place| place.required).all(holds)
    }

    /// Asks each store, beside everything else, for what the spool has. One that lacks something gets it from the others; with `whole`,
    /// everything that it missed.
    pub(super) fn heal(&mut self, whole: bool) {
        if self.shared.protected.stores.len() < 2 {
            return;
        }
        self.healed_at = Some(self.shared.env.clock.monotonic());
        let wanted: Vec<Range> = self.shared.spool().ranges().collect();
        for to in self.shared.protected.stores.clone() {
            let (shared, wanted) = (Arc::clone(&self.shared), wanted.clone());
            self.healing.spawn(async move {
                let target = Repository::open(Arc::clone(&to.store)).await?;
                let mut held = confirmed(&shared, &target, &wanted).await?;
                if whole || !wanted.iter().all(|range| held.holds(*range)) {
                    copy(&shared, &target, &to.name).await?;
                    held = confirmed(&shared, &target, &wanted).await?;
                }
                Ok((to.name, held))
            });
        }
    }
}

/// Copies from every other store what this one has not.
async fn copy(shared: &Shared, target: &Repository, name: &str) -> Result<()> {
    let (env, protected) = (&shared.env, &shared.protected);
    for from in protected.stores.iter().filter(|from| from.name != name) {
        let Ok(source) = Repository::open(Arc::clone(&from.store)).await else {
            continue;
        };
        let copied = copy_log(env, &source, target, &protected.component, &shared.instance, &protected.trust).await?;
        if copied.files > 0 {
            shared.note(format!("{name} got {} files of log that it had missed", copied.files));
        }
        for (file, error) in &copied.failed {
            shared.note(format!("{file} could not be copied to {name}: {}", in_a_line(error)));
        }
    }
    Ok(())
}

/// What a store holds of `wanted`, as far as its files fit and their keys are there.
async fn confirmed(shared: &Shared, target: &Repository, wanted: &[Range]) -> Result<Coverage> {
    let protected = &shared.protected;
    let listing = list_log(target, &protected.component, &protected.trust).await?;
    let is_wanted = |name: &&LogName| name.kind != LogFileKind::History && wanted.iter().any(|range| range.overlaps(&name.range));
    let names = listing.files(shared.lineage).iter().filter(is_wanted).copied().collect();
    let mut held = Coverage::new();
    let confirmed = confirm_log(target, &protected.component, &protected.trust, shared.lineage, names).await?;
    confirmed.iter().for_each(|name| held.add(name.range));
    Ok(held)
}

/// Whether every store that is required took what was put.
pub(crate) fn took(protected: &Protected, done: &Appended) -> bool {
    let took = |place: &Place| {
        // One store alone has answered, whatever it is called.
        protected.stores.len() < 2
            || done
                .stores
                .iter()
                .any(|store| store.store == place.name && store.missing.is_none())
    };
    protected.stores.iter().filter(|place| place.required).all(took)
}

/// Whether what was appended stands in every store that is required, in whichever file, each asked by itself. One that does not answer has not said so.
pub(crate) async fn stands_everywhere(protected: &Protected, lineage: Lineage, done: &Appended) -> Result<bool> {
    let names: Vec<LogName> = done.others.iter().copied().chain([done.name]).collect();
    if protected.stores.len() < 2 {
        return Ok(true);
    }
    for place in protected.stores.iter().filter(|place| place.required) {
        let asked = async {
            let repository = Repository::open(Arc::clone(&place.store)).await?;
            confirm_log(&repository, &protected.component, &protected.trust, lineage, names.clone()).await
        };
        match asked.await {
            Ok(there) if there.is_empty() => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Bug => return Err(error),
            Err(_away) => return Ok(false),
        }
    }
    Ok(true)
}
