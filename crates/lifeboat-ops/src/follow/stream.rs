//! One stream: receiving, making durable, and reporting, side by side.
//!
//! received → spool, at once or through a bounded queue, fsync in groups → reported as flushed (PG-02; `keep`). Reports leave when the durable end has moved, when the server
//! asks, and every few seconds, whatever the others wait for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lifeboat_engine::postgres::replication::stream::{LogReader, Received, Status, StatusWriter, Stream};
use lifeboat_engine::postgres::segment::{HEADER_BYTES, SegmentHeader};
use lifeboat_engine::postgres::wire::Connection;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::idle::{Answer, Idle};
use super::keep::{Chunk, Keeper, QUEUE, Row};
use super::{Shared, receive, set};

/// Messages (of 128 KiB at most) in a row.
const ROW: usize = 8;
/// The server's position is asked for beside the stream for no longer than this.
const ASIDE: Duration = Duration::from_secs(10);
/// What is written down for `status` is at most so old.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);
/// Where nothing can be reported any more, what the server said last is waited for this long.
const LAST_WORDS: Duration = Duration::from_secs(5);

const REPORT: &str = "report to the server";

/// Why a stream ended.
pub(crate) enum Ended {
    /// It was to.
    Stopped,
    /// The timeline ended; the next one left it there.
    Timeline(Position, Box<Connection>),
}

/// What the server's messages are worth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worth {
    /// Whether it is on this timeline itself; of one that it left, its messages name where that was.
    pub(crate) own: bool,
    /// Whether its clock is that of the commits: it is no standby.
    pub(crate) times: bool,
}

/// Streams until the timeline ends, the connection is lost or it is to stop.
pub(crate) async fn run(shared: &Arc<Shared>, stream: Stream, from: Position, held: Position, worth: Worth) -> Result<Ended> {
    let Stream { mut reader, writer } = stream;
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    let (rows, queue) = mpsc::channel(QUEUE);
    let first = if held.timeline == from.timeline { held.lsn } else { from.lsn };
    // The first word would set the slot back to what we hold: nothing is said before the server has shown that it has the log behind that.
    let (durable, moved) = watch::channel(Lsn::INVALID);
    shared.state().durable = first;
    let (ask, asked) = mpsc::channel(1);
    let idle = Arc::new(Mutex::new(Idle::default()));
    let keeper = Arc::new(Keeper::new(shared, Position::new(from.timeline, first), durable, &writer));
    let mut beside = Beside::default();
    beside.keeping.spawn(Arc::clone(&keeper).run(queue));
    let reporting = report(Arc::clone(shared), Arc::clone(&writer), moved, asked, Arc::clone(&idle));
    beside.reporting.spawn(reporting);
    beside.writing.spawn(write_down(Arc::clone(shared)));
    let about = Receiving {
        shared,
        from,
        worth,
        idle: &idle,
        keeper: &keeper,
    };
    let received = tokio::select! {
        biased;
        received = about.receive(&mut reader, &rows, &ask) => received.map(|()| true),
        ended = beside.over(shared) => ended,
    };
    // Whatever was handed over is made durable before anything else happens; what is durable is reported. A row that was still being received when we
    // were told to stop goes: nobody was told that it is held, and the server is asked for it again.
    drop(rows);
    let kept = beside.keeping.join_next().await;
    drop((ask, keeper));
    let reported = beside.reporting.join_next().await;
    let is_end = received?;
    if let Some(kept) = kept {
        joined("make log durable", kept)?;
    }
    if !is_end {
        return Ok(Ended::Stopped);
    }
    let Some(reported) = reported else {
        let detail = "the connection was gone when the timeline ended";
        return Err(Error::new(
            ErrorKind::Unreachable,
            REPORT,
            &shared.protected.component,
            detail,
        ));
    };
    joined(REPORT, reported)?;
    match Arc::into_inner(writer) {
        Some(writer) => ended(reader, writer.into_inner(), from).await,
        None => Err(ended_early(REPORT, None)),
    }
}

/// What goes on beside receiving.
#[derive(Default)]
struct Beside {
    keeping: JoinSet<Result<()>>,
    reporting: JoinSet<Result<()>>,
    writing: JoinSet<Result<()>>,
}

impl Beside {
    /// Waits until one of them ends, or receiving is to: `false` where it is to stop. Whoever receives is woken some thousand times in a second, and these
    /// are looked at only where they have something to say.
    async fn over(&mut self, shared: &Shared) -> Result<bool> {
        let mut stop = shared.stop.subscribe();
        let mut all: FuturesUnordered<Pin<Box<dyn Future<Output = Result<bool>>>>> = FuturesUnordered::new();
        all.push(Box::pin(async {
            Err(ended_early("write down how far the log is", self.writing.join_next().await))
        }));
        all.push(Box::pin(async {
            Err(ended_early("make log durable", self.keeping.join_next().await))
        }));
        all.push(Box::pin(async { Err(unheard(&mut self.reporting).await) }));
        all.push(Box::pin(async {
            shared.again.notified().await;
            Err(begin_again(shared))
        }));
        all.push(Box::pin(async {
            set(&mut stop).await;
            Ok(false)
        }));
        all.next().await.unwrap_or(Ok(false))
    }
}

/// Ends the stream where the timeline ends.
async fn ended(reader: LogReader, writer: StatusWriter, from: Position) -> Result<Ended> {
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

/// Why nothing is reported any more. A server that ends says why before it closes the connection: whoever receives hears that first, and log in front of it.
async fn unheard(reporting: &mut JoinSet<Result<()>>) -> Error {
    let error = ended_early(REPORT, reporting.join_next().await);
    if error.kind() == ErrorKind::Unreachable {
        tokio::time::sleep(LAST_WORDS).await;
    }
    error
}

fn begin_again(shared: &Shared) -> Error {
    let detail = "something in the spool was damaged: what is missing is asked for again";
    Error::new(ErrorKind::Interrupted, "follow", &shared.protected.component, detail)
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receiving side.
struct Receiving<'a> {
    shared: &'a Shared,
    from: Position,
    worth: Worth,
    idle: &'a Mutex<Idle>,
    keeper: &'a Keeper,
}

impl Receiving<'_> {
    /// Receives until the timeline ends.
    async fn receive(&self, reader: &mut LogReader, rows: &mpsc::Sender<Row>, ask: &mpsc::Sender<()>) -> Result<()> {
        let shared = self.shared;
        let mut headers = Headers::new(shared, self.from);
        let mut lag = Lag(false);
        let (mut row, mut said) = (Row::new(), Vec::new());
        loop {
            let more = if row.is_empty() { None } else { meanwhile(reader).await };
            let received = match more {
                Some(Ok(received)) if row.len() < ROW => Ok(received),
                // Also before an error: what came before it may never come again.
                more => {
                    if !row.is_empty() {
                        let (row, said) = (std::mem::take(&mut row), std::mem::take(&mut said));
                        if !self.pass_on(rows, row, &said, &mut lag).await? {
                            // Whoever makes durable has failed, and says why.
                            return std::future::pending().await;
                        }
                    }
                    match more {
                        Some(received) => received,
                        None => reader.next().await,
                    }
                }
            };
            match received? {
                Received::EndOfTimeline => {
                    if !row.is_empty() {
                        self.pass_on(rows, row, &said, &mut lag).await?;
                    }
                    return Ok(());
                }
                Received::Log {
                    start,
                    data,
                    server_end,
                    sent_at_us,
                } => {
                    headers.check(start, &data)?;
                    lock(self.idle).log();
                    said.push(Said {
                        end: server_end,
                        sent_at_us,
                        seen_us: shared.env.clock.wall_us(),
                    });
                    row.push(Chunk { start, data });
                }
                Received::Alive {
                    server_end,
                    sent_at_us,
                    reply,
                } => {
                    if !reply {
                        self.answered(server_end, sent_at_us);
                    } else if ask.try_send(()).is_err() {
                        // One is on its way already.
                    }
                    self.contact();
                    lag.look(shared);
                }
            }
        }
    }

    /// The answer to a question of ours, or just a sign of life.
    fn answered(&self, end: Lsn, sent_at_us: i64) {
        let clock = &self.shared.env.clock;
        let answer = Answer {
            end,
            sent_at_us,
            seen_us: clock.wall_us(),
        };
        let quiet = lock(self.idle).answer(answer, clock.monotonic());
        if let Some(quiet) = quiet.filter(|_| self.worth.own) {
            self.told(&[Said {
                end: quiet.end,
                sent_at_us: quiet.sent_at_us,
                seen_us: quiet.seen_us,
            }]);
            // A mark of it may be due.
            self.shared.news.notify_one();
        }
    }

    /// Makes a row durable, or hands it over to whoever does. False where nobody takes it any more. What was said with it is taken in while the server
    /// goes on, and before anybody else hears of the row.
    async fn pass_on(&self, rows: &mpsc::Sender<Row>, row: Row, said: &[Said], lag: &mut Lag) -> Result<bool> {
        let kept = self.keeper.here(row).await?;
        // Of a timeline that was left, it names where that was, with the time of now.
        if self.worth.own {
            self.told(said);
        }
        self.contact();
        lag.look(self.shared);
        match kept {
            Ok(kept) => {
                self.keeper.made_durable(kept).await;
                Ok(true)
            }
            Err(row) => {
                self.keeper.hand_over();
                Ok(hand_over(self.shared, rows, row, lag).await)
            }
        }
    }

    /// The server had flushed so far at these times, and no further.
    fn told(&self, said: &[Said]) {
        let mut state = self.shared.state();
        for said in said {
            let position = Position::new(self.from.timeline, said.end);
            if self.worth.times {
                state.marks.observe(position, said.sent_at_us);
            }
            // What waited in a buffer was true when it was sent, not when it came; and the server's clock may be ahead of ours.
            state.contacts.observe(position, said.seen_us.min(said.sent_at_us));
            state.server = state.server.max(said.end);
        }
    }

    /// Remembers that the server is there. Touches no disk: whoever receives must answer the server in time.
    fn contact(&self) {
        let now_us = self.shared.env.clock.wall_us();
        self.shared.state().standing.contact_us = now_us;
    }
}

/// What a message says besides the log in it.
struct Said {
    /// How far the server was.
    end: Lsn,
    /// When it was sent, by the server's clock (microseconds since 1970).
    sent_at_us: i64,
    /// When it came, by ours.
    seen_us: i64,
}

/// What has come by now: the disk is not asked twice for what it can take at once.
async fn meanwhile(reader: &mut LogReader) -> Option<Result<Received>> {
    if let Some(received) = at_once(reader).await {
        return Some(received);
    }
    // What came since the last look is known once the runtime has looked.
    tokio::task::yield_now().await;
    at_once(reader).await
}

/// What is known to have come. Nothing is lost where nothing has: [`LogReader::next`] can be given up.
async fn at_once(reader: &mut LogReader) -> Option<Result<Received>> {
    let mut next = std::pin::pin!(reader.next());
    std::future::poll_fn(|context| {
        Poll::Ready(match next.as_mut().poll(context) {
            Poll::Ready(received) => Some(received),
            Poll::Pending => None,
        })
    })
    .await
}

/// Hands log over to whoever makes it durable. While that takes long, because the spool is full, the server goes on: what our slot holds back is looked
/// at all the same. False where nobody takes it any more.
async fn hand_over(shared: &Shared, rows: &mpsc::Sender<Row>, row: Row, lag: &mut Lag) -> bool {
    let row = match rows.try_send(row) {
        Ok(()) => return true,
        Err(mpsc::error::TrySendError::Closed(_)) => return false,
        Err(mpsc::error::TrySendError::Full(row)) => row,
    };
    let sending = rows.send(row);
    tokio::pin!(sending);
    loop {
        tokio::select! {
            sent = &mut sending => return sent.is_ok(),
            () = tokio::time::sleep(shared.options.ask_every) => {}
        }
        let asked = tokio::time::timeout(ASIDE, receive::server_position(&shared.options)).await;
        // One that does not answer is told where the stream ends.
        if let Ok(Ok(position)) = asked {
            let mut state = shared.state();
            state.server = state.server.max(position.lsn);
            drop(state);
            lag.look(shared);
        }
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
    fn look(&mut self, shared: &Shared) {
        let limit = shared.options.max_slot_lag;
        let bytes = {
            let state = shared.state();
            state.server.since(state.durable)
        };
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

/// Tells the server what is durable, where whoever made it so has not.
async fn report(
    shared: Arc<Shared>,
    writer: Arc<tokio::sync::Mutex<StatusWriter>>,
    mut durable: watch::Receiver<Lsn>,
    mut asked: mpsc::Receiver<()>,
    idle: Arc<Mutex<Idle>>,
) -> Result<()> {
    let mut is_open = true;
    let mut reply = false;
    // An idle server says nothing by itself, and silence is what a lost one sounds like. The first question leaves at once.
    let mut questions = tokio::time::interval(shared.options.ask_every);
    questions.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let flushed = *durable.borrow_and_update();
        let status = Status {
            written: flushed,
            flushed,
            now_us: shared.env.clock.wall_us(),
            reply,
        };
        writer.lock().await.send(status).await?;
        if !is_open {
            return Ok(());
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
            _ = questions.tick() => lock(&idle).ask(shared.env.clock.monotonic()),
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
