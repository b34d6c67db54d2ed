//! Two stores, and the real pruner in one of them: what it marks is read there, and only there; nothing it gives up comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_model::ErrorKind;
use lifeboat_repo::{Committed, Repository, Which, copy};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::faulty::{FaultyStore, Plan};

use crate::prune::stores::{Gate, frozen_at};
use crate::prune::{GRACE, HOUR, prune_with};
use crate::two_stores::{Two, all, generations};
use crate::world::{seed, share, soak, write};

/// Without the soak one place in so many is tried, chosen by the seed.
const STEP: u64 = 9;

/// Four backups in both stores, and a census in `b` that condemns all but the newest; its grace period is over where `ripe`.
async fn pruned(kept: usize, ripe: bool) -> Two {
    let two = Two::timed().await;
    for generation in 1..=4 {
        two.both(generation).await;
        two.world.clock.advance(HOUR);
    }
    two.world.clock.advance(GRACE);
    let census = two.prune("b", kept).await;
    assert_eq!(census.condemned.backups.len(), 4 - kept);
    if ripe {
        two.world.clock.advance(GRACE + HOUR);
    }
    two
}

async fn calm(two: &Two, generation: u64) -> Committed {
    two.backup(generation, &[("a", Plan::calm()), ("b", Plan::calm())])
        .await
        .unwrap()
}

/// Names of the announcements in a store.
async fn sessions(store: &MemoryStore, two: &Two) -> Vec<Key> {
    let folder = two.world.component.folder().unwrap().join("sessions").unwrap();
    store
        .list(&folder)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

/// The generations that count in a store and restore from it alone.
async fn sound(two: &Two, name: &str) -> BTreeMap<u64, u64> {
    let repository = two.replica(name).await;
    let listing = repository.backups(&two.world.component, &two.world.trust).await.unwrap();
    let found = generations(
        &listing
            .backups
            .iter()
            .map(|backup| (backup.id.seq, backup.id.seq))
            .collect::<Vec<_>>(),
    );
    two.holds(name, &found).await;
    found
}

#[tokio::test]
async fn a_census_of_old_backups_in_one_store_splits_nothing() {
    let two = pruned(1, false).await;
    for generation in 5..=8 {
        let parent = format!("{:016x}", generation - 1);
        let committed = two.both(generation).await;
        let built_on = committed.backup.header.parent.clone().unwrap();
        assert!(built_on.starts_with(&parent), "{built_on}");
        assert!(committed.notes.is_empty(), "{:?}", committed.notes);
        two.world.clock.advance(GRACE / 2 + HOUR);
        let _pruned = two.prune("b", 2).await;
    }
    two.holds("a", &all(8)).await;
    let left = sound(&two, "b").await;
    assert!(left.len() < 6 && left.contains_key(&8), "{left:?}");
    two.agree().await;
}

#[tokio::test]
async fn a_store_that_gives_up_the_parent_stands_apart_and_comes_back() {
    let two = pruned(0, false).await;
    let committed = calm(&two, 5).await;
    assert!(committed.backup.header.parent.is_some(), "{:?}", committed.notes);
    let [first, second] = committed.copies.as_slice() else {
        panic!("{:?}", committed.copies)
    };
    assert!(first.missing.is_none() && second.apart, "{:?}", committed.copies);
    let why = second.missing.as_ref().unwrap().to_string();
    assert!(why.contains("is going to be deleted there"), "{why}");
    // Nobody waits for an announcement of a session that has no part there.
    let named: Vec<Key> = sessions(&two.second, &two).await;
    let common = two.world.component.folder().unwrap().join("sessions").unwrap();
    let common = common.join(&committed.backup.header.session.to_string()).unwrap();
    assert!(!named.contains(&common), "{named:?}");
    two.holds("a", &all(5)).await;
    two.holds("b", &all(4)).await;
    two.world.clock.advance(GRACE + HOUR);
    let swept = two.prune("b", 0).await;
    assert_eq!(swept.swept.backups.len(), 4, "{swept:?}");
    let next = two.both(6).await;
    assert!(
        next.notes.iter().any(|note| note.contains("store b had missed")),
        "{:?}",
        next.notes
    );
    two.holds("a", &all(6)).await;
    two.holds("b", &generations(&[(5, 5), (6, 6)])).await;
    two.agree().await;
}

#[tokio::test]
async fn a_parent_that_every_store_gives_up_is_built_upon_nowhere() {
    let two = pruned(0, false).await;
    let _census = two.prune("a", 0).await;
    let full = two.both(5).await;
    assert_eq!(full.backup.header.parent, None);
    assert!(
        full.notes.iter().any(|note| note.contains("is going to be deleted")),
        "{:?}",
        full.notes
    );
    two.world.clock.advance(GRACE + HOUR);
    for name in ["a", "b"] {
        let _swept = two.prune(name, 1).await;
        two.holds(name, &generations(&[(5, 5)])).await;
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_judged_stands_apart() {
    let two = Two::timed().await;
    two.both(1).await;
    let unknown = two.world.component.folder().unwrap().join("prune/unknown").unwrap();
    let _put = two.second.put(&unknown, bytes::Bytes::from_static(b"?")).await.unwrap();
    let committed = calm(&two, 2).await;
    assert!(committed.backup.header.parent.is_some());
    assert!(committed.copies[1].apart && committed.copies[1].missing.is_some());
    two.holds("a", &all(2)).await;
    two.holds("b", &all(1)).await;
    let copied = copy(
        &two.world.env,
        &two.replica("a").await,
        &two.replica("b").await,
        &[],
        &two.copy_plan(Which::All),
    )
    .await;
    let error = crate::world::failed(copied, "a copy beside what nobody can judge");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    two.second.delete(&unknown).await.unwrap();
    two.both(3).await;
}

/// A pruner of one store freezes before any of its operations while a common session passes, or the session while the pruner does.
#[tokio::test]
async fn two_stores_and_a_pruner_that_freezes_anywhere() {
    let mut places = 0;
    for kept in [1, 0] {
        for ripe in [false, true] {
            let mut number = seed() % STEP;
            let mut more = true;
            while more {
                let two = pruned(kept, ripe).await;
                let gate = Arc::new(Gate::new(Arc::new(two.second.clone()), number));
                let through = Arc::<Gate>::clone(&gate);
                let pruner = async {
                    let repository = Repository::open(through).await?;
                    prune_with(&two.world, &repository, kept).await
                };
                let mut committed = None;
                let (outcome, frozen) = frozen_at(&gate, pruner, async { committed = Some(calm(&two, 5).await) }).await;
                let what = format!(
                    "kept {kept}, ripe {ripe}, frozen before {:?} ({number}): {outcome:?}",
                    gate.frozen()
                );
                more = frozen;
                if frozen {
                    after(&two, committed.unwrap(), kept, &what).await;
                    places += 1;
                }
                number += if soak() { 1 } else { STEP };
            }
            let mut number = seed() % STEP;
            loop {
                let two = pruned(kept, ripe).await;
                let gate = Arc::new(Gate::new(Arc::new(two.second.clone()), number));
                let writer = two.both_through(5, Arc::<Gate>::clone(&gate));
                let pruner = async {
                    let _pruned = two.prune("b", kept).await;
                };
                let (outcome, frozen) = frozen_at(&gate, writer, pruner).await;
                let what = format!(
                    "kept {kept}, ripe {ripe}, the writer frozen before {:?} ({number})",
                    gate.frozen()
                );
                if !frozen {
                    break;
                }
                after(&two, outcome.unwrap(), kept, &what).await;
                places += 1;
                number += if soak() { 1 } else { STEP };
            }
        }
    }
    assert!(places > 20, "{places}");
    eprintln!("two stores and a pruner that freezes: {places} places");
}

/// What is reported is so; what counts restores; and later sessions and prunes go on together.
async fn after(two: &Two, committed: Committed, kept: usize, what: &str) {
    let id = committed.backup.id;
    for (name, outcome) in ["a", "b"].into_iter().zip(&committed.copies) {
        let counts = sound(two, name).await.contains_key(&id.seq);
        assert_eq!(counts, outcome.missing.is_none(), "{name}: {what}: {:?}", committed.copies);
    }
    assert!(committed.copies[0].missing.is_none(), "{what}");
    if kept > 0 {
        assert!(committed.copies[1].missing.is_none(), "{what}: {:?}", committed.copies);
    }
    for _ in 0..2 {
        two.world.clock.advance(GRACE + HOUR);
        let _pruned = two.prune("b", 1).await;
    }
    let next = two.both(6).await;
    assert_eq!(next.backup.header.parent, Some(id.to_string()), "{what}: {:?}", next.notes);
    two.holds("a", &all(6)).await;
    assert!(sound(two, "b").await.contains_key(&6), "{what}");
    two.agree().await;
}

/// A pruner of one store dies at any operation; the next common session is whole.
#[tokio::test]
async fn two_stores_and_a_pruner_that_dies_anywhere() {
    let mut deaths = 0;
    for ripe in [false, true] {
        let total = {
            let two = pruned(1, ripe).await;
            let store = Arc::new(FaultyStore::new(two.second.clone(), Plan::calm()));
            let repository = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store))
                .await
                .unwrap();
            let _pruned = prune_with(&two.world, &repository, 1).await.unwrap();
            store.operations()
        };
        let plans = (0..total).flat_map(|number| [Plan::calm().crash_at(number), Plan::calm().crash_after(number)]);
        for plan in share(plans.collect(), 9) {
            let what = format!("ripe {ripe}, {plan:?}");
            let two = pruned(1, ripe).await;
            let store = Arc::new(FaultyStore::new(two.second.clone(), plan));
            if let Ok(repository) = Repository::open(store).await {
                drop(prune_with(&two.world, &repository, 1).await);
            }
            after(&two, calm(&two, 5).await, 1, &what).await;
            deaths += 1;
        }
    }
    eprintln!("two stores and a pruner that dies: {deaths} places");
}

/// A copy beside the pruner of its destination: what is being deleted there is not copied, whenever the one or the other stops.
#[tokio::test]
async fn a_copy_brings_nothing_back_that_is_being_deleted() {
    let two = pruned(0, true).await;
    let listed = two.replica("b").await;
    let listing = listed.backups(&two.world.component, &two.world.trust).await.unwrap();
    let header = two.world.component.folder().unwrap();
    let header = header.join(&format!("backups/{}", listing.backups[1].id)).unwrap();
    two.second.delete(&header).await.unwrap();
    let report = two.copy("a", "b", Which::All).await;
    assert!(report.copied.is_empty() && report.failed.len() == 1, "{report:?}");
    assert_eq!(report.failed[0].1.kind(), ErrorKind::Refused, "{report:?}");
    assert!(report.failed[0].1.to_string().contains("deleting it"), "{report:?}");
    // Its announcement does not make the pruner wait.
    let again = two.prune("b", 1).await;
    assert!(
        again.notes.iter().any(|note| note.contains("a new census begins")),
        "{again:?}"
    );
    two.holds("b", &generations(&[(1, 1), (3, 3), (4, 4)])).await;
    two.world.clock.advance(GRACE + HOUR);
    let _swept = two.prune("b", 1).await;
    two.holds("b", &generations(&[(4, 4)])).await;
    assert_eq!(two.copy("a", "b", Which::All).await.copied.len(), 3);
    two.holds("b", &all(4)).await;
    two.agree().await;
}

#[tokio::test]
async fn a_copy_that_freezes_anywhere_beside_a_pruner_copies_whole_backups() {
    let mut places = 0;
    // With a ripe census in the destination nearly nothing can be copied; without one, the pruner makes one while the copy stands still.
    for census in [true, false] {
        for number in 0.. {
            if !copy_frozen_at(census, number).await {
                break;
            }
            places += 1;
        }
    }
    assert!(places > 30, "{places}");
    eprintln!("a copy beside a pruner: frozen in {places} places");
}

async fn copy_frozen_at(census: bool, number: u64) -> bool {
    let two = pruned(1, true).await;
    let _swept = two.prune("b", 1).await;
    two.world.clock.advance(HOUR);
    let own = lifeboat_repo::BackupPlan {
        state_dir: two.world.folder.path().join("apart"),
        ..two.world.plan()
    };
    let only_b = two.replica("b").await;
    write(&two.world.env, &only_b, own, &crate::two_stores::source(5))
        .await
        .unwrap();
    if census {
        let _census = two.prune("b", 1).await;
        two.world.clock.advance(GRACE + HOUR);
    }
    let gate = Arc::new(Gate::new(Arc::new(two.second.clone()), number));
    let through = Arc::<Gate>::clone(&gate);
    let plan = two.copy_plan(Which::All);
    let (env, from) = (&two.world.env, two.replica("a").await);
    let copying = async {
        let to = Repository::open(through).await?;
        copy(env, &from, &to, &[], &plan).await
    };
    let pruner = async {
        // It may have to wait for the copy.
        drop(prune_with(&two.world, &two.replica("b").await, 1).await);
    };
    let (outcome, frozen) = frozen_at(&gate, copying, pruner).await;
    let what = format!("census {census}, frozen before {:?} ({number}): {outcome:?}", gate.frozen());
    let report = outcome.unwrap();
    let there = sound(&two, "b").await;
    for backup in &report.copied {
        assert!(there.contains_key(&backup.id.seq), "{what}");
    }
    for _ in 0..3 {
        two.world.clock.advance(GRACE + HOUR);
        let _pruned = two.prune("b", 1).await;
    }
    assert_eq!(sound(&two, "b").await.len(), 1, "{what}");
    frozen
}
