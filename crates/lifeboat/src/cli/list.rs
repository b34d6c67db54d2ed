//! `lifeboat list`: every backup that counts, and what is stored but does not.

use lifeboat_model::Result;
use lifeboat_model::time::human_bytes;
use lifeboat_repo::Listing;
use serde_json::{Value, json};

use super::args::List;
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, artefact};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::text::{self, Table};
use crate::render::{json as document, tell};

pub(super) async fn run(cx: &Cx, args: List) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(from) = &args.from {
        return artefact::list(cx, &context, from.into()).await;
    }
    let components = context.select(args.what.as_slice())?;
    let mut outcomes = Outcomes::new(components.len());
    let mut table = Table::new(&["COMPONENT", "BACKUP", "MOMENT", "SIZE", "ADDED", "NOTE"], &[3, 4]);
    for component in components {
        match listing(&context, component).await {
            Ok(listing) => {
                add_rows(&mut table, &listing);
                if listing.backups.is_empty() {
                    cx.out.note(&format!(
                        "{}: there is no backup yet; `lifeboat backup {}` makes one",
                        component.name, component.name
                    ));
                }
                for rejected in &listing.rejected {
                    // Never quiet: what is stored and does not count is bad news.
                    tell(&format!(
                        "warning: {}: {} does not count: {}",
                        component.name, rejected.name, rejected.reason
                    ));
                }
                outcomes.good(as_json(&component.name, &listing), "");
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish_with(cx, "list", |_| table.render())
}

/// The backups of a component.
pub(super) async fn listing(context: &Context, component: &ComponentSettings) -> Result<Listing> {
    let protected = context.protected(component, None).await?;
    let repository = protected.repository().await?;
    protected.listing(&repository).await
}

fn add_rows(table: &mut Table, listing: &Listing) {
    for backup in listing.backups.iter().rev() {
        let header = &backup.header;
        let mut notes = header.tags.clone();
        if header.incomplete {
            notes.insert(0, "incomplete".to_owned());
        }
        if header.extract {
            notes.insert(0, "extract".to_owned());
        }
        notes.extend(header.reason.clone());
        table.row([
            header.component.to_string(),
            backup.id.short(),
            text::time(header.moment_us),
            human_bytes(header.size_bytes),
            human_bytes(header.stored_bytes),
            notes.join(", "),
        ]);
    }
}

fn as_json(component: &str, listing: &Listing) -> Value {
    let backups: Vec<Value> = listing.backups.iter().rev().map(document::backup).collect();
    let rejected: Vec<Value> = listing
        .rejected
        .iter()
        .map(|rejected| json!({ "name": rejected.name, "error": document::error(&rejected.reason) }))
        .collect();
    json!({ "component": component, "backups": backups, "rejected": rejected })
}
