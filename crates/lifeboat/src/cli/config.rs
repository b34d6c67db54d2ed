//! `lifeboat config`: check, show and describe `lifeboat.yaml`.

use lifeboat_model::Result;
use serde_json::json;

use super::args::Config;
use super::{Cx, lint};
use crate::config;
use crate::exit::Exit;
use crate::render::{self, text};

pub(super) fn run(cx: &Cx, command: &Config) -> Result<Exit> {
    match command {
        Config::Check { explain } => match explain.as_deref() {
            Some(code) => {
                let (body, says) = lint::explain(code)?;
                cx.out.result("plan-rule", body, &says)?;
                Ok(Exit::OK)
            }
            None => check(cx),
        },
        Config::Show { origin } => show(cx, *origin),
        Config::Schema => schema(cx),
    }
}

fn check(cx: &Cx) -> Result<Exit> {
    let settings = super::zero::settings(cx)?;
    let mut says = format!(
        "{} is right: {}",
        settings.path.display(),
        text::counted(settings.components.len(), "component")
    );
    for warning in &settings.warnings {
        says.push_str(&format!("\nwarning: {warning}"));
    }
    let judged = lint::Judged::of(cx, &settings);
    says.push_str("\n\nthe plan:\n");
    says.push_str(&judged.text());
    let (plan, findings) = judged.json();
    let body = json!({
        "path": settings.path,
        "valid": true,
        "components": settings.components.len(),
        "warnings": settings.warnings,
        "plan": plan,
        "findings": findings,
        "exit_code": judged.exit().code(),
    });
    cx.out.result("config-check", body, &says)?;
    Ok(judged.exit())
}

fn show(cx: &Cx, origin: bool) -> Result<Exit> {
    let settings = super::zero::settings(cx)?;
    let mut shown = config::show(&settings);
    let mut text = format!("{shown:#}");
    if origin {
        let origins = config::origins(cx.config.as_deref())?;
        let width = origins.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
        text.push_str("\n\nwhere it comes from:\n");
        for (path, from) in &origins {
            text.push_str(&format!("  {path:<width$}  {from}\n"));
        }
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("origin".to_owned(), origins.into_iter().collect());
        }
    }
    cx.out.result("config", shown, &text)?;
    Ok(Exit::OK)
}

/// The schema is a document of its own: it is printed as it is, with and without `--json`.
fn schema(_cx: &Cx) -> Result<Exit> {
    render::print(&format!("{:#}\n", config::schema()))?;
    Ok(Exit::OK)
}
