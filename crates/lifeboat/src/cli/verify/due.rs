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

pub(super) async fn run(cx: &Cx, context: &Context, components: &[&ComponentSettings]) -> Result<Exit> {
    let mut outcomes = Outcomes::new(components.len());
    if components.iter().all(|component| component.verifications.is_empty()) {
        cx.out
            .note("note: the configuration wants nothing: write `verify: { app: { every: 30d } }` below a component");
    }
    for component in components {
        match one(cx, context, component).await {
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
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<Done> {
    let name = ComponentName::new(&component.name)?;
    let wanted = &component.verifications;
    let standings = || due::standings(&context.settings.state_dir, &name, &component.stores, wanted);
    let before = standings();
    let now_us = cx.env.clock.wall_us();
    let is_due = |standing: &Verification| standing.due_us(now_us) <= now_us;
    let all: Vec<(&Wanted, &Verification)> = wanted.iter().zip(&before).filter(|(_, standing)| is_due(standing)).collect();
    let (mut row, mut text, mut exit) = (json!({ "component": component.name }), String::new(), Exit::OK);
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
        let proven = super::stores(cx, context, component, &args).await?;
        row["proofs"] = json!(proven.rows);
        text.push_str(&proven.text);
        exit = exit.worse(proven.exit.unwrap_or(Exit::OK));
    }
    if let Some(budget) = all.iter().find_map(|(wanted, _)| wanted.budget_bytes) {
        let (slices, shown, ended) = slices::stores(cx, context, component, None, budget).await?;
        row["slices"] = json!(slices);
        text.push_str(&shown);
        exit = exit.worse(ended);
    }
    let standings = standings();
    if all.is_empty() && !standings.is_empty() {
        text.push_str(&format!("{}: nothing is due\n", component.name));
    }
    for standing in &standings {
        text.push_str(&format!("  {}\n", next(standing, now_us)));
    }
    row["verify"] = standings.iter().map(|standing| as_json(standing, now_us)).collect();
    Ok(Done { row, text, exit })
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
