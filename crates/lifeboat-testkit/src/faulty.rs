//! A store that fails by plan: each operation has a number, and the plan says what happens to which number.
//!
//! To try every moment of a scenario, run it once without faults, ask [`FaultyStore::operations`] for their number N, then run it for each
//! n below N with [`Plan::crash_at`] and [`Plan::crash_after`] and look at what the inner store holds. Faults are what real stores do; none
//! breaks the contract of [`BlobStore`]: a listing fails whole, a put is never half.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};

use crate::env::stream_of;

/// What an operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// `put`
    Put,
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `head`
    Head,
    /// `list`
    List,
    /// `delete`
    Delete,
}

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It takes longer: others get their turn this many times first.
    Delay(u32),
    /// Nothing is done, and the answer is an error of this kind.
    Refused(ErrorKind),
    /// It is done, and the answer is lost or breaks off in the middle: an error of kind `Unreachable`, and no part of the answer is given out.
    ReplyLost,
    /// It is done twice, as when a connection repeats a request; the first answer counts.
    Twice,
    /// The answer is an error of kind `Unreachable`, and it is done later, before the operation so many numbers further on begins
    /// (or at [`FaultyStore::land`]). Only for puts; other operations are refused.
    Late(u64),
}

/// Which operations go wrong, by number (the first is 0) or by what they are.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Plan {
    by_number: BTreeMap<u64, Fault>,
    by_op: BTreeMap<Op, Fault>,
    crash_at: Option<u64>,
    crash_after: Option<u64>,
}

impl Plan {
    /// Nothing goes wrong.
    pub fn calm() -> Self {
        Self::default()
    }

    /// `fault` happens to the operation `number`.
    pub fn fault(mut self, number: u64, fault: Fault) -> Self {
        self.by_number.insert(number, fault);
        self
    }

    /// `fault` happens to every operation of this sort that has no fault of its own.
    pub fn always(mut self, op: Op, fault: Fault) -> Self {
        self.by_op.insert(op, fault);
        self
    }

    /// The machine dies before the operation `number` is done: it and all later ones do nothing and fail with [`is_crash`].
    pub fn crash_at(mut self, number: u64) -> Self {
        self.crash_at = Some(number);
        self
    }

    /// The machine dies after the operation `number` was done and before its answer came.
    pub fn crash_after(mut self, number: u64) -> Self {
        self.crash_after = Some(number);
        self
    }

    /// About one of `one_in` of the first `operations` operations goes wrong, in one of the ways of `faults`; decided by `seed`. At most two in
    /// a row, so that a third attempt succeeds.
    pub fn seeded(seed: u64, operations: u64, one_in: u8, faults: &[Fault]) -> Self {
        let mut plan = Self::calm();
        let mut stream = stream_of(seed, "faults");
        for number in 0..operations {
            let mut random = [0; 2];
            stream.fill(&mut random);
            let row = number >= 2 && (1..=2).all(|back| plan.by_number.contains_key(&(number - back)));
            if random[0] % one_in.max(1) == 0 && !row && !faults.is_empty() {
                plan.by_number.insert(number, faults[usize::from(random[1]) % faults.len()]);
            }
        }
        plan
    }

    fn fault_of(&self, number: u64, op: Op) -> Option<Fault> {
        self.by_number.get(&number).or_else(|| self.by_op.get(&op)).copied()
    }
}

/// One operation that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; the first is 0.
    pub number: u64,
    /// What it was.
    pub op: Op,
    /// The name, or for a listing the prefix.
    pub key: Key,
    /// The fault that happened to it.
    pub fault: Option<Fault>,
}

const CRASHED: &str = "the machine crashed here by plan";

/// Whether this error is the planned crash (and not what the code under test made of it).
#[must_use]
pub fn is_crash(error: &Error) -> bool {
    error.detail() == CRASHED
}

/// A store that fails by plan.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    log: Vec<Record>,
    late: Vec<Late>,
    crashed: bool,
}

#[derive(Debug)]
struct Late {
    at: u64,
    key: Key,
    body: Bytes,
}

/// What the plan decided for an operation that may begin.
struct Begun {
    number: u64,
    fault: Option<Fault>,
    crash_after: bool,
}

impl<S: BlobStore> FaultyStore<S> {
    /// Puts `plan` between the user and `inner`.
    pub fn new(inner: S, plan: Plan) -> Self {
        Self {
            inner,
            state: Mutex::new(State {
                plan,
                ..State::default()
            }),
        }
    }

    /// The store without faults: what is really stored.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// How many operations were asked for so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().log.len() as u64
    }

    /// All operations that were asked for, in the order of their numbers.
    #[must_use]
    pub fn log(&self) -> Vec<Record> {
        self.state().log.clone()
    }

    /// Whether the planned crash happened.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Does all late puts now, also after a crash: what was on its way arrives. Returns the outcome of each.
    pub async fn land(&self) -> Vec<(Key, Result<Put>)> {
        self.land_before(u64::MAX).await
    }

    async fn land_before(&self, number: u64) -> Vec<(Key, Result<Put>)> {
        let due: Vec<Late> = self.state().late.extract_if(.., |late| late.at <= number).collect();
        let mut outcomes = Vec::new();
        for late in due {
            let outcome = self.inner.put(&late.key, late.body).await;
            outcomes.push((late.key, outcome));
        }
        outcomes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, op: Op, key: &Key) -> Result<Begun> {
        let mut state = self.state();
        let number = state.log.len() as u64;
        let fault = state.plan.fault_of(number, op);
        state.log.push(Record {
            number,
            op,
            key: key.clone(),
            fault,
        });
        if state.plan.crash_at.is_some_and(|at| number >= at) {
            state.crashed = true;
        }
        if state.crashed {
            return Err(crash(key));
        }
        let crash_after = state.plan.crash_after == Some(number);
        Ok(Begun {
            number,
            fault,
            crash_after,
        })
    }

    /// Runs one operation through the plan. `twice` does it again where the plan wants that.
    async fn through<T, F>(&self, op: Op, key: &Key, body: Option<&Bytes>, perform: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let begun = self.begin(op, key)?;
        // Late arrivals tell nobody how they went: whoever sent them has left.
        drop(self.land_before(begun.number).await);
        let outcome = match begun.fault {
            None => perform().await,
            Some(Fault::Delay(turns)) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                perform().await
            }
            Some(Fault::Refused(kind)) => Err(Error::new(kind, "reach", key, "the store refused by plan")),
            Some(Fault::ReplyLost) => match perform().await {
                Ok(_) => Err(Error::new(
                    ErrorKind::Unreachable,
                    "reach",
                    key,
                    "the answer was lost by plan",
                )),
                failed => failed,
            },
            Some(Fault::Twice) => {
                let first = perform().await;
                drop(perform().await);
                first
            }
            Some(Fault::Late(further)) => {
                if let Some(body) = body {
                    let late = Late {
                        at: begun.number.saturating_add(further),
                        key: key.clone(),
                        body: body.clone(),
                    };
                    self.state().late.push(late);
                }
                Err(Error::new(
                    ErrorKind::Unreachable,
                    "reach",
                    key,
                    "the request is late by plan",
                ))
            }
        };
        if begun.crash_after {
            self.state().crashed = true;
            return Err(crash(key));
        }
        outcome
    }

    /// The names the plan's faults really happened to; a test that expects a fault asks here whether it came.
    #[must_use]
    pub fn faulted(&self) -> BTreeSet<Key> {
        let state = self.state();
        let hit = state.log.iter().filter(|record| record.fault.is_some());
        hit.map(|record| record.key.clone()).collect()
    }
}

fn crash(key: &Key) -> Error {
    Error::new(ErrorKind::Failed, "reach", key, CRASHED)
}

#[async_trait]
impl<S: BlobStore> BlobStore for FaultyStore<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.through(Op::Put, key, Some(&body), || self.inner.put(key, body.clone()))
            .await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.through(Op::Get, key, None, || self.inner.get(key, limit_bytes)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.through(Op::GetRange, key, None, || self.inner.get_range(key, range.clone()))
            .await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.through(Op::Head, key, None, || self.inner.head(key)).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.through(Op::List, prefix, None, || self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.through(Op::Delete, key, None, || self.inner.delete(key)).await
    }
}

#[cfg(test)]
mod tests {
    use lifeboat_store::memory::MemoryStore;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn store(plan: Plan) -> FaultyStore<MemoryStore> {
        FaultyStore::new(MemoryStore::new(), plan)
    }

    /// Five operations, of which three change something; stops at the first error, as a writer does.
    async fn scenario(store: &FaultyStore<MemoryStore>) -> Result<()> {
        let _created = store.put(&key("c/a"), Bytes::from_static(b"a")).await?;
        let _created = store.put(&key("c/b"), Bytes::from_static(b"b")).await?;
        store.list(&key("c")).await?;
        store.delete(&key("c/a")).await?;
        store.get(&key("c/b"), 1).await?;
        Ok(())
    }

    async fn stored(store: &FaultyStore<MemoryStore>) -> Vec<String> {
        let entries = store.inner().list(&key("c")).await.unwrap();
        entries.iter().map(|entry| entry.key.file_name().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_scenario_is_counted_and_then_crashed_at_every_operation() {
        let calm = store(Plan::calm());
        scenario(&calm).await.unwrap();
        assert_eq!(calm.operations(), 5);
        let ops: Vec<_> = calm.log().iter().map(|record| record.op).collect();
        assert_eq!(ops, [Op::Put, Op::Put, Op::List, Op::Delete, Op::Get]);
        let before: [&[&str]; 5] = [&[], &["a"], &["a", "b"], &["a", "b"], &["b"]];
        let after: [&[&str]; 5] = [&["a"], &["a", "b"], &["a", "b"], &["b"], &["b"]];
        for number in 0..5_u64 {
            let place = usize::try_from(number).unwrap();
            for (plan, expected) in [
                (Plan::calm().crash_at(number), before[place]),
                (Plan::calm().crash_after(number), after[place]),
            ] {
                let crashing = store(plan);
                assert!(is_crash(&scenario(&crashing).await.unwrap_err()));
                assert!(crashing.crashed());
                assert_eq!(crashing.operations(), number + 1);
                assert_eq!(stored(&crashing).await, expected, "at {number}");
                let later = crashing.put(&key("c/z"), Bytes::new()).await.unwrap_err();
                assert!(is_crash(&later) && !later.kind().is_retryable());
                assert_eq!(stored(&crashing).await, expected, "dead is dead");
            }
        }
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says() {
        let put = |store: FaultyStore<MemoryStore>| async move {
            let outcome = store.put(&key("c/a"), Bytes::from_static(b"a")).await;
            (outcome.map_err(|error| error.kind()), stored(&store).await)
        };
        let only = |fault| store(Plan::calm().fault(0, fault));
        let there = vec!["a".to_owned()];
        assert_eq!(put(only(Fault::Delay(3))).await, (Ok(Put::Created), there.clone()));
        assert_eq!(put(only(Fault::Twice)).await, (Ok(Put::Created), there.clone()));
        assert_eq!(put(only(Fault::ReplyLost)).await, (Err(ErrorKind::Unreachable), there));
        let refused = put(only(Fault::Refused(ErrorKind::NoSpace))).await;
        assert_eq!(refused, (Err(ErrorKind::NoSpace), Vec::new()));
    }

    #[tokio::test]
    async fn a_late_put_lands_when_it_is_due_and_not_before() {
        let late = store(Plan::calm().fault(0, Fault::Late(2)));
        let (name, body) = (key("c/a"), Bytes::from_static(b"a"));
        assert_eq!(
            late.put(&name, body.clone()).await.unwrap_err().kind(),
            ErrorKind::Unreachable
        );
        assert!(late.list(&key("c")).await.unwrap().is_empty());
        assert_eq!(late.list(&key("c")).await.unwrap().len(), 1);
        let at_the_end = store(Plan::calm().fault(0, Fault::Late(100)).crash_at(1));
        assert!(at_the_end.put(&name, body).await.is_err());
        assert!(is_crash(&at_the_end.head(&name).await.unwrap_err()));
        let landed = at_the_end.land().await;
        assert!(matches!(landed.as_slice(), [(_, Ok(Put::Created))]), "{landed:?}");
        assert_eq!(stored(&at_the_end).await, ["a"]);
    }

    #[tokio::test]
    async fn a_listing_that_breaks_off_fails_whole() {
        let broken = store(Plan::calm().always(Op::List, Fault::ReplyLost));
        let _created = broken.put(&key("c/a"), Bytes::new()).await.unwrap();
        assert_eq!(broken.list(&key("c")).await.unwrap_err().kind(), ErrorKind::Unreachable);
        assert_eq!(broken.faulted().into_iter().collect::<Vec<_>>(), [key("c")]);
    }

    #[test]
    fn seeded_plans_repeat_and_leave_a_third_attempt() {
        let faults = [Fault::ReplyLost, Fault::Delay(1)];
        let plan = Plan::seeded(7, 1000, 3, &faults);
        assert_eq!(plan.by_number, Plan::seeded(7, 1000, 3, &faults).by_number);
        assert_ne!(plan.by_number, Plan::seeded(8, 1000, 3, &faults).by_number);
        assert!((200..450).contains(&plan.by_number.len()), "{}", plan.by_number.len());
        for first in 0..998 {
            assert!(!(first..first + 3).all(|number| plan.by_number.contains_key(&number)));
        }
    }
}
