//! The newest heartbeat: a row whose time says how new the data is, by the application's own account.

use std::time::Duration;

use tokio_postgres::Error;

use super::{cut, words};
use crate::postgres::canary;
use crate::postgres::sandbox::{Sandbox, Session};

/// Where the heartbeat is, and how it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Where the query runs.
    pub database: String,
    /// One query that reads and answers with one time.
    pub sql: String,
    /// How long it may take.
    pub limit: Duration,
}

/// What a restored server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// The newest one, in microseconds since 1970.
    At(i64),
    /// There is none.
    Nothing,
    /// This copy cannot be asked for it, and why: nothing is wrong with it.
    NotAvailable(String),
    /// It could not be asked for, and why.
    Unknown(String),
}

/// Asks a server that runs in a sandbox. Changes nothing.
pub async fn newest(sandbox: &Sandbox, heartbeat: &Heartbeat) -> Beat {
    let session = match sandbox.connect(&heartbeat.database).await {
        Ok(session) => session,
        Err(error) => return Beat::Unknown(cut(&error.to_string())),
    };
    match ask(&session, heartbeat).await {
        Ok(Some(at_us)) => Beat::At(at_us),
        Ok(None) => Beat::Nothing,
        // `undefined_table`
        Err(error) if heartbeat.sql == canary::QUERY && error.code().is_some_and(|code| code.code() == "42P01") => {
            Beat::NotAvailable("it is of a time before its canary was first written".to_owned())
        }
        Err(error) => Beat::Unknown(cut(&words(&error))),
    }
}

async fn ask(session: &Session, heartbeat: &Heartbeat) -> Result<Option<i64>, Error> {
    let client = session.client();
    let limit = heartbeat.limit.as_millis().clamp(1, 2_147_483_647);
    let begin = format!("begin transaction isolation level repeatable read read only; set local statement_timeout = {limit}");
    client.batch_execute(&begin).await?;
    let statement = heartbeat.sql.trim().trim_end_matches(';');
    // By the protocol that takes one statement at a time.
    let sql = format!("select (extract(epoch from ({statement}\n)::timestamptz) * 1000000)::bigint");
    let row = client.query_one(&sql, &[]).await?;
    let at_us = row.try_get(0)?;
    client.batch_execute("rollback").await?;
    Ok(at_us)
}
