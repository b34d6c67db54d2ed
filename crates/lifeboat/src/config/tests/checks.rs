//! What is asked of a PostgreSQL cluster besides: checks, a rate, time for counting.

use std::time::Duration;

use lifeboat_engine::postgres::checks::Expect;
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
          - { sql: \"select\\n  i from t  where i is null\", expect: no_rows }";
    let found = care(&cluster(
        "url: \"postgresql://me@db/app\", count_rows: 0s",
        checks,
        ", max_rate: 50MiB",
    ));
    assert_eq!((found.max_rate, found.count_rows), (Some(50 << 20), Duration::ZERO));
    let wanted = [
        ("select count(*) from t", "app", Expect::Equals("42".into()), 60),
        ("it is on", "other", Expect::Equals("on".into()), 5),
        ("select true", "app", Expect::Equals("t".into()), 60),
        ("select 7", "app", Expect::AtLeast(-3), 60),
        ("select i from t where i is null", "app", Expect::NoRows, 60),
    ];
    let got: Vec<_> = found
        .checks
        .iter()
        .map(|check| {
            let seconds = check.limit.as_secs();
            (check.name.as_str(), check.database.as_str(), check.expect.clone(), seconds)
        })
        .collect();
    assert_eq!(got, wanted);
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
                "sqlite: { path: queue.db }\n        checks: [{ sql: select 1, expect: no_rows }]",
            ),
        ),
        (
            "rate-of-sqlite",
            with("backup: { to: [disk] }", "backup: { to: [disk], max_rate: 1MiB }"),
        ),
        ("rate-too-low", cluster(url, "", ", max_rate: 1KiB")),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}
