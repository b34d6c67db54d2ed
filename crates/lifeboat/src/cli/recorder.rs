//! What a command leaves in the ledger: the one place where it is decided, for every command, whether and how it is recorded.
//!
//! A command tells what it does as it goes (`Told`), in the words of its JSON document; when it has ended, by whatever end, each component
//! that it was about gets a record. Nothing here changes how the command ends: what could not be recorded is said on stderr.

mod facts;
mod runs;
mod subject;
mod told;

use std::collections::BTreeMap;

use lifeboat_model::{ErrorKind, Result};
use lifeboat_ops::ledger::{self, Appended, Entry, Outcome};
use lifeboat_ops::protected::Protected;
use lifeboat_repo::Instance;
use serde_json::{Map, Value, json};

use super::Cx;
use super::context::Context;
use crate::config::{self, ComponentSettings, Settings};
use crate::exit::Exit;
use crate::render::{json as document, tell};

pub(crate) use runs::Run;
pub(crate) use subject::{Subject, subject};
pub(crate) use told::{Steps, Told};

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself.
    Itself(Result<Exit>),
    /// By a signal.
    Signal(ErrorKind),
}

impl Ended {
    fn exit(&self) -> Exit {
        match self {
            Self::Itself(Ok(exit)) => *exit,
            Self::Itself(Err(error)) => Exit::of(error.kind()),
            Self::Signal(kind) => Exit::of(*kind),
        }
    }

    /// What is told of it where a component came to nothing by itself; none where all went well.
    fn error(&self) -> Option<Value> {
        match self {
            Self::Itself(Ok(_)) => None,
            Self::Itself(Err(error)) => Some(facts::plain(&document::error(error))),
            Self::Signal(kind) => Some(json!({ "kind": document::kind_word(*kind), "exit_code": Exit::of(*kind).code() })),
        }
    }
}

fn outcome_of(exit: Exit) -> Outcome {
    match exit.code() {
        0 => Outcome::Done,
        3 | 4 => Outcome::Incomplete,
        130 | 143 => Outcome::Interrupted,
        _ => Outcome::Failed,
    }
}

/// Marks a command that begins, so that the next one records it if this one is killed. Where that cannot be written down, nobody is kept from anything.
pub(crate) fn begins(cx: &Cx, subject: &Subject) -> Option<Run> {
    let context = Context::quiet(cx, super::zero::settings(cx).ok()?);
    let components = subject.components(&context, &cx.told);
    if components.is_empty() {
        return None;
    }
    Run::begin(&cx.env, &context.settings.state_dir, subject.verb, components, who()).ok()
}

/// Records the runs that were killed, of which this configuration knows the components.
async fn record_killed(cx: &Cx, context: &Context) -> Result<()> {
    for killed in runs::killed(&context.settings.state_dir)? {
        let begun = killed.begun();
        let own = context.settings.components.iter();
        for component in own.filter(|component| begun.components.contains(&component.name)) {
            let mut facts = begun.facts.clone();
            facts.insert("began_at".to_owned(), json!(begun.at));
            facts.insert("killed".to_owned(), json!(true));
            let entry = Entry {
                verb: begun.verb.clone(),
                outcome: Outcome::Interrupted,
                facts,
            };
            keep(cx, context, component, entry, Some(&killed)).await;
        }
    }
    Ok(())
}

/// Records a command that has ended, and before it those that were killed.
pub(crate) async fn record(cx: &Cx, subject: &Subject, ended: &Ended, run: Option<Run>) {
    let Ok(settings) = super::zero::settings(cx) else {
        // Without a configuration nobody knows where the ledger is; the command has said so.
        return;
    };
    let context = Context::quiet(cx, settings);
    record_ended(cx, &context, subject, ended, run.as_ref()).await;
    let over = run.map_or(Ok(()), Run::end);
    if let Err(error) = over {
        cx.out
            .note(&format!("note: the mark of this run could not be removed: {error}"));
    }
}

async fn record_ended(cx: &Cx, context: &Context, subject: &Subject, ended: &Ended, run: Option<&Run>) {
    if let Err(error) = record_killed(cx, context).await {
        cx.out
            .note(&format!("note: runs that were killed could not be recorded: {error}"));
    }
    let names = subject.components(context, &cx.told);
    let took = cx.env.clock.monotonic().saturating_sub(cx.told.began());
    for component in &context.settings.components {
        if !names.contains(&component.name) {
            continue;
        }
        let (rows, all) = cx.told.rows(&component.name, subject.stores_of(component));
        let exit = match rows.iter().map(|row| row.exit).reduce(Exit::worse) {
            // What the command as a whole ended with is about the only one that it told of.
            Some(exit) if all == 1 => exit.worse(ended.exit()),
            Some(exit) => exit,
            None if ended.error().is_some() => ended.exit(),
            // It was not begun.
            None => continue,
        };
        let mut entry = Entry {
            verb: subject.verb.to_owned(),
            outcome: outcome_of(exit),
            facts: who(),
        };
        facts::add(&mut entry.facts, &rows, cx.told.steps_left(), ended, exit);
        entry.facts.insert("took_s".to_owned(), json!(took.as_secs_f64()));
        if let Some(reason) = &subject.reason {
            entry.facts.insert("reason".to_owned(), json!(reason));
        }
        keep(cx, context, component, entry, run).await;
    }
}

/// Records that something begins that goes on.
pub(super) async fn began(cx: &Cx, context: &Context, component: &ComponentSettings, verb: &str) {
    let entry = Entry {
        verb: verb.to_owned(),
        outcome: Outcome::Began,
        facts: who(),
    };
    keep(cx, context, component, entry, None).await;
}

/// Writes an entry, and before it what changed in the configuration since the last one, and takes the component out of the mark of its run. What goes
/// wrong is said.
async fn keep(cx: &Cx, context: &Context, component: &ComponentSettings, entry: Entry, run: Option<&Run>) {
    let kept = async {
        let protected = context.for_ledger(component).await?;
        let instance = protected.instance(&context.settings.instance_name)?;
        let parts = parts(&context.settings, component);
        let written = || {
            // A mark that stays makes a second record, and loses none.
            if let Some(Err(error)) = run.map(|run| run.recorded(&component.name)) {
                cx.out
                    .note(&format!("note: the mark of this run could not be changed: {error}"));
            }
        };
        append(cx, &protected, &instance, entry, &parts, written).await
    };
    match kept.await {
        Ok(appended) => say(cx, &component.name, &appended),
        Err(error) => cx.out.note(&format!(
            "note: {}: this is not recorded in the ledger: {error}",
            component.name
        )),
    }
}

async fn append(
    cx: &Cx,
    protected: &Protected,
    instance: &Instance,
    entry: Entry,
    parts: &BTreeMap<String, String>,
    written: impl FnOnce(),
) -> Result<Appended> {
    let changed = ledger::config_entry(protected, instance, parts)?;
    let is_changed = changed.is_some();
    let entries = changed.into_iter().chain([entry]).collect();
    let appended = ledger::append_all(&cx.env, protected, instance, entries, written).await?;
    if is_changed {
        ledger::remember_config(protected, instance, parts)?;
    }
    Ok(appended)
}

fn say(cx: &Cx, component: &str, appended: &Appended) {
    for (store, error) in &appended.missing {
        cx.out.note(&format!(
            "note: {component}: the record of this could not be stored in {store}: {error}; it waits here and goes with the next one, or with `lifeboat audit ship`"
        ));
    }
    for note in &appended.notes {
        tell(&format!("warning: {component}: {note}"));
    }
}

/// Who runs this, where, and which version it is.
fn who() -> Map<String, Value> {
    let facts = json!({
        "who": facts::who(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

/// Digests of the parts of the configuration that a component depends on. Secrets stand in it as where they are, so no digest is of one.
fn parts(settings: &Settings, component: &ComponentSettings) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    let Value::Object(shown) = config::show(settings) else {
        return parts;
    };
    let mut part = |name: String, value: &Value| {
        let digest = lifeboat_repo::digest(value.to_string().as_bytes());
        parts.insert(name, digest);
    };
    for (name, value) in &shown {
        match (name.as_str(), value) {
            ("warnings", _) => {}
            ("components", Value::Array(components)) => {
                let own = components.iter().find(|shown| shown["name"] == component.name);
                part(format!("components.{}", component.name), own.unwrap_or(&Value::Null));
            }
            ("instances" | "keys" | "stores" | "retention", Value::Object(entries)) => {
                for (entry, value) in entries {
                    part(format!("{name}.{entry}"), value);
                }
            }
            _ => part(name.clone(), value),
        }
    }
    parts
}
