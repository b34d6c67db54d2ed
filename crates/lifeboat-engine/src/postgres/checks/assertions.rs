//! What somebody wants to hold of the data: a query and what it has to answer, or references that have to lead somewhere.
//!
//! Everything runs in one transaction that only reads, with a limit for each statement, and with `row_security = off`: the server fails rather than
//! hide rows of which a check would then know nothing.

use std::time::Duration;

use lifeboat_model::check::Outcome;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use super::references::{self, Orphans};
use super::{cut, words};
pub use crate::expect::Expect;
use crate::expect::{MOST_ROWS, judge};
use crate::postgres::sandbox::Sandbox;

/// Something that has to hold in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What people call it.
    pub name: String,
    /// Where it runs.
    pub database: String,
    /// What.
    pub asked: Asked,
    /// How long each of its statements may take.
    pub limit: Duration,
}

/// What has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A query has this answer.
    Query {
        /// One query that reads.
        sql: String,
        /// What it has to answer.
        expect: Expect,
    },
    /// No row points at nothing.
    Orphans(Orphans),
    /// Every foreign key of the database holds, also those that the server was told not to look at.
    ForeignKeys,
}

pub(super) async fn check(sandbox: &Sandbox, assertion: &Assertion) -> Outcome {
    match sandbox.connect(&assertion.database).await {
        Ok(session) => ask(session.client(), assertion).await,
        Err(error) => Outcome::failed(&assertion.name, cut(&format!("it could not be asked: {error}"))),
    }
}

/// Asks in a session in the right database; the transaction that it begins is over afterwards. What cannot be asked has failed.
pub async fn ask(client: &Client, assertion: &Assertion) -> Outcome {
    let asked = match client.batch_execute(&begin(assertion)).await {
        Ok(()) => ask_in_transaction(client, assertion).await,
        Err(error) => Err(error),
    };
    // A session that is gone has no transaction left.
    drop(client.batch_execute("rollback").await);
    asked.unwrap_or_else(|error| Outcome::failed(&assertion.name, cut(&format!("the query failed: {}", words(&error)))))
}

fn begin(assertion: &Assertion) -> String {
    let limit = assertion.limit.as_millis().clamp(1, 2_147_483_647);
    format!(
        "begin transaction isolation level repeatable read read only; set local statement_timeout = {limit}; set local row_security = off"
    )
}

async fn ask_in_transaction(client: &Client, assertion: &Assertion) -> Result<Outcome, Error> {
    match &assertion.asked {
        Asked::Query { sql, expect } => Ok(judge(&assertion.name, expect, &rows(client, sql).await?)),
        Asked::Orphans(orphans) => references::orphans(client, &assertion.name, orphans).await,
        Asked::ForeignKeys => references::foreign_keys(client, &assertion.name).await,
    }
}

type Rows = Vec<Vec<Option<String>>>;

/// The first rows. A cursor takes one statement that reads, and nothing else; the transaction refuses what functions may try besides.
async fn rows(client: &Client, sql: &str) -> Result<Rows, Error> {
    let statement = sql.trim().trim_end_matches(';');
    // By the protocol that takes one statement at a time.
    client
        .execute(&format!("declare lifeboat_check cursor for {statement}\n"), &[])
        .await?;
    let answers = client.simple_query(&format!("fetch {MOST_ROWS} from lifeboat_check")).await?;
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(values(row)),
        _ => None,
    });
    Ok(rows.collect())
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()
}
