//! Repositories that an earlier Lifeboat wrote restore to the same bytes, by the binary and by the independent reader.

use std::path::{Path, PathBuf};

use crate::recover::{recover, recovered};
use crate::world::World;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden-repositories")
}

fn scenarios() -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort();
    assert!(!names.is_empty(), "`cargo xtask golden` makes them");
    names
}

fn read(scenario: &str, name: &str) -> Option<String> {
    std::fs::read_to_string(root().join(scenario).join(name)).ok()
}

/// A world that holds the scenario's store, and a configuration that trusts who wrote it.
fn world_of(scenario: &str) -> World {
    let world = World::with_database();
    assert!(world.copy_folder(&root().join(scenario).join("store"), "store") > 5);
    let instance = read(scenario, "instance.txt").unwrap();
    let (keys, encrypt) = match read(scenario, "key.txt") {
        None => (String::new(), "none"),
        Some(key) => {
            world.write("key.txt", &key);
            let public = key.lines().find_map(|line| line.split_once("public key: ")).unwrap().1.trim().to_owned();
            (
                format!("keys: {{ main: {{ age: {{ recipients: [{public}], identity: {{ file: key.txt }} }} }} }}\n"),
                "main",
            )
        }
    };
    world.write(
        "lifeboat.yaml",
        &format!(
            "version: 1\ninstance: {{ name: here, state_dir: state }}\ninstances: {{ golden: \"{}\" }}\n{keys}\
             stores: {{ disk: {{ fs: {{ path: store }} }} }}\n\
             systems: {{ golden: {{ components: {{ db: {{ sqlite: {{ path: golden.db }}, backup: {{ to: [disk], encrypt: {encrypt} }} }} }} }} }}\n",
            instance.trim()
        ),
    );
    world
}

#[test]
fn no_golden_file_has_changed() {
    let world = World::with_database();
    let folder = root().canonicalize().unwrap().display().to_string();
    world.shell(&format!("cd '{folder}' && sha256sum --quiet --strict -c SHA256SUMS")).ends(0);
    let listed = std::fs::read_to_string(root().join("SHA256SUMS")).unwrap().lines().count();
    let there = world
        .shell(&format!("cd '{folder}' && find . -type f ! -name SHA256SUMS ! -name README.md | wc -l"))
        .ends(0);
    assert_eq!(there.stdout.trim(), listed.to_string(), "a file is not listed");
}

#[test]
fn every_golden_repository_restores_to_the_same_bytes() {
    for scenario in scenarios() {
        let world = world_of(&scenario);
        world.run(&["verify", "golden", "--all"]).ends(0);
        let sums = read(&scenario, "expected.sha256").unwrap();
        let trust = read(&scenario, "instance.txt").unwrap();
        for seq in 1..=sums.lines().count() {
            let seq = seq.to_string();
            world
                .run(&["restore", "golden", "--backup", &seq, "--to", &format!("backup-{seq}.db")])
                .ends(0);
            let folder = format!("recovered-{seq}");
            let mut words = vec!["restore", "store", "golden/db", "--backup", &seq, "--to", &folder, "--trust", trust.trim()];
            if world.path("key.txt").try_exists().unwrap() {
                words.extend(["--identity", "key.txt"]);
            }
            recovered(&recover(&world, &words), 0);
            let (ours, theirs) = (
                std::fs::read(world.path(&format!("backup-{seq}.db"))).unwrap(),
                std::fs::read(world.path(&folder).join("golden.db")).unwrap(),
            );
            assert!(ours == theirs, "{scenario}, backup {seq}: the two readers differ");
        }
        world.write("expected.sha256", &sums);
        world.shell("sha256sum --quiet --strict -c expected.sha256").ends(0);
    }
}
