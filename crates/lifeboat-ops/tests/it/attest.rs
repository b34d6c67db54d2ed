//! What people said of checklists, brought back from the ledger: with its own time, once, and only from chains that hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::readiness::checklist::attested;
use lifeboat_model::{Clock as _, Env};
use lifeboat_ops::Protected;
use lifeboat_ops::attest::{self, Said};
use lifeboat_ops::ledger::{self, Catalog, Entry, Outcome, Rebuilt};
use lifeboat_repo::{Trust, format_utc};
use lifeboat_testkit::env::{SimClock, sim_env};
use serde_json::{Value, json};

use crate::world::World;

const HOUR: Duration = Duration::from_secs(3600);

struct Host {
    world: World,
    env: Env,
    clock: Arc<SimClock>,
}

impl Host {
    async fn new() -> Self {
        let (env, clock) = sim_env(7);
        Self {
            world: World::new(1).await,
            env,
            clock,
        }
    }

    /// Records that ada said so, or not so, of the line `it is well`.
    async fn tick(&self, good: bool, with_time: bool) -> i64 {
        let at_us = self.clock.wall_us();
        let at = with_time.then(|| format_utc(at_us));
        self.record(json!({ "checklist": "test/daily", "item": "it is well", "good": good, "who": "ada", "at": at }))
            .await;
        at_us
    }

    async fn record(&self, result: Value) {
        self.clock.advance(Duration::from_secs(1));
        let entry = Entry {
            verb: "attest".to_owned(),
            outcome: Outcome::Done,
            facts: json!({ "result": result }).as_object().unwrap().clone(),
        };
        drop(
            ledger::append(&self.env, &self.world.protected, &self.world.instance, entry)
                .await
                .unwrap(),
        );
    }

    /// A machine that has lost its state folder.
    fn fresh(&self, name: &str) -> Protected {
        Protected {
            state_dir: self.world.folder.join(name),
            ..self.world.protected.clone()
        }
    }

    /// The files of the ledger in the store, in order.
    fn files(&self) -> Vec<PathBuf> {
        let place = self.world.protected.stores[0].path.clone().unwrap();
        let mut files = Vec::new();
        for chain in std::fs::read_dir(place.join("c/test~2Fdb/ledger")).unwrap() {
            files.extend(
                std::fs::read_dir(chain.unwrap().path())
                    .unwrap()
                    .map(|file| file.unwrap().path()),
            );
        }
        files.sort();
        files
    }
}

async fn rebuild(protected: &Protected) -> Rebuilt {
    let mut catalog = Catalog::remake(&protected.state_dir, None).unwrap();
    ledger::rebuild(protected, &mut catalog).await.unwrap()
}

fn said(protected: &Protected) -> Vec<Said> {
    attest::all(&protected.state_dir).unwrap()
}

#[tokio::test]
async fn what_was_said_comes_back_once_and_as_old_as_it_is() {
    let host = Host::new().await;
    let at_us = host.tick(true, true).await;
    // Of a system that is another one, and in no shape that a tick has.
    host.record(json!({ "checklist": "other/daily", "item": "it is well", "good": true, "who": "ada" }))
        .await;
    host.record(json!({ "checklist": "test/daily", "item": "it is well", "good": "yes", "who": "ada" }))
        .await;
    host.clock.advance(HOUR * 2);
    let fresh = host.fresh("fresh");
    assert_eq!(rebuild(&fresh).await.attestations, 1);
    let known = said(&fresh);
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].at_us, known[0].good), (at_us, true));
    let last = attest::last(&known, "test", "daily", "it is well");
    let now_us = host.clock.wall_us();
    assert!(!attested(last.as_ref(), Some(HOUR), now_us).holds());
    assert!(attested(last.as_ref(), Some(HOUR * 3), now_us).holds());
    assert_eq!(rebuild(&fresh).await.attestations, 0);
    assert_eq!(said(&fresh), known);
}

#[tokio::test]
async fn of_records_without_the_time_theirs_is_taken() {
    let host = Host::new().await;
    for good in [false, true, false] {
        host.tick(good, false).await;
    }
    let fresh = host.fresh("fresh");
    assert_eq!(rebuild(&fresh).await.attestations, 3);
    let known = said(&fresh);
    assert!(!attest::last(&known, "test", "daily", "it is well").unwrap().good);
    assert_eq!(rebuild(&fresh).await.attestations, 0);
    assert_eq!(said(&fresh), known);
}

#[tokio::test]
async fn nothing_is_taken_from_a_chain_that_does_not_hold_or_that_nobody_known_signed() {
    let host = Host::new().await;
    for good in [true, false, true] {
        host.tick(good, true).await;
    }
    let mut stranger = host.fresh("stranger");
    stranger.trust = Trust::new();
    assert_eq!(rebuild(&stranger).await.attestations, 0);
    assert_eq!(said(&stranger), []);
    // Somebody takes away that it was not so, or makes it unreadable.
    let file = host.files()[1].clone();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let fresh = host.fresh("fresh");
    let rebuilt = rebuild(&fresh).await;
    assert_eq!((rebuilt.attestations, rebuilt.broken_chains), (0, 1));
    // At the end of a chain no other record misses it.
    std::fs::write(&file, &bytes).unwrap();
    let newest = host.files()[2].clone();
    let whole = std::fs::read(&newest).unwrap();
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    std::fs::write(&newest, damaged).unwrap();
    let rebuilt = rebuild(&fresh).await;
    assert_eq!((rebuilt.attestations, rebuilt.broken_chains), (0, 1));
    std::fs::write(&newest, whole).unwrap();
    let rebuilt = rebuild(&fresh).await;
    assert_eq!((rebuilt.attestations, rebuilt.broken_chains), (3, 0));
}
