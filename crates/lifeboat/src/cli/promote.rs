//! `lifeboat restore promote`: the copy that was looked at takes the place of the original, and the result is backed up at once.

use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::restore::logical::place::{self, Placed, RestoredDatabase};
use lifeboat_ops::restore::promote::{self, Promoted};
use lifeboat_ops::restore::record;
use serde_json::{Value, json};

use super::context::Context;
use super::{Cx, ask, backup};
use crate::config::ComponentSettings;
use crate::exit::Exit;

pub(super) async fn run(cx: &Cx, id: &str, yes: bool, reason: Option<String>, accept_findings: bool) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(restored) = place::find(&context.settings.state_dir, id)? {
        return Box::pin(database(cx, &context, restored, yes, reason)).await;
    }
    let restored = record::find(&context.settings.state_dir, id)?;
    let component = component_of(&context, &restored.component, id)?;
    if !yes {
        let question = format!(
            "Replace {} with {}?",
            component.source.path().unwrap_or(Path::new("the original")).display(),
            restored.path.display()
        );
        ask::confirm(cx, &question, "promote", &component.name, &ask::this_command_with(&["--yes"]))?;
    }
    let protected = context.protected(component, &[]).await?;
    let promoted = promote::run(&cx.env, &protected, restored, accept_findings).await?;
    for note in &promoted.notes {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    let said = (for_people(&component.name, &promoted), as_json(&component.name, &promoted));
    Box::pin(finish(cx, &context, component, said, reason, id)).await
}

/// The restored state is protected at once.
async fn finish(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    (mut text, mut body): (String, Value),
    reason: Option<String>,
    id: &str,
) -> Result<Exit> {
    let reason = reason.unwrap_or_else(|| format!("after promote of restore {id}"));
    let exit = backup::fresh(cx, context, component, reason, (&mut text, &mut body)).await;
    cx.result("restore-promote", body, &text)?;
    Ok(exit)
}

/// A restored database gets the name of the original.
async fn database(cx: &Cx, context: &Context, restored: RestoredDatabase, yes: bool, reason: Option<String>) -> Result<Exit> {
    let component = component_of(context, &restored.component, &restored.id)?;
    if !yes {
        let question = format!(
            "Put the database {} in the place of {}? Everybody who is connected to either is thrown out.",
            restored.name, restored.original
        );
        ask::confirm(cx, &question, "promote", &component.name, &ask::this_command_with(&["--yes"]))?;
    }
    let protected = context.protected(component, &[]).await?;
    let id = restored.id.clone();
    let placed = place::promote(&cx.env, &protected, restored).await?;
    cx.env.progress.finish();
    let said = (
        placed_for_people(&component.name, &placed),
        placed_as_json(&component.name, &placed),
    );
    Box::pin(finish(cx, context, component, said, reason, &id)).await
}

/// What happened, for people.
pub(super) fn placed_for_people(component: &str, placed: &Placed) -> String {
    let mut text = format!("{component}: the restored database is now {}\n", placed.name);
    if let Some(kept) = &placed.kept {
        text.push_str(&format!(
            "  the one before it is kept, closed, as {kept}\n  to take this back: lifeboat restore undo {}\n",
            placed.id
        ));
    }
    if placed.ended > 0 {
        text.push_str(&format!("  {} sessions were ended\n", placed.ended));
    }
    text
}

/// The same for programs; of an undo, too.
pub(super) fn placed_as_json(component: &str, placed: &Placed) -> Value {
    json!({
        "component": component,
        "id": placed.id,
        "database": placed.name,
        "kept": placed.kept,
        "ended_sessions": placed.ended,
    })
}

/// The component that a restore was of.
pub(super) fn component_of<'a>(context: &'a Context, name: &str, id: &str) -> Result<&'a ComponentSettings> {
    let known = context.settings.components.iter().find(|component| component.name == name);
    known.ok_or_else(|| {
        let detail = format!("the configuration does not protect {name} any more");
        Error::new(ErrorKind::Usage, "look at restore", id, detail)
            .with_hint("bring its entry back, or move the copy by hand, with the application stopped")
    })
}

fn for_people(component: &str, promoted: &Promoted) -> String {
    let mut text = format!(
        "{component}: {} took the place of {}\n",
        promoted.from.display(),
        promoted.path.display()
    );
    if let Some(folder) = &promoted.undo_folder {
        text.push_str(&format!(
            "  the old files are kept in {}\n  to take this back: lifeboat restore undo {}\n",
            folder.display(),
            promoted.id
        ));
    }
    text
}

fn as_json(component: &str, promoted: &Promoted) -> Value {
    json!({
        "component": component,
        "id": promoted.id,
        "backup": promoted.backup,
        "from": promoted.from,
        "path": promoted.path,
        "undo_folder": promoted.undo_folder,
        "notes": promoted.notes,
    })
}
