//! Who may not delete, what cannot be judged, and sessions that last long.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::ErrorKind;
use lifeboat_repo::{PrunePlan, Rights, Trust, prune};
use lifeboat_store::BlobStore;

use super::{GRACE, HOUR, all_hold, backups, keep, prune_through, prune_to, second, stored, world};
use crate::world::{Content, Files, World, failed};

/// A stolen host that may only back up can neither prune nor make another prune, and what it writes into `prune/` is not believed.
#[tokio::test]
async fn who_may_only_back_up_deletes_nothing() {
    let world = world().await;
    backups(&world, 3).await;
    world.clock.advance(GRACE);
    let mut trust = Trust::new();
    let limited = Rights {
        backup: true,
        prune: false,
        hold: false,
    };
    trust.add_with("host", world.instance.public_key(), limited);
    let pruner = second(&world);
    trust.add("other", pruner.instance.public_key());
    // With its own configuration it prunes as it likes; for everybody else its census is signed by nobody who may.
    let census = prune_to(&world, 0).await.unwrap();
    assert_eq!(census.condemned.backups.len(), 3);
    let pruner = World { trust, ..pruner };
    let error = failed(prune_to(&pruner, 1).await, "a prune beside a forged census");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("may not delete"), "{error}");
    world.clock.advance(GRACE + HOUR);
    assert_eq!(world.listing().await.backups.len(), 3);
    let retire = keep(1);
    let plan = PrunePlan {
        component: world.component.clone(),
        instance: Arc::clone(&world.instance),
        trust: pruner.trust.clone(),
        state_dir: world.state_dir(),
        grace: GRACE,
        dry_run: false,
        retire: &retire,
    };
    let error = failed(prune(&world.env, &world.repository, &plan).await, "a prune by who may not");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

/// INV-13, and nothing is deleted on the strength of a doubt: whatever cannot be listed or judged ends the run.
#[tokio::test]
async fn inv_14_a_doubt_ends_the_run() {
    let doubts: [(&str, &[u8]); 7] = [
        ("backups/0000000000000009-00", b"no backup"),
        ("sessions/00112233445566778899aabbccddeeff", b"no announcement"),
        ("prune/census-1-2", b"no census"),
        ("holds/1-2", b"no hold"),
        ("future/thing", b"unknown"),
        ("packs/odd", b"unknown"),
        ("log/00/00", b"no name of any log"),
    ];
    for ripe in [false, true] {
        for (name, bytes) in doubts {
            let world = world().await;
            let made = backups(&world, 3).await;
            world.clock.advance(GRACE);
            if ripe {
                let _census = prune_to(&world, 1).await.unwrap();
                world.clock.advance(GRACE + HOUR);
            }
            let key = world.component.folder().unwrap().join(name).unwrap();
            let _put = world.memory.put(&key, Bytes::from_static(bytes)).await.unwrap();
            let before = stored(&world).await;
            let error = failed(prune_to(&world, 1).await, name);
            assert_eq!(error.kind(), ErrorKind::Refused, "{name}: {error}");
            assert!(error.hint().is_some(), "{name}");
            assert_eq!(stored(&world).await, before, "{name}");
            world.memory.delete(&key).await.unwrap();
            all_hold(&world, &made).await;
        }
    }
}

/// A backup that runs for days extends its session; one that sleeps past its deadline makes no backup.
#[tokio::test]
async fn a_long_backup_extends_its_session() {
    use lifeboat_repo::Writer;
    let world = world().await;
    backups(&world, 1).await;
    let long = |hours: u32| {
        let world = &world;
        async move {
            let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
            for part in 0..4_u64 {
                // Bytes of its own: what an earlier backup holds is not stored again, and no pack would come.
                let bytes = lifeboat_testkit::pages::random_bytes(u64::from(hours) * 100 + part, 17 << 20);
                let files = Files::from([(format!("part{part}"), Content::Stream(bytes))]);
                let before = world.stored("packs").await.len();
                crate::world::put_all(&mut writer, &files).await.unwrap();
                // The pack that this part fills is on its way; the clock waits for it.
                while world.stored("packs").await.len() == before {
                    tokio::task::yield_now().await;
                }
                world.clock.advance(HOUR * hours);
            }
            writer.commit(world.env.clock.wall_us(), serde_json::Value::Null).await
        }
    };
    let committed = long(30).await.unwrap();
    let extensions = world
        .stored("sessions")
        .await
        .into_iter()
        .filter(|key| key.file_name().contains('-'));
    assert!(extensions.count() >= 3);
    assert_eq!(world.listing().await.latest().unwrap().id, committed.backup.id);
    let error = failed(long(50).await, "a backup that slept");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert_eq!(world.listing().await.latest().unwrap().id, committed.backup.id);
    // All of it is tidied up by later prunes.
    world.clock.advance(4 * GRACE);
    let _pruned = prune_through(&world, 1).await;
    assert!(
        world.stored("sessions").await.is_empty(),
        "{:?}",
        world.stored("sessions").await
    );
}
