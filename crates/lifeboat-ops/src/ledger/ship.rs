//! `audit ship`: what waits here goes into the stores, and every store gets the records that another one holds.

use lifeboat_model::{Env, Error, Result};
use lifeboat_repo::{ChainId, Instance, LedgerName, Repository, get_record, open_record, put_record};

use super::home::Home;
use super::read::{Chains, gather};
use super::{Appended, append_all};
use crate::protected::{Place, Protected};

/// What was brought where.
#[derive(Debug, Default)]
#[must_use]
pub struct Shipped {
    /// Records that were copied into each store from others.
    pub copied: Vec<(String, u64)>,
    /// What came of the records of this machine.
    pub own: Appended,
    /// Stores that failed, with the reason.
    pub failed: Vec<(String, Error)>,
}

/// Brings every store what it lacks. `instance`: none where this machine has no signing key; then only what stands is copied.
///
/// # Errors
/// Where no store answers, or the state folder cannot be written to.
pub async fn ship(env: &Env, protected: &Protected, instance: Option<&Instance>) -> Result<Shipped> {
    let mut shipped = Shipped::default();
    if let Some(instance) = instance {
        shipped.own = append_all(env, protected, instance, Vec::new(), || {}).await?;
    }
    let chains = gather(protected, None, false).await?;
    shipped
        .failed
        .extend(chains.away.iter().map(|(store, error)| (store.clone(), error.duplicate())));
    let mut complete: Vec<(&Place, bool)> = Vec::new();
    for place in &protected.stores {
        let Some((_, there)) = chains.stores.iter().find(|(store, _)| *store == place.name) else {
            complete.push((place, false));
            continue;
        };
        let lacking: Vec<LedgerName> = chains
            .records
            .iter()
            .map(|record| record.name)
            .filter(|name| !there.contains(name) && !chains.waiting.contains(name))
            .collect();
        let brought = bring(protected, &chains, place, &lacking).await;
        let (count, error) = match brought {
            Ok(count) => (count, None),
            Err((count, error)) => (count, Some(error)),
        };
        if count > 0 {
            shipped.copied.push((place.name.clone(), count));
        }
        complete.push((place, error.is_none()));
        shipped.failed.extend(error.map(|error| (place.name.clone(), error)));
    }
    if let Some(repository) = chains.repository {
        for chain in Home::chains(protected, repository)? {
            let last = whole_until(&chains, chain);
            let stores: Vec<(&str, Option<u64>)> = complete
                .iter()
                .map(|(place, complete)| (place.name.as_str(), complete.then_some(last).flatten()))
                .collect();
            Home::of_chain(protected, chain).complete(repository, &stores)?;
        }
    }
    Ok(shipped)
}

/// Brings one store the records that another one holds. Returns how many it lacked.
///
/// # Errors
/// Where either does not answer, or `to` takes none.
pub async fn copy(protected: &Protected, from: &Place, to: &Place) -> Result<u64> {
    let both = Protected {
        stores: vec![from.clone(), to.clone()],
        ..protected.clone()
    };
    let mut chains = gather(&both, None, false).await?;
    if !chains.away.is_empty() {
        return Err(chains.away.swap_remove(0).1);
    }
    let Some((_, there)) = chains.stores.iter().find(|(store, _)| *store == to.name) else {
        return Ok(0);
    };
    let names = chains.records.iter().map(|record| record.name);
    let lacking: Vec<LedgerName> = names
        .filter(|name| !there.contains(name) && !chains.waiting.contains(name))
        .collect();
    bring(&both, &chains, to, &lacking).await.map_err(|(_, error)| error)
}

/// The last record of a chain that stands in the stores, where the chain has no hole before it.
fn whole_until(chains: &Chains, chain: ChainId) -> Option<u64> {
    let mut last = 0;
    let stored = chains.records.iter().filter(|record| !chains.waiting.contains(&record.name));
    for record in stored.filter(|record| record.name.chain == chain) {
        if record.name.at.seq > last + 1 {
            return None;
        }
        last = last.max(record.name.at.seq);
    }
    (last > 0).then_some(last)
}

/// Copies records into a store, in their order, each read and judged before.
async fn bring(
    protected: &Protected,
    chains: &Chains,
    place: &Place,
    lacking: &[LedgerName],
) -> std::result::Result<u64, (u64, Error)> {
    let mut count = 0;
    let open = |place: &Place| Repository::open(std::sync::Arc::clone(&place.store));
    let to = open(place).await.map_err(|error| (0, error))?;
    for name in lacking {
        for (store, there) in &chains.stores {
            let Some(from) = protected.stores.iter().find(|place| place.name == *store) else {
                continue;
            };
            if !there.contains(name) || from.name == place.name {
                continue;
            }
            let copied = async {
                let from = open(from).await?;
                let stored = get_record(&from, &protected.component, name).await?;
                open_record(from.id(), &protected.component, &protected.trust, name, &stored)?;
                put_record(&to, &protected.component, name, stored).await
            };
            match copied.await {
                Ok(()) => {
                    count += 1;
                    break;
                }
                Err(error) => return Err((count, error)),
            }
        }
    }
    Ok(count)
}
