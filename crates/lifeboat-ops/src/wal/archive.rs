//! The log of one lineage as the files that a recovering server asks for.
//!
//! What lies behind the limit of the restore, or beside the way to its timeline, is not there: that was decided. What lies before it has to be
//! there: where it cannot be read, the answer is an error, whatever the reason (PG-07). Bytes are read in blocks, each verified (INV-10), the
//! next ones ahead of time; at most eight of them are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_engine::postgres::records::PageHeader;
use lifeboat_model::wal::{History, LogFile, Range, SegmentSize, Stretch};
use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::{BLOCK_BYTES, ComponentName, Identities, Lineage, LogReader, Repository, Trust, is_log_conflict, list_log};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

/// Blocks that are kept: those being read and those that may be asked for again.
pub(super) const MOST_BLOCKS: usize = 8;
/// Blocks that are read ahead.
const AHEAD: usize = 4;

/// Where the log is, and what opens it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The repository in the store, or in several as one.
    pub repository: Repository,
    /// Whose log.
    pub component: ComponentName,
    /// Whose files count.
    pub trust: Trust,
    /// What opens them.
    pub identities: Identities,
}

/// What a restore decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// From which lineage.
    pub lineage: Lineage,
    /// Along the way to which timeline.
    pub timeline: Timeline,
    /// Up to where. Every byte from the base's start to here was found to be held; what lies behind is handed out as zeros or not at all.
    pub until: Lsn,
}

/// What comes of asking for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A segment; it is read part by part with [`Archive::part`].
    Segment(Segment),
    /// Content, whole.
    Text(Vec<u8>),
    /// There is no such file: why that is sure.
    Absent(String),
}

/// A segment that may be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    stretch: Stretch,
    start: Lsn,
    end: Lsn,
}

impl Segment {
    /// Its length as a file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.end.since(self.start)
    }
}

/// The log of one lineage up to a limit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    /// Other stores with the same log, asked in turn for what this one does not give.
    others: Vec<Place>,
    limit: Limit,
    system: u64,
    size: SegmentSize,
    way: History,
    reader: Mutex<LogReader>,
    blocks: Mutex<Blocks>,
    ahead: Mutex<JoinSet<()>>,
}

/// The bytes of a block as they belong to a timeline.
type Block = Arc<OnceCell<Arc<Vec<u8>>>>;

#[derive(Debug, Default)]
struct Blocks {
    kept: BTreeMap<(Timeline, Lsn), (u64, Block)>,
    uses: u64,
}

impl Archive {
    /// Lists the log, and reads the way to the limit's timeline. Kind `NotFound` where the lineage or the timeline's history is not there.
    pub async fn open(place: Place, limit: Limit) -> Result<Self> {
        Self::open_beside(place, Vec::new(), limit).await
    }

    /// The same, with other stores to ask where a piece is missing or damaged in the first, or it does not answer any more.
    pub async fn open_beside(place: Place, others: Vec<Place>, limit: Limit) -> Result<Self> {
        let listing = list_log(&place.repository, &place.component, &place.trust).await?;
        let record = listing.lineages.iter().find(|record| record.lineage == limit.lineage);
        let record = record.ok_or_else(|| {
            let detail = format!("there is no log of the lineage {}", limit.lineage);
            Error::new(ErrorKind::NotFound, "read the log of", &place.component, detail)
        })?;
        let (system, size) = (record.system, record.segment);
        let reader = LogReader::of(
            &place.repository,
            &place.component,
            &place.trust,
            place.identities.clone(),
            limit.lineage,
            &listing,
        );
        let way = if limit.timeline == Timeline::FIRST {
            History::first()
        } else {
            let text = reader.history(limit.timeline).await?;
            History::parse(limit.timeline, &String::from_utf8_lossy(&text))?
        };
        Ok(Self(Arc::new(Inner {
            place,
            others,
            limit,
            system,
            size,
            way,
            reader: Mutex::new(reader),
            blocks: Mutex::default(),
            ahead: Mutex::default(),
        })))
    }

    /// The same log up to an earlier position.
    #[must_use]
    pub fn until(&self, until: Lsn) -> Self {
        Self(Arc::new(Inner {
            place: self.0.place.clone(),
            others: self.0.others.clone(),
            limit: Limit {
                until: until.min(self.0.limit.until),
                ..self.0.limit
            },
            system: self.0.system,
            size: self.0.size,
            way: self.0.way.clone(),
            reader: Mutex::new(self.0.reader()),
            blocks: Mutex::default(),
            ahead: Mutex::default(),
        }))
    }

    /// What was decided.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.0.limit
    }

    /// The way to the limit's timeline.
    #[must_use]
    pub fn way(&self) -> &History {
        &self.0.way
    }

    /// How the log is cut.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.0.size
    }

    /// Looks for a file by the name that the server has for it. Kind `Usage` for a name that it has for none.
    pub async fn look(&self, name: &str) -> Result<Answer> {
        let inner = &self.0;
        let file = LogFile::parse(name, inner.size).ok_or_else(|| {
            let detail = format!("the server has no file of that name, with segments of {}", inner.size);
            Error::new(ErrorKind::Usage, "fetch", format!("{name:?}"), detail)
        })?;
        match file {
            LogFile::Segment { timeline, number } => Ok(inner.look_for_segment(timeline, inner.size.start_of(number))),
            LogFile::History { timeline } => inner.look_for_history(timeline).await,
            LogFile::Partial { .. } | LogFile::Backup { .. } => Ok(Answer::Absent(
                "files of that kind are not part of the log, and are not kept".to_owned(),
            )),
        }
    }

    /// The bytes of a segment from `from` on, a block at most; behind what is held up to the limit they are zero. What comes next is read ahead.
    pub async fn part(&self, segment: &Segment, from: u64) -> Result<Part> {
        let inner = &self.0;
        let start = segment.start.plus(from);
        let end = inner.unit_end(start).min(segment.end);
        let held = inner.held_end(&segment.stretch).min(end);
        let length = usize::try_from(end.since(start).min(BLOCK_BYTES)).unwrap_or_default();
        if held <= start {
            return Ok(Part {
                block: Arc::default(),
                range: 0..0,
                zeros: length,
            });
        }
        self.read_ahead(start);
        let first = inner.first_of(&segment.stretch, start);
        let block = Inner::block(inner, segment.stretch, start).await?;
        let offset = |at: Lsn| usize::try_from(at.since(first)).unwrap_or(usize::MAX);
        let range = offset(start)..offset(held);
        let bytes = block
            .get(range.clone())
            .ok_or_else(|| Error::new(ErrorKind::Bug, "read log", start, "a block is shorter than its range"))?;
        inner.check_page(bytes, start)?;
        let zeros = length - bytes.len();
        Ok(Part { block, range, zeros })
    }

    /// The bytes of a range along the way, within one block, from whatever timeline they belong to.
    pub async fn along_way(&self, start: Lsn, end: Lsn) -> Result<Vec<u8>> {
        let last = self.0.way.stretches().next_back();
        let last = last.ok_or_else(|| Error::new(ErrorKind::Bug, "read log", start, "a way has no stretch"))?;
        self.0.compose(last, start, end).await
    }

    /// Begins to read the blocks that the server will ask for next.
    fn read_ahead(&self, from: Lsn) {
        let mut ahead = lock(&self.0.ahead);
        while ahead.try_join_next().is_some() {}
        let mut at = self.0.unit_start(from);
        for _ in 0..AHEAD {
            at = self.0.unit_end(at);
            let Some(stretch) = self.0.asked_next(at).filter(|_| at < self.0.limit.until) else {
                break;
            };
            if lock(&self.0.blocks).kept.contains_key(&(stretch.timeline, at)) {
                continue;
            }
            let inner = Arc::clone(&self.0);
            ahead.spawn(async move {
                // What fails is tried again when it is asked for, and told then.
                drop(Inner::block(&inner, stretch, at).await);
            });
        }
    }
}

/// A part of a segment: bytes of a block, then zeros.
#[derive(Debug, Clone)]
pub struct Part {
    block: Arc<Vec<u8>>,
    range: std::ops::Range<usize>,
    zeros: usize,
}

impl Part {
    /// The bytes that are held.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.block.get(self.range.clone()).unwrap_or_default()
    }

    /// So many zeros follow.
    #[must_use]
    pub const fn zeros(&self) -> usize {
        self.zeros
    }
}

impl Inner {
    fn look_for_segment(&self, timeline: Timeline, start: Lsn) -> Answer {
        let absent = |why: fmt::Arguments<'_>| Answer::Absent(why.to_string());
        let Limit { timeline: to, until, .. } = self.limit;
        let Some(stretch) = self.way.stretches().find(|stretch| stretch.timeline == timeline) else {
            return absent(format_args!(
                "timeline {timeline} does not lie on the way to timeline {to}, which was asked for"
            ));
        };
        if start >= until {
            return absent(format_args!("the recovery was decided to end at {until}, in front of it"));
        }
        if let Some(left) = stretch.end.filter(|left| *left <= start) {
            return absent(format_args!("timeline {timeline} was left at {left}, in front of it"));
        }
        if start < self.size.align_down(stretch.begin) {
            return absent(format_args!("timeline {timeline} began at {}, behind it", stretch.begin));
        }
        Answer::Segment(Segment {
            stretch,
            start,
            end: start.plus(self.size.bytes()),
        })
    }

    /// Histories behind the limit are handed out, too: after its recovery the server takes the first number for its own timeline of which there
    /// is none, and must not take one that was used.
    async fn look_for_history(&self, timeline: Timeline) -> Result<Answer> {
        if timeline == Timeline::FIRST {
            return Ok(Answer::Absent("the first timeline has no history".to_owned()));
        }
        let reader = self.reader();
        match reader.history(timeline).await {
            Ok(text) => return Ok(Answer::Text(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Listed before it was written, perhaps.
        let reader = self.list_again().await?;
        match reader.history(timeline).await {
            Ok(text) => return Ok(Answer::Text(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if reader.files().iter().any(|name| name.range.timeline == timeline) {
            let detail = "log of this timeline is stored, so there was a history file of it, and it is missing";
            return Err(Error::new(
                ErrorKind::NotFound,
                "fetch the history of",
                format!("timeline {timeline}"),
                detail,
            )
            .with_hint("`lifeboat wal push` stores it from pg_wal of a server that still has it"));
        }
        Ok(Answer::Absent(format!("nothing is stored of timeline {timeline}")))
    }

    fn reader(&self) -> LogReader {
        lock(&self.reader).clone()
    }

    /// Frames are replaced while somebody follows: what is listed grows old.
    async fn list_again(&self) -> Result<LogReader> {
        let Place {
            repository,
            component,
            trust,
            identities,
        } = &self.place;
        let fresh = LogReader::open(repository, component, trust, identities.clone(), self.limit.lineage).await?;
        *lock(&self.reader) = fresh.clone();
        Ok(fresh)
    }

    /// What is read at once: a block, or a segment where that is smaller. In front of a base's first segment nothing may be held.
    fn unit_start(&self, at: Lsn) -> Lsn {
        Lsn(at.0 & !(self.size.bytes().min(BLOCK_BYTES) - 1))
    }

    fn unit_end(&self, at: Lsn) -> Lsn {
        self.unit_start(at).plus(self.size.bytes().min(BLOCK_BYTES))
    }

    /// The end of what is handed out of a stretch.
    fn held_end(&self, stretch: &Stretch) -> Lsn {
        stretch.end.map_or(self.limit.until, |end| end.min(self.limit.until))
    }

    /// The first byte of the block at `at` that belongs into files of the stretch's timeline: the segment in which it began is whole.
    fn first_of(&self, stretch: &Stretch, at: Lsn) -> Lsn {
        self.unit_start(at).max(self.size.align_down(stretch.begin))
    }

    /// The stretch for whose timeline the server asks first at a position: the newest that has a segment there.
    fn asked_next(&self, at: Lsn) -> Option<Stretch> {
        self.way
            .stretches()
            .rev()
            .find(|stretch| self.size.align_down(stretch.begin) <= at)
    }

    /// The verified bytes of the block that holds `at`, read once however many ask. A failure is not kept.
    async fn block(inner: &Arc<Self>, stretch: Stretch, at: Lsn) -> Result<Arc<Vec<u8>>> {
        let cell = lock(&inner.blocks).take((stretch.timeline, inner.unit_start(at)));
        let read = async {
            let start = inner.first_of(&stretch, at);
            let end = inner.unit_end(at).min(inner.held_end(&stretch));
            inner.compose(stretch, start, end).await.map(Arc::new)
        };
        cell.get_or_try_init(|| read).await.map(Arc::clone)
    }

    /// Bytes as they belong into files of a timeline: from where it began its own, before that its ancestors' (or its own copy of them).
    async fn compose(&self, of: Stretch, start: Lsn, end: Lsn) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let stretches = self.way.stretches().filter(|stretch| stretch.timeline <= of.timeline);
        for stretch in stretches {
            let until = if stretch.timeline == of.timeline { None } else { stretch.end };
            let range = Range::new(
                stretch.timeline,
                start.max(stretch.begin),
                until.map_or(end, |until| until.min(end)),
            );
            if range.is_empty() {
                continue;
            }
            let copy = Range {
                timeline: of.timeline,
                ..range
            };
            let read = match self.read(range).await {
                Err(error) if is_verdict(&error) && copy != range => self.read(copy).await.map_err(|_same_elsewhere| error),
                other => other,
            };
            bytes.extend_from_slice(&read?);
        }
        Ok(bytes)
    }

    async fn read(&self, range: Range) -> Result<Vec<u8>> {
        let error = match self.read_first(range).await {
            Ok(bytes) => return Ok(bytes),
            // PG-06: where two files differ, nobody chooses.
            Err(error) if is_log_conflict(&error) => return Err(error),
            Err(error) => error,
        };
        for other in &self.others {
            if let Ok(reader) = self.reader_in(other).await
                && let Ok(bytes) = reader.read(range).await
            {
                return Ok(bytes);
            }
        }
        Err(error)
    }

    /// The log as another store has it now.
    async fn reader_in(&self, other: &Place) -> Result<LogReader> {
        let (trust, identities) = (&other.trust, other.identities.clone());
        LogReader::open(&other.repository, &other.component, trust, identities, self.limit.lineage).await
    }

    async fn read_first(&self, range: Range) -> Result<Vec<u8>> {
        match self.reader().read(range).await {
            Err(error) if is_verdict(&error) => self.list_again().await?.read(range).await.map_err(|error| {
                if error.kind() == ErrorKind::NotFound {
                    // It was planned with: it is missing, not absent.
                    return error.with_kind(ErrorKind::Corrupt).with_hint(
                        "it was there when the restore was planned; look for it in another store (`lifeboat copy`), or restore to an earlier moment",
                    );
                }
                error
            }),
            other => other,
        }
    }

    /// The beginning of a segment says whose it is: another cluster's is never handed out (PG-05).
    fn check_page(&self, bytes: &[u8], start: Lsn) -> Result<()> {
        if self.size.offset_of(start) != 0 || bytes.is_empty() {
            return Ok(());
        }
        let fits = PageHeader::read(bytes).is_some_and(|header| {
            let cluster = header.cluster == u32::try_from(self.size.bytes()).ok().map(|size| (self.system, size));
            header.at == start && cluster
        });
        if fits || bytes.len() < 40 {
            return Ok(());
        }
        let detail = format!(
            "its first page is not that of a segment of the cluster {} at this position",
            self.system
        );
        Err(Error::new(ErrorKind::Corrupt, "hand out the segment at", start, detail)
            .with_hint("restore to an earlier moment, or from a newer backup"))
    }
}

impl Blocks {
    /// The place of a block; the ones that were not used for longest make room.
    fn take(&mut self, key: (Timeline, Lsn)) -> Block {
        self.uses += 1;
        let uses = self.uses;
        let entry = self.kept.entry(key).or_default();
        entry.0 = uses;
        let block = Arc::clone(&entry.1);
        while self.kept.len() > MOST_BLOCKS {
            let oldest = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.map(|key| self.kept.remove(&key));
        }
        block
    }
}

/// Whether an error says something about a file, and not about the store.
fn is_verdict(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound
    )
}

/// What these locks guard is whole between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
