//! What is asked of a restored copy, as it takes effect.

use lifeboat_engine::postgres::checks::Asked;
use lifeboat_engine::{postgres, sqlite};
use serde_json::{Value as Json, json};

use super::exact_duration;

/// Of an SQLite database.
pub(super) fn of_sqlite(checks: &[sqlite::checks::Assertion]) -> Json {
    let one = |check: &sqlite::checks::Assertion| {
        json!({
            "name": check.name,
            "sql": check.sql,
            "expect": check.expect.to_string(),
            "within": exact_duration(check.limit),
        })
    };
    checks.iter().map(one).collect()
}

/// Of a PostgreSQL cluster.
pub(super) fn of_postgres(checks: &[postgres::checks::Assertion]) -> Json {
    let one = |check: &postgres::checks::Assertion| {
        let asked = match &check.asked {
            Asked::Query { sql, expect } => json!({ "sql": sql, "expect": expect.to_string() }),
            Asked::Orphans(orphans) => json!({ "orphans": orphans.table }),
            Asked::ForeignKeys => json!("foreign_keys"),
        };
        json!({ "name": check.name, "database": check.database, "asked": asked, "within": exact_duration(check.limit) })
    };
    checks.iter().map(one).collect()
}

/// How new a cluster says that its data is.
pub(super) fn heartbeat(heartbeat: Option<&postgres::checks::Heartbeat>) -> Json {
    heartbeat.map_or(
        Json::Null,
        |heartbeat| json!({ "database": heartbeat.database, "sql": heartbeat.sql, "within": exact_duration(heartbeat.limit) }),
    )
}
