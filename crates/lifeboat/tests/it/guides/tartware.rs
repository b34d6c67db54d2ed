//! The Tartware guide: a database is damaged, rows are deleted, and a whole installation is lost.

use lifeboat_testkit::postgres::{Cluster, Options};

use super::{Guide, examples};
use crate::world::World;

const BUCKET: super::Bucket = (
    "s3: { bucket: tartware-backups, prefix: tartware/backups, endpoint: \"https://s3.example.com\" }",
    "tartware/backups",
);

const SCHEMA: &str = "
    create table tenants(id uuid primary key, name text not null);
    create table guests(id bigint primary key, tenant_id uuid not null references tenants, name text not null);
    create table reservations(id bigint primary key, tenant_id uuid not null references tenants, guest_id bigint not null references guests,
      arrival date not null, deleted_at timestamptz, deleted_by text);
    insert into tenants select md5(i::text)::uuid, 'Hotel ' || i from generate_series(1, 20) i;
    insert into guests select i, md5((1 + i % 20)::text)::uuid, 'Guest ' || i from generate_series(1, 2000) i;
    insert into reservations select i, md5((1 + i % 20)::text)::uuid, i, date '2026-01-01' + i % 300, null, null from generate_series(1, 2000) i;
    create index on reservations(tenant_id, arrival);
";

pub(super) fn tartware() -> Cluster {
    let cluster = Cluster::start(15, &Options::new());
    cluster.query("create role app login");
    cluster.query("create database tartware owner app");
    cluster.query_in("tartware", SCHEMA);
    cluster.query_in(
        "tartware",
        "grant select, insert, update, delete on all tables in schema public to app",
    );
    cluster
}

/// The guide's machine, and its database.
pub(super) fn guide(cluster: &Cluster) -> Guide {
    let mut guide = Guide::set_up_with("tartware", BUCKET, |world| reach(world, cluster));
    // Wherever these are.
    programs(&mut guide.world, cluster);
    guide
}

fn reach(world: &mut World, cluster: &Cluster) {
    world.set_env("DATABASE_URL", &cluster.url("postgres", "postgres"));
}

fn programs(world: &mut World, cluster: &Cluster) {
    let binaries = format!("databases: [tartware]\n          binaries: [{}]", cluster.bindir().display());
    world.edit_config("databases: [tartware]", &binaries);
}

fn reservations(cluster: &Cluster) -> String {
    cluster.query_in("tartware", "select count(*), sum(guest_id), max(arrival) from reservations")
}

/// Scenario 1: corruption. Restored beside, validated, promoted; the damaged one is kept.
#[test]
fn a_damaged_database_is_restored_beside_validated_and_promoted() {
    let cluster = tartware();
    let guide = guide(&cluster);
    let world = &guide.world;
    // `backup-database.sh full`, `backup-database.sh schema`.
    world.run(&["backup", "tartware"]).ends(0);
    world.run(&["backup", "tartware", "--schema-only"]).ends(0);
    let good = reservations(&cluster);
    // Somebody's migration.
    cluster.query_in("tartware", "delete from reservations where arrival > '2026-06-01'; update guests set name = 'x'; drop index reservations_tenant_id_arrival_idx");
    // What happened: `restore-database.sh list` cannot say.
    let differs = world.run(&["diff", "1", "live", "tartware"]).ends(0);
    assert!(
        differs.stdout.contains("reservations: rows 2000 → ") && differs.stdout.contains("it shrank"),
        "{}",
        differs.stdout
    );
    assert!(
        differs.stdout.contains("guests: rows 2000 → 2000, but other rows"),
        "{}",
        differs.stdout
    );
    world.run(&["list", "tartware"]).ends(0);
    // `restore-database.sh full FILE tartware_recovery new`, `validate tartware_recovery`.
    let restored = world.run(&["restore", "tartware", "--to", "tartware_recovery"]).ends(0);
    assert!(
        restored.stdout.contains("every count and digest is that of the capture"),
        "{}",
        restored.stdout
    );
    let proven = world.run(&["verify", "tartware", "--level", "app", "--backup", "1"]).ends(0);
    assert!(
        proven.stdout.contains("every reservation has a guest") && proven.stdout.contains("there are tenants"),
        "{}",
        proven.stdout
    );
    // Two renames, with the application connected.
    let mut app = cluster.spawn(
        "psql",
        &["-XAtq", "-d", "tartware", "-U", "app", "-c", "select pg_sleep(600)"],
    );
    while cluster.query("select count(*) from pg_stat_activity where usename = 'app' and query like '%pg_sleep%'") != "1" {
        std::thread::yield_now();
    }
    let id = restored
        .stdout
        .split("restore promote ")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    world.run(&["restore", "promote", id, "--yes"]).ends(0);
    assert!(!app.wait().unwrap().success());
    assert_eq!(reservations(&cluster), good);
    let may = "select has_table_privilege('app', 'reservations', 'update'), (select pg_get_userbyid(datdba) from pg_database where datname = 'tartware')";
    assert_eq!(cluster.query_in("tartware", may), "t|app");
    assert_eq!(
        cluster.query_in(
            "tartware",
            "select count(*) from pg_indexes where indexname = 'reservations_tenant_id_arrival_idx'"
        ),
        "1"
    );
    assert_eq!(
        cluster.query("select count(*) from pg_database where datname like 'tartware_replaced_%' and not datallowconn"),
        "1"
    );
}

/// Scenario 2: rows that the application only marked as deleted. The guide's statement would bring back those of all tenants, and those that were meant.
#[test]
fn what_one_tenant_lost_by_mistake_comes_back_and_nothing_else() {
    let cluster = tartware();
    let guide = guide(&cluster);
    let world = &guide.world;
    world.run(&["backup", "tartware"]).ends(0);
    let delete = |by: &str, at: &str, which: &str| {
        cluster.query_in(
            "tartware",
            &format!("update reservations set deleted_at = '{at}', deleted_by = '{by}' where {which} and deleted_at is null"),
        );
    };
    let tenant = "(select md5('7')::uuid)";
    // Guests who cancelled, before and after, there and elsewhere; and in between a clerk of one hotel who marked the wrong list.
    delete("guest", "2026-11-21 08:00Z", "id % 50 = 6");
    delete("guest", "2026-11-21 16:00Z", "id % 50 = 26");
    delete("guest", "2026-11-21 14:06Z", "id % 50 = 3");
    let wanted = reservations_alive(&cluster);
    delete(
        "clerk",
        "2026-11-21 14:07Z",
        &format!("tenant_id = {tenant} and arrival > '2026-06-01'"),
    );
    let lost = cluster.query_in("tartware", "select count(*) from reservations where deleted_by = 'clerk'");
    assert_ne!(lost, "0");
    let id = cluster.query("select md5('7')::uuid");
    let scope = [
        "undelete",
        "tartware",
        "--tables",
        "reservations",
        "--after",
        "2026-11-21T14:05:00Z",
        "--until",
        "2026-11-21T14:10:00Z",
        "--where",
        &format!("tenant_id={id}"),
    ];
    let plan = world.run(&[&scope[..], &["--dry-run"]].concat()).ends(0);
    assert!(plan.stdout.contains(&format!("reservations: {lost} rows")), "{}", plan.stdout);
    let done = world.run(&[&scope[..], &["--yes"]].concat()).ends(0);
    assert_eq!(reservations_alive(&cluster), wanted);
    // Verified: the references of what came back lead somewhere.
    let checked = world.run(&["check", "tartware"]).ends(0);
    assert!(
        checked.stdout.contains("every reservation has a guest") && checked.stdout.contains("foreign keys"),
        "{}",
        checked.stdout
    );
    // The clerk was right after all.
    let undo = done.stdout.split("undelete --undo ").nth(1).unwrap().trim();
    world.run(&["undelete", "--undo", undo]).ends(0);
    let again = "select count(*) from reservations where deleted_by = 'clerk' and deleted_at = '2026-11-21 14:07Z'";
    assert_eq!(cluster.query_in("tartware", again), lost);
}

fn reservations_alive(cluster: &Cluster) -> String {
    cluster.query_in(
        "tartware",
        "select count(*) filter (where deleted_at is null), md5(string_agg(r::text, ',' order by id)) from reservations r",
    )
}

/// Scenario 3: everything is lost but the bucket, the key and the configuration. The database goes to a new server of a newer version.
#[test]
fn a_database_comes_back_from_the_bucket_on_a_new_server() {
    let cluster = tartware();
    let guide = guide(&cluster);
    guide.world.run(&["backup", "tartware"]).ends(0);
    let good = reservations(&cluster);
    drop(cluster);
    let new = Cluster::start(16, &Options::new().fresh(&[]));
    let mut machine = guide.another_machine();
    reach(&mut machine, &new);
    let old = Cluster::start(15, &Options::new());
    // Programs of a newer version read what an older one wrote.
    machine.edit_config(&old.bindir().display().to_string(), &new.bindir().display().to_string());
    let refused = machine
        .run(&["restore", "tartware", "--from", "s3", "--to", "tartware"])
        .ends(7);
    assert!(refused.stderr.contains("roles app"), "{}", refused.stderr);
    new.query("create role app login");
    machine
        .run(&["restore", "tartware", "--from", "s3", "--to", "tartware"])
        .ends(0);
    assert_eq!(reservations(&new), good);
    assert!(examples().join("tartware/lifeboat.yaml").is_file());
}

/// Scenario 4: one hotel reports that its reservations are wrong. Its present state is kept, the backup is looked at, and its rows alone are set right.
#[test]
fn one_hotel_is_set_right_and_the_others_work_on() {
    let cluster = tartware();
    let guide = guide(&cluster);
    let world = &guide.world;
    let map = std::fs::read_to_string(examples().join("tartware/tenant-map.yaml")).unwrap();
    // What the example says is what would be proposed.
    assert_eq!(world.run(&["tenant-map", "tartware"]).ends(0).stdout, map);
    world.write("tenant-map.yaml", &map);
    world.run(&["tenant-map", "tartware", "--check"]).ends(0);
    world.run(&["backup", "tartware"]).ends(0);
    let hotel = cluster.query_in("tartware", "select id from tenants where name = 'Hotel 7'");
    let of = |whose: &str| {
        let asked = format!(
            "select count(*), md5(string_agg(r::text, ';' order by id)) from reservations r where tenant_id {whose} '{hotel}'"
        );
        cluster.query_in("tartware", &asked)
    };
    let good = of("=");
    // An import for one hotel goes wrong, while the others work on.
    cluster.query_in(
        "tartware",
        &format!(
            "update reservations set arrival = arrival + 365 where tenant_id = '{hotel}' and id % 100 = 6; delete from reservations where id in (26, 46); \
             insert into reservations values (9999, '{hotel}', (select min(id) from guests where tenant_id = '{hotel}'), '2030-01-01', null)"
        ),
    );
    cluster.query_in(
        "tartware",
        &format!("update reservations set arrival = arrival + 1 where tenant_id <> '{hotel}' and id < 100"),
    );
    let others = of("<>");
    // `backup-database.sh tenant ID`, which the guide takes before anything else.
    world.run(&["backup", "tartware", "--tenant", &hotel]).ends(0);
    // `pg_restore --list | grep ID` lists no rows; this does, counted, and changes nothing.
    let restore = ["restore", "tartware", "--tenant", &hotel, "--backup", "1"];
    let looked = world.run(&[&restore[..], &["--dry-run"]].concat()).ends(0);
    assert!(
        looked.stdout.contains("public.reservations: insert 2, update 20, delete 1") && looked.stdout.contains("delete (9999)"),
        "{}",
        looked.stdout
    );
    let done = world.run(&[&restore[..], &["--in-place", "--yes"]].concat()).ends(0);
    assert!(done.stdout.contains("rows of everybody else"), "{}", done.stdout);
    assert_eq!(of("="), good);
    assert_eq!(of("<>"), others);
}
