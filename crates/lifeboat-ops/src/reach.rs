//! Which moments of a PostgreSQL cluster a store can give back (PG-01): from the backups that count there and the log that stands there.

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_model::time::human_bytes;
use lifeboat_model::wal::{Base, Choice, Coverage, History, Mark, Moment, Reachable, Refusal, Target, Why};
use lifeboat_model::{Error, ErrorKind, Position, Result};
use lifeboat_repo::{
    Backup, Identities, LineageRecord, Listing, LogFileKind, LogListing, LogReader, Repository, format_utc, list_log,
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
