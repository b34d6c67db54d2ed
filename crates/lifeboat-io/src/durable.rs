//! Durable publishing: a file appears under its name whole and on the disk, or not at all. The only rename in the product.
//!
//! Order for every file: write under a temporary name in the same folder → fsync the file → give it its name → fsync the folder.
//! Dying in between leaves at most a temporary file, whose name begins with [`TEMPORARY_PREFIX`]; nothing ever reads one, and
//! [`remove_leftovers`] removes those whose writer is dead.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind, Result};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock};

/// How temporary names begin.
pub const TEMPORARY_PREFIX: &str = ".lifeboat-tmp-";

/// Mode of files with private content.
pub const FILE_MODE: u32 = 0o600;
/// Mode of folders with private content.
pub const FOLDER_MODE: u32 = 0o700;

/// Creates `path` and its missing parents, each 0700 and each made durable in its parent. Existing folders stay as they are.
pub fn create_folder(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => return Err(in_the_way(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("look at", path.display(), error)),
    }
    let parent = parent_of(path);
    create_folder(&parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => sync_folder(&parent),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("create folder", path.display(), error)),
    }
}

/// Creates the folders of the relative path `below` inside the existing folder `root`, each 0700, and makes every one of them durable
/// in its parent, also those that were there (another process may have died before it did so).
///
/// `root` itself is never created: where a disk is not mounted, nothing may be written beside it. A file in the way is an error of kind
/// `AlreadyExists`.
pub fn create_folders_below(root: &Path, below: &Path) -> Result<()> {
    let mut path = root.to_path_buf();
    for part in below.components() {
        let parent = path.clone();
        path.push(part);
        match DirBuilder::new().mode(FOLDER_MODE).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let meta = path.metadata().map_err(|error| Error::io("look at", path.display(), error))?;
                if !meta.is_dir() {
                    return Err(in_the_way(&path));
                }
            }
            Err(error) => return Err(Error::io("create folder", path.display(), error)),
        }
        sync_folder(&parent)?;
    }
    Ok(())
}

fn in_the_way(path: &Path) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        "create folder",
        path.display(),
        "a file of that name is in the way",
    )
}

/// Makes the names inside a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::io("make durable", path.display(), error))
}

/// Makes everything durable that was written to the file system of `path`, by anybody: for many files that were written one by one, syncing each of
/// them costs more. Waits for the writing and tells its errors (Linux 5.8 and newer; older kernels only wait).
pub fn sync_file_system(path: &Path) -> Result<()> {
    let failed = |error| Error::io("make durable", path.display(), error);
    let folder = File::open(path).map_err(failed)?;
    rustix::fs::syncfs(&folder).map_err(|error| failed(error.into()))
}

/// The folder that holds `path`; `.` for a bare name.
#[must_use]
pub fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether a name that was to be created was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The file is there now and was not before.
    New,
    /// A file of that name was there already and stays untouched; its content is not compared here.
    AlreadyThere,
}

/// Writes `bytes` as a new file `path` with `mode`; an existing file is left alone and reported.
pub fn create_file(path: &Path, bytes: &[u8], mode: u32) -> Result<Created> {
    let temporary = write_temporary(path, bytes, mode)?;
    let outcome = rustix::fs::renameat_with(CWD, &temporary.path, CWD, path, RenameFlags::NOREPLACE);
    let created = match outcome {
        Ok(()) => Created::New,
        Err(rustix::io::Errno::EXIST) => {
            remove_file(&temporary.path)?;
            Created::AlreadyThere
        }
        // File systems without NOREPLACE: a hard link fails on an existing name just as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => link_new(&temporary.path, path)?,
        Err(error) => {
            forget(&temporary.path);
            return Err(Error::io("publish", path.display(), error.into()));
        }
    };
    sync_folder(&parent_of(path))?;
    Ok(created)
}

fn link_new(temporary: &Path, path: &Path) -> Result<Created> {
    let linked = std::fs::hard_link(temporary, path);
    remove_file(temporary)?;
    match linked {
        Ok(()) => Ok(Created::New),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Created::AlreadyThere),
        Err(error) => Err(Error::io("publish", path.display(), error)),
    }
}

/// Writes `bytes` as `path` with `mode`, replacing what was there in one step.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = write_temporary(path, bytes, mode)?;
    rename(&temporary.path, path).inspect_err(|_| forget(&temporary.path))
}

/// Writes `bytes` as `path` with `mode`, whole or not at all, replacing what was there, and durable no sooner than the system likes: for
/// whoever reads it now, and asks for it again after a crash.
pub fn hand_over(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let (temporary, mut file) = open_temporary(path, mode)?;
    let written = file.write_all(bytes);
    #[expect(clippy::disallowed_methods, reason = "nobody relies on it after a crash")]
    let done = written.and_then(|()| std::fs::rename(&temporary, path));
    done.map_err(|error| {
        forget(&temporary);
        Error::io("write", path.display(), error)
    })
}

/// Moves `from` to `to` on the same file system, replacing a file there. Durable once the caller has made the folders so ([`sync_folder`]).
pub fn move_file(from: &Path, to: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this is the one rename")]
    std::fs::rename(from, to).map_err(|error| Error::io("publish", to.display(), error))
}

/// Moves `from` to `to` on the same file system, replacing a file there, and makes both folders durable.
/// The caller has fsynced the content.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    move_file(from, to)?;
    let target = parent_of(to);
    sync_folder(&target)?;
    let origin = parent_of(from);
    if origin != target { sync_folder(&origin) } else { Ok(()) }
}

/// Moves `from` to the new name `to`; an existing `to` is an error of kind `AlreadyExists` and both stay as they were.
pub fn rename_new(from: &Path, to: &Path) -> Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
        .map_err(|error| Error::io("publish", to.display(), error.into()))?;
    let target = parent_of(to);
    sync_folder(&target)?;
    let origin = parent_of(from);
    if origin != target { sync_folder(&origin) } else { Ok(()) }
}

/// Removes a file; one that is not there is no error.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path.display(), error)),
    }
}

/// Removes a folder and all in it; one that is not there is no error.
pub fn remove_folder(path: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "deletion is gathered here")]
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove folder", path.display(), error)),
    }
}

/// A name in the folder of `path` that nobody else uses.
pub fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(ErrorKind::Failed, "name a temporary file beside", path.display(), error))?;
    Ok(parent_of(path).join(format!("{TEMPORARY_PREFIX}{:016x}", u64::from_le_bytes(random))))
}

/// Removes a temporary file after a failure that is already being reported. What cannot be removed stays as litter that nothing reads.
fn forget(temporary: &Path) {
    if remove_file(temporary).is_err() {
        // The failure that led here says why; a second one about litter would hide it.
    }
}

/// A written, durable file that has no name of its own yet. The open file carries the lock that tells [`remove_leftovers`] to leave it alone.
struct Temporary {
    path: PathBuf,
    _locked: File,
}

/// A new file beside `path`, locked.
fn open_temporary(path: &Path, mode: u32) -> Result<(PathBuf, File)> {
    loop {
        let temporary = temporary_beside(path)?;
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(mode).open(&temporary);
        let file = opened.map_err(|error| Error::io("write", path.display(), error))?;
        if lock_temporary(&file).map_err(|error| Error::io("write", path.display(), error))? {
            return Ok((temporary, file));
        }
    }
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<Temporary> {
    let (temporary, mut file) = open_temporary(path, mode)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(Temporary {
            path: temporary,
            _locked: file,
        }),
        Err(error) => {
            // A full disk must not stay full because of us.
            forget(&temporary);
            Err(Error::io("write", path.display(), error))
        }
    }
}

/// Locks a new temporary file; `false` if somebody took it for a leftover and removed it before it was locked.
fn lock_temporary(file: &File) -> std::io::Result<bool> {
    if flock(file, FlockOperation::LockExclusive).is_err() {
        // A file system without locks: there, no leftover can be told from a file in use, and none is removed.
        return Ok(true);
    }
    Ok(file.metadata()?.nlink() > 0)
}

/// Removes the temporary files in `folder` (not below it) that no living process is writing, and returns how many bytes that freed.
///
/// Whoever writes one holds a lock on it, and the kernel gives the lock back when the process dies, however it dies.
pub fn remove_leftovers(folder: &Path) -> Result<u64> {
    let failed = |error| Error::io("clear of leftovers", folder.display(), error);
    let mut freed = 0;
    for found in folder.read_dir().map_err(failed)? {
        let found = found.map_err(failed)?;
        if !found.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
            continue;
        }
        let path = found.path();
        let file = match OpenOptions::new().read(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let meta = file.metadata().map_err(failed)?;
        if meta.is_file() && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_file(&path)?;
            freed += meta.len();
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_created_file_is_whole_private_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(create_file(&path, b"first", FILE_MODE).unwrap(), Created::New);
        assert_eq!(create_file(&path, b"second", FILE_MODE).unwrap(), Created::AlreadyThere);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), FILE_MODE);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn the_way_for_file_systems_without_noreplace_refuses_just_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for (content, expected) in [(b"first ", Created::New), (b"second", Created::AlreadyThere)] {
            let temporary = write_temporary(&path, content, FILE_MODE).unwrap();
            assert_eq!(link_new(&temporary.path, &path).unwrap(), expected);
            assert_eq!(std::fs::read(&path).unwrap(), b"first ");
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn two_who_create_the_same_name_leave_one_whole_file_and_one_winner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let bodies: Vec<Vec<u8>> = (0..8_u8).map(|byte| vec![byte; 70_000]).collect();
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = bodies
                .iter()
                .map(|body| scope.spawn(|| create_file(&path, body, FILE_MODE).unwrap()))
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Created::New).count(), 1);
        let winner = outcomes.iter().position(|outcome| *outcome == Created::New).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bodies[winner]);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn what_is_handed_over_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        hand_over(&path, b"one", FILE_MODE).unwrap();
        hand_over(&path, b"two", 0o640).unwrap();
        assert_eq!(
            (std::fs::read(&path).unwrap(), mode(&path), names(folder.path())),
            (b"two".to_vec(), 0o640, vec!["a".to_owned()])
        );
        assert!(hand_over(&folder.path().join("none/a"), b"x", FILE_MODE).is_err());
        // A folder in the way.
        assert!(hand_over(folder.path(), b"x", FILE_MODE).is_err());
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn replacing_swaps_the_content_and_keeps_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace_file(&path, b"one", 0o640).unwrap();
        replace_file(&path, b"two", FILE_MODE).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), FILE_MODE);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_failed_publication_removes_its_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(replace_file(&taken, b"x", FILE_MODE).is_err());
        assert_eq!(names(folder.path()), ["taken"]);
        // A name that is too long fails at publication, after the temporary file was written.
        let long = folder.path().join("n".repeat(300));
        assert!(create_file(&long, b"x", FILE_MODE).is_err());
        assert!(replace_file(&long, b"x", FILE_MODE).is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_missing_folder_is_an_absence_and_is_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/a");
        assert_eq!(create_file(&path, b"x", FILE_MODE).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(replace_file(&path, b"x", FILE_MODE).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn renaming_to_a_taken_name_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        replace_file(&from, b"new", FILE_MODE).unwrap();
        replace_file(&to, b"old", FILE_MODE).unwrap();
        assert_eq!(rename_new(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), ["from", "to"]);
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
        rename(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
        let elsewhere = folder.path().join("elsewhere");
        create_folder(&elsewhere).unwrap();
        rename_new(&to, &elsewhere.join("to")).unwrap();
        assert_eq!(names(folder.path()), ["elsewhere"]);
        assert_eq!(names(&elsewhere), ["to"]);
    }

    #[test]
    fn folders_are_private_and_a_file_in_the_way_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        assert_eq!(mode(&deep), FOLDER_MODE);
        assert_eq!(mode(&folder.path().join("a")), FOLDER_MODE);
        replace_file(&folder.path().join("file"), b"", FILE_MODE).unwrap();
        assert_eq!(
            create_folder(&folder.path().join("file")).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert!(create_folder(&folder.path().join("file/below")).is_err());
    }

    #[test]
    fn folders_below_a_missing_root_are_not_created() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("unmounted");
        let below = Path::new("c/db");
        assert_eq!(create_folders_below(&root, below).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(names(folder.path()).is_empty());
        create_folder(&root).unwrap();
        create_folders_below(&root, below).unwrap();
        create_folders_below(&root, below).unwrap();
        assert_eq!(mode(&root.join("c/db")), FOLDER_MODE);
        replace_file(&root.join("file"), b"", FILE_MODE).unwrap();
        let taken = create_folders_below(&root, Path::new("file")).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        remove_file(&path).unwrap();
        remove_folder(&path).unwrap();
        create_folder(&path).unwrap();
        assert!(remove_file(&path).is_err(), "a folder is not a file");
        remove_folder(&folder.path().join("a")).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn leftovers_go_and_what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace_file(&path, b"kept", FILE_MODE).unwrap();
        let written = write_temporary(&path, b"in the middle of it", FILE_MODE).unwrap();
        let leftover = temporary_beside(&path).unwrap();
        std::fs::copy(&path, &leftover).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 4);
        assert!(!leftover.try_exists().unwrap());
        // Another name, as a publication would give it: the lock goes along, the content is what was written.
        rename(&written.path, &folder.path().join("b")).unwrap();
        drop(written);
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 0);
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert!(remove_leftovers(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn a_temporary_file_that_was_taken_for_a_leftover_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let temporary = temporary_beside(&folder.path().join("a")).unwrap();
        let file = File::create_new(&temporary).unwrap();
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 0);
        assert!(!lock_temporary(&file).unwrap(), "it has no name any more");
    }

    /// Writers and a cleaner at the same time: no writer loses its file.
    #[test]
    fn clearing_while_others_write_harms_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let running = std::sync::atomic::AtomicUsize::new(3);
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (running, folder) = (&running, folder.path());
                scope.spawn(move || {
                    let outcomes: Vec<_> = (0..60)
                        .map(|number| create_file(&folder.join(format!("{writer}-{number:02}")), b"content", FILE_MODE))
                        .collect();
                    running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert!(
                        outcomes.iter().all(|outcome| matches!(outcome, Ok(Created::New))),
                        "{outcomes:?}"
                    );
                });
            }
            while running.load(std::sync::atomic::Ordering::SeqCst) > 0 {
                remove_leftovers(folder.path()).unwrap();
            }
        });
        assert_eq!(names(folder.path()).len(), 180);
    }
}
