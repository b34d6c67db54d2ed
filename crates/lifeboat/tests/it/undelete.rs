//! Rows that an application marked as deleted come back: those that are meant, all of them or none, and back again.

use std::path::PathBuf;
use std::process::Child;

use lifeboat_testkit::postgres::{Cluster, Options, majors};
use serde_json::{Value, json};

use crate::logical::world;
use crate::world::{Ran, World};

const HOTEL: &str = "
    create schema app; set search_path = app;
    create table rooms(tenant uuid, number text, name text, deleted_at timestamptz, deleted_by text, touched int default 0, primary key (tenant, number));
    create table guests(id bigint primary key, tenant uuid, name text, deleted_at timestamptz(0), blob bytea);
    create table nights(id int, day date, deleted_at timestamptz, primary key (id, day)) partition by range (day);
    create table nights_26 partition of nights for values from ('2026-01-01') to ('2027-01-01');
    create unique index living on guests(name) where deleted_at is null;
    create table log(what text);
    create function touch() returns trigger language plpgsql as
      $$ begin new.touched := old.touched + 1; insert into log values (current_setting('TimeZone')); return new; end $$;
    create trigger touch before update on rooms for each row execute function touch();
    create table keyless(a int, deleted_at timestamptz); create table plain(id int primary key);
    create table local_time(id int primary key, deleted_at timestamp); create table flagged(id int primary key, deleted_at bool);
    create view all_rooms as select * from rooms;
    insert into rooms select md5((n % 2)::text)::uuid, 'r' || n, 'room ' || n,
        case when n <= 4 then timestamptz '2026-01-10 12:00Z' when n <= 12 then timestamptz '2026-03-01 14:30Z' + n * interval '1 s' end,
        case when n <= 12 then 'somebody ' || n end from generate_series(1, 20) n;
    insert into guests select n, md5((n % 2)::text)::uuid, 'guest ' || n, case when n <= 6 then timestamptz '2026-03-01 14:31Z' end, '\\x00ff' from generate_series(1, 10) n;
    insert into nights select n, date '2026-03-01' + n, case when n = 2 then timestamptz '2026-03-01 14:32Z' end from generate_series(1, 3) n;
    insert into local_time values (1, '2026-03-01 14:32');
";

fn hotel(major: u32) -> (Cluster, World) {
    let cluster = Cluster::start(major, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in("hotel", HOTEL);
    cluster.query("alter database hotel set search_path = app, public; alter database hotel set timezone = 'Asia/Tokyo'");
    let world = world(&cluster, ", soft_delete: { column: deleted_at, also: [deleted_by] }");
    (cluster, world)
}

fn undelete(world: &World, tables: &str, more: &[&str]) -> Ran {
    let args = ["undelete", "hotel", "--tables", tables, "--after", "2026-03-01T14:00:00Z"];
    world.run(&[&args[..], more].concat())
}

fn state(cluster: &Cluster) -> String {
    cluster.query_in(
        "hotel",
        "select (select md5(string_agg(r::text, ',' order by number)) from (select tenant, number, name, deleted_at, deleted_by from rooms) r), \
           (select md5(string_agg(g::text, ',' order by id)) from guests g), (select md5(string_agg(n::text, ',' order by id)) from nights n)",
    )
}

fn living(cluster: &Cluster) -> String {
    let count = |table: &str| format!("(select count(*) from {table} where deleted_at is null)");
    cluster.query_in(
        "hotel",
        &format!("select {}, {}, {}", count("rooms"), count("guests"), count("nights")),
    )
}

fn records(world: &World) -> Vec<PathBuf> {
    match std::fs::read_dir(world.state_dir().join("undeletes")) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    }
}

fn id_of(ran: &Ran) -> String {
    ran.stdout.split("undelete --undo ").nth(1).unwrap().trim().to_owned()
}

#[test]
fn rows_in_scope_come_back_and_go_again_exactly_as_they_were() {
    for major in majors() {
        let (cluster, world) = hotel(major);
        world.run(&["config", "check"]).ends(0);
        let before = state(&cluster);
        assert_eq!(living(&cluster), "8|4|2");
        let tenant = cluster.query("select 'tenant=' || md5('0')::uuid");
        let scope = ["--until", "2026-03-01T14:31:00+00:00", "--where", &tenant];
        // Looked at: nothing happens.
        let plan = undelete(&world, "rooms,app.guests", &[&scope[..], &["--dry-run", "--json"]].concat());
        let plan = plan.ends(0).json("undelete-plan");
        assert_eq!(plan["rows"], 7, "{plan:#}");
        let [guests, rooms] = plan["tables"].as_array().unwrap().as_slice() else {
            panic!("{plan:#}");
        };
        assert_eq!((&guests["rows"], &guests["keys"][0][0]), (&Value::from(3), &Value::from("2")));
        assert_eq!((&rooms["rows"], &rooms["keys"][0][1]), (&Value::from(4), &Value::from("r10")));
        assert_eq!(rooms["columns"], json!(["deleted_at", "deleted_by"]));
        assert_eq!(rooms["triggers"], json!(["touch"]));
        // Nobody can be asked.
        let asked = undelete(&world, "rooms,app.guests", &scope).ends(6);
        assert!(asked.stderr.contains("triggers fire as always: touch"), "{}", asked.stderr);
        let goes_on = asked.proceeds_with();
        assert!(goes_on.ends_with("--yes") && goes_on.contains(&tenant), "{goes_on}");
        assert_eq!((state(&cluster), records(&world).len()), (before.clone(), 0));
        // Done: this tenant, this time, and nobody else.
        let words: Vec<&str> = goes_on.split_whitespace().skip(1).collect();
        let done = world.run(&words).ends(0);
        assert_eq!(living(&cluster), "12|7|2");
        let others =
            "select count(*) from rooms where tenant = md5('1')::uuid and deleted_by is not null and deleted_at is not null";
        assert_eq!(cluster.query_in("hotel", others), "6");
        let old = "select count(*) from rooms where deleted_at = '2026-01-10 12:00Z'";
        assert_eq!(cluster.query_in("hotel", old), "4", "a deletion that was meant stays");
        let back = "select count(*) from rooms where deleted_at is null and deleted_by is null and touched = 1";
        assert_eq!(cluster.query_in("hotel", back), "4");
        assert_eq!(
            cluster.query_in("hotel", "select count(*) from log where what = 'Asia/Tokyo'"),
            "4"
        );
        // Again: there is nothing.
        let none = undelete(&world, "rooms,app.guests", &scope).ends(0);
        assert!(none.stdout.contains("0 rows would come back"), "{}", none.stdout);
        taken_back(&cluster, &world, &id_of(&done), &before);
        // Partitions, where not every table has all columns.
        let done = undelete(&world, "nights,rooms", &["--yes"]).ends(0);
        assert_eq!(living(&cluster), "16|4|3");
        world.run(&["undelete", "--undo", &id_of(&done)]).ends(0);
        assert_eq!(state(&cluster), before, "{major}");
    }
}

/// One of the rows was changed since they came back, and one is gone: both are left alone.
fn taken_back(cluster: &Cluster, world: &World, id: &str, before: &str) {
    cluster.query_in(
        "hotel",
        "update guests set name = 'again' where id = 4; delete from rooms where number = 'r8'",
    );
    let undone = world.run(&["undelete", "--undo", id, "--json"]).ends(3);
    let undone = undone.json("undelete-undo");
    assert_eq!(undone["put_back"], 5, "{undone:#}");
    assert_eq!(
        (&undone["left"][0]["keys"], &undone["left"][1]["keys"][0][1]),
        (&json!([["4"]]), &Value::from("r8"))
    );
    assert_eq!(
        cluster.query_in("hotel", "select name, deleted_at is null from guests where id = 4"),
        "again|t"
    );
    cluster.query_in(
        "hotel",
        "update guests set name = 'guest 4', deleted_at = '2026-03-01 14:31Z' where id = 4;
         insert into rooms values (md5('0')::uuid, 'r8', 'room 8', timestamptz '2026-03-01 14:30Z' + 8 * interval '1 s', 'somebody 8')",
    );
    assert_eq!(state(cluster), before);
    let twice = world.run(&["undelete", "--undo", id]).ends(6);
    assert!(twice.stderr.contains("was taken back"), "{}", twice.stderr);
}

#[test]
fn a_value_is_a_value_whatever_it_says() {
    let (cluster, world) = hotel(15);
    cluster.query_in(
        "hotel",
        "create table \"we\"\"ird; drop table plain\"(\"k\"\"; --\" text primary key, \"x'y\" text, deleted_at timestamptz, deleted_by text);
         insert into \"we\"\"ird; drop table plain\" values ('a''b\"; --', 'v''); drop table plain; --', '2026-03-02Z', 'x'), ('c', 'v', '2026-03-02Z', 'x')",
    );
    let before = state(&cluster);
    for value in ["name=' or true --", "name=room 5'; drop table app.plain; --", "name=$1"] {
        let none = undelete(&world, "rooms", &["--where", value, "--yes"]).ends(0);
        assert!(none.stdout.contains("0 rows"), "{}", none.stdout);
    }
    let wrong = undelete(&world, "rooms", &["--where", "tenant=x' or 'a'='a", "--yes"]).ends(1);
    assert!(
        wrong.stderr.contains("invalid input syntax for type uuid"),
        "{}",
        wrong.stderr
    );
    let wrong = undelete(&world, "rooms", &["--where", "name or tenant=1", "--yes"]).ends(2);
    assert!(wrong.stderr.contains("has no column"), "{}", wrong.stderr);
    assert_eq!(state(&cluster), before);
    let args = ["--where", "x'y=v'); drop table plain; --", "--yes"];
    let done = undelete(&world, "we\"ird; drop table plain", &args).ends(0);
    let found = "select string_agg(\"k\"\"; --\", ',') from \"we\"\"ird; drop table plain\" where deleted_at is null";
    assert_eq!(cluster.query_in("hotel", found), "a'b\"; --");
    world.run(&["undelete", "--undo", &id_of(&done)]).ends(0);
    assert_eq!(cluster.query_in("hotel", found), "");
    assert_eq!(cluster.query_in("hotel", "select count(*) from plain"), "0");
}

#[test]
fn what_could_not_be_taken_back_or_is_not_clear_is_refused() {
    let (cluster, world) = hotel(16);
    let before = state(&cluster);
    for (tables, more, code, words) in [
        ("all_rooms", &[][..], 6, "is a view"),
        ("keyless", &[], 6, "no primary key"),
        ("plain", &[], 6, "has no column deleted_at"),
        ("flagged", &[], 6, "of the type boolean"),
        ("local_time", &[], 6, "has no zone"),
        ("nowhere", &[], 2, "there is no table nowhere"),
        ("rooms,nights", &["--where", "tenant=x"], 2, "has no column tenant"),
        ("guests", &[], 2, "none of the tables has the column deleted_by"),
        ("rooms", &["--until", "2026-03-02"], 2, "zone"),
        ("rooms", &["--until", "2026-03-01T13:00:00Z"], 2, "not later than --after"),
        ("rooms", &["--where", "name"], 2, "--where is a column"),
    ] {
        let ran = undelete(&world, tables, &[more, &["--yes"]].concat()).ends(code);
        assert!(ran.stderr.contains(words), "{tables}: {}", ran.stderr);
    }
    world.run(&["undelete", "--undo", "../../lifeboat"]).ends(1);
    world.run(&["undelete", "hotel", "--tables", "rooms"]).ends(2);
    // A living row has taken the name.
    world.edit_config(", also: [deleted_by]", ", zone: UTC");
    cluster.query_in("hotel", "insert into guests values (99, null, 'guest 3')");
    let taken = undelete(&world, "guests", &["--yes"]).ends(6);
    assert!(taken.stderr.contains("a living row has the place"), "{}", taken.stderr);
    cluster.query_in("hotel", "delete from guests where id = 99");
    // A trigger that keeps rows as they are.
    cluster.query_in(
        "hotel",
        "create function keep() returns trigger language plpgsql as $$ begin if old.id = 3 then return null; end if; return new; end $$;
         create trigger keep before update on guests for each row execute function keep()",
    );
    let kept = undelete(&world, "guests,rooms", &["--yes"]).ends(6);
    assert!(kept.stderr.contains("kept 1 of 6 rows as they were"), "{}", kept.stderr);
    assert_eq!((state(&cluster), records(&world).len()), (before, 0));
    undelete(&world, "local_time", &["--yes"]).ends(0);
    assert_eq!(
        cluster.query_in("hotel", "select count(*) from local_time where deleted_at is null"),
        "1"
    );
}

/// Waits until a query answers with 1, but not for ever.
fn until(cluster: &Cluster, sql: &str) {
    let begun = std::time::Instant::now();
    while cluster.query(sql) != "1" {
        assert!(begun.elapsed().as_secs() < 60, "it never came to {sql}");
        std::thread::yield_now();
    }
}

/// A session that does this, and then holds what it has until [`let_go`].
fn hold(cluster: &Cluster, sql: &str) -> Child {
    let sql = format!("{sql}; select pg_advisory_lock(7), pg_sleep(600)");
    let holder = cluster.spawn("psql", &["-XAtq", "-d", "hotel", "-c", &sql]);
    until(
        cluster,
        "select count(*) from pg_locks where locktype = 'advisory' and granted",
    );
    holder
}

fn let_go(cluster: &Cluster, mut holder: Child) {
    cluster.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()",
    );
    assert!(!holder.wait().unwrap().success());
}

#[test]
fn a_row_that_changed_since_it_was_shown_stops_everything() {
    let (cluster, world) = hotel(18);
    for change in [
        "update rooms set name = 'changed' where number = 'r6'",
        "update rooms set deleted_at = null where number = 'r7'",
        "delete from rooms where number = 'r9'",
    ] {
        let gate = hold(&cluster, "select 1");
        let sql = format!("begin; {change}; select pg_advisory_lock(7); commit");
        let mut other = cluster.spawn("psql", &["-XAtq", "-d", "hotel", "-c", &sql]);
        until(
            &cluster,
            "select count(*) from pg_stat_activity where wait_event = 'advisory'",
        );
        // It has seen the row as it was, and waits for whoever holds it.
        let ran = std::thread::scope(|scope| {
            let running = scope.spawn(|| undelete(&world, "rooms,guests", &["--yes"]));
            until(
                &cluster,
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%FOR UPDATE%'",
            );
            let_go(&cluster, gate);
            running.join().unwrap()
        });
        assert!(other.wait().unwrap().success());
        let ran = ran.ends(6);
        assert!(
            ran.stderr.contains("changed since they were looked at") && ran.stderr.contains("look again"),
            "{}",
            ran.stderr
        );
        assert_eq!(
            cluster.query_in("hotel", "select count(*) from guests where deleted_at is null"),
            "4"
        );
        assert!(records(&world).is_empty());
    }
    // Somebody who does not let go is not waited for without end.
    let gate = hold(&cluster, "begin; lock table rooms");
    let locked = undelete(&world, "rooms", &["--yes"]).ends(11);
    assert!(locked.stderr.contains("lock timeout"), "{}", locked.stderr);
    let_go(&cluster, gate);
    undelete(&world, "rooms,guests", &["--yes"]).ends(0);
}

#[test]
fn a_change_that_did_not_last_leaves_nothing_to_take_back() {
    let (cluster, world) = hotel(15);
    let before = state(&cluster);
    // It strikes when the transaction ends, after everything was looked at.
    cluster.query_in(
        "hotel",
        "create function die() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
         create constraint trigger die after update on rooms deferrable initially deferred for each row execute function die()",
    );
    let broken = undelete(&world, "rooms", &["--yes"]);
    assert_ne!(broken.code, 0, "{}", broken.stdout);
    assert_eq!((state(&cluster), records(&world).len()), (before.clone(), 0));
    cluster.query_in("hotel", "drop trigger die on rooms");
    // Written down, and then not committed: what a crash between the two leaves.
    let done = undelete(&world, "rooms", &["--yes"]).ends(0);
    let id = id_of(&done);
    cluster.query_in(
        "hotel",
        "update rooms set deleted_at = timestamptz '2026-03-01 14:30Z' + substr(number, 2)::int * interval '1 s', deleted_by = 'somebody ' || substr(number, 2) where touched = 1",
    );
    assert_eq!(state(&cluster), before);
    let undone = world.run(&["undelete", "--undo", &id]).ends(3);
    assert!(undone.stdout.contains("0 rows in the database hotel"), "{}", undone.stdout);
    assert_eq!(state(&cluster), before);
}

#[test]
fn where_the_commit_is_not_answered_the_record_is_right_all_the_same() {
    let (cluster, world) = hotel(16);
    let before = state(&cluster);
    // The server has committed, waits for a follower that is not there, and dies on it.
    cluster.query("alter system set synchronous_standby_names = 'nobody'");
    cluster.query("select pg_reload_conf()");
    let ran = std::thread::scope(|scope| {
        let running = scope.spawn(|| undelete(&world, "rooms", &["--yes"]));
        until(&cluster, "select count(*) from pg_stat_activity where wait_event = 'SyncRep'");
        cluster.query("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'");
        running.join().unwrap()
    });
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    assert!(ran.stderr.contains("did not say whether it was done"), "{}", ran.stderr);
    cluster.query("alter system reset synchronous_standby_names");
    cluster.query("select pg_reload_conf()");
    assert_eq!(living(&cluster), "16|4|2");
    let id = ran
        .stderr
        .split("undelete --undo ")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    world.run(&["undelete", "--undo", id]).ends(0);
    assert_eq!(state(&cluster), before);
}
