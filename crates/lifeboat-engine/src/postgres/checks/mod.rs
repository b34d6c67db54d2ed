//! Checks of a restored cluster (docs/postgres.md, "What is checked"), each of which says what it saw.
//!
//! [`pages`] looks at the files of a server that is stopped; the others ask a server that runs in a sandbox on a copy that is thrown away. What
//! cannot be looked at is said to be so, and is no pass (PG-13). Nothing here changes what somebody keeps.

mod assertions;
mod heartbeat;
mod indexes;
mod isolation;
pub mod pages;
mod references;
mod rows;

use lifeboat_model::check::Outcome;
use lifeboat_model::{Env, Result};

use super::sandbox::{Sandbox, Session};
use crate::expect::{counted, cut};
pub use assertions::{Asked, Assertion, Expect, ask};
pub use heartbeat::{Beat, Heartbeat, newest};
pub use isolation::check as isolation;
pub use references::Orphans;
pub(super) use rows::PLACE;
pub use rows::{Counts, Reach, Watch};

/// Lines of evidence that an outcome holds.
const EVIDENCE: usize = 10;

/// What is asked of a running server.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Rows as they were counted in the source, and what the log says about the tables since; the error where that could not be read.
    pub rows: Option<(&'a Counts, Result<Reach>)>,
    /// What the configuration asks for.
    pub assertions: &'a [Assertion],
}

/// Runs all checks that need a server. `sandbox` is one whose recovery has ended, on a data directory that is thrown away: extensions are made in it.
pub async fn run(env: &Env, sandbox: &Sandbox, wanted: &Wanted<'_>) -> Vec<Outcome> {
    env.progress.step("check tables and indexes", None);
    let mut outcomes = vec![indexes::check(sandbox).await];
    env.progress.step("count rows", None);
    outcomes.push(rows::check(sandbox, wanted.rows.as_ref()).await);
    if !wanted.assertions.is_empty() {
        env.progress.step("ask what is wanted", None);
    }
    for assertion in wanted.assertions {
        outcomes.push(assertions::check(sandbox, assertion).await);
    }
    outcomes
}

/// Runs one of what the configuration asks for.
pub async fn assert(sandbox: &Sandbox, assertion: &Assertion) -> Outcome {
    assertions::check(sandbox, assertion).await
}

/// Databases that can be connected to, by name.
async fn databases(session: &Session) -> std::result::Result<Vec<String>, tokio_postgres::Error> {
    let sql = "select datname::text from pg_database where datallowconn order by 1";
    let rows = session.client().query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The words of the server, or of the connection.
fn words(error: &tokio_postgres::Error) -> String {
    let Some(said) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        return text;
    };
    match said.detail() {
        Some(detail) => format!("{}: {detail}", said.message()),
        None => said.message().to_owned(),
    }
}
