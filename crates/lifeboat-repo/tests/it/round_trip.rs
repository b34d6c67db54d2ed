//! What goes in comes out: sizes, page sizes, streams, full and incremental.

use lifeboat_model::ErrorKind;
use lifeboat_repo::scrub;
use lifeboat_testkit::pages::{change_pages, random_bytes, table_pages};

use crate::world::{Content, Files, World, pages, soak, write};

const EXTENT: usize = 131_072;

/// Sizes in bytes that meet every edge of pages and extents.
fn sizes(page: usize) -> Vec<usize> {
    let mut sizes = vec![0, page, EXTENT - page, EXTENT, EXTENT + page, 3 * EXTENT, 9 * EXTENT + page];
    // The last page may be short, and the last extent shorter than a page.
    sizes.extend([page / 2, EXTENT + 1, 2 * EXTENT + page / 2 + 3]);
    sizes
}

async fn check(world: &World, files: &Files) {
    let committed = world.backup(files).await;
    let listing = world.listing().await;
    assert!(listing.rejected.is_empty(), "{:?}", listing.rejected);
    assert_eq!(listing.latest().unwrap().id, committed.backup.id);
    assert_eq!(listing.latest().unwrap().header, committed.backup.header);
    assert_eq!(committed.backup.header.files, files.len() as u64);
    world.assert_holds(&committed.backup, files).await;
    let reader = world.open(&committed.backup).await.unwrap();
    reader.verify().await.unwrap();
    scrub(&world.env, &world.repository, &committed.backup).await.unwrap();
}

#[tokio::test]
async fn page_files_of_every_size_come_back() {
    for page_size in [512, 1024, 4096, 8192, 65536_u32] {
        let world = World::new(u64::from(page_size)).await;
        let mut files = Files::new();
        for size in sizes(page_size as usize) {
            let mut bytes = table_pages(size as u64, page_size, size.div_ceil(page_size as usize));
            bytes.truncate(size);
            files.insert(format!("dir/{size}"), Content::Pages(bytes, page_size));
        }
        check(&world, &files).await;
        // The same again, and then with changes everywhere.
        check(&world, &files).await;
        for (number, content) in files.values_mut().enumerate() {
            if let Content::Pages(bytes, page_size) = content {
                change_pages(bytes, *page_size, number as u64, 1);
            }
        }
        check(&world, &files).await;
    }
}

#[tokio::test]
async fn streams_of_every_size_come_back() {
    let world = World::new(2).await;
    let mut files = Files::new();
    for size in [0, 1, 5 << 20] {
        files.insert(format!("s{size}"), Content::Stream(random_bytes(7, size)));
    }
    // Equal chunks within one stream.
    let block = random_bytes(8, 300_000);
    files.insert("repeated".into(), Content::Stream(block.repeat(12)));
    files.insert("zeros".into(), Content::Stream(vec![0; 9 << 20]));
    for _ in 0..3 {
        check(&world, &files).await;
    }
    files.insert("s0".into(), Content::Stream(b"no longer empty".to_vec()));
    if let Some(Content::Stream(bytes)) = files.get_mut("s5242880") {
        bytes.insert(1_000_000, 7);
    }
    files.remove("s1");
    check(&world, &files).await;
}

#[tokio::test]
async fn zero_extents_cost_nothing_and_come_back() {
    let world = World::new(3).await;
    let mut bytes = vec![0; 40 * EXTENT];
    bytes[7 * EXTENT + 5] = 1;
    let files = pages("db", bytes.clone(), 4096);
    let committed = world.backup(&files).await;
    assert!(committed.stats.stored_bytes < 20_000, "{:?}", committed.stats);
    world.assert_holds(&committed.backup, &files).await;
    // Zeros become data, data becomes zeros.
    bytes[7 * EXTENT + 5] = 0;
    bytes[8 * EXTENT..9 * EXTENT].copy_from_slice(&random_bytes(1, EXTENT));
    check(&world, &pages("db", bytes, 4096)).await;
}

#[tokio::test]
async fn an_unchanged_backup_writes_nearly_nothing() {
    let world = World::new(4).await;
    let mut files = pages("db", table_pages(1, 4096, 12_000), 4096);
    files.insert("wal".into(), Content::Stream(random_bytes(2, 3 << 20)));
    let first = world.backup(&files).await;
    assert!(first.backup.header.parent.is_none());
    let packs = world.stored("packs").await;
    for _ in 0..3 {
        let again = world.backup(&files).await;
        assert!(again.backup.header.parent.is_some(), "{:?}", again.notes);
        assert_eq!(again.stats.changed_bytes, 0);
        assert!(again.stats.stored_bytes < 16_000, "{:?}", again.stats);
        assert_eq!(again.stats.read_bytes, first.stats.read_bytes);
        assert_eq!(world.stored("packs").await, packs, "no data pack is written");
        world.assert_holds(&again.backup, &files).await;
    }
}

#[tokio::test]
async fn packs_stay_within_their_limit_and_hold_16_mib() {
    let world = World::new(5).await;
    let files = pages("db", random_bytes(3, 70 << 20), 8192);
    let committed = world.backup(&files).await;
    let sizes: Vec<u32> = committed.backup.closure.packs.iter().map(|pack| pack.size_bytes).collect();
    assert!(sizes.iter().all(|size| *size <= 40 << 20), "{sizes:?}");
    // Two workers leave at most one unfilled pack each; one more holds the maps, one the file table.
    assert!(sizes.iter().filter(|size| **size < 16 << 20).count() <= 4, "{sizes:?}");
    world.assert_holds(&committed.backup, &files).await;
}

#[tokio::test]
async fn a_restore_onto_existing_bytes_fetches_only_what_differs() {
    use lifeboat_io::flow::PageSink;
    use lifeboat_testkit::pages::MemorySink;
    use std::sync::Arc;

    let world = World::new(6).await;
    let mut bytes = random_bytes(4, 24 * EXTENT + 4096);
    bytes[3 * EXTENT..4 * EXTENT].fill(0);
    let first = world.backup(&pages("db", bytes.clone(), 4096)).await;
    change_pages(&mut bytes, 4096, 5, 9);
    let second = world.backup(&pages("db", bytes.clone(), 4096)).await;
    // A change in the extent of zeros stores that one whole.
    assert!(second.stats.changed_bytes <= 9 * 4096 + EXTENT as u64, "{:?}", second.stats);
    for (backup, reused) in [(&second.backup, 24 * EXTENT as u64), (&first.backup, 14 * EXTENT as u64)] {
        let reader = world.open(backup).await.unwrap();
        let file = &reader.files()[0];
        let sink = Arc::new(MemorySink::new());
        sink.write_at(0, &bytes).unwrap();
        sink.write_at(bytes.len() as u64, b"longer than it should be").unwrap();
        // One extent is wrong where zeros belong, one where data belongs.
        sink.write_at(3 * EXTENT as u64 + 9, b"x").unwrap();
        sink.write_at(20 * EXTENT as u64 + 9, b"x").unwrap();
        let fetched = reader.restore(file, Arc::<MemorySink>::clone(&sink), true).await.unwrap();
        reader.check_root(file, Arc::<MemorySink>::clone(&sink)).await.unwrap();
        assert!(fetched.reused_bytes >= reused - 2 * EXTENT as u64, "{fetched:?}");
        assert!(
            fetched.fetched_bytes < 25 * EXTENT as u64 - fetched.reused_bytes + (1 << 20),
            "{fetched:?}"
        );
        assert_eq!(sink.bytes().len(), bytes.len());
    }
}

#[tokio::test]
async fn a_stream_is_restored_onto_an_older_one_by_its_chunks() {
    use lifeboat_io::flow::PageSink;
    use lifeboat_testkit::pages::MemorySink;
    use std::sync::Arc;

    let world = World::new(16).await;
    let bytes = random_bytes(5, 9 << 20);
    let mut files = Files::new();
    files.insert("stream".into(), Content::Stream(bytes.clone()));
    files.insert("short".into(), Content::Stream(b"a few words".to_vec()));
    let backup = world.backup(&files).await.backup;
    let reader = world.open(&backup).await.unwrap();
    let mut onto: Vec<(_, Arc<dyn PageSink>, bool)> = Vec::new();
    let mut sinks = Vec::new();
    for file in reader.files() {
        let sink = Arc::new(MemorySink::new());
        let mut old = if file.size_bytes > 100 {
            bytes.clone()
        } else {
            b"other words, and more".to_vec()
        };
        old[3] ^= 1;
        sink.write_at(0, &old).unwrap();
        sinks.push((file.clone(), Arc::clone(&sink)));
        onto.push((file.clone(), sink, true));
    }
    let fetched = reader.restore_onto(onto, 2).await.unwrap();
    assert!(fetched.reused_bytes > 4 << 20, "{fetched:?}");
    assert!(fetched.written_bytes < 5 << 20, "{fetched:?}");
    for (file, sink) in sinks {
        reader.check_root(&file, Arc::<MemorySink>::clone(&sink)).await.unwrap();
        assert_eq!(sink.bytes().len() as u64, file.size_bytes);
    }
}

#[tokio::test]
async fn many_files_and_long_facts() {
    let world = World::new(7).await;
    let mut files = Files::new();
    for number in 0..if soak() { 5000 } else { 300 } {
        files.insert(
            format!("tree/{number}"),
            Content::Stream(format!("file {number}").into_bytes()),
        );
    }
    check(&world, &files).await;
    files.insert("tree/7".into(), Content::Stream(b"changed".to_vec()));
    check(&world, &files).await;
}

/// How long the row space of the current generation is.
fn rows_bytes(world: &World) -> u64 {
    let mut folders = std::fs::read_dir(world.state_folder()).unwrap();
    let generation = folders.find_map(|entry| {
        let entry = entry.unwrap();
        entry.file_name().to_string_lossy().starts_with("gen-").then(|| entry.path())
    });
    generation.unwrap().join("rows").metadata().unwrap().len()
}

#[tokio::test]
async fn rows_of_streams_and_of_files_that_go_do_not_pile_up() {
    let world = World::new(8).await;
    let mut sizes = Vec::new();
    for round in 0..8 {
        let mut files = pages("stays", table_pages(1, 4096, 64), 4096);
        files.insert("log".into(), Content::Stream(random_bytes(round, 400_000)));
        files.insert(format!("day-{round}"), Content::Pages(table_pages(round, 4096, 40), 4096));
        let committed = world.backup(&files).await;
        world.assert_holds(&committed.backup, &files).await;
        sizes.push(rows_bytes(&world));
    }
    // Places of the parent are reserved, so two generations of the changing file take turns.
    assert!(sizes.iter().all(|size| *size <= 4 * 4096), "{sizes:?}");
}

#[tokio::test]
async fn a_path_may_be_used_once_and_must_be_plain() {
    let world = World::new(9).await;
    for path in ["../up", "/abs", "a//b", "a/./b", "", "a/..", "nul\0"] {
        let files = pages(path, vec![1; 4096], 4096);
        let error = write(&world.env, &world.repository, world.plan(), &files).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{path:?}: {error}");
    }
    assert!(world.listing().await.backups.is_empty());
}
