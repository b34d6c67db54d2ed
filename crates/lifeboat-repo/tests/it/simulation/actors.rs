//! Who acts in the simulated world, and what of it is written down as true.

use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_repo::{
    BackupId, BackupPlan, CopyPlan, HoldRequest, PrunePlan, Rekey, Repository, Retired, Standing, Which, add_hold, copy, prune,
    rekey,
};
use lifeboat_testkit::pages::change_pages;
use lifeboat_testkit::turns::ActorTurns;

use super::judge::restore_exactly;
use super::{STORES, Simulation, Work, truth};
use crate::prune::GRACE;
use crate::world::{Content, copy_folder, write};

impl Simulation {
    /// A backup of one machine into the stores at `places`, through which its source has changed.
    pub(super) fn backup(&mut self, index: usize, round: u64, places: Vec<usize>) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let changes = 1 + self.dice.roll(6);
        let rewound = self.dice.roll(12) == 0;
        let of = self.dice.roll(3);
        let fewer = self.dice.roll(4) == 0;
        let encryption = self.encryption(if fewer { of } else { 2 });
        let machine = &mut self.machines[index];
        if let Some(Content::Pages(bytes, _)) = machine.files.get_mut("db") {
            change_pages(
                bytes,
                4096,
                self.seed + round * 7 + index as u64,
                usize::try_from(changes).unwrap(),
            );
        }
        machine.files.insert(
            "log".into(),
            Content::Stream((round * 31 + index as u64).to_le_bytes().repeat(400)),
        );
        let tag = format!("{}-{round}", machine.name);
        // The machine is set back to what it was some rounds ago, with its state but not its source.
        let old = machine.state.with_extension("old");
        if rewound && old.try_exists().unwrap() {
            std::fs::remove_dir_all(&machine.state).unwrap();
            copy_folder(&old, &machine.state);
        } else if self.dice.roll(3) == 0 && machine.state.try_exists().unwrap() {
            drop(std::fs::remove_dir_all(&old));
            copy_folder(&machine.state, &old);
        }
        let plan = BackupPlan {
            instance: Arc::clone(&machine.instance),
            encryption,
            trust: self.trust.clone(),
            state_dir: machine.state.clone(),
            tags: vec![tag.clone()],
            ..self.world.plan()
        };
        let (env, stores, shared, files) = (
            self.world.env.clone(),
            self.stores.clone(),
            Arc::clone(&self.truth),
            machine.files.clone(),
        );
        truth(&shared).contents.insert(tag, files.clone());
        move |actor| {
            Box::pin(async move {
                let mut members = Vec::new();
                for place in &places {
                    let opened = Repository::open(actor.store(Arc::new(stores[*place].clone()))).await;
                    members.push((STORES[*place].to_owned(), opened));
                }
                let since = truth(&shared).events;
                let committed = write(&env, &Repository::joined(members)?, plan, &files).await?;
                for (place, copy) in places.iter().zip(&committed.copies) {
                    if copy.missing.is_none() {
                        truth(&shared).bring(*place, committed.backup.id, since);
                    }
                }
                Ok(())
            })
        }
    }

    /// The steps of a prune that are due, in one store, with the identity of one machine.
    pub(super) fn prune(&self, machine: usize, place: usize, kept: usize) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let machine = &self.machines[machine];
        let (instance, state_dir) = (Arc::clone(&machine.instance), machine.state.with_extension("prune"));
        let (env, store, shared, trust, component) = (
            self.world.env.clone(),
            self.stores[place].clone(),
            Arc::clone(&self.truth),
            self.trust.clone(),
            self.world.component.clone(),
        );
        move |actor| {
            Box::pin(async move {
                let repository = Repository::open(actor.store(Arc::new(store))).await?;
                let retire = |standing: &Standing<'_>| {
                    let old = standing
                        .listing
                        .backups
                        .iter()
                        .rev()
                        .skip(kept)
                        .map(|backup| backup.id)
                        .collect();
                    truth(&shared).give_up(place, &old);
                    Ok(Retired::from(old))
                };
                let plan = PrunePlan {
                    component,
                    instance,
                    trust,
                    state_dir,
                    grace: GRACE,
                    dry_run: false,
                    retire: &retire,
                };
                let pruned = prune(&env, &repository, &plan).await?;
                truth(&shared).counted.swept += pruned.swept.backups.len() as u64;
                Ok(())
            })
        }
    }

    /// A copy of everything, or of what is missing, from one store to the other.
    pub(super) fn copy(&mut self) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let to = self.store();
        let which = if self.dice.roll(3) == 0 { Which::All } else { Which::Missing };
        let plan = CopyPlan {
            component: self.world.component.clone(),
            instance: Arc::clone(&self.machines[to].instance),
            trust: self.trust.clone(),
            which,
        };
        let (env, stores, shared) = (self.world.env.clone(), self.stores.clone(), Arc::clone(&self.truth));
        move |actor| {
            Box::pin(async move {
                let since = truth(&shared).events;
                let destination = Repository::open(actor.store(Arc::new(stores[to].clone()))).await?;
                let source = Repository::open(actor.store(Arc::new(stores[1 - to].clone()))).await?;
                let copied = copy(&env, &source, &destination, &[], &plan).await?;
                for backup in &copied.copied {
                    truth(&shared).bring(to, backup.id, since);
                }
                truth(&shared).counted.copied += copied.copied.len() as u64;
                Ok(())
            })
        }
    }

    /// Holds one of the backups of a store, and says which.
    pub(super) fn hold(&mut self, place: usize, asked: Arc<Mutex<Option<BackupId>>>) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let (env, store, shared, trust) = (
            self.world.env.clone(),
            self.stores[place].clone(),
            Arc::clone(&self.truth),
            self.trust.clone(),
        );
        let (component, instance, which) = (
            self.world.component.clone(),
            Arc::clone(&self.machines[0].instance),
            self.dice.roll(1000),
        );
        move |actor| {
            Box::pin(async move {
                let repository = Repository::open(actor.store(Arc::new(store))).await?;
                let listing = repository.backups(&component, &trust).await?;
                let count = listing.backups.len() as u64;
                let Some(backup) = listing.backups.get(usize::try_from(which % count.max(1)).unwrap()) else {
                    return Ok(());
                };
                let request = HoldRequest {
                    id: None,
                    backup: Some(backup.id),
                    until_us: None,
                    reason: "simulated".into(),
                };
                add_hold(&env, &repository, &component, &instance, &trust, &request).await?;
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(backup.id);
                truth(&shared).counted.holds += 1;
                Ok(())
            })
        }
    }

    pub(super) fn restore(&mut self) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let place = self.store();
        let (env, store, shared, trust) = (
            self.world.env.clone(),
            self.stores[place].clone(),
            Arc::clone(&self.truth),
            self.trust.clone(),
        );
        let (component, identities, which) = (self.world.component.clone(), self.people[0].0.clone(), self.dice.roll(1000));
        move |actor| {
            Box::pin(async move {
                let repository = Repository::open(actor.store(Arc::new(store))).await?;
                let listing = repository.backups(&component, &trust).await?;
                let count = listing.backups.len() as u64;
                let Some(backup) = listing.backups.get(usize::try_from(which % count.max(1)).unwrap()) else {
                    return Ok(());
                };
                restore_exactly(&env, &repository, backup, &identities, &shared).await
            })
        }
    }

    pub(super) fn change_keys(&mut self) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let place = self.store();
        let (env, store, trust, component) = (
            self.world.env.clone(),
            self.stores[place].clone(),
            self.trust.clone(),
            self.world.component.clone(),
        );
        let how = if self.dice.roll(2) == 0 { Rekey::Add } else { Rekey::Replace };
        let of = self.dice.roll(3);
        let (encryption, identities) = (self.encryption(of), self.people[0].0.clone());
        move |actor| {
            Box::pin(async move {
                let repository = Repository::open(actor.store(Arc::new(store))).await?;
                let listing = repository.backups(&component, &trust).await?;
                rekey(&env, &repository, &component, &listing, &encryption, &identities, how)
                    .await
                    .map(|_| ())
            })
        }
    }
}
