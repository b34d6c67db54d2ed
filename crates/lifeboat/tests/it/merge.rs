//! Rows of some tables back into the live ones: what is missing, what changed, and on request what is new.

use lifeboat_testkit::postgres::{Cluster, majors};

use crate::logical::{hotel, world};
use crate::world::World;

const NEW: &str = "00000000-0000-0000-0000-000000000001";

/// Nights of both partitions and rooms go, prices change, a tenant comes with a room.
fn disaster(cluster: &Cluster) {
    let sql = format!(
        "delete from app.nights where room % 16 = 0; delete from app.rooms where id % 16 = 0; update app.rooms set price = 0 where id < 10; \
         insert into app.tenants(id, name) values ('{NEW}', 'new'); insert into app.rooms(tenant, number) values ('{NEW}', 'n1')"
    );
    cluster.query_in("hotel", &sql);
}

#[test]
fn rows_that_are_gone_or_changed_come_back_into_the_live_tables_and_others_stay() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        world.run(&["backup", "hotel"]).ends(0);
        let sum = |what: &str| {
            cluster.query_in(
                "hotel",
                &format!("select count(*), md5(string_agg(t::text, ';' order by t::text)) from {what} t"),
            )
        };
        let (rooms, nights, tenants) = (sum("app.rooms"), sum("app.nights"), sum("app.tenants"));
        disaster(&cluster);
        let restore = ["restore", "hotel", "--tables", "app.rooms,nights", "--in-place"];
        let looked = world.run(&[&restore[..], &["--dry-run"]].concat()).ends(0);
        assert!(
            looked.stdout.contains("app.rooms: insert 50, update 9, delete 0") && looked.stdout.contains("update (1)"),
            "{}",
            looked.stdout
        );
        world.run(&restore).ends(6);
        let done = world
            .run(&[&restore[..], &["--yes", "--json"]].concat())
            .ends(0)
            .json("restore");
        assert_eq!(
            sum(&format!("(select * from app.rooms where tenant <> '{NEW}')")),
            rooms,
            "{major}"
        );
        assert_eq!(sum("app.nights"), nights, "{major}");
        assert_eq!(
            cluster.query_in("hotel", &format!("select number from app.rooms where tenant = '{NEW}'")),
            "N1"
        );
        // Sequences went on and not back: the next room has a number of its own.
        cluster.query_in(
            "hotel",
            &format!("insert into app.rooms(tenant, number) values ('{NEW}', 'n2')"),
        );
        as_it_was(&cluster, &world);
        assert_eq!(
            (sum("app.rooms"), sum("app.nights"), sum("app.tenants")),
            (rooms, nights, tenants),
            "{major}"
        );
        and_back(&cluster, &world, &done);
        assert_eq!(
            cluster.query_in("hotel", "select count(*) from pg_namespace where nspname like 'lifeboat%'"),
            "0"
        );
    }
}

/// As it was then, new rows gone; foreign keys are looked at.
fn as_it_was(cluster: &Cluster, world: &World) {
    let exact = [
        "restore",
        "hotel",
        "--backup",
        "1",
        "--tables",
        "app.rooms,nights,tenants",
        "--in-place",
        "--delete",
        "--yes",
    ];
    let refused = world
        .run(&[
            "restore",
            "hotel",
            "--backup",
            "1",
            "--tables",
            "tenants",
            "--in-place",
            "--delete",
            "--yes",
        ])
        .ends(6);
    assert!(
        refused.stderr.contains("foreign keys would lead nowhere: rooms_tenant_fkey"),
        "{}",
        refused.stderr
    );
    world.run(&exact).ends(0);
    assert_eq!(
        cluster.query_in("hotel", &format!("select count(*) from app.rooms where tenant = '{NEW}'")),
        "0"
    );
}

/// Back to what was there before the first of these.
fn and_back(cluster: &Cluster, world: &World, done: &serde_json::Value) {
    let kept = done["components"][0]["kept"]["id"].as_str().unwrap().to_owned();
    world
        .run(&[
            "restore",
            "hotel",
            "--backup",
            &kept,
            "--tables",
            "app.rooms,nights",
            "--in-place",
            "--yes",
        ])
        .ends(6);
    world
        .run(&[
            "restore",
            "hotel",
            "--backup",
            &kept,
            "--tables",
            "nights",
            "--in-place",
            "--delete",
            "--yes",
        ])
        .ends(0);
    assert_eq!(
        cluster.query_in("hotel", "select count(*) from app.nights where room % 16 = 0"),
        "0"
    );
}

#[test]
fn tables_alone_are_an_extract() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel", "--tables", "nothing_like_this"]).ends(2);
    world.run(&["backup", "app", "--tables", "x"]).ends(2);
    world.run(&["backup", "hotel", "--tables", "rooms,app.nights"]).ends(0);
    // However much is typed.
    world
        .run(&["backup", "hotel", "--tables", &vec!["app.rooms"; 60].join(",")])
        .ends(0);
    // Never "latest", never a whole database.
    world.run(&["restore", "hotel", "--to", "copy"]).ends(9);
    world.run(&["restore", "hotel", "--backup", "1", "--to", "copy"]).ends(2);
    world
        .run(&["restore", "hotel", "--backup", "1", "--tables", "nights", "--to", "rescued"])
        .ends(0);
    assert_eq!(
        cluster.query_in("hotel", "select count(*) from rescued.nights"),
        cluster.query_in("hotel", "select count(*) from app.nights")
    );
    let refused = world
        .run(&[
            "restore",
            "hotel",
            "--backup",
            "1",
            "--tables",
            "tenants",
            "--in-place",
            "--yes",
        ])
        .ends(2);
    assert!(refused.stderr.contains("no rows of app.tenants"), "{}", refused.stderr);
    world
        .run(&["restore", "hotel", "--backup", "1", "--delete", "--to", "copy"])
        .ends(2);
    let same = world
        .run(&[
            "restore",
            "hotel",
            "--backup",
            "1",
            "--tables",
            "rooms",
            "--in-place",
            "--yes",
        ])
        .ends(0);
    assert!(same.stdout.contains("nothing to do"), "{}", same.stdout);
}

/// A world in which the cluster is backed up by its files and its log.
pub fn followed(cluster: &Cluster, more: &str) -> World {
    let world = world(cluster, more);
    world.edit_config("method: logical", "method: physical");
    world
}

/// A moment behind everything that was committed.
pub fn moment(cluster: &Cluster) -> String {
    let at = "select pg_sleep(0.05); select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'); select pg_sleep(0.05)";
    cluster.query(at).trim().to_owned()
}

/// The log up to now is stored. A time counts for a position of it with a margin of a second.
pub fn held(cluster: &Cluster, world: &World) {
    cluster.query("select pg_sleep(1.2)");
    cluster.query("select pg_switch_wal()");
    world.run(&["follow", "hotel", "--once"]).ends(0);
}

/// From the files of a cluster and its log: to the second before somebody's mistake.
#[test]
fn rows_come_back_from_a_cluster_as_it_was_at_a_moment() {
    for major in majors() {
        let cluster = hotel(major);
        let world = followed(&cluster, "");
        world.run(&["follow", "hotel", "--once"]).ends(0);
        world.run(&["backup", "hotel"]).ends(0);
        cluster.query_in("hotel", "update app.rooms set price = price + 1 where id < 100");
        let sum = |what: &str| {
            let asked = format!("select count(*), md5(string_agg(t::text, ';' order by t::text)) from {what} t");
            cluster.query_in("hotel", &asked)
        };
        let (rooms, nights) = (sum("app.rooms"), sum("app.nights"));
        let at = moment(&cluster);
        cluster.query_in(
            "hotel",
            "delete from app.nights; delete from app.rooms where id % 2 = 0; update app.rooms set price = 0",
        );
        held(&cluster, &world);
        let restore = ["restore", "hotel", "--tables", "app.rooms,nights", "--in-place", "--at", &at];
        let looked = world.run(&[&restore[..], &["--dry-run"]].concat()).ends(0);
        assert!(
            looked.stdout.contains("app.rooms: insert 400, update 400, delete 0"),
            "{}",
            looked.stdout
        );
        world.run(&[&restore[..], &["--yes"]].concat()).ends(0);
        assert_eq!((sum("app.rooms"), sum("app.nights")), (rooms, nights), "{major}");
        // Nothing of the copy is left.
        let left = std::fs::read_dir(world.state_dir().join("scratch")).unwrap();
        assert_eq!(left.count(), 0, "{major}");
        // Rows of an unlogged table are in no copy of the files: to take it for empty would delete them.
        for (wrong, code) in [("no_such_table", 2), ("nothing", 6), ("hot", 6)] {
            world
                .run(&["restore", "hotel", "--tables", wrong, "--in-place", "--at", &at, "--yes"])
                .ends(code);
        }
    }
}

/// A partition that was dropped since the backup: its rows are missed, and not passed over.
#[test]
fn rows_of_a_partition_that_is_gone_are_not_passed_over() {
    let cluster = hotel(18);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    let nights = "select count(*), md5(string_agg(n::text, ';' order by n::text)) from app.nights n";
    let then = cluster.query_in("hotel", nights);
    cluster.query_in("hotel", "drop table app.nights_2025");
    let restore = ["restore", "hotel", "--tables", "nights", "--in-place", "--yes"];
    let failed = world.run(&restore).ends(1);
    assert!(failed.stderr.contains("no partition of relation"), "{}", failed.stderr);
    cluster.query_in(
        "hotel",
        "create table app.nights_old partition of app.nights for values from ('2025-01-01') to ('2026-01-01')",
    );
    world.run(&restore).ends(0);
    assert_eq!(cluster.query_in("hotel", nights), then);
    // One place is enough.
    world.run(&[&restore[..], &["--to", "rescued"]].concat()).ends(2);
}
