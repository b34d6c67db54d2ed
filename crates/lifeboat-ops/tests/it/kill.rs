//! kill -9 at every store operation of a backup and of a restore: a child process of this test dies there, for real.
//!
//! Afterwards every listed backup restores, the source is whole, and the next run works.

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;
use lifeboat_ops::restore::Destination;
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};

use crate::world::{World, add, count, make, open};

const FOLDER: &str = "LIFEBOAT_TEST_KILL_FOLDER";
const VERB: &str = "LIFEBOAT_TEST_KILL_VERB";
const AT: &str = "LIFEBOAT_TEST_KILL_AT";

/// A store in whose `at`-th operation this process dies: even ones before it is done, odd ones after.
#[derive(Debug)]
struct Killer {
    inner: Arc<dyn BlobStore>,
    done: AtomicU64,
    at: u64,
}

impl Killer {
    fn die_if(&self, now: bool) {
        if now {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            std::thread::park();
        }
    }

    async fn step<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        self.die_if(number * 2 == self.at);
        let result = operation.await;
        self.die_if(number * 2 + 1 == self.at);
        result
    }
}

#[async_trait]
impl BlobStore for Killer {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.step(self.inner.put(key, body)).await
    }
    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.step(self.inner.get(key, limit_bytes)).await
    }
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.step(self.inner.get_range(key, range)).await
    }
    async fn head(&self, key: &Key) -> Result<Entry> {
        self.step(self.inner.head(key)).await
    }
    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.step(self.inner.list(prefix)).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.step(self.inner.delete(key)).await
    }
}

/// The child's side: does nothing unless a parent asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut world = World::at(folder.as_ref(), false).await;
    let at = std::env::var(AT).unwrap().parse().unwrap();
    world.protected.stores[0].store = Arc::new(Killer {
        inner: Arc::clone(&world.protected.stores[0].store),
        done: AtomicU64::new(0),
        at,
    });
    match std::env::var(VERB).unwrap().as_str() {
        "backup" => drop(world.back_up().await.unwrap()),
        _ => drop(
            world
                .restore(
                    "latest",
                    Destination::InPlace {
                        path: world.database.clone(),
                    },
                )
                .await
                .unwrap(),
        ),
    }
}

/// Runs the child; true when it died at the operation, false when it came to its end before.
fn run(world: &World, verb: &str, at: u64) -> bool {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["kill::child", "--exact", "--nocapture"])
        .env(FOLDER, &world.folder)
        .env(VERB, verb)
        .env(AT, at.to_string())
        .output()
        .unwrap();
    match output.status.signal() {
        Some(9) => true,
        _ => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            false
        }
    }
}

/// No verb of these small worlds has more operations.
const MOST: u64 = 400;

/// The same world again and again: `work` is made anew from `base`, under the same path, so that local state still fits.
struct Scene {
    temporary: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let scene = Self {
            temporary: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(scene.work()).unwrap();
        let world = World::at(&scene.work(), true).await;
        make(&world.database, "wal", 1500);
        let _report = world.back_up().await.unwrap();
        scene
    }

    fn work(&self) -> std::path::PathBuf {
        self.temporary.path().join("work")
    }

    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.temporary.path().join(from), self.temporary.path().join(to));
        if to.try_exists().unwrap() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_02_inv_07_a_backup_killed_at_any_store_operation_leaves_every_listed_backup_restorable() {
    let scene = Scene::new().await;
    add(&open(&scene.work().join("app/app.db")), 40);
    scene.copy("work", "base");
    let mut died = 0;
    for at in 0..MOST {
        scene.copy("base", "work");
        let world = World::at(&scene.work(), false).await;
        let killed = run(&world, "backup", at);
        died += u32::from(killed);
        assert!(world.all_restore().await >= 1);
        assert_eq!(count(&world.database), 1540);
        if !killed {
            break;
        }
        let next = world.back_up().await.unwrap();
        assert_eq!(next.facts.sqlite().unwrap().tables["items"], 1540);
        assert!(next.backup.header.parent.is_some(), "incremental again: {:?}", next.notes);
        assert!(world.all_restore().await >= 2);
    }
    assert!(died > 3, "{died}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv_12_a_restore_killed_at_any_store_operation_leaves_the_old_database_or_the_whole_new_one() {
    let scene = Scene::new().await;
    let database = scene.work().join("app/app.db");
    std::fs::remove_file(&database).unwrap();
    make(&database, "wal", 7);
    scene.copy("work", "base");
    let mut died = 0;
    for at in 0..MOST {
        scene.copy("base", "work");
        let world = World::at(&scene.work(), false).await;
        let killed = run(&world, "restore", at);
        died += u32::from(killed);
        if !killed {
            assert_eq!(count(&database), 1500);
            break;
        }
        assert_eq!(count(&database), 7, "killed in operation {at}");
        let report = world
            .restore("latest", Destination::InPlace { path: database.clone() })
            .await
            .unwrap();
        assert_eq!(report.findings.rows, 1500);
        let app = std::fs::read_dir(scene.work().join("app")).unwrap();
        let hidden = app
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".lifeboat"))
            .count();
        assert_eq!(hidden, 0, "leftovers of killed runs are removed");
    }
    assert!(died > 2, "{died}");
}
