//! A restore from its first byte to its name, and the proof that throws it all away again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::checks;
use lifeboat_engine::postgres::sandbox::{self, Recovery, Sandbox};
use lifeboat_io::{compute, durable};
use lifeboat_model::wal::Target;
use lifeboat_model::{Env, Lsn, Result};
use lifeboat_repo::{Backup, Identities, Repository};
use rustix::process::Signal;

use super::destination::{publish, refuse_taken};
use super::files::{self, Layout};
use super::spaces::Spaces;
use super::stage::{Staged, stage};
use super::{Options, Plan, Replayed, Report, Way, cluster_of, existing, plan, plan_anywhere};
use crate::proof::{self, Level, Proof};
use crate::protected::Protected;
use crate::restore::quarantine::{self, Intent, Kind};
use crate::restore::record::{self, Restored, Underway};
use crate::restore::staging::{CLUSTER, Staging};
use crate::restore::{CLEAN_UP, Findings, draw_id, nearest_folder, remember, remember_place};
use crate::stores::Survey;
use crate::verify::cluster as verify;
use crate::wal::Bracket;

/// Restores as planned.
pub async fn run(env: &Env, protected: &Protected, plan: Plan, options: &Options) -> Result<Report> {
    let restored = async {
        let began = env.clock.monotonic();
        let id = draw_id(env)?;
        files::make_folder(&durable::parent_of(&plan.to), plan.owner)?;
        sweep_sandboxes().await?;
        // Where the state folder cannot be written to, a restore works all the same: it is how one gets that back.
        let _underway = underway(protected, &plan, &id).ok();
        match plan.way {
            Way::New | Way::InPlace => beside(env, protected, &plan, options, (&id, began)).await,
            Way::Onto => onto(env, protected, &plan, options, (&id, began)).await,
        }
    };
    restored
        .await
        .inspect_err(|error| remember(env, protected, &plan.backup, error))
}

/// The server of a killed run may still write where it staged.
async fn sweep_sandboxes() -> Result<u32> {
    compute::run("remove sandboxes that were left", || sandbox::sweep(&std::env::temp_dir())).await
}

/// Says where this restore stages.
fn underway(protected: &Protected, plan: &Plan, id: &str) -> Result<Underway> {
    let mut folders = vec![durable::parent_of(&plan.to)];
    for place in plan.tablespaces.values() {
        folders.push(nearest_folder(place)?);
    }
    Underway::begin_in(&protected.state_dir, id, &folders)
}

/// Into a staging folder, and from there to its name.
async fn beside(
    env: &Env,
    protected: &Protected,
    plan: &Plan,
    options: &Options,
    (id, began): (&str, Duration),
) -> Result<Report> {
    if plan.way == Way::New {
        // Whoever said yes to the plan may have taken his time.
        refuse_taken(&plan.to)?;
    }
    let staging = Staging::create(&plan.to, id)?;
    files::give(staging.folder(), plan.owner)?;
    let spaces = Spaces::begin(&plan.tablespaces, &staging, id, plan.owner)?;
    let layout = Layout {
        data_dir: staging.path(CLUSTER),
        tablespaces: spaces.staged(),
        owner: plan.owner,
    };
    let mut staged = match stage(env, protected, plan, options, &layout, staging.folder()).await {
        Ok(staged) => staged,
        Err(error) => {
            spaces.remove().and_then(|()| staging.remove())?;
            return Err(error);
        }
    };
    let intent = Intent {
        id: id.to_owned(),
        component: protected.component.to_string(),
        backup: plan.backup.id.to_string(),
        at_us: env.clock.wall_us(),
    };
    let expected = expected(&intent, plan, &layout);
    if let Some(expected) = &expected {
        staged.notes.extend(remember_before(protected, expected));
    }
    let (from, to, owner, way) = (layout.data_dir, plan.to.clone(), plan.owner, plan.way);
    // The staging folders go along: a run that is interrupted right now must not lose anything between two renames.
    let published = compute::run("publish", move || {
        let (undo_folder, told) = spaces.publish(&from, &to, owner, || match way {
            Way::InPlace => Ok((Some(quarantine::replace_as(Kind::Cluster, &intent, &to, &from)?), None)),
            Way::New | Way::Onto => Ok((None, publish(&from, &to)?)),
        })?;
        // The data is back: litter is worth a word, not a failure.
        let litter = spaces.remove().and_then(|()| staging.remove()).err();
        Ok((
            undo_folder,
            told.into_iter()
                .chain(litter.map(|error| error.to_string()))
                .collect::<Vec<_>>(),
        ))
    });
    let (undo_folder, told) = published.await.inspect_err(|_| drop(forget(protected, expected.as_ref())))?;
    staged.notes.extend(told);
    Ok(report(env, protected, plan, staged, (id, began)).with_undo(undo_folder))
}

/// What will be at the destination once the old cluster is replaced. It is remembered before that is done: whoever wants the old one back needs
/// the id, also of a run that was killed right behind the last rename.
fn expected(intent: &Intent, plan: &Plan, layout: &Layout) -> Option<Restored> {
    if plan.way != Way::InPlace {
        return None;
    }
    let Intent {
        id,
        component,
        backup,
        at_us,
    } = intent;
    let staged = Restored::here(id, component, backup, *at_us, &layout.data_dir, true).ok()?;
    Some(staged.renamed(&plan.to))
}

fn remember_before(protected: &Protected, expected: &Restored) -> Option<String> {
    let remembered = record::remember(&protected.state_dir, expected);
    remembered
        .err()
        .map(|error| format!("it could not be recorded what is replaced: {error}"))
}

/// A restore that did not get there.
fn forget(protected: &Protected, expected: Option<&Restored>) -> Result<()> {
    match expected {
        Some(expected) if expected.is_there()? != Some(true) => record::forget(&protected.state_dir, &expected.id),
        _ => Ok(()),
    }
}

/// Onto the cluster that is there.
async fn onto(env: &Env, protected: &Protected, plan: &Plan, options: &Options, (id, began): (&str, Duration)) -> Result<Report> {
    // For the socket of the log; nothing of the cluster lies there.
    let staging = Staging::create(&plan.to, id)?;
    files::give(staging.folder(), plan.owner)?;
    if let Some(old) = existing::look(&plan.to, plan.way)? {
        existing::refuse_other(&plan.to, &old, &plan.facts)?;
    }
    let layout = Layout {
        data_dir: plan.to.clone(),
        tablespaces: plan.tablespaces.clone(),
        owner: plan.owner,
    };
    let mut staged = stage(env, protected, plan, options, &layout, staging.folder()).await?;
    if let Some(delta) = staged.delta.take() {
        delta.done()?;
    }
    let litter = staging.remove().err();
    staged.notes.extend(litter.map(|error| error.to_string()));
    Ok(report(env, protected, plan, staged, (id, began)))
}

fn report(env: &Env, protected: &Protected, plan: &Plan, staged: Staged, (id, began): (&str, Duration)) -> Report {
    let Staged {
        fetched,
        resolved,
        replayed,
        files_took,
        mut notes,
        ..
    } = staged;
    let took = env.clock.monotonic().saturating_sub(began);
    let record = Proof {
        backup: plan.backup.id.to_string(),
        level: Level::Restore,
        at_us: env.clock.wall_us(),
        took_s: took.as_secs_f64(),
        bytes: plan.backup.header.size_bytes.saturating_add(plan.log_bytes),
    };
    // The data is back: that its proof cannot be written down is worth a word, not a failure.
    if replayed.is_some()
        && let Err(error) = proof::record(&protected.state_dir, &protected.component, record)
    {
        notes.push(format!("the run could not be recorded: {error}"));
    }
    let replaced = plan.way == Way::InPlace;
    notes.extend(remember_place(env, protected, &plan.backup, id, &plan.to, replaced));
    Report {
        id: id.to_owned(),
        backup: plan.backup.clone(),
        path: plan.to.clone(),
        fetched,
        bracket: resolved.bracket,
        until: resolved.end,
        undo_folder: None,
        replayed,
        took,
        files_took,
        notes,
    }
}

/// Restores a backup up to where it is consistent, has a server replay its log, and removes all of it again. `scratch` is where, unless the
/// server's user cannot get there.
pub(crate) async fn prove(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    scratch: &Path,
    app: bool,
) -> Result<Findings> {
    let target = Target::Base(backup.id.to_string());
    let options = Options {
        replay: true,
        app,
        ..Options::default()
    };
    let scratch = plan_scratch(env, protected, repository, identities, target, scratch, &options).await?;
    let plan = &scratch.plan;
    in_scratch(env, protected, &scratch, &options, async |data_dir, staged| {
        checked(env, plan, data_dir, staged).await
    })
    .await
}

/// A restore into a folder that is removed at the end.
#[derive(Debug)]
pub(crate) struct ScratchPlan {
    id: String,
    pub(crate) plan: Plan,
}

/// Plans one. `scratch` is where, unless the server's user cannot get there.
///
/// # Errors
/// As [`plan()`], and `NotFound` without the programs of that major version.
pub(crate) async fn plan_scratch(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    identities: &Identities,
    target: Target,
    scratch: &Path,
    options: &Options,
) -> Result<ScratchPlan> {
    let (id, to) = scratch_place(env, scratch)?;
    let plan = plan(env, protected, repository, identities, target, &to, options).await?;
    with_programs(protected, ScratchPlan { id, plan }).await
}

/// Where a restore that is thrown away goes.
fn scratch_place(env: &Env, scratch: &Path) -> Result<(String, PathBuf)> {
    let id = draw_id(env)?;
    let folder = if rustix::process::geteuid().is_root() {
        Path::new(SHARED_SCRATCH)
    } else {
        scratch
    };
    let to = folder.join(format!("lifeboat-{id}"));
    Ok((id, to))
}

/// The same plan, where the programs for it are there.
async fn with_programs(protected: &Protected, scratch: ScratchPlan) -> Result<ScratchPlan> {
    if scratch.plan.binaries.is_none() {
        // Says where it looked.
        Binaries::find(scratch.plan.facts.major, &cluster_of(protected)?.binaries).await?;
    }
    Ok(scratch)
}

/// What a drill of a cluster came to, before its sandbox was removed.
#[derive(Debug)]
pub(crate) struct Drilled {
    pub(crate) findings: Findings,
    pub(crate) bracket: Bracket,
    pub(crate) until: Lsn,
    pub(crate) replayed: Option<Replayed>,
    pub(crate) notes: Vec<String>,
}

/// Plans a drill, from whichever store comes farthest.
///
/// # Errors
/// As [`plan_scratch`].
pub(crate) async fn plan_drill(
    env: &Env,
    protected: &Protected,
    survey: &Survey,
    identities: &Identities,
    target: &Target,
    scratch: &Path,
) -> Result<(ScratchPlan, Options)> {
    let (id, to) = scratch_place(env, scratch)?;
    let options = Options {
        replay: true,
        app: true,
        ..Options::default()
    };
    let (plan, options) = plan_anywhere(env, protected, survey, identities, target, &to, &options).await?;
    Ok((with_programs(protected, ScratchPlan { id, plan }).await?, options))
}

/// Restores as planned, asks everything, and removes all of it again.
pub(crate) async fn drill(env: &Env, protected: &Protected, scratch: &ScratchPlan, options: &Options) -> Result<Drilled> {
    let plan = &scratch.plan;
    in_scratch(env, protected, scratch, options, async |data_dir, staged| {
        let (replayed, notes) = (staged.replayed.clone(), staged.notes.clone());
        let (bracket, until) = (staged.resolved.bracket, staged.resolved.end);
        let mut findings = checked(env, plan, data_dir, staged).await?;
        findings
            .checks
            .extend(replayed.as_ref().and_then(|replayed| replayed.isolation.clone()));
        Ok(Drilled {
            findings,
            bracket,
            until,
            replayed,
            notes,
        })
    })
    .await
}

/// Restores, has `work` done with the directory, whose server has been stopped, and removes everything.
async fn in_scratch<T>(
    env: &Env,
    protected: &Protected,
    scratch: &ScratchPlan,
    options: &Options,
    work: impl AsyncFnOnce(&Path, Staged) -> Result<T>,
) -> Result<T> {
    let ScratchPlan { id, plan } = scratch;
    sweep_sandboxes().await?;
    let _underway = underway(protected, plan, id).ok();
    // Everything lies in here, the tablespaces too: what a killed run leaves goes with it.
    let staging = Staging::create(&plan.to, id)?;
    files::give(staging.folder(), plan.owner)?;
    let spaces = Spaces::begin(&plan.tablespaces, &staging, id, plan.owner)?;
    let layout = Layout {
        data_dir: staging.path(CLUSTER),
        tablespaces: spaces.staged(),
        owner: plan.owner,
    };
    let worked = match stage(env, protected, plan, options, &layout, staging.folder()).await {
        Ok(staged) => work(&layout.data_dir, staged).await,
        Err(error) => Err(error),
    };
    env.progress.step(CLEAN_UP, None);
    let removed = spaces.remove().and_then(|()| staging.remove());
    let worked = worked?;
    removed?;
    Ok(worked)
}

/// Restores, starts a server on the copy, which nobody else sees, has `work` done with it, and removes everything.
pub(crate) async fn with_server<T>(
    env: &Env,
    protected: &Protected,
    scratch: &ScratchPlan,
    options: &Options,
    work: impl AsyncFnOnce(&Sandbox) -> Result<T>,
) -> Result<T> {
    let binaries = Binaries::find(scratch.plan.facts.major, &cluster_of(protected)?.binaries).await?;
    in_scratch(env, protected, scratch, options, async |data_dir, _staged| {
        let start = sandbox::Plan {
            data_dir: data_dir.to_path_buf(),
            dispose: true,
            binaries,
            root: std::env::temp_dir(),
            recovery: Recovery::None,
            durable: false,
            superuser: scratch.plan.facts.superuser.clone(),
            preload: None,
            settings: std::collections::BTreeMap::new(),
            patience: PATIENCE,
        };
        let sandbox = sandbox::start(env, start).await?;
        let worked = work(&sandbox).await;
        // What was found is worth more than an error about removing the server; a later start sweeps.
        let stopped = sandbox.stop(env, Signal::INT).await;
        let worked = worked?;
        stopped?;
        Ok(worked)
    })
    .await
}

/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was found in a copy whose server has been stopped.
async fn checked(env: &Env, plan: &Plan, data_dir: &Path, staged: Staged) -> Result<Findings> {
    env.progress.step("check pages", None);
    let (data_dir, facts, threads) = (data_dir.to_path_buf(), plan.facts.clone(), env.threads);
    let pages = compute::run("check pages", move || Ok(checks::pages::check(&data_dir, &facts, threads))).await?;
    let mut outcomes = Vec::new();
    if let Some(replayed) = staged.replayed {
        outcomes.push(verify::replayed(replayed.reached, replayed.served));
        outcomes.push(pages);
        outcomes.extend(replayed.heartbeat.as_ref().map(verify::heartbeat));
        outcomes.extend(replayed.checks);
    }
    Ok(Findings {
        files: plan.reader.files().len() as u64,
        bytes: staged.fetched.written_bytes,
        checks: outcomes,
        ..Findings::default()
    })
}

/// Where root proves clusters: their servers run as other users, who must get there.
const SHARED_SCRATCH: &str = "/var/tmp";
