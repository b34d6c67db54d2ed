//! The canary: for data without a time of its own, Lifeboat writes one, and drills measure by it.

use std::process::Stdio;

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::World;

const AT: &str = "select to_char(at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from lifeboat.canary";

/// A cluster without any time in its data, and a canary in its database `quiet`.
fn quiet(major: u32, user: &str, every: &str) -> (Cluster, World) {
    let options = Options::new().hba(&["host all all all trust", "host replication all all trust"]);
    let cluster = Cluster::start(major, &options);
    cluster.query("create role meek login replication in role pg_read_all_data, pg_read_all_settings");
    cluster.query("create database quiet");
    cluster.query_in(
        "quiet",
        "create table words as select 'word ' || i as word from generate_series(1, 100) i",
    );
    let world = World::protected();
    let entry = format!(
        "systems:\n  bank:\n    components:\n      db:\n        postgres: {{ url: \"{}\", binaries: [{}], canary: {every} }}\n        objectives: {{ rpo: 1h, rto: 1h }}\n        backup: {{ to: [disk] }}\n",
        cluster.url(user, "quiet"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    (cluster, world)
}

fn drilled(world: &World) -> Value {
    let ran = world.run(&["drill", "bank", "--json"]);
    assert!([0, 3].contains(&ran.code), "{}", ran.stderr);
    let measures = ran.json("drill")["components"][0]["report"]["measures"].clone();
    assert_eq!(measures["recovery_point_by"], "heartbeat", "{measures:#}");
    measures["recovery_point"].clone()
}

#[test]
fn a_backup_and_what_follows_it_say_how_new_they_are() {
    for major in majors() {
        let (cluster, world) = quiet(major, "postgres", "1m");
        world.run(&["backup", "bank"]).ends(0);
        let first = cluster.query_in("quiet", AT);
        assert_eq!(drilled(&world), *first, "{major}");
        // Nothing else is ever written: what comes later in the log is the next canary.
        world.run(&["follow", "--once"]);
        let second = cluster.query_in("quiet", AT);
        assert!(second > first, "{major}");
        assert_eq!(drilled(&world), *second, "{major}");
        assert_eq!(cluster.query_in("quiet", "select count(*) from lifeboat.canary"), "1");
        if major != majors()[2] {
            continue;
        }
        // By its rows, too.
        world.run(&["backup", "bank", "--method", "logical"]).ends(0);
        let third = cluster.query_in("quiet", AT);
        assert!(third > second, "{major}");
        assert_eq!(drilled(&world), *third, "{major}");
    }
}

#[test]
fn a_tenant_map_leaves_the_canary_out() {
    let (cluster, world) = quiet(majors()[0], "postgres", "1m");
    cluster.query_in("quiet", "create table tenants (id int primary key)");
    world.edit_config(
        "canary: 1m",
        "canary: 1m, tenants: { root: public.tenants.id, map: tenant-map.yaml, database: quiet }",
    );
    world.run(&["backup", "bank"]).ends(0);
    assert_ne!(cluster.query_in("quiet", AT), "");
    let map = world.run(&["tenant-map", "bank"]).ends(0).stdout;
    assert!(map.contains("public.words") && !map.contains("canary"), "{map}");
}

#[test]
fn a_canary_that_cannot_be_written_is_told_and_keeps_nobody_from_a_backup() {
    let (cluster, world) = quiet(majors()[0], "meek", "1m");
    let told = world.run(&["backup", "bank"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    assert!(
        told.stderr.contains("the canary was not written")
            && told.stderr.contains("CREATE SCHEMA lifeboat AUTHORIZATION \"meek\""),
        "{}",
        told.stderr
    );
    // A schema of somebody else that the role may not even look into.
    cluster.query_in("quiet", "create schema lifeboat; create table lifeboat.canary (id boolean)");
    let told = world.run(&["backup", "bank"]).ends(0);
    assert!(
        told.stderr.contains("ALTER SCHEMA lifeboat OWNER TO \"meek\""),
        "{}",
        told.stderr
    );
    cluster.query_in("quiet", "drop schema lifeboat cascade");
    // The statement that it names is enough.
    cluster.query_in("quiet", "create schema lifeboat authorization \"meek\"");
    let told = world.run(&["backup", "bank"]).ends(0);
    assert!(!told.stderr.contains("canary"), "{}", told.stderr);
    assert_eq!(drilled(&world), *cluster.query_in("quiet", AT));
    // Whoever holds the table is not waited for.
    let hold = "begin; lock table lifeboat.canary in exclusive mode; select pg_sleep(600)";
    let mut holder = cluster.spawn("psql", &["-XAtq", "-d", "quiet", "-c", hold]);
    cluster.wait_until("select count(*) > 0 from pg_locks where mode = 'ExclusiveLock' and relation >= 16384");
    let told = world.run(&["backup", "bank"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(told.stderr.contains("the canary was not written"), "{}", told.stderr);
    assert_eq!(told.code, 0, "{}", told.stderr);
}

#[test]
fn a_table_of_somebody_else_is_never_written_into() {
    let (cluster, world) = quiet(majors()[0], "postgres", "1m");
    for sql in [
        "create role app; create schema lifeboat authorization app",
        "create table lifeboat.canary (id boolean primary key default true, at timestamptz not null)",
        "alter table lifeboat.canary owner to app",
        "create function public.take() returns trigger language plpgsql as $$ begin create table public.taken(); return new; end $$",
        "create trigger take before insert on lifeboat.canary for each row execute function public.take()",
    ] {
        cluster.query_in("quiet", sql);
    }
    let told = world.run(&["backup", "bank"]).ends(0);
    assert!(told.stderr.contains("belongs to another role"), "{}", told.stderr);
    assert_eq!(cluster.query_in("quiet", "select to_regclass('public.taken') is null"), "t");
    // Nor where the table is ours and the schema is not, so that its owner can put another in its place.
    cluster.query_in("quiet", "drop table lifeboat.canary");
    let told = world.run(&["backup", "bank"]).ends(0);
    assert!(told.stderr.contains("belongs to another role"), "{}", told.stderr);
    cluster.query_in("quiet", "drop schema lifeboat; create publication everything for all tables");
    let told = world.run(&["backup", "bank"]).ends(0);
    assert!(told.stderr.contains("FOR ALL TABLES"), "{}", told.stderr);
    assert_eq!(
        cluster.query_in("quiet", "select to_regclass('lifeboat.canary') is null"),
        "t"
    );
    // None of these backups has one, which is nothing wrong with them.
    let verified = world.run(&["verify", "bank", "--level", "app"]);
    assert!(
        verified.stdout.contains("before its canary") || verified.stderr.contains("before its canary"),
        "{} {}",
        verified.stdout,
        verified.stderr
    );
    assert_ne!(verified.code, 5, "{}", verified.stderr);
}

#[test]
fn another_cluster_is_refused_before_anything_is_written_into_it() {
    let (first, world) = quiet(majors()[0], "postgres", "1m");
    world.run(&["backup", "bank"]).ends(0);
    world.run(&["follow", "bank", "--once"]);
    // Clusters of one version are copies of each other here.
    let other = Cluster::start(majors()[1], &Options::new());
    other.query("create database quiet");
    world.edit_config(&first.url("postgres", "quiet"), &other.url("postgres", "quiet"));
    let refused = world.run(&["follow", "bank", "--once"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("cluster"),
        "{} {}",
        refused.code,
        refused.stderr
    );
    assert_eq!(other.query_in("quiet", "select to_regnamespace('lifeboat') is null"), "t");
}

#[test]
fn a_follower_writes_it_again_and_again() {
    let (cluster, world) = quiet(majors()[1], "postgres", "1s");
    world.run(&["backup", "bank"]).ends(0);
    let mut command = world.command();
    let mut follower = command.args(["follow", "bank"]).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = vec![cluster.query_in("quiet", AT)];
    while seen.len() < 4 {
        assert!(follower.try_wait().unwrap().is_none(), "it goes on");
        let now = cluster.query_in("quiet", AT);
        if *seen.last().unwrap() != now {
            assert!(now > *seen.last().unwrap());
            seen.push(now);
        }
    }
    let end = cluster.query("select pg_current_wal_flush_lsn()");
    cluster.wait_until(&format!("select bool_or(flush_lsn >= '{end}') from pg_stat_replication"));
    kill_process(Pid::from_child(&follower), Signal::TERM).unwrap();
    assert!(follower.wait().unwrap().success());
    let last = cluster.query_in("quiet", AT);
    let found = drilled(&world);
    let found = found.as_str().unwrap();
    assert!(found >= seen[3].as_str() && found <= last.as_str(), "{found} {seen:?} {last}");
}
