//! How long writers wait in rollback-journal mode, when whoever takes the pages does not keep up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::sqlite::{CaptureOptions, begin};
use lifeboat_model::ErrorKind;
use tempfile::{TempDir, tempdir};

use crate::other::{pad, sql};
use crate::taken::{clock, drain_some, finish, judge, patient};

const STALL: Duration = Duration::from_millis(300);

fn database() -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    pad(&database, 8);
    (folder, database)
}

fn impatient(database: &Path) -> CaptureOptions {
    CaptureOptions {
        max_stall: STALL,
        ..patient(database)
    }
}

/// Waits for the lock far longer than a capture may hold it: it fails only if the capture never lets go.
const WAIT: &str = ".timeout 30000\n";

#[test]
fn a_writer_gets_through_while_nobody_takes_pages_and_the_capture_fails() {
    let (_folder, database) = database();
    let capture = begin(&impatient(&database), clock()).unwrap();
    sql(&database, &format!("{WAIT}CREATE TABLE urgent (x)"));
    drop(drain_some(capture.pages().as_ref()));
    let error = capture.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.hint().unwrap().contains("max_stall"));
    assert_eq!(sql(&database, "PRAGMA integrity_check"), "ok");
}

#[test]
fn the_capture_goes_on_when_nobody_wrote_after_it_let_go() {
    let (folder, database) = database();
    let before = std::fs::read(&database).unwrap();
    let capture = begin(&impatient(&database), clock()).unwrap();
    // Succeeds only once the capture has let go, and changes nothing.
    sql(&database, &format!("{WAIT}BEGIN EXCLUSIVE; ROLLBACK"));
    let (image, captured) = finish(capture);
    assert!(image == before);
    assert!(
        captured.stall >= STALL && captured.stall < Duration::from_secs(30),
        "{:?}",
        captured.stall
    );
    judge(&folder.path().join("copy"), &image, &captured);
}

#[test]
fn a_patient_capture_keeps_writers_out() {
    let (folder, database) = database();
    let before = std::fs::read(&database).unwrap();
    let capture = begin(&patient(&database), clock()).unwrap();
    let refused = std::process::Command::new("sqlite3")
        .arg(&database)
        .arg("CREATE TABLE urgent (x)")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("locked"), "{refused:?}");
    let (image, captured) = finish(capture);
    assert!(image == before);
    assert!(captured.stall > Duration::ZERO);
    judge(&folder.path().join("copy"), &image, &captured);
    sql(&database, "CREATE TABLE urgent (x)");
}

/// After the pages were taken, nothing else bounds how long the lock is held.
#[test]
fn counting_does_not_keep_writers_out_for_longer_either() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    // Rows that fill a page each, so that counting has to read 25,000 pages.
    sql(
        &database,
        "PRAGMA synchronous = OFF; CREATE TABLE wide (v); \
         WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 25000) INSERT INTO wide SELECT zeroblob(3000) FROM n;",
    );
    let options = CaptureOptions {
        max_stall: Duration::from_millis(1),
        ..patient(&database)
    };
    let capture = begin(&options, clock()).unwrap();
    drain_some(capture.pages().as_ref()).unwrap();
    let error = capture.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("counting its rows"), "{error}");
    let (_, captured) = finish(begin(&patient(&database), clock()).unwrap());
    assert_eq!(captured.facts.tables.get("wide"), Some(&25000));
}
