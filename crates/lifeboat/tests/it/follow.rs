//! `follow` and `wal push` as the server and its keeper run them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

/// A configuration with a cluster beside the database.
fn with_cluster(cluster: &Cluster) -> World {
    let world = World::with_database();
    world
        .run(&["init", "--path", "shop.db", "--system", "shop", "--yes", "--no-backup"])
        .ends(0);
    let (host, port) = (cluster.socket_dir(), cluster.port());
    let component = format!(
        "    components:\n      pg:\n        postgres: {{ host: {}, port: {port}, user: postgres, database: postgres }}\n        backup: {{ to: [disk], encrypt: main }}\n",
        host.display()
    );
    world.edit_config("    components:\n", &component);
    world
}

#[test]
fn follow_ends_when_it_is_told_to_and_status_says_how_far_it_is() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let world = with_cluster(&cluster);
    let ran = world.run(&["follow", "--once", "--json"]).ends(0);
    let document = ran.json("follow");
    let only = &document["components"][0];
    assert_eq!((&only["component"], &only["timeline"]), (&"shop/pg".into(), &1.into()));
    assert!(
        ran.stderr.contains("made the replication slot lifeboat_shop_pg"),
        "{}",
        ran.stderr
    );
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 0)] {
        let mut child = world
            .command()
            .args(["follow", "shop/pg"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("following from")));
        let end =
            cluster.query("create table if not exists t (i int); insert into t values (1); select pg_current_wal_flush_lsn()");
        cluster.wait_until(&format!("select bool_or(flush_lsn >= '{end}') from pg_stat_replication"));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("shop/pg: the log is stored up to "), "{said}");
    }
    let status = world.run(&["status", "shop/pg"]);
    assert!(status.stdout.contains("log         stored up to 0/"), "{}", status.stdout);
    // A database has no log that can be followed.
    world.run(&["follow", "shop/db"]).ends(2);
}

#[test]
fn what_archive_command_gives_is_stored() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let world = with_cluster(&cluster);
    let name = cluster.query("create table t (i int); select pg_walfile_name(pg_switch_wal())");
    let path = cluster.data_dir().join("pg_wal").join(name);
    let path = path.to_str().unwrap();
    world.run(&["wal", "push", "shop/pg", path]).ends(0);
    world.run(&["wal", "push", "shop", path]).ends(0);
    // Only 0 and 1, whatever is wrong.
    world
        .run(&["wal", "push", "shop/pg", "/nowhere/000000010000000000000001"])
        .ends(1);
    world.run(&["wal", "push", "nobody", path]).ends(1);
    world.run(&["wal", "push", "shop/db", path]).ends(1);
}
