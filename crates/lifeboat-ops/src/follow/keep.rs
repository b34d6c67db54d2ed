//! Making durable what was received, and telling the server.
//!
//! A commit or two are written where they are received, and told from there: waking somebody else for it, and being woken, would take as long as the disk
//! does, while a commit waits for the answer. More, or a slow disk, or a full spool, is the queue's, so that the server is answered and goes on meanwhile.
//! Whatever is received goes one way only, and in order: nothing is written past rows that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lifeboat_engine::postgres::replication::stream::{Status, StatusWriter};
use lifeboat_io::compute;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use tokio::sync::{Mutex, mpsc, watch};

use super::{Shared, set, spool};

/// Rows of messages that wait to be made durable.
pub(super) const QUEUE: usize = 8;
/// Not more than this is written by whoever receives.
const HERE_BYTES: usize = 256 << 10;
/// A disk that takes longer for it is slow.
const SLOW: Duration = Duration::from_millis(50);
/// After so long the others on this thread have their turn: they stop, answer and write down how far it is.
const TURN: Duration = Duration::from_millis(5);

/// Log on its way to the disk.
pub(super) struct Chunk {
    pub(super) start: Lsn,
    pub(super) data: Bytes,
}

/// What is durable.
pub(super) struct Kept {
    /// Up to here.
    end: Lsn,
    /// The disk took this long.
    took: Duration,
    /// The server knows it.
    is_told: bool,
}

/// What came together, and is made durable together: one sync for each commit would be one too many.
pub(super) type Row = Vec<Chunk>;

fn bytes_of(row: &Row) -> usize {
    row.iter().map(|chunk| chunk.data.len()).sum()
}

/// Where the log ends that is durable, on one stream.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    held: Position,
    durable: watch::Sender<Lsn>,
    writer: Arc<Mutex<StatusWriter>>,
    /// Rows in the queue, and those that are being written.
    waiting: AtomicUsize,
    /// The disk took long the last time.
    is_slow: AtomicBool,
}

impl Keeper {
    /// Of a stream that begins where `held` ends. Whoever reports sees in `durable` when there is something to tell.
    pub(super) fn new(
        shared: &Arc<Shared>,
        held: Position,
        durable: watch::Sender<Lsn>,
        writer: &Arc<Mutex<StatusWriter>>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            held,
            durable,
            writer: Arc::clone(writer),
            waiting: AtomicUsize::new(0),
            is_slow: AtomicBool::new(false),
        }
    }

    /// Writes a row and tells the server, where it is little and nothing is in the way. Gives it back otherwise: it is the queue's.
    pub(super) async fn here(&self, row: Row) -> Result<std::result::Result<Kept, Row>> {
        let is_free = self.waiting.load(Ordering::Acquire) == 0 && !self.is_slow.load(Ordering::Acquire);
        if !is_free || bytes_of(&row) > HERE_BYTES || self.shared.spool_is_full() {
            return Ok(Err(row));
        }
        let end = end_of(&row).max(self.held.lsn);
        let took = self.timed(|| write(&self.shared, self.held.timeline, vec![row]))?;
        let is_told = self.tell(end).await;
        Ok(Ok(Kept { end, took, is_told }))
    }

    /// Whether all of it went; what is left goes with the next. Where the connection is gone, whoever reports will say so: what the server said last
    /// may not have been read yet.
    async fn tell(&self, end: Lsn) -> bool {
        let Ok(mut writer) = self.writer.try_lock() else {
            return false;
        };
        let status = Status {
            written: end,
            flushed: end,
            now_us: self.shared.env.clock.wall_us(),
            reply: false,
        };
        writer.send_now(status).await.unwrap_or(false)
    }

    /// Has everybody else hear of it.
    pub(super) async fn made_durable(&self, kept: Kept) {
        self.durable.send_if_modified(|known| {
            let is_new = kept.end > *known;
            *known = kept.end.max(*known);
            is_new && !kept.is_told
        });
        self.shared.state().durable = *self.durable.borrow();
        self.shared.news.notify_one();
        if kept.took > TURN {
            tokio::task::yield_now().await;
        }
    }

    /// Writes, and says how long it took.
    fn timed(&self, write: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let began = self.shared.env.clock.monotonic();
        let written = write();
        let took = self.shared.env.clock.monotonic().saturating_sub(began);
        self.is_slow.store(took > SLOW, Ordering::Release);
        written.map(|()| took)
    }

    /// A row goes into the queue.
    pub(super) fn hand_over(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes durable what is in the queue, as much at once as has come meanwhile.
    pub(super) async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<Row>) -> Result<()> {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, QUEUE).await > 0 {
            if !self.has_room().await? {
                return Ok(());
            }
            let (rows, end) = (batch.len(), batch.last().map_or(self.held.lsn, end_of));
            let (keeper, batch) = (Arc::clone(&self), std::mem::take(&mut batch));
            let took = compute::run("take log into the spool", move || {
                keeper.timed(|| write(&keeper.shared, keeper.held.timeline, batch))
            });
            let kept = Kept {
                took: took.await?,
                end: end.max(self.held.lsn),
                is_told: false,
            };
            self.made_durable(kept).await;
            self.waiting.fetch_sub(rows, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Waits until the spool has room; false where it is to end before.
    async fn has_room(&self) -> Result<bool> {
        let (shared, mut is_full) = (&self.shared, false);
        while shared.spool_is_full() && !shared.stopping() {
            guard(shared)?;
            if !is_full {
                is_full = true;
                shared.alarm(format!(
                    "THE SPOOL IS FULL ({}, `max_spool`): nothing more is received until the stores take something, and the server keeps its log for us",
                    human_bytes(shared.options.max_spool)
                ));
            }
            let mut stop = shared.stop.subscribe();
            tokio::select! {
                () = shared.room.notified() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = set(&mut stop) => {}
            }
        }
        if shared.stopping() && is_full {
            return Ok(false);
        }
        if is_full {
            shared.note("the spool has room again");
        }
        Ok(true)
    }
}

fn end_of(row: &Row) -> Lsn {
    row.last()
        .map_or(Lsn::INVALID, |chunk| chunk.start.plus(chunk.data.len() as u64))
}

/// What a slot that is to go is told with.
const GUARD: &str = "hold back no more of the log of";

/// Ends the stream where our slot, while nothing more is taken, holds back more than it may.
fn guard(shared: &Shared) -> Result<()> {
    let Some(limit) = shared.options.drop_slot_at else {
        return Ok(());
    };
    let bytes = {
        let state = shared.state();
        state.server.since(state.durable)
    };
    if bytes <= limit {
        return Ok(());
    }
    let detail = format!(
        "the spool is full, and our slot holds back {} (`--drop-slot-at` is {})",
        human_bytes(bytes),
        human_bytes(limit)
    );
    Err(Error::new(ErrorKind::Failed, GUARD, &shared.protected.component, detail))
}

/// Whether a stream ended because our slot has to go.
pub(crate) fn is_guarded(error: &Error) -> bool {
    error.op() == GUARD
}

fn write(shared: &Shared, timeline: Timeline, batch: Vec<Row>) -> Result<()> {
    let taken = take(shared, timeline, batch);
    if let Err(error) = &taken
        && spool::is_damage(error)
    {
        shared.look_through_spool()?;
    }
    taken
}

fn take(shared: &Shared, timeline: Timeline, batch: Vec<Row>) -> Result<()> {
    if let [row] = batch.as_slice()
        && let [chunk] = row.as_slice()
    {
        let mut spool = shared.spool();
        spool.append(Position::new(timeline, chunk.start), &chunk.data)?;
        return spool.sync();
    }
    // Neighbours become one record.
    let mut start = batch
        .first()
        .and_then(|row| row.first())
        .map_or(Lsn::INVALID, |chunk| chunk.start);
    let mut bytes = Vec::new();
    let mut spool = shared.spool();
    for chunk in batch.into_iter().flatten() {
        if start.plus(bytes.len() as u64) != chunk.start {
            spool.append(Position::new(timeline, start), &bytes)?;
            bytes.clear();
            start = chunk.start;
        }
        bytes.extend_from_slice(&chunk.data);
    }
    spool.append(Position::new(timeline, start), &bytes)?;
    spool.sync()
}
