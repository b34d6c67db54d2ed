//! Which moments of a PostgreSQL cluster a store can give back (PG-01): from the backups that count there and the log that stands there.

use std::collections::BTreeSet;

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_model::time::human_bytes;
use lifeboat_model::wal::{Base, Choice, Coverage, History, Mark, Moment, Range, Reachable, Refusal, Target, Why};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use lifeboat_repo::{
    Backup, Identities, Lineage, LineageRecord, Listing, LogFileKind, LogListing, LogName, LogReader, Repository, block_start,
    format_utc, list_log,
};

use crate::protected::Protected;

/// The log of one lineage of a cluster in one store, judged, and the bases that stand on it.
#[derive(Debug)]
pub struct Reach {
    /// The lineage.
    pub record: LineageRecord,
    /// Backups of that lineage, the oldest first; their places are those in [`Reach::reachable`].
    pub backups: Vec<Backup>,
    /// What is held.
    pub coverage: Coverage,
    /// What the server said about times.
    pub marks: Vec<Mark>,
    /// What can be reached.
    pub reachable: Reachable,
    /// What could not be read and is left out.
    pub notes: Vec<String>,
}

/// What a target leads to.
#[derive(Debug)]
pub struct Chosen {
    /// The lineage in which it lies.
    pub reach: Reach,
    /// The backup to begin with.
    pub backup: Backup,
    /// How far the log is to be replayed.
    pub choice: Choice,
    /// What to know about it.
    pub notes: Vec<String>,
}

/// Looks at the log of `protected` in `repository`, of which `listing` are the backups: every lineage, the newest first. Without identities the
/// histories of timelines cannot be read, and nothing is known about what leads from one to the next.
pub async fn look(
    protected: &Protected,
    repository: &Repository,
    listing: &Listing,
    identities: &Identities,
) -> Result<Vec<Reach>> {
    let asked = Asked::new(protected, repository, listing, identities).await?;
    let mut reaches = Vec::new();
    for record in asked.log.lineages.iter().rev() {
        reaches.push(asked.judge(record).await?);
    }
    Ok(reaches)
}

/// Chooses the backup to begin with, and how far the log is to be replayed. `lineage` names one by the beginning of its id; without it a
/// backup lies in its own, the latest moment in that of the newest backup, and times and positions are looked for in the newest that reaches back
/// to them.
///
/// # Errors
/// `NoSuchPoint` where the target cannot be reached, with the nearest moments that can.
pub async fn choose(
    protected: &Protected,
    repository: &Repository,
    listing: &Listing,
    identities: &Identities,
    target: &Target,
    lineage: Option<&str>,
) -> Result<Chosen> {
    let asked = Asked::new(protected, repository, listing, identities).await?;
    let order = asked.order(target, lineage)?;
    let mut refused_so_far: Option<Refusal> = None;
    let (mut notes, mut looked_at) = (Vec::new(), BTreeSet::new());
    for record in order {
        looked_at.insert(record.lineage);
        let reach = asked.judge(record).await?;
        match reach.reachable.choose(target) {
            Ok(choice) => {
                let backup =
                    reach.backups.get(choice.base).cloned().ok_or_else(|| {
                        Error::new(ErrorKind::Bug, "choose a backup of", &protected.component, "it is not listed")
                    })?;
                notes.extend(asked.told(&reach));
                notes.extend(reach.notes.iter().cloned());
                return Ok(Chosen {
                    reach,
                    backup,
                    choice,
                    notes,
                });
            }
            Err(refusal) => {
                let older = lineage.is_none() && reach.reachable.may_be_older(target, &refusal);
                refused_so_far = Some(match refused_so_far {
                    Some(newer) => newer.and(refusal),
                    None => refusal,
                });
                notes.extend(reach.notes);
                if !older {
                    break;
                }
            }
        }
    }
    let refusal = refused_so_far.ok_or_else(|| none_yet(protected))?;
    Err(refused(target, &refusal, protected, &asked.others(&looked_at), &notes))
}

/// What is looked at.
struct Asked<'a> {
    protected: &'a Protected,
    repository: &'a Repository,
    listing: &'a Listing,
    identities: &'a Identities,
    log: LogListing,
}

impl<'a> Asked<'a> {
    async fn new(
        protected: &'a Protected,
        repository: &'a Repository,
        listing: &'a Listing,
        identities: &'a Identities,
    ) -> Result<Self> {
        Ok(Self {
            protected,
            repository,
            listing,
            identities,
            log: list_log(repository, &protected.component, &protected.trust).await?,
        })
    }

    /// The lineages in which a target is looked for, in this order; at least one.
    fn order(&self, target: &Target, lineage: Option<&str>) -> Result<Vec<&LineageRecord>> {
        let all: Vec<&LineageRecord> = self.log.lineages.iter().rev().collect();
        if let Some(text) = lineage {
            return self.named(text).map(|record| vec![record]);
        }
        let of = match target {
            Target::Base(name) => self.listing.backups.iter().find(|backup| backup.id.to_string() == *name),
            Target::Latest => self.listing.backups.iter().rev().find(|backup| is_base(backup)),
            Target::Lsn(..) | Target::Time(..) => None,
        };
        let Some(need) = of.and_then(|backup| backup.header.log) else {
            return match all.is_empty() {
                true => Err(none_yet(self.protected)),
                false => Ok(all),
            };
        };
        // Never another one in its place: that would be another past.
        let own = all.iter().find(|record| record.lineage == need.lineage);
        own.map(|record| vec![*record]).ok_or_else(|| {
            let detail = format!(
                "the store has none of the log that the backup needs (lineage {})",
                need.lineage
            );
            Error::new(ErrorKind::NoSuchPoint, "restore", &self.protected.component, detail)
                .with_hint("`lifeboat copy` brings it from another store")
        })
    }

    fn named(&self, text: &str) -> Result<&LineageRecord> {
        let all = &self.log.lineages;
        let found: Vec<_> = all
            .iter()
            .filter(|record| record.lineage.to_string().starts_with(text))
            .collect();
        match found.as_slice() {
            [only] if !text.is_empty() => Ok(only),
            _ => {
                let known: Vec<String> = all.iter().rev().map(short).collect();
                let detail = format!("{} lineages have an id that begins so, of {}", found.len(), known.join(", "));
                Err(
                    Error::new(ErrorKind::NoSuchPoint, "choose the lineage", format!("{text:?}"), detail)
                        .with_hint("`lifeboat points` shows what each of them reaches"),
                )
            }
        }
    }

    async fn judge(&self, record: &LineageRecord) -> Result<Reach> {
        let (component, trust) = (&self.protected.component, &self.protected.trust);
        let reader = LogReader::of(
            self.repository,
            component,
            trust,
            self.identities.clone(),
            record.lineage,
            &self.log,
        );
        let judged = reader.headers(|name| name.kind != LogFileKind::History).await?;
        let (histories, unread, notes) = self.histories(&reader, record).await?;
        let usable = |backup: &&Backup| is_base(backup) && backup.header.log.is_some_and(|need| need.lineage == record.lineage);
        let backups: Vec<Backup> = self.listing.backups.iter().filter(usable).cloned().collect();
        let bases = backups.iter().filter_map(base).collect();
        let (coverage, marks) = (judged.coverage(), judged.marks().collect::<Vec<_>>());
        let reachable = Reachable::new(record.segment, bases, coverage.clone(), histories, marks.clone());
        Ok(Reach {
            reachable: reachable.with_unread(unread),
            record: record.clone(),
            backups,
            coverage,
            marks,
            notes,
        })
    }

    /// The ways to timelines. One that cannot be read closes its timeline, not the others: it is left out, with a note.
    async fn histories(&self, reader: &LogReader, record: &LineageRecord) -> Result<(Vec<History>, Vec<Timeline>, Vec<String>)> {
        let (mut histories, mut unread, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        if self.identities.is_empty() {
            return Ok((histories, unread, notes));
        }
        let timelines: BTreeSet<Timeline> = self.log.histories(record.lineage).collect();
        for timeline in timelines {
            let text = reader.history(timeline).await;
            match text.and_then(|text| History::parse(timeline, &String::from_utf8_lossy(&text))) {
                Ok(history) => histories.push(history),
                Err(error) if is_of_one_file(&error) => {
                    notes.push(format!("nothing on timeline {timeline} can be restored: {error}"));
                    unread.push(timeline);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((histories, unread, notes))
    }

    /// What to know of the lineage that was taken.
    fn told(&self, reach: &Reach) -> Option<String> {
        let newer = self
            .log
            .lineages
            .iter()
            .rev()
            .take_while(|record| record.lineage != reach.record.lineage);
        let newer = newer.last()?;
        Some(format!(
            "this lies in the lineage {} of the cluster, which was left when the cluster was set back to an earlier moment; the next one, {}, began at {}",
            short(&reach.record),
            short(newer),
            format_utc(newer.opened_us),
        ))
    }

    /// Lineages that were not looked at.
    fn others(&self, looked_at: &BTreeSet<Lineage>) -> Vec<String> {
        let others = self.log.lineages.iter().rev();
        others
            .filter(|record| !looked_at.contains(&record.lineage))
            .map(short)
            .collect()
    }
}

/// Whether an error says something about one file, and not about the store.
fn is_of_one_file(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::NotFound | ErrorKind::WrongKey
    )
}

/// The beginning of a lineage's id, for people.
#[must_use]
pub fn short(record: &LineageRecord) -> String {
    record.lineage.to_string().chars().take(8).collect()
}

fn is_base(backup: &Backup) -> bool {
    !backup.header.extract && backup.header.log.is_some()
}

fn none_yet(protected: &Protected) -> Error {
    let detail = "there is no backup of it yet";
    Error::new(ErrorKind::NoSuchPoint, "restore", &protected.component, detail).with_hint("`lifeboat backup` makes one")
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

fn refused(target: &Target, refusal: &Refusal, protected: &Protected, others: &[String], notes: &[String]) -> Error {
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
    let also = match others {
        [] => String::new(),
        some => format!("; not looked for in other lineages of the cluster: {}", some.join(", ")),
    };
    let noted: String = notes.iter().map(|note| format!("; {note}")).collect();
    let hint = match others {
        [] => "`lifeboat points` shows all; `lifeboat restore` without a target takes the latest",
        _ => "`lifeboat points` shows what each lineage reaches; `--lineage` takes one of them",
    };
    Error::new(
        ErrorKind::NoSuchPoint,
        "restore",
        &protected.component,
        format!("{wanted} cannot be reached: {why}{near}{also}{noted}"),
    )
    .with_hint(hint)
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
