//! What was proven, when, and how long it took: a small file in the state folder.
//!
//! It is a cache for `status` and for estimates: losing it makes "proven" unknown, never green.

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::ComponentName;
use serde::{Deserialize, Serialize};

/// Runs kept per component.
const KEPT: usize = 50;

/// How far a proof goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every file is there with its size.
    List,
    /// Every stored file hashes to its name.
    Hash,
    /// Every blob opens and has its identity.
    Decrypt,
    /// Restored into a scratch folder and checked.
    Restore,
}

impl Level {
    /// The word people type.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Hash => "hash",
            Self::Decrypt => "decrypt",
            Self::Restore => "restore",
        }
    }
}

/// One successful proof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Of which backup (`SEQ-HASH`).
    pub backup: String,
    /// How far it went.
    pub level: Level,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Bytes restored or read.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize, Default)]
struct ProofsJson {
    version: u32,
    proofs: Vec<Proof>,
}

fn path(state_dir: &Path, component: &ComponentName) -> PathBuf {
    state_dir.join("proofs").join(format!("{}.json", component.segment()))
}

/// What was proven, oldest first. A missing or unreadable record is nothing proven.
#[must_use]
pub fn load(state_dir: &Path, component: &ComponentName) -> Vec<Proof> {
    let text = std::fs::read(path(state_dir, component)).unwrap_or_default();
    let json: ProofsJson = serde_json::from_slice(&text).unwrap_or_default();
    if json.version == 1 { json.proofs } else { Vec::new() }
}

/// Adds a proof.
pub fn record(state_dir: &Path, component: &ComponentName, proof: Proof) -> Result<()> {
    let mut proofs = load(state_dir, component);
    proofs.push(proof);
    if proofs.len() > KEPT {
        proofs.drain(..proofs.len() - KEPT);
    }
    let bytes = serde_json::to_vec_pretty(&ProofsJson { version: 1, proofs })
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the proofs", error.to_string()))?;
    let path = path(state_dir, component);
    durable::create_folder(&durable::parent_of(&path))?;
    durable::replace_file(&path, &bytes, durable::FILE_MODE)
}
