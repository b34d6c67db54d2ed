//! Runs that are under way, so that one that is killed is recorded by the next.
//!
//! `runs/ID/` in the state folder: a lock, which whoever runs holds, and `begun.json`, which says what it does and about which components nothing is
//! recorded yet. A component goes out of it as soon as its record stands in the state folder; when none is left, or when the run has ended, both go.
//! A folder whose lock nobody holds is of a run that was killed, or whose host went down: whoever records next says so of what is left in it. What cannot be
//! recorded then stays for the next one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lifeboat_io::durable;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::format_utc;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const BEGUN: &str = "begun.json";
const LOCK: &str = "lock";

/// What a run does, as it is known when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The word of the record.
    pub(super) verb: String,
    /// Which components it is about.
    pub(super) components: Vec<String>,
    /// When it began, RFC 3339.
    pub(super) at: String,
    /// Who runs it, and which version.
    pub(super) facts: Map<String, Value>,
}

/// A run: this one, or one that was killed, which whoever holds this is about to record.
#[derive(Debug)]
pub(crate) struct Run {
    folder: PathBuf,
    begun: Mutex<Begun>,
    _lock: File,
}

fn all(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

impl Run {
    /// Says that it begins.
    pub(super) fn begin(
        env: &Env,
        state_dir: &Path,
        verb: &str,
        components: Vec<String>,
        facts: Map<String, Value>,
    ) -> Result<Self> {
        let mut random = [0; 8];
        env.entropy.fill(&mut random)?;
        let folder = all(state_dir).join(hex::encode(random));
        durable::create_folder(&folder)?;
        let lock = lock(&folder)?.ok_or_else(|| Error::new(ErrorKind::Locked, "begin", verb, "another run took its place"))?;
        let begun = Begun {
            verb: verb.to_owned(),
            components,
            at: format_utc(env.clock.wall_us()),
            facts,
        };
        write(&folder, &begun)?;
        Ok(Self {
            folder,
            begun: Mutex::new(begun),
            _lock: lock,
        })
    }

    /// What is left of it.
    pub(super) fn begun(&self) -> Begun {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The record of this component stands.
    pub(super) fn recorded(&self, component: &str) -> Result<()> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.components.retain(|name| name != component);
        if begun.components.is_empty() {
            remove(&self.folder)
        } else {
            write(&self.folder, &begun)
        }
    }

    /// It has ended: what was not recorded until now was not begun.
    pub(super) fn end(self) -> Result<()> {
        remove(&self.folder)
    }
}

fn write(folder: &Path, begun: &Begun) -> Result<()> {
    let bytes =
        serde_json::to_vec(begun).map_err(|error| Error::new(ErrorKind::Bug, "encode", "what begins", error.to_string()))?;
    durable::replace_file(&folder.join(BEGUN), &bytes, durable::FILE_MODE)
}

/// What it says goes first: without it, whoever takes the lock between two steps takes it for nothing.
fn remove(folder: &Path) -> Result<()> {
    durable::remove_file(&folder.join(BEGUN))?;
    durable::remove_folder(folder)
}

/// Locks a folder; `None` while somebody is at work.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = match opened {
        Ok(file) => file,
        // It was removed meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path.display(), error)),
    };
    Ok(file.try_lock().is_ok().then_some(file))
}

/// The runs that were killed. What cannot be understood says nothing, and is removed.
pub(super) fn killed(state_dir: &Path) -> Result<Vec<Run>> {
    let parent = all(state_dir);
    let entries = match std::fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", parent.display(), error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let folder = entry.map_err(|error| Error::io("list", parent.display(), error))?.path();
        if !folder.is_dir() {
            continue;
        }
        // One of another user is his to record.
        let Ok(Some(lock)) = lock(&folder) else { continue };
        let bytes = std::fs::read(folder.join(BEGUN)).unwrap_or_default();
        match serde_json::from_slice(&bytes) {
            Ok(begun) => found.push(Run {
                begun: Mutex::new(begun),
                folder,
                _lock: lock,
            }),
            // Whoever recorded it has removed it, or it was killed before it began.
            Err(_) => durable::remove_folder(&folder)?,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use lifeboat_testkit::env::test_env;

    use super::*;

    #[test]
    fn only_what_nobody_holds_was_killed_and_it_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let (env, state) = (test_env(7), folder.path());
        assert!(killed(state).unwrap().is_empty());
        let names = vec!["shop/db".to_owned(), "shop/files".to_owned()];
        let begin = |verb: &str| Run::begin(&env, state, verb, names.clone(), Map::new()).unwrap();
        let (running, dying) = (begin("backup"), begin("verify"));
        assert!(killed(state).unwrap().is_empty(), "both are under way");
        drop(dying);
        // Killed before it said what it does.
        durable::create_folder(&all(state).join("0000")).unwrap();
        let found = killed(state).unwrap();
        assert_eq!(found.len(), 1);
        let begun = found[0].begun();
        assert_eq!((begun.verb.as_str(), &begun.components), ("verify", &names));
        assert!(killed(state).unwrap().is_empty(), "somebody is about to record it");
        // What could not be recorded stays for the next one.
        found[0].recorded("shop/db").unwrap();
        drop(found);
        let found = killed(state).unwrap();
        assert_eq!(found[0].begun().components, ["shop/files"]);
        found[0].recorded("shop/files").unwrap();
        drop(found);
        running.end().unwrap();
        assert!(killed(state).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(all(state)).unwrap().count(), 0);
    }
}
