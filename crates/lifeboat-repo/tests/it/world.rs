//! A repository in memory with everything around it: sources, keys, state folder, and helpers to damage what is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::{Env, Error, Result};
use lifeboat_repo::{
    Backup, BackupPlan, Committed, ComponentName, Encryption, FileMeta, FileRecord, Identities, Instance, Listing, Reader,
    Repository, Trust, Writer, generate_identity,
};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::env::{SimClock, sim_env};
use lifeboat_testkit::pages::{MemoryPages, MemorySink};

/// The seed of this run: `LIFEBOAT_TEST_SEED`, else 1. A failure names it. Small enough for tests to calculate with.
pub fn seed() -> u64 {
    let drawn = std::env::var("LIFEBOAT_TEST_SEED").map_or(1, |text| text.parse::<u64>().unwrap());
    drawn % 1_000_000_007
}

/// Whether the whole of every matrix is asked for.
pub fn soak() -> bool {
    std::env::var_os("LIFEBOAT_SOAK").is_some_and(|value| value == "1")
}

/// The whole matrix under soak, else one in `one_in` of it, chosen by the seed.
pub fn share<T>(matrix: Vec<T>, one_in: u64) -> Vec<T> {
    let offset = seed() % one_in;
    let numbered = (0_u64..).zip(matrix);
    numbered
        .filter(|(number, _)| soak() || number % one_in == offset)
        .map(|(_, item)| item)
        .collect()
}

/// Numbers that look random, decided by a seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 0 to `below` - 1.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }

    pub fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.roll(below as u64)).unwrap()
    }
}

/// A source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Pages(Vec<u8>, u32),
    Stream(Vec<u8>),
}

/// What a backup is made of.
pub type Files = BTreeMap<String, Content>;

pub fn pages(path: &str, bytes: Vec<u8>, page_size: u32) -> Files {
    Files::from([(path.to_owned(), Content::Pages(bytes, page_size))])
}

pub fn meta(path: &str) -> FileMeta {
    FileMeta {
        path: path.to_owned(),
        mode: 0o640,
        uid: 1000,
        gid: 100,
        modified_us: 1_700_000_000_123_456,
    }
}

/// One machine and one repository.
pub struct World {
    pub env: Env,
    pub clock: Arc<SimClock>,
    pub memory: MemoryStore,
    pub repository: Repository,
    pub component: ComponentName,
    pub instance: Arc<Instance>,
    pub trust: Trust,
    pub recipient: String,
    pub identity: String,
    pub folder: tempfile::TempDir,
}

impl World {
    pub async fn new(seed: u64) -> Self {
        Self::over(seed, MemoryStore::new()).await
    }

    pub async fn over(seed: u64, memory: MemoryStore) -> Self {
        let (env, clock) = sim_env(seed);
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init(&env, Arc::new(memory.clone())).await.unwrap();
        let instance = Instance::create(&env, "host", &folder.path().join("instance.key")).unwrap();
        let mut trust = Trust::new();
        trust.add("host", instance.public_key());
        let (identity, recipient) = generate_identity();
        Self {
            env,
            clock,
            memory,
            repository,
            component: ComponentName::new("shop/db").unwrap(),
            instance: Arc::new(instance),
            trust,
            recipient,
            identity,
            folder,
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The state folder of the one component.
    pub fn state_folder(&self) -> PathBuf {
        self.state_dir()
            .join(self.repository.id().to_string())
            .join(self.component.segment())
            .join("physical")
    }

    pub fn plan(&self) -> BackupPlan {
        BackupPlan {
            component: self.component.clone(),
            kind: "sqlite".into(),
            method: "physical".into(),
            source: "source-1".into(),
            instance: Arc::clone(&self.instance),
            encryption: Encryption::Age(vec![self.recipient.clone()]),
            trust: self.trust.clone(),
            state_dir: self.state_dir(),
            tags: vec!["test".into()],
            reason: None,
            keep_for: None,
            full: false,
            extract: false,
            patient: false,
        }
    }

    pub fn identities(&self) -> Identities {
        Identities::parse(&self.identity).unwrap()
    }

    /// The same repository through another store.
    pub async fn through(&self, store: Arc<dyn BlobStore>) -> Result<Repository> {
        Repository::open(store).await
    }

    pub async fn backup(&self, files: &Files) -> Committed {
        write(&self.env, &self.repository, self.plan(), files).await.unwrap()
    }

    pub async fn listing(&self) -> Listing {
        self.repository.backups(&self.component, &self.trust).await.unwrap()
    }

    pub async fn open(&self, backup: &Backup) -> Result<Reader> {
        Reader::open(&self.env, &self.repository, backup, &self.identities()).await
    }

    /// Everything that `backup` holds.
    pub async fn restore(&self, backup: &Backup) -> Result<Files> {
        restore(&self.open(backup).await?).await
    }

    /// `backup` restores to exactly `files`, and its closure is exactly what its maps reach.
    pub async fn assert_holds(&self, backup: &Backup, files: &Files) {
        let reader = self.open(backup).await.unwrap();
        let restored = restore(&reader).await.unwrap();
        assert_eq!(restored.keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
        for (path, content) in files {
            // Not assert_eq: nobody reads a megabyte of numbers.
            assert!(restored.get(path) == Some(content), "{path} of {:?} differs", backup.id);
        }
        let reached: Vec<u32> = reader.reached().await.unwrap().into_iter().collect();
        let named: Vec<u32> = backup.closure.packs.iter().map(|pack| pack.number).collect();
        assert_eq!(named, reached, "INV-06 of {:?}", backup.id);
    }

    /// Names of all stored files under the component's `folder`.
    pub async fn stored(&self, folder: &str) -> Vec<Key> {
        let prefix = self.component.folder().unwrap().join(folder).unwrap();
        let entries = self.memory.list(&prefix).await.unwrap();
        entries.into_iter().map(|entry| entry.key).collect()
    }

    pub async fn bytes_of(&self, key: &Key) -> Vec<u8> {
        self.memory.get(key, u64::MAX).await.unwrap().to_vec()
    }

    /// What no store of ours would do: other content under a name that is there.
    pub async fn overwrite(&self, key: &Key, bytes: Vec<u8>) {
        self.memory.delete(key).await.unwrap();
        let _put = self.memory.put(key, Bytes::from(bytes)).await.unwrap();
    }
}

/// Makes one backup of `files`.
pub async fn write(env: &Env, repository: &Repository, plan: BackupPlan, files: &Files) -> Result<Committed> {
    let moment_us = env.clock.wall_us();
    let mut writer = Writer::begin(env, repository, plan).await?;
    put_all(&mut writer, files).await?;
    std::os::unix::fs::FileExt::write_all_at(&*writer.memory(), b"what an engine remembers", 0).unwrap();
    writer.commit(moment_us, serde_json::json!({"page_count": 1})).await
}

pub async fn put_all(writer: &mut Writer, files: &Files) -> Result<()> {
    for (path, content) in files {
        let record = match content {
            Content::Pages(bytes, page_size) => {
                let source = MemoryPages::new(bytes.clone(), *page_size);
                writer.put_pages(meta(path), Arc::new(source)).await?
            }
            Content::Stream(bytes) => {
                let reader = Box::new(std::io::Cursor::new(bytes.clone()));
                writer.put_stream(meta(path), reader).await?
            }
        };
        assert_eq!(record.meta, meta(path));
    }
    Ok(())
}

pub async fn restore(reader: &Reader) -> Result<Files> {
    let mut files = Files::new();
    for file in reader.files() {
        files.insert(file.meta.path.clone(), restore_file(reader, file).await?);
    }
    Ok(files)
}

pub async fn restore_file(reader: &Reader, file: &FileRecord) -> Result<Content> {
    let sink = Arc::new(MemorySink::new());
    let plan = reader.plan(file).await?;
    let fetched = reader.restore(file, Arc::<MemorySink>::clone(&sink), false).await?;
    assert_eq!(sink.finished(), Some(file.size_bytes), "finish comes last and says the size");
    assert_eq!(plan.size_bytes, file.size_bytes);
    assert!(fetched.fetched_bytes >= plan.fetch_bytes, "{fetched:?} {plan:?}");
    reader.check_root(file, Arc::<MemorySink>::clone(&sink)).await?;
    let bytes = sink.bytes();
    Ok(if file.page_size == 0 {
        assert_eq!(reader.read_stream(file, u64::MAX).await?, bytes);
        Content::Stream(bytes)
    } else {
        Content::Pages(bytes, file.page_size)
    })
}

/// A copy of a folder with all its files.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The error, or a panic that says what succeeded.
pub fn failed<T>(result: Result<T>, what: &str) -> Error {
    match result {
        Ok(_) => panic!("{what} succeeded"),
        Err(error) => error,
    }
}
