//! What people said of the lines of checklists: one file each in the state folder, never changed afterwards. The ledger has a record of each besides,
//! and brings back what the folder lost ([`adopt`]).
//!
//! Without the folder nobody said anything, and what nobody said does not hold.

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::readiness::checklist::Attested;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// A record that does not hold the time of what was said was made so soon after it at most.
const NEAR_US: u64 = 3600 * 1_000_000;

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

impl Said {
    fn is_of_line(&self, system: &str, list: &str, item: &str) -> bool {
        self.system == system && self.list == list && self.item == item
    }
}

/// What a record of the ledger tells that somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What. Where its time is not known, it is that of the record.
    pub said: Said,
    /// Whether its time is known: earlier versions did not record it.
    pub has_time: bool,
}

impl Heard {
    fn is(&self, known: &Said) -> bool {
        let said = &self.said;
        if !known.is_of_line(&said.system, &said.list, &said.item) || known.who != said.who {
            return false;
        }
        let apart_us = known.at_us.abs_diff(said.at_us);
        if self.has_time {
            apart_us == 0
        } else {
            known.good == said.good && apart_us <= NEAR_US
        }
    }
}

/// Writes it down. Nothing that was said before is changed.
pub fn record(state_dir: &Path, said: &Said) -> Result<()> {
    put(state_dir, said, all(state_dir)?.len())
}

/// Writes it down under the first free number from this one on.
fn put(state_dir: &Path, said: &Said, mut number: usize) -> Result<()> {
    let folder = folder(state_dir);
    durable::create_folder(&folder)?;
    let bytes = serde_json::to_vec_pretty(said)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what was said", error.to_string()))?;
    loop {
        let path = folder.join(format!("{number:06}.json"));
        match durable::create_file(&path, &bytes, durable::FILE_MODE)? {
            durable::Created::New => return Ok(()),
            durable::Created::AlreadyThere => number += 1,
        }
    }
}

/// Writes down what the ledger of one component tells, oldest first, where it is not known here. Returns how much that is.
///
/// The ledgers of other components tell of the same.
///
/// # Errors
/// As [`all`], and where the state folder cannot be written to.
pub fn adopt(state_dir: &Path, heard: &[Heard]) -> Result<u64> {
    if heard.is_empty() {
        return Ok(0);
    }
    let _lock = lock(state_dir)?;
    // With each, whether a record of this ledger told it: without times, what one record told is not what the next one tells.
    let mut known: Vec<(Said, bool)> = all(state_dir)?.into_iter().map(|said| (said, false)).collect();
    let mut new = 0;
    for heard in heard {
        let nearest = known
            .iter_mut()
            .filter(|(known, told)| heard.is(known) && (heard.has_time || !told))
            .min_by_key(|(known, _)| known.at_us.abs_diff(heard.said.at_us));
        if let Some((_, told)) = nearest {
            *told = true;
        } else {
            put(state_dir, &heard.said, known.len())?;
            known.push((heard.said.clone(), true));
            new += 1;
        }
    }
    Ok(new)
}

/// Two that bring back at once would each bring back the same. The kernel gives the lock back however a run ends.
fn lock(state_dir: &Path) -> Result<std::fs::File> {
    let folder = folder(state_dir);
    durable::create_folder(&folder)?;
    let path = folder.join("adopt.lock");
    let failed = |error| Error::io("lock", path.display(), error);
    let lock = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
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
                "remove it, and `lifeboat catalog rebuild` brings back what it said, as far as the ledger has it; or say it again with `lifeboat checklist tick`",
            )
    })
}

/// What was said last of a line.
#[must_use]
pub fn last(all: &[Said], system: &str, list: &str, item: &str) -> Option<Attested> {
    let said = all
        .iter()
        .filter(|said| said.is_of_line(system, list, item))
        .max_by_key(|said| said.at_us)?;
    Some(Attested {
        good: said.good,
        who: said.who.clone(),
        at_us: said.at_us,
        note: said.note.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(good: bool, at_us: i64) -> Said {
        Said {
            system: "shop".to_owned(),
            list: "daily".to_owned(),
            item: "it is well".to_owned(),
            good,
            who: "ada".to_owned(),
            at_us,
            note: None,
        }
    }

    fn heard(has_time: bool, good: bool, at_us: i64) -> Heard {
        Heard {
            said: said(good, at_us),
            has_time,
        }
    }

    #[test]
    fn what_is_known_is_not_brought_back_twice() {
        let folder = tempfile::tempdir().unwrap();
        record(folder.path(), &said(true, 5)).unwrap();
        let told = [heard(true, true, 5), heard(true, false, 6), heard(true, false, 6)];
        assert_eq!(adopt(folder.path(), &told).unwrap(), 1);
        assert_eq!(adopt(folder.path(), &told).unwrap(), 0);
        assert_eq!(all(folder.path()).unwrap(), [said(true, 5), said(false, 6)]);
    }

    #[test]
    fn records_without_the_time_are_told_apart_by_their_order() {
        let folder = tempfile::tempdir().unwrap();
        // Not so, so, and not so again: what was said last must be known as the last.
        let of_one = [heard(false, false, 10), heard(false, true, 20), heard(false, false, 30)];
        assert_eq!(adopt(folder.path(), &of_one).unwrap(), 3);
        // The ledger of another component tells the same, a moment later.
        let of_another = [heard(false, false, 11), heard(false, true, 21), heard(false, false, 31)];
        assert_eq!(adopt(folder.path(), &of_another).unwrap(), 0);
        let known = all(folder.path()).unwrap();
        assert_eq!(known.len(), 3);
        assert_eq!(
            last(&known, "shop", "daily", "it is well").map(|said| (said.good, said.at_us)),
            Some((false, 30))
        );
    }
}
