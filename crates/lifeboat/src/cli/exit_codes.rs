//! `lifeboat exit-codes`: the table that scripts rely on.

use lifeboat_model::Result;
use serde_json::json;

use super::Cx;
use crate::exit::{Exit, TABLE};
use crate::render::text::Table;

pub(super) fn run(cx: &Cx) -> Result<Exit> {
    let mut table = Table::new(&["CODE", "MEANS", "WHAT HELPS"], &[0]);
    for row in &TABLE {
        table.row([row.code.to_string(), row.means.to_owned(), row.advice.to_owned()]);
    }
    let codes: Vec<_> = TABLE
        .iter()
        .map(|row| json!({ "code": row.code, "means": row.means, "advice": row.advice }))
        .collect();
    cx.out.result("exit-codes", json!({ "exit_codes": codes }), &table.render())?;
    Ok(Exit::OK)
}
