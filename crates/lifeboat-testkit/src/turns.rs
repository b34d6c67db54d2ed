//! Turns: several actors work on stores, one store operation at a time, in an order that a seed decides.
//!
//! Every operation of every actor stops at a turnstile. The conductor waits until nothing moves any more (every actor stands there or has
//! finished, nothing computes), picks an actor, and lets one of its operations through: of several that wait (parallel uploads) the first by
//! name. So everything that happens is the seed's choice, and a seed replays.
//!
//! That nothing moves is known from tokio's paused clock, which goes on by itself only when no task can run and no blocking thread works: the
//! runtime has to be one of a single thread with `start_paused`.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Capabilities, Entry, Key, Put};
use tokio::sync::Notify;

use crate::faulty::Op;

/// Numbers that look random, decided by a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 0 to `below` - 1; 0 where `below` is 0.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }
}

/// What happens to an operation in the world of [`Turns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It is not done, and that is said.
    Refused,
    /// It is done, and nobody hears of it.
    ReplyLost,
    /// It is done twice.
    Twice,
    /// A put or a deletion is not done now; it arrives at any later turn.
    Late,
}

/// The turnstile that all stores of a world share.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    actors: Vec<Actor>,
    late: Vec<Late>,
    tickets: u64,
    operations: u64,
    troubles: u64,
}

#[derive(Debug)]
struct Actor {
    name: String,
    dice: Dice,
    waiting: Vec<Ticket>,
    granted: Option<Ticket>,
    finished: bool,
    /// One operation in so many gets into trouble; 0 for none.
    trouble_one_in: u64,
}

/// An operation that waits: what it is, and its number among all that ever waited. The first by name goes first.
type Ticket = (String, u64);

struct Late {
    store: Arc<dyn BlobStore>,
    key: Key,
    /// What was to be put; none for a deletion.
    body: Option<Bytes>,
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// A turnstile that nobody stands at.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new actor. One in `trouble_one_in` of its operations gets into trouble, decided by `seed`; none where that is 0.
    #[must_use]
    pub fn actor(&self, name: &str, seed: u64, trouble_one_in: u64) -> ActorTurns {
        let mut state = self.0.state();
        state.actors.push(Actor {
            name: name.to_owned(),
            dice: Dice::new(seed),
            waiting: Vec::new(),
            granted: None,
            finished: false,
            trouble_one_in,
        });
        ActorTurns {
            inner: Arc::clone(&self.0),
            number: state.actors.len() - 1,
        }
    }

    /// Lets one operation of one actor through. Returns the actor's name, or nothing when all have finished.
    pub async fn step(&self, dice: &mut Dice) -> Option<String> {
        loop {
            quiet().await;
            let name = self.grant(dice)?;
            if name.is_some() {
                self.0.changed.notify_waiters();
                quiet().await;
                return name;
            }
        }
    }

    /// Grants a turn to one of those that have not finished, if it waits for one; nothing when all have finished.
    fn grant(&self, dice: &mut Dice) -> Option<Option<String>> {
        let mut state = self.0.state();
        let mut live: Vec<&mut Actor> = state.actors.iter_mut().filter(|actor| !actor.finished).collect();
        let index = usize::try_from(dice.roll(live.len() as u64)).unwrap_or_default();
        let actor = live.get_mut(index)?;
        // One that does not wait for a turn waits for a time limit of its own, and the clock goes on.
        actor.granted = actor.waiting.iter().min().cloned();
        Some(actor.granted.is_some().then(|| actor.name.clone()))
    }

    /// One of the requests that are late arrives, if there is any; tells nobody how it went, as whoever sent it has left.
    pub async fn land_one(&self, dice: &mut Dice) {
        let late = {
            let mut state = self.0.state();
            let index = usize::try_from(dice.roll(state.late.len() as u64)).unwrap_or_default();
            if state.late.is_empty() {
                return;
            }
            state.late.remove(index)
        };
        match late.body {
            Some(body) => drop(late.store.put(&late.key, body).await),
            None => drop(late.store.delete(&late.key).await),
        }
    }

    /// Everything that is late arrives.
    pub async fn land_all(&self, dice: &mut Dice) {
        while !self.0.state().late.is_empty() {
            self.land_one(dice).await;
        }
    }

    /// What is late and `stays` late goes on to `next`, where it may arrive at any turn.
    pub fn carry_over(&self, next: &Self, stays: impl Fn(&Key) -> bool) {
        let late = std::mem::take(&mut self.0.state().late);
        let (later, now): (Vec<_>, Vec<_>) = late.into_iter().partition(|late| late.body.is_some() && stays(&late.key));
        self.0.state().late = now;
        next.0.state().late.extend(later);
    }

    /// How many operations were let through, and how many of them got into trouble.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        let state = self.0.state();
        (state.operations, state.troubles)
    }
}

/// An actor's side of the turnstile. The actor has finished when this, and with it the end of its work, is dropped.
#[derive(Debug)]
pub struct ActorTurns {
    inner: Arc<Inner>,
    number: usize,
}

impl ActorTurns {
    /// `store`, as this actor reaches it.
    #[must_use]
    pub fn store(&self, store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
        Arc::new(TurnStore {
            inner: Arc::clone(&self.inner),
            number: self.number,
            store,
        })
    }
}

impl Drop for ActorTurns {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.actors[self.number].finished = true;
        state.actors[self.number].granted = None;
    }
}

/// Waits until no task can run and no blocking thread works.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A store behind the turnstile.
#[derive(Debug)]
struct TurnStore {
    inner: Arc<Inner>,
    number: usize,
    store: Arc<dyn BlobStore>,
}

/// Stands in the queue; leaves it also when the future is dropped there.
struct Waiting<'a>(&'a TurnStore, Ticket);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.inner.state();
        state.actors[self.0.number].waiting.retain(|ticket| *ticket != self.1);
    }
}

impl TurnStore {
    /// Waits for its turn; says what happens in it.
    async fn turn(&self, op: Op, key: &Key) -> Option<Trouble> {
        let waiting = {
            let mut state = self.inner.state();
            state.tickets += 1;
            let ticket = (format!("{key} {op:?} {}", self.store.name()), state.tickets);
            state.actors[self.number].waiting.push(ticket.clone());
            Waiting(self, ticket)
        };
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.inner.state();
                let actor = &mut state.actors[self.number];
                if actor.granted.as_ref() == Some(&waiting.1) {
                    actor.granted = None;
                    let in_trouble = actor.trouble_one_in > 0 && actor.dice.roll(actor.trouble_one_in) == 0;
                    let kinds = [Trouble::Refused, Trouble::ReplyLost, Trouble::Twice, Trouble::Late];
                    let kind = usize::try_from(actor.dice.roll(4))
                        .ok()
                        .and_then(|kind| kinds.get(kind).copied());
                    state.operations += 1;
                    state.troubles += u64::from(in_trouble);
                    return kind.filter(|_| in_trouble);
                }
            }
            changed.await;
        }
    }

    async fn through<T, F>(&self, op: Op, key: &Key, body: Option<&Bytes>, perform: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let trouble = self.turn(op, key).await;
        let away = |detail: &str| Error::new(ErrorKind::Unreachable, "reach", key, detail);
        match trouble {
            None => perform().await,
            Some(Trouble::Refused) => Err(away("the store refused, as the seed wants it")),
            Some(Trouble::ReplyLost) => match perform().await {
                Ok(_) => Err(away("the answer was lost, as the seed wants it")),
                failed => failed,
            },
            Some(Trouble::Twice) => {
                let first = perform().await;
                drop(perform().await);
                first
            }
            Some(Trouble::Late) if matches!(op, Op::Put | Op::Delete) => {
                let late = Late {
                    store: Arc::clone(&self.store),
                    key: key.clone(),
                    body: body.cloned(),
                };
                self.inner.state().late.push(late);
                Err(away("the request is late, as the seed wants it"))
            }
            Some(Trouble::Late) => Err(away("the request never arrived, as the seed wants it")),
        }
    }
}

#[async_trait]
impl BlobStore for TurnStore {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<Put> {
        self.through(Op::Put, key, Some(&body), || self.store.put(key, body.clone()))
            .await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes> {
        self.through(Op::Get, key, None, || self.store.get(key, limit_bytes)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.through(Op::GetRange, key, None, || self.store.get_range(key, range.clone()))
            .await
    }

    async fn head(&self, key: &Key) -> Result<Entry> {
        self.through(Op::Head, key, None, || self.store.head(key)).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Entry>> {
        self.through(Op::List, prefix, None, || self.store.list(prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.through(Op::Delete, key, None, || self.store.delete(key)).await
    }
}
