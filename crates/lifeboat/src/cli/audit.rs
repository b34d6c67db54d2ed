//! `lifeboat audit`: is the ledger whole, what is in it, bring the stores what they lack.

use lifeboat_model::time::{human_duration, parse_duration};
use lifeboat_model::{ErrorKind, Result};
use lifeboat_ops::ledger::{self, Audit, Catalog, Chains, Finding, Weight};
use lifeboat_repo::{Instance, LedgerRecord, format_utc};
use serde_json::{Value, json};

use super::Cx;
use super::args::{Audit as Command, AuditList, Audited};
use super::context::Context;
use super::outcomes::Outcomes;
use super::time;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::text::{self, Table};
use crate::render::{json as document, tell};

pub(super) async fn run(cx: &Cx, command: Command) -> Result<Exit> {
    match command {
        Command::Verify(args) => verify(cx, &args).await,
        Command::List(args) => list(cx, &args).await,
        Command::Ship(args) => ship(cx, &args).await,
    }
}

async fn verify(cx: &Cx, args: &Audited) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&args.what)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let audited = async { ledger::audit(&context.for_ledger(component).await?).await };
        match audited.await {
            Ok(audit) => {
                outcomes.but(match audit.worst() {
                    Some(Weight::Wrong) => Exit::of(ErrorKind::Corrupt),
                    Some(Weight::Lacks) => Exit::INCOMPLETE,
                    Some(Weight::Told) | None => Exit::OK,
                });
                for (store, error) in &audit.away {
                    outcomes.but(Exit::INCOMPLETE);
                    tell_away(cx, &component.name, store, error);
                }
                let json = audit_as_json(&component.name, &audit);
                outcomes.good(cx, json, &audit_for_people(&component.name, &audit));
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "audit-verify")
}

fn tell_away(cx: &Cx, component: &str, store: &str, error: &lifeboat_model::Error) {
    if !cx.out.json {
        tell(&format!("warning: {component}: THE STORE {store} was left out: {error}"));
    }
}

fn audit_for_people(component: &str, audit: &Audit) -> String {
    let records: u64 = audit.chains.iter().map(|chain| chain.records).sum();
    let chains = text::counted(audit.chains.len(), "chain");
    let verdict = match audit.worst() {
        Some(Weight::Wrong) => "THE LEDGER IS NOT WHOLE",
        Some(Weight::Lacks) => "whole, but not in every store",
        Some(Weight::Told) | None => "whole",
    };
    let mut out = format!("{component}: {verdict}: {} in {chains}\n", text::counted(records, "record"));
    for chain in &audit.chains {
        let id: String = chain.chain.to_string().chars().take(8).collect();
        out.push_str(&format!(
            "  {id}  {}  {}, the last {}\n",
            chain.instance,
            text::counted(chain.records, "record"),
            text::time(chain.last_at_us)
        ));
    }
    for Finding {
        weight,
        store,
        record,
        says,
        hint,
    } in &audit.findings
    {
        let place = store.as_ref().map_or_else(String::new, |store| format!(" in {store}"));
        out.push_str(&format!("  {:<5}  {record}{place}: {says}\n         {hint}\n", weight.word()));
    }
    out
}

fn audit_as_json(component: &str, audit: &Audit) -> Value {
    json!({
        "component": component,
        "whole": audit.worst() != Some(Weight::Wrong),
        "chains": audit.chains.iter().map(|chain| json!({
            "chain": chain.chain.to_string(),
            "instance": chain.instance,
            "records": chain.records,
            "head": chain.head.to_string(),
            "last_at": format_utc(chain.last_at_us),
        })).collect::<Vec<_>>(),
        "findings": audit.findings.iter().map(|finding| json!({
            "weight": finding.weight.word(),
            "store": finding.store,
            "record": finding.record,
            "says": finding.says,
            "hint": finding.hint,
        })).collect::<Vec<_>>(),
        "away": away(&audit.away),
    })
}

fn away(away: &[(String, lifeboat_model::Error)]) -> Vec<Value> {
    away.iter()
        .map(|(store, error)| json!({ "store": store, "error": document::error(error) }))
        .collect()
}

/// The signing key of this machine, where it has one.
fn own(context: &Context, protected: &lifeboat_ops::Protected) -> Option<std::sync::Arc<Instance>> {
    protected.instance(&context.settings.instance_name).ok()
}

async fn list(cx: &Cx, args: &AuditList) -> Result<Exit> {
    let context = Context::load(cx)?;
    let since = args.since.as_deref().map(|text| since(cx, text)).transpose()?;
    let components = context.select(&args.what)?;
    let mut outcomes = Outcomes::new(components.len());
    let mut table = Table::new(&["TIME", "COMPONENT", "VERB", "OUTCOME", "INSTANCE", "RECORD", "WHAT"], &[]);
    let mut any = false;
    for component in components {
        match chains(&context, component).await {
            Ok(chains) => {
                for (store, error) in &chains.away {
                    outcomes.but(Exit::INCOMPLETE);
                    tell_away(cx, &component.name, store, error);
                }
                if !chains.refused.is_empty() {
                    // Whether the ledger is whole is what `audit verify` answers, in every store and without the catalog.
                    cx.out.note(&format!(
                        "note: {}: {} no record that a known instance signed: `lifeboat audit verify` says more",
                        component.name,
                        if chains.refused.len() == 1 {
                            "1 file is"
                        } else {
                            "some files are"
                        }
                    ));
                }
                let wanted = chains.records.iter().filter(|record| is_wanted(record, args, since));
                let wanted: Vec<&LedgerRecord> = wanted.collect();
                for record in &wanted {
                    any = true;
                    table.row(cells(&component.name, record));
                }
                let rows: Vec<Value> = wanted.iter().map(|record| record_as_json(record, &chains)).collect();
                let json = json!({
                    "component": component.name, "records": rows, "refused": chains.refused.len(), "away": away(&chains.away),
                });
                outcomes.good(cx, json, "");
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish_with(cx, "audit-list", |_| {
        if any {
            table.render()
        } else {
            "nothing is recorded\n".to_owned()
        }
    })
}

async fn chains(context: &Context, component: &ComponentSettings) -> Result<Chains> {
    let protected = context.for_ledger(component).await?;
    let own = own(context, &protected).map(|instance| instance.public_key());
    let mut catalog = Catalog::open(&protected.state_dir, own);
    ledger::read_with(&protected, &mut catalog).await
}

fn since(cx: &Cx, text: &str) -> Result<i64> {
    match parse_duration(text) {
        Ok(ago) => {
            let ago_us = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
            Ok(cx.env.clock.wall_us().saturating_sub(ago_us))
        }
        Err(_) => time::parse(text),
    }
}

fn is_wanted(record: &LedgerRecord, args: &AuditList, since: Option<i64>) -> bool {
    let verb = args.verb.is_empty() || args.verb.contains(&record.verb);
    let outcome = !args.failed || !matches!(record.outcome.as_str(), "done" | "began");
    verb && outcome && since.is_none_or(|since| record.at_us >= since)
}

fn cells(component: &str, record: &LedgerRecord) -> [String; 7] {
    [
        text::time(record.at_us),
        component.to_owned(),
        record.verb.clone(),
        record.outcome.clone(),
        record.instance.clone(),
        record.name.short(),
        in_short(record),
    ]
}

/// The most telling fact of a record.
fn in_short(record: &LedgerRecord) -> String {
    let fact = |path: &str| {
        let value = Value::Object(record.facts.clone());
        value.pointer(path).and_then(Value::as_str).map(str::to_owned)
    };
    if let Some(message) = fact("/error/message") {
        return message;
    }
    let backup = fact("/result/backup/id").map(|id| format!("backup {id}"));
    let reason = fact("/reason").map(|reason| format!("({reason})"));
    let took = record.facts.get("took_s").and_then(Value::as_f64);
    let took = took.filter(|took| took.is_finite() && *took >= 0.0 && *took < 1e9);
    let took = took.map(|took| format!("in {}", human_duration(std::time::Duration::from_secs_f64(took))));
    let mut words: Vec<String> = Vec::new();
    if record.verb == "config" {
        for list in ["added", "removed", "changed"] {
            let parts = record.facts.get(list).and_then(Value::as_array);
            let parts: Vec<&str> = parts.into_iter().flatten().filter_map(Value::as_str).collect();
            if !parts.is_empty() && record.facts.get("first") != Some(&Value::Bool(true)) {
                words.push(format!("{list}: {}", parts.join(", ")));
            }
        }
    }
    words.extend(backup);
    words.extend(fact("/result/path").filter(|_| words.is_empty()));
    words.extend(took);
    words.extend(reason);
    words.join(" ")
}

fn record_as_json(record: &LedgerRecord, chains: &Chains) -> Value {
    let there = chains.stores.iter().filter(|(_, names)| names.contains(&record.name));
    let stores: Vec<&str> = there.map(|(store, _)| store.as_str()).collect();
    json!({
        "record": record.name.to_string(),
        "seq": record.name.at.seq,
        "at": format_utc(record.at_us),
        "instance": record.instance,
        "signer": record.signer.to_string(),
        "verb": record.verb,
        "outcome": record.outcome,
        "stores": stores,
        "facts": record.facts,
    })
}

async fn ship(cx: &Cx, args: &Audited) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(&args.what)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let shipped = async {
            let protected = context.for_ledger(component).await?;
            let own = own(&context, &protected);
            ledger::ship(&cx.env, &protected, own.as_deref()).await
        };
        match shipped.await {
            Ok(shipped) => {
                for note in &shipped.own.notes {
                    tell(&format!("warning: {}: {note}", component.name));
                }
                for (store, error) in &shipped.failed {
                    outcomes.but(Exit::INCOMPLETE);
                    tell_away(cx, &component.name, store, error);
                }
                let mut said = format!(
                    "{}: {} here for a store",
                    component.name,
                    text::counted(shipped.own.pending, "record") + " wait"
                );
                for (store, count) in &shipped.copied {
                    said.push_str(&format!("; {} copied to {store}", text::counted(*count, "record")));
                }
                let json = json!({
                    "component": component.name,
                    "pending": shipped.own.pending,
                    "copied": shipped.copied.iter().map(|(store, count)| json!({ "store": store, "records": count })).collect::<Vec<_>>(),
                    "failed": away(&shipped.failed),
                });
                outcomes.good(cx, json, &said);
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "audit-ship")
}
