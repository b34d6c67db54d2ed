//! What `diff` says is what SQL says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lifeboat_engine::sqlite::{Cell, Difference, Fate, Scope, Side, TableChange, diff};
use lifeboat_model::{Clock, ErrorKind};
use rusqlite::Connection;

/// A clock that goes on by a second at every look.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn wall_us(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Ticking::default())
}

fn make(folder: &Path, name: &str, sql: &str) -> PathBuf {
    let path = folder.join(name);
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

fn compare(a: &str, b: &str) -> Difference {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (make(folder.path(), "a", a), make(folder.path(), "b", b));
    let scope = Scope {
        tables: Vec::new(),
        samples: 10,
    };
    diff(&Side::Copy(a), &Side::Copy(b), &scope, &clock()).unwrap()
}

fn table<'a>(difference: &'a Difference, name: &str) -> &'a TableChange {
    difference.tables.iter().find(|table| table.name == name).unwrap()
}

fn numbers(table: &TableChange) -> (u64, u64, u64) {
    let rows = table
        .rows
        .as_ref()
        .unwrap_or_else(|| panic!("{} was not compared: {:?}", table.name, table.not_compared));
    (rows.missing, rows.changed, rows.extra)
}

#[test]
fn rows_are_told_apart_by_every_kind_of_key() {
    let schema = "
        CREATE TABLE plain (id INTEGER PRIMARY KEY, v);
        CREATE TABLE named (name TEXT PRIMARY KEY COLLATE NOCASE, v);
        CREATE TABLE pair (a, b, v, PRIMARY KEY (b, a)) WITHOUT ROWID;
        CREATE TABLE keyless (v);
        CREATE TABLE nulls (k TEXT PRIMARY KEY, v);
        CREATE TABLE hides (rowid TEXT, _rowid_ TEXT, v);
        CREATE TABLE \"odd \"\"name\" (\"a b\" INTEGER PRIMARY KEY, v, g AS (v || 'x'));";
    let a = format!(
        "{schema} INSERT INTO plain VALUES (1, 'x'), (2, 'y'), (3, 'z');
        INSERT INTO named VALUES ('B', 1), ('a', 2), ('c', 3);
        INSERT INTO pair VALUES (1, 'k', 1), (2, 'k', 2), (1.5, 'k', 3), (x'00', 'n', 4), ('t', 'k', 5);
        INSERT INTO keyless VALUES (1), (1), (2);
        INSERT INTO nulls VALUES (NULL, 1), (NULL, 2), ('x', 3);
        INSERT INTO hides VALUES ('r', 's', 1), ('r', 's', 2);
        INSERT INTO \"odd \"\"name\" VALUES (1, 'p'), (2, 'q');"
    );
    let b = format!(
        "{a} DELETE FROM plain WHERE id = 1; UPDATE plain SET v = x'79' WHERE id = 2; INSERT INTO plain VALUES (9, NULL);
        UPDATE named SET v = 9 WHERE name = 'a'; DELETE FROM named WHERE name = 'c';
        UPDATE pair SET v = 9 WHERE a = 1.5; DELETE FROM pair WHERE a = 't';
        UPDATE keyless SET v = 3 WHERE rowid = 2;
        UPDATE nulls SET v = 9 WHERE v = 2;
        UPDATE hides SET v = 3 WHERE v = 2;
        UPDATE \"odd \"\"name\" SET v = 'r' WHERE v = 'q';"
    );
    let found = compare(&a, &b);
    assert!(found.schema.is_empty(), "{:?}", found.schema);
    assert_eq!(numbers(table(&found, "plain")), (1, 1, 1));
    assert_eq!(numbers(table(&found, "named")), (1, 1, 0));
    assert_eq!(numbers(table(&found, "pair")), (1, 1, 0));
    assert_eq!(numbers(table(&found, "keyless")), (0, 1, 0));
    // NULLs in a key tell nothing apart: the row id does.
    assert_eq!(numbers(table(&found, "nulls")), (0, 1, 0));
    assert_eq!(numbers(table(&found, "hides")), (0, 1, 0));
    assert_eq!(numbers(table(&found, "odd \"name")), (0, 1, 0));
    let changed = &table(&found, "plain").rows.as_ref().unwrap().samples[1];
    assert_eq!(changed.fate, Fate::Changed);
    assert_eq!(changed.key, [("id".to_owned(), Cell::Integer(2))]);
    assert_eq!(
        changed.columns,
        [("v".to_owned(), Cell::Text("y".into(), 1), Cell::Blob("79".into(), 1))]
    );
    assert!(compare(&a, &a).is_same());
}

#[test]
fn tables_and_schema_are_compared_too() {
    let found = compare(
        "CREATE TABLE gone (v); INSERT INTO gone VALUES (1); CREATE TABLE kept (id INTEGER PRIMARY KEY, a);
         INSERT INTO kept VALUES (1, 'same'); CREATE INDEX i ON kept (a); CREATE VIRTUAL TABLE f USING fts5(t); INSERT INTO f VALUES ('w')",
        "CREATE TABLE fresh (v); CREATE TABLE kept (id INTEGER PRIMARY KEY, a, b); INSERT INTO kept VALUES (1, 'same', 'new column');
         CREATE VIRTUAL TABLE f USING fts5(t); INSERT INTO f VALUES ('w'), ('x')",
    );
    let names: Vec<(&str, &str, bool, bool)> = found
        .schema
        .iter()
        .map(|change| {
            (
                change.kind.as_str(),
                change.name.as_str(),
                change.before.is_some(),
                change.after.is_some(),
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            ("index", "i", true, false),
            ("table", "fresh", false, true),
            ("table", "gone", true, false),
            ("table", "kept", true, true)
        ]
    );
    assert_eq!((table(&found, "gone").before, table(&found, "gone").after), (Some(1), None));
    // What both have is the same.
    assert_eq!(numbers(table(&found, "kept")), (0, 0, 0));
    assert!(table(&found, "f").not_compared.is_some());
    assert_eq!(numbers(table(&found, "f_content")).2, 1);
}

#[test]
fn texts_of_another_encoding_are_walked_in_their_own_order() {
    let sql = |encoding: &str, last: &str| {
        format!(
            "PRAGMA encoding = '{encoding}'; CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO t VALUES ('a', 1), ('Ā', 2), ('😀', 3), ('z', {last})"
        )
    };
    for encoding in ["UTF-16le", "UTF-16be", "UTF-8"] {
        let found = compare(&sql(encoding, "4"), &sql(encoding, "5"));
        assert_eq!(numbers(table(&found, "t")), (0, 1, 0), "{encoding}");
    }
    let found = compare(&sql("UTF-8", "4"), &sql("UTF-16le", "4"));
    assert!(table(&found, "t").not_compared.is_some());
}

#[test]
fn a_live_database_is_read_in_one_transaction_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    let copy = make(folder.path(), "copy", sql);
    let live = make(folder.path(), "live", &format!("PRAGMA journal_mode = wal; {sql}"));
    let writer = Connection::open(&live).unwrap();
    writer.execute("UPDATE t SET v = 'c' WHERE id = 2", []).unwrap();
    let before = std::fs::read(&live).unwrap();
    let side = |max_stall| Side::Live {
        path: live.clone(),
        busy_timeout: Duration::from_secs(5),
        max_stall,
    };
    let scope = Scope::default();
    let found = diff(&Side::Copy(copy.clone()), &side(Duration::ZERO), &scope, &clock()).unwrap();
    assert_eq!(numbers(table(&found, "t")), (0, 1, 0));
    assert_eq!(std::fs::read(&live).unwrap(), before);
    // The application goes on.
    writer.execute("INSERT INTO t VALUES (3, 'd')", []).unwrap();
    drop(writer);

    // With a rollback journal, readers keep writers waiting: there is an end to that.
    Connection::open(&live)
        .unwrap()
        .execute_batch("PRAGMA journal_mode = delete")
        .unwrap();
    let error = diff(&Side::Copy(copy.clone()), &side(Duration::from_secs(1)), &scope, &clock()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let patient = diff(&Side::Copy(copy.clone()), &side(Duration::from_secs(1_000)), &scope, &clock()).unwrap();
    assert_eq!(numbers(table(&patient, "t")), (0, 1, 1));
    let scope = Scope {
        tables: vec!["nothing".to_owned()],
        samples: 1,
    };
    let error = diff(&Side::Copy(copy), &side(Duration::from_secs(1_000)), &scope, &clock()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}
