//! Logical backups while something goes wrong: connections that end, tables that somebody waits for, programs that are not what they should be.

use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors, run_as_test_user};

use crate::logical::{hotel, listed, world};

/// A database whose largest table takes a while to read.
fn slow(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in(
        "hotel",
        "create function slow(int) returns int language plpgsql as $$ begin perform pg_sleep(0.004); return $1; end $$; \
         create table big(a int, b int generated always as (a + 1) stored); insert into big select i from generate_series(1, 500000) i; \
         create table other(a int); insert into other select i from generate_series(1, 300000) i; \
         create table late(a int); insert into late values (1), (2)",
    );
    cluster
}

/// Waits until the query in the database `postgres` answers so.
fn wait_until(cluster: &Cluster, sql: &str, answer: &str) {
    while cluster.query(sql) != answer {
        std::thread::yield_now();
    }
}

#[test]
fn a_lost_connection_ends_the_whole_backup_and_nothing_is_listed() {
    for major in majors() {
        let cluster = slow(major);
        let world = world(&cluster, "");
        let sessions = "from pg_stat_activity where application_name = 'lifeboat' and datname = 'hotel'";
        // A worker; and whoever holds the snapshot, whose transaction is the oldest.
        for victim in [
            "query like 'COPY%'".to_owned(),
            format!(
                "pid = (select pid {sessions} order by xact_start limit 1) and exists (select {sessions} and query like 'COPY%')"
            ),
        ] {
            let (mut struck, mut failed) = (0, None);
            while struck == 0 {
                let mut command = world.command();
                command
                    .args(["backup", "hotel"])
                    .stderr(std::process::Stdio::piped())
                    .stdout(std::process::Stdio::piped());
                let mut backup = command.spawn().unwrap();
                while backup.try_wait().unwrap().is_none() && struck == 0 {
                    let kill = format!(
                        "select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity where datname = 'hotel' and application_name = 'lifeboat' and ({victim}) limit 1) x"
                    );
                    struck = cluster.query(&kill).parse().unwrap();
                }
                failed = Some(backup.wait_with_output().unwrap());
            }
            let failed = failed.unwrap();
            assert!(!failed.status.success(), "{major} {victim}");
            let said = String::from_utf8_lossy(&failed.stderr).into_owned();
            assert!(
                ["terminating connection", "closed", "snapshot"]
                    .iter()
                    .any(|word| said.contains(word)),
                "{major} {victim}: {said}"
            );
            let listed = listed(&world);
            assert!(listed.is_empty(), "{major} {victim}: {listed:#?}");
        }
        world.run(&["backup", "hotel"]).ends(0);
    }
}

#[test]
fn whoever_waits_to_alter_a_table_neither_stops_the_backup_nor_is_stopped_by_it() {
    let cluster = slow(15);
    let world = world(&cluster, "");
    let mut altered = false;
    while !altered {
        let mut command = world.command();
        command
            .args(["backup", "hotel", "--full"])
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        let mut backup = command.spawn().unwrap();
        let locked = "select count(*) > 0 from pg_locks l join pg_stat_activity a using (pid) where a.datname = 'hotel' and a.application_name = 'lifeboat' and mode = 'AccessShareLock' and a.query ~ '^COPY'";
        while backup.try_wait().unwrap().is_none() && cluster.query(locked) != "t" {}
        let mut alter = cluster.spawn(
            "psql",
            &["-XAtq", "-d", "hotel", "-c", "alter table late add column more int default 7"],
        );
        let done = backup.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(alter.wait().unwrap().success());
        // Otherwise it came before the snapshot or behind the end.
        world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
        altered = cluster.query_in(
            "copy",
            "select count(*) from information_schema.columns where table_name = 'late'",
        ) == "1";
        assert_eq!(cluster.query_in("copy", "select sum(a) from late"), "3");
        cluster.query("drop database copy");
        cluster.query_in("hotel", "alter table late drop column more");
    }
    wait_until(
        &cluster,
        "select count(*) from pg_stat_activity where application_name = 'lifeboat'",
        "0",
    );
}

#[test]
fn wrong_or_older_programs_are_named() {
    let cluster = hotel(16);
    let world = world(&cluster, "");
    let folder = world.path("programs");
    std::fs::create_dir(&folder).unwrap();
    let script = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let real = cluster.bindir().join("pg_dump");
    world.edit_config(&cluster.bindir().display().to_string(), &folder.display().to_string());
    script("pg_dump", "echo 'pg_dump (PostgreSQL) 13.4'");
    let refused = world.run(&["backup", "hotel"]);
    // Where another one is installed, that one is taken.
    if refused.code != 0 {
        assert!(
            refused.stderr.contains("13.4") && refused.stderr.contains("16 or newer"),
            "{}",
            refused.stderr
        );
    }
    script(
        "pg_dump",
        &format!(
            "case $1 in --version) exec {0} --version;; esac; {0} \"$@\" | head -c 5000; kill -9 $$",
            real.display()
        ),
    );
    script(
        "pg_dumpall",
        &format!("exec {} \"$@\"", cluster.bindir().join("pg_dumpall").display()),
    );
    let failed = world.run(&["backup", "hotel"]).ends(1);
    assert!(failed.stderr.contains("read the definitions of"), "{}", failed.stderr);
    assert_eq!(
        cluster.query("select count(*) from pg_stat_activity where state = 'idle in transaction'"),
        "0"
    );
}

/// A table that is rewritten has another file, in which an older snapshot sees nothing.
#[test]
fn a_table_that_was_rewritten_while_its_lock_was_waited_for_is_not_taken_for_empty() {
    for major in majors() {
        let cluster = slow(major);
        let world = world(&cluster, "");
        for alter in [
            "alter table late alter a type bigint",
            "alter table late add column more int default 7",
            "truncate late; insert into late values (1), (2)",
        ] {
            let hold = format!("begin; {alter}; select pg_sleep(2); commit");
            let mut altering = cluster.spawn("psql", &["-XAtq", "-d", "hotel", "-c", &hold]);
            wait_until(
                &cluster,
                "select count(*) > 0 from pg_locks where mode = 'AccessExclusiveLock' and granted and relation >= 16384 and database = (select oid from pg_database where datname = 'hotel')",
                "t",
            );
            world.run(&["backup", "hotel"]).ends(0);
            assert!(altering.wait().unwrap().success());
            world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
            assert_eq!(
                cluster.query_in("copy", "select count(*), sum(a) from late"),
                "2|3",
                "{major} {alter}"
            );
            cluster.query("drop database copy");
        }
    }
}

#[test]
fn only_what_an_interrupted_restore_left_is_removed() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    // Somebody's own, however it is called; and leftovers.
    cluster.query("create database lifeboat_restore_of_friday");
    cluster.query("create database lifeboat_restore_20260101t000000_abcdef");
    cluster.query_in(
        "hotel",
        "create schema lifeboat_restore_mine; create schema lifeboat_restore_20260101t000000_abcdef",
    );
    // One on which a session says that it works.
    cluster.query("create database lifeboat_restore_20260101t000000_123456");
    let mut working = cluster.spawn(
        "psql",
        &[
            "-XAtq",
            "-c",
            "set application_name = 'lifeboat_restore_20260101t000000_123456'; select pg_sleep(600)",
        ],
    );
    wait_until(
        &cluster,
        "select count(*) from pg_stat_activity where application_name like 'lifeboat_restore_%'",
        "1",
    );
    world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
    world
        .run(&["restore", "hotel", "--tables", "rooms", "--to", "rescued"])
        .ends(0);
    let left = "select string_agg(datname, ' ' order by datname) from pg_database where datname like 'lifeboat%'";
    assert_eq!(
        cluster.query(left),
        "lifeboat_restore_20260101t000000_123456 lifeboat_restore_of_friday"
    );
    assert_eq!(
        cluster.query_in(
            "hotel",
            "select string_agg(nspname, ' ') from pg_namespace where nspname like 'lifeboat%'"
        ),
        "lifeboat_restore_mine"
    );
    working.kill().unwrap();
    working.wait().unwrap();
    // Nobody can call his own like that by us.
    world.run(&["restore", "hotel", "--to", "lifeboat_restore_x"]).ends(2);
    world
        .run(&["restore", "hotel", "--tables", "rooms", "--to", "lifeboat_restore_x"])
        .ends(2);
}

#[test]
fn a_restore_that_fails_with_a_subscription_leaves_nothing_and_asks_nobody() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    cluster.query_in(
        "hotel",
        "create subscription s connection 'host=elsewhere.invalid dbname=x' publication p with (connect = false); \
         create table app.gone(a int); create function app.f() returns bigint language sql as 'select count(*) from app.gone'; \
         create materialized view app.broken as select app.f() as n; alter table app.gone rename to gone_elsewhere",
    );
    world.run(&["backup", "hotel"]).ends(0);
    world.run(&["restore", "hotel", "--to", "copy"]).ends(1);
    assert_eq!(
        cluster.query("select count(*) from pg_database where datname ~ 'lifeboat|copy'"),
        "0"
    );
    world
        .run(&["restore", "hotel", "--tables", "rooms", "--to", "rescued"])
        .ends(0);
    assert_eq!(cluster.query("select count(*) from pg_subscription"), "1");
}

#[test]
fn what_is_in_place_is_only_moved_by_whoever_put_it_there_and_never_for_an_empty_one() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    world.run(&["backup", "hotel", "--schema-only"]).ends(0);
    // Definitions alone take nobody's place, and are compared with nobody's rows.
    world
        .run(&["restore", "hotel", "--backup", "2", "--in-place", "--yes"])
        .ends(6);
    let bare = world
        .run(&["restore", "hotel", "--backup", "2", "--to", "bare", "--json"])
        .ends(0)
        .json("restore");
    world
        .run(&["restore", "promote", bare["components"][0]["id"].as_str().unwrap(), "--yes"])
        .ends(6);
    world.run(&["diff", "1", "2", "hotel"]).ends(2);
    world.run(&["restore", "hotel", "--backup", "2", "--tables", "rooms"]).ends(2);
    let restore = |name: &str| {
        let done = world
            .run(&["restore", "hotel", "--backup", "1", "--to", name, "--json"])
            .ends(0)
            .json("restore");
        done["components"][0]["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (restore("one"), restore("two"));
    world.run(&["restore", "promote", &first, "--yes"]).ends(0);
    world.run(&["restore", "promote", &second, "--yes"]).ends(0);
    let oid = "select oid from pg_database where datname = 'hotel'";
    let now = cluster.query(oid);
    let refused = world.run(&["restore", "undo", &first]).ends(6);
    assert!(
        refused.stderr.contains("not what this restore put there"),
        "{}",
        refused.stderr
    );
    assert_eq!(cluster.query(oid), now);
    world.run(&["restore", "undo", &second]).ends(0);
    world.run(&["restore", "undo", &first]).ends(0);
}

/// A swap that cannot be done leaves the database open, also where a killed run had closed it.
#[test]
fn a_swap_that_fails_leaves_the_original_open() {
    let mut cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    let done = world
        .run(&["restore", "hotel", "--to", "one", "--json"])
        .ends(0)
        .json("restore");
    let id = done["components"][0]["id"].as_str().unwrap().to_owned();
    // A prepared transaction is nobody's session, and keeps a database from being renamed.
    cluster.query("alter system set max_prepared_transactions = 2");
    cluster.restart(Stop::Fast);
    cluster.query_in("hotel", "begin; insert into app.hot values (1); prepare transaction 'waits'");
    for closed_before in [false, true] {
        if closed_before {
            cluster.query("alter database hotel allow_connections false");
        }
        world.run(&["restore", "promote", &id, "--yes"]).ends(11);
        assert_eq!(
            cluster.query("select datallowconn from pg_database where datname = 'hotel'"),
            "t"
        );
    }
    cluster.query_in("hotel", "rollback prepared 'waits'");
    world.run(&["restore", "promote", &id, "--yes"]).ends(0);
}

/// A server that cannot write any more: here its files may not grow beyond a size, which it meets as it meets a full disk.
#[test]
fn a_server_that_runs_full_keeps_nothing_of_a_restore() {
    let cluster = Cluster::start(16, &Options::new());
    cluster.query("create database hotel");
    cluster.query_in(
        "hotel",
        "create table big(a int, b text); insert into big select i, repeat('x', 40) from generate_series(1, 600000) i; create index on big(b, a)",
    );
    let world = world(&cluster, "");
    world.run(&["backup", "hotel"]).ends(0);
    // Sessions that begin from now on may not write beyond it.
    let limit = |bytes: &str| {
        let mut prlimit = std::process::Command::new("prlimit");
        prlimit.args(["--pid", &cluster.pid().unwrap().to_string(), &format!("--fsize={bytes}:")]);
        run_as_test_user(&mut prlimit);
        assert!(prlimit.status().unwrap().success());
    };
    // Nothing of the original is left to be written by these sessions.
    cluster.query_in("hotel", "vacuum freeze");
    cluster.query("checkpoint");
    // A segment of the log has 16 MiB, which still fits.
    limit("17825792");
    for words in [
        &["restore", "hotel", "--to", "copy"][..],
        &["restore", "hotel", "--tables", "big", "--to", "rescued"],
        &["restore", "hotel", "--tables", "big", "--in-place", "--delete", "--yes"],
    ] {
        let failed = world.run(words).ends(1);
        assert!(failed.stderr.contains("File too large"), "{}", failed.stderr);
        assert_eq!(
            cluster.query("select count(*) from pg_database where datname ~ 'lifeboat|copy'"),
            "0"
        );
        assert_eq!(
            cluster.query_in(
                "hotel",
                "select (select count(*) from pg_namespace where nspname ~ 'lifeboat|rescued'), (select count(*) from big)"
            ),
            "0|600000"
        );
    }
    limit("unlimited");
    world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
}
