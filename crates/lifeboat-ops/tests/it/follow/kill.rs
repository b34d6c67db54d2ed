//! kill -9 of the follower, a real process, at seeded moments under load.
//!
//! The server recycles what was acknowledged, so that a follower which had acknowledged more than it holds would find a gap afterwards.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifeboat_model::Entropy as _;
use lifeboat_model::Timeline;
use lifeboat_ops::follow;
use lifeboat_testkit::env::SeededEntropy;
use lifeboat_testkit::postgres::{Cluster, majors};

use super::world::{Followed, flushed, small_segments};
use crate::world::World;

const FOLDER: &str = "LIFEBOAT_TEST_FOLLOW_FOLDER";
const DSN: &str = "LIFEBOAT_TEST_FOLLOW_DSN";

/// The other side: follows until it is killed. Nothing where it is run as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Some(folder), Ok(dsn)) = (std::env::var_os(FOLDER), std::env::var(DSN)) else {
        return;
    };
    let world = Followed::of(World::at(Path::new(&folder), false).await, super::world::source(&dsn));
    let (options, _) = world.options(false);
    let (env, protected, instance) = (&world.world.env, &world.world.protected, world.world.instance.clone());
    let ended = follow::run(env, protected, instance, options, std::future::pending()).await;
    panic!("it ended: {ended:?}");
}

/// Starts the other side, with `words` of a shell before it, and waits until it follows.
fn start(folder: &Path, cluster: &Cluster, words: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("{words} exec \"$0\" --exact follow::kill::child --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder)
        .env(DSN, cluster.dsn("postgres", "postgres"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Reads what it says until this comes, and lets the rest go.
fn until_it_says(child: &mut Child, words: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines
        .by_ref()
        .map_while(Result::ok)
        .inspect(|line| eprintln!("child: {line}"))
        .any(|line| line.contains(words));
    assert!(said, "the follower ended without saying {words:?}");
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("child: {line}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_follower_has_lost_nothing_that_it_acknowledged() {
    let soak = std::env::var_os("LIFEBOAT_SOAK").is_some();
    let seed = std::env::var("LIFEBOAT_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    let random = SeededEntropy::new(seed);
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments().set("wal_sender_timeout", "5s"));
        cluster.pgbench_init(1);
        let folder = tempfile::tempdir().unwrap();
        let world = Followed::within(folder.path(), &cluster, true).await;
        for round in 0..if soak { 50 } else { 2 } {
            let mut child = start(folder.path(), &cluster, "");
            until_it_says(&mut child, "following from");
            let mut bench = cluster.spawn("pgbench", &["-n", "-c", "2", "-T", "1", "postgres"]);
            let mut drawn = [0; 2];
            random.fill(&mut drawn).unwrap();
            let pause = Duration::from_millis(u64::from(u16::from_le_bytes(drawn)) % 800);
            eprintln!("PostgreSQL {major}, kill {round} after {pause:?} (LIFEBOAT_TEST_SEED={seed})");
            std::thread::sleep(pause);
            child.kill().unwrap();
            child.wait().unwrap();
            bench.wait().unwrap();
            // Everything in front of what was acknowledged goes.
            cluster.query("checkpoint; select pg_switch_wal(); checkpoint");
        }
        let until = flushed(&cluster);
        let report = world.once().await.unwrap();
        assert!(report.gaps.is_empty() && report.alarms.is_empty(), "{report:?}");
        let coverage = world.coverage().await;
        let ranges: Vec<_> = coverage.ranges().collect();
        assert_eq!(ranges.len(), 1, "{ranges:?}");
        assert!(coverage.end(Timeline::FIRST) >= Some(until));
        world.same_as_files(&cluster, 1).await;
        // Every byte opens and is what its file says.
        for range in ranges {
            world.read_all(range).await;
        }
    }
}

/// A disk that is full, as a limit on the size of files shows it: nothing is acknowledged that is not there, and later everything is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_following_and_loses_nothing() {
    let cluster = Cluster::start(majors()[0], &small_segments());
    let folder = tempfile::tempdir().unwrap();
    let world = Followed::within(folder.path(), &cluster, true).await;
    let begin = world.once().await.unwrap().stored.unwrap().lsn;
    // 4 MiB; the shell counts in blocks of 512 bytes.
    let mut child = start(folder.path(), &cluster, "trap '' XFSZ; ulimit -f 8192;");
    until_it_says(&mut child, "following from");
    cluster.query("create table t as select repeat(md5(i::text), 30) from generate_series(1, 12000) i");
    let until = flushed(&cluster);
    assert!(until.since(begin) > 8 << 20, "{begin} to {until}");
    cluster.wait_until("select not exists (select from pg_stat_replication where state = 'streaming')");
    let restart = cluster
        .query("select restart_lsn from pg_replication_slots")
        .parse::<lifeboat_model::Lsn>()
        .unwrap();
    assert!(restart < until);
    child.kill().unwrap();
    child.wait().unwrap();
    cluster.query("checkpoint");
    let report = world.once().await.unwrap();
    assert!(report.gaps.is_empty(), "{report:?}");
    assert!(report.stored.unwrap().lsn >= until);
    world.same_as_files(&cluster, 1).await;
}
