//! Reading a backup: open → plan → fetch in pack order → verify → give out (INV-10).
//!
//! Memory is bounded: rows are read window by window, packs in pieces of a few MiB (INV-08).

mod fetch;
mod in_order;
pub(crate) mod keys;
mod plan;
mod space;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use futures_util::future::join;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use lifeboat_io::compute;
use lifeboat_io::flow::{EXTENT_BYTES, PageSink};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use ring::aead::LessSafeKey;
use tokio::sync::{OnceCell, Semaphore};

use crate::bytes::{len_u32, size};
use crate::header;
use crate::id::ComponentName;
use crate::key::age::SessionKeys;
use crate::key::identity::Identities;
use crate::key::{Id, IdKeys, Root, Scope, file_key};
use crate::listing::{BACKUP_LIMIT_BYTES, Backup};
use crate::manifest::{FileRecord, Manifest, decode_table};
use crate::map::Row;
use crate::pack::{Class, Opener, PACK_HEADER_BYTES, Placement, aead_key, read_pack_header};
use crate::repository::Repository;
use crate::sync::lock;
use plan::{WINDOW_ROWS, Window};

/// The longest row whose bytes are looked for in what is there already.
const COMPARED_BYTES: u64 = 64 << 20;
/// Threads beyond one for each processor that open what has come: these wait for the disk.
const WRITERS: usize = 3;
/// Reads on their way together: two for each processor, more where the store is far.
fn reads_at_once(env: &Env, repository: &Repository) -> usize {
    (env.threads.max(1) * 2).max(repository.store().requests_at_once())
}

/// What reading a file will take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadPlan {
    /// Bytes to fetch from the store.
    pub fetch_bytes: u64,
    /// Blobs to open.
    pub blobs: u64,
    /// Packs they lie in.
    pub packs: u64,
    /// Bytes of the restored file.
    pub size_bytes: u64,
}

/// What reading a file took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes fetched from the store.
    pub fetched_bytes: u64,
    /// Bytes written to the destination.
    pub written_bytes: u64,
    /// Bytes that were there already and were right.
    pub reused_bytes: u64,
}

/// What was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Blobs opened, or stored files hashed.
    pub blobs: u64,
    /// Bytes read from the store.
    pub bytes: u64,
}

/// An opened backup.
#[derive(Debug, Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    repository: Repository,
    backup: Backup,
    /// For each session of the closure.
    keys: Vec<SessionKeys>,
    ids: IdKeys,
    scope: Scope,
    manifest: Manifest,
    files: Vec<FileRecord>,
    pack_keys: BTreeMap<u32, OnceCell<Arc<LessSafeKey>>>,
    openers: Mutex<Vec<Opener>>,
    /// Reads on their way: each holds a piece of a pack in memory until it is opened (INV-08).
    reads: Semaphore,
    /// How many batches are opened at once.
    opens: Semaphore,
    /// Pieces of the maps that were read last, for all files together.
    extents: Mutex<VecDeque<(Id, Arc<Vec<u8>>)>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("backup", &self.backup.id)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn component(&self) -> &ComponentName {
        &self.backup.header.component
    }

    fn store_name(&self) -> String {
        format!("backup {} of {}", self.backup.id.short(), self.component())
    }

    /// The key of a pack; its salt is fetched once.
    async fn pack_key(&self, number: u32) -> Result<Arc<LessSafeKey>> {
        let unknown = || {
            Error::new(
                ErrorKind::Corrupt,
                "read",
                self.store_name(),
                format!("a row names pack {number}, which is not in the closure"),
            )
        };
        let cell = self.pack_keys.get(&number).ok_or_else(unknown)?;
        let key = cell
            .get_or_try_init(|| async {
                let pack = self.backup.closure.pack(number).ok_or_else(unknown)?;
                let keys = self.keys.get(pack.session as usize).ok_or_else(unknown)?;
                let name = self.backup.closure.pack_key(pack, self.component())?;
                let head = self.repository.store().get_range(&name, 0..PACK_HEADER_BYTES as u64).await;
                let head = head.map_err(lost_file)?;
                let salt = read_pack_header(&head, pack.class.magic(), keys.session.as_bytes(), name.as_str())?;
                Ok::<_, Error>(Arc::new(aead_key(&file_key(&keys.data_key, &salt, &self.scope))?))
            })
            .await?;
        Ok(Arc::clone(key))
    }

    /// Reads one blob. The caller names what it must be.
    async fn blob(&self, place: Placement, class: Class, raw_bytes: u32, id: [u8; 16]) -> Result<Vec<u8>> {
        let pack = self.backup.closure.pack(place.pack);
        let pack = pack.ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "read",
                self.store_name(),
                "a row names a pack that is not in the closure",
            )
        })?;
        let name = self.backup.closure.pack_key(pack, self.component())?;
        let range = u64::from(place.offset)..u64::from(place.offset) + u64::from(place.stored_bytes);
        let (key, sealed) = join(self.pack_key(place.pack), self.repository.store().get_range(&name, range)).await;
        let (key, mut sealed) = (key?, sealed.map_err(lost_file)?.to_vec());
        let raw = Opener::new()?
            .open(&key, &mut sealed, &place, class, raw_bytes, &id)?
            .to_vec();
        self.check_id(&raw, class, &id, 4096, &name)?;
        Ok(raw)
    }

    /// Compares the id of what was opened (INV-10).
    fn check_id(&self, raw: &[u8], class: Class, id: &[u8; 16], page_size: usize, name: &impl std::fmt::Display) -> Result<()> {
        let actual = match class {
            Class::Extent | Class::MapExtent => self.ids.extent_of(raw, page_size),
            Class::Chunk => self.ids.chunk(raw),
            Class::Group => self.ids.group(raw),
        };
        if &actual == id {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::Corrupt,
                "read",
                name,
                "its content does not fit its identity",
            ))
        }
    }

    /// The id that a row has whose bytes these are: an extent of a page file, or a chunk of a stream (page size 0).
    fn id_of_row(&self, bytes: &[u8], page_size: usize) -> Id {
        if page_size == 0 {
            self.ids.chunk(bytes)
        } else {
            self.ids.extent_of(bytes, page_size)
        }
    }

    fn take_opener(&self) -> Result<Opener> {
        let pooled = lock(&self.openers).pop();
        pooled.map_or_else(Opener::new, Ok)
    }

    fn give_back(&self, opener: Opener) {
        lock(&self.openers).push(opener);
    }
}

impl Reader {
    /// Opens a backup. `WrongKey`: none of `identities` fits one of the sessions it reaches; `Corrupt`: something is damaged (INV-11).
    pub async fn open(env: &Env, repository: &Repository, backup: &Backup, identities: &Identities) -> Result<Self> {
        let scope = Scope::new(repository.id(), &backup.header.component);
        let (keys, stored) = join(
            keys::open(repository, backup, identities, &scope),
            read_backup_file(repository, backup),
        )
        .await;
        let (keys, stored) = (keys?, stored?);
        let own = keys
            .first()
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "open", backup.id.short(), "it names no session"))?;
        let ids = IdKeys::derive(&own.id_key);
        let body = stored
            .get(..stored.len().saturating_sub(crate::signed::TRAILER_BYTES))
            .unwrap_or_default();
        let parts = header::decode(body)?;
        let manifest = Manifest::open(parts.manifest, &own.data_key, &scope, parts.clear)?;
        let pack_keys = backup
            .closure
            .packs
            .iter()
            .map(|pack| (pack.number, OnceCell::new()))
            .collect();
        let inner = Inner {
            env: env.clone(),
            repository: repository.clone(),
            backup: backup.clone(),
            keys,
            ids,
            scope,
            manifest,
            files: Vec::new(),
            pack_keys,
            openers: Mutex::default(),
            reads: Semaphore::new(reads_at_once(env, repository)),
            opens: Semaphore::new(env.threads.max(1) + WRITERS),
            extents: Mutex::default(),
        };
        let inner = with_file_table(inner).await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The files it holds.
    #[must_use]
    pub fn files(&self) -> &[FileRecord] {
        &self.inner.files
    }

    /// What the engine recorded when it was made.
    #[must_use]
    pub fn facts(&self) -> &serde_json::Value {
        &self.inner.manifest.facts
    }

    /// What reading `file` will take, found out from the maps alone.
    pub async fn plan(&self, file: &FileRecord) -> Result<ReadPlan> {
        let mut total = ReadPlan {
            size_bytes: file.size_bytes,
            ..ReadPlan::default()
        };
        let mut packs = BTreeSet::new();
        let mut walk = self.walk(file);
        while let Some(window) = walk.next().await? {
            // A stream may hold one chunk many times; a window reads it once.
            let places: BTreeSet<_> = window.bases.iter().chain(&window.groups).map(|job| job.place).collect();
            for place in places {
                total.fetch_bytes += u64::from(place.stored_bytes);
                total.blobs += 1;
                packs.insert(place.pack);
            }
        }
        total.packs = packs.len() as u64;
        Ok(total)
    }

    /// Restores files, each into its sink, as [`Reader::restore`] does: `at_once` of them are fetched side by side, and as many that have come
    /// are finished, which may mean that all of them is read once more. So store and disk are busy at the same time. On an error the sinks
    /// hold parts of files and must not be published.
    pub async fn restore_all(&self, files: Vec<(FileRecord, Arc<dyn PageSink>)>, at_once: usize) -> Result<Fetched> {
        let files = files.into_iter().map(|(file, sink)| (file, sink, false));
        self.restore_onto(files.collect(), at_once).await
    }

    /// The same over sinks that may hold something: of those that come with `true`, what is right already is neither fetched nor written.
    pub async fn restore_onto(&self, files: Vec<(FileRecord, Arc<dyn PageSink>, bool)>, at_once: usize) -> Result<Fetched> {
        let at_once = at_once.max(1);
        stream::iter(files)
            .map(|(file, sink, reuse_existing)| async move {
                let fetched = self.fetch(&file, &sink, reuse_existing).await?;
                Ok::<_, Error>((fetched, sink, file.size_bytes))
            })
            .buffer_unordered(at_once)
            .map_ok(|(fetched, sink, size_bytes)| async move {
                finish(sink, size_bytes).await?;
                Ok(fetched)
            })
            .try_buffer_unordered(at_once)
            .try_fold(Fetched::default(), async |mut total, fetched| {
                total.fetched_bytes += fetched.fetched_bytes;
                total.written_bytes += fetched.written_bytes;
                total.reused_bytes += fetched.reused_bytes;
                Ok(total)
            })
            .await
    }

    /// Writes the whole of `file` into `sink`, verifies all of it, and finishes the sink. With `reuse_existing`, extents that `sink`
    /// already holds rightly are not fetched. On an error the sink holds part of the file and must not be published.
    pub async fn restore(&self, file: &FileRecord, sink: Arc<dyn PageSink>, reuse_existing: bool) -> Result<Fetched> {
        let fetched = self.fetch(file, &sink, reuse_existing).await?;
        finish(sink, file.size_bytes).await?;
        Ok(fetched)
    }

    /// All of [`Reader::restore`] but the end.
    async fn fetch(&self, file: &FileRecord, sink: &Arc<dyn PageSink>, reuse_existing: bool) -> Result<Fetched> {
        let mut total = Fetched::default();
        let mut root = self.inner.ids.root(file.size_bytes, file.page_size);
        let mut walk = self.walk(file);
        while let Some(mut window) = walk.next().await? {
            root.add(&window.ids);
            if reuse_existing {
                total.reused_bytes += self.drop_existing(&mut window, file, sink).await?;
            }
            self.write_zeros(&window, sink, reuse_existing, &mut total)?;
            let page_size = file.page_size as usize;
            for jobs in [std::mem::take(&mut window.bases), std::mem::take(&mut window.groups)] {
                let fetched = fetch::run(&self.inner, jobs, page_size, Some(sink)).await?;
                total.fetched_bytes += fetched.fetched_bytes;
                total.written_bytes += fetched.written_bytes;
            }
            self.check_assembled(&window, file, sink).await?;
        }
        self.check_root_value(&root, file)?;
        Ok(total)
    }

    /// Reads restored bytes back and compares their root with the captured one; kind `Corrupt` when they differ.
    pub async fn check_root(&self, file: &FileRecord, sink: Arc<dyn PageSink>) -> Result<()> {
        let mut root = self.inner.ids.root(file.size_bytes, file.page_size);
        let mut walk = self.walk(file);
        let mut offset = 0;
        while let Some(window) = walk.next().await? {
            let (inner, sink, file) = (Arc::clone(&self.inner), Arc::clone(&sink), file.clone());
            let lengths = window.lengths;
            let (ids, end) = compute::run("read back", move || read_back(&inner, &*sink, &file, offset, &lengths)).await?;
            root.add(&ids);
            offset = end;
        }
        self.check_root_value(&root, file)
    }

    /// Reads a small stream into memory.
    pub async fn read_stream(&self, file: &FileRecord, limit_bytes: u64) -> Result<Vec<u8>> {
        if file.size_bytes > limit_bytes {
            return Err(Error::new(
                ErrorKind::Refused,
                "read",
                &file.meta.path,
                format!("it has {} bytes, more than the {limit_bytes} allowed here", file.size_bytes),
            ));
        }
        let mut bytes = Vec::new();
        let mut root = self.inner.ids.root(file.size_bytes, file.page_size);
        let mut walk = self.walk(file);
        while let Some(window) = walk.next().await? {
            root.add(&window.ids);
            for job in window.bases {
                bytes.extend_from_slice(&self.inner.blob(job.place, job.class, job.raw_bytes, job.id).await?);
            }
        }
        self.check_root_value(&root, file)?;
        Ok(bytes)
    }

    /// Level `decrypt`: opens every blob that the backup reaches and compares its id.
    pub async fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        for file in &self.inner.files {
            let mut root = self.inner.ids.root(file.size_bytes, file.page_size);
            let mut walk = self.walk(file);
            while let Some(window) = walk.next().await? {
                root.add(&window.ids);
                for jobs in [window.bases, window.groups] {
                    verified.blobs += jobs.len() as u64;
                    verified.bytes += fetch::run(&self.inner, jobs, file.page_size as usize, None)
                        .await?
                        .fetched_bytes;
                }
            }
            self.check_root_value(&root, file)?;
        }
        Ok(verified)
    }

    /// Numbers of all packs that this backup reaches, found out from its maps: the rows of its files, their overlay slots, the spaces' own
    /// rows and the file table (INV-06: exactly the packs of its closure).
    pub async fn reached(&self) -> Result<BTreeSet<u32>> {
        let manifest = &self.inner.manifest;
        let mut reached = BTreeSet::new();
        for inline in [&manifest.row_space, &manifest.overlay_space, &manifest.file_table] {
            reached.extend(inline.rows.iter().filter_map(Row::pack));
        }
        for file in &self.inner.files {
            let mut walk = self.walk(file);
            while let Some(window) = walk.next().await? {
                reached.extend(window.packs);
            }
        }
        Ok(reached)
    }

    fn walk<'a>(&'a self, file: &'a FileRecord) -> plan::Walk<'a> {
        plan::Walk::new(&self.inner, file, WINDOW_ROWS)
    }

    fn check_root_value(&self, root: &Root, file: &FileRecord) -> Result<()> {
        if root.finish() == file.root {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::Corrupt,
                "read",
                &file.meta.path,
                format!(
                    "its content does not add up to the root that {} recorded",
                    self.inner.store_name()
                ),
            ))
        }
    }

    /// Takes out of the window what the sink already holds; returns the bytes saved.
    async fn drop_existing(&self, window: &mut Window, file: &FileRecord, sink: &Arc<dyn PageSink>) -> Result<u64> {
        let (inner, sink, page_size) = (Arc::clone(&self.inner), Arc::clone(sink), file.page_size as usize);
        let (ids, lengths, offset) = (window.ids.clone(), window.lengths.clone(), window.offset);
        let right = compute::run("compare", move || {
            let mut right = std::collections::BTreeSet::new();
            let mut buffer = Vec::new();
            let mut at = offset;
            for (id, length) in ids.chunks(16).zip(&lengths) {
                // What no row may have is left to whoever opens the blob.
                buffer.resize(size(u64::from(*length).min(COMPARED_BYTES), "a row")?, 0);
                sink.read_at(at, &mut buffer)?;
                if inner.id_of_row(&buffer, page_size) == id {
                    right.insert(at);
                    inner.env.progress.advance(u64::from(*length));
                }
                at += u64::from(*length);
            }
            Ok(right)
        })
        .await?;
        Ok(window.drop_extents(&right))
    }

    fn write_zeros(&self, window: &Window, sink: &Arc<dyn PageSink>, existing: bool, total: &mut Fetched) -> Result<()> {
        for (offset, length) in &window.zeros {
            if existing {
                sink.write_at(*offset, &vec![0; *length as usize])?;
                total.written_bytes += u64::from(*length);
            }
            self.inner.env.progress.advance(u64::from(*length));
        }
        Ok(())
    }

    /// Extents that were put together from a base and overlays are read back and compared as a whole.
    async fn check_assembled(&self, window: &Window, file: &FileRecord, sink: &Arc<dyn PageSink>) -> Result<()> {
        if window.assembled.is_empty() {
            return Ok(());
        }
        let (inner, sink, page_size) = (Arc::clone(&self.inner), Arc::clone(sink), file.page_size as usize);
        let (assembled, path) = (window.assembled.clone(), file.meta.path.clone());
        compute::run("check", move || {
            let mut buffer = vec![0; EXTENT_BYTES];
            for (offset, length, id) in &assembled {
                let extent = &mut buffer[..*length as usize];
                sink.read_at(*offset, extent)?;
                inner.check_id(extent, Class::Extent, id, page_size, &format!("{path} at byte {offset}"))?;
            }
            Ok(())
        })
        .await
    }
}

async fn finish(sink: Arc<dyn PageSink>, size_bytes: u64) -> Result<()> {
    compute::run("make durable", move || sink.finish(size_bytes)).await
}

fn read_back(inner: &Inner, sink: &dyn PageSink, file: &FileRecord, mut offset: u64, lengths: &[u32]) -> Result<(Vec<u8>, u64)> {
    let mut ids = Vec::with_capacity(lengths.len() * 16);
    let mut buffer = Vec::new();
    for length in lengths {
        buffer.resize(*length as usize, 0);
        sink.read_at(offset, &mut buffer)?;
        ids.extend_from_slice(&inner.id_of_row(&buffer, file.page_size as usize));
        offset += u64::from(*length);
    }
    Ok((ids, offset))
}

/// What was listed and is not there when it is read: for whoever wants the data that is damage.
pub(crate) fn lost_file(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        error
            .with_kind(ErrorKind::Corrupt)
            .with_hint("the file went missing from the store; `lifeboat list` shows which backups are whole")
    } else {
        error
    }
}

async fn read_backup_file(repository: &Repository, backup: &Backup) -> Result<bytes::Bytes> {
    let name = backup.header.component.folder()?.join(&format!("backups/{}", backup.id))?;
    let stored = repository.store().get(&name, BACKUP_LIMIT_BYTES).await.map_err(lost_file)?;
    if blake3::hash(&stored).as_bytes() == &backup.id.hash {
        Ok(stored)
    } else {
        Err(Error::new(
            ErrorKind::Corrupt,
            "open",
            backup.id.short(),
            "its bytes do not hash to its name",
        ))
    }
}

async fn with_file_table(mut inner: Inner) -> Result<Inner> {
    let mut table = Vec::new();
    let rows = inner.manifest.file_table.rows.clone();
    for row in rows {
        let Row::Blob { place, extra, id } = row else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "read",
                "the file table",
                "one of its rows is empty",
            ));
        };
        table.extend_from_slice(&inner.blob(place, Class::Chunk, extra, id).await?);
    }
    if table.len() as u64 != inner.manifest.file_table.size_bytes {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "read",
            "the file table",
            "it has another length than the manifest says",
        ));
    }
    inner.files = decode_table(&table)?;
    Ok(inner)
}

impl Window {
    /// Removes the extents at these offsets from the work; returns their bytes.
    fn drop_extents(&mut self, right: &std::collections::BTreeSet<u64>) -> u64 {
        let mut saved = 0;
        let mut at = self.offset;
        for length in &self.lengths {
            if right.contains(&at) {
                saved += u64::from(*length);
            }
            at += u64::from(*length);
        }
        self.zeros.retain(|(offset, _)| !right.contains(offset));
        self.assembled.retain(|(offset, _, _)| !right.contains(offset));
        for job in self.bases.iter_mut().chain(&mut self.groups) {
            job.targets.retain(|target| !right.contains(&target.extent_offset()));
        }
        self.bases.retain(|job| !job.targets.is_empty());
        self.groups.retain(|job| !job.targets.is_empty());
        saved
    }
}

/// Length of extent `index` of a page file.
fn extent_length(size_bytes: u64, index: u64) -> Result<u32> {
    let left = size_bytes
        .saturating_sub(index * EXTENT_BYTES as u64)
        .min(EXTENT_BYTES as u64);
    len_u32(size(left, "a file size")?, "an extent")
}
