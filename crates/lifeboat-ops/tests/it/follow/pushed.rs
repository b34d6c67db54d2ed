//! `wal push`: idempotent, refusing other bytes, handing over to a follower.

use std::path::PathBuf;
use std::sync::Arc;

use lifeboat_model::wal::{LogFile, SegmentSize};
use lifeboat_model::{ErrorKind, Lsn, Timeline};
use lifeboat_ops::follow::{self, Pushed};
use lifeboat_testkit::postgres::{Cluster, Options, majors};

use lifeboat_ops::protected::Place;
use lifeboat_repo::{LogFileKind, Repository, list_log};
use lifeboat_store::BlobStore;

use super::faults::{Door, place};
use super::world::Followed;
use crate::world::kind_of;

const SEGMENT: u64 = 16 << 20;

async fn push(world: &Followed, path: &std::path::Path) -> lifeboat_model::Result<Pushed> {
    let world = &world.world;
    follow::push(&world.env, &world.protected, Arc::clone(&world.instance), path).await
}

/// Fills a segment and gives its file.
fn next_segment(cluster: &Cluster) -> (PathBuf, Lsn) {
    cluster.query("create table if not exists t (i int); insert into t values (1)");
    let name = cluster.query("select pg_walfile_name(pg_switch_wal())");
    let size = SegmentSize::new(SEGMENT).unwrap();
    let Some(LogFile::Segment { number, .. }) = LogFile::parse(&name, size) else {
        panic!("{name} is no segment");
    };
    (cluster.data_dir().join("pg_wal").join(name), size.start_of(number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_is_pushed_once_and_no_other_under_its_name() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new());
        let world = Followed::new(&cluster).await;
        let (path, start) = next_segment(&cluster);
        for _ in 0..2 {
            assert_eq!(push(&world, &path).await.unwrap(), Pushed::Stored);
            assert_eq!(world.coverage().await.end(Timeline::FIRST), Some(start.plus(SEGMENT)));
        }
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join(path.file_name().unwrap());
        let write = |bytes: &[u8]| {
            #[expect(clippy::disallowed_methods, reason = "a test makes a file")]
            std::fs::write(&copy, bytes).unwrap();
        };
        // Other bytes, a file that is cut, one of another place.
        let good = std::fs::read(&path).unwrap();
        let mut other = good.clone();
        other[9000] ^= 1;
        write(&other);
        assert_eq!(kind_of(push(&world, &copy).await), ErrorKind::Refused);
        write(&good[..good.len() - 8192]);
        assert_eq!(kind_of(push(&world, &copy).await), ErrorKind::Corrupt);
        let (next, _) = next_segment(&cluster);
        write(&std::fs::read(&next).unwrap());
        assert_eq!(kind_of(push(&world, &copy).await), ErrorKind::Corrupt);
        // The wrong cluster (PG-05).
        let stranger = Cluster::start(major, &Options::new().fresh(&[]));
        assert_eq!(kind_of(push(&world, &next_segment(&stranger).0).await), ErrorKind::Refused);
        // What recovery never asks for is not kept, and the server may go on.
        let partial = folder.path().join(format!("{}.partial", path.file_name().unwrap().display()));
        #[expect(clippy::disallowed_methods, reason = "a test makes a file")]
        std::fs::write(&partial, &good).unwrap();
        assert_eq!(push(&world, &partial).await.unwrap(), Pushed::NotNeeded);
        let history = folder.path().join("00000002.history");
        #[expect(clippy::disallowed_methods, reason = "a test makes a file")]
        std::fs::write(&history, b"1\t0/9000000\tno recovery target specified\n").unwrap();
        assert_eq!(push(&world, &history).await.unwrap(), Pushed::Stored);
        assert!(world.reader().await.history(Timeline::new(2).unwrap()).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_follows_a_segment_is_handed_over_and_compared() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let world = Followed::new(&cluster).await;
    let (early, _) = next_segment(&cluster);
    let following = world.begin();
    following.says("following from").await;
    // One from before the slot, one that is streamed as well.
    assert_eq!(push(&world, &early).await.unwrap(), Pushed::HandedOver);
    let (path, start) = next_segment(&cluster);
    world.wait_for(&following, Timeline::FIRST, start.plus(SEGMENT)).await;
    assert_eq!(push(&world, &path).await.unwrap(), Pushed::HandedOver);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(path.file_name().unwrap());
    let pushed = world.spool().join("pushed");
    while pushed.join(path.file_name().unwrap()).try_exists().unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut other = std::fs::read(&path).unwrap();
    other[9000] ^= 1;
    #[expect(clippy::disallowed_methods, reason = "a test makes a file")]
    std::fs::write(&copy, &other).unwrap();
    assert_eq!(push(&world, &copy).await.unwrap(), Pushed::HandedOver);
    following.says("is not taken").await;
    following.end().await.unwrap();
    let kept = pushed.join(format!("refused-{}", path.file_name().unwrap().display()));
    assert_eq!(std::fs::read(kept).unwrap(), other);
    assert!(world.coverage().await.ranges().count() <= 2);
}

/// A world over these stores, the first of which makes the repository.
async fn in_stores(cluster: &Cluster, places: [Place; 2]) -> Followed {
    let [first, second] = places;
    let mut world = Followed::in_store(cluster, first).await;
    let repository = world.world.protected.repository().await.unwrap();
    repository.replicate(Arc::clone(&second.store)).await.unwrap();
    world.world.protected.stores.push(second);
    world
}

async fn pieces(world: &Followed, door: &Arc<Door>) -> usize {
    let protected = &world.world.protected;
    let repository = Repository::open(Arc::clone(door) as Arc<dyn BlobStore>).await.unwrap();
    let listing = list_log(&repository, &protected.component, &protected.trust).await.unwrap();
    let Some(record) = listing.lineages.last() else { return 0 };
    let files = listing.files(record.lineage).iter();
    files.filter(|name| name.kind == LogFileKind::Piece).count()
}

/// PG-03: success is what every required store answered, not what one of them has; a store that is not required holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_answered_for_by_every_required_store_and_by_no_other() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let (near, far) = (Door::new(), Door::new());
    let world = in_stores(&cluster, [place("near", &near, true), place("far", &far, true)]).await;
    let (path, _) = next_segment(&cluster);
    assert_eq!(push(&world, &path).await.unwrap(), Pushed::Stored);
    let (path, _) = next_segment(&cluster);
    far.shut(true);
    assert_eq!(kind_of(push(&world, &path).await), ErrorKind::Unreachable);
    assert_eq!(pieces(&world, &near).await, 2);
    far.shut(false);
    assert_eq!(pieces(&world, &far).await, 1);
    for _ in 0..2 {
        assert_eq!(push(&world, &path).await.unwrap(), Pushed::Stored);
        assert_eq!(pieces(&world, &far).await, 2);
    }
    // Now it is only wished for.
    let mut world = world;
    world.world.protected.stores[1].required = false;
    far.shut(true);
    let (path, _) = next_segment(&cluster);
    assert_eq!(push(&world, &path).await.unwrap(), Pushed::Stored);
}

/// PG-03: what stood there already is given up, too, as soon as every store has been asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_pushed_first_does_not_stay_in_the_spool() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let (near, far) = (Door::new(), Door::new());
    let world = in_stores(&cluster, [place("near", &near, true), place("far", &far, true)]).await;
    let following = world.begin();
    following.says("following from").await;
    let mut end = Lsn::INVALID;
    for _ in 0..4 {
        let (path, start) = next_segment(&cluster);
        push(&world, &path).await.unwrap();
        end = start.plus(SEGMENT);
    }
    world.wait_for(&following, Timeline::FIRST, end).await;
    let mut looks = 0;
    while world.spooled() > 17 << 20 {
        looks += 1;
        assert!(
            looks < 400,
            "{} bytes stay: {:?}",
            world.spooled(),
            following.events.lock().unwrap()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    following.end().await.unwrap();
}

/// The server was told that they are safe, so that what is not is told; and one that cannot be read stops nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_and_is_refused_is_told_and_never_overwritten() {
    let cluster = Cluster::start(majors()[0], &Options::new());
    let world = Followed::new(&cluster).await;
    let (path, _) = next_segment(&cluster);
    assert_eq!(push(&world, &path).await.unwrap(), Pushed::Stored);
    let name = path.file_name().unwrap().to_str().unwrap();
    let pushed = world.spool().join("pushed");
    std::fs::create_dir_all(pushed.join("no file")).unwrap();
    let mut other = std::fs::read(&path).unwrap();
    for round in 1..3 {
        other[9000 + round] ^= 1;
        #[expect(clippy::disallowed_methods, reason = "a test hands a file over")]
        std::fs::write(pushed.join(name), &other).unwrap();
        let (next, _) = next_segment(&cluster);
        assert_eq!(kind_of(push(&world, &next).await), ErrorKind::Refused);
        assert_eq!(push(&world, &next).await.unwrap(), Pushed::Stored);
        let ending = if round == 1 { String::new() } else { format!("-{round}") };
        let kept = pushed.join(format!("refused-{name}{ending}"));
        assert_eq!(std::fs::read(kept).unwrap(), other, "{round}");
    }
    let report = world.once().await.unwrap();
    assert!(report.alarms.iter().any(|alarm| alarm.contains("no file")), "{report:?}");
}
