//! The canary: one row of ours in a protected database, with the time at which it was last written, by the server's own clock.
//!
//! The only thing that Lifeboat ever writes into a source, and only where the configuration asks for it. A restored copy is asked for it like for any
//! other heartbeat: what it answers is how new the data is, measured from end to end. The row is replaced and never added to, in a table that nothing refers to.

use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};

use super::conninfo::ConnInfo;
use super::role::quoted;
use super::sqlstate;
use super::wire::{Connection, Mode, connect};

/// The schema of the table; nothing else of ours is in it.
pub const SCHEMA: &str = "lifeboat";
/// The table in it.
pub const TABLE: &str = "canary";
/// Answers with the time of the canary.
pub const QUERY: &str = "select at from lifeboat.canary";

const OP: &str = "write the canary into";
/// Whoever locks the table, or a synchronous standby that is away, keeps nobody waiting for longer.
const LIMITS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET search_path = pg_catalog";
const SILENCE: Duration = Duration::from_secs(20);
const LOOK: &str =
    "SELECT pg_is_in_recovery(), to_regnamespace('lifeboat') IS NOT NULL, to_regclass('lifeboat.canary') IS NOT NULL";
const MAKE_SCHEMA: &str = "CREATE SCHEMA lifeboat";
const MAKE_TABLE: &str = "CREATE TABLE IF NOT EXISTS lifeboat.canary \
    (id boolean PRIMARY KEY DEFAULT true CHECK (id), at timestamptz NOT NULL)";
const BEAT: &str =
    "INSERT INTO lifeboat.canary (id, at) VALUES (true, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET at = excluded.at";

/// Writes the canary into `database`, and makes its table first where there is none.
///
/// # Errors
/// `Refused` for a standby, which takes it from its primary; where the role may not, the statement that lets it is in the hint; whatever a connection
/// fails with.
pub async fn write(info: &ConnInfo, database: &str) -> Result<()> {
    let info = info.clone().with_database(database);
    let mut connection = connect(&info, Mode::Sql).await?;
    connection.set_silence(SILENCE);
    let written = beat(&mut connection, database).await;
    // What became of the row is known by now.
    drop(connection.close().await);
    written.map_err(|error| match sqlstate(&error) {
        Some("42501") => error.with_hint(format!(
            "let the role write it, as the database's owner: CREATE SCHEMA {SCHEMA} AUTHORIZATION {}",
            quoted(info.user())
        )),
        _ => error,
    })
}

async fn beat(connection: &mut Connection, database: &str) -> Result<()> {
    connection.query(OP, LIMITS).await?;
    let answers = connection.query(OP, LOOK).await?;
    let says = |column| answers.first().and_then(|rows| rows.first(column)) == Some("t");
    if says(0) {
        let detail = "the server is a standby, which takes nothing but what its primary writes";
        return Err(Error::new(ErrorKind::Refused, OP, format!("the database {database}"), detail)
            .with_hint("let the canary be written where the primary is protected, or leave it out"));
    }
    if !says(1) {
        connection.query(OP, MAKE_SCHEMA).await?;
    }
    if !says(2) {
        connection.query(OP, MAKE_TABLE).await?;
    }
    connection.query(OP, BEAT).await.map(drop)
}
