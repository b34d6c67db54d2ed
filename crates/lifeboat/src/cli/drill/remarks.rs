//! `lifeboat drill approve`, `action`, `done`, `actions`: what people say of a whole drill.

use jiff::civil::Date;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::drill::remarks::{self, Remark, What};
use lifeboat_ops::drill::{Written, evidence};
use lifeboat_repo::format_utc;
use serde_json::{Value, json};

use super::super::Cx;
use super::super::context::Context;
use super::{digest, readable, told, user};
use crate::exit::Exit;
use crate::render;

/// What somebody says, and who.
pub(super) struct Word {
    pub(super) by: Option<String>,
    pub(super) note: Option<String>,
}

/// Whether the report is accepted.
pub(super) fn approve(cx: &Cx, context: &Context, id: &str, accepted: bool, word: Word) -> Result<Exit> {
    say(cx, context, id, word, |written| {
        Ok(What::Approval {
            accepted,
            report_sha256: digest(&written.folder.join("report.json"))?,
        })
    })
}

/// Something has to be done.
pub(super) fn action(
    cx: &Cx,
    context: &Context,
    id: &str,
    text: String,
    owner: String,
    due: Option<&str>,
    word: Word,
) -> Result<Exit> {
    let due = due.map(date).transpose()?;
    say(cx, context, id, word, |_| Ok(What::Action { text, owner, due }))
}

/// It was done.
pub(super) fn done(cx: &Cx, context: &Context, id: &str, action: usize, word: Word) -> Result<Exit> {
    say(cx, context, id, word, |_| Ok(What::Done { action }))
}

fn say(cx: &Cx, context: &Context, id: &str, word: Word, what: impl FnOnce(&Written) -> Result<What>) -> Result<Exit> {
    let state_dir = &context.settings.state_dir;
    let written = evidence::find(state_dir, Some(id))?;
    let remark = Remark {
        who: word.by.unwrap_or_else(user),
        at: format_utc(cx.env.clock.wall_us()),
        note: word.note,
        what: what(&written)?,
    };
    let written = remarks::add(state_dir, &written, &remark)?;
    told(cx, &written)?;
    Ok(Exit::OK)
}

/// A date as it is written down.
fn date(text: &str) -> Result<String> {
    let date = text.parse::<Date>().map_err(|error| {
        Error::new(ErrorKind::Usage, "use as a date", format!("{text:?}"), error.to_string())
            .with_hint("write it like 2026-12-01")
            .with_source(error)
    })?;
    Ok(date.to_string())
}

/// What has to be done, of all drills.
pub(super) fn list(cx: &Cx, context: &Context, all: bool) -> Result<Exit> {
    let today: String = format_utc(cx.env.clock.wall_us()).chars().take(10).collect();
    let (mut rows, mut table, mut late) = (Vec::<Value>::new(), render::drill::action_table(), false);
    for written in readable(&context.settings.state_dir)? {
        for action in written.actions() {
            if action.done.is_some() && !all {
                continue;
            }
            late |= action.overdue(&today);
            table.row(render::drill::action_row(&written, &action, &today));
            let mut row = json!(action);
            if let Some(fields) = row.as_object_mut() {
                fields.insert("component".to_owned(), json!(written.report.component));
                fields.insert("id".to_owned(), json!(written.report.id));
                fields.insert("overdue".to_owned(), json!(action.overdue(&today)));
            }
            rows.push(row);
        }
    }
    let text = if rows.is_empty() {
        "nothing is open\n".to_owned()
    } else {
        table.render()
    };
    cx.out.result("drill-actions", json!({ "actions": rows }), &text)?;
    Ok(if late {
        Exit::of(ErrorKind::ObjectiveMissed)
    } else {
        Exit::OK
    })
}
