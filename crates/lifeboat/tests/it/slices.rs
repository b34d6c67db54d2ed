//! Reading everything that is stored, a slice at a time, by the real binary.

use serde_json::Value;

use crate::golden::keeps;
use crate::world::World;

fn slice(world: &World, budget: &str, code: i32) -> Value {
    let ran = world
        .run(&["verify", "--level", "hash", "--budget", budget, "--json"])
        .ends(code);
    let said = ran.json("verify-slice");
    said["components"][0]["slices"][0].clone()
}

/// With three backups, each of which has files of its own.
fn world() -> World {
    let world = World::protected();
    for rows in [2000, 3000] {
        world.add_rows("shop.db", rows);
        world.run(&["backup"]).ends(0);
    }
    world
}

#[test]
fn each_run_reads_what_was_read_longest_ago_until_everything_was() {
    let world = world();
    let first = slice(&world, "1B", 0);
    let files = first["files"].as_u64().unwrap();
    assert!(files >= 6, "{first:#}");
    // One file is always read, or nothing would ever be.
    assert_eq!(
        (first["checked"].as_u64(), first["never_read"].as_u64()),
        (Some(1), Some(files - 1))
    );
    assert_eq!(first["oldest_read_s"], Value::Null);
    for left in (0..files - 1).rev() {
        assert_eq!(slice(&world, "1B", 0)["never_read"], left);
    }
    let read = |world: &World| {
        let path = world.state_dir().join("scrubs");
        let files = walk(&path);
        let json: Value = serde_json::from_slice(&std::fs::read(&files[0]).unwrap()).unwrap();
        let mut read: Vec<(i64, String)> = json["read"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(file, at)| (at.as_i64().unwrap(), file.clone()))
            .collect();
        read.sort();
        read
    };
    // From now on it is the turn of the one that was read longest ago.
    let before = read(&world);
    let words = ["verify", "--level", "hash", "--budget", "1B", "--json"];
    let all = world.run(&words).ends(0).json("verify-slice");
    keeps("verify-slice", &all);
    let all = all["components"][0]["slices"][0].clone();
    assert!(all["oldest_read_s"].as_f64().is_some(), "{all:#}");
    let after = read(&world);
    assert_eq!(after.last().unwrap().1, before[0].1);
    // A new backup's files are new; a large budget reads everything.
    world.add_rows("shop.db", 10);
    world.run(&["backup"]).ends(0);
    assert!(slice(&world, "1B", 0)["never_read"].as_u64().unwrap() > 0);
    let whole = slice(&world, "1GB", 0);
    assert_eq!(whole["checked"], whole["files"]);
    assert_eq!(whole["bytes"], whole["all_bytes"]);
    // Without the record nothing is taken for read.
    std::fs::remove_dir_all(world.state_dir().join("scrubs")).unwrap();
    let anew = slice(&world, "1B", 0);
    assert_eq!(anew["never_read"].as_u64().unwrap() + 1, anew["files"].as_u64().unwrap());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn damage_is_found_marked_told_and_mended_by_the_next_backup() {
    let world = world();
    slice(&world, "1GB", 0);
    // One bit, of an old backup's file: its size stays.
    let (pack, mut bytes) = world
        .files("lifeboat-backups")
        .into_iter()
        .find(|(path, _)| path.to_string_lossy().contains("/packs/"))
        .unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let found = slice(&world, "1GB", 5);
    assert_eq!(found["damaged"].as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(found["never_read"], 1, "what is damaged was not read");
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(found["damaged"][0]["file"].as_str().unwrap().ends_with(name), "{found:#}");
    let status = world.run(&["status"]);
    assert!(status.stdout.contains("is damaged"), "{}", status.stdout);
    let told = world.run(&["verify", "--level", "hash", "--budget", "1GB"]).ends(5);
    assert!(
        told.stdout.contains("DAMAGED") && told.stdout.contains(name),
        "{}",
        told.stdout
    );
    assert!(told.stderr.contains("marked for the next backup"), "{}", told.stderr);
    let backup = world.run(&["backup"]).ends(0);
    assert!(backup.stderr.contains("stored anew"), "{}", backup.stderr);
    world.run(&["verify", "--level", "restore"]).ends(0);
}

#[test]
fn mistakes_are_told_before_anything_is_read() {
    let world = World::protected();
    for words in [
        &["verify", "--budget", "1GB"][..],
        &["verify", "--level", "hash", "--budget", "much"],
        &["verify", "--level", "hash", "--budget", "1GB", "--all"],
    ] {
        world.run(words).ends(2);
    }
    std::fs::rename(world.path("lifeboat-backups"), world.path("away")).unwrap();
    let away = world.run(&["verify", "--level", "hash", "--budget", "1GB"]);
    assert!([10, 13].contains(&away.code), "{} {}", away.code, away.stderr);
}

#[test]
fn what_is_due_is_proven_once_and_what_is_late_is_told() {
    let world = world();
    let component = "      db:\n";
    world.edit_config(component, &format!("{component}        verify: {{ hash: {{ every: 1d, budget: 1GiB }}, decrypt: {{ every: 7d }}, app: {{ every: 30d }} }}\n"));
    let codes = || {
        let said = world.run(&["status", "--json"]).json("status");
        said["components"][0]["reason_codes"].clone()
    };
    let late = |codes: &Value| codes.as_array().unwrap().iter().any(|code| code == "verification_late");
    // What `init` proved is no slice; without it nothing was proven at all.
    assert!(late(&codes()), "{:#}", codes());
    std::fs::remove_dir_all(world.state_dir().join("proofs")).unwrap();
    let run = || world.run(&["verify", "--due", "--json"]).ends(0).json("verify-due");
    let first = run();
    keeps("verify-due", &first);
    let first = &first["components"][0];
    // One restore serves all that is not a slice.
    assert_eq!(first["proofs"].as_array().unwrap().len(), 1, "{first:#}");
    assert_eq!(first["proofs"][0]["level"], "restore");
    assert_eq!(first["slices"][0]["never_read"], 0);
    assert!(!late(&codes()), "{:#}", codes());
    let second = run()["components"][0].clone();
    assert!(second["proofs"].is_null() && second["slices"].is_null(), "{second:#}");
    // Of what was not done the ledger hears nothing.
    let records = || {
        let ledger = world
            .run(&["audit", "list", "--verb", "verify", "--json"])
            .ends(0)
            .json("audit-list");
        ledger["components"][0]["records"].as_array().unwrap().len()
    };
    let before = records();
    let text = world.run(&["verify", "--due"]).ends(0).stdout;
    assert_eq!(records(), before);
    assert!(
        text.contains("nothing is due") && text.contains("restore: due again in 30d"),
        "{text}"
    );
    // Each backup says how far it was proven.
    let listed = world.run(&["list", "--json"]).ends(0).json("list");
    let proven: Vec<&Value> = listed["components"][0]["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["proven"]["level"])
        .collect();
    assert_eq!(proven[0], "restore", "{listed:#}");
    // A drill is a proof, too; what has gone is proven anew.
    std::fs::remove_dir_all(world.state_dir().join("proofs")).unwrap();
    assert!(late(&codes()), "{:#}", codes());
    world.run(&["drill"]).ends(0);
    assert!(!late(&codes()), "{:#}", codes());
    world.run(&["verify", "--due", "--all"]).ends(2);
}
