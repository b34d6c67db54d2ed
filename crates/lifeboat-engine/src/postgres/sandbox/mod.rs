//! Starting a restored cluster on this host without anybody noticing (PG-10).
//!
//! A sandbox has a folder of its own with the socket, an empty configuration and the log. The server runs as the owner of the data directory,
//! listens on that socket alone, and gets all its settings from us (the module `settings`). [`Sandbox::stop`] stops it and removes the folder, and the
//! data directory where that was handed over. If we are killed, the server stays until [`sweep`], which any later start does: a sandbox in use
//! is locked by the process that uses it, and nothing is removed that does not bear the marks of a sandbox of this user.

mod folder;
mod log;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::compute;
use lifeboat_io::process::{Process, Running};
use lifeboat_model::{Env, Error, ErrorKind, Lsn, Result};
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::binaries::Binaries;
use super::control::Control;
use super::{conf, layout};
pub use folder::sweep;
use folder::{Folder, OPEN_PORT};
pub use log::last_words;

/// Time between two looks at a server.
const LOOK: Duration = Duration::from_millis(25);
/// How long a server may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(60);
/// How long it may turn sessions away while it ends.
const ENDING: Duration = Duration::from_secs(20);

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The data directory of a server that does not run.
    pub data_dir: PathBuf,
    /// Whether the data directory belongs to the sandbox: it may be changed, and goes with it.
    pub dispose: bool,
    /// Programs of its major.
    pub binaries: Binaries,
    /// Where the folder of the sandbox is made; a short path.
    pub root: PathBuf,
    /// Where the log comes from.
    pub recovery: Recovery,
    /// Whether it syncs to disk; not needed for what is thrown away.
    pub durable: bool,
    /// The superuser to connect as.
    pub superuser: String,
    /// What the origin loaded at its start; `None` takes it from the files in the data directory.
    pub preload: Option<Vec<String>>,
    /// Settings besides; they count more than ours.
    pub settings: BTreeMap<String, String>,
    /// How long the server may say nothing while it is waited for.
    pub patience: Duration,
}

/// What the server recovers with when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Only with what lies in the data directory's own `pg_wal`.
    None,
    /// With log that a command fetches, up to a target.
    Archive {
        /// `restore_command`; empty: what lies in `pg_wal` is all there is.
        restore_command: String,
        /// Settings whose names begin with `recovery_target`.
        settings: BTreeMap<String, String>,
    },
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It takes connections and writes.
    Primary,
    /// It is consistent, and recovery goes on; the last position replayed.
    Recovering(Lsn),
    /// It stands at the target and waits to be told what to do.
    Paused(Lsn),
}

/// A running sandbox. Dropped instead of stopped, it kills the server and leaves its folder to [`sweep`].
#[derive(Debug)]
pub struct Sandbox {
    server: Running,
    folder: Folder,
    plan: Plan,
    notes: Vec<String>,
}

/// A connection to a sandbox.
#[derive(Debug)]
pub struct Session {
    client: tokio_postgres::Client,
    /// Ends with the session.
    _driver: JoinSet<()>,
}

impl Session {
    /// For SQL.
    #[must_use]
    pub fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }
}

/// Starts the server and waits until it takes connections. Kind `Refused` where the data directory is in use or belongs to somebody whom we
/// cannot be; where the server does not start, the error holds the reason that it gave.
pub async fn start(env: &Env, plan: Plan) -> Result<Sandbox> {
    let root = plan.root.clone();
    compute::run("remove sandboxes that were left", move || sweep(&root)).await?;
    let control = check(&plan)?;
    let user = owner(&plan.data_dir)?;
    let folder = Folder::create(env, &plan.root, &plan.data_dir, plan.dispose, user)?;
    // Before its own settings are taken away.
    let (loaded, notes) = settings::libraries(&wanted_libraries(&plan)?, &plan.binaries);
    folder.prepare(&plan, user)?;
    let slots = folder::slots(&plan.data_dir)?;
    let mut process = Process::new(plan.binaries.program("postgres"), Duration::MAX)
        .user(user)
        .folder(folder.run())
        .variable("LC_ALL", "C")
        .arg("-D")
        .arg(&plan.data_dir);
    for (name, file) in folder.configuration() {
        process = process.arg("-c").arg(format!("{name}={}", file.display()));
    }
    let socket_folder = folder.run().display().to_string();
    for (name, value) in settings::settings(&plan, &control, &socket_folder, &loaded, slots) {
        process = process.arg("-c").arg(format!("{name}={value}"));
    }
    let server = process.start(folder.log_file()?)?;
    let mut sandbox = Sandbox {
        server,
        folder,
        plan,
        notes,
    };
    match sandbox.wait_until_open(env).await {
        Ok(()) => Ok(sandbox),
        Err(error) => {
            // The reason for the failed start is worth more than one about removing what is left of it; a later start sweeps.
            drop(sandbox.stop(env, Signal::QUIT).await);
            Err(error)
        }
    }
}

impl Sandbox {
    /// What the operator should know: libraries that were not loaded.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The folder of the socket, for programs that want to connect themselves; the port is 5432.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.run()
    }

    /// What the server has said so far, the end of it.
    pub fn log(&self) -> Result<String> {
        self.folder.log_text()
    }

    /// Opens a session as the superuser, in which nothing that was configured for the role or the database happens.
    pub async fn connect(&self, database: &str) -> Result<Session> {
        let mut options = String::from("-c session_preload_libraries= -c local_preload_libraries= -c statement_timeout=0");
        if self.plan.binaries.major() >= 17 {
            options.push_str(" -c event_triggers=off");
        }
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.folder.run())
            .port(OPEN_PORT)
            .user(&self.plan.superuser)
            .dbname(database)
            .options(&options)
            .application_name("lifeboat");
        let connected = config.connect(tokio_postgres::NoTls).await;
        let (client, connection) = connected.map_err(|error| self.sql("connect to", &error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What ends the connection comes out of the query that it ends.
            drop(connection.await);
        });
        Ok(Session { client, _driver: driver })
    }

    /// Waits until recovery has ended, one way or the other: the server is a primary, or stands at its target. Where the server says nothing
    /// new for as long as the plan's patience, the error is of kind `TimedOut` and tells where recovery stands.
    pub async fn wait_until_recovered(&mut self, env: &Env) -> Result<Stage> {
        let mut session = self.session(env).await?;
        let mut seen = (Stage::Primary, 0);
        let mut since = env.clock.monotonic();
        loop {
            let stage = match self.stage(&session).await {
                Ok(stage @ (Stage::Primary | Stage::Paused(_))) => return Ok(stage),
                Ok(stage) => stage,
                // A session can end when recovery conflicts with it; a server that ended says why.
                Err(_lost) => {
                    session = self.session(env).await?;
                    continue;
                }
            };
            self.still_runs()?;
            let now = (stage, self.folder.log_bytes()?);
            if now != seen {
                (seen, since) = (now, env.clock.monotonic());
            } else if env.clock.monotonic().saturating_sub(since) > self.plan.patience {
                return Err(self.silent(&format!("recovery stands at {stage:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A session, or why the server ended: it turns sessions away for a while before it is gone.
    async fn session(&mut self, env: &Env) -> Result<Session> {
        let since = env.clock.monotonic();
        loop {
            let refused = match self.connect("postgres").await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            self.still_runs()?;
            if env.clock.monotonic().saturating_sub(since) > ENDING {
                return Err(refused);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How far it is now.
    pub async fn stage(&self, session: &Session) -> Result<Stage> {
        let sql = "select pg_is_in_recovery(), case when pg_is_in_recovery() then pg_get_wal_replay_pause_state() end, \
                   pg_last_wal_replay_lsn()::text";
        let row = session.client.query_one(sql, &[]).await;
        let row = row.map_err(|error| self.sql("ask", &error))?;
        let (recovering, state, lsn): (bool, Option<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let lsn = lsn.map_or(Ok(Lsn::INVALID), |text| text.parse())?;
        Ok(match state.as_deref() {
            _ if !recovering => Stage::Primary,
            Some("paused") => Stage::Paused(lsn),
            _ => Stage::Recovering(lsn),
        })
    }

    /// Stops the server by `signal` (`INT` with a checkpoint, `QUIT` without), and removes what the sandbox made.
    pub async fn stop(mut self, env: &Env, signal: Signal) -> Result<()> {
        self.server.signal(signal)?;
        let since = env.clock.monotonic();
        let mut killed = false;
        while self.server.ended()?.is_none() {
            if !killed && env.clock.monotonic().saturating_sub(since) > STOP {
                self.server.signal(Signal::KILL)?;
                killed = true;
            }
            tokio::time::sleep(LOOK).await;
        }
        let folder = self.folder;
        compute::run("remove a sandbox", move || folder.remove()).await
    }

    async fn wait_until_open(&mut self, env: &Env) -> Result<()> {
        let (mut seen, mut since) = (0, env.clock.monotonic());
        loop {
            self.still_runs()?;
            if self.folder.is_open(self.server.id())? {
                return Ok(());
            }
            let bytes = self.folder.log_bytes()?;
            if bytes != seen {
                (seen, since) = (bytes, env.clock.monotonic());
            } else if env.clock.monotonic().saturating_sub(since) > self.plan.patience {
                return Err(self.silent("it does not take connections"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An error with the server's own reason where it has ended.
    fn still_runs(&mut self) -> Result<()> {
        let Some(status) = self.server.ended()? else { return Ok(()) };
        let text = self.folder.log_text()?;
        let said = last_words(&text).unwrap_or_else(|| status.to_string());
        Err(Error::new(
            ErrorKind::Failed,
            "start",
            self.plan.data_dir.display(),
            format!("the server ended: {said}"),
        )
        .with_hint(log::hint(&said)))
    }

    fn silent(&self, state: &str) -> Error {
        let said = self
            .folder
            .log_text()
            .ok()
            .and_then(|text| text.lines().last().map(str::to_owned));
        let detail = format!(
            "{state}, and for {} seconds nothing happened; its last words: {}",
            self.plan.patience.as_secs(),
            said.unwrap_or_default()
        );
        Error::new(
            ErrorKind::TimedOut,
            "wait for the server in",
            self.plan.data_dir.display(),
            detail,
        )
    }

    fn sql(&self, op: &'static str, error: &tokio_postgres::Error) -> Error {
        let detail = match error.as_db_error() {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        };
        Error::new(
            ErrorKind::Failed,
            op,
            format!("the server in {}", self.plan.data_dir.display()),
            detail,
        )
    }
}

/// What was configured to be loaded.
fn wanted_libraries(plan: &Plan) -> Result<Vec<String>> {
    if let Some(given) = &plan.preload {
        return Ok(given.clone());
    }
    let mut wanted = Vec::new();
    for name in ["postgresql.conf", "postgresql.auto.conf"] {
        let path = plan.data_dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                if let Some(value) = conf::parse(&String::from_utf8_lossy(&bytes)).get("shared_preload_libraries") {
                    wanted = conf::names(value);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path.display(), error)),
        }
    }
    Ok(wanted)
}

/// The cluster fits the programs, and nobody uses it.
fn check(plan: &Plan) -> Result<Control> {
    let path = plan.data_dir.join(layout::CONTROL);
    let bytes = std::fs::read(&path).map_err(|error| {
        Error::io("start", path.display(), error)
            .with_hint("a data directory without it was not restored to its end: restore it again")
    })?;
    let control = Control::parse(&bytes)?;
    let path = plan.data_dir.join("PG_VERSION");
    let version = std::fs::read_to_string(&path).map_err(|error| Error::io("read", path.display(), error))?;
    if version.trim() != plan.binaries.major().to_string() {
        return Err(Error::new(
            ErrorKind::Incompatible,
            "start",
            plan.data_dir.display(),
            format!(
                "it is of PostgreSQL {}, the programs are of {}",
                version.trim(),
                plan.binaries.version()
            ),
        ));
    }
    if let Some(pid) = folder::running(&plan.data_dir)? {
        return Err(Error::new(
            ErrorKind::Refused,
            "start",
            plan.data_dir.display(),
            format!("a server runs on it (process {pid})"),
        )
        .with_hint("stop that server first, or restore to another directory"));
    }
    Ok(control)
}

/// As whom the server runs: `None` as ourselves.
fn owner(data_dir: &Path) -> Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    let meta = data_dir
        .metadata()
        .map_err(|error| Error::io("look at", data_dir.display(), error))?;
    let us = rustix::process::geteuid();
    let refuse =
        |detail: String, hint: &str| Err(Error::new(ErrorKind::Refused, "start", data_dir.display(), detail).with_hint(hint));
    match (us.is_root(), meta.uid()) {
        (true, 0) => refuse(
            "it belongs to root, and PostgreSQL refuses to run as root".into(),
            "give it to another user (chown -R postgres), or restore it as one",
        ),
        (true, user) => Ok(Some((user, meta.gid()))),
        (false, user) if user == us.as_raw() => Ok(None),
        (false, user) => refuse(
            format!("it belongs to the user {user}, and we run as {}", us.as_raw()),
            "run as its owner, or as root",
        ),
    }
}
