//! Who is seen to use a database, and when it counts as unused.

use std::path::Path;

use lifeboat_engine::sqlite::{companions, holders, prove_unused};
use lifeboat_model::ErrorKind;
use tempfile::tempdir;

use crate::child;
use crate::other::{Other, leftover_wal, sql};

const OPEN: &str = "import sys\nf = open(sys.argv[1], 'rb')\nprint('ready', flush=True)\nsys.stdin.read()\n";

/// Keeps its open files from being looked at by others than root. Locks the database; of one that is named so, it stays an idle reader.
const HIDDEN: &str = "import ctypes, sqlite3, sys\n\
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n\
    c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
    c.execute('SELECT 1 FROM t' if 'idle' in sys.argv[1] else 'BEGIN IMMEDIATE').fetchall()\n\
    print('ready', flush=True)\n\
    sys.stdin.read()\n";

fn refusal(database: &Path) -> String {
    let error = prove_unused(database).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint().is_some(), "{error}");
    error.to_string()
}

fn contents(database: &Path) -> [Option<Vec<u8>>; 2] {
    let [wal, ..] = companions(database);
    [std::fs::read(database).ok(), std::fs::read(wal).ok()]
}

#[test]
fn a_process_that_has_it_open_is_named() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        let database = folder.path().join(mode);
        sql(&database, &format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x)"));
        let shell = Other::shell(&database, "SELECT count(*) FROM t;");
        let seen = holders(&database).unwrap().seen;
        assert!(
            seen.iter()
                .all(|holder| holder.pid == shell.pid() && holder.process == "sqlite3"),
            "{seen:?}"
        );
        assert!(seen.iter().any(|holder| holder.file == database), "{seen:?}");
        let text = refusal(&database);
        assert!(
            text.ends_with(&format!("it is open in: sqlite3 (pid {})", shell.pid())),
            "{text}"
        );
        shell.kill();
        prove_unused(&database).unwrap();
    }
}

#[test]
fn who_has_only_a_companion_open_holds_the_database() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, "CREATE TABLE t (x)");
    for companion in companions(&database) {
        std::fs::write(&companion, "").unwrap();
        let other = Other::python(OPEN, &companion);
        let seen = holders(&database).unwrap().seen;
        assert_eq!(
            seen.iter().map(|holder| (holder.pid, &holder.file)).collect::<Vec<_>>(),
            [(other.pid(), &companion)]
        );
        refusal(&database);
        std::fs::remove_file(&companion).unwrap();
    }
}

#[test]
fn links_and_this_process_do_not_confuse() {
    let folder = tempdir().unwrap();
    let (database, hard, soft) = (
        folder.path().join("app.db"),
        folder.path().join("hard"),
        folder.path().join("soft"),
    );
    sql(&database, "CREATE TABLE t (x)");
    std::fs::hard_link(&database, &hard).unwrap();
    std::os::unix::fs::symlink(&database, &soft).unwrap();
    let own = std::fs::File::open(&hard).unwrap();
    assert!(holders(&database).unwrap().seen.is_empty());
    drop(own);
    let other = Other::python(OPEN, &hard);
    assert_eq!(
        holders(&soft).unwrap().seen.first().map(|holder| holder.pid),
        Some(other.pid())
    );
    other.kill();
    let [wal, ..] = companions(&database);
    std::fs::write(&wal, "").unwrap();
    let other = Other::python(OPEN, &wal);
    assert_eq!(
        holders(&soft).unwrap().seen.first().map(|holder| holder.pid),
        Some(other.pid()),
        "companions of the link's target"
    );
}

#[test]
fn proving_changes_no_byte_of_a_leftover_wal() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    leftover_wal(&database, 20);
    let before = contents(&database);
    assert!(before[1].as_ref().unwrap().len() > 20 * 4096, "the rows are in the WAL");
    prove_unused(&database).unwrap();
    assert_eq!(contents(&database), before);
    let [_, shm, _] = companions(&database);
    std::fs::remove_file(&shm).unwrap();
    prove_unused(&database).unwrap();
    assert_eq!(contents(&database), before, "without the -shm");
    assert_eq!(
        sql(
            &database,
            "SELECT count(*) FROM t; INSERT INTO t VALUES (1); SELECT count(*) FROM t"
        ),
        "20\n21",
        "and the lock is gone"
    );
}

#[test]
fn proving_changes_no_byte_without_a_wal() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "PERSIST", "WAL"] {
        let database = folder.path().join(mode);
        sql(
            &database,
            &format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)"),
        );
        let before = std::fs::read(&database).unwrap();
        prove_unused(&database).unwrap();
        assert_eq!(std::fs::read(&database).unwrap(), before, "{mode}");
        let [wal, shm, _] = companions(&database);
        assert_eq!(wal.metadata().map_or(0, |metadata| metadata.len()), 0);
        assert!(!shm.try_exists().unwrap());
        assert_eq!(
            sql(&database, "INSERT INTO t VALUES (2); SELECT count(*) FROM t"),
            "2",
            "{mode}"
        );
    }
}

#[test]
fn what_sqlite_cannot_open_is_unused_unless_somebody_holds_it() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("app.db");
    prove_unused(&file).unwrap();
    let noise: Vec<u8> = (0..256_u32)
        .flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes())
        .collect();
    sql(
        &folder.path().join("whole"),
        "CREATE TABLE t (x); CREATE TABLE u (x); CREATE TABLE v (x)",
    );
    let whole = std::fs::read(folder.path().join("whole")).unwrap();
    let truncated = whole.get(..4096).unwrap().to_vec();
    for bytes in [Vec::new(), b"x".to_vec(), noise, b"SQLite format 3\0".to_vec(), truncated] {
        std::fs::write(&file, &bytes).unwrap();
        prove_unused(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        let other = Other::python(OPEN, &file);
        assert!(refusal(&file).contains(&format!("(pid {})", other.pid())));
    }
    assert_eq!(prove_unused(folder.path()).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn a_lock_of_a_process_that_cannot_be_seen_refuses() {
    if let Some(folder) = child::folder() {
        for mode in ["DELETE", "WAL", "WAL-idle"] {
            let database = folder.join(mode);
            let holders = holders(&database).unwrap();
            assert!(holders.blind && holders.seen.is_empty(), "{holders:?}");
            assert!(refusal(&database).contains("keeps it locked"));
        }
        let error = prove_unused(&folder.join("read-only")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("cannot be written to"), "{error}");
        return;
    }
    let folder = tempdir().unwrap();
    child::open_to_all(folder.path());
    let mut hidden = Vec::new();
    for (name, mode) in [("DELETE", "DELETE"), ("WAL", "WAL"), ("WAL-idle", "WAL")] {
        let database = folder.path().join(name);
        sql(&database, &format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (x)"));
        child::open_to_all(&database);
        hidden.push(Other::python(HIDDEN, &database));
        for companion in companions(&database) {
            if companion.try_exists().unwrap() {
                child::open_to_all(&companion);
            }
        }
    }
    let read_only = folder.path().join("read-only");
    sql(&read_only, "CREATE TABLE t (x)");
    let mut permissions = read_only.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&read_only, permissions).unwrap();
    child::unprivileged("locks::a_lock_of_a_process_that_cannot_be_seen_refuses", folder.path());
}
