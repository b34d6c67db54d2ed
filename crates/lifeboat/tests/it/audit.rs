//! What the real binary leaves in the ledger, and `audit` and `catalog` on it.

use std::path::PathBuf;

use serde_json::Value;

use crate::golden::keeps;
use crate::world::World;

/// `VERB OUTCOME` of every record, oldest first.
#[track_caller]
fn told(world: &World) -> Vec<String> {
    let list = world.run(&["audit", "list", "--json"]).ends(0).json("audit-list");
    let records = list["components"][0]["records"].as_array().unwrap().clone();
    records
        .iter()
        .map(|record| format!("{} {}", record["verb"].as_str().unwrap(), record["outcome"].as_str().unwrap()))
        .collect()
}

fn last(world: &World) -> Value {
    let list = world.run(&["audit", "list", "--json"]).ends(0).json("audit-list");
    list["components"][0]["records"].as_array().unwrap().last().unwrap().clone()
}

/// The files of the ledger in the store, in order.
fn files(world: &World) -> Vec<PathBuf> {
    let files = world.files("lifeboat-backups").into_iter().map(|(path, _)| path);
    files.filter(|path| path.to_string_lossy().contains("/ledger/")).collect()
}

#[test]
fn every_run_leaves_a_record_failures_too_and_looking_leaves_none() {
    let world = World::protected();
    assert_eq!(told(&world), ["config done", "init done"]);
    world.run(&["backup", "--reason", "before the upgrade"]).ends(0);
    let record = last(&world);
    let facts = &record["facts"];
    assert_eq!(
        (&record["verb"], &facts["reason"]),
        (&"backup".into(), &"before the upgrade".into())
    );
    assert!(facts["who"]["uid"].is_number(), "{facts:#}");
    assert!(facts["result"]["backup"]["name"].is_string(), "{facts:#}");
    assert!(facts["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{facts:#}");
    world.run(&["restore", "shop", "--to", "copy.db"]).ends(0);
    world.run(&["verify"]).ends(0);
    for looks in [["list"], ["status"], ["points"], ["doctor"]] {
        world.run(&looks).ends(0);
    }
    world.run(&["restore", "shop", "--dry-run"]).ends(0);
    // Without a yes nothing is replaced; that is a record, too.
    world.run(&["restore", "shop", "--in-place"]).ends(6);
    world.run(&["restore", "shop", "--to", "copy.db"]).ends(6);
    std::fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    let failed = world.run(&["backup"]);
    assert_ne!(failed.code, 0);
    std::fs::rename(world.path("away.db"), world.path("shop.db")).unwrap();
    assert_eq!(
        told(&world)[2..],
        [
            "backup done",
            "restore done",
            "verify done",
            "restore failed",
            "restore failed",
            "backup failed"
        ]
    );
    let facts = last(&world)["facts"].clone();
    assert_eq!(facts["exit_code"], failed.code);
    assert!(facts["error"]["message"].is_string(), "{facts:#}");
    let failures = world
        .run(&["audit", "list", "--failed", "--since", "1h", "--verb", "backup", "--json"])
        .ends(0);
    let failures = failures.json("audit-list");
    assert_eq!(failures["components"][0]["records"].as_array().unwrap().len(), 1);
    let text = world.run(&["audit", "list"]).ends(0).stdout;
    assert!(text.contains("before the upgrade"), "{text}");
    world.run(&["audit", "verify"]).ends(0);
}

#[test]
fn in_place_undo_holds_prunes_and_keys_are_recorded() {
    let world = World::protected();
    let replaced = world
        .run(&["restore", "shop", "--in-place", "--yes", "--json"])
        .ends(0)
        .json("restore");
    let id = replaced["components"][0]["id"].as_str().unwrap();
    world.run(&["restore", "undo", id]).ends(0);
    assert_eq!(last(&world)["facts"]["result"]["id"], id);
    let held = world
        .run(&["hold", "add", "shop", "--all", "--reason", "audit", "--json"])
        .ends(0)
        .json("hold");
    world
        .run(&["hold", "release", held["holds"][0]["id"].as_str().unwrap()])
        .ends(0);
    world.run(&["prune"]).ends(0);
    world.run(&["prune", "--dry-run"]).ends(0);
    world.run(&["key", "rotate"]).ends(0);
    assert_eq!(
        told(&world)[2..],
        [
            "restore done",
            "undo done",
            "hold done",
            "release done",
            "prune done",
            "key-rotate done"
        ]
    );
    world.run(&["audit", "verify"]).ends(0);
}

#[test]
fn a_changed_configuration_is_told_by_its_parts_and_never_by_its_values() {
    let world = World::protected();
    world.edit_config("  shop:\n", "  shop:\n    not_backed_up: { cache-of-7391: made anew }\n");
    world.run(&["config", "check"]).ends(0);
    world.run(&["backup"]).ends(0);
    world.run(&["backup"]).ends(0);
    assert_eq!(told(&world)[2..], ["config done", "backup done", "backup done"]);
    for file in files(&world) {
        let stored = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        assert!(!stored.contains("7391"), "{stored}");
        assert!(!stored.contains("AGE-SECRET"), "{stored}");
    }
}

#[test]
fn an_edited_a_removed_and_an_added_record_end_with_5() {
    let world = World::protected();
    world.run(&["backup"]).ends(0);
    let files = files(&world);
    assert_eq!(files.len(), 3);
    for file in &files {
        let kept = std::fs::read(file).unwrap();
        std::fs::remove_file(file).unwrap();
        let said = world.run(&["audit", "verify"]).ends(5);
        assert!(said.stdout.contains("THE LEDGER IS NOT WHOLE"), "{}", said.stdout);
        let mut edited = kept.clone();
        edited[100] ^= 1;
        write(file, &edited);
        world.run(&["audit", "verify"]).ends(5);
        world.run(&["audit", "list"]).ends(0);
        std::fs::remove_file(file).unwrap();
        write(file, &kept);
        world.run(&["audit", "verify"]).ends(0);
    }
}

fn write(file: &std::path::Path, bytes: &[u8]) {
    #[expect(clippy::disallowed_methods, reason = "what no store of ours would do")]
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_verb_whose_record_cannot_be_stored_is_done_all_the_same() {
    let world = World::protected();
    // The ledger of the store cannot be written to; everything else can.
    let folder = files(&world)[0].parent().unwrap().to_path_buf();
    std::fs::rename(&folder, world.path("aside")).unwrap();
    write(&folder, b"");
    let said = world.run(&["backup"]).ends(0);
    assert!(said.stderr.contains("audit ship"), "{}", said.stderr);
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(world.path("aside"), &folder).unwrap();
    world.run(&["audit", "verify"]).ends(3);
    world.run(&["audit", "ship"]).ends(0);
    world.run(&["audit", "verify"]).ends(0);
    assert_eq!(told(&world)[2..], ["backup done"]);
}

#[test]
fn a_new_machine_learns_from_the_ledger_what_was_proven() {
    let world = World::protected();
    world.run(&["verify"]).ends(0);
    let proven = |world: &World| {
        let status = world.run(&["status", "--json"]).json("status");
        status["components"][0]["proven"].clone()
    };
    let before = proven(&world);
    assert!(!before.is_null());
    std::fs::remove_dir_all(world.state_dir().join("proofs")).unwrap();
    assert!(proven(&world).is_null());
    let rebuilt = world.run(&["catalog", "rebuild", "--json"]).ends(0).json("catalog-rebuild");
    assert!(rebuilt["components"][0]["proofs"].as_u64().unwrap() > 0, "{rebuilt:#}");
    assert_eq!(proven(&world)["level"], before["level"]);
}

#[test]
fn the_documents_keep_their_shapes() {
    let world = World::protected();
    for (name, args) in [
        ("audit-list", ["audit", "list"]),
        ("audit-verify", ["audit", "verify"]),
        ("audit-ship", ["audit", "ship"]),
        ("catalog-rebuild", ["catalog", "rebuild"]),
    ] {
        let mut document = world.run(&[&args[..], &["--json"]].concat()).ends(0).json(name);
        // What the facts are is the matter of the verb, and named by the machine.
        for record in document["components"][0]["records"].as_array_mut().into_iter().flatten() {
            record["facts"] = Value::Object(serde_json::Map::new());
        }
        keeps(name, &document);
    }
}
