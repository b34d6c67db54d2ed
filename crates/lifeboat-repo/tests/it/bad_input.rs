//! What is stored was damaged, removed, exchanged or forged: no wrong byte is ever given out, and each backup that suffered is reported.

use std::sync::Arc;

use lifeboat_model::ErrorKind;
use lifeboat_repo::{Backup, ComponentName, Identities, Instance, Reader, Repository, scrub};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan};
use lifeboat_testkit::pages::{change_pages, random_bytes, table_pages};

use crate::world::{Content, Files, World, failed, pages, seed, share, write};

/// Three backups: a full one, one with overlays, one with a changed stream.
async fn three_backups() -> (World, Vec<(Backup, Files)>) {
    let world = World::new(seed()).await;
    let mut bytes = table_pages(1, 4096, 3 * 32 + 5);
    let mut files = pages("db", bytes.clone(), 4096);
    files.insert("log".into(), Content::Stream(random_bytes(2, 30_000)));
    let mut history = vec![(world.backup(&files).await.backup, files.clone())];
    change_pages(&mut bytes, 4096, 3, 4);
    files.insert("db".into(), Content::Pages(bytes, 4096));
    history.push((world.backup(&files).await.backup, files.clone()));
    files.insert("log".into(), Content::Stream(random_bytes(9, 30_000)));
    history.push((world.backup(&files).await.backup, files.clone()));
    (world, history)
}

fn reaches(backup: &Backup, key: &Key) -> bool {
    let names = backup.files().unwrap();
    names.iter().any(|(name, _)| name == key) || key.file_name() == backup.id.to_string()
}

/// Nothing wrong is given out; what the damaged file `key` does not concern is untouched. Returns how many backups suffered.
async fn check(world: &World, history: &[(Backup, Files)], key: &Key, what: &str) -> usize {
    let listing = world.listing().await;
    let mut suffered = 0;
    for (backup, files) in history {
        let Some(found) = listing.backups.iter().find(|found| found.id == backup.id) else {
            let rejected = listing
                .rejected
                .iter()
                .find(|rejected| rejected.name == backup.id.to_string());
            let gone = key.file_name() == backup.id.to_string();
            assert!(gone || rejected.is_some(), "{what}: {:?} vanished silently", backup.id);
            if let Some(rejected) = rejected {
                assert_eq!(rejected.reason.kind(), ErrorKind::Corrupt, "{what}: {}", rejected.reason);
            }
            assert!(reaches(backup, key), "{what}: {:?} has nothing to do with it", backup.id);
            suffered += 1;
            continue;
        };
        match world.restore(found).await {
            Ok(restored) => assert!(&restored == files, "{what}: {:?} gives out wrong bytes", backup.id),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                assert!(reaches(backup, key), "{what}: {:?} has nothing to do with it", backup.id);
                suffered += 1;
            }
        }
    }
    suffered
}

async fn component_files(world: &World) -> Vec<Key> {
    let entries = world.memory.list(&world.component.folder().unwrap()).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test]
async fn inv_09_a_missing_or_truncated_file_takes_its_backups_out_of_the_list() {
    let (world, history) = three_backups().await;
    for key in component_files(&world).await {
        let original = world.bytes_of(&key).await;
        let names = if key.as_str().contains("/sessions/") { 0 } else { 1 };
        let affected = history.iter().filter(|(backup, _)| reaches(backup, &key)).count();
        assert!(affected >= names, "{key} belongs to nobody");
        world.memory.delete(&key).await.unwrap();
        assert_eq!(check(&world, &history, &key, &format!("{key} missing")).await, affected);
        for length in [0, 1, original.len() / 2, original.len() - 1] {
            world.overwrite(&key, original[..length].to_vec()).await;
            let what = format!("{key} cut to {length}");
            assert_eq!(check(&world, &history, &key, &what).await, affected, "{what}");
        }
        let mut longer = original.clone();
        longer.push(0);
        world.overwrite(&key, longer).await;
        assert_eq!(check(&world, &history, &key, &format!("{key} longer")).await, affected);
        world.overwrite(&key, original).await;
    }
    assert_eq!(world.listing().await.backups.len(), 3);
}

/// INV-10, INV-11: every region of every file with one bit turned over.
#[tokio::test]
async fn inv_10_a_flipped_bit_never_becomes_a_wrong_byte() {
    let (world, history) = three_backups().await;
    for key in component_files(&world).await {
        let original = world.bytes_of(&key).await;
        let step = (original.len() / 160).max(1);
        let places: Vec<usize> = (0..original.len())
            .step_by(step)
            .chain(original.len().saturating_sub(120)..original.len())
            .collect();
        for place in share(places, 12) {
            let mut flipped = original.clone();
            flipped[place] ^= 1 << (place % 8);
            world.overwrite(&key, flipped).await;
            let what = format!("{key} flipped at {place}");
            let suffered = check(&world, &history, &key, &what).await;
            let affected: Vec<_> = history.iter().filter(|(backup, _)| reaches(backup, &key)).collect();
            if key.as_str().contains("/backups/") || key.as_str().contains("/keys/") {
                assert_eq!(suffered, affected.len(), "{what}");
            }
            for (backup, _) in affected.iter().filter(|_| !key.as_str().contains("/backups/")) {
                let error = failed(scrub(&world.env, &world.repository, backup).await, &what);
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
            }
        }
        world.overwrite(&key, original).await;
    }
    assert_eq!(
        check(&world, &history, &Key::new("none").unwrap(), "all is well again").await,
        0
    );
}

/// Files exchanged with others of the same length, and replaced by what stood there before: names carry hashes, so none passes.
#[tokio::test]
async fn exchanged_and_older_files_are_found_out() {
    let world = World::new(seed()).await;
    let mut bytes = random_bytes(1, 3 * 131_072);
    let mut history = Vec::new();
    for round in 0..3_u64 {
        bytes[..131_072].copy_from_slice(&random_bytes(10 + round, 131_072));
        let files = pages("db", bytes.clone(), 8192);
        history.push((world.backup(&files).await.backup, files));
    }
    let keys = component_files(&world).await;
    let mut exchanged = 0;
    for (index, one) in keys.iter().enumerate() {
        for other in &keys[index + 1..] {
            let (first, second) = (world.bytes_of(one).await, world.bytes_of(other).await);
            let folder = |key: &Key| key.as_str().split('/').nth(2).unwrap().to_owned();
            if folder(one) == "sessions" || (first.len() != second.len() && folder(one) != folder(other)) {
                continue;
            }
            world.overwrite(one, second.clone()).await;
            let what = format!("{one} holds what {other} should");
            let suffered = check(&world, &history, one, &what).await;
            assert!(suffered > 0, "{what}");
            world.overwrite(other, first.clone()).await;
            for (backup, _) in &history {
                let listing = world.listing().await;
                if let Some(found) = listing.backups.iter().find(|found| found.id == backup.id)
                    && let Ok(restored) = world.restore(found).await
                {
                    assert!(
                        restored == history.iter().find(|(known, _)| known.id == found.id).unwrap().1,
                        "{what}"
                    );
                }
            }
            world.overwrite(one, first).await;
            world.overwrite(other, second).await;
            exchanged += 1;
        }
    }
    assert!(exchanged >= 9, "{exchanged}");
}

/// A whole component copied under another component's name: it is genuine, and counts for nothing.
#[tokio::test]
async fn a_backup_replayed_elsewhere_counts_nowhere() {
    let (world, history) = three_backups().await;
    let other = ComponentName::new("shop/other").unwrap();
    let (from, to) = (world.component.folder().unwrap(), other.folder().unwrap());
    for key in component_files(&world).await {
        let name = key.as_str().replace(from.as_str(), to.as_str());
        let _put = world
            .memory
            .put(&Key::new(name).unwrap(), world.bytes_of(&key).await.into())
            .await
            .unwrap();
    }
    let listing = world.repository.backups(&other, &world.trust).await.unwrap();
    assert!(listing.backups.is_empty());
    assert_eq!(listing.rejected.len(), 3);
    // The same in another repository.
    let elsewhere = World::over(seed() + 1, MemoryStore::new()).await;
    for key in component_files(&world).await {
        let _put = elsewhere.memory.put(&key, world.bytes_of(&key).await.into()).await.unwrap();
    }
    let listing = elsewhere.repository.backups(&world.component, &world.trust).await.unwrap();
    assert!(listing.backups.is_empty() && listing.rejected.len() == 3);
    // And an old backup dressed up as the newest: right hash, wrong number.
    let (oldest, _) = &history[0];
    let key = from.join(&format!("backups/{}", oldest.id)).unwrap();
    for name in [
        format!("{:016x}-{}", 99, oldest.id.to_string().split_once('-').unwrap().1),
        oldest.id.to_string().to_uppercase(),
        "notes.txt".into(),
    ] {
        let dressed = from.join(&format!("backups/{name}")).unwrap();
        let _put = world.memory.put(&dressed, world.bytes_of(&key).await.into()).await.unwrap();
    }
    let listing = world.listing().await;
    assert_eq!(listing.latest().unwrap().id, history[2].0.id);
    assert_eq!((listing.backups.len(), listing.rejected.len()), (3, 3));
    // None of this disturbs the next backup.
    let next = world.backup(&history[2].1).await;
    assert_eq!(next.backup.header.parent, Some(history[2].0.id.to_string()));
    world.assert_holds(&next.backup, &history[2].1).await;
}

/// What an instance nobody knows has signed is reported and never used, however high its number.
#[tokio::test]
async fn a_stranger_adds_nothing() {
    let (world, history) = three_backups().await;
    let stranger = Instance::create(
        &lifeboat_testkit::env::real_env(),
        "host",
        &world.folder.path().join("stranger.key"),
    )
    .unwrap();
    let mut plan = world.plan();
    plan.state_dir = world.folder.path().join("strangers-state");
    plan.instance = Arc::new(stranger);
    let forged = write(
        &lifeboat_testkit::env::real_env(),
        &world.repository,
        plan,
        &pages("db", vec![7; 4096], 4096),
    )
    .await
    .unwrap();
    assert_eq!(forged.backup.id.seq, 4);
    let listing = world.listing().await;
    assert_eq!(listing.latest().unwrap().id, history[2].0.id);
    assert_eq!(listing.rejected.len(), 1);
    assert_eq!(listing.rejected[0].name, forged.backup.id.to_string());
    let told = listing.find("4").unwrap_err();
    assert!(told.to_string().contains("ed25519:"), "{told}");
    // A name with the last number there is must not use the numbers up.
    let absurd = format!("backups/{}-{}", "f".repeat(16), "0".repeat(64));
    let absurd = world.component.folder().unwrap().join(&absurd).unwrap();
    let _put = world.memory.put(&absurd, "nonsense".into()).await.unwrap();
    let next = world.backup(&history[2].1).await;
    assert_eq!(next.backup.id.seq, 5);
    assert!(next.backup.header.parent.is_some());
}

#[tokio::test]
async fn inv_11_wrong_key_no_key_and_damaged_key_differ() {
    let (world, history) = three_backups().await;
    let backup = &history[2].0;
    let open = async |identities: &Identities| {
        Reader::open(&world.env, &world.repository, backup, identities)
            .await
            .map(|_reader| ())
    };
    let (other, _) = lifeboat_repo::generate_identity();
    let wrong = open(&Identities::parse(&other).unwrap()).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongKey);
    assert!(wrong.detail().contains("other recipients"), "{wrong}");
    let none = open(&Identities::none()).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WrongKey);
    assert!(none.detail().contains("no private key"), "{none}");
    // The right key among wrong ones.
    open(&Identities::parse(&format!("# two\n{other}\n\n{}\n", world.identity)).unwrap())
        .await
        .unwrap();
    for text in ["", "# nothing", "AGE-SECRET-KEY-1QQQ", "age1notasecret"] {
        assert_eq!(Identities::parse(text).unwrap_err().kind(), ErrorKind::WrongKey, "{text:?}");
    }
    let key = backup.key_files[0].name.key(&world.component).unwrap();
    let original = world.bytes_of(&key).await;
    for place in [0, 30, 60, original.len() / 2, original.len() - 1] {
        let mut damaged = original.clone();
        damaged[place] ^= 4;
        world.overwrite(&key, damaged).await;
        let error = open(&world.identities()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "at {place}: {error}");
        // Also for somebody whose key would not fit: first the damage.
        assert_eq!(
            open(&Identities::parse(&other).unwrap()).await.unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}

#[tokio::test]
async fn several_recipients_each_open_and_clear_needs_nobody() {
    let world = World::new(seed()).await;
    let (second, recipient) = lifeboat_repo::generate_identity();
    let files = pages("db", table_pages(1, 4096, 40), 4096);
    let mut plan = world.plan();
    plan.encryption = lifeboat_repo::Encryption::Age(vec![world.recipient.clone(), recipient]);
    let both = write(&world.env, &world.repository, plan, &files).await.unwrap();
    for identity in [&second, &world.identity] {
        let identities = Identities::parse(identity).unwrap();
        let reader = Reader::open(&world.env, &world.repository, &both.backup, &identities)
            .await
            .unwrap();
        assert!(crate::world::restore(&reader).await.unwrap() == files);
    }
    let mut plan = world.plan();
    plan.encryption = lifeboat_repo::Encryption::Clear;
    let clear = write(&world.env, &world.repository, plan, &files).await.unwrap();
    // What was secret does not become public, and what was public is nothing to build secrets on.
    assert!(clear.backup.header.parent.is_none(), "{:?}", clear.notes);
    assert!(!clear.backup.closure.is_encrypted() && both.backup.closure.is_encrypted());
    assert_ne!(clear.backup.header.lineage, both.backup.header.lineage);
    let bad = lifeboat_repo::Encryption::Age(vec!["age1nonsense".into()]);
    for encryption in [bad, lifeboat_repo::Encryption::Age(Vec::new())] {
        let mut plan = world.plan();
        plan.encryption = encryption;
        let error = write(&world.env, &world.repository, plan, &files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    }
}

/// INV-13, INV-04: a store that does not answer is an error; it is neither empty nor a reason for a full backup.
#[tokio::test]
async fn inv_13_a_listing_that_fails_is_an_error() {
    let (world, history) = three_backups().await;
    for kind in [
        ErrorKind::Unreachable,
        ErrorKind::TimedOut,
        ErrorKind::Failed,
        ErrorKind::NoSpace,
    ] {
        for op in [Op::List, Op::Get] {
            // Opening the repository is one get; only what comes after it fails.
            let plan = match op {
                Op::List => Plan::calm().always(Op::List, Fault::Refused(kind)),
                _ => (1..50).fold(Plan::calm(), |plan, number| plan.fault(number, Fault::Refused(kind))),
            };
            let repository = Repository::open(Arc::new(FaultyStore::new(world.memory.clone(), plan.clone())))
                .await
                .unwrap();
            let error = repository.backups(&world.component, &world.trust).await.unwrap_err();
            assert_eq!(error.kind(), kind);
            if op == Op::List {
                assert_eq!(repository.components().await.unwrap_err().kind(), kind);
            }
            let repository = Repository::open(Arc::new(FaultyStore::new(world.memory.clone(), plan)))
                .await
                .unwrap();
            let error = failed(write(&world.env, &repository, world.plan(), &history[2].1).await, "a backup");
            assert_eq!(error.kind(), kind);
        }
    }
    assert_eq!(world.listing().await.backups.len(), 3);
    let next = world.backup(&history[2].1).await;
    assert!(next.backup.header.parent.is_some(), "{:?}", next.notes);
}

#[tokio::test]
async fn a_repository_of_another_kind_or_version_is_refused() {
    let (world, _) = three_backups().await;
    let key = Key::new("lifeboat.json").unwrap();
    let text = String::from_utf8(world.bytes_of(&key).await).unwrap();
    for (from, to, kind) in [
        ("\"version\":1", "\"version\":2", ErrorKind::Incompatible),
        ("lifeboat-repository", "something-else", ErrorKind::Corrupt),
        ("{", "", ErrorKind::Corrupt),
        ("\"repository\":\"", "\"repository\":\"zz", ErrorKind::Corrupt),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        world.overwrite(&key, changed.into_bytes()).await;
        let error = Repository::open(Arc::new(world.memory.clone())).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{to}: {error}");
        // It is damaged, and not a place for a new one.
        let error = Repository::init(&world.env, Arc::new(world.memory.clone()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{to}: {error}");
    }
    world.memory.delete(&key).await.unwrap();
    let error = Repository::open(Arc::new(world.memory.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoRepository);
}

/// Two machines wrote a backup with the same number; one file with the other's content is genuine in all but its name.
#[tokio::test]
async fn two_backups_of_one_number_do_not_stand_for_each_other() {
    let world = World::new(seed()).await;
    let files = pages("db", table_pages(1, 4096, 40), 4096);
    let one = world.backup(&files).await;
    let key = world
        .component
        .folder()
        .unwrap()
        .join(&format!("backups/{}", one.backup.id))
        .unwrap();
    let first = world.bytes_of(&key).await;
    // The other machine does not see the first one's backup yet.
    world.memory.delete(&key).await.unwrap();
    let mut plan = world.plan();
    plan.state_dir = world.folder.path().join("other");
    let other = write(&world.env, &world.repository, plan, &files).await.unwrap();
    let _put = world.memory.put(&key, first.into()).await.unwrap();
    assert_eq!((one.backup.id.seq, other.backup.id.seq), (1, 1));
    assert_eq!(world.listing().await.backups.len(), 2);
    for backup in [&one.backup, &other.backup] {
        world.assert_holds(backup, &files).await;
    }
    let content = world
        .component
        .folder()
        .unwrap()
        .join(&format!("backups/{}", other.backup.id))
        .unwrap();
    world.overwrite(&key, world.bytes_of(&content).await).await;
    let listing = world.listing().await;
    assert_eq!((listing.backups.len(), listing.rejected.len()), (1, 1));
    assert_eq!(listing.rejected[0].name, one.backup.id.to_string());
    let told = listing.find("1").unwrap();
    assert_eq!(told.id, other.backup.id);
}
