//! `lifeboat restore export` as SQL text, or of an extract.

use std::path::Path;

use lifeboat_model::Result;
use lifeboat_model::time::human_bytes;
use lifeboat_ops::export;
use lifeboat_ops::protected::{Choice, choose};
use serde_json::json;

use super::Cx;
use super::context::Context;
use super::scratch::Scratch;
use crate::exit::Exit;
use crate::render::{self, json as document};

pub(super) async fn run(cx: &Cx, what: &str, to: &Path, backup: &str, extract: Option<&str>) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&[what.to_owned()])?;
    let [component] = components.as_slice() else {
        let detail = "this system has several components";
        return Err(
            lifeboat_model::Error::new(lifeboat_model::ErrorKind::Usage, "export", what, detail)
                .with_hint("name the component: SYSTEM/COMPONENT"),
        );
    };
    let protected = context.protected(component, &[]).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    let choice = match backup {
        "latest" => Choice::Latest,
        name => Choice::Named(name.to_owned()),
    };
    let backup = choose(&listing, &choice, &protected.component)?;
    let identities = context.identities(component).await?;
    let size_bytes = match extract {
        Some(name) => export::stream(&cx.env, &repository, backup, &identities, name, to).await?,
        None if to.extension().is_some_and(|ending| ending == "tar") => {
            let scratch = Scratch::create(&cx.env, &protected)?;
            export::tar(&cx.env, &repository, backup, &identities, scratch.path(), to).await?
        }
        None => {
            let scratch = Scratch::create(&cx.env, &protected)?;
            export::sql(&cx.env, &repository, backup, &identities, scratch.path(), to).await?
        }
    };
    let what = extract.unwrap_or_else(|| match component.source.files() {
        Some(_) => "the files",
        None => "SQL text",
    });
    let body = json!({ "component": component.name, "backup": document::backup(backup), "what": what, "path": to, "size_bytes": size_bytes });
    if cx.out.json {
        render::print(&document::document("export", body))?;
    } else {
        render::print(&format!(
            "{}: wrote {what} of backup {} to {} ({})\n",
            component.name,
            backup.id.short(),
            to.display(),
            human_bytes(size_bytes)
        ))?;
    }
    Ok(Exit::OK)
}
