//! Some tables of a logical backup into a schema of their own, beside the live ones (docs/logical.md, "Tables").
//!
//! What a table is like is asked of PostgreSQL itself: the definitions are made in an empty scratch database, the tables are moved into a schema of a new name there,
//! and `pg_dump` writes that schema. Nothing of the live database is touched but that new schema, which gets the name that was asked for last.

use std::collections::BTreeSet;

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::logical::destination::{Destination, Inside, NAME_BYTES, STAGING};
use lifeboat_engine::postgres::logical::programs::{self, Making, Program, Section};
use lifeboat_engine::postgres::logical::{Database, Name, Table};
use lifeboat_io::{compute, durable};
use lifeboat_model::estimate::{Estimate, estimate};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader, Repository};

use super::{DEFINITIONS_LIMIT, Folder, chosen, definitions_of, opened, rows, staging_name, stamp};
use crate::backup::logical::binaries;
use crate::protected::Protected;
use crate::restore::{draw_id, past_runs, remember};

/// What a person may choose.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server; its database is one that is there already.
    pub server: ConnInfo,
    /// Which database of the backup; none: the only one. The tables go to the live one of this name.
    pub database: Option<String>,
    /// Which tables: `TABLE` or `SCHEMA.TABLE`; a partitioned one means all its partitions.
    pub tables: Vec<String>,
    /// The new schema; none: `restored_` and the moment.
    pub schema: Option<String>,
}

/// What it would do.
#[derive(Debug)]
pub struct Plan {
    /// From which backup.
    pub backup: Backup,
    /// Which of its databases.
    pub database: Database,
    /// The new schema.
    pub schema: String,
    /// Where, for people.
    pub server: String,
    /// The tables that were asked for.
    pub tables: Vec<String>,
    /// How long it will take, and on what that guess rests.
    pub estimate: Estimate,
    /// What will be done, in order.
    pub steps: Vec<String>,
    reader: Reader,
    scratch: Destination,
    live: ConnInfo,
    pg_dump: Program,
    pg_restore: Program,
}

/// What came of it.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// From which backup.
    pub backup: Backup,
    /// In which database.
    pub database: String,
    /// The new schema.
    pub schema: String,
    /// The tables in it, and how many rows each has.
    pub tables: Vec<(Name, u64)>,
    /// How long it took, in seconds.
    pub took_s: f64,
}

/// Looks at everything that can be known before anything is made.
pub async fn plan(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    options: &Options,
) -> Result<Plan> {
    let (reader, facts) = opened(env, protected, repository, backup, identities).await?;
    // One of some tables may well have those that are wanted.
    if let Some(detail) = facts.lacks().filter(|_| facts.only_tables.is_none()) {
        return Err(Error::new(ErrorKind::Usage, "restore tables from", backup.id.short(), detail)
            .with_hint("choose another with --backup"));
    }
    let database = chosen(&facts, options.database.as_deref())?.clone();
    let schema = options.schema.clone();
    let schema = schema.unwrap_or_else(|| format!("restored_{}", stamp(database.moment_us)));
    let scratch = Destination::connect(&options.server).await?;
    let live = scratch.info(&database.name);
    let refused = |detail: String| Error::new(ErrorKind::Refused, "restore the tables to", &schema, detail);
    if schema.is_empty() || schema.len() > NAME_BYTES || schema.starts_with(STAGING) || schema.starts_with("pg_") {
        let detail = format!("a schema's name has 1 to {NAME_BYTES} bytes, and begins neither with {STAGING} nor with pg_");
        return Err(Error::new(
            ErrorKind::Usage,
            "restore the tables to",
            format!("{schema:?}"),
            detail,
        ));
    }
    if Inside::enter(&live).await?.has_schema(&schema).await? {
        return Err(refused(format!("{} has a schema of this name", database.name)).with_hint("choose another name with --to"));
    }
    let wrote: u32 = facts
        .pg_dump
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .unwrap_or(facts.major);
    let find = |name: &'static str| Program::find(name, wrote.max(scratch.major), binaries(protected));
    let steps = vec![
        "shape: the definitions are made in an empty scratch database; the tables, their indexes and constraints but no foreign keys, triggers or policies, are taken from there".to_owned(),
        format!("rows: of {}", options.tables.join(", ")),
        "check: every table is read back; its count and its digest must be those of the capture".to_owned(),
        format!("publish: the schema gets its name, {schema}, in {}, last", database.name),
    ];
    Ok(Plan {
        backup: backup.clone(),
        estimate: estimate(database.text_bytes(), &past_runs(protected)),
        server: live.to_string(),
        tables: options.tables.clone(),
        pg_dump: find("pg_dump").await?,
        pg_restore: find("pg_restore").await?,
        schema,
        steps,
        reader,
        scratch,
        live,
        database,
    })
}

/// Restores the tables. On an error nothing is left of it.
pub async fn run(env: &Env, protected: &Protected, plan: Plan) -> Result<Report> {
    let began = env.clock.monotonic();
    let id = draw_id(env)?;
    let staging = staging_name(&id);
    let folder = Folder(protected.state_dir.join(format!("restore-{id}")));
    for leftover in plan.scratch.leftovers().await? {
        plan.scratch.drop_staging(&leftover).await?;
    }
    env.progress.step("shape", None);
    let shaped = shape(&plan, &staging, &folder).await;
    // The scratch database has done its work, or will never do it.
    let dropped = plan.scratch.drop_staging(&staging).await;
    let shaped = shaped?;
    dropped?;
    let live = Inside::enter(&plan.live).await?;
    live.claim(&staging).await?;
    let restored = fill(env, &plan, &live, &staging, &shaped).await;
    if let Err(error) = restored {
        remember(env, protected, &plan.backup, &error);
        return Err(match live.drop_schema(&staging).await {
            Ok(()) => error,
            // The first error matters more; the next restore of tables removes it.
            Err(left) => error.with_hint(format!(
                "the schema {staging} could not be removed from {} ({left}); the next restore of tables does",
                plan.database.name
            )),
        });
    }
    let tables = shaped.tables.iter();
    Ok(Report {
        backup: plan.backup,
        database: plan.database.name,
        schema: plan.schema,
        tables: tables.map(|table| (table.from.clone(), table.captured.digest.rows)).collect(),
        took_s: env.clock.monotonic().saturating_sub(began).as_secs_f64(),
    })
}

/// A table on its way into the new schema.
struct Moved {
    from: Name,
    captured: Table,
}

/// What the new schema is like.
struct Shaped {
    archive: std::path::PathBuf,
    tables: Vec<Moved>,
}

async fn shape(plan: &Plan, staging: &str, folder: &Folder) -> Result<Shaped> {
    plan.scratch.create(staging, &plan.database.properties).await?;
    let info = plan.scratch.info(staging);
    let inside = Inside::enter(&info).await?;
    let definitions = definitions_of(&plan.reader, &plan.database, folder).await?;
    let making = Making {
        at_once: 1,
        keep_owners: false,
        replication: false,
        index_memory_kib: None,
        limit: DEFINITIONS_LIMIT,
    };
    for section in [Section::PreData, Section::PostData] {
        programs::make(&plan.pg_restore, &info, &definitions, section, &making).await?;
    }
    let mut moved: BTreeSet<Name> = BTreeSet::new();
    for wanted in &plan.tables {
        let found = inside.find_tables(wanted).await?;
        // An extension's own table, for example: its rows come with the extension.
        if !found
            .iter()
            .any(|name| plan.database.tables.iter().any(|table| table.name == *name))
        {
            let detail = format!("the backup has no rows of {wanted}");
            return Err(Error::new(ErrorKind::Usage, "restore tables to", &plan.schema, detail));
        }
        moved.extend(found);
    }
    let twice = moved
        .iter()
        .find(|one| moved.iter().any(|other| other.name == one.name && other.schema != one.schema));
    if let Some(twice) = twice {
        let detail = format!("two tables of different schemas are called {}", twice.name);
        return Err(
            Error::new(ErrorKind::Usage, "restore tables to", &plan.schema, detail).with_hint("restore them one after the other")
        );
    }
    inside.move_tables(&moved, staging).await?;
    let text = programs::schema(&plan.pg_dump, &info, staging, DEFINITIONS_LIMIT).await?;
    let (archive, path) = (folder.0.join("schema.dump"), folder.0.join("schema.dump"));
    compute::run("write the definitions", move || {
        durable::create_file(&path, &text, durable::FILE_MODE).map(drop)
    })
    .await?;
    let captured = plan.database.tables.iter().filter(|table| moved.contains(&table.name));
    let tables = captured.map(|table| Moved {
        from: table.name.clone(),
        captured: Table {
            name: Name {
                schema: staging.to_owned(),
                name: table.name.name.clone(),
            },
            condition: None,
            ..table.clone()
        },
    });
    Ok(Shaped {
        archive,
        tables: tables.collect(),
    })
}

async fn fill(env: &Env, plan: &Plan, live: &Inside, staging: &str, shaped: &Shaped) -> Result<()> {
    // Only these tables, under their new names, from where their rows are.
    let database = Database {
        tables: shaped.tables.iter().map(|table| table.captured.clone()).collect(),
        large_objects: None,
        ..plan.database.clone()
    };
    let making = Making {
        at_once: env.threads.max(1),
        keep_owners: false,
        replication: false,
        index_memory_kib: live.index_memory_kib(database.largest_table_bytes()).await?,
        limit: DEFINITIONS_LIMIT,
    };
    programs::make(&plan.pg_restore, &plan.live, &shaped.archive, Section::PreData, &making).await?;
    env.progress.step("rows", Some(database.text_bytes()));
    rows::load(env, &plan.reader, &database, &plan.live, rows::Loading::as_text()).await?;
    env.progress.step("constraints", None);
    programs::make(&plan.pg_restore, &plan.live, &shaped.archive, Section::PostData, &making).await?;
    env.progress.step("check", Some(database.text_bytes()));
    rows::compare_in(env, &database, live, &plan.live, staging).await?;
    env.progress.step("publish", None);
    live.rename_schema(staging, &plan.schema).await
}
