//! PostgreSQL clusters through the command line: from a live server to a restored one that starts.

use lifeboat_testkit::postgres::{Cluster, Options, majors};

use crate::world::World;

/// A world whose system `bank` is this cluster.
fn world(cluster: &Cluster) -> World {
    let world = World::protected();
    let entry = format!(
        "systems:\n  bank:\n    components:\n      db:\n        postgres: {{ url: \"{}\", binaries: [{}] }}\n        objectives: {{ rpo: 1h, rto: 1h }}\n        backup: {{ to: [disk] }}\n",
        cluster.url("postgres", "postgres"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    world
}

/// A cluster with a table in its own tablespace.
fn cluster(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    let space = cluster.make_folder("space");
    cluster.query(&format!("create tablespace elsewhere location '{}'", space.display()));
    cluster.query("create table accounts (id int primary key, note text) tablespace elsewhere");
    cluster.query("insert into accounts select i, 'first' from generate_series(1, 1000) i");
    cluster
}

fn count(cluster: &Cluster) -> String {
    cluster.query("select note, count(*) from accounts group by note order by note")
}

#[test]
fn a_cluster_comes_back_to_the_moment_of_a_backup_and_starts() {
    for major in majors() {
        let origin = cluster(major);
        // As if it archived since its last start.
        origin.query("alter system set archive_mode = on");
        origin.query("alter system set primary_conninfo = 'host=elsewhere.invalid'");
        let world = world(&origin);
        world.run(&["config", "check"]).ends(0);
        world.run(&["backup", "bank"]).ends(0);
        origin.query("insert into accounts select i, 'second' from generate_series(1001, 1500) i");
        world.run(&["backup", "bank"]).ends(0);
        origin.query("insert into accounts select i, 'third' from generate_series(2001, 2100) i");
        for (wanted, rows) in [("1", "first|1000"), ("2", "first|1000\nsecond|500")] {
            let mut said = None;
            let mut restored = Cluster::around(major, &Options::new(), |data| {
                let to = data.display().to_string();
                let plan = world
                    .run(&["restore", "bank", "--backup", wanted, "--to", &to, "--dry-run"])
                    .ends(0);
                assert!(plan.stdout.contains("tablespace: "), "{}", plan.stdout);
                said = Some(world.run(&["restore", "bank", "--backup", wanted, "--to", &to]).ends(0));
            });
            restored.begin();
            // Its log is its own: in the origin's archive it would stand among the origin's.
            assert_eq!(restored.query("show archive_mode"), "off");
            assert_eq!(restored.query("show primary_conninfo"), "");
            assert_eq!(count(&restored), rows, "{major} backup {wanted}");
            assert_eq!(
                restored.system_identifier(),
                origin.system_identifier(),
                "it is the same cluster, on a timeline of its own"
            );
            let said = said.unwrap();
            assert!(said.stdout.contains("ready to be started"), "{}", said.stdout);
        }
        // Without a target: the end of what is held.
        let latest = Cluster::around(major, &Options::new(), |data| {
            let to = data.display().to_string();
            let done = world.run(&["restore", "bank", "--to", &to, "--json"]).ends(0).json("restore");
            let done = &done["components"][0];
            assert_eq!(done["until"], done["reached"], "{done:#}");
            // What is there already is never written onto.
            let again = world.run(&["restore", "bank", "--to", &to]).ends(6);
            assert!(again.stderr.contains("something is there already"), "{}", again.stderr);
        });
        let mut latest = latest;
        latest.begin();
        assert_eq!(count(&latest), "first|1000\nsecond|500", "{major}");
        // The proof leaves nothing behind.
        world.run(&["verify", "bank", "--level", "restore"]).ends(0);
        assert_eq!(origin.query("select count(*) from pg_replication_slots"), "0");
    }
}

#[test]
fn a_cluster_comes_back_on_a_machine_that_has_nothing_but_store_and_key() {
    let major = majors()[0];
    let origin = cluster(major);
    let lost = world(&origin);
    lost.run(&["backup", "bank"]).ends(0);
    drop(origin);
    let bare = crate::kit::bare(&lost);
    let told = bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(0);
    assert!(told.stdout.contains("bank/db: newest backup of "), "{}", told.stdout);
    let mut restored = Cluster::around(major, &Options::new(), |data| {
        let to = data.display().to_string();
        bare.run(&["restore", "bank", "--to", &to]).ends(0);
    });
    restored.begin();
    assert_eq!(count(&restored), "first|1000");
}
