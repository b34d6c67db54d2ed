//! Sources that cannot be captured: every one an error of the right kind, and never an image.

use std::path::Path;
use std::time::Duration;

use lifeboat_engine::sqlite::{CaptureOptions, begin, companions};
use lifeboat_model::ErrorKind;
use tempfile::tempdir;

use crate::other::{Other, pad, sql};
use crate::taken::{begin_patiently, clock, drain_some, failure, patient};

fn kind(database: &Path) -> ErrorKind {
    failure(&patient(database)).kind()
}

#[test]
fn files_that_are_no_database_are_refused() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("app.db");
    assert_eq!(kind(&file), ErrorKind::Unreachable, "not there");
    assert!(!file.try_exists().unwrap(), "and not made");
    assert_eq!(kind(folder.path()), ErrorKind::ConfigInvalid, "a folder");
    std::fs::write(&file, "").unwrap();
    assert_eq!(kind(&file), ErrorKind::Corrupt, "empty");
    std::fs::write(&file, "This is a text file, and no database.\n".repeat(200)).unwrap();
    assert_eq!(kind(&file), ErrorKind::Corrupt, "text");
    let noise: Vec<u8> = (0..256_u32)
        .flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes())
        .collect();
    std::fs::write(&file, &noise).unwrap();
    assert_eq!(kind(&file), ErrorKind::Corrupt, "as if encrypted");
    assert_eq!(std::fs::read(&file).unwrap(), noise, "and left alone");
    std::fs::write(&file, b"SQLite format 3\0").unwrap();
    assert_eq!(kind(&file), ErrorKind::Corrupt, "a header cut off");
}

#[test]
fn a_truncated_database_is_corrupt() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        let database = folder.path().join(mode);
        sql(&database, &format!("PRAGMA journal_mode = {mode};"));
        pad(&database, 2);
        let whole = std::fs::read(&database).unwrap();
        for length in [whole.len() - 4096, whole.len() / 8192 * 4096, 4096, whole.len() - 100, 600] {
            std::fs::write(&database, whole.get(..length).unwrap()).unwrap();
            assert_eq!(kind(&database), ErrorKind::Corrupt, "{mode} {length}");
            assert_eq!(
                std::fs::metadata(&database).unwrap().len(),
                length as u64,
                "{mode} {length}: and left alone"
            );
        }
    }
}

#[test]
fn a_source_that_vanishes_or_is_replaced_is_no_backup() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        for replaced in [false, true] {
            let database = folder.path().join(format!("{mode}-{replaced}"));
            sql(&database, &format!("PRAGMA journal_mode = {mode};"));
            pad(&database, 7);
            let other = folder.path().join("other");
            std::fs::copy(&database, &other).unwrap();
            let capture = begin_patiently(&database);
            if replaced {
                std::fs::rename(&other, &database).unwrap();
            } else {
                std::fs::remove_file(&database).unwrap();
            }
            drop(drain_some(capture.pages().as_ref()));
            assert_eq!(
                capture.finish().unwrap_err().kind(),
                ErrorKind::Unreachable,
                "{mode} {replaced}"
            );
            assert_eq!(database.try_exists().unwrap(), replaced);
        }
    }
}

#[test]
fn a_locked_database_is_waited_for_and_then_given_up() {
    let folder = tempdir().unwrap();
    let locks = [
        ("DELETE", "BEGIN EXCLUSIVE"),
        (
            "WAL",
            "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; INSERT INTO t VALUES (1); COMMIT",
        ),
    ];
    for (mode, lock) in locks {
        let database = folder.path().join(mode);
        sql(&database, &format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x)"));
        let shell = Other::shell(&database, &format!("{lock};"));
        let options = CaptureOptions {
            busy_timeout: Duration::from_millis(50),
            ..patient(&database)
        };
        let error = failure(&options);
        assert_eq!(error.kind(), ErrorKind::Locked, "{mode}: {error}");
        let waiting = std::thread::spawn(move || begin(&patient(&database), clock()).map(drop));
        assert!(shell.end());
        waiting.join().unwrap().unwrap();
    }
}

#[test]
fn a_capture_that_is_given_up_lets_go() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        let database = folder.path().join(mode);
        sql(&database, &format!("PRAGMA journal_mode = {mode}"));
        pad(&database, 7);
        drop(begin_patiently(&database));
        assert_no_companions(&database);
        sql(&database, "CREATE TABLE after_drop (x)");
        let capture = begin_patiently(&database);
        assert_eq!(
            capture.finish().unwrap_err().kind(),
            ErrorKind::Interrupted,
            "not all pages were taken"
        );
        assert_no_companions(&database);
        sql(&database, "CREATE TABLE after_finish (x)");
    }
}

fn assert_no_companions(database: &Path) {
    for companion in companions(database) {
        assert!(!companion.try_exists().unwrap(), "{}", companion.display());
    }
}
