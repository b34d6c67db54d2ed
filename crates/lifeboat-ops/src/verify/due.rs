//! Which proofs are due: what the configuration wants to be proven at least so often, against what was proven. It asks no store.

use std::path::Path;
use std::time::Duration;

use lifeboat_model::readiness::Verification;
use lifeboat_repo::ComponentName;

use super::slice;
use crate::proof::{self, Level};

/// A proof that is wanted again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// How far it goes.
    pub level: Level,
    /// At least so often.
    pub every: Duration,
    /// Of [`Level::Hash`]: all that is stored, so many bytes of each store at a time. Without it, the newest backup.
    pub budget_bytes: Option<u64>,
}

/// When each of them was done last, in the order of `wanted`. What goes farther counts, too; a slice only counts where every store had one.
#[must_use]
pub fn standings(
    state_dir: &Path,
    component: &ComponentName,
    stores: &[String],
    wanted: &[Wanted],
    now_us: i64,
) -> Vec<Verification> {
    let mut proofs = proof::load(state_dir, component);
    // A clock that was ahead proves nothing for ever.
    proofs.retain(|proof| proof.at_us <= now_us);
    let last_us = |wanted: &Wanted| match wanted.budget_bytes {
        Some(_) => stores
            .iter()
            .map(|store| slice::last_us(state_dir, component, store, now_us))
            .min()
            .flatten(),
        None => {
            let far_enough = proofs.iter().filter(|proof| proof.level >= wanted.level);
            far_enough.map(|proof| proof.at_us).max()
        }
    };
    let standing = |wanted: &Wanted| Verification {
        level: match wanted.budget_bytes {
            Some(_) => format!("{} in slices", wanted.level.word()),
            None => wanted.level.word().to_owned(),
        },
        every: wanted.every,
        last_us: last_us(wanted),
    };
    wanted.iter().map(standing).collect()
}
