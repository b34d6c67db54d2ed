//! What somebody wants to hold of a restored SQLite database: it only reads, it ends, and it tells the truth.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::checks::Beat;
use lifeboat_engine::sqlite::checks::{Assertion, Expect, ask, newest, orphans};
use lifeboat_model::check::{Outcome, Verdict};
use rusqlite::Connection;

const LIMIT: Duration = Duration::from_secs(60);

fn database(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("app.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE users (id INTEGER PRIMARY KEY); CREATE TABLE projects (id INTEGER PRIMARY KEY, user_id INTEGER, \"odd\"\"name\" TEXT, at TEXT);
             INSERT INTO users VALUES (1), (2);
             INSERT INTO projects VALUES (1, 1, 'a', '2026-01-15T14:30:00.250Z'), (2, NULL, 'b', NULL), (3, 7, 'c', '2026-01-15 12:00:00')",
        )
        .unwrap();
    connection.close().unwrap();
    path
}

fn asked(path: &Path, sql: &str, expect: Expect, limit: Duration) -> Outcome {
    let assertion = Assertion {
        name: "it".to_owned(),
        sql: sql.to_owned(),
        expect,
        limit,
    };
    let clock = lifeboat_testkit::env::real_env().clock;
    ask(path, &Arc::clone(&clock), &[assertion]).remove(0)
}

#[test]
fn only_what_was_expected_passes_and_nothing_but_reading_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let before = std::fs::read(&path).unwrap();
    let of = |sql: &str, expect: Expect| asked(&path, sql, expect, LIMIT);
    let passed = [
        ("select count(*) from users", Expect::AtLeast(2)),
        ("select count(*) from users", Expect::Equals("2".to_owned())),
        ("select 2.5", Expect::Equals("2.5".to_owned())),
        ("select id from users where id > 5", Expect::NoRows),
    ];
    for (sql, expect) in passed {
        let outcome = of(sql, expect);
        assert_eq!(outcome.verdict, Verdict::Passed, "{sql}: {outcome:?}");
    }
    let refused = [
        "delete from users",
        "select 1; delete from users",
        "attach 'other.db' as other",
        "pragma user_version = 7",
        "select load_extension('x')",
        "create temp table t (a)",
        "select * from nothing",
        "",
    ];
    for sql in refused {
        let outcome = of(sql, Expect::NoRows);
        assert_eq!(outcome.verdict, Verdict::Failed, "{sql}: {outcome:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before, "the database was written to");
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    let outcome = asked(&path, endless, Expect::AtLeast(1), Duration::from_millis(50));
    assert!(outcome.says.contains("longer than 50ms"), "{outcome:?}");
}

#[test]
fn a_null_is_no_orphan_and_names_may_be_odd() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let sql = orphans("projects", &words(&["user_id"]), "users", &words(&["id"]));
    let outcome = asked(&path, &sql, Expect::NoRows, LIMIT);
    assert_eq!((outcome.verdict, outcome.evidence), (Verdict::Failed, vec!["7".to_owned()]));
    let odd = orphans(
        "projects",
        &words(&["odd\"name", "id"]),
        "projects",
        &words(&["odd\"name", "id"]),
    );
    assert_eq!(asked(&path, &odd, Expect::NoRows, LIMIT).verdict, Verdict::Passed);
}

#[test]
fn a_heartbeat_is_a_time_however_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    let clock = lifeboat_testkit::env::real_env().clock;
    let of = |sql: &str| newest(&path, &clock, sql, LIMIT);
    assert_eq!(of("select max(at) from projects"), Beat::At(1_768_487_400_250_000));
    assert_eq!(of("select at from projects where id = 3"), Beat::At(1_768_478_400_000_000));
    assert_eq!(of("select 1768487400"), Beat::At(1_768_487_400_000_000));
    assert_eq!(of("select 1768487400.5"), Beat::At(1_768_487_400_500_000));
    assert_eq!(of("select '2026-01-15T15:30:00+01:00'"), Beat::At(1_768_487_400_000_000));
    assert_eq!(of("select max(at) from projects where id > 9"), Beat::Nothing);
    assert_eq!(of("select at from projects where id > 9"), Beat::Nothing);
    for sql in [
        "select 'soon'",
        "select 1, 2",
        "select id from users",
        "select * from nothing",
    ] {
        assert!(matches!(of(sql), Beat::Unknown(_)), "{sql}: {:?}", of(sql));
    }
}
