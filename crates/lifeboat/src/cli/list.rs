//! `lifeboat list`: every backup that counts, and what is stored but does not.

use std::collections::BTreeMap;

use lifeboat_model::Result;
use lifeboat_model::time::human_bytes;
use lifeboat_ops::proof::{self, Level};
use lifeboat_ops::stores::{self, Held, Survey};
use lifeboat_repo::{ComponentName, format_utc};
use serde_json::{Value, json};

use super::args::Listed;
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, artefact};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::text::{self, Table};
use crate::render::{json as document, tell};

pub(super) async fn run(cx: &Cx, args: &Listed) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(file) = artefact::file_of(&context, args.from.as_deref()) {
        return artefact::list(cx, &context, file).await;
    }
    let components = context.select(args.what.as_slice())?;
    let mut outcomes = Outcomes::new(components.len());
    let several = args.from.is_none() && components.iter().any(|component| component.stores.len() > 1);
    let mut table = match several {
        true => Table::new(
            &["COMPONENT", "BACKUP", "MOMENT", "SIZE", "ADDED", "STORES", "PROVEN", "NOTE"],
            &[3, 4],
        ),
        false => Table::new(&["COMPONENT", "BACKUP", "MOMENT", "SIZE", "ADDED", "PROVEN", "NOTE"], &[3, 4]),
    };
    for component in components {
        match survey(&context, component, args).await {
            Ok(survey) => {
                let proven = proven(&context, component);
                add_rows(&mut table, &survey, &proven, several);
                if survey.backups.is_empty() {
                    cx.out.note(&format!(
                        "{}: there is no backup yet; `lifeboat backup {}` makes one",
                        component.name, component.name
                    ));
                }
                for (store, rejected) in &survey.rejected {
                    // Never quiet: what is stored and does not count is bad news.
                    let place = if several {
                        format!(" in the store {store}")
                    } else {
                        String::new()
                    };
                    tell(&format!(
                        "warning: {}: {} does not count{place}: {}",
                        component.name, rejected.name, rejected.reason
                    ));
                }
                outcomes.but(tell_away(&component.name, &survey));
                outcomes.good(cx, as_json(&component.name, &survey, &proven), "");
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish_with(cx, "list", |_| table.render())
}

/// What the stores of a component hold.
pub(super) async fn survey(context: &Context, component: &ComponentSettings, args: &Listed) -> Result<Survey> {
    let protected = context.protected(component, args.from.as_slice()).await?;
    stores::survey(&protected).await
}

/// Half an answer is not a whole one: a store that does not answer is told, and ends in exit code 3.
pub(super) fn tell_away(component: &str, survey: &Survey) -> Exit {
    for (store, error) in &survey.away {
        tell(&format!("warning: {component}: the store {store} does not answer: {error}"));
    }
    if survey.away.is_empty() { Exit::OK } else { Exit::INCOMPLETE }
}

/// How far each backup was proven, and when; what this machine does not know, nobody has proven here.
type Proven = BTreeMap<String, (Level, i64)>;

fn proven(context: &Context, component: &ComponentSettings) -> Proven {
    let mut proven = Proven::new();
    let name = ComponentName::new(&component.name);
    for proof in name
        .map(|name| proof::load(&context.settings.state_dir, &name))
        .unwrap_or_default()
    {
        let found = (proof.level, proof.at_us);
        let known = proven.entry(proof.backup).or_insert(found);
        *known = found.max(*known);
    }
    proven
}

fn add_rows(table: &mut Table, survey: &Survey, proven: &Proven, several: bool) {
    for held in survey.backups.iter().rev() {
        let header = &held.backup.header;
        let mut notes = header.tags.clone();
        if header.incomplete {
            notes.insert(0, "incomplete".to_owned());
        }
        if header.extract {
            notes.insert(0, "extract".to_owned());
        }
        notes.extend(header.reason.clone());
        let mut cells = vec![
            header.component.to_string(),
            held.backup.id.short(),
            text::time(header.moment_us),
            human_bytes(header.size_bytes),
            human_bytes(header.stored_bytes),
        ];
        if several {
            cells.push(held.stores.join(", "));
        }
        let proof = proven.get(&held.backup.id.to_string());
        cells.push(proof.map_or_else(
            || "never".to_owned(),
            |(level, at_us)| format!("{} {}", level.word(), text::time(*at_us)),
        ));
        cells.push(notes.join(", "));
        table.row(cells);
    }
}

fn as_json(component: &str, survey: &Survey, proven: &Proven) -> Value {
    let backups: Vec<Value> = survey.backups.iter().rev().map(|held| held_as_json(held, proven)).collect();
    let rejected: Vec<Value> = survey
        .rejected
        .iter()
        .map(|(store, rejected)| json!({ "name": rejected.name, "store": store, "error": document::error(&rejected.reason) }))
        .collect();
    json!({ "component": component, "backups": backups, "rejected": rejected, "away": away_as_json(survey) })
}

/// A backup and where it counts.
fn held_as_json(held: &Held, proven: &Proven) -> Value {
    let mut json = document::backup(&held.backup);
    if let Value::Object(fields) = &mut json {
        let proof = proven.get(&held.backup.id.to_string());
        let proof = proof.map(|(level, at_us)| json!({ "level": level.word(), "at": format_utc(*at_us) }));
        fields.insert("proven".to_owned(), json!(proof));
        fields.insert("stores".to_owned(), json!(held.stores));
    }
    json
}

/// Stores that did not answer.
pub(super) fn away_as_json(survey: &Survey) -> Value {
    let away = survey.away.iter();
    away.map(|(store, error)| json!({ "store": store, "error": document::error(error) }))
        .collect()
}
