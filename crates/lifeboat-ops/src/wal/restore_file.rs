//! What a restore leaves in the restored directory, so that a server started there by a person finds its log: a small file, and beside it, once
//! the first file is asked for, the socket, the lock and the log of the server of log. It holds no secret.

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};
use lifeboat_repo::Lineage;
use serde::{Deserialize, Serialize};

use super::archive::Limit;

/// The folder in the data directory.
pub(super) const FOLDER: &str = "lifeboat";
const NAME: &str = "restore.json";
const LIMIT_BYTES: usize = 64 << 10;

/// What is needed to serve the log of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreFile {
    /// The configuration; absolute. None: what the environment says.
    pub config: Option<PathBuf>,
    /// Whose log.
    pub component: String,
    /// From which stores, the preferred one first: those that answered when the restore was planned.
    pub stores: Vec<String>,
    /// What was decided.
    pub limit: Limit,
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: u32,
    config: Option<PathBuf>,
    component: String,
    #[serde(default)]
    stores: Vec<String>,
    lineage: String,
    timeline: u32,
    until: String,
}

impl RestoreFile {
    /// Where it lies in a data directory.
    #[must_use]
    pub fn path_in(data_dir: &Path) -> PathBuf {
        data_dir.join(FOLDER).join(NAME)
    }

    /// Writes it into its folder in the data directory, which belongs to `owner` where that is somebody else. Returns its path.
    pub fn write(&self, data_dir: &Path, owner: Option<(u32, u32)>) -> Result<PathBuf> {
        let folder = data_dir.join(FOLDER);
        let path = Self::path_in(data_dir);
        let json = Json {
            version: 1,
            config: self.config.clone(),
            component: self.component.clone(),
            stores: self.stores.clone(),
            lineage: self.limit.lineage.to_string(),
            timeline: self.limit.timeline.number(),
            until: self.limit.until.to_string(),
        };
        let bytes = serde_json::to_vec_pretty(&json)
            .map_err(|error| Error::new(ErrorKind::Bug, "write", path.display(), "it does not serialise").with_source(error))?;
        // The origin may have had a link of that name; what it leads to is none of ours.
        let is_folder = |meta: std::fs::Metadata| meta.is_dir();
        if folder.symlink_metadata().is_ok_and(|meta| !is_folder(meta)) {
            durable::remove_file(&folder)?;
        }
        durable::create_folder(&folder)?;
        durable::replace_file(&path, &bytes, durable::FILE_MODE)?;
        if let Some((user, group)) = owner {
            for place in [&path, &folder] {
                std::os::unix::fs::lchown(place, Some(user), Some(group))
                    .map_err(|error| Error::io("give away", place.display(), error))?;
            }
        }
        Ok(path)
    }

    /// Reads it. Kind `Corrupt` for something else.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "read", path.display(), detail);
        let bytes = std::fs::read(path).map_err(|error| Error::io("read", path.display(), error))?;
        if bytes.len() > LIMIT_BYTES {
            return Err(wrong("it is too long for what a restore wrote"));
        }
        let json: Json =
            serde_json::from_slice(&bytes).map_err(|error| wrong("it is not what a restore wrote").with_source(error))?;
        if json.version != 1 {
            return Err(wrong("it was written by a newer version of Lifeboat").with_kind(ErrorKind::Incompatible));
        }
        let lineage: Lineage = json.lineage.parse()?;
        Ok(Self {
            config: json.config,
            component: json.component,
            stores: json.stores,
            limit: Limit {
                lineage,
                timeline: Timeline::new(json.timeline)?,
                until: json.until.parse::<Lsn>()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_the_origin_had_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let (data_dir, elsewhere) = (root.path().join("data"), root.path().join("elsewhere"));
        durable::create_folder(&data_dir).unwrap();
        durable::create_folder(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, data_dir.join(FOLDER)).unwrap();
        let file = RestoreFile {
            config: None,
            component: "bank/db".to_owned(),
            stores: vec!["disk".to_owned(), "other".to_owned()],
            limit: Limit {
                lineage: "00000000000000000000000000000001".parse().unwrap(),
                timeline: Timeline::FIRST,
                until: Lsn(17),
            },
        };
        let path = file.write(&data_dir, None).unwrap();
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
        assert_eq!(RestoreFile::read(&path).unwrap(), file);
        assert!(data_dir.join(FOLDER).symlink_metadata().unwrap().is_dir());
    }
}
