//! What differs between the databases of logical backups, for people and for programs.

use lifeboat_engine::postgres::logical::Digest;
use lifeboat_ops::diff::Of;
use lifeboat_ops::diff::databases::Change;
use serde_json::{Value, json};

use super::{of_json, title};
use crate::render::text;

pub(super) fn for_people(component: &str, (before, after): (&Of, &Of), changes: &[Change]) -> String {
    let mut text = format!("{component}: {} → {}\n", title(before), title(after));
    let rows = |digest: Option<Digest>| digest.map_or_else(|| "none".to_owned(), |digest| digest.rows.to_string());
    for change in changes.iter().filter(|change| !change.is_same()) {
        let what = match (change.before, change.after) {
            (Some(before), Some(after)) if before.rows == after.rows => ", but other rows",
            (Some(before), Some(after)) if after.rows < before.rows => ": it shrank",
            (Some(_), None) => ": it is gone",
            (None, Some(_)) => ": it is new",
            _ => "",
        };
        text.push_str(&format!(
            "  {}: {}: rows {} → {}{what}\n",
            change.database,
            change.table,
            rows(change.before),
            rows(change.after)
        ));
    }
    match changes.iter().filter(|change| change.is_same()).count() {
        same if same == changes.len() => text.push_str("  no difference\n"),
        0 => {}
        same => text.push_str(&format!("  {} the same\n", text::counted(same as u64, "table"))),
    }
    text
}

pub(super) fn as_json(component: &str, (before, after): (&Of, &Of), changes: &[Change]) -> Value {
    let tables = changes.iter().map(|change| {
        json!({
            "database": change.database,
            "name": change.table.to_string(),
            "same": change.is_same(),
            "rows_before": change.before.map(|digest| digest.rows),
            "rows_after": change.after.map(|digest| digest.rows),
        })
    });
    json!({
        "component": component,
        "before": of_json(before),
        "after": of_json(after),
        "same": changes.iter().all(Change::is_same),
        "tables": tables.collect::<Vec<_>>(),
    })
}
