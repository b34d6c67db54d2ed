//! The same world again and again, and the child that dies in it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lifeboat_ops::protected::Place;
use lifeboat_repo::{BackupId, Repository, generate_identity};
use lifeboat_store::cloud::{self, CloudSettings, S3Settings};
use lifeboat_store::fs::FsStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::s3::{Moment, S3Options, S3Server, Snapshot, Strike, settings_for};
use lifeboat_testkit::turns::Dice;

use super::child::{AT, ENDPOINT, FOLDER, OPERATIONS, VERB};
use crate::world::{World, beside, make};

pub const FIRST: &str = "store";
/// The store to copy to.
pub const SECOND: &str = "second";

/// How many places of one matrix are tried without `LIFEBOAT_SOAK=1`.
const SHARE: u64 = 3;

/// Where the repository rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    Folder,
    Bucket,
}

/// A store: a folder, or where there is an endpoint, a folder of its bucket.
pub async fn place(folder: &Path, endpoint: Option<&str>, name: &str, create: bool) -> Place {
    let path = folder.join(name);
    match endpoint {
        None => {
            let store = if create {
                FsStore::create(&path).await
            } else {
                FsStore::open(&path).await
            };
            Place::folder(name, Arc::new(store.unwrap()), path)
        }
        Some(endpoint) => {
            let settings = S3Settings {
                prefix: Some(Key::new(name).unwrap()),
                ..settings_for(endpoint)
            };
            Place {
                name: name.to_owned(),
                store: Arc::new(cloud::open(CloudSettings::S3(settings)).await.unwrap()),
                path: None,
                required: false,
            }
        }
    }
}

/// What backups held before anybody died.
#[derive(Debug, Clone, Default)]
pub struct Good(BTreeMap<BackupId, blake3::Hash>);

impl Good {
    pub fn ids(&self) -> BTreeSet<BackupId> {
        self.0.keys().copied().collect()
    }

    pub fn newest(&self, count: usize) -> BTreeSet<BackupId> {
        self.0.keys().rev().take(count).copied().collect()
    }

    /// Every listed backup restores, the known ones to the same bytes; returns which they are.
    pub async fn all_restore(&self, world: &World, what: &str) -> BTreeSet<BackupId> {
        let restored = restored(world, what).await;
        for (id, hash) in &restored.0 {
            assert!(self.0.get(id).is_none_or(|known| known == hash), "{what}: {id} differs");
        }
        restored.ids()
    }
}

async fn restored(world: &World, what: &str) -> Good {
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    let mut good = Good::default();
    for backup in &listing.backups {
        let to = world.folder.join(format!("check-{}.db", backup.id.seq));
        let report = world.restore(&backup.id.to_string(), beside(&to)).await;
        assert!(report.is_ok(), "{what}: {}: {report:?}", backup.id);
        good.0.insert(backup.id, blake3::hash(&std::fs::read(&to).unwrap()));
        std::fs::remove_file(to).unwrap();
    }
    good
}

/// A world and how it was: `work` is made anew from `base`, under the same path, so that local state still fits.
pub struct Scene {
    temporary: tempfile::TempDir,
    server: Option<S3Server>,
    base: Option<Snapshot>,
}

/// Where the child dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    Never,
    Folder(u64),
    Bucket(u64, Moment),
}

/// What became of the child.
struct Run {
    died: bool,
    operations: u64,
}

impl Scene {
    /// A database, a repository with one backup of it, and a second store.
    pub async fn new(ground: Ground) -> Self {
        let server = match ground {
            Ground::Folder => None,
            Ground::Bucket => Some(S3Server::start(S3Options::default()).await.unwrap()),
        };
        let scene = Self {
            temporary: tempfile::tempdir().unwrap(),
            server,
            base: None,
        };
        let work = scene.work();
        std::fs::create_dir(&work).unwrap();
        std::fs::write(work.join("other"), generate_identity().0).unwrap();
        let first = place(&work, scene.endpoint().as_deref(), FIRST, true).await;
        drop(place(&work, scene.endpoint().as_deref(), SECOND, true).await);
        let world = World::over(&work, first, true).await;
        make(&world.database, "wal", 1500);
        drop(world.back_up().await.unwrap());
        scene
    }

    fn work(&self) -> PathBuf {
        self.temporary.path().join("work")
    }

    fn endpoint(&self) -> Option<String> {
        self.server.as_ref().map(S3Server::endpoint)
    }

    pub async fn world(&self) -> World {
        let first = place(&self.work(), self.endpoint().as_deref(), FIRST, false).await;
        World::over(&self.work(), first, false).await
    }

    pub async fn second(&self) -> Place {
        place(&self.work(), self.endpoint().as_deref(), SECOND, false).await
    }

    /// The world with the second store alone, where that holds a repository.
    pub async fn second_world(&self) -> Option<World> {
        let second = self.second().await;
        if Repository::open(Arc::clone(&second.store)).await.is_err() {
            return None;
        }
        let mut world = self.world().await;
        world.protected.stores = vec![second];
        Some(world)
    }

    /// Names of what the first store holds in a folder of the component.
    pub async fn files(&self, folder: &str) -> Vec<String> {
        let world = self.world().await;
        let prefix = world.protected.component.folder().unwrap();
        let entries = world.protected.stores[0].store.list(&prefix).await.unwrap();
        let names = entries.iter().map(|entry| entry.key.as_str().to_owned());
        let inside = format!("{prefix}/{folder}");
        names.filter(|name| name.starts_with(&inside)).collect()
    }

    /// Everything that is stored becomes older.
    pub fn age(&self, by: Duration) {
        if let Some(server) = &self.server {
            return server.age(by);
        }
        let mut pending = vec![self.work().join(FIRST)];
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let file = std::fs::File::options().append(true).open(&path).unwrap();
                    file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
                }
            }
        }
    }

    /// What the backups hold now.
    pub async fn good(&self) -> Good {
        restored(&self.world().await, "before").await
    }

    /// From here each child begins.
    pub async fn keep(&mut self) -> Good {
        let good = self.good().await;
        self.copy("work", "base");
        self.base = self.server.as_ref().map(S3Server::snapshot);
        good
    }

    async fn reset(&mut self) {
        self.copy("base", "work");
        if let Some(base) = &self.base {
            // A new one: what a dead child had sent lands in the old one.
            let server = S3Server::start(S3Options::default()).await.unwrap();
            server.load(base.clone());
            self.server = Some(server);
        }
    }

    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.temporary.path().join(from), self.temporary.path().join(to));
        if to.try_exists().unwrap() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }

    /// Runs the verb in a child that dies there.
    fn run(&self, verb: &str, death: Death) -> Run {
        let victim: Arc<OnceLock<rustix::process::Pid>> = Arc::default();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["kill::child::run", "--exact", "--nocapture"])
            .env(FOLDER, self.work())
            .env(VERB, verb);
        match &self.server {
            None => {
                let at = if let Death::Folder(at) = death { at } else { u64::MAX };
                command.env(AT, at.to_string());
            }
            Some(server) => {
                command.env(ENDPOINT, server.endpoint());
                let (number, moment) = match death {
                    Death::Bucket(number, moment) => (number, moment),
                    Death::Never | Death::Folder(_) => (u64::MAX, Moment::Before),
                };
                let victim = Arc::clone(&victim);
                server.strike(Strike {
                    number,
                    moment,
                    blow: Arc::new(move || {
                        rustix::process::kill_process(*victim.wait(), rustix::process::Signal::KILL).unwrap();
                    }),
                });
            }
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        victim.set(rustix::process::Pid::from_child(&child)).unwrap();
        let output = child.wait_with_output().unwrap();
        let died = output.status.signal() == Some(9);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            died || output.status.success(),
            "{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let in_folders = said
            .lines()
            .find_map(|line| line.strip_prefix(OPERATIONS)?.trim().parse().ok());
        let operations = match &self.server {
            None => in_folders.unwrap_or(0),
            Some(server) => server.asked().len() as u64,
        };
        Run { died, operations }
    }

    /// Lets the verb die in every place, or in some that the seed chooses, each time in a world that is as it was when it was kept, and looks at
    /// what is left.
    pub async fn for_each_death(&mut self, verb: &str, mut look: impl AsyncFnMut(&mut Self, bool, &str)) {
        self.reset().await;
        let calm = self.run(verb, Death::Never);
        assert!(!calm.died && calm.operations > 0, "{verb}: {} operations", calm.operations);
        look(self, false, "nobody died").await;
        let (all, ground) = match self.server {
            None => (calm.operations * 2, "folder"),
            Some(_) => (calm.operations * 3, "bucket"),
        };
        let (places, mut deaths) = (places(all, verb), 0);
        let tried = places.len();
        for number in places {
            let death = match (&self.server, number % 3) {
                (None, _) => Death::Folder(number),
                (Some(_), 0) => Death::Bucket(number / 3, Moment::Before),
                (Some(_), 1) => Death::Bucket(number / 3, Moment::Middle),
                (Some(_), _) => Death::Bucket(number / 3, Moment::After),
            };
            self.reset().await;
            let run = self.run(verb, death);
            deaths += usize::from(run.died);
            look(
                self,
                run.died,
                &format!("{verb}, {death:?} of {}, seed {}", calm.operations, seed()),
            )
            .await;
        }
        println!(
            "kill -9 in {verb} ({ground}): {tried} of {all} places in {} operations tried, {deaths} deaths, seed {}",
            calm.operations,
            seed()
        );
        // Where things happen side by side, the last of them may have another number.
        assert!(deaths * 4 >= tried * 3, "{verb}: {deaths} deaths in {tried} places");
    }
}

fn seed() -> u64 {
    std::env::var("LIFEBOAT_TEST_SEED").map_or(1, |text| text.parse().unwrap())
}

/// All places under soak, else one in each of a few equal parts.
fn places(all: u64, verb: &str) -> Vec<u64> {
    if std::env::var_os("LIFEBOAT_SOAK").is_some_and(|value| value == "1") || all <= SHARE {
        return (0..all).collect();
    }
    let salt = verb
        .bytes()
        .fold(all, |salt, byte| salt.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut dice = Dice::new(seed() ^ salt);
    let part = |number: u64| number * all / SHARE;
    (0..SHARE)
        .map(|number| part(number) + dice.roll(part(number + 1) - part(number)))
        .collect()
}
