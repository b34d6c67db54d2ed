//! `lifeboat key list`: the recipients of the configuration, and who can open which backups.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::Result;
use lifeboat_model::time::human_duration;
use lifeboat_ops::keys::{self, InStore, Readable};
use lifeboat_repo::{Encryption, Fingerprint, Recipient, format_utc};
use serde_json::{Value, json};

use super::super::Cx;
use super::super::context::Context;
use super::super::outcomes::Outcomes;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render;

pub(super) async fn run(cx: &Cx, what: &[String]) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(what)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        match one(cx, &context, component, &mut outcomes).await {
            Ok((json, text)) => outcomes.good(cx, json, &text),
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "key-list")
}

/// Names of the configured recipients by fingerprint.
type Known = BTreeMap<Fingerprint, String>;

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, outcomes: &mut Outcomes) -> Result<(Value, String)> {
    let protected = context.protected(component, &[]).await?;
    let mut known = Known::new();
    if let Encryption::Age(recipients) = &protected.encryption {
        for text in recipients {
            let recipient = Recipient::parse(text)?;
            known.insert(recipient.fingerprint(), recipient.to_string());
        }
    }
    let mut text = format!("{}\n", component.name);
    match &protected.encryption {
        Encryption::Clear => text.push_str("  not encrypted: everybody who has the store can read it\n"),
        Encryption::Age(_) => {
            for (fingerprint, recipient) in &known {
                text.push_str(&format!("  {fingerprint}  {}\n", short(recipient)));
            }
        }
    }
    let mut stores = Vec::new();
    for InStore { store, outcome } in keys::list(&protected).await {
        match outcome {
            Ok(backups) => {
                let now_us = cx.env.clock.wall_us();
                text.push_str(&format!("  in {store}:\n"));
                for readable in &backups {
                    text.push_str(&format!("    {}\n", line(readable, &known, now_us)));
                }
                if backups.is_empty() {
                    text.push_str("    no backup yet\n");
                }
                let rows: Vec<Value> = backups.iter().map(|readable| as_json(readable, &known)).collect();
                stores.push(json!({ "store": store, "backups": rows }));
            }
            Err(error) => {
                outcomes.but(Exit::of(error.kind()));
                text.push_str(&format!("  in {store}: {error}\n"));
                stores.push(json!({ "store": store, "error": render::json::error(&error) }));
            }
        }
    }
    let recipients: Vec<Value> = known
        .iter()
        .map(|(fingerprint, recipient)| json!({ "fingerprint": fingerprint.to_string(), "recipient": recipient }))
        .collect();
    let json = json!({ "component": component.name, "recipients": recipients, "stores": stores });
    Ok((json, text))
}

/// Enough of a recipient to know it by.
fn short(recipient: &str) -> String {
    const LONGEST: usize = 70;
    if recipient.chars().count() <= LONGEST {
        recipient.to_owned()
    } else {
        let end: String = recipient.chars().skip(recipient.chars().count() - 24).collect();
        let kind = recipient.split(' ').next().unwrap_or_default();
        format!("{kind} …{end}")
    }
}

fn line(readable: &Readable, known: &Known, now_us: i64) -> String {
    let access = &readable.access;
    let id = readable.backup.id.short();
    let Some(readers) = access.readers.as_ref().filter(|_| readable.backup.closure.is_encrypted()) else {
        return if readable.backup.closure.is_encrypted() {
            format!("{id}  its key files do not say for whom they are")
        } else {
            format!("{id}  not encrypted")
        };
    };
    let mut parts: Vec<String> = readers.iter().map(|reader| name(*reader, known)).collect();
    parts.extend(
        access
            .partly
            .iter()
            .map(|reader| format!("{} (partly)", name(*reader, known))),
    );
    let missing: Vec<String> = known
        .keys()
        .filter(|reader| !readers.contains(reader))
        .map(ToString::to_string)
        .collect();
    let mut line = format!("{id}  opened by {}", parts.join(", "));
    if !missing.is_empty() {
        line.push_str(&format!("; NOT by {}: `lifeboat key add` mends that", missing.join(", ")));
    }
    if let Some(oldest) = access.oldest_key_us {
        let age_us = u64::try_from(now_us.saturating_sub(oldest)).unwrap_or(0);
        line.push_str(&format!(
            "; oldest key {} old",
            human_duration(Duration::from_secs(age_us / 1_000_000))
        ));
    }
    if access.retired {
        line.push_str("; retired");
    }
    line
}

fn name(reader: Fingerprint, known: &Known) -> String {
    if known.contains_key(&reader) {
        reader.to_string()
    } else {
        format!("{reader} (not in the configuration)")
    }
}

fn as_json(readable: &Readable, known: &Known) -> Value {
    let access = &readable.access;
    let texts = |set: &mut dyn Iterator<Item = &Fingerprint>| set.map(ToString::to_string).collect::<Vec<_>>();
    let missing = access.readers.as_ref().map(|readers| {
        let without = known.keys().filter(|reader| !readers.contains(reader));
        without.map(ToString::to_string).collect::<Vec<_>>()
    });
    json!({
        "backup": readable.backup.id.short(),
        "encrypted": readable.backup.closure.is_encrypted(),
        "sessions": access.sessions,
        "readers": access.readers.as_ref().map(|readers| texts(&mut readers.iter())),
        "partly": texts(&mut access.partly.iter()),
        "missing": missing,
        "retired": access.retired,
        "oldest_key_at": access.oldest_key_us.map(format_utc),
    })
}
