//! Restoring a PostgreSQL cluster to a moment (docs/postgres.md, "A restore, step by step"): plan → files → log → replay in a sandbox → publish last.
//!
//! Everything happens in a staging folder beside the destination; what was restored gets its name when it has been proven (INV-12). A server is
//! started on it there, out of everybody's sight (PG-10), replays the log up to the target, says how far it came, and is stopped. Where its programs
//! are not on this host, the directory is left as it is before the replay, with all that a server needs to do it.
//!
//! Where a cluster is there already, it is moved aside as one folder, last ([`Way::InPlace`]), or written onto ([`Way::Onto`], the module `delta`):
//! the one restore that has no staging folder, and whose directory cannot be started until it is done.

mod anywhere;
mod delta;
mod destination;
mod existing;
mod files;
mod locations;
mod replay;
mod run;
mod sink;
mod spaces;
mod stage;
mod steps;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::sandbox;
use lifeboat_io::compute;
use lifeboat_model::estimate::{Estimate, estimate};
use lifeboat_model::wal::{Choice, Target};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result};
use lifeboat_repo::{Backup, Fetched, Identities, Reader, Repository};

use super::{past_runs, quarantine, remember};
use crate::protected::{Cluster, Protected};
use crate::reach::{self, Reach};
use crate::wal::{Bracket, Goal, Limit, MARGIN_US, Source};
pub use anywhere::plan_anywhere;
use delta::Survey;
use destination::{owner, places, refuse_hidden, space};
pub(super) use existing::refuse_running;
use files::Layout;
pub(super) use files::give;
pub use replay::Replayed;
pub use run::run;
pub(crate) use run::{Drilled, ScratchPlan, drill, plan_drill, plan_scratch, prove, with_server};

/// What becomes of a cluster that is at the destination already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// There is to be none.
    #[default]
    New,
    /// What is right in it is kept, the rest written over; there is no way back. It must be stopped, and the cluster that the backup is of.
    Onto,
    /// It is moved into an undo folder beside it. It must be stopped, and the cluster that the backup is of.
    InPlace,
}

/// What a person may choose besides the moment.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What becomes of a cluster that is there.
    pub way: Way,
    /// The configuration, for a directory whose log is replayed later; absolute.
    pub config: Option<PathBuf>,
    /// From which store; none: the first that answers.
    pub store: Option<String>,
    /// The other stores that answered when the restore was planned: what the first one lacks is read from them, and whether there is a file
    /// of log at all is asked in every one.
    pub others: Vec<(String, Repository)>,
    /// In the lineage whose id begins so; none: see [`reach::choose`].
    pub lineage: Option<String>,
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
    /// What becomes of the cluster that is there; `New` where none is.
    pub way: Way,
    /// Bytes of the backup of which something is there already; what of it is right shows when it is compared.
    pub present_bytes: u64,
    /// Where each tablespace goes.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Files and folders that the backup does not have and that would be removed.
    pub removed: u64,
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
    sources: Vec<Source>,
    identities: Identities,
    goal: Goal,
    /// When the lineage began.
    opened_us: i64,
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
    /// Where the old cluster is kept; only in place.
    pub undo_folder: Option<PathBuf>,
    /// What the server proved; none where it was not started.
    pub replayed: Option<Replayed>,
    /// How long it took until it had its name.
    pub took: Duration,
    /// How long the files alone took.
    pub files_took: Duration,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl Report {
    fn with_undo(mut self, undo_folder: Option<PathBuf>) -> Self {
        self.undo_folder = undo_folder;
        self
    }
}

/// Looks at everything that can be known before a byte is fetched. What a killed restore in place left at the destination is settled first.
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
    let (asked, way) = (to.to_path_buf(), options.way);
    let (to, old) = compute::run("look at the destination", move || look(&asked, way)).await?;
    let way = if old.is_some() { options.way } else { Way::New };
    let listing = protected.listing(repository).await?;
    let lineage = options.lineage.as_deref();
    let chosen = reach::choose(protected, repository, &listing, identities, &target, lineage).await?;
    let (reach, backup, choice) = (&chosen.reach, &chosen.backup, chosen.choice);
    let opened = Reader::open(env, repository, backup, identities).await;
    let reader = opened.inspect_err(|error| remember(env, protected, backup, error))?;
    let facts = reach::facts(reader.facts())?;
    if let Some(old) = &old {
        existing::refuse_other(&to, old, &facts)?;
    }
    let tablespaces = places(&facts, &to, way, options)?;
    let owner = owner(&reader);
    for place in tablespaces.values().chain([&to]) {
        refuse_hidden(place, owner)?;
    }
    let log_bytes = Reach::log_bytes(backup, choice.until);
    let survey = survey(way, &to, &tablespaces, &facts, &reader).await?;
    let present_bytes = survey.present_bytes(reader.files());
    let needed = backup.header.size_bytes.saturating_sub(present_bytes);
    let free_bytes = space(&to, needed.saturating_add(log_bytes.min(ROOM_FOR_LOG)))?;
    let mut notes = existing::notes(&to, way, &facts, &tablespaces);
    let binaries = binaries(cluster, &facts, options, &mut notes).await?;
    notes.extend(chosen.notes);
    let (goal, limit) = goal(reach, &target, &choice);
    let mut plan = Plan {
        backup: backup.clone(),
        estimate: estimate(backup.header.size_bytes.saturating_add(log_bytes), &past_runs(protected)),
        facts,
        target,
        choice,
        to,
        way,
        present_bytes,
        removed: (survey.files.len() + survey.folders.len()) as u64,
        tablespaces,
        log_bytes,
        free_bytes,
        steps: Vec::new(),
        notes,
        reader,
        sources: sources(repository, options),
        identities: identities.clone(),
        opened_us: reach.record.opened_us,
        goal,
        limit,
        binaries,
        program: cluster.program.clone(),
        owner,
    };
    plan.steps = steps::steps(&plan);
    Ok(plan)
}

/// What is at the destination, once what killed runs left there is gone. An existing cluster is named by its own name, not by a link to it.
fn look(to: &Path, way: Way) -> Result<(PathBuf, Option<existing::Old>)> {
    let to = std::path::absolute(to).map_err(|error| Error::io("resolve", to.display(), error))?;
    if way == Way::New {
        existing::look(&to, way)?;
        existing::refuse_interrupted(&to)?;
        return Ok((to, None));
    }
    let to = quarantine::real_path(&to)?;
    sandbox::sweep(&std::env::temp_dir())?;
    if way == Way::InPlace {
        quarantine::settle_interrupted(&to)?;
    }
    let old = existing::look(&to, way)?;
    Ok((to, old))
}

/// The programs that replay the log here; none where that is left to whoever starts the server.
async fn binaries(cluster: &Cluster, facts: &Facts, options: &Options, notes: &mut Vec<String>) -> Result<Option<Binaries>> {
    if !options.replay {
        return Ok(None);
    }
    match Binaries::find(facts.major, &cluster.binaries).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            notes.push(format!(
                "{error}: the log is not replayed here; the server does it when it is first started"
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a delta restore would keep and remove; nothing for another.
async fn survey(way: Way, to: &Path, tablespaces: &BTreeMap<u32, PathBuf>, facts: &Facts, reader: &Reader) -> Result<Survey> {
    if way != Way::Onto {
        return Ok(Survey::default());
    }
    let layout = Layout {
        data_dir: to.to_path_buf(),
        tablespaces: tablespaces.clone(),
        owner: None,
    };
    let (facts, reader) = (facts.clone(), reader.clone());
    compute::run("look at the old cluster", move || Survey::of(&layout, &facts, reader.files())).await
}

/// Log that lies in the directory while it is replayed.
const ROOM_FOR_LOG: u64 = 512 << 20;

/// The store of the plan, and the others that answered.
fn sources(repository: &Repository, options: &Options) -> Vec<Source> {
    let name = options.store.clone().unwrap_or_else(|| repository.store().name().to_owned());
    let others = options.others.iter().cloned();
    std::iter::once((name, repository.clone()))
        .chain(others)
        .map(|(name, repository)| Source::opened(name, repository))
        .collect()
}

impl Plan {
    /// How far the store that was planned from comes, to be compared with what others hold: the newest lineage first, then the newest
    /// timeline; for the latest moment also how much there is of it.
    #[must_use]
    pub fn comes_to(&self) -> impl Ord + use<> {
        let until = match self.target {
            Target::Latest => self.choice.until,
            Target::Base(_) | Target::Lsn(..) | Target::Time(..) => Lsn::INVALID,
        };
        (self.opened_us, self.choice.timeline, until)
    }
}

fn cluster_of(protected: &Protected) -> Result<&Cluster> {
    protected
        .source
        .cluster()
        .ok_or_else(|| Error::new(ErrorKind::Bug, "restore", &protected.component, "it is no PostgreSQL cluster"))
}

/// What is looked for in the log, and how much of it may be looked at.
fn goal(reach: &Reach, target: &Target, choice: &Choice) -> (Goal, Limit) {
    let goal = match target {
        Target::Latest | Target::Base(_) | Target::Lsn(..) => Goal::Lsn(choice.until),
        Target::Time(_, at_us) => Goal::Time {
            at_us: *at_us,
            from: reach.reachable.look_from(choice, *at_us, MARGIN_US),
        },
    };
    let limit = Limit {
        lineage: reach.record.lineage,
        timeline: choice.timeline,
        until: choice.until,
    };
    (goal, limit)
}
