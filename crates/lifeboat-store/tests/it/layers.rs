//! What the layers add to the contract.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Clock, ErrorKind};
use lifeboat_store::layer::limit::{Bandwidth, Limited};
use lifeboat_store::layer::meter::{Amount, Counts, Metered};
use lifeboat_store::layer::retry::{Policy, Retry, Sleep};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Put};
use lifeboat_testkit::env::{START_WALL_US, SimClock, sim_env};
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan, is_crash};

use crate::conformance::NoSleep;
use crate::{key, put_new};

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

/// A clock that only a sleeper moves: time passes exactly as somebody waits.
#[derive(Debug)]
struct Waited(SimClock);

#[async_trait]
impl Sleep for Waited {
    async fn sleep(&self, pause: Duration) {
        self.0.advance(pause);
    }
}

impl Clock for Waited {
    fn wall_us(&self) -> i64 {
        self.0.wall_us()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

fn limited(bandwidth: Bandwidth) -> (Limited<MemoryStore>, Arc<Waited>) {
    let time = Arc::new(Waited(SimClock::new(START_WALL_US)));
    let (clock, sleep) = (Arc::<Waited>::clone(&time), Arc::<Waited>::clone(&time));
    (Limited::new(MemoryStore::new(), bandwidth, clock, sleep), time)
}

#[tokio::test]
async fn a_limit_holds_on_average_and_in_each_direction() {
    let bandwidth = Bandwidth {
        upload: Some(1000),
        download: Some(500),
    };
    let (store, time) = limited(bandwidth);
    for number in 0..10 {
        put_new(&store, &key(&format!("c/{number}")), Bytes::from(vec![0; 2000])).await;
    }
    // Ten times two seconds; the last one is under way.
    assert_eq!(time.monotonic(), Duration::from_secs(18));
    let before = time.monotonic();
    for number in 0..10 {
        store.get_range(&key(&format!("c/{number}")), 0..500).await.unwrap();
        store.get(&key(&format!("c/{number}")), 2000).await.unwrap();
    }
    // Ten times one second and four; the last four are under way.
    assert_eq!(time.monotonic() - before, Duration::from_secs(46));
    store.head(&key("c/0")).await.unwrap();
    store.list(&key("c")).await.unwrap();
    assert_eq!(time.monotonic() - before, Duration::from_secs(46), "names cost nothing");
}

/// A sleeper that never wakes up: whoever waits can only be dropped.
#[derive(Debug)]
struct Forever;

#[async_trait]
impl Sleep for Forever {
    async fn sleep(&self, _pause: Duration) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn who_stops_waiting_gives_the_line_back() {
    let clock = Arc::new(SimClock::new(START_WALL_US));
    let bandwidth = Bandwidth {
        upload: Some(1000),
        download: None,
    };
    let store = Limited::new(
        MemoryStore::new(),
        bandwidth,
        Arc::<SimClock>::clone(&clock),
        Arc::new(Forever),
    );
    put_new(&store, &key("c/first"), Bytes::from(vec![0; 1000])).await;
    for _ in 0..100 {
        let (name, body) = (key("c/dropped"), Bytes::from(vec![0; 1000]));
        let mut waiting = store.put(&name, body);
        let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
        assert!(pending, "the line is taken for a second");
    }
    clock.advance(Duration::from_secs(1));
    put_new(&store, &key("c/second"), Bytes::from(vec![0; 1000])).await;
}
