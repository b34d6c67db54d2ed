//! `lifeboat prune`: what stays and why, what goes and when, what was deleted; every component and store by itself.

use lifeboat_model::retention::Compliance;
use lifeboat_model::time::{human_bytes, human_duration, parse_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::protected::Protected;
use lifeboat_ops::prune::{self, Fate, Missing, Report, Request, Window};
use lifeboat_ops::restore::logical::place;
use lifeboat_ops::store::{self as verb, Chilled};
use lifeboat_repo::{Amount, format_utc};
use serde_json::{Value, json};

use super::Cx;
use super::args::Prune;
use super::context::Context;
use super::outcomes::Outcomes;
use super::retention::Held;
use super::store::{bucket, wanted};
use crate::config::retention::DEFAULT_GRACE;
use crate::config::{ComponentSettings, StorePlace, StoreSettings};
use crate::exit::Exit;
use crate::render::{json as document, tell, text};

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
    let several = pairs.len() > 1;
    for (component, store) in pairs {
        let mut request = request(&context, component, args.dry_run || args.report);
        request.grace = grace.unwrap_or(request.grace);
        match one(cx, &context, component, store, &request).await {
            Ok(done) if args.report => {
                cx.env.progress.finish();
                Held::of(component, store, &done.report.compliance).tell(cx, &mut outcomes);
            }
            Ok(done) => {
                cx.env.progress.finish();
                for note in &done.report.pruned.notes {
                    cx.out.note(&format!("note: {} in {store}: {note}", component.name));
                }
                let json = as_json(&component.name, store, &done, args.dry_run);
                outcomes.good(cx, json, &words(&component.name, store, &done, args.dry_run));
                if let Some(Err(error)) = &done.chilled {
                    outcomes.but_then(cx, Exit::INCOMPLETE);
                    tell_warm(&component.name, store, error);
                }
            }
            Err(error) => {
                if several && !cx.out.json {
                    tell(&format!("{} in {store} was NOT pruned:", component.name));
                }
                outcomes.bad(cx, &component.name, error);
            }
        }
    }
    if args.report {
        return outcomes.finish(cx, "retention");
    }
    for component in context.select(args.what.as_slice())? {
        if let Err(error) = replaced(cx, &context, component, args.dry_run).await {
            outcomes.but_then(cx, Exit::INCOMPLETE);
            tell(&format!(
                "warning: {}: what was replaced could not be dropped: {error}",
                component.name
            ));
        }
    }
    outcomes.finish(cx, "prune")
}

/// Databases whose place restored ones took, once they were kept long enough.
async fn replaced(cx: &Cx, context: &Context, component: &ComponentSettings, dry_run: bool) -> Result<()> {
    let Some(cluster) = component.source.cluster() else {
        return Ok(());
    };
    let protected = context.protected(component, &[]).await?;
    for kept in place::drop_old(&cx.env, &protected, cluster.logical.keep_old, dry_run).await? {
        let would = if kept.is_dropped { "dropped" } else { "would drop" };
        let since = text::time(kept.since_us);
        cx.out.note(&format!(
            "note: {}: {would} the database {}, which was replaced {since}",
            component.name, kept.name
        ));
    }
    Ok(())
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

/// A prune, and the step after it: packs that recent backups no longer reach go cold, where the store has a cold class.
struct Done {
    report: Report,
    chilled: Option<Result<Chilled>>,
}

/// With the credentials that may delete, where the store has some.
async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, store: &str, request: &Request) -> Result<Done> {
    let protected = context.upkeep(component, &[store.to_owned()]).await?;
    let instance = protected.instance(&context.settings.instance_name)?;
    let report = prune::run(&cx.env, &protected, instance, request).await?;
    let chilled = if request.dry_run {
        None
    } else {
        chill(cx, &protected, context.store(store)?).await.transpose()
    };
    Ok(Done { report, chilled })
}

/// What its rules keep in each of its stores; nothing is removed.
pub(super) async fn kept(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<Vec<Compliance>> {
    let request = request(context, component, true);
    let mut kept = Vec::new();
    for store in &component.stores {
        kept.extend(one(cx, context, component, store, &request).await?.report.compliance);
    }
    Ok(kept)
}

async fn chill(cx: &Cx, protected: &Protected, store: &StoreSettings) -> Result<Option<Chilled>> {
    let StorePlace::S3(s3) = &store.place else { return Ok(None) };
    let Some(cold) = wanted(s3).cold else { return Ok(None) };
    let listing = protected.listing(&protected.repository().await?).await?;
    let bucket = bucket(s3).await?;
    verb::chill(&cx.env, &bucket, &protected.component, &listing, &cold)
        .await
        .map(Some)
}

fn tell_warm(component: &str, store: &str, error: &Error) {
    tell(&format!(
        "warning: {component}: old packs in {store} could not be moved to the cold class and stay where they are: {error}"
    ));
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
            Ok(Done { report, chilled }) => {
                for note in &report.pruned.notes {
                    cx.out.note(&format!("note: {} in {store}: {note}", component.name));
                }
                if let Some(Err(error)) = &chilled {
                    well = false;
                    tell_warm(&component.name, store, error);
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
                tell(&format!(
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

/// Why a backup that no rule keeps is not condemned yet.
const LATER: &str = "; a backup of the last 48 hours may build on it, so a later prune condemns it";

/// Whether a backup was deleted by this prune, or is condemned by its census.
fn goes_now(report: &Report, fate: &Fate) -> bool {
    let pruned = &report.pruned;
    let mut named = pruned.swept.backups.iter().chain(&pruned.condemned.backups);
    named.any(|id| *id == fate.backup.id)
}

fn words(component: &str, store: &str, done: &Done, dry_run: bool) -> String {
    let report = &done.report;
    let mut out = format!("{component} in {store}:\n");
    for fate in &report.fates {
        let named = goes_now(report, fate);
        let word = match (fate.stays, named) {
            (true, _) => "stays",
            (false, true) => "goes ",
            (false, false) => "later",
        };
        out.push_str(&format!(
            "  {word}  {:<18} {}  {}{}\n",
            fate.backup.id.short(),
            text::time(fate.backup.header.moment_us),
            fate.why,
            if fate.stays || named { "" } else { LATER }
        ));
    }
    out.push_str(&report.window.as_ref().map(window).unwrap_or_default());
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
    if let Some(Ok(chilled)) = &done.chilled
        && chilled.packs > 0
    {
        out.push_str(&format!(
            "  moved {} ({}) to the cold class\n",
            text::counted(chilled.packs, "pack"),
            human_bytes(chilled.bytes)
        ));
    }
    out.push_str(&format!("  took {}\n", human_duration(report.took)));
    out
}

/// What becomes of the recovery window.
fn window(window: &Window) -> String {
    let asked = human_duration(window.asked);
    let mut out = match window.since_us {
        None => format!("  window of {asked}: nothing can be reached\n"),
        Some(since) if since <= window.from_us => {
            format!("  window of {asked}: reaches back to {}\n", text::time(window.from_us))
        }
        Some(since) => format!(
            "  window of {asked}: reaches back to {} only, where the first backup ended\n",
            text::time(since)
        ),
    };
    for Missing { range, until } in &window.missing {
        let next = match until {
            Some((backup, at_us)) => format!("before {} (backup {})", text::time(*at_us), backup.short()),
            None => "until there is a new backup".to_owned(),
        };
        out.push_str(&format!(
            "  log is missing, {range}: no moment behind that can be reached {next}\n"
        ));
    }
    out
}

fn window_as_json(window: &Window) -> Value {
    let missing = |missing: &Missing| {
        json!({
            "timeline": missing.range.timeline.number(),
            "start": missing.range.start.to_string(),
            "end": missing.range.end.to_string(),
            "until_backup": missing.until.map(|(backup, _)| backup.short()),
            "until": missing.until.map(|(_, at_us)| format_utc(at_us)),
        })
    };
    json!({
        "asked_s": window.asked.as_secs(),
        "from": format_utc(window.from_us),
        "since": window.since_us.map(format_utc),
        "missing": window.missing.iter().map(missing).collect::<Vec<_>>(),
    })
}

fn as_json(component: &str, store: &str, done: &Done, dry_run: bool) -> Value {
    let report = &done.report;
    let chilled = done.chilled.as_ref().map(|chilled| match chilled {
        Ok(chilled) => json!({ "packs": chilled.packs, "bytes": chilled.bytes, "cold_before": chilled.cold_before }),
        Err(error) => json!({ "error": document::error(error) }),
    });
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
        .map(|fate| json!({ "backup": document::backup(&fate.backup), "stays": fate.stays, "condemned": goes_now(report, fate), "why": fate.why }))
        .collect();
    json!({
        "component": component,
        "store": store,
        "dry_run": dry_run,
        "backups": fates,
        "window": report.window.as_ref().map(window_as_json),
        "condemned": amount(&report.pruned.condemned),
        "swept": amount(&report.pruned.swept),
        "due": report.pruned.due_us.map(format_utc),
        "tidied": report.pruned.tidied,
        "chilled": chilled,
        "notes": report.pruned.notes,
        "took_s": report.took.as_secs_f64(),
    })
}
