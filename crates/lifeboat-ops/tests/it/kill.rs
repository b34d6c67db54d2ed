//! kill -9 at every store operation of a backup, a prune, a copy, a change of keys and a restore, in folders and in buckets: a child process
//! of this test dies there, for real.
//!
//! Afterwards every listed backup restores byte for byte, nothing good was deleted, the source is whole, and the same verb run again
//! comes to its end. In a folder the child dies before and after each operation of the store; in a bucket the service, which lives in the test's
//! own process, strikes it down before, in the middle of and after each request. A seed chooses some of the places, `LIFEBOAT_SOAK=1` takes all.

mod child;
mod scene;

use std::time::Duration;

use lifeboat_ops::restore::Destination;
use lifeboat_repo::Rekey;
use scene::{Good, Ground, Scene};

use crate::world::{World, add, count, make, open};

/// Longer than a session may last, and than the grace period.
const LONG: Duration = Duration::from_secs(49 * 3600);

/// Adds rows and backs up.
async fn grow(world: &World, rows: i64) {
    add(&open(&world.database), rows);
    drop(world.back_up().await.unwrap());
}

async fn backup(ground: Ground) {
    let mut scene = Scene::new(ground).await;
    add(&open(&scene.world().await.database), 40);
    let good = scene.keep().await;
    scene
        .for_each_death("backup", async |scene, died, what| {
            let world = scene.world().await;
            let listed = good.all_restore(&world, what).await;
            assert!(listed.is_superset(&good.ids()), "{what}");
            assert_eq!(count(&world.database), 1540, "{what}");
            if !died {
                assert_eq!(listed.len(), 2, "{what}");
                return;
            }
            let next = world.back_up().await.unwrap();
            assert_eq!(next.facts.sqlite().unwrap().tables["items"], 1540, "{what}");
            assert!(
                next.backup.header.parent.is_some(),
                "{what}, incremental again: {:?}",
                next.notes
            );
            assert!(good.all_restore(&world, what).await.contains(&next.backup.id), "{what}");
        })
        .await;
}

/// Four backups, all sessions over.
async fn four(ground: Ground) -> Scene {
    let scene = Scene::new(ground).await;
    let world = scene.world().await;
    for round in 1..4 {
        open(&world.database)
            .execute_batch("UPDATE items SET body = randomblob(200) WHERE id % 5 = 0; DELETE FROM items WHERE id % 11 = 0;")
            .unwrap();
        grow(&world, 10 * round).await;
    }
    scene.age(LONG);
    scene
}

/// Prunes to the end: after it exactly the two newest backups are there, and the next backup builds on them.
async fn prune_to_the_end(scene: &mut Scene, good: &Good, what: &str) {
    let world = scene.world().await;
    for _ in 0..3 {
        let _report = child::prune(&world).await.unwrap();
        let listed = good.all_restore(&world, what).await;
        assert!(listed.is_superset(&good.newest(2)), "{what}");
        scene.age(LONG);
    }
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    assert!(listing.rejected.is_empty(), "{what}: {:?}", listing.rejected);
    assert_eq!(good.all_restore(&world, what).await, good.newest(2), "{what}");
    assert_eq!(scene.files("prune/").await, Vec::<String>::new(), "{what}");
    // Exactly what they need is left.
    let needed: std::collections::BTreeSet<String> = listing
        .backups
        .iter()
        .flat_map(|backup| backup.files().unwrap())
        .map(|(key, _)| key.as_str().to_owned())
        .collect();
    for folder in ["packs/", "maps/", "keys/"] {
        for file in scene.files(folder).await {
            assert!(needed.contains(&file), "{what}: {file} is left");
        }
    }
    let next = world.back_up().await.unwrap();
    assert!(next.backup.header.parent.is_some(), "{what}: {:?}", next.notes);
    assert_eq!(good.all_restore(&world, what).await.len(), 3, "{what}");
}

/// Both halves of a prune: the census, and after the grace period the sweep.
async fn prune(ground: Ground, verb: &str, census_first: bool) {
    let mut scene = Box::pin(four(ground)).await;
    let good = scene.good().await;
    if census_first {
        let _report = child::prune(&scene.world().await).await.unwrap();
        scene.age(LONG);
    }
    scene.keep().await;
    Box::pin(scene.for_each_death(verb, async |scene, _, what| {
        let world = scene.world().await;
        let listed = good.all_restore(&world, what).await;
        let must = good.newest(if census_first { 2 } else { 4 });
        assert!(listed.is_superset(&must), "{what}: {listed:?}");
        prune_to_the_end(scene, &good, what).await;
    }))
    .await;
}

async fn copy(ground: Ground) {
    let mut scene = Scene::new(ground).await;
    let world = scene.world().await;
    grow(&world, 30).await;
    let good = scene.keep().await;
    scene
        .for_each_death("copy", async |scene, died, what| {
            let world = scene.world().await;
            assert_eq!(good.all_restore(&world, what).await, good.ids(), "{what}");
            if let Some(second) = scene.second_world().await {
                let there = good.all_restore(&second, what).await;
                assert!(died || there == good.ids(), "{what}: {there:?}");
            }
            let again = child::copy(&world, &scene.second().await).await.unwrap();
            assert!(again.failed.is_empty(), "{what}: {:?}", again.failed);
            let second = scene.second_world().await.unwrap();
            assert_eq!(good.all_restore(&second, what).await, good.ids(), "{what}");
        })
        .await;
}

/// A record stands here before any store is asked: whenever its writer dies, it is there once (INV-18).
async fn ledger(ground: Ground) {
    let mut scene = Scene::new(ground).await;
    drop(child::record(&scene.world().await, "first").await);
    scene.keep().await;
    scene
        .for_each_death("ledger", async |scene, _, what| {
            let world = scene.world().await;
            let appended = child::record(&world, "next").await;
            assert_eq!((appended.missing.len(), appended.pending), (0, 0), "{what}: {appended:?}");
            let records = lifeboat_ops::ledger::read(&world.protected).await.unwrap().records;
            let whats: Vec<&serde_json::Value> = records.iter().map(|record| &record.facts["what"]).collect();
            assert_eq!(whats, ["first", "of the child", "next"], "{what}");
            let audit = lifeboat_ops::ledger::audit(&world.protected).await.unwrap();
            assert!(audit.findings.is_empty(), "{what}: {:?}", audit.findings);
        })
        .await;
}

/// A recipient comes, or goes: until then everybody who could read can, and afterwards who went opens nothing.
async fn change(ground: Ground, verb: &str, how: Rekey) {
    let mut scene = Scene::new(ground).await;
    let mut world = scene.world().await;
    if how == Rekey::Replace {
        world.protected.encryption = child::both(&world);
    }
    // A backup under each of two sets of keys.
    grow(&world, 5).await;
    assert!(lifeboat_ops::keys::rotate(&world.protected).await.unwrap());
    grow(&world, 5).await;
    let good = scene.keep().await;
    scene
        .for_each_death(verb, async |scene, died, what| {
            let world = scene.world().await;
            assert_eq!(good.all_restore(&world, what).await, good.ids(), "{what}");
            let other = child::other(&world);
            if !died {
                assert_eq!(child::opened_by(&world, &other).await, child::expected(how, &good), "{what}");
            }
            for outcome in child::change(&world, how).await.unwrap() {
                let done = outcome.outcome.unwrap();
                assert!(done.failed.is_empty(), "{what}: {:?}", done.failed);
            }
            assert_eq!(good.all_restore(&world, what).await, good.ids(), "{what}");
            assert_eq!(child::opened_by(&world, &other).await, child::expected(how, &good), "{what}");
            let next = world.back_up().await.unwrap();
            assert!(good.all_restore(&world, what).await.contains(&next.backup.id), "{what}");
        })
        .await;
}

/// New keys and with them a full backup.
async fn rotate(ground: Ground) {
    let mut scene = Scene::new(ground).await;
    let good = scene.keep().await;
    scene
        .for_each_death("rotate", async |scene, _, what| {
            let world = scene.world().await;
            assert!(good.all_restore(&world, what).await.is_superset(&good.ids()), "{what}");
            child::rotate(&world).await.unwrap();
            assert!(good.all_restore(&world, what).await.len() >= 2, "{what}");
        })
        .await;
}

async fn restore(ground: Ground) {
    let mut scene = Scene::new(ground).await;
    let database = scene.world().await.database.clone();
    let good = scene.good().await;
    std::fs::remove_file(&database).unwrap();
    make(&database, "wal", 7);
    scene.keep().await;
    scene
        .for_each_death("restore", async |scene, died, what| {
            let world = scene.world().await;
            assert_eq!(good.all_restore(&world, what).await, good.ids(), "{what}");
            if !died {
                assert_eq!(count(&database), 1500, "{what}");
                return;
            }
            assert_eq!(count(&database), 7, "{what}");
            let to = Destination::InPlace { path: database.clone() };
            let report = world.restore("latest", to).await.unwrap();
            assert_eq!(report.findings.rows, 1500, "{what}");
            let app = std::fs::read_dir(database.parent().unwrap()).unwrap();
            let hidden = app
                .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".lifeboat"))
                .count();
            assert_eq!(hidden, 0, "{what}: leftovers of killed runs are removed");
        })
        .await;
}

macro_rules! in_folder_and_bucket {
    ($($(#[$meta:meta])* $name:ident, $bucket:ident: $run:expr;)*) => {$(
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let run = $run;
            run(Ground::Folder).await;
        }
        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $bucket() {
            let run = $run;
            run(Ground::Bucket).await;
        }
    )*};
}

in_folder_and_bucket! {
    inv_02_inv_07_a_backup_killed_anywhere_leaves_every_listed_backup_restorable,
    inv_02_inv_07_a_backup_into_a_bucket_killed_anywhere_leaves_every_listed_backup_restorable: backup;
    inv_14_a_census_killed_anywhere_deletes_nothing,
    inv_14_a_census_in_a_bucket_killed_anywhere_deletes_nothing: |ground| prune(ground, "census", false);
    inv_14_a_sweep_killed_anywhere_leaves_all_that_is_kept,
    inv_14_a_sweep_in_a_bucket_killed_anywhere_leaves_all_that_is_kept: |ground| prune(ground, "sweep", true);
    inv_02_a_copy_killed_anywhere_leaves_whole_backups_in_both_stores,
    inv_02_a_copy_between_buckets_killed_anywhere_leaves_whole_backups_in_both: copy;
    a_recipient_added_and_killed_anywhere_locks_nobody_out,
    a_recipient_added_in_a_bucket_and_killed_anywhere_locks_nobody_out: |ground| change(ground, "add", Rekey::Add);
    a_recipient_removed_and_killed_anywhere_locks_nobody_else_out,
    a_recipient_removed_in_a_bucket_and_killed_anywhere_locks_nobody_else_out: |ground| change(ground, "remove", Rekey::Replace);
    new_keys_killed_anywhere_leave_every_listed_backup_restorable,
    new_keys_in_a_bucket_killed_anywhere_leave_every_listed_backup_restorable: rotate;
    inv_18_a_record_whose_writer_is_killed_anywhere_stands_once,
    inv_18_a_record_in_a_bucket_whose_writer_is_killed_anywhere_stands_once: ledger;
    inv_12_a_restore_killed_anywhere_leaves_the_old_database_or_the_whole_new_one,
    inv_12_a_restore_from_a_bucket_killed_anywhere_leaves_the_old_database_or_the_whole_new_one: restore;
}
