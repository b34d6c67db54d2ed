//! What was proven, when, and how long it took: a small file in the state folder.
//!
//! It is a cache for `status` and for estimates: losing it makes "proven" unknown, never green. It also remembers where damage was found,
//! so that the next backup does not build on it.

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::ComponentName;
use serde::{Deserialize, Serialize};

/// Runs kept per component.
const KEPT: usize = 50;

/// A proof and the record of the run that gave it are not further apart.
const NEAR_US: u64 = 3600 * 1_000_000;

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
    /// Restored, and checked as the application sees it: indexes, rows, and what the configuration wants.
    App,
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
            Self::App => "app",
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

/// A stored backup that did not open, or was not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Which backup (`SEQ-HASH`).
    pub backup: String,
    /// When it was found, microseconds since 1970.
    pub at_us: i64,
    /// What was found, one sentence.
    pub says: String,
    /// Whether a backup that shares nothing of it that is damaged was made since.
    pub renewed: bool,
    /// Whether its damaged files are marked in the store: then the next backup stores again what they held, and no more.
    #[serde(default)]
    pub marked: bool,
}

#[derive(Serialize, Deserialize, Default)]
struct ProofsJson {
    version: u32,
    proofs: Vec<Proof>,
    #[serde(default)]
    damage: Vec<Damage>,
    /// The backup with the highest number that was ever seen in the store.
    #[serde(default)]
    newest: Option<String>,
    /// What the last backup found in a PKI.
    #[serde(default)]
    pki: Option<PkiStanding>,
    /// Checks of a restored copy that failed.
    #[serde(default)]
    failed_checks: Option<FailedChecks>,
}

/// Checks of a restored copy that failed: what is stored is what was captured, and that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedChecks {
    /// Of which backup (`SEQ-HASH`).
    pub backup: String,
    /// At which level.
    pub level: Level,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// Which, and what they said.
    pub says: String,
}

/// What the last backup of a PKI found, for `status`: names and times, nothing secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PkiStanding {
    /// What does not fit, one sentence each.
    pub problems: Vec<String>,
    /// What ends, and when (seconds since 1970): the file and whose it is.
    pub ends: Vec<(String, i64)>,
}

fn path(state_dir: &Path, component: &ComponentName) -> PathBuf {
    state_dir.join("proofs").join(format!("{}.json", component.segment()))
}

/// What was proven, oldest first. A missing or unreadable record is nothing proven.
#[must_use]
pub fn load(state_dir: &Path, component: &ComponentName) -> Vec<Proof> {
    read(state_dir, component).proofs
}

/// Damage that nothing newer has been proven after.
#[must_use]
pub fn damage(state_dir: &Path, component: &ComponentName) -> Vec<Damage> {
    read(state_dir, component).damage
}

fn read(state_dir: &Path, component: &ComponentName) -> ProofsJson {
    let text = std::fs::read(path(state_dir, component)).unwrap_or_default();
    let json: ProofsJson = serde_json::from_slice(&text).unwrap_or_default();
    if json.version == 1 { json } else { ProofsJson::default() }
}

/// Remembers that a stored backup is damaged, until it or a newer one is proven.
pub fn record_damage(state_dir: &Path, component: &ComponentName, damage: Damage) -> Result<()> {
    update(state_dir, component, |json| {
        json.damage.retain(|known| known.backup != damage.backup);
        json.damage.push(damage);
    })
}

/// Remembers that a backup was made which shares nothing with the damaged ones.
pub fn record_marks(state_dir: &Path, component: &ComponentName, backup: &str) -> Result<()> {
    update(state_dir, component, |json| {
        for damage in json.damage.iter_mut().filter(|damage| damage.backup == backup) {
            damage.marked = true;
        }
    })
}

/// Writes down that a backup was made since that needs nothing of what is damaged.
pub fn record_renewal(state_dir: &Path, component: &ComponentName) -> Result<()> {
    update(state_dir, component, |json| {
        for damage in &mut json.damage {
            damage.renewed = true;
        }
    })
}

/// Adds a proof. One that read all stored bytes ends what is known of damage in that backup and in older ones.
pub fn record(state_dir: &Path, component: &ComponentName, proof: Proof) -> Result<()> {
    update(state_dir, component, |json| {
        if proof.level > Level::List {
            // Names begin with the sequence number, of fixed width.
            json.damage
                .retain(|damage| sequence(&damage.backup) > sequence(&proof.backup));
        }
        let passes = |failed: &FailedChecks| proof.level >= failed.level && sequence(&proof.backup) >= sequence(&failed.backup);
        if json.failed_checks.as_ref().is_some_and(passes) {
            json.failed_checks = None;
        }
        json.proofs.push(proof);
        thin(&mut json.proofs);
    })
}

/// Forgets the oldest beyond [`KEPT`], but never the newest of a level: many near proofs must not hide a far one.
fn thin(proofs: &mut Vec<Proof>) {
    let mut surplus = proofs.len().saturating_sub(KEPT);
    let mut place = 0;
    while surplus > 0 && place < proofs.len() {
        let is_newest = |level: Level| !proofs.iter().skip(place + 1).any(|later| later.level == level);
        if proofs.get(place).is_some_and(|proof| is_newest(proof.level)) {
            place += 1;
        } else {
            proofs.remove(place);
            surplus -= 1;
        }
    }
}

/// Takes over what other records prove, where it is not known here. What is known of damage stays. Returns how many are new.
pub fn adopt(state_dir: &Path, component: &ComponentName, proofs: Vec<Proof>) -> Result<u64> {
    let known = load(state_dir, component);
    let same = |a: &Proof, b: &Proof| a.backup == b.backup && a.level == b.level && a.at_us.abs_diff(b.at_us) < NEAR_US;
    let new: Vec<Proof> = proofs
        .into_iter()
        .filter(|proof| !known.iter().any(|known| same(known, proof)))
        .collect();
    if new.is_empty() {
        return Ok(0);
    }
    let count = new.len() as u64;
    update(state_dir, component, |json| {
        json.proofs.extend(new);
        json.proofs.sort_by_key(|proof| proof.at_us);
        thin(&mut json.proofs);
    })?;
    Ok(count)
}

/// Remembers checks that failed, until this backup or a newer one passes them.
pub fn record_failed_checks(state_dir: &Path, component: &ComponentName, failed: FailedChecks) -> Result<()> {
    update(state_dir, component, |json| json.failed_checks = Some(failed))
}

/// Checks that failed and were not passed since.
#[must_use]
pub fn failed_checks(state_dir: &Path, component: &ComponentName) -> Option<FailedChecks> {
    read(state_dir, component).failed_checks
}

/// Remembers what the last backup found in a PKI.
pub fn record_pki(state_dir: &Path, component: &ComponentName, standing: PkiStanding) -> Result<()> {
    update(state_dir, component, |json| json.pki = Some(standing))
}

/// What the last backup found in a PKI; `None` where nothing is known.
#[must_use]
pub fn pki(state_dir: &Path, component: &ComponentName) -> Option<PkiStanding> {
    read(state_dir, component).pki
}

/// Remembers the newest backup that the store was seen to hold (`SEQ-HASH`); an older one than is remembered changes nothing.
pub fn record_newest(state_dir: &Path, component: &ComponentName, backup: &str) -> Result<()> {
    let later = |json: &ProofsJson| json.newest.as_deref().is_none_or(|known| sequence(known) < sequence(backup));
    if !later(&read(state_dir, component)) {
        return Ok(());
    }
    update(state_dir, component, |json| {
        if later(json) {
            json.newest = Some(backup.to_owned());
        }
    })
}

/// The newest backup that was ever seen, if the store does not hold anything as new any more: somebody deleted it, or the store is an older
/// copy of itself. `latest` is the newest one that is there.
#[must_use]
pub fn vanished(state_dir: &Path, component: &ComponentName, latest: Option<&str>) -> Option<String> {
    let newest = read(state_dir, component).newest?;
    let gone = latest.is_none_or(|latest| sequence(latest) < sequence(&newest));
    gone.then_some(newest)
}

fn sequence(name: &str) -> &str {
    name.split('-').next().unwrap_or_default()
}

/// Changes the record while no other run does: two of them at once would each forget what the other one learnt.
fn update(state_dir: &Path, component: &ComponentName, change: impl FnOnce(&mut ProofsJson)) -> Result<()> {
    let path = path(state_dir, component);
    durable::create_folder(&durable::parent_of(&path))?;
    let lock_path = path.with_extension("lock");
    let failed = |error| Error::io("lock", lock_path.display(), error);
    let lock = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(failed)?;
    // Held for two small file operations: waiting is short. The kernel gives it back however a run ends.
    lock.lock().map_err(failed)?;
    let mut json = read(state_dir, component);
    change(&mut json);
    write(state_dir, component, json)
}

fn write(state_dir: &Path, component: &ComponentName, json: ProofsJson) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(&ProofsJson { version: 1, ..json })
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the proofs", error.to_string()))?;
    let path = path(state_dir, component);
    durable::create_folder(&durable::parent_of(&path))?;
    durable::replace_file(&path, &bytes, durable::FILE_MODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_near_proofs_do_not_hide_a_far_one() {
        let proof = |level: Level, at_us: i64| Proof {
            backup: "1-a".to_owned(),
            level,
            at_us,
            took_s: 1.0,
            bytes: 1,
        };
        let mut proofs = vec![proof(Level::App, 1), proof(Level::App, 2), proof(Level::Decrypt, 3)];
        proofs.extend((4..104).map(|at_us| proof(Level::Hash, at_us)));
        thin(&mut proofs);
        assert_eq!(proofs.len(), KEPT);
        let far: Vec<(Level, i64)> = proofs.iter().take(2).map(|proof| (proof.level, proof.at_us)).collect();
        assert_eq!(far, [(Level::App, 2), (Level::Decrypt, 3)]);
        assert_eq!(proofs.last().map(|proof| proof.at_us), Some(103));
        let few = vec![proof(Level::Hash, 1), proof(Level::Hash, 2)];
        let mut same = few.clone();
        thin(&mut same);
        assert_eq!(same, few);
    }
}
