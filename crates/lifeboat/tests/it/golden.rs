//! The shapes of the JSON documents and the table of exit codes: what scripts rely on changes only on purpose (`UPDATE_GOLDEN=1`).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::world::World;

fn compare(path: &Path, now: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        #[expect(clippy::disallowed_methods, reason = "the golden file itself")]
        std::fs::write(path, now).unwrap();
    }
    let then = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        now,
        then,
        "{} differs; if that is on purpose, run the tests once with UPDATE_GOLDEN=1",
        path.display()
    );
}

/// Values become their types; a list is what its first element is.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => Value::Array(items.first().map(shape).into_iter().collect()),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), shape(value)))
                .collect::<Map<_, _>>(),
        ),
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden/json")
        .join(format!("{name}.json"))
}

/// The document keeps the shape it has in the golden file; its schema stands there in full.
#[track_caller]
pub fn keeps(name: &str, document: &Value) {
    let mut shaped = shape(document);
    shaped["schema"] = document["schema"].clone();
    compare(&golden(name), &format!("{shaped:#}\n"));
}

/// A public key; the private half is derived from "correct horse battery staple".
const ANOTHER: &str = "age19urs5r75kukghtxsex34defptr4j9m6geavqk8tpzufazhypestsu57tyc";

#[test]
fn documents_keep_their_shapes() {
    let world = World::with_database();
    keeps(
        "init",
        &world
            .run(&["init", "--path", "shop.db", "--system", "shop", "--yes", "--json"])
            .ends(0)
            .json("init"),
    );
    let runs: [(&str, &str, &[&str]); 16] = [
        ("backup", "backup", &["backup", "--tag", "a", "--reason", "b"]),
        ("list", "list", &["list"]),
        ("show", "show", &["show", "shop"]),
        ("points", "points", &["points"]),
        ("status", "status", &["status"]),
        ("doctor", "doctor", &["doctor"]),
        ("check", "check", &["check", "shop"]),
        ("restore-plan", "restore-plan", &["restore", "shop", "--dry-run"]),
        ("restore", "restore", &["restore", "shop"]),
        ("verify", "verify", &["verify", "--all"]),
        ("config", "config", &["config", "show"]),
        ("config-check", "config-check", &["config", "check"]),
        ("key-new", "key-new", &["key", "new", "another.txt"]),
        ("key-check", "key-check", &["key", "check"]),
        ("key-list", "key-list", &["key", "list"]),
        ("exit-codes", "exit-codes", &["exit-codes"]),
    ];
    for (name, kind, args) in runs {
        keeps(name, &world.run(&[args, &["--json"]].concat()).ends(0).json(kind));
    }
    let mut derive = world.command();
    derive
        .args(["key", "derive", "--json"])
        .env("BACKUP_ENCRYPTION_KEY", "correct horse battery staple");
    let derived = world.finish(&mut derive).ends(0).json("key-derive");
    assert_eq!(derived["public_key"], ANOTHER);
    keeps("key-derive", &derived);
    let replaced = world
        .run(&["restore", "shop", "--in-place", "--yes", "--json"])
        .ends(0)
        .json("restore");
    // Whether every process of this machine could be looked into is not the document's matter.
    let mut shape = replaced.clone();
    shape["components"][0]["notes"].as_array_mut().unwrap().clear();
    keeps("restore-in-place", &shape);
    let id = replaced["components"][0]["id"].as_str().unwrap();
    keeps(
        "restore-undo",
        &world.run(&["restore", "undo", id, "--json"]).ends(0).json("restore-undo"),
    );
    keeps(
        "key-add",
        &world.run(&["key", "add", ANOTHER, "--json"]).ends(0).json("key-add"),
    );
    keeps(
        "key-remove",
        &world.run(&["key", "remove", ANOTHER, "--json"]).ends(0).json("key-remove"),
    );
    keeps(
        "key-rotate",
        &world.run(&["key", "rotate", "--json"]).ends(0).json("key-rotate"),
    );
    keeps("error", &world.run(&["backup", "nobody", "--json"]).ends(2).json("error"));
}

#[test]
fn the_documented_exit_codes_are_those_of_the_binary() {
    let world = World::with_database();
    let table = world.run(&["exit-codes", "--json"]).ends(0).json("exit-codes");
    let mut page = String::from(
        "# Exit codes\n\nThis page is made from the table in `crates/lifeboat/src/exit.rs` and tested against it; `lifeboat exit-codes` prints it.\n\n\
         | code | means | what helps |\n|---:|---|---|\n",
    );
    for row in table["exit_codes"].as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        page.push_str(&format!("| {} | {} | {} |\n", row["code"], text("means"), text("advice")));
    }
    page.push_str(
        "\nWhere several components are handled at once, one that fails does not stop the others, and the worst outcome decides: bad data (5)\n\
         before every other failure, failures before a missed objective (4), that before an incomplete result (3).\n\
         `lifeboat help-exit-codes` is the same command.\n",
    );
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/exit-codes.md"), &page);
}

#[test]
fn every_documented_schema_is_one_that_is_printed() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json-output.md")).unwrap();
    let mut kinds: Vec<String> = std::fs::read_dir(golden("x").parent().unwrap())
        .unwrap()
        .map(|entry| {
            let document: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
            document["schema"].as_str().unwrap().to_owned()
        })
        .collect();
    kinds.sort();
    kinds.dedup();
    for kind in &kinds {
        assert!(
            page.contains(&format!("`{kind}`")),
            "docs/json-output.md does not mention {kind}"
        );
    }
}
