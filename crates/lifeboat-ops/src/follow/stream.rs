//! One stream: receiving, making durable, and reporting, side by side.
//!
//! received → bounded queue → spool, fsync in groups → reported as flushed (PG-02). Reports leave when the durable end has moved, when the server
//! asks, and every ten seconds, whatever the others wait for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_engine::postgres::replication::stream::{LogReader, Received, Status, StatusWriter, Stream};
use lifeboat_engine::postgres::segment::{HEADER_BYTES, SegmentHeader};
use lifeboat_engine::postgres::wire::Connection;
use lifeboat_io::compute;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Shared, set};

/// Messages (of 128 KiB at most) that wait to be made durable.
const QUEUE: usize = 64;
/// A report leaves at least so often; the server gives up after `wal_sender_timeout`, a minute unless told.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// What is written down for `status` is at most so old.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);

/// Why a stream ended.
pub(crate) enum Ended {
    /// It was to.
    Stopped,
    /// The timeline ended; the next one left it there.
    Timeline(Position, Box<Connection>),
}

/// Log on its way to the disk.
struct Chunk {
    start: Lsn,
    data: Bytes,
}

/// Streams until the timeline ends, the connection is lost or it is to stop. `times`: whether the server commits on this
/// timeline, so that its clock is that of the commits. `server`: where it was before.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    stream: Stream,
    from: Position,
    held: Position,
    server: Lsn,
    times: bool,
) -> Result<Ended> {
    let Stream { mut reader, writer } = stream;
    let (chunks, queue) = mpsc::channel(QUEUE);
    let first = if held.timeline == from.timeline { held.lsn } else { from.lsn };
    let (durable, moved) = watch::channel(first);
    shared.state().durable = first;
    let (ask, asked) = mpsc::channel(1);
    let mut keeping = JoinSet::new();
    keeping.spawn(keep(Arc::clone(shared), from.timeline, queue, durable));
    let mut reporting = JoinSet::new();
    reporting.spawn(report(Arc::clone(shared), writer, moved, asked));
    let mut writing = JoinSet::new();
    writing.spawn(write_down(Arc::clone(shared)));
    let mut stop = shared.stop.subscribe();
    let received = {
        let receiving = receive(shared, &mut reader, from, (server, times), &chunks, &ask);
        tokio::select! {
            received = receiving => received.map(|()| true),
            written = writing.join_next() => Err(ended_early("write down how far the log is", written)),
            kept = keeping.join_next() => Err(ended_early("make log durable", kept)),
            reported = reporting.join_next() => Err(match reported {
                Some(Ok(Err(error))) => error,
                Some(Ok(Ok(_))) | None => ended_early("report to the server", None),
                Some(Err(panicked)) => ended_early("report to the server", Some(Err(panicked))),
            }),
            () = set(&mut stop) => Ok(false),
        }
    };
    // Whatever came is made durable before anything else happens; what is durable is reported.
    drop(chunks);
    let kept = keeping.join_next().await;
    drop(ask);
    let reported = reporting.join_next().await;
    let is_end = received?;
    if let Some(kept) = kept {
        joined("make log durable", kept)?;
    }
    if !is_end {
        return Ok(Ended::Stopped);
    }
    let Some(reported) = reported else {
        return Err(ended_early("report to the server", None));
    };
    let writer = joined("report to the server", reported)?;
    let end = reader.position();
    let (next, connection) = reader.end(writer).await?;
    match next {
        Some(next) => Ok(Ended::Timeline(next.switch, Box::new(connection))),
        None => {
            let detail = format!("it ended timeline {} at {end} without a next one", from.timeline);
            Err(Error::new(ErrorKind::Unreachable, "follow", connection.subject(), detail))
        }
    }
}

fn joined<T>(op: &'static str, joined: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    joined.unwrap_or_else(|panicked| Err(Error::new(ErrorKind::Bug, op, "a task", "it panicked").with_source(panicked)))
}

fn ended_early(op: &'static str, ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(panicked)) => Error::new(ErrorKind::Bug, op, "a task", "it panicked").with_source(panicked),
        Some(Ok(Ok(()))) | None => Error::new(ErrorKind::Bug, op, "a task", "it ended too early"),
    }
}

/// Receives until the timeline ends.
async fn receive(
    shared: &Shared,
    reader: &mut LogReader,
    from: Position,
    (mut server, times): (Lsn, bool),
    chunks: &mpsc::Sender<Chunk>,
    ask: &mpsc::Sender<()>,
) -> Result<()> {
    let mut headers = Headers::new(shared, from);
    let mut lag = Lag(false);
    loop {
        let (server_end, told_us) = match reader.next().await? {
            Received::EndOfTimeline => return Ok(()),
            Received::Log {
                start,
                data,
                server_end,
                sent_at_us,
            } => {
                headers.check(start, &data)?;
                if chunks.send(Chunk { start, data }).await.is_err() {
                    // Whoever makes durable has failed, and says why.
                    return std::future::pending().await;
                }
                (server_end, times.then_some(sent_at_us))
            }
            Received::Alive { server_end, reply, .. } => {
                if reply && ask.try_send(()).is_err() {
                    // One is on its way already.
                }
                // It names what was sent to us, not what is flushed: to a receiver that is behind, its time says nothing.
                (server_end, None)
            }
        };
        server = server.max(server_end);
        lag.look(shared, server);
        seen(shared, Position::new(from.timeline, server), told_us);
    }
}

/// Remembers what the server said. Touches no disk: whoever receives must answer the server in time.
fn seen(shared: &Shared, server: Position, told_us: Option<i64>) {
    let now_us = shared.env.clock.wall_us();
    let mut state = shared.state();
    if let Some(told_us) = told_us {
        state.marks.observe(server, told_us);
    }
    let all_stored = state.stored.end(server.timeline) >= Some(server.lsn);
    let standing = &mut state.standing;
    standing.server = server.lsn.to_string();
    standing.contact_us = now_us;
    if all_stored {
        standing.stored_us = now_us;
    }
}

/// Writes down for `status` how far the log is, now and then.
async fn write_down(shared: Arc<Shared>) -> Result<()> {
    loop {
        shared.save_standing().await?;
        tokio::time::sleep(WRITTEN_EVERY).await;
    }
}

/// Whether it was told that our slot holds back too much of the server's log.
struct Lag(bool);

impl Lag {
    fn look(&mut self, shared: &Shared, server_end: Lsn) {
        let (durable, limit) = (shared.state().durable, shared.options.max_slot_lag);
        let bytes = server_end.since(durable);
        if bytes > limit && !self.0 {
            self.0 = true;
            shared.alarm(format!(
                "OUR SLOT HOLDS BACK {} OF LOG ON THE SERVER (`max_slot_lag` is {}): its disk may fill; find out what keeps us, or drop the slot {}",
                human_bytes(bytes),
                human_bytes(limit),
                shared.options.slot
            ));
        } else if bytes < limit / 2 && self.0 {
            self.0 = false;
            shared.note("our slot holds back little again");
        }
    }
}

/// Makes durable what was received, as much at once as has come meanwhile.
async fn keep(
    shared: Arc<Shared>,
    timeline: Timeline,
    mut queue: mpsc::Receiver<Chunk>,
    durable: watch::Sender<Lsn>,
) -> Result<()> {
    let mut batch = Vec::new();
    let mut is_full = false;
    while queue.recv_many(&mut batch, QUEUE).await > 0 {
        while shared.spool().bytes() >= shared.options.max_spool && !shared.stopping() {
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
            return Ok(());
        }
        if is_full {
            is_full = false;
            shared.note("the spool has room again");
        }
        let end = batch
            .last()
            .map_or(Lsn::INVALID, |chunk| chunk.start.plus(chunk.data.len() as u64));
        let (spool, taken) = (Arc::clone(&shared), std::mem::take(&mut batch));
        compute::run("take log into the spool", move || write(&spool, timeline, taken)).await?;
        durable.send_if_modified(|known| {
            let is_new = end > *known;
            *known = end.max(*known);
            is_new
        });
        {
            let mut state = shared.state();
            state.resume = None;
            state.durable = *durable.borrow();
            state.standing.durable = state.durable.to_string();
        }
        shared.news.notify_one();
    }
    Ok(())
}

fn write(shared: &Shared, timeline: Timeline, batch: Vec<Chunk>) -> Result<()> {
    // Neighbours become one record.
    let mut start = batch.first().map_or(Lsn::INVALID, |chunk| chunk.start);
    let mut bytes = Vec::new();
    let mut spool = shared.spool();
    for chunk in batch {
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

/// Tells the server what is durable. Gives the writer back at the end.
async fn report(
    shared: Arc<Shared>,
    mut writer: StatusWriter,
    mut durable: watch::Receiver<Lsn>,
    mut asked: mpsc::Receiver<()>,
) -> Result<StatusWriter> {
    let mut is_open = true;
    let mut reply = true;
    loop {
        let flushed = *durable.borrow_and_update();
        let status = Status {
            written: flushed,
            flushed,
            now_us: shared.env.clock.wall_us(),
            reply,
        };
        writer.send(status).await?;
        if !is_open {
            return Ok(writer);
        }
        reply = tokio::select! {
            changed = durable.changed() => {
                // Nobody makes anything durable any more: the last word follows when nobody receives either.
                if changed.is_err() {
                    is_open = asked.recv().await.is_some();
                }
                false
            }
            asked = asked.recv() => {
                is_open = asked.is_some();
                false
            }
            // An idle server says nothing by itself, and silence is what a lost one sounds like.
            () = tokio::time::sleep(REPORT_EVERY) => true,
        };
    }
}

/// Looks at the first page of every segment that comes by.
struct Headers<'a> {
    shared: &'a Shared,
    timeline: Timeline,
    /// The beginning of a segment whose first bytes came alone.
    begun: Option<(Lsn, Vec<u8>)>,
}

impl<'a> Headers<'a> {
    fn new(shared: &'a Shared, from: Position) -> Self {
        Self {
            shared,
            timeline: from.timeline,
            begun: None,
        }
    }

    fn check(&mut self, start: Lsn, data: &[u8]) -> Result<()> {
        let size = self.shared.source.segment;
        if let Some((at, mut bytes)) = self.begun.take() {
            bytes.extend(data.iter().take(HEADER_BYTES.saturating_sub(bytes.len())));
            self.judge(at, bytes)?;
        }
        let mut at = size.align_up(start);
        while at < start.plus(data.len() as u64) {
            let place = usize::try_from(at.since(start)).unwrap_or(usize::MAX);
            let bytes = data.iter().skip(place).take(HEADER_BYTES).copied().collect();
            self.judge(at, bytes)?;
            at = at.plus(size.bytes());
        }
        Ok(())
    }

    fn judge(&mut self, at: Lsn, bytes: Vec<u8>) -> Result<()> {
        if bytes.len() < HEADER_BYTES {
            self.begun = Some((at, bytes));
            return Ok(());
        }
        let source = self.shared.source;
        SegmentHeader::parse(&bytes)?.check(source.system, source.segment, self.timeline, at)
    }
}
