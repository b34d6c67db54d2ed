//! Deletion with the real writer and the real pruner: nothing good goes, whatever dies, freezes or lands late.

mod doubts;
pub(crate) mod stores;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{ErrorKind, Result};
use lifeboat_repo::{
    Backup, BackupId, HoldRequest, PrunePlan, Pruned, Repository, Retired, Standing, Trust, add_hold, list_holds, prune,
    release_hold, scrub,
};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::env::SimClock;
use lifeboat_testkit::faulty::{Fault, FaultyStore, Plan, is_crash};
use lifeboat_testkit::pages::{change_pages, table_pages};

use stores::{Careless, Gate, frozen_at};

use crate::world::{Content, Dice, Files, World, failed, pages, seed, share, soak, write};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const GRACE: Duration = Duration::from_secs(48 * 3600);

/// A world whose store tells the time of the world's own clock.
pub(crate) async fn world() -> World {
    let clock = Arc::new(SimClock::new(lifeboat_testkit::env::START_WALL_US));
    let mut world = World::over(seed(), MemoryStore::with_clock(Arc::<SimClock>::clone(&clock))).await;
    world.env.clock = Arc::<SimClock>::clone(&clock);
    world.clock = clock;
    world.env.threads = 1;
    world
}

/// Keeps the newest `count` that count.
fn keep(count: usize) -> impl Fn(&Standing<'_>) -> Result<Retired> + Send + Sync {
    move |standing| {
        let ids = standing.listing.backups.iter().rev().skip(count);
        Ok(ids.map(|backup| backup.id).collect::<BTreeSet<_>>().into())
    }
}

pub(crate) async fn prune_with(world: &World, repository: &Repository, count: usize) -> Result<Pruned> {
    let retire = keep(count);
    let plan = PrunePlan {
        component: world.component.clone(),
        instance: Arc::clone(&world.instance),
        trust: world.trust.clone(),
        state_dir: world.state_dir(),
        grace: GRACE,
        dry_run: false,
        retire: &retire,
    };
    prune(&world.env, repository, &plan).await
}

async fn prune_to(world: &World, count: usize) -> Result<Pruned> {
    prune_with(world, &world.repository, count).await
}

/// Census, grace, sweep.
async fn prune_through(world: &World, count: usize) -> Pruned {
    let first = prune_to(world, count).await.unwrap();
    // What an earlier census has condemned may go now: leftovers of sessions that died, never a backup.
    assert!(first.swept.backups.is_empty(), "no backup goes at once: {first:?}");
    world.clock.advance(GRACE + HOUR);
    prune_to(world, count).await.unwrap()
}

fn source(generation: u64) -> Files {
    let mut bytes = table_pages(1, 4096, 200);
    for round in 1..=generation {
        change_pages(&mut bytes, 4096, round, 12);
    }
    let mut files = pages("db", bytes, 4096);
    files.insert("log".into(), Content::Stream(generation.to_le_bytes().repeat(900)));
    files
}

async fn backups(world: &World, count: u64) -> Vec<Backup> {
    let mut made = Vec::new();
    for generation in 0..count {
        world.clock.advance(HOUR);
        made.push(world.backup(&source(generation)).await.backup);
    }
    made
}

/// Every listed backup holds its source, byte for byte, and its closure is what its maps reach.
async fn all_hold(world: &World, made: &[Backup]) -> usize {
    let listing = world.listing().await;
    for backup in &listing.backups {
        if let Some(generation) = made.iter().position(|known| known.id == backup.id) {
            world.assert_holds(backup, &source(generation as u64)).await;
        }
    }
    listing.backups.len()
}

/// Names of everything that is stored, without the component's folder.
async fn stored(world: &World) -> BTreeSet<String> {
    let folder = world.component.folder().unwrap();
    let entries = world.memory.list(&folder).await.unwrap();
    let below = |key: &Key| key.as_str()[folder.as_str().len() + 1..].to_owned();
    entries.iter().map(|entry| below(&entry.key)).collect()
}

/// INV-14: after a whole prune exactly what the remaining backups reach is left.
#[tokio::test]
async fn inv_14_what_no_backup_needs_goes_and_nothing_else() {
    let world = world().await;
    let made = backups(&world, 6).await;
    world.clock.advance(GRACE);
    let done = prune_through(&world, 2).await;
    assert_eq!(done.swept.backups.len(), 4, "{done:?}");
    assert!(done.swept.bytes > 0 && done.condemned.is_empty(), "{done:?}");
    assert_eq!(all_hold(&world, &made).await, 2);
    let mut reached: BTreeSet<String> = BTreeSet::new();
    for backup in &made[4..] {
        reached.insert(format!("backups/{}", backup.id));
        for (key, _) in backup.files().unwrap() {
            reached.insert(key.as_str().splitn(3, '/').nth(2).unwrap().to_owned());
        }
    }
    let left: BTreeSet<String> = stored(&world)
        .await
        .into_iter()
        .filter(|name| !name.starts_with("sessions/"))
        .collect();
    assert_eq!(left, reached);
    // And the next backup builds on the newest, as if nothing had been.
    let next = world.backup(&source(6)).await;
    assert_eq!(next.backup.header.parent, Some(made[5].id.to_string()), "{:?}", next.notes);
    world.assert_holds(&next.backup, &source(6)).await;
    assert!(prune_to(&world, 3).await.unwrap().condemned.is_empty());
}

#[tokio::test]
async fn nothing_goes_before_the_grace_period_is_over() {
    let world = world().await;
    backups(&world, 3).await;
    world.clock.advance(GRACE);
    let first = prune_to(&world, 1).await.unwrap();
    assert_eq!(first.condemned.backups.len(), 2);
    let before = stored(&world).await;
    for _ in 0..5 {
        world.clock.advance(9 * HOUR);
        let again = prune_to(&world, 1).await.unwrap();
        assert!(again.swept.is_empty() && again.due_us == first.due_us, "{again:?}");
        assert_eq!(again.condemned, first.condemned);
    }
    assert_eq!(stored(&world).await, before);
    world.clock.advance(4 * HOUR);
    assert_eq!(prune_to(&world, 1).await.unwrap().swept, first.condemned);
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let world = world().await;
    backups(&world, 3).await;
    world.clock.advance(GRACE);
    let before = stored(&world).await;
    let retire = keep(1);
    let plan = PrunePlan {
        component: world.component.clone(),
        instance: Arc::clone(&world.instance),
        trust: world.trust.clone(),
        state_dir: world.state_dir(),
        grace: GRACE,
        dry_run: true,
        retire: &retire,
    };
    let looked = prune(&world.env, &world.repository, &plan).await.unwrap();
    assert_eq!(looked.condemned.backups.len(), 2);
    assert_eq!(stored(&world).await, before);
}

/// Design test 1: a writer freezes anywhere, also between its last check and the put of its backup file, through two censuses, their
/// grace periods and sweeps; then it goes on, or its put lands. Its backup counts nowhere; every other restores.
async fn late_header_in(careless: bool, kept: usize) -> u64 {
    for number in 0.. {
        let world = world().await;
        let made = backups(&world, 2).await;
        let inner: Arc<dyn BlobStore> = if careless {
            Arc::new(Careless(world.memory.clone()))
        } else {
            Arc::new(world.memory.clone())
        };
        let gate = Arc::new(Gate::new(inner, number));
        let files = source(2);
        let through = Arc::<Gate>::clone(&gate);
        let writer = async {
            let repository = Repository::open(through).await?;
            write(&world.env, &repository, world.plan(), &files).await
        };
        let pruners = async {
            for _ in 0..2 {
                world.clock.advance(GRACE + HOUR);
                let _pruned = prune_to(&world, kept).await.unwrap();
                world.clock.advance(GRACE + HOUR);
                let _pruned = prune_to(&world, kept).await.unwrap();
            }
        };
        let (outcome, frozen) = frozen_at(&gate, writer, pruners).await;
        if !frozen {
            assert!(outcome.is_ok(), "{:?}", outcome.err());
            return number;
        }
        let at = gate.frozen().unwrap();
        let what = format!("frozen before {at} ({number}), careless {careless}, {kept} kept");
        let listing = world.listing().await;
        if let Err(error) = &outcome {
            let expected = [ErrorKind::TimedOut, ErrorKind::Corrupt];
            assert!(expected.contains(&error.kind()), "{what}: {error}");
        }
        if at.starts_with("put") && at.contains("/backups/") {
            assert!(outcome.is_err(), "{what}: it was reported as made");
            let late = listing.backups.iter().any(|backup| backup.id.seq > made[1].id.seq);
            assert!(!late, "{what}: it counts");
        }
        for backup in &listing.backups {
            let holds = if backup.id == made[1].id { source(1) } else { source(2) };
            world.assert_holds(backup, &holds).await;
            scrub(&world.env, &world.repository, backup).await.unwrap();
        }
        let stays = listing.backups.iter().any(|backup| backup.id == made[1].id);
        assert!(stays || kept == 0 || outcome.is_ok() || listing.latest().is_some(), "{what}");
        // The next backup and two more prunes work as if nothing had been.
        // (An announcement that names a parent which had gone stops pruners until its deadline.)
        world.clock.advance(GRACE + HOUR);
        let next = world.backup(&source(3)).await;
        world.assert_holds(&next.backup, &source(3)).await;
        let _pruned = prune_through(&world, 1).await;
        world.assert_holds(&next.backup, &source(3)).await;
    }
    0
}

#[tokio::test]
async fn late_header() {
    let mut places = 0;
    for careless in [false, true] {
        for kept in [1, 0] {
            places += late_header_in(careless, kept).await;
        }
    }
    assert!(places > 40, "{places}");
    eprintln!("late_header: frozen in {places} places");
}

/// A pruner freezes before any of its operations, a whole prune by another run of the same and by another instance passes, backups are
/// made; then it goes on.
#[tokio::test]
async fn a_frozen_pruner_deletes_nothing_that_somebody_needs() {
    for number in 0.. {
        let mut world = world().await;
        let mut made = backups(&world, 3).await;
        world.clock.advance(GRACE);
        let _census = prune_to(&world, 1).await.unwrap();
        world.clock.advance(GRACE + HOUR);
        let other = second(&world);
        world.trust = other.trust.clone();
        let gate = Arc::new(Gate::new(Arc::new(world.memory.clone()), number));
        let through = Arc::<Gate>::clone(&gate);
        let pruner = async {
            let repository = Repository::open(through).await?;
            prune_with(&world, &repository, 1).await
        };
        let meanwhile = async {
            let generation = made.len() as u64;
            made.push(world.backup(&source(generation)).await.backup);
            let _first = prune_to(&other, 1).await.unwrap();
            world.clock.advance(GRACE + HOUR);
            let _second = prune_to(&other, 1).await.unwrap();
            let generation = made.len() as u64;
            made.push(world.backup(&source(generation)).await.backup);
        };
        let (outcome, frozen) = frozen_at(&gate, pruner, meanwhile).await;
        let what = format!("frozen before {:?} ({number}): {outcome:?}", gate.frozen());
        let listing = world.listing().await;
        assert!(
            listing.backups.iter().any(|backup| backup.id == made.last().unwrap().id),
            "{what}"
        );
        assert!(all_hold(&world, &made).await >= 1, "{what}");
        for _ in 0..3 {
            world.clock.advance(GRACE + HOUR);
            let _pruned = prune_to(&world, 1).await.unwrap();
            let _pruned = prune_to(&other, 1).await.unwrap();
        }
        assert_eq!(all_hold(&world, &made).await, 1, "{what}");
        assert!(
            world.stored("prune").await.len() <= 1,
            "{what}: {:?}",
            world.stored("prune").await
        );
        if !frozen {
            assert!(number > 15, "{number}");
            eprintln!("a frozen pruner: {number} places");
            return;
        }
    }
}

/// Dying at any operation of a prune: every listed backup restores, nothing good is deleted, and the next runs finish it.
#[tokio::test]
async fn inv_14_a_pruner_that_dies_anywhere_loses_nothing() {
    for ripe in [false, true] {
        let prepare = || async {
            let world = world().await;
            let made = backups(&world, 3).await;
            world.clock.advance(GRACE);
            if ripe {
                let _census = prune_to(&world, 1).await.unwrap();
                world.clock.advance(GRACE + HOUR);
            }
            (world, made)
        };
        let through = |world: &World, plan: Plan| {
            let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
            let again = Arc::<FaultyStore<MemoryStore>>::clone(&store);
            async move { (store, Repository::open(again).await) }
        };
        let total = {
            let (world, _) = prepare().await;
            let (store, repository) = through(&world, Plan::calm()).await;
            let _pruned = prune_with(&world, &repository.unwrap(), 1).await.unwrap();
            store.operations()
        };
        let mut matrix = Vec::new();
        for number in 0..total {
            matrix.push(Plan::calm().crash_at(number));
            matrix.push(Plan::calm().crash_after(number));
            for fault in [
                Fault::Refused(ErrorKind::Unreachable),
                Fault::ReplyLost,
                Fault::Twice,
                Fault::Late(3),
                Fault::Late(1000),
            ] {
                matrix.push(Plan::calm().fault(number, fault));
            }
        }
        let tried = matrix.len();
        for plan in share(matrix, 11) {
            let what = format!("ripe {ripe}, {plan:?}");
            let (world, made) = prepare().await;
            let (store, repository) = through(&world, plan).await;
            let outcome = match repository {
                Ok(repository) => prune_with(&world, &repository, 1).await,
                Err(error) => Err(error),
            };
            if store.crashed() {
                assert!(is_crash(&failed(outcome, &what)), "{what}");
            }
            // What was on its way arrives after all.
            drop(store.land().await);
            assert!(world.listing().await.rejected.is_empty(), "{what}");
            assert!(all_hold(&world, &made).await >= 1, "{what}");
            let next = world.backup(&source(3)).await;
            world.assert_holds(&next.backup, &source(3)).await;
            for _ in 0..4 {
                world.clock.advance(GRACE + HOUR);
                let _pruned = prune_to(&world, 1).await.unwrap();
            }
            world.assert_holds(&next.backup, &source(3)).await;
            assert_eq!(world.listing().await.backups.len(), 1, "{what}");
            assert!(
                world.stored("prune").await.is_empty(),
                "{what}: {:?}",
                world.stored("prune").await
            );
        }
        eprintln!("a pruner that dies: {tried} cases, ripe {ripe}");
    }
}

/// Another instance with the same rights in the same repository.
fn second(world: &World) -> World {
    let folder = tempfile::tempdir().unwrap();
    let instance = lifeboat_repo::Instance::create(&world.env, "other", &folder.path().join("instance.key")).unwrap();
    let mut trust = Trust::new();
    trust.add("host", world.instance.public_key());
    trust.add("other", instance.public_key());
    World {
        env: world.env.clone(),
        clock: Arc::clone(&world.clock),
        memory: world.memory.clone(),
        repository: world.repository.clone(),
        component: world.component.clone(),
        instance: Arc::new(instance),
        trust,
        recipient: world.recipient.clone(),
        identity: world.identity.clone(),
        folder,
    }
}

/// Design test 5: a database that changes in every way, with every second backup pruned: each that is left holds its source byte for byte,
/// and its closure is the one that its maps reach.
#[tokio::test]
async fn overlay_torture_with_every_second_backup_pruned() {
    let world = world().await;
    let mut dice = Dice::new(seed() + 5);
    let mut bytes = table_pages(1, 4096, 300);
    let mut history: Vec<(Backup, Files)> = Vec::new();
    let rounds = if soak() { 60 } else { 12 };
    for round in 0..rounds {
        change_pages(&mut bytes, 4096, seed() * 1000 + round, 1 + dice.index(40));
        if dice.roll(4) == 0 {
            bytes.extend(table_pages(round + 50, 4096, dice.index(60)));
        }
        let files = pages("db", bytes.clone(), 4096);
        history.push((world.backup(&files).await.backup, files));
        if round % 4 != 3 {
            continue;
        }
        world.clock.advance(GRACE);
        let going: BTreeSet<BackupId> = history.iter().rev().skip(1).step_by(2).map(|(backup, _)| backup.id).collect();
        let retire = |_: &Standing<'_>| Ok(going.clone().into());
        let plan = PrunePlan {
            component: world.component.clone(),
            instance: Arc::clone(&world.instance),
            trust: world.trust.clone(),
            state_dir: world.state_dir(),
            grace: GRACE,
            dry_run: false,
            retire: &retire,
        };
        let _census = prune(&world.env, &world.repository, &plan).await.unwrap();
        world.clock.advance(GRACE + HOUR);
        let swept = prune(&world.env, &world.repository, &plan).await.unwrap();
        assert_eq!(swept.swept.backups.len(), going.len());
        history.retain(|(backup, _)| !going.contains(&backup.id));
        let listing = world.listing().await;
        assert_eq!((listing.backups.len(), listing.rejected.len()), (history.len(), 0));
        for (backup, files) in &history {
            world.assert_holds(backup, files).await;
            scrub(&world.env, &world.repository, backup).await.unwrap();
        }
    }
    assert!(history.last().unwrap().0.header.parent.is_some());
    eprintln!(
        "overlay_torture: {rounds} rounds with every second backup pruned, seed {}",
        seed()
    );
}

/// INV-04: what a census condemns is built on by nobody, though it still stands and restores.
#[tokio::test]
async fn inv_04_a_condemned_backup_is_no_parent() {
    let world = world().await;
    let made = backups(&world, 2).await;
    world.clock.advance(GRACE);
    // Nobody would give up the newest one; here it is.
    let census = prune_to(&world, 0).await.unwrap();
    assert_eq!(census.condemned.backups.len(), 2);
    let next = world.backup(&source(2)).await;
    assert!(next.backup.header.parent.is_none(), "{:?}", next.notes);
    assert!(
        next.notes.iter().any(|note| note.contains("going to be deleted")),
        "{:?}",
        next.notes
    );
    assert_eq!(all_hold(&world, &made).await, 3);
    world.clock.advance(GRACE + HOUR);
    let swept = prune_to(&world, 1).await.unwrap();
    assert_eq!(swept.swept.backups.len(), 2);
    world.assert_holds(&next.backup, &source(2)).await;
}

async fn held(world: &World, request: &HoldRequest) -> lifeboat_repo::Hold {
    let added = add_hold(
        &world.env,
        &world.repository,
        &world.component,
        &world.instance,
        &world.trust,
        request,
    );
    added.await.unwrap()
}

#[tokio::test]
async fn what_is_held_stays_until_it_is_released() {
    let world = world().await;
    let made = backups(&world, 4).await;
    world.clock.advance(GRACE);
    let one = HoldRequest {
        id: None,
        backup: Some(made[0].id),
        until_us: None,
        reason: "audit".into(),
    };
    let hold = held(&world, &one).await;
    let swept = prune_through(&world, 1).await.swept;
    assert_eq!(swept.backups, [made[1].id, made[2].id]);
    assert_eq!(all_hold(&world, &made).await, 2);
    let all = HoldRequest {
        id: None,
        backup: None,
        until_us: Some(world.env.clock.wall_us() + 100 * 3_600_000_000),
        reason: "incident".into(),
    };
    held(&world, &all).await;
    release_hold(
        &world.repository,
        &world.component,
        &world.instance,
        &world.trust,
        &hold.id[..6],
    )
    .await
    .unwrap();
    assert!(prune_to(&world, 1).await.unwrap().condemned.is_empty(), "everything is held");
    world.clock.advance(101 * HOUR);
    assert_eq!(prune_through(&world, 1).await.swept.backups, [made[0].id]);
    assert_eq!(
        list_holds(&world.repository, &world.component, &world.trust)
            .await
            .unwrap()
            .len(),
        1
    );
    // A hold that comes after the census saves its backup all the same.
    world.backup(&source(4)).await;
    let _census = prune_to(&world, 1).await.unwrap();
    let last = HoldRequest {
        backup: Some(made[3].id),
        ..one
    };
    held(&world, &last).await;
    world.clock.advance(GRACE + HOUR);
    assert!(prune_to(&world, 1).await.unwrap().swept.backups.is_empty());
    all_hold(&world, &made).await;
}
