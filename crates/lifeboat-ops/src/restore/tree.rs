//! Restoring files: the tree is fetched, its folders and files are made in the staging folder, the segments fill them, every file is compared
//! with its hash, owners and modes and times are set, links come last, and one rename publishes it all (INV-12).
//!
//! Small files are read back. Large ones are hashed block by block as they are handed to the disk, in place, and `verify` reads them back
//! too (docs/decisions/0011-large-files-are-hashed-on-their-way.md).
//!
//! Memory holds 24 bytes for each file and 8 for each folder, not the tree itself (INV-08).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use lifeboat_engine::files::{self, Beneath, Chosen, Content, Dressing, Entry, Kind, Root, TreeReader, entry_at, leads_out};
use lifeboat_io::compute;
use lifeboat_io::direct::{self, Aligned};
use lifeboat_io::durable;
use lifeboat_io::flow::PageSink;
use lifeboat_io::gather::{Gather, ReadBack, Watch};
use lifeboat_io::sink::FileSink;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Fetched, FileRecord, Reader, Role};

use super::block_hashes::BlockHashes;
use super::staging::Staging;
use super::{Findings, create};

/// Larger files are made durable as soon as they are whole; the many small ones together at the end.
const SYNC_BYTES: u64 = 1 << 20;
/// Larger files go around the page cache, to the disk and back. For smaller ones that costs more than it saves.
const AROUND_BYTES: u64 = 4 << 20;
/// Blocks of 1 MiB that are gathered of all files together.
const GATHERED: usize = 40;
/// Segments on their way at once: while some are compared or wait for their maps, others come.
const SEGMENTS_AT_ONCE: usize = 4;
/// Files that wait to be made durable; what does not fit waits for the end.
const WAITING_FILES: usize = 64;

/// A thread that makes files durable while others still come.
#[derive(Debug)]
struct Durable {
    files: Mutex<Option<SyncSender<File>>>,
    thread: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
}

impl Durable {
    /// Where no thread can be had, all is done at the end.
    fn begin() -> Self {
        let (files, waiting) = sync_channel::<File>(WAITING_FILES);
        let sync = move || waiting.iter().try_for_each(|file| file.sync_data());
        let thread = std::thread::Builder::new().name("durable".into()).spawn(sync).ok();
        Self {
            files: Mutex::new(thread.is_some().then_some(files)),
            thread: Mutex::new(thread),
        }
    }

    fn soon(&self, file: File) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = files.as_ref() {
            // Full: the end takes it. Ended: it has an error for the end.
            drop(files.try_send(file));
        }
    }

    /// The kernel reports a failed write once: if it told the thread, the error comes from here.
    fn end(&self) -> Result<()> {
        drop(self.files.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let failed = |error| Error::io("make durable", "the restored files", error);
        match thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(synced)) => synced.map_err(failed),
            Some(Err(_panic)) => Err(Error::new(
                ErrorKind::Bug,
                "make durable",
                "the restored files",
                "the syncing thread panicked",
            )),
        }
    }
}

/// What a person may choose about a restore of files.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only what these patterns below the root name; empty for everything.
    pub paths: Vec<String>,
    /// Make links that lead out of the tree, too.
    pub outside_links: bool,
}

/// What becomes of a restored tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Give everything the owner that it had.
    pub(super) keep_owner: bool,
    /// It stays, and must outlive a power cut.
    pub(super) durable: bool,
    /// Every file is read back from the disk, the large ones too.
    pub(super) read_back: bool,
}

/// A restored and checked tree that has not got its name yet.
#[derive(Debug)]
pub(super) struct StagedTree {
    /// The folder that is to be published.
    pub(super) folder: PathBuf,
    /// The tree's lines.
    pub(super) list: PathBuf,
    pub(super) findings: Findings,
    pub(super) fetched: Fetched,
    pub(super) notes: Vec<String>,
}

/// The tree of a backup of files; `None` for backups of anything else.
pub(crate) fn record(reader: &Reader) -> Option<&FileRecord> {
    reader.files().iter().find(|file| file.role == Role::Tree)
}

/// A part of a segment that is the content of one file.
#[derive(Debug, Clone, Copy)]
struct Part {
    begin: u64,
    end: u64,
    /// Where the file's line stands in the tree.
    line_at: u64,
}

/// The parts of a segment in order; `furthest` is the furthest end so far, so that parts that overlap are found, too.
#[derive(Debug, Default)]
struct Parts {
    parts: Vec<Part>,
    furthest: Vec<u64>,
}

impl Parts {
    fn settle(&mut self) {
        self.parts.sort_unstable_by_key(|part| (part.begin, part.end, part.line_at));
        let mut furthest = 0;
        self.furthest = self
            .parts
            .iter()
            .map(|part| {
                furthest = furthest.max(part.end);
                furthest
            })
            .collect();
    }

    /// Those that share bytes with `begin..end`.
    fn touching(&self, begin: u64, end: u64) -> impl Iterator<Item = &Part> {
        let from = self.furthest.partition_point(|furthest| *furthest <= begin);
        self.parts
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(move |part| part.begin < end)
            .filter(move |part| part.end > begin)
    }
}

/// Distributes the bytes of a segment to its files; at its end, each of them is compared, while other segments still come.
#[derive(Debug)]
struct SegmentSink {
    beneath: Arc<Beneath>,
    list: Arc<File>,
    parts: Parts,
    gather: Arc<Gather>,
    hashes: Arc<BlockHashes>,
    /// Files that were compared, in all segments.
    checked: Arc<AtomicU64>,
    durable: Arc<Durable>,
}

impl SegmentSink {
    fn named(&self, line_at: u64) -> Result<(File, String)> {
        let entry = entry_at(&self.list, line_at)?;
        Ok((self.beneath.file(&entry.path)?, entry.shown()))
    }

    fn write_piece(&self, part: &Part, entry: &Entry, content: &Content, offset: u64, piece: &[u8]) -> Result<()> {
        if content.stored() >= AROUND_BYTES {
            return self.gather.put(part.line_at, offset, piece, &|line_at| self.named(line_at));
        }
        let file = self.beneath.file(&entry.path)?;
        file.write_all_at(piece, offset)
            .map_err(|error| Error::io("write", entry.shown(), error))
    }
}

impl PageSink for SegmentSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        for part in self.parts.touching(offset, end) {
            let entry = entry_at(&self.list, part.line_at)?;
            let Kind::File(content) = &entry.kind else { continue };
            let mut stored = part.begin;
            for (at, length) in content.ranges() {
                let (from, to) = (stored.max(offset), (stored + length).min(end));
                if from < to {
                    let piece = usize::try_from(from - offset)
                        .ok()
                        .zip(usize::try_from(to - offset).ok())
                        .and_then(|(from, to)| bytes.get(from..to))
                        .unwrap_or_default();
                    self.write_piece(part, &entry, content, at + (from - stored), piece)?;
                }
                stored += length;
            }
        }
        Ok(())
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> Result<()> {
        Err(Error::new(
            ErrorKind::Bug,
            "read back",
            "a segment",
            "its files are read back one by one",
        ))
    }

    fn finish(&self, _size_bytes: u64) -> Result<()> {
        let mut buffer = Aligned::new(1 << 20);
        for part in &self.parts.parts {
            let entry = entry_at(&self.list, part.line_at)?;
            let Kind::File(content) = &entry.kind else { continue };
            self.gather.end(part.line_at, &|line_at| self.named(line_at))?;
            let file = self.beneath.file(&entry.path)?;
            // Nothing was hashed of a file that is to be read back; holes were not handed to the disk, so such a file is read, too.
            match self.hashes.take(part.line_at, content.size) {
                Some(hash) => compare(&hash, &entry, content)?,
                None => check_file(&file, &entry, content, &mut buffer)?,
            }
            if content.stored() >= SYNC_BYTES {
                self.durable.soon(file);
            }
            self.checked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn open_list(list: &Path) -> Result<TreeReader<BufReader<File>>> {
    let file = File::open(list).map_err(|error| Error::io("open", list.display(), error))?;
    TreeReader::open(BufReader::with_capacity(1 << 18, file))
}

/// Fetches and checks everything that is chosen, below the staging folder.
pub(super) async fn stage(env: &Env, reader: &Reader, staging: &Staging, selection: &Selection, how: How) -> Result<StagedTree> {
    let record = record(reader).ok_or_else(|| Error::new(ErrorKind::Bug, "restore", "files", "the backup has no tree"))?;
    let (list, folder) = (staging.path("list"), staging.path("tree"));
    env.progress
        .step("fetch", Some(reader.files().iter().map(|file| file.size_bytes).sum()));
    let sink: Arc<dyn PageSink> = Arc::new(FileSink::new(create(&list)?, list.display().to_string()));
    let mut fetched = reader.restore(record, sink, false).await?;
    let (made_list, made_folder, chosen) = (list.clone(), folder.clone(), selection.clone());
    let sizes: BTreeMap<String, u64> = reader
        .files()
        .iter()
        .filter(|file| file.role == Role::Segment)
        .map(|file| (file.meta.path.clone(), file.size_bytes))
        .collect();
    let mut plan = compute::run("make the folders", move || lay_out(&made_list, &made_folder, &chosen, &sizes)).await?;
    let beneath = Arc::new(Beneath::open(&folder)?);
    let lines = Arc::new(File::open(&list).map_err(|error| Error::io("open", list.display(), error))?);
    let checked = Arc::new(AtomicU64::new(0));
    let durable = Arc::new(Durable::begin());
    let hashes = Arc::new(BlockHashes::default());
    let watch = (!how.read_back).then(|| Arc::clone(&hashes) as Arc<dyn Watch>);
    let gather = Arc::new(Gather::new(GATHERED, watch));
    let segments: Vec<(FileRecord, Arc<dyn PageSink>)> = reader
        .files()
        .iter()
        .filter_map(|file| {
            let sink = SegmentSink {
                beneath: Arc::clone(&beneath),
                list: Arc::clone(&lines),
                parts: plan.remove(&file.meta.path)?,
                checked: Arc::clone(&checked),
                gather: Arc::clone(&gather),
                hashes: Arc::clone(&hashes),
                durable: Arc::clone(&durable),
            };
            Some((file.clone(), Arc::new(sink) as Arc<dyn PageSink>))
        })
        .collect();
    let got = reader.restore_all(segments, SEGMENTS_AT_ONCE).await?;
    compute::run("make durable", move || durable.end()).await?;
    fetched.fetched_bytes += got.fetched_bytes;
    fetched.written_bytes += got.written_bytes;
    env.progress.step("check", None);
    let (checked_list, chosen) = (list.clone(), selection.clone());
    let (findings, notes) = compute::run("check", move || {
        check_and_dress(&checked_list, &beneath, &chosen, how, checked.load(Ordering::Relaxed))
    })
    .await?;
    Ok(StagedTree {
        folder,
        list,
        findings,
        fetched,
        notes,
    })
}

/// Makes all folders and empty files; returns which parts of which segment belong to which of them.
fn lay_out(list: &Path, folder: &Path, selection: &Selection, sizes: &BTreeMap<String, u64>) -> Result<BTreeMap<String, Parts>> {
    durable::create_folder(folder)?;
    let beneath = Beneath::open(folder)?;
    let chosen = Chosen::new(&selection.paths)?;
    let mut tree = open_list(list)?;
    let mut plan: BTreeMap<String, Parts> = BTreeMap::new();
    // Folders on the way that were not made yet: only those that something chosen lies in are.
    let mut above: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut any = false;
    while let Some(entry) = tree.next_entry()? {
        let wanted = chosen.has(&entry.path);
        while above.last().is_some_and(|(path, _)| !is_below(&entry.path, path)) {
            above.pop();
        }
        if wanted {
            any = true;
            for (path, made) in &mut above {
                if !*made {
                    beneath.make_folder(path)?;
                    *made = true;
                }
            }
        }
        match &entry.kind {
            Kind::Folder => {
                if wanted {
                    beneath.make_folder(&entry.path)?;
                }
                above.push((entry.path.clone(), wanted));
            }
            Kind::File(content) if wanted => {
                beneath.make_file(&entry.path, content.size)?;
                if content.stored() >= AROUND_BYTES && content.stored() == content.size {
                    direct::make_room(&beneath.file(&entry.path)?, content.size, &entry.shown())?;
                }
                place(&entry, content, tree.line_at(), sizes, &mut plan)?;
            }
            Kind::Symlink { target } if wanted && !selection.outside_links && leads_out(&entry.path, target) => {
                return Err(Error::new(
                    ErrorKind::Refused,
                    "restore the link",
                    entry.shown(),
                    format!("it leads out of the restored folder, to {}", files::shown(target)),
                )
                .with_hint(
                    "with --outside-links such links are made as they were; leave them out by choosing files with --path",
                ));
            }
            _ => {}
        }
    }
    if !any && !selection.paths.is_empty() {
        return Err(Error::new(
            ErrorKind::NoSuchPoint,
            "restore",
            selection.paths.join(" "),
            "the backup holds nothing of that name",
        )
        .with_hint("paths are those below the root of the component; `*` and `**` are wildcards"));
    }
    for parts in plan.values_mut() {
        parts.settle();
    }
    Ok(plan)
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn place(
    entry: &Entry,
    content: &Content,
    line_at: u64,
    sizes: &BTreeMap<String, u64>,
    plan: &mut BTreeMap<String, Parts>,
) -> Result<()> {
    let Some((segment, begin)) = &content.at else { return Ok(()) };
    let end = begin.saturating_add(content.stored());
    if sizes.get(segment).is_none_or(|size| end > *size) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "read",
            "the tree",
            format!("the content of {:?} is not where it should be", entry.shown()),
        ));
    }
    plan.entry(segment.clone()).or_default().parts.push(Part {
        begin: *begin,
        end,
        line_at,
    });
    Ok(())
}

/// Gives everything its owner, mode and time: links after all files, folders last of all. The files that lie in segments have been compared,
/// `checked` of them; the empty ones are here.
fn check_and_dress(
    list: &Path,
    beneath: &Beneath,
    selection: &Selection,
    how: How,
    checked: u64,
) -> Result<(Findings, Vec<String>)> {
    let owner = how.keep_owner;
    let chosen = Chosen::new(&selection.paths)?;
    let lines = File::open(list).map_err(|error| Error::io("open", list.display(), error))?;
    let mut tree = open_list(list)?;
    let (mut findings, mut dressing) = (Findings::default(), Dressing::default());
    let (mut folders, mut links, mut left_out) = (Vec::new(), Vec::new(), 0_u64);
    let mut in_segments = 0;
    while let Some(entry) = tree.next_entry()? {
        if matches!(entry.kind, Kind::Folder) {
            folders.push(tree.line_at());
            continue;
        }
        if !chosen.has(&entry.path) {
            continue;
        }
        match &entry.kind {
            Kind::File(content) => {
                let file = beneath.file(&entry.path)?;
                if content.at.is_some() {
                    in_segments += 1;
                } else {
                    check_file(&file, &entry, content, &mut Aligned::default())?;
                }
                files::dress(&file, &entry, owner, &mut dressing)?;
                findings.files += 1;
                findings.bytes += content.stored();
                if let Some(env) = &content.env {
                    findings.missing_values.push((entry.shown(), env.keys.clone()));
                }
            }
            Kind::Symlink { .. } => links.push(tree.line_at()),
            Kind::Hardlink { to } => {
                if !chosen.has(to) {
                    return Err(Error::new(
                        ErrorKind::Usage,
                        "restore",
                        entry.shown(),
                        format!("it is another name of {}, which was not chosen", files::shown(to)),
                    )
                    .with_hint("choose that one too, with a second --path"));
                }
                beneath.make_other(&entry)?;
                findings.files += 1;
            }
            _ if beneath.make_other(&entry)? => beneath.dress_other(&entry, owner, &mut dressing)?,
            _ => left_out += 1,
        }
    }
    if in_segments != checked {
        let detail = format!("{checked} files were compared with what was captured, and there are {in_segments}");
        return Err(Error::new(ErrorKind::Bug, "restore", "files", detail));
    }
    for line in links {
        let entry = entry_at(&lines, line)?;
        beneath.make_other(&entry)?;
        beneath.dress_other(&entry, owner, &mut dressing)?;
    }
    for line in folders.into_iter().rev() {
        let entry = entry_at(&lines, line)?;
        match beneath.open_folder(&entry.path) {
            Ok(folder) => files::dress(&folder, &entry, owner, &mut dressing)?,
            // Nothing that was chosen lies in it.
            Err(error) if error.kind() == ErrorKind::NotFound && !selection.paths.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    dress_root(beneath, tree.root(), owner, &mut dressing)?;
    if how.durable {
        beneath.sync()?;
    }
    Ok((findings, notes(&dressing, left_out)))
}

fn dress_root(beneath: &Beneath, root: &Root, owner: bool, dressing: &mut Dressing) -> Result<()> {
    let entry = Entry {
        path: Vec::new(),
        kind: Kind::Folder,
        meta: root.meta,
        xattrs: Vec::new(),
    };
    files::dress(beneath.open_folder(&[])?, &entry, owner, dressing)
}

/// INV-10: what is published is what was captured, file by file; this one is read back.
fn check_file(file: &File, entry: &Entry, content: &Content, buffer: &mut Aligned) -> Result<()> {
    let failed = |error| Error::io("read back", entry.shown(), error);
    let mut read_back = ReadBack::new(file, content.stored() >= AROUND_BYTES);
    let mut hasher = blake3::Hasher::new();
    for (offset, length) in content.ranges() {
        let mut done = 0;
        while done < length {
            let wanted = usize::try_from(length - done).unwrap_or(buffer.len());
            let count = read_back.read_at(offset + done, wanted, buffer).map_err(failed)?;
            hasher.update(buffer.bytes().get(..count).unwrap_or_default());
            done += count as u64;
        }
    }
    compare(&hasher.finalize(), entry, content)
}

fn compare(hash: &blake3::Hash, entry: &Entry, content: &Content) -> Result<()> {
    if hash.as_bytes() == &content.hash {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::Corrupt,
            "restore",
            entry.shown(),
            "its content is not what was captured",
        )
        .with_hint("nothing was published; restore another backup (`lifeboat list`)"))
    }
}

fn notes(dressing: &Dressing, left_out: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if dressing.owners > 0 {
        notes.push(format!(
            "the owner of {} files and folders could not be set; they belong to the user who restored them",
            dressing.owners
        ));
    }
    if let Some(first) = &dressing.first_attribute {
        notes.push(format!(
            "{} extended attributes could not be set, for example {first}",
            dressing.attributes
        ));
    }
    if left_out > 0 {
        notes.push(format!(
            "{left_out} sockets and devices were not made: sockets come with their programs, devices need the superuser"
        ));
    }
    notes
}
