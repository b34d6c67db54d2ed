//! Turns: several actors work on stores, one store operation at a time, in an order that a seed decides.
//!
//! Every operation of every actor stops at a turnstile. The conductor picks an actor, waits until it stands there (or has finished), lets one
//! operation through, and waits until that is done. What an actor computes between two operations runs on real threads and changes no
//! order. Where one actor has several operations waiting at once (parallel uploads), which of them goes first is the runtime's choice; the
//! order of actors, the faults and the clock are the seed's.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    operations: u64,
    troubles: u64,
}

#[derive(Debug)]
struct Actor {
    name: String,
    dice: Dice,
    waiting: usize,
    granted: bool,
    busy: bool,
    finished: bool,
    /// One operation in so many gets into trouble; 0 for none.
    trouble_one_in: u64,
}

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
            waiting: 0,
            granted: false,
            busy: false,
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
            let (number, name) = {
                let state = self.0.state();
                let live: Vec<usize> = (0..state.actors.len())
                    .filter(|number| !state.actors[*number].finished)
                    .collect();
                let index = usize::try_from(dice.roll(live.len() as u64)).unwrap_or_default();
                let number = *live.get(index)?;
                (number, state.actors[number].name.clone())
            };
            let ready = self.until(number, |actor| actor.waiting > 0 || actor.finished).await;
            if ready {
                self.0.state().actors[number].granted = true;
                self.0.changed.notify_waiters();
                self.until(number, |actor| !actor.granted && !actor.busy).await;
                return Some(name);
            }
        }
    }

    /// Waits until `right` holds for an actor; false where it has finished.
    async fn until(&self, number: usize, right: impl Fn(&Actor) -> bool) -> bool {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.0.state();
                let actor = &mut state.actors[number];
                if actor.finished {
                    actor.granted = false;
                    return false;
                }
                if right(actor) {
                    return true;
                }
            }
            changed.await;
        }
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
        state.actors[self.number].granted = false;
        drop(state);
        self.inner.changed.notify_waiters();
    }
}

/// A store behind the turnstile.
#[derive(Debug)]
struct TurnStore {
    inner: Arc<Inner>,
    number: usize,
    store: Arc<dyn BlobStore>,
}

/// Stands in the queue; leaves it also when the future is dropped there.
struct Waiting<'a>(&'a TurnStore);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.inner.state().actors[self.0.number].waiting -= 1;
    }
}

/// Has its turn; ends it also when the future is dropped.
struct Turn<'a>(&'a TurnStore);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.inner.state().actors[self.0.number].busy = false;
        self.0.inner.changed.notify_waiters();
    }
}

impl TurnStore {
    async fn turn(&self) -> (Turn<'_>, Option<Trouble>) {
        self.inner.state().actors[self.number].waiting += 1;
        let waiting = Waiting(self);
        self.inner.changed.notify_waiters();
        loop {
            let changed = self.inner.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.inner.state();
                let actor = &mut state.actors[self.number];
                if actor.granted {
                    actor.granted = false;
                    actor.busy = true;
                    let in_trouble = actor.trouble_one_in > 0 && actor.dice.roll(actor.trouble_one_in) == 0;
                    let kinds = [Trouble::Refused, Trouble::ReplyLost, Trouble::Twice, Trouble::Late];
                    let kind = usize::try_from(actor.dice.roll(4))
                        .ok()
                        .and_then(|kind| kinds.get(kind).copied());
                    let trouble = kind.filter(|_| in_trouble);
                    state.operations += 1;
                    state.troubles += u64::from(in_trouble);
                    drop(state);
                    drop(waiting);
                    return (Turn(self), trouble);
                }
            }
            changed.await;
        }
    }

    async fn through<T, F>(&self, op: Op, key: &Key, body: Option<&Bytes>, perform: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let (_turn, trouble) = self.turn().await;
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
