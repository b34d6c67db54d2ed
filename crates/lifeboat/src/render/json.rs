//! JSON for programs: `{"schema":"lifeboat/v1/<kind>", …}` (`docs/json-output.md`). Keys are only ever added.

use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::estimate::{Basis, Estimate};
use lifeboat_model::{Error, ErrorKind};
use lifeboat_ops::restore::Findings;
use lifeboat_repo::{Backup, format_utc};
use serde_json::{Map, Value, json};

use crate::exit::Exit;

/// A whole document: `body` (an object) behind its schema, pretty, with a line break at the end.
#[must_use]
pub(crate) fn document(kind: &str, body: Value) -> String {
    let schema = Value::String(format!("lifeboat/v1/{kind}"));
    let body = match body {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    // Maps are sorted by name; the schema stands first all the same, so that whoever opens the file knows what it is.
    match format!("{:#}", Value::Object(body)).strip_prefix("{\n") {
        Some(rest) => format!("{{\n  \"schema\": {schema},\n{rest}\n"),
        None => format!("{{\n  \"schema\": {schema}\n}}\n"),
    }
}

/// An error, without its schema: also a part of documents about several components.
#[must_use]
pub(crate) fn error(error: &Error) -> Value {
    json!({
        "kind": kind_word(error.kind()),
        "exit_code": Exit::of(error.kind()).code(),
        "message": error.to_string(),
        "detail": error.detail(),
        "hint": error.hint(),
        "causes": super::error::causes(error),
    })
}

/// The word for a kind of failure.
#[must_use]
pub(crate) const fn kind_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Failed => "failed",
        ErrorKind::Usage => "usage",
        ErrorKind::Incomplete => "incomplete",
        ErrorKind::ObjectiveMissed => "objective_missed",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Refused => "refused",
        ErrorKind::ConfigInvalid => "config_invalid",
        ErrorKind::TimedOut => "timed_out",
        ErrorKind::NoSuchPoint => "no_such_point",
        ErrorKind::NoRepository => "no_repository",
        ErrorKind::Locked => "locked",
        ErrorKind::WrongKey => "wrong_key",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::NotFound => "not_found",
        ErrorKind::AlreadyExists => "already_exists",
        ErrorKind::NoSpace => "no_space",
        ErrorKind::Incompatible => "incompatible",
        ErrorKind::Interrupted => "interrupted",
        ErrorKind::Terminated => "terminated",
        ErrorKind::Bug => "bug",
    }
}

/// A backup, as every document names it.
#[must_use]
pub(crate) fn backup(backup: &Backup) -> Value {
    let header = &backup.header;
    json!({
        "id": backup.id.short(),
        "name": backup.id.to_string(),
        "seq": backup.id.seq,
        "component": header.component.as_str(),
        "kind": header.kind,
        "method": header.method,
        "moment": format_utc(header.moment_us),
        "began_at": format_utc(header.began_us),
        "size_bytes": header.size_bytes,
        "stored_bytes": header.stored_bytes,
        "files": header.files,
        "instance": header.instance,
        "parent": header.parent,
        "extract": header.extract,
        "incomplete": header.incomplete,
        "tags": header.tags,
        "reason": header.reason,
        "keep_for_s": header.keep_for_s,
        "bad_pages": header.bad_pages,
    })
}

/// An estimate with its basis.
#[must_use]
pub(crate) fn estimate(estimate: &Estimate) -> Value {
    json!({
        "expected_s": estimate.expected.as_secs_f64(),
        "slowest_s": estimate.slowest.as_secs_f64(),
        "basis": estimate.basis.describe("restore"),
        "measured": !matches!(estimate.basis, Basis::Model { .. }),
    })
}

/// What the checks of a restored copy found.
#[must_use]
pub(crate) fn findings(findings: &Findings) -> Value {
    json!({
        "integrity": findings.integrity,
        "foreign_keys": findings.foreign_keys,
        "unchecked": findings.unchecked,
        "differences": findings.differences,
        "rows": findings.rows,
        "tables": findings.tables,
        "files": findings.files,
        "checks": outcomes(&findings.checks),
        "missing_values": findings
            .missing_values
            .iter()
            .map(|(path, keys)| json!({ "path": path, "keys": keys }))
            .collect::<Vec<_>>(),
    })
}

/// What came of checks.
#[must_use]
pub(crate) fn outcomes(outcomes: &[Outcome]) -> Value {
    outcomes.iter().map(outcome).collect()
}

/// What came of a check.
fn outcome(outcome: &Outcome) -> Value {
    let verdict = match outcome.verdict {
        Verdict::Passed => "passed",
        Verdict::NotAvailable => "not_available",
        Verdict::Failed => "failed",
    };
    json!({ "name": outcome.name, "verdict": verdict, "says": outcome.says, "evidence": outcome.evidence })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::document;

    #[test]
    fn the_schema_stands_first() {
        let text = document("list", json!({ "backups": [1], "a": null }));
        assert!(text.starts_with("{\n  \"schema\": \"lifeboat/v1/list\",\n"), "{text}");
        let whole: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(whole, json!({ "schema": "lifeboat/v1/list", "backups": [1], "a": null }));
        for empty in [json!({}), json!([]), json!(3)] {
            let whole: Value = serde_json::from_str(&document("x", empty)).unwrap();
            assert_eq!(whole["schema"], "lifeboat/v1/x");
        }
    }
}
