//! `lifeboat restore`: plan, ask, restore, and after an in-place restore a fresh backup.

mod cluster;
pub(super) mod dump;
mod logical;
mod tables;
mod tenant;

use std::path::{Path, PathBuf};

use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_ops::protected::Protected;
use lifeboat_ops::restore::record::{self, Restored};
use lifeboat_ops::restore::{self, Destination, Plan, Report};
use lifeboat_ops::store::thaw;
use lifeboat_ops::stores;
use lifeboat_repo::{Backup, Identities, Reader, Repository};
use serde_json::{Value, json};

use super::args::{ExportFormat, Point, Restore};
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, artefact, ask, backup, care, export, time};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{self, json as document, text};

pub(super) async fn run(cx: &Cx, args: Restore) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(file) = artefact::file_of(&context, args.from.as_deref()) {
        cluster::refuse_two_places(args.from.as_deref().unwrap_or_default(), &args)?;
        return Box::pin(artefact::restore(cx, &context, file, &args)).await;
    }
    let what = args.what.clone().unwrap_or_default();
    let components = context.select(std::slice::from_ref(&what))?;
    if components.len() > 1 && (args.to.is_some() || args.point.backup.is_some()) {
        return Err(Error::new(
            ErrorKind::Usage,
            "restore",
            what,
            "--to and --backup name one file and one backup, and this system has several components",
        )
        .with_hint("name the component: SYSTEM/COMPONENT; or choose the moment of all of them with --at or --before"));
    }
    let mut outcomes = Outcomes::new(components.len());
    // Everything that can be known is known before the first file of a system is replaced.
    let mut planned = Vec::new();
    let mut failed = false;
    for component in components {
        match plan(cx, &context, component, &args).await {
            Ok(plan) => planned.push((component, plan)),
            Err(error) => {
                failed = true;
                outcomes.bad(cx, &component.name, error);
            }
        }
    }
    if failed && args.in_place && !planned.is_empty() {
        cx.out
            .note("nothing was replaced: a system is restored in place only when all of its components can be");
        planned.clear();
    }
    let names: Vec<&str> = planned.iter().map(|(component, _)| component.name.as_str()).collect();
    if names.len() > 1 {
        cx.out.note(&format!("in the order of recovery: {}", names.join(" → ")));
    }
    let mut planned = planned.into_iter();
    for (component, step) in planned.by_ref() {
        let done = match step {
            Step::Done(done) => Ok(done),
            Step::ToDo(planned) => Box::pin(one(cx, &context, component, &args, *planned)).await,
            Step::Cluster(planned) => Box::pin(cluster::one(cx, component, &args, *planned)).await,
            Step::Databases(planned) => Box::pin(logical::one(cx, &context, component, &args, *planned)).await,
        };
        match done {
            Ok(done) => {
                outcomes.but(done.exit);
                outcomes.good(cx, done.json, &done.text);
            }
            Err(error) => {
                outcomes.bad(cx, &component.name, error);
                break;
            }
        }
    }
    // What comes later may need what has just failed.
    let left: Vec<&str> = planned.map(|(component, _)| component.name.as_str()).collect();
    if !left.is_empty() {
        cx.out.note(&format!(
            "not begun, because what comes before it failed: {}; this goes on where it stopped: {}",
            left.join(", "),
            ask::this_command_with(if args.resume { &[] } else { &["--resume"] })
        ));
        for name in left {
            outcomes.not_begun(name);
        }
    }
    outcomes.finish(cx, if args.dry_run { "restore-plan" } else { "restore" })
}

/// `restore export`: a restore whose destination is anywhere and belongs to whoever runs it.
pub(super) async fn export(
    cx: &Cx,
    what: String,
    to: PathBuf,
    backup: String,
    (format, extract, database): (Option<ExportFormat>, Option<String>, Option<String>),
) -> Result<Exit> {
    if format.is_some() || extract.is_some() || to.extension().is_some_and(|ending| ending == "sql" || ending == "tar") {
        let as_what = (format, extract.as_deref(), database.as_deref());
        return export::run(cx, &what, &to, &backup, as_what).await;
    }
    let point = Point {
        backup: (backup != "latest").then_some(backup),
        ..Point::default()
    };
    let args = Restore {
        command: None,
        what: Some(what),
        point,
        from: None,
        member: None,
        path: Vec::new(),
        tablespace: Vec::new(),
        timeline: None,
        lineage: None,
        no_replay: false,
        database: None,
        tables: Vec::new(),
        tenant: None,
        as_tenant: None,
        delete: false,
        no_owner: false,
        outside_links: true,
        to: Some(to),
        overwrite: false,
        resume: false,
        in_place: false,
        dry_run: false,
        yes: false,
        reason: None,
        accept_findings: false,
    };
    run(cx, args).await
}

struct Done {
    exit: Exit,
    json: Value,
    text: String,
}

/// Everything a restore works on.
struct Planned {
    protected: Protected,
    backup: Backup,
    identities: Identities,
    plan: Plan,
    /// The same backup in other stores.
    elsewhere: Vec<(String, Repository, Backup)>,
}

/// A component of the system that is restored.
enum Step {
    /// An earlier run restored it.
    Done(Done),
    /// It is to be restored.
    ToDo(Box<Planned>),
    /// The same of a PostgreSQL cluster.
    Cluster(Box<cluster::Planned>),
    /// Databases of a logical backup are to be restored.
    Databases(Box<logical::Planned>),
}

async fn plan(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Restore) -> Result<Step> {
    if logical::is_meant(context, component, args).await? {
        let planned = Box::pin(logical::plan(cx, context, component, args)).await?;
        return Ok(Step::Databases(Box::new(planned)));
    }
    if component.source.cluster().is_some() {
        let planned = cluster::plan(cx, context, component, args).await?;
        return Ok(Step::Cluster(Box::new(planned)));
    }
    cluster::refuse_for_others(component, args)?;
    let choice = time::choice(&args.point)?;
    let protected = context.protected(component, args.from.as_slice()).await?;
    let mut found = stores::find(&protected, &choice).await?;
    if args.resume
        && let Some((_, _, backup)) = found.places.first()
        && let Some(earlier) = earlier(&protected, backup, args)?
    {
        return Ok(Step::Done(already(&component.name, &earlier)));
    }
    let identities = context.identities(component).await?;
    // The preferred store first; another one where something there is missing or damaged.
    while !found.places.is_empty() {
        let (store, repository, backup) = found.places.remove(0);
        let destination = destination(component, args, &backup);
        let chosen = selection(args);
        match restore::plan(&cx.env, &protected, &repository, &backup, &identities, destination, &chosen).await {
            Ok(mut plan) => {
                plan.notes.extend(found.notes);
                wait_for_archive(context, component, args, &repository, &backup, &mut plan).await?;
                return Ok(Step::ToDo(Box::new(Planned {
                    protected,
                    backup,
                    identities,
                    plan,
                    elsewhere: found.places,
                })));
            }
            Err(error) if !found.places.is_empty() && stores::worth_another_store(&error) => {
                found
                    .notes
                    .push(format!("the store {store} cannot give it: {error}; another store is used"));
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(
        ErrorKind::NoSuchPoint,
        "restore",
        &component.name,
        "no store holds it",
    ))
}

/// What lies in an archive is asked for; until it is there the restore cannot begin.
async fn wait_for_archive(
    context: &Context,
    component: &ComponentSettings,
    args: &Restore,
    repository: &Repository,
    backup: &Backup,
    plan: &mut Plan,
) -> Result<()> {
    let Some(bucket) = care::bucket_of(context, component, repository).await? else {
        return Ok(());
    };
    let thaw = thaw(&bucket, &backup.header.component, backup, !args.dry_run).await?;
    if thaw.is_done() {
        return Ok(());
    }
    if !args.dry_run {
        return Err(thaw.into_error(&backup.header.component));
    }
    plan.estimate = plan.estimate.after(thaw.expected, thaw.slowest);
    plan.notes.push(thaw.says());
    Ok(())
}

/// The restore of an earlier run that this one would only repeat: its data still lies where it was put. After an in-place restore, a backup
/// that is newer than that restore holds nothing but what came of it.
fn earlier(protected: &Protected, backup: &Backup, args: &Restore) -> Result<Option<Restored>> {
    let name = backup.id.to_string();
    for restored in record::known(&protected.state_dir)?.into_iter().rev() {
        let of_this = restored.component == protected.component.as_str() && restored.replaced == args.in_place;
        let same = restored.backup == name || (args.in_place && backup.header.moment_us >= restored.at_us);
        if of_this && same && restored.is_there()? == Some(true) {
            return Ok(Some(restored));
        }
    }
    Ok(None)
}

fn already(component: &str, restored: &Restored) -> Done {
    Done {
        exit: Exit::OK,
        json: json!({ "component": component, "id": restored.id, "path": restored.path, "already_restored": true }),
        text: format!(
            "{component}: restore {} put it into {} already\n",
            restored.id,
            restored.path.display()
        ),
    }
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Restore, planned: Planned) -> Result<Done> {
    let Planned {
        protected,
        backup,
        identities,
        plan,
        elsewhere,
    } = planned;
    let shown = plan_for_people(&component.name, &plan);
    if args.dry_run {
        return Ok(Done {
            exit: Exit::OK,
            json: plan_as_json(&component.name, &plan),
            text: shown,
        });
    }
    cx.out.note(&shown);
    if matches!(plan.destination, Destination::InPlace { .. }) && !args.yes {
        let path = plan.destination.path().display();
        let question = format!(
            "Replace {path} with backup {} of {}?",
            backup.id.short(),
            text::time(backup.header.moment_us)
        );
        ask::confirm(
            cx,
            &question,
            "restore in place",
            &component.name,
            &ask::this_command_with(&["--yes"]),
        )?;
    }
    let (env, destination, told) = (&cx.env, plan.destination, plan.notes);
    let mut result = from_store(env, component, args, &protected, (&plan.reader, &backup), destination.clone()).await;
    for (store, repository, backup) in elsewhere {
        let Err(error) = &result else { break };
        if !stores::worth_another_store(error) {
            break;
        }
        render::tell(&format!(
            "warning: {}: {error}; it is read from the store {store} instead",
            component.name
        ));
        result = match Reader::open(env, &repository, &backup, &identities).await {
            Ok(reader) => from_store(env, component, args, &protected, (&reader, &backup), destination.clone()).await,
            Err(error) => Err(error),
        };
    }
    let report = result?;
    cx.env.progress.finish();
    for note in report.notes.iter().filter(|note| !told.contains(note)) {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    Box::pin(finish(cx, context, component, args, report)).await
}

/// The restore of `from`, a backup in one store.
async fn from_store(
    env: &Env,
    component: &ComponentSettings,
    args: &Restore,
    protected: &Protected,
    from: (&Reader, &Backup),
    destination: Destination,
) -> Result<Report> {
    let (reader, backup) = from;
    if component.source.files().is_none() && args.path.is_empty() {
        return restore::run_opened(env, protected, backup, reader, destination, args.accept_findings).await;
    }
    let chosen = selection(args);
    restore::run_selected_opened(env, protected, backup, reader, destination, &chosen).await
}

fn selection(args: &Restore) -> restore::Selection {
    restore::Selection {
        paths: args.path.clone(),
        outside_links: args.outside_links,
    }
}

/// After an in-place restore the restored state is protected at once.
async fn finish(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Restore, report: Report) -> Result<Done> {
    let mut done = Done {
        exit: Exit::OK,
        json: as_json(&component.name, &report),
        text: for_people(&component.name, &report, args.in_place),
    };
    // What --overwrite replaced is not the protected original.
    if !args.in_place {
        return Ok(done);
    }
    let reason = args.reason.clone();
    let reason = reason.unwrap_or_else(|| format!("after restore {} of backup {}", report.id, report.backup.id.short()));
    let exit = backup::fresh(cx, context, component, reason, (&mut done.text, &mut done.json)).await;
    done.exit = done.exit.worse(exit);
    Ok(done)
}

fn destination(component: &ComponentSettings, args: &Restore, backup: &Backup) -> Destination {
    let original = component.source.path().unwrap_or(Path::new("")).to_path_buf();
    if args.in_place {
        return Destination::InPlace { path: original };
    }
    match &args.to {
        Some(path) if args.overwrite && path.symlink_metadata().is_ok() => Destination::InPlace { path: path.clone() },
        Some(path) => Destination::Beside {
            path: path.clone(),
            // A database is restored for whoever asks for it; files are nothing without their owners.
            keep_owner: component.source.files().is_some() && rustix::process::geteuid().is_root(),
        },
        // Beside the original the owner is kept where that is possible, because the application will want to read it.
        None => Destination::Beside {
            path: match component.source.database() {
                Some(database) => beside(database, backup.id.seq),
                None => beside_folder(&original, &component.name, backup.id.seq),
            },
            keep_owner: rustix::process::geteuid().is_root(),
        },
    }
}

/// `data/shop.db` → `data/shop.restored-12.db`.
fn beside(original: &Path, seq: u64) -> PathBuf {
    let stem = original.file_stem().unwrap_or_default().to_string_lossy();
    original.with_file_name(format!("{stem}.restored-{seq}.db"))
}

/// `/etc/app` → `/etc/app.restored-12`; what lies in the root folder of the machine goes to where the command runs.
fn beside_folder(original: &Path, component: &str, seq: u64) -> PathBuf {
    match original.file_name() {
        Some(name) => original.with_file_name(format!("{}.restored-{seq}", name.to_string_lossy())),
        None => PathBuf::from(format!("{}.restored-{seq}", component.replace('/', "-"))),
    }
}

fn plan_for_people(component: &str, plan: &Plan) -> String {
    let estimate = &plan.estimate;
    let mut text = format!(
        "{component}: backup {} of {}, {}, to {}; about {} ({})\n",
        plan.backup.id.short(),
        text::time(plan.backup.header.moment_us),
        human_bytes(plan.read.size_bytes),
        plan.destination.path().display(),
        human_duration(estimate.expected),
        estimate.basis.describe("restore"),
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
        "to": plan.destination.path(),
        "in_place": matches!(plan.destination, Destination::InPlace { .. }),
        "fetch_bytes": plan.read.fetch_bytes,
        "size_bytes": plan.read.size_bytes,
        "free_bytes": plan.free_bytes,
        "estimate": document::estimate(&plan.estimate),
        "steps": plan.steps,
        "notes": plan.notes,
    })
}

fn for_people(component: &str, report: &Report, in_place: bool) -> String {
    let mut text = format!(
        "{component}: restored backup {} of {} to {}: {} in {} ({}), checked: {}\n",
        report.backup.id.short(),
        text::time(report.backup.header.moment_us),
        report.path.display(),
        human_bytes(report.backup.header.size_bytes),
        human_duration(report.took),
        text::rate(report.backup.header.size_bytes, report.took),
        text::checked(&report.findings),
    );
    for note in report.findings.notes() {
        text.push_str(&format!("  note: {note}\n"));
    }
    if let Some(folder) = &report.undo_folder {
        text.push_str(&format!(
            "  the old files are kept in {}\n  to take this back: lifeboat restore undo {}\n",
            folder.display(),
            report.id
        ));
    } else if !in_place {
        text.push_str(&format!(
            "  to put it in the place of the original: lifeboat restore promote {}\n",
            report.id
        ));
    }
    text
}

fn as_json(component: &str, report: &Report) -> Value {
    json!({
        "component": component,
        "id": report.id,
        "backup": document::backup(&report.backup),
        "path": report.path,
        "fetched_bytes": report.fetched.fetched_bytes,
        "written_bytes": report.fetched.written_bytes,
        "took_s": report.took.as_secs_f64(),
        "findings": document::findings(&report.findings),
        "undo_folder": report.undo_folder,
        "notes": report.notes,
    })
}
