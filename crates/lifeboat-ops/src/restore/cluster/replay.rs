//! Replaying the log in a sandbox, and the proof of what was reached (PG-09, PG-10).

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::checks::{self, Beat, Heartbeat, Wanted};
use lifeboat_engine::postgres::recovery::{self, Action, Settings, Target};
use lifeboat_engine::postgres::sandbox::{self, Sandbox, Stage};
use lifeboat_io::compute;
use lifeboat_io::process::Process;
use lifeboat_model::check::Outcome;
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result, Timeline};
use rustix::process::Signal;

use super::files::Layout;
use crate::wal::{Archive, Resolved, serve};

/// How long a server may say nothing while it replays: longer than a file of log may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// For how long log is asked for that a store does not give: whatever stalls must not throw away what was fetched for hours.
const LOG_PATIENCE_S: u32 = 600;
/// Lines of the server's log that an error holds.
const LAST_LINES: usize = 8;
/// How long this program may take to say its version.
const START: Duration = Duration::from_secs(30);

/// What a server proved about a restored cluster.
#[derive(Debug, Clone)]
#[must_use]
pub struct Replayed {
    /// Behind the last record that it replayed.
    pub reached: Lsn,
    /// Files of log that it was given.
    pub served: u64,
    /// How long it took, from starting the server to stopping it.
    pub took: Duration,
    /// The newest heartbeat, where the configuration says how to ask for it.
    pub heartbeat: Option<Beat>,
    /// What came of the checks that were wanted.
    pub checks: Vec<Outcome>,
    /// That the server reached nobody, by its own account; where checks were wanted.
    pub isolation: Option<Outcome>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What is replayed, and how.
pub(super) struct Job<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) layout: &'a Layout,
    pub(super) facts: &'a Facts,
    pub(super) resolved: &'a Resolved,
    pub(super) timeline: Timeline,
    pub(super) program: &'a Path,
    /// A folder that goes with the restore.
    pub(super) staging: &'a Path,
    pub(super) heartbeat: Option<&'a Heartbeat>,
    /// Checks that change what they check: only of a copy that is thrown away.
    pub(super) wanted: Option<Wanted<'a>>,
}

/// Starts a server on the restored files, lets it replay what `archive` holds up to the target, compares what it reached with what was wanted,
/// ends the recovery and stops it. The directory can then be started by anybody, without Lifeboat.
pub(super) async fn run(env: &Env, job: Job<'_>, archive: Archive) -> Result<Replayed> {
    let began = env.clock.monotonic();
    let program = reachable(&job).await?;
    env.progress.step("replay", None);
    let serving = serve(env, archive, &job.staging.join("log"), job.layout.owner).await?;
    let settings = Settings {
        restore_command: recovery::restore_command(&program, serving.socket(), LOG_PATIENCE_S)?,
        target: job.resolved.target,
        timeline: job.timeline,
        action: Action::Pause,
    };
    let layout = job.layout.clone();
    compute::run("make durable", move || {
        layout.write_settled()?;
        layout.complete()
    })
    .await?;
    let plan = sandbox::Plan {
        data_dir: job.layout.data_dir.clone(),
        dispose: false,
        binaries: job.binaries.clone(),
        root: std::env::temp_dir(),
        recovery: settings.for_sandbox(),
        durable: true,
        superuser: job.facts.superuser.clone(),
        preload: None,
        settings: std::collections::BTreeMap::new(),
        patience: PATIENCE,
    };
    let explain = |error: Error| match serving.trouble() {
        // The reason behind the server's own words.
        Some(trouble) => error.with_hint(format!("log could not be handed out: {trouble}")),
        None => error,
    };
    let mut sandbox = sandbox::start(env, plan).await.map_err(explain)?;
    let proven = prove(env, &mut sandbox, &job).await.map_err(|error| told(error, &sandbox));
    let heartbeat = match (&proven, job.heartbeat) {
        (Ok(_), Some(heartbeat)) => Some(checks::newest(&sandbox, heartbeat).await),
        _ => None,
    };
    let checks = match (&proven, &job.wanted) {
        (Ok(_), Some(wanted)) => checks::run(env, &sandbox, wanted).await,
        _ => Vec::new(),
    };
    let isolation = match (&proven, &job.wanted) {
        (Ok(_), Some(_)) => Some(checks::isolation(&sandbox).await),
        _ => None,
    };
    let notes = sandbox.notes().to_vec();
    let signal = if proven.is_ok() { Signal::INT } else { Signal::QUIT };
    let stopped = sandbox.stop(env, signal).await;
    let reached = proven.map_err(explain)?;
    stopped?;
    let served = serving.served();
    serving.stop().await?;
    Ok(Replayed {
        reached,
        served,
        took: env.clock.monotonic().saturating_sub(began),
        heartbeat,
        checks,
        isolation,
        notes,
    })
}

/// An error with what the server said last: the sandbox goes, and its log with it.
fn told(error: Error, sandbox: &Sandbox) -> Error {
    let Ok(log) = sandbox.log() else { return error };
    let tail: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
    let said: Vec<&str> = tail.into_iter().rev().collect();
    let detail = format!("{}; the server said last: {}", error.detail(), said.join(" | "));
    let hint = error.hint().map(str::to_owned);
    let told = Error::new(error.kind(), "replay the log in", "the restored cluster", detail).with_source(error);
    match hint {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

/// The server stands at the target, and goes on from there as a primary.
async fn prove(env: &Env, sandbox: &mut Sandbox, job: &Job<'_>) -> Result<Lsn> {
    let wanted = job.resolved.end;
    let reached = match sandbox.wait_until_recovered(env).await? {
        Stage::Paused(reached) => reached,
        Stage::Primary | Stage::Recovering(_) => {
            let detail = "it ended its recovery without having stood at the target";
            return Err(Error::new(
                ErrorKind::Failed,
                "replay the log in",
                "the restored cluster",
                detail,
            ));
        }
    };
    let exact = matches!(job.resolved.target, Target::Record(_));
    if reached < wanted || (exact && reached != wanted) {
        let detail = format!("it stands at {reached}, and was to reach {wanted}");
        return Err(
            Error::new(ErrorKind::Corrupt, "replay the log in", "the restored cluster", detail)
                .with_hint("nothing was published; restore to another moment (`lifeboat points`)"),
        );
    }
    let session = sandbox.connect("postgres").await?;
    let resumed = session.client().batch_execute("select pg_wal_replay_resume()").await;
    resumed.map_err(|error| {
        Error::new(
            ErrorKind::Failed,
            "end the recovery of",
            "the restored cluster",
            error.to_string(),
        )
    })?;
    drop(session);
    loop {
        match sandbox.wait_until_recovered(env).await? {
            Stage::Primary => return Ok(reached),
            // It has not taken notice yet.
            Stage::Paused(_) | Stage::Recovering(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// This program, at a place where the server's user can start it: a copy in the staging folder, where it cannot.
async fn reachable(job: &Job<'_>) -> Result<PathBuf> {
    let asked = Process::new(job.program, START)
        .user(job.layout.owner)
        .arg("--version")
        .run()
        .await;
    if job.layout.owner.is_none() || asked.is_ok() {
        return Ok(job.program.to_path_buf());
    }
    let (from, to, owner) = (job.program.to_path_buf(), job.staging.join("lifeboat"), job.layout.owner);
    compute::run("copy this program", move || {
        let failed = |error| Error::io("copy this program to", to.display(), error);
        std::fs::copy(&from, &to).map_err(failed)?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(&to, Some(user), Some(group)).map_err(failed)?;
        }
        Ok(to)
    })
    .await
}
