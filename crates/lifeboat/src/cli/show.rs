//! `lifeboat show`: everything that is known about one backup. What is sealed is shown as far as a private key is at hand.

use lifeboat_engine::pki::Report;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::proof;
use lifeboat_ops::protected::Choice;
use lifeboat_ops::store::{Locked, locked_until};
use lifeboat_ops::stores;
use lifeboat_repo::{Backup, Reader, Repository, format_utc};
use serde_json::{Value, json};

use super::args::Show;
use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, care};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, args: &Show) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(std::slice::from_ref(&args.what))?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        match one(cx, &context, component, args).await {
            Ok((json, text)) => outcomes.good(cx, json, &text),
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "show")
}

async fn one(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Show) -> Result<(Value, String)> {
    let protected = context.protected(component, args.from.as_slice()).await?;
    let id = args.backup.as_str();
    let choice = if id == "latest" {
        Choice::Latest
    } else {
        Choice::Named(id.to_owned())
    };
    let found = stores::find(&protected, &choice).await?;
    for note in &found.notes {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    let names: Vec<&str> = found.places.iter().map(|(name, ..)| name.as_str()).collect();
    let Some((_, repository, backup)) = found.places.first() else {
        return Err(Error::new(
            ErrorKind::NoSuchPoint,
            "show",
            &component.name,
            "no store holds it",
        ));
    };
    let facts = facts(cx, context, component, repository, backup).await?;
    let proofs = proof::load(&protected.state_dir, &protected.component);
    let proven: Vec<_> = proofs.iter().filter(|proof| proof.backup == backup.id.to_string()).collect();
    let mut json = document::backup(backup);
    if let Value::Object(fields) = &mut json {
        fields.insert("store".to_owned(), json!(repository.store().name()));
        fields.insert("stores".to_owned(), json!(names));
        fields.insert("packs".to_owned(), json!(backup.closure.packs.len()));
        fields.insert("encrypted".to_owned(), json!(backup.closure.is_encrypted()));
        fields.insert("facts".to_owned(), facts.clone());
        fields.insert("proofs".to_owned(), json!(proven));
    }
    let mut lines = lines(&names.join(", "), backup);
    lines.extend(held(&facts));
    for proof in &proven {
        lines.push(("proven", format!("{} on {}", proof.level.word(), text::time(proof.at_us))));
    }
    if proven.is_empty() {
        lines.push(("proven", "never from here".to_owned()));
    }
    if let Some(bucket) = care::bucket_of(context, component, repository).await? {
        let locked = locked_until(&bucket, &protected.component, backup).await?;
        let (says, value) = match locked {
            Locked::Until(until_us) => (format!("until {}", text::time(until_us)), json!(format_utc(until_us))),
            Locked::Not(files) => (format!("no: {files} of its files are not"), Value::Null),
        };
        lines.push(("locked", says));
        if let Value::Object(fields) = &mut json {
            fields.insert("locked_until".to_owned(), value);
        }
    }
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<12} {value}")).collect();
    Ok((json!({ "component": component.name, "backup": json }), text.join("\n") + "\n"))
}

/// The sealed facts, or null where no private key fits.
async fn facts(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    repository: &Repository,
    backup: &Backup,
) -> Result<Value> {
    let identities = match context.identities(component).await {
        Ok(identities) => identities,
        Err(error) if error.kind() == ErrorKind::WrongKey => return Ok(Value::Null),
        Err(error) => return Err(error),
    };
    match Reader::open(&cx.env, repository, backup, &identities).await {
        Ok(reader) => Ok(reader.facts().clone()),
        Err(error) if error.kind() == ErrorKind::WrongKey => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

fn lines(stores: &str, backup: &Backup) -> Vec<(&'static str, String)> {
    let header = &backup.header;
    let encrypted = backup.closure.is_encrypted();
    let mut lines = vec![
        ("component", header.component.to_string()),
        ("backup", format!("{} ({})", backup.id.short(), backup.id)),
        ("moment", text::time(header.moment_us)),
        ("kind", format!("{}, {}", header.kind, header.method)),
        ("size", human_bytes(header.size_bytes)),
        ("added", format!("{} to {}", human_bytes(header.stored_bytes), stores)),
        ("packs", backup.closure.packs.len().to_string()),
        ("encrypted", if encrypted { "yes" } else { "no" }.to_owned()),
        ("written by", header.instance.clone()),
    ];
    if let Some(parent) = &header.parent {
        lines.push(("compared to", parent.clone()));
    }
    if header.incomplete {
        lines.push(("incomplete", "yes: it is never chosen by itself".to_owned()));
    }
    if !header.tags.is_empty() {
        lines.push(("tags", header.tags.join(", ")));
    }
    if let Some(reason) = &header.reason {
        lines.push(("reason", reason.clone()));
    }
    lines
}

/// What it holds, as it was counted.
fn held(facts: &Value) -> Vec<(&'static str, String)> {
    let number = |name: &str| facts.get(name).and_then(Value::as_u64);
    if let Some(mode) = facts.get("mode").and_then(Value::as_str) {
        return server(mode, facts);
    }
    let Some(files) = number("files") else {
        return vec![("tables", tables(facts))];
    };
    let mut lines = vec![
        (
            "root",
            facts.get("root").and_then(Value::as_str).unwrap_or_default().to_owned(),
        ),
        (
            "files",
            format!(
                "{} in {}, {}",
                text::counted(files, "file"),
                text::counted(number("folders").unwrap_or(0), "folder"),
                text::counted(number("links").unwrap_or(0), "link")
            ),
        ),
    ];
    if let Some(patterns) = facts.get("patterns").and_then(Value::as_object) {
        let counted: Vec<String> = patterns
            .iter()
            .map(|(pattern, count)| format!("{pattern} ({count})"))
            .collect();
        lines.push(("patterns", counted.join(", ")));
    }
    let report = facts
        .get("pki")
        .cloned()
        .and_then(|pki| serde_json::from_value::<Report>(pki).ok());
    let Some(report) = report else { return lines };
    for key in &report.keys {
        let fits = if key.certificates.is_empty() {
            "fits no certificate here".to_owned()
        } else {
            format!("fits {}", key.certificates.join(", "))
        };
        lines.push(("key", format!("{} ({}): {fits}", key.path, key.kind)));
    }
    let until = |seconds: i64| text::time(seconds.saturating_mul(1_000_000));
    for certificate in &report.certificates {
        let ends = until(certificate.not_after_s);
        lines.push((
            "certificate",
            format!("{}: {}, until {ends}", certificate.path, certificate.subject),
        ));
    }
    for list in &report.revocation_lists {
        let next = list.next_update_s.map_or_else(|| "never".to_owned(), until);
        lines.push((
            "crl",
            format!(
                "{}: {}, {} revoked, the next is due {next}",
                list.path, list.issuer, list.revoked
            ),
        ));
    }
    for finding in &report.findings {
        lines.push(("found", finding.to_string()));
    }
    lines
}

/// What a backup of a PostgreSQL server holds.
fn server(mode: &str, facts: &Value) -> Vec<(&'static str, String)> {
    let word = |name: &str| facts.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut lines = vec![("server", format!("PostgreSQL {}", word("version")))];
    if mode != "logical" {
        lines.push(("read", mode.to_owned()));
        lines.push(("log", format!("from {} to {}", word("start"), word("end"))));
        return lines;
    }
    let databases = facts.get("databases").and_then(Value::as_array);
    for database in databases.into_iter().flatten() {
        let list = |name: &str| database.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let rows: u64 = list("tables")
            .iter()
            .filter_map(|table| table.get("digest")?.as_str()?.split('-').next()?.parse::<u64>().ok())
            .sum();
        let bytes: u64 = list("tables")
            .iter()
            .filter_map(|table| table.get("text_bytes")?.as_u64())
            .sum();
        let name = database.get("name").and_then(Value::as_str).unwrap_or_default();
        lines.push((
            "database",
            format!(
                "{name}: {}, {}, {} of text",
                text::counted(list("tables").len() as u64, "table"),
                text::counted(rows, "row"),
                human_bytes(bytes)
            ),
        ));
    }
    lines
}

fn tables(facts: &Value) -> String {
    match facts.get("tables").and_then(Value::as_object) {
        None => "sealed; the private key is not at hand".to_owned(),
        Some(tables) if tables.is_empty() => "none".to_owned(),
        Some(tables) => {
            let counted: Vec<String> = tables.iter().map(|(name, rows)| format!("{name} ({rows} rows)")).collect();
            counted.join(", ")
        }
    }
}
