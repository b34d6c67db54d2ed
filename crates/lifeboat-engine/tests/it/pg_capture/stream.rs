//! The same from one stream.

use std::io::Read;
use std::os::unix::fs::FileExt;

use lifeboat_engine::postgres::capture::{Captured, Content, Local, Stream, StreamOptions};
use lifeboat_engine::postgres::layout;
use lifeboat_engine::postgres::manifest;
use lifeboat_model::{ErrorKind, Result};
use lifeboat_testkit::postgres::{Cluster, Options, Stop, majors};
use rustix::process::Signal;

use super::place::{Place, connect, number, options};
use crate::postgres::replication;

fn asked() -> StreamOptions {
    StreamOptions {
        label: "a test".into(),
        fast: true,
        max_rate_kib: None,
    }
}

/// Reads a file to its end and forgets it.
fn forget(content: Content) -> Result<()> {
    match content {
        Content::Stream(mut stream) => drop(stream.read_to_end(&mut Vec::new())),
        Content::Pages(pages) => while pages.next_segment(&mut Vec::new())?.is_some() {},
        Content::Changes(mut changes) => while changes.next_page(&mut Vec::new())?.is_some() {},
    }
    Ok(())
}

async fn capture(cluster: &Cluster, place: &Place) -> Captured {
    let session = connect(cluster).await;
    let mut stream = Stream::begin(&session.client, replication(cluster).await, &asked())
        .await
        .unwrap();
    let mut last = String::new();
    while let Some(item) = stream.next_item().unwrap() {
        last.clone_from(&item.file.path);
        if item.file.path.starts_with("outside/") {
            forget(item.content).unwrap();
        } else {
            place.write(&item.file, item.content);
        }
    }
    assert_eq!(last, layout::CONTROL);
    stream.finish(&session.client).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_cluster_comes_back_consistent_from_a_stream() {
    for major in majors() {
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
        let bench_pid = rustix::process::Pid::from_raw(i32::try_from(bench.id()).unwrap()).unwrap();
        rustix::process::kill_process(bench_pid, Signal::INT).unwrap();
        drop(bench.wait_with_output());
        // Its last transactions may end after it.
        cluster.wait_until("select count(*) = 0 from pg_stat_activity where application_name = 'pgbench'");
        let facts = &captured.facts;
        assert_eq!(facts.bad_page_count, 0, "{:?}", facts.bad_pages);
        assert_eq!(
            (facts.mode.as_str(), facts.tablespaces.len(), facts.checksums),
            ("stream", 1, true)
        );
        assert!(captured.warnings.is_empty(), "{:?}", captured.warnings);
        let listed = manifest::read(captured.manifest.as_slice(), |_file| Ok(())).unwrap();
        assert!(listed.files > 500 && listed.wal.len() == 1);
        place.complete(&captured, &cluster.data_dir());
        let rows = cluster.query("select count(*) from pgbench_history");
        let sandbox = place.start(major).await;
        let session = sandbox.connect("postgres").await.unwrap();
        let deltas = number(&session, "select coalesce(sum(delta), 0)::bigint from pgbench_history").await;
        for (table, column) in [("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance")] {
            let sum = number(&session, &format!("select sum({column})::bigint from pgbench_{table}")).await;
            assert_eq!(sum, deltas, "{major}: {table}");
        }
        let found = number(&session, "select count(*) from pgbench_history").await;
        assert_eq!(found.to_string(), rows, "{major}");
        assert_eq!(number(&session, "select count(*) from far").await, 10_000);
        assert_eq!(
            number(&session, "select count(*) from quick").await,
            0,
            "unlogged tables begin anew"
        );
        drop(session);
        sandbox.stop(&lifeboat_testkit::env::real_env(), Signal::INT).await.unwrap();
    }
}

/// Name, size and folder of everything are the same as when the data directory is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_holds_what_the_data_directory_holds() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new());
        let space = cluster.make_folder("space");
        cluster.query(&format!("create tablespace apart location '{}'", space.display()));
        cluster.query("create table far tablespace apart as select generate_series(1, 10000) as a");
        cluster.query("create unlogged table quick as select 1 as a");
        cluster.query("checkpoint");
        let session = connect(&cluster).await;
        let mut local = Local::begin(&session.client, &options()).await.unwrap();
        while let Some(item) = local.next_item().unwrap() {
            forget(item.content).unwrap();
        }
        let local = local.finish(&session.client).await.unwrap();
        let mut stream = Stream::begin(&session.client, replication(&cluster).await, &asked())
            .await
            .unwrap();
        assert_eq!(stream.identity(), format!("postgres:{}", cluster.system_identifier()));
        assert!(stream.total_bytes() > 1 << 20);
        while let Some(item) = stream.next_item().unwrap() {
            forget(item.content).unwrap();
        }
        let stream = stream.finish(&session.client).await.unwrap();
        let names = |manifest: &[u8]| {
            let mut names = Vec::new();
            manifest::read(manifest, |file| {
                names.push((String::from_utf8(file.path).unwrap(), file.size_bytes));
                Ok(())
            })
            .unwrap();
            names.retain(|(path, _)| !["backup_label", "tablespace_map"].contains(&path.as_str()));
            names.sort();
            names
        };
        assert_eq!(names(&stream.manifest), names(&local.manifest), "{major}");
        assert_eq!(stream.facts.folders, local.facts.folders, "{major}");
        let mut facts = stream.facts.clone();
        for (of_stream, of_local) in [
            (&mut facts.mode, &local.facts.mode),
            (&mut facts.start, &local.facts.start),
            (&mut facts.end, &local.facts.end),
        ] {
            assert_ne!(of_stream, of_local);
            of_stream.clone_from(of_local);
        }
        assert_eq!(facts, local.facts, "{major}");
        assert_eq!(stream.tablespace_map, local.tablespace_map);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_stream_is_named_and_a_standby_can_send_it() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new().set("wal_keep_size", "1GB"));
        cluster.pgbench_init(1);
        let standby = cluster.standby(&Options::new());
        standby.wait_for_replay(&cluster);
        let place = Place::new(&standby);
        let captured = capture(&standby, &place).await;
        assert!(captured.facts.from_standby && !place.folder.join("standby.signal").exists());
        assert_eq!(captured.facts.bad_page_count, 0);
        place.complete(&captured, &cluster.data_dir());
        let sandbox = place.start(major).await;
        let session = sandbox.connect("postgres").await.unwrap();
        assert_eq!(number(&session, "select count(*) from pgbench_accounts").await, 100_000);
        drop(session);
        sandbox.stop(&lifeboat_testkit::env::real_env(), Signal::QUIT).await.unwrap();
        drop(standby);

        let path = cluster.query("select pg_relation_filepath('pgbench_accounts')");
        cluster.stop(Stop::Fast);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(cluster.data_dir().join(&path))
            .unwrap();
        let mut whole = [0; 6];
        file.read_exact_at(&mut whole, 177 * 8192 + 5000).unwrap();
        file.write_all_at(b"damage", 177 * 8192 + 5000).unwrap();
        cluster.begin();
        let session = connect(&cluster).await;
        let mut stream = Stream::begin(&session.client, replication(&cluster).await, &asked())
            .await
            .unwrap();
        while let Some(item) = stream.next_item().unwrap() {
            forget(item.content).unwrap();
        }
        // What came is damaged, and no log mends it: that the server reads it well by now changes nothing.
        file.write_all_at(&whole, 177 * 8192 + 5000).unwrap();
        let captured = stream.finish(&session.client).await.unwrap();
        let facts = &captured.facts;
        assert_eq!(facts.bad_page_count, 1);
        assert_eq!((facts.bad_pages[0].0.as_str(), facts.bad_pages[0].1), (path.as_str(), 177));
        assert!(captured.warnings[0].contains("block 177"), "{:?}", captured.warnings);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_in_the_middle_of_a_stream_ends_in_no_backup() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &Options::new());
        cluster.pgbench_init(4);
        let session = connect(&cluster).await;
        let slow = StreamOptions {
            max_rate_kib: Some(20_000),
            ..asked()
        };
        let mut stream = Stream::begin(&session.client, replication(&cluster).await, &slow)
            .await
            .unwrap();
        let first = stream.next_item().unwrap().unwrap();
        cluster.kill_9();
        let failed = forget(first.content).and_then(|()| {
            while let Some(item) = stream.next_item()? {
                forget(item.content)?;
            }
            Ok(())
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unreachable);
        let error = stream.finish(&session.client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_ends_and_takes_its_backup_along() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    cluster.pgbench_init(4);
    let session = connect(&cluster).await;
    let stream = Stream::begin(&session.client, replication(&cluster).await, &asked())
        .await
        .unwrap();
    cluster.wait_until("select count(*) = 1 from pg_stat_progress_basebackup");
    drop(stream);
    cluster.wait_until("select count(*) = 0 from pg_stat_progress_basebackup");
}

/// Moves a folder out of the data directory and leaves a link.
fn link(cluster: &Cluster, folder: &str) {
    let far = cluster.folder().join(format!("far-{}", folder.replace('/', "-")));
    let script = format!(
        "set -e; cd {}; test -e {folder} || mkdir {folder}; mv {folder} {far}; ln -s {far} {folder}; chown -R --reference=. {far}",
        cluster.data_dir().display(),
        far = far.display()
    );
    let status = std::process::Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
    assert!(status.success());
}

/// What the server leaves out of a stream is told, and what cannot be missed refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_on_the_server_are_told() {
    for (index, major) in majors().into_iter().enumerate() {
        let mut cluster = Cluster::start(major, &Options::new());
        link(&cluster, "log");
        let session = connect(&cluster).await;
        let mut stream = Stream::begin(&session.client, replication(&cluster).await, &asked())
            .await
            .unwrap();
        while let Some(item) = stream.next_item().unwrap() {
            forget(item.content).unwrap();
        }
        let captured = stream.finish(&session.client).await.unwrap();
        assert!(
            captured.warnings.iter().any(|warning| warning.contains("/log")),
            "{:?}",
            captured.warnings
        );
        let database = cluster.query("select 'base/' || oid from pg_database where datname = 'postgres'");
        drop(session);
        cluster.stop(Stop::Fast);
        // The first has files in every cluster, the second in few, the third is one of several.
        let moved = ["pg_xact", "pg_twophase", database.as_str()][index % 3];
        link(&cluster, moved);
        cluster.begin();
        let session = connect(&cluster).await;
        let mut stream = Stream::begin(&session.client, replication(&cluster).await, &asked())
            .await
            .unwrap();
        while let Some(item) = stream.next_item().unwrap() {
            forget(item.content).unwrap();
        }
        let error = stream.finish(&session.client).await.unwrap_err();
        assert_eq!((error.kind(), error.subject()), (ErrorKind::Refused, moved), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_at_once_are_refused() {
    let major = majors()[0];
    let (one, other) = (
        Cluster::start(major, &Options::new()),
        Cluster::start(major, &Options::new().fresh(&[])),
    );
    let session = connect(&one).await;
    let error = Stream::begin(&session.client, replication(&other).await, &asked())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}
