//! One repository in several stores (docs/several-stores.md): stores that are away, wiped, slow, full or dead; copies that die anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_model::{ErrorKind, Result};
use lifeboat_repo::{Committed, Copied, CopyPlan, Repository, Which, copy};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::faulty::{Fault, FaultyStore, Op, Plan};
use lifeboat_testkit::pages::{change_pages, table_pages};

use crate::world::{Content, Files, World, failed, pages, seed, share, soak, write};

pub(crate) fn source(generation: u64) -> Files {
    let mut bytes = table_pages(1, 4096, 3 * 32 + 5);
    for round in 0..generation {
        change_pages(&mut bytes, 4096, round, 3);
    }
    let mut files = pages("db", bytes, 4096);
    files.insert("log".into(), Content::Stream(generation.to_le_bytes().repeat(700)));
    files
}

/// Two stores with the same repository.
pub(crate) struct Two {
    pub(crate) world: World,
    pub(crate) second: MemoryStore,
}

impl Two {
    pub(crate) async fn new() -> Self {
        let mut world = World::new(seed()).await;
        world.env.threads = 1;
        let second = MemoryStore::new();
        world.repository.replicate(Arc::new(second.clone())).await.unwrap();
        Self { world, second }
    }

    /// Stores that tell the time of the world's clock.
    pub(crate) async fn timed() -> Self {
        let world = crate::prune::world().await;
        let second = MemoryStore::with_clock(Arc::<lifeboat_testkit::env::SimClock>::clone(&world.clock));
        world.repository.replicate(Arc::new(second.clone())).await.unwrap();
        Self { world, second }
    }

    /// The steps of a prune that are due in one store, which keeps the newest `count`.
    pub(crate) async fn prune(&self, name: &str, count: usize) -> lifeboat_repo::Pruned {
        crate::prune::prune_with(&self.world, &self.replica(name).await, count)
            .await
            .unwrap()
    }

    /// A backup of `generation` into both, where the second store is reached through another one.
    pub(crate) async fn both_through(&self, generation: u64, second: Arc<dyn BlobStore>) -> Result<Committed> {
        let members = vec![
            ("a".to_owned(), Ok(self.replica("a").await)),
            ("b".to_owned(), Repository::open(second).await),
        ];
        write(
            &self.world.env,
            &Repository::joined(members)?,
            self.world.plan(),
            &source(generation),
        )
        .await
    }

    pub(crate) fn store(&self, name: &str) -> MemoryStore {
        if name == "a" {
            self.world.memory.clone()
        } else {
            self.second.clone()
        }
    }

    pub(crate) async fn replica(&self, name: &str) -> Repository {
        Repository::open(Arc::new(self.store(name))).await.unwrap()
    }

    /// A backup of `generation` into the named stores, each behind a plan.
    pub(crate) async fn backup(&self, generation: u64, stores: &[(&str, Plan)]) -> Result<Committed> {
        let mut members = Vec::new();
        for (name, plan) in stores {
            let store: Arc<dyn BlobStore> = Arc::new(FaultyStore::new(self.store(name), plan.clone()));
            members.push(((*name).to_owned(), Repository::open(store).await));
        }
        let repository = Repository::joined(members)?;
        write(&self.world.env, &repository, self.world.plan(), &source(generation)).await
    }

    pub(crate) async fn both(&self, generation: u64) -> Committed {
        let committed = self
            .backup(generation, &[("a", Plan::calm()), ("b", Plan::calm())])
            .await
            .unwrap();
        assert!(
            committed.copies.iter().all(|copy| copy.missing.is_none()),
            "{:?}",
            committed.copies
        );
        committed
    }

    pub(crate) fn copy_plan(&self, which: Which) -> CopyPlan {
        CopyPlan {
            component: self.world.component.clone(),
            instance: Arc::clone(&self.world.instance),
            trust: self.world.trust.clone(),
            which,
        }
    }

    pub(crate) async fn copy(&self, from: &str, to: &str, which: Which) -> Copied {
        let (from, to) = (self.replica(from).await, self.replica(to).await);
        copy(&self.world.env, &from, &to, &[], &self.copy_plan(which)).await.unwrap()
    }

    /// Which generations count in a store, by sequence; each restores byte for byte from there alone, and nothing there is rejected.
    pub(crate) async fn holds(&self, name: &str, generations: &BTreeMap<u64, u64>) {
        let repository = self.replica(name).await;
        let listing = repository.backups(&self.world.component, &self.world.trust).await.unwrap();
        assert!(listing.rejected.is_empty(), "{name}: {:?}", listing.rejected);
        let found: Vec<u64> = listing.backups.iter().map(|backup| backup.id.seq).collect();
        assert_eq!(found, generations.keys().copied().collect::<Vec<_>>(), "{name}");
        for backup in &listing.backups {
            let identities = self.world.identities();
            let reader = lifeboat_repo::Reader::open(&self.world.env, &repository, backup, &identities)
                .await
                .unwrap();
            let restored = crate::world::restore(&reader).await.unwrap();
            assert!(
                restored == source(generations[&backup.id.seq]),
                "{name}: backup {}",
                backup.id.seq
            );
        }
    }

    /// INV-01 across stores: one name, the same bytes.
    pub(crate) async fn agree(&self) {
        let prefix = self.world.component.folder().unwrap();
        let mut common = 0;
        for entry in self.second.list(&prefix).await.unwrap() {
            if let Ok(bytes) = self.world.memory.get(&entry.key, u64::MAX).await {
                assert!(bytes == self.second.get(&entry.key, u64::MAX).await.unwrap(), "{}", entry.key);
                common += 1;
            }
        }
        assert!(common > 0);
    }

    async fn wipe(&self, name: &str) {
        let store = self.store(name);
        for entry in store.list(&Key::new("c").unwrap()).await.unwrap() {
            store.delete(&entry.key).await.unwrap();
        }
    }
}

pub(crate) fn generations(pairs: &[(u64, u64)]) -> BTreeMap<u64, u64> {
    pairs.iter().copied().collect()
}

pub(crate) fn all(count: u64) -> BTreeMap<u64, u64> {
    (1..=count).map(|seq| (seq, seq)).collect()
}

#[tokio::test]
async fn both_stores_get_the_same_bytes_of_one_reading() {
    let two = Two::new().await;
    let first = two.both(1).await;
    let second = two.both(2).await;
    assert_eq!(second.backup.header.parent, Some(first.backup.id.to_string()));
    for name in ["a", "b"] {
        two.holds(name, &all(2)).await;
    }
    two.agree().await;
    let prefix = Key::new("c").unwrap();
    let names = |entries: Vec<lifeboat_store::Entry>| {
        entries
            .into_iter()
            .map(|entry| (entry.key, entry.size_bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(two.world.memory.list(&prefix).await.unwrap()),
        names(two.second.list(&prefix).await.unwrap())
    );
}

/// Design test 6: one away for three backups, back for one, the other wiped; `copy` both ways with a crash at each operation.
#[tokio::test]
async fn two_stores_out_of_step() {
    let mut crashes = 0;
    // The number of operations of each copy is found by a calm run.
    let calm = out_of_step(None, None).await;
    let mut matrix = Vec::new();
    for (leg, operations) in calm.into_iter().enumerate() {
        for number in 0..operations {
            matrix.push((leg, Plan::calm().crash_at(number)));
            matrix.push((leg, Plan::calm().crash_after(number)));
        }
    }
    for (leg, plan) in share(matrix, 3) {
        let plans = if leg == 0 { (Some(plan), None) } else { (None, Some(plan)) };
        out_of_step(plans.0, plans.1).await;
        crashes += 1;
    }
    eprintln!("two_stores_out_of_step: {crashes} crashes, seed {}, soak {}", seed(), soak());
}

/// Runs the story; each copy dies by its plan first, and is run again. Returns how many operations the destinations of the copies saw.
async fn out_of_step(first: Option<Plan>, second: Option<Plan>) -> [u64; 2] {
    let two = Two::new().await;
    two.both(1).await;
    for generation in 2..=4 {
        let dead = Plan::calm().crash_at(0);
        let committed = two.backup(generation, &[("a", Plan::calm()), ("b", dead)]).await.unwrap();
        assert_eq!(committed.copies.iter().filter(|copy| copy.missing.is_some()).count(), 1);
    }
    two.holds("a", &all(4)).await;
    two.holds("b", &all(1)).await;
    // Back for one: the parent is mended there, and what lies between stays away.
    let back = two.both(5).await;
    assert!(
        back.notes.iter().any(|note| note.contains("store b had missed")),
        "{:?}",
        back.notes
    );
    assert!(back.backup.header.parent.is_some());
    two.holds("a", &all(5)).await;
    two.holds("b", &generations(&[(1, 1), (4, 4), (5, 5)])).await;
    let to_b = two.dying_copy("a", "b", first).await;
    two.holds("b", &all(5)).await;
    two.agree().await;
    two.wipe("a").await;
    let to_a = two.dying_copy("b", "a", second).await;
    two.holds("a", &all(5)).await;
    two.agree().await;
    // Nothing was lost on the way: the next backup builds on the last one, in both.
    let next = two.both(6).await;
    assert_eq!(
        next.backup.header.parent,
        Some(back.backup.id.to_string()),
        "{:?}",
        next.notes
    );
    for name in ["a", "b"] {
        two.holds(name, &all(6)).await;
    }
    [to_b, to_a]
}

impl Two {
    /// A copy that dies by plan, and whatever stands then is whole; then the same copy again.
    async fn dying_copy(&self, from: &str, to: &str, plan: Option<Plan>) -> u64 {
        let store = Arc::new(FaultyStore::new(self.store(to), Plan::calm()));
        if let Some(plan) = plan {
            let dying: Arc<dyn BlobStore> = Arc::new(FaultyStore::new(self.store(to), plan));
            let attempt = async {
                let to = Repository::open(dying).await?;
                copy(
                    &self.world.env,
                    &self.replica(from).await,
                    &to,
                    &[],
                    &self.copy_plan(Which::All),
                )
                .await
            };
            // Only taking back the announcement, when all is done, may fail unheard.
            if let Ok(report) = attempt.await {
                let again = self.copy(from, to, Which::All).await;
                assert!(report.failed.is_empty() && again.copied.is_empty(), "{report:?} {again:?}");
            }
            self.nothing_half(to).await;
        }
        let opened = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store) as Arc<dyn BlobStore>)
            .await
            .unwrap();
        let report = copy(
            &self.world.env,
            &self.replica(from).await,
            &opened,
            &[],
            &self.copy_plan(Which::All),
        )
        .await
        .unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        let again = self.copy(from, to, Which::All).await;
        assert_eq!((again.copied.len(), again.files), (0, 0));
        store.operations()
    }

    pub(crate) async fn nothing_half(&self, name: &str) {
        let listing = self
            .replica(name)
            .await
            .backups(&self.world.component, &self.world.trust)
            .await
            .unwrap();
        assert!(listing.rejected.is_empty(), "{:?}", listing.rejected);
        let sound = listing.backups.iter().map(|backup| (backup.id.seq, backup.id.seq)).collect();
        self.holds(name, &sound).await;
    }
}

/// Every fault at every operation of one of two stores: the other has its copy, and the next run mends.
#[tokio::test]
async fn a_store_that_fails_anywhere_does_not_stop_the_other() {
    let operations = {
        let two = Two::new().await;
        two.both(1).await;
        let store = Arc::new(FaultyStore::new(two.store("b"), Plan::calm()));
        let members = vec![
            ("a".to_owned(), Ok(two.replica("a").await)),
            (
                "b".to_owned(),
                Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store) as Arc<dyn BlobStore>).await,
            ),
        ];
        let joined = Repository::joined(members).unwrap();
        write(&two.world.env, &joined, two.world.plan(), &source(2)).await.unwrap();
        store.operations()
    };
    let mut matrix = Vec::new();
    for number in 0..operations {
        matrix.extend(
            [
                Fault::Refused(ErrorKind::NoSpace),
                Fault::Refused(ErrorKind::Unreachable),
                Fault::ReplyLost,
                Fault::Late(1000),
                Fault::Delay(50),
                Fault::Twice,
            ]
            .map(|fault| (number, fault)),
        );
    }
    for (number, fault) in share(matrix, 3) {
        let what = format!("operation {number}, {fault:?}");
        let two = Two::new().await;
        two.both(1).await;
        let store = Arc::new(FaultyStore::new(two.store("b"), Plan::calm().fault(number, fault)));
        let opened = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store) as Arc<dyn BlobStore>).await;
        let joined = Repository::joined(vec![("a".into(), Ok(two.replica("a").await)), ("b".into(), opened)]).unwrap();
        let committed = write(&two.world.env, &joined, two.world.plan(), &source(2)).await.unwrap();
        drop(store.land().await);
        let missing = committed.copies.iter().filter(|copy| copy.missing.is_some()).count();
        let harmless = matches!(fault, Fault::Delay(_) | Fault::Twice);
        assert_eq!(missing, usize::from(!harmless), "{what}: {:?}", committed.copies);
        two.holds("a", &all(2)).await;
        two.nothing_half("b").await;
        let next = two.both(3).await;
        assert_eq!(
            next.backup.header.parent,
            Some(committed.backup.id.to_string()),
            "{what}: {:?}",
            next.notes
        );
        for name in ["a", "b"] {
            let listing = two
                .replica(name)
                .await
                .backups(&two.world.component, &two.world.trust)
                .await
                .unwrap();
            assert_eq!(listing.latest().unwrap().id, next.backup.id, "{what}");
            two.nothing_half(name).await;
        }
        two.agree().await;
    }
}

#[tokio::test]
async fn all_stores_failing_is_a_failure_with_the_first_error() {
    let two = Two::new().await;
    let full = || Plan::calm().always(Op::Put, Fault::Refused(ErrorKind::NoSpace));
    let error = failed(two.backup(1, &[("a", full()), ("b", full())]).await, "a backup");
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let away = || Plan::calm().crash_at(0);
    assert!(two.backup(1, &[("a", away()), ("b", away())]).await.is_err());
    two.both(1).await;
}

#[tokio::test]
async fn the_parent_may_stand_in_either_store_alone() {
    let two = Two::new().await;
    two.both(1).await;
    let dead = || Plan::calm().crash_at(0);
    let only_a = two.backup(2, &[("a", Plan::calm()), ("b", dead())]).await.unwrap();
    // Now only b answers: what the local state knows stands nowhere it can see.
    let only_b = two.backup(3, &[("a", dead()), ("b", Plan::calm())]).await.unwrap();
    assert_eq!(only_b.backup.header.parent, None, "{:?}", only_b.notes);
    let both = two.both(4).await;
    assert_eq!(
        both.backup.header.parent,
        Some(only_b.backup.id.to_string()),
        "{:?}",
        both.notes
    );
    // Two backups have the number 2: what one store could not see.
    for (name, held) in [
        ("a", [Some(1), Some(2), Some(3), Some(4)]),
        ("b", [Some(1), None, Some(3), Some(4)]),
    ] {
        let repository = two.replica(name).await;
        let listing = repository.backups(&two.world.component, &two.world.trust).await.unwrap();
        assert!(listing.rejected.is_empty(), "{name}: {:?}", listing.rejected);
        let mut restored = Vec::new();
        for backup in &listing.backups {
            let reader = lifeboat_repo::Reader::open(&two.world.env, &repository, backup, &two.world.identities())
                .await
                .unwrap();
            restored.push(crate::world::restore(&reader).await.unwrap());
        }
        let held: Vec<u64> = held.into_iter().flatten().collect();
        assert_eq!(restored.len(), held.len(), "{name}");
        assert!(
            held.iter().all(|generation| restored.contains(&source(*generation))),
            "{name}"
        );
    }
    assert!(two.copy("a", "b", Which::All).await.failed.is_empty());
    let listing = two
        .replica("b")
        .await
        .backups(&two.world.component, &two.world.trust)
        .await
        .unwrap();
    assert!(listing.backups.iter().any(|backup| backup.id == only_a.backup.id));
}

/// What no store has is stored again from the source, in both.
#[tokio::test]
async fn a_pack_that_is_lost_everywhere_is_stored_again() {
    let two = Two::new().await;
    let first = two.both(1).await;
    let packs = two.world.stored("packs").await;
    for store in [&two.world.memory, &two.second] {
        for pack in &packs {
            store.delete(pack).await.unwrap();
        }
    }
    let second = two.both(2).await;
    assert_eq!(second.backup.header.parent, Some(first.backup.id.to_string()));
    for name in ["a", "b"] {
        let repository = two.replica(name).await;
        let listing = repository.backups(&two.world.component, &two.world.trust).await.unwrap();
        assert_eq!((listing.backups.len(), listing.rejected.len()), (1, 1), "{name}");
        assert_eq!(listing.latest().unwrap().id, second.backup.id);
    }
    two.world.assert_holds(&second.backup, &source(2)).await;
}

/// A file that is damaged in the source is not copied; another store's good copy is.
#[tokio::test]
async fn a_damaged_file_is_never_copied() {
    let two = Two::new().await;
    two.both(1).await;
    two.both(2).await;
    let third = MemoryStore::new();
    let to = two.world.repository.replicate(Arc::new(third.clone())).await.unwrap();
    for pack in two.world.stored("packs").await {
        let mut bytes = two.world.bytes_of(&pack).await;
        bytes[100] ^= 1;
        two.world.overwrite(&pack, bytes).await;
    }
    let plan = two.copy_plan(Which::Missing);
    let (a, b) = (two.replica("a").await, two.replica("b").await);
    let alone = copy(&two.world.env, &a, &to, &[], &plan).await.unwrap();
    assert_eq!((alone.copied.len(), alone.failed.len()), (0, 2), "{alone:?}");
    assert!(alone.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Corrupt));
    assert!(
        to.backups(&two.world.component, &two.world.trust)
            .await
            .unwrap()
            .backups
            .is_empty()
    );
    let helped = copy(&two.world.env, &a, &to, &[b], &plan).await.unwrap();
    assert_eq!((helped.copied.len(), helped.failed.len()), (2, 0), "{helped:?}");
    assert!(helped.notes.iter().any(|note| note.contains("a good copy was taken from")));
    let listing = to.backups(&two.world.component, &two.world.trust).await.unwrap();
    for (backup, generation) in listing.backups.iter().zip([1, 2]) {
        let reader = lifeboat_repo::Reader::open(&two.world.env, &to, backup, &two.world.identities())
            .await
            .unwrap();
        assert!(crate::world::restore(&reader).await.unwrap() == source(generation));
    }
}

/// What is truncated in the destination is replaced.
#[tokio::test]
async fn a_copy_replaces_what_is_cut_off_there() {
    let two = Two::new().await;
    two.both(1).await;
    for folder in ["packs", "backups"] {
        for key in two.world.stored(folder).await {
            let bytes = two.world.bytes_of(&key).await;
            two.world.overwrite(&key, bytes[..bytes.len() / 2].to_vec()).await;
        }
    }
    let report = two.copy("b", "a", Which::All).await;
    assert_eq!(report.copied.len(), 1, "{report:?}");
    two.holds("a", &all(1)).await;
    two.agree().await;
}

#[tokio::test]
async fn what_the_destination_gave_up_is_not_brought_back_unasked() {
    let two = Two::new().await;
    for generation in 1..=4 {
        two.both(generation).await;
    }
    // B's own retention: the two oldest are gone.
    let prefix = two.world.component.folder().unwrap().join("backups").unwrap();
    for entry in two.second.list(&prefix).await.unwrap().into_iter().take(2) {
        two.second.delete(&entry.key).await.unwrap();
    }
    assert_eq!(two.copy("a", "b", Which::Missing).await.copied.len(), 0);
    assert_eq!(two.copy("a", "b", Which::Named(vec!["1".into()])).await.copied.len(), 1);
    assert_eq!(two.copy("a", "b", Which::All).await.copied.len(), 1);
    two.holds("b", &all(4)).await;
}

#[tokio::test]
async fn another_repository_is_never_touched() {
    let two = Two::new().await;
    let stranger = World::new(seed() + 1).await;
    let error = two
        .world
        .repository
        .replicate(Arc::new(stranger.memory.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    for id in [two.world.repository.id(), stranger.repository.id()] {
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
    let members = vec![
        ("a".to_owned(), Ok(two.replica("a").await)),
        (
            "stranger".to_owned(),
            Repository::open(Arc::new(stranger.memory.clone())).await,
        ),
    ];
    let joined = Repository::joined(members).unwrap();
    let committed = write(&two.world.env, &joined, two.world.plan(), &source(1)).await.unwrap();
    let missing = committed.copies[1].missing.as_ref().unwrap();
    assert!(missing.to_string().contains("another repository"), "{missing}");
    assert!(stranger.memory.list(&Key::new("c").unwrap()).await.unwrap().is_empty());
    let to = Repository::open(Arc::new(stranger.memory.clone())).await.unwrap();
    let copied = copy(&two.world.env, &two.replica("a").await, &to, &[], &two.copy_plan(Which::All)).await;
    assert_eq!(failed(copied, "a copy").kind(), ErrorKind::AlreadyExists);
}

/// A store that never answers is left out when another has answered long ago.
#[tokio::test]
async fn a_store_that_hangs_is_left_out() {
    let two = Two::new().await;
    two.both(1).await;
    let hanging = Plan::calm().always(Op::Put, Fault::Delay(u32::MAX));
    let opened = Repository::open(Arc::new(FaultyStore::new(two.store("b"), hanging))).await;
    let members = vec![("a".to_owned(), Ok(two.replica("a").await)), ("b".to_owned(), opened)];
    let joined = Repository::joined(members)
        .unwrap()
        .with_patience(std::time::Duration::from_millis(50));
    let committed = write(&two.world.env, &joined, two.world.plan(), &source(2)).await.unwrap();
    let missing = committed.copies[1].missing.as_ref().unwrap();
    assert_eq!(missing.kind(), ErrorKind::TimedOut);
    two.holds("a", &all(2)).await;
    two.both(3).await;
    two.nothing_half("b").await;
}

/// A census in one store: the others do not wait, and it is told to stand apart.
#[tokio::test]
async fn a_store_with_a_census_stands_apart() {
    let two = Two::new().await;
    two.both(1).await;
    let census = two.world.component.folder().unwrap().join("prune/unknown").unwrap();
    let _put = two.second.put(&census, bytes::Bytes::from_static(b"?")).await.unwrap();
    let committed = two.backup(2, &[("a", Plan::calm()), ("b", Plan::calm())]).await.unwrap();
    assert!(committed.backup.header.parent.is_some());
    assert!(committed.copies[1].apart && committed.copies[1].missing.is_some());
    two.holds("a", &all(2)).await;
    two.holds("b", &all(1)).await;
}
