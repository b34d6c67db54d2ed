//! Clusters that are backed up over the wire: as a whole, and as what changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::postgres::layout::Relation;
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::ErrorKind;
use lifeboat_ops::Source;
use lifeboat_ops::backup::Report;
use lifeboat_ops::protected::{self, Login, Mode};
use lifeboat_repo::{Backup, Reader};
use lifeboat_testkit::pages::MemorySink;
use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};

use crate::world::World;

/// A world for this cluster, which is not asked where its data is.
async fn world(cluster: &Cluster) -> World {
    let mut world = World::new(1).await;
    let dsn = cluster.dsn("postgres", "postgres");
    world.protected.source = Source::Postgres(protected::Cluster {
        method: lifeboat_ops::protected::Method::Physical,
        logical: lifeboat_ops::protected::Logical::default(),
        login: Login::known(ConnInfo::parse(&dsn, &Surroundings::default()).unwrap()),
        data_dir: None,
        mode: Mode::Stream,
        slot: "lifeboat_test".to_owned(),
        binaries: vec![cluster.bindir()],
        program: "lifeboat".into(),
        // Counting rows changes pages: the server notes on them what it saw.
        care: protected::Care {
            count_rows: std::time::Duration::ZERO,
            ..protected::Care::default()
        },
    });
    world
}

/// Everything that a backup holds.
async fn files(world: &World, backup: &Backup) -> BTreeMap<String, Vec<u8>> {
    let repository = world.protected.repository().await.unwrap();
    let reader = Reader::open(&world.env, &repository, backup, &world.identities)
        .await
        .unwrap();
    let mut files = BTreeMap::new();
    for file in reader.files() {
        let sink = Arc::new(MemorySink::new());
        reader.restore(file, Arc::<MemorySink>::clone(&sink), false).await.unwrap();
        files.insert(file.meta.path.clone(), sink.bytes());
    }
    files
}

/// A folder of files, by path.
fn folder(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let place = entry.unwrap().path();
            // Links of tablespaces are followed.
            if place.is_dir() {
                folders.push(place);
            } else {
                let path = place.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(path, std::fs::read(&place).unwrap());
            }
        }
    }
    files
}

/// Starts what a backup holds, with the log of its source.
async fn started(world: &World, backup: &Backup, facts: &lifeboat_engine::postgres::capture::Facts, source: &Cluster) -> Cluster {
    let files = files(world, backup).await;
    let mut cluster = Cluster::around(source.major(), &Options::new(), |data| {
        for path in facts.folders.keys() {
            std::fs::create_dir_all(data.join(path)).unwrap();
        }
        for (path, bytes) in &files {
            std::fs::create_dir_all(data.join(path).parent().unwrap()).unwrap();
            std::fs::write(data.join(path), bytes).unwrap();
        }
        let script = "cp \"$0\"/pg_wal/0* \"$1\"/pg_wal/ && chown -R --reference=\"$0\" \"$1\" && chmod -R u=rwX,go= \"$1\"";
        let copied = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .args([source.data_dir(), data.to_owned()])
            .status()
            .unwrap();
        assert!(copied.success());
    });
    cluster.begin();
    cluster
}

fn mode(report: &Report) -> &str {
    &report.facts.postgres().unwrap().mode
}

/// Under load: each backup, whole or as changes, becomes a cluster in which everything agrees.
#[tokio::test(flavor = "multi_thread")]
async fn backups_over_the_wire_start_and_agree() {
    for major in majors() {
        let options = Options::new().set("wal_keep_size", "2GB");
        let options = if major >= 17 {
            options.set("summarize_wal", "on")
        } else {
            options
        };
        let cluster = Cluster::start(major, &options);
        cluster.pgbench_init(3);
        let world = world(&cluster).await;
        // So much that most pages stay as they are, however fast the machine is.
        let mut load = cluster.spawn("pgbench", &["-T", "60", "-c", "2", "-R", "300", "postgres"]);
        let mut reports = Vec::new();
        for round in 0..3 {
            let seen: u64 = cluster.query("select count(*) from pgbench_history").parse().unwrap();
            cluster.wait_until(&format!("select count(*) > {} from pgbench_history", seen + 100));
            let report = world.back_up().await.unwrap();
            let expected = if major >= 17 && round > 0 { "increment" } else { "stream" };
            assert_eq!(mode(&report), expected, "{major} {round}: {:?}", report.notes);
            assert!(report.notes.iter().any(|note| note.contains(expected)), "{:?}", report.notes);
            eprintln!("{major} {round}: {:?} {:?} {:?}", report.took, report.stats, report.notes);
            if expected == "increment" {
                assert!(
                    report.stats.read_bytes * 2 < reports_read(&reports),
                    "only what changed is read"
                );
            }
            reports.push(report);
        }
        load.kill().unwrap();
        load.wait().unwrap();
        let last = reports.pop().unwrap();
        let restored = started(&world, &last.backup, last.facts.postgres().unwrap(), &cluster).await;
        let rows = |cluster: &Cluster| cluster.query("select count(*), coalesce(sum(delta), 0) from pgbench_history");
        assert_eq!(rows(&restored), rows(&cluster), "{major}");
        let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) \
                    and (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)";
        assert_eq!(restored.query(sums), "t", "{major}");
        let by_key = "set enable_seqscan = off; select count(aid) from pgbench_accounts where aid > 0";
        assert_eq!(restored.query(by_key), "300000");
    }
}

fn reports_read(reports: &[Report]) -> u64 {
    reports.first().map_or(0, |report| report.stats.read_bytes)
}

/// What is done before each backup; TWO is a folder for a tablespace.
const WORKS: [&[&str]; 7] = [
    &[],
    &[
        "update pgbench_accounts set abalance = 1 where aid % 977 = 0",
        "insert into grow select generate_series(1, 9000), 'y'",
        "update far set a = a + 1 where a % 100 = 0",
    ],
    // The end of a table goes back to the file system.
    &[
        "delete from cut where a > 200",
        "vacuum (truncate) cut",
        "insert into grow values (1, 'z')",
    ],
    &[
        "cluster sorted using sorted_a",
        "create database files strategy file_copy",
        "create database log strategy wal_log",
        "create tablespace two location 'TWO'",
        "alter table far set tablespace two",
    ],
    &[
        "drop database old",
        "drop tablespace one",
        "insert into cut select generate_series(1, 30000), 'again'",
        "truncate grow",
        "vacuum full pgbench_tellers",
    ],
    // Nothing at all.
    &[],
    &[
        "update pgbench_accounts set abalance = 2 where aid % 500 < 3",
        "insert into grow select 1, 'x'",
    ],
];

/// Every file of a relation is there, and the same.
fn assert_same_pages(ours: &BTreeMap<String, Vec<u8>>, theirs: &BTreeMap<String, Vec<u8>>, number: usize) {
    let pages = |files: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
        files.keys().filter(|path| Relation::parse(path).is_some()).cloned().collect()
    };
    assert_eq!(pages(ours), pages(theirs), "{number}");
    for path in pages(ours) {
        let (ours, theirs) = (&ours[&path], &theirs[&path]);
        let sizes = (ours.len(), theirs.len());
        assert!(ours == theirs, "{path} of {number}: {sizes:?} bytes");
    }
}

/// What increments of all kinds of work become is what the server sends as a whole, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn increments_become_what_a_whole_backup_is() {
    let options = Options::new().set("summarize_wal", "on").set("wal_keep_size", "1GB");
    let mut cluster = Cluster::start(18, &options);
    cluster.pgbench_init(2);
    for sql in [
        "create table cut as select generate_series(1, 60000) as a, repeat('x', 50) as b",
        "create table grow (a int, b text)",
        "create table sorted as select (random() * 1000)::int as a from generate_series(1, 20000)",
        "create index sorted_a on sorted (a)",
        "create database old",
    ] {
        cluster.query(sql);
    }
    let (one, two) = (cluster.make_folder("one"), cluster.make_folder("two"));
    cluster.query(&format!("create tablespace one location '{}'", one.display()));
    cluster.query("create table far tablespace one as select generate_series(1, 9000) as a");
    let world = world(&cluster).await;
    for (number, work) in WORKS.iter().enumerate() {
        for sql in *work {
            cluster.query(&sql.replace("TWO", &two.display().to_string()));
        }
        if number == 5 {
            // Neither a restart nor a crash stands in the way.
            cluster.restart(Stop::Immediate);
        }
        cluster.query("checkpoint");
        let report = world.back_up().await.unwrap();
        eprintln!("{number}: {:?} {:?} {:?}", report.took, report.stats, report.notes);
        assert_eq!(
            mode(&report),
            if number == 0 { "stream" } else { "increment" },
            "{:?}",
            report.notes
        );
        let ours = files(&world, &report.backup).await;
        let fresh = cluster.folder().join(format!("fresh{number}"));
        let mut words = vec!["-D".to_owned(), fresh.display().to_string()];
        words.extend(["-X", "none", "-c", "fast", "-N"].map(str::to_owned));
        for (name, place) in [("one", &one), ("two", &two)] {
            words.push("-T".into());
            words.push(format!("{}={}/{number}{name}", place.display(), cluster.folder().display()));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cluster.run("pg_basebackup", &words);
        assert_same_pages(&ours, &folder(&fresh), number);
        let label = String::from_utf8_lossy(&ours["backup_label"]).into_owned();
        assert!(
            label.contains("START WAL LOCATION") && !label.contains("INCREMENTAL"),
            "{label}"
        );
    }
}

/// Without what an increment needs, everything comes, and it is said why; then increments again.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_an_increment_is_said() {
    let options = Options::new().set("summarize_wal", "on").set("wal_keep_size", "1GB");
    let mut cluster = Cluster::start(18, &options);
    cluster.pgbench_init(1);
    let world = world(&cluster).await;
    let expect = async |expected: &str, why: &str| {
        let report = world.back_up().await.unwrap();
        assert_eq!(mode(&report), expected, "{:?}", report.notes);
        assert!(
            report.notes.iter().any(|note| note.contains(why)),
            "{why}: {:?}",
            report.notes
        );
    };
    expect("stream", "no last backup").await;
    expect("increment", "increment").await;
    cluster.query("alter system set summarize_wal = off");
    cluster.reload();
    cluster.wait_until("select current_setting('summarize_wal') = 'off'");
    expect("stream", "summarize_wal").await;
    cluster.query("alter system set summarize_wal = on");
    cluster.reload();
    cluster.wait_until("select current_setting('summarize_wal') = 'on'");
    expect("increment", "increment").await;
    // All pages change, and no log says so.
    cluster.stop(Stop::Fast);
    let data = cluster.data_dir().display().to_string();
    cluster.run("pg_checksums", &["--disable", "-N", "-D", &data]);
    cluster.begin();
    expect("stream", "checksums were turned").await;
    expect("increment", "increment").await;
    // Summaries that somebody removed.
    cluster.query("update pgbench_accounts set abalance = 3 where aid < 100");
    cluster.query("checkpoint");
    cluster.stop(Stop::Fast);
    let summaries = cluster.data_dir().join("pg_wal/summaries");
    std::fs::remove_dir_all(&summaries).unwrap();
    cluster.begin();
    cluster.query("alter system set summarize_wal = off");
    cluster.reload();
    cluster.wait_until("select current_setting('summarize_wal') = 'off'");
    expect("stream", "summarize_wal").await;
}

/// PG-11: a damaged page of the last backup is one of this backup, too, until it comes anew.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_last_backup_is_told_with_every_increment() {
    let options = Options::new().set("summarize_wal", "on").set("wal_keep_size", "1GB");
    let mut cluster = Cluster::start(18, &options);
    cluster.pgbench_init(1);
    let path = cluster.query("select pg_relation_filepath('pgbench_accounts')");
    cluster.stop(Stop::Fast);
    let place = cluster.data_dir().join(&path);
    let mut bytes = std::fs::read(&place).unwrap();
    bytes[177 * 8192 + 5000] ^= 1;
    cluster.write(&place, &bytes);
    cluster.begin();
    let world = world(&cluster).await;
    let blocks = |report: &Report| -> Vec<(String, u32)> {
        let facts = report.facts.postgres().unwrap();
        assert_eq!(facts.bad_page_count, facts.bad_pages.len() as u64);
        let pages = facts.bad_pages.iter();
        pages.map(|(path, block, _)| (path.clone(), *block)).collect()
    };
    for expected in ["stream", "increment", "increment"] {
        let report = world.back_up().await.unwrap();
        assert_eq!(
            (mode(&report), blocks(&report)),
            (expected, vec![(path.clone(), 177)]),
            "{:?}",
            report.notes
        );
        cluster.query("update pgbench_tellers set tbalance = tbalance + 1");
    }
    cluster.query("truncate pgbench_accounts");
    let report = world.back_up().await.unwrap();
    assert_eq!((mode(&report), blocks(&report)), ("increment", Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_an_increment_leaves_the_last_backup() {
    let options = Options::new().set("summarize_wal", "on").set("wal_keep_size", "1GB");
    let mut cluster = Cluster::start(18, &options);
    cluster.pgbench_init(1);
    let world = world(&cluster).await;
    drop(world.back_up().await.unwrap());
    cluster.query("update pgbench_accounts set abalance = 1");
    let killing = tokio::task::spawn_blocking(move || {
        cluster.wait_until("select count(*) >= 1 from pg_stat_progress_basebackup");
        cluster.kill_9();
        cluster
    });
    match world.back_up().await {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}"),
        Ok(report) => panic!("it was killed too late: {:?}", report.took),
    }
    let mut cluster = killing.await.unwrap();
    cluster.begin();
    let report = world.back_up().await.unwrap();
    assert_eq!((mode(&report), report.backup.id.seq), ("increment", 2), "{:?}", report.notes);
}
