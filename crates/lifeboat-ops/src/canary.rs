//! The canary of a cluster: written by whoever captures it, so that what was captured says itself how new it is (docs/drills.md).

use std::time::Duration;

use lifeboat_engine::postgres::checks::Heartbeat;
use lifeboat_engine::postgres::{ConnInfo, canary};
use lifeboat_model::{Error, Result};

use crate::protected::Login;

/// Where the canary is, and how often a follower writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The database that it is in.
    pub database: String,
    /// How often.
    pub every: Duration,
}

impl Canary {
    /// How a restored copy is asked for it.
    #[must_use]
    pub fn heartbeat(&self, limit: Duration) -> Heartbeat {
        Heartbeat {
            database: self.database.clone(),
            sql: canary::QUERY.to_owned(),
            limit,
        }
    }
}

/// Writes it now, to a server that is known by its login.
pub(crate) async fn log_in_and_write(login: &Login, canary: &Canary) -> Result<()> {
    let info = login.conninfo().await?;
    canary::write(&info, &canary.database).await
}

/// Writes it in front of a capture, where there is one; says why not, where it could not be. A backup without it is worth more than none.
pub(crate) async fn before_capture(info: &ConnInfo, canary: Option<&Canary>) -> Option<String> {
    let canary = canary?;
    let error = canary::write(info, &canary.database).await.err()?;
    Some(missing(&error))
}

/// What is told where it could not be written.
pub(crate) fn missing(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("the canary was not written, so nothing new says how new the data is: {error}{hint}")
}
