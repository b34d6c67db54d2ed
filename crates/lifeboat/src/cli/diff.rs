//! `lifeboat diff`: what happened between two backups, or between a backup and now.
//!
//! That something differs is a result, not a failure: the command ends with 0 either way, and `"same"` in the JSON tells programs.

mod databases;
mod files;

use lifeboat_engine::sqlite::{Cell, Difference, Fate, RowChange, SchemaChange, Scope, TableChange};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::diff::{self, Of};
use lifeboat_ops::protected::{Choice, choose};
use lifeboat_repo::Listing;
use serde_json::{Value, json};

use super::Cx;
use super::args::diff::Diff;
use super::context::Context;
use super::scratch::Scratch;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, args: Diff) -> Result<Exit> {
    let context = Context::load(cx)?;
    let component = only_one(&context, args.what.as_deref())?;
    let protected = context.protected(component, &[]).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    let side = |word: &str| side(word, &listing, component);
    let (before, after) = (side(&args.before)?, side(&args.after)?);
    let identities = context.identities(component).await?;
    let (is_files, foreign) = match component.source.files() {
        Some(_) => (
            true,
            (!args.table.is_empty()).then_some(("--table", "tables are what databases have")),
        ),
        None => (
            false,
            (!args.path.is_empty()).then_some(("--path", "a database is compared by its tables")),
        ),
    };
    if let Some((word, why)) = foreign {
        return Err(Error::new(
            ErrorKind::Usage,
            "compare",
            &component.name,
            format!("{word} does not fit: {why}"),
        )
        .with_hint("`lifeboat diff --help` shows what fits"));
    }
    if is_files {
        let scratch = Scratch::create(&cx.env, &protected)?;
        let (sides, scope) = ((&before, &after), (args.path, args.samples));
        let found = diff::trees(&cx.env, &protected, &repository, sides, &identities, scope, &scratch.path()).await?;
        cx.env.progress.finish();
        let text = files::for_people(&component.name, (&before, &after), &found, args.counts);
        let body = files::as_json(&component.name, (&before, &after), &found, args.counts);
        cx.out.result("diff", body, &text)?;
        return Ok(Exit::OK);
    }
    if component.source.cluster().is_some() {
        let sides = (&before, &after);
        let found = diff::databases::compare(&cx.env, &protected, &repository, sides, &identities, &args.table).await?;
        cx.env.progress.finish();
        let text = databases::for_people(&component.name, sides, &found);
        cx.out
            .result("diff", databases::as_json(&component.name, sides, &found), &text)?;
        return Ok(Exit::OK);
    }
    let difference = if args.counts {
        diff::counts(&cx.env, &repository, &before, &after, &identities).await?
    } else {
        let scratch = Scratch::create(&cx.env, &protected)?;
        let scope = Scope {
            tables: args.table,
            samples: args.samples,
        };
        let sides = (&before, &after);
        diff::rows(&cx.env, &protected, &repository, sides, &identities, scope, &scratch.path()).await?
    };
    cx.env.progress.finish();
    let text = for_people(&component.name, &before, &after, &difference);
    let body = as_json(&component.name, &before, &after, &difference, args.counts);
    cx.out.result("diff", body, &text)?;
    Ok(Exit::OK)
}

fn only_one<'a>(context: &'a Context, what: Option<&str>) -> Result<&'a ComponentSettings> {
    let words: Vec<String> = what.map(str::to_owned).into_iter().collect();
    let components = context.select(&words)?;
    match components.as_slice() {
        [one] => Ok(one),
        [] => Err(Error::new(
            ErrorKind::Usage,
            "compare",
            "backups",
            "the configuration protects nothing yet",
        )),
        many => {
            let names: Vec<&str> = many.iter().map(|component| component.name.as_str()).collect();
            Err(Error::new(
                ErrorKind::Usage,
                "compare",
                what.unwrap_or("backups"),
                "two backups of one component are compared, and this means several",
            )
            .with_hint(format!("name one behind the two backups: {}", names.join(", "))))
        }
    }
}

fn side(word: &str, listing: &Listing, component: &ComponentSettings) -> Result<Of> {
    if word == "live" {
        return Ok(Of::Live);
    }
    let choice = if word == "latest" {
        Choice::Latest
    } else {
        Choice::Named(word.to_owned())
    };
    let name = lifeboat_repo::ComponentName::new(&component.name)?;
    choose(listing, &choice, &name).map(|backup| Of::Backup(Box::new(backup.clone())))
}

fn for_people(component: &str, before: &Of, after: &Of, difference: &Difference) -> String {
    let mut text = format!("{component}: {} → {}\n", title(before), title(after));
    if difference.is_same() {
        text.push_str("  no difference\n");
    }
    for change in &difference.schema {
        text.push_str(&schema_line(change));
    }
    for table in difference.tables.iter().filter(|table| !table.is_same()) {
        text.push_str(&table_lines(table));
    }
    let same = difference.tables.iter().filter(|table| table.is_same()).count();
    if same > 0 && !difference.is_same() {
        text.push_str(&format!("  {} the same\n", text::counted(same, "table")));
    }
    for table in &difference.tables {
        if let Some(why) = &table.not_compared {
            text.push_str(&format!("  note: the rows of {} were not compared: {why}\n", table.name));
        }
    }
    text
}

fn title(of: &Of) -> String {
    match of {
        Of::Backup(backup) => format!("{} of {}", of.name(), text::time(backup.header.moment_us)),
        Of::Live => "as it is now".to_owned(),
    }
}

fn schema_line(change: &SchemaChange) -> String {
    let what = match (&change.before, &change.after) {
        (Some(_), None) => "is gone",
        (None, Some(_)) => "is new",
        (_, _) => "has changed",
    };
    let mut text = format!("  {} {} {what}\n", change.kind, change.name);
    if let (Some(before), Some(after)) = (&change.before, &change.after)
        && change.kind != "schema"
    {
        text.push_str(&format!("    - {}\n    + {}\n", one_line(before), one_line(after)));
    }
    text
}

fn one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table_lines(table: &TableChange) -> String {
    let rows = |count: Option<u64>| count.map_or_else(|| "none".to_owned(), |count| count.to_string());
    let mut text = format!("  {}: rows {} → {}", table.name, rows(table.before), rows(table.after));
    let Some(changes) = &table.rows else {
        text.push('\n');
        return text;
    };
    text.push_str(&format!(
        ": {} missing, {} changed, {} extra\n",
        changes.missing, changes.changed, changes.extra
    ));
    for (fate, total) in [
        (Fate::Missing, changes.missing),
        (Fate::Changed, changes.changed),
        (Fate::Extra, changes.extra),
    ] {
        let mut shown = 0_u64;
        for row in changes.samples.iter().filter(|row| row.fate == fate) {
            shown += 1;
            text.push_str(&row_line(row));
        }
        if shown > 0 && total > shown {
            text.push_str(&format!("    … and {} more {}\n", total - shown, fate_word(fate)));
        }
    }
    text
}

fn row_line(row: &RowChange) -> String {
    let key: Vec<String> = row
        .key
        .iter()
        .map(|(name, value)| format!("{name} = {}", shown(value)))
        .collect();
    let mut text = format!("    {:<8} {}", fate_word(row.fate), key.join(", "));
    let columns: Vec<String> = row
        .columns
        .iter()
        .map(|(name, before, after)| format!("{name}: {} → {}", shown(before), shown(after)))
        .collect();
    if !columns.is_empty() {
        text.push_str(&format!(": {}", columns.join("; ")));
    }
    text.push('\n');
    text
}

const fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Missing => "missing",
        Fate::Changed => "changed",
        Fate::Extra => "extra",
    }
}

/// A value for people; control characters of a foreign text must not reach a terminal.
fn shown(value: &Cell) -> String {
    match value {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => number.to_string(),
        Cell::Text(start, bytes) => {
            let clean: String = start.chars().map(|c| if c.is_control() { '�' } else { c }).collect();
            let more = if *bytes > start.len() { "…" } else { "" };
            format!("'{clean}{more}'")
        }
        Cell::Blob(start, bytes) => {
            let more = if *bytes > start.len() / 2 {
                format!("… ({bytes} bytes)")
            } else {
                String::new()
            };
            format!("x'{start}{more}'")
        }
    }
}

fn as_json(component: &str, before: &Of, after: &Of, difference: &Difference, counts: bool) -> Value {
    let schema = difference
        .schema
        .iter()
        .map(|change| json!({ "kind": change.kind, "name": change.name, "before": change.before, "after": change.after }));
    let tables = difference.tables.iter().map(|table| {
        json!({
            "name": table.name,
            "same": table.is_same(),
            "rows_before": table.before,
            "rows_after": table.after,
            "not_compared": table.not_compared,
            "missing": table.rows.as_ref().map(|rows| rows.missing),
            "changed": table.rows.as_ref().map(|rows| rows.changed),
            "extra": table.rows.as_ref().map(|rows| rows.extra),
            "samples": table.rows.iter().flat_map(|rows| &rows.samples).map(sample).collect::<Vec<_>>(),
        })
    });
    json!({
        "component": component,
        "before": of_json(before),
        "after": of_json(after),
        "counts_only": counts,
        "same": difference.is_same(),
        "schema_changes": schema.collect::<Vec<_>>(),
        "tables": tables.collect::<Vec<_>>(),
    })
}

fn of_json(of: &Of) -> Value {
    match of {
        Of::Backup(backup) => document::backup(backup),
        Of::Live => json!("live"),
    }
}

fn sample(row: &RowChange) -> Value {
    let key: serde_json::Map<String, Value> = row.key.iter().map(|(name, value)| (name.clone(), cell(value))).collect();
    let columns: serde_json::Map<String, Value> = row
        .columns
        .iter()
        .map(|(name, before, after)| (name.clone(), json!({ "before": cell(before), "after": cell(after) })))
        .collect();
    json!({ "fate": fate_word(row.fate), "key": key, "columns": columns })
}

fn cell(value: &Cell) -> Value {
    match value {
        Cell::Null => Value::Null,
        Cell::Integer(number) => json!(number),
        Cell::Real(number) => json!(number),
        Cell::Text(start, bytes) if *bytes > start.len() => json!({ "text": start, "bytes": bytes }),
        Cell::Text(text, _) => json!(text),
        Cell::Blob(start, bytes) => json!({ "hex": start, "bytes": bytes }),
    }
}
