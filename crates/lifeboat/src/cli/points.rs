//! `lifeboat points`: the moments that can be restored. Until logs are followed, these are the moments of the backups.

use lifeboat_model::Result;
use lifeboat_ops::stores::Held;
use serde_json::{Value, json};

use super::args::Listed;
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, list};
use crate::exit::Exit;
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
                outcomes.but(list::tell_away(&component.name, &survey));
                let away = list::away_as_json(&survey);
                outcomes.good(json!({ "component": component.name, "points": rows, "away": away }), "");
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish_with(cx, "points", |_| table.render())
}
