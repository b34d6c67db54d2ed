//! A schema as large applications have it: 160 tables, hundreds of foreign keys, 200 tenants.

use std::fmt::Write as _;

use lifeboat_testkit::postgres::{Cluster, Options};

use crate::logical::world as hotel_world;

const TABLES: usize = 160;
const TENANTS: usize = 200;
/// Rows of each tenant in each table.
const ROWS: usize = 4;

/// Tables in a row; each refers to some before it, one in four finds its tenant by that alone.
fn make(cluster: &Cluster) {
    cluster.query_in("hotel", 
        "create table tenants(id int primary key, name text); insert into tenants select i, 'tenant ' || i from generate_series(1, 200) i; \
         create table kinds(id int primary key, name text); insert into kinds select i, 'kind ' || i from generate_series(1, 30) i; \
         create type state as enum ('new', 'open', 'closed'); \
         create function touch() returns trigger language plpgsql as $$ begin new.note := 'touched'; return new; end $$; ",
    );
    for table in 0..TABLES {
        let mut sql = String::new();
        let is_direct = table % 4 != 3;
        let partitioned = table % 20 == 7;
        let (key, by) = if partitioned {
            ("primary key (id, at)", " partition by range (at)")
        } else {
            ("primary key (id)", "")
        };
        let tenant = if is_direct {
            "tenant_id int not null references tenants, "
        } else {
            ""
        };
        write!(sql, "create table t{table}({tenant}id bigint not null, at date not null default '2026-03-01', kind int references kinds, state state, note text, n int, \
            twice int generated always as (n * 2) stored, {key}){by}; ").unwrap();
        if partitioned {
            for (year, next) in [(2025, 2026), (2026, 2027)] {
                write!(
                    sql,
                    "create table t{table}_{year} partition of t{table} for values from ('{year}-01-01') to ('{next}-01-01'); "
                )
                .unwrap();
            }
        }
        // A partitioned table has no key of its number alone, so nothing refers to one.
        let before: Vec<usize> = (0..table).rev().filter(|other| other % 20 != 7).take(3).collect();
        for (nth, other) in before.iter().enumerate() {
            let required = if nth == 0 { "not null" } else { "" };
            write!(sql, "alter table t{table} add column p{nth} bigint {required} constraint t{table}_p{nth} references t{other}; create index on t{table}(p{nth}); ").unwrap();
        }
        let columns: String = (0..before.len()).map(|nth| format!(", p{nth}")).collect();
        let values = if before.is_empty() {
            String::new()
        } else {
            ", s.i".repeat(before.len())
        };
        let (column, tenant) = if is_direct {
            ("tenant_id, ", "1 + (s.i - 1) / ROWS, ")
        } else {
            ("", "")
        };
        write!(sql, "insert into t{table}({column}id, at, kind, state, note, n{columns}) select {tenant}s.i, date '2025-06-01' + (s.i % 500)::int, 1 + s.i % 30, \
            (array['new', 'open', 'closed'])[1 + s.i % 3]::state, 'row ' || s.i, s.i{values} from generate_series(1, {}) s(i); ", TENANTS * ROWS).unwrap();
        if table % 3 == 0 {
            write!(
                sql,
                "create trigger touch before update on t{table} for each row execute function touch(); "
            )
            .unwrap();
        }
        if is_direct && table % 5 == 0 {
            write!(sql, "alter table t{table} enable row level security; create policy own on t{table} using (tenant_id = current_setting('app.tenant')::int); ").unwrap();
        }
        cluster.query_in("hotel", &sql.replace("ROWS", &ROWS.to_string()));
    }
}

/// Every table: how many rows, and what they come to. Rows of the tenant have the numbers `17 * ROWS - ROWS + 1` to `17 * ROWS`.
fn sums(cluster: &Cluster, database: &str, which: &str) -> String {
    let one = |table: usize| {
        format!(
            "select {table} as nth, count(*) as n, md5(string_agg(t::text, ';' order by id)) as sum from t{table} t where {which} (id between 65 and 68)"
        )
    };
    let all: Vec<String> = (0..TABLES).map(one).collect();
    cluster.query_in(
        database,
        &format!(
            "select string_agg(nth || ' ' || n || ' ' || coalesce(sum, ''), ',' order by nth) from ({}) x",
            all.join(" union all ")
        ),
    )
}

#[test]
fn one_of_two_hundred_tenants_goes_and_comes_back_in_a_schema_of_many_tables() {
    let cluster = Cluster::start(16, &Options::new());
    cluster.query("create database hotel");
    make(&cluster);
    let links = "select count(*) from pg_constraint where contype = 'f' and conparentid = 0";
    assert!(cluster.query_in("hotel", links).parse::<usize>().unwrap() > 500);
    let world = hotel_world(&cluster, ", tenants: { root: public.tenants.id, map: tenant-map.yaml }");
    let map = world.run(&["tenant-map", "hotel"]).ends(0).stdout;
    assert!(
        !map.contains("unclassified") && map.contains("\"public.t3\": { through: \"t3_p0\" }"),
        "{map}"
    );
    world.write("tenant-map.yaml", &map);
    // The whole, by digest.
    world.run(&["backup", "hotel"]).ends(0);
    world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
    for which in ["", "not"] {
        assert_eq!(sums(&cluster, "copy", which), sums(&cluster, "hotel", which));
    }
    assert_eq!(cluster.query_in("copy", links), cluster.query_in("hotel", links));
    cluster.query("drop database copy");
    // One tenant: taken out, deleted, brought back.
    let (mine, others) = (sums(&cluster, "hotel", ""), sums(&cluster, "hotel", "not"));
    let extract = world
        .run(&["backup", "hotel", "--tenant", "17", "--json"])
        .ends(0)
        .json("backup");
    let extract = extract["components"][0]["backup"]["id"].as_str().unwrap().to_owned();
    let mut disaster = String::from("set session_replication_role = replica; delete from tenants where id = 17; ");
    for table in 0..TABLES {
        write!(disaster, "delete from t{table} where id between 65 and 68; ").unwrap();
    }
    cluster.query_in("hotel", &disaster);
    assert_eq!(sums(&cluster, "hotel", "not"), others);
    let done = world
        .run(&[
            "restore",
            "hotel",
            "--tenant",
            "17",
            "--backup",
            &extract,
            "--in-place",
            "--yes",
        ])
        .ends(0);
    assert!(
        done.stdout.contains("641 rows inserted, 0 updated, 0 deleted"),
        "{}",
        done.stdout
    );
    assert_eq!(sums(&cluster, "hotel", ""), mine);
    assert_eq!(sums(&cluster, "hotel", "not"), others);
    assert_eq!(
        cluster.query_in("hotel", "select name from tenants where id = 17"),
        "tenant 17"
    );
}
