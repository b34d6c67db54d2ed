//! Restoring a PostgreSQL cluster to a moment (docs/postgres.md, "A restore, step by step"): plan → files → log → replay in a sandbox → publish last.
//!
//! Everything happens in a staging folder beside the destination; what was restored gets its name when it has been proven (INV-12). A server is
//! started on it there, out of everybody's sight (PG-10), replays the log up to the target, says how far it came, and is stopped. Where its programs
//! are not on this host, the directory is left as it is before the replay, with all that a server needs to do it.

mod destination;
mod files;
mod replay;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::checks;
use lifeboat_engine::postgres::recovery::{self, Action, Settings};
use lifeboat_io::{compute, durable};
use lifeboat_model::estimate::{Estimate, estimate};
use lifeboat_model::time::human_bytes;
use lifeboat_model::wal::{Choice, Target};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{Backup, Fetched, Identities, Reader, Repository};

use super::staging::Staging;
use super::{Findings, draw_id, past_runs, remember, remember_place};
use crate::proof::{self, Level, Proof};
use crate::protected::{Cluster, Protected};
use crate::reach::{self, Reach};
use crate::verify::cluster as verify;
use crate::wal::{Archive, Bracket, Goal, Limit, Place, Resolved, RestoreFile, resolve};
use destination::{Spaces, owner, places, publish, refuse_hidden, refuse_taken, space};
use files::Layout;
pub use replay::Replayed;

/// What a person may choose besides the moment.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The configuration, for a directory whose log is replayed later; absolute.
    pub config: Option<PathBuf>,
    /// From which store; none: the first that answers.
    pub store: Option<String>,
    /// Where tablespaces go, by number; others go to a folder beside the destination.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Replay the log and prove what was reached. Without, it is left to whoever starts the server.
    pub replay: bool,
    /// Run the checks of the application, too. They change what they check: only for a copy that is thrown away.
    pub app: bool,
}

/// What a restore would do.
#[derive(Debug)]
pub struct Plan {
    /// The base.
    pub backup: Backup,
    /// What it says of the cluster.
    pub facts: Facts,
    /// What was asked for.
    pub target: Target,
    /// How far the log is needed.
    pub choice: Choice,
    /// The new data directory.
    pub to: PathBuf,
    /// Where each tablespace goes.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Bytes of log between the base's start and the target.
    pub log_bytes: u64,
    /// Free bytes where it goes.
    pub free_bytes: u64,
    /// How long it will take, and on what that guess rests.
    pub estimate: Estimate,
    /// What will be done, in order.
    pub steps: Vec<String>,
    /// What to know before saying yes.
    pub notes: Vec<String>,
    reader: Reader,
    repository: Repository,
    identities: Identities,
    goal: Goal,
    limit: Limit,
    /// None: the log is not replayed here.
    binaries: Option<Binaries>,
    program: PathBuf,
    owner: Option<(u32, u32)>,
}

/// What came of a restore.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// Names it.
    pub id: String,
    /// The base.
    pub backup: Backup,
    /// The data directory.
    pub path: PathBuf,
    /// Bytes fetched and written.
    pub fetched: Fetched,
    /// The last commit that came back, and the first that did not.
    pub bracket: Bracket,
    /// Behind the last record that was to be replayed.
    pub until: Lsn,
    /// What the server proved; none where it was not started.
    pub replayed: Option<Replayed>,
    /// How long it took until it had its name.
    pub took: Duration,
    /// How long the files alone took.
    pub files_took: Duration,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Looks at everything that can be known before a byte is fetched.
pub async fn plan(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    identities: &Identities,
    target: Target,
    to: &Path,
    options: &Options,
) -> Result<Plan> {
    let cluster = cluster_of(protected)?;
    let to = std::path::absolute(to).map_err(|error| Error::io("resolve", to.display(), error))?;
    refuse_taken(&to)?;
    let listing = protected.listing(repository).await?;
    let reach = reach::look(protected, repository, &listing, identities)
        .await?
        .ok_or_else(|| {
            Error::new(
                ErrorKind::NoSuchPoint,
                "restore",
                &protected.component,
                "there is no backup of it yet",
            )
            .with_hint("`lifeboat backup` makes one")
        })?;
    let (backup, choice) = reach.choose(&target, protected)?;
    let opened = Reader::open(env, repository, backup, identities).await;
    let reader = opened.inspect_err(|error| remember(env, protected, backup, error))?;
    let facts = reach::facts(reader.facts())?;
    let tablespaces = places(&facts, &to, options)?;
    let owner = owner(&reader);
    for place in tablespaces.values().chain([&to]) {
        refuse_hidden(place, owner)?;
    }
    let log_bytes = Reach::log_bytes(backup, choice.until);
    let free_bytes = space(&to, backup.header.size_bytes.saturating_add(log_bytes.min(ROOM_FOR_LOG)))?;
    let mut notes = Vec::new();
    let binaries = if options.replay {
        match Binaries::find(facts.major, &cluster.binaries).await {
            Ok(found) => Some(found),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                notes.push(format!(
                    "{error}: the log is not replayed here; the server does it when it is first started"
                ));
                None
            }
            Err(error) => return Err(error),
        }
    } else {
        None
    };
    let (goal, limit) = goal(&reach, backup, &target, &choice);
    let mut plan = Plan {
        backup: backup.clone(),
        estimate: estimate(backup.header.size_bytes.saturating_add(log_bytes), &past_runs(protected)),
        facts,
        target,
        choice,
        to,
        tablespaces,
        log_bytes,
        free_bytes,
        steps: Vec::new(),
        notes,
        reader,
        repository: repository.clone(),
        identities: identities.clone(),
        goal,
        limit,
        binaries,
        program: cluster.program.clone(),
        owner,
    };
    plan.steps = steps(&plan);
    Ok(plan)
}

/// Log that lies in the directory while it is replayed.
const ROOM_FOR_LOG: u64 = 512 << 20;

fn cluster_of(protected: &Protected) -> Result<&Cluster> {
    protected
        .source
        .cluster()
        .ok_or_else(|| Error::new(ErrorKind::Bug, "restore", &protected.component, "it is no PostgreSQL cluster"))
}

/// What is looked for in the log, and how much of it may be looked at.
fn goal(reach: &Reach, backup: &Backup, target: &Target, choice: &Choice) -> (Goal, Limit) {
    let start = backup.header.log.map_or(Lsn::INVALID, |need| need.range.start);
    let goal = match target {
        Target::Latest | Target::Base(_) | Target::Lsn(..) => Goal::Lsn(choice.until),
        Target::Time(_, at_us) => {
            let earlier = reach
                .marks
                .iter()
                .filter(|mark| mark.at_us < *at_us && mark.position.lsn <= choice.until);
            let from = earlier.map(|mark| mark.position.lsn).max().unwrap_or(start);
            Goal::Time {
                at_us: *at_us,
                from: from.max(start),
            }
        }
    };
    let limit = Limit {
        lineage: reach.record.lineage,
        timeline: choice.timeline,
        until: choice.until,
    };
    (goal, limit)
}

fn steps(plan: &Plan) -> Vec<String> {
    let mut steps = vec![
        format!(
            "preflight: {} is free, {} may be written",
            plan.to.display(),
            human_bytes(plan.free_bytes)
        ),
        format!(
            "files: {} of backup {}, every byte verified",
            human_bytes(plan.backup.header.size_bytes),
            plan.backup.id.short()
        ),
    ];
    for (oid, place) in &plan.tablespaces {
        let was = plan.facts.tablespaces.get(oid).map_or("", String::as_str);
        steps.push(format!("tablespace: {oid}, which was {was}, goes to {}", place.display()));
    }
    let log = format!(
        "{} of log up to {} on timeline {}",
        human_bytes(plan.log_bytes),
        plan.choice.until,
        plan.choice.timeline
    );
    match &plan.binaries {
        Some(binaries) => {
            steps.push(format!(
                "replay: {log}, by PostgreSQL {} on a socket of its own, and a look at the position it reached",
                binaries.version()
            ));
            steps.push(format!(
                "publish: {} gets its name last, ready to be started",
                plan.to.display()
            ));
        }
        None => steps.push(format!(
            "publish: {} gets its name last; its server replays {log} when it is started",
            plan.to.display()
        )),
    }
    steps
}

/// Restores as planned.
pub async fn run(env: &Env, protected: &Protected, plan: Plan, options: &Options) -> Result<Report> {
    let restored = restore(env, protected, &plan, options).await;
    restored.inspect_err(|error| remember(env, protected, &plan.backup, error))
}

async fn restore(env: &Env, protected: &Protected, plan: &Plan, options: &Options) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = draw_id(env)?;
    files::make_folder(&durable::parent_of(&plan.to), plan.owner)?;
    let staging = Staging::create(&plan.to, &id)?;
    let mut spaces = Spaces(plan.tablespaces.values().cloned().collect());
    let staged = stage(env, protected, plan, options, &staging).await;
    let Staged {
        layout,
        fetched,
        resolved,
        replayed,
        files_took,
        mut notes,
    } = match staged {
        Ok(staged) => staged,
        Err(error) => {
            spaces.remove()?;
            staging.remove()?;
            return Err(error);
        }
    };
    let (from, to) = (layout.data_dir, plan.to.clone());
    let litter = compute::run("publish", move || {
        publish(&from, &to)?;
        Ok(staging.remove().err())
    });
    notes.extend(litter.await?.map(|error| error.to_string()));
    spaces.0.clear();
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
    notes.extend(remember_place(env, protected, &plan.backup, &id, &plan.to, false));
    Ok(Report {
        id,
        backup: plan.backup.clone(),
        path: plan.to.clone(),
        fetched,
        bracket: resolved.bracket,
        until: resolved.until,
        replayed,
        took,
        files_took,
        notes,
    })
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
    let id = draw_id(env)?;
    let folder = if rustix::process::geteuid().is_root() {
        Path::new(SHARED_SCRATCH)
    } else {
        scratch
    };
    let to = folder.join(format!("lifeboat-{id}"));
    let target = Target::Base(backup.id.to_string());
    let options = Options {
        replay: true,
        app,
        ..Options::default()
    };
    let plan = plan(env, protected, repository, identities, target, &to, &options).await?;
    if plan.binaries.is_none() {
        // Says where it looked.
        Binaries::find(plan.facts.major, &cluster_of(protected)?.binaries).await?;
    }
    let staging = Staging::create(&to, &id)?;
    let mut spaces = Spaces(plan.tablespaces.values().cloned().collect());
    let staged = match stage(env, protected, &plan, &options, &staging).await {
        Ok(staged) => checked(env, &plan, staged).await,
        Err(error) => Err(error),
    };
    let removed = spaces.remove().and_then(|()| staging.remove());
    let findings = staged?;
    removed?;
    Ok(findings)
}

/// What was found in a copy whose server has been stopped.
async fn checked(env: &Env, plan: &Plan, staged: Staged) -> Result<Findings> {
    env.progress.step("check pages", None);
    let (data_dir, facts, threads) = (staged.layout.data_dir, plan.facts.clone(), env.threads);
    let pages = compute::run("check pages", move || Ok(checks::pages::check(&data_dir, &facts, threads))).await?;
    let mut outcomes = Vec::new();
    if let Some(replayed) = staged.replayed {
        outcomes.push(verify::replayed(replayed.reached, replayed.served));
        outcomes.push(pages);
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

struct Staged {
    layout: Layout,
    fetched: Fetched,
    resolved: Resolved,
    replayed: Option<Replayed>,
    files_took: Duration,
    notes: Vec<String>,
}

async fn stage(env: &Env, protected: &Protected, plan: &Plan, options: &Options, staging: &Staging) -> Result<Staged> {
    let began = env.clock.monotonic();
    let layout = Layout {
        data_dir: staging.path("data"),
        tablespaces: plan.tablespaces.clone(),
        owner: plan.owner,
    };
    layout.let_in(staging.folder())?;
    // What is wanted is looked for first: a moment that cannot be reached costs nothing but that.
    let place = Place {
        repository: plan.repository.clone(),
        component: protected.component.clone(),
        trust: protected.trust.clone(),
        identities: plan.identities.clone(),
    };
    env.progress.step("find the target", None);
    let archive = Archive::open(place, plan.limit).await?;
    let resolved = resolved(&archive, plan).await?;
    env.progress.step("fetch", Some(plan.backup.header.size_bytes));
    let fetched = files::fetch(&plan.reader, &plan.facts, &layout).await?;
    let files_took = env.clock.monotonic().saturating_sub(began);
    let archive = archive.until(resolved.until);
    let mut notes = plan.notes.clone();
    let replayed = match &plan.binaries {
        Some(binaries) => {
            let wanted = match options.app {
                true => Some(verify::wanted(cluster_of(protected)?, &plan.facts, &archive).await),
                false => None,
            };
            let job = replay::Job {
                binaries,
                layout: &layout,
                facts: &plan.facts,
                resolved: &resolved,
                timeline: plan.choice.timeline,
                program: &plan.program,
                staging: staging.folder(),
                wanted,
            };
            let replayed = replay::run(env, job, archive).await?;
            notes.extend(replayed.notes.iter().cloned());
            Some(replayed)
        }
        None => {
            leave(protected, plan, options, &layout, &resolved)?;
            None
        }
    };
    Ok(Staged {
        layout,
        fetched,
        resolved,
        replayed,
        files_took,
        notes,
    })
}

/// The exact end of what is replayed.
async fn resolved(archive: &Archive, plan: &Plan) -> Result<Resolved> {
    let range = plan.backup.header.log.map(|need| need.range).ok_or_else(|| {
        Error::new(
            ErrorKind::Bug,
            "restore",
            plan.backup.id.short(),
            "it says nothing about its log",
        )
    })?;
    // Also for the moment of a base: the server ends at `immediate` only where it finds a record behind it.
    resolve(archive, (range.start, range.end), plan.goal).await
}

/// Leaves everything that a server needs to replay the log by itself.
fn leave(protected: &Protected, plan: &Plan, options: &Options, layout: &Layout, resolved: &Resolved) -> Result<()> {
    let file = RestoreFile {
        config: options.config.clone(),
        component: protected.component.to_string(),
        store: options.store.clone(),
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
    layout.complete()
}
