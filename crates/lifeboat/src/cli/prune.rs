//! `lifeboat prune`: what stays and why, what goes and when, what was deleted; every component and store by itself.

use lifeboat_model::time::{human_bytes, human_duration, parse_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::prune::{self, Report, Request};
use lifeboat_repo::{Amount, format_utc};
use serde_json::{Value, json};

use super::Cx;
use super::args::Prune;
use super::context::Context;
use super::outcomes::Outcomes;
use crate::config::ComponentSettings;
use crate::config::retention::DEFAULT_GRACE;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, args: Prune) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(args.what.as_slice())?;
    if let Some(store) = &args.store {
        context.store(store)?;
    }
    let mut pairs: Vec<(&ComponentSettings, &str)> = Vec::new();
    for component in components {
        let stores = component.stores.iter().map(String::as_str);
        let wanted = stores.filter(|name| args.store.as_deref().is_none_or(|store| store == *name));
        pairs.extend(wanted.map(|store| (component, store)));
    }
    if pairs.is_empty() {
        let store = args.store.unwrap_or_default();
        return Err(
            Error::new(ErrorKind::Usage, "prune in", store, "no such component has backups there")
                .with_hint("`to:` in lifeboat.yaml says where the backups of a component go"),
        );
    }
    let grace = args.grace.as_deref().map(parse_duration).transpose()?;
    let mut outcomes = Outcomes::new(pairs.len());
    for (component, store) in pairs {
        let mut request = request(&context, component, args.dry_run);
        request.grace = grace.unwrap_or(request.grace);
        match one(cx, &context, component, store, &request).await {
            Ok(report) => {
                cx.env.progress.finish();
                for note in &report.pruned.notes {
                    cx.out.note(&format!("note: {} in {store}: {note}", component.name));
                }
                let json = as_json(&component.name, store, &report, args.dry_run);
                outcomes.good(json, &words(&component.name, store, &report, args.dry_run));
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "prune")
}

/// The rules of a component.
fn request(context: &Context, component: &ComponentSettings, dry_run: bool) -> Request {
    let rules = component
        .retention
        .as_ref()
        .and_then(|name| context.settings.retention.get(name));
    Request {
        policy: rules.map(|rules| rules.policy.clone()),
        grace: rules.map_or(DEFAULT_GRACE, |rules| rules.grace),
        timezone: context.settings.timezone.clone(),
        dry_run,
    }
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, store: &str, request: &Request) -> Result<Report> {
    let protected = context.protected(component, &[store.to_owned()]).await?;
    let instance = protected.instance(&context.settings.instance_name)?;
    prune::run(&cx.env, &protected, instance, request).await
}

/// The step of a prune that is due after a backup that succeeded, in every store of the component. Nothing where the configuration has no
/// rules for it, switches this off, or lets another instance prune. Returns whether all went well; what did not is told.
pub(super) async fn after_backup(cx: &Cx, context: &Context, component: &ComponentSettings) -> bool {
    let rules = component
        .retention
        .as_ref()
        .and_then(|name| context.settings.retention.get(name));
    let may = context.settings.instances.get(&context.settings.instance_name);
    if !rules.is_some_and(|rules| rules.after_backup) || !may.is_some_and(|(_, rights)| rights.prune) {
        return true;
    }
    let request = request(context, component, false);
    let mut well = true;
    for store in &component.stores {
        match one(cx, context, component, store, &request).await {
            Ok(report) => {
                for note in &report.pruned.notes {
                    cx.out.note(&format!("note: {} in {store}: {note}", component.name));
                }
                let swept = &report.pruned.swept;
                if !swept.is_empty() {
                    cx.out.note(&format!(
                        "note: {}: deleted from {store} what retention had given up: {}",
                        component.name,
                        amount(swept)
                    ));
                }
            }
            Err(error) => {
                well = false;
                crate::render::tell(&format!(
                    "warning: {}: the backup stands, but old ones in {store} could not be pruned: {error}",
                    component.name
                ));
            }
        }
    }
    cx.env.progress.finish();
    well
}

fn amount(amount: &Amount) -> String {
    format!(
        "{} and {} ({})",
        text::counted(amount.backups.len() as u64, "backup"),
        text::counted(amount.files, "file"),
        human_bytes(amount.bytes)
    )
}

fn words(component: &str, store: &str, report: &Report, dry_run: bool) -> String {
    let mut out = format!("{component} in {store}:\n");
    for fate in &report.fates {
        let word = if fate.stays { "stays" } else { "goes " };
        out.push_str(&format!(
            "  {word}  {:<18} {}  {}\n",
            fate.backup.id.short(),
            text::time(fate.backup.header.moment_us),
            fate.why
        ));
    }
    let pruned = &report.pruned;
    if !pruned.swept.is_empty() {
        out.push_str(&format!("  deleted: {}\n", amount(&pruned.swept)));
    }
    match pruned.due_us {
        _ if pruned.condemned.is_empty() => out.push_str("  nothing is to be deleted\n"),
        Some(due) => out.push_str(&format!(
            "  condemned: {}; a prune after {} deletes them\n",
            amount(&pruned.condemned),
            text::time(due)
        )),
        None if dry_run => out.push_str(&format!("  would be condemned: {}\n", amount(&pruned.condemned))),
        None => {}
    }
    if pruned.tidied > 0 {
        out.push_str(&format!(
            "  removed {}\n",
            text::counted(pruned.tidied, "small file that nobody needs")
        ));
    }
    out.push_str(&format!("  took {}\n", human_duration(report.took)));
    out
}

fn as_json(component: &str, store: &str, report: &Report, dry_run: bool) -> Value {
    let amount = |amount: &Amount| {
        json!({
            "backups": amount.backups.iter().map(|id| id.short()).collect::<Vec<_>>(),
            "files": amount.files,
            "bytes": amount.bytes,
        })
    };
    let fates: Vec<Value> = report
        .fates
        .iter()
        .map(|fate| json!({ "backup": document::backup(&fate.backup), "stays": fate.stays, "why": fate.why }))
        .collect();
    json!({
        "component": component,
        "store": store,
        "dry_run": dry_run,
        "backups": fates,
        "condemned": amount(&report.pruned.condemned),
        "swept": amount(&report.pruned.swept),
        "due": report.pruned.due_us.map(format_utc),
        "tidied": report.pruned.tidied,
        "notes": report.pruned.notes,
        "took_s": report.took.as_secs_f64(),
    })
}
