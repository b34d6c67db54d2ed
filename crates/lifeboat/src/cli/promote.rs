//! `lifeboat restore promote`: the copy that was looked at takes the place of the original, and the result is backed up at once.

use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup::Request;
use lifeboat_ops::restore::promote::{self, Promoted};
use lifeboat_ops::restore::record;
use serde_json::{Value, json};

use super::context::Context;
use super::{Cx, ask, backup};
use crate::exit::Exit;
use crate::render::{self, json as document};

pub(super) async fn run(cx: &Cx, id: &str, yes: bool, reason: Option<String>, accept_findings: bool) -> Result<Exit> {
    let context = Context::load(cx)?;
    let restored = record::find(&context.settings.state_dir, id)?;
    let Some(component) = context
        .settings
        .components
        .iter()
        .find(|component| component.name == restored.component)
    else {
        return Err(Error::new(
            ErrorKind::Usage,
            "promote restore",
            id,
            format!("the configuration does not protect {} any more", restored.component),
        )
        .with_hint("move the copy by hand, with the application stopped"));
    };
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
    let mut text = for_people(&component.name, &promoted);
    let mut body = as_json(&component.name, &promoted);
    let request = Request {
        reason: Some(reason.unwrap_or_else(|| format!("after promote of restore {id}"))),
        ..Request::default()
    };
    let (exit, key, value) = match backup::one(cx, &context, component, request).await {
        Ok(fresh) => {
            text.push_str(&format!("{}\n", backup::sentence(&component.name, &fresh)));
            (Exit::OK, "fresh_backup", backup::as_json(&component.name, &fresh))
        }
        Err(error) => {
            text.push_str(&format!(
                "{}: THE RESTORED STATE IS NOT BACKED UP YET: it is in its place, the backup after that failed\n",
                component.name
            ));
            if !cx.out.json {
                render::tell(&render::error::for_people(&error));
            }
            (Exit::INCOMPLETE, "fresh_backup_error", document::error(&error))
        }
    };
    cx.env.progress.finish();
    if let Value::Object(fields) = &mut body {
        fields.insert(key.to_owned(), value);
    }
    cx.out.result("restore-promote", body, &text)?;
    Ok(exit)
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
