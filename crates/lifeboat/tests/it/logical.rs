//! Databases by their definitions and rows: captured, restored beside, compared.

use lifeboat_testkit::postgres::{Cluster, Options, majors};

use crate::recover::{recover, recovered};
use crate::world::World;

/// A world whose system `hotel` is the database `hotel` of this cluster, captured logically.
pub fn world(cluster: &Cluster, more: &str) -> World {
    let world = World::protected();
    let entry = format!(
        "systems:\n  hotel:\n    components:\n      db:\n        postgres: {{ url: \"{}\", method: logical, databases: [hotel], binaries: [{}]{more} }}\n        objectives: {{ rpo: 1d, rto: 1h }}\n        backup: {{ to: [disk] }}\n",
        cluster.url("postgres", "postgres"),
        cluster.bindir().display(),
    );
    world.edit_config("systems:\n", &entry);
    world
}

/// Everything that definitions can be, and rows that text has trouble with.
const HOTEL: &str = r#"
    create role hotel_app; create role hotel_report;
    create extension if not exists plpgsql;
    create schema app authorization hotel_app; create schema "odd ""name"".x/y";
    create type app.mood as enum ('sad', 'ok', 'happy');
    create domain app.short as text check (length(value) < 40);
    create table app.tenants(id uuid primary key default gen_random_uuid(), name app.short not null, mood app.mood);
    create table app.rooms(id int generated always as identity primary key, tenant uuid not null references app.tenants, number text,
        price numeric(10,2), tags text[], gross numeric generated always as (price * 1.2) stored, unique (tenant, number));
    create table app.nights(room int references app.rooms, day date not null, guest jsonb, primary key (room, day)) partition by range (day);
    create table app.nights_2025 partition of app.nights for values from ('2025-01-01') to ('2026-01-01');
    create table app.nights_2026 partition of app.nights for values from ('2026-01-01') to ('2027-01-01');
    create table app.circle_a(id int primary key, b int); create table app.circle_b(id int primary key, a int references app.circle_a deferrable initially deferred);
    alter table app.circle_a add foreign key (b) references app.circle_b deferrable initially deferred;
    create table "odd ""name"".x/y"."a/b.c"("select" bytea, "x y" float8, t timestamptz, i interval);
    create table app.nothing();
    create table app.parent(a int); create table app.child(b int) inherits (app.parent);
    create unlogged table app.hot(a int);
    create sequence app.tickets start 7 increment 5;
    create view app.v as select id, name from app.tenants;
    create materialized view app.m1 as select count(*) as n from app.v; create materialized view app.m2 as select n + 1 as n from app.m1;
    create materialized view app.empty as select 1 with no data;
    create function app.stamp() returns trigger language plpgsql as $$ begin new.number := upper(new.number); return new; end $$;
    create trigger stamp before insert on app.rooms for each row execute function app.stamp();
    create rule keep as on delete to app.hot do instead nothing;
    alter table app.tenants enable row level security; create policy own on app.tenants using (name = current_user);
    create index on app.rooms using gin (tags); create index half on app.rooms(price) where price > 10;
    create index lower on app.tenants (lower(name)); create statistics app.both on number, price from app.rooms;
    comment on table app.rooms is 'it''s; a room';
    grant usage on schema app to hotel_report; grant select on app.rooms to hotel_report; alter table app.rooms owner to hotel_app;
    alter default privileges in schema app grant select on tables to hotel_report;
    insert into app.tenants(id, name, mood) select md5(i::text)::uuid, 'tenant ' || i, (array['sad','ok','happy'])[1 + i % 3]::app.mood from generate_series(1, 40) i;
    insert into app.rooms(tenant, number, price, tags) select id, 'r' || n, n * 3.5, array['a,b', E'c"\\d', null] from app.tenants, generate_series(1, 20) n;
    insert into app.nights select r.id, d::date, jsonb_build_object('name', E'tab\there', 'n', r.id) from app.rooms r, generate_series('2025-12-20'::date, '2026-01-10', '1 day') d where r.id % 8 = 0;
    begin; insert into app.circle_a values (1, 2); insert into app.circle_b values (2, 1); commit;
    insert into "odd ""name"".x/y"."a/b.c" values ('\x00ff5c0a', 'NaN', '2026-03-29 02:30:00+00', '1 mon -3 days 04:05:06.789'), (null, -0.1, 'infinity', null), ('', 1e-310, '0044-03-15 12:00:00 BC', '0');
    insert into app.nothing default values; insert into app.nothing default values;
    insert into app.parent values (1); insert into app.child values (2, 3); insert into app.hot values (5);
    select nextval('app.tickets'), nextval('app.tickets');
    refresh materialized view app.m1; refresh materialized view app.m2;
    select lo_from_bytea(4711, decode(repeat('00ff10', 200000), 'hex')), lo_from_bytea(4712, ''), lo_from_bytea(4713, decode(repeat('ab', 262144), 'hex'));
    grant select on large object 4711 to hotel_report;
"#;

pub fn hotel(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in("hotel", HOTEL);
    cluster.query("alter database hotel set search_path = app, \"$user\", public; alter database hotel set work_mem = '9MB'");
    cluster.query("comment on database hotel is 'beds'; grant connect on database hotel to hotel_report; revoke temporary on database hotel from public");
    cluster
}

/// What anybody can see of a database, apart from its name: definitions as `pg_dump` writes them, and rows.
pub fn everything(cluster: &Cluster, database: &str) -> String {
    let dump = cluster.run(
        "pg_dump",
        &["-d", database, "--no-comments", "--inserts", "--rows-per-insert=1"],
    );
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("--") && !line.starts_with("\\"))
        .collect();
    // Rows may come in another order.
    lines.sort_unstable();
    lines.join("\n")
}

/// What the server knows for its plans.
const KNOWN: &str = "select concat_ws(' ', schemaname, tablename, attname, inherited) from pg_stats where schemaname not in ('pg_catalog', 'information_schema') \
    union all select concat_ws(' ', statistics_schemaname, statistics_name, tablename) from pg_stats_ext order by 1";

fn database(cluster: &Cluster, name: &str) -> String {
    cluster.query(&format!(
        "select pg_get_userbyid(datdba), encoding, datcollate, (select array_agg(a::text order by a::text) from unnest(datacl) a), (select array_agg(setconfig order by setconfig) from pg_db_role_setting where setdatabase = d.oid), shobj_description(oid, 'pg_database') from pg_database d where datname = '{name}'"
    ))
}

#[test]
fn a_database_comes_back_beside_the_original_with_everything_it_had() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        world.run(&["config", "check"]).ends(0);
        let done = world.run(&["backup", "hotel", "--json"]).ends(0).json("backup");
        assert_eq!(done["components"][0]["backup"]["method"], "logical", "{done:#}");
        let restored = world.run(&["restore", "hotel", "--to", "hotel_recovery"]).ends(0);
        assert!(restored.stdout.contains("every count and digest"), "{}", restored.stdout);
        assert_eq!(
            everything(&cluster, "hotel_recovery"),
            everything(&cluster, "hotel"),
            "{major}"
        );
        assert_eq!(database(&cluster, "hotel_recovery"), database(&cluster, "hotel"), "{major}");
        assert_eq!(cluster.query_in("hotel_recovery", "select nextval('app.tickets')"), "17");
        assert_eq!(cluster.query_in("hotel_recovery", "select n from app.m2"), "41");
        // It plans as well as after an `ANALYZE` of everything: expressions, statistics objects, parents and views included.
        let known = cluster.query_in("hotel_recovery", KNOWN);
        cluster.query_in("hotel_recovery", "analyze");
        assert_eq!(known, cluster.query_in("hotel_recovery", KNOWN), "{major}");
        for what in [
            "app lower lower f",
            "app both rooms",
            "app nights day t",
            "app parent a t",
            "app m2 n f",
            "app nights_2026 day f",
        ] {
            assert!(known.lines().any(|line| line == what), "{what}: {known}");
        }
        // The name is taken now; nothing is written over it, and nothing is left of the attempt.
        let again = world.run(&["restore", "hotel", "--to", "hotel_recovery"]).ends(6);
        assert!(again.stderr.contains("has a database of this name"), "{}", again.stderr);
        assert_eq!(
            cluster.query("select count(*) from pg_database where datname like 'lifeboat%'"),
            "0"
        );
        // What did not change is stored once.
        let second = world.run(&["backup", "hotel", "--json"]).ends(0).json("backup");
        let second = &second["components"][0];
        assert!(second["changed_bytes"].as_u64() < Some(200_000), "{second:#}");
        world.run(&["verify", "hotel", "--level", "decrypt"]).ends(0);
        let proven = world.run(&["verify", "hotel", "--level", "restore"]).ends(0);
        assert!(proven.stdout.contains("each count and each digest"), "{}", proven.stdout);
        let shown = world.run(&["show", "hotel"]).ends(0);
        assert!(shown.stdout.contains("hotel: 11 tables"), "{}", shown.stdout);
        let status = world.run(&["status", "hotel"]).ends(0);
        assert!(status.stdout.contains("ready"), "{}", status.stdout);
        let doctor = world.run(&["doctor"]);
        assert!(
            doctor.stdout.contains("every one of 11 tables of hotel can be read whole"),
            "{}",
            doctor.stdout
        );
        world.run(&["follow"]).ends(2);
    }
}

pub fn names(cluster: &Cluster) -> String {
    cluster.query("select string_agg(datname || case when datallowconn then '' else ' (closed)' end, ', ' order by datname) from pg_database where datname ~ 'hotel|lifeboat'")
}

/// What is listed, the newest first.
pub fn listed(world: &World) -> Vec<serde_json::Value> {
    let listed = world.run(&["list", "hotel", "--json"]).ends(0).json("list");
    listed["components"][0]["backups"].as_array().unwrap().clone()
}

/// The id that a restore printed.
pub fn id_of(stdout: &str) -> String {
    let id = stdout.split("restore promote ").nth(1).unwrap().split_whitespace().next();
    id.unwrap().to_owned()
}

#[test]
fn a_restored_database_takes_the_place_of_the_original_and_gives_it_back() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        world.run(&["backup", "hotel"]).ends(0);
        cluster.query_in("hotel", "delete from app.nights");
        let restored = world.run(&["restore", "hotel"]).ends(0);
        let id = id_of(&restored.stdout);
        // Somebody works in the original and does not go by himself.
        let mut busy = cluster.spawn("psql", &["-XAtq", "-d", "hotel", "-c", "select pg_sleep(600)"]);
        let sleeping = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
        while cluster.query(sleeping) != "1" {
            std::thread::yield_now();
        }
        let asked = world.run(&["restore", "promote", &id]).ends(6);
        assert!(asked.stderr.contains("needs a yes"), "{}", asked.stderr);
        let promoted = world.run(&["restore", "promote", &id, "--yes"]).ends(0);
        assert!(promoted.stdout.contains("1 sessions were ended"), "{}", promoted.stdout);
        assert!(!busy.wait().unwrap().success());
        assert_eq!(cluster.query_in("hotel", "select count(*) > 0 from app.nights"), "t");
        let now = names(&cluster);
        assert!(
            now.starts_with("hotel, hotel_replaced_") && now.ends_with("(closed)"),
            "{now}"
        );
        // The same again changes nothing.
        world.run(&["restore", "promote", &id, "--yes"]).ends(0);
        assert_eq!(names(&cluster), now);
        // It is kept for a week.
        world.run(&["prune", "hotel"]).ends(0);
        assert_eq!(names(&cluster), now);
        world.run(&["restore", "undo", &id]).ends(0);
        assert_eq!(cluster.query_in("hotel", "select count(*) from app.nights"), "0");
        let now = names(&cluster);
        assert!(now.starts_with("hotel, hotel_undone_") && now.ends_with("(closed)"), "{now}");
        // And in one go.
        world
            .run(&["restore", "hotel", "--in-place", "--backup", "1", "--yes"])
            .ends(0);
        assert_eq!(cluster.query_in("hotel", "select count(*) > 0 from app.nights"), "t");
        assert_eq!(listed(&world).len(), 4);
        // After its time it goes, unless somebody has taken it over.
        let now = names(&cluster);
        world.edit_config("method: logical", "method: logical, keep_old: 1ms");
        world.run(&["prune", "hotel", "--dry-run"]).ends(0);
        assert_eq!(names(&cluster), now);
        let pruned = world.run(&["prune", "hotel"]).ends(0);
        assert!(
            pruned.stderr.contains("dropped the database hotel_replaced_"),
            "{}",
            pruned.stderr
        );
        let left = names(&cluster);
        assert!(
            left.starts_with("hotel, hotel_undone_") && !left.contains("replaced"),
            "{left}"
        );
        assert_eq!(cluster.query_in("hotel", "select count(*) > 0 from app.nights"), "t");
        world.run(&["prune", "hotel"]).ends(0);
    }
}

#[test]
fn what_is_missing_is_named_before_anything_is_made() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    let other = Cluster::start(16, &Options::new().fresh(&[]));
    let to = other.url("postgres", "hotel");
    let refused = world.run(&["restore", "hotel", "--to", &to]).ends(7);
    for role in ["hotel_app", "hotel_report"] {
        assert!(refused.stderr.contains(role), "{}", refused.stderr);
    }
    assert_eq!(names(&other), "");
    // To another server and a newer version, where everything belongs to whoever restores.
    world.run(&["restore", "hotel", "--to", &to, "--no-owner"]).ends(0);
    assert_eq!(names(&other), "hotel");
    assert_eq!(
        other.query_in("hotel", "select count(*) from app.rooms"),
        cluster.query_in("hotel", "select count(*) from app.rooms")
    );
    other.query("create role hotel_app; create role hotel_report");
    other.query("drop database hotel");
    world.run(&["restore", "hotel", "--to", &to]).ends(0);
    let owner = "select pg_get_userbyid(relowner) from pg_class where relname = 'rooms'";
    assert_eq!(other.query_in("hotel", owner), "hotel_app");
    // A restore to another server is no candidate for a place on this one.
    let restored = world
        .run(&["restore", "hotel", "--to", &other.url("postgres", "hotel_2")])
        .ends(0);
    let refused = world.run(&["restore", "promote", &id_of(&restored.stdout), "--yes"]).ends(6);
    assert!(refused.stderr.contains("another server"), "{}", refused.stderr);
    for wrong in ["", "a/b"] {
        world.run(&["restore", "hotel", "--to", wrong]).ends(2);
    }
    world.run(&["restore", "hotel", "--database", "motel"]).ends(2);
}

#[test]
fn a_definition_or_a_row_that_does_not_come_back_stops_the_restore_and_leaves_nothing() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    // It reads a table that no longer is there: nobody notices until the view is filled.
    cluster.query_in(
        "hotel",
        "create table app.gone(a int); create function app.f() returns bigint language sql as 'select count(*) from app.gone'; \
         create materialized view app.broken as select app.f() as n; alter table app.gone rename to gone_elsewhere",
    );
    world.run(&["backup", "hotel"]).ends(0);
    let failed = world.run(&["restore", "hotel", "--to", "copy"]).ends(1);
    assert!(
        failed.stderr.contains("app.gone") && failed.stderr.contains("does not exist"),
        "{}",
        failed.stderr
    );
    assert_eq!(names(&cluster), "hotel");
    cluster.query_in("hotel", "drop materialized view app.broken");
    // A row that its own table would not take: the constraint was never true of the rows that were there.
    cluster.query_in("hotel", "alter table app.rooms add check (price > 4) not valid");
    world.run(&["backup", "hotel"]).ends(0);
    world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
    cluster.query_in("hotel", "create function app.strict(int) returns bool language sql immutable as 'select $1 > 0'; alter table app.parent add check (app.strict(a))");
    cluster.query_in(
        "hotel",
        "create or replace function app.strict(int) returns bool language sql immutable as 'select $1 > 5'",
    );
    world.run(&["backup", "hotel"]).ends(0);
    let failed = world.run(&["restore", "hotel", "--to", "copy_2"]).ends(1);
    assert!(failed.stderr.contains("violates check constraint"), "{}", failed.stderr);
    assert_eq!(names(&cluster), "hotel");
    assert_eq!(
        cluster.query("select count(*) from pg_database where datname like 'copy%'"),
        "1"
    );
}

#[test]
fn a_table_that_may_not_be_read_whole_is_named_and_there_is_no_backup() {
    let cluster = hotel(15);
    cluster.query("create role reader login");
    let world = world(&cluster, "");
    world.edit_config("postgresql://postgres@", "postgresql://reader@");
    let refused = world.run(&["backup", "hotel"]).ends(7);
    assert!(
        refused.stderr.contains("app.rooms") && refused.stderr.contains("pg_read_all_data"),
        "{}",
        refused.stderr
    );
    cluster.query("grant pg_read_all_data to reader");
    let refused = world.run(&["backup", "hotel"]).ends(7);
    assert!(
        refused.stderr.contains("row-level security") && refused.stderr.contains("app.tenants"),
        "{}",
        refused.stderr
    );
    cluster.query("alter role reader bypassrls");
    // Large objects have rights of their own.
    let refused = world.run(&["backup", "hotel"]).ends(7);
    assert!(refused.stderr.contains("large object"), "{}", refused.stderr);
    assert_eq!(listed(&world).len(), 0);
    cluster.query_in("hotel", "do $$ declare o oid; begin for o in select oid from pg_largeobject_metadata loop execute format('grant select on large object %s to reader', o); end loop; end $$");
    world.run(&["backup", "hotel"]).ends(0);
    // A role that may read tables and nothing else: what is left out is told.
    cluster.query("revoke pg_read_all_data from reader");
    cluster.query_in(
        "hotel",
        "do $$ declare s text; begin for s in select quote_ident(nspname) from pg_namespace where nspname !~ '^pg_|^information' loop \
         execute format('grant usage on schema %s to reader; grant select on all tables in schema %s to reader; grant select on all sequences in schema %s to reader', s, s, s); \
         end loop; end $$",
    );
    let done = world.run(&["backup", "hotel"]).ends(0);
    assert!(done.stderr.contains("passwords of roles"), "{}", done.stderr);
    let roles = world.path("roles.sql");
    world
        .run(&[
            "restore",
            "export",
            "hotel",
            "--extract",
            "globals.sql",
            "--to",
            &roles.display().to_string(),
        ])
        .ends(0);
    assert!(
        std::fs::read_to_string(roles)
            .unwrap()
            .contains("CREATE ROLE \"hotel_report\"")
    );
}

#[test]
fn only_the_databases_that_are_named_or_all_of_them() {
    let cluster = hotel(15);
    cluster.query("create database bar");
    cluster.query("create database closed allow_connections false");
    let world = world(&cluster, "");
    world.edit_config("databases: [hotel]", "databases: [hotel, cellar]");
    let refused = world.run(&["backup", "hotel"]).ends(7);
    assert!(
        refused.stderr.contains("it has no cellar; there are bar, hotel, postgres"),
        "{}",
        refused.stderr
    );
    world.edit_config("databases: [hotel, cellar], ", "");
    world.run(&["backup", "hotel"]).ends(0);
    // Which one has to be said.
    let refused = world.run(&["restore", "hotel"]).ends(2);
    assert!(refused.stderr.contains("bar, hotel, postgres"), "{}", refused.stderr);
    let restored = world.run(&["restore", "hotel", "--database", "bar"]).ends(0);
    assert!(restored.stdout.contains("bar_restored_"), "{}", restored.stdout);
    // Definitions alone are an extract: never the newest, and no point to go back to.
    world.run(&["backup", "hotel", "--schema-only"]).ends(0);
    world
        .run(&["backup", "hotel", "--method", "physical", "--schema-only"])
        .ends(2);
    let listed = listed(&world);
    let extracts: Vec<bool> = listed.iter().map(|one| one["extract"].as_bool().unwrap()).collect();
    assert_eq!(extracts, [true, false], "{listed:#?}");
    world
        .run(&["restore", "hotel", "--database", "hotel", "--to", "whole"])
        .ends(0);
    assert_eq!(cluster.query_in("whole", "select count(*) > 0 from app.nights"), "t");
    world
        .run(&["restore", "hotel", "--database", "hotel", "--backup", "2", "--to", "bare"])
        .ends(0);
    assert_eq!(cluster.query_in("bare", "select count(*) from app.nights"), "0");
}

/// With the independent reader and PostgreSQL's own programs, as docs/recover-without-lifeboat.md says.
#[test]
fn a_database_comes_back_without_lifeboat() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    let configuration = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let trust = configuration.split("ed25519:").nth(1).unwrap().split('"').next().unwrap();
    let (identity, store) = (world.key().display().to_string(), world.shown("lifeboat-backups"));
    let words = [
        "restore",
        &store,
        "hotel/db",
        "--identity",
        &identity,
        "--trust",
        &format!("ed25519:{trust}"),
        "--to",
        "bare",
    ];
    recovered(&recover(&world, &words), 0);
    // Where the user of the server's programs can read it.
    let there = cluster.make_folder("bare");
    for (path, bytes) in world.files("bare") {
        let to = there.join(path.strip_prefix(world.path("bare")).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(there.join("facts.json")).unwrap()).unwrap();
    let database = &facts["databases"][0];
    let folder = there.join(database["folder"].as_str().unwrap());
    let archive = folder.join("definitions.dump").display().to_string();
    cluster.query("create database bare template template0");
    cluster.run("pg_restore", &["-e", "--section=pre-data", "-d", "bare", &archive]);
    for table in database["tables"].as_array().unwrap() {
        let text = |name: &str| table[name].as_str().unwrap().replace('"', "\"\"");
        let columns: Vec<String> = table["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| format!("\"{}\"", name.as_str().unwrap()))
            .collect();
        let columns = if columns.is_empty() {
            String::new()
        } else {
            format!("({})", columns.join(","))
        };
        for part in table["parts"].as_array().unwrap() {
            let file = folder.join(part.as_str().unwrap());
            let copy = format!(
                "\\copy \"{}\".\"{}\" {columns} from '{}'",
                text("schema"),
                text("name"),
                file.display()
            );
            cluster.query_in("bare", &copy);
        }
    }
    cluster.run("pg_restore", &["-e", "--section=post-data", "-d", "bare", &archive]);
    for table in ["app.tenants", "app.rooms", "app.nights", "\"odd \"\"name\"\".x/y\".\"a/b.c\""] {
        let rows = format!("select string_agg(t::text, ';' order by t::text) from {table} t");
        assert_eq!(cluster.query_in("bare", &rows), cluster.query_in("hotel", &rows), "{table}");
    }
}

#[test]
fn backups_and_the_live_database_are_compared_table_by_table() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    let same = world.run(&["diff", "1", "live", "hotel"]).ends(0);
    assert!(same.stdout.contains("no difference"), "{}", same.stdout);
    cluster.query_in(
        "hotel",
        "delete from app.nights where room < 100; update app.tenants set name = 'x' || name where mood = 'sad'; create table app.extra(a int)",
    );
    world.run(&["backup", "hotel"]).ends(0);
    for after in ["2", "live"] {
        let found = world.run(&["diff", "1", after, "hotel"]).ends(0);
        for line in [
            "app.nights_2026: rows",
            "it shrank",
            "app.tenants: rows 40 → 40, but other rows",
            "app.extra: rows none → 0: it is new",
            "8 tables the same",
        ] {
            assert!(found.stdout.contains(line), "{after} {line}: {}", found.stdout);
        }
    }
    let one = world
        .run(&["diff", "1", "2", "hotel", "--table", "tenants", "--json"])
        .ends(0)
        .json("diff");
    assert_eq!(one["same"], false);
    assert_eq!(one["tables"].as_array().unwrap().len(), 1, "{one:#}");
    world.run(&["diff", "1", "2", "hotel", "--table", "nothing_like_it"]).ends(2);
    cluster.query("drop database hotel");
    let gone = world.run(&["diff", "1", "live", "hotel", "--table", "app.rooms"]).ends(0);
    assert!(gone.stdout.contains("rows 800 → none: it is gone"), "{}", gone.stdout);
}

#[test]
fn a_database_is_written_as_sql_text_that_psql_loads() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        world.run(&["backup", "hotel"]).ends(0);
        let to = world.path("hotel.sql");
        world
            .run(&["restore", "export", "hotel", "--to", &to.display().to_string()])
            .ends(0);
        let there = cluster.folder().join("hotel.sql");
        std::fs::copy(&to, &there).unwrap();
        std::fs::set_permissions(&there, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        cluster.query("create database loaded template template0");
        cluster.run(
            "psql",
            &[
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                "loaded",
                "-f",
                &there.display().to_string(),
            ],
        );
        assert_eq!(everything(&cluster, "loaded"), everything(&cluster, "hotel"), "{major}");
        assert_eq!(cluster.query_in("loaded", "select n from app.m2"), "41");
        // What is there already is never written onto.
        world
            .run(&["restore", "export", "hotel", "--to", &to.display().to_string()])
            .ends(6);
    }
}

#[test]
fn some_tables_come_back_into_a_schema_beside_the_live_ones() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        world.run(&["backup", "hotel"]).ends(0);
        let before = everything(&cluster, "hotel");
        let rows = |schema: &str, table: &str| {
            cluster.query_in(
                "hotel",
                &format!("select count(*), min(t::text), max(t::text) from {schema}.{table} t"),
            )
        };
        let good = (rows("app", "rooms"), rows("app", "nights"));
        cluster.query_in("hotel", "delete from app.nights; update app.rooms set price = 0");
        let restored = world
            .run(&["restore", "hotel", "--tables", "rooms,app.nights", "--to", "rescued"])
            .ends(0);
        assert!(restored.stdout.contains("rescued.rooms: 800 rows"), "{}", restored.stdout);
        assert_eq!((rows("rescued", "rooms"), rows("rescued", "nights")), good, "{major}");
        // With their indexes, without what would tie them to the others.
        let indexes = "select count(*) from pg_indexes where schemaname = ";
        assert_eq!(
            cluster.query_in("hotel", &format!("{indexes} 'rescued' and tablename = 'rooms'")),
            cluster.query_in("hotel", &format!("{indexes} 'app' and tablename = 'rooms'"))
        );
        assert_eq!(cluster.query_in("hotel", "select count(*) from pg_constraint c join pg_namespace n on n.oid = c.connamespace where n.nspname = 'rescued' and contype = 'f'"), "0");
        // What is to come back is a join away.
        cluster.query_in("hotel", "insert into app.nights select * from rescued.nights; update app.rooms r set price = s.price from rescued.rooms s where s.id = r.id; drop schema rescued cascade");
        assert_eq!(everything(&cluster, "hotel"), before, "{major}: nothing else was touched");
        for (wrong, code) in [("no_such", 2), ("rooms,no_such", 2)] {
            world
                .run(&["restore", "hotel", "--tables", wrong, "--to", "rescued"])
                .ends(code);
        }
        world.run(&["restore", "hotel", "--tables", "rooms", "--to", "app"]).ends(6);
        assert_eq!(names(&cluster), "hotel");
        assert_eq!(
            cluster.query_in(
                "hotel",
                "select count(*) from pg_namespace where nspname like 'lifeboat%' or nspname = 'rescued'"
            ),
            "0"
        );
    }
}
