//! One tenant of many: taken out, and brought back among the others.

use lifeboat_testkit::postgres::{Cluster, Options, majors};

use crate::logical::world as hotel_world;
use crate::merge::{followed, held, moment};
use crate::world::World;

/// Tenants whose rows hang together in every way that rows can.
const CHAIN: &str = r#"
    create table tenants(id uuid primary key, name text not null);
    create table countries(code text primary key, name text);
    create table rooms(id int generated always as identity primary key, tenant_id uuid not null references tenants, number text not null, price numeric(10,2),
        gross numeric generated always as (price * 1.2) stored, country text references countries, plan json, spot point, unique (tenant_id, number) deferrable);
    create table nights(tenant_id uuid not null references tenants, room int not null references rooms on delete cascade, day date not null, guest text, primary key (room, day)) partition by range (day);
    create table nights_2025 partition of nights for values from ('2025-01-01') to ('2026-01-01');
    create table nights_2026 partition of nights for values from ('2026-01-01') to ('2027-01-01');
    create table orders(tenant_id uuid not null references tenants, number int not null, total numeric, primary key (tenant_id, number));
    create table items(tenant uuid not null, number int not null, line int not null, what text, primary key (tenant, number, line),
        constraint items_order foreign key (tenant, number) references orders);
    create table staff(id bigserial primary key, tenant_id uuid not null references tenants, boss bigint references staff, name text);
    create table one(id int primary key, tenant_id uuid not null references tenants, two int);
    create table two(id int primary key, one int not null constraint two_one references one);
    alter table one add constraint one_two foreign key (two) references two;
    create table notes(tenant_id uuid not null references tenants, body text);
    create table item_tags(tenant uuid, number int, line int, tag text, constraint tags_item foreign key (tenant, number, line) references items);
    create table labels(tenant_id text not null, label text, primary key (tenant_id, label));
    create table audit(at timestamptz default now(), what text);
    create table settings(name text primary key, value text);
    create function seen() returns trigger language plpgsql as $$ begin insert into public.audit(what) values (tg_op || ' ' || tg_table_name);
        if tg_op <> 'DELETE' then new.number := upper(new.number); return new; end if; return old; end $$;
    create trigger seen before insert or update or delete on rooms for each row execute function seen();
    alter table notes enable row level security;
    insert into tenants select md5(i::text)::uuid, 'tenant ' || i from generate_series(1, 200) i;
    insert into countries values ('de', 'Germany'), ('fr', 'France');
    insert into rooms(tenant_id, number, price, country, plan, spot) select t.id, 'r' || n, n, (array['de', 'fr', null])[1 + n % 3], json_build_object('n', n), point(n, n) from tenants t, generate_series(1, 20) n;
    insert into nights select tenant_id, id, d::date, 'guest' from rooms, generate_series('2025-12-28'::date, '2026-01-03', '1 day') d;
    insert into orders select id, n, n * 1.5 from tenants, generate_series(1, 5) n;
    insert into items select tenant_id, number, l, 'item ' || l from orders, generate_series(1, 3) l;
    insert into item_tags select tenant, number, line, 'a' from items union all select tenant, number, line, 'a' from items where line = 1 union all select null, null, null, 'nobody';
    insert into staff(tenant_id, name) select id, 'boss' from tenants; insert into staff(tenant_id, boss, name) select tenant_id, id, 'clerk' from staff;
    insert into one select row_number() over (), id, null from tenants; insert into two select id, id from one; update one set two = id;
    insert into notes select id, 'note ' || n % 2 from tenants, generate_series(1, 5) n;
    insert into labels select id::text, 'label' from tenants;
    insert into settings values ('a', 'b');
    delete from audit;
"#;

const TENANT: &str = "'eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3'";
const ID: &str = "eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3";

fn chain(major: u32) -> (Cluster, World) {
    let cluster = Cluster::start(major, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in("hotel", CHAIN);
    let world = hotel_world(&cluster, ", tenants: { root: public.tenants.id, map: tenant-map.yaml }");
    (cluster, world)
}

fn map(world: &World) -> String {
    let map = world.run(&["tenant-map", "hotel"]).ends(0).stdout;
    map.replace("unclassified", "ignored")
}

/// What the tenant has, or all others, in each table: rows as text, in order.
fn rows(cluster: &Cluster, database: &str, of: bool) -> String {
    let is = if of { "is true" } else { "is not true" };
    let tables = [
        ("tenants", format!("(id = {TENANT})")),
        ("rooms", format!("(tenant_id = {TENANT})")),
        ("nights", format!("(tenant_id = {TENANT})")),
        ("orders", format!("(tenant_id = {TENANT})")),
        ("items", format!("(tenant = {TENANT})")),
        ("item_tags", format!("(tenant = {TENANT})")),
        ("staff", format!("(tenant_id = {TENANT})")),
        ("one", format!("(tenant_id = {TENANT})")),
        ("two", format!("(one in (select id from one where tenant_id = {TENANT}))")),
        ("notes", format!("(tenant_id = {TENANT})")),
    ];
    let one = |(table, which): (&str, String)| {
        let rows = cluster.query_in(
            database,
            &format!("select count(*), md5(string_agg(t::text, ';' order by t::text)) from {table} t where {which} {is}"),
        );
        format!("{table} {rows}")
    };
    tables.into_iter().map(one).collect::<Vec<_>>().join("\n")
}

/// The tenant as one document.
fn as_json(world: &World, extract: &str) {
    let export = ["restore", "export", "hotel", "--backup", extract, "--format", "json", "--to"];
    world.run(&[&export[..], &["tenant.json"]].concat()).ends(0);
    world.run(&[&export[..], &["tenant.json"]].concat()).ends(6);
    let text = std::fs::read_to_string(world.path("tenant.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["tenant"], ID);
    let rows = |name: &str| {
        let tables = document["tables"].as_array().unwrap().iter();
        let of = |table: &&serde_json::Value| table["table"] == name || table["partition_of"] == name;
        let rows = tables.filter(of).flat_map(|table| table["rows"].as_array().unwrap().clone());
        rows.collect::<Vec<_>>()
    };
    assert_eq!((rows("public.rooms").len(), rows("public.nights").len()), (20, 140));
    assert_eq!((rows("public.tenants").len(), rows("public.countries").len()), (1, 2));
    let room = &rows("public.rooms")[1];
    assert_eq!(room["tenant_id"], ID);
    assert_eq!(
        (&room["number"], &room["country"]),
        (&"R2".into(), &serde_json::Value::Null),
        "{room:#}"
    );
    assert_eq!(room["plan"], "{\"n\" : 2}");
}

/// Everything of the tenant goes, and something of another changes.
const DISASTER: &str = "set session_replication_role = replica; \
    delete from nights where tenant_id = TENANT; delete from rooms where tenant_id = TENANT; delete from item_tags where tenant = TENANT; \
    delete from items where tenant = TENANT; delete from orders where tenant_id = TENANT; delete from staff where tenant_id = TENANT; \
    delete from two where one in (select id from one where tenant_id = TENANT); delete from one where tenant_id = TENANT; \
    delete from notes where tenant_id = TENANT; delete from tenants where id = TENANT; \
    update rooms set price = price + 1 where tenant_id <> TENANT and number = 'R1'; insert into staff(tenant_id, name) select id, 'new' from tenants limit 5";

fn nothing_is_left(cluster: &Cluster) {
    assert_eq!(
        cluster.query("select count(*) from pg_database where datname like 'lifeboat%' or datname like 'tenant%'"),
        "0"
    );
    assert_eq!(
        cluster.query_in("hotel", "select count(*) from pg_namespace where nspname like 'lifeboat%'"),
        "0"
    );
}

#[test]
fn a_tenant_that_was_deleted_comes_back_among_the_others() {
    for major in majors() {
        let (cluster, world) = chain(major);
        world.write("tenant-map.yaml", &map(&world));
        world.run(&["tenant-map", "hotel", "--check"]).ends(0);
        let then = rows(&cluster, "hotel", true);
        world.run(&["backup", "hotel"]).ends(0);
        let extract = world
            .run(&["backup", "hotel", "--tenant", ID, "--json"])
            .ends(0)
            .json("backup");
        let extract = extract["components"][0]["backup"]["id"].as_str().unwrap().to_owned();
        as_json(&world, &extract);
        for from in ["1", extract.as_str()] {
            cluster.query_in("hotel", &DISASTER.replace("TENANT", TENANT));
            let others = rows(&cluster, "hotel", false);
            let sequence = cluster.query_in("hotel", "select last_value from staff_id_seq");
            let restore = ["restore", "hotel", "--tenant", ID, "--backup", from];
            let looked = world.run(&[&restore[..], &["--dry-run"]].concat()).ends(0);
            assert!(
                looked.stdout.contains("public.rooms: insert 20, update 0, delete 0"),
                "{}",
                looked.stdout
            );
            assert_eq!(
                cluster.query_in("hotel", &format!("select count(*) from tenants where id = {TENANT}")),
                "0"
            );
            nothing_is_left(&cluster);
            world.run(&[&restore[..], &["--in-place"]].concat()).ends(6);
            nothing_is_left(&cluster);
            let done = world
                .run(&[&restore[..], &["--in-place", "--yes", "--json"]].concat())
                .ends(0);
            let done = done.json("restore");
            assert_eq!(rows(&cluster, "hotel", true), then, "{major} {from}");
            assert_eq!(rows(&cluster, "hotel", false), others, "{major} {from}");
            assert_eq!(cluster.query_in("hotel", "select count(*) from audit"), "0", "triggers ran");
            assert_eq!(cluster.query_in("hotel", "select last_value from staff_id_seq"), sequence);
            nothing_is_left(&cluster);
            // Once more: there is nothing to do.
            let again = world.run(&[&restore[..], &["--in-place", "--yes"]].concat()).ends(0);
            assert!(again.stdout.contains("nothing to do"), "{}", again.stdout);
            // And back to what was there before, which was nothing.
            let kept = done["components"][0]["kept"]["id"].as_str().unwrap().to_owned();
            world
                .run(&["restore", "hotel", "--tenant", ID, "--backup", &kept, "--in-place", "--yes"])
                .ends(0);
            assert_eq!(
                cluster.query_in("hotel", &format!("select count(*) from nights where tenant_id = {TENANT}")),
                "0"
            );
            assert_eq!(rows(&cluster, "hotel", false), others, "{major} {from}");
            world.run(&[&restore[..], &["--in-place", "--yes"]].concat()).ends(0);
        }
        // Beside, the tenant is alone with what is everybody's.
        world
            .run(&["restore", "hotel", "--backup", &extract, "--to", "alone"])
            .ends(0);
        assert_eq!(rows(&cluster, "alone", true), then);
        assert_eq!(
            cluster.query_in(
                "alone",
                "select (select count(*) from tenants), (select count(*) from countries), (select count(*) from settings)"
            ),
            "1|2|0"
        );
        world
            .run(&["restore", "hotel", "--backup", &extract, "--in-place", "--yes"])
            .ends(6);
    }
}

#[test]
fn what_changed_meanwhile_is_set_right_and_columns_that_are_new_stay() {
    let (cluster, world) = chain(16);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let then = rows(&cluster, "hotel", true);
    // Two rooms exchange their numbers, which are unique; one is new, one is gone, keyless rows come twice.
    cluster.query_in(
        "hotel",
        &format!(
            "set session_replication_role = replica; \
             update rooms set number = case number when 'R1' then 'R2' else 'R1' end where tenant_id = {TENANT} and number in ('R1', 'R2'); \
             insert into rooms(tenant_id, number) values ({TENANT}, 'NEW'); delete from nights where tenant_id = {TENANT} and day = '2026-01-01'; \
             insert into notes values ({TENANT}, 'note 1'), ({TENANT}, 'other'); delete from notes where ctid in (select ctid from notes where tenant_id = {TENANT} and body = 'note 0' limit 1); \
             update staff set boss = null where tenant_id = {TENANT}"
        ),
    );
    let others = rows(&cluster, "hotel", false);
    let restore = ["restore", "hotel", "--tenant", ID, "--in-place", "--yes"];
    let done = world.run(&restore).ends(0);
    assert!(
        done.stderr.contains("public.rooms: insert 0, update 2, delete 1"),
        "{}",
        done.stderr
    );
    assert_eq!(rows(&cluster, "hotel", true), then);
    assert_eq!(rows(&cluster, "hotel", false), others);
    // A column that came later keeps what is in it where the row stays.
    cluster.query_in(
        "hotel",
        &format!("alter table orders add column paid text default 'no'; update orders set paid = 'yes', total = 0 where tenant_id = {TENANT}; \
                  delete from item_tags where tenant = {TENANT} and number = 5; delete from items where tenant = {TENANT} and number = 5; delete from orders where tenant_id = {TENANT} and number = 5"),
    );
    world.run(&restore).ends(0);
    assert_eq!(
        cluster.query_in(
            "hotel",
            &format!("select string_agg(number || paid || total, ' ' order by number) from orders where tenant_id = {TENANT}")
        ),
        "1yes1.5 2yes3.0 3yes4.5 4yes6.0 5no7.5"
    );
    // One that is gone would be lost.
    cluster.query_in("hotel", "alter table staff drop column name");
    let refused = world.run(&restore).ends(6);
    assert!(refused.stderr.contains("has no name any more"), "{}", refused.stderr);
    nothing_is_left(&cluster);
}

#[test]
fn a_table_that_nobody_classified_stops_everything() {
    let (cluster, world) = chain(15);
    world.run(&["backup", "hotel", "--tenant", ID]).ends(7);
    world.run(&["tenant-map", "hotel", "--check"]).ends(7);
    let proposed = world.run(&["tenant-map", "hotel"]).ends(0).stdout;
    for line in [
        "\"public.tenants\": root",
        "\"public.rooms\": { direct: \"tenant_id\" }",
        "\"public.items\": { through: \"items_order\" }",
        "\"public.item_tags\": { through: \"tags_item\" }",
        "\"public.two\": { through: \"two_one\" }",
        "\"public.countries\": shared",
        "\"public.audit\": unclassified",
    ] {
        assert!(proposed.contains(line), "{line}: {proposed}");
    }
    world.write("tenant-map.yaml", &proposed);
    let refused = world.run(&["backup", "hotel", "--tenant", ID]).ends(7);
    assert!(
        refused
            .stderr
            .contains("public.audit is not classified; public.settings is not classified"),
        "{}",
        refused.stderr
    );
    world.write("tenant-map.yaml", &proposed.replace("unclassified", "shared"));
    world.run(&["backup", "hotel", "--tenant", ID]).ends(0);
    cluster.query_in("hotel", "create table invoices(id int primary key)");
    let check = world.run(&["tenant-map", "hotel", "--check"]).ends(7);
    assert!(check.stderr.contains("public.invoices is not classified"), "{}", check.stderr);
    world.run(&["backup", "hotel", "--tenant", ID]).ends(7);
    world.run(&["backup", "hotel"]).ends(0);
    cluster.query_in("hotel", "drop table invoices");
    // What cannot be true is told: a column, a foreign key, a circle, a way out.
    for (from, to, says) in [
        ("{ direct: \"tenant_id\" }", "{ direct: \"tenant\" }", "has no column tenant"),
        (
            "{ through: \"items_order\" }",
            "{ through: \"nothing\" }",
            "has no foreign key nothing",
        ),
        (
            "\"public.countries\": shared",
            "\"public.countries\": ignored",
            "which is ignored",
        ),
        (
            "\"public.orders\": { direct: \"tenant_id\" }",
            "\"public.orders\": shared",
            "whose rows are no tenant's",
        ),
        (
            "\"public.countries\": shared",
            "\"public.countries\": sharde",
            "unknown variant",
        ),
    ] {
        world.write(
            "tenant-map.yaml",
            &proposed.replace("unclassified", "ignored").replace(from, to),
        );
        let refused = world.run(&["backup", "hotel", "--tenant", ID]).ends(7);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
}

#[test]
fn a_tenant_that_is_not_there_or_no_tenant_at_all() {
    let (cluster, world) = chain(15);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let nobody = "00000000-0000-0000-0000-000000000000";
    let injected = "' or true; drop table tenants; --";
    for (id, exit) in [(nobody, 9), ("17", 2), (injected, 2), ("", 2), ("\\' or true --", 2)] {
        world.run(&["backup", "hotel", "--tenant", id]).ends(exit);
        world
            .run(&["restore", "hotel", "--tenant", id, "--in-place", "--yes"])
            .ends(exit);
    }
    assert_eq!(cluster.query_in("hotel", "select count(*) from tenants"), "200");
    nothing_is_left(&cluster);
    // Into what, has to be said; and only where tenants are.
    world.run(&["restore", "hotel", "--tenant", ID]).ends(2);
    world.run(&["backup", "app", "--tenant", ID]).ends(2);
}

#[test]
fn rows_that_lead_to_other_tenants_stop_it_and_are_named() {
    let (cluster, world) = chain(18);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let then = rows(&cluster, "hotel", true);
    let restore = ["restore", "hotel", "--tenant", ID, "--in-place", "--yes"];
    // Somebody else got a key of the tenant meanwhile.
    cluster.query_in(
        "hotel",
        &format!(
            "update one set two = null where tenant_id = {TENANT}; delete from two where one = 3; delete from one where tenant_id = {TENANT}; \
             insert into one select 3, id, null from tenants where id <> {TENANT} limit 1"
        ),
    );
    let before = rows(&cluster, "hotel", false);
    let refused = world.run(&restore).ends(6);
    assert!(
        refused
            .stderr
            .contains("public.one has rows of somebody else under keys of the tenant: (3)"),
        "{}",
        refused.stderr
    );
    assert_eq!(rows(&cluster, "hotel", false), before);
    nothing_is_left(&cluster);
    cluster.query_in("hotel", "delete from one where id = 3");
    // What is everybody's and is referred to must be there.
    cluster.query_in(
        "hotel",
        "update rooms set country = null; delete from countries where code = 'fr'",
    );
    let refused = world.run(&restore).ends(6);
    assert!(
        refused.stderr.contains("foreign keys would lead nowhere: rooms_country_fkey"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        cluster.query_in("hotel", &format!("select count(*) from one where tenant_id = {TENANT}")),
        "0"
    );
    nothing_is_left(&cluster);
    cluster.query_in("hotel", "insert into countries values ('fr', 'France')");
    world.run(&restore).ends(0);
    assert_eq!(rows(&cluster, "hotel", true), then);
    // A row that leads to another's: it is not taken for the tenant's.
    cluster.query_in(
        "hotel",
        &format!("update staff set boss = (select min(id) from staff where tenant_id <> {TENANT}) where tenant_id = {TENANT} and name = 'clerk'"),
    );
    let refused = world.run(&["backup", "hotel", "--tenant", ID]).ends(6);
    assert!(
        refused.stderr.contains("refer to rows that are not his: public.staff (") && refused.stderr.contains("staff_boss_fkey"),
        "{}",
        refused.stderr
    );
    // And is no hindrance to setting it right.
    world.run(&restore).ends(0);
    assert_eq!(rows(&cluster, "hotel", true), then);
}

/// Killed at any time, it has done all of it or nothing, and what it left is removed by the next.
#[test]
fn a_killed_restore_of_a_tenant_did_all_or_nothing() {
    let (cluster, world) = chain(16);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let then = rows(&cluster, "hotel", true);
    cluster.query_in("hotel", &DISASTER.replace("TENANT", TENANT));
    let gone = rows(&cluster, "hotel", true);
    let others = rows(&cluster, "hotel", false);
    let restore = ["restore", "hotel", "--tenant", ID, "--backup", "1", "--in-place", "--yes"];
    for seen in [
        // The scratch database; the staging schema; the transaction.
        "select count(*) > 0 from pg_database where datname like 'lifeboat_restore%'",
        "select count(*) > 0 from pg_stat_activity where datname = 'hotel' and application_name like 'lifeboat_restore%'",
        "select count(*) > 0 from pg_locks l join pg_database d on d.oid = l.database where datname = 'hotel' and mode = 'ShareRowExclusiveLock'",
    ] {
        let mut command = world.command();
        command
            .args(restore)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut running = command.spawn().unwrap();
        while running.try_wait().unwrap().is_none() && cluster.query(seen) != "t" {}
        drop(running.kill());
        running.wait().unwrap();
        // The server notices that nobody listens, and ends what was begun.
        while cluster.query("select count(*) from pg_stat_activity where application_name like 'lifeboat%'") != "0" {
            std::thread::yield_now();
        }
        let now = rows(&cluster, "hotel", true);
        assert!(now == gone || now == then, "{seen}");
        assert_eq!(rows(&cluster, "hotel", false), others, "{seen}");
    }
    world.run(&restore).ends(0);
    assert_eq!(rows(&cluster, "hotel", true), then);
    assert_eq!(rows(&cluster, "hotel", false), others);
    nothing_is_left(&cluster);
}

/// A hotel is sold: its rows get another name. Keys that hold the name follow it; those that do not are in the way while the old one has them.
#[test]
fn a_tenant_comes_back_under_another_name() {
    let (cluster, world) = chain(15);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let new = "11111111-1111-1111-1111-111111111111";
    let restore = [
        "restore",
        "hotel",
        "--tenant",
        ID,
        "--as",
        new,
        "--backup",
        "1",
        "--in-place",
        "--yes",
    ];
    let refused = world.run(&restore).ends(6);
    assert!(
        refused.stderr.contains("rows of somebody else under keys of the tenant"),
        "{}",
        refused.stderr
    );
    cluster.query_in("hotel", &DISASTER.replace("TENANT", TENANT));
    let others = rows(&cluster, "hotel", false);
    let done = world.run(&restore).ends(0);
    assert!(done.stdout.contains(&format!("the tenant {ID} as {new}")), "{}", done.stdout);
    assert_eq!(
        cluster.query_in(
            "hotel",
            &format!("select (select name from tenants where id = '{new}'), (select count(*) from rooms where tenant_id = '{new}'), \
                (select count(*) from items where tenant = '{new}'), (select count(*) from item_tags where tenant = '{new}'), (select count(*) from nights where tenant_id = '{new}')")
        ),
        "tenant 3|20|15|20|140"
    );
    let gone = DISASTER.replace("TENANT", &format!("'{new}'"));
    cluster.query_in("hotel", gone.split("update rooms").next().unwrap());
    assert_eq!(rows(&cluster, "hotel", false), others);
    nothing_is_left(&cluster);
    world
        .run(&[
            "restore",
            "hotel",
            "--tenant",
            ID,
            "--as",
            "x",
            "--backup",
            "1",
            "--in-place",
            "--yes",
        ])
        .ends(2);
}

#[test]
fn a_tenant_comes_back_from_a_cluster_as_it_was_at_a_moment() {
    let cluster = Cluster::start(18, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in("hotel", CHAIN);
    let world = followed(&cluster, ", tenants: { root: public.tenants.id, map: tenant-map.yaml }");
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["follow", "hotel", "--once"]).ends(0);
    world.run(&["backup", "hotel"]).ends(0);
    cluster.query_in("hotel", &format!("insert into notes values ({TENANT}, 'the last')"));
    let (then, at) = (rows(&cluster, "hotel", true), moment(&cluster));
    cluster.query_in("hotel", &DISASTER.replace("TENANT", TENANT));
    let others = rows(&cluster, "hotel", false);
    held(&cluster, &world);
    world
        .run(&["restore", "hotel", "--tenant", ID, "--at", &at, "--in-place", "--yes"])
        .ends(0);
    assert_eq!(rows(&cluster, "hotel", true), then);
    assert_eq!(rows(&cluster, "hotel", false), others);
    nothing_is_left(&cluster);
    // Behind the disaster there is nobody of this name.
    cluster.query_in("hotel", &DISASTER.replace("TENANT", TENANT));
    let gone = moment(&cluster);
    cluster.query_in("hotel", "insert into settings values ('c', 'd')");
    held(&cluster, &world);
    world
        .run(&["restore", "hotel", "--tenant", ID, "--at", &gone, "--in-place", "--yes"])
        .ends(9);
}

/// A tenant is whoever the server takes the name for, also in columns that hold it as text.
#[test]
fn a_tenant_that_is_written_in_another_way_is_the_same() {
    let (cluster, world) = chain(16);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let loud = ID.to_uppercase();
    let extract = world
        .run(&["backup", "hotel", "--tenant", &loud, "--json"])
        .ends(0)
        .json("backup");
    let extract = extract["components"][0]["backup"]["id"].as_str().unwrap().to_owned();
    cluster.query_in("hotel", &format!("delete from labels where tenant_id = '{ID}'"));
    for from in ["1", extract.as_str()] {
        let looked = world
            .run(&["restore", "hotel", "--tenant", &loud, "--backup", from, "--dry-run"])
            .ends(0);
        assert!(
            looked.stdout.contains("public.labels: insert 1, update 0, delete 0"),
            "{}",
            looked.stdout
        );
        assert!(!looked.stdout.contains("public.rooms:"), "{}", looked.stdout);
    }
    // The table of tenants is the root, whatever somebody wrote.
    let wrong = map(&world).replace("\"public.tenants\": root", "\"public.tenants\": shared");
    world.write("tenant-map.yaml", &wrong);
    let refused = world.run(&["backup", "hotel", "--tenant", ID]).ends(7);
    assert!(refused.stderr.contains("is to be classified as root"), "{}", refused.stderr);
}

/// What was shown and kept is what is replaced: a row that changes in between stops it.
#[test]
fn rows_that_change_after_they_were_shown_are_not_replaced() {
    let (cluster, world) = chain(15);
    world.write("tenant-map.yaml", &map(&world));
    world.run(&["backup", "hotel"]).ends(0);
    let of_room = format!("where tenant_id = {TENANT} and number = 'R1'");
    cluster.query_in("hotel", &format!("update rooms set price = 1000 {of_room}"));
    // Somebody is about to change the same row again, and does so while the restore waits for the table.
    let session = |sql: &str| cluster.spawn("psql", &["-XAtq", "-d", "hotel", "-c", sql]);
    let mut holder = session("select pg_advisory_lock(1); select pg_sleep(600)");
    cluster.wait_until("select count(*) = 1 from pg_locks where locktype = 'advisory' and granted");
    let mut writer = session(&format!(
        "begin; update rooms set price = 2000 {of_room}; select pg_advisory_lock(1); commit"
    ));
    cluster.wait_until("select count(*) = 1 from pg_locks where locktype = 'advisory' and not granted");
    let mut command = world.command();
    command.args(["restore", "hotel", "--tenant", ID, "--in-place", "--yes"]);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let running = command.spawn().unwrap();
    cluster.wait_until("select count(*) > 0 from pg_locks where mode = 'ShareRowExclusiveLock' and not granted");
    cluster.query("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted");
    assert!(writer.wait().unwrap().success());
    holder.wait().unwrap();
    let refused = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(6), "{said}");
    assert!(said.contains("changed since they were looked at"), "{said}");
    assert_eq!(
        cluster.query_in("hotel", &format!("select price from rooms {of_room}")),
        "2000.00"
    );
    nothing_is_left(&cluster);
}
