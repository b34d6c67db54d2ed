//! The verb `follow`: the log of a PostgreSQL cluster, as it is written, into the spool and into the stores (docs/postgres.md "Following").
//!
//! One task receives and one makes durable (`receive`), one reports to the server, one ships (`ship`); between them bounded queues and the
//! spool (`spool`). Where following goes on is decided in `place`. If we die anywhere, nothing that was acknowledged is lost: the spool or a
//! store holds it.

mod marks;
mod place;
mod push;
mod receive;
mod ship;
mod spool;
mod standing;
mod stream;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_model::wal::{Coverage, History, Range, SegmentSize};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{Instance, Lineage, NewLog};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::protected::{Cluster, Login, Protected};
use marks::Marks;
pub use push::{Pushed, push};
use receive::End;
use ship::Shipper;
use spool::Spool;
pub use standing::{Standing, standing};

/// How long the end of following may take to bring the last bytes to the stores; what is left then stays in the spool.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// A spool has room for the block that is written and the one before it, at least.
const LEAST_SPOOL: u64 = 2 * lifeboat_repo::BLOCK_BYTES + (4 << 20);

/// Something that happened, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether somebody has to look at it.
    pub is_alarm: bool,
    /// What.
    pub text: String,
}

/// Who is told.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(&Event) + Send + Sync>);

impl Tell {
    /// Tells this function.
    pub fn to(function: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    fn note(&self, text: impl Into<String>) {
        (self.0)(&Event {
            is_alarm: false,
            text: text.into(),
        });
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tell").finish_non_exhaustive()
    }
}

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the server is, and who we are there: asked for on every connection.
    pub login: Login,
    /// Our replication slot; made where it is not there.
    pub slot: String,
    /// The spool takes so many bytes of the disk at most; then nothing more is received.
    pub max_spool: u64,
    /// More log than this held back by our slot is an alarm.
    pub max_slot_lag: u64,
    /// New log reaches the stores at least so often.
    pub frame_every: Duration,
    /// A store that failed is tried again after this time, then less and less often.
    pub rejoin_after: Duration,
    /// End once everything is stored that the server had at the start.
    pub once: bool,
    /// Who is told what happens.
    pub tell: Tell,
}

impl Options {
    /// The usual ones.
    #[must_use]
    pub fn new(cluster: &Cluster, tell: Tell) -> Self {
        Self {
            login: cluster.login.clone(),
            slot: cluster.slot.clone(),
            max_spool: 16 << 30,
            max_slot_lag: 8 << 30,
            frame_every: Duration::from_secs(1),
            rejoin_after: Duration::from_secs(30),
            once: false,
            tell,
        }
    }
}

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
    /// Set once everybody is to end.
    stop: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// What stands in the stores, of this lineage.
    stored: Coverage,
    /// The timeline that is received now: those before it have ended for us.
    timeline: Option<Timeline>,
    /// Where following goes on behind a gap, until something is held there.
    resume: Option<Position>,
    /// How far the log is durable here, on that timeline.
    durable: Lsn,
    /// With `once`: what has to be stored.
    target: Option<Target>,
    marks: Marks,
    standing: Standing,
    report: Report,
}

/// All log from `from` to `lsn`, along `way`.
#[derive(Debug)]
struct Target {
    way: History,
    from: Lsn,
    lsn: Lsn,
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
            let size = self.source.segment;
            let reaches = |target: &Target| state.stored.end_along(&target.way, size, target.from) >= target.lsn;
            state.target.as_ref().is_some_and(reaches)
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
    let (mut new, mut take_over): (_, Option<PathBuf>) = (NewLog::Continue, None);
    loop {
        let setting = (env.clone(), protected.clone(), Arc::clone(&instance), options.clone());
        let opened = ship::open_first(setting, source, new, stop.subscribe()).await?;
        let Some(opened) = opened else {
            return Ok(Report::default());
        };
        let lineage = opened.writer.lineage();
        let folder = spool_folder(&protected).join(lineage.to_string());
        if let Some(old) = take_over.take() {
            // What the old lineage does not take is of the new one.
            lifeboat_io::compute::run("keep the spool", {
                let folder = folder.clone();
                move || lifeboat_io::durable::rename(&old, &folder)
            })
            .await?;
        }
        let spool = {
            let folder = folder.clone();
            lifeboat_io::compute::run("open the spool", move || Spool::open(&folder)).await?
        };
        let shared = Arc::new(Shared {
            env: env.clone(),
            protected: protected.clone(),
            instance: Arc::clone(&instance),
            options: options.clone(),
            source,
            lineage,
            spool: Mutex::new(spool),
            state: Mutex::new(State {
                stored: opened.stored.clone(),
                standing: Standing::begin(source.system, lineage),
                ..State::default()
            }),
            news: Notify::new(),
            room: Notify::new(),
            stop: stop.clone(),
        });
        let next = one_lineage(&shared, opened).await;
        shared.save_standing().await?;
        match next? {
            Next::Done => return Ok(report(&shared)),
            Next::Lineage(why) => {
                shared.alarm(format!("a new lineage of log begins: {why}; run a new backup"));
                new = NewLog::Begin(why);
            }
            Next::TakeOver(why) => {
                shared.alarm(format!("a new lineage of log begins: {why}; run a new backup"));
                new = NewLog::Begin(why);
                take_over = Some(folder);
            }
        }
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
    let received = tokio::select! {
        received = receive::run(shared, &asks) => received,
        shipped = shipping.join_next() => {
            // What is just being written is in the spool before that moves on.
            let shared = Arc::clone(shared);
            lifeboat_io::compute::run("leave the spool", move || {
                drop(shared.spool());
                Ok(())
            })
            .await?;
            return shipped_early(shipped);
        }
    };
    let is_new = matches!(received, Ok(End::NewLineage(_)));
    finish.send_replace(true);
    drop(asks);
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
