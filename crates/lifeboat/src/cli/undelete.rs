//! `lifeboat undelete`: rows that an application only marked as deleted come back; shown first, changed in one transaction, and recorded.

use lifeboat_engine::postgres::undelete::{Rows, Scope};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::undelete::{self, Preview, Record, Undone};
use lifeboat_repo::format_utc;
use serde_json::{Value, json};

use super::args::undelete::Undelete;
use super::context::Context;
use super::{Cx, ask, promote, time};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::text;

/// Keys that are shown of each table.
const SHOWN: usize = 5;

pub(super) async fn run(cx: &Cx, args: Undelete) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(id) = &args.undo {
        return undo(cx, &context, id).await;
    }
    let scope = scope(&args)?;
    let component = component(&context, args.what.as_deref().unwrap_or_default())?;
    let protected = context.protected(component, &[]).await?;
    let preview = undelete::preview(&protected, args.database.as_deref(), scope).await?;
    let name = &component.name;
    let (shown, body) = (preview_for_people(name, &preview), preview_as_json(name, &preview));
    if args.dry_run {
        cx.result("undelete-plan", body, &shown)?;
        return Ok(Exit::OK);
    }
    if preview.count() == 0 {
        cx.result("undelete", body, &shown)?;
        return Ok(Exit::OK);
    }
    cx.out.note(&shown);
    if !args.yes {
        let question = format!("Bring {} back?", text::counted(preview.count() as u64, "row"));
        ask::confirm(cx, &question, "undelete rows of", name, &ask::this_command_with(&["--yes"]))?;
    }
    let record = undelete::run(&cx.env, &protected, preview).await?;
    cx.result("undelete", as_json(&record), &for_people(&record))?;
    Ok(Exit::OK)
}

async fn undo(cx: &Cx, context: &Context, id: &str) -> Result<Exit> {
    let record = undelete::find(&context.settings.state_dir, id)?;
    let component = promote::component_of(context, &record.component, id)?;
    let protected = context.protected(component, &[]).await?;
    let undone = undelete::undo(&cx.env, &protected, record).await?;
    let left = undelete::count(&undone.left);
    let body = json!({
        "component": component.name,
        "id": undone.record.id,
        "database": undone.record.database,
        "put_back": undone.put_back,
        "left": undone.left.iter().map(rows_as_json).collect::<Vec<_>>(),
    });
    cx.result("undelete-undo", body, &undone_for_people(&component.name, &undone))?;
    Ok(if left == 0 { Exit::OK } else { Exit::INCOMPLETE })
}

/// The one PostgreSQL component that is meant.
fn component<'a>(context: &'a Context, what: &str) -> Result<&'a ComponentSettings> {
    let mut found = context.select(&[what.to_owned()])?;
    found.retain(|component| component.source.cluster().is_some());
    match found.as_slice() {
        [one] => Ok(one),
        _ => {
            let detail = format!("{} PostgreSQL components are called so, and one is needed", found.len());
            Err(Error::new(ErrorKind::Usage, "undelete rows of", what, detail).with_hint("name it: SYSTEM/COMPONENT"))
        }
    }
}

fn scope(args: &Undelete) -> Result<Scope> {
    let moment = |text: &String| time::parse(text).map(format_utc);
    let bad = |subject: &str, detail: &str| Error::new(ErrorKind::Usage, "undelete rows", subject, detail);
    let after = args.after.as_ref().map(moment).transpose()?.unwrap_or_default();
    let until = args.until.as_ref().map(moment).transpose()?;
    if until.as_ref().is_some_and(|until| *until <= after) {
        return Err(bad(
            "--until",
            "it is not later than --after, so nothing was deleted in between",
        ));
    }
    let mut equal = Vec::new();
    for text in &args.equal {
        let Some((column, value)) = text.split_once('=').filter(|(column, _)| !column.is_empty()) else {
            return Err(bad(text, "--where is a column and the value that it has").with_hint("for example --where tenant_id=7"));
        };
        equal.push((column.to_owned(), value.to_owned()));
    }
    Ok(Scope {
        tables: args.tables.clone(),
        after,
        until,
        equal,
    })
}

fn key(rows: &Rows, key: &[String]) -> String {
    let pairs = rows.table.key.iter().zip(key);
    let pairs: Vec<String> = pairs.map(|(column, value)| format!("{column} = {value}")).collect();
    pairs.join(", ")
}

fn keys_for_people(rows: &Rows) -> String {
    let mut text = String::new();
    for row in rows.rows.iter().take(SHOWN) {
        text.push_str(&format!("    {}\n", key(rows, &row.key)));
    }
    if rows.rows.len() > SHOWN {
        text.push_str(&format!("    and {} more\n", rows.rows.len() - SHOWN));
    }
    text
}

fn preview_for_people(component: &str, preview: &Preview) -> String {
    let count = text::counted(preview.count() as u64, "row");
    let mut text = format!("{component}: {count} would come back in the database {}\n", preview.database);
    for rows in &preview.rows {
        let table = &rows.table;
        let count = text::counted(rows.rows.len() as u64, "row");
        text.push_str(&format!("  {table}: {count}; {} become null\n", table.columns.join(", ")));
        text.push_str(&keys_for_people(rows));
        if !table.triggers.is_empty() && !rows.rows.is_empty() {
            text.push_str(&format!("    triggers fire as always: {}\n", table.triggers.join(", ")));
        }
    }
    text
}

fn rows_as_json(rows: &Rows) -> Value {
    json!({
        "table": rows.table.to_string(),
        "rows": rows.rows.len(),
        "key": rows.table.key,
        "keys": rows.rows.iter().take(SHOWN).map(|row| &row.key).collect::<Vec<_>>(),
        "columns": rows.table.columns,
        "triggers": rows.table.triggers,
    })
}

fn preview_as_json(component: &str, preview: &Preview) -> Value {
    json!({
        "component": component,
        "id": null,
        "database": preview.database,
        "rows": preview.count(),
        "tables": preview.rows.iter().map(rows_as_json).collect::<Vec<_>>(),
    })
}

fn for_people(record: &Record) -> String {
    let mut text = format!(
        "{}: {} came back in the database {}\n",
        record.component,
        text::counted(undelete::count(&record.rows) as u64, "row"),
        record.database
    );
    for rows in &record.rows {
        text.push_str(&format!(
            "  {}: {}\n",
            rows.table,
            text::counted(rows.rows.len() as u64, "row")
        ));
    }
    text.push_str(&format!("  to take this back: lifeboat undelete --undo {}\n", record.id));
    text
}

fn as_json(record: &Record) -> Value {
    json!({
        "component": record.component,
        "id": record.id,
        "database": record.database,
        "rows": undelete::count(&record.rows),
        "tables": record.rows.iter().map(rows_as_json).collect::<Vec<_>>(),
    })
}

fn undone_for_people(component: &str, undone: &Undone) -> String {
    let mut text = format!(
        "{component}: {} in the database {} hold again what they held\n",
        text::counted(undone.put_back as u64, "row"),
        undone.record.database
    );
    for rows in undone.left.iter().filter(|rows| !rows.rows.is_empty()) {
        let count = text::counted(rows.rows.len() as u64, "row");
        text.push_str(&format!("  {}: {count} changed since or gone, and left alone\n", rows.table));
        text.push_str(&keys_for_people(rows));
    }
    text
}
