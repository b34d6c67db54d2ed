//! Rows into a database, and back out of it for the comparison, by several sessions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::logical::binary::{self, Encoder};
use lifeboat_engine::postgres::logical::catalog::Found;
use lifeboat_engine::postgres::logical::destination::Inside;
use lifeboat_engine::postgres::logical::facts::LargeObjects;
use lifeboat_engine::postgres::logical::session::Worker;
use lifeboat_engine::postgres::logical::{Database, Digest, Name, Table, leader, parts};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{FileRecord, Reader};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{differing, file};

/// Pieces of a file that wait for the session that sends them.
const WAITING: usize = 4;

/// A table, or the large objects, and the files that hold the rows.
struct Job {
    table: Option<Table>,
    large_objects: Option<LargeObjects>,
    files: Vec<FileRecord>,
}

/// The form in which rows are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As the server wrote them: it reads everything that way.
    Text,
    /// What it reads in less time, where that can be made of them. Whoever uses it reads back what came of it, and has the rows for the other form.
    Quick,
}

/// How rows are brought in.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) keep_owners: bool,
    pub(super) form: Form,
    /// Hears of each table that is committed; none: of the large objects.
    pub(super) loaded: Option<mpsc::Sender<Option<Name>>>,
    /// Tables that the server looks at as soon as their rows are there, so that it plans well: later that and the building of indexes wait for each
    /// other.
    pub(super) analyzed: BTreeSet<Name>,
}

impl Loading {
    /// Of a database that is being made.
    pub(super) async fn whole(
        inside: &Inside,
        keep_owners: bool,
        form: Form,
        loaded: mpsc::Sender<Option<Name>>,
    ) -> Result<Arc<Self>> {
        let analyzed = inside.to_analyze().await?.into_iter().filter(|table| table.is_alone);
        Ok(Arc::new(Self {
            keep_owners,
            form,
            loaded: Some(loaded),
            analyzed: analyzed.map(|table| table.name).collect(),
        }))
    }

    /// As text, and nobody hears of it.
    pub(super) fn as_text() -> Arc<Self> {
        Arc::new(Self {
            keep_owners: false,
            form: Form::Text,
            loaded: None,
            analyzed: BTreeSet::new(),
        })
    }
}

/// Brings all rows in. Each table is one transaction.
pub(super) async fn load(env: &Env, reader: &Reader, database: &Database, info: &ConnInfo, how: Arc<Loading>) -> Result<()> {
    let mut tables: Vec<&Table> = database.tables.iter().filter(|table| table.digest.rows > 0).collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.text_bytes));
    let mut jobs = VecDeque::new();
    if let Some(large_objects) = &database.large_objects {
        let file = |name: &str| file(reader, &format!("{}/{name}", database.folder)).cloned();
        jobs.push_back(Job {
            table: None,
            large_objects: Some(large_objects.clone()),
            files: vec![file(&large_objects.about)?, file(&large_objects.file)?],
        });
    }
    for table in tables {
        let files = table
            .parts
            .iter()
            .map(|part| file(reader, &format!("{}/{part}", database.folder)).cloned());
        jobs.push_back(Job {
            table: Some(table.clone()),
            large_objects: None,
            files: files.collect::<Result<_>>()?,
        });
    }
    // One more than there are processors: each waits now and then for the disk that takes the server's log.
    let count = (env.threads.max(1) + 1).min(jobs.len());
    let jobs = Arc::new(Mutex::new(jobs));
    let mut sessions = JoinSet::new();
    for _ in 0..count {
        let (env, reader, info, jobs) = (env.clone(), reader.clone(), info.clone(), Arc::clone(&jobs));
        let how = Arc::clone(&how);
        sessions.spawn(async move {
            loop {
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(job) = next else { return Ok(()) };
                let name = job.table.as_ref().map(|table| table.name.clone());
                one(&env, &reader, &info, &job, &how).await?;
                if let Some(loaded) = &how.loaded {
                    // Who does not listen any more has said why.
                    drop(loaded.send(name).await);
                }
            }
        });
    }
    // Whoever hears of tables hears that there are no more once the sessions end.
    drop(how);
    all(&mut sessions).await
}

/// Waits for all; the first error ends the others.
async fn all(sessions: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(joined) = sessions.join_next().await {
        joined
            .unwrap_or_else(|error| Err(Error::new(ErrorKind::Bug, "copy", "rows", "a session panicked").with_source(error)))?;
    }
    Ok(())
}

/// Brings one table in; as text where it does not go the quick way. Nothing of a table that failed is there.
async fn one(env: &Env, reader: &Reader, info: &ConnInfo, job: &Job, how: &Arc<Loading>) -> Result<()> {
    match in_form(env, reader, info, job, how, how.form).await {
        Err(error) if how.form == Form::Quick && binary::asks_for_text(&error) => {
            in_form(env, reader, info, job, how, Form::Text).await
        }
        done => done,
    }
}

/// Reads the files of one table and has a thread of its own send them.
async fn in_form(env: &Env, reader: &Reader, info: &ConnInfo, job: &Job, how: &Arc<Loading>, form: Form) -> Result<()> {
    let (sender, pieces) = mpsc::channel::<Vec<u8>>(WAITING);
    let how = Arc::clone(how);
    let (info, table, large_objects) = (info.clone(), job.table.clone(), job.large_objects.clone());
    let mut pieces = Pieces {
        pieces,
        env: env.clone(),
        files: job.files.len(),
        encoder: None,
    };
    let sending = compute::run("send rows", move || {
        let mut worker = Worker::connect(&info)?;
        worker.run("prepare", "SET synchronous_commit = off")?;
        match (&table, &large_objects) {
            (Some(table), _) => {
                if form == Form::Quick {
                    let types = worker.value("look at the columns of", &binary::asks_for_types(table))?;
                    pieces.encoder = types.and_then(|types| Encoder::new(table, &types));
                }
                send(&mut worker, table, &mut pieces)?;
                if how.analyzed.contains(&table.name) {
                    worker.run("analyze", &format!("ANALYZE {}", table.name.sql()))?;
                }
                Ok(())
            }
            (None, Some(large_objects)) => send_large_objects(&mut worker, large_objects, how.keep_owners, &mut pieces),
            (None, None) => Ok(()),
        }
    });
    let reading = async move {
        for record in &job.files {
            reader.read_in_order(record, &sender).await?;
            // Only a whole table is to be committed: without this word the session ends in a rollback.
            let gone = |_| Error::new(ErrorKind::Interrupted, "send", "rows", "the session ended");
            sender.send(Vec::new()).await.map_err(gone)?;
        }
        Ok::<_, Error>(())
    };
    let (read, sent) = tokio::join!(reading, sending);
    match (read, sent) {
        (Err(error), Err(why)) if error.kind() == ErrorKind::Interrupted => Err(why),
        (Err(error), _) => Err(error),
        (Ok(()), sent) => sent,
    }
}

/// What is to be sent: pieces of files, behind each file an empty one.
struct Pieces {
    pieces: mpsc::Receiver<Vec<u8>>,
    env: Env,
    files: usize,
    /// Where they do not go as they are.
    encoder: Option<Encoder>,
}

/// Sends the pieces of one file.
fn send_file(worker: &mut Worker, pieces: &mut Pieces) -> Result<()> {
    let mut made = Vec::new();
    loop {
        match pieces.pieces.blocking_recv() {
            Some(piece) if piece.is_empty() => return Ok(()),
            Some(piece) => {
                match &mut pieces.encoder {
                    Some(encoder) => {
                        made.clear();
                        encoder.feed(&piece, &mut made)?;
                        worker.copy_in(&made)?;
                    }
                    None => worker.copy_in(&piece)?,
                }
                pieces.env.progress.advance(piece.len() as u64);
            }
            None => return Err(Error::new(ErrorKind::Interrupted, "send", "rows", "no more of them come")),
        }
    }
}

fn send(worker: &mut Worker, table: &Table, pieces: &mut Pieces) -> Result<()> {
    worker.run("begin in", "BEGIN")?;
    // An extension's own table has the extension's rows, which stay.
    let frozen = table.condition.is_none();
    if frozen {
        worker.run("empty a table of", &format!("TRUNCATE ONLY {}", table.name.sql()))?;
    }
    worker.begin_copy_in(&match pieces.encoder {
        Some(_) => parts::copy_binary_in(table, frozen),
        None => parts::copy_in(table, frozen),
    })?;
    for _ in 0..pieces.files {
        send_file(worker, pieces)?;
    }
    if let Some(encoder) = &mut pieces.encoder {
        let mut last = Vec::new();
        encoder.end(&mut last)?;
        worker.copy_in(&last)?;
    }
    let taken = worker.end_copy_in()?;
    if taken != table.digest.rows {
        let detail = format!("the server took {taken} rows of {}", table.digest.rows);
        return Err(Error::new(ErrorKind::Corrupt, "restore", &table.name, detail));
    }
    worker.run("commit in", "COMMIT")
}

fn send_large_objects(worker: &mut Worker, large_objects: &LargeObjects, keep_owners: bool, pieces: &mut Pieces) -> Result<()> {
    const OP: &str = "put large objects into";
    worker.run(OP, &format!("BEGIN; {}", leader::LARGE_OBJECT_TABLES))?;
    worker.begin_copy_in("COPY pg_temp.lifeboat_about FROM STDIN")?;
    send_file(worker, pieces)?;
    worker.end_copy_in()?;
    worker.run(OP, leader::MAKE_LARGE_OBJECTS)?;
    worker.begin_copy_in("COPY pg_temp.lifeboat_pieces FROM STDIN")?;
    send_file(worker, pieces)?;
    let taken = worker.end_copy_in()?;
    if taken != large_objects.digest.rows {
        let detail = format!("the server took {taken} pieces of {}", large_objects.digest.rows);
        return Err(Error::new(ErrorKind::Corrupt, "restore", "the large objects", detail));
    }
    worker.run(OP, leader::PUT_LARGE_OBJECTS)?;
    if keep_owners {
        worker.run(OP, leader::DRESS_LARGE_OBJECTS)?;
    }
    worker.run(OP, "COMMIT")
}

/// Reads every table back behind those that bring rows in, and compares (LG-04). Half of the processors are left to what is built on the tables until
/// `built` says that it is done: that ends with what only one at a time can do, and what is left to read goes beside it.
pub(super) async fn compare_behind(
    env: &Env,
    database: &Database,
    inside: &Inside,
    info: &ConnInfo,
    mut loaded: mpsc::Receiver<Option<Name>>,
    built: watch::Receiver<bool>,
) -> Result<()> {
    let found = inside.tables().await?;
    let (sender, reads) = mpsc::channel(WAITING);
    let reading = digests_as_they_come(env, info, reads, built);
    let telling = async move {
        // Whatever came without rows has none now.
        for table in found.iter().filter(|table| !has_rows(database, &table.name)) {
            tell(&sender, read_of(table, 0)).await;
        }
        while let Some(name) = loaded.recv().await {
            let Some(name) = name else {
                tell(&sender, vec![(None, leader::large_objects_out())]).await;
                continue;
            };
            if let Some(table) = found.iter().find(|table| table.name == name) {
                let bytes = inside.heap_bytes(table.oid).await?;
                tell(&sender, read_of(table, bytes)).await;
            }
        }
        Ok::<_, Error>(())
    };
    let ((), sums) = tokio::try_join!(telling, reading)?;
    judged(database, &sums)
}

fn has_rows(database: &Database, name: &Name) -> bool {
    database
        .tables
        .iter()
        .any(|table| table.name == *name && table.digest.rows > 0)
}

async fn tell(sender: &mpsc::Sender<Read>, reads: Vec<Read>) {
    for read in reads {
        // Whoever ended said why.
        drop(sender.send(read).await);
    }
}

/// The parts of a table that now has so many bytes.
fn read_of(table: &Found, bytes: u64) -> Vec<Read> {
    let table = Found { bytes, ..table.clone() };
    let parts = parts::plan(std::slice::from_ref(&table));
    parts.into_iter().map(|part| (Some(table.name.clone()), part.sql)).collect()
}

/// As [`digests`], of what is told while it goes on, by half of the sessions until `built`.
async fn digests_as_they_come(
    env: &Env,
    info: &ConnInfo,
    reads: mpsc::Receiver<Read>,
    built: watch::Receiver<bool>,
) -> Result<Sums> {
    let reads = Arc::new(Mutex::new(reads));
    let sums = Arc::new(Mutex::new(Sums::new()));
    let mut sessions = JoinSet::new();
    let count = env.threads.max(1);
    for number in 0..count {
        let (info, reads, sums) = (info.clone(), Arc::clone(&reads), Arc::clone(&sums));
        let mut built = built.clone();
        sessions.spawn(async move {
            if number >= count.div_ceil(2) && built.wait_for(|built| *built).await.is_err() {
                // Whoever would have said so has failed, and says why.
                return Ok(());
            }
            compute::run("read rows back", move || {
                let mut worker = Worker::connect(&info)?;
                loop {
                    // One waits for the next, the others for him.
                    let next = reads.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                    let Some((name, sql)) = next else { return Ok(()) };
                    let digest = worker.digest(&sql)?;
                    *sums.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += digest;
                }
            })
            .await
        });
    }
    all(&mut sessions).await?;
    Ok(std::mem::take(&mut *sums.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// Has the server look at the tables that [`Loading::whole`] left out, or at which there is more to look at now, so that it plans well; several at once.
pub(super) async fn analyze_rest(env: &Env, database: &Database, inside: &Inside, info: &ConnInfo) -> Result<()> {
    let mut left = inside.to_analyze().await?;
    left.retain(|table| !table.is_alone || table.is_measured_by_more || !has_rows(database, &table.name));
    let count = env.threads.max(1).min(left.len());
    let queue = Arc::new(Mutex::new(VecDeque::from(left)));
    let mut sessions = JoinSet::new();
    for _ in 0..count {
        let (info, queue) = (info.clone(), Arc::clone(&queue));
        sessions.spawn(compute::run("analyze", move || {
            let mut worker = Worker::connect(&info)?;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(table) = next else { return Ok(()) };
                worker.run("analyze", &format!("ANALYZE {}", table.name.sql()))?;
            }
        }));
    }
    all(&mut sessions).await
}

/// Reads the tables of one schema back and compares, when all are there.
pub(super) async fn compare_in(env: &Env, database: &Database, inside: &Inside, info: &ConnInfo, schema: &str) -> Result<()> {
    let mut found = inside.tables().await?;
    found.retain(|table| table.name.schema == schema);
    let mut queue = Reads::new();
    if database.large_objects.is_some() {
        queue.push_back((None, leader::large_objects_out()));
    }
    for part in parts::plan(&found) {
        let name = found.get(part.table).map(|table| table.name.clone());
        queue.push_back((name, part.sql));
    }
    let sums = digests(env, info, None, queue).await?;
    judged(database, &sums)
}

/// # Errors
/// `Corrupt` where it is not what was captured.
fn judged(database: &Database, sums: &Sums) -> Result<()> {
    let differences = differences(database, sums);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differing(&differences))
    }
}

/// What is read, and by which COPY; none: the large objects.
type Read = (Option<Name>, String);
/// Some of them.
pub(crate) type Reads = VecDeque<Read>;
/// What each came to.
pub(crate) type Sums = BTreeMap<Option<Name>, Digest>;

/// Reads rows for their digests, by several sessions, in a snapshot where one is given.
pub(crate) async fn digests(env: &Env, info: &ConnInfo, snapshot: Option<&str>, queue: Reads) -> Result<Sums> {
    let count = env.threads.max(1).min(queue.len());
    let queue = Arc::new(Mutex::new(queue));
    let sums = Arc::new(Mutex::new(Sums::new()));
    let mut sessions = JoinSet::new();
    for _ in 0..count {
        let (info, queue, sums, snapshot) = (
            info.clone(),
            Arc::clone(&queue),
            Arc::clone(&sums),
            snapshot.map(str::to_owned),
        );
        sessions.spawn(compute::run("read rows back", move || {
            let mut worker = Worker::connect(&info)?;
            if let Some(snapshot) = &snapshot {
                worker.take_snapshot(snapshot)?;
            }
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((name, sql)) = next else { return Ok(()) };
                let digest = worker.digest(&sql)?;
                *sums.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += digest;
            }
        }));
    }
    all(&mut sessions).await?;
    Ok(std::mem::take(&mut *sums.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn differences(database: &Database, sums: &Sums) -> Vec<(Name, String)> {
    let mut differences = Vec::new();
    let mut judge = |name: Name, wanted: Digest, found: Option<Digest>| match found {
        Some(found) if found == wanted => {}
        Some(found) if found.rows != wanted.rows => {
            differences.push((name, format!("has {} rows, and {} were captured", found.rows, wanted.rows)));
        }
        Some(_) => differences.push((name, format!("has {} rows as captured, but others", wanted.rows))),
        None => differences.push((name, "is not there".to_owned())),
    };
    for table in &database.tables {
        judge(table.name.clone(), table.digest, sums.get(&Some(table.name.clone())).copied());
    }
    if let Some(large_objects) = &database.large_objects {
        let name = Name {
            schema: "pg_catalog".to_owned(),
            name: "pg_largeobject".to_owned(),
        };
        judge(name, large_objects.digest, sums.get(&None).copied());
    }
    differences
}
