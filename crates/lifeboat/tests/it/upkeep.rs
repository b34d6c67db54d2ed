//! Prune, hold, copy and scrubbing through the binary, with a component in two stores. The stores are folders, whose time is that of their
//! files: a test that lets two days pass makes the files older.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::world::World;

/// Two stores, rules that keep the newest two, and six backups in both, of which the first was proven.
fn six_backups() -> World {
    let world = World::protected();
    fs::create_dir(world.path("other")).unwrap();
    world.edit_config("to: [disk]", "to: [disk, other]");
    world.edit_config("stores:\n", "stores:\n  other:\n    fs: { path: other }\n");
    world.edit_config("encrypt: main }", "encrypt: main, retention: two }");
    let path = world.path("lifeboat.yaml");
    let text = fs::read_to_string(&path).unwrap();
    world.write(
        "lifeboat.yaml",
        &format!("{text}\nretention:\n  two: {{ keep: {{ last: 2 }}, after_backup: false }}\n"),
    );
    for _ in 0..5 {
        world.add_rows("shop.db", 2);
        world.run(&["backup"]).ends(0);
    }
    world.run(&["copy", "--to", "other", "--backup", "all"]).ends(0);
    world
}

/// Two days pass in a store: announcements and lists get older.
fn two_days_pass(world: &World, store: &str) {
    let then = SystemTime::now() - Duration::from_secs(50 * 3600);
    let mut pending = vec![world.path(store)];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path
                .parent()
                .is_some_and(|folder| folder.ends_with("sessions") || folder.ends_with("prune"))
            {
                let file = File::options()
                    .write(true)
                    .open(&path)
                    .or_else(|_| open_anyway(&path))
                    .unwrap();
                file.set_modified(then).unwrap();
            }
        }
    }
}

fn open_anyway(path: &Path) -> std::io::Result<File> {
    let mut permissions = fs::metadata(path)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(path, permissions)?;
    File::options().write(true).open(path)
}

/// The numbers of the backups in a store, ascending.
fn numbers(world: &World, store: &str) -> Vec<u64> {
    let list = world.run(&["list", "--json", "--from", store]).ends(0).json("list");
    let backups = list["components"][0]["backups"].as_array().unwrap();
    let mut numbers: Vec<u64> = backups.iter().map(|backup| backup["seq"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn holds(world: &World, code: i32) -> Vec<Value> {
    let held = world.run(&["hold", "list", "--json"]).ends(code).json("hold");
    held["holds"].as_array().unwrap().clone()
}

#[test]
fn prune_goes_through_every_store_and_a_census_in_one_does_not_split_the_next_backup() {
    let world = six_backups();
    let ran = world.run(&["prune", "--dry-run"]).ends(0);
    assert!(
        ran.stdout.contains("shop/db in disk:") && ran.stdout.contains("shop/db in other:"),
        "{}",
        ran.stdout
    );
    // What a backup of today builds on waits.
    let ran = world.run(&["prune"]).ends(0);
    assert!(
        ran.stdout.contains("later  4-") && ran.stdout.contains("may build on it"),
        "{}",
        ran.stdout
    );
    two_days_pass(&world, "lifeboat-backups");
    two_days_pass(&world, "other");
    let ran = world.run(&["prune", "--store", "other"]).ends(0);
    assert!(ran.stdout.contains("condemned: "), "{}", ran.stdout);
    let backup = world.run(&["backup", "--json"]).ends(0).json("backup");
    let done = &backup["components"][0];
    assert_eq!(done["notes"].as_array().unwrap().len(), 0, "{done:#}");
    assert!(done["backup"]["parent"].is_string(), "{done:#}");
    for copy in done["copies"].as_array().unwrap() {
        assert!(copy["stored"] == true && copy["own"].is_null(), "{copy}");
    }
    two_days_pass(&world, "other");
    let ran = world.run(&["prune", "--store", "other"]).ends(0);
    assert!(ran.stdout.contains("deleted: "), "{}", ran.stdout);
    assert_eq!(
        numbers(&world, "other"),
        [1, 5, 6, 7],
        "the first is the newest that was proven"
    );
    assert_eq!(numbers(&world, "disk"), [1, 2, 3, 4, 5, 6, 7]);
    // What its rules gave up does not come back by itself; what is asked for does.
    let ran = world.run(&["copy", "--to", "other"]).ends(0);
    assert!(ran.stderr.contains("would give it up there at once"), "{}", ran.stderr);
    assert_eq!(numbers(&world, "other"), [1, 5, 6, 7]);
    world.run(&["copy", "--to", "other", "--backup", "3"]).ends(0);
    assert_eq!(numbers(&world, "other"), [1, 3, 5, 6, 7]);
    for store in ["disk", "other"] {
        world.run(&["verify", "--all", "--from", store]).ends(0);
    }
    let next = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert_eq!(next["components"][0]["notes"].as_array().unwrap().len(), 0, "{next:#}");
}

#[test]
fn a_hold_is_one_thing_in_all_stores() {
    let world = six_backups();
    world
        .run(&["hold", "add", "shop/db", "--backup", "latest", "--reason", "audit"])
        .ends(0);
    let held = holds(&world, 0);
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(held[0]["stores"], serde_json::json!(["disk", "other"]));
    fs::rename(world.path("other"), world.path("away")).unwrap();
    let ran = world
        .run(&["hold", "add", "shop", "--all", "--reason", "incident", "--for", "30d"])
        .ends(3);
    assert!(ran.stderr.contains("THE STORE other was left out"), "{}", ran.stderr);
    assert_eq!(holds(&world, 3).len(), 2);
    fs::rename(world.path("away"), world.path("other")).unwrap();
    let held = holds(&world, 0);
    let of = |reason: &str| held.iter().find(|hold| hold["reason"] == reason).unwrap();
    assert_eq!(of("incident")["stores"], serde_json::json!(["disk"]));
    let ran = world.run(&["prune", "--store", "disk"]).ends(0);
    assert_eq!(ran.stdout.matches("held: ").count(), 6, "{}", ran.stdout);
    for reason in ["incident", "audit"] {
        let id = of(reason)["id"].as_str().unwrap();
        world.run(&["hold", "release", &id[..10]]).ends(0);
    }
    assert!(holds(&world, 0).is_empty());
    world.run(&["hold", "release", "feed"]).ends(9);
    world.run(&["hold", "add", "shop", "--backup", "99", "--reason", "x"]).ends(9);
}

#[test]
fn what_a_scrub_finds_in_one_store_is_brought_from_the_other() {
    let world = six_backups();
    let pack = largest(&world.path("other/c"));
    let good = fs::read(&pack).unwrap();
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    drop(open_anyway(&pack).unwrap());
    fs::write(&pack, &bytes).unwrap();
    let ran = world.run(&["verify", "--level", "hash"]).ends(5);
    assert!(ran.stdout.contains("in the store disk:"), "{}", ran.stdout);
    assert!(ran.stderr.contains("shop/db in the store other:"), "{}", ran.stderr);
    let ran = world.run(&["copy", "--to", "other"]).ends(0);
    assert!(ran.stderr.contains("was replaced by a good copy"), "{}", ran.stderr);
    assert_eq!(fs::read(&pack).unwrap(), good);
    world.run(&["verify", "--level", "hash", "--all"]).ends(0);
    // It is marked nowhere any more: the next backup stores what changed, and no more.
    let backup = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert!(backup["components"][0]["backup"]["parent"].is_string(), "{backup:#}");
}

fn largest(folder: &Path) -> std::path::PathBuf {
    let mut found: Vec<(u64, std::path::PathBuf)> = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.components().any(|part| part.as_os_str() == "packs") {
                found.push((fs::metadata(&path).unwrap().len(), path));
            }
        }
    }
    found.into_iter().max().unwrap().1
}
