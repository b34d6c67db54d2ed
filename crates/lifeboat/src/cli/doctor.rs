//! `lifeboat doctor`: checks of the set-up in plain sentences, each with its fix.

use lifeboat_model::{ErrorKind, Result};
use lifeboat_ops::doctor::{self, Check, KeyAtHand, Outcome};
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::context::{Context, secret_file};
use super::outcomes::Outcomes;
use super::{Cx, store};

use crate::config::ComponentSettings;
use crate::exit::Exit;

pub(super) async fn run(cx: &Cx) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&[])?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let checks = match one(cx, &context, component).await {
            Ok(checks) => {
                // Nothing may be broken in an emergency; a warning alone is no failure.
                if checks.iter().any(|check| check.outcome == Outcome::Bad) {
                    outcomes.but(Exit::of(ErrorKind::Failed));
                }
                checks
            }
            // What keeps the doctor out is what the doctor has to tell.
            Err(error) => {
                outcomes.but(Exit::of(error.kind()));
                vec![Check {
                    says: error.to_string(),
                    outcome: Outcome::Bad,
                    fix: error.hint().map(str::to_owned),
                }]
            }
        };
        outcomes.good(cx, as_json(&component.name, &checks), &for_people(&component.name, &checks));
    }
    outcomes.finish(cx, "doctor")
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<Vec<Check>> {
    let protected = context.protected(component, &[]).await?;
    let key = match context.key_of(component)?.filter(|key| key.has_identity()) {
        None => None,
        Some(key) => Some(KeyAtHand {
            identities: context.identities(component).await,
            file: key.identity.as_ref().and_then(secret_file),
            derived: key.derived.is_some(),
        }),
    };
    let mut checks = doctor::run(&cx.env, &protected, &context.settings.instance_name, key).await;
    for name in &component.stores {
        checks.extend(store_checks(context, name).await);
    }
    Ok(checks)
}

/// What is not as it should be about a store of a component. What is, is said by `store check`.
async fn store_checks(context: &Context, name: &str) -> Vec<Check> {
    let looked = async { store::look(context.store(name)?).await };
    match looked.await {
        Ok(checks) => checks
            .into_iter()
            .filter(|check| check.outcome != Outcome::Good)
            .map(|check| Check {
                says: format!("the store {name}: {}", check.says),
                ..check
            })
            .collect(),
        Err(error) => vec![Check {
            says: format!("the store {name}: {error}"),
            outcome: Outcome::Bad,
            fix: error.hint().map(str::to_owned),
        }],
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "good",
        Outcome::Warning => "warning",
        Outcome::Bad => "bad",
    }
}

pub(super) fn for_people(component: &str, checks: &[Check]) -> String {
    let mut text = format!("{}\n", component.bold());
    for check in checks {
        let mark = match check.outcome {
            Outcome::Good => "✓ good".green().to_string(),
            Outcome::Warning => "! warning".yellow().to_string(),
            Outcome::Bad => "✗ bad".red().to_string(),
        };
        text.push_str(&format!("  {mark}: {}\n", check.says));
        if let Some(fix) = &check.fix {
            text.push_str(&format!("    fix: {fix}\n"));
        }
    }
    text
}

pub(super) fn as_json(component: &str, checks: &[Check]) -> Value {
    let rows: Vec<Value> = checks
        .iter()
        .map(|check| json!({ "says": check.says, "outcome": word(check.outcome), "fix": check.fix }))
        .collect();
    json!({ "component": component, "checks": rows })
}
