//! Fetching blobs in pack order, opening them on several threads, and writing where they belong.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::join;
use lifeboat_io::compute;
use lifeboat_io::flow::PageSink;
use lifeboat_model::{Error, ErrorKind, Result};
use ring::aead::LessSafeKey;
use tokio::task::JoinSet;

use super::{Fetched, Inner, lost_file, reads_at_once};
use crate::key::Id;
use crate::pack::{Class, Opener, Placement};

/// One read asks for at most about this much.
const READ_BYTES: u64 = 4 << 20;
/// Bytes between two wanted blobs that are read along rather than asked for separately.
const GAP_BYTES: u64 = 64 << 10;

/// Where the bytes of a blob go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// All of it, at this place.
    Whole { offset: u64 },
    /// Some pages of a group, to their places in the extent at `offset`: `pages` says which pages the group holds from its page
    /// `first` on, `wanted` which of them to take.
    Pages {
        offset: u64,
        pages: u128,
        wanted: u128,
        first: u16,
    },
}

/// One blob to read.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) place: Placement,
    pub(super) class: Class,
    pub(super) raw_bytes: u32,
    pub(super) id: Id,
    pub(super) targets: Vec<Target>,
}

impl Target {
    pub(super) fn extent_offset(&self) -> u64 {
        match self {
            Self::Whole { offset } | Self::Pages { offset, .. } => *offset,
        }
    }
}

/// Jobs of one pack that are read at once.
struct Batch {
    pack: u32,
    range: Range<u64>,
    jobs: Vec<Job>,
}

fn batches(mut jobs: Vec<Job>) -> Vec<Batch> {
    jobs.sort_unstable_by_key(|job| job.place);
    // A blob is decrypted in place, so it can be opened only once, however often a stream holds it.
    jobs.dedup_by(|job, first| {
        let same = job.place == first.place && job.id == first.id && job.raw_bytes == first.raw_bytes;
        if same {
            first.targets.append(&mut job.targets);
        }
        same
    });
    let mut batches: Vec<Batch> = Vec::new();
    for job in jobs {
        let start = u64::from(job.place.offset);
        let end = start + u64::from(job.place.stored_bytes);
        match batches.last_mut() {
            Some(batch)
                if batch.pack == job.place.pack
                    && start <= batch.range.end + GAP_BYTES
                    && end - batch.range.start <= READ_BYTES =>
            {
                batch.range.end = batch.range.end.max(end);
                batch.jobs.push(job);
            }
            _ => batches.push(Batch {
                pack: job.place.pack,
                range: start..end,
                jobs: vec![job],
            }),
        }
    }
    batches
}

/// Reads, opens and verifies `jobs`; writes them where a sink is given.
pub(super) async fn run(
    inner: &Arc<Inner>,
    jobs: Vec<Job>,
    page_size: usize,
    sink: Option<&Arc<dyn PageSink>>,
) -> Result<Fetched> {
    let mut total = Fetched::default();
    let mut pending = batches(jobs).into_iter();
    let mut tasks: JoinSet<Result<Fetched>> = JoinSet::new();
    loop {
        while tasks.len() < reads_at_once(&inner.env, &inner.repository) {
            let Some(batch) = pending.next() else { break };
            let (inner, sink) = (Arc::clone(inner), sink.map(Arc::clone));
            tasks.spawn(async move { read_batch(inner, batch, page_size, sink).await });
        }
        let Some(joined) = tasks.join_next().await else {
            return Ok(total);
        };
        let fetched =
            joined.map_err(|error| Error::new(ErrorKind::Bug, "read", "a pack", "a task panicked").with_source(error))??;
        total.fetched_bytes += fetched.fetched_bytes;
        total.written_bytes += fetched.written_bytes;
    }
}

async fn read_batch(inner: Arc<Inner>, batch: Batch, page_size: usize, sink: Option<Arc<dyn PageSink>>) -> Result<Fetched> {
    let reading = Arc::clone(&inner);
    let closed = |closed| {
        let detail = "no reads are allowed any more";
        Error::new(ErrorKind::Bug, "read", reading.store_name(), detail).with_source(closed)
    };
    // Held until the bytes are opened.
    let _read = reading.reads.acquire().await.map_err(closed)?;
    let unknown = || {
        Error::new(
            ErrorKind::Corrupt,
            "read",
            inner.store_name(),
            "a row names a pack that is not in the closure",
        )
    };
    let pack = inner.backup.closure.pack(batch.pack).ok_or_else(unknown)?;
    let name = inner.backup.closure.pack_key(pack, inner.component())?;
    // The pack's key is in its header: one more read, for the first that comes.
    let (key, bytes) = join(
        inner.pack_key(batch.pack),
        inner.repository.store().get_range(&name, batch.range.clone()),
    )
    .await;
    let (key, bytes) = (key?, bytes.map_err(lost_file)?);
    let fetched_bytes = bytes.len() as u64;
    // Far more reads than processors may be on their way: what has come is opened by few threads, each with memory of its own.
    let _open = reading.opens.acquire().await.map_err(closed)?;
    let written_bytes = compute::run("open a pack", move || {
        let mut opener = inner.take_opener()?;
        let mut bytes = BytesMut::from(bytes);
        let mut written = 0;
        for job in &batch.jobs {
            written += open_job(
                &inner,
                &mut opener,
                &key,
                job,
                batch.range.start,
                &mut bytes,
                page_size,
                sink.as_deref(),
            )
            .map_err(|error| {
                error.with_hint(format!(
                    "the damaged file is {name}; restore an older or newer backup (`lifeboat list`), and run `lifeboat verify`"
                ))
            })?;
        }
        inner.give_back(opener);
        Ok(written)
    })
    .await?;
    Ok(Fetched {
        fetched_bytes,
        written_bytes,
        reused_bytes: 0,
    })
}

#[expect(
    clippy::too_many_arguments,
    reason = "the innermost step of reading; a struct for one call would hide more than it tells"
)]
fn open_job(
    inner: &Inner,
    opener: &mut Opener,
    key: &LessSafeKey,
    job: &Job,
    start: u64,
    bytes: &mut BytesMut,
    page_size: usize,
    sink: Option<&dyn PageSink>,
) -> Result<u64> {
    let from = crate::bytes::size(u64::from(job.place.offset) - start, "a row")?;
    let short = || {
        Error::new(
            ErrorKind::Corrupt,
            "read",
            inner.store_name(),
            "a row reaches beyond its pack",
        )
    };
    let sealed = bytes
        .get_mut(from..from + job.place.stored_bytes as usize)
        .ok_or_else(short)?;
    let raw = opener.open(key, sealed, &job.place, job.class, job.raw_bytes, &job.id)?;
    inner.check_id(
        raw,
        job.class,
        &job.id,
        page_size,
        &format_args!("blob at {} of pack {}", job.place.offset, job.place.pack),
    )?;
    let mut written = 0;
    for target in &job.targets {
        match *target {
            Target::Whole { offset } => {
                if let Some(sink) = sink {
                    sink.write_at(offset, raw)?;
                }
                written += raw.len() as u64;
                inner.env.progress.advance(raw.len() as u64);
            }
            Target::Pages {
                offset,
                pages,
                wanted,
                first,
            } => written += write_pages(raw, offset, pages, wanted, first, page_size, sink)?,
        }
    }
    Ok(written)
}

fn write_pages(
    group: &[u8],
    offset: u64,
    pages: u128,
    wanted: u128,
    first: u16,
    page_size: usize,
    sink: Option<&dyn PageSink>,
) -> Result<u64> {
    let mut at = usize::from(first) * page_size;
    let mut written = 0;
    for index in 0..128_u32 {
        if pages >> index & 1 == 0 {
            continue;
        }
        let short = || Error::new(ErrorKind::Corrupt, "read", "an overlay group", "a slot reaches beyond it");
        let page = group.get(at..at + page_size).ok_or_else(short)?;
        at += page_size;
        if wanted >> index & 1 == 1 {
            if let Some(sink) = sink {
                sink.write_at(offset + u64::from(index) * page_size as u64, page)?;
            }
            written += page.len() as u64;
        }
    }
    Ok(written)
}
