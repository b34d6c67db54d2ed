//! Opening the stores for one lineage, and what stands there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::wal::{Coverage, Range};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{
    Identities, Instance, Lineage, LogFileKind, LogName, LogPlan, LogReader, LogWriter, NewLog, Repository, block_end,
    block_start, list_log,
};
use tokio::sync::watch;

use crate::follow::{Backoff, Options, Source, in_a_line, set};
use crate::protected::Protected;
use crate::stores;

/// How much longer than another store one may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A writer, and what stood in the stores when it began.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) writer: LogWriter,
    pub(crate) stored: Coverage,
    /// Gaps that are recorded.
    pub(crate) gone: Coverage,
    pub(super) frames: Vec<Range>,
    pub(super) repository: Repository,
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

/// Opens the stores, and the lineage in them.
pub(crate) async fn open(
    env: &Env,
    protected: &Protected,
    instance: &Arc<Instance>,
    source: Source,
    new: NewLog,
) -> Result<Opened> {
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
    let (held, gone) = standing_files(protected, &repository, writer.lineage()).await?;
    let (mut stored, mut frames) = (Coverage::new(), Vec::new());
    for name in &held {
        match name.kind {
            LogFileKind::Piece => {}
            LogFileKind::Frame => frames.push(name.range),
            LogFileKind::History => continue,
        }
        stored.add(name.range);
    }
    Ok(Opened {
        writer,
        stored,
        gone,
        frames,
        repository,
    })
}

/// The files of the lineage that count, by name and size; where following goes on from them, by their headers too. And the gaps that are recorded.
async fn standing_files(protected: &Protected, repository: &Repository, lineage: Lineage) -> Result<(Vec<LogName>, Coverage)> {
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
    let mut gone = Coverage::new();
    let gaps = listing.gaps.iter().filter(|gap| gap.lineage == lineage);
    gaps.for_each(|gap| gone.add(gap.range));
    Ok((files.filter(|name| !unfit.contains(name)).collect(), gone))
}

/// What is held of a lineage, by names and sizes; at its end, by headers too.
pub(crate) async fn held_of(protected: &Protected, repository: &Repository, lineage: Lineage) -> Result<Coverage> {
    let (files, _) = standing_files(protected, repository, lineage).await?;
    let mut held = Coverage::new();
    let log = files.iter().filter(|name| name.kind != LogFileKind::History);
    log.for_each(|name| held.add(name.range));
    Ok(held)
}
