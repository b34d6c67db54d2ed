//! A repository: its descriptor, its components, its backups.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Key, Put};
use serde::{Deserialize, Serialize};

use crate::id::{ComponentName, RepositoryId};
use crate::key::instance::Trust;
use crate::listing::{Listing, list_backups};
use crate::replicas::{CopyOutcome, Replicas};
use crate::time::format_utc;

const DESCRIPTOR: &str = "lifeboat.json";
const DESCRIPTOR_LIMIT_BYTES: u64 = 64 << 10;

/// An opened repository in one store.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn BlobStore>,
    id: RepositoryId,
    /// The stores behind `store`, where they are several.
    replicas: Option<Arc<Replicas>>,
}

#[derive(Serialize, Deserialize)]
struct Descriptor {
    format: String,
    version: u32,
    repository: String,
    created_at: String,
    check: String,
}

impl Descriptor {
    /// What `check` must be: a flipped bit in the id would otherwise make a repository in which no backup counts.
    fn expected_check(&self) -> String {
        let text = format!("{}\0{}\0{}\0{}", self.format, self.version, self.repository, self.created_at);
        blake3::hash(text.as_bytes()).to_string()
    }
}

/// The repository that a descriptor says it is, if the descriptor is whole.
fn judge(store: &str, stored: &[u8]) -> Result<RepositoryId> {
    let damaged = |detail: &str| Error::new(ErrorKind::Corrupt, "open the repository in", store, detail);
    let descriptor: Descriptor =
        serde_json::from_slice(stored).map_err(|error| damaged("lifeboat.json does not parse").with_source(error))?;
    if descriptor.format != "lifeboat-repository" {
        return Err(damaged("lifeboat.json is not a Lifeboat descriptor"));
    }
    if descriptor.version != 1 {
        return Err(damaged("it has another format version")
            .with_kind(ErrorKind::Incompatible)
            .with_hint("use the Lifeboat version that made it, or a newer one"));
    }
    if descriptor.check != descriptor.expected_check() {
        return Err(damaged("lifeboat.json does not fit its own check value")
            .with_hint("bring lifeboat.json back from another store of this repository, or from a copy of this one; it is written once and never changes"));
    }
    descriptor.repository.parse()
}

impl Repository {
    /// Makes a repository in a store that has none. Kind `AlreadyExists` when one is there: it stays untouched.
    pub async fn init(env: &Env, store: Arc<dyn BlobStore>) -> Result<Self> {
        let id = RepositoryId::draw(env)?;
        let taken = |store: &Arc<dyn BlobStore>| {
            Error::new(
                ErrorKind::AlreadyExists,
                "make a repository in",
                store.name(),
                "there is one already",
            )
            .with_hint("use it as it is (`lifeboat list` shows what it holds), or choose an empty place")
        };
        match Self::open(Arc::clone(&store)).await {
            Ok(_) => return Err(taken(&store)),
            Err(error) if error.kind() == ErrorKind::NoRepository => {}
            Err(error) => return Err(error),
        }
        let mut descriptor = Descriptor {
            format: "lifeboat-repository".to_owned(),
            version: 1,
            repository: id.to_string(),
            created_at: format_utc(env.clock.wall_us()),
            check: String::new(),
        };
        descriptor.check = descriptor.expected_check();
        let mut json = serde_json::to_vec(&descriptor)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", DESCRIPTOR, error.to_string()))?;
        json.push(b'\n');
        match store.put(&Key::new(DESCRIPTOR)?, Bytes::from(json)).await {
            Ok(Put::Created | Put::AlreadyThere) => Ok(Self::in_one(store, id)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(taken(&store)),
            Err(error) => Err(error),
        }
    }

    /// A repository that is known to be in `store`.
    pub(crate) fn in_one(store: Arc<dyn BlobStore>, id: RepositoryId) -> Self {
        Self {
            store,
            id,
            replicas: None,
        }
    }

    /// One repository in several stores, each with what opening it gave. What is written through it goes into all of them; one that fails
    /// is left out from then on, and [`Repository::copies`] says so. A store that holds another repository than the first one that
    /// opened is left out with an error that names both. Fails with the first error when no store opened.
    pub fn joined(stores: Vec<(String, Result<Self>)>) -> Result<Self> {
        let replicas = Arc::new(Replicas::join(stores)?);
        Ok(Self {
            id: replicas.id(),
            store: Arc::<Replicas>::clone(&replicas),
            replicas: Some(replicas),
        })
    }

    /// The same, where a store counts as hanging when it takes `patience` longer than another. Without several stores nothing changes.
    #[must_use]
    pub fn with_patience(self, patience: std::time::Duration) -> Self {
        let Some(replicas) = &self.replicas else { return self };
        let replicas = Arc::new(replicas.with_patience(patience));
        Self {
            id: self.id,
            store: Arc::<Replicas>::clone(&replicas),
            replicas: Some(replicas),
        }
    }

    /// Makes this repository in another store: the same id, the same bytes. Kind `AlreadyExists` when another one is there: it stays
    /// untouched, and the error names both ids.
    pub async fn replicate(&self, store: Arc<dyn BlobStore>) -> Result<Self> {
        let key = Key::new(DESCRIPTOR)?;
        match Self::open(Arc::clone(&store)).await {
            Ok(there) if there.id == self.id => return Ok(there),
            Ok(there) => return Err(another(store.name(), there.id, self.id)),
            Err(error) if error.kind() == ErrorKind::NoRepository => {}
            Err(error) => return Err(error),
        }
        let descriptor = self.store.get(&key, DESCRIPTOR_LIMIT_BYTES).await?;
        // Written once and never again: a byte that was damaged on the way here would stay.
        if judge(self.store.name(), &descriptor)? != self.id {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "copy lifeboat.json from",
                self.store.name(),
                "it is that of another repository than a moment ago",
            ));
        }
        match store.put(&key, descriptor).await {
            Ok(Put::Created | Put::AlreadyThere) => Ok(Self::in_one(store, self.id)),
            // Somebody was faster: whatever stands there now says what it is.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let there = Self::open(Arc::clone(&store)).await?;
                Err(another(store.name(), there.id, self.id))
            }
            Err(error) => Err(error),
        }
    }

    /// The stores behind this repository, where they are several.
    pub(crate) fn replicas(&self) -> Option<&Arc<Replicas>> {
        self.replicas.as_ref()
    }

    /// Which of its stores still take part, and why the others do not.
    #[must_use]
    pub fn copies(&self) -> Vec<CopyOutcome> {
        match &self.replicas {
            Some(replicas) => replicas.outcomes(),
            None => vec![CopyOutcome {
                store: self.store.name().to_owned(),
                missing: None,
                apart: false,
                own: None,
            }],
        }
    }

    /// Opens the repository of a store. Kind `NoRepository` when the store is there and holds none.
    pub async fn open(store: Arc<dyn BlobStore>) -> Result<Self> {
        let stored = store
            .get(&Key::new(DESCRIPTOR)?, DESCRIPTOR_LIMIT_BYTES)
            .await
            .map_err(|error| {
                if error.kind() == ErrorKind::NotFound {
                    Error::new(
                        ErrorKind::NoRepository,
                        "open the repository in",
                        store.name(),
                        "the store is there, but holds no lifeboat.json",
                    )
                    .with_hint("check that the right disk is mounted; `lifeboat init` makes a new repository")
                } else {
                    error
                }
            })?;
        let id = judge(store.name(), &stored)?;
        Ok(Self::in_one(store, id))
    }

    /// The repository's id, the same in all its stores.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    /// Where it rests.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn BlobStore> {
        &self.store
    }

    /// Every component that has files here, in order of name.
    pub async fn components(&self) -> Result<Vec<ComponentName>> {
        let mut segments = BTreeSet::new();
        for entry in self.store.list(&Key::new("c")?).await? {
            if let Some(segment) = entry.key.as_str().split('/').nth(1) {
                segments.insert(segment.to_owned());
            }
        }
        Ok(segments
            .iter()
            .filter_map(|segment| ComponentName::from_segment(segment))
            .collect())
    }

    /// The backups of a component that count, and what was found instead of a backup (INV-09).
    pub async fn backups(&self, component: &ComponentName, trust: &Trust) -> Result<Listing> {
        list_backups(self, component, trust).await
    }
}

/// Two repositories where one was expected.
pub(crate) fn another(store: &str, there: RepositoryId, wanted: RepositoryId) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        "use the store",
        store,
        format!("it holds another repository ({there}) than the first store ({wanted})"),
    )
    .with_hint("nothing was written there; give each repository a folder, bucket or prefix of its own, and correct `to:`")
}
