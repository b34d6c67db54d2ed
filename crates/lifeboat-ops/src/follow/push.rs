//! `wal push`: what a server's `archive_command` gives, straight into the stores; where somebody else writes the log just now, into a folder of the
//! spool, from which they take it.
//!
//! Only what is durable is answered with success: stored, or fsynced here. The same file again is no error; other bytes for a position that is held are
//! (PG-06).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::postgres::control::Control;
use lifeboat_engine::postgres::segment::SegmentHeader;
use lifeboat_io::{compute, durable};
use lifeboat_model::wal::{Coverage, LogFile, Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Result, Timeline};
use lifeboat_repo::{Instance, LogFileKind, LogName, LogPlan, LogWriter, NewLog, block_end, holds_other, list_log};

use super::{Shared, Source, spool_folder};
use crate::protected::Protected;
use crate::stores;

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
    let repository = stores::joined(protected).await?;
    let plan = || LogPlan {
        component: protected.component.clone(),
        instance: Arc::clone(&instance),
        encryption: protected.encryption.clone(),
        trust: protected.trust.clone(),
        state_dir: protected.state_dir.clone(),
        system: source.system,
        segment: source.segment,
    };
    match LogWriter::begin(env, &repository, plan(), NewLog::Continue).await {
        Ok(mut writer) => {
            for waiting in waiting(protected)? {
                one_of_folder(&mut writer, source, &waiting, &mut Coverage::new()).await?;
            }
            let stored = store(&mut writer, source.segment, given, &Coverage::new()).await?;
            if stored {
                return Ok(Pushed::Stored);
            }
            let detail = "a store that is required did not take it";
            Err(Error::new(ErrorKind::Unreachable, "store", &name, detail)
                .with_hint("the server keeps it and pushes it again; `lifeboat doctor` looks at the stores"))
        }
        Err(error) if error.kind() == ErrorKind::Locked => {
            // Whoever follows takes it later: what can be seen of other bytes by now is told now, and kept (PG-06).
            if let Given::Segment { timeline, number, bytes } = &given {
                let start = source.segment.start_of(*number);
                let range = Range::new(*timeline, start, start.plus(bytes.len() as u64));
                if let Some(other) = holds_other(&repository, &plan(), range, bytes).await? {
                    return Err(refused(protected, &name, bytes.clone(), &other).await?);
                }
            }
            hand_over(protected, &name, bytes).await
        }
        Err(error) => Err(error),
    }
}

/// Keeps what was pushed and differs from what stands; says so.
async fn refused(protected: &Protected, name: &str, bytes: Vec<u8>, other: &LogName) -> Result<Error> {
    let (folder, kept) = (folder(protected), format!("{REFUSED}{name}"));
    compute::run("set log aside", move || {
        durable::create_folder(&folder)?;
        // One that lies there already was told before.
        match durable::create_file(&folder.join(&kept), &bytes, durable::FILE_MODE)? {
            durable::Created::New | durable::Created::AlreadyThere => Ok(()),
        }
    })
    .await?;
    let detail = format!("other bytes are held for it already, in {other}; both are kept");
    Ok(Error::new(ErrorKind::Refused, "push", name, detail).with_hint(
        "two servers archive under one name, or the server was set back to an earlier moment: give each a component of its own",
    ))
}

/// What was pushed for a component on this host and is not taken, because other bytes are held: names of segments. They lie beside the spool until a
/// person removes them.
#[must_use]
pub fn refused_pushes(protected: &Protected) -> Vec<String> {
    let Ok(found) = folder(protected).read_dir() else {
        return Vec::new();
    };
    let names = found.filter_map(|found| found.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter_map(|name| Some(name.strip_prefix(REFUSED)?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Such a file's name begins so.
const REFUSED: &str = "refused-";

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

/// Stores it; says whether every store that is required took it.
async fn store(writer: &mut LogWriter, size: SegmentSize, given: Given, pieces: &Coverage) -> Result<bool> {
    let mut everywhere = true;
    match given {
        Given::Nothing => {}
        Given::History { timeline, text } => {
            let done = writer.append_history(timeline, text).await?;
            everywhere = done.stores.iter().all(|store| store.missing.is_none());
        }
        Given::Segment { timeline, number, bytes } => {
            let mut start = size.start_of(number);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let room = usize::try_from(block_end(start).since(start)).unwrap_or(usize::MAX);
                let (part, behind) = rest.split_at(room.min(rest.len()));
                let range = Range::new(timeline, start, start.plus(part.len() as u64));
                if !holds_more(pieces, range) {
                    let done = writer.append(LogFileKind::Piece, range, part.to_vec(), None).await?;
                    everywhere &= done.stores.iter().all(|store| store.missing.is_none());
                    writer.drop_replaced(&done).await?;
                }
                (start, rest) = (range.end, behind);
            }
        }
    }
    Ok(everywhere)
}

/// Whether a longer piece holds it already: it cannot be compared with that by its name.
fn holds_more(pieces: &Coverage, range: Range) -> bool {
    let block = Range::new(
        range.timeline,
        lifeboat_repo::block_start(range.start),
        block_end(range.start),
    );
    block != range && pieces.holds(block)
}

async fn hand_over(protected: &Protected, name: &str, bytes: Vec<u8>) -> Result<Pushed> {
    let (folder, name) = (folder(protected), name.to_owned());
    compute::run("hand over log", move || {
        durable::create_folder(&folder)?;
        let path = folder.join(&name);
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
        if !name.starts_with(durable::TEMPORARY_PREFIX) && !name.starts_with(REFUSED) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Stores one that waits, and gives it up. One that cannot be taken is kept under another name, with the reason as the answer.
async fn one_of_folder(writer: &mut LogWriter, source: Source, path: &Path, pieces: &mut Coverage) -> Result<Option<Error>> {
    let owned = path.to_path_buf();
    let (name, bytes) = compute::run("read the log", move || read(&owned)).await?;
    let stored = match judge(&name, bytes, source) {
        Ok(given) => store(writer, source.segment, given, pieces).await,
        Err(error) => Err(error),
    };
    let owned = path.to_path_buf();
    match stored {
        Ok(true) => compute::run("give up log", move || durable::remove_file(&owned))
            .await
            .map(|()| None),
        Ok(false) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::Corrupt | ErrorKind::Usage) => {
            let aside = durable::parent_of(&owned).join(format!("{REFUSED}{name}"));
            compute::run("set log aside", move || durable::rename(&owned, &aside)).await?;
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

/// Stores what was handed over, for the shipper.
pub(super) async fn drain(shared: &Arc<Shared>, writer: &mut LogWriter, pieces: &mut Coverage) -> Result<()> {
    let protected = shared.protected.clone();
    let waiting = compute::run("look for pushed log", move || waiting(&protected)).await?;
    for path in waiting {
        if let Some(error) = one_of_folder(writer, shared.source, &path, pieces).await? {
            let name = path.file_name().unwrap_or_default().display().to_string();
            shared.alarm(format!(
                "{name} was pushed and is not taken, it is kept beside the spool: {}",
                super::in_a_line(&error)
            ));
        }
    }
    Ok(())
}
