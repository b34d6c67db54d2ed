//! `lifeboat points`: the moments that can be restored. Until logs are followed, these are the moments of the backups.

use lifeboat_model::Result;
use serde_json::{Value, json};

use super::Cx;
use super::context::Context;
use super::outcomes::Outcomes;
use crate::exit::Exit;
use crate::render::text::{self, Table};

pub(super) async fn run(cx: &Cx, what: &[String]) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(what)?;
    let mut outcomes = Outcomes::new(components.len());
    let mut table = Table::new(&["COMPONENT", "POINT", "AGE", "BACKUP"], &[2]);
    let now = cx.env.clock.wall_us();
    for component in components {
        match super::list::listing(&context, component).await {
            Ok(listing) => {
                let mut points: Vec<_> = listing
                    .backups
                    .iter()
                    .filter(|backup| !backup.header.extract && !backup.header.incomplete)
                    .collect();
                points.sort_by_key(|backup| std::cmp::Reverse((backup.header.moment_us, backup.id)));
                for backup in &points {
                    let moment_us = backup.header.moment_us;
                    table.row([
                        component.name.clone(),
                        text::time(moment_us),
                        text::ago(now, moment_us),
                        backup.id.short(),
                    ]);
                }
                let rows: Vec<Value> = points
                    .iter()
                    .map(|backup| json!({ "moment": lifeboat_repo::format_utc(backup.header.moment_us), "backup": backup.id.short() }))
                    .collect();
                outcomes.good(json!({ "component": component.name, "points": rows }), "");
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish_with(cx, "points", |_| table.render())
}
