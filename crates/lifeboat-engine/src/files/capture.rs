//! A tree, read while others use it: every file is one state of itself, and everything that was asked for is there or the capture fails.
//!
//! One thread walks the tree in the order of the tree's lines, along with what the last capture remembered. What did not change is not
//! opened; the rest goes into segments. Files are not consistent with each other: each is by itself. If we die, nothing was written but
//! what the local state sweeps away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use lifeboat_model::{Clock, Error, ErrorKind, Result};

use super::facts::Facts;
use super::memory::{Recalled, Recorder, TreeStream};
use super::options::Options;
use super::segments::{Message, QUEUE, SegmentReader, Segments, worn};
use super::walk::{Walk, WalkParts};

/// What to capture, besides the patterns.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Folders of Lifeboat itself, which are left out: a store or a state folder inside the tree would hold itself.
    pub skip: Vec<PathBuf>,
    /// Also give out the bytes of every file; only for trees that are known to be small.
    pub keep_bytes: bool,
    /// To look, not to back up: a pattern that fits nothing is no error.
    pub just_looking: bool,
}

/// What the last backup can give to this one.
#[derive(Debug, Default)]
pub struct Previous {
    /// What the last capture wrote down.
    pub memory: Option<Arc<File>>,
    /// Segments that can be kept: path and size.
    pub segments: Vec<(String, u64)>,
}

/// The bytes of one captured file.
#[derive(Debug, Clone)]
pub struct Bytes {
    /// Its path below the root.
    pub path: Vec<u8>,
    /// The numbers of the patterns (of `include`, then `optional`, then `env_structure`) that name it.
    pub patterns: Vec<usize>,
    /// What is stored of it.
    pub bytes: Vec<u8>,
}

/// What a finished capture knows.
#[derive(Debug)]
pub struct Captured {
    /// Counted while reading.
    pub facts: Facts,
    /// The segments of the last backup that this one needs.
    pub kept: Vec<String>,
    /// The tree, to be stored.
    pub tree: TreeStream,
    /// The bytes of every file, where they were asked for.
    pub bytes: Vec<Bytes>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A capture under way. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    queue: Option<Arc<Mutex<Receiver<Message>>>>,
    thread: Option<JoinHandle<Result<Captured>>>,
    moment_us: i64,
}

/// Identity of the source: an incremental backup needs the same. What is left out, or kept as structure only, is part of it: a segment that
/// was kept from before would hold what nobody wants to be stored any more.
#[must_use]
pub fn identity(options: &Options) -> String {
    let root = options.root.display();
    if options.exclude.is_empty() && options.env_structure.is_empty() {
        return format!("files:{root}");
    }
    let mut hasher = blake3::Hasher::new();
    for patterns in [&options.exclude, &options.env_structure] {
        for pattern in patterns {
            hasher
                .update(&(pattern.len() as u64).to_le_bytes())
                .update(pattern.as_bytes());
        }
        hasher.update(&u64::MAX.to_le_bytes());
    }
    let without: String = hasher.finalize().to_hex().chars().take(16).collect();
    format!("files:{root}#{without}")
}

/// Begins to read. What is to be remembered is written to `memory`, which must be empty.
pub fn begin(
    options: &Options,
    around: &Around,
    previous: &Previous,
    memory: Arc<File>,
    clock: Arc<dyn Clock>,
) -> Result<Capture> {
    let (sender, receiver) = sync_channel(QUEUE);
    let recalled = Recalled::open(previous.memory.as_ref());
    let whole: BTreeSet<&String> = previous.segments.iter().map(|(name, _)| name).collect();
    let worn = worn(&recalled.segments);
    let usable: BTreeMap<String, (u64, u64)> = previous
        .segments
        .iter()
        .filter(|(name, _)| !worn.contains(name) && recalled.segments.contains_key(name))
        .map(|(name, size)| (name.clone(), (*size, 0)))
        .collect();
    // A number is not used twice, even where the old segment is not kept.
    let known = recalled.segments.keys().chain(whole);
    let segments = Segments::new(sender, known);
    let moment_us = clock.wall_us();
    let mut skip = Vec::new();
    for folder in &around.skip {
        // One that is not there cannot be inside the tree.
        if let Ok(meta) = folder.metadata() {
            skip.push((meta.dev(), meta.ino()));
        }
    }
    let parts = WalkParts {
        options: options.clone(),
        keep_bytes: around.keep_bytes,
        just_looking: around.just_looking,
        skip,
        recalled,
        usable,
        segments,
        clock,
    };
    let thread = std::thread::Builder::new()
        .name("files capture".into())
        // Folders within folders: one call each.
        .stack_size(64 << 20)
        .spawn(move || run(parts, memory))
        .map_err(|error| Error::io("start a thread for", options.root.display(), error))?;
    Ok(Capture {
        queue: Some(Arc::new(Mutex::new(receiver))),
        thread: Some(thread),
        moment_us,
    })
}

fn run(parts: WalkParts, memory: Arc<File>) -> Result<Captured> {
    let (mut walk, root) = Walk::open(parts)?;
    let mut recorder = Recorder::new(memory, &root)?;
    walk.run(&mut recorder)?;
    let done = walk.finish()?;
    let mut needed = done.usable;
    needed.retain(|_, (_, needed)| *needed > 0);
    let kept: Vec<String> = needed.keys().cloned().collect();
    let mut facts = done.facts;
    for (name, size) in done.segments.finish()? {
        let used = done.fresh.get(&name).copied().unwrap_or(0);
        needed.insert(name, (size, used));
    }
    facts.unused_bytes = needed.values().map(|(size, needed)| size.saturating_sub(*needed)).sum();
    Ok(Captured {
        facts,
        kept,
        tree: recorder.finish(needed)?,
        bytes: done.bytes,
        warnings: done.warnings,
    })
}

impl Capture {
    /// When it began, microseconds since 1970: everything that was finished before is in it.
    #[must_use]
    pub fn moment_us(&self) -> i64 {
        self.moment_us
    }

    /// Waits for the next segment: its name and its bytes, which must be read to their end before the next one is asked for. `None` when
    /// no more come, also after a failure: [`Capture::finish`] tells.
    pub fn next_segment(&self) -> Result<Option<(String, Box<dyn Read + Send>)>> {
        let Some(queue) = &self.queue else { return Ok(None) };
        let message = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match message {
            Ok(Message::Begin(name)) => Ok(Some((name, Box::new(SegmentReader::new(Arc::clone(queue)))))),
            Ok(_) => Err(Error::new(
                ErrorKind::Bug,
                "read",
                "a segment",
                "the one before was not read to its end",
            )),
            Err(_) => Ok(None),
        }
    }

    /// Ends the capture and says what it found. What was not read by then is given up.
    pub fn finish(mut self) -> Result<Captured> {
        self.end().unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Bug,
                "finish",
                "a capture of files",
                "it was finished already",
            ))
        })
    }

    fn end(&mut self) -> Option<Result<Captured>> {
        // Whoever waits to hand something over learns that nobody takes it.
        self.queue = None;
        let joined = self.thread.take()?.join();
        Some(joined.unwrap_or_else(|_panic| {
            Err(Error::new(
                ErrorKind::Bug,
                "back up",
                "files",
                "the capturing thread panicked",
            ))
        }))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Nobody is left to be told.
        drop(self.end());
    }
}
