//! All records of a component: of all stores and instances, and what waits here; judged, oldest first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{ChainId, LedgerName, LedgerRecord, Repository, list_ledger, open_record, read_ledger};

use super::catalog::Catalog;
use super::home::Home;
use crate::protected::Protected;

/// Something under `ledger/` that is no record that anybody known signed.
#[derive(Debug)]
pub struct Refused {
    /// In which store.
    pub store: String,
    /// Its name there.
    pub name: String,
    /// Why.
    pub error: Error,
}

/// What the ledger of a component holds.
#[derive(Debug, Default)]
pub struct Chains {
    /// Every record that reads, once, oldest first: within a chain by number, between chains by the time that they tell.
    pub records: Vec<LedgerRecord>,
    /// What does not.
    pub refused: Vec<Refused>,
    /// Stores that did not answer.
    pub away: Vec<(String, Error)>,
    /// Which of the records each store holds whose name was read there, in the order of preference.
    pub stores: Vec<(String, BTreeSet<LedgerName>)>,
    /// Records of this machine that no store was given yet.
    pub waiting: BTreeSet<LedgerName>,
    /// The repository.
    pub repository: Option<lifeboat_repo::RepositoryId>,
}

/// Reads the ledger of a component, each record from the first store that has it.
///
/// # Errors
/// Where no store answers.
pub async fn read(protected: &Protected) -> Result<Chains> {
    gather(protected, None, false).await
}

/// The same, where records that the catalog has are not fetched again; they are judged again. What is new goes into it.
///
/// # Errors
/// As [`read`]. A catalog that fails is no error: it is not needed.
pub async fn read_with(protected: &Protected, catalog: &mut Catalog) -> Result<Chains> {
    gather(protected, Some(catalog), false).await
}

/// `everywhere`: every record is read in every store.
pub(super) async fn gather(protected: &Protected, mut catalog: Option<&mut Catalog>, everywhere: bool) -> Result<Chains> {
    let mut chains = Chains::default();
    let mut found: BTreeMap<LedgerName, LedgerRecord> = BTreeMap::new();
    for place in &protected.stores {
        let listed = async {
            let repository = Repository::open(Arc::clone(&place.store)).await?;
            if chains.repository.is_some_and(|known| known != repository.id()) {
                let detail = format!("it holds another repository ({})", repository.id());
                return Err(Error::new(ErrorKind::Refused, "read the ledger in", &place.name, detail));
            }
            let listing = list_ledger(&repository, &protected.component).await?;
            let mut wanted = listing.names.clone();
            if !everywhere {
                if let Some(catalog) = catalog.as_deref_mut() {
                    from_catalog(catalog, protected, &repository, &listing.names, &mut found);
                }
                wanted.retain(|name| !found.contains_key(name));
            }
            let read = read_ledger(&repository, &protected.component, &protected.trust, wanted).await?;
            Ok((repository, listing, read))
        };
        match listed.await {
            Err(error) => chains.away.push((place.name.clone(), error)),
            Ok((repository, listing, read)) => {
                chains.repository = Some(repository.id());
                let mut there: BTreeSet<LedgerName> = listing.names.into_iter().collect();
                for name in listing.unknown {
                    let error = Error::new(ErrorKind::Corrupt, "accept record", &name, "it has no name of a record");
                    chains.refuse(&place.name, name, error);
                }
                for (name, read) in read {
                    match read {
                        Ok((record, stored)) => {
                            if let Some(catalog) = catalog.as_deref_mut() {
                                catalog.keep(repository.id(), &protected.component, &record, &stored);
                            }
                            found.insert(name, record);
                        }
                        Err(error) => {
                            there.remove(&name);
                            chains.refuse(&place.name, name.to_string(), error);
                        }
                    }
                }
                chains.stores.push((place.name.clone(), there));
            }
        }
    }
    if chains.stores.is_empty() {
        let first = chains.away.into_iter().next().map(|(_, error)| error);
        return Err(
            first.unwrap_or_else(|| Error::new(ErrorKind::Bug, "read the ledger of", &protected.component, "it has no store"))
        );
    }
    own_waiting(protected, &mut chains, &mut found)?;
    chains.records = in_order(found);
    Ok(chains)
}

impl Chains {
    fn refuse(&mut self, store: &str, name: String, error: Error) {
        self.refused.push(Refused {
            store: store.to_owned(),
            name,
            error,
        });
    }
}

fn from_catalog(
    catalog: &mut Catalog,
    protected: &Protected,
    repository: &Repository,
    names: &[LedgerName],
    found: &mut BTreeMap<LedgerName, LedgerRecord>,
) {
    let known = catalog.known(repository.id(), &protected.component);
    for name in names {
        let Some(stored) = known.get(name) else { continue };
        if let Ok(record) = open_record(repository.id(), &protected.component, &protected.trust, name, stored) {
            found.insert(*name, record);
        }
    }
}

/// Records of instances of this state folder that wait for a store.
fn own_waiting(protected: &Protected, chains: &mut Chains, found: &mut BTreeMap<LedgerName, LedgerRecord>) -> Result<()> {
    let Some(repository) = chains.repository else { return Ok(()) };
    for chain in Home::chains(protected, repository)? {
        for (name, stored) in Home::of_chain(protected, chain).pending(repository)? {
            if chains.stores.iter().all(|(_, there)| there.contains(&name)) {
                continue;
            }
            if let Ok(record) = open_record(repository, &protected.component, &protected.trust, &name, &stored) {
                chains.waiting.insert(name);
                found.insert(name, record);
            }
        }
    }
    Ok(())
}

/// Oldest first: chains side by side, each in its own order.
fn in_order(found: BTreeMap<LedgerName, LedgerRecord>) -> Vec<LedgerRecord> {
    let mut chains: BTreeMap<ChainId, std::collections::VecDeque<LedgerRecord>> = BTreeMap::new();
    let count = found.len();
    for (name, record) in found {
        chains.entry(name.chain).or_default().push_back(record);
    }
    let mut ordered = Vec::with_capacity(count);
    loop {
        let next = chains
            .iter()
            .filter_map(|(chain, records)| records.front().map(|record| (record.at_us, *chain)))
            .min();
        let Some((_, chain)) = next else { return ordered };
        ordered.extend(chains.get_mut(&chain).and_then(std::collections::VecDeque::pop_front));
    }
}
