//! A PostgreSQL cluster from `init` to its checks, through the role that `init` makes.

use std::os::unix::fs::PermissionsExt as _;

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use serde_json::Value;

use crate::world::World;

pub const INIT: [&str; 5] = ["init", "--create-role", "--system", "bank", "--yes"];

/// A server that knows passwords, and a database with tables.
pub fn cluster(major: u32) -> Cluster {
    let hba = [
        "host all postgres all trust",
        "host all lifeboat all scram-sha-256",
        "host replication lifeboat all scram-sha-256",
    ];
    let mut options = Options::new().hba(&hba).set("log_replication_commands", "on");
    if major >= 17 {
        options = options.set("summarize_wal", "on");
    }
    let cluster = Cluster::start(major, &options);
    cluster.query("create table heartbeat (at timestamptz); grant select on heartbeat to public");
    cluster.query("insert into heartbeat values ('2026-01-15 14:30:00.25+01'), ('2026-01-15 12:00:00+00')");
    cluster.query("create database shop");
    cluster.query_in("shop", "create table tenants (id int primary key, name text not null)");
    cluster.query_in(
        "shop",
        "insert into tenants select i, 'tenant ' || i from generate_series(1, 500) i",
    );
    cluster
}

/// Set up by `init` without a backup, then edited as a person would: programs and checks.
pub fn set_up(cluster: &Cluster) -> World {
    let world = World::empty();
    let url = cluster.url("postgres", "postgres");
    world
        .run(&["init", "--postgres", &cluster.url("postgres:secret", "postgres"), "--yes"])
        .ends(2);
    let said = world.run(&[&INIT[..], &["--postgres", &url, "--no-backup"]].concat()).ends(0);
    assert!(said.stderr.contains("GRANT EXECUTE ON FUNCTION"), "{}", said.stderr);
    let file = world.path(".lifeboat/lifeboat.password");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let password = std::fs::read_to_string(&file).unwrap();
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    assert!(
        !config.contains(&password) && config.contains("postgresql://lifeboat@127.0.0.1"),
        "{config}"
    );
    assert!(!cluster.log().contains(&password), "the server was told the password itself");
    let role = "select rolsuper, rolreplication, rolcreaterole, rolcreatedb from pg_roles where rolname = 'lifeboat'";
    assert_eq!(cluster.query(role), "f|t|f|f");
    let binaries = format!(
        "          binaries: [{}]\n          heartbeat: select max(at) from heartbeat\n          password:",
        cluster.bindir().display()
    );
    world.edit_config("          password:", &binaries);
    let checks = "        checks:\n          - { name: all tenants, sql: select count(*) from tenants, database: shop, expect: { equals: 500 } }\n          \
                  - { sql: select id from tenants where name = '', database: shop, expect: no_rows }\n        backup:";
    world.edit_config("        backup:", checks);
    world.run(&["config", "check"]).ends(0);
    world
}

fn verdicts(document: &Value) -> Vec<(String, String)> {
    let checks = document["components"][0]["proofs"][0]["findings"]["checks"]
        .as_array()
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| (text(&check["name"]), text(&check["verdict"])))
        .collect()
}

#[test]
fn the_role_of_init_is_enough_for_everything_and_checks_tell_the_truth() {
    for major in majors() {
        let cluster = cluster(major);
        let world = set_up(&cluster);
        let url = cluster.url("postgres", "postgres");
        // It goes on where it stopped: the first backup, from the data directory, and its proof.
        let said = world.run(&[&INIT[..], &["--postgres", &url]].concat()).ends(0);
        assert!(
            said.stderr.contains("read from the data directory (local)"),
            "{major}: {}",
            said.stderr
        );
        assert!(said.stdout.contains("restored and checked"), "{}", said.stdout);
        let document = world.run(&["verify", "--level", "app", "--json"]).ends(0).json("verify");
        let amcheck = if major == 15 { "passed" } else { "not_available" };
        let wanted = [
            ("recovery", "passed"),
            ("page checksums", "passed"),
            ("heartbeat", "passed"),
            ("tables and indexes", amcheck),
            ("rows", "passed"),
            ("all tenants", "passed"),
            ("select id from tenants where name = ''", "passed"),
        ];
        let wanted: Vec<_> = wanted.map(|(name, verdict)| (name.to_owned(), verdict.to_owned())).into();
        assert_eq!(verdicts(&document), wanted, "{major}: {document:#}");
        // From the server, and the log, with the same rights.
        world.edit_config("        postgres:\n", "        postgres:\n          mode: stream\n");
        world.edit_config("backup: { to: [disk]", "backup: { to: [disk], max_rate: 50MiB");
        cluster.query_in("shop", "insert into tenants values (501, '')");
        let streamed = world.run(&["backup"]).ends(0);
        let way = if major >= 17 { "(increment)" } else { "(stream)" };
        assert!(
            streamed.stderr.contains("(stream)") || streamed.stderr.contains(way),
            "{}",
            streamed.stderr
        );
        assert!(cluster.log().contains("MAX_RATE 51200"), "{major}: {}", cluster.log());
        world.run(&["follow", "--once"]).ends(0);
        let doctor = world.run(&["doctor"]).ends(0);
        assert!(!doctor.stdout.contains("lacks a right"), "{}", doctor.stdout);
        if major != 15 {
            continue;
        }
        // What was backed up is not what somebody wants it to be.
        let failed = world.run(&["verify", "--level", "app"]).ends(5);
        assert!(
            failed.stdout.contains("501, expected 500") && failed.stdout.contains("2 checks failed"),
            "{}",
            failed.stdout
        );
        assert!(world.run(&["check", "bank"]).ends(5).stdout.contains("501, expected 500"));
        let status = world.run(&["status"]);
        assert!(status.stdout.contains("did not pass its checks"), "{}", status.stdout);
        world.edit_config("equals: 500", "at_least: 500");
        world.edit_config("name = ''", "name is null");
        world.run(&["verify", "--level", "app"]).ends(0);
        let status = world.run(&["status"]);
        assert!(!status.stdout.contains("did not pass its checks"), "{}", status.stdout);
        heartbeats(&cluster, &world);
    }
}

/// How new the data of a restored cluster is, by its own account; what cannot be told keeps nobody from restoring.
fn heartbeats(cluster: &Cluster, world: &World) {
    let restore = |name: &str| world.run(&["restore", "bank/db", "--to", name, "--yes"]).ends(0).stdout;
    let told = restore("first");
    assert!(
        told.contains("the newest heartbeat in it: 2026-01-15T13:30:00.250000Z"),
        "{told}"
    );
    cluster.query("delete from heartbeat");
    world.run(&["backup"]).ends(0);
    let told = restore("second");
    assert!(told.contains("there is no heartbeat in it"), "{told}");
    world.edit_config("max(at) from heartbeat", "max(at) from pulse");
    let told = restore("third");
    assert!(
        told.contains("could not be asked for: relation \"pulse\" does not exist"),
        "{told}"
    );
}
