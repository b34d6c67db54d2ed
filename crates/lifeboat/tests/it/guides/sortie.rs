//! The Sortie guide: daily and manual backups of one database, seven of them kept, in the cluster and off it.

use super::{Guide, execute, number};
use crate::world::World;

const BUCKET: super::Bucket = ("gcs: { bucket: your-backup-bucket, prefix: sortie }", "sortie");
const DATABASE: &str = "data/sortie.db";

pub(super) fn guide() -> Guide {
    Guide::set_up("sortie", BUCKET, |world| {
        std::fs::create_dir(world.path("data")).unwrap();
        execute(
            world,
            DATABASE,
            "PRAGMA journal_mode = wal; CREATE TABLE applications (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO applications (name) VALUES ('editor'), ('shell')",
        );
    })
}

fn add(world: &World) {
    execute(world, DATABASE, "INSERT INTO applications (name) VALUES ('another')");
}

fn applications(world: &World, name: &str) -> i64 {
    number(world, name, "SELECT count(*) FROM applications")
}

#[test]
fn daily_and_manual_backups_and_the_restore_in_the_cluster() {
    let guide = guide();
    let world = &guide.world;
    world.run(&["backup"]).ends(0);
    add(world);
    world.run(&["backup", "sortie", "--reason", "before the upgrade"]).ends(0);
    let show = world.run(&["show", "sortie"]).ends(0);
    assert!(show.stdout.contains("before the upgrade"), "{}", show.stdout);

    // The newest backup replaces the damaged database, whose companions go with it.
    world.write(DATABASE, "corrupt");
    world.write("data/sortie.db-wal", "left over");
    world.run(&["restore", "sortie", "--in-place", "--yes"]).ends(0);
    assert_eq!(applications(world, DATABASE), 3);
    let wal = std::fs::read(world.path("data/sortie.db-wal")).unwrap_or_default();
    assert!(!wal.starts_with(b"left over"));
    // While the application has it open, nothing is replaced.
    let mut application = world.held_open(DATABASE);
    world.run(&["restore", "sortie", "--in-place", "--yes"]).ends(6);
    application.kill().unwrap();
    application.wait().unwrap();
}

#[test]
fn the_restore_off_the_cluster_needs_the_key_and_one_of_the_stores() {
    let guide = guide();
    guide.world.run(&["backup"]).ends(0);
    add(&guide.world);
    guide.world.run(&["backup"]).ends(0);

    // Volume and database are lost: the copy off the cluster is all there is.
    let away = guide.another_machine();
    let seen = away.run(&["list", "--from", "off-cluster"]).ends(0);
    assert!(seen.stdout.contains("sortie/db"), "{}", seen.stdout);
    away.run(&["restore", "sortie", "--from", "off-cluster", "--to", "restore.db"])
        .ends(0);
    assert_eq!(applications(&away, "restore.db"), 3);
    away.run(&["check", "sortie", "--on", "restore.db"]).ends(0);
    away.run(&[
        "restore",
        "sortie",
        "--from",
        "off-cluster",
        "--backup",
        "1",
        "--to",
        "older.db",
    ])
    .ends(0);
    assert_eq!(applications(&away, "older.db"), 2);

    // The other way round: the service is away, a copy of the volume is at hand.
    let other = guide.another_machine();
    assert!(other.copy_folder(&guide.world.path("backup"), "backup") > 0);
    drop(guide);
    other.run(&["restore", "sortie", "--to", "restore.db"]).ends(0);
    assert_eq!(applications(&other, "restore.db"), 3);
}

#[test]
fn seven_are_kept_and_each_says_why() {
    let guide = guide();
    let world = &guide.world;
    for _ in 0..9 {
        add(world);
        world.run(&["backup"]).ends(0);
    }
    let plan = world.run(&["prune", "--dry-run", "--json"]).ends(0).json("prune");
    for store in plan["components"].as_array().unwrap() {
        let backups = store["backups"].as_array().unwrap();
        let kept = backups.iter().filter(|backup| backup["stays"] == true).count();
        assert_eq!((backups.len(), kept), (9, 7), "{store:#}");
    }
    // What is given up waits for two days, and what is kept restores whatever happens to the rest.
    world.run(&["prune"]).ends(0);
    world.run(&["prune"]).ends(0);
    world.run(&["verify", "--all"]).ends(0);
    world
        .run(&["restore", "sortie", "--backup", "3", "--to", "oldest.db"])
        .ends(0);
    assert_eq!(applications(world, "oldest.db"), 5);
}
