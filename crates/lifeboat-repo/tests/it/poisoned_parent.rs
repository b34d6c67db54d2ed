//! The parent lost something: the next backup from a machine with public keys only restores byte for byte, and the old one is reported.

use lifeboat_model::ErrorKind;
use lifeboat_repo::{Backup, Marker, scrub, scrub_and_mark};
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::pages::{change_pages, random_bytes, table_pages};

use crate::world::{Content, Files, World, pages, seed, write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    Deleted,
    Cut,
    /// A flipped bit that a scrub found and wrote down under `bad/`.
    Marked,
}

/// Three generations, so that the newest reaches packs, maps and keys of all.
async fn prepared() -> (World, Vec<(Backup, Files)>) {
    let mut world = World::new(seed()).await;
    // One worker, so that each run writes the same number of packs.
    world.env.threads = 1;
    let mut bytes = table_pages(1, 4096, 3 * 32 + 5);
    let mut files = pages("db", bytes.clone(), 4096);
    files.insert("log".into(), Content::Stream(random_bytes(2, 600_000)));
    let mut history = vec![(world.backup(&files).await.backup, files.clone())];
    for round in 0..2 {
        change_pages(&mut bytes, 4096, 3 + round, 2);
        files.insert("db".into(), Content::Pages(bytes.clone(), 4096));
        files.insert(format!("log{round}"), Content::Stream(random_bytes(30 + round, 200_000)));
        history.push((world.backup(&files).await.backup, files.clone()));
    }
    (world, history)
}

async fn poison(world: &World, key: &Key, how: Poison) {
    let mut bytes = world.bytes_of(key).await;
    match how {
        Poison::Deleted => return world.memory.delete(key).await.unwrap(),
        Poison::Cut => drop(bytes.split_off(bytes.len() / 2)),
        Poison::Marked => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
    }
    world.overwrite(key, bytes).await;
}

/// Design test 2: every pack, map and key in turn.
async fn every_file_in_turn(how: Poison) {
    let (_, history) = prepared().await;
    let count = history[2].0.files().unwrap().len();
    assert!(count >= 8, "{count}");
    eprintln!("poisoned_parent: each of {count} files {how:?}, seed {}", seed());
    for index in 0..count {
        let (world, history) = prepared().await;
        let (parent, source) = &history[2];
        let (key, _) = parent.files().unwrap()[index].clone();
        poison(&world, &key, how).await;
        if how == Poison::Marked {
            let marker = Marker {
                instance: &world.instance,
                trust: &world.trust,
            };
            let (_, damaged) = scrub_and_mark(&world.env, &world.repository, parent, marker).await.unwrap();
            assert_eq!(damaged, std::slice::from_ref(&key));
        }
        let mut files = source.clone();
        if let Some(Content::Pages(bytes, _)) = files.get_mut("db") {
            change_pages(bytes, 4096, 99, 2);
        }
        let next = world.backup(&files).await;
        let what = format!("{key} {how:?}: {:?}", next.notes);
        assert_eq!(next.backup.header.parent, Some(parent.id.to_string()), "{what}");
        world.assert_holds(&next.backup, &files).await;
        scrub(&world.env, &world.repository, &next.backup).await.unwrap();
        assert!(next.notes.iter().any(|note| note.contains("missing or damaged")), "{what}");
        // The old ones that reach it are reported: by the list, or by a scrub where only the content is wrong.
        let listing = world.listing().await;
        // Key files are small and everything hangs on them: their content is looked at in every listing.
        let listed_as_lost = how != Poison::Marked || key.file_name().ends_with(".age");
        for (backup, files) in &history {
            let reaches = backup.files().unwrap().iter().any(|(name, _)| *name == key);
            let counted = listing.backups.iter().find(|found| found.id == backup.id);
            match (reaches, counted) {
                (false, Some(backup)) => world.assert_holds(backup, files).await,
                (true, Some(backup)) if !listed_as_lost => {
                    let error = scrub(&world.env, &world.repository, backup).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
                }
                (true, None) if listed_as_lost => {
                    assert!(
                        listing.rejected.iter().any(|rejected| rejected.name == backup.id.to_string()),
                        "{what}"
                    );
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        // And the one after builds on it without another thought.
        let after = world.backup(&files).await;
        assert_eq!(after.stats.changed_bytes, 0, "{what}");
        world.assert_holds(&after.backup, &files).await;
    }
}

#[tokio::test]
async fn poisoned_parent_one_file_deleted() {
    every_file_in_turn(Poison::Deleted).await;
}

#[tokio::test]
async fn poisoned_parent_one_file_truncated() {
    every_file_in_turn(Poison::Cut).await;
}

#[tokio::test]
async fn poisoned_parent_one_bit_flipped_that_a_scrub_found() {
    every_file_in_turn(Poison::Marked).await;
}

#[tokio::test]
async fn poisoned_parent_everything_lost_at_once() {
    let (world, history) = prepared().await;
    let (parent, files) = &history[2];
    for (key, _) in parent.files().unwrap() {
        world.memory.delete(&key).await.unwrap();
    }
    let next = world.backup(files).await;
    world.assert_holds(&next.backup, files).await;
    assert_eq!(world.listing().await.backups.len(), 1);
}

/// INV-04: a census that this version cannot judge, or a parent that is gone, makes the backup full.
#[tokio::test]
async fn inv_04_a_census_or_a_missing_parent_makes_it_full() {
    let (world, history) = prepared().await;
    let (parent, files) = &history[2];
    let census = world.component.folder().unwrap().join("prune/1-abc").unwrap();
    let _put = world.memory.put(&census, "a census".into()).await.unwrap();
    let full = world.backup(files).await;
    assert!(full.backup.header.parent.is_none(), "{:?}", full.notes);
    world.assert_holds(&full.backup, files).await;
    world.memory.delete(&census).await.unwrap();
    assert!(world.backup(files).await.backup.header.parent.is_some());
    for backup in world.listing().await.backups {
        let key = world
            .component
            .folder()
            .unwrap()
            .join(&format!("backups/{}", backup.id))
            .unwrap();
        if backup.id != parent.id {
            world.memory.delete(&key).await.unwrap();
        }
    }
    let full = write(&world.env, &world.repository, world.plan(), files).await.unwrap();
    assert!(full.backup.header.parent.is_none(), "{:?}", full.notes);
    world.assert_holds(&full.backup, files).await;
}
