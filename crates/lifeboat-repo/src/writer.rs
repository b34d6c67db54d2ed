//! Writing a backup: announce → write → commit (format 10, INV-02).
//!
//! What is in the store if we die: after `begin` an announcement and a key file; while files are put, packs that nothing names; during
//! `commit` also maps. A backup exists from the moment its backup file stands. Local state follows it (INV-07).

mod begin;
mod changes;
mod commit;
mod overlay;
mod pages;
mod place;
mod shared;
mod slots;
mod space;
mod stream;
mod tree;
mod upload;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lifeboat_io::compute;
use lifeboat_io::flow::{EXTENT_BYTES, PageSource};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use tokio::task::JoinSet;

use crate::closure::{Pack, SessionKey};
use crate::header::LogNeed;
use crate::id::{BackupId, ComponentName, Lineage, SessionId};
use crate::key::age::Encryption;
use crate::key::file::{KeyFile, KeyFiles};
use crate::key::instance::{Instance, Trust};
use crate::key::recipient::Fingerprint;
use crate::key::{ID_BYTES, Secret};
use crate::listing::Backup;
use crate::manifest::{FileMeta, FileRecord, Role, check_path};
use crate::map::{ROW_BYTES, Row};
use crate::pack::PackClass;
use crate::replicas::CopyOutcome;
use crate::repository::Repository;
use crate::session::OpenSession;
use crate::state::{FileState, State, StateFolder};
use changes::Expected;
use pages::{PageJob, ParentFile, Ranges, Worker, state_io};
use place::FreeRows;
use shared::Shared;
pub use shared::Stats;
use slots::Slots;
use stream::KnownChunks;
pub use stream::{StoredStream, Streams};
pub use tree::TreeCount;

/// What to back up, and how.
#[derive(Debug, Clone)]
pub struct BackupPlan {
    /// Of what.
    pub component: ComponentName,
    /// Its kind: `sqlite`.
    pub kind: String,
    /// `physical` or `logical`.
    pub method: String,
    /// Identity of the source: an incremental backup needs the same.
    pub source: String,
    /// Who writes.
    pub instance: Arc<Instance>,
    /// For whom the session's keys are wrapped.
    pub encryption: Encryption,
    /// Whose backups count.
    pub trust: Trust,
    /// Where local state is kept.
    pub state_dir: PathBuf,
    /// Free words.
    pub tags: Vec<String>,
    /// Why.
    pub reason: Option<String>,
    /// Retention does not give it up before it is this old.
    pub keep_for: Option<Duration>,
    /// Do not compare with an older backup.
    pub full: bool,
    /// A partial capture: never the newest, never a point.
    pub extract: bool,
    /// What an incremental backup stores of page files is compressed harder: nobody waits for the source meanwhile, and increments are kept
    /// by the dozen. Only the first GiB, so that a source of which much has changed takes no longer than before.
    pub patient: bool,
}

/// A committed backup.
#[derive(Debug)]
pub struct Committed {
    /// As a reader will see it.
    pub backup: Backup,
    /// What it took.
    pub stats: Stats,
    /// What the operator should know: why it was full, what was mended.
    pub notes: Vec<String>,
    /// What became of it in each store, in their order; at least one has it.
    pub copies: Vec<CopyOutcome>,
}

/// A session that writes one backup. Dropping it without [`Writer::commit`] leaves nothing that counts.
#[derive(Debug)]
pub struct Writer {
    env: Env,
    repository: Repository,
    plan: BackupPlan,
    open: Arc<OpenSession>,
    seq: u64,
    session: SessionId,
    lineage: Lineage,
    id_key: Secret,
    key: SessionKey,
    key_file: KeyFile,
    /// The key files that stood when this session began, for the sessions of the parent.
    old_key_files: KeyFiles,
    /// To whom the keys of this lineage were ever encrypted, as far as this machine knows.
    readers: BTreeSet<Fingerprint>,
    notes: Vec<String>,
    parent: Option<State>,
    folder: StateFolder,
    generation: Generation,
    chunks: Arc<KnownChunks>,
    shared: Arc<Shared>,
    uploader: JoinSet<Result<Vec<Pack>>>,
    files: Vec<FileState>,
    names: Names,
    free_rows: FreeRows,
    /// The file whose put began and has not succeeded: no backup may be made of this session any more (INV-03).
    unfinished: Option<String>,
    /// What the tree holds, where there is one.
    tree: Option<TreeCount>,
    /// The log that it needs, where it needs any.
    log: Option<LogNeed>,
    /// Pages that were bad in the source already.
    bad_pages: u64,
    /// Of files that are told as what changed.
    changes: Expected,
    next_hash: u64,
}

/// Files by their paths; clusters have a hundred thousand.
#[derive(Debug, Default)]
struct Names {
    /// Those whose put has begun.
    begun: HashSet<String>,
    /// Where those of the parent stand in its list.
    parent: HashMap<String, usize>,
}

impl Names {
    fn beside(parent: Option<&State>) -> Self {
        let files = parent.map_or(&[][..], |state| state.files.as_slice()).iter().enumerate();
        Self {
            begun: HashSet::new(),
            parent: files.map(|(index, file)| (file.record.meta.path.clone(), index)).collect(),
        }
    }

    /// The file `path` of the parent.
    fn of_parent<'a>(&self, parent: Option<&'a State>, path: &str) -> Option<&'a FileState> {
        parent?.files.get(*self.parent.get(path)?)
    }
}

/// The files of the generation that is being written, and of the parent's.
#[derive(Debug)]
struct Generation {
    number: u64,
    rows: Arc<File>,
    hashes: Arc<File>,
    slots: Arc<Slots>,
    row_hashes: Arc<File>,
    slot_hashes: Arc<File>,
    engine: Arc<File>,
    parent: Option<ParentGeneration>,
}

#[derive(Debug)]
struct ParentGeneration {
    rows: Arc<File>,
    hashes: Arc<File>,
    row_hashes: Arc<File>,
    slot_hashes: Arc<File>,
    engine: Arc<File>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Workers on other threads stop at their next segment.
        self.shared.cancel();
    }
}

impl Writer {
    /// Takes the component's lock, announces the session and prepares its keys. Kind `Locked` while another writer runs here.
    pub async fn begin(env: &Env, repository: &Repository, plan: BackupPlan) -> Result<Self> {
        begin::begin(env, repository, plan).await
    }

    /// Says which log the backup needs, before it is committed. Whether that log is held in each store is for the caller to find out first (PG-01).
    pub fn needs_log(&mut self, log: LogNeed) {
        self.log = Some(log);
    }

    /// Says how many pages were bad in the source already, before it is committed: retention keeps the last backup without any (PG-11).
    pub fn found_bad_pages(&mut self, count: u64) {
        self.bad_pages = count;
    }

    /// The backup that unchanged data is compared with; `None` for a full one.
    #[must_use]
    pub fn parent(&self) -> Option<&BackupId> {
        self.parent.as_ref().map(|state| &state.backup)
    }

    /// What the operator should know so far.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Stores a page file. Any error means that no backup may be committed (INV-03).
    pub async fn put_pages(&mut self, meta: FileMeta, source: Arc<dyn PageSource>) -> Result<FileRecord> {
        self.start_file(&meta.path)?;
        let job = Arc::new(self.page_job(&meta.path, source.page_size(), source.size_bytes())?);
        self.run_workers(&job, &source).await?;
        self.end_pages(meta, &job)
    }

    /// Room for a page file.
    fn page_job(&mut self, path: &str, page_size: u32, size_bytes: u64) -> Result<PageJob> {
        if !(512..=65536).contains(&page_size) || !page_size.is_power_of_two() {
            return Err(Error::new(
                ErrorKind::Bug,
                "store",
                path,
                format!("{page_size} is no page size"),
            ));
        }
        let parent = self.parent_file(path, page_size);
        let ranges = self.place_rows(path, size_bytes.div_ceil(EXTENT_BYTES as u64));
        let hashes_at = self.next_hash;
        self.next_hash += size_bytes.div_ceil(u64::from(page_size)) * ID_BYTES as u64;
        Ok(PageJob {
            shared: Arc::clone(&self.shared),
            page_size: page_size as usize,
            size_bytes,
            ranges: Ranges(ranges),
            rows: Arc::clone(&self.generation.rows),
            hashes: Arc::clone(&self.generation.hashes),
            hashes_at,
            slots: Arc::clone(&self.generation.slots),
            parent,
            way: self.way_of(path),
        })
    }

    /// All rows of a page file are there.
    fn end_pages(&mut self, meta: FileMeta, job: &PageJob) -> Result<FileRecord> {
        let page_size = crate::bytes::len_u32(job.page_size, "a page")?;
        let record = FileRecord {
            meta,
            role: Role::File,
            page_size,
            size_bytes: job.size_bytes,
            root: self.page_root(job.size_bytes, page_size, &job.ranges.0)?,
            ranges: job.ranges.0.clone(),
        };
        self.files.push(FileState {
            record: record.clone(),
            hashes_at: job.hashes_at,
        });
        self.unfinished = None;
        Ok(record)
    }

    /// Stores a stream of bytes of unknown length.
    pub async fn put_stream(&mut self, meta: FileMeta, reader: Box<dyn Read + Send>) -> Result<FileRecord> {
        self.put_as(Role::File, meta, reader).await
    }

    async fn put_as(&mut self, role: Role, meta: FileMeta, reader: Box<dyn Read + Send>) -> Result<FileRecord> {
        self.start_file(&meta.path)?;
        let (shared, chunks, name) = (Arc::clone(&self.shared), Arc::clone(&self.chunks), meta.path.clone());
        let stored = compute::run("store a stream", move || {
            stream::store(&shared, PackClass::Data, &chunks, &name, reader)
        })
        .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => return Err(self.first_cause(error).await),
        };
        let record = self.add_rows(role, meta, &stored)?;
        self.unfinished = None;
        Ok(record)
    }

    /// Gives the rows of a stream their places.
    fn add_rows(&mut self, role: Role, meta: FileMeta, stored: &stream::Stored) -> Result<FileRecord> {
        let ranges = self.place_rows(&meta.path, stored.rows.len() as u64);
        let table = Ranges(ranges.clone());
        for (index, row) in stored.rows.iter().enumerate() {
            let number = table.row(index as u64).unwrap_or_default();
            write_row(&self.generation.rows, number, row)?;
        }
        let record = FileRecord {
            meta,
            role,
            page_size: 0,
            size_bytes: stored.size_bytes,
            root: stored.root,
            ranges,
        };
        self.files.push(FileState {
            record: record.clone(),
            hashes_at: 0,
        });
        Ok(record)
    }

    /// For streams that several threads store side by side. Each has to come back to [`Writer::add_stream`] before anything is committed.
    #[must_use]
    pub fn streams(&self) -> Streams {
        Streams {
            shared: Arc::clone(&self.shared),
            chunks: Arc::clone(&self.chunks),
        }
    }

    /// Makes a stored stream a file of the backup.
    pub fn add_stream(&mut self, meta: FileMeta, stream: StoredStream) -> Result<FileRecord> {
        self.start_file(&meta.path)?;
        let record = self.add_rows(Role::File, meta, &stream.stored)?;
        self.unfinished = None;
        self.shared.open_streams.fetch_sub(1, Ordering::Relaxed);
        Ok(record)
    }

    /// Why it ended, where `error` only says that something else did: an upload that failed, for example.
    pub async fn cause(&mut self, error: Error) -> Error {
        self.first_cause(error).await
    }

    /// Makes the backup: after this returned, it stands and counts. `moment_us` is the moment of consistency.
    pub async fn commit(self, moment_us: i64, facts: serde_json::Value) -> Result<Committed> {
        commit::commit(self, moment_us, facts).await
    }

    /// INV-03: nothing is committed while a file is not stored whole.
    fn refuse_unfinished(&self) -> Result<()> {
        let open = self.shared.open_streams.load(Ordering::Relaxed) > 0;
        let changed = self.changes.unknown.first();
        let unfinished = self.unfinished.as_ref().or(changed).map(String::as_str);
        match unfinished.or(open.then_some("one of the streams")) {
            Some(path) => Err(unfinished_file(path)),
            None => Ok(()),
        }
    }

    /// Notes that a file is on its way: whatever ends the put early, an error or a dropped future, then stands in the way of a commit.
    fn start_file(&mut self, path: &str) -> Result<()> {
        if let Some(unfinished) = &self.unfinished {
            return Err(unfinished_file(unfinished));
        }
        self.unfinished = Some(path.to_owned());
        check_path(path)?;
        if !self.names.begun.insert(path.to_owned()) {
            return Err(Error::new(
                ErrorKind::Bug,
                "store",
                path,
                "it was stored in this backup already",
            ));
        }
        Ok(())
    }

    /// Rows for a file: where the parent has them, else where it has none.
    fn place_rows(&mut self, path: &str, rows: u64) -> Vec<(u64, u64)> {
        let parent = self.names.of_parent(self.parent.as_ref(), path);
        self.free_rows
            .place(parent.map_or(&[], |file| file.record.ranges.as_slice()), rows)
    }

    async fn run_workers(&mut self, job: &Arc<PageJob>, source: &Arc<dyn PageSource>) -> Result<()> {
        let mut workers = JoinSet::new();
        for _ in 0..self.env.threads.max(1) {
            let (job, source) = (Arc::clone(job), Arc::clone(source));
            workers.spawn(compute::run("back up", move || {
                let result = Worker::run(&job, source.as_ref());
                if result.is_err() {
                    job.shared.cancel();
                }
                result
            }));
        }
        let mut failure: Option<Error> = None;
        while let Some(joined) = workers.join_next().await {
            let result = joined.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Bug, "back up", &self.plan.component, "a worker panicked").with_source(error))
            });
            if let Err(error) = result {
                // The first real reason, not the "cancelled" of those who stopped because of it.
                if failure.as_ref().is_none_or(|known| known.kind() == ErrorKind::Interrupted) {
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) => Err(self.first_cause(error).await),
            None => Ok(()),
        }
    }

    /// When workers stopped because an upload failed, that failure is what the operator needs to see.
    async fn first_cause(&mut self, error: Error) -> Error {
        self.shared.cancel();
        if error.kind() != ErrorKind::Interrupted {
            return error;
        }
        match self.uploader.join_next().await {
            Some(Ok(Err(cause))) => cause,
            _ => error,
        }
    }

    fn parent_file(&self, path: &str, page_size: u32) -> Option<ParentFile> {
        let (state, generation) = (self.parent.as_ref()?, self.generation.parent.as_ref()?);
        let file = self
            .names
            .of_parent(Some(state), path)
            .filter(|file| file.record.page_size == page_size)?;
        Some(ParentFile {
            rows: Arc::clone(&generation.rows),
            hashes: Arc::clone(&generation.hashes),
            ranges: Ranges(file.record.ranges.clone()),
            hashes_at: file.hashes_at,
            size_bytes: file.record.size_bytes,
        })
    }

    fn page_root(&self, size_bytes: u64, page_size: u32, ranges: &[(u64, u64)]) -> Result<[u8; 32]> {
        let mut root = self.shared.ids.root(size_bytes, page_size);
        for_each_row(&self.generation.rows, ranges, |row| {
            root.add(&row.id());
            if row == Row::Unused {
                return Err(Error::new(
                    ErrorKind::Unreachable,
                    "read",
                    "the source",
                    "it gave fewer bytes than it announced",
                ));
            }
            Ok(())
        })?;
        Ok(root.finish())
    }
}

/// INV-03: what the caller gets when it wants a backup although a file of it failed.
fn unfinished_file(path: &str) -> Error {
    Error::new(
        ErrorKind::Bug,
        "go on with the backup after",
        path,
        "it was not stored whole, so there is no backup",
    )
}

fn write_row(rows: &File, number: u64, row: &Row) -> Result<()> {
    use std::os::unix::fs::FileExt;
    rows.write_all_at(&row.encode(), number * ROW_BYTES as u64).map_err(state_io)
}

/// Reads the rows of a file in order.
fn for_each_row(rows: &File, ranges: &[(u64, u64)], mut visit: impl FnMut(Row) -> Result<()>) -> Result<()> {
    use std::os::unix::fs::FileExt;
    const BATCH: u64 = 4096;
    let mut buffer = Vec::new();
    for (first, count) in ranges {
        let mut done = 0;
        while done < *count {
            let batch = (count - done).min(BATCH);
            buffer.resize(crate::bytes::size(batch * ROW_BYTES as u64, "rows")?, 0);
            rows.read_exact_at(&mut buffer, (first + done) * ROW_BYTES as u64)
                .map_err(state_io)?;
            for row in buffer.chunks_exact(ROW_BYTES) {
                visit(Row::decode(row)?)?;
            }
            done += batch;
        }
    }
    Ok(())
}
