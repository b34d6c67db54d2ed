//! Keys: which secret seals what, who can open it, who signed it.
//!
//! A session's data key is fresh; the id key belongs to the lineage. Everything else is derived (format 5).

pub(crate) mod age;
pub(crate) mod file;
pub(crate) mod identity;
pub(crate) mod instance;
pub(crate) mod passphrase;
pub(crate) mod recipient;

use lifeboat_model::{Env, Result};
use zeroize::Zeroizing;

use crate::id::{ComponentName, RepositoryId};

/// 32 secret bytes, wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Draws a new secret.
pub(crate) fn draw_secret(env: &Env) -> Result<Secret> {
    let mut secret = Zeroizing::new([0; 32]);
    env.entropy.fill(secret.as_mut_slice())?;
    Ok(secret)
}

/// Binds file keys to one component of one repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope([u8; 48]);

impl Scope {
    pub(crate) fn new(repository: RepositoryId, component: &ComponentName) -> Self {
        let mut scope = [0; 48];
        scope[..16].copy_from_slice(repository.as_bytes());
        scope[16..].copy_from_slice(blake3::hash(component.as_str().as_bytes()).as_bytes());
        Self(scope)
    }
}

/// The key of one sealed file.
pub(crate) fn file_key(data_key: &Secret, salt: &[u8; 32], scope: &Scope) -> Secret {
    let mut hasher = blake3::Hasher::new_derive_key("lifeboat 2026 v1 file key");
    hasher.update(data_key.as_slice());
    hasher.update(salt);
    hasher.update(&scope.0);
    Zeroizing::new(*hasher.finalize().as_bytes())
}

/// What a closure says of a session's keys, so that content of a key file can be told from a forgery. Not secret.
pub(crate) fn key_check(data_key: &Secret, id_key: &Secret, scope: &Scope) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("lifeboat 2026 v1 key check");
    hasher.update(data_key.as_slice());
    hasher.update(id_key.as_slice());
    hasher.update(&scope.0);
    *hasher.finalize().as_bytes()
}

/// The keys under which content gets its identity, derived from a lineage's id key.
#[derive(Clone)]
pub(crate) struct IdKeys {
    page: Secret,
    extent: Secret,
    chunk: Secret,
    group: Secret,
    root: Secret,
    /// Seeds the chunker's table, so that cut points differ between repositories.
    pub(crate) chunk_seed: u64,
}

impl std::fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdKeys")
    }
}

/// Bytes of a page hash and of an id.
pub(crate) const ID_BYTES: usize = 16;
/// An id: the first 16 bytes of a keyed hash.
pub(crate) type Id = [u8; ID_BYTES];

fn first16(hash: blake3::Hash) -> Id {
    let mut id = [0; ID_BYTES];
    id.copy_from_slice(&hash.as_bytes()[..ID_BYTES]);
    id
}

impl IdKeys {
    pub(crate) fn derive(id_key: &Secret) -> Self {
        let key = |context: &str| Zeroizing::new(blake3::derive_key(context, id_key.as_slice()));
        let seed = blake3::derive_key("lifeboat 2026 v1 chunk seed", id_key.as_slice());
        let mut chunk_seed = [0; 8];
        chunk_seed.copy_from_slice(&seed[..8]);
        Self {
            page: key("lifeboat 2026 v1 page key"),
            extent: key("lifeboat 2026 v1 extent key"),
            chunk: key("lifeboat 2026 v1 chunk key"),
            group: key("lifeboat 2026 v1 group key"),
            root: key("lifeboat 2026 v1 root key"),
            chunk_seed: u64::from_le_bytes(chunk_seed),
        }
    }

    /// Appends the page hashes of `extent` to `hashes`.
    pub(crate) fn page_hashes(&self, extent: &[u8], page_size: usize, hashes: &mut Vec<u8>) {
        for page in extent.chunks(page_size) {
            hashes.extend_from_slice(&blake3::keyed_hash(&self.page, page).as_bytes()[..ID_BYTES]);
        }
    }

    /// The id of an extent from its page hashes.
    pub(crate) fn extent(&self, page_hashes: &[u8]) -> Id {
        first16(blake3::keyed_hash(&self.extent, page_hashes))
    }

    /// The id of an extent from its bytes.
    pub(crate) fn extent_of(&self, extent: &[u8], page_size: usize) -> Id {
        let mut hashes = Vec::with_capacity(extent.len().div_ceil(page_size) * ID_BYTES);
        self.page_hashes(extent, page_size, &mut hashes);
        self.extent(&hashes)
    }

    /// The id of a chunk of a stream.
    pub(crate) fn chunk(&self, chunk: &[u8]) -> Id {
        first16(blake3::keyed_hash(&self.chunk, chunk))
    }

    /// The id of an overlay group: 8 bytes of hash, then zeros.
    pub(crate) fn group(&self, group: &[u8]) -> Id {
        let mut id = first16(blake3::keyed_hash(&self.group, group));
        id[8..].fill(0);
        id
    }

    /// Begins the root of a file.
    pub(crate) fn root(&self, size_bytes: u64, page_size: u32) -> Root {
        let mut hasher = blake3::Hasher::new_keyed(&self.root);
        hasher.update(&size_bytes.to_le_bytes());
        hasher.update(&page_size.to_le_bytes());
        Root(hasher)
    }
}

/// The root of a file, fed with the ids of its rows in order.
#[derive(Debug)]
pub(crate) struct Root(blake3::Hasher);

impl Root {
    pub(crate) fn add(&mut self, ids: &[u8]) {
        self.0.update(ids);
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}
