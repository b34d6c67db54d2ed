//! The log of a base, while the base is read (docs/postgres.md, "A base, step by step", 3): held by a slot that ends with the connection, streamed
//! from before the start until after the end, and put into the same stores. So a base depends on no other program.
//!
//! Where a follower runs on this host, the log is its business, and this module waits until it has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::replication::stream::{LogReader, Received, Started, Status, StatusWriter, Stream};
use lifeboat_engine::postgres::wire::{self, Connection, Mode};
use lifeboat_model::wal::{Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{
    BLOCK_BYTES, Instance, Lineage, LogFileKind, LogNeed, LogPlan, LogWriter, NewLog, Repository, block_end, list_log,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::follow::held_of;
use crate::protected::Protected;

/// A status leaves at least so often; a server gives a connection up after a minute.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Blocks that are received and not put yet.
const WAITING_BLOCKS: usize = 2;
/// How long the log may stand still while its end is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at how far a follower has come.
const LOOK: Duration = Duration::from_millis(500);
/// A commit gets its time shortly before it gets its place in the log.
const COMMIT_MARGIN_US: i64 = 1_000_000;

const OP: &str = "stream the log of a backup from";

/// What a log needs to know about what it is for.
pub(crate) struct About<'a> {
    pub(crate) env: &'a Env,
    pub(crate) protected: &'a Protected,
    pub(crate) repository: &'a Repository,
    pub(crate) instance: &'a Arc<Instance>,
}

/// Log that the server keeps for us, from now on.
pub(super) struct Held {
    /// Whether its clock is that of the commits.
    is_primary: bool,
    connection: Connection,
    slot: String,
    segment: SegmentSize,
    /// None while a follower runs.
    writer: Option<LogWriter>,
}

/// Log on its way.
pub(super) struct Flowing {
    segment: SegmentSize,
    /// The start of the backup; the log is held from its segment on.
    start: Position,
    until: watch::Sender<Option<Lsn>>,
    stored: Arc<AtomicU64>,
    /// Nothing runs while a follower does.
    tasks: JoinSet<Result<()>>,
    lineage: Option<Lineage>,
}

/// Has the server keep its log. To be called before the backup begins.
pub(super) async fn hold(about: &About<'_>, info: &ConnInfo, system: u64) -> Result<Held> {
    let mut connection = wire::connect(info, Mode::Replication).await?;
    let identity = connection.identify_system().await?;
    if identity.system != system {
        let detail = format!("it is the cluster {}, and the backup is of {system}", identity.system);
        return Err(Error::new(ErrorKind::Refused, OP, info, detail)
            .with_hint("name one server in the connection: behind this address there are several"));
    }
    let segment = SegmentSize::new(connection.wal_segment_size().await?)?;
    let mut random = [0; 6];
    about.env.entropy.fill(&mut random)?;
    let slot = format!("lifeboat_backup_{}", hex::encode(random));
    connection.create_slot(&slot, true).await?;
    let is_primary = connection.parameter("in_hot_standby") != Some("on");
    let primary = is_primary.then_some(&mut connection);
    let writer = begin(about, || plan(about, system, segment), primary).await?;
    Ok(Held {
        is_primary,
        connection,
        slot,
        segment,
        writer,
    })
}

/// Writes on where log is held, or begins a new lineage where this primary is behind that: it was set back. None while a follower runs.
async fn begin(about: &About<'_>, plan: impl Fn() -> LogPlan, primary: Option<&mut Connection>) -> Result<Option<LogWriter>> {
    let writer = match LogWriter::begin(about.env, about.repository, plan(), NewLog::Continue).await {
        Ok(writer) => writer,
        Err(error) if error.kind() == ErrorKind::Locked => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(primary) = primary else { return Ok(Some(writer)) };
    let held = held_of(about.protected, about.repository, writer.lineage()).await?;
    // Asked after the stores were: a follower that has just ended may have brought more than the server had a moment before.
    let server = primary.identify_system().await?.position;
    let Some(end) = held.end(server.timeline).filter(|end| *end > server.lsn) else {
        return Ok(Some(writer));
    };
    // PG-06: what it writes now are other bytes for positions that are held.
    let why = format!("the server is at {server}, and log is held up to {end}: it was set back to an earlier moment");
    drop(writer);
    let lineage = Lineage::draw(about.env)?;
    let new = NewLog::Begin { lineage, why };
    match LogWriter::begin(about.env, about.repository, plan(), new).await {
        Ok(writer) => Ok(Some(writer)),
        Err(error) if error.kind() == ErrorKind::Locked => Ok(None),
        Err(error) => Err(error),
    }
}

fn plan(about: &About<'_>, system: u64, segment: SegmentSize) -> LogPlan {
    LogPlan {
        component: about.protected.component.clone(),
        instance: Arc::clone(about.instance),
        encryption: about.protected.encryption.clone(),
        trust: about.protected.trust.clone(),
        state_dir: about.protected.state_dir.clone(),
        system,
        segment,
    }
}

impl Held {
    /// Lets the log flow from the segment of `start` on. To be called when the backup has begun.
    pub(super) async fn flow(self, start: Position) -> Result<Flowing> {
        let from = Position::new(start.timeline, self.segment.align_down(start.lsn));
        let (until, told) = watch::channel(None);
        let stored = Arc::new(AtomicU64::new(from.lsn.0));
        let mut tasks = JoinSet::new();
        let lineage = self.writer.as_ref().map(LogWriter::lineage);
        if let Some(writer) = self.writer {
            let stream = match self.connection.start_replication(Some(&self.slot), from).await? {
                Started::Streaming(stream) => stream,
                Started::Ended(..) => return Err(promoted(start.timeline)),
            };
            let (sender, blocks) = mpsc::channel(WAITING_BLOCKS);
            tasks.spawn(receive(
                stream,
                Gathered::new(from, self.is_primary),
                sender,
                told,
                Arc::clone(&stored),
            ));
            tasks.spawn(ship(writer, blocks, Arc::clone(&stored)));
        } else {
            // The connection keeps the slot, and the slot the log, until the follower has come this far.
            let connection = self.connection;
            tasks.spawn(async move {
                let mut told = told;
                let ended = told.wait_for(Option::is_some).await.map(drop);
                drop((connection, ended));
                Ok(())
            });
        }
        Ok(Flowing {
            segment: self.segment,
            start,
            until,
            stored,
            tasks,
            lineage,
        })
    }
}

impl Flowing {
    /// Why the log does not flow any more. Never, as long as it does.
    pub(super) async fn broken(&mut self) -> Error {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(panic) => return Error::new(ErrorKind::Bug, OP, "a task", panic),
            }
        }
        std::future::pending().await
    }

    /// Waits until all log from the start to `end` is in the stores. Returns what the backup has to say about it.
    pub(super) async fn finish(mut self, about: &About<'_>, end: Lsn) -> Result<LogNeed> {
        let range = Range::new(self.start.timeline, self.start.lsn, end);
        let Some(lineage) = self.lineage else {
            return self.followed(about, range).await;
        };
        self.until.send_replace(Some(end));
        let mut before = 0;
        loop {
            match tokio::time::timeout(PATIENCE, self.tasks.join_next()).await {
                Ok(None) => break,
                Ok(Some(Ok(ended))) => ended?,
                Ok(Some(Err(panic))) => return Err(Error::new(ErrorKind::Bug, OP, &about.protected.component, panic)),
                Err(_still) => {
                    let now = self.stored.load(Ordering::Acquire);
                    if now == before {
                        return Err(late(Lsn(now), end));
                    }
                    before = now;
                }
            }
        }
        if self.stored.load(Ordering::Acquire) < end.0 {
            return Err(late(Lsn(self.stored.load(Ordering::Acquire)), end));
        }
        Ok(LogNeed { lineage, range })
    }

    /// Waits for the follower of this host.
    async fn followed(self, about: &About<'_>, range: Range) -> Result<LogNeed> {
        let protected = about.protected;
        let clock = &about.env.clock;
        let mut before = (range.start, clock.monotonic());
        loop {
            let listing = list_log(about.repository, &protected.component, &protected.trust).await?;
            if let Some(record) = listing.lineages.last() {
                let from = self.segment.align_down(range.start);
                let reached = listing.candidates(record.lineage).end_from(range.timeline, from);
                if reached >= range.end {
                    let (lineage, segment) = (record.lineage, self.segment);
                    if record.segment != segment {
                        return Err(Error::new(
                            ErrorKind::Bug,
                            OP,
                            &protected.component,
                            "the log has segments of another size",
                        ));
                    }
                    self.until.send_replace(Some(range.end));
                    return Ok(LogNeed { lineage, range });
                }
                if reached > before.0 {
                    before = (reached, clock.monotonic());
                }
            }
            if clock.monotonic().saturating_sub(before.1) > PATIENCE {
                return Err(late(before.0, range.end).with_hint(
                    "a follower holds the log of this component and does not get on: look at what it says, or stop it and run the backup again",
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Received bytes of one block.
struct Block {
    kind: LogFileKind,
    range: Range,
    bytes: Vec<u8>,
    as_of_us: Option<i64>,
}

/// Receives up to the end that is told, block by block.
async fn receive(
    stream: Stream,
    mut gathered: Gathered,
    blocks: mpsc::Sender<Block>,
    mut until: watch::Receiver<Option<Lsn>>,
    stored: Arc<AtomicU64>,
) -> Result<()> {
    let Stream { mut reader, mut writer } = stream;
    let mut ticks = tokio::time::interval(STATUS_EVERY);
    loop {
        let end = *until.borrow_and_update();
        if end.is_some_and(|end| gathered.position() >= end) {
            if let Some(block) = gathered.rest() {
                hand_over(&blocks, block).await?;
            }
            // Dropping the connection ends the slot; a polite end only spares the server a line in its log.
            drop(reader.end(writer).await);
            return Ok(());
        }
        tokio::select! {
            received = reader.next() => match received? {
                Received::Log { data, server_end, sent_at_us, .. } => {
                    for block in gathered.take(&data, server_end, sent_at_us) {
                        deliver(&blocks, block, &mut writer, &mut ticks, &reader, &stored).await?;
                    }
                }
                // It says what was sent, not what the server has: no time follows.
                Received::Alive { reply: true, .. } => report(&mut writer, &reader, &stored).await?,
                Received::Alive { .. } => {}
                Received::EndOfTimeline => return Err(promoted(gathered.timeline)),
            },
            _ = ticks.tick() => report(&mut writer, &reader, &stored).await?,
            changed = until.changed() => {
                if changed.is_err() {
                    // The backup was given up.
                    return Ok(());
                }
            }
        }
    }
}

/// Hands a block over; while that takes long, the server hears from us.
async fn deliver(
    blocks: &mpsc::Sender<Block>,
    block: Block,
    writer: &mut StatusWriter,
    ticks: &mut tokio::time::Interval,
    reader: &LogReader,
    stored: &AtomicU64,
) -> Result<()> {
    let handing = hand_over(blocks, block);
    tokio::pin!(handing);
    loop {
        tokio::select! {
            handed = &mut handing => return handed,
            _ = ticks.tick() => report(writer, reader, stored).await?,
        }
    }
}

async fn hand_over(blocks: &mpsc::Sender<Block>, block: Block) -> Result<()> {
    blocks
        .send(block)
        .await
        .map_err(|_gone| Error::new(ErrorKind::Interrupted, OP, "the server", "the log could not be stored"))
}

/// PG-02: what stands in the stores is reported as flushed, nothing else.
async fn report(writer: &mut StatusWriter, reader: &LogReader, stored: &AtomicU64) -> Result<()> {
    let status = Status {
        written: reader.position(),
        flushed: Lsn(stored.load(Ordering::Acquire)),
        // Only shown by the server.
        now_us: 0,
        reply: false,
    };
    writer.send(status).await
}

/// Puts blocks, in order.
async fn ship(mut writer: LogWriter, mut blocks: mpsc::Receiver<Block>, stored: Arc<AtomicU64>) -> Result<()> {
    while let Some(block) = blocks.recv().await {
        let Block { kind, range, bytes, .. } = block;
        let end = range.end;
        // What longer files hold already stays as it is; the rest is put.
        for part in writer.fitting(range).await? {
            let offset = |lsn: Lsn| usize::try_from(lsn.since(range.start)).unwrap_or(usize::MAX);
            let raw = bytes.get(offset(part.start)..offset(part.end)).unwrap_or_default().to_vec();
            let as_of_us = block.as_of_us.filter(|_| part.end == range.end);
            let appended = writer.append(kind, part, raw, as_of_us).await?;
            // Frames of an earlier backup or follower; one that stays is a pruner's business.
            drop(writer.drop_replaced(&appended).await);
        }
        stored.store(end.0, Ordering::Release);
    }
    Ok(())
}

/// Log as it comes, until a block is whole.
struct Gathered {
    /// Whether the messages say something about times.
    times: bool,
    timeline: Timeline,
    start: Lsn,
    bytes: Vec<u8>,
    /// Everything committed before this lies before that position.
    as_of: Option<(Lsn, i64)>,
}

impl Gathered {
    fn new(from: Position, times: bool) -> Self {
        Self {
            times,
            timeline: from.timeline,
            start: from.lsn,
            bytes: Vec::new(),
            as_of: None,
        }
    }

    fn position(&self) -> Lsn {
        self.start.plus(self.bytes.len() as u64)
    }

    /// Takes what came; gives out the blocks that it completes.
    fn take(&mut self, data: &Bytes, server_end: Lsn, sent_at_us: i64) -> Vec<Block> {
        let mut whole = Vec::new();
        let mut rest: &[u8] = data;
        while !rest.is_empty() {
            let room = usize::try_from(block_end(self.start).since(self.position())).unwrap_or(0);
            let (now, later) = rest.split_at(rest.len().min(room));
            if self.bytes.capacity() == 0 {
                self.bytes.reserve_exact(usize::try_from(BLOCK_BYTES).unwrap_or(0));
            }
            self.bytes.extend_from_slice(now);
            rest = later;
            if now.len() == room {
                whole.push(self.cut(LogFileKind::Piece, None));
            }
        }
        if self.times && server_end <= self.position() {
            self.as_of = Some((self.position(), sent_at_us - COMMIT_MARGIN_US));
        }
        whole
    }

    /// What is not a whole block.
    fn rest(&mut self) -> Option<Block> {
        let as_of = self.as_of.filter(|(at, _)| *at <= self.position()).map(|(_, us)| us);
        (!self.bytes.is_empty()).then(|| self.cut(LogFileKind::Frame, as_of))
    }

    fn cut(&mut self, kind: LogFileKind, as_of_us: Option<i64>) -> Block {
        let end = self.position();
        let range = Range::new(self.timeline, self.start, end);
        self.start = end;
        Block {
            kind,
            range,
            bytes: std::mem::take(&mut self.bytes),
            as_of_us,
        }
    }
}

fn promoted(timeline: Timeline) -> Error {
    let detail = format!("the server left timeline {timeline} meanwhile: it was promoted, or follows another server");
    Error::new(ErrorKind::Failed, OP, "the server", detail).with_hint("run the backup again: what was read cannot be restored")
}

fn late(reached: Lsn, end: Lsn) -> Error {
    let detail = format!("the log came as far as {reached}, and the backup needs it up to {end}");
    Error::new(ErrorKind::TimedOut, OP, "the server", detail)
        .with_hint("nothing was published; look whether the server and the stores answer, and run the backup again")
}
