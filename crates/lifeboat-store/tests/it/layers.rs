//! What the layers add to the contract.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use lifeboat_model::ErrorKind;
use lifeboat_store::layer::meter::{Amount, Counts, Metered};
use lifeboat_store::layer::retry::{Policy, Retry};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Put};
use lifeboat_testkit::env::{START_WALL_US, sim_env};
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan, is_crash};

use crate::conformance::NoSleep;
use crate::key;

type Faulty = Arc<FaultyStore<MemoryStore>>;

fn retrying(plan: Plan, attempts: u32) -> (Retry<Faulty>, Faulty, Arc<NoSleep>) {
    let faulty = Arc::new(FaultyStore::new(MemoryStore::new(), plan));
    let sleep = Arc::new(NoSleep::default());
    let policy = Policy {
        attempts,
        ..Policy::default()
    };
    let waits = Arc::<NoSleep>::clone(&sleep);
    (Retry::new(Arc::clone(&faulty), policy, waits), faulty, sleep)
}

#[tokio::test]
async fn a_put_whose_reply_was_lost_finds_its_own_file() {
    let (store, faulty, sleep) = retrying(Plan::calm().fault(0, Fault::ReplyLost), 3);
    let put = store.put(&key("c/a"), Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(put, Put::AlreadyThere);
    assert_eq!(faulty.inner().get(&key("c/a"), 3).await.unwrap(), b"abc"[..]);
    assert_eq!((faulty.operations(), sleep.0.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn a_retried_put_never_hides_that_the_name_is_taken() {
    let (store, faulty, _) = retrying(Plan::calm().fault(0, Fault::Refused(ErrorKind::TimedOut)), 3);
    let _created = faulty.inner().put(&key("c/a"), Bytes::from_static(b"other")).await.unwrap();
    let error = store.put(&key("c/a"), Bytes::from_static(b"abc")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(faulty.inner().get(&key("c/a"), 5).await.unwrap(), b"other"[..]);
}

#[tokio::test]
async fn attempts_are_bounded_and_the_last_error_is_told() {
    let (store, faulty, sleep) = retrying(Plan::calm().always(Op::List, Fault::ReplyLost), 4);
    let error = store.list(&key("c")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert_eq!((faulty.operations(), sleep.0.load(Ordering::SeqCst)), (4, 3));
}

#[tokio::test]
async fn what_cannot_pass_is_not_retried() {
    for kind in [
        ErrorKind::NoSpace,
        ErrorKind::Corrupt,
        ErrorKind::NotFound,
        ErrorKind::Refused,
    ] {
        let (store, faulty, sleep) = retrying(Plan::calm().always(Op::Get, Fault::Refused(kind)), 4);
        assert_eq!(store.get(&key("c/a"), 9).await.unwrap_err().kind(), kind);
        assert_eq!((faulty.operations(), sleep.0.load(Ordering::SeqCst)), (1, 0));
    }
    let (store, faulty, _) = retrying(Plan::calm().crash_at(0), 4);
    assert!(is_crash(&store.get(&key("c/a"), 9).await.unwrap_err()));
    assert_eq!(faulty.operations(), 1);
}

#[tokio::test]
async fn a_meter_counts_calls_failures_and_volume() {
    let store = Metered::new(MemoryStore::new());
    let (a, body) = (key("c/a"), Bytes::from_static(b"0123456789"));
    assert_eq!(store.put(&a, body.clone()).await.unwrap(), Put::Created);
    assert_eq!(store.put(&a, body).await.unwrap(), Put::AlreadyThere);
    assert!(store.put(&a, Bytes::new()).await.is_err());
    store.get(&a, 10).await.unwrap();
    assert!(store.get(&a, 9).await.is_err());
    store.get_range(&a, 2..5).await.unwrap();
    store.head(&a).await.unwrap();
    store.list(&key("c")).await.unwrap();
    store.delete(&a).await.unwrap();
    assert!(store.head(&a).await.is_err());
    let amount = |calls, failures, volume| Amount { calls, failures, volume };
    let expected = Counts {
        put: amount(3, 1, 10),
        get: amount(2, 1, 10),
        get_range: amount(1, 0, 3),
        head: amount(2, 1, 0),
        list: amount(1, 0, 1),
        delete: amount(1, 0, 0),
    };
    assert_eq!(store.meter().counts(), expected);
}

#[tokio::test]
async fn memory_stamps_files_by_its_clock() {
    let (env, clock) = sim_env(1);
    let store = MemoryStore::with_clock(env.clock);
    let _created = store.put(&key("c/a"), Bytes::new()).await.unwrap();
    clock.step_wall_us(-5);
    let _created = store.put(&key("c/b"), Bytes::new()).await.unwrap();
    assert_eq!(store.head(&key("c/a")).await.unwrap().stored_at_us, START_WALL_US);
    assert_eq!(store.head(&key("c/b")).await.unwrap().stored_at_us, START_WALL_US - 5);
}
