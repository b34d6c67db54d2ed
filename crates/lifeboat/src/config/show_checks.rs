//! What is asked of a restored copy and of the live application, as it takes effect.

use lifeboat_engine::{postgres, sqlite};
use lifeboat_ops::canary::Canary;
use lifeboat_ops::probe::{Asked, Header, Place, Probe};
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
            postgres::checks::Asked::Query { sql, expect } => json!({ "sql": sql, "expect": expect.to_string() }),
            postgres::checks::Asked::Orphans(orphans) => json!({ "orphans": orphans.table }),
            postgres::checks::Asked::ForeignKeys => json!("foreign_keys"),
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

/// What we write ourselves.
pub(super) fn canary(canary: Option<&Canary>) -> Json {
    canary.map_or(
        Json::Null,
        |canary| json!({ "database": canary.database, "every": exact_duration(canary.every) }),
    )
}

/// What is asked of the live application; of headers only that they are sent.
pub(super) fn probe(probe: &Probe) -> Json {
    let headers = |headers: &[Header]| headers.iter().map(|header| format!("{header:?}")).collect::<Vec<_>>();
    let asked = match &probe.asked {
        Asked::Http(http) => json!({ "http": {
            "url": http.url.to_string(),
            "status": http.status,
            "json": http.json,
            "within": exact_duration(http.within),
            "ca": http.ca,
            "headers": headers(&http.headers),
        } }),
        Asked::WebSocket(websocket) => json!({ "websocket": {
            "url": websocket.url.to_string(),
            "within": exact_duration(websocket.within),
            "ca": websocket.ca,
            "headers": headers(&websocket.headers),
        } }),
        Asked::Command(command) => json!({ "command": { "run": command.run, "within": exact_duration(command.within) } }),
        Asked::Certificate(certificate) => {
            let place = match &certificate.place {
                Place::Host { host, port, ca, .. } => json!({ "host": host, "port": port, "ca": ca }),
                Place::File(path) => json!({ "file": path }),
            };
            json!({ "certificate": { "place": place, "valid_for": exact_duration(certificate.valid_for) } })
        }
        Asked::File(file) => json!({ "file": {
            "path": file.path,
            "contains": file.contains,
            "max_age": file.max_age.map(exact_duration),
        } }),
    };
    json!({ "name": probe.name, "asked": asked })
}
