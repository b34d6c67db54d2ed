//! The independent reader takes log out of a store by `docs/format.md` alone.

use std::path::Path;
use std::process::{Command, Output};

use lifeboat_model::wal::Range;
use lifeboat_repo::{Encryption, LogFileKind, LogPlan, LogWriter, NewLog};
use lifeboat_store::{BlobStore, Key};

use super::{MIB, append, plan, range, wal};
use crate::world::World;

/// Everything that is stored, as a folder.
async fn write_out(world: &World, folder: &Path) {
    let descriptor = Key::new("lifeboat.json").unwrap();
    let listed = world.memory.list(&Key::new("c").unwrap()).await.unwrap();
    for key in listed.into_iter().map(|entry| entry.key).chain([descriptor]) {
        let path = folder.join(key.as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, world.bytes_of(&key).await).unwrap();
    }
}

fn recover(store: &Path, asked: Range, to: &str) -> Output {
    let python = std::env::var_os("LIFEBOAT_TEST_PYTHON").expect("run these tests through `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/recover.py");
    let words = [
        "log",
        ".",
        "shop/db",
        "--start",
        &asked.start.to_string(),
        "--end",
        &asked.end.to_string(),
        "--to",
        to,
    ];
    Command::new(python)
        .arg(script)
        .args(words)
        .current_dir(store)
        .output()
        .unwrap()
}

/// INV-16: it gives out what was appended, and nothing where a file is damaged, missing, or says other bytes.
#[tokio::test]
async fn the_independent_reader_reads_log() {
    let world = World::new(41).await;
    let clear = LogPlan {
        encryption: Encryption::Clear,
        ..plan(&world)
    };
    let mut writer = LogWriter::begin(&world.env, &world.repository, clear, NewLog::Continue)
        .await
        .unwrap();
    append(&mut writer, LogFileKind::Frame, range(15 * MIB, 15 * MIB + 999))
        .await
        .unwrap();
    let piece = append(&mut writer, LogFileKind::Piece, range(15 * MIB, 16 * MIB))
        .await
        .unwrap();
    append(&mut writer, LogFileKind::Frame, range(16 * MIB, 16 * MIB + 777))
        .await
        .unwrap();
    let store = world.folder.path().join("store");
    write_out(&world, &store).await;
    let asked = range(15 * MIB + 5, 16 * MIB + 700);
    let done = recover(&store, asked, "whole");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read(store.join("whole")).unwrap() == wal(asked));
    let done = recover(&store, range(15 * MIB, 17 * MIB), "more");
    assert_eq!(done.status.code(), Some(9), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!store.join("more").try_exists().unwrap());
    let damaged = store.join(piece.name.key(&world.component, writer.lineage()).unwrap().as_str());
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let done = recover(&store, asked, "damaged");
    assert_eq!(done.status.code(), Some(5), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!store.join("damaged").try_exists().unwrap());
}
