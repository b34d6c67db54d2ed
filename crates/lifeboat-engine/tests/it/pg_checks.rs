//! Checks of clusters on real servers, each also where it has to fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::capture::Facts;
use lifeboat_engine::postgres::capture::counts::{self, Counts};
use lifeboat_engine::postgres::checks::{self, Asked, Assertion, Expect, Orphans, Reach, Wanted, Watch};
use lifeboat_engine::postgres::records::{PAGE_BYTES, Scan};
use lifeboat_engine::postgres::sandbox::{self, Plan, Recovery, Sandbox};
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::wal::SegmentSize;
use lifeboat_model::{Env, Lsn};
use lifeboat_testkit::postgres::{Cluster, Options, Stop, bindir, majors};
use rustix::process::Signal;

const BUDGET: Duration = Duration::from_secs(30);

fn env() -> Env {
    lifeboat_testkit::env::real_env()
}

async fn sandbox(cluster: &Cluster, root: &Path) -> Sandbox {
    let plan = Plan {
        data_dir: cluster.data_dir(),
        dispose: false,
        binaries: Binaries::find(cluster.major(), &[bindir(cluster.major())]).await.unwrap(),
        root: root.to_owned(),
        recovery: Recovery::None,
        durable: false,
        superuser: "postgres".into(),
        preload: None,
        settings: BTreeMap::new(),
        patience: Duration::from_secs(60),
    };
    sandbox::start(&env(), plan).await.unwrap()
}

fn root() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("lbckt").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

async fn count(cluster: &Cluster, user: &str) -> Counts {
    let info = ConnInfo::parse(&cluster.dsn(user, "postgres"), &Surroundings::default()).unwrap();
    counts::take(&info, &env().clock, BUDGET).await
}

/// What the log of the cluster says, from its own files.
fn reach(cluster: &Cluster, counts: &Counts, until: &str) -> Reach {
    let size = SegmentSize::new(16 << 20).unwrap();
    let (from, until): (Lsn, Lsn) = (counts.from.parse().unwrap(), until.parse().unwrap());
    let mut watch = Watch::new(counts).unwrap();
    let mut scan = Scan::new(from, size);
    let mut at = scan.begins();
    while at < until {
        let name = format!("{:08X}{:08X}{:08X}", 1, at.0 >> 32, (at.0 & 0xffff_ffff) >> 24);
        let bytes = std::fs::read(cluster.data_dir().join("pg_wal").join(name)).unwrap();
        let (first, end) = (at.0 % size.bytes(), Lsn((at.0 / size.bytes() + 1) * size.bytes()).min(until));
        let last = first + (end.0 - at.0);
        assert!(first.is_multiple_of(PAGE_BYTES));
        scan.take(
            &bytes[usize::try_from(first).unwrap()..usize::try_from(last).unwrap()],
            |record| watch.see(record),
        );
        at = end;
    }
    let end = scan.finish(|record| watch.see(record));
    // At the end of a page the server counts the next one's header.
    assert!(until.0 - end.at.0 <= 40, "{end:?} {until}");
    watch.finish()
}

fn of<'a>(outcomes: &'a [Outcome], name: &str) -> &'a Outcome {
    outcomes.iter().find(|outcome| outcome.name == name).unwrap()
}

/// Tables in a database of their own.
fn shop(major: u32) -> Cluster {
    let cluster = Cluster::start(major, &Options::new());
    cluster.query("create database shop");
    for table in ["still", "grown", "changed", "cut", "gone", "undone", "moved"] {
        let sql = format!(
            "create table {table} (i int primary key, t text default 'x'); insert into {table} select generate_series(1, 500)"
        );
        cluster.query_in("shop", &sql);
    }
    for sql in [
        "create unlogged table forgotten (i int)",
        "create materialized view seen as select * from still",
        "create table \"Odd \"\"name\" (i int)",
        "create view v as select 1",
        "create table parts (i int) partition by range (i)",
    ] {
        cluster.query_in("shop", sql);
    }
    cluster
}

/// Six tables change, each in another way; of two it only looks so.
fn change(cluster: &Cluster) {
    for sql in [
        "insert into grown select generate_series(501, 600)",
        "checkpoint",
        "update changed set t = 'y' where i = 7",
        "truncate cut",
        "drop table gone",
        "begin; delete from undone; rollback",
        "vacuum full moved",
        "vacuum (freeze) still",
        "vacuum (freeze) seen",
    ] {
        cluster.query_in("shop", sql);
    }
}

/// PG-13: rows are compared only where the log proves that they can be.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compared_where_the_log_has_no_change_of_them() {
    for major in majors() {
        let mut cluster = shop(major);
        let counts = count(&cluster, "postgres").await;
        assert_eq!(counts.why, None);
        let shop = counts.databases.iter().find(|database| database.name == "shop").unwrap();
        let rows: BTreeMap<&str, u64> = shop.tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
        assert_eq!(rows.len(), 9, "{rows:?}");
        assert_eq!((rows["public.still"], rows["public.\"Odd \"\"name\""]), (500, 0));
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), counts);
        change(&cluster);
        let until = cluster.query("select pg_current_wal_insert_lsn()");
        // Everything up to there is in the files when this has been committed.
        cluster.query("create table later ()");
        let reach = reach(&cluster, &counts, &until);
        cluster.stop(Stop::Fast);
        let folder = root();
        let sandbox = sandbox(&cluster, folder.path()).await;
        let asked = async |counts: &Counts, reach: Reach| {
            let wanted = Wanted {
                rows: Some((counts, Ok(reach))),
                assertions: &[],
            };
            of(&checks::run(&env(), &sandbox, &wanted).await, "rows").clone()
        };
        // "still", the view of it and the odd one are as they were; nothing is known of the others.
        let outcome = asked(&counts, reach.clone()).await;
        assert_eq!(outcome.verdict, Verdict::Passed, "{major}: {outcome:?}");
        assert!(
            outcome
                .says
                .contains("3 tables have as many rows as in the source (1,000 rows)"),
            "{outcome:?}"
        );
        assert!(
            outcome.says.contains("6 tables changed since they were counted"),
            "{outcome:?}"
        );
        // A row that is missing.
        let mut more = counts.clone();
        for table in more.databases.iter_mut().flat_map(|database| &mut database.tables) {
            table.rows += u64::from(table.name == "public.still");
        }
        let outcome = asked(&more, reach.clone()).await;
        assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
        assert_eq!(outcome.evidence, ["shop: public.still: 501 rows in the source, 500 here"]);
        // Had the log nothing of it, every one of them would be a loss.
        let outcome = asked(&counts, Reach::default()).await;
        assert_eq!(outcome.verdict, Verdict::Failed, "{outcome:?}");
        let evidence = outcome.evidence.join("\n");
        for lost in [
            "public.gone: it is not there",
            "public.grown: 500 rows in the source, 600 here",
            "public.cut: its rows are in another file",
        ] {
            assert!(evidence.contains(lost), "{major}: {lost}: {evidence}");
        }
        let outcome = asked(&Counts::none("a reason"), Reach::default()).await;
        assert_eq!(
            (outcome.verdict, outcome.says.contains("a reason")),
            (Verdict::NotAvailable, true)
        );
        sandbox.stop(&env(), Signal::QUIT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_not_counted_and_an_open_transaction_hides_nothing() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    cluster.query("create role poor login; create role reader login; grant pg_read_all_data to reader");
    cluster.query("create table open (i int); create table hidden (i int); alter table hidden enable row level security");
    let poor = count(&cluster, "poor").await;
    assert!(poor.databases.iter().all(|database| database.tables.is_empty()), "{poor:?}");
    let reasons = |counts: &Counts| counts.uncounted.keys().cloned().collect::<Vec<_>>().join("\n");
    assert!(reasons(&poor).contains("GRANT pg_read_all_data"), "{poor:?}");
    let reader = count(&cluster, "reader").await;
    assert!(reasons(&reader).contains("hidden from the role by policies"), "{reader:?}");
    assert_eq!(
        reader.databases.iter().map(|database| database.tables.len()).sum::<usize>(),
        1
    );
    // A transaction that wrote before the count and commits after it would be in no log that is looked at.
    let writer = ConnInfo::parse(&cluster.dsn("postgres", "postgres"), &Surroundings::default()).unwrap();
    let writer = lifeboat_engine::postgres::sql::Sql::connect(&writer).await.unwrap();
    writer
        .client
        .batch_execute("begin; insert into open values (1)")
        .await
        .unwrap();
    let info = ConnInfo::parse(&cluster.dsn("reader", "postgres"), &Surroundings::default()).unwrap();
    let counts = counts::take(&info, &env().clock, Duration::from_millis(200)).await;
    assert!(
        counts.why.as_deref().is_some_and(|why| why.contains("transaction")),
        "{counts:?}"
    );
    writer.client.batch_execute("commit").await.unwrap();
    let off = counts::take(&info, &Arc::clone(&env().clock), Duration::ZERO).await;
    assert!(off.why.is_some());
}

/// An index that was not told of a row, and a table with a broken tuple.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lacks_a_row_is_found_or_the_check_is_not_available() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new());
        cluster.query("create table t (i int primary key); insert into t select generate_series(1, 1000)");
        cluster.query("create table u (i int primary key); insert into u select generate_series(1, 1000)");
        let available = cluster.query("select count(*) from pg_available_extensions where name = 'amcheck'") == "1";
        assert!(available || major != 15, "Debian's server brings it");
        cluster.stop(Stop::Fast);
        let folder = root();
        let good = sandbox(&cluster, folder.path()).await;
        let wanted = Wanted {
            rows: None,
            assertions: &[],
        };
        let outcomes = checks::run(&env(), &good, &wanted).await;
        let outcome = of(&outcomes, "tables and indexes");
        let sound = if available { Verdict::Passed } else { Verdict::NotAvailable };
        assert_eq!(outcome.verdict, sound, "{major}: {outcome:?}");
        assert_eq!(of(&outcomes, "rows").verdict, Verdict::NotAvailable);
        let isolation = checks::isolation(&good).await;
        assert_eq!(isolation.verdict, Verdict::Passed, "{major}: {isolation:?}");
        if available {
            let session = good.connect("postgres").await.unwrap();
            let lie = "update pg_index set indisready = false, indisvalid = false where indexrelid = 't_pkey'::regclass";
            session.client().batch_execute(lie).await.unwrap();
            session.client().batch_execute("insert into t values (5000)").await.unwrap();
            session.client().batch_execute(&lie.replace("false", "true")).await.unwrap();
            let outcomes = checks::run(&env(), &good, &wanted).await;
            let outcome = of(&outcomes, "tables and indexes");
            assert_eq!(outcome.verdict, Verdict::Failed, "{major}: {outcome:?}");
            assert_eq!(outcome.evidence.len(), 1, "{outcome:?}");
            assert!(outcome.evidence[0].contains("t_pkey"), "{outcome:?}");
        }
        good.stop(&env(), Signal::QUIT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_does_not_hold_fails_with_its_rows_and_none_can_write() {
    let mut cluster = Cluster::start(majors()[0], &Options::new());
    cluster.query("create table t (i int); insert into t values (1), (2)");
    cluster.query("create function sneak() returns int language sql as 'insert into t values (3) returning i'");
    cluster.stop(Stop::Fast);
    let folder = root();
    let sandbox = sandbox(&cluster, folder.path()).await;
    let (good, bad) = (Verdict::Passed, Verdict::Failed);
    let equals = |text: &str| Expect::Equals(text.to_owned());
    let cases = [
        ("select i from t where i > 2", Expect::NoRows, good, ""),
        (
            "select i, 'x' from t order by i;",
            Expect::NoRows,
            bad,
            "2 rows, and there should be none",
        ),
        ("select count(*) from t -- all", equals("2"), good, "2, as expected"),
        ("select count(*) from t", equals("3"), bad, "2, expected 3"),
        ("select count(*) from t", Expect::AtLeast(2), good, ""),
        ("select count(*) from t", Expect::AtLeast(3), bad, "2, expected at least 3"),
        ("select true", equals("t"), good, ""),
        ("selec 1", Expect::NoRows, bad, "the query failed"),
        ("select 1; drop table t", equals("1"), bad, "the query failed"),
        ("insert into t values (9) returning i", equals("9"), bad, "the query failed"),
        ("select sneak()", equals("3"), bad, "read-only transaction"),
        ("select pg_sleep(60)", Expect::NoRows, bad, "statement timeout"),
    ];
    let assertions: Vec<Assertion> = cases
        .iter()
        .enumerate()
        .map(|(index, (sql, expect, ..))| Assertion {
            name: format!("case {index}"),
            database: "postgres".into(),
            asked: Asked::Query {
                sql: (*sql).to_owned(),
                expect: expect.clone(),
            },
            limit: Duration::from_millis(if sql.contains("sleep") { 50 } else { 10_000 }),
        })
        .chain([Assertion {
            name: "elsewhere".into(),
            database: "nowhere".into(),
            asked: Asked::Query {
                sql: "select 1".into(),
                expect: Expect::NoRows,
            },
            limit: BUDGET,
        }])
        .collect();
    let wanted = Wanted {
        rows: None,
        assertions: &assertions,
    };
    let outcomes = checks::run(&env(), &sandbox, &wanted).await;
    for (index, (sql, _, verdict, words)) in cases.iter().enumerate() {
        let outcome = of(&outcomes, &format!("case {index}"));
        assert_eq!(outcome.verdict, *verdict, "{sql}: {outcome:?}");
        assert!(outcome.says.contains(words), "{sql}: {outcome:?}");
    }
    assert_eq!(of(&outcomes, "case 1").evidence, ["1 | x", "2 | x"]);
    let elsewhere = of(&outcomes, "elsewhere");
    assert!(
        elsewhere.verdict == bad && elsewhere.says.contains("nowhere"),
        "{elsewhere:?}"
    );
    sandbox.stop(&env(), Signal::QUIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn references_of_a_restored_cluster_that_lead_nowhere_are_found() {
    let mut cluster = Cluster::start(15, &Options::new());
    cluster.query("create table k (i int primary key); create table r (i int); insert into k values (1); insert into r values (1), (null), (5)");
    cluster.query("alter table r add constraint rk foreign key (i) references k not valid");
    cluster.stop(Stop::Fast);
    let folder = root();
    let sandbox = sandbox(&cluster, folder.path()).await;
    let wanted = Wanted {
        rows: None,
        assertions: &references(),
    };
    let outcomes = checks::run(&env(), &sandbox, &wanted).await;
    let bad = Verdict::Failed;
    let orphans = of(&outcomes, "orphans");
    assert_eq!(
        (orphans.verdict, orphans.says.as_str(), orphans.evidence.as_slice()),
        (
            bad,
            "1 row of r point at nothing in public.k",
            &["i = 5 (1 row)".to_owned()][..]
        )
    );
    let keys = of(&outcomes, "foreign keys");
    assert!(
        keys.verdict == bad && keys.evidence[0].starts_with("rk (not validated): 1 row"),
        "{keys:?}"
    );
    sandbox.stop(&env(), Signal::QUIT).await.unwrap();
}

/// What has to point at something.
fn references() -> [Assertion; 2] {
    let orphans = Orphans {
        table: "r".into(),
        columns: vec!["i".into()],
        references: "public.k".into(),
        key: vec!["i".into()],
    };
    [("orphans", Asked::Orphans(orphans)), ("foreign keys", Asked::ForeignKeys)].map(|(name, asked)| Assertion {
        name: name.into(),
        database: "postgres".into(),
        asked,
        limit: BUDGET,
    })
}

#[test]
fn a_damaged_page_is_found_and_without_numbers_nothing_is_known() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new());
        cluster.query("create table t as select i, repeat('x', 100) from generate_series(1, 1000) i");
        let path = cluster.query("select pg_relation_filepath('t')");
        cluster.stop(Stop::Fast);
        let facts = facts();
        let whole = checks::pages::check(&cluster.data_dir(), &facts, 2);
        assert_eq!(whole.verdict, Verdict::Passed, "{major}: {whole:?}");
        let place = cluster.data_dir().join(&path);
        let mut bytes = std::fs::read(&place).unwrap();
        bytes[3 * 8192 + 5000] ^= 4;
        std::fs::write(&place, &bytes).unwrap();
        let damaged = checks::pages::check(&cluster.data_dir(), &facts, 2);
        assert_eq!(damaged.verdict, Verdict::Failed, "{major}: {damaged:?}");
        assert_eq!(damaged.evidence, [format!("block 3 of {path}")]);
        let mut known = facts.clone();
        known.bad_pages.push((path.clone(), 3, "0/1".into()));
        let known = checks::pages::check(&cluster.data_dir(), &known, 1);
        assert_eq!(known.evidence, [format!("block 3 of {path}, damaged in the source already")]);
        std::fs::remove_file(cluster.data_dir().join("global/pg_control")).unwrap();
        let lost = checks::pages::check(&cluster.data_dir(), &facts, 1);
        assert_eq!(lost.verdict, Verdict::Failed, "{lost:?}");
    }
    let mut bare = Cluster::start(majors()[0], &Options::new().fresh(&["--no-data-checksums"]));
    bare.stop(Stop::Fast);
    let outcome = checks::pages::check(&bare.data_dir(), &facts(), 1);
    assert_eq!(outcome.verdict, Verdict::NotAvailable, "{outcome:?}");
}

/// As few facts as there can be.
fn facts() -> Facts {
    serde_json::from_str(
        r#"{ "mode": "local", "system_identifier": "1", "version": "15.0", "major": 15, "start": "0/1", "end": "0/2", "timeline": 1,
             "from_standby": false, "wal_segment_bytes": 16777216, "checksums": true, "needs": {}, "superuser": "postgres", "preload": "",
             "folders": {} }"#,
    )
    .unwrap()
}
