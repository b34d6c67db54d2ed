//! `lifeboat restore` of databases from a logical backup: into a new database, which gets its name last.

use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::wal::Target;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::protected::{Method, Protected, choose, is_logical};
use lifeboat_ops::restore::cluster as cluster_restore;
use lifeboat_ops::restore::logical::tenant::Wanted;
use lifeboat_ops::restore::logical::{self, Options, Plan, Report, place};
use lifeboat_ops::stores;
use lifeboat_repo::{Backup, Listing, Repository};
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::scratch::Scratch;
use super::super::{Cx, ask, backup, promote, time};
use super::{Done, Restore, cluster, tables, tenant};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

/// Everything a restore of databases works on.
pub(super) struct Planned {
    protected: Protected,
    plan: Planning,
    /// Where a cluster may be restored to meanwhile; removed with this.
    _scratch: Option<Scratch>,
}

/// A whole database, some of its tables beside, or rows into the live one.
#[expect(clippy::large_enum_variant, reason = "there is one of them for each component")]
enum Planning {
    Whole(Plan),
    Tables(lifeboat_ops::restore::logical::tables::Plan),
    /// Rows into the live database.
    Rows(lifeboat_ops::restore::logical::tenant::Plan),
}

/// Whether what is asked for is a database of a logical backup.
pub(super) async fn is_meant(context: &Context, component: &ComponentSettings, args: &Restore) -> Result<bool> {
    let Some(cluster) = component.source.cluster() else {
        return Ok(false);
    };
    if args.database.is_some() || args.no_owner || !args.tables.is_empty() || args.tenant.is_some() {
        return Ok(true);
    }
    let physical_only = args.point.lsn.is_some() || args.timeline.is_some() || args.lineage.is_some() || args.no_replay;
    if physical_only {
        return Ok(false);
    }
    let Some(named) = &args.point.backup else {
        return Ok(cluster.method == Method::Logical);
    };
    let protected = context.protected(component, args.from.as_slice()).await?;
    let survey = stores::survey(&protected).await?;
    Ok(is_logical(&survey.listing().find(named)?.header))
}

pub(super) async fn plan(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Restore) -> Result<Planned> {
    let protected = context.protected(component, args.from.as_slice()).await?;
    if let Some(wanted) = tenant::wanted(component, args)?
        && is_of_cluster(component, &protected, args).await?
    {
        return from_cluster(cx, context, component, args, protected, wanted).await;
    }
    refuse(component, args)?;
    let identities = context.identities(component).await?;
    let survey = stores::survey(&protected).await?;
    let mut notes: Vec<String> = (survey.away.iter())
        .map(|(name, error)| format!("the store {name} does not answer: {error}"))
        .collect();
    let listing = survey.listing();
    let choice = time::choice(&args.point)?;
    // By its number, whatever it is; by a moment, among those of this method.
    let wanted = if args.point.backup.is_some() {
        choose(&listing, &choice, &protected.component)?.clone()
    } else {
        let logical = |backup: &&Backup| is_logical(&backup.header);
        let of_method = Listing::of(listing.backups.iter().filter(logical).cloned().collect());
        choose(&of_method, &choice, &protected.component)?.clone()
    };
    let wants = Wants::of(component, &protected, args).await?;
    let mut first = None;
    for (store, repository, backup) in survey.holders(&wanted.id) {
        match in_store(cx, &protected, &repository, &backup, &identities, &wants).await {
            Ok(mut plan) => {
                match &mut plan {
                    Planning::Whole(plan) => plan.notes.append(&mut notes),
                    Planning::Tables(_) | Planning::Rows(_) => notes
                        .iter()
                        .for_each(|note| cx.out.note(&format!("note: {}: {note}", component.name))),
                }
                return Ok(Planned {
                    protected,
                    plan,
                    _scratch: None,
                });
            }
            Err(error) if stores::worth_another_store(&error) && first.is_none() => {
                notes.push(format!("the store {store} cannot give it: {error}"));
                first = Some(error);
            }
            Err(error) => return Err(first.unwrap_or(error)),
        }
    }
    Err(first.unwrap_or_else(|| Error::new(ErrorKind::NoSuchPoint, "restore", &component.name, "no store holds it")))
}

/// Whether rows are to come from the files of a cluster and its log, as it is backed up unless something else is said.
async fn is_of_cluster(component: &ComponentSettings, protected: &Protected, args: &Restore) -> Result<bool> {
    match &args.point.backup {
        Some(named) => {
            let survey = stores::survey(protected).await?;
            Ok(survey.listing().find(named)?.header.method == Method::Physical.word())
        }
        None => Ok(component
            .source
            .cluster()
            .is_some_and(|cluster| cluster.method == Method::Physical)),
    }
}

/// Rows of a cluster at a moment.
async fn from_cluster(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    args: &Restore,
    protected: Protected,
    wanted: Wanted,
) -> Result<Planned> {
    let identities = context.identities(component).await?;
    let survey = stores::survey(&protected).await?;
    let target = match cluster::target(args)? {
        Target::Base(id) => Target::Base(survey.listing().find(&id)?.id.to_string()),
        other => other,
    };
    let scratch = Scratch::create(&cx.env, &protected)?;
    let mut first = None;
    for (store, repository, _) in &survey.open {
        let others = survey.open.iter().filter(|(name, ..)| name != store);
        let options = cluster_restore::Options {
            // It is nobody's place.
            way: cluster_restore::Way::New,
            replay: true,
            store: Some(store.clone()),
            others: others
                .map(|(name, repository, _)| (name.clone(), repository.clone()))
                .collect(),
            ..cluster::options(context, args)?
        };
        let (env, path) = (&cx.env, scratch.path());
        let planned = logical::tenant::plan_from_cluster(
            env,
            &protected,
            repository,
            &identities,
            target.clone(),
            &options,
            &path,
            &wanted,
        );
        match Box::pin(planned).await {
            Ok(plan) => {
                return Ok(Planned {
                    protected,
                    plan: Planning::Rows(plan),
                    _scratch: Some(scratch),
                });
            }
            Err(error) if error.kind() == ErrorKind::NoSuchPoint || stores::worth_another_store(&error) => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| Error::new(ErrorKind::NoSuchPoint, "restore", &component.name, "no store holds it")))
}

async fn in_store(
    cx: &Cx,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &lifeboat_repo::Identities,
    wants: &Wants,
) -> Result<Planning> {
    let env = &cx.env;
    Ok(match wants {
        Wants::Whole(options) => Planning::Whole(logical::plan(env, protected, repository, backup, identities, options).await?),
        Wants::Tables(options) => {
            Planning::Tables(logical::tables::plan(env, protected, repository, backup, identities, options).await?)
        }
        Wants::Rows(wanted) => {
            Planning::Rows(logical::tenant::plan(env, protected, repository, backup, identities, wanted).await?)
        }
    })
}

/// What a person wants.
enum Wants {
    Whole(Options),
    Tables(logical::tables::Options),
    Rows(Wanted),
}

impl Wants {
    async fn of(component: &ComponentSettings, protected: &Protected, args: &Restore) -> Result<Self> {
        if let Some(wanted) = tenant::wanted(component, args)? {
            return Ok(Self::Rows(wanted));
        }
        Ok(if args.tables.is_empty() {
            Self::Whole(options(protected, args).await?)
        } else {
            Self::Tables(tables::options(protected, args).await?)
        })
    }
}

/// What only other restores know.
fn refuse(component: &ComponentSettings, args: &Restore) -> Result<()> {
    let flag = [
        ("--path", !args.path.is_empty()),
        ("--member", args.member.is_some()),
        ("--tablespace", !args.tablespace.is_empty()),
        ("--lsn", args.point.lsn.is_some()),
        ("--timeline", args.timeline.is_some()),
        ("--lineage", args.lineage.is_some()),
        ("--no-replay", args.no_replay),
        ("--overwrite", args.overwrite),
    ];
    let Some((flag, _)) = flag.into_iter().find(|(_, given)| *given) else {
        return Ok(());
    };
    let detail = format!("{flag} is not for databases of a logical backup");
    Err(Error::new(ErrorKind::Usage, "restore", &component.name, detail)
        .with_hint("leave it out: a database is restored beside the original, under a name of its own"))
}

/// Where to, and from which database of the backup.
async fn options(protected: &Protected, args: &Restore) -> Result<Options> {
    let (server, name) = destination(protected, args).await?;
    Ok(Options {
        server,
        name,
        database: args.database.clone(),
        keep_owners: !args.no_owner,
        accept_findings: args.accept_findings,
    })
}

/// Where to: a server and a new database, a new database of the component's own server, or nothing.
pub(super) async fn destination(protected: &Protected, args: &Restore) -> Result<(ConnInfo, Option<String>)> {
    let bug = || Error::new(ErrorKind::Bug, "restore", &protected.component, "it is no PostgreSQL server");
    let cluster = protected.source.cluster().ok_or_else(bug)?;
    let Some(to) = &args.to else {
        return Ok((cluster.login.conninfo().await?, None));
    };
    let text = to.to_str().unwrap_or_default();
    if !text.contains("://") && !text.contains('=') {
        if text.is_empty() || text.contains('/') {
            let detail = "it is neither the name of a new database nor a postgresql:// URL";
            return Err(Error::new(ErrorKind::Usage, "restore to", to.display(), detail)
                .with_hint("for example --to tartware_recovery, or --to postgresql://user@host/tartware_recovery"));
        }
        return Ok((cluster.login.conninfo().await?, Some(text.to_owned())));
    }
    let info = ConnInfo::parse(text, &Surroundings::of_process())?;
    let name = info.database().to_owned();
    // The new one is made from another, which is nearly always there.
    Ok((info.with_database("postgres"), Some(name)))
}

pub(super) async fn one(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    args: &Restore,
    planned: Planned,
) -> Result<Done> {
    let Planned {
        protected,
        plan,
        _scratch,
    } = planned;
    let plan = match plan {
        Planning::Whole(plan) => plan,
        Planning::Tables(plan) => return tables::one(cx, component, args, &protected, plan).await,
        Planning::Rows(plan) => return Box::pin(tenant::one(cx, context, component, args, &protected, plan)).await,
    };
    let shown = plan_for_people(&component.name, &plan);
    if args.dry_run {
        return Ok(Done {
            exit: Exit::OK,
            json: plan_as_json(&component.name, &plan),
            text: shown,
        });
    }
    cx.out.note(&shown);
    if let Some(lacks) = plan.lacks.as_ref().filter(|_| args.in_place) {
        let detail = format!("the backup is an extract: {lacks}; in the place of the database, the rest would be missing");
        return Err(
            Error::new(ErrorKind::Refused, "restore in place", &component.name, detail).with_hint("choose another with --backup")
        );
    }
    if args.in_place && !args.yes {
        let question = format!(
            "Put it in the place of the database {}? Everybody who is connected to that is thrown out.",
            plan.database.name
        );
        ask::confirm(
            cx,
            &question,
            "restore in place",
            &component.name,
            &ask::this_command_with(&["--yes"]),
        )?;
    }
    let told = plan.notes.clone();
    let report = logical::run(&cx.env, &protected, plan).await?;
    cx.env.progress.finish();
    for note in report.notes.iter().filter(|note| !told.contains(note)) {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    let done = Done {
        exit: Exit::OK,
        json: as_json(&component.name, &report),
        text: for_people(&component.name, &report, args.in_place),
    };
    if args.in_place {
        return Box::pin(put_in_place(cx, context, component, args, &protected, &report, done)).await;
    }
    Ok(done)
}

/// The second half of a restore in place, and the backup of what came of it.
async fn put_in_place(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    args: &Restore,
    protected: &Protected,
    report: &Report,
    mut done: Done,
) -> Result<Done> {
    let restored = place::find(&protected.state_dir, &report.id)?;
    let restored = restored.ok_or_else(|| {
        let detail = format!("it is restored as {}, and that could not be written down", report.name);
        Error::new(ErrorKind::Failed, "put in its place", &report.original, detail).with_hint("rename it by hand")
    })?;
    let placed = place::promote(&cx.env, protected, restored).await?;
    cx.env.progress.finish();
    done.text.push_str(&promote::placed_for_people(&component.name, &placed));
    let reason = args.reason.clone();
    let reason = reason.unwrap_or_else(|| format!("after restore {} of backup {}", report.id, report.backup.id.short()));
    let exit = backup::fresh(cx, context, component, reason, (&mut done.text, &mut done.json)).await;
    done.exit = done.exit.worse(exit);
    if let Value::Object(fields) = &mut done.json {
        fields.insert("placed".to_owned(), promote::placed_as_json(&component.name, &placed));
    }
    Ok(done)
}

fn plan_for_people(component: &str, plan: &Plan) -> String {
    let mut text = format!(
        "{component}: the database {} of {} as {} on {}; about {} ({})\n",
        plan.database.name,
        text::time(plan.database.moment_us),
        plan.name,
        plan.server,
        human_duration(plan.estimate.expected),
        plan.estimate.basis.describe("restore"),
    );
    for (index, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", index + 1));
    }
    for note in &plan.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text
}

fn plan_as_json(component: &str, plan: &Plan) -> Value {
    json!({
        "component": component,
        "backup": document::backup(&plan.backup),
        "database": plan.database.name,
        "to": plan.name,
        "server": plan.server,
        "tables": plan.database.tables.len(),
        "rows": plan.database.rows(),
        "size_bytes": plan.database.text_bytes(),
        "estimate": document::estimate(&plan.estimate),
        "steps": plan.steps,
        "notes": plan.notes,
    })
}

fn for_people(component: &str, report: &Report, in_place: bool) -> String {
    let mut text = format!(
        "{component}: the database {} is back as {} on {}: {} of rows in {}\n",
        report.original,
        report.name,
        report.server,
        human_bytes(report.bytes),
        human_duration(report.took),
    );
    if report.tables == 0 {
        text.push_str("  no table was read back: the backup has no rows\n");
        return text;
    }
    text.push_str(&format!(
        "  {} rows in {} tables were read back: every count and digest is that of the capture\n",
        report.rows, report.tables
    ));
    text.push_str(&text::outcomes(&report.checks));
    if !in_place {
        text.push_str(&format!(
            "  to put it in the place of {}: lifeboat restore promote {}\n",
            report.original, report.id
        ));
    }
    text
}

fn as_json(component: &str, report: &Report) -> Value {
    json!({
        "component": component,
        "id": report.id,
        "backup": document::backup(&report.backup),
        "database": report.original,
        "to": report.name,
        "server": report.server,
        "tables": report.tables,
        "rows": report.rows,
        "size_bytes": report.bytes,
        "took_s": report.took.as_secs_f64(),
        "steps": report.steps.iter().map(|(step, took)| json!({ "step": step, "took_s": took.as_secs_f64() })).collect::<Vec<_>>(),
        "checks": document::outcomes(&report.checks),
        "notes": report.notes,
    })
}
