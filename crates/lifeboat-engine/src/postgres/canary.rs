//! The canary: one row of ours in a protected database, with the time at which it was last written, by the server's own clock.
//!
//! Written only where the configuration asks for it, and only into a table that belongs to the role that writes: another owner could have put triggers on
//! it, which would run with our rights. A restored copy is asked for it like for any other heartbeat: what it answers is how new the data is, measured from
//! end to end. The row is replaced and never added to, in a table that nothing refers to.

use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};

use super::conninfo::ConnInfo;
use super::role::quoted;
use super::sqlstate;
use super::wire::{Connection, Mode, connect};

/// Answers with the time of the canary.
pub const QUERY: &str = "select at from lifeboat.canary";

const OP: &str = "write the canary into";
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Whoever locks the table keeps nobody waiting for longer, and nobody waits for a standby: one of them may be we.
const LIMITS: &str =
    "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET search_path = pg_catalog; SET synchronous_commit = local";
/// Whether it is a standby; whether schema and table are there, and ours; whether everything that is made is published. By the catalogs alone: a look by
/// name is refused in a schema that the role may not use.
const LOOK: &str = "SELECT pg_is_in_recovery(), n.oid IS NOT NULL, c.oid IS NOT NULL, \
    coalesce(n.nspowner = me.oid, true) \
    AND coalesce(c.relowner = me.oid AND c.relkind = 'r' AND NOT c.relhastriggers AND NOT c.relhasrules, true), \
    EXISTS (SELECT FROM pg_publication WHERE puballtables) \
    FROM pg_roles me LEFT JOIN pg_namespace n ON n.nspname = 'lifeboat' \
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'canary' WHERE me.rolname = current_user";
const MAKE_SCHEMA: &str = "CREATE SCHEMA lifeboat";
const MAKE_TABLE: &str = "CREATE TABLE lifeboat.canary (id boolean PRIMARY KEY DEFAULT true CHECK (id), at timestamptz NOT NULL)";
const BEAT: &str =
    "INSERT INTO lifeboat.canary (id, at) VALUES (true, clock_timestamp()) ON CONFLICT (id) DO UPDATE SET at = excluded.at";

/// Writes the canary into `database`, and makes its table first where there is none. Takes twenty seconds at most.
///
/// # Errors
/// `Refused` for a standby, which takes it from its primary, for a table that is somebody else's, and where everything that is made would be published to
/// subscribers that do not have it; where the role may not make the schema, the statement that lets it is in the hint; whatever a connection fails with.
pub async fn write(info: &ConnInfo, database: &str) -> Result<()> {
    let info = info.clone().with_database(database);
    let written = tokio::time::timeout(LIMIT, async {
        let mut connection = connect(&info, Mode::Sql).await?;
        let written = beat(&mut connection, &info).await;
        // What became of the row is known by now.
        drop(connection.close().await);
        written
    });
    written.await.unwrap_or_else(|passed| {
        let detail = format!("it took longer than {} s", LIMIT.as_secs());
        Err(Error::new(ErrorKind::TimedOut, OP, format!("the database {database}"), detail).with_source(passed))
    })
}

/// Looks and writes in one transaction, so that it is written into what was looked at.
async fn beat(connection: &mut Connection, info: &ConnInfo) -> Result<()> {
    connection.query(OP, LIMITS).await?;
    connection.query(OP, "BEGIN").await?;
    let answers = connection.query(OP, LOOK).await?;
    let says = |column| answers.first().and_then(|rows| rows.first(column)) == Some("t");
    let (is_standby, has_schema, has_table, is_ours, publishes_all) = (says(0), says(1), says(2), says(3), says(4));
    let role = quoted(info.user());
    let refuse = |detail: &str, hint: String| {
        let subject = format!("the database {}", info.database());
        Err(Error::new(ErrorKind::Refused, OP, subject, detail).with_hint(hint))
    };
    if is_standby {
        return refuse(
            "the server is a standby, which takes nothing but what its primary writes",
            "let the canary be written where the primary is protected, or leave it out".to_owned(),
        );
    }
    if !is_ours {
        return refuse(
            "the schema lifeboat or its table canary belongs to another role, or is no plain table: what its owner put there would run with our rights",
            format!(
                "look at it, then as a superuser: ALTER SCHEMA lifeboat OWNER TO {role}; DROP TABLE IF EXISTS lifeboat.canary"
            ),
        );
    }
    if !has_table && publishes_all {
        return refuse(
            "a publication is FOR ALL TABLES: a table that is made here would stop every subscriber that does not have it",
            format!("make it on the subscribers and then here, as {role}: {MAKE_SCHEMA}; {MAKE_TABLE}"),
        );
    }
    if !has_schema {
        connection
            .query(OP, MAKE_SCHEMA)
            .await
            .map_err(|error| match sqlstate(&error) {
                Some("42501") => error.with_hint(format!(
                    "let the role have its schema, as a superuser: CREATE SCHEMA lifeboat AUTHORIZATION {role}"
                )),
                _ => error,
            })?;
    }
    if !has_table {
        connection.query(OP, MAKE_TABLE).await?;
    }
    connection.query(OP, BEAT).await?;
    connection.query(OP, "COMMIT").await.map(drop)
}
