//! An idle database, a slot that the server took away, segments of another size.

use std::time::Duration;

use lifeboat_model::Timeline;
use lifeboat_model::wal::Range;
use lifeboat_ops::follow::Options;
use lifeboat_repo::{LogFileKind, LogReader};
use lifeboat_testkit::postgres::{Cluster, Options as Server, majors};

use super::world::{Followed, flushed, small_segments};

/// The newest time that the stores tell, and how many frames stand.
async fn marked(world: &Followed) -> (i64, usize) {
    let reader: LogReader = world.reader().await;
    let judged = reader.headers(|name| name.kind != LogFileKind::History).await.unwrap();
    let frames = judged.fit.iter().filter(|(name, _)| name.kind == LogFileKind::Frame);
    (
        judged.marks().map(|mark| mark.at_us).max().unwrap_or(i64::MIN),
        frames.count(),
    )
}

fn now_us(cluster: &Cluster) -> i64 {
    let now = cluster.query("select (extract(epoch from clock_timestamp()) * 1000000)::bigint");
    now.parse().unwrap()
}

/// Nothing is written, and yet the time until which the log is complete goes on; without a file more for each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_an_idle_database_goes_on() {
    let cluster = Cluster::start(majors()[0], &Server::new().set("wal_sender_timeout", "3s"));
    let mut world = Followed::new(&cluster).await;
    world.with = |options| Options {
        ask_every: Duration::from_millis(300),
        mark_every: Duration::from_secs(1),
        ..options
    };
    let following = world.begin();
    cluster.query("create table t as select generate_series(1, 100) as i");
    world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
    let quiet = now_us(&cluster);
    let mut frames = 0;
    // Twice: a mark replaces the one before it.
    for wanted in [quiet, quiet + 2_000_000] {
        for round in 0.. {
            let (at_us, standing) = marked(&world).await;
            if at_us > wanted {
                frames = standing;
                break;
            }
            assert!(round < 400, "the time stands still at {at_us}, and {wanted} has passed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(frames < 12, "{frames} frames");
    // A time is never ahead of the server's.
    assert!(marked(&world).await.0 < now_us(&cluster));
    let end = world.coverage().await.end(Timeline::FIRST).unwrap();
    following.end().await.unwrap();
    let first = world.coverage().await.ranges().next().unwrap().start;
    world.read_all(Range::new(Timeline::FIRST, first, end)).await;
}

/// PG-08: `max_slot_wal_keep_size` saves the server's disk, and the log that we had not fetched is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up_is_a_gap_and_is_made_anew() {
    for major in majors() {
        let server = small_segments().set("max_slot_wal_keep_size", "1MB");
        let cluster = Cluster::start(major, &server);
        let world = Followed::new(&cluster).await;
        cluster.query("create table t as select generate_series(1, 5000) as i");
        let before = world.once().await.unwrap().stored.unwrap();
        for _ in 0..5 {
            cluster.query("insert into t select generate_series(1, 3000); select pg_switch_wal(); checkpoint");
        }
        let status = || {
            cluster.query(&format!(
                "select wal_status from pg_replication_slots where slot_name = '{}'",
                world.slot()
            ))
        };
        assert_eq!(status(), "lost", "{major}");
        let report = world.once().await.unwrap();
        let [gap] = report.gaps.as_slice() else { panic!("{report:?}") };
        assert_eq!((gap.timeline, gap.start), (Timeline::FIRST, before.lsn), "{report:?}");
        let told = |words: &str| report.alarms.iter().any(|alarm| alarm.contains(words));
        assert!(told("keeps nothing any more") && told("run a new backup"), "{report:?}");
        assert_eq!(world.listing().await.gaps[0].range, *gap);
        assert!(status() != "lost", "{major}");
        cluster.query("insert into t values (1)");
        let until = flushed(&cluster);
        let report = world.once().await.unwrap();
        assert!(report.gaps.is_empty() && report.stored.unwrap().lsn >= until, "{report:?}");
        world.same_as_files(&cluster, 1).await;
    }
}
