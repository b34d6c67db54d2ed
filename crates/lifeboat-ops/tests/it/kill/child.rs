//! The verbs as the child runs them, and as the parent runs them again.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::Result;
use lifeboat_model::retention::{Policy, Rules};
use lifeboat_ops::keys::{self, InStore};
use lifeboat_ops::protected::Place;
use lifeboat_ops::restore::Destination;
use lifeboat_ops::{copy, ledger, prune};
use lifeboat_repo::{BackupId, Copied, Encryption, Identities, Reader, Rekey, Rekeyed, Which};
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};

use super::scene::{self, Good};
use crate::world::World;

pub const FOLDER: &str = "LIFEBOAT_TEST_KILL_FOLDER";
pub const VERB: &str = "LIFEBOAT_TEST_KILL_VERB";
/// The number of the operation, twice, and one more to die after it; only in folders.
pub const AT: &str = "LIFEBOAT_TEST_KILL_AT";
/// Where the buckets are; otherwise the stores are folders.
pub const ENDPOINT: &str = "LIFEBOAT_TEST_KILL_ENDPOINT";
/// What the child says before the number of its operations.
pub const OPERATIONS: &str = "operations of the store: ";

/// A store in whose `at`-th operation this process dies: even ones before it is done, odd ones after.
#[derive(Debug)]
struct Killer {
    inner: Arc<dyn BlobStore>,
    done: Arc<AtomicU64>,
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
async fn run() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let endpoint = std::env::var(ENDPOINT).ok();
    let folder: &std::path::Path = folder.as_ref();
    let mut first = scene::place(folder, endpoint.as_deref(), scene::FIRST, false).await;
    let mut second = scene::place(folder, endpoint.as_deref(), scene::SECOND, false).await;
    let done = Arc::new(AtomicU64::new(0));
    if let Ok(at) = std::env::var(AT) {
        for place in [&mut first, &mut second] {
            place.store = Arc::new(Killer {
                inner: Arc::clone(&place.store),
                done: Arc::clone(&done),
                at: at.parse().unwrap(),
            });
        }
    }
    let world = World::over(folder, first, false).await;
    match std::env::var(VERB).unwrap().as_str() {
        "backup" => drop(world.back_up().await.unwrap()),
        "census" | "sweep" => drop(prune(&world).await.unwrap()),
        "copy" => drop(copy(&world, &second).await.unwrap()),
        "add" => drop(change(&world, Rekey::Add).await.unwrap()),
        "remove" => drop(change(&world, Rekey::Replace).await.unwrap()),
        "ledger" => drop(record(&world, "of the child").await),
        "rotate" => rotate(&world).await.unwrap(),
        "restore" => {
            let path = world.database.clone();
            drop(world.restore("latest", Destination::InPlace { path }).await.unwrap());
        }
        other => panic!("{other}"),
    }
    println!("\n{OPERATIONS}{}", done.load(Ordering::SeqCst));
}

pub async fn record(world: &World, what: &str) -> ledger::Appended {
    let entry = ledger::Entry {
        verb: "backup".to_owned(),
        outcome: ledger::Outcome::Done,
        facts: serde_json::Map::from_iter([("what".to_owned(), serde_json::json!(what))]),
    };
    ledger::append(&world.env, &world.protected, &world.instance, entry)
        .await
        .unwrap()
}

pub async fn prune(world: &World) -> Result<prune::Report> {
    let request = prune::Request {
        policy: Some(Policy {
            keep: Rules {
                last: 2,
                ..Rules::default()
            },
            extracts: Rules::default(),
            never_below: 1,
        }),
        grace: Duration::from_secs(48 * 3600),
        timezone: "UTC".to_owned(),
        dry_run: false,
    };
    prune::run(&world.env, &world.protected, Arc::clone(&world.instance), &request).await
}

pub async fn copy(world: &World, to: &Place) -> Result<Copied> {
    let from = &world.protected.stores[0];
    copy::run(
        &world.env,
        &world.protected,
        Arc::clone(&world.instance),
        from,
        to,
        copy::Wanted {
            which: Which::All,
            rules: None,
        },
    )
    .await
}

/// The recipient that comes or goes.
pub fn other(world: &World) -> Identities {
    Identities::parse(&std::fs::read_to_string(world.folder.join("other")).unwrap()).unwrap()
}

/// The world's own recipient and the other.
pub fn both(world: &World) -> Encryption {
    let mut recipients = world.identities.public_keys();
    recipients.extend(other(world).public_keys());
    Encryption::Age(recipients)
}

pub async fn change(world: &World, how: Rekey) -> Result<Vec<InStore<Rekeyed>>> {
    let (Encryption::Age(recipients), Rekey::Add) = (both(world), how) else {
        let own = world.identities.public_keys();
        return keys::change(&world.env, &world.protected, &own, &world.identities, how).await;
    };
    keys::change(&world.env, &world.protected, &recipients, &world.identities, how).await
}

pub async fn rotate(world: &World) -> Result<()> {
    let _forgotten = keys::rotate(&world.protected).await?;
    drop(world.back_up().await?);
    Ok(())
}

/// The backups that `identities` open.
pub async fn opened_by(world: &World, identities: &Identities) -> BTreeSet<BackupId> {
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    let mut opened = BTreeSet::new();
    for backup in &listing.backups {
        if Reader::open(&world.env, &repository, backup, identities).await.is_ok() {
            opened.insert(backup.id);
        }
    }
    opened
}

/// What the other recipient opens after the change.
pub fn expected(how: Rekey, good: &Good) -> BTreeSet<BackupId> {
    match how {
        Rekey::Add => good.ids(),
        Rekey::Replace => BTreeSet::new(),
    }
}
