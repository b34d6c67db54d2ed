//! The canary of a cluster: written by whoever captures it, so that what was captured says itself how new it is (docs/drills.md).

use std::time::Duration;

use lifeboat_engine::postgres::canary;
use lifeboat_engine::postgres::checks::Heartbeat;
use lifeboat_model::{Error, Result};

use crate::protected::{Cluster, Login};

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

/// Writes it now.
pub(crate) async fn write(login: &Login, canary: &Canary) -> Result<()> {
    let info = login.conninfo().await?;
    canary::write(&info, &canary.database).await
}

/// Writes it in front of a backup; says why not, where it could not be. A backup without it is worth more than none.
pub(crate) async fn before_backup(cluster: &Cluster) -> Option<String> {
    let canary = cluster.care.canary.as_ref()?;
    let error = write(&cluster.login, canary).await.err()?;
    Some(missing(&error))
}

/// What is told where it could not be written.
pub(crate) fn missing(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("the canary was not written, so nothing new says how new the data is: {error}{hint}")
}
