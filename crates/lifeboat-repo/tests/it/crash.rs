//! The machine dies, the wire lies, the source fails, or somebody lets go of the future: at every operation of a first and of an
//! incremental backup. Afterwards each listed backup restores byte for byte, and the next run works.

use std::sync::Arc;

use lifeboat_model::{ErrorKind, Result};
use lifeboat_repo::{Committed, Repository, Writer};
use lifeboat_store::BlobStore;
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::env::START_WALL_US;
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan, is_crash};
use lifeboat_testkit::pages::{MemoryPages, change_pages, table_pages};

use crate::world::{Content, Files, World, failed, meta, pages, seed, share, write};

fn source(generation: u64) -> Files {
    let mut bytes = table_pages(1, 4096, 3 * 32 + 5);
    for round in 0..generation {
        change_pages(&mut bytes, 4096, round, 3);
    }
    let mut files = pages("db", bytes, 4096);
    files.insert("log".into(), Content::Stream(generation.to_le_bytes().repeat(700)));
    files
}

/// A repository with `before` backups.
async fn prepared(before: u64) -> World {
    let mut world = World::new(seed()).await;
    // One worker, so that each run does the same number of operations.
    world.env.threads = 1;
    for generation in 0..before {
        world.backup(&source(generation)).await;
    }
    world
}

async fn attempt(world: &World, files: &Files, plan: Plan) -> (Arc<FaultyStore<MemoryStore>>, Result<Committed>) {
    let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
    let repository = match Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store)).await {
        Ok(repository) => repository,
        Err(error) => return (store, Err(error)),
    };
    let outcome = write(&world.env, &repository, world.plan(), files).await;
    (store, outcome)
}

/// Every listed backup holds its source; the next run works, and its successor is incremental.
async fn check_afterwards(world: &World, before: u64, outcome: Option<&Committed>, what: &str) {
    let listing = world.listing().await;
    assert!(listing.rejected.is_empty(), "{what}: {:?}", listing.rejected);
    let count = listing.backups.len() as u64;
    assert!(count == before || count == before + 1, "{what}: {count} backups");
    for (generation, backup) in listing.backups.iter().enumerate() {
        world.assert_holds(backup, &source(generation as u64)).await;
    }
    if let Some(committed) = outcome {
        assert_eq!(listing.latest().unwrap().id, committed.backup.id, "{what}");
    }
    let next = world.backup(&source(count)).await;
    world.assert_holds(&next.backup, &source(count)).await;
    // INV-07: whatever stood before is built upon: the backup that just made it, or the one before.
    let parent = listing.latest().map(|backup| backup.id.to_string());
    assert_eq!(next.backup.header.parent, parent, "{what}: {:?}", next.notes);
    let after = world.backup(&source(count)).await;
    assert_eq!(after.stats.changed_bytes, 0, "{what}");
}

async fn operations(before: u64) -> u64 {
    let world = prepared(before).await;
    let (store, outcome) = attempt(&world, &source(before), Plan::calm()).await;
    outcome.unwrap();
    store.operations()
}

#[tokio::test]
async fn inv_07_a_crash_at_every_operation() {
    for before in [0, 1, 3] {
        for number in 0..operations(before).await {
            for plan in [Plan::calm().crash_at(number), Plan::calm().crash_after(number)] {
                let what = format!("{before} before, {plan:?}");
                let world = prepared(before).await;
                let (store, outcome) = attempt(&world, &source(before), plan).await;
                assert!(store.crashed(), "{what}");
                let error = failed(outcome, &what);
                assert!(is_crash(&error), "{what}: {error}");
                check_afterwards(&world, before, None, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn lies_of_the_wire() {
    let faults = [
        Fault::Delay(5),
        Fault::Refused(ErrorKind::Unreachable),
        Fault::Refused(ErrorKind::NoSpace),
        Fault::ReplyLost,
        Fault::Twice,
        Fault::Late(1),
        Fault::Late(1000),
    ];
    let mut matrix = Vec::new();
    for before in [0, 2] {
        for number in 0..operations(before).await {
            matrix.extend(faults.map(|fault| (before, number, fault)));
        }
    }
    let matrix = share(matrix, 4);
    println!(
        "lies_of_the_wire: {} places and kinds of fault in a backup, seed {}",
        matrix.len(),
        seed()
    );
    for (before, number, fault) in matrix {
        let what = format!("{before} before, operation {number} {fault:?}");
        let world = prepared(before).await;
        let (store, outcome) = attempt(&world, &source(before), Plan::calm().fault(number, fault)).await;
        assert!(!store.faulted().is_empty(), "{what}");
        let harmless = matches!(fault, Fault::Delay(_) | Fault::Twice);
        assert_eq!(outcome.is_ok(), harmless, "{what}: {:?}", outcome.err());
        // What was on its way arrives after all.
        drop(store.land().await);
        check_afterwards(&world, before, outcome.as_ref().ok(), &what).await;
    }
}

/// A backup file that lands only after the next backup stands: both count, both restore.
#[tokio::test]
async fn a_late_backup_file_does_no_harm() {
    let world = prepared(2).await;
    let last_put = {
        let probe = prepared(2).await;
        let (store, _) = attempt(&probe, &source(2), Plan::calm()).await;
        let log = store.log();
        log.iter()
            .rfind(|record| record.key.as_str().contains("/backups/"))
            .unwrap()
            .number
    };
    let (store, outcome) = attempt(&world, &source(2), Plan::calm().fault(last_put, Fault::Late(1000))).await;
    assert!(outcome.is_err());
    let next = world.backup(&source(3)).await;
    drop(store.land().await);
    let listing = world.listing().await;
    assert_eq!((listing.backups.len(), listing.rejected.len()), (4, 0));
    for backup in &listing.backups[2..] {
        let files = if backup.id == next.backup.id { source(3) } else { source(2) };
        world.assert_holds(backup, &files).await;
    }
    let after = world.backup(&source(4)).await;
    assert_eq!(
        after.backup.header.parent,
        Some(next.backup.id.to_string()),
        "{:?}",
        after.notes
    );
    world.assert_holds(&after.backup, &source(4)).await;
}

/// Somebody lets go of the future after any number of turns: nothing half counts, the lock is free, the next run works.
#[tokio::test]
async fn a_dropped_future_leaves_nothing_that_counts() {
    for before in [0, 2] {
        let total = operations(before).await;
        for number in 0..total {
            let world = prepared(before).await;
            // The store stops answering at this operation; the run is dropped while it waits there.
            let plan = Plan::calm().fault(number, Fault::Delay(u32::MAX));
            let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
            let probe = Arc::<FaultyStore<MemoryStore>>::clone(&store);
            let files = source(before);
            let run = async {
                let repository = Repository::open(store).await?;
                write(&world.env, &repository, world.plan(), &files).await
            };
            tokio::select! {
                biased;
                outcome = run => panic!("operation {number} of {total}: {:?}", outcome.map(|committed| committed.backup.id)),
                () = async { while probe.operations() <= number { tokio::task::yield_now().await; } } => {}
            }
            let what = format!("{before} before, dropped at {number}");
            let listing = world.listing().await;
            assert!(listing.rejected.is_empty(), "{what}");
            check_afterwards(&world, before, None, &what).await;
        }
    }
}

/// INV-03: whichever segment fails, there is no backup file, also when the caller goes on as if nothing had happened.
#[tokio::test]
async fn inv_03_an_error_of_the_source_ends_in_no_backup_file() {
    let Some(Content::Pages(bytes, _)) = source(0).remove("db") else {
        panic!("pages")
    };
    let segments = MemoryPages::new(bytes.clone(), 4096).with_segments_of(131_072).segments();
    for before in [0, 1] {
        for segment in 0..=segments {
            let world = prepared(before).await;
            let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
            let failing = MemoryPages::new(bytes.clone(), 4096)
                .with_segments_of(131_072)
                .failing_at(segment);
            let error = writer.put_pages(meta("db"), Arc::new(failing)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unreachable, "segment {segment}: {error}");
            let again = Box::new(std::io::Cursor::new(vec![1]));
            assert!(writer.put_stream(meta("other"), again).await.is_err());
            let error = failed(
                writer.commit(START_WALL_US, serde_json::Value::Null).await,
                "a commit after a failure",
            );
            assert_eq!(error.kind(), ErrorKind::Bug);
            assert_eq!(world.stored("backups").await.len() as u64, before);
            check_afterwards(&world, before, None, &format!("segment {segment}")).await;
        }
    }
}

/// INV-03, for streams, for sources that break their word about their size, and for a put that nobody waited for.
#[tokio::test]
async fn no_source_that_breaks_its_word_becomes_a_backup() {
    use lifeboat_io::flow::PageSource;

    #[derive(Debug)]
    struct Liar(MemoryPages, i64);

    impl PageSource for Liar {
        fn page_size(&self) -> u32 {
            self.0.page_size()
        }
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes().saturating_add_signed(self.1)
        }
        fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
            self.0.next_segment(buffer)
        }
    }

    struct Broken(usize);

    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the disk is gone"));
            }
            let count = buffer.len().min(self.0);
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }

    struct Waiting(std::sync::mpsc::Receiver<()>);

    impl std::io::Read for Waiting {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            // One byte for each word from the test, and the end when it has gone.
            buffer[0] = 1;
            Ok(usize::from(self.0.recv().is_ok()))
        }
    }

    let world = prepared(1).await;
    for off in [-131_072, -4096, -1, 1, 4096, 131_072, 10_000_000] {
        let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        let source = Liar(MemoryPages::new(table_pages(1, 4096, 70), 4096), off);
        let error = writer.put_pages(meta("db"), Arc::new(source)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{off}: {error}");
        assert!(writer.commit(START_WALL_US, serde_json::Value::Null).await.is_err());
    }
    for size in [0, 1, 3 << 20] {
        let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        let error = writer.put_stream(meta("log"), Box::new(Broken(size))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{size}: {error}");
        assert!(writer.commit(START_WALL_US, serde_json::Value::Null).await.is_err());
    }
    // Somebody lets go of a put that is under way: the source gives nothing until then.
    let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
    let (release, waiting) = std::sync::mpsc::channel();
    {
        let mut put = Box::pin(writer.put_stream(meta("log"), Box::new(Waiting(waiting))));
        tokio::select! { biased; record = &mut put => panic!("{record:?}"), () = std::future::ready(()) => {} }
    }
    release.send(()).unwrap();
    drop(release);
    assert!(writer.commit(START_WALL_US, serde_json::Value::Null).await.is_err());
    check_afterwards(&world, 1, None, "after all of them").await;
}

/// INV-02, INV-01: announcement, key, packs and maps, then once the backup file, then a look at all of it. Names are the hashes of what
/// they name.
#[tokio::test]
async fn inv_02_everything_stands_before_the_backup_file() {
    for before in [0, 2] {
        let world = prepared(before).await;
        let (store, outcome) = attempt(&world, &source(before), Plan::calm()).await;
        let committed = outcome.unwrap();
        let log = store.log();
        let puts: Vec<&str> = log
            .iter()
            .filter(|record| record.op == Op::Put)
            .map(|record| record.key.as_str().split('/').nth(2).unwrap())
            .collect();
        assert_eq!((puts[0], puts[1]), ("sessions", "keys"), "{puts:?}");
        assert_eq!(
            puts.iter().position(|folder| *folder == "backups"),
            Some(puts.len() - 1),
            "{puts:?}"
        );
        assert!(
            puts[2..puts.len() - 1]
                .iter()
                .all(|folder| ["packs", "maps"].contains(folder)),
            "{puts:?}"
        );
        assert_eq!(log.last().unwrap().op, Op::List);
        // The store is looked at after the announcement and before the key.
        let ops: Vec<Op> = log.iter().map(|record| record.op).collect();
        let announced = ops.iter().position(|op| *op == Op::Put).unwrap();
        assert_eq!(ops[announced + 1], Op::List, "{ops:?}");
        for (key, size_bytes) in committed.backup.files().unwrap() {
            let bytes = world.bytes_of(&key).await;
            assert_eq!(bytes.len() as u64, size_bytes);
            assert!(key.as_str().contains(&blake3::hash(&bytes).to_string()), "{key}");
        }
    }
}

/// Something deletes a file of the backup while it is made: the last look notices.
#[tokio::test]
async fn a_file_that_goes_before_the_last_look_is_noticed() {
    let world = prepared(1).await;
    let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
    crate::world::put_all(&mut writer, &source(1)).await.unwrap();
    for key in world.stored("keys").await {
        world.memory.delete(&key).await.unwrap();
    }
    let error = failed(writer.commit(START_WALL_US, serde_json::Value::Null).await, "a commit");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("no longer in the store"), "{error}");
    let listing = world.listing().await;
    assert!(listing.backups.is_empty() && listing.rejected.len() == 2);
    let next = world.backup(&source(2)).await;
    world.assert_holds(&next.backup, &source(2)).await;
}

/// INV-07: the machine dies after its backup file landed, and again at any moment of the next run: the one after that still builds on
/// the backup that stands.
#[tokio::test]
async fn dying_twice_costs_no_state() {
    let last_put = {
        let probe = prepared(2).await;
        let (store, _) = attempt(&probe, &source(2), Plan::calm()).await;
        let log = store.log();
        log.iter().rfind(|record| record.op == Op::Put).unwrap().number
    };
    for number in 0..operations(3).await {
        let world = prepared(2).await;
        let (_, outcome) = attempt(&world, &source(2), Plan::calm().crash_after(last_put)).await;
        assert!(is_crash(&failed(outcome, "the first death")));
        assert_eq!(world.listing().await.backups.len(), 3);
        let (_, outcome) = attempt(&world, &source(3), Plan::calm().crash_at(number)).await;
        assert!(is_crash(&failed(outcome, "the second death")));
        check_afterwards(&world, 3, None, &format!("second death at {number}")).await;
    }
}
