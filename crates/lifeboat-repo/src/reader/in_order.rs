//! A stream's bytes, front to back: for whoever takes them one after the other and cannot be written at an offset.

use std::sync::Arc;

use futures_util::future::join;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use super::fetch::Job;
use super::{Inner, Reader, lost_file};
use crate::manifest::FileRecord;

/// Runs that are fetched and opened before they are asked for.
const AHEAD: usize = 3;
/// Stored bytes of a run, and bytes that it may open to unless one chunk alone has more: text may shrink to a hundredth (INV-08).
const RUN_BYTES: u64 = 512 << 10;
const RUN_OPENED_BYTES: u64 = 4 << 20;

/// Neighbours in one pack, in the order of the stream.
struct Run {
    pack: u32,
    start: u64,
    end: u64,
    opened_bytes: u64,
    jobs: Vec<Job>,
}

/// Neighbours are read at once.
fn runs(jobs: Vec<Job>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for job in jobs {
        let start = u64::from(job.place.offset);
        let end = start + u64::from(job.place.stored_bytes);
        match runs.last_mut() {
            Some(run)
                if run.pack == job.place.pack
                    && start == run.end
                    && end - run.start <= RUN_BYTES
                    && run.opened_bytes + u64::from(job.raw_bytes) <= RUN_OPENED_BYTES =>
            {
                run.end = end;
                run.opened_bytes += u64::from(job.raw_bytes);
                run.jobs.push(job);
            }
            _ => runs.push(Run {
                pack: job.place.pack,
                start,
                end,
                opened_bytes: u64::from(job.raw_bytes),
                jobs: vec![job],
            }),
        }
    }
    runs
}

impl Reader {
    /// Sends the bytes of a stream, in order and in pieces, each verified; some are fetched and opened ahead. Whether all of it came, and in the right
    /// order, is known at the end: kind `Corrupt` where not; `Interrupted` where nobody listens any more.
    pub async fn read_in_order(&self, file: &FileRecord, to: &mpsc::Sender<Vec<u8>>) -> Result<()> {
        let mut root = self.inner.ids.root(file.size_bytes, file.page_size);
        let mut walk = self.walk(file);
        while let Some(window) = walk.next().await? {
            root.add(&window.ids);
            let opened = stream::iter(runs(window.bases)).map(|run| open(Arc::clone(&self.inner), run));
            let mut opened = std::pin::pin!(opened.buffered(AHEAD));
            while let Some(bytes) = opened.try_next().await? {
                let gone = |_| Error::new(ErrorKind::Interrupted, "read", &file.meta.path, "nobody wants it any more");
                to.send(bytes).await.map_err(gone)?;
            }
        }
        self.check_root_value(&root, file)
    }
}

async fn open(inner: Arc<Inner>, run: Run) -> Result<Vec<u8>> {
    let unknown = || {
        let detail = "a row names a pack that is not in the closure";
        Error::new(ErrorKind::Corrupt, "read", inner.store_name(), detail)
    };
    let pack = inner.backup.closure.pack(run.pack).ok_or_else(unknown)?;
    let name = inner.backup.closure.pack_key(pack, inner.component())?;
    let fetched = inner.repository.store().get_range(&name, run.start..run.end);
    let (key, sealed) = join(inner.pack_key(run.pack), fetched).await;
    let (key, mut sealed) = (key?, sealed.map_err(lost_file)?.to_vec());
    compute::run("open a pack", move || {
        let mut opener = inner.take_opener()?;
        let mut whole = Vec::new();
        for job in &run.jobs {
            let from = crate::bytes::size(u64::from(job.place.offset) - run.start, "a row")?;
            let sealed = sealed.get_mut(from..from + job.place.stored_bytes as usize);
            let sealed = sealed.ok_or_else(|| {
                let detail = "a row reaches beyond its pack";
                Error::new(ErrorKind::Corrupt, "read", inner.store_name(), detail)
            })?;
            let raw = opener.open(&key, sealed, &job.place, job.class, job.raw_bytes, &job.id)?;
            inner.check_id(raw, job.class, &job.id, 4096, &name)?;
            whole.extend_from_slice(raw);
        }
        inner.give_back(opener);
        Ok(whole)
    })
    .await
}
