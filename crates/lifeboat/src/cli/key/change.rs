//! `lifeboat key add | remove | rotate`. The configuration is a person's: what to write there is printed.

use lifeboat_model::Result;
use lifeboat_ops::keys::{self, InStore};
use lifeboat_repo::{Rekey, Rekeyed};
use serde_json::{Value, json};

use super::super::Cx;
use super::super::args::KeyChange;
use super::super::context::Context;
use super::super::outcomes::Outcomes;
use crate::config::{ComponentSettings, Encrypt};
use crate::exit::Exit;
use crate::render;

/// `key add`, `key remove`.
pub(super) async fn run(cx: &Cx, args: &KeyChange, how: Rekey) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&args.what)?;
    let mut outcomes = Outcomes::new(components.len());
    let mut advice = Vec::new();
    for component in components {
        match one(cx, &context, component, args, how, &mut outcomes).await {
            Ok((json, text, edit)) => {
                outcomes.good(cx, json, &text);
                if let Some(edit) = edit.filter(|edit| !advice.contains(edit)) {
                    advice.push(edit);
                }
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    let kind = if how == Rekey::Add { "key-add" } else { "key-remove" };
    outcomes.finish_with(cx, kind, |mut text| {
        if how == Rekey::Replace {
            text.push_str("\nThe next backup is a full one under new keys. What the removed recipient could read, it may have read and kept: change the secrets inside, where that matters.\n");
        }
        for edit in advice {
            text.push_str(&edit);
        }
        text
    })
}

async fn one(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    args: &KeyChange,
    how: Rekey,
    outcomes: &mut Outcomes,
) -> Result<(Value, String, Option<String>)> {
    let protected = context.protected(component, &[]).await?;
    let recipients = keys::changed(&protected.encryption, &args.recipient, how)?;
    let identities = context.identities(component).await?;
    let stores = keys::change(&cx.env, &protected, &recipients, &identities, how).await?;
    let (mut rows, mut text) = (Vec::new(), String::new());
    for InStore { store, outcome } in stores {
        match outcome {
            Ok(done) => {
                text.push_str(&format!("{} in {store}: {}\n", component.name, sentence(&done)));
                if let Some((_, error)) = done.failed.first() {
                    outcomes.but(Exit::of(error.kind()));
                    text.push_str(&format!(
                        "  {} sessions could not be opened, for example: {error}\n",
                        done.failed.len()
                    ));
                }
                rows.push(as_json(&store, &done));
            }
            Err(error) => {
                outcomes.but(Exit::of(error.kind()));
                text.push_str(&format!("{} in {store}: {error}\n", component.name));
                rows.push(json!({ "store": store, "error": render::json::error(&error) }));
            }
        }
    }
    let json = json!({ "component": component.name, "recipients": recipients, "stores": rows });
    Ok((json, text, edit(context, component, &recipients, how)?))
}

/// What to write into the configuration, unless it says so already.
fn edit(context: &Context, component: &ComponentSettings, recipients: &[String], how: Rekey) -> Result<Option<String>> {
    let Some(key) = context.key_of(component)? else {
        return Ok(None);
    };
    let Encrypt::Key(name) = &component.encrypt else {
        return Ok(None);
    };
    let written: Vec<_> = key
        .recipients
        .iter()
        .map(|text| keys::fingerprint_of(text))
        .collect::<Result<_>>()?;
    let wanted: Vec<_> = recipients
        .iter()
        .map(|text| keys::fingerprint_of(text))
        .collect::<Result<_>>()?;
    if written.len() == wanted.len() && wanted.iter().all(|one| written.contains(one)) {
        return Ok(None);
    }
    let list: String = recipients.iter().map(|text| format!("        - {text}\n")).collect();
    let until = if how == Rekey::Add {
        "until then, the next backup takes the new recipient for removed, and is a full one without it"
    } else {
        "until then, new backups are still made for the removed recipient"
    };
    Ok(Some(format!(
        "\nWrite this into {} ({until}):\n\nkeys:\n  {name}:\n    age:\n      recipients:\n{list}",
        context.settings.path.display()
    )))
}

fn sentence(done: &Rekeyed) -> String {
    let mut text = format!("{} sessions, {} wrapped anew", done.sessions, done.wrapped);
    if done.removed > 0 {
        text.push_str(&format!(", {} old key files removed", done.removed));
    }
    if done.clear > 0 {
        text.push_str(&format!(", {} in the clear", done.clear));
    }
    text
}

fn as_json(store: &str, done: &Rekeyed) -> Value {
    let failed: Vec<Value> = done
        .failed
        .iter()
        .map(|(session, error)| json!({ "session": session.to_string(), "error": render::json::error(error) }))
        .collect();
    json!({
        "store": store, "sessions": done.sessions, "wrapped": done.wrapped, "removed": done.removed, "clear": done.clear, "failed": failed,
    })
}

/// `key rotate`.
pub(super) async fn rotate(cx: &Cx, what: &[String]) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(what)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let rotated = async { keys::rotate(&context.protected(component, &[]).await?).await };
        match rotated.await {
            Ok(forgotten) => {
                let text = if forgotten {
                    "the next backup from this machine is a full one under new keys; old keys go with the backups that need them"
                } else {
                    "this machine has nothing that a backup could build on: its next backup is a full one under new keys anyway; run this where the backups are made"
                };
                outcomes.good(
                    cx,
                    json!({ "component": component.name, "rotated": forgotten }),
                    &format!("{}: {text}", component.name),
                );
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "key-rotate")
}
