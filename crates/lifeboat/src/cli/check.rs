//! `lifeboat check`: integrity, foreign keys and row counts, on a restored copy or on a database that nobody uses.
//!
//! Never on the database in use: it would compete with the application, and prove nothing about a backup.

use std::path::Path;

use lifeboat_engine::sqlite;
use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::proof::Level;
use lifeboat_ops::protected::{Choice, choose};
use lifeboat_ops::restore::Findings;
use lifeboat_ops::verify;
use serde_json::{Value, json};

use super::Cx;
use super::args::Check;
use super::context::Context;
use super::outcomes::Outcomes;
use super::scratch::Scratch;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, args: Check) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(std::slice::from_ref(&args.what))?;
    if args.on.is_some() && components.len() > 1 {
        return Err(Error::new(
            ErrorKind::Usage,
            "check",
            &args.what,
            "--on names one database, and this system has several components",
        )
        .with_hint("name the component: SYSTEM/COMPONENT"));
    }
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let checked = match &args.on {
            Some(path) => on(path, &context).await,
            None => restored(cx, &context, component).await,
        };
        match checked {
            Ok((subject, findings)) => {
                if is_bad(&findings) {
                    outcomes.but(Exit::of(ErrorKind::Corrupt));
                }
                outcomes.good(
                    as_json(&component.name, &subject, &findings),
                    &for_people(&component.name, &subject, &findings),
                );
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "check")
}

/// A copy restored from the newest backup.
async fn restored(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<(String, Findings)> {
    let protected = context.protected(component, &[]).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    let backup = choose(&listing, &Choice::Latest, &protected.component)?;
    let identities = context.identities(component).await?;
    let scratch = Scratch::create(&cx.env, &protected)?;
    let report = verify::run(
        &cx.env,
        &protected,
        &repository,
        backup,
        Level::Restore,
        &identities,
        scratch.path(),
    )
    .await?;
    Ok((
        format!("a copy restored from backup {}", backup.id.short()),
        report.findings.unwrap_or_default(),
    ))
}

/// A database that somebody restored.
async fn on(path: &Path, context: &Context) -> Result<(String, Findings)> {
    let absolute = path
        .canonicalize()
        .map_err(|error| Error::io("look at", path.display(), error))?;
    let live = context.settings.components.iter().find(|component| {
        component
            .source
            .database()
            .is_some_and(|path| path.canonicalize().is_ok_and(|live| live == absolute))
    });
    if let Some(component) = live {
        return Err(Error::new(
            ErrorKind::Refused,
            "check",
            path.display(),
            format!("it is the database in use of {}", component.name),
        )
        .with_hint(format!(
            "`lifeboat check {}` checks a copy restored from its newest backup",
            component.name
        )));
    }
    let shown = path.display().to_string();
    let inspection = compute::run("check", move || {
        sqlite::prove_unused(&absolute)?;
        sqlite::inspect(&absolute, None)
    })
    .await?;
    Ok((shown, Findings::from(inspection)))
}

fn is_bad(findings: &Findings) -> bool {
    !(findings.integrity.is_empty() && findings.foreign_keys.is_empty() && findings.differences.is_empty())
}

fn for_people(component: &str, subject: &str, findings: &Findings) -> String {
    let mut text = format!(
        "{component}: {subject}: {}, {}\n",
        text::counted(findings.tables, "table"),
        text::counted(findings.rows, "row")
    );
    for (name, lines) in [
        ("integrity", &findings.integrity),
        ("foreign keys", &findings.foreign_keys),
        ("as captured", &findings.differences),
    ] {
        let word = if lines.is_empty() { "good" } else { "BAD" };
        text.push_str(&format!("  {name:<13} {word}\n"));
        for line in lines {
            text.push_str(&format!("    {line}\n"));
        }
    }
    for line in &findings.unchecked {
        text.push_str(&format!("  note: {line}\n"));
    }
    text
}

fn as_json(component: &str, subject: &str, findings: &Findings) -> Value {
    json!({ "component": component, "on": subject, "good": !is_bad(findings), "findings": document::findings(findings) })
}
