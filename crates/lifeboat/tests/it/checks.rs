//! What the configuration wants of PostgreSQL databases: asked of the live ones, of restored ones, and before a restored one gets its name.

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use serde_json::Value;

use crate::logical::world;
use crate::world::World;

/// Everything that foreign keys can be, all of them right.
const BANK: &str = "
    create schema app; create schema \"odd \"\"s\";
    create table app.tenants(id int primary key, code text unique);
    create table app.rooms(tenant int references app.tenants, number text, primary key (tenant, number));
    create table app.nights(day date, tenant int, number text, foreign key (tenant, number) references app.rooms) partition by range (day);
    create table app.nights_old partition of app.nights for values from ('2020-01-01') to ('2026-01-01');
    create table app.nights_new partition of app.nights for values from ('2026-01-01') to ('2030-01-01');
    create table app.parts(id int, region text, primary key (id, region)) partition by list (region);
    create table app.parts_n partition of app.parts for values in ('n');
    create table app.uses(part int, region text, foreign key (part, region) references app.parts);
    create table app.full_match(tenant int, number text, foreign key (tenant, number) references app.rooms match full);
    create table \"odd \"\"s\".\"t.x\"(\"k y\" int primary key, up int references \"odd \"\"s\".\"t.x\");
    create table app.letters(code text references app.tenants(code));
    create table app.loose(id int primary key, tenant int, room_tenant int, room text);
    insert into app.tenants values (1, 'a'), (2, 'b');
    insert into app.rooms values (1, 'r'), (2, 'r');
    insert into app.nights values ('2025-05-05', 1, 'r'), ('2026-05-05', 2, 'r'), ('2026-05-06', null, 'nobody'), ('2026-05-07', null, null);
    insert into app.parts values (1, 'n'); insert into app.uses values (1, 'n'), (2, null);
    insert into app.full_match values (1, 'r'), (null, null);
    insert into \"odd \"\"s\".\"t.x\" values (1, null), (2, 1);
    insert into app.letters values ('a'), (null);
    insert into app.loose values (1, 1, 1, 'r'), (2, null, null, 'r'), (3, 2, 7, null);
    create table app.sneaked(i int);
    create function app.sneak() returns int language sql as 'insert into app.sneaked values (3) returning i';
";

fn bank(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in("hotel", BANK);
    cluster.query("alter database hotel set search_path = app, public");
    cluster
}

/// The world of that server with these checks.
fn checked(cluster: &Cluster, checks: &str) -> World {
    let world = world(cluster, "");
    let entry = format!("checks:\n{checks}        objectives: {{ rpo: 1d, rto: 1h }}");
    world.edit_config("objectives: { rpo: 1d, rto: 1h }", &entry);
    world
}

const ORPHANS: &str = "          - { foreign_keys: true }
          - { orphans: { table: loose, column: tenant, references: tenants, key: id } }
          - { name: rooms, orphans: { table: app.loose, columns: [room_tenant, room], references: app.rooms, keys: [tenant, number] } }
";

fn outcomes(document: &Value) -> Vec<Value> {
    document["components"][0]["findings"]["checks"].as_array().unwrap().clone()
}

fn evidence(outcome: &Value) -> Vec<&str> {
    let lines = outcome["evidence"].as_array().unwrap();
    lines.iter().map(|line| line.as_str().unwrap()).collect()
}

#[test]
fn references_that_lead_nowhere_are_named_with_their_keys() {
    for major in majors() {
        let cluster = bank(major);
        let world = checked(&cluster, ORPHANS);
        world.run(&["config", "check"]).ends(0);
        let good = world.run(&["check", "hotel"]).ends(0).stdout;
        assert!(
            good.contains("6 foreign keys: every row points at one that is there"),
            "{major}: {good}"
        );
        assert!(good.contains("orphans of loose(tenant) → tenants(id)"), "{good}");
        // What no constraint sees: rows that came in behind its back, and constraints that were never validated.
        cluster.query_in(
            "hotel",
            "set session_replication_role = replica;
             insert into app.nights values ('2025-05-06', 9, 'r'), ('2026-05-06', 9, 'r');
             insert into app.uses values (1, 'x');
             insert into app.full_match values (1, null);
             insert into \"odd \"\"s\".\"t.x\" select i, -i from generate_series(11, 17) i;
             insert into app.letters values ('A');
             insert into app.loose values (4, 3, 1, 'q'), (5, null, 1, 'q');
             reset session_replication_role;
             alter table app.loose add constraint later foreign key (tenant) references app.tenants not valid",
        );
        let document = world.run(&["check", "hotel", "--json"]).ends(5).json("check");
        let found = outcomes(&document);
        let [keys, tenants, rooms] = found.as_slice() else {
            panic!("{document:#}");
        };
        assert_eq!(keys["says"], "6 of 7 foreign keys do not hold: 13 rows", "{document:#}");
        let lines = evidence(keys);
        for line in [
            "nights_tenant_number_fkey: 2 rows of app.nights point at nothing in app.rooms",
            "  tenant = 9, number = r (2 rows)",
            "uses_part_region_fkey: 1 row of app.uses point at nothing in app.parts",
            "  part = 1, region = x (1 row)",
            "full_match_tenant_number_fkey: 1 row of app.full_match point at nothing in app.rooms",
            "  tenant = 1, number = null (1 row)",
            "letters_code_fkey: 1 row of app.letters point at nothing in app.tenants",
            "  code = A (1 row)",
            "later (not validated): 1 row of app.loose point at nothing in app.tenants",
            "  tenant = 3 (1 row)",
        ] {
            assert!(lines.contains(&line), "{major}: {line}: {lines:#?}");
        }
        assert!(lines.iter().any(|line| line.starts_with("t.x_up_fkey: 7 rows")), "{lines:#?}");
        assert_eq!(
            lines.iter().filter(|line| line.starts_with("  up = -1")).count(),
            5,
            "{lines:#?}"
        );
        assert_eq!(tenants["says"], "1 row of loose point at nothing in tenants");
        assert_eq!(evidence(tenants), ["tenant = 3 (1 row)"]);
        assert_eq!(evidence(rooms), ["room_tenant = 1, room = q (2 rows)"]);
    }
}

#[test]
fn a_period_has_to_be_covered_by_all_rows_of_its_key() {
    let cluster = Cluster::start(18, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in(
        "hotel",
        "create table rates(room int4range, during daterange, primary key (room, during without overlaps));
         create table stays(room int4range, during daterange, foreign key (room, period during) references rates(room, period during));
         insert into rates values ('[1,2)', '[2026-01-01,2026-02-01)'), ('[1,2)', '[2026-02-01,2026-03-01)');
         insert into stays values ('[1,2)', '[2026-01-20,2026-02-10)')",
    );
    let world = checked(&cluster, "          - { foreign_keys: true }\n");
    world.run(&["check", "hotel"]).ends(0);
    cluster.query_in(
        "hotel",
        "set session_replication_role = replica; insert into stays values ('[1,2)', '[2026-02-20,2026-03-02)')",
    );
    let bad = world.run(&["check", "hotel"]).ends(5).stdout;
    assert!(bad.contains("during = [2026-02-20,2026-03-02) (1 row)"), "{bad}");
}

#[test]
fn what_cannot_be_asked_or_would_write_does_not_pass() {
    let cluster = bank(15);
    let checks = "          - { name: writes, sql: insert into tenants values (9) returning id, expect: { equals: 9 } }
          - { name: sneaks, sql: select sneak(), expect: { equals: 3 } }
          - { name: two, sql: select 1; drop table tenants, expect: { equals: 1 } }
          - { name: sleeps, sql: select pg_sleep(60), expect: no_rows, timeout: 50ms }
          - { name: missing, sql: select 1 from nowhere, expect: no_rows }
          - { name: no table, orphans: { table: nowhere, column: a, references: tenants, key: id } }
          - { name: no column, orphans: { table: loose, column: nothing, references: tenants, key: id } }
          - { name: hidden, sql: select id from loose where id = 4711, expect: no_rows, database: hotel }
";
    let world = checked(&cluster, checks);
    // Rows that are hidden from whoever asks are not rows that are not there.
    cluster.query_in(
        "hotel",
        "create role clerk login; grant usage on schema app to clerk; grant select on all tables in schema app to clerk;
         alter table app.loose enable row level security; create policy few on app.loose using (false)",
    );
    let bad = world.run(&["check", "hotel", "--json"]).ends(5).json("check");
    let says: Vec<String> = (outcomes(&bad).iter())
        .map(|outcome| format!("{} {}: {}", outcome["name"], outcome["verdict"], outcome["says"]))
        .collect();
    for (name, words) in [
        ("writes", "the query failed"),
        ("sneaks", "read-only transaction"),
        ("two", "the query failed"),
        ("sleeps", "statement timeout"),
        ("missing", "nowhere"),
        ("no table", "there is no table nowhere"),
        ("no column", "nothing"),
    ] {
        let line = says.iter().find(|line| line.starts_with(&format!("\"{name}\""))).unwrap();
        assert!(line.contains("failed") && line.contains(words), "{line}");
    }
    assert!(says[7].contains("passed"), "{says:#?}");
    assert_eq!(
        cluster.query_in(
            "hotel",
            "select (select count(*) from app.tenants), (select count(*) from app.sneaked)"
        ),
        "2|0"
    );
    world.edit_config(&cluster.url("postgres", "postgres"), &cluster.url("clerk", "postgres"));
    let bad = world.run(&["check", "hotel"]).ends(5).stdout;
    assert!(bad.contains("would be affected by row-level security"), "{bad}");
}

fn names(cluster: &Cluster) -> String {
    cluster.query("select string_agg(datname, ', ' order by datname) from pg_database where datname ~ 'hotel|lifeboat'")
}

#[test]
fn a_restored_database_gets_its_name_only_when_its_checks_pass() {
    for major in majors() {
        let cluster = bank(major);
        let checks =
            format!("{ORPHANS}          - {{ name: loose ends, sql: select count(*) from loose, expect: {{ equals: 3 }} }}\n");
        let world = checked(&cluster, &checks);
        world.run(&["backup", "hotel"]).ends(0);
        let restored = world.run(&["restore", "hotel", "--to", "hotel_good"]).ends(0);
        assert!(restored.stdout.contains("3, as expected (3)"), "{}", restored.stdout);
        world.run(&["check", "hotel", "--on", "hotel_good"]).ends(0);
        world.run(&["verify", "hotel", "--level", "app"]).ends(0);
        // The original was wrong when it was captured.
        cluster.query_in("hotel", "insert into loose values (4, 3, 1, 'q')");
        world.run(&["backup", "hotel"]).ends(0);
        let refused = world.run(&["restore", "hotel", "--to", "hotel_bad"]).ends(5);
        assert!(
            refused.stderr.contains("3 of 4 checks failed") && refused.stderr.contains("room_tenant = 1, room = q"),
            "{}",
            refused.stderr
        );
        assert_eq!(names(&cluster), "hotel, hotel_good", "{major}");
        // What is stored is what was captured: nothing about the backup is damaged.
        let status = world.run(&["status", "hotel"]);
        assert!(
            status.stdout.contains("did not pass its checks") && !status.stdout.contains("damaged"),
            "{}",
            status.stdout
        );
        let bad = world.run(&["verify", "hotel", "--level", "app"]).ends(5);
        assert!(bad.stdout.contains("4, expected 3"), "{}", bad.stdout);
        // In an emergency somebody may want it all the same.
        let accepted = world
            .run(&["restore", "hotel", "--to", "hotel_bad", "--accept-findings"])
            .ends(0);
        assert!(accepted.stderr.contains("accepted all the same"), "{}", accepted.stderr);
        world.run(&["check", "hotel", "--on", "hotel_bad"]).ends(5);
        world
            .run(&["check", "hotel", "--on", &cluster.url("postgres", "hotel_good")])
            .ends(0);
        // An earlier one is good.
        world
            .run(&["restore", "hotel", "--backup", "1", "--to", "hotel_again"])
            .ends(0);
    }
}

#[test]
fn without_checks_there_is_nothing_to_say() {
    let cluster = bank(15);
    let world = world(&cluster, "");
    let none = world.run(&["check", "hotel"]).ends(7);
    assert!(none.stderr.contains("has no `checks`"), "{}", none.stderr);
    let world = checked(&cluster, "          - { foreign_keys: true, database: postgres }\n");
    let none = world.run(&["check", "hotel"]);
    assert!(none.stdout.contains("the database has no foreign keys"), "{}", none.stdout);
}
