//! What of a command's document may stand in a record, which everybody can read who can read the store: names, numbers, verdicts, and the
//! sentence of an error; never a row of a table, a key of one, or what a query said.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Ended;
use super::told::{Row, steps_as_json};
use crate::exit::Exit;

/// The only names of fields that are kept. A new one is told by adding it here.
const KEPT: &[&str] = &[
    "accepted",
    "action",
    "age_s",
    "alarms",
    "already_restored",
    "asked",
    "away",
    "backup",
    "backups",
    "began_at",
    "bytes",
    "bytes_per_s",
    "changed_bytes",
    "changes",
    "checked",
    "checks",
    "cleanup",
    "cleanup_s",
    "clear",
    "cold_before",
    "component",
    "condemned",
    "configuration_sha256",
    "copied",
    "copies",
    "database",
    "days",
    "deletes",
    "done",
    "drawn_from",
    "dry_run",
    "due",
    "encrypted",
    "end",
    "ended_at",
    "ended_sessions",
    "error",
    "evidence_sha256",
    "exit_code",
    "extended",
    "failed",
    "file",
    "files",
    "findings",
    "fresh_backup",
    "fresh_backup_error",
    "from",
    "gaps",
    "good",
    "held",
    "held_at",
    "host",
    "id",
    "in_place",
    "inserts",
    "instance",
    "item",
    "kept",
    "kind",
    "level",
    "lineage",
    "lineages",
    "log_bytes",
    "long_enough",
    "loss_s",
    "manual",
    "measures",
    "member",
    "message",
    "method",
    "moment",
    "moment_from",
    "name",
    "notes",
    "objectives",
    "offset_s",
    "opens",
    "outcome",
    "own",
    "packs",
    "parent",
    "path",
    "phases",
    "planned_s",
    "point",
    "program",
    "proof",
    "proofs",
    "put_back",
    "reached",
    "read_bytes",
    "reason",
    "recipients",
    "recovery_point",
    "recovery_point_by",
    "recovery_s",
    "released",
    "remarks",
    "removed",
    "report",
    "report_sha256",
    "reused_bytes",
    "rotated",
    "rows",
    "rows_of_others",
    "rpo_s",
    "rto_s",
    "rule",
    "said",
    "seed",
    "sentence",
    "seq",
    "server",
    "sessions",
    "sha256",
    "size_bytes",
    "slices",
    "stall_s",
    "standing",
    "start",
    "store",
    "stored",
    "stored_bytes",
    "stores",
    "swept",
    "table",
    "tables",
    "tags",
    "tenant",
    "tester",
    "tidied",
    "timeline",
    "to",
    "took_s",
    "trigger",
    "undo_folder",
    "until",
    "updates",
    "verdict",
    "version",
    "who",
    "wrapped",
];

/// Of a backup, what names it.
const OF_A_BACKUP: &[&str] = &[
    "id",
    "name",
    "moment",
    "method",
    "size_bytes",
    "stored_bytes",
    "parent",
    "tags",
    "reason",
];

/// Of what somebody said of a line of a checklist, all of it: `catalog rebuild` brings it back from there.
const OF_AN_ATTESTATION: &[&str] = &["component", "checklist", "item", "good", "who", "at", "note"];

/// `value` with nothing but what may be kept.
pub(super) fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let has = |names: [&str; 2]| names.iter().all(|name| fields.contains_key(*name));
            let names = if has(["seq", "stored_bytes"]) {
                OF_A_BACKUP
            } else if has(["checklist", "item"]) {
                OF_AN_ATTESTATION
            } else {
                KEPT
            };
            let kept = fields
                .iter()
                .filter(|(name, value)| names.contains(&name.as_str()) && !is_long(name, value));
            let kept = kept.map(|(name, value)| (name.clone(), plain(value)));
            Value::Object(kept.filter(|(_, value)| !value.is_null()).collect())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// The fate of every backup is what `prune --dry-run` is for, and the rows of every table what `show` is for.
fn is_long(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("backups", Value::Array(items)) => items.iter().any(Value::is_object),
        ("tables", Value::Object(_)) => true,
        _ => false,
    }
}

/// What a component came to.
pub(super) fn add(facts: &mut Map<String, Value>, rows: &[Row], left: Vec<(String, Duration)>, ended: &Ended, exit: Exit) {
    facts.insert("exit_code".to_owned(), json!(exit.code()));
    let mut steps: Vec<(String, Duration)> = rows.iter().flat_map(|row| row.steps.clone()).collect();
    let mut results: Vec<Value> = rows.iter().map(|row| row.value.clone()).collect();
    if rows.is_empty() {
        steps = left;
        if let Some(error) = ended.error() {
            facts.insert("error".to_owned(), error);
        }
    }
    for result in &mut results {
        let error = result.as_object_mut().and_then(|fields| fields.remove("error"));
        if let Some(error) = error {
            facts.entry("error").or_insert(error);
        }
    }
    let result = if results.len() == 1 { results.pop() } else { None };
    match result {
        Some(result) => drop(facts.insert("result".to_owned(), result)),
        None if results.is_empty() => {}
        None => drop(facts.insert("result".to_owned(), Value::Array(results))),
    }
    if !steps.is_empty() {
        facts.insert("steps".to_owned(), steps_as_json(&steps));
    }
}

/// The user and the host of this process. What is not known is left out.
pub(super) fn who() -> Value {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut who = Map::from_iter([("uid".to_owned(), json!(uid))]);
    let mut tell = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            who.insert(name.to_owned(), json!(value));
        }
    };
    tell("user", user(&passwd, uid));
    // Who became root that way says it himself; it is worth no more than that.
    tell("sudo_user", std::env::var("SUDO_USER").ok());
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    tell("host", host.map(|host| host.trim().to_owned()));
    Value::Object(who)
}

/// The name of a user in the text of `/etc/passwd`.
fn user(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{plain, user};

    #[test]
    fn rows_and_secrets_of_a_document_do_not_get_into_a_record() {
        let row = json!({
            "component": "shop/db", "took_s": 1.5, "path": "/srv/shop.db", "private_key": "AGE-SECRET-KEY-1",
            "tables": { "orders": 3 }, "undo_folder": null,
            "changes": [{ "table": "orders", "inserts": 1, "samples": [{ "name": "Ada" }] }],
            "findings": { "tables": 1, "rows": 3, "checks": [{ "name": "a", "verdict": "failed", "says": "Ada owes 3", "evidence": ["Ada"] }] },
            "backup": { "id": "1-aa", "name": "n", "seq": 1, "stored_bytes": 5, "component": "shop/db" },
        });
        assert_eq!(
            plain(&row),
            json!({
                "component": "shop/db", "took_s": 1.5, "path": "/srv/shop.db",
                "changes": [{ "table": "orders", "inserts": 1 }],
                "findings": { "tables": 1, "rows": 3, "checks": [{ "name": "a", "verdict": "failed" }] },
                "backup": { "id": "1-aa", "name": "n", "stored_bytes": 5 },
            })
        );
    }

    #[test]
    fn all_that_somebody_said_of_a_checklist_is_kept() {
        let said = json!({
            "component": "shop/db", "checklist": "shop/daily", "item": "it is well", "good": true, "who": "ada",
            "at": "2026-01-02T03:04:05.000006Z", "note": "course of May",
        });
        assert_eq!(plain(&said), said);
    }

    #[test]
    fn users_are_found_by_their_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbackup:x:34:34::/var:/bin/false\n";
        assert_eq!(user(passwd, 34).as_deref(), Some("backup"));
        assert_eq!(user(passwd, 35), None);
    }
}
