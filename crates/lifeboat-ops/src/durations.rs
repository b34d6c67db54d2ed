//! How long backups took on this host: a small file per component in the state folder, beside the proofs.
//!
//! It is a cache for what a plan rests on (`docs/plan-lint.md`). Losing it makes durations assumed again, and nothing else: no error comes from reading
//! it. The ledger has every duration too, but only in the stores, and a plan is judged without asking any.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::ComponentName;
use serde::{Deserialize, Serialize};

/// Runs kept of those with the same method and stores that are full, or are not. Each sort by itself: many small runs must not push out the rare long one.
pub const KEPT: usize = 10;

/// No backup takes longer; what says so is damaged.
const LONGEST_S: f64 = 366.0 * 24.0 * 3600.0;

/// A backup that came into all the stores that it was for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// When it had ended, microseconds since 1970.
    pub at_us: i64,
    /// From its begin until all stores had it, in seconds.
    pub took_s: f64,
    /// By which method.
    pub method: String,
    /// Into which stores, sorted.
    pub stores: Vec<String>,
    /// Whether everything was read into it anew, not only what had changed.
    pub full: bool,
}

impl Took {
    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::try_from_secs_f64(self.took_s).unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize, Default)]
struct DurationsJson {
    version: u32,
    backups: Vec<Took>,
}

fn path(state_dir: &Path, component: &ComponentName) -> PathBuf {
    state_dir.join("durations").join(format!("{}.json", component.segment()))
}

/// What backups of a component took here, oldest first. Where that is missing or damaged, nothing is known.
#[must_use]
pub fn load(state_dir: &Path, component: &ComponentName) -> Vec<Took> {
    let text = std::fs::read(path(state_dir, component)).unwrap_or_default();
    let json: DurationsJson = serde_json::from_slice(&text).unwrap_or_default();
    if json.version != 1 {
        return Vec::new();
    }
    let is_sound = |took: &Took| took.took_s > 0.0 && took.took_s <= LONGEST_S;
    json.backups.into_iter().filter(is_sound).collect()
}

/// Remembers what a backup took.
///
/// Two runs at once may each forget what the other one took: a duration more or less changes no plan, and nobody has to wait for it.
pub fn record(state_dir: &Path, component: &ComponentName, took: Took) -> Result<()> {
    let mut backups = load(state_dir, component);
    backups.push(took);
    thin(&mut backups);
    let bytes = serde_json::to_vec_pretty(&DurationsJson { version: 1, backups })
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what backups took", error.to_string()))?;
    let path = path(state_dir, component);
    durable::create_folder(&durable::parent_of(&path))?;
    durable::replace_file(&path, &bytes, durable::FILE_MODE)
}

/// Keeps the newest [`KEPT`] of each sort.
fn thin(backups: &mut Vec<Took>) {
    let mut counts: BTreeMap<(String, Vec<String>, bool), usize> = BTreeMap::new();
    backups.reverse();
    backups.retain(|took| {
        let count = counts
            .entry((took.method.clone(), took.stores.clone(), took.full))
            .or_default();
        *count += 1;
        *count <= KEPT
    });
    backups.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(method: &str, at_us: i64) -> Took {
        Took {
            at_us,
            took_s: 1.5,
            method: method.to_owned(),
            stores: vec!["disk".to_owned()],
            full: false,
        }
    }

    #[test]
    fn many_runs_of_one_sort_do_not_push_out_another() {
        let mut backups = vec![took("logical", 0)];
        backups.extend((1..=12).map(|at_us| took("physical", at_us)));
        thin(&mut backups);
        backups.insert(
            1,
            Took {
                full: true,
                ..took("physical", 0)
            },
        );
        thin(&mut backups);
        let left: Vec<i64> = backups.iter().map(|took| took.at_us).collect();
        assert_eq!(left, [0, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn what_is_missing_or_damaged_is_not_known_and_the_next_run_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let component = ComponentName::new("shop/db").unwrap();
        let known = || load(folder.path(), &component);
        assert_eq!(known(), []);
        record(folder.path(), &component, took("physical", 1)).unwrap();
        assert_eq!(known(), [took("physical", 1)]);
        let file = path(folder.path(), &component);
        for damaged in [
            "",
            "{",
            r#"{"version":2,"backups":[]}"#,
            r#"{"version":1,"backups":[{"at_us":1,"took_s":-1,"method":"physical","stores":[]},{"at_us":1,"took_s":1e300,"method":"","stores":[]}]}"#,
        ] {
            durable::replace_file(&file, damaged.as_bytes(), durable::FILE_MODE).unwrap();
            assert_eq!(known(), [], "{damaged}");
            record(folder.path(), &component, took("physical", 2)).unwrap();
            assert_eq!(known(), [took("physical", 2)]);
        }
    }
}
