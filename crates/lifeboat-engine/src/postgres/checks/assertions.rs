//! What somebody wants to hold of the data: a query, and what it has to answer.

use std::fmt;
use std::time::Duration;

use lifeboat_model::check::Outcome;
use tokio_postgres::{Error, SimpleQueryMessage, SimpleQueryRow};

use super::{counted, cut, words};
use crate::postgres::sandbox::{Sandbox, Session};

/// Rows that are looked at, at most; of them the evidence is made.
const MOST_ROWS: usize = 5;

/// A query and what it has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What people call it.
    pub name: String,
    /// Where it runs.
    pub database: String,
    /// One query that reads.
    pub sql: String,
    /// What it has to answer.
    pub expect: Expect,
    /// How long it may take.
    pub limit: Duration,
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
    let name = &assertion.name;
    let session = match sandbox.connect(&assertion.database).await {
        Ok(session) => session,
        Err(error) => return Outcome::failed(name, cut(&format!("it could not be asked: {error}"))),
    };
    match ask(&session, assertion).await {
        Ok(rows) => judge(assertion, &rows),
        Err(error) => Outcome::failed(name, cut(&format!("the query failed: {}", words(&error)))),
    }
}

type Rows = Vec<Vec<Option<String>>>;

/// The first rows. A cursor takes one statement that reads, and nothing else; the transaction refuses what functions may try besides.
async fn ask(session: &Session, assertion: &Assertion) -> Result<Rows, Error> {
    let client = session.client();
    let limit = assertion.limit.as_millis().clamp(1, 2_147_483_647);
    let begin = format!("begin transaction isolation level repeatable read read only; set local statement_timeout = {limit}");
    client.batch_execute(&begin).await?;
    let statement = assertion.sql.trim().trim_end_matches(';');
    // By the protocol that takes one statement at a time.
    client
        .execute(&format!("declare lifeboat_check cursor for {statement}\n"), &[])
        .await?;
    let answers = client.simple_query(&format!("fetch {MOST_ROWS} from lifeboat_check")).await?;
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(values(row)),
        _ => None,
    });
    let rows = rows.collect();
    client.batch_execute("rollback").await?;
    Ok(rows)
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()
}

fn judge(assertion: &Assertion, rows: &[Vec<Option<String>>]) -> Outcome {
    let Assertion { name, expect, .. } = assertion;
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
        let assertion = Assertion {
            name: "it".into(),
            database: "postgres".into(),
            sql: "select 1".into(),
            expect,
            limit: Duration::from_secs(1),
        };
        let rows: Vec<Vec<Option<String>>> = rows
            .iter()
            .map(|row| row.iter().map(|value| value.map(str::to_owned)).collect())
            .collect();
        judge(&assertion, &rows).verdict
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
