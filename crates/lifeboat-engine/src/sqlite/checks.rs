//! What somebody wants to hold of a SQLite database that nobody uses: a query and what it has to answer, and how new its data is by its own account.
//!
//! A query only reads: SQLite asks before it compiles each access, and nothing but reading is allowed, so neither a pragma nor `ATTACH` gets through. It has
//! a limit of time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::Clock;
use lifeboat_model::check::Outcome;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

use super::probe::open;
pub use crate::expect::Expect;
use crate::expect::{MOST_ROWS, cut, judge};
use crate::postgres::checks::Beat;

/// Instructions of SQLite between two looks at the clock.
const STEPS: i32 = 10_000;

/// Something that has to hold in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What people call it.
    pub name: String,
    /// One query that reads.
    pub sql: String,
    /// What it has to answer.
    pub expect: Expect,
    /// How long it may take.
    pub limit: Duration,
}

/// The query that finds rows of `table` whose `columns` point at no row of `references` by its `keys`. A null in one of them points at nothing by right.
#[must_use]
pub fn orphans(table: &str, columns: &[String], references: &str, keys: &[String]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let all = |part: &dyn Fn(&String, &String) -> String| {
        let parts: Vec<String> = columns.iter().zip(keys).map(|(column, key)| part(column, key)).collect();
        parts.join(" AND ")
    };
    let shown: Vec<String> = columns.iter().map(|column| format!("child.{}", quoted(column))).collect();
    let there = all(&|column, _| format!("child.{} IS NOT NULL", quoted(column)));
    let same = all(&|column, key| format!("parent.{} = child.{}", quoted(key), quoted(column)));
    format!(
        "SELECT {} FROM {} AS child WHERE {there} AND NOT EXISTS (SELECT 1 FROM {} AS parent WHERE {same})",
        shown.join(", "),
        quoted(table),
        quoted(references)
    )
}

/// Asks the database at `path`. What cannot be asked has failed.
#[must_use]
pub fn ask(path: &Path, clock: &Arc<dyn Clock>, assertions: &[Assertion]) -> Vec<Outcome> {
    let one = |assertion: &Assertion| match rows(path, clock, &assertion.sql, assertion.limit) {
        Ok(rows) => judge(&assertion.name, &assertion.expect, &rows),
        Err(why) => Outcome::failed(&assertion.name, cut(&why)),
    };
    assertions.iter().map(one).collect()
}

/// The newest heartbeat, by a query that answers with one time: text that SQLite takes for one (in UTC where it has no zone), or seconds since 1970.
#[must_use]
pub fn newest(path: &Path, clock: &Arc<dyn Clock>, sql: &str, limit: Duration) -> Beat {
    let found = match rows(path, clock, sql, limit) {
        Ok(rows) => rows,
        Err(why) => return Beat::Unknown(cut(&why)),
    };
    let value = match found.as_slice() {
        [] => return Beat::Nothing,
        [row] => match row.as_slice() {
            [None] => return Beat::Nothing,
            [Some(value)] => value,
            _ => return Beat::Unknown(format!("the query has {} columns, and should have one", row.len())),
        },
        _ => return Beat::Unknown("the query has several rows, and should have one".to_owned()),
    };
    let micros = match value.parse::<f64>() {
        Ok(_) => "SELECT CAST(round(CAST(?1 AS REAL) * 1000000.0) AS INTEGER)",
        Err(_) => "SELECT CAST(round(unixepoch(?1, 'subsec') * 1000000.0) AS INTEGER)",
    };
    let asked = Connection::open_in_memory().and_then(|own| own.query_row(micros, [value], |row| row.get::<_, Option<i64>>(0)));
    match asked {
        Ok(Some(at_us)) => Beat::At(at_us),
        Ok(None) => Beat::Unknown(cut(&format!("{value:?} is no time"))),
        Err(error) => Beat::Unknown(cut(&error.to_string())),
    }
}

/// The first rows of a query, as text.
fn rows(path: &Path, clock: &Arc<dyn Clock>, sql: &str, limit: Duration) -> Result<Vec<Vec<Option<String>>>, String> {
    let told = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => {
            format!("the query took longer than {}", lifeboat_model::time::human_duration(limit))
        }
        Some(ErrorCode::AuthorizationForStatementDenied) => "the query does more than read".to_owned(),
        _ => format!("the query failed: {error}"),
    };
    let mut connection = open(path).map_err(|error| error.to_string())?;
    connection.authorizer(Some(authorize)).map_err(told)?;
    let (clock, end) = (Arc::clone(clock), clock.monotonic().saturating_add(limit));
    connection
        .progress_handler(STEPS, Some(move || clock.monotonic() > end))
        .map_err(told)?;
    let mut statement = connection.prepare(sql).map_err(told)?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err("the query is no SELECT".to_owned());
    }
    let columns = statement.column_count();
    let mut found = Vec::new();
    let mut answers = statement.query([]).map_err(told)?;
    while found.len() < MOST_ROWS
        && let Some(row) = answers.next().map_err(told)?
    {
        let value = |column| row.get_ref(column).map(text).map_err(told);
        found.push((0..columns).map(value).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(found)
}

fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Recursive | AuthAction::Read { .. } => Authorization::Allow,
        AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(format!("{number:?}")),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Some(format!("x'{}'", hex::encode(bytes))),
    }
}
