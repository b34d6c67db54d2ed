//! `wal push`: what a server's `archive_command` gives, straight into the stores; where somebody else writes the log just now, into a folder of the
//! spool, from which they take it.
//!
//! Only what is durable is answered with success: stored, or fsynced here. The same file again is no error; other bytes for a position that is held are
//! (PG-06). A file is given up once it stands in every store that is required, asked one by one where it stood already (PG-03), and once all of it was
//! compared with what stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::control::Control;
use lifeboat_engine::postgres::segment::SegmentHeader;
use lifeboat_io::{compute, durable};
use lifeboat_model::wal::{LogFile, Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::{Instance, LogFileKind, LogPlan, LogWriter, NewLog, block_end, list_log};

use super::ship::{stands_everywhere, took};
use super::{Shared, Source, spool_folder, standing};
use crate::protected::Protected;
use crate::stores;

/// What waits for a follower takes at most this of the disk: then the server keeps its files.
const MOST_WAITING: u64 = 1 << 30;
/// So many files are looked at before streamed log has its turn again.
const AT_ONCE: usize = 4;

/// What became of a pushed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It stands in the stores.
    Stored,
    /// It is durable here; whoever follows stores it.
    HandedOver,
    /// Recovery never asks for it: nothing was kept.
    NotNeeded,
}

/// A file that was read and is what its name says.
enum Given {
    Segment {
        timeline: Timeline,
        number: u64,
        bytes: Vec<u8>,
    },
    History {
        timeline: Timeline,
        text: Vec<u8>,
    },
    Nothing,
}

/// Takes one file of the server's log.
///
/// # Errors
/// `Refused` for another cluster (PG-05), and where other bytes are held for it (PG-06); `Corrupt` for a file that is not what its name says.
pub async fn push(env: &Env, protected: &Protected, instance: Arc<Instance>, path: &Path) -> Result<Pushed> {
    let owned = path.to_path_buf();
    let (name, bytes) = compute::run("read the log", move || read(&owned)).await?;
    let source = source_of(protected, path, &name, &bytes).await?;
    let given = judge(&name, bytes.clone(), source)?;
    if matches!(given, Given::Nothing) {
        return Ok(Pushed::NotNeeded);
    }
    let repository = stores::joined(protected).await;
    let begun = match repository {
        Ok(repository) => {
            let plan = LogPlan {
                component: protected.component.clone(),
                instance,
                encryption: protected.encryption.clone(),
                trust: protected.trust.clone(),
                state_dir: protected.state_dir.clone(),
                system: source.system,
                segment: source.segment,
            };
            LogWriter::begin(env, &repository, plan, NewLog::Continue).await
        }
        Err(error) => Err(error),
    };
    match begun {
        Ok(mut writer) => {
            let mut refused = None;
            for waiting in waiting(protected)? {
                match one_of_folder(protected, &mut writer, source, &waiting).await? {
                    Kept::Refused(error) => {
                        standing::add_alarm(protected, &refusal(&waiting, &error))?;
                        refused = refused.or(Some(error));
                    }
                    Kept::Unreadable(error) => standing::add_alarm(protected, &refusal(&waiting, &error))?,
                    Kept::Gone | Kept::Waiting | Kept::Uncompared(_) => {}
                }
            }
            let stored = store(protected, &mut writer, source.segment, &given).await?;
            if !stored.everywhere {
                let detail = "a store that is required did not take it";
                return Err(Error::new(ErrorKind::Unreachable, "store", &name, detail)
                    .with_hint("the server keeps it and pushes it again; `lifeboat doctor` looks at the stores"));
            }
            // The server was told that it is safe: somebody has to hear that it is not. Said once, for it is kept under another name now.
            if let Some(error) = refused {
                return Err(error);
            }
            if stored.compared {
                return Ok(Pushed::Stored);
            }
            // What stands may be other log: this stays until somebody can compare it.
            hand_over(protected, &name, bytes).await
        }
        Err(error) if error.kind() == ErrorKind::Locked => hand_over(protected, &name, bytes).await,
        Err(error) => Err(error),
    }
}

/// Kept aside: of other bytes than are held, or no log at all.
const REFUSED: &str = "refused-";
/// Kept aside: held, and nobody can compare it.
const UNCOMPARED: &str = "uncompared-";

/// A folder of its own beside the lineages: whoever has the lock takes what is in it.
fn folder(protected: &Protected) -> PathBuf {
    spool_folder(protected).join("pushed")
}

fn read(path: &Path) -> Result<(String, Vec<u8>)> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let bytes = std::fs::read(path).map_err(|error| Error::io("read", path.display(), error))?;
    Ok((name.to_owned(), bytes))
}

/// Of which cluster it is: a segment says so itself, for a history it stands in `pg_control`, or in what was stored before.
async fn source_of(protected: &Protected, path: &Path, name: &str, bytes: &[u8]) -> Result<Source> {
    if !name.contains('.') {
        let header = SegmentHeader::parse(bytes)?;
        return Ok(Source {
            system: header.system,
            segment: header.segment,
        });
    }
    let beside = durable::parent_of(path).join("../global/pg_control");
    let control = compute::run("read", move || Ok(std::fs::read(&beside).ok())).await?;
    if let Some(control) = control.and_then(|bytes| Control::parse(&bytes).ok()) {
        return Ok(Source {
            system: control.system_identifier,
            segment: SegmentSize::new(u64::from(control.wal_segment_bytes))?,
        });
    }
    let repository = protected.repository().await?;
    let listing = list_log(&repository, &protected.component, &protected.trust).await?;
    match listing.lineages.last() {
        Some(record) => Ok(Source {
            system: record.system,
            segment: record.segment,
        }),
        None => Err(
            Error::new(ErrorKind::NotFound, "push", name, "nobody knows yet of which cluster it is")
                .with_hint("run the command in the data directory of the server, or push a segment first"),
        ),
    }
}

/// Whether it is what its name says.
fn judge(name: &str, bytes: Vec<u8>, source: Source) -> Result<Given> {
    match LogFile::parse(name, source.segment) {
        Some(LogFile::Segment { timeline, number }) => {
            let header = SegmentHeader::parse(&bytes)?;
            header.check(source.system, source.segment, timeline, source.segment.start_of(number))?;
            if bytes.len() as u64 != source.segment.bytes() {
                let detail = format!("it has {} bytes, and a segment has {}", bytes.len(), source.segment);
                return Err(Error::new(ErrorKind::Corrupt, "push", name, detail));
            }
            Ok(Given::Segment { timeline, number, bytes })
        }
        Some(LogFile::History { timeline }) => {
            lifeboat_model::wal::History::parse(timeline, &String::from_utf8_lossy(&bytes))?;
            Ok(Given::History { timeline, text: bytes })
        }
        // The next timeline writes the beginning of its first segment again.
        Some(LogFile::Partial { .. } | LogFile::Backup { .. }) => Ok(Given::Nothing),
        None => Err(Error::new(ErrorKind::Usage, "push", name, "a file of log has no such name")
            .with_hint("write archive_command = 'lifeboat wal push COMPONENT %p'")),
    }
}

/// How far a file came.
struct Stored {
    /// Every store that is required holds it.
    everywhere: bool,
    /// All of it was put, or compared with what stands.
    compared: bool,
}

/// Stores it.
async fn store(protected: &Protected, writer: &mut LogWriter, size: SegmentSize, given: &Given) -> Result<Stored> {
    let mut stored = Stored {
        everywhere: true,
        compared: true,
    };
    match given {
        Given::Nothing => {}
        Given::History { timeline, text } => {
            let mut done = writer.append_history(*timeline, text.clone()).await?;
            if done.there && !stands_everywhere(protected, writer.lineage(), &done).await? {
                done = writer.append_history_again(*timeline, text.clone()).await?;
            }
            stored.everywhere = done.there || took(protected, &done);
        }
        Given::Segment { timeline, number, bytes } => {
            for whole in parts(*timeline, size.start_of(*number), bytes.len()) {
                let fitting = writer.fitting(whole).await?;
                // The rest is held by a longer file, and nobody here can open that.
                stored.compared &= fitting == [whole];
                for range in fitting {
                    let raw = cut(bytes, size.start_of(*number), range);
                    stored.everywhere &= store_part(protected, writer, range, raw).await?;
                }
            }
        }
    }
    Ok(stored)
}

/// Stores log within one block; whether every store that is required holds it then.
async fn store_part(protected: &Protected, writer: &mut LogWriter, range: Range, raw: Vec<u8>) -> Result<bool> {
    let mut done = writer.append(LogFileKind::Piece, range, raw.clone(), None).await?;
    if done.there {
        // One of them has it, or all: a listing of several stores does not say.
        if stands_everywhere(protected, writer.lineage(), &done).await? {
            return Ok(true);
        }
        done = writer.append_again(LogFileKind::Piece, range, raw, None).await?;
    }
    writer.drop_replaced(&done).await?;
    Ok(took(protected, &done))
}

/// A segment, cut at the ends of blocks.
fn parts(timeline: Timeline, start: Lsn, length: usize) -> Vec<Range> {
    let (mut at, end) = (start, start.plus(length as u64));
    let mut parts = Vec::new();
    while at < end {
        let until = block_end(at).min(end);
        parts.push(Range::new(timeline, at, until));
        at = until;
    }
    parts
}

fn cut(bytes: &[u8], start: Lsn, range: Range) -> Vec<u8> {
    let offset = |lsn: Lsn| usize::try_from(lsn.since(start)).unwrap_or(usize::MAX);
    bytes.get(offset(range.start)..offset(range.end)).unwrap_or_default().to_vec()
}

async fn hand_over(protected: &Protected, name: &str, bytes: Vec<u8>) -> Result<Pushed> {
    let (folder, name) = (folder(protected), name.to_owned());
    let waits = waiting(protected)?;
    compute::run("hand over log", move || {
        durable::create_folder(&folder)?;
        let path = folder.join(&name);
        let lengths = waits
            .iter()
            .filter(|other| **other != path)
            .filter_map(|other| other.metadata().ok());
        let taken: u64 = lengths.map(|meta| meta.len()).sum();
        if taken.saturating_add(bytes.len() as u64) > MOST_WAITING {
            let detail = "as much as may wait on this host's disk waits already for the stores";
            return Err(Error::new(ErrorKind::Unreachable, "hand over", &name, detail)
                .with_hint("the server keeps it and pushes it again; look at what `lifeboat follow` says about the stores"));
        }
        match durable::create_file(&path, &bytes, durable::FILE_MODE)? {
            durable::Created::New => Ok(Pushed::HandedOver),
            durable::Created::AlreadyThere => {
                let known = std::fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?;
                if known == bytes {
                    return Ok(Pushed::HandedOver);
                }
                Err(Error::new(
                    ErrorKind::Refused,
                    "push",
                    &name,
                    "a file of this name with other bytes was pushed before",
                )
                .with_hint("two servers archive under one name: give each a component of its own"))
            }
        }
    })
    .await
}

/// The files that wait, by name.
fn waiting(protected: &Protected) -> Result<Vec<PathBuf>> {
    let folder = folder(protected);
    let found = match folder.read_dir() {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("look into", folder.display(), error)),
    };
    let mut paths = Vec::new();
    for found in found {
        let path = found.map_err(|error| Error::io("look into", folder.display(), error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_aside = [durable::TEMPORARY_PREFIX, REFUSED, UNCOMPARED]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !is_aside {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What became of a file that waited.
enum Kept {
    /// It is given up, for it stands everywhere.
    Gone,
    /// It stays for now.
    Waiting,
    /// Every byte of it is held, and what holds some of them cannot be opened here.
    Uncompared(Vec<u8>),
    /// It cannot be taken, and lies aside under another name.
    Refused(Error),
    /// It cannot be read, and stays.
    Unreadable(Error),
}

/// Stores one that waits, and gives it up. One that cannot be taken is kept under another name, with the reason as the answer; one that cannot be read
/// stays.
async fn one_of_folder(protected: &Protected, writer: &mut LogWriter, source: Source, path: &Path) -> Result<Kept> {
    let owned = path.to_path_buf();
    let (name, bytes) = match compute::run("read the log", move || read(&owned)).await {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::Bug => return Err(error),
        Err(error) => return Ok(Kept::Unreadable(error)),
    };
    let stored = match judge(&name, bytes.clone(), source) {
        Ok(given) => store(protected, writer, source.segment, &given).await,
        Err(error) => Err(error),
    };
    match stored {
        Ok(Stored { everywhere: false, .. }) => Ok(Kept::Waiting),
        Ok(Stored { compared: false, .. }) => Ok(Kept::Uncompared(bytes)),
        Ok(_) => forget(path).await,
        Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Corrupt | ErrorKind::Usage) => {
            set_aside(path, REFUSED).await?;
            Ok(Kept::Refused(error))
        }
        Err(error) => Err(error),
    }
}

async fn forget(path: &Path) -> Result<Kept> {
    let owned = path.to_path_buf();
    compute::run("give up log", move || durable::remove_file(&owned)).await?;
    Ok(Kept::Gone)
}

/// Keeps a file under a name that nobody takes for waiting, and never over another.
async fn set_aside(path: &Path, prefix: &'static str) -> Result<()> {
    let owned = path.to_path_buf();
    compute::run("set log aside", move || {
        let name = owned.file_name().unwrap_or_default().display().to_string();
        let folder = durable::parent_of(&owned);
        for number in 1_u32..=u32::MAX {
            let number = if number == 1 { String::new() } else { format!("-{number}") };
            match durable::rename_new(&owned, &folder.join(format!("{prefix}{name}{number}"))) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                moved => return moved,
            }
        }
        Ok(())
    })
    .await
}

fn refusal(path: &Path, error: &Error) -> String {
    let name = path.file_name().unwrap_or_default().display();
    format!(
        "{name} was pushed and is not taken, it is kept beside the spool: {}",
        super::in_a_line(error)
    )
}

/// What the shipper remembers of files that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// When one that could not be given up is looked at again.
    again: BTreeMap<PathBuf, Duration>,
    /// What was told already.
    told: BTreeSet<PathBuf>,
}

/// Stores some of what was handed over, for the shipper.
pub(super) async fn drain(shared: &Arc<Shared>, writer: &mut LogWriter, remembered: &mut Waiting) -> Result<()> {
    let protected = shared.protected.clone();
    let waiting = compute::run("look for pushed log", move || waiting(&protected)).await?;
    let now = shared.env.clock.monotonic();
    remembered.again.retain(|path, _| waiting.contains(path));
    let is_due = |path: &&PathBuf| remembered.again.get(*path).is_none_or(|at| *at <= now);
    let due: Vec<PathBuf> = waiting.iter().filter(is_due).take(AT_ONCE).cloned().collect();
    for path in due {
        let later = now + shared.options.rejoin_after;
        match one_of_folder(&shared.protected, writer, shared.source, &path).await? {
            Kept::Gone => {}
            Kept::Waiting => drop(remembered.again.insert(path, later)),
            Kept::Uncompared(bytes) => compare(shared, &path, &bytes).await?,
            Kept::Refused(error) | Kept::Unreadable(error) => {
                if remembered.told.insert(path.clone()) {
                    shared.alarm(refusal(&path, &error));
                }
                remembered.again.insert(path, later);
            }
        }
    }
    Ok(())
}

/// Compares a segment with the spool. Where that does not hold it any more, it is kept aside: nothing goes that was not compared.
async fn compare(shared: &Arc<Shared>, path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let size = shared.source.segment;
    if let Some(LogFile::Segment { timeline, number }) = LogFile::parse(name, size) {
        let (start, mut same) = (size.start_of(number), Some(true));
        for range in parts(timeline, start, bytes.len()) {
            let Ok(reading) = shared.spool().reading(range) else {
                same = None;
                break;
            };
            let held = compute::run("read the spool", move || reading.read()).await?;
            same = same.map(|same| same && held == cut(bytes, start, range));
        }
        match same {
            Some(true) => return forget(path).await.map(drop),
            Some(false) => {
                shared.alarm(format!(
                    "{name} was pushed with other bytes than were streamed, and is kept beside the spool"
                ));
                return set_aside(path, REFUSED).await;
            }
            None => {}
        }
    }
    shared.alarm(format!(
        "{name} was pushed, a longer file holds it already, and nobody here can compare them: it is kept beside the spool"
    ));
    set_aside(path, UNCOMPARED).await
}
