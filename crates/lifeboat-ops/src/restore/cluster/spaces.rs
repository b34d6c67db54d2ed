//! Where the tablespaces of a restore lie until the cluster has its name, and how they get theirs.
//!
//! Each is put together in a staging folder on its own disk: beside a place that is not there yet, inside of one that is there and empty. So
//! whatever goes wrong, nothing is removed but staging folders, and those are this run's own. If we die before the publishing, the next restore
//! sweeps them; if we die in the middle of it, tablespaces have their names which no data directory needs: the next restore says that something
//! is there, and everything in them is in the backup, too.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::{Error, Result};

use super::destination::refuse_taken;
use super::files::{give, make_folder};
use crate::restore::nearest_folder;
use crate::restore::staging::Staging;

/// The tablespaces of one restore.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    stagings: Vec<Staging>,
    spaces: Vec<Space>,
}

#[derive(Debug)]
struct Space {
    oid: u32,
    staged: PathBuf,
    place: PathBuf,
    /// The place is there, empty, and stays whatever happens: it may be a disk.
    inside: bool,
}

/// What was moved, from where to where.
type Moved = Vec<(PathBuf, PathBuf)>;

impl Spaces {
    /// Makes the staging folders; `main` is that of the data directory.
    pub(super) fn begin(places: &BTreeMap<u32, PathBuf>, main: &Staging, id: &str, owner: Option<(u32, u32)>) -> Result<Self> {
        let mut spaces = Self::default();
        for (oid, place) in places {
            refuse_taken(place)?;
            let inside = place.is_dir();
            let parent = if inside {
                place.clone()
            } else {
                nearest_folder(&durable::parent_of(place))?
            };
            let folder = spaces.staging_in(&parent, main, id, owner)?;
            spaces.spaces.push(Space {
                oid: *oid,
                staged: folder.join("tablespaces").join(oid.to_string()),
                place: place.clone(),
                inside,
            });
        }
        Ok(spaces)
    }

    /// The staging folder in `parent`, made where there is none yet.
    fn staging_in(&mut self, parent: &Path, main: &Staging, id: &str, owner: Option<(u32, u32)>) -> Result<PathBuf> {
        let wanted = identity(parent)?;
        for known in self.stagings.iter().chain([main]) {
            if identity(&durable::parent_of(known.folder()))? == wanted {
                return Ok(known.folder().to_path_buf());
            }
        }
        let staging = Staging::create(&parent.join("tablespace"), id)?;
        give(staging.folder(), owner)?;
        let folder = staging.folder().to_path_buf();
        self.stagings.push(staging);
        Ok(folder)
    }

    /// Where each tablespace lies for now.
    pub(super) fn staged(&self) -> BTreeMap<u32, PathBuf> {
        self.spaces.iter().map(|space| (space.oid, space.staged.clone())).collect()
    }

    /// Leads the links of `data_dir` to the places, moves the tablespaces there and then, by `last`, the data directory to `to`. Where that
    /// does not get there, the tablespaces go back.
    pub(super) fn publish<T>(
        &self,
        data_dir: &Path,
        to: &Path,
        owner: Option<(u32, u32)>,
        last: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let restored = identity(data_dir)?;
        let mut moved = Moved::new();
        let published = self.lead(data_dir, owner).and_then(|spaces| {
            for space in spaces {
                space.publish(&mut moved, owner)?;
            }
            last()
        });
        // A failure behind the last step, a folder that cannot be synced: the cluster has its name, and needs its tablespaces.
        published.map_err(|error| {
            let has_its_name = restored.is_some() && identity(to).is_ok_and(|there| there == restored);
            if has_its_name { error } else { take_back(&moved, error) }
        })
    }

    /// Those whose links are there still: a tablespace may have been dropped in the log that was replayed.
    fn lead(&self, data_dir: &Path, owner: Option<(u32, u32)>) -> Result<Vec<&Space>> {
        let mut led = Vec::new();
        for space in &self.spaces {
            let link = data_dir.join(format!("pg_tblspc/{}", space.oid));
            if identity(&link)?.is_none() {
                continue;
            }
            let temporary = durable::temporary_beside(&link)?;
            symlink(&space.place, &temporary).map_err(|error| Error::io("make the link", link.display(), error))?;
            give(&temporary, owner)?;
            durable::rename(&temporary, &link)?;
            led.push(space);
        }
        Ok(led)
    }

    /// Removes the staging folders.
    pub(super) fn remove(&self) -> Result<()> {
        self.stagings.iter().try_for_each(Staging::remove)
    }
}

impl Space {
    fn publish(&self, moved: &mut Moved, owner: Option<(u32, u32)>) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        refuse_taken(&self.place)?;
        if !self.inside {
            make_folder(&durable::parent_of(&self.place), owner)?;
            return relocate(&self.staged, &self.place, moved);
        }
        let failed = |error| Error::io("publish the tablespace", self.place.display(), error);
        for entry in std::fs::read_dir(&self.staged).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            relocate(&entry.path(), &self.place.join(entry.file_name()), moved)?;
        }
        std::fs::set_permissions(&self.place, PermissionsExt::from_mode(0o700)).map_err(failed)?;
        give(&self.place, owner)
    }
}

/// Moves to a new name. That it got there is remembered even where a folder cannot be synced afterwards.
fn relocate(from: &Path, to: &Path, moved: &mut Moved) -> Result<()> {
    let what = identity(from)?;
    let outcome = durable::rename_new(from, to);
    if what.is_some() && identity(to)? == what {
        moved.push((from.to_path_buf(), to.to_path_buf()));
    }
    outcome
}

fn take_back(moved: &Moved, error: Error) -> Error {
    let mut left = Vec::new();
    for (from, to) in moved.iter().rev() {
        if durable::rename_new(to, from).is_err() && identity(from).is_ok_and(|there| there.is_none()) {
            left.push(to.display().to_string());
        }
        // The folder of tablespaces beside the data directory was made for them; others may be in it, or somebody else's files. A folder that a
        // person named was perhaps there before.
        let parent = durable::parent_of(to);
        if parent.extension().is_some_and(|ending| ending == "tablespaces") {
            drop(std::fs::remove_dir(parent));
        }
    }
    if left.is_empty() {
        return error;
    }
    error.with_hint(format!(
        "what was restored of the tablespaces is left in {}: remove it, then run the same command again",
        left.join(", ")
    ))
}

/// Device and number of what is there itself, also of a link.
pub(super) fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", path.display(), error)),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "somebody else's files")]
mod tests {
    use lifeboat_model::ErrorKind;

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        main: Staging,
    }

    impl Scene {
        /// A cluster with the tablespaces 1 (to a new folder) and 2 (to one that is there and empty), staged.
        fn new() -> (Self, Spaces) {
            let folder = tempfile::tempdir().unwrap();
            let main = Staging::create(&folder.path().join("to"), "id").unwrap();
            let scene = Self { folder, main };
            std::fs::create_dir_all(scene.path("disk/two")).unwrap();
            let places = BTreeMap::from([(1, scene.path("to.tablespaces/1")), (2, scene.path("disk/two"))]);
            let spaces = Spaces::begin(&places, &scene.main, "id", None).unwrap();
            std::fs::create_dir_all(scene.data().join("pg_tblspc")).unwrap();
            for (oid, staged) in spaces.staged() {
                std::fs::create_dir_all(staged.join("PG_x")).unwrap();
                std::fs::write(staged.join("PG_x/table"), "rows").unwrap();
                symlink(&staged, scene.data().join(format!("pg_tblspc/{oid}"))).unwrap();
            }
            (scene, spaces)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn data(&self) -> PathBuf {
            self.main.path("data")
        }

        fn publish(&self, spaces: &Spaces) -> Result<()> {
            let to = self.path("to");
            spaces.publish(&self.data(), &to, None, || durable::rename_new(&self.data(), &to))
        }
    }

    #[test]
    fn tablespaces_get_their_places_with_the_cluster() {
        let (scene, spaces) = Scene::new();
        assert_eq!(scene.path("disk/two").read_dir().unwrap().count(), 1, "its staging folder");
        scene.publish(&spaces).unwrap();
        spaces.remove().unwrap();
        for oid in 1..3 {
            assert!(scene.path(&format!("to/pg_tblspc/{oid}/PG_x/table")).is_file());
        }
        assert_eq!(scene.path("to/pg_tblspc/2").read_link().unwrap(), scene.path("disk/two"));
        assert_eq!(
            scene.path("disk/two").read_dir().unwrap().count(),
            1,
            "the server's folder alone"
        );
    }

    #[test]
    fn one_that_was_dropped_in_the_log_is_left_out() {
        let (scene, spaces) = Scene::new();
        std::fs::remove_file(scene.data().join("pg_tblspc/1")).unwrap();
        scene.publish(&spaces).unwrap();
        assert!(!scene.path("to.tablespaces").exists());
        assert!(scene.path("to/pg_tblspc/2/PG_x/table").is_file());
    }

    #[test]
    fn what_somebody_put_there_meanwhile_stays_and_nothing_of_ours_does() {
        for taken in ["disk/two/precious", "to.tablespaces/1/precious", "to/precious"] {
            let (scene, spaces) = Scene::new();
            let precious = scene.path(taken);
            std::fs::create_dir_all(precious.parent().unwrap()).unwrap();
            std::fs::write(&precious, "x").unwrap();
            let error = scene.publish(&spaces).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Refused | ErrorKind::AlreadyExists),
                "{taken}: {error}"
            );
            drop(spaces);
            let Scene { folder, main } = scene;
            drop(main);
            assert_eq!(std::fs::read(&precious).unwrap(), b"x", "{taken}");
            let mut left = Vec::new();
            let mut pending = vec![folder.path().to_path_buf()];
            while let Some(next) = pending.pop() {
                for entry in next.read_dir().unwrap().map(|entry| entry.unwrap().path()) {
                    if entry.is_dir() {
                        pending.push(entry)
                    } else {
                        left.push(entry)
                    }
                }
            }
            assert_eq!(left, [precious], "{taken}");
            assert!(folder.path().join("disk/two").is_dir(), "it was there before");
        }
    }

    #[test]
    fn a_published_cluster_keeps_its_tablespaces_whatever_fails_afterwards() {
        let (scene, spaces) = Scene::new();
        let to = scene.path("to");
        let failed = spaces.publish(&scene.data(), &to, None, || {
            durable::rename_new(&scene.data(), &to)?;
            Err::<(), _>(Error::new(ErrorKind::Failed, "make durable", "the folder", "for a test"))
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Failed);
        drop(spaces);
        let Scene { folder, main } = scene;
        drop(main);
        for oid in 1..3 {
            assert!(folder.path().join(format!("to/pg_tblspc/{oid}/PG_x/table")).is_file());
        }
    }
}
