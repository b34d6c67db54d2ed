//! From the spool into the stores: pieces of whole blocks, frames of the newest one, histories, gaps, and what was pushed.
//!
//! put → answered → counts as stored → the frames it replaces go → the spool gives it up, once every store that is required has it (PG-03). A store
//! that fails is left out and tried again later; what it missed is copied to it. If we die, the next start finds in the stores what stands there
//! (PG-04) and puts the rest of the spool; putting again is the same name with the same bytes.

mod mark;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::compute;
use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::{
    Appended, Identities, Instance, LogFileKind, LogName, LogPlan, LogReader, LogWriter, NewLog, Repository, block_end,
    block_start, copy_log, list_log,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{Backoff, Options, Shared, Source, Tail, in_a_line, push, set};
use crate::protected::Protected;
use crate::stores;
use mark::TAIL_BYTES;

/// How much longer than another store one may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many frames become one longer one. With two sizes of frames, a block never has many more than twice as many.
const FRAMES: usize = 24;
/// Pushed files are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While a frame waits for its time, whole blocks wait no longer than this.
const BLOCKS_EVERY: Duration = Duration::from_millis(200);
/// A store that fails again and again is tried at least so often.
const REJOIN_LIMIT: Duration = Duration::from_secs(600);

/// Log is gone: the records of it are to be put before anything else.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) ranges: Vec<Range>,
    pub(crate) why: String,
    pub(crate) done: oneshot::Sender<()>,
}

/// A writer, and what stood in the stores when it began.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) writer: LogWriter,
    pub(crate) stored: Coverage,
    pieces: Coverage,
    frames: Vec<Range>,
    repository: Repository,
}

/// Opens the stores for the first time, waiting for one that answers. None where it is to stop before.
pub(crate) async fn open_first(
    (env, protected, instance, options): (Env, Protected, Arc<Instance>, Options),
    source: Source,
    new: NewLog,
    mut stopped: watch::Receiver<bool>,
) -> Result<Option<Opened>> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let mut told = false;
    loop {
        let error = match open(&env, &protected, &instance, source, new.clone()).await {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if options.once || !worth_waiting(&error) => return Err(error),
            Err(error) => error,
        };
        if !told {
            told = true;
            options.tell.note(format!(
                "the log cannot be stored yet, it is tried again: {}",
                in_a_line(&error)
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.take()) => {}
            () = set(&mut stopped) => return Ok(None),
        }
    }
}

/// Whether the stores may take it later: PG-05, a wrong configuration and a missing repository do not mend themselves.
fn worth_waiting(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Refused
            | ErrorKind::ConfigInvalid
            | ErrorKind::NoRepository
            | ErrorKind::WrongKey
            | ErrorKind::Incompatible
            | ErrorKind::Usage
            | ErrorKind::Bug
    )
}

async fn open(env: &Env, protected: &Protected, instance: &Arc<Instance>, source: Source, new: NewLog) -> Result<Opened> {
    let repository = stores::joined(protected).await?.with_patience(PATIENCE);
    let plan = LogPlan {
        component: protected.component.clone(),
        instance: Arc::clone(instance),
        encryption: protected.encryption.clone(),
        trust: protected.trust.clone(),
        state_dir: protected.state_dir.clone(),
        system: source.system,
        segment: source.segment,
    };
    let writer = LogWriter::begin(env, &repository, plan, new).await?;
    let held = standing_files(protected, &repository, &writer).await?;
    let (mut stored, mut pieces, mut frames) = (Coverage::new(), Coverage::new(), Vec::new());
    for name in &held {
        match name.kind {
            LogFileKind::Piece => pieces.add(name.range),
            LogFileKind::Frame => frames.push(name.range),
            LogFileKind::History => continue,
        }
        stored.add(name.range);
    }
    Ok(Opened {
        writer,
        stored,
        pieces,
        frames,
        repository,
    })
}

/// The files of the lineage that count: by name and size; where following goes on from them, by their headers too.
async fn standing_files(protected: &Protected, repository: &Repository, writer: &LogWriter) -> Result<Vec<LogName>> {
    let lineage = writer.lineage();
    let listing = list_log(repository, &protected.component, &protected.trust).await?;
    let candidates = listing.candidates(lineage);
    let reader = LogReader::of(
        repository,
        &protected.component,
        &protected.trust,
        Identities::none(),
        lineage,
        &listing,
    );
    let near_the_end = |name: &LogName| {
        let end = candidates.end(name.range.timeline).unwrap_or(Lsn::INVALID);
        name.kind != LogFileKind::History && block_end(name.range.start) >= block_start(end)
    };
    let judged = reader.headers(near_the_end).await?;
    let unfit: BTreeSet<LogName> = judged.rejected.iter().map(|(name, _)| *name).collect();
    let files = listing.files(lineage).iter().copied();
    Ok(files.filter(|name| !unfit.contains(name)).collect())
}

/// Ships one lineage.
#[derive(Debug)]
pub(crate) struct Shipper {
    shared: Arc<Shared>,
    opened: Opened,
    /// Pieces in each store, where there are several, as that store answered by itself.
    held_in: BTreeMap<String, Coverage>,
    histories_done: BTreeSet<Timeline>,
    /// Pieces that were put, or compared, and are still in the spool.
    appended: BTreeSet<Range>,
    /// The small frames of the newest block since they were last put together, and the ones put together.
    small: Vec<Range>,
    large: usize,
    last_frame: Option<Duration>,
    /// When pushed files were last looked for.
    looked_at: Option<Duration>,
    /// Frames that go, beside everything else.
    cleaning: JoinSet<Result<Vec<LogName>>>,
    /// Stores that get what they missed.
    healing: JoinSet<Result<(String, Coverage)>>,
    /// When a store that failed is tried again.
    rejoin_at: Option<Duration>,
}

impl Shipper {
    /// Ships until `finished`, and then what is left.
    ///
    /// # Errors
    /// `Refused` where a store holds other bytes than the spool (PG-06). Everything else is told and tried again.
    pub(crate) async fn run(
        shared: Arc<Shared>,
        opened: Opened,
        mut asked: mpsc::Receiver<Ask>,
        mut finished: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut rejoin = Backoff::new(shared.options.rejoin_after, REJOIN_LIMIT);
        let mut next = Some(opened);
        let mut last = String::new();
        loop {
            let opened = match next.take() {
                Some(opened) => Ok(opened),
                None => {
                    let (env, protected) = (&shared.env, &shared.protected);
                    open(env, protected, &shared.instance, shared.source, NewLog::Continue).await
                }
            };
            let error = match opened {
                Ok(opened) => {
                    if !last.is_empty() {
                        shared.note("the stores take the log again");
                        last.clear();
                    }
                    let mut shipper = Self::begin(&shared, opened, &mut rejoin);
                    match shipper.work(&mut asked, &mut finished).await {
                        Ok(true) => return Ok(()),
                        // A store that failed is tried again.
                        Ok(false) => {
                            backoff.reset();
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Refused || (shared.options.once && *finished.borrow()) {
                return Err(error);
            }
            let text = in_a_line(&error);
            if text != last {
                shared.alarm(format!("the log does not reach the stores, and stays in the spool: {text}"));
                last = text;
            }
            shared.pause(backoff.take()).await;
        }
    }

    fn begin(shared: &Arc<Shared>, opened: Opened, rejoin: &mut Backoff) -> Self {
        let away: Vec<String> = opened
            .repository
            .copies()
            .into_iter()
            .filter(|copy| copy.missing.is_some())
            .map(|copy| copy.store)
            .collect();
        let rejoin_at = if away.is_empty() {
            rejoin.reset();
            None
        } else {
            shared.alarm(format!("no log reaches {} for now; it is tried again", away.join(", ")));
            Some(shared.env.clock.monotonic() + rejoin.take())
        };
        shared.state().stored.unite(&opened.stored);
        shared.look_at_target();
        let mut shipper = Self {
            shared: Arc::clone(shared),
            small: Vec::new(),
            large: 0,
            held_in: BTreeMap::new(),
            histories_done: BTreeSet::new(),
            appended: BTreeSet::new(),
            looked_at: None,
            last_frame: None,
            cleaning: JoinSet::new(),
            healing: JoinSet::new(),
            rejoin_at,
            opened,
        };
        shipper.heal();
        shipper
    }

    /// Copies to each store what others have and it has not; then its pieces are known (PG-03).
    fn heal(&mut self) {
        if self.shared.protected.stores.len() < 2 {
            return;
        }
        for to in self.shared.protected.stores.clone() {
            let shared = Arc::clone(&self.shared);
            self.healing.spawn(async move {
                let target = Repository::open(Arc::clone(&to.store)).await?;
                let (env, protected) = (&shared.env, &shared.protected);
                for from in protected.stores.iter().filter(|from| from.name != to.name) {
                    let Ok(source) = Repository::open(Arc::clone(&from.store)).await else {
                        continue;
                    };
                    let copied = copy_log(
                        env,
                        &source,
                        &target,
                        &protected.component,
                        &shared.instance,
                        &protected.trust,
                    )
                    .await?;
                    if copied.files > 0 {
                        shared.note(format!("{} got {} files of log that it had missed", to.name, copied.files));
                    }
                }
                let listing = list_log(&target, &protected.component, &protected.trust).await?;
                let pieces = listing
                    .files(shared.lineage)
                    .iter()
                    .filter(|name| name.kind == LogFileKind::Piece);
                let mut held = Coverage::new();
                pieces.for_each(|name| held.add(name.range));
                Ok((to.name, held))
            });
        }
    }

    /// `true` once everything is shipped that is to be; `false` where the stores are to be opened again.
    async fn work(&mut self, asked: &mut mpsc::Receiver<Ask>, finished: &mut watch::Receiver<bool>) -> Result<bool> {
        let mut asks_open = true;
        loop {
            let is_last = *finished.borrow();
            self.settle();
            let waiting = self.round(is_last).await?;
            if is_last && !waiting {
                while self.cleaning.join_next().await.is_some() {}
                return Ok(true);
            }
            if self.rejoin_at.is_some_and(|at| self.shared.env.clock.monotonic() >= at) {
                return Ok(false);
            }
            let pause = if waiting {
                self.until_frame().min(BLOCKS_EVERY)
            } else {
                LOOK_EVERY
            };
            let ask = tokio::select! {
                ask = asked.recv(), if asks_open => {
                    asks_open = ask.is_some();
                    ask
                }
                () = self.shared.news.notified(), if !waiting => None,
                () = tokio::time::sleep(pause) => None,
                () = set(finished), if !is_last => None,
            };
            if let Some(ask) = ask {
                self.record(ask).await?;
            }
        }
    }

    /// How long until the next frame may go.
    fn until_frame(&self) -> Duration {
        let since = self
            .last_frame
            .map(|last| self.shared.env.clock.monotonic().saturating_sub(last));
        let left = self.shared.options.frame_every.saturating_sub(since.unwrap_or_default());
        left.max(Duration::from_millis(1))
    }

    async fn record(&mut self, ask: Ask) -> Result<()> {
        for range in ask.ranges {
            self.opened.writer.record_gap(range, &ask.why).await?;
        }
        // Nobody waits any more where following ends: the records stand.
        if ask.done.send(()).is_err() {
            self.shared.note("a gap was recorded, and following ends");
        }
        Ok(())
    }

    /// Takes in what was done beside.
    fn settle(&mut self) {
        while let Some(cleaned) = self.cleaning.try_join_next() {
            // What could not be deleted is left for a pruner.
            if let Ok(Ok(gone)) = cleaned {
                self.opened.writer.forget(&gone);
            }
        }
        while let Some(healed) = self.healing.try_join_next() {
            match healed {
                Ok(Ok((store, held))) => self.held_in.entry(store).or_default().unite(&held),
                Ok(Err(error)) => self
                    .shared
                    .note(format!("what a store missed could not be copied yet: {error}")),
                Err(_panicked) => {}
            }
        }
    }

    /// Ships what is there: histories first, then whole blocks, then the newest bytes if it is time. Says whether something is left for later.
    async fn round(&mut self, is_last: bool) -> Result<bool> {
        self.histories().await?;
        let now = self.shared.env.clock.monotonic();
        if is_last || self.looked_at.is_none_or(|last| now.saturating_sub(last) >= LOOK_EVERY) {
            self.looked_at = Some(now);
            push::drain(&self.shared, &mut self.opened.writer, &mut self.opened.pieces).await?;
        }
        let ranges: Vec<Range> = self.shared.spool().ranges().collect();
        let timeline = self.shared.state().timeline;
        let mut waiting = false;
        for (place, range) in ranges.iter().enumerate() {
            let followed = ranges.get(place + 1).is_some_and(|next| next.timeline == range.timeline);
            let ended = timeline.is_some_and(|timeline| range.timeline < timeline);
            let is_whole = range.end == block_end(range.start) || followed || ended;
            if is_whole {
                // Also what stands there already: then it is compared with that (PG-06).
                if !self.appended.contains(range) {
                    self.append(LogFileKind::Piece, *range).await?;
                    self.appended.insert(*range);
                }
                self.give_up(*range).await?;
            } else if !self.opened.stored.holds(*range) {
                waiting |= !self.frame(*range, is_last).await?;
            }
        }
        if !waiting && !is_last {
            self.mark().await?;
        }
        Ok(waiting)
    }

    async fn histories(&mut self) -> Result<()> {
        let histories = self.shared.spool().histories().clone();
        for (timeline, text) in histories {
            if self.histories_done.contains(&timeline) {
                continue;
            }
            let done = self.opened.writer.append_history(timeline, text).await?;
            self.note_stores(&done);
            self.histories_done.insert(timeline);
            let one = self.shared.protected.stores.len() < 2;
            if one || (!done.there && self.is_everywhere(&done)) {
                let shared = Arc::clone(&self.shared);
                compute::run("give up a history", move || shared.spool().give_up_history(timeline)).await?;
            }
        }
        Ok(())
    }

    /// The newest bytes, if it is time; they are put together now and then, so that one piece can replace them all.
    async fn frame(&mut self, range: Range, is_last: bool) -> Result<bool> {
        let now = self.shared.env.clock.monotonic();
        let is_due = |last: Duration| now.saturating_sub(last) >= self.shared.options.frame_every;
        if !is_last && !self.last_frame.is_none_or(is_due) {
            return Ok(false);
        }
        self.last_frame = Some(now);
        let start = self.opened.stored.end_from(range.timeline, range.start);
        let newest = Range::new(range.timeline, start, range.end);
        self.small.retain(|frame| range.contains(frame));
        if self.small.is_empty() && self.large == 0 {
            let standing = self.opened.frames.iter().filter(|frame| range.contains(frame));
            self.small = standing.copied().collect();
            self.opened.frames.clear();
        }
        if newest.start == range.start {
            self.large = 0;
        }
        let all = self.large >= FRAMES;
        let long = match self.small.iter().map(|frame| frame.start).min() {
            _ if all => Some(range),
            Some(start) if self.small.len() >= FRAMES => Some(Range::new(range.timeline, start, range.end)),
            _ => None,
        };
        self.append(LogFileKind::Frame, long.unwrap_or(newest)).await?;
        if long.is_some() {
            self.small.clear();
            self.large = if all { 1 } else { self.large + 1 };
        } else {
            self.small.push(newest);
        }
        Ok(true)
    }

    async fn append(&mut self, kind: LogFileKind, range: Range) -> Result<()> {
        let reading = self.shared.spool().reading(range)?;
        let raw = compute::run("read the spool", move || reading.read()).await?;
        let as_of_us = self.shared.state().marks.as_of(range.timeline, range.end);
        let from = usize::try_from(range.bytes().saturating_sub(TAIL_BYTES)).unwrap_or(0);
        let last = raw.get(from..).unwrap_or_default().to_vec();
        let done = self.opened.writer.append(kind, range, raw, as_of_us).await?;
        self.note_stores(&done);
        self.opened.stored.add(range);
        if kind == LogFileKind::Piece {
            self.opened.pieces.add(range);
            if !done.there {
                for store in done.stores.iter().filter(|store| store.missing.is_none()) {
                    self.held_in.entry(store.store.clone()).or_default().add(range);
                }
            }
        }
        {
            let clock = &self.shared.env.clock;
            let (now_us, said) = (clock.wall_us(), clock.monotonic());
            let mut state = self.shared.state();
            state.stored.add(range);
            state.standing.stored_us = now_us;
            state.tail = Some(Tail {
                range: Range::new(range.timeline, Lsn(range.end.0.saturating_sub(last.len() as u64)), range.end),
                raw: last,
                said,
                as_of_us,
            });
        }
        self.shared.look_at_target();
        self.clean(done);
        Ok(())
    }

    /// Frames that it replaces go, beside everything else.
    fn clean(&mut self, done: Appended) {
        if !done.replaces.is_empty() {
            let cleaner = self.opened.writer.cleaner();
            self.cleaning.spawn(async move { cleaner.drop_replaced(&done).await });
        }
    }

    /// A store that failed is told once, and tried again later.
    fn note_stores(&mut self, done: &Appended) {
        if self.rejoin_at.is_some() {
            return;
        }
        for store in &done.stores {
            if let Some(error) = &store.missing {
                self.shared.alarm(format!(
                    "no log reaches {} for now; it is tried again: {}",
                    store.store,
                    in_a_line(error)
                ));
                self.rejoin_at = Some(self.shared.env.clock.monotonic() + self.shared.options.rejoin_after);
            }
        }
    }

    /// Whether every store that is required took it.
    fn is_everywhere(&self, done: &Appended) -> bool {
        let required = self.shared.protected.stores.iter().filter(|place| place.required);
        let took = |name: &str| {
            let store = done.stores.iter().find(|store| store.store == name);
            store.is_some_and(|store| store.missing.is_none())
        };
        required.map(|place| place.name.as_str()).all(took)
    }

    /// PG-03: the spool gives up what every store that is required holds by its own answer.
    async fn give_up(&mut self, range: Range) -> Result<()> {
        let stores = &self.shared.protected.stores;
        let holds = |name: &str| self.held_in.get(name).is_some_and(|held| held.holds(range));
        let mut required = stores.iter().filter(|place| place.required);
        if stores.len() > 1 && !required.all(|place| holds(&place.name)) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        compute::run("give up log of the spool", move || shared.spool().give_up(range)).await?;
        self.appended.remove(&range);
        self.shared.room.notify_one();
        Ok(())
    }
}
