//! `lifeboat restore undo`: the old files return to their place.

use std::path::Path;

use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::restore::logical::place::{self, RestoredDatabase};
use lifeboat_ops::restore::{quarantine, record, tree_place};
use serde_json::json;

use super::context::Context;
use super::{Cx, promote};
use crate::exit::Exit;

pub(super) async fn run(cx: &Cx, id: String) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(restored) = place::find(&context.settings.state_dir, &id)? {
        return Box::pin(database(cx, &context, restored)).await;
    }
    let mut known = Vec::new();
    let put = record::known(&context.settings.state_dir)?;
    let roots = context
        .settings
        .components
        .iter()
        .filter_map(|component| Some((component.name.clone(), component.source.files()?.root.clone())));
    // A restore may have replaced something else, with --overwrite.
    let other_roots = put
        .iter()
        .filter(|restored| restored.replaced && restored.id == id && restored.path.is_dir())
        .map(|restored| (restored.component.clone(), restored.path.clone()));
    for (component, root) in roots.chain(other_roots) {
        for (_, record) in tree_place::records(&root)? {
            if record.id == id {
                let (at, wanted) = (root.clone(), id.clone());
                let folder = compute::run("undo", move || tree_place::undo(&at, &wanted)).await?;
                record::forget(&context.settings.state_dir, &id)?;
                return undone(cx, &component, &id, &root, &folder);
            }
            if record.can_undo() || record.is_interrupted() {
                known.push(format!("{} ({})", record.id, record.component));
            }
        }
    }
    let of_components = context
        .settings
        .components
        .iter()
        .filter_map(|component| Some((component.name.clone(), component.source.path()?.to_path_buf())));
    let elsewhere = put
        .into_iter()
        .filter(|restored| restored.replaced && restored.id == id)
        .map(|restored| (restored.component, restored.path));
    for (component, path) in of_components.chain(elsewhere) {
        for (_, record) in quarantine::records(&path)? {
            if record.id != id {
                if record.can_undo() || record.is_interrupted() {
                    known.push(format!("{} ({})", record.id, record.component));
                }
                continue;
            }
            let (database, wanted) = (path.clone(), id.clone());
            let folder = compute::run("undo", move || quarantine::undo(&database, &wanted)).await?;
            return undone(cx, &component, &id, &path, &folder);
        }
    }
    let hint = if known.is_empty() {
        "no restore can be undone: there is no undo folder beside any database or in any folder of files".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    Err(Error::new(
        ErrorKind::NoSuchPoint,
        "undo restore",
        &id,
        "there is no undo folder of that id beside any configured database or in any configured folder",
    )
    .with_hint(hint))
}

/// A database gives its place back.
async fn database(cx: &Cx, context: &Context, restored: RestoredDatabase) -> Result<Exit> {
    let id = restored.id.clone();
    let component = promote::component_of(context, &restored.component, &id)?;
    let protected = context.protected(component, &[]).await?;
    let placed = place::undo(&cx.env, &protected, restored).await?;
    cx.env.progress.finish();
    let text = format!(
        "{}: restore {id} is undone: {} is the database that it was before\n{}",
        component.name,
        placed.name,
        placed.kept.as_ref().map_or_else(String::new, |kept| format!(
            "What had been restored is kept, closed, as {kept}\n"
        ))
    );
    cx.result("restore-undo", promote::placed_as_json(&component.name, &placed), &text)?;
    Ok(Exit::OK)
}

fn undone(cx: &Cx, component: &str, id: &str, path: &Path, folder: &Path) -> Result<Exit> {
    let text = format!(
        "{component}: restore {id} is undone: {} is what it was before\nWhat had been restored is kept in {}",
        path.display(),
        folder.display()
    );
    let body = json!({ "id": id, "component": component, "path": path, "undo_folder": folder });
    cx.result("restore-undo", body, &text)?;
    Ok(Exit::OK)
}
