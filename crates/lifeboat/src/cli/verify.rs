//! `lifeboat verify`: prove backups, level by level.

mod due;
mod slices;

use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{ErrorKind, Result};
use lifeboat_ops::proof::Level;
use lifeboat_ops::protected::Protected;
use lifeboat_ops::protected::{Choice, choose};
use lifeboat_ops::restore::Findings;
use lifeboat_ops::verify::{self, Report};
use lifeboat_repo::{Backup, Identities, Repository};
use serde_json::{Value, json};

use super::args::{LevelChoice, Verify};
use super::context::Context;
use super::outcomes::Outcomes;
use super::scratch::Scratch;
use super::{Cx, artefact};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{self, json as document, text};

pub(super) async fn run(cx: &Cx, args: Verify) -> Result<Exit> {
    let context = Context::load(cx)?;
    if let Some(file) = artefact::file_of(&context, args.from.as_deref()) {
        return artefact::verify(cx, &context, file).await;
    }
    let components = context.select(args.what.as_slice())?;
    if args.due {
        return due::run(cx, &context, &components).await;
    }
    if let Some(budget) = &args.budget {
        return slices::run(cx, &context, &components, &args, budget).await;
    }
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        match stores(cx, &context, component, &args).await {
            Ok(proven) => {
                if let Some(exit) = proven.exit {
                    outcomes.but(exit);
                }
                let json = json!({ "component": component.name, "proofs": proven.rows });
                outcomes.good(cx, json, &proven.text);
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "verify")
}

struct Proven {
    rows: Vec<Value>,
    text: String,
    exit: Option<Exit>,
}

/// Files are looked at in every store, because a bit that flips does so in one. What is opened or restored is read from one store: the one that
/// was named, or the first that answers.
async fn stores(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Verify) -> Result<Proven> {
    let everywhere = matches!(level(args.level), Level::List | Level::Hash) && args.from.is_none();
    if !everywhere || component.stores.len() < 2 {
        return one(cx, context, component, args, args.from.as_slice()).await;
    }
    let (mut rows, mut text, mut exit, mut first) = (Vec::new(), String::new(), Exit::OK, None);
    for store in &component.stores {
        match one(cx, context, component, args, std::slice::from_ref(store)).await {
            Ok(proven) => {
                exit = exit.worse(proven.exit.unwrap_or(Exit::OK));
                text.push_str(&format!("in the store {store}:\n{}", proven.text));
                let named = proven.rows.into_iter().map(|mut row| {
                    row["store"] = json!(store);
                    row
                });
                rows.extend(named);
            }
            Err(error) => {
                cx.env.progress.finish();
                exit = exit.worse(Exit::of(error.kind()));
                if !cx.out.json {
                    render::tell(&format!("{} in the store {store}:", component.name));
                    render::tell(&render::error::for_people(&error));
                }
                rows.push(json!({ "store": store, "error": document::error(&error) }));
                first = first.or(Some(error));
            }
        }
    }
    match first {
        Some(error) if text.is_empty() => Err(error),
        _ => Ok(Proven {
            rows,
            text,
            exit: Some(exit),
        }),
    }
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Verify, from: &[String]) -> Result<Proven> {
    let protected = context.protected(component, from).await?;
    let repository = protected.repository().await?;
    let listing = protected.listing(&repository).await?;
    // What is stored and does not count is bad data, whichever backup was asked for.
    verify::check_listing(&protected, &listing)?;
    let backups: Vec<Backup> = if args.all {
        listing.backups.clone()
    } else {
        let choice = args.backup.clone().map_or(Choice::Latest, Choice::Named);
        vec![choose(&listing, &choice, &protected.component)?.clone()]
    };
    if backups.is_empty() {
        choose(&listing, &Choice::Latest, &protected.component)?;
    }
    let level = level(args.level);
    let identities = match level {
        // Neither reads a byte that is sealed.
        Level::List | Level::Hash => Identities::none(),
        Level::Decrypt | Level::Restore | Level::App => context.identities(component).await?,
    };
    let (mut rows, mut text, mut exit) = (Vec::new(), String::new(), None);
    for backup in &backups {
        let scratch = match level {
            Level::Restore | Level::App => Some(Scratch::create(&cx.env, &protected)?),
            Level::List | Level::Hash | Level::Decrypt => None,
        };
        let path = scratch.as_ref().map(Scratch::path).unwrap_or_default();
        let proven = verify::run(&cx.env, &protected, &repository, backup, level, &identities, path).await;
        if let Err(error) = &proven
            && (level, error.kind()) == (Level::Hash, ErrorKind::Corrupt)
        {
            mark_damage(cx, context, &protected, &repository, backup).await;
        }
        match proven {
            Ok(report) => {
                if report.failed().next().is_some() {
                    exit = Some(Exit::of(ErrorKind::Corrupt));
                }
                rows.push(as_json(&report));
                text.push_str(&sentence(&component.name, &report));
            }
            // One bad backup among many: the others are worth knowing.
            Err(error) if backups.len() > 1 && error.kind() == ErrorKind::Corrupt => {
                cx.env.progress.finish();
                exit = Some(Exit::of(error.kind()));
                if !cx.out.json {
                    render::tell(&render::error::for_people(&error));
                }
                rows.push(json!({ "backup": document::backup(backup), "level": level.word(), "error": document::error(&error) }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Proven { rows, text, exit })
}

/// Marks what is damaged for the next backup. Where this cannot be done (there is no instance here, the store is read-only), the finding
/// itself is what matters, and only a note says so.
pub(super) async fn mark_damage(cx: &Cx, context: &Context, protected: &Protected, repository: &Repository, backup: &Backup) {
    let marked = match protected.instance(&context.settings.instance_name) {
        Ok(instance) => verify::mark_damage(&cx.env, protected, repository, backup, &instance).await,
        Err(error) => Err(error),
    };
    cx.out.note(&match marked {
        Ok(files) => format!("note: marked for the next backup to store again: {}", files.join(", ")),
        Err(error) => format!("note: what is damaged could not be marked in the store: {error}"),
    });
}

const fn level(choice: LevelChoice) -> Level {
    match choice {
        LevelChoice::List => Level::List,
        LevelChoice::Hash => Level::Hash,
        LevelChoice::Decrypt => Level::Decrypt,
        LevelChoice::Restore => Level::Restore,
        LevelChoice::App => Level::App,
    }
}

/// What was proven, in words.
pub(super) fn sentence(component: &str, report: &Report) -> String {
    let id = report.backup.id.short();
    let took = human_duration(report.took);
    let what = match report.level {
        Level::List => format!("{} there, with the right size", text::counted(report.checked, "stored file")),
        Level::Hash => format!(
            "{} intact ({})",
            text::counted(report.checked, "stored file"),
            human_bytes(report.bytes)
        ),
        Level::Decrypt => format!("everything opens and is what it claims to be ({})", human_bytes(report.bytes)),
        Level::Restore | Level::App => {
            let checked = report.findings.as_ref().map(text::checked).unwrap_or_default();
            let failed = match report.failed().count() {
                0 => String::new(),
                count => format!(", and {} failed", text::counted(count, "check")),
            };
            format!("restored and checked ({}, {checked}){failed}", human_bytes(report.bytes))
        }
    };
    let mut text = format!("{component}: backup {id}: {what} in {took}\n");
    for note in report.findings.iter().flat_map(Findings::notes) {
        text.push_str(&format!("  note: {note}\n"));
    }
    if let Some(findings) = &report.findings {
        text.push_str(&text::outcomes(&findings.checks));
    }
    text
}

/// The same for programs.
pub(super) fn as_json(report: &Report) -> Value {
    json!({
        "backup": document::backup(&report.backup),
        "level": report.level.word(),
        "checked": report.checked,
        "bytes": report.bytes,
        "took_s": report.took.as_secs_f64(),
        "findings": report.findings.as_ref().map(document::findings),
    })
}
