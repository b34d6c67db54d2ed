//! Every level of `verify` finds what it promises to find, and says nothing of what is whole.

use std::time::Duration;

use lifeboat_model::ErrorKind;
use lifeboat_model::readiness::Standing;
use lifeboat_ops::status;
use lifeboat_ops::verify::{self, Level};
use lifeboat_testkit::damage::{Damage, corrupt, files};

use crate::world::{World, kind_of};

async fn prove(world: &World, level: Level) -> lifeboat_model::Result<verify::Report> {
    let repository = world.protected.repository().await?;
    let listing = world.protected.listing(&repository).await?;
    verify::check_listing(&world.protected, &listing)?;
    let scratch = verify::scratch_folder(&world.env, &world.protected)?;
    let backup = listing.find("latest")?;
    verify::run(
        &world.env,
        &world.protected,
        &repository,
        backup,
        level,
        &world.identities,
        scratch,
    )
    .await
}

const LEVELS: [Level; 4] = [Level::List, Level::Hash, Level::Decrypt, Level::Restore];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_backup_passes_every_level_and_status_becomes_better_with_the_proof() {
    let mut world = World::new(500).await;
    world.protected.rpo = Some(std::time::Duration::from_secs(3600));
    let before = status::run(&world.env, &world.protected).await;
    assert_eq!(before.readiness().standing, Standing::NotReady);
    let _report = world.back_up().await.unwrap();
    let unproven = status::run(&world.env, &world.protected).await;
    assert_eq!(
        unproven.readiness().standing,
        Standing::AtRisk,
        "{:?}",
        unproven.readiness().reasons
    );
    for level in LEVELS {
        let report = prove(&world, level).await.unwrap();
        assert_eq!(report.level, level);
    }
    let proven = status::run(&world.env, &world.protected).await;
    assert_eq!(
        proven.readiness().standing,
        Standing::Ready,
        "{:?}",
        proven.readiness().reasons
    );
    assert!(
        !world
            .protected
            .state_dir
            .join("scratch")
            .read_dir()
            .is_ok_and(|mut entries| entries.next().is_some())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_notices_the_damage_that_is_its_own() {
    let world = World::new(3000).await;
    let _report = world.back_up().await.unwrap();
    let store = world.protected.stores[0].path.clone().unwrap();
    let pack = files(&store)
        .unwrap()
        .into_iter()
        .find(|key| key.to_string().contains("/packs/"))
        .unwrap();
    let keep = std::fs::read(store.join(pack.to_string())).unwrap();
    let cases = [
        (
            Damage::Truncate { to: 100 },
            vec![Level::List, Level::Hash, Level::Decrypt, Level::Restore],
        ),
        (
            Damage::FlipBit {
                byte: keep.len() as u64 / 2,
                bit: 3,
            },
            vec![Level::Hash, Level::Decrypt, Level::Restore],
        ),
        (Damage::Delete, vec![Level::List, Level::Hash, Level::Decrypt, Level::Restore]),
    ];
    for (damage, levels) in cases {
        corrupt(&store, &pack, &damage).unwrap();
        for level in levels {
            assert_eq!(
                kind_of(prove(&world, level).await),
                ErrorKind::Corrupt,
                "{damage:?} at {level:?}"
            );
        }
        std::fs::write(store.join(pack.to_string()), &keep).unwrap();
        let report = prove(&world, Level::Restore).await.unwrap();
        drop(report);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_from_the_future_proves_nothing_about_its_age() {
    let mut world = World::new(100).await;
    world.protected.rpo = Some(std::time::Duration::from_secs(3600));
    let _report = world.back_up().await.unwrap();
    let _proof = prove(&world, Level::Restore).await.unwrap();
    let _newer = world.back_up().await.unwrap();
    assert_eq!(
        status::run(&world.env, &world.protected).await.readiness().standing,
        Standing::Ready
    );
    let file = world.protected.state_dir.join("proofs");
    let mut files = std::fs::read_dir(file).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|end| end == "json")).unwrap();
    let mut proofs: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    proofs["proofs"][0]["at_us"] = (world.env.clock.wall_us() + 3_600_000_000).into();
    std::fs::write(&file, proofs.to_string()).unwrap();
    let status = status::run(&world.env, &world.protected).await;
    let readiness = status.readiness();
    assert_eq!(readiness.standing, Standing::AtRisk);
    assert!(
        readiness.reasons.iter().any(|reason| reason.says.contains("from the future")),
        "{:?}",
        readiness.reasons
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_others_can_read_are_told_by_the_doctor() {
    use lifeboat_ops::doctor::{self, KeyAtHand, Outcome};
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(10).await;
    let key = world.folder.join("key");
    let instance = lifeboat_ops::Protected::instance_key(&world.protected.state_dir);
    for (mode, told) in [(0o600, false), (0o640, true), (0o604, true)] {
        for file in [&key, &instance] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let at_hand = KeyAtHand {
            identities: Ok(lifeboat_repo::Identities::none()),
            file: Some(key.clone()),
            derived: false,
        };
        let checks = doctor::run(&world.env, &world.protected, "test", Some(at_hand)).await;
        for file in [&key, &instance] {
            let fix = format!("chmod 600 {}", file.display());
            let found = checks
                .iter()
                .any(|check| check.outcome == Outcome::Warning && check.fix.as_deref() == Some(fix.as_str()));
            assert_eq!(found, told, "{mode:o} {checks:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_be_written_to_is_told_by_the_doctor() {
    use lifeboat_ops::doctor::{self, Outcome};
    let mut world = World::new(10).await;
    let told = |checks: &[doctor::Check]| {
        checks
            .iter()
            .any(|check| check.outcome == Outcome::Bad && check.says.contains("no backup can be made"))
    };
    let whole = doctor::run(&world.env, &world.protected, "test", None).await;
    assert!(!told(&whole), "{whole:?}");
    world.protected.stores[0].path = Some(world.folder.join("not mounted"));
    let gone = doctor::run(&world.env, &world.protected, "test", None).await;
    assert!(told(&gone), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_damage_was_found_status_says_so_and_the_next_backup_does_not_build_on_it() {
    let mut world = World::new(2000).await;
    world.protected.rpo = Some(std::time::Duration::from_secs(3600));
    let first = world.back_up().await.unwrap();
    let _proof = prove(&world, Level::Restore).await.unwrap();
    let store = world.protected.stores[0].path.clone().unwrap();
    let stored = files(&store).unwrap();
    let pack = stored.iter().find(|key| key.to_string().contains("/packs/")).unwrap();
    corrupt(&store, pack, &Damage::FlipBit { byte: 5000, bit: 3 }).unwrap();
    for level in [Level::Hash, Level::Decrypt, Level::Restore] {
        assert_eq!(kind_of(prove(&world, level).await), ErrorKind::Corrupt);
        let damaged = status::run(&world.env, &world.protected).await;
        assert_eq!(
            damaged.readiness().standing,
            Standing::NotReady,
            "{:?}",
            damaged.readiness().reasons
        );
    }
    let second = world.back_up().await.unwrap();
    assert!(second.backup.header.parent.is_none());
    assert!(
        second.notes.iter().any(|note| note.contains(&first.backup.id.to_string())),
        "{:?}",
        second.notes
    );
    let unproven = status::run(&world.env, &world.protected).await;
    assert_eq!(
        unproven.readiness().standing,
        Standing::AtRisk,
        "{:?}",
        unproven.readiness().reasons
    );
    // Made anew once, not with every backup until somebody proves it.
    let third = world.back_up().await.unwrap();
    assert_eq!(third.backup.header.parent, Some(second.backup.id.to_string()));
    let _proof = prove(&world, Level::Restore).await.unwrap();
    let proven = status::run(&world.env, &world.protected).await;
    assert_eq!(
        proven.readiness().standing,
        Standing::Ready,
        "{:?}",
        proven.readiness().reasons
    );
}

/// Absence is an alarm, with and without an objective.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_whose_successor_is_missing_puts_the_component_at_risk() {
    let mut world = World::new(500).await;
    world.protected.rpo = Some(Duration::from_secs(7 * 86_400));
    let _report = world.back_up().await.unwrap();
    let _proof = prove(&world, Level::Restore).await.unwrap();
    let (day, run) = (Duration::from_secs(86_400), Duration::from_secs(900));
    // A day, the run, and an hour of grace.
    for (age, expected) in [
        (day + run + 4 * run, Standing::Ready),
        (day + run + 5 * run, Standing::AtRisk),
    ] {
        let mut status = status::run(&world.env, &world.protected).await;
        let moment_us = status.latest.as_ref().unwrap().header.moment_us;
        status.facts.now_us = moment_us + i64::try_from(age.as_micros()).unwrap();
        status.judge_schedule(day, run, "every 24h".to_owned());
        let readiness = status.readiness();
        assert_eq!(readiness.standing, expected, "{:?}", readiness.reasons);
        assert_eq!(
            readiness
                .reasons
                .iter()
                .any(|reason| reason.says.contains("a run is missing")),
            expected == Standing::AtRisk
        );
    }
}
