//! Death and faults at every store operation of a writer: what was answered is held, and the next writer goes on.

use std::sync::Arc;

use lifeboat_model::wal::Range;
use lifeboat_model::{Error, Result};
use lifeboat_repo::{LogFileKind, LogWriter, Repository, list_log};
use lifeboat_store::memory::MemoryStore;
use lifeboat_testkit::faulty::{Fault, FaultyStore, Plan};

use super::{append, begin, range, reader, wal};
use crate::world::{World, share};

const BLOCK: u64 = 16 << 20;

/// What is appended, in order. Small ones, so that whole matrices stay fast.
fn script() -> Vec<(LogFileKind, Range)> {
    let end = BLOCK;
    vec![
        (LogFileKind::Frame, range(end - 3000, end - 2000)),
        (LogFileKind::Frame, range(end - 2000, end - 1000)),
        (LogFileKind::Frame, range(end - 3000, end - 1000)),
        (LogFileKind::Piece, range(end - 3000, end)),
        (LogFileKind::Frame, range(end, end + 100)),
        (LogFileKind::Piece, range(end, end + 5000)),
    ]
}

/// Appends everything from what is held on; returns what was answered, and the failure that ended it.
async fn run(world: &World, repository: &Repository) -> (Vec<Range>, Option<Error>) {
    let mut answered = Vec::new();
    let outcome = steps(world, repository, &mut answered).await;
    (answered, outcome.err())
}

async fn steps(world: &World, repository: &Repository, answered: &mut Vec<Range>) -> Result<()> {
    let mut writer: LogWriter = begin(world, repository).await?;
    for (kind, range) in script() {
        // What longer files hold is not stored beside them.
        for part in writer.fitting(range).await? {
            let done = append(&mut writer, kind, part).await?;
            if !done.there {
                writer.drop_replaced(&done).await?;
            }
        }
        answered.push(range);
    }
    writer
        .append_history(super::tli(2), b"1\t0/1001388\tpromoted\n".to_vec())
        .await?;
    writer.record_gap(range(BLOCK * 3, BLOCK * 4), "test").await?;
    Ok(())
}

/// What was answered is held and reads as it was; nothing else than the source's bytes is ever read.
async fn judge(world: &World, answered: &[Range], what: &str) {
    let listing = list_log(&world.repository, &world.component, &world.trust).await.unwrap();
    assert!(listing.rejected.is_empty(), "{what}: {:?}", listing.rejected);
    if listing.lineages.is_empty() {
        assert!(answered.is_empty(), "{what}");
        return;
    }
    let reader = reader(world, &world.repository).await;
    let judged = reader.headers(|_| true).await.unwrap();
    assert!(judged.rejected.is_empty() && judged.conflicts().is_empty(), "{what}");
    let coverage = judged.coverage();
    for range in answered {
        assert!(coverage.holds(*range), "{what}: {range} was answered and is not held");
        assert!(reader.read(*range).await.unwrap() == wal(*range), "{what}: {range}");
    }
    for range in coverage.ranges() {
        let middle = Range::new(
            range.timeline,
            range.start,
            lifeboat_repo::block_end(range.start).min(range.end),
        );
        assert!(reader.read(middle).await.unwrap() == wal(middle), "{what}: {middle}");
    }
}

async fn operations() -> u64 {
    let world = World::new(31).await;
    let store = Arc::new(FaultyStore::new(world.memory.clone(), Plan::calm()));
    let repository = world.through(Arc::<FaultyStore<MemoryStore>>::clone(&store)).await.unwrap();
    let (_, error) = run(&world, &repository).await;
    assert!(error.is_none(), "{error:?}");
    store.operations()
}

/// The one follower of a host may die between any two operations, and the next goes on where it stopped.
#[tokio::test]
async fn a_writer_that_dies_anywhere_loses_nothing_that_was_answered() {
    let count = operations().await;
    let matrix: Vec<(u64, bool)> = (0..count).flat_map(|number| [(number, false), (number, true)]).collect();
    for (number, after) in share(matrix, 2) {
        let world = World::new(31).await;
        let plan = if after {
            Plan::calm().crash_after(number)
        } else {
            Plan::calm().crash_at(number)
        };
        let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
        let what = format!("death {} operation {number}", if after { "after" } else { "at" });
        let answered = match world.through(Arc::<FaultyStore<MemoryStore>>::clone(&store)).await {
            Ok(repository) => run(&world, &repository).await.0,
            Err(_died_while_opening) => Vec::new(),
        };
        judge(&world, &answered, &what).await;
        let (all, error) = run(&world, &world.repository).await;
        assert!(error.is_none(), "{what}: {error:?}");
        judge(&world, &all, &what).await;
    }
}

/// A reply that is lost, an operation that is done twice, one that is refused or comes late: the next attempt goes through.
#[tokio::test]
async fn the_lies_of_the_wire_lose_nothing() {
    let count = operations().await;
    let faults = [
        Fault::ReplyLost,
        Fault::Twice,
        Fault::Refused(lifeboat_model::ErrorKind::Unreachable),
        Fault::Late(3),
    ];
    let matrix: Vec<(u64, Fault)> = (1..count).flat_map(|number| faults.map(|fault| (number, fault))).collect();
    for (number, fault) in share(matrix, 3) {
        let world = World::new(31).await;
        let store = Arc::new(FaultyStore::new(world.memory.clone(), Plan::calm().fault(number, fault)));
        let repository = world.through(Arc::<FaultyStore<MemoryStore>>::clone(&store)).await.unwrap();
        let what = format!("{fault:?} at operation {number}");
        let (answered, _) = run(&world, &repository).await;
        judge(&world, &answered, &what).await;
        let (all, error) = run(&world, &repository).await;
        assert!(error.is_none(), "{what}: {error:?}");
        for (_, landed) in store.land().await {
            drop(landed);
        }
        judge(&world, &all, &what).await;
    }
}
