//! What is asked of a PostgreSQL cluster besides: checks, a rate, time for counting.

use std::time::Duration;

use lifeboat_engine::postgres::checks::{Asked, Expect, Orphans};
use lifeboat_ops::protected::Care;

use super::{assert_refused, read, with};

/// The example with a cluster for its second database.
fn cluster(postgres: &str, rest: &str, backup: &str) -> String {
    let text = with("sqlite: { path: queue.db }", &format!("postgres: {{ {postgres} }}{rest}"));
    text.replacen("backup: { to: [disk] }", &format!("backup: {{ to: [disk]{backup} }}"), 1)
}

fn care(text: &str) -> Care {
    let settings = read(text).unwrap();
    let queue = settings.components.iter().find(|component| component.name == "sortie/queue");
    queue.unwrap().source.cluster().unwrap().care.clone()
}

#[test]
fn checks_and_limits_arrive() {
    let found = care(&cluster("url: \"postgresql://me@db/app\"", "", ""));
    assert_eq!(found, Care::default());
    let checks = "
        checks:
          - { sql: select count(*) from t, expect: { equals: 42 } }
          - { sql: \"select 'on'\", expect: { equals: \"on\" }, database: other, timeout: 5s, name: it is on }
          - { sql: select true, expect: { equals: true } }
          - { sql: select 7, expect: { at_least: -3 } }
          - { sql: \"select\\n  i from t  where i is null\", expect: no_rows }
          - { orphans: { table: a, column: b, references: c, key: id } }
          - { orphans: { table: s.a, columns: [x, y], references: c, keys: [v, w] }, name: two }
          - { foreign_keys: true, timeout: 5m }";
    let found = care(&cluster(
        "url: \"postgresql://me@db/app\", count_rows: 0s",
        checks,
        ", max_rate: 50MiB",
    ));
    assert_eq!(found.heartbeat, None);
    assert_eq!((found.max_rate, found.count_rows), (Some(50 << 20), Duration::ZERO));
    let query = |sql: &str, expect: Expect| Asked::Query {
        sql: sql.to_owned(),
        expect,
    };
    let orphans = |table: &str, columns: &[&str], key: &[&str]| {
        Asked::Orphans(Orphans {
            table: table.to_owned(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            references: "c".to_owned(),
            key: key.iter().map(|&name| name.to_owned()).collect(),
        })
    };
    let wanted = [
        (
            "select count(*) from t",
            "app",
            query("select count(*) from t", Expect::Equals("42".into())),
            60,
        ),
        ("it is on", "other", query("select 'on'", Expect::Equals("on".into())), 5),
        ("select true", "app", query("select true", Expect::Equals("t".into())), 60),
        ("select 7", "app", query("select 7", Expect::AtLeast(-3)), 60),
        (
            "select i from t where i is null",
            "app",
            query("select\n  i from t  where i is null", Expect::NoRows),
            60,
        ),
        ("orphans of a(b) → c(id)", "app", orphans("a", &["b"], &["id"]), 60),
        ("two", "app", orphans("s.a", &["x", "y"], &["v", "w"]), 60),
        ("foreign keys of app", "app", Asked::ForeignKeys, 300),
    ];
    let got: Vec<_> = found
        .checks
        .iter()
        .map(|check| {
            let seconds = check.limit.as_secs();
            (check.name.as_str(), check.database.as_str(), check.asked.clone(), seconds)
        })
        .collect();
    assert_eq!(got, wanted);
}

#[test]
fn a_heartbeat_and_a_canary_arrive() {
    let beating = care(&cluster(
        "url: \"postgresql://me@db/app\", heartbeat: \" select max(at) from beats \"",
        "",
        "",
    ));
    assert_eq!(beating.canary, None);
    let heartbeat = beating.heartbeat.unwrap();
    assert_eq!(
        (heartbeat.database.as_str(), heartbeat.sql.as_str()),
        ("app", "select max(at) from beats")
    );
    let ours = care(&cluster("url: \"postgresql://me@db/other\", canary: 2m", "", ""));
    let canary = ours.canary.unwrap();
    assert_eq!((canary.database.as_str(), canary.every), ("other", Duration::from_secs(120)));
    let asked = ours.heartbeat.unwrap();
    assert_eq!(
        (asked.database.as_str(), asked.sql.as_str()),
        ("other", "select at from lifeboat.canary")
    );
}

#[test]
fn the_only_database_is_the_one_that_is_asked_and_marks_of_deletion_arrive() {
    let only = care(&cluster(
        "url: { env: DATABASE_URL }, databases: [tartware]",
        "\n        checks: [{ foreign_keys: true }]",
        "",
    ));
    assert_eq!(only.checks[0].database, "tartware");
    let marked = care(&cluster(
        "url: \"postgresql://me@db/app\", soft_delete: { also: [deleted_by], zone: UTC }",
        "",
        "",
    ));
    let mark = marked.soft_delete;
    assert_eq!(
        (mark.column.as_str(), mark.also.as_slice(), mark.zone.as_deref()),
        ("deleted_at", &["deleted_by".to_owned()][..], Some("UTC"))
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let url = "url: { env: DATABASE_URL }";
    let check = |text: &str| format!("\n        checks: [{text}]");
    let cases = [
        (
            "check-without-database",
            cluster(url, &check("{ sql: select 1, expect: no_rows }"), ""),
        ),
        (
            "check-unknown-expectation",
            cluster(url, &check("{ sql: select 1, expect: rows }"), ""),
        ),
        (
            "check-without-query",
            cluster("database: app", &check("{ sql: \"\", expect: no_rows }"), ""),
        ),
        (
            "check-of-sqlite",
            with(
                "sqlite: { path: queue.db }",
                "sqlite: { path: queue.db, heartbeat: \" \" }\n        checks: [{ foreign_keys: true }, { sql: select 1, expect: no_rows, database: queue }]",
            ),
        ),
        (
            "rate-of-sqlite",
            with("backup: { to: [disk] }", "backup: { to: [disk], max_rate: 1MiB }"),
        ),
        (
            "canary-beside-heartbeat",
            cluster("url: \"postgresql://me@db/app\", heartbeat: select 1, canary: 0s", "", ""),
        ),
        (
            "heartbeat-without-database",
            cluster(&format!("{url}, heartbeat: select 1"), "", ""),
        ),
        ("rate-too-low", cluster(url, "", ", max_rate: 1KiB")),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}

#[test]
fn a_check_that_asks_nothing_or_two_things_is_refused() {
    let check = |text: &str| format!("\n        checks: [{text}]");
    let cases = [
        (
            "check-that-asks-nothing",
            cluster("database: app", &check("{ database: app }"), ""),
        ),
        (
            "check-that-asks-two-things",
            cluster(
                "database: app",
                &check("{ sql: select 1, expect: no_rows, foreign_keys: true }"),
                "",
            ),
        ),
        (
            "check-without-expectation",
            cluster("database: app", &check("{ sql: select 1 }"), ""),
        ),
        (
            "orphans-with-expectation",
            cluster(
                "database: app",
                &check("{ orphans: { table: a, column: b, references: c, key: d }, expect: no_rows }"),
                "",
            ),
        ),
        (
            "orphans-without-key",
            cluster(
                "database: app",
                &check("{ orphans: { table: a, column: b, references: c } }"),
                "",
            ),
        ),
        (
            "orphans-unknown-word",
            cluster(
                "database: app",
                &check("{ orphans: { table: a, colunm: b, references: c, key: d } }"),
                "",
            ),
        ),
        (
            "orphans-of-other-lengths",
            cluster(
                "database: app",
                &check("{ orphans: { table: a, columns: [b, c], references: c, key: d } }"),
                "",
            ),
        ),
        (
            "foreign-keys-not",
            cluster("database: app", &check("{ foreign_keys: false }"), ""),
        ),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}
