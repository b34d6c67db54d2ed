//! The invariants of the simulated world, looked at when nothing moves, and what has to go well once nothing goes wrong.

use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Env, Result};
use lifeboat_repo::{Backup, BackupId, Identities, Reader, Repository, list_holds, release_hold};
use lifeboat_store::BlobStore;
use lifeboat_testkit::turns::{ActorTurns, Turns};

use super::{STORES, Shared, Simulation, Work, truth};
use crate::prune::GRACE;
use crate::world::{Files, restore_file};

impl Simulation {
    /// The invariants, looked at through stores that are at peace.
    pub(super) async fn judge(&self) -> u64 {
        let mut count = 0;
        for (place, store) in self.stores.iter().enumerate() {
            let what = format!("seed {}, store {}", self.seed, STORES[place]);
            let listing = self.listing(place).await;
            let repository = Repository::open(Arc::new(store.clone())).await.unwrap();
            for backup in &listing.backups {
                restore_exactly(&self.world.env, &repository, backup, &self.people[0].0, &self.truth)
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {}: {error}", backup.id));
            }
            let truth = truth(&self.truth);
            let counts = |id: &BackupId| listing.backups.iter().any(|backup| backup.id == *id);
            let promised = truth.promised.iter().filter(|known| !truth.given_up.contains_key(*known));
            for (_, id) in promised.chain(&truth.held).filter(|(there, _)| *there == place) {
                let why = listing.rejected.iter().find(|rejected| rejected.name == id.to_string());
                assert!(counts(id), "{what}: {id} was promised and does not count: {why:?}");
            }
            count += listing.backups.len() as u64;
        }
        self.same_names_same_bytes().await;
        count
    }

    /// INV-01, also across the stores.
    async fn same_names_same_bytes(&self) {
        for entry in self.stores[0].list(&self.world.component.folder().unwrap()).await.unwrap() {
            let there = self.stores[1].get(&entry.key, u64::MAX).await;
            let here = self.stores[0].get(&entry.key, u64::MAX).await.unwrap();
            assert!(there.is_err() || there.unwrap() == here, "seed {}: {}", self.seed, entry.key);
        }
        for store in &self.stores {
            for entry in store.list(&self.world.component.folder().unwrap()).await.unwrap() {
                let name = entry.key.file_name();
                let named = name.trim_end_matches(".age").rsplit('-').next().unwrap_or_default();
                if named.len() == 64 {
                    let bytes = store.get(&entry.key, u64::MAX).await.unwrap();
                    assert_eq!(blake3::hash(&bytes).to_string(), named, "seed {}: {}", self.seed, entry.key);
                }
            }
        }
    }

    /// When nothing goes wrong any more, what was left half done is finished, old backups go, and the next one is made in both stores.
    pub(super) async fn calm(&mut self) {
        self.turns.land_all(&mut self.dice).await;
        self.release_what_holds_nothing().await;
        let made = self.backup(0, 900, vec![0, 1]);
        self.alone(made, "a calm backup").await;
        for kept in [1, 1, 100, 100] {
            self.clock.advance(GRACE + Duration::from_secs(3600));
            for place in 0..2 {
                for machine in 0..2 {
                    let prune = self.prune(machine, place, kept);
                    self.alone(prune, "a calm prune").await;
                }
            }
        }
        let before = truth(&self.truth).promised.len();
        let made = self.backup(0, 901, vec![0, 1]);
        self.alone(made, "the last backup").await;
        let promised = truth(&self.truth).promised.len();
        assert_eq!(
            promised,
            before + 2,
            "seed {}: the last backup is not in both stores",
            self.seed
        );
    }

    /// A hold that came too late stops pruners until somebody releases it, as they say.
    async fn release_what_holds_nothing(&self) {
        for (place, store) in self.stores.iter().enumerate() {
            let repository = Repository::open(Arc::new(store.clone())).await.unwrap();
            let (component, listing) = (&self.world.component, self.listing(place).await);
            for hold in list_holds(&repository, component, &self.trust).await.unwrap() {
                let stands = |id: BackupId| listing.backups.iter().any(|backup| backup.id == id);
                if !hold.backup.is_some_and(stands) {
                    let instance = &self.machines[0].instance;
                    release_hold(&repository, component, instance, &self.trust, &hold.id)
                        .await
                        .unwrap();
                }
            }
        }
    }

    async fn alone(&mut self, work: impl FnOnce(ActorTurns) -> Work, what: &str) {
        let turns = Turns::new();
        let running = tokio::spawn(work(turns.actor("calm", self.seed, 0)));
        while turns.step(&mut self.dice).await.is_some() {}
        let ended = running.await.unwrap();
        ended.unwrap_or_else(|error| panic!("seed {}: {what}: {error}", self.seed));
    }
}

/// Restores a backup and compares it with what its source was. A store in trouble, or a key file that is being replaced at this very moment, is an
/// error; other bytes than the source's are a panic.
pub(super) async fn restore_exactly(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    shared: &Shared,
) -> Result<()> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    let mut restored = Files::new();
    for file in reader.files() {
        restored.insert(file.meta.path.clone(), restore_file(&reader, file).await?);
    }
    let mut truth = truth(shared);
    let expected = backup.header.tags.first().and_then(|tag| truth.contents.get(tag));
    assert!(
        expected == Some(&restored),
        "{} holds other bytes than its source had",
        backup.id
    );
    truth.counted.restored += 1;
    Ok(())
}
