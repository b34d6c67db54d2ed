//! The verb `undelete`: rows that an application marked as deleted live again (docs/undelete.md).
//!
//! look → change in an open transaction → write down how to take it back → commit. What is written down outlives whatever happens after that, and says of
//! each row how it was left: only rows that still are so are put back.

use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::server_error;
use lifeboat_engine::postgres::undelete::{Rows, Scope, Undelete};
use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::protected::{Cluster, Protected};

/// What would come back.
#[derive(Debug)]
pub struct Preview {
    /// In which database.
    pub database: String,
    /// Which rows, by table.
    pub rows: Vec<Rows>,
    scope: Scope,
    session: Undelete,
}

impl Preview {
    /// How many rows.
    #[must_use]
    pub fn count(&self) -> usize {
        count(&self.rows)
    }
}

/// How many rows there are in all tables.
#[must_use]
pub fn count(rows: &[Rows]) -> usize {
    rows.iter().map(|rows| rows.rows.len()).sum()
}

/// What was done, and everything that is needed to take it back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Names it.
    pub id: String,
    /// Of which component.
    pub component: String,
    /// On which server.
    pub server: String,
    /// In which database.
    pub database: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// The rows, what they held, and how they were left.
    pub rows: Vec<Rows>,
    /// When it was taken back, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_at_us: Option<i64>,
}

/// What came of taking it back.
#[derive(Debug)]
#[must_use]
pub struct Undone {
    /// Which one.
    pub record: Record,
    /// Rows that hold again what they held.
    pub put_back: usize,
    /// Rows that somebody changed since, or that are gone; they were left alone.
    pub left: Vec<Rows>,
}

fn cluster(protected: &Protected) -> Result<&Cluster> {
    let found = protected.source.cluster();
    found.ok_or_else(|| {
        let detail = "it is no PostgreSQL server";
        Error::new(ErrorKind::Usage, "undelete rows of", &protected.component, detail)
    })
}

/// Looks for the rows; changes nothing. `database`: none means the only one of `databases`, or the one of the connection.
pub async fn preview(protected: &Protected, database: Option<&str>, scope: Scope) -> Result<Preview> {
    let cluster = cluster(protected)?;
    let info = cluster.login.conninfo().await?;
    let database = match (database, cluster.logical.databases.as_slice()) {
        (Some(named), _) => named.to_owned(),
        (None, [only]) => only.clone(),
        (None, []) => info.database().to_owned(),
        (None, several) => {
            let detail = format!("there are several databases: {}", several.join(", "));
            return Err(Error::new(ErrorKind::Usage, "undelete rows of", &protected.component, detail)
                .with_hint("name one with --database"));
        }
    };
    let session = Undelete::connect(&info.with_database(&database), cluster.care.soft_delete.clone()).await?;
    let rows = session.preview(&scope).await?;
    Ok(Preview {
        database,
        rows,
        scope,
        session,
    })
}

/// Brings back what the preview showed: all of it or nothing.
///
/// # Errors
/// `Refused` where a row is not any more what was shown. After the commit was sent and no answer came, the hint says how to go on.
pub async fn run(env: &Env, protected: &Protected, preview: Preview) -> Result<Record> {
    let session = preview.session;
    let record = Record {
        id: crate::restore::draw_id(env)?,
        component: protected.component.to_string(),
        server: session.server().await?,
        database: preview.database,
        at_us: env.clock.wall_us(),
        rows: session.change(&preview.scope, &preview.rows).await?,
        undone_at_us: None,
    };
    remember(&protected.state_dir, &record)?;
    if let Err(error) = session.commit().await {
        // The server itself said no: nothing was changed, and nothing is to be taken back.
        if server_error(&error).is_some_and(|said| said.severity == "ERROR") {
            durable::remove_file(&path(&protected.state_dir, &record.id))?;
            return Err(error);
        }
        return Err(error.with_hint(format!(
            "the server did not say whether it was done: look at the rows; `lifeboat undelete --undo {}` takes it back if it was, and leaves everything alone if not",
            record.id
        )));
    }
    Ok(record)
}

/// Puts back what the rows held, where they still are as they were left.
///
/// # Errors
/// `Refused` for what was taken back before, and for another server than it was on.
pub async fn undo(env: &Env, protected: &Protected, mut record: Record) -> Result<Undone> {
    let refused = |detail: String| Error::new(ErrorKind::Refused, "undo the undelete", &record.id, detail);
    if let Some(at_us) = record.undone_at_us {
        let detail = format!("it was taken back at {}", lifeboat_repo::format_utc(at_us));
        return Err(refused(detail));
    }
    let cluster = cluster(protected)?;
    let info = cluster.login.conninfo().await?.with_database(&record.database);
    let session = Undelete::connect(&info, cluster.care.soft_delete.clone()).await?;
    let server = session.server().await?;
    if server != record.server {
        return Err(refused(format!("it was done on another server than {info}"))
            .with_hint("let the configuration name that server, then run the command again"));
    }
    let left = session.put_back(&record.rows).await?;
    session.commit().await?;
    record.undone_at_us = Some(env.clock.wall_us());
    remember(&protected.state_dir, &record)?;
    Ok(Undone {
        put_back: count(&record.rows) - count(&left),
        left,
        record,
    })
}

/// What is written down under this id.
///
/// # Errors
/// `NotFound` where nothing is, `Corrupt` where it cannot be understood.
pub fn find(state_dir: &Path, id: &str) -> Result<Record> {
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let path = path(state_dir, id);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) if is_id => bytes,
        Err(error) if is_id && error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("read", path.display(), error));
        }
        _ => {
            let detail = "nothing was undeleted here under this id";
            return Err(Error::new(ErrorKind::NotFound, "undo the undelete", id, detail)
                .with_hint("`lifeboat undelete` printed the id; records lie in the folder `undeletes` of the state folder"));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            "read",
            path.display(),
            format!("it is not understood: {error}"),
        )
        .with_source(error)
    })
}

fn path(state_dir: &Path, id: &str) -> PathBuf {
    state_dir.join("undeletes").join(format!("{id}.json"))
}

fn remember(state_dir: &Path, record: &Record) -> Result<()> {
    let path = path(state_dir, &record.id);
    durable::create_folder(&durable::parent_of(&path))?;
    let bytes = serde_json::to_vec_pretty(record)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what was undeleted", error.to_string()))?;
    durable::replace_file(&path, &bytes, durable::FILE_MODE)
}
