//! The database is set back behind our back (a disk image of an hour ago), and writes go on: what was backed up before, and what is backed up
//! after, restores exactly, although page numbers, sizes and change counters come a second time with other content.

use std::path::{Path, PathBuf};

use crate::world::{World, add, beside, open};

/// Every table and row, in an order of their own.
fn content(path: &Path) -> Vec<(i64, String, Vec<u8>)> {
    let connection = open(path);
    let mut query = connection.prepare("SELECT id, name, body FROM items ORDER BY id").unwrap();
    let rows = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// The database without a WAL beside it, so that the one file is all of it.
fn settled(path: &Path) {
    open(path).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

fn image(world: &World, name: &str) -> PathBuf {
    settled(&world.database);
    let image = world.folder.join(name);
    std::fs::copy(&world.database, &image).unwrap();
    image
}

fn set_back(world: &World, image: &Path) {
    settled(&world.database);
    for ending in ["-wal", "-shm"] {
        let mut beside = world.database.clone().into_os_string();
        beside.push(ending);
        drop(std::fs::remove_file(beside));
    }
    std::fs::copy(image, &world.database).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewound_database() {
    let mut rewinds = 0;
    for backups_between in 0..3 {
        let world = World::new(1500).await;
        let mut expected = vec![];
        let _report = world.back_up().await.unwrap();
        expected.push(content(&world.database));
        let an_hour_ago = image(&world, "hour-ago");
        for life in 0..3 {
            for step in 0..=backups_between {
                // The same pages, other content, in every life.
                open(&world.database)
                    .execute(
                        "UPDATE items SET name = ?1, body = randomblob(200) WHERE id % 97 = ?2",
                        (format!("life {life} step {step}"), step),
                    )
                    .unwrap();
                add(&open(&world.database), 200);
                let report = world.back_up().await.unwrap();
                assert_eq!(report.backup.header.seq, expected.len() as u64 + 1);
                expected.push(content(&world.database));
            }
            set_back(&world, &an_hour_ago);
            rewinds += 1;
            // Set back and not touched: that is a state of its own, too.
            let _report = world.back_up().await.unwrap();
            expected.push(content(&world.database));
            assert_eq!(expected[0], expected[expected.len() - 1]);
        }
        for (index, expected) in expected.iter().enumerate() {
            let to = world.folder.join(format!("restored-{index}.db"));
            let _report = world.restore(&(index + 1).to_string(), beside(&to)).await.unwrap();
            assert!(
                content(&to) == *expected,
                "backup {} after {backups_between} between",
                index + 1
            );
        }
    }
    eprintln!("rewound_database: {rewinds} rewinds");
}
