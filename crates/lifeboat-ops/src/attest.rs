//! What people said of the lines of checklists: one file each in the state folder, never changed afterwards. The ledger has a record of each besides.
//!
//! Without the folder nobody said anything, and what nobody said does not hold.

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::readiness::checklist::Attested;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// What somebody said of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Of which system.
    pub system: String,
    /// Of which of its checklists.
    pub list: String,
    /// Of which line, by its text.
    pub item: String,
    /// Whether it is as it should be.
    pub good: bool,
    /// Who said so.
    pub who: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// What else he said.
    pub note: Option<String>,
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("attestations")
}

/// Writes it down. Nothing that was said before is changed.
pub fn record(state_dir: &Path, said: &Said) -> Result<()> {
    let folder = folder(state_dir);
    durable::create_folder(&folder)?;
    let bytes = serde_json::to_vec_pretty(said)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what was said", error.to_string()))?;
    let mut number = all(state_dir)?.len();
    loop {
        let path = folder.join(format!("{number:06}.json"));
        match durable::create_file(&path, &bytes, durable::FILE_MODE)? {
            durable::Created::New => return Ok(()),
            durable::Created::AlreadyThere => number += 1,
        }
    }
}

/// Everything that was said, oldest first.
///
/// # Errors
/// `Corrupt` for a file that cannot be understood: what it said is not guessed.
pub fn all(state_dir: &Path) -> Result<Vec<Said>> {
    let folder = folder(state_dir);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", folder.display(), error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io("list", folder.display(), error))?.path();
        // What a killed run was about to write has another ending.
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Said> {
    let bytes = std::fs::read(path).map_err(|error| Error::io("read", path.display(), error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "read", path.display(), error.to_string())
            .with_source(error)
            .with_hint(
                "remove it, and say again with `lifeboat checklist tick` what it said; the ledger knows (`lifeboat audit list`)",
            )
    })
}

/// What was said last of a line.
#[must_use]
pub fn last(all: &[Said], system: &str, list: &str, item: &str) -> Option<Attested> {
    let of_line = |said: &&Said| said.system == system && said.list == list && said.item == item;
    let said = all.iter().filter(of_line).max_by_key(|said| said.at_us)?;
    Some(Attested {
        good: said.good,
        who: said.who.clone(),
        at_us: said.at_us,
        note: said.note.clone(),
    })
}
