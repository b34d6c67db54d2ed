//! From a PostgreSQL cluster into a writer (docs/postgres.md, "A base, step by step").
//!
//! The server keeps its log → the backup begins there → the log flows → files → the backup ends there → what the server gave at the end →
//! the log up to the end stands in the stores. Whatever fails, nothing is committed (INV-03), and the server forgets us with the connection.

use std::time::Duration;

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::capture::{self, Captured, Content, FileInfo, Local};
use lifeboat_engine::postgres::sql::Sql;
use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{FileMeta, Writer};

use super::Facts;
use super::log::{self, About};
use super::source::Stored;
use crate::protected::{Cluster, Mode};

/// The label of the backup, as the server gave it.
pub(crate) const LABEL: &str = "backup_label";
/// Where its tablespaces are, as the server gave it.
pub(crate) const TABLESPACE_MAP: &str = "tablespace_map";
/// What was read, for a later increment.
pub(crate) const MANIFEST: &str = "backup_manifest";

/// A server that lets us in.
#[derive(Debug)]
pub(crate) struct OpenedCluster {
    info: ConnInfo,
    sql: Sql,
    options: capture::Options,
    system: u64,
}

impl OpenedCluster {
    pub(super) async fn open(cluster: &Cluster) -> Result<Self> {
        let info = cluster.login.conninfo().await?;
        let sql = Sql::connect(&info).await?;
        let server = capture::Server::ask(&sql.client).await?;
        let options = capture::Options {
            data_dir: cluster.data_dir.clone(),
            label: "lifeboat".to_owned(),
            fast: true,
        };
        if cluster.mode == Mode::Stream {
            let detail = "backups are not streamed yet";
            return Err(Error::new(ErrorKind::Refused, "back up", &info, detail)
                .with_hint("run on the server's own host with `mode: local`"));
        }
        Ok(Self {
            info,
            sql,
            options,
            system: server.system_identifier,
        })
    }

    pub(super) fn identity(&self) -> String {
        format!("postgres:{}", self.system)
    }

    pub(super) async fn store(self, about: &About<'_>, writer: &mut Writer) -> Result<Stored> {
        about.env.progress.step("hold the log", None);
        let held = log::hold(about, &self.info, self.system).await?;
        about.env.progress.step("begin", None);
        let local = Local::begin(&self.sql.client, &self.options).await?;
        let flowing = held.flow(local.position()).await?;
        about.env.progress.step("back up", Some(local.total_bytes()));
        let (local, owner) = put_files(writer, local).await?;
        about.env.progress.step("end", None);
        let captured = local.finish(&self.sql.client).await?;
        let moment_us = self.now_us().await?;
        put_rest(writer, &captured, &owner, moment_us).await?;
        about.env.progress.step("store the log", None);
        let end: Lsn = captured.facts.end.parse()?;
        writer.needs_log(flowing.finish(about, end).await?);
        Ok(Stored {
            moment_us,
            facts: Facts::Postgres(Box::new(captured.facts)),
            stall: Duration::ZERO,
            warnings: captured.warnings,
        })
    }

    /// The server's time: everything that the backup holds was committed before.
    async fn now_us(&self) -> Result<i64> {
        let text = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let rows = self.sql.text("ask for the time of", text).await?;
        let value = rows.into_iter().flatten().next().flatten();
        value.and_then(|value| value.parse().ok()).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "ask for the time of",
                self.sql.subject(),
                "the answer is no time",
            )
        })
    }
}

/// All files, `pg_control` last. Returns how the last one is described.
async fn put_files(writer: &mut Writer, mut local: Local) -> Result<(Local, FileInfo)> {
    let mut last = None;
    loop {
        let opening = compute::run("open the next file", move || {
            let next = local.next_item()?;
            Ok((local, next))
        });
        let next;
        (local, next) = opening.await?;
        let Some(item) = next else { break };
        let meta = meta(&item.file);
        match item.content {
            Content::Pages(pages) => drop(writer.put_pages(meta, pages).await?),
            Content::Stream(stream) => drop(writer.put_stream(meta, stream).await?),
        }
        last = Some(item.file);
    }
    let last = last.ok_or_else(|| Error::new(ErrorKind::Bug, "back up", "a cluster", "it has no files"))?;
    Ok((local, last))
}

/// What the server gave at the end.
async fn put_rest(writer: &mut Writer, captured: &Captured, owner: &FileInfo, moment_us: i64) -> Result<()> {
    let given = [
        (LABEL, &captured.label),
        (TABLESPACE_MAP, &captured.tablespace_map),
        (MANIFEST, &captured.manifest),
    ];
    for (name, bytes) in given.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let meta = FileMeta {
            path: name.to_owned(),
            mode: 0o600,
            uid: owner.uid,
            gid: owner.gid,
            modified_us: moment_us,
        };
        writer.put_stream(meta, Box::new(std::io::Cursor::new(bytes.clone()))).await?;
    }
    Ok(())
}

fn meta(file: &FileInfo) -> FileMeta {
    FileMeta {
        path: file.path.clone(),
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        modified_us: file.modified_us,
    }
}
