//! Dumps of other days as backups of ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::logical::Database;
use lifeboat_engine::postgres::logical::destination::Destination;
use lifeboat_engine::postgres::sandbox::Sandbox;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{BackupPlan, Instance, Writer};

use super::super::artefact::{self, Imported, Old};
use super::super::draw_id;
use super::super::logical::{self, staging_name};
use super::{Dump, fill, read_through};
use crate::backup::log::About;
use crate::backup::logical::OpenedDatabases;
use crate::protected::{Cluster, Protected};

/// Servers of these versions are looked for.
const OLDEST: u32 = 14;
const NEWEST: u32 = 18;

/// What a person says of a dump that is imported.
#[derive(Debug, Clone, Default)]
pub struct Taking {
    /// When it was made, and how that is known; none: as well as the dump says.
    pub moment: Option<(i64, &'static str)>,
    /// Of which database it is; none: what the dump says, or the only one that is configured.
    pub database: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Takes a dump over as a backup of `protected`, of the method `imported`: it is restored to a new server on this host, captured from there as every
/// logical backup is, and the server is thrown away. So what is stored was once taken by a server, has counts and digests, and can do whatever a
/// logical backup can. `scratch` is where the server may have its data.
///
/// # Errors
/// `Usage` for another component than a PostgreSQL server, or where the dump does not say of which database it is; `NotFound` where there are no programs
/// for a server; otherwise as a restore of the dump and a backup.
pub async fn import(
    env: &Env,
    protected: &Protected,
    instance: Arc<Instance>,
    old: &Old,
    mut dump: Dump,
    taking: Taking,
    scratch: &Path,
) -> Result<(Dump, Imported)> {
    let refused = |kind, detail: String| Error::new(kind, "import", old.file.display(), detail);
    let Some(cluster) = protected.source.cluster() else {
        let detail = format!(
            "it is a dump of PostgreSQL, and {} is {}",
            protected.component,
            protected.source.kind()
        );
        return Err(refused(ErrorKind::Usage, detail).with_hint("name a component of the kind postgres with --as"));
    };
    let (moment_us, moment_from) = taking.moment.unwrap_or(dump.moment);
    artefact::not_in_the_future(env, old, moment_us)?;
    let configured = match cluster.logical.databases.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    };
    let database = taking.database.or_else(|| dump.about.database.clone()).or(configured);
    let database = database.ok_or_else(|| {
        refused(ErrorKind::Usage, "it does not say of which database it is".to_owned()).with_hint("name it with --database")
    })?;
    read_through(&mut dump, old, &cluster.binaries).await?;
    let binaries = server_for(&dump, &cluster.binaries).await?;
    let name = old.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let plan = BackupPlan {
        reason: Some(taking.reason.unwrap_or_else(|| format!("imported from {name}"))),
        ..artefact::imported(protected, Arc::clone(&instance))
    };
    let repository = protected.repository().await?;
    let about = About {
        env,
        protected,
        repository: &repository,
        instance: &instance,
    };
    let (committed, stored) = logical::with_server(env, protected, &binaries, scratch, async |sandbox| {
        let opened = loaded(env, cluster, &dump, &database, sandbox).await?;
        let mut writer = Writer::begin(env, &repository, plan).await?;
        let stored = opened.store(&about, &mut writer).await?;
        let committed = writer.commit(moment_us, stored.facts.as_json()?).await?;
        Ok((committed, stored))
    })
    .await?;
    env.progress.finish();
    let mut notes = committed.notes;
    notes.extend(stored.warnings);
    if let Some(wrote) = dump.about.major().filter(|wrote| *wrote != binaries.major()) {
        notes.push(format!(
            "it is of PostgreSQL {wrote}, and was taken by a server of {}: it goes back to that version or a newer one",
            binaries.major()
        ));
    }
    let databases = stored
        .facts
        .databases()
        .map(|facts| facts.databases.as_slice())
        .unwrap_or_default();
    let imported = Imported {
        counts: (
            databases.iter().map(|database| database.tables.len() as u64).sum(),
            databases.iter().map(Database::rows).sum(),
        ),
        backup: committed.backup,
        stats: committed.stats,
        moment_from,
        notes,
    };
    Ok((dump, imported))
}

/// Restores the dump to a server of ours, as the database `name`.
async fn loaded(env: &Env, cluster: &Cluster, dump: &Dump, name: &str, sandbox: &Sandbox) -> Result<OpenedDatabases> {
    // What the dump gives nobody belongs to whoever would have restored it.
    let user = cluster.login.conninfo().await?.user().to_owned();
    logical::roles(sandbox, dump.roles.iter().chain([&user])).await?;
    let info = logical::address_as(sandbox, &user)?;
    let destination = Destination::connect(&info).await?;
    let staging = staging_name(&draw_id(env)?);
    let like = destination.made_like("template1").await?;
    destination.create(&staging, &like).await?;
    env.progress.step("restore", None);
    fill(dump, &destination.info(&staging), true).await?;
    // The server's own database makes way.
    if name == "postgres" {
        destination.rename("postgres", "lifeboat_was_postgres").await?;
    }
    destination.rename(&staging, name).await?;
    OpenedDatabases::of_server(&info, cluster, name).await
}

/// A server on this host that takes it: of its own version, else the next newer one.
async fn server_for(dump: &Dump, binaries: &[PathBuf]) -> Result<Binaries> {
    let least = dump.about.major().or(dump.about.pg_dump_major()).unwrap_or(OLDEST);
    let mut first = None;
    for major in least.max(OLDEST)..=NEWEST.max(least) {
        match Binaries::find(major, binaries).await {
            Ok(found) => return Ok(found),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "find",
            "the programs of PostgreSQL",
            "none were looked for",
        )
    }))
}
