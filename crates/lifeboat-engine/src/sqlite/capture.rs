//! A consistent, page-exact image of a database while others write to it.
//!
//! One thread per capture owns the connection. It opens a read transaction, reads page after page through `sqlite_dbpage` (which sees the
//! database and its WAL as one), counts rows and hashes the schema in the same transaction, and lets go.
//!
//! - **WAL mode**: readers and writers do not block each other. SQLite keeps what our transaction reads where it is: it neither backfills
//!   beyond our mark nor resets the WAL under a mark in use; a reader with mark 0 keeps the WAL from being backfilled at all.
//! - **Rollback-journal mode**: a reader's lock keeps writers from committing. It is held for `max_stall` at most, then let go and taken
//!   again; the capture goes on if nobody wrote in between (`PRAGMA data_version`), and fails otherwise. It is never held while the queue
//!   is full for longer than that either.
//!
//! If we die, our locks go with the process; nothing was written.

mod beside;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use lifeboat_io::flow::{PageSource, SEGMENT_BYTES};
use lifeboat_model::{Clock, Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::sqlite;
use super::extract::Extract;
use super::facts::{Facts, count};
use super::filesystem::network_filesystem;
use super::queue::{Pushed, Queue, Segment};
use super::source::{SourceFile, in_wal_mode, inode, length, look_at, real_companions};
use super::stream::Beside;

const PATIENCE: &str =
    "raise `max_stall` for this component, switch the database to WAL (PRAGMA journal_mode=WAL), or back it up in a quiet hour";

/// What to capture, and how patiently.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// The database file.
    pub path: PathBuf,
    /// How long to wait for a lock that another process holds.
    pub busy_timeout: Duration,
    /// How long writers may be kept waiting in rollback-journal mode.
    pub max_stall: Duration,
    /// Whether to give the database as SQL text, too.
    pub sql_dump: bool,
    /// Queries whose results to give, too.
    pub extracts: Vec<Extract>,
}

/// What a finished capture knows.
#[derive(Debug, Clone)]
pub struct Captured {
    /// Counted in the same transaction as the pages were read.
    pub facts: Facts,
    /// How long writers were kept waiting at most; zero in WAL mode.
    pub stall: Duration,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A capture under way. Dropping it lets the database go.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    file: SourceFile,
    moment_us: i64,
    pages: Arc<Pages>,
    beside: Vec<Beside>,
    thread: Option<JoinHandle<Result<Captured>>>,
}

#[derive(Debug)]
struct Pages {
    page_size: u32,
    size_bytes: u64,
    queue: Arc<Queue>,
}

impl PageSource for Pages {
    fn page_size(&self) -> u32 {
        self.page_size
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn next_segment(&self, buffer: &mut Vec<u8>) -> Result<Option<u64>> {
        self.queue.take(buffer)
    }
}

/// What the thread tells when its transaction stands.
struct Opened {
    page_size: u32,
    size_bytes: u64,
    moment_us: i64,
}

/// Opens the database and its read transaction.
pub fn begin(options: &CaptureOptions, clock: Arc<dyn Clock>) -> Result<Capture> {
    let path = std::path::absolute(&options.path).map_err(|error| Error::io("resolve", options.path.display(), error))?;
    let file = look_at(&path)?;
    if let Some(kind) = network_filesystem(&path)?
        && in_wal_mode(&path)?
    {
        return Err(Error::new(
            ErrorKind::Refused,
            "back up",
            path.display(),
            format!("it is in WAL mode on a network file system ({kind}), where WAL does not work: its writers can corrupt it"),
        )
        .with_hint("move the database to a local disk, or switch it to a rollback journal (PRAGMA journal_mode=DELETE)"));
    }
    let queue = Arc::new(Queue::default());
    let beside = beside::streams(options, &file)?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let reading = Reading {
        options: CaptureOptions {
            path: path.clone(),
            ..options.clone()
        },
        clock,
        queue: Arc::clone(&queue),
        beside: beside.iter().map(|one| (one.name.clone(), Arc::clone(&one.queue))).collect(),
        inode: inode(&path)?,
    };
    let thread = std::thread::Builder::new()
        .name("sqlite capture".into())
        .spawn(move || {
            let mut end = End {
                queues: reading.queues(),
                failed: true,
            };
            let result = reading.run(&sender);
            end.failed = result.is_err();
            result
        })
        .map_err(|error| Error::io("start a thread for", path.display(), error))?;
    let Ok(opened) = receiver.recv() else {
        // The thread ended before its transaction stood: its result says why.
        return Err(match join(thread, &path) {
            Err(error) => error,
            Ok(_) => Error::new(ErrorKind::Bug, "back up", path.display(), "its capture ended before it began"),
        });
    };
    let pages = Arc::new(Pages {
        page_size: opened.page_size,
        size_bytes: opened.size_bytes,
        queue,
    });
    Ok(Capture {
        path,
        file,
        moment_us: opened.moment_us,
        pages,
        beside,
        thread: Some(thread),
    })
}

/// Ends the queue when the thread ends, by a panic too: whoever waits for pages must not wait for ever.
struct End {
    queues: Vec<Arc<Queue>>,
    failed: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.finish(self.failed);
        }
    }
}

impl Capture {
    /// The pages, in ascending order.
    #[must_use]
    pub fn pages(&self) -> Arc<dyn PageSource> {
        Arc::clone(&self.pages) as Arc<dyn PageSource>
    }

    /// What comes after the pages: the SQL text and the extracts. To be read in this order, each to its end.
    #[must_use]
    pub fn beside(&self) -> &[Beside] {
        &self.beside
    }

    /// The database file.
    #[must_use]
    pub fn file(&self) -> &SourceFile {
        &self.file
    }

    /// What must be the same for a later backup to be compared with this one.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    /// Every commit that was complete at this moment is in the image; microseconds since 1970.
    #[must_use]
    pub fn moment_us(&self) -> i64 {
        self.moment_us
    }

    /// Ends the capture after its pages were taken. Any error means that what was taken is not a consistent image.
    pub fn finish(mut self) -> Result<Captured> {
        // Where pages are left because the taker failed, the thread must not wait for room for ever.
        self.abandon();
        match self.thread.take() {
            Some(thread) => join(thread, &self.path),
            None => Err(Error::new(
                ErrorKind::Bug,
                "finish the capture of",
                self.path.display(),
                "it was finished before",
            )),
        }
    }
}

impl Capture {
    fn abandon(&self) {
        self.pages.queue.abandon();
        for beside in &self.beside {
            beside.queue.abandon();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.abandon();
        if let Some(thread) = self.thread.take() {
            // Its result is of no interest: nobody will commit what was read.
            drop(thread.join());
        }
    }
}

fn join(thread: JoinHandle<Result<Captured>>, path: &Path) -> Result<Captured> {
    thread.join().unwrap_or_else(|_panic| {
        Err(Error::new(
            ErrorKind::Bug,
            "back up",
            path.display(),
            "the capture's thread panicked",
        ))
    })
}

/// The thread's side.
struct Reading {
    options: CaptureOptions,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    /// Names and queues of what comes after the pages.
    beside: Vec<(String, Arc<Queue>)>,
    inode: (u64, u64),
}

/// A read transaction and since when it keeps writers waiting.
struct Transaction<'a> {
    connection: &'a Connection,
    path: &'a Path,
    since: Duration,
    data_version: i64,
}

impl Reading {
    fn run(self, opened: &mpsc::SyncSender<Opened>) -> Result<Captured> {
        let [wal, _, _] = real_companions(&self.options.path);
        let wal_is_ours = !wal.try_exists().unwrap_or(true);
        let mut connection = self.open()?;
        let result = self.capture(&mut connection, opened);
        if wal_is_ours && length(&wal) == 0 {
            // Nobody wrote to the WAL that SQLite made for us: it may go with us, under SQLite's own lock.
            connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
                .map_err(|error| sqlite("close", &self.options.path, error))?;
        }
        result
    }

    fn capture(&self, connection: &mut Connection, opened: &mpsc::SyncSender<Opened>) -> Result<Captured> {
        let path = self.options.path.as_path();
        let failed = |error| sqlite("back up", path, error);
        let moment_us = self.clock.wall_us();
        let mut transaction = self.transaction(connection)?;
        let number = |pragma: &str| {
            connection
                .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
                .map_err(failed)
        };
        let page_size = u32::try_from(number("page_size")?).unwrap_or(0);
        let page_count = number("page_count")?.unsigned_abs();
        let journal: String = connection
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .map_err(failed)?;
        let wal = journal == "wal";
        let size_bytes = page_count * u64::from(page_size);
        self.check_size(size_bytes, wal)?;
        if opened
            .send(Opened {
                page_size,
                size_bytes,
                moment_us,
            })
            .is_err()
        {
            return Err(abandoned(path));
        }
        let mut stall = Duration::ZERO;
        self.read_pages(&mut transaction, page_size, page_count, wal, &mut stall)?;
        // The workers need not wait for the rest; its errors come out of `finish`, before anything is committed.
        self.queue.finish(false);
        let dump = self.dump(&mut transaction, wal, &mut stall)?;
        if !wal && !self.options.extracts.is_empty() {
            self.renew(&mut transaction, None, &mut stall)?;
        }
        let (since, data_version) = (transaction.since, transaction.data_version);
        let extracts = self.extracts(connection, wal, since)?;
        let mut transaction = Transaction {
            connection: &*connection,
            path,
            since,
            data_version,
        };
        let mut warnings = Vec::new();
        let mut facts = if wal {
            count(connection, path, &mut warnings)?
        } else {
            self.count_in_time(&mut transaction, &mut warnings, &mut stall)?
        };
        (facts.dump, facts.extracts) = (dump, extracts);
        connection.execute_batch("COMMIT").map_err(failed)?;
        stall = stall.max(self.clock.monotonic().saturating_sub(transaction.since));
        self.still_the_same(&facts, page_count)?;
        Ok(Captured {
            facts,
            stall: if wal { Duration::ZERO } else { stall },
            warnings,
        })
    }

    /// After the transaction: the file is the one that was opened, and of the size that was read.
    fn still_the_same(&self, facts: &Facts, page_count: u64) -> Result<()> {
        let path = self.options.path.as_path();
        if inode(path).ok() != Some(self.inode) {
            return Err(Error::new(
                ErrorKind::Unreachable,
                "back up",
                path.display(),
                "it was removed or replaced while it was read",
            )
            .with_hint("run the backup again; if a restore or a deployment was going on, wait for its end"));
        }
        if facts.page_count != page_count {
            return Err(Error::new(
                ErrorKind::Bug,
                "back up",
                path.display(),
                "its size changed within one transaction",
            ));
        }
        Ok(())
    }

    /// Read-write where permitted, so that SQLite can roll back a hot journal and use the WAL's index; nothing is ever written by us.
    fn open(&self) -> Result<Connection> {
        let path = self.options.path.as_path();
        let failed = |error| sqlite("open", path, error);
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(failed)?;
        connection.busy_timeout(self.options.busy_timeout).map_err(failed)?;
        // Whatever an application leaves in the WAL, now or while we read, stays there.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(failed)?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)
            .map_err(failed)?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)
            .map_err(failed)?;
        connection
            .execute_batch("PRAGMA query_only = ON; PRAGMA mmap_size = 0")
            .map_err(failed)?;
        Ok(connection)
    }

    fn transaction<'a>(&'a self, connection: &'a Connection) -> Result<Transaction<'a>> {
        let path = self.options.path.as_path();
        let failed = |error| sqlite("read", path, error);
        connection.execute_batch("BEGIN").map_err(failed)?;
        // Since the first read, not since BEGIN, which locks nothing.
        connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .map_err(failed)?;
        let since = self.clock.monotonic();
        let data_version = connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .map_err(failed)?;
        Ok(Transaction {
            connection,
            path,
            since,
            data_version,
        })
    }

    fn check_size(&self, size_bytes: u64, wal: bool) -> Result<()> {
        let path = self.options.path.as_path();
        let on_disk = path
            .metadata()
            .map_err(|error| Error::io("look at", path.display(), error).with_kind(ErrorKind::Unreachable))?
            .len();
        if size_bytes == 0 {
            return Err(Error::new(ErrorKind::Corrupt, "back up", path.display(), "it holds no page"));
        }
        // In WAL mode the newest pages may be in the WAL alone. SQLite itself reads what the file lacks of its last page as zeros.
        let [companion, _, _] = real_companions(path);
        if on_disk < size_bytes && (!wal || length(&companion) == 0) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "back up",
                path.display(),
                format!("it is truncated: its header speaks of {size_bytes} bytes, the file has {on_disk}"),
            )
            .with_hint("restore the last good backup (`lifeboat list`)"));
        }
        Ok(())
    }

    /// Counts while the lock may still be held; after that anew, from the beginning and under a new lock, if nobody wrote in between.
    fn count_in_time(
        &self,
        transaction: &mut Transaction<'_>,
        warnings: &mut Vec<String>,
        stall: &mut Duration,
    ) -> Result<Facts> {
        let held = self.clock.monotonic().saturating_sub(transaction.since);
        if let Some(result) = self.count_within(self.options.max_stall.saturating_sub(held), transaction, warnings) {
            return result;
        }
        self.renew(transaction, None, stall)?;
        warnings.clear();
        self.count_within(self.options.max_stall, transaction, warnings).unwrap_or_else(|| {
            let detail = format!(
                "counting its rows takes longer than {:?}, the longest that writers may be kept waiting in rollback-journal mode",
                self.options.max_stall
            );
            Err(Error::new(ErrorKind::TimedOut, "back up", transaction.path.display(), detail).with_hint(PATIENCE))
        })
    }

    /// Counts; `None` when that was interrupted because it took longer than `limit`.
    fn count_within(&self, limit: Duration, transaction: &Transaction<'_>, warnings: &mut Vec<String>) -> Option<Result<Facts>> {
        let interrupt = transaction.connection.get_interrupt_handle();
        let (counted, waiting) = mpsc::sync_channel::<()>(1);
        std::thread::scope(|scope| {
            // SQLite counts a table in one instruction, which no handler on this thread could end.
            let watch = scope.spawn(move || {
                let (mut late, mut patience) = (false, limit);
                // Again and again: between two statements there is nothing to interrupt.
                while let Err(mpsc::RecvTimeoutError::Timeout) = waiting.recv_timeout(patience) {
                    late = true;
                    interrupt.interrupt();
                    patience = Duration::from_millis(10);
                }
                late
            });
            let result = count(transaction.connection, transaction.path, warnings);
            drop(counted);
            match watch.join() {
                Ok(true) if result.is_err() => None,
                _ => Some(result),
            }
        })
    }

    fn read_pages(
        &self,
        transaction: &mut Transaction<'_>,
        page_size: u32,
        page_count: u64,
        wal: bool,
        stall: &mut Duration,
    ) -> Result<()> {
        let mut next = 1;
        while next <= page_count {
            let (reached, waiting) = self.scan(transaction, page_size, next..page_count + 1, wal)?;
            next = reached;
            if next <= page_count || waiting.is_some() {
                self.renew(transaction, waiting.map(|segment| (self.queue.as_ref(), segment)), stall)?;
            }
        }
        Ok(())
    }

    /// Reads and queues pages until all are read or the lock was held long enough. Returns the first page that was not read, and a
    /// segment that found no room. The scan is over then: one that is open would keep the lock.
    fn scan(
        &self,
        transaction: &Transaction<'_>,
        page_size: u32,
        pages: std::ops::Range<u64>,
        wal: bool,
    ) -> Result<(u64, Option<Segment>)> {
        let failed = |error| sqlite("read", transaction.path, error);
        let pages_per_segment = SEGMENT_BYTES as u64 / u64::from(page_size);
        // One scan is half again as fast as a look-up for each page.
        let mut statement = transaction
            .connection
            .prepare("SELECT pgno, data FROM sqlite_dbpage('main') WHERE pgno >= ?1")
            .map_err(failed)?;
        let mut rows = statement
            .query([i64::try_from(pages.start).unwrap_or(i64::MAX)])
            .map_err(failed)?;
        let mut next = pages.start;
        while next < pages.end {
            let end = (next + pages_per_segment).min(pages.end);
            let mut buffer = self.queue.buffer();
            buffer.clear();
            let offset = (next - 1) * u64::from(page_size);
            while next < end {
                read_page(&mut rows, next, page_size, &mut buffer).map_err(failed)??;
                next += 1;
            }
            let held = self.clock.monotonic().saturating_sub(transaction.since);
            let patience = (!wal).then(|| self.options.max_stall.saturating_sub(held));
            match self.queue.push((offset, buffer), patience) {
                Pushed::Abandoned => return Err(abandoned(transaction.path)),
                Pushed::Full(segment) => return Ok((next, Some(segment))),
                Pushed::Queued if patience.is_some_and(|left| left.is_zero()) => return Ok((next, None)),
                Pushed::Queued => {}
            }
        }
        Ok((next, None))
    }

    /// Lets the lock go and takes it again. Goes on only if nobody wrote meanwhile.
    fn renew(&self, transaction: &mut Transaction<'_>, waiting: Option<(&Queue, Segment)>, stall: &mut Duration) -> Result<()> {
        let failed = |error| sqlite("read", &self.options.path, error);
        transaction.connection.execute_batch("COMMIT").map_err(failed)?;
        *stall = (*stall).max(self.clock.monotonic().saturating_sub(transaction.since));
        if let Some((queue, segment)) = waiting
            && !matches!(queue.push(segment, None), Pushed::Queued)
        {
            return Err(abandoned(transaction.path));
        }
        let again = self.transaction(transaction.connection)?;
        let unchanged = again.data_version == transaction.data_version;
        transaction.since = again.since;
        if unchanged {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TimedOut,
            "back up",
            self.options.path.display(),
            format!("it was written to before it was read whole within {:?}, the longest that writers may be kept waiting in rollback-journal mode", self.options.max_stall),
        )
        .with_hint(PATIENCE))
    }
}

/// Appends the page that comes next. The outer error is SQLite's, the inner one ours.
fn read_page(rows: &mut rusqlite::Rows<'_>, page: u64, page_size: u32, buffer: &mut Vec<u8>) -> rusqlite::Result<Result<()>> {
    let row = rows.next()?;
    let bytes = match row {
        Some(row) if row.get::<_, i64>(0)?.unsigned_abs() == page => row.get_ref(1)?.as_blob().unwrap_or_default(),
        _ => &[],
    };
    if bytes.len() != page_size as usize {
        return Ok(Err(Error::new(
            ErrorKind::Corrupt,
            "read",
            format!("page {page}"),
            "it is not there, although the header counts it",
        )));
    }
    buffer.extend_from_slice(bytes);
    Ok(Ok(()))
}

fn abandoned(path: &Path) -> Error {
    Error::new(ErrorKind::Interrupted, "back up", path.display(), "the backup was given up")
}
