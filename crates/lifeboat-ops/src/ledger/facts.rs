//! What may stand in a record: never more than it can hold, and of the configuration only which parts changed.

use std::collections::BTreeMap;

use lifeboat_model::Result;
use lifeboat_repo::Instance;
use serde_json::{Map, Value, json};

use super::home::Home;
use super::{Entry, Outcome};
use crate::protected::Protected;

/// Facts are shortened to so many bytes: far less than a record may have.
const MOST_BYTES: usize = 256 << 10;

/// Facts that fit into a record: long lists keep their beginning and say how many are left out, long texts their beginning.
#[must_use]
pub fn bounded(facts: Map<String, Value>) -> Map<String, Value> {
    let size = |facts: &Map<String, Value>| serde_json::to_vec(facts).map_or(usize::MAX, |bytes| bytes.len());
    if size(&facts) <= MOST_BYTES {
        return facts;
    }
    for (items, chars) in [(200, 4_000), (50, 1_000), (10, 300), (2, 100)] {
        let shorter: Map<String, Value> = facts
            .iter()
            .map(|(name, value)| (name.clone(), shorten(value, items, chars)))
            .collect();
        if size(&shorter) <= MOST_BYTES {
            return shorter;
        }
    }
    Map::from_iter([("left_out".to_owned(), json!("all facts: they were too long"))])
}

fn shorten(value: &Value, items: usize, chars: usize) -> Value {
    match value {
        Value::Array(all) => {
            let mut kept: Vec<Value> = all.iter().take(items).map(|value| shorten(value, items, chars)).collect();
            if all.len() > items {
                kept.push(json!({ "left_out": all.len() - items }));
            }
            Value::Array(kept)
        }
        Value::Object(fields) => {
            let mut kept: Map<String, Value> = fields
                .iter()
                .take(items)
                .map(|(name, value)| (name.clone(), shorten(value, items, chars)))
                .collect();
            if fields.len() > items {
                kept.insert("left_out".to_owned(), json!(fields.len() - items));
            }
            Value::Object(kept)
        }
        Value::String(text) if text.chars().count() > chars => {
            let beginning: String = text.chars().take(chars).collect();
            Value::String(format!("{beginning}…"))
        }
        other => other.clone(),
    }
}

/// The entry about a configuration that is another one than this machine recorded last: which parts came, went and changed. `parts` are digests
/// by name of the part. None where nothing changed.
pub fn config_entry(protected: &Protected, instance: &Instance, parts: &BTreeMap<String, String>) -> Result<Option<Entry>> {
    let home = Home::of(protected, instance);
    let before = match home.repository()? {
        Some(repository) => home.standing(repository)?.map(|standing| standing.config).unwrap_or_default(),
        None => BTreeMap::new(),
    };
    if before == *parts {
        return Ok(None);
    }
    let names = |these: &BTreeMap<String, String>, others: &BTreeMap<String, String>| -> Vec<String> {
        these.keys().filter(|name| !others.contains_key(*name)).cloned().collect()
    };
    let changed: Vec<&String> = parts
        .iter()
        .filter(|(name, digest)| before.get(*name).is_some_and(|before| before != *digest))
        .map(|(name, _)| name)
        .collect();
    let facts = json!({
        "first": before.is_empty(),
        "added": names(parts, &before),
        "removed": names(&before, parts),
        "changed": changed,
        "digests": parts,
    });
    let Value::Object(facts) = facts else { return Ok(None) };
    Ok(Some(Entry {
        verb: "config".to_owned(),
        outcome: Outcome::Done,
        facts,
    }))
}

/// Remembers that these parts are recorded.
///
/// # Errors
/// Where the state folder cannot be written to.
pub fn remember_config(protected: &Protected, instance: &Instance, parts: &BTreeMap<String, String>) -> Result<()> {
    Home::of(protected, instance).remember_config(parts)
}
