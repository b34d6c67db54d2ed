//! Several stores through the binary: backups into two, one of them away, `copy`, `--from`, `--to`.

use std::fs;

use crate::world::World;

/// A protected database with two stores, `disk` (the one of `init`) and `other`; `extra` stands beside `to`.
fn two(extra: &str) -> World {
    let world = World::protected();
    fs::create_dir(world.path("other")).unwrap();
    let path = world.path("lifeboat.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("to: [disk]", &format!("to: [disk, other]{extra}"));
    let text = text.replace("stores:\n", "stores:\n  other:\n    fs:\n      path: other\n");
    fs::write(&path, text).unwrap();
    world
}

fn stores(backup: &serde_json::Value) -> Vec<&str> {
    backup["stores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|store| store.as_str().unwrap())
        .collect()
}

#[test]
fn a_new_second_store_gets_everything_that_the_next_backup_needs() {
    let world = two("");
    let backup = world.run(&["backup", "--json"]).ends(0).json("backup");
    let copies = backup["components"][0]["copies"].as_array().unwrap();
    assert!(copies.iter().all(|copy| copy["stored"] == true), "{copies:?}");
    let list = world.run(&["list", "--json"]).ends(0).json("list");
    for backup in list["components"][0]["backups"].as_array().unwrap() {
        assert_eq!(stores(backup), ["disk", "other"]);
    }
    for store in ["disk", "other"] {
        world.run(&["verify", "--all", "--from", store]).ends(0);
    }
    assert_eq!(
        fs::read(world.path("other/lifeboat.json")).unwrap(),
        fs::read(world.path("lifeboat-backups/lifeboat.json")).unwrap()
    );
}

#[test]
fn a_missing_copy_is_never_a_success_and_copy_mends_it() {
    let world = two("");
    world.run(&["backup"]).ends(0);
    fs::rename(world.path("other"), world.path("away")).unwrap();
    let ran = world.run(&["backup"]).ends(3);
    assert!(ran.stderr.contains("THE STORE other HAS NO COPY"), "{}", ran.stderr);
    // It says nothing about how long a backup into both takes; nor does the first one, which went into one.
    let checked = world.run(&["config", "check", "--json"]).ends(0).json("config-check");
    assert_eq!(checked["plan"][0]["run"]["basis"], "1 measured backup");
    let list = world.run(&["list", "--json"]).ends(3).json("list");
    let component = &list["components"][0];
    assert_eq!(component["backups"].as_array().unwrap().len(), 3);
    assert_eq!(component["away"][0]["store"], "other");
    assert!(world.run(&["status"]).stdout.contains("the store other does not answer"));
    fs::rename(world.path("away"), world.path("other")).unwrap();
    let list = world.run(&["list", "--json"]).ends(0).json("list");
    assert_eq!(stores(&list["components"][0]["backups"][0]), ["disk"]);
    assert!(
        world
            .run(&["status"])
            .stdout
            .contains("the store other lacks the newest backup")
    );
    let copied = world.run(&["copy", "--to", "other", "--json"]).ends(0).json("copy");
    assert_eq!(copied["components"][0]["copied"].as_array().unwrap().len(), 1);
    let list = world.run(&["list", "--json"]).ends(0).json("list");
    assert_eq!(stores(&list["components"][0]["backups"][0]), ["disk", "other"]);
    world.run(&["verify", "--from", "other"]).ends(0);
}

#[test]
fn a_store_that_is_required_makes_it_a_failure() {
    let world = two(", required: [other]");
    fs::remove_dir(world.path("other")).unwrap();
    world.run(&["backup"]).ends(1);
    fs::create_dir(world.path("other")).unwrap();
    world.run(&["backup"]).ends(0);
}

#[test]
fn a_store_that_was_emptied_is_told_and_filled_only_when_asked() {
    let world = two("");
    world.run(&["backup"]).ends(0);
    fs::remove_dir_all(world.path("other")).unwrap();
    fs::create_dir(world.path("other")).unwrap();
    let ran = world.run(&["backup"]).ends(3);
    assert!(ran.stderr.contains("it held this repository before"), "{}", ran.stderr);
    assert_eq!(fs::read_dir(world.path("other")).unwrap().count(), 0);
    world.run(&["copy", "--to", "other"]).ends(0);
    world.run(&["backup"]).ends(0);
    world.run(&["verify", "--all", "--from", "other"]).ends(0);
}

#[test]
fn a_restore_takes_another_store_where_the_first_is_gone_or_damaged() {
    let world = two("");
    world.run(&["backup"]).ends(0);
    let rows = world.rows("shop.db");
    fs::rename(world.path("lifeboat-backups"), world.path("gone")).unwrap();
    world.run(&["restore", "shop", "--to", "one.db"]).ends(0);
    assert_eq!(world.rows("one.db"), rows);
    fs::rename(world.path("gone"), world.path("lifeboat-backups")).unwrap();
    for pack in files_under(&world.path("lifeboat-backups/c"), "packs") {
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let ran = world.run(&["restore", "shop", "--to", "two.db"]).ends(0);
    assert!(ran.stderr.contains("from the store other"), "{}", ran.stderr);
    assert_eq!(world.rows("two.db"), rows);
    world.run(&["restore", "shop", "--to", "three.db", "--from", "disk"]).ends(5);
    world.run(&["restore", "shop", "--to", "four.db", "--from", "other"]).ends(0);
}

#[test]
fn a_folder_that_nobody_configured_is_a_store_too() {
    let world = World::protected();
    fs::create_dir(world.path("usb")).unwrap();
    world.run(&["copy", "--to", "./usb"]).ends(0);
    world.run(&["list", "--from", "./usb"]).ends(0);
    world.run(&["points", "--from", "./usb"]).ends(0);
    world.run(&["show", "shop", "--from", "./usb"]).ends(0);
    world.run(&["verify", "--from", "./usb"]).ends(0);
    world.run(&["restore", "shop", "--from", "./usb", "--to", "usb.db"]).ends(0);
    world.add_rows("shop.db", 3);
    world.run(&["backup", "--to", "./usb"]).ends(0);
    let list = world.run(&["list", "--json", "--from", "./usb"]).ends(0).json("list");
    assert_eq!(list["components"][0]["backups"].as_array().unwrap().len(), 2);
    // The stores of the configuration go on from where they were.
    let backup = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert_eq!(backup["components"][0]["backup"]["seq"], 2);
    assert!(!world.run(&["show", "shop"]).stdout.contains("compared to   none"));
    world.run(&["copy", "--to", "nowhere"]).ends(2);
}

fn files_under(folder: &std::path::Path, kind: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_under(&path, kind));
        } else if path.components().any(|part| part.as_os_str() == kind) {
            found.push(path);
        }
    }
    found
}
