//! The log of one lineage as the files that a recovering server asks for.
//!
//! What lies behind the limit of the restore, or beside the way to its timeline, is not there: that was decided. What lies before it has to be
//! there: where it cannot be read, the answer is an error, whatever the reason (PG-07). Bytes are read in blocks, each verified (INV-10), the
//! next ones ahead of time; at most eight of them are kept.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifeboat_engine::postgres::records::PageHeader;
use lifeboat_model::wal::{History, LogFile, Range, SegmentSize, Stretch};
use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::{BLOCK_BYTES, Lineage, holds_two_versions};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::sources::{Place, Sources, Stored, is_verdict};

/// Blocks that are kept: those being read and those that may be asked for again.
pub(super) const MOST_BLOCKS: usize = 8;
/// Blocks that are read ahead.
const AHEAD: usize = 4;

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
    sources: Sources,
    limit: Limit,
    system: u64,
    size: SegmentSize,
    way: History,
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
        let sources = Sources::new(place, limit.lineage);
        let record = sources.record().await?;
        let way = if limit.timeline == Timeline::FIRST {
            History::first()
        } else {
            match sources.history(limit.timeline).await? {
                Stored::Text(text) => History::parse(limit.timeline, &String::from_utf8_lossy(&text))?,
                Stored::Unreadable(error) => return Err(error),
                Stored::Nothing => {
                    let subject = format!("timeline {}", limit.timeline);
                    let detail = "no history file of it is stored";
                    return Err(Error::new(ErrorKind::NotFound, "read the history of", subject, detail));
                }
            }
        };
        Ok(Self(Arc::new(Inner {
            sources,
            limit,
            system: record.system,
            size: record.segment,
            way,
            blocks: Mutex::default(),
            ahead: Mutex::default(),
        })))
    }

    /// The same log up to an earlier position.
    #[must_use]
    pub fn until(&self, until: Lsn) -> Self {
        Self(Arc::new(Inner {
            sources: self.0.sources.again(),
            limit: Limit {
                until: until.min(self.0.limit.until),
                ..self.0.limit
            },
            system: self.0.system,
            size: self.0.size,
            way: self.0.way.clone(),
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
        self.0.compose(start, end).await
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
    /// is none, and must not take one that was used. Of one that is stored and cannot be read, that is all that is needed: the server asks only
    /// whether it is there. Of a lower number than that of the way it needs none but what the way was read from.
    async fn look_for_history(&self, timeline: Timeline) -> Result<Answer> {
        if timeline == Timeline::FIRST {
            return Ok(Answer::Absent("the first timeline has no history".to_owned()));
        }
        match (self.sources.history(timeline).await?, timeline.cmp(&self.limit.timeline)) {
            (Stored::Text(text), _) => Ok(Answer::Text(text)),
            (Stored::Nothing, _) => Ok(Answer::Absent(format!("nothing is stored of timeline {timeline}"))),
            (Stored::Unreadable(error), Ordering::Equal) => Err(error),
            (Stored::Unreadable(error), Ordering::Less) => {
                let to = self.limit.timeline;
                Ok(Answer::Absent(format!(
                    "the way to timeline {to} is known without it ({error})"
                )))
            }
            (Stored::Unreadable(_), Ordering::Greater) => Ok(Answer::Text(
                format!("# Timeline {timeline} was used; its history is stored, and cannot be read.\n").into_bytes(),
            )),
        }
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
            inner.compose(start, end).await.map(Arc::new)
        };
        cell.get_or_try_init(|| read).await.map(Arc::clone)
    }

    /// The bytes of the way: each stretch's own, or what later timelines have of it. A timeline begins with a copy of the segment in which it
    /// left another one.
    async fn compose(&self, start: Lsn, end: Lsn) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for stretch in self.way.stretches() {
            let until = stretch.end.map_or(end, |left| left.min(end));
            let range = Range::new(stretch.timeline, start.max(stretch.begin), until);
            if range.is_empty() {
                continue;
            }
            let read = match self.sources.read(range).await {
                Err(error) if is_elsewhere(&error) => self.piece_together(&stretch, range, error).await,
                read => read,
            };
            bytes.extend_from_slice(&read.map_err(planned_with)?);
        }
        Ok(bytes)
    }

    /// A range of a stretch from whatever timelines of the way have copies of its parts, where its own does not have it whole: `error`.
    async fn piece_together(&self, of: &Stretch, range: Range, error: Error) -> Result<Vec<u8>> {
        let begins = |stretch: &Stretch| self.size.align_down(stretch.begin);
        let later = self.way.stretches().filter(|later| later.timeline > of.timeline);
        let copies: Vec<Stretch> = later.filter(|later| begins(later) < range.end).collect();
        if copies.is_empty() {
            return Err(error);
        }
        // Between two of these, a timeline has all or nothing.
        let held = self.sources.candidates();
        let ends = held.ranges().flat_map(|held| [held.start, held.end]);
        let cuts = ends.chain(copies.iter().map(begins)).chain([range.end]);
        let cuts: BTreeSet<Lsn> = cuts.filter(|cut| range.start < *cut && *cut <= range.end).collect();
        let (mut bytes, mut at) = (Vec::new(), range.start);
        for cut in cuts {
            let may_have = copies.iter().filter(|copy| begins(copy) <= at).map(|copy| copy.timeline);
            let (mut part, mut first) = (None, None);
            for timeline in std::iter::once(of.timeline).chain(may_have) {
                match self.sources.read(Range::new(timeline, at, cut)).await {
                    Ok(read) => {
                        part = Some(read);
                        break;
                    }
                    Err(error) if is_elsewhere(&error) => drop(first.get_or_insert(error)),
                    Err(error) => return Err(error),
                }
            }
            match part {
                Some(part) => bytes.extend_from_slice(&part),
                // In the words of the timeline that should have it.
                None => return Err(first.unwrap_or(error)),
            }
            at = cut;
        }
        Ok(bytes)
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

/// Whether another copy may have what one does not give.
fn is_elsewhere(error: &Error) -> bool {
    is_verdict(error) && !holds_two_versions(error)
}

/// What was planned with and is not there is missing, not absent.
fn planned_with(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => error.with_kind(ErrorKind::Corrupt).with_hint(
            "it was there when the restore was planned; look for it in another store (`lifeboat copy`), or restore to an earlier moment",
        ),
        _ => error,
    }
}

/// What these locks guard is whole between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
