//! What a search finds, what it leaves out, and what it could not read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_engine::sqlite::{Found, discover};
use lifeboat_model::ErrorKind;
use tempfile::tempdir;

use crate::child;
use crate::other::sql;

fn database(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    sql(path, "CREATE TABLE t (x)");
}

fn paths(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let discovery = discover(folder, depth).unwrap();
    assert!(discovery.unreadable.is_empty(), "{discovery:?}");
    discovery
        .found
        .into_iter()
        .map(|found| found.path.strip_prefix(folder).unwrap().to_owned())
        .collect()
}

#[test]
fn databases_are_found_by_content_and_sorted() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    database(&at("b/without-ending"));
    sql(&at("a.db"), "PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
    database(&at("b/c/deep.sqlite3"));
    std::fs::write(at("fake.db"), "not a database").unwrap();
    std::fs::write(at("empty.db"), "").unwrap();
    let found = discover(folder.path(), 9).unwrap().found;
    let one = |path: &str, wal| Found {
        path: at(path),
        size_bytes: at(path).metadata().unwrap().len(),
        journal_mode_wal: wal,
    };
    assert_eq!(
        found,
        [
            one("a.db", true),
            one("b/c/deep.sqlite3", false),
            one("b/without-ending", false)
        ]
    );
}

#[test]
fn the_depth_counts_folders_below_the_searched_one() {
    let folder = tempdir().unwrap();
    for name in ["0.db", "a/1.db", "a/b/2.db"] {
        database(&folder.path().join(name));
    }
    assert_eq!(paths(folder.path(), 0), [Path::new("0.db")]);
    assert_eq!(paths(folder.path(), 1), [Path::new("0.db"), Path::new("a/1.db")]);
    assert_eq!(paths(folder.path(), 2).len(), 3);
}

#[test]
fn stores_leftovers_and_build_folders_are_left_out() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in [
        ".cache/x.db",
        "node_modules/x.db",
        "target/x.db",
        "store/x.db",
        "store/below/x.db",
        "app.db.lifeboat-undo-1",
        "real/app.db",
    ] {
        database(&at(name));
    }
    std::fs::write(at("store/lifeboat.json"), "{}").unwrap();
    for ending in ["-wal", "-shm", "-journal"] {
        std::fs::copy(at("real/app.db"), at(&format!("real/app.db{ending}"))).unwrap();
    }
    std::os::unix::fs::symlink(at("real"), at("linked")).unwrap();
    std::os::unix::fs::symlink(at("real/app.db"), at("linked.db")).unwrap();
    std::os::unix::fs::symlink(at("."), at("real/loop")).unwrap();
    assert_eq!(paths(folder.path(), 9), [Path::new("real/app.db")]);
    assert!(paths(&at("store"), 9).is_empty(), "even when asked for it");
}

#[test]
fn a_pipe_does_not_hold_up_the_search() {
    let folder = tempdir().unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(folder.path().join("pipe.db"))
            .status()
            .unwrap()
            .success()
    );
    database(&folder.path().join("app.db"));
    assert_eq!(paths(folder.path(), 1), [Path::new("app.db")]);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = tempdir().unwrap();
    assert_eq!(
        discover(&folder.path().join("none"), 1).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    if let Some(folder) = child::folder() {
        let discovery = discover(&folder, 3).unwrap();
        assert_eq!(discovery.unreadable, [folder.join("closed"), folder.join("closed.db")]);
        let found: Vec<_> = discovery.found.into_iter().map(|found| found.path).collect();
        assert_eq!(found, [folder.join("open.db")]);
        return;
    }
    let folder = tempdir().unwrap();
    child::open_to_all(folder.path());
    for name in ["closed/x.db", "closed.db", "open.db"] {
        database(&folder.path().join(name));
    }
    let closed = std::fs::Permissions::from_mode(0o0);
    std::fs::set_permissions(folder.path().join("closed"), closed.clone()).unwrap();
    std::fs::set_permissions(folder.path().join("closed.db"), closed).unwrap();
    child::unprivileged("discover::what_cannot_be_read_is_named", folder.path());
    child::open_to_all(&folder.path().join("closed"));
}
