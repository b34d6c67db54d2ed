//! `lifeboat restore --tables`: some tables of a logical backup into a schema of their own.

use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::protected::Protected;
use lifeboat_ops::restore::logical::tables::{self, Options, Plan, Report};
use serde_json::{Value, json};

use super::super::Cx;
use super::{Done, Restore};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

/// Where to: a schema of the live database of the component's own server.
pub(super) async fn options(protected: &Protected, args: &Restore) -> Result<Options> {
    let bug = || Error::new(ErrorKind::Bug, "restore", &protected.component, "it is no PostgreSQL server");
    let cluster = protected.source.cluster().ok_or_else(bug)?;
    let schema = args.to.as_ref().map(|to| to.to_string_lossy().into_owned());
    if let Some(schema) = schema
        .as_deref()
        .filter(|schema| schema.is_empty() || schema.contains(['/', '=', ':']))
    {
        let detail = "with --tables, --to is the name of a new schema in the live database";
        return Err(
            Error::new(ErrorKind::Usage, "restore to", format!("{schema:?}"), detail).with_hint("for example --to rescued")
        );
    }
    Ok(Options {
        server: cluster.login.conninfo().await?,
        database: args.database.clone(),
        tables: args.tables.clone(),
        schema,
    })
}

pub(super) async fn one(
    cx: &Cx,
    component: &ComponentSettings,
    args: &Restore,
    protected: &Protected,
    plan: Plan,
) -> Result<Done> {
    let shown = plan_for_people(&component.name, &plan);
    if args.dry_run {
        return Ok(Done {
            exit: Exit::OK,
            json: plan_as_json(&component.name, &plan),
            text: shown,
        });
    }
    cx.out.note(&shown);
    let report = tables::run(&cx.env, protected, plan).await?;
    cx.env.progress.finish();
    Ok(Done {
        exit: Exit::OK,
        json: as_json(&component.name, &report),
        text: for_people(&component.name, &report),
    })
}

fn plan_for_people(component: &str, plan: &Plan) -> String {
    let mut text = format!(
        "{component}: {} of {} into the schema {} on {}; the whole backup would take about {} ({})\n",
        plan.tables.join(", "),
        text::time(plan.database.moment_us),
        plan.schema,
        plan.server,
        human_duration(plan.estimate.expected),
        human_bytes(plan.database.text_bytes()),
    );
    for (index, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", index + 1));
    }
    text
}

fn plan_as_json(component: &str, plan: &Plan) -> Value {
    json!({
        "component": component,
        "backup": document::backup(&plan.backup),
        "database": plan.database.name,
        "schema": plan.schema,
        "server": plan.server,
        "tables": plan.tables,
        "steps": plan.steps,
    })
}

fn for_people(component: &str, report: &Report) -> String {
    let mut text = format!(
        "{component}: backup {} gave {} to the schema {} of the database {}; every count and digest is that of the capture\n",
        report.backup.id.short(),
        text::counted(report.tables.len() as u64, "table"),
        report.schema,
        report.database,
    );
    for (name, rows) in &report.tables {
        text.push_str(&format!(
            "  {}.{}: {}\n",
            report.schema,
            name.name,
            text::counted(*rows, "row")
        ));
    }
    text
}

fn as_json(component: &str, report: &Report) -> Value {
    json!({
        "component": component,
        "backup": document::backup(&report.backup),
        "database": report.database,
        "schema": report.schema,
        "tables": report.tables.iter().map(|(name, rows)| json!({ "name": name.to_string(), "rows": rows })).collect::<Vec<_>>(),
        "took_s": report.took_s,
    })
}
