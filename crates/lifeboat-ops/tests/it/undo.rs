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

#[test]
fn what_only_looks_removes_nothing_and_a_folder_with_anything_in_it_stays() {
    let scene = scene();
    let parent = scene.database.parent().unwrap();
    let (theirs, dead) = (parent.join("a.db.lifeboat-undo-mine"), parent.join("a.db.lifeboat-undo-dead"));
    std::fs::create_dir(&theirs).unwrap();
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(theirs.join("a.db"), "the only copy").unwrap();
    // What a run that died while it wrote its record leaves.
    std::fs::write(dead.join(".lifeboat-tmp-0123456789abcdef"), "{").unwrap();
    assert!(quarantine::records(&scene.database).unwrap().is_empty());
    assert!(theirs.is_dir() && dead.is_dir(), "looking removed something");
    quarantine::settle_interrupted(&scene.database).unwrap();
    assert!(!dead.try_exists().unwrap());
    assert_eq!(std::fs::read_to_string(theirs.join("a.db")).unwrap(), "the only copy");
}

#[test]
fn an_undo_record_of_another_version_is_left_alone_and_the_hint_says_what_to_do() {
    let scene = scene();
    let folder = quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
    let record = folder.join("record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    for (text, kind) in [
        (
            text.replace("\"version\": 1", "\"version\": 2"),
            lifeboat_model::ErrorKind::Incompatible,
        ),
        ("{}".to_owned(), lifeboat_model::ErrorKind::Corrupt),
    ] {
        std::fs::write(&record, text).unwrap();
        let error = quarantine::settle_interrupted(&scene.database).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.hint().unwrap().contains("move the folder elsewhere"), "{error:?}");
    }
    assert_eq!(count(&folder.join("a.db")), 10);
}

#[test]
fn a_replacement_that_fails_in_the_middle_brings_the_old_files_back_at_once() {
    let scene = scene();
    let parent = scene.database.parent().unwrap();
    let before = files(parent);
    // The last rename fails: the new file lies on another file system.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let new = elsewhere.path().join("new");
    std::fs::copy(&scene.new, &new).unwrap();
    quarantine::replace(&intent(), &scene.database, &new).unwrap_err();
    assert!(files(parent) == before, "something is left of it, or missing");
    assert!(new.try_exists().unwrap());
}

#[test]
fn a_link_stays_and_the_file_it_leads_to_is_replaced_and_brought_back() {
    let scene = scene();
    let outside = tempfile::tempdir().unwrap();
    let inner = outside.path().join("inner.db");
    std::os::unix::fs::symlink(&scene.database, &inner).unwrap();
    let link = outside.path().join("link.db");
    std::os::unix::fs::symlink("inner.db", &link).unwrap();

    let folder = quarantine::replace(&intent(), &link, &scene.new).unwrap();
    assert_eq!(folder.parent(), scene.database.parent());
    assert!(link.symlink_metadata().unwrap().is_symlink() && inner.symlink_metadata().unwrap().is_symlink());
    assert_eq!((count(&link), count(&scene.database)), (20, 20));
    assert!(
        !scene.database.with_file_name("a.db-journal").try_exists().unwrap(),
        "SQLite would read it through the link"
    );
    assert_eq!(quarantine::records(&link).unwrap().len(), 1);
    quarantine::undo(&link, "r1").unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(count(&link), 10);
}

#[test]
fn a_link_whose_target_is_away_in_the_middle_still_finds_its_undo_folder() {
    let scene = interrupted(2);
    let outside = tempfile::tempdir().unwrap();
    let link = outside.path().join("link.db");
    std::os::unix::fs::symlink(&scene.database, &link).unwrap();
    assert!(!link.try_exists().unwrap(), "the link dangles");
    quarantine::settle_interrupted(&link).unwrap();
    assert_eq!(count(&link), 10);
    let circle = outside.path().join("circle.db");
    std::os::unix::fs::symlink("circle.db", &circle).unwrap();
    assert_eq!(
        quarantine::settle_interrupted(&circle).unwrap_err().kind(),
        lifeboat_model::ErrorKind::Unreachable
    );
}

#[test]
fn two_runs_never_move_files_of_one_folder_at_once() {
    let scene = scene();
    let folder = std::fs::File::open(scene.database.parent().unwrap()).unwrap();
    folder.lock().unwrap();
    let locked = lifeboat_model::ErrorKind::Locked;
    assert_eq!(
        quarantine::replace(&intent(), &scene.database, &scene.new)
            .unwrap_err()
            .kind(),
        locked
    );
    assert_eq!(quarantine::settle_interrupted(&scene.database).unwrap_err().kind(), locked);
    assert_eq!(quarantine::undo(&scene.database, "r1").unwrap_err().kind(), locked);
    assert_eq!(count(&scene.database), 10);
    drop(folder);
    quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
}

#[test]
fn an_undo_after_the_restored_database_was_removed_leaves_its_wal_behind() {
    let scene = scene();
    let folder = quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
    let beside = |name: &str| scene.database.with_file_name(name);
    std::fs::remove_file(&scene.database).unwrap();
    std::fs::write(beside("a.db-wal"), "of the restored one").unwrap();
    quarantine::undo(&scene.database, "r1").unwrap();
    assert_eq!(count(&scene.database), 10);
    assert!(!beside("a.db-wal").try_exists().unwrap());
    assert!(folder.join("replaced/a.db-wal").try_exists().unwrap());
}

#[test]
fn restores_are_undone_in_turn_and_the_refusal_names_the_one_to_begin_with() {
    let scene = scene();
    let second = scene.database.with_file_name("second");
    make(&second, "delete", 30);
    quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
    let later = Intent {
        id: "r2".into(),
        ..intent()
    };
    quarantine::replace(&later, &scene.database, &second).unwrap();
    let refused = quarantine::undo(&scene.database, "r1").unwrap_err();
    assert_eq!(refused.kind(), lifeboat_model::ErrorKind::Refused);
    assert!(refused.hint().unwrap().contains("`lifeboat restore undo r2`"), "{refused:?}");
    quarantine::undo(&scene.database, "r2").unwrap();
    quarantine::undo(&scene.database, "r1").unwrap();
    assert_eq!(count(&scene.database), 10);
    // A file of somebody else's.
    std::fs::remove_dir_all(scene.database.with_file_name("a.db.lifeboat-undo-r1")).unwrap();
    make(&scene.new, "delete", 40);
    quarantine::replace(&intent(), &scene.database, &scene.new).unwrap();
    make(&second, "delete", 50);
    std::fs::rename(&second, &scene.database).unwrap();
    let refused = quarantine::undo(&scene.database, "r1").unwrap_err();
    assert!(refused.hint().unwrap().contains("other than Lifeboat"), "{refused:?}");
    assert_eq!(count(&scene.database), 50);
}
