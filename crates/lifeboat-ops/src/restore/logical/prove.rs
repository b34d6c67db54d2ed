//! The proof of a logical backup: every database of it is restored to a new server of its major version on this host, which listens on a socket of its
//! own alone, and is thrown away with everything in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::checks::{self, Beat, Heartbeat};
use lifeboat_engine::postgres::logical::{Database, Facts};
use lifeboat_engine::postgres::sandbox::{self, Recovery, Sandbox};
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_io::process::Process;
use lifeboat_model::check::Outcome;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader, Repository};
use rustix::process::Signal;

use super::{Options, Plan, Timed, build, facts, prepare, publish};
use crate::protected::{Cluster, Protected};
use crate::restore::record::Underway;
use crate::restore::staging::{CLUSTER, Staging};
use crate::restore::{CLEAN_UP, Findings, cluster, draw_id};
use crate::verify::cluster as verify;
use crate::words::counted;

/// The superuser of the server: no role of a backup is called so.
const SUPERUSER: &str = "lifeboat_proof";
/// Users that a server can run as where we are root; the first that is there.
const USERS: [&str; 3] = ["postgres", "nobody", "daemon"];
/// How long making a server may take.
const INITDB: Duration = Duration::from_secs(300);
/// How long it may say nothing.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where root proves: the server runs as another user, who must get there.
const SHARED_SCRATCH: &str = "/var/tmp";

/// Restores everything and compares it; with `app`, asks what the configuration asks, too.
pub(crate) async fn prove(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    scratch: &Path,
    app: bool,
) -> Result<Findings> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    let facts = facts(&reader, backup)?;
    let cluster = protected.source.cluster();
    let no_cluster = || {
        Error::new(
            ErrorKind::Usage,
            "prove",
            &protected.component,
            "it is no PostgreSQL server any more",
        )
    };
    let cluster = cluster.ok_or_else(no_cluster)?;
    let binaries = Binaries::find(facts.major, &cluster.binaries).await?;
    with_server(env, protected, &binaries, scratch, async |sandbox| {
        databases(env, protected, cluster, (&reader, backup, &facts), sandbox, app).await
    })
    .await
}

/// Has `work` done with a new server, which nobody else sees, and removes it with everything in it. `scratch` is where it may have its data.
pub(crate) async fn with_server<T>(
    env: &Env,
    protected: &Protected,
    binaries: &Binaries,
    scratch: &Path,
    work: impl AsyncFnOnce(&Sandbox) -> Result<T>,
) -> Result<T> {
    let id = draw_id(env)?;
    let user = server_user()?;
    let parent = if user.is_some() { Path::new(SHARED_SCRATCH) } else { scratch };
    let to = parent.join(format!("lifeboat-{id}"));
    // Where the state folder cannot be written to, the proof works all the same.
    let _underway = Underway::begin(&protected.state_dir, &id, &to).ok();
    let staging = Staging::create(&to, &id)?;
    cluster::give(staging.folder(), user)?;
    let worked = in_server(env, binaries, &staging, user, work).await;
    env.progress.step(CLEAN_UP, None);
    let removed = staging.remove();
    let found = worked?;
    removed?;
    Ok(found)
}

async fn in_server<T>(
    env: &Env,
    binaries: &Binaries,
    staging: &Staging,
    user: Option<(u32, u32)>,
    work: impl AsyncFnOnce(&Sandbox) -> Result<T>,
) -> Result<T> {
    env.progress.step("make a server", None);
    let data_dir = staging.path(CLUSTER);
    initdb(binaries, &data_dir, user).await?;
    let plan = sandbox::Plan {
        data_dir,
        dispose: true,
        binaries: binaries.clone(),
        root: std::env::temp_dir(),
        recovery: Recovery::None,
        durable: false,
        superuser: SUPERUSER.to_owned(),
        preload: Some(Vec::new()),
        settings: BTreeMap::from([("max_wal_size".to_owned(), "4GB".to_owned())]),
        patience: PATIENCE,
    };
    let sandbox = sandbox::start(env, plan).await?;
    let worked = work(&sandbox).await;
    // What was found is worth more than an error about removing the server; a later start sweeps.
    let stopped = sandbox.stop(env, Signal::INT).await;
    let found = worked?;
    stopped?;
    Ok(found)
}

/// How to connect to it.
pub(super) fn address(sandbox: &Sandbox) -> Result<ConnInfo> {
    address_as(sandbox, SUPERUSER)
}

/// The same for a server with a superuser of another name.
pub(crate) fn address_as(sandbox: &Sandbox, superuser: &str) -> Result<ConnInfo> {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let text = format!(
        "host='{}' port=5432 user='{}' dbname=template1 sslmode=disable",
        quoted(&sandbox.socket_folder().display().to_string()),
        quoted(superuser)
    );
    ConnInfo::parse(&text, &Surroundings::default())
}

async fn initdb(binaries: &Binaries, data_dir: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let initdb = Process::new(binaries.program("initdb"), INITDB)
        .user(user)
        .folder(data_dir.parent().unwrap_or(Path::new("/")))
        .variable("LC_ALL", "C")
        .arg("-D")
        .arg(data_dir)
        .arg(format!("--username={SUPERUSER}"))
        .arg("--auth=trust")
        .arg("--encoding=UTF8")
        .arg("--locale=C")
        .arg("--no-sync");
    initdb.run().await.map(drop)
}

/// Restores each database under its own name, and asks it what is to be asked.
async fn databases(
    env: &Env,
    protected: &Protected,
    cluster: &Cluster,
    (reader, backup, facts): (&Reader, &Backup, &Facts),
    sandbox: &Sandbox,
    app: bool,
) -> Result<Findings> {
    let mut findings = Findings::default();
    for database in &facts.databases {
        let (_, outcome) = one_database(env, protected, (reader, backup, facts), sandbox, database).await?;
        findings.tables += database.tables.len() as u64;
        findings.rows += database.rows();
        findings.bytes += database.text_bytes();
        findings.checks.push(outcome);
    }
    if app {
        findings.checks.push(checks::isolation(sandbox).await);
        for assertion in &cluster.care.checks {
            let mut assertion = assertion.clone();
            assertion.database = restored_name(&assertion.database);
            findings.checks.push(checks::assert(sandbox, &assertion).await);
        }
        // An extract has some rows of some tables: how new the data is does not follow from it.
        if let Some(heartbeat) = cluster.care.heartbeat.as_ref().filter(|_| !backup.header.extract) {
            let beat = newest(sandbox, facts, heartbeat).await;
            findings.checks.push(verify::heartbeat(&beat));
            findings.newest_us = match beat {
                Beat::At(at_us) => Some(at_us),
                Beat::Nothing | Beat::NotAvailable(_) | Beat::Unknown(_) => None,
            };
        }
    }
    Ok(findings)
}

/// How new the data is, by its own account.
async fn newest(sandbox: &Sandbox, facts: &Facts, heartbeat: &Heartbeat) -> Beat {
    let name = &heartbeat.database;
    if !facts.databases.iter().any(|database| database.name == *name) {
        return Beat::NotAvailable(format!("the database {name} is not in this backup"));
    }
    let asked = Heartbeat {
        database: restored_name(name),
        ..heartbeat.clone()
    };
    checks::newest(sandbox, &asked).await
}

/// The server has a database `postgres` of its own.
pub(super) fn restored_name(name: &str) -> String {
    match name {
        "postgres" => "postgres_restored".to_owned(),
        name => name.to_owned(),
    }
}

/// Restores one database, and compares it. Returns what it is called there: its own name, where that is free.
pub(super) async fn one_database(
    env: &Env,
    protected: &Protected,
    (reader, backup, facts): (&Reader, &Backup, &Facts),
    sandbox: &Sandbox,
    database: &Database,
) -> Result<(String, Outcome)> {
    roles(sandbox, &database.roles).await?;
    let name = restored_name(&database.name);
    let options = Options {
        server: address(sandbox)?,
        name: Some(name.clone()),
        database: Some(database.name.clone()),
        keep_owners: true,
        accept_findings: false,
    };
    let plan: Plan = prepare(env, protected, reader.clone(), backup, facts, &options).await?;
    let id = draw_id(env)?;
    let staging = super::staging_name(&id);
    let mut timed = Timed::begin(env);
    build(env, protected, &plan, &id, &staging, &mut timed).await?;
    publish(&plan, &staging, &mut timed).await?;
    let says = format!(
        "{} in {} are those that were captured: each count and each digest{}",
        counted(database.rows(), "row"),
        counted(database.tables.len() as u64, "table"),
        timed.notes.iter().map(|note| format!("; {note}")).collect::<String>()
    );
    Ok((name, Outcome::passed(format!("rows of {}", database.name), says)))
}

/// Roles that things belong to, on a server that only we can reach.
pub(crate) async fn roles(sandbox: &Sandbox, names: impl IntoIterator<Item = &String>) -> Result<()> {
    let session = sandbox.connect("postgres").await?;
    for name in names {
        let quoted = lifeboat_engine::postgres::logical::quoted_name(name);
        let made = session
            .client()
            .batch_execute(&format!("CREATE ROLE {quoted} SUPERUSER LOGIN"))
            .await;
        if let Err(error) = made
            && error.as_db_error().is_none_or(|said| said.code().code() != "42710")
        {
            return Err(Error::new(ErrorKind::Failed, "make the role", name, error.to_string()).with_source(error));
        }
    }
    Ok(())
}

/// As whom the server runs: PostgreSQL refuses to run as root.
fn server_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let path = PathBuf::from("/etc/passwd");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", path.display(), error))?;
    let known = |wanted: &&str| {
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, user, group, ..] = fields.as_slice() else {
                return None;
            };
            (name == wanted).then_some((user.parse().ok()?, group.parse().ok()?))
        })
    };
    let found = USERS.iter().find_map(known);
    found.map(Some).ok_or_else(|| {
        let detail = "PostgreSQL does not run as root, and there is no other user for it";
        Error::new(ErrorKind::ConfigInvalid, "start", "a server for the proof", detail)
            .with_hint("run this command as another user than root, or make the user `postgres`")
    })
}
