//! `lifeboat restore WHAT --from FILE` of a dump that `pg_dump` made.

use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Protected;
use lifeboat_ops::restore::artefact::Old;
use lifeboat_ops::restore::dump::{self, Dump, Options, Plan, Report, Taking};
use lifeboat_repo::Instance;
use serde_json::{Value, json};

use super::super::Cx;
use super::super::args::Restore;
use super::super::artefact::contents_json;
use super::super::context::Context;
use super::super::scratch::Scratch;
use super::logical;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

/// What other restores know.
fn refuse(what: &str, args: &Restore) -> Result<()> {
    let flag = [
        ("--path", !args.path.is_empty()),
        ("--tables", !args.tables.is_empty()),
        ("--tenant", args.tenant.is_some()),
        ("--delete", args.delete),
        ("--tablespace", !args.tablespace.is_empty()),
        ("--timeline", args.timeline.is_some()),
        ("--lineage", args.lineage.is_some()),
        ("--lsn", args.point.lsn.is_some()),
        ("--no-replay", args.no_replay),
        ("--overwrite", args.overwrite),
        ("--resume", args.resume),
        ("--in-place", args.in_place),
    ];
    let Some((flag, _)) = flag.into_iter().find(|(_, given)| *given) else {
        return Ok(());
    };
    let detail = format!("{flag} is not for dumps of PostgreSQL");
    Err(Error::new(ErrorKind::Usage, "restore", what, detail).with_hint(
        "a dump is restored beside the original, under a name of its own; `lifeboat restore promote` puts it in its place",
    ))
}

pub(crate) async fn run(cx: &Cx, context: &Context, component: &ComponentSettings, old: &Old, args: &Restore) -> Result<Exit> {
    refuse(&component.name, args)?;
    let protected = context.protected(component, &[]).await?;
    let (server, name) = logical::destination(&protected, args).await?;
    let options = Options {
        server,
        name,
        original: args.database.clone(),
        keep_owners: !args.no_owner,
    };
    let scratch = Scratch::create(&cx.env, &protected)?;
    let opened = dump::open(&cx.env, old, scratch.path()).await?;
    let plan = dump::plan(&cx.env, &protected, old, opened, &options).await?;
    cx.env.progress.finish();
    let shown = plan_for_people(&component.name, old, &plan);
    if args.dry_run {
        cx.result("dump-restore-plan", plan_as_json(&component.name, old, &plan), &shown)?;
        return Ok(Exit::OK);
    }
    cx.out.note(&shown);
    let told = plan.notes.clone();
    let report = dump::run(&cx.env, &protected, plan).await?;
    cx.env.progress.finish();
    for note in report.notes.iter().filter(|note| !told.contains(note)) {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    let shown = for_people(&component.name, old, &report);
    cx.result("dump-restore", as_json(&component.name, old, &report), &shown)?;
    Ok(Exit::OK)
}

/// `verify --from FILE`: read to its end; nothing is made anywhere.
pub(crate) async fn verify(cx: &Cx, context: &Context, old: &Old) -> Result<Exit> {
    let scratch = Scratch::below(&cx.env, &context.settings.state_dir)?;
    let clusters = context
        .settings
        .components
        .iter()
        .filter_map(|component| component.source.cluster());
    let binaries: Vec<PathBuf> = clusters.flat_map(|cluster| cluster.binaries.clone()).collect();
    let found = dump::verify(&cx.env, old, &binaries, scratch.path()).await?;
    let mut shown = format!(
        "{}: {}, {}: read to its end\n  note: whether a server takes it shows when it is restored\n",
        old.file.display(),
        words(&found),
        human_bytes(found.size_bytes)
    );
    if !found.roles.is_empty() {
        let names: Vec<&str> = found.roles.iter().map(String::as_str).collect();
        shown.push_str(&format!("  roles that it names: {}\n", names.join(", ")));
    }
    for note in &found.notes {
        shown.push_str(&format!("  note: {note}\n"));
    }
    let body = json!({ "dump": dump_as_json(old, &found), "notes": found.notes });
    cx.result("dump-verify", body, &shown)?;
    Ok(Exit::OK)
}

/// `import FILE --as SYSTEM/COMPONENT`.
pub(crate) async fn import(cx: &Cx, protected: &Protected, instance: Arc<Instance>, old: &Old, taking: Taking) -> Result<Exit> {
    let scratch = Scratch::create(&cx.env, protected)?;
    let opened = dump::open(&cx.env, old, scratch.path()).await?;
    let servers = Scratch::create(&cx.env, protected)?;
    let (found, imported) = dump::import(&cx.env, protected, instance, old, opened, taking, &servers.path()).await?;
    cx.env.progress.finish();
    let (tables, rows) = imported.counts;
    let notes: Vec<&String> = found.notes.iter().chain(&imported.notes).collect();
    let mut shown = format!(
        "{}: imported {} ({}) as backup {} of {} (known from: {}): {}, {}\n",
        protected.component,
        old.file.display(),
        words(&found),
        imported.backup.id.short(),
        text::time(imported.backup.header.moment_us),
        imported.moment_from,
        text::counted(tables, "table"),
        text::counted(rows, "row")
    );
    for note in &notes {
        shown.push_str(&format!("  note: {note}\n"));
    }
    let body = json!({
        "component": protected.component.to_string(),
        "dump": dump_as_json(old, &found),
        "backup": document::backup(&imported.backup),
        "moment_from": imported.moment_from,
        "tables": tables,
        "rows": rows,
        "notes": notes,
    });
    cx.result("dump-import", body, &shown)?;
    Ok(Exit::OK)
}

/// `custom dump of hotel, in gzip, by pg_dump 15.18 of PostgreSQL 15.18`
fn words(dump: &Dump) -> String {
    let mut words = format!("{} dump", dump.format.word());
    if let Some(database) = &dump.about.database {
        words.push_str(&format!(" of {database}"));
    }
    if !dump.contents.layers.is_empty() {
        words.push_str(&format!(", in {}", dump.contents.layers.join(" → ")));
    }
    if let Some(version) = &dump.about.pg_dump {
        words.push_str(&format!(", by pg_dump {version}"));
    }
    if let Some(version) = &dump.about.server {
        words.push_str(&format!(" of PostgreSQL {version}"));
    }
    words
}

fn plan_for_people(component: &str, old: &Old, plan: &Plan) -> String {
    let mut shown = format!(
        "{component}: {} ({}, {}), of {} ({}), as {} on {}\n",
        old.file.display(),
        words(&plan.dump),
        human_bytes(plan.dump.size_bytes),
        text::time(plan.dump.moment.0),
        plan.dump.moment.1,
        plan.name,
        plan.server,
    );
    for (index, step) in plan.steps.iter().enumerate() {
        shown.push_str(&format!("  {}. {step}\n", index + 1));
    }
    for note in &plan.notes {
        shown.push_str(&format!("  note: {note}\n"));
    }
    shown
}

fn dump_as_json(old: &Old, dump: &Dump) -> Value {
    json!({
        "file": contents_json(&old.file, &dump.contents),
        "member": dump.member,
        "format": dump.format.word(),
        "size_bytes": dump.size_bytes,
        "moment": lifeboat_repo::format_utc(dump.moment.0),
        "moment_from": dump.moment.1,
        "server_version": dump.about.server,
        "pg_dump_version": dump.about.pg_dump,
        "roles": dump.roles,
    })
}

fn plan_as_json(component: &str, old: &Old, plan: &Plan) -> Value {
    json!({
        "component": component,
        "dump": dump_as_json(old, &plan.dump),
        "database": plan.original,
        "to": plan.name,
        "server": plan.server,
        "steps": plan.steps,
        "notes": plan.notes,
    })
}

fn for_people(component: &str, old: &Old, report: &Report) -> String {
    let mut shown = format!(
        "{component}: {} is restored as {} on {} in {}\n",
        old.file.display(),
        report.name,
        report.server,
        human_duration(report.took)
    );
    if let Some(original) = report.original.as_ref().filter(|_| report.is_remembered) {
        shown.push_str(&format!(
            "  to put it in the place of {original}: lifeboat restore promote {}\n",
            report.id
        ));
    }
    shown
}

fn as_json(component: &str, old: &Old, report: &Report) -> Value {
    json!({
        "component": component,
        "id": report.id,
        "dump": dump_as_json(old, &report.dump),
        "database": report.original,
        "to": report.name,
        "server": report.server,
        "can_be_promoted": report.is_remembered,
        "took_s": report.took.as_secs_f64(),
        "notes": report.notes,
    })
}
