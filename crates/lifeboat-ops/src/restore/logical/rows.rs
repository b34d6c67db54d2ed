//! Rows into a database, and back out of it for the comparison, by several sessions.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::logical::destination::Inside;
use lifeboat_engine::postgres::logical::facts::LargeObjects;
use lifeboat_engine::postgres::logical::session::Worker;
use lifeboat_engine::postgres::logical::{Database, Digest, Name, Table, leader, parts};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{FileRecord, Reader};
use tokio::sync::mpsc;
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

/// Brings all rows in. Each table is one transaction.
pub(super) async fn load(env: &Env, reader: &Reader, database: &Database, info: &ConnInfo, keep_owners: bool) -> Result<()> {
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
    let count = env.threads.max(1).min(jobs.len());
    let jobs = Arc::new(Mutex::new(jobs));
    let mut sessions = JoinSet::new();
    for _ in 0..count {
        let (env, reader, info, jobs) = (env.clone(), reader.clone(), info.clone(), Arc::clone(&jobs));
        sessions.spawn(async move {
            loop {
                let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(job) = next else { return Ok(()) };
                one(&env, &reader, &info, job, keep_owners).await?;
            }
        });
    }
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

/// Reads the files of one table and has a thread of its own send them.
async fn one(env: &Env, reader: &Reader, info: &ConnInfo, job: Job, keep_owners: bool) -> Result<()> {
    let (sender, pieces) = mpsc::channel::<Vec<u8>>(WAITING);
    let (info, table, large_objects, progress) = (info.clone(), job.table, job.large_objects, env.clone());
    let mut pieces = Pieces {
        pieces,
        env: progress,
        files: job.files.len(),
    };
    let sending = compute::run("send rows", move || {
        let mut worker = Worker::connect(&info)?;
        worker.run("prepare", "SET synchronous_commit = off")?;
        match (&table, &large_objects) {
            (Some(table), _) => send(&mut worker, table, &mut pieces),
            (None, Some(large_objects)) => send_large_objects(&mut worker, large_objects, keep_owners, &mut pieces),
            (None, None) => Ok(()),
        }
    });
    let files = job.files;
    let reading = async move {
        for record in &files {
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
}

/// Sends the pieces of one file.
fn send_file(worker: &mut Worker, pieces: &mut Pieces) -> Result<()> {
    loop {
        match pieces.pieces.blocking_recv() {
            Some(piece) if piece.is_empty() => return Ok(()),
            Some(piece) => {
                worker.copy_in(&piece)?;
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
    worker.begin_copy_in(&parts::copy_in(table, frozen))?;
    for _ in 0..pieces.files {
        send_file(worker, pieces)?;
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

/// Reads every table back and compares (LG-04).
pub(super) async fn compare(env: &Env, database: &Database, inside: &Inside, info: &ConnInfo) -> Result<()> {
    compare_in(env, database, inside, info, None).await
}

/// The same, of one schema alone where one is named.
pub(super) async fn compare_in(
    env: &Env,
    database: &Database,
    inside: &Inside,
    info: &ConnInfo,
    schema: Option<&str>,
) -> Result<()> {
    let mut found = inside.tables().await?;
    found.retain(|table| schema.is_none_or(|schema| table.name.schema == schema));
    let mut queue = Reads::new();
    if database.large_objects.is_some() {
        queue.push_back((None, leader::large_objects_out()));
    }
    for part in parts::plan(&found) {
        let name = found.get(part.table).map(|table| table.name.clone());
        queue.push_back((name, part.sql));
    }
    let sums = digests(env, info, None, queue).await?;
    let differences = differences(database, &sums);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(differing(&differences))
    }
}

/// What is read, and by which COPY; none: the large objects.
pub(crate) type Reads = VecDeque<(Option<Name>, String)>;

/// Reads rows for their digests, by several sessions, in a snapshot where one is given.
pub(crate) async fn digests(
    env: &Env,
    info: &ConnInfo,
    snapshot: Option<&str>,
    queue: Reads,
) -> Result<BTreeMap<Option<Name>, Digest>> {
    let count = env.threads.max(1).min(queue.len());
    let queue = Arc::new(Mutex::new(queue));
    let sums = Arc::new(Mutex::new(BTreeMap::<Option<Name>, Digest>::new()));
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

fn differences(database: &Database, sums: &BTreeMap<Option<Name>, Digest>) -> Vec<(Name, String)> {
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
