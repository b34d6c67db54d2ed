//! What the configuration takes from the process: its folder, its home, and whether it is root.
//!
//! Asked once, in [`Surroundings::real`]; the rest is pure, so that every place can be tested. Reads no file's content.

use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};

/// Name of the file wherever it is looked for.
const FILE_NAME: &str = "lifeboat.yaml";

/// Where a process stands.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) folder: PathBuf,
    pub(super) config_variable: Option<PathBuf>,
    pub(super) config_home: Option<PathBuf>,
    pub(super) state_home: Option<PathBuf>,
    pub(super) etc: PathBuf,
    pub(super) root: bool,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn real() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // A relative path in these is to be ignored (XDG Base Directory Specification).
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let under_home = |folder: &str| home.as_ref().map(|home| home.join(folder));
        Self {
            folder: PathBuf::from("."),
            config_variable: variable("LIFEBOAT_CONFIG"),
            config_home: absolute("XDG_CONFIG_HOME").or_else(|| under_home(".config")),
            state_home: absolute("XDG_STATE_HOME").or_else(|| under_home(".local/state")),
            etc: PathBuf::from("/etc"),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// See [`super::discover`].
    pub(super) fn find(&self, explicit: Option<&Path>) -> Result<PathBuf> {
        if let Some(found) = self.look(explicit)? {
            return Ok(found);
        }
        let places: Vec<String> = self.places().iter().map(|place| place.display().to_string()).collect();
        let detail = format!("there is none in {}", places.join(", "));
        Err(Error::new(ErrorKind::ConfigInvalid, "find", FILE_NAME, detail).with_hint(
            "make one with `lifeboat init`, name it with `--config` or $LIFEBOAT_CONFIG, or set DATABASE_URL=sqlite:///… and BACKUP_DIR",
        ))
    }

    /// The file that is named, or the first that is there; `None` without either.
    pub(super) fn look(&self, explicit: Option<&Path>) -> Result<Option<PathBuf>> {
        let named = explicit
            .map(|path| (path, "--config"))
            .or_else(|| self.config_variable.as_deref().map(|path| (path, "$LIFEBOAT_CONFIG")));
        if let Some((path, origin)) = named {
            // What somebody names is never passed over for another file.
            return if is_there(path)? {
                Ok(Some(path.to_owned()))
            } else {
                let detail = format!("there is no such file ({origin} names it)");
                Err(
                    Error::new(ErrorKind::ConfigInvalid, "find configuration", path.display(), detail)
                        .with_hint("correct the path, or make a configuration with `lifeboat init`"),
                )
            };
        }
        for place in self.places() {
            if is_there(&place)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn places(&self) -> Vec<PathBuf> {
        let in_home = self.config_home.as_ref().map(|home| home.join("lifeboat").join(FILE_NAME));
        [
            Some(self.folder.join(FILE_NAME)),
            in_home,
            Some(self.etc.join("lifeboat").join(FILE_NAME)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Where the state lives unless the configuration says so; `None` without a home.
    pub(super) fn state_dir(&self) -> Option<PathBuf> {
        if self.root {
            Some(PathBuf::from("/var/lib/lifeboat"))
        } else {
            self.state_home.as_ref().map(|home| home.join("lifeboat"))
        }
    }
}

/// An unreadable place is an error, not an absence.
fn is_there(path: &Path) -> Result<bool> {
    path.try_exists()
        .map_err(|source| Error::io("find configuration", path.display(), source).with_kind(ErrorKind::ConfigInvalid))
}
