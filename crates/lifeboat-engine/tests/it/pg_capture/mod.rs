//! Clusters that are read while they are written to, and what starts from what was read.

mod place;
mod stream;

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use lifeboat_engine::postgres::capture::{Captured, Content, Local, Options as CaptureOptions};
use lifeboat_engine::postgres::manifest;
use lifeboat_model::ErrorKind;
use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};
use place::{Place, connect, number, options};
use rustix::process::Signal;

async fn capture(cluster: &Cluster, place: &Place) -> Captured {
    let session = connect(cluster).await;
    let mut local = Local::begin(&session.client, &options()).await.unwrap();
    let mut last = String::new();
    while let Some(item) = local.next_item().unwrap() {
        last.clone_from(&item.file.path);
        if item.file.path.starts_with("outside/") {
            let Content::Stream(mut stream) = item.content else { panic!() };
            stream.read_to_end(&mut Vec::new()).unwrap();
            continue;
        }
        place.write(&item.file, item.content);
    }
    assert_eq!(last, "global/pg_control");
    local.finish(&session.client).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_cluster_comes_back_consistent() {
    for major in majors() {
        // Everything that is written between start and stop stays in pg_wal, from where the test takes it.
        let cluster = Cluster::start(major, &Options::new().set("wal_keep_size", "2GB"));
        let space = cluster.make_folder("space");
        cluster.query(&format!("create tablespace apart location '{}'", space.display()));
        cluster.query("create table far (a int) tablespace apart");
        cluster.query("insert into far select generate_series(1, 10000)");
        cluster.query("create unlogged table quick as select 1 as a");
        cluster.pgbench_init(4);
        let bench = cluster.spawn("pgbench", &["-c", "2", "-T", "60", "postgres"]);
        cluster.wait_until("select count(*) > 50 from pgbench_history");
        let place = Place::new(&cluster);
        let captured = capture(&cluster, &place).await;
        cluster.query("drop table far");
        let bench_pid = rustix::process::Pid::from_raw(i32::try_from(bench.id()).unwrap()).unwrap();
        rustix::process::kill_process(bench_pid, Signal::INT).unwrap();
        drop(bench.wait_with_output());
        // Its last transactions may end after it.
        cluster.wait_until("select count(*) = 0 from pg_stat_activity where application_name = 'pgbench'");
        assert_eq!(captured.facts.bad_page_count, 0, "{:?}", captured.facts.bad_pages);
        assert_eq!(captured.facts.tablespaces.len(), 1);
        assert!(captured.warnings.is_empty(), "{:?}", captured.warnings);
        let listed = manifest::read(captured.manifest.as_slice(), |_file| Ok(())).unwrap();
        assert!(listed.files > 500 && listed.wal.len() == 1);
        place.complete(&captured, &cluster.data_dir());
        // What the source has now is what the log leads to.
        let rows = cluster.query("select count(*) from pgbench_history");
        let sandbox = place.start(major).await;
        let session = sandbox.connect("postgres").await.unwrap();
        let deltas = number(&session, "select coalesce(sum(delta), 0)::bigint from pgbench_history").await;
        for table in ["accounts", "tellers", "branches"] {
            let column = format!("{}balance", table.chars().next().unwrap());
            let sum = number(&session, &format!("select sum({column})::bigint from pgbench_{table}")).await;
            assert_eq!(sum, deltas, "{major}: {table}");
        }
        assert_eq!(
            number(&session, "select count(*) from pgbench_history").await.to_string(),
            rows,
            "{major}"
        );
        assert_eq!(
            number(&session, "select count(*) from quick").await,
            0,
            "unlogged tables begin anew"
        );
        // The primary keys agree with the tables.
        session.client().batch_execute("set enable_seqscan = off").await.unwrap();
        assert_eq!(
            number(&session, "select count(aid) from pgbench_accounts where aid > 0").await,
            400_000
        );
        drop(session);
        sandbox.stop(&lifeboat_testkit::env::real_env(), Signal::INT).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_pages_are_named_and_do_not_end_the_backup() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new());
        cluster.pgbench_init(1);
        let path = cluster.query("select pg_relation_filepath('pgbench_accounts')");
        cluster.stop(Stop::Fast);
        let file = std::fs::File::options()
            .write(true)
            .open(cluster.data_dir().join(&path))
            .unwrap();
        file.write_all_at(b"damage", 77 * 8192 + 5000).unwrap();
        cluster.begin();
        let place = Place::new(&cluster);
        let captured = capture(&cluster, &place).await;
        assert_eq!(captured.facts.bad_page_count, 1);
        assert_eq!(
            (captured.facts.bad_pages[0].0.as_str(), captured.facts.bad_pages[0].1),
            (path.as_str(), 77)
        );
        assert!(captured.warnings[0].contains("block 77"), "{:?}", captured.warnings);
        let json = serde_json::to_string(&captured.facts).unwrap();
        assert_eq!(
            serde_json::from_str::<lifeboat_engine::postgres::capture::Facts>(&json).unwrap(),
            captured.facts
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_server_is_refused() {
    let major = majors()[0];
    let (one, other) = (Cluster::start(major, &Options::new()), Cluster::start(major, &Options::new()));
    let session = connect(&one).await;
    // Both are copies of the same: only the process tells them apart.
    let elsewhere = CaptureOptions {
        data_dir: Some(other.data_dir()),
        ..options()
    };
    let error = Local::begin(&session.client, &elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(error.detail().contains("another server"), "{error}");
    let nowhere = CaptureOptions {
        data_dir: Some(PathBuf::from("/nowhere")),
        ..options()
    };
    assert_eq!(
        Local::begin(&session.client, &nowhere).await.unwrap_err().kind(),
        ErrorKind::Unreachable
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_ends_in_no_backup() {
    let mut cluster = Cluster::start(majors()[0], &Options::new());
    let session = connect(&cluster).await;
    let mut local = Local::begin(&session.client, &options()).await.unwrap();
    cluster.kill_9();
    while let Some(item) = local.next_item().unwrap() {
        match item.content {
            Content::Stream(mut stream) => {
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
            Content::Pages(pages) => while pages.next_segment(&mut Vec::new()).unwrap().is_some() {},
            Content::Changes(_) => panic!("changes"),
        }
    }
    let error = local.finish(&session.client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_elsewhere_is_taken_along() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new());
        cluster.pgbench_init(1);
        cluster.stop(Stop::Fast);
        let (data, etc, far) = (cluster.data_dir(), cluster.make_folder("etc"), cluster.make_folder("far"));
        let script = format!(
            "set -e; cd {data}; mv pg_xact {far}/xact; ln -s {far}/xact pg_xact; mkdir {far}/logs; echo x > {far}/logs/today; \
             ln -s {far}/logs log; ln -s /nowhere dangling; mv pg_hba.conf {etc}/hba; mkdir {etc}/conf.d; \
             echo \"work_mem = '5MB'\" > {etc}/conf.d/memory.conf; echo \"hba_file = '{etc}/hba'\" >> postgresql.conf; \
             mv postgresql.conf {far}/real.conf; ln -s {far}/real.conf postgresql.conf; \
             chown -R --reference=. {etc} {far}",
            data = data.display(),
            etc = etc.display(),
            far = far.display()
        );
        let status = Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
        assert!(status.success());
        cluster.begin();
        let place = Place::new(&cluster);
        let captured = capture(&cluster, &place).await;
        let facts = &captured.facts;
        assert_eq!(
            facts.links.keys().map(String::as_str).collect::<Vec<_>>(),
            ["dangling", "log"],
            "{major}"
        );
        assert_eq!(
            facts.followed.keys().map(String::as_str).collect::<Vec<_>>(),
            ["pg_xact", "postgresql.conf"]
        );
        assert_eq!(facts.outside, [format!("outside{}/hba", etc.display())]);
        assert!(place.folder.join("pg_xact/0000").is_file() && !place.folder.join("log").exists());
        let conf = std::fs::read_to_string(place.folder.join("postgresql.conf")).unwrap();
        assert!(conf.contains("hba_file"), "the content of the link");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_read_like_a_primary_unless_it_is_promoted() {
    for major in majors() {
        let primary = Cluster::start(major, &Options::new().set("wal_keep_size", "1GB"));
        primary.pgbench_init(1);
        let standby = primary.standby(&Options::new());
        standby.wait_for_replay(&primary);
        let place = Place::new(&standby);
        let captured = capture(&standby, &place).await;
        assert!(captured.facts.from_standby);
        assert_eq!(captured.facts.bad_page_count, 0);
        place.complete(&captured, &primary.data_dir());
        let sandbox = place.start(major).await;
        let session = sandbox.connect("postgres").await.unwrap();
        assert_eq!(number(&session, "select count(*) from pgbench_accounts").await, 100_000);
        drop(session);
        sandbox.stop(&lifeboat_testkit::env::real_env(), Signal::QUIT).await.unwrap();
        // Promoted between start and stop: no backup.
        let session = connect(&standby).await;
        let mut local = Local::begin(&session.client, &options()).await.unwrap();
        standby.promote();
        while let Some(item) = local.next_item().unwrap() {
            match item.content {
                Content::Stream(mut stream) => {
                    stream.read_to_end(&mut Vec::new()).unwrap();
                }
                Content::Pages(pages) => while pages.next_segment(&mut Vec::new()).unwrap().is_some() {},
                Content::Changes(_) => panic!("changes"),
            }
        }
        let error = local.finish(&session.client).await.unwrap_err();
        assert!(error.detail().contains("promoted"), "{major}: {error}");
    }
}
