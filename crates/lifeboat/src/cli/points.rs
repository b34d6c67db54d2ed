//! `lifeboat points`: the moments that can be restored: those of the backups, and where a log is kept every moment that it reaches.

use lifeboat_model::wal::{Moment, Window};
use lifeboat_model::{Error, Result};
use lifeboat_ops::reach::{self, Reach};
use lifeboat_ops::stores::{Held, Survey};
use lifeboat_repo::{Identities, Listing};
use serde_json::{Value, json};

use super::args::Listed;
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, list};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render;
use crate::render::text::{self, Table};

pub(super) async fn run(cx: &Cx, args: &Listed) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(args.what.as_slice())?;
    let mut outcomes = Outcomes::new(components.len());
    let several = args.from.is_none() && components.iter().any(|component| component.stores.len() > 1);
    let mut table = match several {
        true => Table::new(&["COMPONENT", "POINT", "AGE", "BACKUP", "STORES"], &[2]),
        false => Table::new(&["COMPONENT", "POINT", "AGE", "BACKUP"], &[2]),
    };
    let now = cx.env.clock.wall_us();
    for component in components {
        match list::survey(&context, component, args).await {
            Ok(survey) => {
                let mut points: Vec<_> = survey
                    .backups
                    .iter()
                    .filter(|held| !held.backup.header.extract && !held.backup.header.incomplete)
                    .collect();
                points.sort_by_key(|held| std::cmp::Reverse((held.backup.header.moment_us, held.backup.id)));
                for held in &points {
                    let moment_us = held.backup.header.moment_us;
                    let mut cells = vec![
                        component.name.clone(),
                        text::time(moment_us),
                        text::ago(now, moment_us),
                        held.backup.id.short(),
                    ];
                    if several {
                        cells.push(held.stores.join(", "));
                    }
                    table.row(cells);
                }
                let row = |held: &&Held| {
                    let moment = lifeboat_repo::format_utc(held.backup.header.moment_us);
                    json!({ "moment": moment, "backup": held.backup.id.short(), "stores": held.stores })
                };
                let rows: Vec<Value> = points.iter().map(row).collect();
                let windows = match component.source.cluster() {
                    Some(_) => windows(&context, component, args, &survey).await,
                    None => Vec::new(),
                };
                for window in &windows {
                    let mut cells = vec![
                        component.name.clone(),
                        window.says.clone(),
                        String::new(),
                        window.backups.join(", "),
                    ];
                    if several {
                        cells.push(window.store.clone());
                    }
                    table.row(cells);
                }
                let windows: Vec<Value> = windows.into_iter().map(|window| window.json).collect();
                outcomes.but(list::tell_away(&component.name, &survey));
                let away = list::away_as_json(&survey);
                outcomes.good(
                    cx,
                    json!({ "component": component.name, "points": rows, "windows": windows, "away": away }),
                    "",
                );
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish_with(cx, "points", |_| table.render())
}

/// A stretch of moments, every one of which can be restored from one store.
struct Stretch {
    store: String,
    says: String,
    backups: Vec<String>,
    json: Value,
}

/// What the log of a cluster reaches, in each store. One whose log cannot be judged is told, and has none.
async fn windows(context: &Context, component: &ComponentSettings, args: &Listed, survey: &Survey) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let asked = async {
        let protected = context.protected(component, args.from.as_slice()).await?;
        // Without the key the way from one timeline to the next is not known; all else is.
        let identities = context.identities(component).await.unwrap_or_else(|_away| Identities::none());
        Ok::<_, Error>((protected, identities))
    };
    let (protected, identities) = match asked.await {
        Ok(asked) => asked,
        Err(error) => {
            render::tell(&format!("warning: {}: {error}", component.name));
            return stretches;
        }
    };
    for (store, repository, backups) in &survey.open {
        let listing = Listing::of(backups.clone());
        match reach::look(&protected, repository, &listing, &identities).await {
            Ok(found) => {
                let several = found.len() > 1;
                for reach in &found {
                    for note in &reach.notes {
                        render::tell(&format!("warning: {}: the log in the store {store}: {note}", component.name));
                    }
                    stretches.extend(of_store(store, reach, several));
                }
            }
            Err(error) => render::tell(&format!("warning: {}: the log in the store {store}: {error}", component.name)),
        }
    }
    stretches
}

/// The stretches of one lineage in a store, named by it where the cluster has had several.
fn of_store(store: &str, reach: &Reach, several: bool) -> Vec<Stretch> {
    let lineage = if several {
        format!(" (lineage {})", reach::short(&reach.record))
    } else {
        String::new()
    };
    let end = |moment: &Moment| moment.at_us.map_or_else(|| moment.position.lsn.to_string(), text::time);
    let one = |window: Window| {
        let bases = window.bases.iter().filter_map(|place| reach.backups.get(*place));
        Stretch {
            store: store.to_owned(),
            says: format!("any from {} to {}{lineage}", end(&window.from), end(&window.to)),
            backups: bases.map(|backup| backup.id.short()).collect(),
            json: json!({
                "store": store,
                "lineage": reach.record.lineage.to_string(),
                "timeline": window.timeline.number(),
                "from": window.from.at_us.map(lifeboat_repo::format_utc),
                "from_lsn": window.from.position.lsn.to_string(),
                "to": window.to.at_us.map(lifeboat_repo::format_utc),
                "to_lsn": window.to.position.lsn.to_string(),
            }),
        }
    };
    reach.reachable.windows().into_iter().map(one).collect()
}
