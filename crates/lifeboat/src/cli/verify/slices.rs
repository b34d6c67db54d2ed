//! `lifeboat verify --level hash --budget SIZE`: all that is stored, a slice at a time.

use std::collections::BTreeSet;

use lifeboat_model::time::{human_bytes, human_duration, parse_size};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::verify::{self, SliceReport};
use serde_json::{Value, json};

use super::super::Cx;
use super::super::args::{LevelChoice, Verify};
use super::super::context::Context;
use super::super::outcomes::Outcomes;
use super::mark_damage;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{self, json as document, text};

pub(super) async fn run(
    cx: &Cx,
    context: &Context,
    components: &[&ComponentSettings],
    args: &Verify,
    budget: &str,
) -> Result<Exit> {
    if args.level != LevelChoice::Hash {
        let detail = "--budget is for --level hash, which reads every stored file";
        return Err(Error::new(ErrorKind::Usage, "verify", budget, detail).with_hint("add --level hash"));
    }
    let budget = parse_size(budget)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        match stores(cx, context, component, args.from.as_ref(), budget).await {
            Ok((rows, text, exit)) => {
                outcomes.but(exit);
                outcomes.good(cx, json!({ "component": component.name, "slices": rows }), &text);
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "verify-slice")
}

/// In every store, because a bit that flips does so in one. One that does not answer keeps nobody from the others.
pub(super) async fn stores(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    from: Option<&String>,
    budget: u64,
) -> Result<(Vec<Value>, String, Exit)> {
    let named: Vec<String> = from.into_iter().cloned().collect();
    let stores = if named.is_empty() { &component.stores } else { &named };
    let (mut rows, mut shown, mut exit, mut first) = (Vec::new(), String::new(), Exit::OK, None);
    for store in stores {
        match one(cx, context, component, store, budget).await {
            Ok((row, text, ended)) => {
                rows.push(row);
                shown.push_str(&text);
                exit = exit.worse(ended);
            }
            Err(error) => {
                cx.env.progress.finish();
                exit = exit.worse(Exit::of(error.kind()));
                rows.push(json!({ "store": store, "error": document::error(&error) }));
                if stores.len() > 1 && !cx.out.json {
                    render::tell(&format!("{} in the store {store}:", component.name));
                    render::tell(&render::error::for_people(&error));
                }
                first = first.or(Some(error));
            }
        }
    }
    match first {
        Some(error) if shown.is_empty() => Err(error),
        _ => Ok((rows, shown, exit)),
    }
}

async fn one(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    store: &str,
    budget: u64,
) -> Result<(Value, String, Exit)> {
    let protected = context.protected(component, &[store.to_owned()]).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    // What is stored and does not count is bad data, whatever is read.
    verify::check_listing(&protected, &listing)?;
    let report = verify::slice(&cx.env, &protected, (store, &repository), &listing.backups, budget).await?;
    let bad: BTreeSet<_> = report.damaged.iter().map(|(_, _, newest)| *newest).collect();
    for backup in listing.backups.iter().filter(|backup| bad.contains(&backup.id)) {
        mark_damage(cx, context, &protected, &repository, backup).await;
    }
    let mut exit = if bad.is_empty() {
        Exit::OK
    } else {
        Exit::of(ErrorKind::Corrupt)
    };
    if let Some(error) = &report.ended {
        exit = exit.worse(Exit::of(error.kind()));
    }
    Ok((as_json(store, &report), for_people(&component.name, store, &report), exit))
}

fn for_people(component: &str, store: &str, report: &SliceReport) -> String {
    let mut shown = format!(
        "{component} in {store}: {} intact ({} of {}) in {}\n",
        text::counted(report.good, "stored file"),
        human_bytes(report.bytes),
        human_bytes(report.all_bytes),
        human_duration(report.took)
    );
    match (report.never, report.oldest) {
        (0, Some(oldest)) => shown.push_str(&format!(
            "  every one of {} was read within the last {}\n",
            text::counted(report.files, "file"),
            human_duration(oldest)
        )),
        (0, None) => {}
        (never, _) => shown.push_str(&format!("  {} were never read from here\n", text::counted(never, "file"))),
    }
    for (file, error, backup) in &report.damaged {
        shown.push_str(&format!(
            "  DAMAGED {file}, which backup {} needs: {}\n",
            backup.short(),
            error.detail()
        ));
    }
    if let Some(error) = &report.ended {
        shown.push_str(&format!("  ended early: {error}\n"));
    }
    shown
}

fn as_json(store: &str, report: &SliceReport) -> Value {
    let damaged: Vec<Value> = report
        .damaged
        .iter()
        .map(|(file, error, backup)| json!({ "file": file, "backup": backup.to_string(), "says": error.detail() }))
        .collect();
    json!({
        "store": store,
        "checked": report.good,
        "bytes": report.bytes,
        "files": report.files,
        "all_bytes": report.all_bytes,
        "never_read": report.never,
        "oldest_read_s": report.oldest.map(|oldest| oldest.as_secs_f64()),
        "damaged": damaged,
        "took_s": report.took.as_secs_f64(),
        "ended": report.ended.as_ref().map(document::error),
    })
}
