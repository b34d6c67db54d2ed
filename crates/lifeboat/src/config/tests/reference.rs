//! `docs/configuration.md`: the reference is made from the schema, and this test keeps it true.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value as Json;

use super::super::schema;
use super::{GOOD, assert_golden, golden, read};

const HEAD: &str = "\
# Configuration

This page is made from the schema of the file (`lifeboat config schema`); a test keeps it up to date.

Lifeboat reads the first of these files that is there: `--config FILE`, `$LIFEBOAT_CONFIG`, `./lifeboat.yaml`,
`$XDG_CONFIG_HOME/lifeboat/lifeboat.yaml` (or `~/.config/lifeboat/lifeboat.yaml`), `/etc/lifeboat/lifeboat.yaml`.
A file that is named and not there is an error. `lifeboat init` writes a first one; `lifeboat config check` says what is wrong
with it, all at once, with line and column; `lifeboat config show` prints what takes effect.

Rules for the whole file:

- Unknown keys are errors. Nothing that is written is passed over.
- Durations need a unit: `w`, `d`, `h`, `m`, `s` or `ms` (`24h`, `1d12h`). Sizes too: `B`, `kB` to `EB` in thousands, `KiB` to `EiB`
  in 1,024s (`10GiB`).
- A relative path begins at the folder of the file. `~` and `$NAME` in paths are refused, because they would not be expanded.
- A secret is a reference, read when it is needed: `{ file: PATH }`, `{ env: NAME }` or `{ command: [PROGRAM, ARGUMENT] }`. The secret
  itself works too and gives a warning. No command prints a secret.
- Names have letters, digits, `-`, `_` and `.`, and at most 64 characters.

A complete example:

";

#[test]
fn the_reference_is_up_to_date() {
    let mut out = HEAD.to_owned();
    writeln!(out, "```yaml\n{GOOD}```\n\n## Keys\n").unwrap();
    out.push_str("`NAME` stands for a name that you choose.\n\n");
    out.push_str("| Key | Value | | Meaning |\n| --- | --- | --- | --- |\n");
    rows(&mut out, "", &schema());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    assert_golden(&path, &out);
}

#[test]
fn the_schema_is_what_it_was() {
    assert_golden(
        &golden("schema.json"),
        &(serde_json::to_string_pretty(&schema()).unwrap() + "\n"),
    );
}

/// A key that nobody explained would be an empty cell of the reference.
#[test]
fn every_key_is_explained() {
    fn check(path: &str, schema: &Json) {
        for (key, value, _) in children(schema) {
            let path = format!("{path}.{key}");
            assert!(key == "NAME" || !description(&value).is_empty(), "{path} has no description");
            check(&path, &value);
        }
    }
    check("", &schema());
    assert!(read(GOOD).is_ok(), "the example of the reference must be right");
}

fn rows(out: &mut String, prefix: &str, schema: &Json) {
    for (key, value, required) in children(schema) {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        let kind = kind(&value);
        let needed = if key == "NAME" {
            ""
        } else if required {
            "required"
        } else {
            "optional"
        };
        let meaning = description(&value).replace('\n', " ").replace('|', "\\|");
        let example = value["examples"][0]
            .as_str()
            .map(|text| format!(" Example: `{text}`."))
            .unwrap_or_default();
        writeln!(out, "| `{path}` | {kind} | {needed} | {meaning}{example} |").unwrap();
        rows(out, &path, &value);
    }
}

/// The keys below a schema: name, schema, whether it must be there.
fn children(schema: &Json) -> Vec<(String, Json, bool)> {
    let mut found = Vec::new();
    let forms = forms(schema);
    let several = forms.iter().filter(|form| form["type"] == "object").count() > 1;
    for form in forms {
        let required: Vec<&str> = form["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        for (key, value) in form["properties"].as_object().into_iter().flatten() {
            let mut value = value.clone();
            // The description of a kind stands beside its only key.
            if let (Some(about), Some(object)) = (form.get("description"), value.as_object_mut())
                && form.get("additionalProperties") == Some(&Json::Bool(false))
                && form["properties"].as_object().is_some_and(|map| map.len() == 1)
                && !object.contains_key("description")
            {
                object.insert("description".to_owned(), about.clone());
            }
            found.push((key.clone(), value, required.contains(&key.as_str()) && !several));
        }
        if form["additionalProperties"].is_object() {
            found.push(("NAME".to_owned(), form["additionalProperties"].clone(), false));
        }
    }
    found
}

fn forms(schema: &Json) -> Vec<&Json> {
    match ["anyOf", "oneOf"]
        .iter()
        .find_map(|word| schema.get(word).and_then(Json::as_array))
    {
        Some(alternatives) => alternatives.iter().flat_map(forms).collect(),
        None => vec![schema],
    }
}

fn description(schema: &Json) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn kind(schema: &Json) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for form in forms(schema) {
        let types = form["type"].as_array().cloned().unwrap_or_else(|| vec![form["type"].clone()]);
        for kind in types.iter().filter_map(Json::as_str) {
            let word = match kind {
                "string" => "text",
                "integer" => "number",
                "boolean" => "true or false",
                "array" => "list",
                "object" => "mapping",
                _ => continue,
            };
            if !kinds.contains(&word) {
                kinds.push(word);
            }
        }
    }
    kinds.join(" or ")
}
