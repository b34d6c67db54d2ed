//! The guides' own commands, done with the configurations in `examples/`, through the real binary.

use std::path::{Path, PathBuf};

use crate::world::World;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// A world with one of the examples in it, set up as its first lines say.
fn set_up(example: &str, make: impl FnOnce(&World)) -> World {
    let world = World::with_database();
    std::fs::remove_file(world.path("shop.db")).unwrap();
    make(&world);
    let text = std::fs::read_to_string(examples().join(example).join("lifeboat.yaml")).unwrap();
    world.write("lifeboat.yaml", &text);
    let made = world
        .run(&["key", "new", "lifeboat-key.txt", "--json"])
        .ends(0)
        .json("key-new");
    world.edit_config(
        "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z",
        made["public_key"].as_str().unwrap(),
    );
    let init = world.run(&["init"]).ends(7);
    let public = init
        .stderr
        .split_whitespace()
        .find(|word| word.contains("ed25519:"))
        .unwrap_or_else(|| panic!("no public key in {}", init.stderr))
        .trim_matches('"')
        .to_owned();
    world.edit_config(
        "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        &public,
    );
    world.run(&["config", "check"]).ends(0);
    world
}

fn devops_hub() -> World {
    let world = set_up("devops-hub", |world| {
        for folder in ["data", "k8s", "frontend"] {
            std::fs::create_dir(world.path(folder)).unwrap();
        }
        let database = world.open("data/devops_hub.db");
        database
            .execute_batch(
                "CREATE TABLE agents (id INTEGER PRIMARY KEY, name TEXT);
                 INSERT INTO agents (name) VALUES ('one'), ('two'), ('three');
                 CREATE TABLE api_keys (id INTEGER PRIMARY KEY, name TEXT, scopes TEXT, hash TEXT);
                 INSERT INTO api_keys (name, scopes, hash) VALUES ('ci', 'read', 'a-hash-that-stays-secret')",
            )
            .unwrap();
        database.close().unwrap();
        world.write("docker-compose.yml", "services: {}\n");
        world.write("docker-compose.prod.yml", "services: { backend: {} }\n");
        world.write("k8s/backend.yaml", "kind: Deployment\n");
        world.write("frontend/nginx.conf", "server { listen 80; }\n");
        world.write(
            ".env",
            "# keys\nSECRET_KEY=never-store-this-value\nexport DATABASE_PATH=./data/devops_hub.db\n",
        );
    });
    world.run(&["backup", "devops-hub/db"]).ends(0);
    world
}

fn agents(world: &World, name: &str) -> i64 {
    let connection = world.open(name);
    let count = connection
        .query_row("SELECT count(*) FROM agents", [], |row| row.get(0))
        .unwrap();
    connection.close().unwrap();
    count
}

#[test]
fn every_example_is_a_right_configuration() {
    let world = World::with_database();
    for name in ["devops-hub", "sortie", "n-kudo", "architect-go"] {
        let file = examples().join(name).join("lifeboat.yaml");
        let checked = world
            .run(&["--config", &file.display().to_string(), "config", "check"])
            .ends(0);
        assert!(!checked.stdout.contains("warning"), "{}", checked.stdout);
    }
}

#[test]
fn devops_hub_its_database_is_backed_up_looked_at_and_restored() {
    let world = devops_hub();
    // `ls -la backups/`, and row counts for verification.
    let list = world.run(&["list", "devops-hub"]).ends(0);
    assert!(list.stdout.contains("devops-hub/db"), "{}", list.stdout);
    let show = world.run(&["show", "devops-hub/db", "--json"]).ends(0).json("show");
    assert_eq!(show["components"][0]["backup"]["facts"]["tables"]["agents"], 3);
    world.run(&["verify", "devops-hub/db"]).ends(0);

    // Accidental deletion: what would come back, then back.
    let database = world.open("data/devops_hub.db");
    database.execute("DELETE FROM agents WHERE id > 1", []).unwrap();
    database.close().unwrap();
    let diff = world
        .run(&["diff", "latest", "live", "devops-hub/db", "--table", "agents"])
        .ends(0);
    assert!(diff.stdout.contains("2 missing"), "{}", diff.stdout);
    world.run(&["restore", "devops-hub/db", "--dry-run"]).ends(0);
    assert_eq!(agents(&world, "data/devops_hub.db"), 1);
    world.run(&["restore", "devops-hub/db", "--in-place", "--yes"]).ends(0);
    assert_eq!(agents(&world, "data/devops_hub.db"), 3);

    // Corruption: `PRAGMA integrity_check`, then the database alone.
    world.write("data/devops_hub.db", "this was a database once");
    world.run(&["restore", "devops-hub/db", "--in-place", "--yes"]).ends(0);
    assert_eq!(agents(&world, "data/devops_hub.db"), 3);
    world.run(&["check", "devops-hub/db"]).ends(0);

    // The monthly test: into a database of its own.
    world
        .run(&["restore", "devops-hub/db", "--to", "data/test_restore.db"])
        .ends(0);
    assert_eq!(agents(&world, "data/test_restore.db"), 3);
    world.run(&["check", "devops-hub/db", "--on", "data/test_restore.db"]).ends(0);
    world.run(&["status", "devops-hub/db"]).ends(0);
}

fn sortie() -> World {
    set_up("sortie", |world| {
        std::fs::create_dir(world.path("data")).unwrap();
        let database = world.open("data/sortie.db");
        database
            .execute_batch(
                "PRAGMA journal_mode = wal; CREATE TABLE applications (id INTEGER PRIMARY KEY, name TEXT);
                 INSERT INTO applications (name) VALUES ('editor'), ('shell')",
            )
            .unwrap();
        database.close().unwrap();
    })
}

fn applications(world: &World, name: &str) -> i64 {
    let connection = world.open(name);
    let count = connection
        .query_row("SELECT count(*) FROM applications", [], |row| row.get(0))
        .unwrap();
    connection.close().unwrap();
    count
}

#[test]
fn sortie_daily_and_manual_backups_and_both_restores() {
    let world = sortie();
    world.run(&["backup"]).ends(0);
    let database = world.open("data/sortie.db");
    database
        .execute("INSERT INTO applications (name) VALUES ('third')", [])
        .unwrap();
    database.close().unwrap();
    world.run(&["backup", "sortie", "--reason", "before the upgrade"]).ends(0);

    // In the cluster: the newest backup replaces the damaged database, whose companions go with it.
    world.write("data/sortie.db", "corrupt");
    world.write("data/sortie.db-wal", "left over");
    world.run(&["restore", "sortie", "--in-place", "--yes"]).ends(0);
    assert_eq!(applications(&world, "data/sortie.db"), 3);
    assert!(
        !world.path("data/sortie.db-wal").try_exists().unwrap()
            || world
                .files("data")
                .iter()
                .all(|(path, bytes)| !path.ends_with("sortie.db-wal") || bytes.is_empty())
    );

    // Off the cluster: the volume is lost, a copy of the store and the key is all there is.
    let away = World::with_database();
    for name in ["lifeboat.yaml", "lifeboat-key.txt"] {
        let text = std::fs::read_to_string(world.path(name)).unwrap();
        away.write(name, &text);
    }
    let copied = away.copy_folder(&world.path("backup"), "backup");
    assert!(copied > 0);
    away.run(&["verify", "sortie"]).ends(0);
    away.run(&["restore", "sortie", "--backup", "1", "--to", "restore.db"])
        .ends(0);
    assert_eq!(applications(&away, "restore.db"), 2);
    away.run(&["check", "sortie", "--on", "restore.db"]).ends(0);
}

#[test]
fn architect_go_a_live_database_is_not_copied_with_gzip() {
    let world = set_up("architect-go", |world| {
        std::fs::create_dir(world.path("data")).unwrap();
        world.make_database("data/architect.db", 100);
    });
    // A transaction is open while the backup runs: what is not committed is not in it.
    let writer = world.open("data/architect.db");
    writer.execute_batch("BEGIN; DELETE FROM orders").unwrap();
    world.run(&["backup"]).ends(0);
    drop(writer);
    world.run(&["restore", "architect-go", "--to", "architect_test.db"]).ends(0);
    assert_eq!(world.rows("architect_test.db"), 100);
}
