//! One deterministic world: a clock, two stores, and writers, pruners, copiers, restorers, holds and key changes of several instances, whose
//! store operations a seed puts in an order, loses, doubles and delays, and who die in the middle.
//!
//! After each run, in each store: every backup that counts restores byte for byte; every backup that somebody was told of is there unless
//! retention gave it up there since; what is held is there; what has the same name has the same bytes in both; and when all is calm again, old
//! backups go and the next one is made in both. A failing seed is in the message; `LIFEBOAT_TEST_SEED=<seed>` runs it first.

mod actors;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_model::{Env, Result};
use lifeboat_repo::{BackupId, Encryption, Identities, Instance, Listing, Repository, Trust, generate_identity};
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::env::{SimClock, sim_env};
use lifeboat_testkit::pages::table_pages;
use lifeboat_testkit::turns::{Dice, Turns};
use tokio::task::{AbortHandle, JoinSet};

use crate::prune::GRACE;
use crate::world::{Files, World, pages, seed, soak};

/// Names of the stores.
const STORES: [&str; 2] = ["a", "b"];

/// What really was in the sources, and what somebody was promised, store by store.
#[derive(Default)]
struct Truth {
    /// By the tag of the attempt, which stands in the backup.
    contents: BTreeMap<String, Files>,
    /// Backups of which somebody was told that they stand in a store.
    promised: BTreeSet<(usize, BackupId)>,
    /// Backups that retention gave up in a store, with the number of the event.
    given_up: BTreeMap<(usize, BackupId), u64>,
    /// Backups that somebody holds in a store.
    held: BTreeSet<(usize, BackupId)>,
    events: u64,
    counted: Counted,
}

/// What happened, for the last line.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Counted {
    restored: u64,
    swept: u64,
    copied: u64,
    holds: u64,
}

impl Truth {
    fn give_up(&mut self, store: usize, ids: &BTreeSet<BackupId>) {
        self.events += 1;
        for id in ids {
            self.given_up.insert((store, *id), self.events);
        }
    }

    /// It was brought there (again) by somebody who began after the event `since`.
    fn bring(&mut self, store: usize, id: BackupId, since: u64) {
        if self.given_up.get(&(store, id)).is_none_or(|given_up| *given_up <= since) {
            self.given_up.remove(&(store, id));
            self.promised.insert((store, id));
        }
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

type Shared = Arc<Mutex<Truth>>;

fn truth(shared: &Shared) -> std::sync::MutexGuard<'_, Truth> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that backs up, with its own state, key and source.
struct Machine {
    name: &'static str,
    instance: Arc<Instance>,
    state: std::path::PathBuf,
    files: Files,
}

struct Simulation {
    seed: u64,
    encrypted: bool,
    dice: Dice,
    world: World,
    clock: Arc<SimClock>,
    stores: [MemoryStore; 2],
    turns: Turns,
    trust: Trust,
    machines: Vec<Machine>,
    /// Recipients, each with its private key; the first always stays.
    people: Vec<(Identities, String)>,
    truth: Shared,
    operations: u64,
    troubles: u64,
    deaths: u64,
}

impl Simulation {
    async fn new(seed: u64, encrypted: bool) -> Self {
        let (_, clock) = sim_env(seed);
        let store = MemoryStore::with_clock(Arc::<SimClock>::clone(&clock) as Arc<_>);
        let mut world = World::over(seed, store.clone()).await;
        world.env = Env {
            clock: Arc::<SimClock>::clone(&clock) as Arc<_>,
            threads: 1,
            ..world.env
        };
        let second = MemoryStore::with_clock(Arc::<SimClock>::clone(&clock) as Arc<_>);
        world.repository.replicate(Arc::new(second.clone())).await.unwrap();
        let mut trust = world.trust.clone();
        let mut machines = Vec::new();
        for name in ["north", "south"] {
            let instance = Instance::create(&world.env, name, &world.folder.path().join(name).join("key")).unwrap();
            trust.add(name, instance.public_key());
            machines.push(Machine {
                name,
                instance: Arc::new(instance),
                state: world.folder.path().join(name).join("state"),
                files: pages("db", table_pages(seed, 4096, 40), 4096),
            });
        }
        let people = (0..3)
            .map(|_| {
                let (secret, public) = generate_identity();
                (Identities::parse(&secret).unwrap(), public)
            })
            .collect();
        Self {
            seed,
            encrypted,
            dice: Dice::new(seed),
            world,
            clock,
            stores: [store, second],
            turns: Turns::new(),
            trust,
            machines,
            people,
            truth: Shared::default(),
            operations: 0,
            troubles: 0,
            deaths: 0,
        }
    }

    fn encryption(&self, of: u64) -> Encryption {
        let people = self.people.iter().take(1 + usize::try_from(of % 3).unwrap());
        match self.encrypted {
            true => Encryption::Age(people.map(|(_, public)| public.clone()).collect()),
            false => Encryption::Clear,
        }
    }

    /// Everything that happens at the same time, until all have finished or died.
    async fn round(&mut self, round: u64) {
        let turns = self.turns.clone();
        let mut actors = JoinSet::new();
        let mut handles = Vec::new();
        let trouble = [0, 9, 40][usize::try_from(self.dice.roll(3)).unwrap()];
        for index in 0..self.machines.len() {
            if self.dice.roll(5) == 0 {
                continue;
            }
            let places = match self.dice.roll(8) {
                0 => vec![0],
                1 => vec![1],
                _ => vec![0, 1],
            };
            let work = self.backup(index, round, places);
            let actor = turns.actor(self.machines[index].name, self.seed ^ (round << 8 | index as u64), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        for number in 0..1 + self.dice.roll(2) {
            let work = self.restore();
            let actor = turns.actor("restorer", self.seed ^ (round << 8 | 16 | number), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        if self.dice.roll(2) == 0 && self.encrypted {
            let work = self.change_keys();
            let actor = turns.actor("key", self.seed ^ (round << 8 | 32), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        for number in 0..self.dice.roll(3) {
            let machine = usize::try_from(number).unwrap();
            let kept = 1 + usize::try_from(self.dice.roll(3)).unwrap();
            let place = self.store();
            let work = self.prune(machine, place, kept);
            let actor = turns.actor("pruner", self.seed ^ (round << 8 | 48 | number), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        if self.dice.roll(2) == 0 {
            let work = self.copy();
            let actor = turns.actor("copier", self.seed ^ (round << 8 | 64), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        let mut hold = None;
        if self.dice.roll(4) == 0 {
            let (store, asked) = (self.store(), Arc::new(Mutex::new(None)));
            let work = self.hold(store, Arc::clone(&asked));
            let actor = turns.actor("holder", self.seed ^ (round << 8 | 80), trouble);
            handles.push(actors.spawn(work(actor)));
            hold = Some((store, asked));
        }
        self.let_them(&turns, actors, &handles).await;
        // A backup file may be so late that it arrives in a later round, after pruners have seen the store without it.
        let next = Turns::new();
        turns.carry_over(&next, |key| key.as_str().contains("/backups/"));
        turns.land_all(&mut self.dice).await;
        self.turns = next;
        // A hold that was answered holds what counts when all has arrived: one that came while a sweep was on its way may have been too late.
        let held = hold.and_then(|(store, asked)| {
            let id = *asked.lock().unwrap_or_else(PoisonError::into_inner);
            id.map(|id| (store, id))
        });
        if let Some((store, id)) = held
            && self.listing(store).await.backups.iter().any(|backup| backup.id == id)
        {
            truth(&self.truth).held.insert((store, id));
        }
        let (operations, troubles) = turns.counted();
        self.operations += operations;
        self.troubles += troubles;
    }

    /// Steps one after another in an order that the dice decide, with deaths, until all have ended.
    async fn let_them(&mut self, turns: &Turns, mut actors: JoinSet<Result<()>>, handles: &[AbortHandle]) {
        loop {
            if turns.step(&mut self.dice).await.is_none() {
                break;
            }
            match self.dice.roll(60) {
                0 => {
                    let victim = usize::try_from(self.dice.roll(handles.len() as u64)).unwrap();
                    self.deaths += u64::from(!handles[victim].is_finished());
                    handles[victim].abort();
                }
                1..=3 => turns.land_one(&mut self.dice).await,
                4 | 5 => self.clock.advance(Duration::from_secs(self.dice.roll(20 * 3600))),
                _ => {}
            }
        }
        while let Some(ended) = actors.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    fn store(&mut self) -> usize {
        usize::try_from(self.dice.roll(2)).unwrap()
    }

    async fn listing(&self, place: usize) -> Listing {
        let repository = Repository::open(Arc::new(self.stores[place].clone())).await.unwrap();
        repository.backups(&self.world.component, &self.trust).await.unwrap()
    }
}

/// Runs seeds and says how many; a failing one is in the panic's message.
async fn simulate(seeds: u64, rounds: u64) {
    let (mut backups, mut operations, mut troubles, mut deaths) = (0, 0, 0, 0);
    let mut sum = Counted::default();
    for seed in seed()..seed() + seeds {
        println!("simulation: seed {seed}");
        let mut simulation = Simulation::new(seed, true).await;
        for round in 0..rounds {
            simulation.round(round).await;
            simulation.clock.advance(Duration::from_secs(simulation.dice.roll(70 * 3600)));
        }
        backups += simulation.judge().await;
        simulation.calm().await;
        simulation.judge().await;
        operations += simulation.operations;
        troubles += simulation.troubles;
        deaths += simulation.deaths;
        let counted = truth(&simulation.truth).counted;
        sum.restored += counted.restored;
        sum.swept += counted.swept;
        sum.copied += counted.copied;
        sum.holds += counted.holds;
    }
    eprintln!(
        "simulation: {seeds} seeds from {}, {operations} store operations, {troubles} in trouble, {deaths} deaths, {backups} backups, {sum:?}",
        seed()
    );
    assert!(backups > 0 && troubles > 0 && deaths > 0 && sum.restored > backups);
    assert!(sum.swept > 0 && sum.copied > 0 && sum.holds > 0, "{sum:?}");
}

#[tokio::test(start_paused = true)]
async fn simulation_of_writers_pruners_copiers_restorers_holds_and_key_changes() {
    simulate(if soak() { 2000 } else { 12 }, 8).await;
}

/// The same seed gives the same world: nothing in it is left to chance. Unencrypted, as what age draws cannot be decided from outside and
/// stands, through the hash of a key file, in the names by which backups of the same number are put in order.
#[tokio::test(start_paused = true)]
async fn a_seed_replays() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut simulation = Simulation::new(seed() + 77, false).await;
        for round in 0..3 {
            simulation.round(round).await;
            simulation.clock.advance(GRACE);
        }
        let promised = truth(&simulation.truth).promised.len();
        let counted = truth(&simulation.truth).counted;
        seen.push((
            simulation.operations,
            simulation.troubles,
            simulation.deaths,
            promised,
            counted,
            simulation.judge().await,
        ));
    }
    assert_eq!(seen[0], seen[1]);
}
