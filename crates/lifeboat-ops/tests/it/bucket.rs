//! Real backups in a bucket that locks and archives: what goes cold, what comes back, and how long everything stays locked.

use std::time::{Duration, Instant};

use lifeboat_model::ErrorKind;
use lifeboat_ops::store::{Cold, Locked, Wanted, chill, extend, locked_until, set_up_bucket, thaw};
use lifeboat_store::Key;
use lifeboat_store::s3admin::{Bucket, Lock, LockMode, Place, plain_http};
use lifeboat_testkit::moto::Moto;

use crate::world::{World, open};

const DAY_US: i64 = 86_400_000_000;

fn bucket(test: &str) -> Bucket {
    let place = Place {
        endpoint: Some(Moto::shared().endpoint().to_owned()),
        region: "eu-central-1".to_owned(),
        bucket: Moto::shared().bucket(test),
        path_style: true,
    };
    Bucket::new(place, "eu", plain_http().unwrap(), Bucket::fixed_credentials("k", "s", None)).unwrap()
}

/// Everything in the store of the world, put into the bucket under the same names.
async fn upload(world: &World, bucket: &Bucket) {
    let root = world.protected.stores[0].path.clone().unwrap();
    let mut pending = vec![root.clone()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                bucket
                    .put_small(&Key::new(name).unwrap(), std::fs::read(&path).unwrap().into())
                    .await
                    .unwrap();
            }
        }
    }
}

/// Two backups that share nothing.
async fn two_backups() -> World {
    let world = World::new(3_000).await;
    drop(world.back_up().await.unwrap());
    open(&world.database)
        .execute_batch("UPDATE items SET body = randomblob(200), name = hex(randomblob(12)); PRAGMA wal_checkpoint(TRUNCATE);")
        .unwrap();
    drop(world.back_up().await.unwrap());
    world
}

#[tokio::test]
async fn only_what_recent_backups_do_not_reach_goes_cold_and_all_of_it_is_asked_for_at_once() {
    let world = two_backups().await;
    let bucket = bucket("chill");
    set_up_bucket(&bucket, &Wanted::default()).await.unwrap();
    upload(&world, &bucket).await;
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    let (component, cold) = (
        &world.protected.component,
        Cold {
            unreached_for: Duration::ZERO,
            storage_class: "GLACIER".to_owned(),
        },
    );
    let month = Cold {
        unreached_for: Duration::from_secs(30 * 86_400),
        ..cold.clone()
    };
    assert_eq!(
        chill(&world.env, &bucket, component, &listing, &month).await.unwrap().packs,
        0
    );

    let moved = chill(&world.env, &bucket, component, &listing, &cold).await.unwrap();
    assert!(moved.packs > 0 && moved.bytes > 0, "{moved:?}");
    let again = chill(&world.env, &bucket, component, &listing, &cold).await.unwrap();
    assert_eq!((again.packs, again.cold_before), (0, moved.packs));
    let everything = bucket.classes(&component.folder().unwrap()).await.unwrap();
    let cold_files = everything.iter().filter(|file| file.storage_class == "GLACIER");
    assert!(cold_files.clone().all(|file| file.key.as_str().contains("/packs/")));
    assert_eq!(cold_files.count() as u64, moved.packs);

    let newest = listing.latest().unwrap();
    assert!(thaw(&bucket, component, newest, true).await.unwrap().is_done());
    let oldest = listing.backups.iter().min_by_key(|backup| backup.id.seq).unwrap();
    let plan = thaw(&bucket, component, oldest, false).await.unwrap();
    assert_eq!((plan.files, plan.bytes, plan.asked_now), (moved.packs, moved.bytes, 0));
    assert_eq!(plan.expected, Duration::from_secs(4 * 3600));
    let asked = thaw(&bucket, component, oldest, true).await.unwrap();
    assert_eq!(asked.asked_now, moved.packs);
    if !asked.is_done() {
        let error = asked.into_error(component);
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains("GLACIER") && error.hint().unwrap().contains("run the same command again"));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while !thaw(&bucket, component, oldest, true).await.unwrap().is_done() {
        assert!(Instant::now() < deadline, "it never came back");
    }
}

#[tokio::test]
async fn everything_that_living_backups_need_is_locked_again() {
    let world = two_backups().await;
    let bucket = bucket("extend");
    let short = Lock {
        mode: LockMode::Governance,
        days: 2,
    };
    let wanted = Wanted {
        lock: Some(short),
        cold: None,
    };
    set_up_bucket(&bucket, &wanted).await.unwrap();
    upload(&world, &bucket).await;
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    let component = &world.protected.component;
    let newest = listing.latest().unwrap();
    let days = |locked: Locked| match locked {
        Locked::Until(until_us) => (until_us - world.env.clock.wall_us() + DAY_US / 2) / DAY_US,
        Locked::Not(files) => panic!("{files} files are not locked"),
    };
    assert_eq!(days(locked_until(&bucket, component, newest).await.unwrap()), 2);
    let long = Lock { days: 30, ..short };
    let done = extend(&world.env, &bucket, component, &listing, long).await.unwrap();
    assert!(done.files > 4 && done.extended == done.files, "{done:?}");
    assert_eq!(days(locked_until(&bucket, component, newest).await.unwrap()), 30);
    let again = extend(&world.env, &bucket, component, &listing, long).await.unwrap();
    assert_eq!((again.extended, again.long_enough), (0, done.files));

    // And none of it can be deleted.
    let name = component.folder().unwrap().join(&format!("backups/{}", newest.id)).unwrap();
    let version = bucket.file(&name).await.unwrap().version.unwrap();
    assert_eq!(
        bucket.delete_version(&name, &version).await.unwrap_err().kind(),
        ErrorKind::Refused
    );
}
