//! A store in which something happens in the middle of a backup.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};
use lifeboat_testkit::postgres::{Cluster, majors};

use super::faults::{Door, place};
use super::world::{Followed, small_segments};

/// What happens, if it is time.
type Happening = Box<dyn FnMut() -> bool + Send>;

/// Before files are listed, something may happen, once.
struct Busy {
    door: Arc<Door>,
    happening: Mutex<Option<Happening>>,
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Busy").finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for Busy {
    fn name(&self) -> &str {
        self.door.name()
    }
    fn capabilities(&self) -> Capabilities {
        self.door.capabilities()
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.door.put(key, body).await
    }
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.door.get(key, limit_bytes).await
    }
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.door.get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<Entry> {
        self.door.head(key).await
    }
    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        {
            let mut happening = self.happening.lock().unwrap();
            if happening.as_mut().is_some_and(|happens| happens()) {
                *happening = None;
            }
        }
        self.door.list(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.door.delete(key).await
    }
}

/// A backup asks the server how far it is, and the stores how far the log is. A follower that brings more in between (here from another host; on the same
/// one it would have ended just then) does not make the server one that was set back.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_follower_that_is_faster_than_a_question_sets_no_server_back() {
    let cluster = Arc::new(Cluster::start(majors()[0], &small_segments()));
    let door = Door::new();
    let mut world = Followed::in_store(&cluster, place("door", &door, true)).await;
    drop(world.once().await.unwrap());
    let mut other = world.at(&cluster);
    other.world.protected.state_dir = world.world.folder.join("elsewhere");
    let server = Arc::clone(&cluster);
    let happening = move || {
        // The log is held for the backup by now, and its writer is about to look what stands.
        if server.query("select count(*) from pg_replication_slots where slot_name like 'lifeboat#_backup%' escape '#'") == "0" {
            return false;
        }
        server.query("create table t as select generate_series(1, 5000) as i");
        std::thread::scope(|scope| {
            let following = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
                runtime.block_on(other.once()).unwrap()
            });
            drop(following.join().unwrap());
        });
        true
    };
    let busy = Arc::new(Busy {
        door,
        happening: Mutex::new(Some(Box::new(happening))),
    });
    world.world.protected.stores[0].store = Arc::clone(&busy) as Arc<dyn BlobStore>;
    drop(world.world.back_up().await.unwrap());
    assert!(busy.happening.lock().unwrap().is_none(), "nothing happened");
    assert_eq!(world.listing().await.lineages.len(), 1);
}
