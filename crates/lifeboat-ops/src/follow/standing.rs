//! How far the log reaches, in a small file of the state folder, for `status` and whoever watches.
//!
//! A cache: what is held is decided by the stores alone (PG-04). Losing it makes "followed" unknown, never fresh.

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{ComponentName, Lineage};
use serde::{Deserialize, Serialize};

use crate::protected::Protected;

/// Alarms kept.
const ALARMS: usize = 10;

/// What a follower last said. Times are microseconds since 1970 by this host's clock, positions as PostgreSQL writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    version: u32,
    /// The cluster's system identifier.
    pub system: String,
    /// The lineage of log that is written.
    pub lineage: String,
    /// The timeline that is followed.
    pub timeline: u32,
    /// How far the server has written.
    pub server: String,
    /// When it last said something.
    pub contact_us: i64,
    /// How far the log is on this disk.
    pub durable: String,
    /// How far it is in the stores.
    pub stored: String,
    /// When that was last found to be all, or was written.
    pub stored_us: i64,
    /// Bytes that are here and not yet in every store that is required.
    pub spool_bytes: u64,
    /// The newest alarms, the oldest first.
    pub alarms: Vec<String>,
}

impl Standing {
    pub(super) fn begin(system: u64, lineage: Lineage) -> Self {
        Self {
            version: 1,
            system: system.to_string(),
            lineage: lineage.to_string(),
            ..Self::default()
        }
    }

    pub(super) fn alarm(&mut self, text: &str) {
        self.alarms.push(text.to_owned());
        let many = self.alarms.len().saturating_sub(ALARMS);
        self.alarms.drain(..many);
    }

    /// Writes it down.
    pub(super) fn save(&self, state_dir: &Path, component: &ComponentName) -> Result<()> {
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "how far the log reaches", error.to_string()))?;
        let path = path(state_dir, component);
        durable::create_folder(&durable::parent_of(&path))?;
        durable::replace_file(&path, &text, durable::FILE_MODE)
    }
}

/// Adds an alarm to what the last follower said, where there was one: for what happens while none runs.
pub(super) fn add_alarm(protected: &Protected, text: &str) -> Result<()> {
    let Some(mut standing) = standing(&protected.state_dir, &protected.component) else {
        return Ok(());
    };
    if standing.alarms.iter().any(|known| known == text) {
        return Ok(());
    }
    standing.alarm(text);
    standing.save(&protected.state_dir, &protected.component)
}

fn path(state_dir: &Path, component: &ComponentName) -> PathBuf {
    state_dir.join("follow").join(format!("{}.json", component.segment()))
}

/// What the last follower of a component on this host said; none where there was none, or where it cannot be read.
#[must_use]
pub fn standing(state_dir: &Path, component: &ComponentName) -> Option<Standing> {
    let text = std::fs::read(path(state_dir, component)).ok()?;
    let standing: Standing = serde_json::from_slice(&text).ok()?;
    (standing.version == 1).then_some(standing)
}
