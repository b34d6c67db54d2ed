//! The recovery window of a followed cluster through the binary: what prunes keep of it, what status says, and who opens its log.

use std::time::{Duration, SystemTime};

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use serde_json::Value;

use crate::world::World;

/// A world whose system `bank` is this cluster, with a window of an hour.
fn world(cluster: &Cluster) -> World {
    let world = World::protected();
    let entry = format!(
        "retention:\n  bank: {{ keep: {{ last: 1, window: 1h }}, never_below: 1, after_backup: false }}\nsystems:\n  bank:\n    components:\n      db:\n        postgres: {{ url: \"{}\", binaries: [{}] }}\n        objectives: {{ rpo: 5m, rto: 1h }}\n        backup: {{ to: [disk], encrypt: main, retention: bank }}\n",
        cluster.url("postgres", "postgres"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    world
}

/// Three days pass in the store, as the times of its files tell.
fn three_days_pass(world: &World, store: &str) {
    age(world, store, true);
}

/// Three days pass for everything that may be deleted then; not for the log, whose age would contradict what its backups say of their moments.
fn three_days_pass_but_for_the_log(world: &World, store: &str) {
    age(world, store, false);
}

fn age(world: &World, store: &str, with_log: bool) {
    let mut pending = vec![world.path(store)];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if with_log || path.file_name().is_some_and(|name| name != "log") {
                    pending.push(path);
                }
                continue;
            }
            let mut permissions = std::fs::metadata(&path).unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
            std::fs::set_permissions(&path, permissions).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let then: SystemTime = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(3 * 24 * 3600);
            file.set_modified(then).unwrap();
        }
    }
}

fn commit(cluster: &Cluster, word: &str) -> String {
    cluster.query(&format!("insert into t values ('{word}')"));
    // In front of the next commit by more than a clock's grain.
    let at = cluster.query("select pg_sleep(0.05); select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'); select pg_sleep(0.05)");
    at.trim().to_owned()
}

/// What a restore brings.
fn rows(world: &World, cluster: &Cluster, words: &[&str]) -> String {
    let mut restored = Cluster::around(cluster.major(), &Options::new(), |data| {
        let to = data.display().to_string();
        let mut all = vec!["restore", "bank", "--to", &to];
        all.extend(words);
        world.run(&all).ends(0);
    });
    restored.begin();
    restored.query("select string_agg(a, ' ' order by a) from t")
}

fn fates(document: &Value) -> Vec<(u64, bool, String)> {
    let backups = document["components"][0]["backups"].as_array().unwrap();
    let fate = |fate: &Value| {
        let seq = fate["backup"]["seq"].as_u64().unwrap();
        (
            seq,
            fate["stays"].as_bool().unwrap(),
            fate["why"].as_str().unwrap().to_owned(),
        )
    };
    backups.iter().map(fate).collect()
}

/// PG-12: what goes leaves every moment of the window reachable, and with the window goes what only it needed.
#[test]
fn a_window_of_moments_is_kept_and_what_it_does_not_need_goes() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let world = world(&cluster);
    cluster.query("create table t (a text)");
    world.run(&["backup", "bank"]).ends(0);
    commit(&cluster, "1");
    world.run(&["follow", "bank", "--once"]).ends(0);
    world.run(&["backup", "bank"]).ends(0);
    let between = commit(&cluster, "2");
    commit(&cluster, "3");
    world.run(&["follow", "bank", "--once"]).ends(0);
    world.run(&["backup", "bank"]).ends(0);
    commit(&cluster, "4");
    world.run(&["follow", "bank", "--once"]).ends(0);
    three_days_pass_but_for_the_log(&world, "lifeboat-backups");

    let plan = world.run(&["prune", "bank", "--dry-run", "--json"]).ends(0).json("prune");
    let [(3, true, _), (2, false, free), (1, true, needed)] = &fates(&plan)[..] else {
        panic!("{plan:#}");
    };
    assert!(free.contains("no moment of the window"), "{free}");
    assert!(needed.contains("are reached from no earlier one"), "{needed}");
    assert_eq!(plan["components"][0]["window"]["missing"], serde_json::json!([]));
    let said = world.run(&["prune", "bank"]).ends(0).stdout;
    assert!(said.contains("window of 1h: reaches back to"), "{said}");
    three_days_pass_but_for_the_log(&world, "lifeboat-backups");
    world.run(&["prune", "bank"]).ends(0);
    let listed = world.run(&["list", "bank", "--json"]).ends(0).json("list");
    assert_eq!(listed["components"][0]["backups"].as_array().unwrap().len(), 2, "{listed:#}");
    // The moment behind the backup that went is reached from the first.
    assert_eq!(rows(&world, &cluster, &["--at", &between]), "1 2");
    assert_eq!(rows(&world, &cluster, &[]), "1 2 3 4");

    // A shorter window begins with the third; the first goes, and with it the log in front of that.
    world.edit_config("window: 1h", "window: 1s");
    for _ in 0..2 {
        three_days_pass(&world, "lifeboat-backups");
        world.run(&["prune", "bank"]).ends(0);
    }
    let plan = world.run(&["prune", "bank", "--dry-run", "--json"]).ends(0).json("prune");
    let [(3, true, begins)] = &fates(&plan)[..] else {
        panic!("{plan:#}")
    };
    assert!(begins.contains("the window of 1s begins with it"), "{begins}");
    let points = world.run(&["points", "bank", "--json"]).ends(0).json("points");
    assert_eq!(points["components"][0]["windows"].as_array().unwrap().len(), 1, "{points:#}");
    let refused = world.run(&["restore", "bank", "--to", "nowhere", "--at", &between]).ends(9);
    assert!(refused.stderr.contains("cannot be reached"), "{}", refused.stderr);
    assert_eq!(rows(&world, &cluster, &[]), "1 2 3 4");
}

/// What would be lost is what the log in the store does not have; log that is missing counts, and a new backup ends that. A key that was added
/// opens backups and log.
#[test]
fn status_goes_by_the_log_and_a_new_key_opens_it() {
    let cluster = Cluster::start(majors()[1], &Options::new().fresh(&["--wal-segsize=64"]));
    let world = world(&cluster);
    cluster.query("create table t (a text)");
    world.run(&["backup", "bank"]).ends(0);
    let first = commit(&cluster, "1");
    cluster.query("select pg_switch_wal()");
    // What the server says of a moment counts a second later.
    let mut status = serde_json::Value::Null;
    commit(&cluster, "2");
    for round in 0.. {
        cluster.query("select pg_logical_emit_message(true, 'test', 'more')");
        world.run(&["follow", "bank", "--once"]).ends(0);
        status = world.run(&["status", "bank", "--json"]).json("status");
        if status["components"][0]["reach"]["until"].as_str().unwrap() > first.as_str() {
            break;
        }
        assert!(round < 100, "{status:#}");
    }
    let reach = &status["components"][0]["reach"];
    assert_eq!(reach["missing"], serde_json::json!([]));
    assert!(status["components"][0]["loss_s"].as_f64().unwrap() < 60.0, "{status:#}");
    let said = world.run(&["status", "bank"]).stdout;
    assert!(said.contains("any moment until"), "{said}");

    // The new key alone opens what was written before it was added.
    let new = world.run(&["key", "new", "new.txt", "--json"]).ends(0).json("key-new")["public_key"]
        .as_str()
        .unwrap()
        .to_owned();
    world.run(&["key", "add", &new, "bank"]).ends(0);
    let old = std::fs::read(world.key()).unwrap();
    std::fs::copy(world.path("new.txt"), world.key()).unwrap();
    assert_eq!(rows(&world, &cluster, &[]), "1 2");

    // Log is gone for good.
    let slot = cluster.query("select slot_name from pg_replication_slots");
    cluster.query(&format!("select pg_drop_replication_slot('{slot}')"));
    for _ in 0..3 {
        commit(&cluster, "3");
        cluster.query("select pg_switch_wal(); checkpoint");
    }
    cluster.query("checkpoint");
    world.run(&["follow", "bank", "--once"]).ends(3);
    let status = world.run(&["status", "bank"]);
    assert!(
        status.stdout.contains("log is missing behind the newest backup"),
        "{}",
        status.stdout
    );
    world.run(&["backup", "bank"]).ends(0);
    let status = world.run(&["status", "bank"]);
    assert!(!status.stdout.contains("is missing"), "{}", status.stdout);
    let plan = world.run(&["prune", "bank", "--dry-run"]).ends(0).stdout;
    assert!(plan.contains("log is missing"), "{plan}");
    // The configuration does not name the new key: what is written from now on is for the old one.
    std::fs::write(world.key(), old).unwrap();
    assert_eq!(rows(&world, &cluster, &[]), "1 2 3 3 3");
}
