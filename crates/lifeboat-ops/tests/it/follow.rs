//! Following real servers of every major: what is held is byte for byte what stands in their files, whatever dies in between.

mod busy;
mod faults;
mod idle;
mod kill;
mod mend;
mod parts;
mod pushed;
mod world;

use lifeboat_model::{ErrorKind, Lsn, Timeline};
use lifeboat_testkit::postgres::{Cluster, Options as Server, Stop, majors};
use world::{Followed, flushed, small_segments};

use crate::world::kind_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_followed_is_what_stands_in_the_files() {
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        cluster.query("create table t as select generate_series(1, 20000) as i");
        let until = flushed(&cluster);
        // To the end of what is there, and no further: a schedule may do it so.
        let report = world.once().await.unwrap();
        assert!(report.stored.unwrap().lsn >= until, "{report:?}");
        assert!(report.gaps.is_empty() && report.alarms.is_empty(), "{report:?}");
        world.same_as_files(&cluster, 1).await;
        // Again, while the server writes; frames arrive without a segment being full.
        let following = world.begin();
        for round in 0..5 {
            cluster.query(&format!("insert into t select generate_series(1, 1000 * {round})"));
            let until = flushed(&cluster);
            world.wait_for(&following, Timeline::FIRST, until).await;
        }
        // Another one cannot follow meanwhile.
        assert_eq!(kind_of(world.once().await), ErrorKind::Locked);
        let report = following.end().await.unwrap();
        assert!(report.alarms.is_empty(), "{report:?}");
        world.same_as_files(&cluster, 1).await;
        let standing = world.standing();
        assert_eq!(standing.timeline, 1);
        assert_eq!(standing.stored.parse::<Lsn>().unwrap(), report.stored.unwrap().lsn);
        assert!(world.frames().await < 60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_commit_waits_for_the_follower_and_a_crashed_server_is_followed_on() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        cluster.query("create table t (i int)");
        let following = world.begin();
        cluster.query(&format!("alter system set synchronous_standby_names = '{}'", world.slot()));
        cluster.reload();
        cluster.wait_until("select bool_or(sync_state = 'sync') from pg_stat_replication");
        for round in 0..20 {
            let before = flushed(&cluster);
            cluster.query(&format!("insert into t values ({round})"));
            // It is durable here before the commit is answered.
            let durable = cluster
                .query("select flush_lsn from pg_stat_replication")
                .parse::<Lsn>()
                .unwrap();
            assert!(durable > before && durable <= flushed(&cluster), "{before} {durable}");
        }
        cluster.query("alter system reset synchronous_standby_names");
        cluster.kill_9();
        cluster.begin();
        cluster.query("insert into t values (-1)");
        world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
        cluster.restart(Stop::Fast);
        cluster.query("insert into t values (-2)");
        world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
        following.end().await.unwrap();
        world.same_as_files(&cluster, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_is_followed_with_its_history_first() {
    for major in majors() {
        let primary = Cluster::start(major, &small_segments());
        primary.query("create table t as select generate_series(1, 5000) as i");
        let standby = primary.standby(&Server::new().set("wal_keep_size", "64MB"));
        standby.wait_for_replay(&primary);
        let world = Followed::new(&standby).await;
        let following = world.begin();
        primary.query("insert into t select generate_series(1, 5000)");
        let until = flushed(&primary);
        world.wait_for(&following, Timeline::FIRST, until).await;
        standby.promote();
        standby.query("insert into t select generate_series(1, 5000)");
        let two = Timeline::new(2).unwrap();
        world.wait_for(&following, two, flushed(&standby)).await;
        following.end().await.unwrap();
        world.same_as_files(&standby, 1).await;
        world.same_as_files(&standby, 2).await;
        let history = world.reader().await.history(two).await.unwrap();
        let file = std::fs::read(standby.data_dir().join("pg_wal/00000002.history")).unwrap();
        assert_eq!(history, file);
        // The old primary was left behind: its log is not taken for the cluster's.
        let old = world.at(&primary);
        let error = old.once().await.unwrap_err();
        assert!(error.to_string().contains("old primary"), "{error}");
    }
}

/// PG-05, PG-08.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_is_gone_is_a_gap_and_another_cluster_is_refused() {
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        cluster.query("create table t as select generate_series(1, 5000) as i");
        if major == majors()[0] {
            // What is held ends with a segment.
            drop(world.once().await.unwrap());
            cluster.query("insert into t values (0); select pg_switch_wal()");
        }
        let before = world.once().await.unwrap().stored.unwrap();
        cluster.query(&format!("select pg_drop_replication_slot('{}')", world.slot()));
        for _ in 0..5 {
            cluster.query("insert into t select generate_series(1, 3000); select pg_switch_wal(); checkpoint");
        }
        let report = world.once().await.unwrap();
        let [gap] = report.gaps.as_slice() else { panic!("{report:?}") };
        assert_eq!((gap.timeline, gap.start), (Timeline::FIRST, before.lsn), "{report:?}");
        assert!(report.alarms.iter().any(|alarm| alarm.contains("MISSING")), "{report:?}");
        let listing = world.listing().await;
        assert_eq!(listing.gaps.len(), 1);
        assert_eq!(listing.gaps[0].range, *gap);
        assert!(report.stored.unwrap().lsn > gap.end);
        world.same_as_files(&cluster, 1).await;
        // Followed on behind it, nothing more is missing.
        cluster.query("insert into t values (1)");
        let report = world.once().await.unwrap();
        assert!(report.gaps.is_empty(), "{report:?}");

        let other = Cluster::start(major, &small_segments().fresh(&[]));
        let error = world.at(&other).once().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        let text = error.to_string();
        assert!(text.contains(&cluster.system_identifier().to_string()), "{text}");
        assert!(text.contains(&other.system_identifier().to_string()), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_is_followed_for_longer_than_its_silence() {
    let cluster = Cluster::start(majors()[0], &small_segments().set("wal_sender_timeout", "1s"));
    let world = Followed::new(&cluster).await;
    let following = world.begin();
    cluster.query("create table t (i int)");
    world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
    let backend = cluster.query("select pid from pg_stat_replication");
    // Longer than the server bears a silent receiver, twice.
    cluster.wait_until("select bool_or(reply_time > backend_start + interval '2500 ms') from pg_stat_replication");
    assert_eq!(cluster.query("select pid from pg_stat_replication"), backend);
    following.end().await.unwrap();
}
