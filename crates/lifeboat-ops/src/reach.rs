//! Which moments of a PostgreSQL cluster a store can give back (PG-01): from the backups that count there and the log that stands there.

use std::collections::BTreeSet;

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_model::time::human_bytes;
use lifeboat_model::wal::{Base, Choice, Coverage, History, Mark, Moment, Range, Reachable, Refusal, Target, Why};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result};
use lifeboat_repo::{
    Backup, Identities, LineageRecord, Listing, LogFileKind, LogListing, LogName, LogReader, Repository, block_start, format_utc,
    list_log,
};

use crate::protected::Protected;

/// The log of a cluster in one store, judged, and the bases that stand on it.
#[derive(Debug)]
pub struct Reach {
    /// The lineage of the newest backup, or of the newest log.
    pub record: LineageRecord,
    /// Backups of that lineage, the oldest first; their places are those in [`Reach::reachable`].
    pub backups: Vec<Backup>,
    /// What is held.
    pub coverage: Coverage,
    /// What the server said about times.
    pub marks: Vec<Mark>,
    /// What can be reached.
    pub reachable: Reachable,
}

/// Looks at the log of `protected` in `repository`, of which `listing` are the backups. `None` where there is no log. Without identities the
/// histories of timelines cannot be read, and nothing is known about what leads from one to the next.
pub async fn look(
    protected: &Protected,
    repository: &Repository,
    listing: &Listing,
    identities: &Identities,
) -> Result<Option<Reach>> {
    let (component, trust) = (&protected.component, &protected.trust);
    let log = list_log(repository, component, trust).await?;
    let newest = listing.latest().and_then(|backup| backup.header.log).map(|need| need.lineage);
    let of_backup = log.lineages.iter().find(|record| Some(record.lineage) == newest);
    let Some(record) = of_backup.or(log.lineages.last()).cloned() else {
        return Ok(None);
    };
    let reader = LogReader::of(repository, component, trust, identities.clone(), record.lineage, &log);
    let judged = reader.headers(|name| name.kind != LogFileKind::History).await?;
    let histories = histories(&reader, &log, &record, identities).await?;
    let usable = |backup: &&Backup| {
        let header = &backup.header;
        !header.extract && header.log.is_some_and(|need| need.lineage == record.lineage)
    };
    let backups: Vec<Backup> = listing.backups.iter().filter(usable).cloned().collect();
    let bases = backups.iter().filter_map(base).collect();
    let (coverage, marks) = (judged.coverage(), judged.marks().collect::<Vec<_>>());
    Ok(Some(Reach {
        reachable: Reachable::new(record.segment, bases, coverage.clone(), histories, marks.clone()),
        record,
        backups,
        coverage,
        marks,
    }))
}

async fn histories(
    reader: &LogReader,
    log: &LogListing,
    record: &LineageRecord,
    identities: &Identities,
) -> Result<Vec<History>> {
    let mut histories = Vec::new();
    if identities.is_empty() {
        return Ok(histories);
    }
    for timeline in log.histories(record.lineage) {
        let text = reader.history(timeline).await?;
        histories.push(History::parse(timeline, &String::from_utf8_lossy(&text))?);
    }
    Ok(histories)
}

fn base(backup: &Backup) -> Option<Base> {
    let need = backup.header.log?;
    Some(Base {
        name: backup.id.to_string(),
        timeline: need.range.timeline,
        start: need.range.start,
        end: need.range.end,
        end_us: backup.header.moment_us,
    })
}

impl Reach {
    /// The backup to begin with, and how far the log is to be replayed.
    ///
    /// # Errors
    /// `NoSuchPoint` where the target cannot be reached, with the nearest moments that can.
    pub fn choose(&self, target: &Target, protected: &Protected) -> Result<(&Backup, Choice)> {
        let choice = self
            .reachable
            .choose(target)
            .map_err(|refusal| refused(target, &refusal, protected))?;
        let backup = self
            .backups
            .get(choice.base)
            .ok_or_else(|| Error::new(ErrorKind::Bug, "choose a backup of", &protected.component, "it is not listed"))?;
        Ok((backup, choice))
    }

    /// How many bytes of log lie between a backup's start and `until`.
    #[must_use]
    pub fn log_bytes(backup: &Backup, until: lifeboat_model::Lsn) -> u64 {
        backup.header.log.map_or(0, |need| until.since(need.range.start))
    }
}

/// How far the log in one store reaches behind the newest backup, as far as names, sizes and the last headers tell: no key is needed, and little is
/// read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// In which store.
    pub store: String,
    /// Up to where it is held without a gap.
    pub position: Position,
    /// Everything that was committed before this time lies before that (microseconds since 1970, by the server).
    pub until_us: i64,
    /// Log behind the backup's beginning that is missing: nothing behind it can be reached before the next backup.
    pub missing: Vec<Range>,
}

/// Headers that are read to find a time, behind those of the last block.
const LOOK_BACK: usize = 8;

/// Looks for [`LogEnd`] behind `backup` in one store. `None` where it needs no log, or its own is not held there.
pub async fn log_end(protected: &Protected, store: &str, repository: &Repository, backup: &Backup) -> Result<Option<LogEnd>> {
    let (component, trust) = (&protected.component, &protected.trust);
    let Some(need) = backup.header.log else { return Ok(None) };
    let listing = list_log(repository, component, trust).await?;
    let Some(record) = listing.lineages.iter().find(|record| record.lineage == need.lineage) else {
        return Ok(None);
    };
    let held = listing.candidates(need.lineage);
    if !held.holds(need.range) {
        return Ok(None);
    }
    let mut position = Position::new(need.range.timeline, held.end_from(need.range.timeline, need.range.start));
    let mut missing = Vec::new();
    for timeline in held.timelines().filter(|timeline| *timeline > need.range.timeline) {
        // It begins with a copy of the segment in which it left another one.
        let begin = held
            .ranges()
            .find(|range| range.timeline == timeline)
            .map(|range| range.start);
        let Some(begin) = begin.map(|begin| record.segment.align_down(begin)) else {
            continue;
        };
        if held.holds(Range::new(timeline, begin, begin.plus(1))) && begin <= position.lsn {
            position = Position::new(timeline, held.end_from(timeline, begin));
        } else {
            missing.push(Range::new(position.timeline, position.lsn, begin));
        }
    }
    let last = held.end(position.timeline).unwrap_or(position.lsn);
    missing.extend(held.gaps(Range::new(position.timeline, position.lsn, last)));
    let recorded = listing
        .gaps
        .iter()
        .filter(|gap| gap.lineage == need.lineage && need.range.start < gap.range.end);
    missing.extend(recorded.map(|gap| gap.range));
    missing.sort_unstable();
    missing.dedup();
    let reader = LogReader::of(repository, component, trust, Identities::none(), need.lineage, &listing);
    let marked = last_mark(&reader, position).await?;
    Ok(Some(LogEnd {
        store: store.to_owned(),
        position,
        until_us: marked.unwrap_or(i64::MIN).max(backup.header.moment_us),
        missing,
    }))
}

/// The newest time that is said of a position of this timeline up to there.
async fn last_mark(reader: &LogReader, until: Position) -> Result<Option<i64>> {
    let is_near = |name: &LogName| {
        name.kind != LogFileKind::History && name.range.timeline == until.timeline && name.range.end <= until.lsn
    };
    let mut near: Vec<LogName> = reader.files().iter().filter(|name| is_near(name)).copied().collect();
    near.sort_unstable_by_key(|name| std::cmp::Reverse((name.range.end, name.range.start)));
    let block = block_start(Lsn(until.lsn.0.saturating_sub(1)));
    let of_block = near.iter().filter(|name| name.range.end > block).count();
    let wanted: BTreeSet<LogName> = near.into_iter().take(of_block + LOOK_BACK).collect();
    let judged = reader.headers(|name| wanted.contains(name)).await?;
    Ok(judged.marks().map(|mark| mark.at_us).max())
}

/// What a backup of a cluster says about itself.
pub(crate) fn facts(facts: &serde_json::Value) -> Result<Facts> {
    serde_json::from_value(facts.clone()).map_err(|error| {
        Error::new(ErrorKind::Incompatible, "read", "the facts of the backup", error.to_string())
            .with_hint("it is not the backup of a PostgreSQL cluster, or was written by a newer Lifeboat")
    })
}

fn refused(target: &Target, refusal: &Refusal, protected: &Protected) -> Error {
    let wanted = match target {
        Target::Latest => "the latest moment".to_owned(),
        Target::Base(name) => format!("backup {name}"),
        Target::Lsn(_, lsn) => format!("position {lsn}"),
        Target::Time(_, at_us) => format_utc(*at_us),
    };
    let why = match &refusal.why {
        Why::NoBase => "no backup whose log is held lies in front of it".to_owned(),
        Why::NoSuchBase => "there is no such backup, or it belongs to other log".to_owned(),
        Why::Incomplete(range) => format!("the backup's own log is not held: {range} is missing"),
        Why::BeforeFirst => "it lies before the first backup was consistent".to_owned(),
        Why::Behind => "the log that is held ends before it".to_owned(),
        Why::Gap(range) => format!("log is missing in front of it: {range} ({})", human_bytes(range.bytes())),
        Why::UnknownTimeline(timeline) => format!("nothing is known of timeline {timeline}"),
        Why::NoHistory(timeline) => format!("the history of timeline {timeline} is not held"),
    };
    let near = match (&refusal.before, &refusal.after) {
        (Some(before), Some(after)) => format!("; the nearest are {} before and {} after", moment(before), moment(after)),
        (Some(before), None) => format!("; the last before is {}", moment(before)),
        (None, Some(after)) => format!("; the first is {}", moment(after)),
        (None, None) => String::new(),
    };
    Error::new(
        ErrorKind::NoSuchPoint,
        "restore",
        &protected.component,
        format!("{wanted} cannot be reached: {why}{near}"),
    )
    .with_hint("`lifeboat points` shows all; `lifeboat restore` without a target takes the latest")
}

/// A moment, for people.
#[must_use]
pub fn moment(moment: &Moment) -> String {
    let Position { timeline, lsn } = moment.position;
    match moment.at_us {
        Some(at_us) => format!("{} ({lsn} on timeline {timeline})", format_utc(at_us)),
        None => format!("{lsn} on timeline {timeline}"),
    }
}
