//! Rows of a logical backup into the live database, one tenant's or those of some tables (docs/tenants.md): staged beside, shown, and brought in by
//! one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::logical::destination::{Destination, Inside};
use lifeboat_engine::postgres::logical::session::Worker;
use lifeboat_engine::postgres::logical::tenant::merge::{Change, Merge, Staged};
use lifeboat_engine::postgres::logical::tenant::relations::{Relation, Relations, list};
use lifeboat_engine::postgres::logical::tenant::{Class, Scope, TenantMap};
use lifeboat_engine::postgres::logical::{Database, Digest, Name, Table};
use lifeboat_io::compute;
use lifeboat_model::wal::Target;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader, Repository};

use super::prove::address_as;
use super::{Options as WholeOptions, Plan as WholePlan, Timed, build, chosen, opened, prepare, rows, staging_name};
use crate::backup::OneTenant;
use crate::protected::Protected;
use crate::restore::cluster::{self, Options as ClusterOptions, ScratchPlan};
use crate::restore::{draw_id, remember};

/// Bytes of rows that are passed on at once.
const PIECE_BYTES: usize = 256 << 10;

/// The tables of a live database, and how they refer to each other.
pub async fn relations(protected: &Protected, database: &str) -> Result<Relations> {
    let destination = Destination::connect(&server(protected).await?).await?;
    Inside::enter(&destination.info(database)).await?.relations().await
}

async fn server(protected: &Protected) -> Result<ConnInfo> {
    match protected.source.cluster() {
        Some(cluster) => cluster.login.conninfo().await,
        None => {
            let detail = format!("it is {}, and only databases have tenants", protected.source.kind());
            Err(Error::new(
                ErrorKind::Usage,
                "find the tenants of",
                &protected.component,
                detail,
            ))
        }
    }
}

/// Which rows are meant.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// Those of a tenant.
    Tenant(OneTenant),
    /// The same for a tenant of another name, who gets them.
    TenantAs {
        /// Whose rows.
        tenant: OneTenant,
        /// Who gets them.
        new_id: String,
    },
    /// Those of some tables.
    Tables {
        /// Which database; none: the only one of the backup.
        database: Option<String>,
        /// `TABLE` or `SCHEMA.TABLE`; a partitioned one means all its partitions.
        tables: Vec<String>,
        /// Rows that were not there then go.
        deletes: bool,
    },
}

impl Wanted {
    /// The tenant, or the tables, for people.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Tenant(tenant) => format!("the tenant {}", tenant.id),
            Self::TenantAs { tenant, new_id } => format!("the tenant {} as {new_id}", tenant.id),
            Self::Tables { tables, .. } => tables.join(", "),
        }
    }

    /// Whose rows they will be, where they are a tenant's.
    #[must_use]
    pub fn receiver(&self) -> Option<OneTenant> {
        match self {
            Self::Tenant(tenant) => Some(tenant.clone()),
            Self::TenantAs { tenant, new_id } => Some(OneTenant {
                id: new_id.clone(),
                ..tenant.clone()
            }),
            Self::Tables { .. } => None,
        }
    }

    fn database(&self) -> Option<&str> {
        match self {
            Self::Tenant(tenant) | Self::TenantAs { tenant, .. } => Some(&tenant.database),
            Self::Tables { database, .. } => database.as_deref(),
        }
    }

    fn scope(&self, relations: Relations) -> Result<Scope> {
        match self {
            Self::Tenant(tenant) => Scope::new(relations, &tenant.map, &tenant.id),
            Self::TenantAs { tenant, new_id } => Scope::new(relations, &tenant.map, new_id),
            Self::Tables { tables, .. } => Scope::of_tables(relations, tables),
        }
    }
}

/// From where the rows come.
#[expect(clippy::large_enum_variant, reason = "there is one of them")]
#[derive(Debug)]
enum From {
    /// A backup of this tenant alone.
    Extract(Reader, Database, TenantMap),
    /// A backup with these tables.
    Tables(Reader, Database),
    /// A backup of the whole database, which is restored into a scratch database first.
    Whole(WholePlan),
    /// A cluster at a moment, which is restored into a scratch folder and started there.
    Cluster(ScratchPlan, ClusterOptions),
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// From which backup.
    pub backup: Backup,
    /// The moment of its rows, microseconds since 1970.
    pub moment_us: i64,
    /// Which rows.
    pub wanted: Wanted,
    /// The database.
    pub database: String,
    /// Where, for people.
    pub server: String,
    /// What will be done, in order.
    pub steps: Vec<String>,
    from: From,
    live: ConnInfo,
    lock_wait_ms: u64,
}

/// Rows that lie beside the live ones, and what would become of these.
#[derive(Debug)]
#[must_use]
pub struct Ready {
    /// Names it.
    pub id: String,
    /// Table by table.
    pub changes: Vec<Change>,
    /// What to know before saying yes.
    pub notes: Vec<String>,
    merge: Merge,
    lock_wait_ms: u64,
}

/// Looks at everything that can be known before anything is made.
pub async fn plan(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    wanted: &Wanted,
) -> Result<Plan> {
    let (reader, facts) = opened(env, protected, repository, backup, identities).await?;
    let database = chosen(&facts, wanted.database())?.clone();
    let server = server(protected).await?;
    let (live, moment_us, name) = (
        server.clone().with_database(&database.name),
        database.moment_us,
        database.name.clone(),
    );
    let first = match wanted {
        Wanted::Tables { tables, .. } => format!("rows: of {}", tables.join(", ")),
        Wanted::Tenant(_) | Wanted::TenantAs { .. } if facts.tenant.is_some() => {
            "rows: those of the backup, which is of this tenant alone".to_owned()
        }
        Wanted::Tenant(_) | Wanted::TenantAs { .. } => format!(
            "rows: the whole database ({} tables) is restored into a scratch database of the server, which is removed again; the tenant's are taken from there",
            database.tables.len()
        ),
    };
    let lacking = |detail: String| {
        Err(Error::new(ErrorKind::Usage, "restore rows from", backup.id.short(), detail)
            .with_hint("choose another with --backup"))
    };
    let from = match (wanted, &facts.tenant, facts.lacks()) {
        (Wanted::Tenant(tenant) | Wanted::TenantAs { tenant, .. }, Some(captured), _) if captured.id == tenant.id => {
            From::Extract(reader, database, captured.map.clone())
        }
        (Wanted::Tables { .. }, _, lacks) => match lacks.filter(|_| facts.only_tables.is_none()) {
            Some(lacks) => return lacking(lacks),
            None => From::Tables(reader, database),
        },
        (_, _, Some(lacks)) => return lacking(lacks),
        (Wanted::Tenant(tenant) | Wanted::TenantAs { tenant, .. }, ..) => {
            let options = WholeOptions {
                server: server.clone(),
                // It never gets this name.
                name: Some(format!("tenant_{}", draw_id(env)?)),
                database: Some(tenant.database.clone()),
                keep_owners: false,
                accept_findings: false,
            };
            let whole = Box::pin(prepare(env, protected, reader, backup, &facts, &options)).await?;
            From::Whole(WholePlan { scratch: true, ..whole })
        }
    };
    Ok(Plan {
        backup: backup.clone(),
        moment_us,
        wanted: wanted.clone(),
        database: name,
        server: live.to_string(),
        steps: steps(first),
        from,
        live,
        lock_wait_ms: lock_wait_ms(protected),
    })
}

/// Brings the rows beside the live ones, and says what would become of these. On an error nothing is left of it.
pub async fn stage(env: &Env, protected: &Protected, plan: Plan) -> Result<Ready> {
    let id = draw_id(env)?;
    let staging = staging_name(&id);
    let live = Inside::enter(&plan.live).await?;
    let mut scope = plan.wanted.scope(live.relations().await?)?;
    live.settle(&mut scope).await?;
    let deletes = !matches!(plan.wanted, Wanted::Tables { deletes: false, .. });
    let leaves = scope
        .scoped()
        .flat_map(|table| table.leaves.iter().map(|leaf| (leaf.clone(), table.name.clone())));
    let leaves: BTreeMap<Name, Name> = leaves.collect();
    let tables: BTreeSet<Name> = scope.scoped().map(|table| table.name.clone()).collect();
    let mut merge = Merge::new(live, scope, staging.clone(), deletes);
    let staged = match &plan.from {
        From::Extract(reader, database, map) => {
            // What was everybody's then came along for whoever restores it beside.
            let owner = |table: &Table| {
                let name = table.of.as_ref().unwrap_or(&table.name);
                let is_his = map.tables.get(&name.to_string()).is_some_and(Class::is_scoped);
                is_his.then(|| name.clone())
            };
            from_captured(env, reader, (database, &owner), &mut merge, &plan.live).await
        }
        From::Tables(reader, database) => {
            // A partition that is gone since belongs to its table all the same.
            let owner = |table: &Table| {
                let of = table.of.as_ref().filter(|of| tables.contains(*of)).cloned();
                of.or_else(|| leaves.get(&table.name).cloned())
            };
            from_captured(env, reader, (database, &owner), &mut merge, &plan.live).await
        }
        From::Whole(whole) => Box::pin(from_whole(env, protected, whole, &plan, &mut merge, &id)).await,
        From::Cluster(scratch, options) => Box::pin(from_cluster(env, protected, (scratch, options), &plan, &mut merge)).await,
    };
    let shown = match staged {
        Ok(()) => show(env, &merge, &plan.wanted).await,
        Err(error) => Err(error),
    };
    let mut ready = Ready {
        id,
        changes: Vec::new(),
        notes: Vec::new(),
        merge,
        lock_wait_ms: plan.lock_wait_ms,
    };
    match shown {
        Ok(changes) => {
            let always = ready.merge.always();
            if !always.is_empty() {
                ready
                    .notes
                    .push(format!("these triggers always run, also now: {}", always.join(", ")));
            }
            let passed_over = ready.merge.passed_over();
            if !passed_over.is_empty() {
                ready.notes.push(format!(
                    "the backup knows nothing of {}: what is in there stays as it is",
                    passed_over.join(", ")
                ));
            }
            ready.changes = changes;
            Ok(ready)
        }
        Err(error) => Err(match ready.give_up().await {
            Ok(()) => error,
            Err(left) => error.with_hint(format!(
                "the schema {staging} could not be removed ({left}); the next one does"
            )),
        }),
    }
}

async fn show(env: &Env, merge: &Merge, wanted: &Wanted) -> Result<Vec<Change>> {
    env.progress.step("compare", None);
    if let Wanted::TenantAs { tenant, .. } = wanted {
        merge.rename(&tenant.id).await?;
    }
    merge.index().await?;
    merge.preview().await
}

impl Ready {
    /// Does what was shown, in one transaction, and removes what was beside. Returns how many rows of others were looked at.
    ///
    /// # Errors
    /// As [`Merge::apply`]; nothing was changed then.
    pub async fn apply(self, env: &Env) -> Result<(u64, Vec<String>)> {
        env.progress.step("bring in", None);
        let done = self.merge.apply(&self.changes, self.lock_wait_ms).await;
        let removed = self.give_up().await;
        let others = done?;
        let left = removed
            .err()
            .map(|error| format!("the staging schema could not be removed: {error}"));
        Ok((others, left.into_iter().collect()))
    }

    /// Removes what was beside.
    pub async fn give_up(&self) -> Result<()> {
        self.merge.remove().await
    }
}

/// Into which live table a captured one goes; none: it is not wanted.
type Owner<'a> = dyn Fn(&Table) -> Option<Name> + Sync + 'a;

/// Rows as they were captured. `owner` says into which live table a captured one goes: partitions of one table go into one staged table.
async fn from_captured(
    env: &Env,
    reader: &Reader,
    (database, owner): (&Database, &Owner<'_>),
    merge: &mut Merge,
    live: &ConnInfo,
) -> Result<()> {
    let mut tables: BTreeMap<Name, Table> = BTreeMap::new();
    for table in &database.tables {
        let Some(name) = owner(table) else { continue };
        let name = &name;
        match tables.get_mut(name) {
            None => {
                tables.insert(name.clone(), table.clone());
            }
            Some(whole) if whole.columns == table.columns => {
                whole.parts.extend(table.parts.iter().cloned());
                whole.text_bytes += table.text_bytes;
                whole.digest += table.digest;
            }
            Some(_) => {
                let detail = format!("the partitions of {name} have their columns in different orders");
                return Err(Error::new(ErrorKind::Refused, "restore rows from", &database.name, detail)
                    .with_hint("restore the backup beside (`--to`), and bring the rows over by hand"));
            }
        }
    }
    let wanted: Vec<(Name, Vec<String>)> = (tables.iter())
        .map(|(name, table)| (name.clone(), table.columns.clone()))
        .collect();
    let lacking: Vec<String> = (merge.wanted().filter(|name| !tables.contains_key(*name)))
        .map(Name::to_string)
        .collect();
    if !lacking.is_empty() {
        let detail = format!("the backup has no rows of {}", lacking.join(", "));
        return Err(Error::new(ErrorKind::Usage, "restore rows from", &database.name, detail)
            .with_hint("choose another with --backup; `lifeboat diff` names the tables of a backup"));
    }
    merge.prepare(&wanted).await?;
    let staged = merge.tables().iter().filter_map(|staged| {
        let table = tables.get(&staged.live.name)?;
        Some(Table {
            name: staged.staged.clone(),
            condition: None,
            ..table.clone()
        })
    });
    let staged = of(database, staged.collect());
    env.progress.step("rows", Some(staged.text_bytes()));
    rows::load(env, reader, &staged, live, rows::Loading::as_text()).await?;
    compare(env, merge, &staged, live).await
}

/// The database with other tables.
fn of(database: &Database, tables: Vec<Table>) -> Database {
    Database {
        tables,
        large_objects: None,
        ..database.clone()
    }
}

async fn compare(env: &Env, merge: &Merge, staged: &Database, live: &ConnInfo) -> Result<()> {
    env.progress.step("check", Some(staged.text_bytes()));
    let schema = staged.tables.first().map(|table| table.name.schema.clone());
    rows::compare_in(env, staged, merge.inside(), live, schema.as_deref().unwrap_or_default()).await
}

/// From a backup of the whole database, by way of a scratch database, which is gone at the end.
async fn from_whole(env: &Env, protected: &Protected, whole: &WholePlan, plan: &Plan, merge: &mut Merge, id: &str) -> Result<()> {
    let scratch = staging_name(id);
    for leftover in whole.destination.leftovers().await? {
        whole.destination.drop_staging(&leftover).await?;
    }
    let mut timed = Timed::begin(env);
    let taken = async {
        build(env, protected, whole, id, &scratch, &mut timed).await?;
        let inside = Inside::enter(&whole.destination.info(&scratch)).await?;
        let done = take(env, plan, merge, (&inside, whole.destination.info(&scratch))).await;
        drop(inside);
        done
    }
    .await;
    let dropped = whole.destination.drop_staging(&scratch).await;
    taken.inspect_err(|error| remember(env, protected, &plan.backup, error))?;
    dropped
}

/// Takes the rows out of another database, by way of a session in it.
async fn take(env: &Env, plan: &Plan, merge: &mut Merge, (inside, from): (&Inside, ConnInfo)) -> Result<()> {
    let relations = inside.relations().await?;
    let scope = match &plan.wanted {
        Wanted::Tenant(tenant) | Wanted::TenantAs { tenant, .. } => {
            let mut scope = Scope::of_older(relations, &tenant.map, &tenant.id)?;
            inside.settle(&mut scope).await?;
            inside.check_tenant(&scope).await.map_err(|error| {
                if error.kind() == ErrorKind::NoSuchPoint {
                    error.with_hint("it was not there at that moment; `lifeboat list` and `lifeboat points` show others")
                } else {
                    error
                }
            })?;
            scope
        }
        Wanted::Tables { tables, .. } => Scope::of_tables(relations, tables)?,
    };
    let from_files = matches!(plan.from, From::Cluster(..));
    let unlogged = |table: &&Relation| from_files && table.unlogged;
    if let (Wanted::Tables { .. }, Some(table)) = (&plan.wanted, scope.scoped().find(unlogged)) {
        let detail = format!(
            "{} is unlogged: its rows are in no copy of the files of a cluster",
            table.name
        );
        return Err(Error::new(ErrorKind::Refused, "restore rows from", &plan.database, detail)
            .with_hint("name a logical backup with --backup"));
    }
    // Those of a tenant stay as they are, and the notes name them.
    let wanted: Vec<(Name, Vec<String>)> = (scope.scoped().filter(|table| !unlogged(table)))
        .map(|table| (table.name.clone(), table.columns.clone()))
        .collect();
    merge.prepare(&wanted).await?;
    env.progress.step("rows", None);
    let mut jobs = Vec::new();
    for Staged { live, staged, columns } in merge.tables() {
        let (Some(table), Some(condition)) = (scope.relations.table(&live.name), scope.condition(&live.name)) else {
            continue;
        };
        let out = format!(
            "COPY (SELECT {} FROM {} WHERE {condition}) TO STDOUT",
            list("", columns),
            table.from()
        );
        let into = format!("COPY {} ({}) FROM STDIN", staged.sql(), list("", columns));
        jobs.push((staged.clone(), columns.clone(), out, into));
    }
    let to = plan.live.clone();
    let tables = compute::run("pass rows on", move || pass_on(&from, &to, jobs)).await?;
    let staged = Database {
        tables,
        ..Database::default()
    };
    compare(env, merge, &staged, &plan.live).await
}

/// From a cluster as it was at a moment.
async fn from_cluster(
    env: &Env,
    protected: &Protected,
    (scratch, options): (&ScratchPlan, &ClusterOptions),
    plan: &Plan,
    merge: &mut Merge,
) -> Result<()> {
    cluster::with_server(env, protected, scratch, options, async |sandbox| {
        let from = address_as(sandbox, &scratch.plan.facts.superuser)?.with_database(&plan.database);
        let inside = Inside::enter(&from).await?;
        take(env, plan, merge, (&inside, from)).await
    })
    .await
}

/// The same as [`plan`], where the rows come from a cluster at a moment, with its log. `scratch` is where it may be restored to meanwhile.
#[expect(clippy::too_many_arguments, reason = "where from, when, what, and where to")]
pub async fn plan_from_cluster(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    identities: &Identities,
    target: Target,
    options: &ClusterOptions,
    scratch: &Path,
    wanted: &Wanted,
) -> Result<Plan> {
    let configured = protected
        .source
        .cluster()
        .map_or(&[][..], |cluster| &cluster.logical.databases);
    let database = match (wanted.database(), configured) {
        (Some(name), _) => name.to_owned(),
        (None, [only]) => only.clone(),
        (None, _) => {
            let detail = "a cluster has several databases";
            return Err(
                Error::new(ErrorKind::Usage, "restore rows from", &protected.component, detail)
                    .with_hint("name one with --database"),
            );
        }
    };
    let moment_us = match target {
        Target::Time(_, at_us) => Some(at_us),
        _ => None,
    };
    let restored = Box::pin(cluster::plan_scratch(
        env, protected, repository, identities, target, scratch, options,
    ))
    .await?;
    let live = server(protected).await?.with_database(&database);
    let backup = restored.plan.backup.clone();
    let first = format!(
        "rows: the cluster is restored to that moment into a scratch folder ({}) and started there, unseen; they are taken from it, and it is removed",
        restored.plan.to.display()
    );
    Ok(Plan {
        moment_us: moment_us.unwrap_or(backup.header.moment_us),
        wanted: wanted.clone(),
        database,
        server: live.to_string(),
        steps: steps(first),
        lock_wait_ms: lock_wait_ms(protected),
        from: From::Cluster(restored, options.clone()),
        live,
        backup,
    })
}

fn steps(first: String) -> Vec<String> {
    vec![
        first,
        "stage: into a schema of their own in the live database, read back, and compared by key with what is there".to_owned(),
        "show: what would be inserted, updated and deleted".to_owned(),
        "keep: the present rows become a backup of their own".to_owned(),
        "bring in: one transaction, triggers quiet; foreign keys and all other rows are checked before it ends".to_owned(),
    ]
}

fn lock_wait_ms(protected: &Protected) -> u64 {
    let wait = protected.source.cluster().map(|cluster| cluster.logical.lock_wait);
    wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Rows out of one database into another: what is to be read, and into which staged table.
fn pass_on(from: &ConnInfo, to: &ConnInfo, jobs: Vec<(Name, Vec<String>, String, String)>) -> Result<Vec<Table>> {
    use std::io::Read as _;

    let (mut reads, mut writes) = (Worker::connect(from)?, Worker::connect(to)?);
    let mut piece = vec![0; PIECE_BYTES];
    let mut tables = Vec::new();
    for (name, columns, out, into) in jobs {
        writes.begin_copy_in(&into)?;
        let mut copy = reads.copy_out(&out)?;
        loop {
            let count = match copy.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    return Err(copy
                        .failure()
                        .unwrap_or_else(|| Error::io("pass on the rows of", &name, error)));
                }
            };
            writes.copy_in(piece.get(..count).unwrap_or_default())?;
        }
        let (digest, text_bytes): (Digest, u64) = copy.end()?;
        writes.end_copy_in()?;
        tables.push(Table {
            name,
            columns,
            heap_bytes: 0,
            condition: None,
            of: None,
            parts: Vec::new(),
            text_bytes,
            digest,
        });
    }
    Ok(tables)
}
