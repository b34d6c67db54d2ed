//! What a cluster comes back from after it was set back by mistake, where stores hold different amounts, and where a history is damaged.

use std::path::{Path, PathBuf};

use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};
use serde_json::Value;

use crate::world::World;

/// A world whose system `bank` is this cluster, with two stores.
fn world(cluster: &Cluster) -> World {
    let world = World::protected();
    let entry = format!(
        "systems:\n  bank:\n    components:\n      db:\n        postgres: {{ url: \"{}\", binaries: [{}] }}\n        objectives: {{ rpo: 1h, rto: 1h }}\n        backup: {{ to: [disk, other] }}\n",
        cluster.url("postgres", "postgres"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    std::fs::create_dir(world.path("other")).unwrap();
    world.edit_config("stores:\n", "stores:\n  other:\n    fs:\n      path: other\n");
    world
}

fn moved(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

/// What a restore would do.
fn plan(world: &World, words: &[&str]) -> Value {
    let fixed = ["restore", "bank", "--dry-run", "--json", "--to", "/tmp/lifeboat-never-made"];
    let plan = world.run(&[&fixed[..], words].concat()).ends(0).json("restore-plan");
    plan["components"][0].clone()
}

fn stored_files(world: &World, store: &str, name: &str) -> Vec<PathBuf> {
    let files = world.files(store).into_iter().map(|(path, _)| path);
    files.filter(|path| path.to_string_lossy().contains(name)).collect()
}

#[test]
fn what_was_before_a_mistake_and_what_one_store_lacks_comes_back() {
    let major = majors()[1];
    // What was written before anybody followed is still there.
    let mut origin = Cluster::start(major, &Options::new().set("wal_keep_size", "256MB"));
    let world = world(&origin);
    origin.query("create table t as select 1 as id");
    world.run(&["backup", "bank"]).ends(0);
    origin.stop(Stop::Fast);
    let (data, snapshot) = (origin.data_dir(), origin.folder().join("snapshot"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&data).arg(&snapshot).status();
    assert!(copied.unwrap().success());
    origin.begin();
    origin.query("insert into t values (2); select pg_switch_wal()");
    origin.query("insert into t values (3)");
    let lost = origin.query("select pg_current_wal_flush_lsn()");
    world.run(&["follow", "bank", "--once"]).ends(0);

    // Somebody sets the machine back to its snapshot, and it goes on from there.
    origin.stop(Stop::Fast);
    moved(&data, &origin.folder().join("gone"));
    moved(&snapshot, &data);
    origin.begin();
    origin.query("insert into t values (20)");
    world.run(&["follow", "bank", "--once"]).ends(0);
    world.run(&["backup", "bank"]).ends(0);
    let points = world.run(&["points", "bank", "--json"]).ends(0).json("points");
    let windows = points["components"][0]["windows"].as_array().unwrap();
    let lineages: Vec<&str> = windows.iter().map(|window| window["lineage"].as_str().unwrap()).collect();
    let (new, old) = (lineages[0], lineages[1]);
    assert_ne!(new, old, "{windows:#?}");

    // A backup lies in its own lineage. A position is the newest one's, unless told.
    let restored = |words: &[&str]| {
        let mut cluster = Cluster::around(major, &Options::new(), |data| {
            let fixed = ["restore", "bank", "--to", data.to_str().unwrap()];
            world.run(&[&fixed[..], words].concat()).ends(0);
        });
        cluster.begin();
        cluster.query("select string_agg(id::text, ',' order by id) from t")
    };
    assert_eq!(restored(&["--lsn", &lost, "--lineage", &old[..8]]), "1,2,3");
    let first = plan(&world, &["--backup", "1"]);
    assert!(first["notes"].to_string().contains("was set back"), "{first:#}");
    let refused = world
        .run(&[
            "restore",
            "bank",
            "--lsn",
            &lost,
            "--to",
            "/tmp/lifeboat-never-made",
            "--dry-run",
        ])
        .ends(9);
    assert!(refused.stderr.contains(&old[..8]), "{}", refused.stderr);
    assert_eq!(
        plan(&world, &[])["backup"]["id"],
        plan(&world, &["--backup", "2"])["backup"]["id"]
    );

    // The latest moment is that of the store that has most of it.
    moved(&world.path("lifeboat-backups"), &world.path("away"));
    origin.query("insert into t values (21)");
    world.run(&["follow", "bank", "--once"]);
    moved(&world.path("away"), &world.path("lifeboat-backups"));
    let until = |words: &[&str]| plan(&world, words)["until"].as_str().unwrap().to_owned();
    assert_ne!(until(&["--from", "disk"]), until(&["--from", "other"]));
    assert_eq!(until(&[]), until(&["--from", "other"]));

    damaged_history(&world, &restored);
}

/// A timeline whose history is damaged cannot be restored; all others can, and its number is not taken again.
fn damaged_history(world: &World, restored: &dyn Fn(&[&str]) -> String) {
    world.write("00000002.history", "1\t0/7000000\tpromoted\n");
    let history = world.shown("00000002.history");
    world.run(&["wal", "push", "bank", &history]).ends(0);
    for store in ["lifeboat-backups", "other"] {
        let files = stored_files(world, store, "/history/00000002-");
        assert_eq!(files.len(), 1, "{store}: {files:?}");
        let mut bytes = std::fs::read(&files[0]).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&files[0], bytes).unwrap();
    }
    let points = world.run(&["points", "bank"]).ends(0);
    assert!(points.stderr.contains("nothing on timeline 2"), "{}", points.stderr);
    assert!(points.stdout.contains("any from"), "{}", points.stdout);
    let latest = world
        .run(&["restore", "bank", "--to", "/tmp/lifeboat-never-made", "--dry-run"])
        .ends(9);
    assert!(latest.stderr.contains("the history of timeline 2"), "{}", latest.stderr);
    assert_eq!(restored(&["--backup", "2"]), "1,20");
}
