//! Looks at what the stores hold: where our own chain ends there, and the newest records of others.
//!
//! Once a day, and where this machine does not know. A machine whose state was lost goes on behind what stands; one that was set back or copied
//! finds records that it does not remember, goes on behind them too, and says so. Nothing is overwritten.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Env, Result};
use lifeboat_repo::{ChainId, Instance, LedgerHead, LedgerName, Repository, RepositoryId, list_ledger, read_ledger};

use super::home::{Home, Span, Standing};
use super::{Appended, PATIENCE};
use crate::protected::{Place, Protected};

/// The names in each store that answered.
struct Listed<'a> {
    stores: Vec<(&'a Place, &'a Repository, BTreeSet<LedgerName>)>,
}

impl Listed<'_> {
    /// The places of a chain, over all stores.
    fn of_chain(&self, chain: ChainId) -> BTreeSet<LedgerHead> {
        let names = self.stores.iter().flat_map(|(.., names)| names);
        names.filter(|name| name.chain == chain).map(|name| name.at).collect()
    }

    fn chains(&self) -> BTreeSet<ChainId> {
        self.stores
            .iter()
            .flat_map(|(.., names)| names)
            .map(|name| name.chain)
            .collect()
    }

    fn has(&self, name: &LedgerName) -> bool {
        self.stores.iter().any(|(.., names)| names.contains(name))
    }
}

/// Returns whether any store said what it holds.
pub(super) async fn look(
    env: &Env,
    protected: &Protected,
    instance: &Instance,
    home: &Home,
    repository: RepositoryId,
    open: &[(&Place, Repository)],
    appended: &mut Appended,
) -> Result<bool> {
    let mut listed = Listed { stores: Vec::new() };
    for (place, there) in open {
        // One that cannot be listed is told when its records are put.
        if let Ok(Ok(listing)) = tokio::time::timeout(PATIENCE, list_ledger(there, &protected.component)).await {
            listed.stores.push((place, there, listing.names.into_iter().collect()));
        }
    }
    if listed.stores.is_empty() {
        return Ok(false);
    }
    let own = listed.of_chain(home.chain);
    let config = match home.standing(repository)? {
        Some(standing) => {
            let config = standing.config.clone();
            compare(home, repository, &standing, &listed, &own, appended)?.then_some(config)
        }
        None => Some(BTreeMap::new()),
    };
    if let Some(config) = config {
        begin(protected, home, repository, &listed, &own, appended).await?;
        home.remember_config(&config)?;
    }
    let heads = heads(protected, home, repository, &listed).await?;
    let now_us = env.clock.wall_us();
    home.update(repository, |standing| {
        standing.heads.extend(heads);
        standing.looked_at_us = now_us;
    })?;
    debug_assert_eq!(
        home.chain,
        lifeboat_repo::chain_of(&instance.public_key()),
        "one instance, one chain"
    );
    Ok(true)
}

/// What this machine remembers, against what stands. Returns whether it has to begin with what stands.
fn compare(
    home: &Home,
    repository: RepositoryId,
    standing: &Standing,
    listed: &Listed<'_>,
    own: &BTreeSet<LedgerHead>,
    appended: &mut Appended,
) -> Result<bool> {
    let pending: BTreeSet<LedgerHead> = home.pending(repository)?.into_iter().map(|(name, _)| name.at).collect();
    let known = standing.head()?.filter(|head| !pending.contains(head));
    let shipped = standing.shipped_most();
    let strange = |head: &&LedgerHead| head.seq > shipped && !pending.contains(head) && Some(**head) != known;
    if let Some(first) = own.iter().find(strange) {
        appended.notes.push(format!(
            "the ledger in the stores goes on with record {} of this instance, which this machine does not remember: its state was set back, or a copy \
             of it runs; records go on behind that; give every copy a signing key of its own",
            first.seq
        ));
        home.set_aside(repository, |name| listed.has(name))?;
        appended.records.clear();
        return Ok(true);
    }
    tell_forks(own, appended);
    for (place, _, names) in &listed.stores {
        let there = names
            .iter()
            .filter(|name| name.chain == home.chain)
            .map(|name| name.at.seq)
            .max()
            .unwrap_or(0);
        if there < standing.shipped_to(&place.name) {
            appended.notes.push(format!(
                "the store {} does not hold records any more that were put there; `lifeboat audit verify` says which",
                place.name
            ));
        }
    }
    Ok(false)
}

fn tell_forks(own: &BTreeSet<LedgerHead>, appended: &mut Appended) {
    let mut before = None;
    for head in own {
        if before == Some(head.seq) {
            appended.notes.push(format!(
                "the ledger of this instance has two records with the number {}: its state was set back, or a copy of it runs; `lifeboat audit verify` shows them",
                head.seq
            ));
            return;
        }
        before = Some(head.seq);
    }
}

/// Takes from the stores where the chain ends.
async fn begin(
    protected: &Protected,
    home: &Home,
    repository: RepositoryId,
    listed: &Listed<'_>,
    own: &BTreeSet<LedgerHead>,
    appended: &mut Appended,
) -> Result<()> {
    tell_forks(own, appended);
    let mut head = None;
    // Of a fork the first by name, as anybody would choose it.
    let mut order: Vec<LedgerHead> = own.iter().copied().collect();
    order.sort_by_key(|head| (std::cmp::Reverse(head.seq), head.hash));
    for at in order {
        if is_sound(protected, listed, LedgerName { chain: home.chain, at }).await? {
            head = Some(at);
            break;
        }
    }
    let mut stores = BTreeMap::new();
    for (place, _, names) in &listed.stores {
        let Some(head) = head else { break };
        let there: BTreeSet<u64> = names
            .iter()
            .filter(|name| name.chain == home.chain)
            .map(|name| name.at.seq)
            .collect();
        if names.contains(&LedgerName {
            chain: home.chain,
            at: head,
        }) {
            let from = (1..=head.seq)
                .rev()
                .take_while(|seq| there.contains(seq))
                .last()
                .unwrap_or(head.seq);
            stores.insert(place.name.clone(), Span { from, to: head.seq });
        }
    }
    if let Some(head) = head {
        appended.notes.push(format!(
            "this machine did not know where its ledger ends; it goes on behind record {}, as the stores say",
            head.seq
        ));
    }
    home.adopt(repository, head, stores)
}

/// Whether the record reads in any store that has it.
async fn is_sound(protected: &Protected, listed: &Listed<'_>, name: LedgerName) -> Result<bool> {
    for (_, repository, names) in &listed.stores {
        if !names.contains(&name) {
            continue;
        }
        let read = read_ledger(repository, &protected.component, &protected.trust, vec![name]).await?;
        if read.iter().any(|(_, read)| read.is_ok()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The newest sound records of the other chains, where they are newer than what is known.
async fn heads(
    protected: &Protected,
    home: &Home,
    repository: RepositoryId,
    listed: &Listed<'_>,
) -> Result<BTreeMap<String, String>> {
    let known = home.standing(repository)?.unwrap_or_default().heads;
    let mut heads = BTreeMap::new();
    for chain in listed.chains().into_iter().filter(|chain| *chain != home.chain) {
        let Some(last) = listed.of_chain(chain).last().copied() else {
            continue;
        };
        let before = known.get(&chain.to_string()).and_then(|head| head.parse::<LedgerHead>().ok());
        // One that ends earlier than was seen before is told by naming what was seen.
        if before.is_none_or(|before| before.seq < last.seq)
            && is_sound(protected, listed, LedgerName { chain, at: last }).await?
        {
            heads.insert(chain.to_string(), last.to_string());
        }
    }
    Ok(heads)
}
