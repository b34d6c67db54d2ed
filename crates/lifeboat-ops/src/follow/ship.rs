//! From the spool into the stores: pieces of whole blocks, frames of the newest one, histories, gaps, and what was pushed.
//!
//! put → answered → counts as stored → the frames it replaces go → the spool gives it up, once every store that is required has it (PG-03). A store
//! that fails is left out and tried again later; what it missed is copied to it. If we die, the next start finds in the stores what stands there
//! (PG-04) and puts the rest of the spool; putting again is the same name with the same bytes.

mod heal;
mod open;
mod prepare;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_io::compute;
use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{Appended, BLOCK_BYTES, LogFileKind, LogName, NewLog, block_end, block_start};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{Backoff, Shared, in_a_line, push, set};
pub(crate) use heal::{stands_everywhere, took};
pub(crate) use open::{Opened, held_of, open, open_first};
use prepare::Preparing;

/// So many frames become one longer one. With two sizes of frames, a block never has many more than twice as many.
const FRAMES: usize = 24;
/// Pushed files are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// New bytes that are due and are so many become a piece, although their block goes on: they are compressed and put once. A block has four such pieces at most.
const PART_BYTES: u64 = 4 << 20;
/// While a frame waits for its time, whole blocks wait no longer than this.
const BLOCKS_EVERY: Duration = Duration::from_millis(200);
/// So much of the newest log is put once more with a newer time, where nothing new comes.
const PAGE: u64 = 8192;
/// A store that fails again and again is tried at least so often.
const REJOIN_LIMIT: Duration = Duration::from_secs(600);

/// Log is gone: the records of it are to be put before anything else.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) ranges: Vec<Range>,
    pub(crate) why: String,
    pub(crate) done: oneshot::Sender<()>,
}

type Healed = std::result::Result<Result<(String, Coverage)>, tokio::task::JoinError>;

/// Ships one lineage.
#[derive(Debug)]
pub(crate) struct Shipper {
    shared: Arc<Shared>,
    opened: Opened,
    /// Pieces in each store, where there are several, as that store answered by itself.
    held_in: BTreeMap<String, Coverage>,
    histories_done: BTreeMap<Timeline, Vec<u8>>,
    /// The newest time that a file of ours says.
    marked_us: i64,
    waiting: push::Waiting,
    /// When the stores were last asked what they hold.
    healed_at: Option<Duration>,
    /// Pieces that were put, or compared, and are still in the spool.
    appended: BTreeSet<Range>,
    /// The small frames of the newest block since they were last put together, and the ones put together.
    small: Vec<Range>,
    large: usize,
    /// Up to here the newest block stands in pieces that are less than a block.
    parts: Option<Position>,
    /// When the newest bytes were last put.
    last_put: Option<Duration>,
    /// When pushed files were last looked for.
    looked_at: Option<Duration>,
    /// Frames that go, beside everything else.
    cleaning: JoinSet<Result<Vec<LogName>>>,
    /// Stores that get what they missed.
    healing: JoinSet<Result<(String, Coverage)>>,
    preparing: Preparing,
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
                    // Whatever began meanwhile: what is in this spool is of this lineage.
                    open(env, protected, &shared.instance, shared.source, NewLog::Of(shared.lineage)).await
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
        {
            let mut state = shared.state();
            state.stored.unite(&opened.stored);
            state.gone.unite(&opened.gone);
            state.freshen();
        }
        shared.look_at_target();
        let mut shipper = Self {
            shared: Arc::clone(shared),
            small: Vec::new(),
            large: 0,
            held_in: BTreeMap::new(),
            histories_done: BTreeMap::new(),
            marked_us: i64::MIN,
            waiting: push::Waiting::default(),
            healed_at: None,
            appended: BTreeSet::new(),
            looked_at: None,
            parts: None,
            last_put: None,
            cleaning: JoinSet::new(),
            healing: JoinSet::new(),
            preparing: Preparing::default(),
            rejoin_at,
            opened,
        };
        shipper.heal(true);
        shipper
    }

    /// `true` once everything is shipped that is to be; `false` where the stores are to be opened again.
    async fn work(&mut self, asked: &mut mpsc::Receiver<Ask>, finished: &mut watch::Receiver<bool>) -> Result<bool> {
        let mut asks_open = true;
        loop {
            let is_last = *finished.borrow();
            self.settle();
            let waiting = self.round(is_last).await?;
            self.ask_stores();
            if is_last && self.shared.closing && !self.healing.is_empty() {
                // What they answer decides whether the spool may give it up.
                let healed = self.healing.join_next().await;
                self.settle_one(healed);
                continue;
            }
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
            .last_put
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
            self.settle_one(Some(healed));
        }
    }

    fn settle_one(&mut self, healed: Option<Healed>) {
        match healed {
            Some(Ok(Ok((store, held)))) => self.held_in.entry(store).or_default().unite(&held),
            Some(Ok(Err(error))) => self
                .shared
                .note(format!("what a store missed could not be copied yet: {error}")),
            Some(Err(_)) | None => {}
        }
    }

    /// While something is not known to stand in every store that is required, they are asked for it now and then.
    fn ask_stores(&mut self) {
        let now = self.shared.env.clock.monotonic();
        let every = self.shared.options.rejoin_after;
        let is_due = self.healed_at.is_none_or(|last| now.saturating_sub(last) >= every);
        // A store that is away is opened again first.
        if is_due && self.rejoin_at.is_none() && self.healing.is_empty() && self.lacks() {
            self.heal(false);
        }
    }

    /// Ships what is there: histories first, then whole blocks, then the newest bytes if it is time, then what was pushed. Says whether something is
    /// left for later.
    async fn round(&mut self, is_last: bool) -> Result<bool> {
        self.histories().await?;
        let (timeline, written) = {
            let state = self.shared.state();
            (state.timeline, state.durable)
        };
        let began = self.shared.env.clock.monotonic();
        let ranges: Vec<Range> = self.shared.spool().ranges().collect();
        let left = ranges.iter().filter(|range| !self.appended.contains(range)).count();
        self.preparing.may_give_way = left <= prepare::FEW && !is_last && !self.shared.closing && !self.shared.options.once;
        let mut waiting = false;
        for (place, range) in ranges.iter().enumerate() {
            let next = ranges.get(place + 1);
            // Where a hole is filled, more log follows behind the stretch that still grows.
            let grows = timeline == Some(range.timeline) && range.start <= written && written <= range.end;
            let followed = next.is_some_and(|next| next.timeline == range.timeline) && !grows;
            let ended = timeline.is_some_and(|timeline| range.timeline < timeline);
            let is_whole = range.end == block_end(range.start) || followed || ended || self.shared.closing;
            if is_whole {
                // Also what stands there already: then it is compared with that (PG-06).
                if !self.appended.contains(range) {
                    if let Some(next) = next.filter(|next| next.end == block_end(next.start) && !self.appended.contains(next)) {
                        self.read_ahead(*range, *next);
                    }
                    let rest = self.behind_parts(*range);
                    if !rest.is_empty() {
                        self.append(LogFileKind::Piece, rest).await?;
                    }
                    self.appended.insert(*range);
                    // What lies behind it is new.
                    self.last_put = Some(began);
                }
                // The newest bytes stay: they are put again with newer times, and compared with what comes next.
                if next.is_some() || self.shared.closing {
                    self.give_up(*range).await?;
                }
            } else if !self.opened.stored.holds(*range) {
                waiting |= !self.frame(*range, is_last).await?;
            }
        }
        if let Some(newest) = ranges.last() {
            self.mark(*newest).await?;
        }
        let now = self.shared.env.clock.monotonic();
        // What was pushed is of the newest lineage.
        let may_look = !self.shared.closing;
        if may_look && (is_last || self.looked_at.is_none_or(|last| now.saturating_sub(last) >= LOOK_EVERY)) {
            self.looked_at = Some(now);
            push::drain(&self.shared, &mut self.opened.writer, &mut self.waiting).await?;
        }
        Ok(waiting)
    }

    /// Where nothing new comes, the newest bytes are put once more, with the time until when they are all.
    async fn mark(&mut self, newest: Range) -> Result<()> {
        // Zero: never.
        if self.shared.options.mark_every.is_zero() || !self.opened.stored.holds(newest) {
            return Ok(());
        }
        let as_of_us = self.shared.state().marks.as_of(newest.timeline, newest.end);
        let every_us = i64::try_from(self.shared.options.mark_every.as_micros()).unwrap_or(i64::MAX);
        let Some(as_of_us) = as_of_us.filter(|us| us.saturating_sub(self.marked_us) >= every_us) else {
            return Ok(());
        };
        // Small frames that will be put together later contain it, or lie behind it.
        let first = self
            .small
            .iter()
            .filter(|frame| newest.contains(frame))
            .map(|frame| frame.start)
            .min();
        let start = Lsn(newest.end.0.saturating_sub(PAGE))
            .max(newest.start)
            .max(block_start(newest.start));
        let start = first
            .filter(|first| *first < newest.end)
            .map_or(start, |first| start.max(first));
        // Nor does it lie across the end of a piece: the next one is to contain it.
        let rest = self.behind_parts(newest);
        let start = if rest.is_empty() { start } else { start.max(rest.start) };
        let page = Range::new(newest.timeline, start, newest.end);
        let raw = self.read(page).await?;
        let done = self
            .opened
            .writer
            .append_again(LogFileKind::Frame, page, raw, Some(as_of_us))
            .await?;
        self.marked_us = as_of_us;
        self.note_stores(&done);
        self.clean(done);
        Ok(())
    }

    fn clean(&mut self, done: Appended) {
        if !done.replaces.is_empty() {
            let cleaner = self.opened.writer.cleaner();
            self.cleaning.spawn(async move { cleaner.drop_replaced(&done).await });
        }
    }

    async fn histories(&mut self) -> Result<()> {
        let histories = self.shared.spool().histories().clone();
        for (timeline, text) in histories {
            if self.histories_done.get(&timeline) == Some(&text) {
                continue;
            }
            let (writer, protected) = (&mut self.opened.writer, &self.shared.protected);
            let mut done = writer.append_history(timeline, text.clone()).await?;
            if done.there && !stands_everywhere(protected, self.shared.lineage, &done).await? {
                done = writer.append_history_again(timeline, text.clone()).await?;
            }
            let is_everywhere = done.there || took(protected, &done);
            self.note_stores(&done);
            self.histories_done.insert(timeline, text);
            if is_everywhere {
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
        if !is_last && !self.last_put.is_none_or(is_due) {
            return Ok(false);
        }
        self.last_put = Some(now);
        let start = self.opened.stored.end_from(range.timeline, range.start);
        let newest = Range::new(range.timeline, start, range.end);
        let rest = self.behind_parts(range);
        if newest.bytes() >= PART_BYTES && self.may_part() {
            self.append(LogFileKind::Piece, rest).await?;
            self.parts = Some(Position::new(rest.timeline, rest.end));
            self.small.clear();
            self.large = 0;
            return Ok(true);
        }
        self.small.retain(|frame| rest.contains(frame));
        if self.small.is_empty() && self.large == 0 {
            let standing = self.opened.frames.iter().filter(|frame| rest.contains(frame));
            self.small = standing.copied().collect();
            self.opened.frames.clear();
        }
        if newest.start == rest.start {
            self.large = 0;
        }
        let all = self.large >= FRAMES;
        let long = match self.small.iter().map(|frame| frame.start).min() {
            _ if all => Some(rest),
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

    /// Whoever pushes files that are shorter than a block has each compared with pieces that contain it, or lie inside.
    fn may_part(&self) -> bool {
        self.shared.source.segment.bytes() >= BLOCK_BYTES
    }

    /// What of `range` does not stand in pieces that were put before it was whole.
    fn behind_parts(&self, range: Range) -> Range {
        match self.parts {
            Some(end) if end.timeline == range.timeline && range.start < end.lsn && end.lsn <= range.end => {
                Range::new(range.timeline, end.lsn, range.end)
            }
            _ => range,
        }
    }

    /// Puts what can be put of `range`; what is left out stands already ([`lifeboat_repo::LogWriter::fitting`]).
    async fn append(&mut self, kind: LogFileKind, range: Range) -> Result<()> {
        for part in self.opened.writer.fitting(range).await? {
            self.append_part(kind, part).await?;
        }
        self.opened.stored.add(range);
        {
            let mut state = self.shared.state();
            state.stored.add(range);
            state.freshen();
        }
        self.shared.look_at_target();
        Ok(())
    }

    async fn append_part(&mut self, kind: LogFileKind, range: Range) -> Result<()> {
        let log = self.prepared(range).await?;
        let as_of_us = self.shared.state().marks.as_of(range.timeline, range.end);
        let done = self.opened.writer.append_prepared(kind, range, log, as_of_us).await?;
        self.note_stores(&done);
        if done.there {
            // Who holds it, the stores have to say.
            self.healed_at = None;
            return Ok(());
        }
        self.marked_us = self.marked_us.max(as_of_us.unwrap_or(i64::MIN));
        if kind == LogFileKind::Piece {
            for store in done.stores.iter().filter(|store| store.missing.is_none()) {
                self.held_in.entry(store.store.clone()).or_default().add(range);
            }
        }
        self.clean(done);
        Ok(())
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

    /// PG-03: the spool gives up what every store that is required holds by its own answer.
    async fn give_up(&mut self, range: Range) -> Result<()> {
        if !self.is_held_everywhere(range) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        compute::run("give up log of the spool", move || shared.spool().give_up(range)).await?;
        self.appended.remove(&range);
        self.shared.room.notify_one();
        Ok(())
    }
}
