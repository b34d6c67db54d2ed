//! SQL text and extracts of a capture: loaded by the stock `sqlite3` program and compared value by value.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat_engine::sqlite::{Capture, CaptureOptions, Captured, Extract, begin};
use lifeboat_model::{ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::tempdir;

use crate::taken::{clock, patient};

/// Takes everything; the streams by name.
fn take(capture: Capture) -> (BTreeMap<String, Vec<u8>>, Result<Captured>) {
    let pages = capture.pages();
    let mut buffer = Vec::new();
    while let Ok(Some(_)) = pages.next_segment(&mut buffer) {}
    let mut streams = BTreeMap::new();
    for beside in capture.beside() {
        let mut bytes = Vec::new();
        if beside.reader().read_to_end(&mut bytes).is_ok() {
            streams.insert(beside.name.clone(), bytes);
        }
    }
    (streams, capture.finish())
}

fn dumping(database: &Path) -> CaptureOptions {
    CaptureOptions {
        sql_dump: true,
        ..patient(database)
    }
}

/// The dump, loaded by the shell into a new database.
fn reload(database: &Path, options: &CaptureOptions) -> std::path::PathBuf {
    let (streams, captured) = take(begin(options, clock()).unwrap());
    let facts = captured.unwrap().facts;
    let text = &streams[&facts.dump.unwrap()];
    let loaded = database.with_extension("loaded");
    let mut shell = Command::new("sqlite3")
        .arg("-bail")
        .arg(&loaded)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), text).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    loaded
}

/// A value to the bit: its type and its bytes as the database has them.
type Exact = (String, Option<Vec<u8>>, u64);

fn exact(connection: &Connection, table: &str, columns: &[String]) -> Vec<Vec<Exact>> {
    let list: Vec<String> = columns
        .iter()
        .map(|column| format!("typeof({column}), CAST({column} AS BLOB), {column}"))
        .collect();
    let mut statement = connection
        .prepare(&format!("SELECT {} FROM {table}", list.join(", ")))
        .unwrap();
    let rows = statement
        .query_map([], |row| {
            (0..columns.len())
                .map(|at| {
                    let bits = match row.get::<_, Value>(3 * at + 2) {
                        Ok(Value::Real(number)) => number.to_bits(),
                        Ok(Value::Integer(number)) => number.cast_unsigned(),
                        _ => 0,
                    };
                    Ok((row.get(3 * at)?, row.get(3 * at + 1)?, bits))
                })
                .collect()
        })
        .unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

fn schema(connection: &Connection) -> Vec<(String, String, Option<Vec<u8>>)> {
    let mut statement = connection
        .prepare(
            "SELECT type, name, CAST(sql AS BLOB) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat4%' ORDER BY type, name",
        )
        .unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// Compares everything that can be seen of two databases.
fn compare(one: &Path, two: &Path) {
    let (one, two) = (Connection::open(one).unwrap(), Connection::open(two).unwrap());
    assert_eq!(schema(&one), schema(&two));
    for pragma in ["user_version", "application_id", "encoding", "page_size", "auto_vacuum"] {
        let value = |of: &Connection| {
            of.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, Value>(0))
                .unwrap()
        };
        assert_eq!(value(&one), value(&two), "{pragma}");
    }
    let check = |of: &Connection| {
        of.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    assert_eq!(check(&one), check(&two));
    let tables: Vec<(String, bool)> = one
        .prepare("SELECT name, wr FROM pragma_table_list WHERE schema='main' AND type IN ('table','shadow','virtual') AND name NOT IN ('sqlite_schema','sqlite_stat4')")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    assert!(!tables.is_empty());
    for (table, without_row_id) in tables {
        let mut columns: Vec<String> = one
            .prepare(&format!(
                "SELECT name FROM pragma_table_xinfo({}) WHERE hidden <> 1",
                quoted(&table)
            ))
            .unwrap()
            .query_map([], |row| Ok(quoted(&row.get::<_, String>(0)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        if !without_row_id && !table.starts_with("sqlite_") && !columns.iter().any(|column| column == "\"rowid\"") {
            columns.push("rowid".to_owned());
        }
        let (a, b) = (exact(&one, &quoted(&table), &columns), exact(&two, &quoted(&table), &columns));
        assert_eq!(a.len(), b.len(), "{table}");
        for (a, b) in a.iter().zip(&b) {
            assert_eq!(a, b, "{table}");
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const SCHEMA: &str = r#"
    PRAGMA user_version = -7; PRAGMA application_id = 252006674;
    CREATE TABLE "select"("from" TEXT, "a ""b""", [c d] REAL, e INTEGER, f BLOB, g NUMERIC);
    CREATE TABLE ids(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
    CREATE TABLE gone(id INTEGER PRIMARY KEY AUTOINCREMENT);
    CREATE TABLE desc_key(id INTEGER PRIMARY KEY DESC, x);
    CREATE TABLE wr(a TEXT COLLATE NOCASE, b, c AS (a || '!') STORED, d AS (length(a)), PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE strict(a INTEGER, b REAL, c TEXT, d BLOB, e ANY) STRICT;
    CREATE TABLE shadowed(rowid, _rowid_, oid);
    CREATE TABLE half_shadowed(rowid TEXT, x);
    CREATE TABLE checked(x CHECK (x > 0), y REFERENCES ids(id));
    CREATE VIRTUAL TABLE ft USING fts5(title, body);
    CREATE VIRTUAL TABLE rt USING rtree(id, x0, x1);
    CREATE INDEX expr ON ids(x COLLATE NOCASE, abs(id)) WHERE x IS NOT NULL;
    CREATE UNIQUE INDEX u ON ids(x);
    CREATE VIEW v AS SELECT id, x FROM ids WHERE x <> 'a;b';
    CREATE TRIGGER t AFTER INSERT ON ids BEGIN INSERT INTO checked VALUES (1, new.id); SELECT 'x; END;'; END;
    CREATE TRIGGER tv INSTEAD OF INSERT ON v BEGIN SELECT 1; END;
    INSERT INTO ids(id, x) VALUES (5, 'five'), (900, NULL); DELETE FROM ids WHERE id = 900;
    INSERT INTO gone VALUES (77); DROP TABLE gone;
    INSERT INTO desc_key VALUES (3, 'c'), (1, 'a');
    INSERT INTO wr VALUES ('Z', 1), ('a', 2), ('b', x'00ff');
    INSERT INTO strict VALUES (1, 2, 'three', x'04', 5.5), (NULL, 1e300, '', x'', 'x');
    INSERT INTO shadowed VALUES (1, 2, 3), ('a', NULL, x'01');
    INSERT INTO shadowed VALUES (CAST(x'feff' AS TEXT), CAST(x'fffe' AS TEXT), CAST(x'6100ffff' AS TEXT)); -- marks and noncharacters
    INSERT INTO half_shadowed(_rowid_, rowid, x) VALUES (42, 'own', 1);
    PRAGMA ignore_check_constraints = ON; INSERT INTO checked VALUES (-5, 12345); PRAGMA ignore_check_constraints = OFF;
    INSERT INTO ft VALUES ('Tomato', 'soup; with "quotes"'), ('it''s', 'fine');
    INSERT INTO rt VALUES (1, 0.5, 1.5), (2, -3, 7);
    ANALYZE;
"#;

/// Random values that databases choke on; repeatable by the seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> Value {
        const TEXTS: [&str; 10] = [
            "",
            "it's",
            "a\rb\r\n",
            "\r",
            "x'00'",
            "--",
            "ü€😀",
            "\u{fffd}",
            "line\n.quit\n",
            "a\0b",
        ];
        const REALS: [f64; 12] = [
            0.1,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            5e-324,
            f64::MAX,
            f64::MIN_POSITIVE,
            1.0 / 3.0,
            9007199254740993.5,
            123.456,
            -99.95,
            1e22,
        ];
        let pick = |count: usize, random: u64| usize::try_from(random % count as u64).unwrap();
        match self.next() % 8 {
            0 => Value::Null,
            1 => Value::Integer(self.next().cast_signed()),
            2 => Value::Integer(i64::MIN),
            3 => Value::Real(REALS[pick(REALS.len(), self.next())]),
            4 => Value::Real(f64::from_bits(self.next())),
            5 => Value::Text(TEXTS[pick(TEXTS.len(), self.next())].to_owned()),
            _ => Value::Blob((0..self.next() % 40).map(|_| self.next().to_le_bytes()[0]).collect()),
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("LIFEBOAT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()) << 20) | 1
}

fn fill(connection: &Connection, dice: &mut Dice, rows: u64) {
    for number in 0..rows {
        let values: Vec<Value> = (0..6).map(|_| dice.value()).collect();
        connection
            .execute(
                r#"INSERT INTO "select"(rowid, "from", "a ""b""", [c d], e, f, g) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"#,
                rusqlite::params![
                    i64::try_from(number * 3).unwrap() - 50,
                    values[0],
                    values[1],
                    values[2],
                    values[3],
                    values[4],
                    values[5]
                ],
            )
            .unwrap();
        // Text that is not valid in the encoding of the database.
        connection
            .execute(
                r#"UPDATE "select" SET "a ""b""" = CAST(f AS TEXT) WHERE typeof(f) = 'blob' AND rowid % 4 = 0"#,
                [],
            )
            .unwrap();
    }
}

#[test]
fn everything_comes_back_to_the_bit() {
    let seed = seed();
    println!("LIFEBOAT_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    for (encoding, mode) in [
        ("UTF-8", "WAL"),
        ("UTF-16le", "DELETE"),
        ("UTF-16be", "WAL"),
        ("UTF-8", "DELETE"),
    ] {
        let folder = tempdir().unwrap();
        let database = folder.path().join("app.db");
        let connection = Connection::open(&database).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA encoding = '{encoding}'; PRAGMA page_size = 1024; PRAGMA auto_vacuum = 1; PRAGMA foreign_keys = OFF; PRAGMA journal_mode = {mode}"
            ))
            .unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        fill(&connection, &mut dice, 150);
        connection.close().unwrap();
        let loaded = reload(&database, &dumping(&database));
        compare(&database, &loaded);
    }
}

#[test]
fn a_dump_that_has_to_let_the_lock_go_misses_no_row_and_repeats_none() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE r(x, y); CREATE TABLE w(a TEXT, b, PRIMARY KEY(a DESC, b)) WITHOUT ROWID; CREATE TABLE s(rowid, _rowid_, oid);
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<6000) INSERT INTO r SELECT x, randomblob(400) FROM n;
             INSERT INTO w SELECT y, x FROM r; INSERT INTO s SELECT x, y, x FROM r WHERE x % 2",
        )
        .unwrap();
    connection.close().unwrap();
    let options = CaptureOptions {
        max_stall: Duration::from_millis(20),
        ..dumping(&database)
    };
    // Counting has the whole of the time again; only the dump is longer than it.
    let text = std::fs::metadata(&database).unwrap().len();
    assert!(text > 4 << 20);
    let loaded = reload(&database, &options);
    compare(&database, &loaded);
}

fn extract(query: &str, columns: &[&str]) -> Extract {
    Extract {
        file: "api_keys_metadata.csv".to_owned(),
        query: query.to_owned(),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
    }
}

fn keys(database: &Path) {
    let connection = Connection::open(database).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE api_keys(id INTEGER PRIMARY KEY, name TEXT, scopes TEXT, key_hash TEXT);
             CREATE VIEW sly AS SELECT id, key_hash AS name FROM api_keys;
             CREATE TABLE other(id, name);
             INSERT INTO api_keys VALUES (1, 'ci, deploy', '[\"read\"]', 'SECRET1'), (2, '', NULL, 'SECRET2'), (3, char(13,10), 'x', 'SECRET3')",
        )
        .unwrap();
    connection.close().unwrap();
}

fn extracted(database: &Path, extract: Extract) -> (BTreeMap<String, Vec<u8>>, Result<Captured>) {
    let options = CaptureOptions {
        extracts: vec![extract],
        ..patient(database)
    };
    take(begin(&options, clock()).unwrap())
}

#[test]
fn an_extract_is_csv_that_tells_null_from_empty() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("hub.db");
    keys(&database);
    let (streams, captured) = extracted(
        &database,
        extract("select id, name, scopes from api_keys order by id", &["id", "name", "scopes"]),
    );
    let csv = String::from_utf8(streams["api_keys_metadata.csv"].clone()).unwrap();
    assert_eq!(
        csv,
        "id,name,scopes\r\n1,\"ci, deploy\",\"[\"\"read\"\"]\"\r\n2,\"\",\r\n3,\"\r\n\",x\r\n"
    );
    let facts = &captured.unwrap().facts.extracts["api_keys_metadata.csv"];
    assert_eq!((facts.rows, facts.columns.len()), (3, 3));
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<Vec<String>> = reader
        .records()
        .map(|record| record.unwrap().iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(rows[0], ["1", "ci, deploy", "[\"read\"]"]);
    assert_eq!(rows[2], ["3", "\r\n", "x"]);
}

#[test]
fn an_extract_reads_nothing_but_what_it_may() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("hub.db");
    keys(&database);
    for query in [
        "select * from api_keys",
        "select id, hex(key_hash) from api_keys",
        "select id from api_keys where key_hash like 'S%'",
        "select id, name from api_keys order by key_hash",
        "select id, (select group_concat(key_hash) from api_keys) from api_keys",
        "select id, name from sly",
        "select name from sqlite_schema",
        "select data from sqlite_dbpage",
        "select name from pragma_table_info('api_keys')",
        "delete from api_keys",
        "delete from api_keys returning id",
        "attach 'x.db' as x",
        "pragma table_info(api_keys)",
        "select id from api_keys; select key_hash from api_keys",
        "",
        "select ?1",
        "no sql",
    ] {
        let (streams, captured) = extracted(&database, extract(query, &["id", "name", "scopes", "data"]));
        let error = captured.expect_err(query);
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{query}: {error}");
        assert!(
            !streams.values().any(|bytes| bytes.windows(6).any(|part| part == b"SECRET")),
            "{query}"
        );
    }
    // A qualified column means that table alone.
    let (_, captured) = extracted(&database, extract("select name from other", &["api_keys.name"]));
    assert!(captured.is_err());
    let (_, captured) = extracted(&database, extract("select count(*), max(name) from other", &["other.name"]));
    assert!(captured.is_ok());
}

#[test]
fn two_files_of_one_name_are_refused() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("hub.db");
    keys(&database);
    for file in ["hub.db", "hub.sql"] {
        let options = CaptureOptions {
            extracts: vec![Extract {
                file: file.to_owned(),
                ..extract("select 1", &["id"])
            }],
            ..dumping(&database)
        };
        let error = begin(&options, clock()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    }
}
