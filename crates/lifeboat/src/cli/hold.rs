//! `lifeboat hold`: backups that nobody may delete, until they are released; in every store of a component.

use std::collections::BTreeSet;

use lifeboat_model::time::parse_duration;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::hold::{self, Report, Request};
use lifeboat_repo::{Hold, format_utc};
use serde_json::{Value, json};

use super::Cx;
use super::args::Hold as Command;
use super::context::Context;
use crate::exit::Exit;
use crate::render::text::{self, Table};
use crate::render::{json as document, tell};

pub(super) async fn run(cx: &Cx, command: Command) -> Result<Exit> {
    let context = Context::load(cx)?;
    match command {
        Command::Add {
            what,
            backup,
            all,
            reason,
            for_how_long,
        } => {
            if backup.is_none() && !all {
                return Err(Error::new(ErrorKind::Usage, "hold", what, "nothing says which backup")
                    .with_hint("`--backup ID` holds one, `--all` holds every backup that there is and will be"));
            }
            let until_us = match for_how_long {
                None => None,
                Some(text) => Some(later(cx.env.clock.wall_us(), &text)?),
            };
            let request = Request {
                backup,
                until_us,
                reason,
            };
            add(cx, &context, &what, &request).await
        }
        Command::List { what } => {
            let found = all(&context, what.as_slice()).await?;
            print(cx, "held", &found)
        }
        Command::Release { id } => release(cx, &context, &id).await,
    }
}

/// What each component came to, by its name.
type Found = Vec<(String, Report)>;

async fn add(cx: &Cx, context: &Context, what: &str, request: &Request) -> Result<Exit> {
    let mut found = Found::new();
    for component in context.select(&[what.to_owned()])? {
        let protected = context.protected(component, &[]).await?;
        let instance = protected.instance(&context.settings.instance_name)?;
        let report = hold::add(&cx.env, &protected, &instance, request).await?;
        for store in &report.without {
            cx.out.note(&format!(
                "note: {}: the backup is not in the store {store}, so there is nothing to hold there",
                component.name
            ));
        }
        found.push((component.name.clone(), report));
    }
    print(cx, "held", &found)
}

/// The holds of everything that `what` means.
async fn all(context: &Context, what: &[String]) -> Result<Found> {
    let mut found = Found::new();
    for component in context.select(what)? {
        let protected = context.protected(component, &[]).await?;
        found.push((component.name.clone(), hold::list(&protected).await?));
    }
    Ok(found)
}

async fn release(cx: &Cx, context: &Context, id: &str) -> Result<Exit> {
    let standing = all(context, &[]).await?;
    let holds = standing.iter().flat_map(|(_, report)| &report.holds);
    let ids: BTreeSet<&str> = holds
        .map(|(_, hold)| hold.id.as_str())
        .filter(|known| !id.is_empty() && known.starts_with(id))
        .collect();
    let error = |detail: &str| {
        Error::new(ErrorKind::NoSuchPoint, "release the hold", id, detail).with_hint("`lifeboat hold list` shows all holds")
    };
    let mut ids = ids.into_iter();
    let (Some(whole), None) = (ids.next(), ids.next()) else {
        // A store that did not answer may have it.
        tell_failed(cx, &standing);
        return Err(
            if standing.iter().all(|(_, report)| report.holds.is_empty()) || !has(&standing, id) {
                error("there is no such hold")
            } else {
                error("several holds begin like that: give more of it")
            },
        );
    };
    let mut found = Found::new();
    for component in context.select(&[])? {
        let there = standing.iter().find(|(name, _)| *name == component.name);
        let holds = there.into_iter().flat_map(|(_, report)| &report.holds);
        let mut stores: Vec<String> = holds
            .filter(|(_, hold)| hold.id == whole)
            .map(|(store, _)| store.clone())
            .collect();
        if stores.is_empty() {
            continue;
        }
        stores.extend(
            there
                .into_iter()
                .flat_map(|(_, report)| &report.failed)
                .map(|(store, _)| store.clone()),
        );
        // Releasing deletes a file.
        let protected = context.upkeep(component, &stores).await?;
        let instance = protected.instance(&context.settings.instance_name)?;
        found.push((component.name.clone(), hold::release(&protected, &instance, whole).await?));
    }
    print(cx, "released", &found)
}

fn has(found: &Found, id: &str) -> bool {
    let mut holds = found.iter().flat_map(|(_, report)| &report.holds);
    !id.is_empty() && holds.any(|(_, hold)| hold.id.starts_with(id))
}

fn later(now_us: i64, text: &str) -> Result<i64> {
    let duration = parse_duration(text)?;
    Ok(now_us.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
}

/// Never quiet: a hold that is not in every store holds only half.
fn tell_failed(cx: &Cx, found: &Found) {
    if cx.out.json {
        return;
    }
    for (component, report) in found {
        for (store, error) in &report.failed {
            tell(&format!("warning: {component}: THE STORE {store} was left out: {error}"));
        }
    }
}

fn print(cx: &Cx, word: &str, found: &Found) -> Result<Exit> {
    let mut table = Table::new(&["COMPONENT", "STORES", "HOLD", "BACKUP", "UNTIL", "REASON"], &[]);
    let (mut rows, mut failed): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let mut any = false;
    for (component, report) in found {
        for (hold, stores) in together(report) {
            any = true;
            let short: String = hold.id.chars().take(8).collect();
            table.row([
                component.clone(),
                stores.join(", "),
                short,
                hold.backup.map_or_else(|| "all".to_owned(), |backup| backup.short()),
                hold.until_us.map_or_else(|| "it is released".to_owned(), text::time),
                hold.reason.clone(),
            ]);
            rows.push(json!({
                "component": component,
                "stores": stores,
                "id": hold.id,
                "backup": hold.backup.map(|backup| backup.short()),
                "until": hold.until_us.map(format_utc),
                "held_at": format_utc(hold.held_at_us),
                "instance": hold.instance,
                "reason": hold.reason,
            }));
        }
        failed.extend(
            report
                .failed
                .iter()
                .map(|(store, error)| json!({ "component": component, "store": store, "error": document::error(error) })),
        );
    }
    let text = if any {
        format!("{word}:\n{}", table.render())
    } else {
        "nothing is held\n".to_owned()
    };
    let exit = if failed.is_empty() { Exit::OK } else { Exit::INCOMPLETE };
    cx.result(
        "hold",
        json!({ "holds": rows, "released": word == "released", "failed": failed }),
        &text,
    )?;
    tell_failed(cx, found);
    Ok(exit)
}

/// Each hold once, with all its stores.
fn together(report: &Report) -> Vec<(&Hold, Vec<&str>)> {
    let mut all: Vec<(&Hold, Vec<&str>)> = Vec::new();
    for (store, hold) in &report.holds {
        match all.iter_mut().find(|(known, _)| known.id == hold.id) {
            Some((_, stores)) => stores.push(store),
            None => all.push((hold, vec![store])),
        }
    }
    all
}
