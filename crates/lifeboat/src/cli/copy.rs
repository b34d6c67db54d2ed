//! `lifeboat copy`: bring a store what it lacks, from another one.

use std::sync::Arc;

use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::copy::{self, Wanted};
use lifeboat_ops::ledger;
use lifeboat_repo::{Copied, Which};
use serde_json::{Value, json};

use super::args::Copy;
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, kit};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, tell, text};

pub(super) async fn run(cx: &Cx, args: Copy) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&args.what)?;
    if args.from.as_deref() == Some(args.to.as_str()) {
        return Err(Error::new(
            ErrorKind::Usage,
            "copy to",
            &args.to,
            "source and destination are the same store",
        ));
    }
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        match one(cx, &context, component, &args).await {
            Ok((from, copied)) => {
                cx.env.progress.finish();
                for note in &copied.notes {
                    cx.out.note(&format!("note: {}: {note}", component.name));
                }
                for (id, error) in &copied.failed {
                    outcomes.but(Exit::of(error.kind()));
                    if !cx.out.json {
                        tell(&format!(
                            "warning: {}: backup {} was NOT copied: {error}",
                            component.name,
                            id.short()
                        ));
                    }
                }
                outcomes.good(
                    cx,
                    as_json(&component.name, &from, &args.to, &copied),
                    &sentence(&component.name, &from, &args.to, &copied),
                );
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "copy")
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Copy) -> Result<(String, Copied)> {
    let protected = context.protected(component, &[]).await?;
    let instance = protected.instance(&context.settings.instance_name)?;
    let own = Arc::clone(&instance);
    let to = context.place(component, &args.to).await?;
    let from = match &args.from {
        Some(name) => context.place(component, name).await?,
        None => copy::source(&protected, &to).await?.clone(),
    };
    let which = match args.backup.as_slice() {
        [] => Which::Missing,
        names if names.iter().any(|name| name == "all") => Which::All,
        names => Which::Named(names.to_vec()),
    };
    let settings = &context.settings;
    let rules = component.retention.as_ref().and_then(|name| settings.retention.get(name));
    let rules = rules.map(|rules| (&rules.policy, settings.timezone.as_str()));
    let mut copied = copy::run(&cx.env, &protected, instance, &from, &to, Wanted { which, rules }).await?;
    // What was done goes where the backups are.
    if let Err(error) = ledger::copy(&protected, &from, &to).await {
        copied.notes.push(format!("the ledger was not copied: {error}"));
    }
    if let Err(error) = kit::after_copy(cx, context, &protected, &own, (&from, &to)).await {
        copied.notes.push(format!("the recovery kit was not copied: {error}"));
    }
    Ok((from.name, copied))
}

fn sentence(component: &str, from: &str, to: &str, copied: &Copied) -> String {
    format!(
        "{component}: copied {} from {from} to {to}: {} in {}; {} there before\n",
        text::counted(copied.copied.len(), "backup"),
        human_bytes(copied.bytes),
        text::counted(copied.files, "file"),
        match copied.there.len() {
            1 => "1 was".to_owned(),
            many => format!("{many} were"),
        }
    )
}

fn as_json(component: &str, from: &str, to: &str, copied: &Copied) -> Value {
    json!({
        "component": component,
        "from": from,
        "to": to,
        "copied": copied.copied.iter().map(document::backup).collect::<Vec<_>>(),
        "there": copied.there.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "failed": copied.failed.iter().map(|(id, error)| json!({ "backup": id.to_string(), "error": document::error(error) })).collect::<Vec<_>>(),
        "files": copied.files,
        "bytes": copied.bytes,
        "notes": copied.notes,
    })
}
