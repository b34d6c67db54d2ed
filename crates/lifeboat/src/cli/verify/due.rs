//! `lifeboat verify --due`: what the configuration wants to be proven by now. One restore serves every nearer level.

use lifeboat_model::Result;
use lifeboat_model::readiness::Verification;
use lifeboat_model::time::human_duration;
use lifeboat_ops::verify::due::{self, Wanted};
use lifeboat_repo::{ComponentName, format_utc};
use serde_json::{Value, json};

use super::super::Cx;
use super::super::args::{LevelChoice, Verify};
use super::super::context::Context;
use super::super::outcomes::Outcomes;
use super::{Level, slices};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{self, json as document};

pub(super) async fn run(cx: &Cx, context: &Context, components: &[&ComponentSettings]) -> Result<Exit> {
    let mut outcomes = Outcomes::new(components.len());
    if components.iter().all(|component| component.verifications.is_empty()) {
        cx.out
            .note("note: the configuration wants nothing: write `verify: { app: { every: 30d } }` below a component");
    }
    for component in components {
        match one(cx, context, component).await {
            // Nothing was proven, and the ledger hears of nothing.
            Ok(done) if done.is_nothing => outcomes.seen(done.row, &done.text),
            Ok(done) => {
                outcomes.but(done.exit);
                outcomes.good(cx, done.row, &done.text);
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "verify-due")
}

/// What came of a component.
struct Done {
    row: Value,
    text: String,
    exit: Exit,
    /// Nothing was due.
    is_nothing: bool,
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<Done> {
    let name = ComponentName::new(&component.name)?;
    let wanted = &component.verifications;
    let now_us = cx.env.clock.wall_us();
    let standings = |now_us| due::standings(&context.settings.state_dir, &name, &component.stores, wanted, now_us);
    let before = standings(now_us);
    let due = wanted.iter().zip(&before).filter(|(_, standing)| standing.is_due(now_us));
    let all: Vec<(&Wanted, &Verification)> = due.collect();
    let (mut row, mut text, mut exit, mut first) = (json!({ "component": component.name }), String::new(), Exit::OK, None);
    let farthest = all.iter().filter(|(wanted, _)| wanted.budget_bytes.is_none());
    if let Some(level) = farthest.map(|(wanted, _)| wanted.level).max() {
        let args = Verify {
            what: None,
            backup: None,
            all: false,
            from: None,
            level: choice(level),
            budget: None,
            due: false,
        };
        // What fails here keeps nobody from the slices, which need no key.
        match super::stores(cx, context, component, &args).await {
            Ok(proven) => {
                row["proofs"] = json!(proven.rows);
                text.push_str(&proven.text);
                exit = exit.worse(proven.exit.unwrap_or(Exit::OK));
            }
            Err(error) => first = Some(error),
        }
    }
    if let Some(budget) = all.iter().find_map(|(wanted, _)| wanted.budget_bytes) {
        match slices::stores(cx, context, component, None, budget).await {
            Ok((slices, shown, ended)) => {
                row["slices"] = json!(slices);
                text.push_str(&shown);
                exit = exit.worse(ended);
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    if let Some(error) = first {
        // Without anything beside it, it is what came of the component.
        if row["proofs"].is_null() && row["slices"].is_null() {
            return Err(error);
        }
        exit = exit.worse(Exit::of(error.kind()));
        cx.env.progress.finish();
        if !cx.out.json {
            render::tell(&render::error::for_people(&error));
        }
        row["error"] = document::error(&error);
    }
    let standings = standings(cx.env.clock.wall_us());
    if all.is_empty() && !standings.is_empty() {
        text.push_str(&format!("{}: nothing is due\n", component.name));
    }
    for standing in &standings {
        text.push_str(&format!("  {}\n", next(standing, now_us)));
    }
    row["verify"] = standings.iter().map(|standing| as_json(standing, now_us)).collect();
    Ok(Done {
        row,
        text,
        exit,
        is_nothing: all.is_empty(),
    })
}

const fn choice(level: Level) -> LevelChoice {
    match level {
        Level::List => LevelChoice::List,
        Level::Hash => LevelChoice::Hash,
        Level::Decrypt => LevelChoice::Decrypt,
        Level::Restore => LevelChoice::Restore,
        Level::App => LevelChoice::App,
    }
}

fn next(standing: &Verification, now_us: i64) -> String {
    let left_us = standing.due_us(now_us).saturating_sub(now_us);
    match u64::try_from(left_us) {
        Ok(left_us) if left_us > 0 => {
            let left = human_duration(std::time::Duration::from_micros(left_us));
            format!("{}: due again in {left}", standing.level)
        }
        _ => format!("{}: still due", standing.level),
    }
}

fn as_json(standing: &Verification, now_us: i64) -> Value {
    json!({
        "level": standing.level,
        "every_s": standing.every.as_secs_f64(),
        "last": standing.last_us.map(format_utc),
        "due": format_utc(standing.due_us(now_us)),
    })
}
