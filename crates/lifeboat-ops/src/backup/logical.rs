//! From databases into a writer, as definitions and rows (docs/logical.md, "A capture, step by step").

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::logical::digest::Rows;
use lifeboat_engine::postgres::logical::facts::{Globals, LargeObjects, Tenant};
use lifeboat_engine::postgres::logical::leader::{self, ABOUT_LARGE_OBJECTS, About as Server, LARGE_OBJECTS, Leader};
use lifeboat_engine::postgres::logical::parts;
use lifeboat_engine::postgres::logical::programs::{self, Program};
use lifeboat_engine::postgres::logical::session::Worker;
use lifeboat_engine::postgres::logical::{Digest, Facts, Table};
use lifeboat_engine::postgres::sql::Sql;
use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{FileMeta, StoredStream, Streams, Writer};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::log::About;
use super::source::Stored;
use super::{Facts as AllFacts, Part, Request};
use crate::canary::{self, Canary};
use crate::protected::{Cluster, Logical, Login, Method, Protected};

/// Roles, memberships, settings of roles and tablespaces.
pub(crate) const GLOBALS: &str = "globals.sql";
/// Everything of a database but rows, in its folder.
pub(crate) const DEFINITIONS: &str = "definitions.dump";
/// How long anything may take where nobody says: a week.
const NO_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long `pg_dump` waits for a table, and how often it is tried.
const LET_GO: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 4;
/// Parts that are stored and wait to be written down.
const WAITING: usize = 16;

/// By which method a backup is made.
///
/// # Errors
/// `Usage` where a kind does not have it.
pub(super) fn method(protected: &Protected, request: &Request) -> Result<Method> {
    let Some(cluster) = protected.source.cluster() else {
        if request.method == Some(Method::Logical) || request.part != Part::Whole {
            let detail = format!("it is {}, which has one method only", protected.source.kind());
            return Err(Error::new(ErrorKind::Usage, "back up", &protected.component, detail)
                .with_hint("leave out --method, --schema-only, --tables and --tenant: they are for PostgreSQL"));
        }
        return Ok(Method::Physical);
    };
    let method = request.method.unwrap_or(cluster.method);
    match (&request.part, method) {
        (Part::Definitions, Method::Physical) => {
            let detail = "only a logical backup can be of definitions alone";
            Err(Error::new(ErrorKind::Usage, "back up", &protected.component, detail).with_hint("add --method logical"))
        }
        // There is no other way.
        (Part::Tenant(_) | Part::Tables { .. }, Method::Physical) if request.method.is_none() => Ok(Method::Logical),
        (Part::Tenant(_) | Part::Tables { .. }, Method::Physical) => {
            let detail = "files of a cluster cannot be told apart by tables or tenants";
            Err(Error::new(ErrorKind::Usage, "back up", &protected.component, detail).with_hint("leave out --method"))
        }
        _ => Ok(method),
    }
}

/// A server that lets us in.
#[derive(Debug)]
pub(crate) struct OpenedDatabases {
    info: ConnInfo,
    server: Server,
    names: Vec<String>,
    pg_dump: Program,
    pg_dumpall: Program,
    options: Logical,
    part: Part,
    /// Roles and tablespaces, too.
    with_globals: bool,
    /// Written before anything is read.
    canary: Option<Box<Canary>>,
}

/// A file that nobody owns.
fn plain(path: String, moment_us: i64) -> FileMeta {
    FileMeta {
        path,
        mode: 0o600,
        uid: 0,
        gid: 0,
        modified_us: moment_us,
    }
}

impl OpenedDatabases {
    pub(super) async fn open(cluster: &Cluster, part: &Part) -> Result<Self> {
        let info = cluster.login.conninfo().await?;
        let sql = Sql::connect(&info).await?;
        // Everything from one server, whichever of the list let us in.
        let info = info.with_host(sql.host().clone());
        let server = leader::ask(&sql).await?;
        let names = match part {
            Part::Tenant(tenant) => chosen(std::slice::from_ref(&tenant.database), &server, &info)?,
            Part::Tables {
                database: Some(name), ..
            } => chosen(std::slice::from_ref(name), &server, &info)?,
            Part::Whole | Part::Definitions | Part::Tables { .. } => chosen(&cluster.logical.databases, &server, &info)?,
        };
        if let (Part::Tables { .. }, [_, _, ..]) = (part, names.as_slice()) {
            let detail = format!("there are several databases: {}", names.join(", "));
            return Err(Error::new(ErrorKind::Usage, "back up tables of", &info, detail).with_hint("name one with --database"));
        }
        let find = |name: &'static str| Program::find(name, server.major, &cluster.binaries);
        Ok(Self {
            pg_dump: find("pg_dump").await?,
            pg_dumpall: find("pg_dumpall").await?,
            info,
            server,
            names,
            options: cluster.logical.clone(),
            part: part.clone(),
            with_globals: true,
            canary: cluster.care.canary.clone().filter(|_| *part == Part::Whole),
        })
    }

    /// One database of a server that we made for it: its roles are nobody's.
    pub(crate) async fn of_server(info: &ConnInfo, cluster: &Cluster, name: &str) -> Result<Self> {
        let of_ours = Cluster {
            login: Login::known(info.clone()),
            logical: Logical {
                databases: vec![name.to_owned()],
                ..cluster.logical.clone()
            },
            ..cluster.clone()
        };
        let opened = Self::open(&of_ours, &Part::Whole).await?;
        Ok(Self {
            with_globals: false,
            canary: None,
            ..opened
        })
    }

    pub(super) fn identity(&self) -> String {
        match &self.server.system_identifier {
            Some(identifier) => format!("postgres:{identifier}"),
            None => format!("postgres at {}", self.info),
        }
    }

    pub(crate) async fn store(self, about: &About<'_>, writer: &mut Writer) -> Result<Stored> {
        let limit = self.options.timeout.unwrap_or(NO_LIMIT);
        let captured = tokio::time::timeout(limit, self.capture(about, writer)).await;
        captured.unwrap_or_else(|passed| {
            let detail = format!("it took longer than {} s, its `timeout`", limit.as_secs());
            let error = Error::new(ErrorKind::TimedOut, "back up", &about.protected.component, detail);
            Err(error
                .with_source(passed)
                .with_hint("give it longer (`postgres: { timeout: … }`), or find out what holds it up"))
        })
    }

    fn limit(&self) -> Duration {
        self.options.timeout.unwrap_or(NO_LIMIT)
    }

    async fn capture(&self, about: &About<'_>, writer: &mut Writer) -> Result<Stored> {
        let mut warnings = Vec::new();
        warnings.extend(canary::before_capture(&self.info, self.canary.as_deref()).await);
        let globals = self.globals(about, writer).await?;
        if globals == Globals::WithoutPasswords {
            warnings.push("the role may not read the passwords of roles: they are not in the backup".to_owned());
        }
        let mut databases = Vec::new();
        for name in &self.names {
            let database = self.database(about, writer, name).await?;
            if !database.foreign.is_empty() {
                let names: Vec<String> = database.foreign.iter().map(ToString::to_string).collect();
                warnings.push(format!(
                    "{name}: rows of foreign tables live elsewhere and are not in the backup: {}",
                    names.join(", ")
                ));
            }
            databases.push(database);
        }
        let moment_us = databases.iter().map(|database| database.moment_us).min();
        Ok(Stored {
            moment_us: moment_us.unwrap_or_else(|| about.env.clock.wall_us()),
            facts: AllFacts::Databases(Box::new(Facts {
                mode: "logical".to_owned(),
                version: self.server.version.clone(),
                major: self.server.major,
                system_identifier: self.server.system_identifier.clone(),
                pg_dump: self.pg_dump.version.clone(),
                globals,
                schema_only: self.part == Part::Definitions,
                tenant: match &self.part {
                    Part::Tenant(tenant) => Some(Tenant {
                        id: tenant.id.clone(),
                        map: tenant.map.clone(),
                    }),
                    _ => None,
                },
                only_tables: match &self.part {
                    Part::Tables { tables, .. } => Some(tables.clone()),
                    _ => None,
                },
                databases,
            })),
            stall: Duration::ZERO,
            warnings,
            again: Vec::new(),
        })
    }

    async fn globals(&self, about: &About<'_>, writer: &mut Writer) -> Result<Globals> {
        if !self.with_globals {
            return Ok(Globals::Nothing);
        }
        about.env.progress.step("roles", None);
        let with_passwords = self.server.reads_passwords;
        let globals = programs::globals(&self.pg_dumpall, &self.info, with_passwords, self.limit()).await?;
        writer
            .put_stream(plain(GLOBALS.to_owned(), 0), Box::new(Cursor::new(globals)))
            .await?;
        Ok(if with_passwords {
            Globals::WithPasswords
        } else {
            Globals::WithoutPasswords
        })
    }

    /// Holds a database still and reads its definitions. `pg_dump` takes locks of its own: where somebody waits to alter a table, it would wait behind him,
    /// and he for us. So we let go then, let him through, and begin anew.
    async fn definitions(&self, about: &About<'_>, name: &str) -> Result<(Leader, Vec<u8>)> {
        let progress = &about.env.progress;
        let wait_ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut attempt = 1;
        loop {
            progress.step("hold still", None);
            let leader = Leader::begin(&self.info, name, wait_ms(self.options.lock_wait)).await?;
            progress.step("definitions", None);
            let wait = wait_ms(self.options.lock_wait.min(LET_GO));
            let read = programs::definitions(&self.pg_dump, leader.info(), Some(leader.snapshot()), wait, self.limit()).await;
            match read {
                Ok(definitions) => return Ok((leader, definitions)),
                // The statement that it names, in whatever language it says so.
                Err(error) if attempt < ATTEMPTS && error.detail().contains("LOCK TABLE") => {
                    attempt += 1;
                    leader.end().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn database(
        &self,
        about: &About<'_>,
        writer: &mut Writer,
        name: &str,
    ) -> Result<lifeboat_engine::postgres::logical::Database> {
        let progress = &about.env.progress;
        let folder = leader::folder_of(name);
        let (mut leader, definitions) = self.definitions(about, name).await?;
        match &self.part {
            Part::Tenant(tenant) => leader.narrow(&tenant.map, &tenant.id, tenant.as_is).await?,
            Part::Tables { tables, .. } => leader.narrow_to(tables).await?,
            Part::Whole | Part::Definitions => {}
        }
        let meta = plain(format!("{folder}/{DEFINITIONS}"), leader.moment_us());
        writer.put_stream(meta, Box::new(Cursor::new(definitions))).await?;
        let mut database = leader.describe(&folder).await?;
        if self.part == Part::Definitions {
            database.tables = empty(&leader);
        } else {
            progress.step("back up", Some(leader.heap_bytes()));
            (database.tables, database.large_objects) = rows(about, writer, &leader, &folder).await?;
        }
        progress.step("end", None);
        leader.end().await?;
        Ok(database)
    }
}

/// Tables without rows, of which only definitions are wanted.
fn empty(leader: &Leader) -> Vec<Table> {
    let tables = leader.tables().iter();
    tables
        .map(|found| leader::table(found, Vec::new(), 0, Digest::default()))
        .collect()
}

/// The databases that are wanted; each is there.
fn chosen(wanted: &[String], server: &Server, info: &ConnInfo) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(server.databases.clone());
    }
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|name| !server.databases.contains(name))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(wanted.to_vec());
    }
    let detail = format!("it has no {}; there are {}", missing.join(", "), server.databases.join(", "));
    Err(Error::new(ErrorKind::ConfigInvalid, "back up the databases of", info, detail)
        .with_hint("mend `databases:` in lifeboat.yaml; left out, all are backed up, new ones too"))
}

/// What is read by one COPY.
struct Job {
    /// A part of a table; none for large objects.
    part: Option<parts::Part>,
    path: String,
    sql: String,
    lock: Option<String>,
}

/// What came of it.
struct Copied {
    job: Job,
    stream: StoredStream,
    digest: Digest,
}

type Queue = Arc<Mutex<VecDeque<Job>>>;

/// Copies all rows, and says what each table came to.
async fn rows(
    about: &About<'_>,
    writer: &mut Writer,
    leader: &Leader,
    folder: &str,
) -> Result<(Vec<Table>, Option<LargeObjects>)> {
    let found = leader.tables();
    let mut jobs: VecDeque<Job> = VecDeque::new();
    if leader.large_objects() > 0 {
        let about = leader::ABOUT_LARGE_OBJECTS_OUT.to_owned();
        for (file, sql) in [(ABOUT_LARGE_OBJECTS, about), (LARGE_OBJECTS, leader::large_objects_out())] {
            jobs.push_back(Job {
                part: None,
                path: format!("{folder}/{file}"),
                sql,
                lock: None,
            });
        }
    }
    for part in parts::plan(found) {
        jobs.push_back(Job {
            path: format!("{folder}/{}", part.file),
            sql: part.sql.clone(),
            lock: found.get(part.table).map(leader::lock),
            part: Some(part),
        });
    }
    let count = about.env.threads.max(1).min(jobs.len());
    let queue: Queue = Arc::new(Mutex::new(jobs));
    let refused: Queue = Arc::default();
    let (sender, mut copied) = mpsc::channel(WAITING);
    let mut workers = JoinSet::new();
    for _ in 0..count {
        let (info, snapshot) = (leader.info().clone(), leader.snapshot().to_owned());
        let (queue, refused) = (Arc::clone(&queue), Arc::clone(&refused));
        let (streams, sender) = (writer.streams(), sender.clone());
        workers.spawn(compute::run("copy rows", move || {
            // Whatever ends one of them ends all: half of a database is nothing.
            let queues = (&queue, &refused);
            work(&info, &snapshot, queues, &streams, &sender).inspect_err(|_| streams.cancel())
        }));
    }
    drop(sender);
    let mut came = Came {
        tables: vec![Default::default(); found.len()],
        large_objects: None,
    };
    while let Some(copied) = copied.recv().await {
        came.add(writer, leader, copied)?;
    }
    all_ended(writer, &mut workers).await?;
    let left = std::mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
    for job in left {
        let copied = by_leader(leader, writer.streams(), job).await;
        match copied {
            Ok(copied) => came.add(writer, leader, copied)?,
            Err(error) => return Err(writer.cause(error).await),
        }
    }
    let described = found.iter().zip(came.tables).map(|(found, (mut files, bytes, digest))| {
        files.sort();
        leader::table(found, files, bytes, digest)
    });
    Ok((described.collect(), came.large_objects))
}

/// What has come so far.
struct Came {
    /// For each table its files, their bytes and what the rows add up to.
    tables: Vec<(Vec<String>, u64, Digest)>,
    large_objects: Option<LargeObjects>,
}

impl Came {
    fn add(&mut self, writer: &mut Writer, leader: &Leader, copied: Copied) -> Result<()> {
        let Copied { job, stream, digest } = copied;
        let size_bytes = stream.size_bytes();
        writer.add_stream(plain(job.path.clone(), leader.moment_us()), stream)?;
        match job.part {
            Some(part) => {
                if let Some((files, bytes, sum)) = self.tables.get_mut(part.table) {
                    files.push(part.file);
                    *bytes += size_bytes;
                    *sum += digest;
                }
            }
            None if job.path.ends_with(ABOUT_LARGE_OBJECTS) => {}
            None => {
                self.large_objects = Some(LargeObjects {
                    count: leader.large_objects(),
                    about: ABOUT_LARGE_OBJECTS.to_owned(),
                    file: LARGE_OBJECTS.to_owned(),
                    digest,
                });
            }
        }
        Ok(())
    }
}

/// Rows that the leader sends, for a thread that stores them.
struct Sent {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
    rows: Rows,
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.rows.feed(&piece);
                    self.piece = piece;
                }
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        let piece = self.piece.split_to(count);
        if let Some(to) = buffer.get_mut(..count) {
            to.copy_from_slice(&piece);
        }
        Ok(count)
    }
}

/// A part whose lock a worker did not get: somebody waits to alter the table, until the leader ends.
async fn by_leader(leader: &Leader, streams: Streams, job: Job) -> Result<Copied> {
    let (sender, pieces) = mpsc::channel(WAITING);
    let (name, sql) = (job.path.clone(), job.sql.clone());
    let storing = compute::run("store rows", move || {
        let mut sent = Sent {
            pieces,
            piece: Bytes::new(),
            rows: Rows::default(),
        };
        let stream = streams.store(&name, &mut sent)?;
        Ok((stream, sent.rows.end()?))
    });
    let sending = async move {
        let sent = leader.copy_out(&sql, &sender).await;
        drop(sender);
        sent
    };
    let (sent, stored) = tokio::join!(sending, storing);
    sent?;
    let (stream, digest) = stored?;
    Ok(Copied { job, stream, digest })
}

/// Waits for all workers; the first real reason, not the "cancelled" of those who stopped because of it.
async fn all_ended(writer: &mut Writer, workers: &mut JoinSet<Result<()>>) -> Result<()> {
    let mut failure: Option<Error> = None;
    while let Some(joined) = workers.join_next().await {
        let result = joined
            .unwrap_or_else(|error| Err(Error::new(ErrorKind::Bug, "copy", "rows", "a worker panicked").with_source(error)));
        if let Err(error) = result
            && failure.as_ref().is_none_or(|known| known.kind() == ErrorKind::Interrupted)
        {
            failure = Some(error);
        }
    }
    match failure {
        Some(error) => Err(writer.cause(error).await),
        None => Ok(()),
    }
}

/// One session, until there is nothing left to copy.
fn work(
    info: &ConnInfo,
    snapshot: &str,
    (queue, refused): (&Queue, &Queue),
    streams: &Streams,
    sender: &mpsc::Sender<Copied>,
) -> Result<()> {
    let mut worker = Worker::connect(info)?;
    worker.take_snapshot(snapshot)?;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(job) = next else {
            return worker.run("end the snapshot of", "COMMIT");
        };
        streams.check_cancelled()?;
        if let Some(lock) = &job.lock {
            match worker.run("lock a table of", lock) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Locked => {
                    worker.run("lock a table of", leader::UNLOCKED)?;
                    refused.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        let mut copy = worker.copy_out(&job.sql)?;
        let stream = match streams.store(&job.path, &mut copy) {
            Ok(stream) => stream,
            // What the server said, where it was the server.
            Err(error) => return Err(copy.failure().unwrap_or(error)),
        };
        let (digest, _) = copy.end()?;
        let copied = Copied { job, stream, digest };
        if sender.blocking_send(copied).is_err() {
            return Err(Error::new(
                ErrorKind::Interrupted,
                "copy",
                "rows",
                "nobody wants them any more",
            ));
        }
    }
}

/// Folders with programs, for whoever else needs them.
pub(crate) fn binaries(protected: &Protected) -> &[PathBuf] {
    protected.source.cluster().map_or(&[], |cluster| cluster.binaries.as_slice())
}
