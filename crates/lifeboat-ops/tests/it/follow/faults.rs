//! Stores that fail, spools that are full, servers that were set back.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_ops::follow::Options;
use lifeboat_ops::protected::Place;
use lifeboat_repo::{LogFileKind, Repository, list_log};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};
use lifeboat_testkit::postgres::{Cluster, Stop, majors, run_as_test_user};
use lifeboat_testkit::proxy::Proxy;

use super::world::{Followed, Following, flushed, small_segments, source};
use crate::world::World;

/// A store that is there or not.
#[derive(Debug)]
pub struct Door {
    inner: MemoryStore,
    shut: AtomicBool,
}

impl Door {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            shut: AtomicBool::new(false),
        })
    }

    pub fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }

    fn pass(&self) -> Result<&MemoryStore> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unreachable, "use", "the store", "the door is shut"));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl BlobStore for Door {
    fn name(&self) -> &str {
        "door"
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.pass()?.put(key, body).await
    }
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.pass()?.get(key, limit_bytes).await
    }
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.pass()?.get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<Entry> {
        self.pass()?.head(key).await
    }
    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.pass()?.list(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.pass()?.delete(key).await
    }
}

pub fn place(name: &str, door: &Arc<Door>, required: bool) -> Place {
    Place {
        name: name.into(),
        store: Arc::clone(door) as Arc<dyn BlobStore>,
        path: None,
        required,
    }
}

/// So many MiB of log, about.
pub fn write(cluster: &Cluster, mib: u32) -> Lsn {
    cluster.query("create table if not exists t (a text)");
    cluster.query("alter table t alter a set storage plain");
    // A row of 2 KiB, in one page.
    let rows = mib * 450;
    cluster.query(&format!(
        "insert into t select repeat(md5(i::text), 64) from generate_series(1, {rows}) i"
    ));
    flushed(cluster)
}

async fn wait(following: &Following, world: &Followed, lsn: Lsn) {
    world.wait_for(following, Timeline::FIRST, lsn).await;
}

/// PG-02, PG-03: nothing is given up before it stands in a store, nothing more is received than the disk may take, and all of it comes in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_fills_the_spool_and_no_more() {
    let cluster = Cluster::start(majors()[0], &small_segments());
    let door = Door::new();
    let mut world = Followed::in_store(&cluster, place("door", &door, true)).await;
    world.with = |options| Options {
        max_spool: 1,
        max_slot_lag: 1 << 20,
        ask_every: Duration::from_millis(200),
        ..options
    };
    let following = world.begin();
    wait(&following, &world, write(&cluster, 1)).await;
    door.shut(true);
    let until = write(&cluster, 70);
    following.says("SPOOL IS FULL").await;
    following.says("does not reach the stores").await;
    // Nothing is received any more, and what the slot holds back meanwhile is told all the same.
    following.says("HOLDS BACK").await;
    let acknowledged = cluster
        .query("select flush_lsn from pg_stat_replication")
        .parse::<Lsn>()
        .unwrap();
    assert!(acknowledged < until, "{acknowledged} was acknowledged");
    door.shut(false);
    wait(&following, &world, until).await;
    following.says("has room again").await;
    following.end().await.unwrap();
    world.same_as_files(&cluster, 1).await;
    assert!(world.spooled() < 17 << 20, "{} bytes stay in the spool", world.spooled());
    let until = write(&cluster, 4);
    let following = world.begin();
    following.says("HOLDS BACK").await;
    wait(&following, &world, until).await;
    following.end().await.unwrap();
}

/// The slot guard: where nothing is taken any more, the server is let go before its disk fills; later it goes on, and a gap is told, not hidden.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_holds_back_too_much_is_dropped_while_the_spool_is_full() {
    let cluster = Cluster::start(majors()[0], &small_segments());
    let door = Door::new();
    let mut world = Followed::in_store(&cluster, place("door", &door, true)).await;
    world.with = |options| Options {
        max_spool: 1,
        drop_slot_at: Some(8 << 20),
        ask_every: Duration::from_millis(200),
        ..options
    };
    let slots = "select count(*) from pg_replication_slots";
    let following = world.begin();
    wait(&following, &world, write(&cluster, 1)).await;
    door.shut(true);
    write(&cluster, 40);
    following.says("SPOOL IS FULL").await;
    assert_eq!(cluster.query(slots), "1", "it may hold back something");
    write(&cluster, 20);
    following.says("WAS DROPPED").await;
    assert_eq!(cluster.query(slots), "0");
    // The server throws away what nobody keeps.
    cluster.query("checkpoint");
    let behind = write(&cluster, 4);
    cluster.query("checkpoint");
    door.shut(false);
    following.says("LOG IS MISSING FOR GOOD").await;
    let until = write(&cluster, 2);
    wait(&following, &world, until).await;
    assert_eq!(cluster.query(slots), "1");
    let report = following.end().await.unwrap();
    let [gap] = report.gaps.as_slice() else {
        panic!("one gap is recorded: {:?}", report.gaps);
    };
    assert!(gap.start < gap.end && gap.start < behind, "{gap}");
    // Everything before the gap is stored, and everything behind it.
    let held = world.coverage().await;
    assert!(
        held.holds(lifeboat_model::wal::Range::new(Timeline::FIRST, gap.end, until)),
        "{held:?}"
    );
    assert_eq!(held.end_from(Timeline::FIRST, held.ranges().next().unwrap().start), gap.start);
}

/// A server that is stopped in peace says so, and is followed again when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_is_not_taken_for_something_else() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        let following = world.begin();
        wait(&following, &world, write(&cluster, 1)).await;
        cluster.restart(lifeboat_testkit::postgres::Stop::Fast);
        following.says("the server shut down").await;
        wait(&following, &world, write(&cluster, 1)).await;
        let report = following.end().await.unwrap();
        assert!(report.gaps.is_empty(), "{report:?}");
    }
}

/// What the server says last is heard, though it closes the connection while log is written and nothing can be reported any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_server_are_heard_in_the_middle_of_writing() {
    const ENDS: usize = 12;
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments());
        let world = Followed::new(&cluster).await;
        let following = world.begin();
        wait(&following, &world, write(&cluster, 1)).await;
        cluster.query("create table busy (i int)");
        let commits = "do 'begin loop insert into busy values (1); commit; perform pg_sleep(0.0002); end loop; end'";
        let busy = cluster.spawn("psql", &["-qc", commits]);
        let count = |words: &str| {
            let events = following.events.lock().unwrap();
            events.iter().filter(|event| event.contains(words)).count()
        };
        for ends in 1..=ENDS {
            wait(&following, &world, flushed(&cluster)).await;
            let again = count("following from");
            while cluster.query("select count(pg_terminate_backend(active_pid)) from pg_replication_slots where active") == "0" {}
            while count("following from") == again {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            let events = following.events.lock().unwrap().clone();
            assert_eq!(count("following is interrupted"), ends, "{events:?}");
            assert_eq!(count("(SQLSTATE 57P01)"), ends, "{events:?}");
        }
        cluster.query("select pg_terminate_backend(pid) from pg_stat_activity where query like 'do %'");
        busy.wait_with_output().unwrap();
        wait(&following, &world, write(&cluster, 1)).await;
        let report = following.end().await.unwrap();
        assert!(report.gaps.is_empty(), "{report:?}");
    }
}

/// What came in one go with the end of the connection is held: the server may never come back to be asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_together_with_the_end_is_held() {
    for _ in 0..4 {
        let mut cluster = Cluster::start(majors()[0], &small_segments());
        let network = Proxy::start(cluster.port());
        let followed = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", network.port());
        let folder = tempfile::tempdir().unwrap();
        let world = Followed::of(World::at(folder.path(), true).await, source(&followed));
        let following = world.begin();
        wait(&following, &world, write(&cluster, 1)).await;
        network.hold_still(true);
        cluster.query("create table last_words (i int)");
        let until = flushed(&cluster);
        while cluster.query(&format!(
            "select count(*) from pg_stat_replication where sent_lsn >= '{until}'"
        )) == "0"
        {}
        cluster.stop(Stop::Immediate);
        network.hold_still(false);
        wait(&following, &world, until).await;
        following.end().await.unwrap();
    }
}

/// Two stores, one of them required and away for a while: the other goes on, the spool keeps what the required one lacks, which gets all of it in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_store_that_was_away_gets_everything() {
    let cluster = Cluster::start(majors()[0], &small_segments());
    let (near, far) = (Door::new(), Door::new());
    let mut world = Followed::in_store(&cluster, place("near", &near, false)).await;
    let repository = world.world.protected.repository().await.unwrap();
    repository.replicate(Arc::clone(&far) as Arc<dyn BlobStore>).await.unwrap();
    world.world.protected.stores.push(place("far", &far, true));
    let following = world.begin();
    wait(&following, &world, write(&cluster, 1)).await;
    far.shut(true);
    let until = write(&cluster, 40);
    wait(&following, &world, until).await;
    following.says("no log reaches far").await;
    assert!(world.spooled() > 32 << 20, "{} bytes in the spool", world.spooled());
    far.shut(false);
    following.says("that it had missed").await;
    let far = Repository::open(far).await.unwrap();
    let protected = &world.world.protected;
    loop {
        let listing = list_log(&far, &protected.component, &protected.trust).await.unwrap();
        let lineage = listing.lineages.last().unwrap().lineage;
        if listing.candidates(lineage) == world.coverage().await && world.spooled() < 17 << 20 {
            let pieces = listing.files(lineage).iter().filter(|name| name.kind == LogFileKind::Piece);
            assert!(pieces.count() >= 2);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    following.end().await.unwrap();
    world.same_as_files(&cluster, 1).await;
}

/// A server that was set back to an earlier moment writes other log for the same positions: a new lineage, and the old one stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_set_back_begins_a_new_lineage() {
    let major = majors()[0];
    let mut cluster = Cluster::start(major, &small_segments());
    let world = Followed::new(&cluster).await;
    write(&cluster, 1);
    world.once().await.unwrap();
    cluster.stop(Stop::Fast);
    let copy = Cluster::around(major, &small_segments(), |data| {
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(cluster.data_dir()).arg(data);
        run_as_test_user(&mut copy);
        assert!(copy.status().unwrap().success());
    });
    cluster.begin();
    write(&cluster, 2);
    let first = world.once().await.unwrap();
    cluster.stop(Stop::Fast);
    // The copy is an hour old, so to say.
    let mut copy = copy;
    copy.begin();
    let set_back = world.at(&copy);
    let second = set_back.once().await.unwrap();
    assert_ne!(second.lineage, first.lineage);
    let listing = world.listing().await;
    assert_eq!(listing.lineages.len(), 2);
    assert!(listing.candidates(first.lineage.unwrap()).end(Timeline::FIRST) >= first.stored.map(|stored| stored.lsn));
    set_back.same_as_files(&copy, 1).await;
    // And it is followed on there.
    write(&copy, 3);
    assert_eq!(set_back.once().await.unwrap().lineage, second.lineage);
    set_back.same_as_files(&copy, 1).await;
}
