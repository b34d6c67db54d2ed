//! A replacement in place that dies after any of its steps is finished or taken back by the next run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifeboat_ops::restore::quarantine::{self, Intent};

use crate::world::{count, make};

/// The files of a folder and its undo folders, by name, as their row counts would be told by content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(
                    path.strip_prefix(folder).unwrap().to_path_buf(),
                    std::fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

fn intent() -> Intent {
    Intent {
        id: "r1".into(),
        component: "test/db".into(),
        backup: "1-x".into(),
        at_us: 1,
    }
}

struct Scene {
    _temporary: tempfile::TempDir,
    database: PathBuf,
    new: PathBuf,
}

fn scene() -> Scene {
    let temporary = tempfile::tempdir().unwrap();
    let (database, new) = (temporary.path().join("a.db"), temporary.path().join("new"));
    make(&database, "delete", 10);
    std::fs::write(temporary.path().join("a.db-journal"), "").unwrap();
    make(&new, "delete", 20);
    Scene {
        _temporary: temporary,
        database,
        new,
    }
}

/// Brings the scene to the state after `moves` renames of a replacement that then died: the journal says "quarantining".
fn interrupted(moves: usize) -> Scene {
    let scene = scene();
    let folder = quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
    let record = folder.join("record.json");
    let text = std::fs::read_to_string(&record)
        .unwrap()
        .replace("\"published\"", "\"quarantining\"");
    std::fs::write(&record, text).unwrap();
    if moves < 3 {
        std::fs::rename(&scene.database, &scene.new).unwrap();
    }
    if moves < 2 {
        std::fs::rename(folder.join("a.db-journal"), scene.database.with_file_name("a.db-journal")).unwrap();
    }
    if moves < 1 {
        std::fs::rename(folder.join("a.db"), &scene.database).unwrap();
    }
    scene
}

#[test]
fn inv_12_a_replacement_that_died_after_any_rename_is_taken_back_or_finished() {
    for moves in 0..=3 {
        let scene = interrupted(moves);
        quarantine::settle_interrupted(&scene.database).unwrap();
        let expected = if moves == 3 { 20 } else { 10 };
        assert_eq!(count(&scene.database), expected, "after {moves} renames");
        let records = quarantine::records(&scene.database).unwrap();
        assert_eq!(records.len(), usize::from(moves == 3));
        // Doing it again changes nothing.
        let before = files(scene.database.parent().unwrap());
        quarantine::settle_interrupted(&scene.database).unwrap();
        assert_eq!(files(scene.database.parent().unwrap()), before);
    }
}

#[test]
fn a_file_that_appeared_in_the_middle_is_not_overwritten() {
    let scene = interrupted(1);
    make(&scene.database, "delete", 1);
    let refused = quarantine::settle_interrupted(&scene.database).unwrap_err();
    assert_eq!(refused.kind(), lifeboat_model::ErrorKind::Refused);
    assert_eq!(count(&scene.database), 1);
}

#[test]
fn an_undo_that_died_after_any_rename_is_finished_by_the_next_one() {
    for moves in 0..=4 {
        let scene = scene();
        let folder = quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
        std::fs::write(scene.database.with_file_name("a.db-wal"), "of the restored one").unwrap();
        let record = folder.join("record.json");
        let text = std::fs::read_to_string(&record)
            .unwrap()
            .replace("\"published\"", "\"undoing\"");
        std::fs::write(&record, text).unwrap();
        let replaced = folder.join("replaced");
        std::fs::create_dir(&replaced).unwrap();
        let beside = |name: &str| scene.database.with_file_name(name);
        let steps: [(PathBuf, PathBuf); 4] = [
            (beside("a.db-wal"), replaced.join("a.db-wal")),
            (beside("a.db"), replaced.join("a.db")),
            (folder.join("a.db-journal"), beside("a.db-journal")),
            (folder.join("a.db"), beside("a.db")),
        ];
        for (from, to) in steps.iter().take(moves) {
            std::fs::rename(from, to).unwrap();
        }
        quarantine::undo(&scene.database, "r1").unwrap();
        assert!(!beside("a.db-wal").try_exists().unwrap(), "after {moves} renames");
        assert_eq!(count(&scene.database), 10, "after {moves} renames");
        assert_eq!(count(&replaced.join("a.db")), 20);
    }
}
