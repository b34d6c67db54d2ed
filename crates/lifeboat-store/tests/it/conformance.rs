//! The one suite over every store and every layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_model::ErrorKind;
use lifeboat_store::BlobStore;
use lifeboat_store::fs::FsStore;
use lifeboat_store::layer::limit::{Bandwidth, Limited};
use lifeboat_store::layer::meter::Metered;
use lifeboat_store::layer::retry::{Policy, Retry, Sleep};
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::conformance::store::run;
use lifeboat_testkit::env::sim_env;
use lifeboat_testkit::faulty::{Fault, FaultyStore, Plan};

/// Does not wait, and counts how often it should have.
#[derive(Debug, Default)]
pub struct NoSleep(pub AtomicUsize);

#[async_trait]
impl Sleep for NoSleep {
    async fn sleep(&self, _pause: Duration) {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    run(async || Arc::new(MemoryStore::new()) as Arc<dyn BlobStore>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicUsize::new(0);
    run(async || {
        let path = folder.path().join(number.fetch_add(1, Ordering::SeqCst).to_string());
        Arc::new(FsStore::create(path).await.unwrap()) as Arc<dyn BlobStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metered_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicUsize::new(0);
    run(async || {
        let path = folder.path().join(number.fetch_add(1, Ordering::SeqCst).to_string());
        Arc::new(Metered::new(FsStore::create(path).await.unwrap())) as Arc<dyn BlobStore>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_store_keeps_the_contract() {
    run(async || {
        let bandwidth = Bandwidth {
            upload: Some(1 << 20),
            download: Some(1 << 20),
        };
        let clock = sim_env(0).0.clock;
        let store = Limited::new(MemoryStore::new(), bandwidth, clock, Arc::new(NoSleep::default()));
        Arc::new(store) as Arc<dyn BlobStore>
    })
    .await;
}

/// Faults that leave the answer of a repeated operation as it would have been. Lost replies do not (the repeated put finds its own
/// file and says so) and are tested in `layers`.
#[tokio::test(flavor = "multi_thread")]
async fn retry_over_a_faulty_store_keeps_the_contract() {
    let faults = [
        Fault::Delay(3),
        Fault::Refused(ErrorKind::Unreachable),
        Fault::Refused(ErrorKind::TimedOut),
        Fault::Twice,
    ];
    let sleep = Arc::new(NoSleep::default());
    for seed in 0..8 {
        run(async || {
            let plan = Plan::seeded(seed, 5000, 3, &faults);
            let policy = Policy {
                attempts: 100,
                ..Policy::default()
            };
            let waits = Arc::<NoSleep>::clone(&sleep);
            Arc::new(Retry::new(FaultyStore::new(MemoryStore::new(), plan), policy, waits)) as Arc<dyn BlobStore>
        })
        .await;
    }
    assert!(sleep.0.load(Ordering::SeqCst) > 100, "the faults came");
}
