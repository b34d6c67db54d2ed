//! What an inspection says of good copies, of every kind of bad file, and of damage that weaker checks pass.

use std::os::unix::fs::FileExt;
use std::path::Path;

use lifeboat_engine::sqlite::{Facts, companions, inspect};
use lifeboat_model::ErrorKind;
use tempfile::tempdir;

use crate::other::{leftover_wal, sql};

const FIFTY: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t (v); \
    WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50) INSERT INTO t SELECT x, 'value ' || x FROM n;";

fn facts(database: &Path) -> Facts {
    inspect(database, None).unwrap().facts
}

fn root_page(database: &Path, name: &str) -> u64 {
    sql(database, &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'"))
        .parse()
        .unwrap()
}

fn corrupt(database: &Path) -> String {
    let error = inspect(database, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    error.to_string()
}

#[test]
fn a_good_copy_is_ok_and_keeps_every_byte() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        let database = folder.path().join(mode);
        sql(
            &database,
            &format!("PRAGMA journal_mode = {mode}; {FIFTY} PRAGMA user_version = 7; PRAGMA application_id = 9;"),
        );
        let before = std::fs::read(&database).unwrap();
        let facts = facts(&database);
        assert_eq!(facts.tables.get("t"), Some(&50), "{mode}");
        assert_eq!(
            (facts.user_version, facts.application_id, facts.encoding.as_str()),
            (7, 9, "UTF-8")
        );
        assert_eq!(facts.page_count * u64::from(facts.page_size), before.len() as u64);
        let again = inspect(&database, Some(&facts)).unwrap();
        assert_eq!(again.integrity, ["ok"], "{mode}");
        assert!(again.foreign_keys.is_empty() && again.differences.is_empty(), "{again:?}");
        assert_eq!(std::fs::read(&database).unwrap(), before, "{mode}");
        for companion in companions(&database) {
            let name = companion.display();
            assert!(
                name.to_string().ends_with("-shm") || companion.metadata().map_or(0, |m| m.len()) == 0,
                "{name}"
            );
        }
    }
}

#[test]
fn every_page_size_is_understood() {
    let folder = tempdir().unwrap();
    for size in [512_u32, 1024, 4096, 32768, 65536] {
        let database = folder.path().join(size.to_string());
        sql(&database, &format!("PRAGMA page_size = {size}; {FIFTY}"));
        let inspection = inspect(&database, None).unwrap();
        assert_eq!(inspection.integrity, ["ok"]);
        assert_eq!(inspection.facts.page_size, size);
    }
}

#[test]
fn differences_are_told_one_by_one() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(
        &database,
        "CREATE TABLE x (v); INSERT INTO x VALUES (1), (2), (3), (4), (5), (6), (7); CREATE TABLE gone (v);",
    );
    let captured = facts(&database);
    sql(
        &database,
        "DELETE FROM x WHERE v > 5; DROP TABLE gone; CREATE TABLE new (v); INSERT INTO new VALUES (1); PRAGMA user_version = 3;",
    );
    let differences = inspect(&database, Some(&captured)).unwrap().differences;
    let expected = [
        "user_version is 3, captured was 0",
        "the schema is not the one that was captured",
        "table gone is missing, captured were 0 rows",
        "table x has 5 rows, captured were 7",
        "table new with 1 rows was not there when captured",
    ];
    assert_eq!(differences, expected);
}

#[test]
fn the_journal_mode_differs_only_between_wal_and_not_wal() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, "CREATE TABLE x (v)");
    let mut captured = facts(&database);
    captured.journal_mode = "truncate".to_owned();
    assert!(inspect(&database, Some(&captured)).unwrap().differences.is_empty());
    captured.journal_mode = "wal".to_owned();
    assert_eq!(
        inspect(&database, Some(&captured)).unwrap().differences,
        ["the journal mode is rollback, captured was wal"]
    );
}

#[test]
fn shape_and_encoding_are_compared() {
    let folder = tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    sql(&one, "PRAGMA page_size = 4096; CREATE TABLE x (v)");
    sql(
        &other,
        "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; PRAGMA application_id = 5; CREATE TABLE x (v); CREATE TABLE y (v)",
    );
    let differences = inspect(&other, Some(&facts(&one))).unwrap().differences;
    for line in [
        "the page size is 1024, captured was 4096",
        "the number of pages is 3, captured was 2",
        "the encoding is UTF-16le, captured was UTF-8",
        "application_id is 5, captured was 0",
    ] {
        assert!(differences.iter().any(|other| other == line), "{line}: {differences:?}");
    }
}

#[test]
fn an_empty_file_is_no_database_whatever_sqlite_says() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    std::fs::write(&database, "").unwrap();
    assert_eq!(
        sql(&database, "PRAGMA integrity_check"),
        "ok",
        "this is why the guard is needed"
    );
    assert!(corrupt(&database).ends_with("the file is empty"));
}

#[test]
fn files_that_are_no_database_are_corrupt() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "SQLite is mentioned here, but this is a text file.\n".repeat(200)).unwrap();
    corrupt(&file);
    // As encrypted pages look: nothing of the header is recognisable.
    let noise: Vec<u8> = (0..256_u32)
        .flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes())
        .collect();
    std::fs::write(&file, noise).unwrap();
    corrupt(&file);
    std::fs::write(&file, b"SQLite format 3\0").unwrap();
    assert!(corrupt(&file).contains("its header is cut off"));
    assert!(corrupt(folder.path()).ends_with("it is not a file"));
    assert_eq!(
        inspect(&folder.path().join("none"), None).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn missing_and_surplus_bytes_at_the_end_are_corrupt() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, FIFTY);
    let whole = std::fs::read(&database).unwrap();
    for length in [whole.len() - 4096, whole.len() - 1, 700, 100, 99, 17] {
        std::fs::write(&database, whole.get(..length).unwrap()).unwrap();
        corrupt(&database);
    }
    std::fs::write(&database, [whole.as_slice(), &[0; 4096]].concat()).unwrap();
    assert!(corrupt(&database).contains("its header says"));
    std::fs::write(&database, &whole).unwrap();
    assert_eq!(inspect(&database, None).unwrap().integrity, ["ok"]);
}

#[test]
fn an_invalid_page_size_is_corrupt() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, FIFTY);
    for size in [[0, 0], [3, 0], [0, 2]] {
        std::fs::File::options()
            .write(true)
            .open(&database)
            .unwrap()
            .write_all_at(&size, 16)
            .unwrap();
        assert!(corrupt(&database).contains("no valid page size"), "{size:?}");
    }
}

#[test]
fn a_stale_index_page_is_found_though_quick_check_passes() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, FIFTY);
    let page = root_page(&database, "i");
    let before = std::fs::read(&database).unwrap();
    sql(&database, "INSERT INTO t VALUES (51, 'value 51')");
    let start = usize::try_from((page - 1) * 4096).unwrap();
    let stale = before.get(start..start + 4096).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&database)
        .unwrap()
        .write_all_at(stale, start as u64)
        .unwrap();
    assert_eq!(
        sql(&database, "PRAGMA quick_check"),
        "ok",
        "the damage is meant to pass the quick check"
    );
    let inspection = inspect(&database, None).unwrap();
    assert!(
        inspection.integrity.iter().any(|line| line.contains("missing from index i")),
        "{:?}",
        inspection.integrity
    );
}

#[test]
fn a_destroyed_table_is_an_error_that_says_what_is_damaged() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, FIFTY);
    let page = root_page(&database, "t");
    sql(&database, "DROP INDEX i");
    std::fs::File::options()
        .write(true)
        .open(&database)
        .unwrap()
        .write_all_at(&[0xEE; 4096], (page - 1) * 4096)
        .unwrap();
    assert!(corrupt(&database).contains("it is damaged: "));
}

#[test]
fn violated_foreign_keys_are_listed_and_capped() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(
        &database,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent (id)); \
         CREATE TABLE keyed (k PRIMARY KEY, p REFERENCES parent (id)) WITHOUT ROWID; INSERT INTO keyed VALUES ('a', 5); INSERT INTO child VALUES (1);",
    );
    let mut lines = inspect(&database, None).unwrap().foreign_keys;
    lines.sort();
    let expected = [
        "a row of table keyed refers to a row that table parent does not have",
        "row 1 of table child refers to a row that table parent does not have",
    ];
    assert_eq!(lines, expected);
    sql(
        &database,
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 148) INSERT INTO child SELECT x FROM n;",
    );
    let inspection = inspect(&database, None).unwrap();
    assert_eq!(inspection.integrity, ["ok"], "integrity_check does not look at foreign keys");
    assert_eq!(inspection.foreign_keys.len(), 101);
    assert_eq!(
        inspection.foreign_keys.last().unwrap(),
        "150 rows in total refer to missing rows"
    );
}

#[test]
fn a_foreign_key_that_cannot_be_checked_is_told() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(
        &database,
        "CREATE TABLE parent (a, b); CREATE TABLE child (p REFERENCES parent (a)); INSERT INTO child VALUES (1);",
    );
    let lines = inspect(&database, None).unwrap().foreign_keys;
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("PRAGMA foreign_key_check could not finish: ")),
        "{lines:?}"
    );
}

#[test]
fn a_filled_wal_or_a_journal_beside_the_copy_is_refused() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    leftover_wal(&database, 3);
    let error = inspect(&database, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let other = folder.path().join("other.db");
    sql(&other, FIFTY);
    std::fs::write(folder.path().join("other.db-journal"), "x").unwrap();
    assert_eq!(inspect(&other, None).unwrap_err().kind(), ErrorKind::Refused);
}
