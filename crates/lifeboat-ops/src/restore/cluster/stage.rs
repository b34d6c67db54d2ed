//! The files of a restore and the replay of its log, wherever they lie until they have their names.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use lifeboat_engine::postgres::checks::{Reach, Watch};
use lifeboat_engine::postgres::records::Record;
use lifeboat_engine::postgres::recovery::{self, Action, Settings};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result};
use lifeboat_repo::Fetched;

use super::delta::{self, Delta};
use super::files::{self, Layout};
use super::locations;
use super::replay::{self, Replayed};
use super::{Options, Plan, Way, cluster_of};
use crate::protected::Protected;
use crate::verify::cluster as verify;
use crate::wal::{Archive, Limit, Place, Resolved, RestoreFile, resolve, walk};

/// What came of it.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) fetched: Fetched,
    pub(super) resolved: Resolved,
    pub(super) replayed: Option<Replayed>,
    pub(super) files_took: Duration,
    pub(super) notes: Vec<String>,
    /// The delta restore that is under way, where it is one.
    pub(super) delta: Option<Delta>,
}

/// Puts everything of `plan` where `layout` says, and replays the log. `folder` is there for as long as that takes.
pub(super) async fn stage(
    env: &Env,
    protected: &Protected,
    plan: &Plan,
    options: &Options,
    layout: &Layout,
    folder: &Path,
) -> Result<Staged> {
    let began = env.clock.monotonic();
    // What is wanted is looked for first: a moment that cannot be reached costs nothing but that.
    let place = Place {
        sources: plan.sources.clone(),
        component: protected.component.clone(),
        trust: protected.trust.clone(),
        identities: plan.identities.clone(),
    };
    env.progress.step("find the target", None);
    let archive = Archive::open(place, plan.limit).await?;
    let resolved = resolved(&archive, plan).await?;
    let base = need(plan)?;
    env.progress.step("look through the log", None);
    let watch = options.app.then(|| verify::watch(&plan.facts)).flatten();
    let (made, reach) = look(&archive, (base.0, resolved.until), watch).await?;
    let delta = match plan.way {
        Way::New | Way::InPlace => None,
        Way::Onto => Some(begin_delta(plan, layout).await?),
    };
    let is_delta = delta.is_some();
    let files = async {
        env.progress.step("fetch", Some(plan.backup.header.size_bytes));
        let nothing = BTreeSet::new();
        let kept = delta.as_ref().map_or(&nothing, |delta| &delta.kept);
        let fetched = files::fetch(&plan.reader, &plan.facts, layout, kept).await?;
        let files_took = env.clock.monotonic().saturating_sub(began);
        let archive = archive.until(resolved.until);
        let replayed = match &plan.binaries {
            Some(binaries) => {
                let wanted = match options.app {
                    true => Some(verify::wanted(cluster_of(protected)?, &plan.facts, reach)),
                    false => None,
                };
                let job = replay::Job {
                    binaries,
                    layout,
                    facts: &plan.facts,
                    resolved: &resolved,
                    timeline: plan.choice.timeline,
                    program: &plan.program,
                    staging: folder,
                    heartbeat: cluster_of(protected)?.care.heartbeat.as_ref(),
                    wanted,
                };
                Some(replay::run(env, job, archive).await?)
            }
            None => {
                leave(protected, plan, options, layout, &resolved)?;
                None
            }
        };
        Ok((fetched, files_took, replayed))
    };
    let done: Result<_> = files.await;
    let (fetched, files_took, replayed) = match done {
        Err(error) if is_delta => return Err(delta::unfinished(error, &plan.to)),
        other => other?,
    };
    let mut notes = plan.notes.clone();
    notes.extend(made);
    notes.extend(replayed.iter().flat_map(|replayed| replayed.notes.iter().cloned()));
    Ok(Staged {
        fetched,
        resolved,
        replayed,
        files_took,
        notes,
        delta,
    })
}

async fn begin_delta(plan: &Plan, layout: &Layout) -> Result<Delta> {
    let (layout, facts, reader) = (layout.clone(), plan.facts.clone(), plan.reader.clone());
    compute::run("take the old cluster out of use", move || {
        Delta::begin(&layout, &facts, reader.files())
    })
    .await
}

/// What the records that are replayed are looked at for.
struct Look {
    spaces: locations::Seen,
    rows: Option<Watch>,
}

/// Goes once through the log: for tablespaces that it makes, and for changes of rows that were counted, as far as they are watched.
async fn look(
    archive: &Archive,
    (from, until): (Lsn, Lsn),
    watch: Option<Result<Watch>>,
) -> Result<(Vec<String>, Option<Result<Reach>>)> {
    let (rows, unknown) = match watch {
        Some(Ok(watch)) => (Some(watch), None),
        Some(Err(error)) => (None, Some(Err(error))),
        None => (None, None),
    };
    let begin = rows.as_ref().map_or(from, |watch| watch.from().min(from));
    let spaces = locations::Seen::new(from, until);
    let see = |look: &mut Look, record: &Record| {
        look.spaces.see(record);
        look.rows.iter_mut().for_each(|watch| watch.see(record));
    };
    let (look, end) = walk(archive, (begin, until), Look { spaces, rows }, see).await?;
    let reach = look.rows.map(|watch| verify::reach(watch, end.at, until)).or(unknown);
    Ok((look.spaces.judge(archive).await?, reach))
}

/// From where on the base needs log, and from where on it is consistent.
fn need(plan: &Plan) -> Result<(Lsn, Lsn)> {
    let range = plan.backup.header.log.map(|need| need.range).ok_or_else(|| {
        Error::new(
            ErrorKind::Bug,
            "restore",
            plan.backup.id.short(),
            "it says nothing about its log",
        )
    })?;
    Ok((range.start, range.end))
}

/// The exact end of what is replayed.
async fn resolved(archive: &Archive, plan: &Plan) -> Result<Resolved> {
    // Also for the moment of a base: the server ends at `immediate` only where it finds a record behind it.
    resolve(archive, need(plan)?, plan.goal).await
}

/// Leaves everything that a server needs to replay the log by itself.
fn leave(protected: &Protected, plan: &Plan, options: &Options, layout: &Layout, resolved: &Resolved) -> Result<()> {
    let file = RestoreFile {
        config: options.config.clone(),
        component: protected.component.to_string(),
        stores: plan.sources.iter().map(|source| source.name().to_owned()).collect(),
        limit: Limit {
            until: resolved.until,
            ..plan.limit
        },
    };
    file.write(&layout.data_dir, layout.owner)?;
    // The directory gets another name.
    let named = RestoreFile::path_in(&plan.to);
    let settings = Settings {
        restore_command: recovery::restore_command_of(&plan.program, &named)?,
        target: resolved.target,
        timeline: plan.choice.timeline,
        action: Action::Promote,
    };
    layout.write_recovery(&settings)?;
    layout.write_map(&plan.tablespaces)?;
    layout.complete()
}
