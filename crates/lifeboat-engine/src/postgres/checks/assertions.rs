//! What somebody wants to hold of the data: a query and what it has to answer, or references that have to lead somewhere.
//!
//! Everything runs in one transaction that only reads, with a limit for each statement, and with `row_security = off`: the server fails rather than
//! hide rows of which a check would then know nothing.

use std::fmt;
use std::time::Duration;

use lifeboat_model::check::Outcome;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use super::references::{self, Orphans};
use super::{counted, cut, words};
use crate::postgres::sandbox::Sandbox;

/// Rows that are looked at, at most; of them the evidence is made.
const MOST_ROWS: usize = 5;

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

/// What a query has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: every row is a fault.
    NoRows,
    /// One row with one value, which is written like this.
    Equals(String),
    /// One row with one number, which is this or more.
    AtLeast(i64),
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRows => f.write_str("no rows"),
            Self::Equals(value) => write!(f, "{value}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
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

fn judge(name: &str, expect: &Expect, rows: &[Vec<Option<String>>]) -> Outcome {
    if *expect == Expect::NoRows {
        if rows.is_empty() {
            return Outcome::passed(name, "no rows, as expected");
        }
        let more = if rows.len() == MOST_ROWS { " or more" } else { "" };
        let found = counted(rows.len() as u64, "row", "rows");
        return Outcome::failed(name, format!("{found}{more}, and there should be none")).with_evidence(shown(rows));
    }
    let value = match rows {
        [row] => match row.as_slice() {
            [Some(value)] => value,
            [None] => return Outcome::failed(name, format!("no value (null), expected {expect}")),
            _ => {
                return Outcome::failed(name, format!("{} columns, expected one value: {expect}", row.len()))
                    .with_evidence(shown(rows));
            }
        },
        [] => return Outcome::failed(name, format!("no row, expected {expect}")),
        _ => return Outcome::failed(name, format!("several rows, expected one value: {expect}")).with_evidence(shown(rows)),
    };
    let holds = match expect {
        Expect::Equals(wanted) => value == wanted,
        Expect::AtLeast(least) => floor(value).is_some_and(|number| number >= i128::from(*least)),
        Expect::NoRows => false,
    };
    let value = cut(value);
    if holds {
        Outcome::passed(name, format!("{value}, as expected ({expect})"))
    } else {
        Outcome::failed(name, format!("{value}, expected {expect}"))
    }
}

fn shown(rows: &[Vec<Option<String>>]) -> Vec<String> {
    let line = |row: &Vec<Option<String>>| {
        let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("null")).collect();
        cut(&values.join(" | "))
    };
    rows.iter().map(line).collect()
}

/// The whole number at or below a decimal one: a whole number is at most the one if, and only if, it is at most the other.
fn floor(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = if whole == "-" { 0 } else { whole.parse().ok()? };
    let below = text.starts_with('-') && part.bytes().any(|byte| byte != b'0');
    Some(if below { number - 1 } else { number })
}

#[cfg(test)]
mod tests {
    use lifeboat_model::check::Verdict;

    use super::*;

    fn came_out(expect: Expect, rows: &[&[Option<&str>]]) -> Verdict {
        let rows: Vec<Vec<Option<String>>> = rows
            .iter()
            .map(|row| row.iter().map(|value| value.map(str::to_owned)).collect())
            .collect();
        judge("it", &expect, &rows).verdict
    }

    #[test]
    fn only_what_was_expected_passes() {
        let (good, bad) = (Verdict::Passed, Verdict::Failed);
        assert_eq!(came_out(Expect::NoRows, &[]), good);
        assert_eq!(came_out(Expect::NoRows, &[&[None]]), bad);
        let equals = || Expect::Equals("42".into());
        assert_eq!(came_out(equals(), &[&[Some("42")]]), good);
        for rows in [
            &[&[Some("43")][..]][..],
            &[&[None]],
            &[],
            &[&[Some("42"), Some("42")]],
            &[&[Some("42")], &[Some("42")]],
        ] {
            assert_eq!(came_out(equals(), rows), bad, "{rows:?}");
        }
        for (value, verdict) in [
            ("3", good),
            ("4.5", good),
            ("2.99", bad),
            ("-3", bad),
            ("NaN", bad),
            ("", bad),
        ] {
            assert_eq!(came_out(Expect::AtLeast(3), &[&[Some(value)]]), verdict, "{value}");
        }
    }

    #[test]
    fn a_decimal_number_is_rounded_down() {
        for (text, number) in [
            ("7", Some(7)),
            ("7.9", Some(7)),
            ("-7.0", Some(-7)),
            ("-7.1", Some(-8)),
            ("-0.5", Some(-1)),
            ("-.5", Some(-1)),
            ("1e3", None),
            ("Infinity", None),
            ("7.x", None),
        ] {
            assert_eq!(floor(text), number, "{text}");
        }
    }
}
