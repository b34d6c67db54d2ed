//! `lifeboat hold`: backups that nobody may delete, until they are released.

use lifeboat_model::time::parse_duration;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::protected::Protected;
use lifeboat_repo::{Hold, HoldRequest, Repository, add_hold, format_utc, list_holds, release_hold};
use serde_json::{Value, json};

use super::Cx;
use super::args::Hold as Command;
use super::context::Context;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::text::{self, Table};

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
            let mut held = Vec::new();
            for (component, store) in places(&context, &[what])? {
                let (protected, repository) = open(&context, component, store).await?;
                let backup = match &backup {
                    None => None,
                    Some(text) => Some(protected.listing(&repository).await?.find(text)?.id),
                };
                let request = HoldRequest {
                    backup,
                    until_us,
                    reason: reason.clone(),
                };
                let instance = protected.instance(&context.settings.instance_name)?;
                let hold = add_hold(
                    &cx.env,
                    &repository,
                    &protected.component,
                    &instance,
                    &protected.trust,
                    &request,
                )
                .await?;
                held.push((component.name.clone(), store.to_owned(), hold));
            }
            print(cx, &held)
        }
        Command::List { what } => {
            let mut held = Vec::new();
            for (component, store) in places(&context, what.as_slice())? {
                let (protected, repository) = open(&context, component, store).await?;
                for hold in list_holds(&repository, &protected.component, &protected.trust).await? {
                    held.push((component.name.clone(), store.to_owned(), hold));
                }
            }
            print(cx, &held)
        }
        Command::Release { id } => {
            let mut released = Vec::new();
            for (component, store) in places(&context, &[])? {
                let (protected, repository) = open(&context, component, store).await?;
                let known = list_holds(&repository, &protected.component, &protected.trust).await?;
                if !known.iter().any(|hold| hold.id.starts_with(&id)) {
                    continue;
                }
                let instance = protected.instance(&context.settings.instance_name)?;
                let hold = release_hold(&repository, &protected.component, &instance, &protected.trust, &id).await?;
                released.push((component.name.clone(), store.to_owned(), hold));
            }
            if released.is_empty() {
                return Err(
                    Error::new(ErrorKind::NoSuchPoint, "release the hold", id, "there is no such hold")
                        .with_hint("`lifeboat hold list` shows all holds"),
                );
            }
            print(cx, &released)
        }
    }
}

fn places<'c>(context: &'c Context, what: &[String]) -> Result<Vec<(&'c ComponentSettings, &'c str)>> {
    let components = context.select(what)?;
    Ok(components
        .into_iter()
        .flat_map(|component| component.stores.iter().map(move |store| (component, store.as_str())))
        .collect())
}

async fn open(context: &Context, component: &ComponentSettings, store: &str) -> Result<(Protected, Repository)> {
    let protected = context.protected(component, &[store.to_owned()]).await?;
    let repository = protected.repository().await?;
    Ok((protected, repository))
}

fn later(now_us: i64, text: &str) -> Result<i64> {
    let duration = parse_duration(text)?;
    Ok(now_us.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
}

fn print(cx: &Cx, held: &[(String, String, Hold)]) -> Result<Exit> {
    let mut table = Table::new(&["COMPONENT", "STORE", "HOLD", "BACKUP", "UNTIL", "REASON"], &[]);
    let mut rows: Vec<Value> = Vec::new();
    for (component, store, hold) in held {
        let short: String = hold.id.chars().take(8).collect();
        table.row([
            component.clone(),
            store.clone(),
            short,
            hold.backup.map_or_else(|| "all".to_owned(), |backup| backup.short()),
            hold.until_us.map_or_else(|| "released".to_owned(), text::time),
            hold.reason.clone(),
        ]);
        rows.push(json!({
            "component": component,
            "store": store,
            "id": hold.id,
            "backup": hold.backup.map(|backup| backup.short()),
            "until": hold.until_us.map(format_utc),
            "held_at": format_utc(hold.held_at_us),
            "instance": hold.instance,
            "reason": hold.reason,
        }));
    }
    let text = if held.is_empty() {
        "nothing is held\n".to_owned()
    } else {
        table.render()
    };
    cx.out.result("hold", json!({ "holds": rows }), &text)?;
    Ok(Exit::OK)
}
