//! Holes that others leave, times that are not to be believed, lineages that begin while somebody dies.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::wal::Range;
use lifeboat_model::{Lsn, Timeline};
use lifeboat_ops::follow::{self, Options, Pushed};
use lifeboat_repo::{Lineage, LogFileKind};
use lifeboat_testkit::postgres::{Cluster, Options as Server, Stop, majors, run_as_test_user};

use super::faults::write;
use super::world::{Followed, flushed, small_segments};

async fn marks(world: &Followed) -> Vec<(Lsn, i64)> {
    let judged = world.reader().await.headers(|_| true).await.unwrap();
    judged.marks().map(|mark| (mark.position.lsn, mark.at_us)).collect()
}

fn now_us(cluster: &Cluster) -> i64 {
    let text = cluster.query("select (extract(epoch from clock_timestamp()) * 1000000)::bigint");
    text.parse().unwrap()
}

/// Every byte from the first that is held to `until` is held.
async fn assert_whole(world: &Followed, timeline: u32, until: Lsn) {
    let coverage = world.coverage().await;
    let tli = Timeline::new(timeline).unwrap();
    let ranges: Vec<Range> = coverage.ranges().filter(|range| range.timeline == tli).collect();
    assert!(ranges.len() == 1 && ranges[0].end >= until, "{until}: {ranges:?}");
}

/// A follower that comes back far behind is told where the server is sending, with the time of now: no file may say that it is complete until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_never_said_for_a_position_behind_which_something_was_committed_before() {
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        cluster.query("create table t (a text)");
        world.once().await.unwrap();
        let mut commits = Vec::new();
        for _ in 0..4 {
            let end = write(&cluster, 10);
            commits.push((now_us(&cluster), end));
        }
        // Longer than the margin.
        let last = commits[commits.len() - 1].0;
        cluster.wait_until(&format!(
            "select extract(epoch from clock_timestamp()) * 1000000 > {last} + 1500000"
        ));
        world.once().await.unwrap();
        let marks = marks(&world).await;
        assert!(!marks.is_empty());
        for (position, at_us) in marks {
            for (committed_us, end) in &commits {
                let is_behind = *end > position && *committed_us < at_us;
                assert!(
                    !is_behind,
                    "{major}: {end} was committed at {committed_us}, and {position} is said to be complete until {at_us}"
                );
            }
        }
    }
}

/// An idle database can be brought back to any moment, too, and costs few files: also where its log ends with a block.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_goes_on_while_nothing_is_written() {
    let cluster = Cluster::start(
        majors()[0],
        &Server::new().set("autovacuum", "off").set("checkpoint_timeout", "1h"),
    );
    let mut world = Followed::new(&cluster).await;
    world.with = |options| Options {
        ask_every: Duration::from_millis(200),
        mark_every: Duration::from_millis(500),
        ..options
    };
    cluster.query("create table t (i int); insert into t values (1); checkpoint");
    for restarted in [false, true] {
        if !restarted {
            cluster.query("select pg_switch_wal()");
        }
        let following = world.begin();
        world.wait_for(&following, Timeline::FIRST, flushed(&cluster)).await;
        for _ in 0..2 {
            let (from_us, end) = (now_us(&cluster), flushed(&cluster));
            let files = world.frames().await;
            let mut looks = 0;
            while !marks(&world)
                .await
                .iter()
                .any(|(position, at_us)| *position >= end && *at_us > from_us)
            {
                looks += 1;
                assert!(
                    looks < 400,
                    "{:?} {:?}",
                    marks(&world).await,
                    following.events.lock().unwrap()
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(world.frames().await <= files + 2);
            assert!(world.standing().stored_us > 0);
        }
        let report = following.end().await.unwrap();
        assert!(report.alarms.is_empty(), "{report:?}");
    }
}

/// A backup without a follower stores its own log behind what was followed; the follower's slot keeps what lies between, and it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_between_a_follower_and_a_backup_is_not_left_out() {
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        write(&cluster, 1);
        world.once().await.unwrap();
        write(&cluster, 3);
        cluster.query("checkpoint");
        drop(world.world.back_up().await.unwrap());
        assert!(world.coverage().await.ranges().count() > 1, "there is a hole");
        let until = write(&cluster, 1);
        let report = world.once().await.unwrap();
        assert!(report.gaps.is_empty() && report.alarms.is_empty(), "{report:?}");
        assert_whole(&world, 1, until).await;
        world.same_as_files(&cluster, 1).await;
        for range in world.coverage().await.ranges() {
            world.read_all(range).await;
        }
        assert!(world.listing().await.gaps.is_empty());
    }
}

/// The same with files that were pushed ahead of a follower; small ones that a longer file holds are compared with the spool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_before_a_pushed_file_is_not_left_out() {
    // Files that are read after they were pushed have to be there still.
    let cluster = Cluster::start(majors()[0], &small_segments().set("wal_keep_size", "64MB"));
    let world = Followed::new(&cluster).await;
    write(&cluster, 1);
    world.once().await.unwrap();
    write(&cluster, 3);
    let name = cluster.query("select pg_walfile_name(pg_switch_wal())");
    let ahead = cluster.data_dir().join("pg_wal").join(&name);
    assert_eq!(push(&world, &ahead).await.unwrap(), Pushed::Stored);
    assert_eq!(world.coverage().await.ranges().count(), 2, "there is a hole");
    let until = write(&cluster, 1);
    let report = world.once().await.unwrap();
    assert!(report.gaps.is_empty() && report.alarms.is_empty(), "{report:?}");
    assert_whole(&world, 1, until).await;
    world.same_as_files(&cluster, 1).await;
    // One in the middle of what a follower has.
    let following = world.begin();
    following.says("following from").await;
    let name = cluster.query("select pg_walfile_name(pg_switch_wal())");
    world.wait_for(&following, Timeline::FIRST, write(&cluster, 1)).await;
    let path = cluster.data_dir().join("pg_wal").join(&name);
    assert_eq!(push(&world, &path).await.unwrap(), Pushed::HandedOver);
    let pushed = world.spool().join("pushed");
    while pushed.join(&name).try_exists().unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut other = std::fs::read(&path).unwrap();
    other[9000] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(&name);
    #[expect(clippy::disallowed_methods, reason = "a test makes a file")]
    std::fs::write(&copy, &other).unwrap();
    assert_eq!(push(&world, &copy).await.unwrap(), Pushed::HandedOver);
    following.says("other bytes").await;
    following.end().await.unwrap();
    assert_eq!(std::fs::read(pushed.join(format!("refused-{name}"))).unwrap(), other);
    for range in world.coverage().await.ranges() {
        world.read_all(range).await;
    }
}

async fn push(world: &Followed, path: &std::path::Path) -> lifeboat_model::Result<Pushed> {
    let world = &world.world;
    follow::push(&world.env, &world.protected, Arc::clone(&world.instance), path).await
}

/// After a failover, a backup of the new primary holds log of the new timeline: the rest of the old one comes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_timeline_comes_after_a_backup_of_the_next() {
    let primary = Cluster::start(majors()[0], &small_segments());
    write(&primary, 1);
    let standby = primary.standby(&Server::new().set("wal_keep_size", "64MB"));
    let world = Followed::new(&primary).await;
    world.once().await.unwrap();
    write(&primary, 3);
    standby.wait_for_replay(&primary);
    standby.promote();
    write(&standby, 2);
    standby.query("checkpoint");
    let world = world.at(&standby);
    drop(world.world.back_up().await.unwrap());
    write(&standby, 1);
    let report = world.once().await.unwrap();
    assert!(report.gaps.is_empty() && report.alarms.is_empty(), "{report:?}");
    let two = Timeline::new(2).unwrap();
    let text = String::from_utf8(world.reader().await.history(two).await.unwrap()).unwrap();
    let way = lifeboat_model::wal::History::parse(two, &text).unwrap();
    assert_whole(&world, 1, way.forks()[0].at).await;
    assert_whole(&world, 2, flushed(&standby)).await;
}

/// PG-06: a backup of a server that was set back begins a lineage of its own, and what is left of the old one here comes into the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_server_that_was_set_back_can_be_restored() {
    let major = majors()[0];
    let mut cluster = Cluster::start(major, &small_segments());
    let world = Followed::new(&cluster).await;
    write(&cluster, 1);
    world.once().await.unwrap();
    cluster.stop(Stop::Fast);
    let mut copy = Cluster::around(major, &small_segments(), |data| {
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(cluster.data_dir()).arg(data);
        run_as_test_user(&mut copy);
        assert!(copy.status().unwrap().success());
    });
    cluster.begin();
    write(&cluster, 4);
    let first = world.once().await.unwrap();
    cluster.stop(Stop::Fast);
    copy.begin();
    let world = world.at(&copy);
    let report = world.world.back_up().await.unwrap();
    let need = report.backup.header.log.unwrap();
    assert_ne!(Some(need.lineage), first.lineage);
    world.read_all(need.range).await;
    // What the spool still has of the old lineage is stored there, for good.
    let old = first.lineage.unwrap();
    assert!(world.spool().join(old.to_string()).exists());
    let followed = world.once().await.unwrap();
    assert_eq!(followed.lineage, Some(need.lineage));
    assert!(!world.spool().join(old.to_string()).exists());
    let listing = world.listing().await;
    assert_eq!(listing.lineages.len(), 2);
    let end = first.stored.unwrap().lsn;
    let is_last = |name: &&lifeboat_repo::LogName| name.kind == LogFileKind::Piece && name.range.end >= end;
    assert_eq!(listing.files(old).iter().filter(is_last).count(), 1);
    world.same_as_files(&copy, 1).await;
}

/// Whoever dies between a decision and its record is taken up: the spool belongs to the lineage that was decided on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lineage_that_was_decided_on_begins_with_what_the_spool_holds() {
    let cluster = Cluster::start(majors()[0], &small_segments());
    let world = Followed::new(&cluster).await;
    write(&cluster, 1);
    let old = world.once().await.unwrap().lineage.unwrap();
    let end = world.coverage().await.end(Timeline::FIRST).unwrap();
    // The block that the spool still has.
    let held = Range::new(Timeline::FIRST, lifeboat_repo::block_start(Lsn(end.0 - 1)), end);
    let begun = world.coverage().await.ranges().next().unwrap().start;
    let held = Range::new(held.timeline, held.start.max(begun), end);
    let new = Lineage::draw(&world.world.env).unwrap();
    let text = format!(r#"{{"version":1,"lineage":"{new}","take_over":"{old}","why":"a test"}}"#);
    for _ in 0..2 {
        #[expect(clippy::disallowed_methods, reason = "a test writes what a killed follower left")]
        std::fs::write(world.spool().join("next"), &text).unwrap();
        let report = world.once().await.unwrap();
        assert_eq!(report.lineage, Some(new));
        assert!(!world.spool().join("next").exists() && !world.spool().join(old.to_string()).exists());
        let listing = world.listing().await;
        assert_eq!(listing.lineages.len(), 2);
        let taken = listing.candidates(new);
        assert!(taken.holds(held), "{taken:?}");
    }
    world.same_as_files(&cluster, 1).await;
}

/// A slot of another kind under our name is somebody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logical_slot_of_our_name_is_left_alone() {
    let cluster = Cluster::start(majors()[0], &small_segments().set("wal_level", "logical"));
    let world = Followed::new(&cluster).await;
    cluster.query(&format!(
        "select pg_create_logical_replication_slot('{}', 'pgoutput')",
        world.slot()
    ));
    let error = world.once().await.unwrap_err();
    assert!(error.to_string().contains("logical"), "{error}");
    assert_eq!(cluster.query("select slot_type from pg_replication_slots"), "logical");
}

/// The server gave the slot up, because it held back too much: what is lost is recorded, and following goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up_is_a_gap_and_a_new_slot() {
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments().set("max_slot_wal_keep_size", "3MB"));
        let world = Followed::new(&cluster).await;
        write(&cluster, 1);
        let before = world.once().await.unwrap().stored.unwrap();
        for _ in 0..4 {
            write(&cluster, 4);
            cluster.query("select pg_switch_wal(); checkpoint");
        }
        assert_eq!(cluster.query("select wal_status from pg_replication_slots"), "lost");
        let report = world.once().await.unwrap();
        let [gap] = report.gaps.as_slice() else { panic!("{report:?}") };
        assert_eq!(gap.start, before.lsn, "{report:?}");
        assert!(
            report.alarms.iter().any(|alarm| alarm.contains("run a new backup")),
            "{report:?}"
        );
        assert_eq!(cluster.query("select wal_status from pg_replication_slots"), "reserved");
        let until = write(&cluster, 1);
        let report = world.once().await.unwrap();
        assert!(report.gaps.is_empty() && report.alarms.is_empty(), "{report:?}");
        assert!(report.stored.unwrap().lsn >= until);
        world.same_as_files(&cluster, 1).await;
    }
}

/// Segments of several blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_segments_are_followed_and_pushed() {
    let cluster = Cluster::start(majors()[0], &Server::new().fresh(&["--wal-segsize=64"]));
    let world = Followed::new(&cluster).await;
    write(&cluster, 20);
    world.once().await.unwrap();
    let until = write(&cluster, 20);
    world.once().await.unwrap();
    assert_whole(&world, 1, until).await;
    let name = cluster.query("select pg_walfile_name(pg_switch_wal())");
    let path = cluster.data_dir().join("pg_wal").join(name);
    assert_eq!(push(&world, &path).await.unwrap(), Pushed::Stored);
    let bytes = std::fs::read(&path).unwrap();
    for range in world.coverage().await.ranges() {
        let reader = world.reader().await;
        let mut at = range.start;
        while at < range.end {
            let end = lifeboat_repo::block_end(at).min(range.end);
            let stored = reader.read(Range::new(range.timeline, at, end)).await.unwrap();
            let from = usize::try_from(at.0 % (64 << 20)).unwrap();
            assert!(stored == bytes[from..from + stored.len()], "{at}");
            at = end;
        }
    }
}
