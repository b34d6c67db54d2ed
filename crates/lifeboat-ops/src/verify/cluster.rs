//! What is asked of a restored cluster: rows as they were counted, with what the log says about changes since, and what the configuration wants.

use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::checks::{Beat, Counts, Reach, Wanted, Watch};
use lifeboat_engine::postgres::records::Scan;
use lifeboat_io::compute;
use lifeboat_model::check::Outcome;
use lifeboat_model::{Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{block_end, format_utc};

use crate::protected::Cluster;
use crate::wal::Archive;

/// The checks of `cluster`, on a copy that is replayed up to the limit of `archive`.
pub(crate) async fn wanted<'a>(cluster: &'a Cluster, facts: &'a Facts, archive: &Archive) -> Wanted<'a> {
    let rows = match &facts.counts {
        Some(counts) if counts.why.is_none() => Some((counts, changes(counts, archive).await)),
        Some(counts) => Some((counts, Ok(Reach::default()))),
        None => None,
    };
    Wanted {
        rows,
        assertions: &cluster.care.checks,
    }
}

/// Reads the log from where rows were counted to the limit of `archive`.
async fn changes(counts: &Counts, archive: &Archive) -> Result<Reach> {
    let from: Lsn = counts.from.parse()?;
    let until = archive.limit().until;
    let mut watch = Watch::new(counts)?;
    let mut scan = Scan::new(from, archive.segment_size());
    let mut at = scan.begins();
    while at < until && !scan.is_over() {
        let end = block_end(at).min(until);
        let bytes = archive.along_way(at, end).await?;
        (scan, watch) = compute::run("look for changes of rows", move || {
            scan.take(&bytes, |record| watch.see(record));
            Ok((scan, watch))
        })
        .await?;
        at = end;
    }
    let end = scan.finish(|record| watch.see(record));
    if end.at < until && from < until {
        let detail = format!("its records were followed only to {}, and it was replayed to {until}", end.at);
        return Err(Error::new(ErrorKind::Corrupt, "read", "the log", detail));
    }
    Ok(watch.finish())
}

/// How new the data is, as a check among the others.
pub(crate) fn heartbeat(beat: &Beat) -> Outcome {
    let name = "heartbeat";
    match beat {
        Beat::At(at_us) => Outcome::passed(name, format!("the newest is of {}", format_utc(*at_us))),
        Beat::Nothing => Outcome::failed(name, "there is none"),
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
