//! From a PostgreSQL cluster into a writer (docs/postgres.md, "A base, step by step").
//!
//! The server keeps its log → the backup begins there → the log flows → files → the backup ends there → what the server gave at the end →
//! the log up to the end stands in the stores. Whatever fails, nothing is committed (INV-03), and the server forgets us with the connection.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::capture::{
    self, Capture, Captured, Content, FileInfo, Local, Pace, Parent, Server, Stream, StreamOptions, counts,
};
use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::{ConnInfo, wire};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{FileMeta, Writer};

use super::Facts;
use super::log::{self, About};
use super::source::Stored;
use crate::canary;
use crate::protected::{Care, Cluster, Mode};

/// The label of the backup, as the server gave it.
pub(crate) const LABEL: &str = "backup_label";
/// Where its tablespaces are, as the server gave it.
pub(crate) const TABLESPACE_MAP: &str = "tablespace_map";
/// What was read, for a later increment.
pub(crate) const MANIFEST: &str = "backup_manifest";

/// What the server takes for `MAX_RATE`.
const MIN_RATE_KIB: u32 = 32;
const MAX_RATE_KIB: u32 = 1_048_576;

/// Bytes of the pages that increments are made of.
const PAGE_BYTES: u32 = 8192;

/// What has to come whole although its changes were to be had, because of the sessions that were tried before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whole {
    files: BTreeSet<String>,
    sessions: u32,
}

impl Whole {
    pub(super) fn add(&mut self, files: Vec<String>) {
        self.files.extend(files);
        self.sessions += 1;
    }
}

/// A server that lets us in.
#[derive(Debug)]
pub(crate) struct OpenedCluster {
    info: ConnInfo,
    sql: Sql,
    options: capture::Options,
    server: Server,
    /// Why it is not read from its data directory; `None` where it is.
    remote: Option<String>,
    /// A stream will do where it cannot be read from there after all.
    may_stream: bool,
    whole: Whole,
    care: Care,
}

impl OpenedCluster {
    pub(super) async fn open(env: &Env, cluster: &Cluster, whole: &Whole) -> Result<Self> {
        let info = cluster.login.conninfo().await?;
        let sql = Sql::connect(&info).await?;
        let server = Server::ask(&sql.client).await?;
        let options = capture::Options {
            data_dir: cluster.data_dir.clone(),
            label: "lifeboat".to_owned(),
            fast: true,
            pace: cluster
                .care
                .max_rate
                .map(|rate| Arc::new(Pace::new(Arc::clone(&env.clock), rate))),
        };
        let remote = match cluster.mode {
            Mode::Local => None,
            Mode::Stream => Some("as configured".to_owned()),
            Mode::Auto => {
                let (asked, place) = (
                    server.clone(),
                    options.data_dir.clone().unwrap_or_else(|| server.data_dir.clone()),
                );
                let proof = compute::run("look at a data directory", move || asked.prove_local(&place).map(drop));
                proof
                    .await
                    .err()
                    .map(|error| format!("{}: {}", error.subject(), error.detail()))
            }
        };
        Ok(Self {
            info,
            sql,
            options,
            server,
            remote,
            whole: whole.clone(),
            may_stream: cluster.mode == Mode::Auto,
            care: cluster.care.clone(),
        })
    }

    pub(super) fn identity(&self) -> String {
        self.server.identity()
    }

    pub(super) async fn store(mut self, about: &About<'_>, writer: &mut Writer) -> Result<Stored> {
        about.env.progress.step("hold the log", None);
        let held = log::hold(about, &self.info, self.server.system_identifier).await?;
        // It is the cluster whose log is held.
        let canary = canary::before_capture(&self.info, self.care.canary.as_deref()).await;
        about.env.progress.step("begin", None);
        let (capture, way) = self.begin(writer).await?;
        let mut flowing = held.flow(capture.position()).await?;
        about.env.progress.step("back up", Some(capture.total_bytes()));
        let counting = counts::take(&self.info, &about.env.clock, self.care.count_rows);
        let copying = Box::pin(async { tokio::join!(put_files(writer, capture), counting) });
        let (put, counts) = tokio::select! {
            copied = copying => copied,
            // Hours of copying are worth nothing without it.
            error = flowing.broken() => return Err(error),
        };
        let (capture, owner) = put?;
        about.env.progress.step("end", None);
        let mut captured = capture.finish(&self.sql.client).await?;
        captured.facts.counts = Some(counts);
        let moment_us = self.now_us().await?;
        put_rest(writer, &captured, &owner, moment_us).await?;
        remember(writer, &captured).await?;
        writer.found_bad_pages(captured.facts.bad_page_count);
        about.env.progress.step("store the log", None);
        let end: Lsn = captured.facts.end.parse()?;
        writer.needs_log(flowing.finish(about, end).await?);
        Ok(Stored {
            moment_us,
            facts: Facts::Postgres(Box::new(captured.facts)),
            stall: Duration::ZERO,
            warnings: std::iter::once(way).chain(canary).chain(captured.warnings).collect(),
            again: [writer.unknown(), captured.again.as_slice()].concat(),
        })
    }

    /// Begins the capture in the best way there is; says which and why.
    async fn begin(&mut self, writer: &mut Writer) -> Result<(Capture, String)> {
        let reason = match &self.remote {
            Some(reason) => reason.clone(),
            None => match Local::begin(&self.sql.client, &self.options).await {
                Ok(local) => return Ok((Capture::Local(Box::new(local)), "read from the data directory (local)".into())),
                // It is the server's, but not all of it can be read here: links that lead elsewhere in a container, for example.
                Err(error) if self.may_stream && error.kind() == ErrorKind::Unreachable => {
                    // The session may have begun a backup, which ends with it.
                    self.sql = Sql::connect(&self.info).await?;
                    format!("{}: {}", error.subject(), error.detail())
                }
                Err(error) => return Err(error),
            },
        };
        let options = StreamOptions {
            label: self.options.label.clone(),
            fast: self.options.fast,
            max_rate_kib: self.care.max_rate.and_then(kib),
        };
        let client = &self.sql.client;
        let objection = match self.parent(writer).await? {
            Ok((parent, takers)) => {
                let connection = wire::connect(&self.info, wire::Mode::Replication).await?;
                match Stream::begin_increment(client, connection, &options, &parent, &takers).await {
                    Ok(stream) => {
                        let way = format!(
                            "read as what changed since the last backup (increment): not from the data directory, {reason}"
                        );
                        return Ok((Capture::Stream(Box::new(stream)), way));
                    }
                    // Log summaries that are missing, for example. If the server is gone, the next question says so.
                    Err(error) => error.detail().to_owned(),
                }
            }
            Err(objection) => objection,
        };
        let connection = wire::connect(&self.info, wire::Mode::Replication).await?;
        let stream = Stream::begin(client, connection, &options).await?;
        let way = format!("read as a whole (stream): not from the data directory, {reason}; not as what changed, {objection}");
        Ok((Capture::Stream(Box::new(stream)), way))
    }

    /// What an increment can be built on and the files of which changes can be taken, or why there is none.
    async fn parent(&self, writer: &mut Writer) -> Result<std::result::Result<(Parent, BTreeSet<String>), String>> {
        let client = &self.sql.client;
        if let Some(objection) = Parent::objection_to(client, &self.server).await? {
            return Ok(Err(objection));
        }
        let mut takers = writer.expect_changes(PAGE_BYTES)?;
        takers.retain(|path| !self.whole.files.contains(path));
        if self.whole.sessions > 1 {
            return Ok(Err("too much of it could not be laid on the last backup".into()));
        }
        let Some(remembered) = writer.remembered() else {
            return Ok(Err("there is no last backup to build on".into()));
        };
        let read = compute::run("read what is remembered of the last backup", move || {
            let mut bytes = Vec::new();
            let mut file: &File = &remembered;
            let read = file.seek(SeekFrom::Start(0)).and_then(|_start| file.read_to_end(&mut bytes));
            read.map_err(|error| Error::io("read", "the local state", error))?;
            Ok(Parent::decode(&bytes))
        });
        let Some(parent) = read.await? else {
            return Ok(Err("nothing is remembered of the last backup".into()));
        };
        Ok(match parent.objection(client, &self.server).await? {
            Some(objection) => Err(objection),
            None => Ok((parent, takers)),
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
async fn put_files(writer: &mut Writer, mut capture: Capture) -> Result<(Capture, FileInfo)> {
    let mut last = None;
    loop {
        let opening = compute::run("open the next file", move || {
            let next = capture.next_item()?;
            Ok((capture, next))
        });
        let next;
        (capture, next) = opening.await?;
        let Some(item) = next else { break };
        let meta = meta(&item.file);
        let put = match item.content {
            Content::Pages(pages) => writer.put_pages(meta, pages).await.map(drop),
            Content::Stream(stream) => writer.put_stream(meta, stream).await.map(drop),
            Content::Changes(changes) => writer.put_changes(meta, changes).await.map(drop),
        };
        // Where the stream broke off, whoever stores it saw only that.
        put.map_err(|error| capture.failure().unwrap_or(error))?;
        last = Some(item.file);
    }
    let last = last.ok_or_else(|| Error::new(ErrorKind::Bug, "back up", "a cluster", "it has no files"))?;
    Ok((capture, last))
}

/// Keeps with the local state what the next increment is built on.
async fn remember(writer: &Writer, captured: &Captured) -> Result<()> {
    let (memory, bytes) = (writer.memory(), Parent::of(captured).encode()?);
    compute::run("remember what was read", move || {
        let written = memory
            .write_all_at(&bytes, 0)
            .and_then(|()| memory.set_len(bytes.len() as u64));
        written.map_err(|error| Error::io("write", "the local state", error))
    })
    .await
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

/// A limit in the unit and within the bounds of the server; one that is higher than its highest is none.
fn kib(bytes_per_s: u64) -> Option<u32> {
    let kib = u32::try_from(bytes_per_s / 1024).ok()?;
    (kib <= MAX_RATE_KIB).then_some(kib.max(MIN_RATE_KIB))
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
