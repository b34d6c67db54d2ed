//! `lifeboat check`: of SQLite integrity, foreign keys and row counts, on a restored copy or on a database that nobody uses; of files that they are as
//! captured, of a PKI what was found in it; of PostgreSQL the `checks` of the configuration, on the live databases or a restored one. Of a whole system
//! also its probes, which ask the live application.
//!
//! A SQLite database in use is never looked at: it would compete with the application, and prove nothing about a backup. A PostgreSQL server answers
//! beside its work, by transactions that only read.

use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::pki::{Report, Severity};
use lifeboat_engine::sqlite;
use lifeboat_io::compute;
use lifeboat_model::check::{Verdict, worst};
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Source;
use lifeboat_ops::probe::Probe;
use lifeboat_ops::proof::Level;
use lifeboat_ops::protected::{Choice, choose};
use lifeboat_ops::restore::Findings;
use lifeboat_ops::verify;
use lifeboat_repo::Reader;
use serde_json::{Value, json};

use super::Cx;
use super::args::Check;
use super::context::{Context, system_of};
use super::outcomes::Outcomes;
use super::scratch::Scratch;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, args: Check) -> Result<Exit> {
    let context = Context::load(cx)?;
    let probes = probes(&context, &args)?;
    // A system may have probes and nothing that is backed up.
    let components = if args.probes || (!probes.is_empty() && !has_components(&context, &args.what)) {
        Vec::new()
    } else {
        context.select(std::slice::from_ref(&args.what))?
    };
    if args.on.is_some() && components.len() > 1 {
        return Err(Error::new(
            ErrorKind::Usage,
            "check",
            &args.what,
            "--on names one database, and this system has several components",
        )
        .with_hint("name the component: SYSTEM/COMPONENT"));
    }
    let mut outcomes = Outcomes::new(components.len() + usize::from(!probes.is_empty()));
    for component in components {
        let checked = match &args.on {
            on if component.source.cluster().is_some() => databases(cx, &context, component, on.as_deref()).await,
            Some(path) => on(cx, path, &context, component).await,
            None => restored(cx, &context, component).await,
        };
        match checked {
            Ok((subject, findings)) => {
                if is_bad(&findings) {
                    outcomes.but(Exit::of(ErrorKind::Corrupt));
                }
                outcomes.good(
                    cx,
                    as_json(&component.name, &subject, &findings),
                    &for_people(&component.name, &subject, &findings),
                );
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    if !probes.is_empty() {
        let asked = lifeboat_ops::probe::run(&cx.env, probes).await;
        if worst(&asked) != Some(Verdict::Passed) {
            outcomes.but(Exit::of(ErrorKind::Corrupt));
        }
        let text = format!("{}: the live application\n{}", args.what, text::outcomes(&asked));
        outcomes.beside("probes", document::outcomes(&asked), &text);
    }
    outcomes.finish(cx, "check")
}

/// What is asked of the live application: of a whole system, and not where one database is named.
fn probes<'a>(context: &'a Context, args: &Check) -> Result<&'a [Probe]> {
    let wrong = |kind, detail: &str| Error::new(kind, "check", &args.what, detail);
    let plan = context.settings.plans.get(&args.what);
    if !args.probes {
        let asked = plan.filter(|_| args.on.is_none());
        return Ok(asked.map_or(&[], |plan| plan.probes.as_slice()));
    }
    match plan {
        Some(plan) if !plan.probes.is_empty() => Ok(&plan.probes),
        Some(_) => Err(wrong(ErrorKind::ConfigInvalid, "the configuration has no `probes` for it")
            .with_hint("write `probes: [{ http: { url: \"https://app.example.com/health\" } }]` under the system; docs/how-to/probes.md has all kinds")),
        None => {
            // Whatever it is, it has to be known.
            context.select(std::slice::from_ref(&args.what))?;
            let system = args.what.split('/').next().unwrap_or_default();
            Err(wrong(ErrorKind::Usage, "probes ask a whole system, and this is a component")
                .with_hint(format!("run `lifeboat check {system} --probes`")))
        }
    }
}

fn has_components(context: &Context, system: &str) -> bool {
    let of_system = |component: &ComponentSettings| system_of(component) == system;
    context.settings.components.iter().any(of_system)
}

/// What the configuration wants of the databases of a server.
async fn databases(cx: &Cx, context: &Context, component: &ComponentSettings, on: Option<&Path>) -> Result<(String, Findings)> {
    let protected = context.protected(component, &[]).await?;
    let on = match on {
        Some(on) => Some(on.to_str().ok_or_else(|| {
            let detail = "it is not the name of a database";
            Error::new(ErrorKind::Usage, "check", on.display(), detail)
        })?),
        None => None,
    };
    let checked = lifeboat_ops::check::run(&cx.env, &protected, on).await?;
    cx.env.progress.finish();
    let findings = Findings {
        checks: checked.outcomes,
        ..Findings::default()
    };
    Ok((checked.subject, findings))
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
        Level::App,
        &identities,
        scratch.path(),
    )
    .await?;
    let mut findings = report.findings.unwrap_or_default();
    if matches!(component.source, Source::Pki { .. }) {
        let reader = Reader::open(&cx.env, &repository, backup, &identities).await?;
        examined(reader.facts(), &mut findings);
    }
    Ok((format!("a copy restored from backup {}", backup.id.short()), findings))
}

/// What was found in a PKI when exactly these bytes were read.
fn examined(facts: &Value, findings: &mut Findings) {
    let report = facts
        .get("pki")
        .cloned()
        .and_then(|pki| serde_json::from_value::<Report>(pki).ok());
    for finding in report.unwrap_or_default().findings {
        let to = match finding.severity {
            Severity::Problem => &mut findings.integrity,
            Severity::Warning | Severity::Unchecked => &mut findings.unchecked,
        };
        to.push(finding.to_string());
    }
}

/// A database that somebody restored.
async fn on(cx: &Cx, path: &Path, context: &Context, component: &ComponentSettings) -> Result<(String, Findings)> {
    let absolute = path
        .canonicalize()
        .map_err(|error| Error::io("look at", path.display(), error))?;
    if absolute.is_dir() {
        return Err(Error::new(
            ErrorKind::Usage,
            "check",
            path.display(),
            "it is a folder, and --on names a database",
        )
        .with_hint(
            "`lifeboat diff latest live WHAT` compares files with a backup; `lifeboat check WHAT` checks a restored copy",
        ));
    }
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
    let wanted = match &component.source {
        Source::Sqlite { checks, .. } => checks.clone(),
        _ => Vec::new(),
    };
    let clock = Arc::clone(&cx.env.clock);
    let (inspection, checks) = compute::run("check", move || {
        sqlite::prove_unused(&absolute)?;
        let inspection = sqlite::inspect(&absolute, None)?;
        Ok((inspection, sqlite::checks::ask(&absolute, &clock, &wanted)))
    })
    .await?;
    let findings = Findings {
        checks,
        ..Findings::from(inspection)
    };
    Ok((shown, findings))
}

fn is_bad(findings: &Findings) -> bool {
    let failed = findings.checks.iter().any(|check| check.verdict == Verdict::Failed);
    failed || !(findings.integrity.is_empty() && findings.foreign_keys.is_empty() && findings.differences.is_empty())
}

fn for_people(component: &str, subject: &str, findings: &Findings) -> String {
    if !findings.checks.is_empty() && findings.tables == 0 {
        return format!("{component}: {subject}\n{}", text::outcomes(&findings.checks));
    }
    if findings.files > 0 {
        let mut text = format!(
            "{component}: {subject}: {}, {}\n  as captured   good\n",
            text::counted(findings.files, "file"),
            human_bytes(findings.bytes)
        );
        for line in &findings.integrity {
            text.push_str(&format!("  PKI           BAD\n    {line}\n"));
        }
        for note in &findings.unchecked {
            text.push_str(&format!("  note: {note}\n"));
        }
        for (path, keys) in &findings.missing_values {
            text.push_str(&format!("  note: {path} was kept without its values: {}\n", keys.join(", ")));
        }
        return text;
    }
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
    text.push_str(&text::outcomes(&findings.checks));
    text
}

fn as_json(component: &str, subject: &str, findings: &Findings) -> Value {
    json!({ "component": component, "on": subject, "good": !is_bad(findings), "findings": document::findings(findings) })
}
