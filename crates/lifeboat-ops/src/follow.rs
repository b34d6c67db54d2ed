//! The verb `follow`: the log of a PostgreSQL cluster, as it is written, into the spool and into the stores (docs/postgres.md "Following").
//!
//! One task receives and one makes durable (`receive`), one reports to the server, one ships (`ship`); between them bounded queues and the
//! spool (`spool`). Where following goes on is decided in `place`. If we die anywhere, nothing that was acknowledged is lost: the spool or a
//! store holds it.

mod beat;
mod idle;
mod keep;
mod lineages;
mod marks;
mod options;
mod place;
mod push;
mod receive;
mod ship;
mod spool;
mod standing;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_model::wal::{Coverage, History, Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{Instance, Lineage, NewLog};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::protected::Protected;
use marks::Marks;
pub(crate) use ship::held_of;

pub use options::{Event, Options, Tell};
pub use push::{Pushed, push, refused_pushes};
use receive::End;
use ship::Shipper;
use spool::Spool;
pub use standing::{Standing, standing};

/// How long the end of following may take to bring the last bytes to the stores; what is left then stays in the spool.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// How long the log of an older lineage may take on its way to the stores before following begins.
const OLD_LOG: Duration = Duration::from_secs(60);

/// A spool has room for the block that is written and the one before it, at least.
const LEAST_SPOOL: u64 = 2 * lifeboat_repo::BLOCK_BYTES + (4 << 20);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Into which lineage of log.
    pub lineage: Option<Lineage>,
    /// The newest position that stands in the stores.
    pub stored: Option<Position>,
    /// The newest position that is durable here or there.
    pub held: Option<Position>,
    /// Gaps that were recorded.
    pub gaps: Vec<Range>,
    /// What somebody has to look at.
    pub alarms: Vec<String>,
}

/// Who the server is: asked for on every connection (PG-05).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    system: u64,
    segment: SegmentSize,
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    env: Env,
    protected: Protected,
    instance: Arc<Instance>,
    options: Options,
    source: Source,
    lineage: Lineage,
    spool: Mutex<Spool>,
    state: Mutex<State>,
    /// Something new is in the spool.
    news: Notify,
    /// Something was given up there.
    room: Notify,
    /// Something is missing there that was held: the connection begins again.
    again: Notify,
    /// Nothing more comes: everything is stored as what stays, and given up.
    closing: bool,
    /// Set once everybody is to end.
    stop: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// What stands in the stores, of this lineage.
    stored: Coverage,
    /// The timeline that is received now: those before it have ended for us.
    timeline: Option<Timeline>,
    /// Gaps that are recorded, of this lineage.
    gone: Coverage,
    /// From where on this connection gives log.
    begun: Option<Position>,
    /// How far the log is durable here, on that timeline.
    durable: Lsn,
    /// How far the server is, as far as it said so.
    server: Lsn,
    /// With `once`: what has to be stored.
    aim: Option<Aim>,
    /// How far the server was, by its clock.
    marks: Marks,
    /// The same by ours.
    contacts: Marks,
    standing: Standing,
    report: Report,
}

/// With `once`: everything from here to there, along that way.
#[derive(Debug)]
struct Aim {
    way: History,
    from: Lsn,
    until: Lsn,
}

impl State {
    /// Until when everything is stored that the server had, without a hole since this connection began.
    fn freshen(&mut self) {
        let Some(begun) = self.begun else { return };
        let end = self.stored.end_from(begun.timeline, begun.lsn);
        if let Some(us) = self.contacts.as_of(begun.timeline, end) {
            self.standing.stored_us = self.standing.stored_us.max(us);
        }
    }
}

impl Shared {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held: in the stores, or durable here.
    fn held(&self) -> Coverage {
        let mut held = self.state().stored.clone();
        held.unite(&self.spool().coverage());
        held
    }

    fn note(&self, text: impl Into<String>) {
        self.options.tell.note(text);
    }

    fn alarm(&self, text: impl Into<String>) {
        let text = text.into();
        {
            let mut state = self.state();
            state.report.alarms.push(text.clone());
            state.standing.alarm(&text);
        }
        (self.options.tell.0)(&Event { is_alarm: true, text });
    }

    /// Keeps aside what is damaged in the spool, and has what is missing asked for again.
    fn look_through_spool(&self) -> Result<()> {
        let damaged = self.spool().look_through()?;
        damaged.into_iter().for_each(|text| self.alarm(text));
        self.again.notify_one();
        Ok(())
    }

    fn spool_is_full(&self) -> bool {
        self.spool().bytes() >= self.options.max_spool
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Writes down for `status` how far the log is.
    async fn save_standing(self: &Arc<Self>) -> Result<()> {
        let shared = Arc::clone(self);
        lifeboat_io::compute::run("write down how far the log is", move || {
            let spool_bytes = shared.spool().bytes();
            let standing = {
                let mut state = shared.state();
                state.freshen();
                let word = |lsn: Lsn| if lsn == Lsn::INVALID { String::new() } else { lsn.to_string() };
                (state.standing.server, state.standing.durable) = (word(state.server), word(state.durable));
                let newest = state.stored.timelines().next_back();
                let stored = newest.and_then(|timeline| state.stored.end(timeline));
                state.standing.stored = stored.unwrap_or(Lsn::INVALID).to_string();
                state.standing.spool_bytes = spool_bytes;
                state.standing.clone()
            };
            standing.save(&shared.protected.state_dir, &shared.protected.component)
        })
        .await
    }

    /// With `once`: ends following when its target is stored.
    fn look_at_target(&self) {
        let reached = {
            let state = self.state();
            state.aim.as_ref().is_some_and(|aim| {
                let mut known = state.stored.clone();
                known.unite(&state.gone);
                known.end_along(&aim.way, self.source.segment, aim.from) >= aim.until
            })
        };
        if reached {
            self.stop.send_replace(true);
        }
    }

    /// Waits, but not longer than until everybody is to end.
    async fn pause(&self, time: Duration) {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = set(&mut stop) => {}
        }
    }
}

/// Waits until it is set, or until nobody can set it any more.
async fn set(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|flag| *flag).await.is_err() {
        // Whoever could set it has ended.
    }
}

/// The folder with everything that is only here, of one component.
fn spool_folder(protected: &Protected) -> PathBuf {
    protected.state_dir.join("spool").join(protected.component.segment())
}

/// Follows until `stop` resolves, or until everything is stored that the server had at the start ([`Options::once`]). What is received is stored,
/// as far as it can be, before it ends.
///
/// # Errors
/// `Refused` where the server is another cluster than the component's (PG-05), `Incompatible` for a version that is not supported, whatever keeps
/// the first connection from being made for good (a wrong password, a missing right); with `once` every failure. Without it, lost connections, failing
/// stores and full disks are told, and tried again for ever.
pub async fn run(
    env: &Env,
    protected: &Protected,
    instance: Arc<Instance>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<Report> {
    let (sender, _) = watch::channel(false);
    let options = Options {
        max_spool: options.max_spool.max(LEAST_SPOOL),
        ..options
    };
    let work = follow(env.clone(), protected.clone(), instance, options.clone(), sender.clone());
    tokio::pin!(work, stop);
    tokio::select! {
        ended = &mut work => return ended,
        () = &mut stop => {}
    }
    sender.send_replace(true);
    match tokio::time::timeout(LAST_WORDS, &mut work).await {
        Ok(ended) => ended,
        Err(_late) => {
            options
                .tell
                .note("the stores did not take everything in time: the rest stays in the spool, and is stored at the next start");
            Ok(Report::default())
        }
    }
}

async fn follow(
    env: Env,
    protected: Protected,
    instance: Arc<Instance>,
    options: Options,
    stop: watch::Sender<bool>,
) -> Result<Report> {
    let Some(source) = receive::first_contact(options.clone(), stop.subscribe()).await? else {
        return Ok(Report::default());
    };
    let setting = Setting {
        env,
        protected,
        instance,
        options,
        source,
        stop,
    };
    let home = spool_folder(&setting.protected);
    loop {
        let Some(opened) = setting.open(&home).await? else {
            return Ok(Report::default());
        };
        let lineage = opened.writer.lineage();
        let shared = setting.share(&opened, &home, false).await?;
        let next = beat::beside(&shared, one_lineage(&shared, opened)).await;
        shared.save_standing().await?;
        let (why, take_over) = match next? {
            Next::Done => return Ok(report(&shared)),
            Next::Lineage(why) => (why, None),
            Next::TakeOver(why) => (why, Some(lineage)),
        };
        shared.alarm(format!("a new lineage of log begins: {why}; run a new backup"));
        lineages::decide(&home, Lineage::draw(&setting.env)?, take_over, why).await?;
    }
}

/// What stays the same from one lineage to the next.
struct Setting {
    env: Env,
    protected: Protected,
    instance: Arc<Instance>,
    options: Options,
    source: Source,
    stop: watch::Sender<bool>,
}

impl Setting {
    /// Opens the newest lineage, or the one that was decided on. Log of others that is still here comes into the stores first. None where it is to
    /// stop before.
    async fn open(&self, home: &Path) -> Result<Option<ship::Opened>> {
        let decided = lineages::decided(home).await?;
        let is_new = decided.is_some();
        let Some(opened) = self.open_as(decided.unwrap_or(NewLog::Continue)).await? else {
            return Ok(None);
        };
        if is_new {
            // Its record stands.
            lineages::done(home).await?;
        }
        let lineage = opened.writer.lineage();
        let others = lineages::others(home, lineage).await?;
        if others.is_empty() {
            return Ok(Some(opened));
        }
        // One writer at a time.
        drop(opened);
        for other in others {
            self.store_old(home, other).await;
        }
        self.open_as(NewLog::Of(lineage)).await
    }

    async fn open_as(&self, new: NewLog) -> Result<Option<ship::Opened>> {
        let setting = (
            self.env.clone(),
            self.protected.clone(),
            Arc::clone(&self.instance),
            self.options.clone(),
        );
        ship::open_first(setting, self.source, new, self.stop.subscribe()).await
    }

    async fn share(&self, opened: &ship::Opened, home: &Path, closing: bool) -> Result<Arc<Shared>> {
        let lineage = opened.writer.lineage();
        let folder = home.join(lineage.to_string());
        let mut spool = lifeboat_io::compute::run("open the spool", move || Spool::open(&folder)).await?;
        let damaged = spool.take_damaged();
        let shared = Arc::new(Shared {
            env: self.env.clone(),
            protected: self.protected.clone(),
            instance: Arc::clone(&self.instance),
            options: self.options.clone(),
            source: self.source,
            lineage,
            spool: Mutex::new(spool),
            state: Mutex::new(State {
                stored: opened.stored.clone(),
                gone: opened.gone.clone(),
                standing: Standing::begin(self.source.system, lineage, &self.options),
                ..State::default()
            }),
            news: Notify::new(),
            room: Notify::new(),
            again: Notify::new(),
            closing,
            stop: self.stop.clone(),
        });
        damaged.into_iter().for_each(|text| shared.alarm(text));
        Ok(shared)
    }

    /// Stores what is left of a lineage that is not the newest, as far as the stores take it in time; what they do not stays, and is told.
    async fn store_old(&self, home: &Path, lineage: Lineage) {
        let storing = async {
            let (env, protected) = (&self.env, &self.protected);
            let opened = ship::open(env, protected, &self.instance, self.source, NewLog::Of(lineage)).await?;
            let shared = self.share(&opened, home, true).await?;
            let (_asks, asked) = mpsc::channel(1);
            let (_finish, finished) = watch::channel(true);
            Shipper::run(Arc::clone(&shared), opened, asked, finished).await?;
            lineages::leave(home, lineage).await
        };
        let stored = tokio::time::timeout(OLD_LOG, storing).await;
        let why = match stored {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => "the stores did not answer for all of it".to_owned(),
            Ok(Err(error)) => in_a_line(&error),
            Err(_late) => "the stores did not take all of it in time".to_owned(),
        };
        let text = format!("log of the earlier lineage {lineage} is still in the spool, and is stored at the next start: {why}");
        (self.options.tell.0)(&Event { is_alarm: true, text });
    }
}

/// What comes after a lineage.
enum Next {
    /// Nothing.
    Done,
    /// Another one; this one has everything that is its own.
    Lineage(String),
    /// Another one, to which everything in the spool belongs.
    TakeOver(String),
}

async fn one_lineage(shared: &Arc<Shared>, opened: ship::Opened) -> Result<Next> {
    let (asks, asked) = mpsc::channel(1);
    let (finish, finished) = watch::channel(false);
    let mut shipping = JoinSet::new();
    shipping.spawn(Shipper::run(Arc::clone(shared), opened, asked, finished));
    let mut receiving = receive::begin(shared, asks)?;
    let received = tokio::select! {
        received = receiving.done() => received,
        shipped = shipping.join_next() => {
            // What is just being written is in the spool before that moves on.
            receiving.end().await;
            return shipped_early(shipped);
        }
    };
    let is_new = matches!(received, Ok(End::NewLineage(_)));
    finish.send_replace(true);
    // A lineage gets everything that is its own, whatever time that takes; otherwise what is left stays in the spool.
    let limit = if is_new { Duration::MAX } else { LAST_WORDS };
    match tokio::time::timeout(limit, shipping.join_next()).await {
        Ok(Some(Ok(Ok(())))) => {}
        Ok(Some(Ok(Err(error)))) if received.is_ok() => return Err(error),
        Ok(Some(Err(panicked))) => {
            return Err(Error::new(ErrorKind::Bug, "store log", "a task", "it panicked").with_source(panicked));
        }
        Ok(_) => {}
        Err(_late) => shared.note("not everything is in the stores: the rest stays in the spool"),
    }
    Ok(match received? {
        End::Stopped => Next::Done,
        End::NewLineage(why) => Next::Lineage(why),
    })
}

/// The shipper ends by itself only where the store holds other bytes than the server gives (PG-06), or for good.
fn shipped_early(shipped: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<Next> {
    match shipped {
        Some(Ok(Err(error))) if error.kind() == ErrorKind::Refused && error.op() == "append log of" => {
            Ok(Next::TakeOver(error.detail().to_owned()))
        }
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panicked)) => Err(Error::new(ErrorKind::Bug, "store log", "a task", "it panicked").with_source(panicked)),
        Some(Ok(Ok(()))) | None => Err(Error::new(ErrorKind::Bug, "store log", "a task", "it ended too early")),
    }
}

fn report(shared: &Shared) -> Report {
    let newest = |coverage: &Coverage| {
        let timeline = coverage.timelines().next_back()?;
        Some(Position::new(timeline, coverage.end(timeline)?))
    };
    let held = newest(&shared.held());
    let state = shared.state();
    Report {
        lineage: Some(shared.lineage),
        stored: newest(&state.stored),
        held,
        ..state.report.clone()
    }
}

/// Waits longer after every failure, up to a limit.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    first: Duration,
    limit: Duration,
}

impl Backoff {
    fn new(first: Duration, limit: Duration) -> Self {
        Self {
            next: first,
            first,
            limit,
        }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    fn take(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.limit);
        now
    }
}

/// An error for one line, with what to do.
fn in_a_line(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

/// A position for people.
fn at(timeline: Timeline, lsn: Lsn) -> String {
    Position::new(timeline, lsn).to_string()
}
