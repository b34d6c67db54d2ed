//! Design test 7: the lies of the wire, told by an S3 service to the real writer, reader, pruner and copier.
//!
//! The service lives in this process and goes wrong in any one request in every way that fits it: it is overloaded, does what was asked and
//! its answer is lost, does it twice, later, or once more later, breaks off in the middle of a body or of a page of a listing, answers with
//! half a file or a wrong bit. Afterwards everything that was put off arrives. Then: every listed backup restores byte for byte, what was
//! promised is there, nothing that is kept has gone, no wrong byte was given out, and the same verb comes to its end. A seed chooses
//! some of the places, `LIFEBOAT_SOAK=1` takes all; the storms have many faults in each run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{BackupId, CopyPlan, PrunePlan, Repository, Standing, Which, copy, prune};
use lifeboat_store::cloud::{self, CloudSettings, S3Settings};
use lifeboat_store::layer::retry::{Policy, Sleep};
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::env::RealClock;
use lifeboat_testkit::pages::{change_pages, table_pages};
use lifeboat_testkit::s3::{S3Fault, S3Options, S3Server, Snapshot};

use crate::world::{Content, Dice, Files, World, copy_folder, pages, restore, seed, share, soak, write};

/// Longer than a session may last, and than the grace period.
const LONG: Duration = Duration::from_secs(49 * 3600);
/// Backups before anything goes wrong.
const BEFORE: u64 = 3;

#[derive(Debug)]
struct NoSleep;

#[async_trait]
impl Sleep for NoSleep {
    async fn sleep(&self, _pause: Duration) {
        tokio::task::yield_now().await;
    }
}

fn source(generation: u64) -> Files {
    let mut bytes = table_pages(7, 4096, 2 * 32 + 5);
    for round in 0..generation {
        change_pages(&mut bytes, 4096, round, 3);
    }
    let mut files = pages("db", bytes, 4096);
    files.insert("log".into(), Content::Stream(generation.to_le_bytes().repeat(700)));
    files
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Write,
    Read,
    Census,
    Sweep,
    Copy,
}

/// A world whose repository is in a bucket, in the folder `a`; `b` is another store.
struct Scene {
    world: World,
    server: S3Server,
    base: Option<(Snapshot, tempfile::TempDir)>,
    /// What every backup that was ever promised holds.
    truth: BTreeMap<BackupId, u64>,
}

impl Scene {
    async fn new() -> Self {
        let options = S3Options {
            page: 7,
            ..S3Options::default()
        };
        let server = S3Server::start(options).await.unwrap();
        let mut world = World::new(seed()).await;
        world.env.clock = Arc::new(RealClock::new());
        world.env.threads = 1;
        let mut scene = Self {
            world,
            server,
            base: None,
            truth: BTreeMap::new(),
        };
        scene.world.repository = Repository::init(&scene.world.env, scene.store("a").await).await.unwrap();
        for generation in 0..BEFORE {
            let id = scene.world.backup(&source(generation)).await.backup.id;
            scene.truth.insert(id, generation);
        }
        scene
    }

    /// A store that knows nothing yet, as of a new process.
    async fn store(&self, folder: &str) -> Arc<dyn BlobStore> {
        let settings = S3Settings {
            prefix: Some(Key::new(folder).unwrap()),
            ..self.server.settings()
        };
        let policy = Policy {
            attempts: 6,
            ..Policy::default()
        };
        Arc::new(
            cloud::open_with(CloudSettings::S3(settings), policy, Arc::new(NoSleep))
                .await
                .unwrap(),
        )
    }

    /// From here each run begins.
    fn keep(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&self.world.state_dir(), folder.path());
        self.base = Some((self.server.snapshot(), folder));
    }

    async fn reset(&mut self) {
        let (snapshot, state) = self.base.as_ref().unwrap();
        self.server.load(snapshot.clone());
        std::fs::remove_dir_all(self.world.state_dir()).unwrap();
        copy_folder(state.path(), &self.world.state_dir());
        self.world.repository = Repository::open(self.store("a").await).await.unwrap();
    }

    /// The newest `count` backups that were there at the beginning.
    fn newest(&self, count: usize) -> BTreeSet<BackupId> {
        self.truth.keys().rev().take(count).copied().collect()
    }

    async fn write(&self, generation: u64) -> Result<BackupId> {
        let repository = Repository::open(self.store("a").await).await?;
        let committed = write(&self.world.env, &repository, self.world.plan(), &source(generation)).await?;
        Ok(committed.backup.id)
    }

    /// Everything that is listed, read and compared: a wrong byte is never given out.
    async fn read(&self) -> Result<()> {
        let repository = Repository::open(self.store("a").await).await?;
        let listing = repository.backups(&self.world.component, &self.world.trust).await?;
        let Some(newest) = listing.latest() else {
            return Err(unseen(listing.rejected.len()));
        };
        let reader = lifeboat_repo::Reader::open(&self.world.env, &repository, newest, &self.world.identities()).await?;
        let files = read_all(&reader).await?;
        assert!(files == source(self.truth[&newest.id]), "wrong bytes were given out");
        Ok(())
    }

    async fn prune(&self) -> Result<()> {
        let repository = Repository::open(self.store("a").await).await?;
        let retire = |standing: &Standing<'_>| {
            let ids = standing.listing.backups.iter().rev().skip(2);
            Ok(ids.map(|backup| backup.id).collect::<BTreeSet<_>>().into())
        };
        let plan = PrunePlan {
            component: self.world.component.clone(),
            instance: Arc::clone(&self.world.instance),
            trust: self.world.trust.clone(),
            state_dir: self.world.state_dir(),
            grace: Duration::from_secs(48 * 3600),
            dry_run: false,
            retire: &retire,
        };
        prune(&self.world.env, &repository, &plan).await.map(drop)
    }

    /// A copy of everything; an error also where one backup could not be copied.
    async fn copy(&self) -> Result<()> {
        let from = Repository::open(self.store("a").await).await?;
        let to = from.replicate(self.store("b").await).await?;
        let plan = CopyPlan {
            component: self.world.component.clone(),
            instance: Arc::clone(&self.world.instance),
            trust: self.world.trust.clone(),
            which: Which::All,
        };
        let report = copy(&self.world.env, &from, &to, &[], &plan).await?;
        // What seems not to count in the source is not copied, and is said.
        match report.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None if report.notes.is_empty() => Ok(()),
            None => Err(unseen(report.notes.len())),
        }
    }

    async fn run(&mut self, verb: Verb) -> Result<()> {
        match verb {
            Verb::Write => {
                let id = self.write(BEFORE).await?;
                self.truth.insert(id, BEFORE);
                Ok(())
            }
            Verb::Read => self.read().await,
            Verb::Census | Verb::Sweep => self.prune().await,
            Verb::Copy => self.copy().await,
        }
    }

    /// Every listed backup of a store restores to what it was made of; which they are. One that its writer was told nothing about, because
    /// the last answer was lost, is the newest.
    async fn sound(&self, folder: &str, what: &str) -> BTreeSet<BackupId> {
        let Ok(repository) = Repository::open(self.store(folder).await).await else {
            assert_eq!(folder, "b", "{what}");
            return BTreeSet::new();
        };
        let listing = repository.backups(&self.world.component, &self.world.trust).await.unwrap();
        for backup in &listing.backups {
            let reader = lifeboat_repo::Reader::open(&self.world.env, &repository, backup, &self.world.identities())
                .await
                .unwrap();
            let generation = self.truth.get(&backup.id).copied().unwrap_or(BEFORE);
            let files = restore(&reader).await.unwrap();
            assert!(files == source(generation), "{what}: {} in {folder} differs", backup.id);
        }
        // INV-02: no backup file names an absent file, unless a sweep list names the backup.
        let rejected = &listing.rejected;
        let swept = self.server.names().iter().any(|name| name.contains("/prune/sweep-"));
        assert!(rejected.is_empty() || swept, "{what}: {rejected:?}");
        listing.backups.iter().map(|backup| backup.id).collect()
    }

    /// What must hold when the wire is calm again and everything has arrived.
    async fn check(&mut self, verb: Verb, outcome: Result<()>, what: &str) {
        self.server.plan(BTreeMap::new());
        self.server.settle().await;
        let kept = if verb == Verb::Sweep { 2 } else { usize::MAX };
        let listed = self.sound("a", what).await;
        let promised = self.newest(if verb == Verb::Sweep { kept } else { self.truth.len() });
        assert!(listed.is_superset(&promised), "{what}: {listed:?} of {promised:?}");
        if verb == Verb::Copy {
            let there = self.sound("b", what).await;
            assert!(outcome.is_err() || there == listed, "{what}: {there:?}");
        }
        // The same again comes to its end.
        self.run(verb)
            .await
            .unwrap_or_else(|error| panic!("{what}, again: {error:?}"));
        self.server.settle().await;
        let listed = self.sound("a", what).await;
        assert!(listed.is_superset(&promised), "{what}");
        match verb {
            Verb::Sweep => {
                // A pruner that missed a backup for once takes its census back, and begins a new one.
                for _ in 0..2 {
                    self.server.age(LONG);
                    self.prune().await.unwrap();
                }
                assert_eq!(self.sound("a", what).await, promised, "{what}");
            }
            Verb::Copy => assert_eq!(self.sound("b", what).await, listed, "{what}"),
            Verb::Write | Verb::Read | Verb::Census => {}
        }
    }
}

/// A wrong byte in a key file or a backup file: what it belongs to seems not to count.
fn unseen(count: usize) -> Error {
    Error::new(ErrorKind::Corrupt, "list", "the backups", format!("{count} do not count"))
}

/// Everything that a reader gives out, or its error.
async fn read_all(reader: &lifeboat_repo::Reader) -> Result<Files> {
    let mut files = Files::new();
    for file in reader.files() {
        let sink = Arc::new(lifeboat_testkit::pages::MemorySink::new());
        let _fetched = reader
            .restore(file, Arc::<lifeboat_testkit::pages::MemorySink>::clone(&sink), false)
            .await?;
        let content = match file.page_size {
            0 => Content::Stream(sink.bytes()),
            size => Content::Pages(sink.bytes(), size),
        };
        files.insert(file.meta.path.clone(), content);
    }
    Ok(files)
}

/// Whether the verb must not notice: whatever passes by itself is tried again.
fn passes(fault: S3Fault) -> bool {
    // A deletion that was answered and is not done is reported; so are bytes that do not fit.
    !matches!(fault, S3Fault::Later | S3Fault::Shortened | S3Fault::WrongByte)
}

async fn scene_for(verb: Verb) -> Scene {
    let mut scene = Scene::new().await;
    if matches!(verb, Verb::Census | Verb::Sweep) {
        scene.server.age(LONG);
    }
    if verb == Verb::Sweep {
        scene.prune().await.unwrap();
        scene.server.age(LONG);
    }
    scene.keep();
    scene
}

/// One fault in one request.
async fn lies(verb: Verb, one_in: u64) {
    let mut scene = scene_for(verb).await;
    let truth = scene.truth.clone();
    scene.reset().await;
    scene.server.plan(BTreeMap::new());
    scene.run(verb).await.unwrap();
    let mut matrix = Vec::new();
    for (number, asked) in (0..).zip(scene.server.asked()) {
        matrix.extend(asked.faults().iter().map(|fault| (number, *fault)));
    }
    let whole = matrix.len();
    let (mut tried, mut came) = (0, 0);
    for (number, fault) in share(matrix, one_in) {
        let what = format!("{verb:?}, request {number}, {fault:?}, seed {}", seed());
        scene.truth = truth.clone();
        scene.reset().await;
        scene.server.plan(BTreeMap::from([(number, fault)]));
        let outcome = scene.run(verb).await;
        let fell = scene.server.came();
        tried += 1;
        came += fell;
        assert!(outcome.is_ok() || (fell > 0 && !passes(fault)), "{what}: {:?}", outcome.err());
        if let Err(error) = &outcome {
            let kind = error.kind();
            // A pruner that cannot judge a file stops.
            let stopped = kind == ErrorKind::Refused && matches!(verb, Verb::Census | Verb::Sweep);
            let fits = stopped || matches!(kind, ErrorKind::Corrupt | ErrorKind::Unreachable);
            assert!(fits, "{what}: {error:?}");
        }
        scene.check(verb, outcome, &what).await;
    }
    println!(
        "lies_of_the_wire, {verb:?}: {came} faults came in {tried} of {whole} places, seed {}",
        seed()
    );
    assert!(came * 4 >= tried * 3, "{verb:?}: only {came} of {tried} faults came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_the_wire_to_a_writer() {
    lies(Verb::Write, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_the_wire_to_a_reader() {
    lies(Verb::Read, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_the_wire_to_a_pruner_with_a_census() {
    lies(Verb::Census, 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_the_wire_to_a_pruner_that_sweeps() {
    lies(Verb::Sweep, 24).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_the_wire_to_a_copier() {
    lies(Verb::Copy, 16).await;
}

/// Faults in about every eighth request, drawn by a seed, at most two in a row.
fn storm(seed: u64) -> BTreeMap<u64, S3Fault> {
    use S3Fault::{Again, Conflict, CutBody, Internal, Late, ReplyLost, Shortened, SlowDown, Twice, WrongByte};
    let faults = [
        ReplyLost, SlowDown, Internal, Conflict, Twice, Again, Late, CutBody, Shortened, WrongByte,
    ];
    let mut dice = Dice::new(seed);
    let mut plan = BTreeMap::new();
    for number in 0..3000_u64 {
        let row = number >= 2 && (1..=2).all(|back| plan.contains_key(&(number - back)));
        if dice.roll(8) == 0 && !row {
            plan.insert(number, faults[dice.index(faults.len())]);
        }
    }
    plan
}

/// Backups, copies, prunes and reads, one after the other, in bad weather.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_of_the_wire_in_a_storm() {
    let runs = if soak() { 100 } else { 3 };
    let (mut came, mut failed, mut done) = (0, 0, 0);
    let mut scene = scene_for(Verb::Write).await;
    let truth = scene.truth.clone();
    for run in 0..runs {
        let weather = seed().wrapping_mul(1000) + run;
        let what = format!("storm {weather}");
        scene.truth = truth.clone();
        scene.reset().await;
        scene.server.plan(storm(weather));
        let mut dice = Dice::new(weather ^ 0xBAD);
        for _ in 0..8 {
            let verb = [Verb::Write, Verb::Write, Verb::Read, Verb::Census, Verb::Copy][dice.index(5)];
            match scene.run(verb).await {
                Ok(()) => done += 1,
                Err(_) => failed += 1,
            }
            if dice.roll(3) == 0 {
                scene.server.age(LONG);
            }
        }
        came += scene.server.came();
        scene.server.plan(BTreeMap::new());
        scene.server.settle().await;
        let listed = scene.sound("a", &what).await;
        // Retention keeps the newest two, whether or not their writer heard that they stand.
        for promised in scene.newest(2) {
            let newer = listed.iter().filter(|id| **id > promised).count();
            assert!(
                listed.contains(&promised) || newer >= 2,
                "{what}: {promised} is not in {listed:?}"
            );
        }
        scene.sound("b", &what).await;
        for verb in [Verb::Write, Verb::Census, Verb::Copy] {
            scene
                .run(verb)
                .await
                .unwrap_or_else(|error| panic!("{what}, {verb:?} afterwards: {error:?}"));
        }
        let listed = scene.sound("a", &what).await;
        assert!(scene.sound("b", &what).await.is_superset(&listed), "{what}");
    }
    println!(
        "lies_of_the_wire in a storm: {runs} runs, {came} faults, {done} verbs done and {failed} refused, seed {}",
        seed()
    );
    assert!(came > 8 * runs && done > 3 * runs, "{came} faults, {done} done");
}
