//! One deterministic world: a clock, two stores, and writers, restorers and key changes of several instances, whose store operations a seed
//! puts in an order, loses, doubles and delays, and who die in the middle.
//!
//! After each run every backup that counts restores byte for byte, every backup that somebody was told of is there unless it was given up,
//! and what has the same name has the same bytes in all stores. A failing seed is in the message; `LIFEBOAT_TEST_SEED=<seed>` runs it first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_model::{Env, Result};
use lifeboat_repo::{
    Backup, BackupId, BackupPlan, Encryption, Identities, Instance, Reader, Rekey, Repository, Trust, generate_identity, rekey,
};
use lifeboat_store::BlobStore;
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::env::{SimClock, sim_env};
use lifeboat_testkit::pages::{change_pages, table_pages};
use lifeboat_testkit::turns::{ActorTurns, Dice, Turns};
use tokio::task::JoinSet;

use crate::world::{Content, Files, World, copy_folder, pages, restore_file, seed, soak, write};

/// What really was in the sources, and what somebody was promised.
#[derive(Default)]
struct Truth {
    /// By the tag of the attempt, which stands in the backup.
    contents: BTreeMap<String, Files>,
    /// Backups whose writer was told that they stand.
    promised: Vec<BackupId>,
    restored: u64,
}

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
    dice: Dice,
    world: World,
    clock: Arc<SimClock>,
    store: MemoryStore,
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
    async fn new(seed: u64) -> Self {
        let (_, clock) = sim_env(seed);
        let store = MemoryStore::with_clock(Arc::<SimClock>::clone(&clock) as Arc<_>);
        let mut world = World::over(seed, store.clone()).await;
        world.env = Env {
            clock: Arc::<SimClock>::clone(&clock) as Arc<_>,
            threads: 1,
            ..world.env
        };
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
            dice: Dice::new(seed),
            world,
            clock,
            store,
            trust,
            machines,
            people,
            truth: Shared::default(),
            operations: 0,
            troubles: 0,
            deaths: 0,
        }
    }

    fn recipients(&self, of: u64) -> Vec<String> {
        self.people
            .iter()
            .take(1 + usize::try_from(of % 3).unwrap())
            .map(|(_, public)| public.clone())
            .collect()
    }

    /// Everything that happens at the same time, until all have finished or died.
    async fn round(&mut self, round: u64) {
        let turns = Turns::new();
        let mut actors = JoinSet::new();
        let mut handles = Vec::new();
        let trouble = [0, 9, 40][usize::try_from(self.dice.roll(3)).unwrap()];
        for index in 0..self.machines.len() {
            if self.dice.roll(5) == 0 {
                continue;
            }
            let work = self.backup(index, round);
            let actor = turns.actor(self.machines[index].name, self.seed ^ (round << 8 | index as u64), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        for number in 0..1 + self.dice.roll(2) {
            let work = self.restore();
            let actor = turns.actor("restorer", self.seed ^ (round << 8 | 16 | number), trouble);
            handles.push(actors.spawn(work(actor)));
        }
        if self.dice.roll(2) == 0 {
            let work = self.change_keys();
            let actor = turns.actor("key", self.seed ^ (round << 8 | 32), trouble);
            handles.push(actors.spawn(work(actor)));
        }
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
        // What is late may arrive in a later round, after others have seen the store without it; here it is the end of this one.
        turns.land_all(&mut self.dice).await;
        let (operations, troubles) = turns.counted();
        self.operations += operations;
        self.troubles += troubles;
    }

    fn backup(&mut self, index: usize, round: u64) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let changes = 1 + self.dice.roll(6);
        let rewound = self.dice.roll(12) == 0;
        let of = self.dice.roll(3);
        let fewer = self.dice.roll(4) == 0;
        let recipients = self.recipients(if fewer { of } else { 2 });
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
            encryption: Encryption::Age(recipients),
            trust: self.trust.clone(),
            state_dir: machine.state.clone(),
            tags: vec![tag.clone()],
            ..self.world.plan()
        };
        let (env, store, shared, files) = (
            self.world.env.clone(),
            self.store.clone(),
            Arc::clone(&self.truth),
            machine.files.clone(),
        );
        truth(&shared).contents.insert(tag, files.clone());
        move |actor| {
            Box::pin(async move {
                let repository = Repository::open(actor.store(Arc::new(store))).await?;
                let committed = write(&env, &repository, plan, &files).await?;
                truth(&shared).promised.push(committed.backup.id);
                Ok(())
            })
        }
    }

    fn restore(&mut self) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let (env, store, shared, trust) = (
            self.world.env.clone(),
            self.store.clone(),
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

    fn change_keys(&mut self) -> impl FnOnce(ActorTurns) -> Work + use<> {
        let (env, store, trust, component) = (
            self.world.env.clone(),
            self.store.clone(),
            self.trust.clone(),
            self.world.component.clone(),
        );
        let how = if self.dice.roll(2) == 0 { Rekey::Add } else { Rekey::Replace };
        let of = self.dice.roll(3);
        let (encryption, identities) = (Encryption::Age(self.recipients(of)), self.people[0].0.clone());
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

    /// The invariants, looked at through a store that is at peace.
    async fn judge(&self) -> u64 {
        let listing = self
            .world
            .repository
            .backups(&self.world.component, &self.trust)
            .await
            .unwrap();
        for rejected in &listing.rejected {
            panic!("seed {}: {} does not count: {}", self.seed, rejected.name, rejected.reason);
        }
        for backup in &listing.backups {
            restore_exactly(
                &self.world.env,
                &self.world.repository,
                backup,
                &self.people[0].0,
                &self.truth,
            )
            .await
            .unwrap_or_else(|error| panic!("seed {}: {}: {error}", self.seed, backup.id));
        }
        for promised in &truth(&self.truth).promised {
            let counts = listing.backups.iter().any(|backup| backup.id == *promised);
            assert!(counts, "seed {}: {promised} was promised and does not count", self.seed);
        }
        for entry in self.store.list(&self.world.component.folder().unwrap()).await.unwrap() {
            let name = entry.key.file_name();
            let named = name.trim_end_matches(".age").rsplit('-').next().unwrap_or_default();
            if named.len() == 64 {
                let bytes = self.store.get(&entry.key, u64::MAX).await.unwrap();
                assert_eq!(blake3::hash(&bytes).to_string(), named, "seed {}: {}", self.seed, entry.key);
            }
        }
        listing.backups.len() as u64
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Restores a backup and compares it with what its source was. A store in trouble, or a key file that is being replaced at this very moment, is an
/// error; other bytes than the source's are a panic.
async fn restore_exactly(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    shared: &Shared,
) -> Result<()> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    let mut restored = Files::new();
    for file in reader.files() {
        restored.insert(file.meta.path.clone(), restore_file(&reader, file).await?);
    }
    let mut truth = truth(shared);
    let expected = backup.header.tags.first().and_then(|tag| truth.contents.get(tag));
    assert!(
        expected == Some(&restored),
        "{} holds other bytes than its source had",
        backup.id
    );
    truth.restored += 1;
    Ok(())
}

/// Runs seeds and says how many; a failing one is in the panic's message.
async fn simulate(seeds: u64, rounds: u64) {
    let (mut backups, mut operations, mut troubles, mut deaths, mut restored) = (0, 0, 0, 0, 0);
    for seed in seed()..seed() + seeds {
        println!("simulation: seed {seed}");
        let mut simulation = Simulation::new(seed).await;
        for round in 0..rounds {
            simulation.round(round).await;
            simulation.clock.advance(Duration::from_secs(simulation.dice.roll(40 * 3600)));
        }
        backups += simulation.judge().await;
        operations += simulation.operations;
        troubles += simulation.troubles;
        deaths += simulation.deaths;
        restored += truth(&simulation.truth).restored;
    }
    println!(
        "simulation: {seeds} seeds from {}, {operations} store operations, {troubles} in trouble, {deaths} deaths, {backups} backups, {restored} restores",
        seed()
    );
    assert!(backups > 0 && troubles > 0 && deaths > 0 && restored > backups);
}

#[tokio::test]
async fn simulation_of_writers_restorers_and_key_changes() {
    simulate(if soak() { 400 } else { 12 }, 6).await;
}

/// The same seed gives the same world.
#[tokio::test]
async fn a_seed_replays() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut simulation = Simulation::new(seed() + 77).await;
        for round in 0..3 {
            simulation.round(round).await;
        }
        let promised = truth(&simulation.truth).promised.len();
        seen.push((
            simulation.operations,
            simulation.troubles,
            simulation.deaths,
            promised,
            simulation.judge().await,
        ));
    }
    assert_eq!(seen[0], seen[1]);
}
