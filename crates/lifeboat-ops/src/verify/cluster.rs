//! What is asked of a restored cluster: rows as they were counted, with what the log says about changes since, and what the configuration wants.

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::checks::{Beat, Reach, Wanted, Watch};
use lifeboat_model::check::Outcome;
use lifeboat_model::{Error, ErrorKind, Lsn, Result};
use lifeboat_repo::format_utc;

use crate::protected::Cluster;

/// What looks in the log for changes of the rows that were counted; none where none were.
pub(crate) fn watch(facts: &Facts) -> Option<Result<Watch>> {
    let counts = facts.counts.as_ref().filter(|counts| counts.why.is_none())?;
    Some(Watch::new(counts))
}

/// What it saw, where the records were followed to `ended`, and the log is replayed up to `until`.
pub(crate) fn reach(watch: Watch, ended: Lsn, until: Lsn) -> Result<Reach> {
    if ended < until && watch.from() < until {
        let detail = format!("its records were followed only to {ended}, and it was replayed to {until}");
        return Err(Error::new(ErrorKind::Corrupt, "read", "the log", detail));
    }
    Ok(watch.finish())
}

/// The checks of `cluster`, on a copy of which the log was looked through; without a `reach` no rows were counted.
pub(crate) fn wanted<'a>(cluster: &'a Cluster, facts: &'a Facts, reach: Option<Result<Reach>>) -> Wanted<'a> {
    let rows = facts
        .counts
        .as_ref()
        .map(|counts| (counts, reach.unwrap_or_else(|| Ok(Reach::default()))));
    Wanted {
        rows,
        assertions: &cluster.care.checks,
    }
}

/// How new the data is, as a check among the others.
pub(crate) fn heartbeat(beat: &Beat) -> Outcome {
    let name = "heartbeat";
    match beat {
        Beat::At(at_us) => Outcome::passed(name, format!("the newest is of {}", format_utc(*at_us))),
        Beat::Nothing => Outcome::failed(name, "there is none"),
        Beat::NotAvailable(why) => Outcome::not_available(name, why.clone()),
        Beat::Unknown(why) => Outcome::failed(name, format!("it could not be asked for: {why}")),
    }
}

/// That the log was replayed, as a check among the others.
pub(crate) fn replayed(reached: Lsn, files: u64) -> Outcome {
    let files = crate::words::counted(files, "file");
    Outcome::passed(
        "recovery",
        format!("a server replayed the log up to {reached} ({files} of log) and stood there"),
    )
}
