//! Connections and replication against real servers of every major, and against one that lies.

mod backup;
mod conninfo;
mod fake;
mod login;
mod stream;

use lifeboat_engine::postgres::wire::{Connection, Mode, connect};
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_testkit::postgres::Cluster;

/// No environment, no home.
pub fn info(text: &str) -> ConnInfo {
    ConnInfo::parse(text, &Surroundings::default()).unwrap()
}

/// A replication connection over the socket.
pub async fn replication(cluster: &Cluster) -> Connection {
    connect(&info(&cluster.dsn("postgres", "postgres")), Mode::Replication)
        .await
        .unwrap()
}
