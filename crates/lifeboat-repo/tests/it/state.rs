//! Local state: lost, old, edited, foreign, or held by another run. The next backup is right all the same, and never an error.

use lifeboat_model::ErrorKind;
use lifeboat_repo::Writer;
use lifeboat_testkit::env::{START_WALL_US, real_env};
use lifeboat_testkit::pages::{change_pages, table_pages};

use crate::world::{Content, Files, World, copy_folder, failed, pages, seed, share, write};

fn changed(files: &Files, seed: u64) -> Files {
    let mut files = files.clone();
    for content in files.values_mut() {
        match content {
            Content::Pages(bytes, page_size) => drop(change_pages(bytes, *page_size, seed, 3)),
            Content::Stream(bytes) => bytes.push(1),
        }
    }
    files
}

fn source() -> Files {
    let mut files = pages("db", table_pages(1, 4096, 3 * 32 + 7), 4096);
    files.insert("log".into(), Content::Stream(b"some words".to_vec()));
    files
}

fn note(notes: &[String], words: &str) -> bool {
    notes.iter().any(|note| note.contains(words))
}

#[tokio::test]
async fn inv_07_lost_or_stale_state_costs_no_backup() {
    let world = World::new(seed()).await;
    let first = source();
    world.backup(&first).await;
    let aside = world.folder.path().join("aside");
    copy_folder(&world.state_dir(), &aside);
    let second = changed(&first, 1);
    world.backup(&second).await;
    // Lost.
    std::fs::remove_dir_all(world.state_dir()).unwrap();
    let third = changed(&second, 2);
    let full = world.backup(&third).await;
    assert!(
        full.backup.header.parent.is_none() && note(&full.notes, "no local state"),
        "{:?}",
        full.notes
    );
    assert_eq!(full.backup.id.seq, 3);
    // An older one came back with a restored machine.
    std::fs::remove_dir_all(world.state_dir()).unwrap();
    copy_folder(&aside, &world.state_dir());
    let fourth = changed(&third, 3);
    let next = world.backup(&fourth).await;
    assert!(
        next.backup.header.parent.as_ref().unwrap().starts_with("0000000000000001-"),
        "{:?}",
        next.notes
    );
    let listing = world.listing().await;
    for (backup, files) in listing.backups.iter().zip([&first, &second, &third, &fourth]) {
        world.assert_holds(backup, files).await;
    }
    assert_eq!(listing.backups.len(), 4);
}

#[tokio::test]
async fn inv_04_edited_state_is_noticed_in_every_file() {
    let world = World::new(seed()).await;
    let mut files = source();
    world.backup(&files).await;
    files = changed(&files, 9);
    world.backup(&files).await;
    let folder = world.state_folder();
    let mut targets = Vec::new();
    for generation in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if generation.is_dir() {
            targets.extend(std::fs::read_dir(&generation).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    targets.push(folder.join("state.json"));
    assert_eq!(targets.len(), 7);
    let mut damages = Vec::new();
    for target in targets {
        let length = std::fs::metadata(&target).unwrap().len();
        assert!(length > 0, "{}", target.display());
        for place in (0..length).step_by(usize::try_from(length / 12).unwrap().max(1)) {
            damages.push((target.clone(), Some(place)));
        }
        damages.push((target, None));
    }
    let kept = world.folder.path().join("kept");
    copy_folder(&world.state_dir(), &kept);
    for (target, place) in share(damages, 5) {
        let mut bytes = std::fs::read(&target).unwrap();
        match place {
            Some(place) => bytes[usize::try_from(place).unwrap()] ^= 2,
            None => bytes.truncate(bytes.len() / 2),
        }
        std::fs::write(&target, bytes).unwrap();
        let what = format!("{} {place:?}", target.display());
        let committed = world.backup(&files).await;
        assert!(committed.backup.header.parent.is_none(), "{what}: {:?}", committed.notes);
        assert!(note(&committed.notes, "the local state"), "{what}: {:?}", committed.notes);
        world.assert_holds(&committed.backup, &files).await;
        std::fs::remove_dir_all(world.state_dir()).unwrap();
        copy_folder(&kept, &world.state_dir());
    }
    // Untouched it is used.
    assert!(world.backup(&files).await.backup.header.parent.is_some());
}

#[tokio::test]
async fn state_of_another_repository_or_source_is_not_used() {
    let (one, other) = (World::new(seed()).await, World::new(seed() + 1).await);
    let files = source();
    one.backup(&files).await;
    other.backup(&files).await;
    std::fs::remove_dir_all(other.state_folder()).unwrap();
    copy_folder(&one.state_folder(), &other.state_folder());
    let committed = other.backup(&files).await;
    assert!(
        committed.backup.header.parent.is_none() && note(&committed.notes, "no longer in the store"),
        "{:?}",
        committed.notes
    );
    other.assert_holds(&committed.backup, &files).await;
    let mut plan = one.plan();
    plan.source = "another database".into();
    let committed = write(&one.env, &one.repository, plan, &files).await.unwrap();
    assert!(
        committed.backup.header.parent.is_none() && note(&committed.notes, "another one"),
        "{:?}",
        committed.notes
    );
    let mut plan = one.plan();
    plan.full = true;
    plan.source = "another database".into();
    let committed = write(&one.env, &one.repository, plan, &files).await.unwrap();
    assert!(
        committed.backup.header.parent.is_none() && note(&committed.notes, "asked for"),
        "{:?}",
        committed.notes
    );
}

/// INV-07: a full backup that fails leaves the state of the one before as it was.
#[tokio::test]
async fn a_full_backup_that_fails_costs_no_state() {
    let world = World::new(seed()).await;
    let files = source();
    world.backup(&files).await;
    let mut plan = world.plan();
    plan.full = true;
    let mut writer = Writer::begin(&world.env, &world.repository, plan).await.unwrap();
    crate::world::put_all(&mut writer, &files).await.unwrap();
    drop(writer);
    let next = world.backup(&files).await;
    assert!(next.backup.header.parent.is_some(), "{:?}", next.notes);
}

#[tokio::test]
async fn two_runs_on_one_machine_exclude_each_other() {
    let world = World::new(seed()).await;
    let files = source();
    let mut first = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
    let error = failed(
        Writer::begin(&world.env, &world.repository, world.plan()).await,
        "a second run",
    );
    assert_eq!(error.kind(), ErrorKind::Locked);
    crate::world::put_all(&mut first, &files).await.unwrap();
    let first = first.commit(START_WALL_US, serde_json::Value::Null).await.unwrap();
    world.assert_holds(&first.backup, &files).await;
    assert!(world.backup(&files).await.backup.header.parent.is_some());
}

/// Two machines that know nothing of each other write the same component at once.
#[tokio::test]
async fn two_hosts_at_once_both_restore() {
    let world = World::new(seed()).await;
    let (one, two) = (source(), changed(&source(), 4));
    for round in 0..3 {
        let mut plan = world.plan();
        plan.state_dir = world.folder.path().join("host-b");
        let host_b = real_env();
        let (a, b) = tokio::join!(
            write(&world.env, &world.repository, world.plan(), &one),
            write(&host_b, &world.repository, plan, &two)
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(
            (a.backup.header.parent.is_some(), b.backup.header.parent.is_some()),
            (round > 0, round > 0)
        );
        world.assert_holds(&a.backup, &one).await;
        world.assert_holds(&b.backup, &two).await;
    }
    let listing = world.listing().await;
    assert_eq!((listing.backups.len(), listing.rejected.len()), (6, 0));
}

#[tokio::test]
async fn a_clock_that_steps_back_changes_no_order() {
    let world = World::new(seed()).await;
    let first = source();
    world.backup(&first).await;
    world.clock.step_wall_us(-365 * 86_400 * 1_000_000);
    let second = changed(&first, 1);
    let committed = world.backup(&second).await;
    assert!(note(&committed.notes, "clock"), "{:?}", committed.notes);
    let listing = world.listing().await;
    assert_eq!(listing.latest().unwrap().id, committed.backup.id);
    assert!(listing.backups[0].header.moment_us > listing.backups[1].header.moment_us);
    assert!(committed.backup.header.parent.is_some());
    world.assert_holds(&listing.backups[0], &first).await;
    world.assert_holds(&listing.backups[1], &second).await;
}

/// INV-02: a session that outlived its deadline commits nothing, whichever clock says so.
#[tokio::test]
async fn inv_02_a_backup_file_is_not_put_after_the_deadline() {
    for suspended in [false, true] {
        let world = World::new(seed()).await;
        let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        crate::world::put_all(&mut writer, &source()).await.unwrap();
        let hours_48 = std::time::Duration::from_secs(48 * 3600);
        if suspended {
            world.clock.step_wall_us(48 * 3_600_000_000);
        } else {
            world.clock.advance(hours_48);
        }
        let error = failed(writer.commit(START_WALL_US, serde_json::Value::Null).await, "a late commit");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let listing = world.listing().await;
        assert!(listing.backups.is_empty() && listing.rejected.is_empty());
    }
}

/// What cannot work is said before anything is stored.
#[tokio::test]
async fn words_that_do_not_fit_and_missing_randomness_are_refused_at_once() {
    let world = World::new(seed()).await;
    for length in [2500, 20_000] {
        let mut plan = world.plan();
        plan.reason = Some("x".repeat(length / 2));
        plan.tags = vec!["\"".repeat(length / 4)];
        let outcome = write(&world.env, &world.repository, plan, &source()).await;
        match length {
            2500 => world.assert_holds(&outcome.unwrap().backup, &source()).await,
            _ => assert_eq!(failed(outcome, "a long reason").kind(), ErrorKind::Usage),
        }
    }
    assert_eq!(world.stored("sessions").await.len(), 1);
    let mut env = world.env.clone();
    env.entropy = std::sync::Arc::new(lifeboat_testkit::env::NoEntropy);
    assert_eq!(
        failed(write(&env, &world.repository, world.plan(), &source()).await, "no randomness").kind(),
        ErrorKind::Failed
    );
    assert_eq!(world.stored("keys").await.len(), 1);
}

/// A machine whose own key the configuration does not name is told so.
#[tokio::test]
async fn an_instance_that_does_not_trust_itself_is_told() {
    let world = World::new(seed()).await;
    let mut plan = world.plan();
    plan.trust = lifeboat_repo::Trust::new();
    let committed = write(&world.env, &world.repository, plan, &source()).await.unwrap();
    assert!(
        note(&committed.notes, "not among the configured instances"),
        "{:?}",
        committed.notes
    );
}
