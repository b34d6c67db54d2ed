//! The form in which restored rows are sent: the quick one, text for the tables that it cannot tell, and text for everything where what came of it is wrong.

use lifeboat_testkit::postgres::{Cluster, Options, majors};

use crate::logical::{everything, hotel, world};

/// The COPY statements into a table that the server was given since the log was `before` long, in order.
fn sent(cluster: &Cluster, before: usize, table: &str) -> Vec<String> {
    let log = cluster.log();
    let statements = log.get(before..).unwrap_or_default().lines();
    let into = format!("statement: COPY \"app\".\"{table}\"");
    let found = statements.filter_map(|line| line.split_once(&into).map(|(_, rest)| rest));
    found
        .filter_map(|rest| rest.split_once("FROM STDIN").map(|(_, form)| form.trim().to_owned()))
        .collect()
}

const QUICK: &str = "(FORMAT binary, FREEZE)";
const TEXT: &str = "(FREEZE)";

#[test]
fn rows_go_the_quick_way_where_it_can_tell_them_and_as_text_where_not() {
    for major in majors() {
        let cluster = hotel(major);
        cluster.query("alter system set log_statement = 'all'");
        cluster.query("select pg_reload_conf()");
        cluster.query_in(
            "hotel",
            "create table app.long_ago(at timestamptz); insert into app.long_ago select now() from generate_series(1, 20000); \
             insert into app.long_ago values ('0044-03-15 12:00:00 BC')",
        );
        let world = world(&cluster, "");
        world.run(&["backup", "hotel"]).ends(0);
        let before = cluster.log().len();
        world.run(&["restore", "hotel", "--to", "again"]).ends(0);
        assert_eq!(sent(&cluster, before, "circle_a"), [QUICK], "{major}");
        // It has a list of words; and one has a time that the quick form does not tell, which is found among its rows.
        assert_eq!(sent(&cluster, before, "rooms"), [TEXT], "{major}");
        assert_eq!(sent(&cluster, before, "long_ago"), [QUICK, TEXT], "{major}");
        assert_eq!(everything(&cluster, "again"), everything(&cluster, "hotel"), "{major}");
    }
}

/// In every database that is made from now on, a row that comes as binary becomes another one.
fn spoil_what_comes_as_binary(cluster: &Cluster, when: &str) {
    cluster.query("alter database template0 allow_connections true");
    cluster.query_in(
        "template0",
        &format!(
            "create function public.spoil() returns trigger language plpgsql as $$ begin if {when} then new.b := new.b + 1; end if; return new; end $$; \
             create function public.spoiling() returns event_trigger language plpgsql as $$ begin \
               if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'public.spoiled') then \
                 create trigger spoil before insert on public.spoiled for each row execute function public.spoil(); \
               end if; end $$; \
             create event trigger spoiling on ddl_command_end when tag in ('CREATE TABLE') execute function public.spoiling()"
        ),
    );
    cluster.query("alter database template0 allow_connections false");
}

fn spoiled(when: &str) -> (Cluster, crate::world::World) {
    let cluster = Cluster::start(majors()[0], &Options::new());
    cluster.query("create database hotel");
    cluster.query_in(
        "hotel",
        "create table spoiled(a int, b int); insert into spoiled select i, i from generate_series(1, 1000) i; create table sound as table spoiled",
    );
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    spoil_what_comes_as_binary(&cluster, when);
    (cluster, world)
}

#[test]
fn where_the_quick_way_brought_other_rows_everything_goes_in_as_text() {
    let (cluster, world) = spoiled("current_query() like '%FORMAT binary%' and new.a = 7");
    let restored = world.run(&["restore", "hotel", "--to", "again"]).ends(0);
    let said = format!("{}{}", restored.stdout, restored.stderr);
    assert!(said.contains("once more, as text") && said.contains("spoiled"), "{said}");
    assert_eq!(cluster.query_in("again", "select count(*) from spoiled where a = b"), "1000");
}

#[test]
fn where_text_brings_other_rows_too_nothing_gets_the_name_and_nothing_is_left() {
    let (cluster, world) = spoiled("new.a = 7");
    let refused = world.run(&["restore", "hotel", "--to", "again"]).ends(5);
    assert!(
        refused.stderr.contains("1000 rows as captured, but others"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        cluster.query("select count(*) from pg_database where datname = 'again' or datname like 'lifeboat%'"),
        "0"
    );
}
