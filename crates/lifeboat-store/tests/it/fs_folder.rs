//! What only a folder can meet: modes, foreign files, folders that cannot be read, a disk that goes away.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use bytes::Bytes;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::fs::FsStore;
use lifeboat_store::{BlobStore, Put};
use lifeboat_testkit::damage::{Damage, corrupt};
use tempfile::TempDir;

use crate::{child, key, names};

async fn store_with(files: &[&str]) -> (TempDir, FsStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::create(folder.path().join("store")).await.unwrap();
    for name in files {
        let body = Bytes::copy_from_slice(name.as_bytes());
        assert_eq!(store.put(&key(name), body).await.unwrap(), Put::Created);
    }
    (folder, store)
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[track_caller]
fn unreachable<T>(result: Result<T>) -> Error {
    let error = result.err().expect("it has to fail");
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    error
}

/// Every operation that would answer something about a store that cannot be asked.
async fn assert_nothing_works(store: &FsStore, name: &str, prefix: &str) {
    unreachable(store.list(&key(prefix)).await);
    unreachable(store.list(&key("never/written")).await);
    unreachable(store.get(&key(name), 1000).await);
    unreachable(store.get_range(&key(name), 0..1).await);
    unreachable(store.head(&key(name)).await);
    unreachable(store.put(&key("c/new/file"), Bytes::from_static(b"x")).await);
    unreachable(store.delete(&key(name)).await);
}

#[tokio::test]
async fn folders_are_0700_and_files_0600() {
    let (folder, _) = store_with(&["c/db/packs/one"]).await;
    let root = folder.path().join("store");
    for path in ["", "c", "c/db", "c/db/packs"] {
        assert_eq!(mode(&root.join(path)), 0o700, "{path}");
    }
    assert_eq!(mode(&root.join("c/db/packs/one")), 0o600);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unreachable_and_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing");
    let error = unreachable(FsStore::open(&path).await);
    assert!(error.hint().unwrap().contains("mounted"), "{error:?}");
    assert!(!path.try_exists().unwrap());
    std::fs::write(&path, b"a file").unwrap();
    unreachable(FsStore::open(&path).await);
    assert_eq!(FsStore::create(&path).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    symlink("loop", folder.path().join("loop")).unwrap();
    unreachable(FsStore::open(folder.path().join("loop")).await);
}

#[tokio::test]
async fn a_disk_that_goes_away_is_noticed_by_every_operation() {
    let (folder, store) = store_with(&["c/a", "c/d/b"]).await;
    let (root, aside) = (folder.path().join("store"), folder.path().join("aside"));
    durable::rename(&root, &aside).unwrap();
    assert_nothing_works(&store, "c/a", "c").await;
    assert!(!root.try_exists().unwrap(), "a put must not create the store anew");
    // What an unmounted disk leaves behind: an empty folder at the same path.
    std::fs::create_dir(&root).unwrap();
    assert_nothing_works(&store, "c/a", "c").await;
    assert_eq!(
        std::fs::read_dir(&root).unwrap().count(),
        0,
        "nothing may be written beside the store"
    );
    std::fs::remove_dir(&root).unwrap();
    std::fs::write(&root, b"a file").unwrap();
    assert_nothing_works(&store, "c/a", "c").await;
    std::fs::remove_file(&root).unwrap();
    durable::rename(&aside, &root).unwrap();
    assert_eq!(names(&store, "c").await, ["c/a", "c/d/b"]);
}

/// Folders that cannot be opened as a store, and their modes.
const UNUSABLE: [(&str, u32); 3] = [("shut", 0), ("unsearchable", 0o444), ("unlistable", 0o111)];

/// INV-13, with a user to whom permissions apply.
#[tokio::test]
async fn inv_13_a_folder_that_cannot_be_read_is_an_error_and_never_empty() {
    if let Some(root) = child::folder() {
        return ask_without_permission(&root).await;
    }
    let (folder, _) = store_with(&["c/open/a", "c/shut/b", "c/unsearchable/c", "c/unlistable/d", "c/secret"]).await;
    let root = folder.path().join("store");
    // Nobody may write, not even the owner: the child is that where the tests do not run as root.
    for path in ["c/open", "c", ""] {
        chmod(&root.join(path), 0o555);
    }
    for path in ["c/open/a", "c/unlistable/d"] {
        chmod(&root.join(path), 0o644);
    }
    chmod(folder.path(), 0o755);
    chmod(&root.join("c/secret"), 0);
    chmod(&root.join("c/shut"), 0);
    chmod(&root.join("c/unsearchable"), 0o444);
    chmod(&root.join("c/unlistable"), 0o111);
    for (name, mode) in UNUSABLE {
        let path = folder.path().join(name);
        FsStore::create(&path).await.unwrap();
        chmod(&path, mode);
    }
    let name = "fs_folder::inv_13_a_folder_that_cannot_be_read_is_an_error_and_never_empty";
    child::unprivileged(name, &root);
    // Whoever owns a folder without permissions cannot delete it.
    for path in ["", "c", "c/open", "c/shut", "c/unsearchable", "c/unlistable"] {
        chmod(&root.join(path), 0o700);
    }
}

async fn ask_without_permission(root: &Path) {
    let shut = std::fs::read_dir(root.join("c/shut")).unwrap_err();
    assert_eq!(
        shut.kind(),
        std::io::ErrorKind::PermissionDenied,
        "this test needs a user without privileges"
    );
    for (name, _) in UNUSABLE {
        unreachable(FsStore::open(root.with_file_name(name)).await);
    }
    let store = FsStore::open(root).await.unwrap();
    assert_eq!(names(&store, "c/open").await, ["c/open/a"]);
    for prefix in [
        "c",
        "c/shut",
        "c/unsearchable",
        "c/unlistable",
        "c/shut/deeper",
        "c/shut/deeper/still",
    ] {
        let error = unreachable(store.list(&key(prefix)).await);
        assert!(error.hint().is_some_and(|hint| hint.contains("mounted")), "{error:?}");
    }
    // In a folder that may not be searched nobody can say that a file is missing.
    for name in ["c/shut/b", "c/shut/missing", "c/unsearchable/missing", "c/secret"] {
        unreachable(store.get(&key(name), 1000).await);
        unreachable(store.get_range(&key(name), 0..0).await);
    }
    unreachable(store.head(&key("c/shut/missing")).await);
    unreachable(store.delete(&key("c/shut/missing")).await);
    unreachable(store.delete(&key("c/open/a")).await);
    unreachable(store.put(&key("c/shut/new"), Bytes::new()).await);
    unreachable(store.put(&key("c/open/new"), Bytes::new()).await);
    unreachable(store.put(&key("new/folder"), Bytes::new()).await);
    assert_eq!(store.get(&key("c/unlistable/d"), 1000).await.unwrap(), b"c/unlistable/d"[..]);
}

#[tokio::test]
async fn a_file_in_place_of_a_folder_is_an_error_and_never_empty() {
    let (folder, store) = store_with(&["c/d/a"]).await;
    let place = folder.path().join("store/c/d");
    durable::remove_folder(&place).unwrap();
    std::fs::write(&place, b"a file").unwrap();
    unreachable(store.list(&key("c/d")).await);
    unreachable(store.list(&key("c/d/deeper")).await);
    unreachable(store.get(&key("c/d/a"), 100).await);
    unreachable(store.head(&key("c/d/a")).await);
    let error = store.put(&key("c/d/a"), Bytes::new()).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Unreachable),
        "{error:?}"
    );
}

#[tokio::test]
async fn names_that_no_store_has_fail_a_listing_and_are_named() {
    for foreign in [
        OsStr::new("with space"),
        OsStr::new("pack (1).bin"),
        OsStr::from_bytes(b"not\xffutf8"),
    ] {
        let (folder, store) = store_with(&["c/a", "d/b"]).await;
        std::fs::write(folder.path().join("store/c").join(foreign), b"x").unwrap();
        let error = store.list(&key("c")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let shown = format!("{:?}", Path::new(foreign));
        assert!(error.subject().contains(shown.trim_matches('"')), "{error} names {shown}");
        assert_eq!(names(&store, "d").await, ["d/b"], "other folders are not concerned");
    }
}

#[tokio::test]
async fn hidden_and_temporary_files_are_not_listed() {
    let (folder, store) = store_with(&["c/a"]).await;
    let inside = folder.path().join("store/c");
    std::fs::write(inside.join(format!("{}0123", durable::TEMPORARY_PREFIX)), b"half a fi").unwrap();
    std::fs::write(inside.join(".DS_Store"), b"x").unwrap();
    std::fs::create_dir(inside.join(".snapshot")).unwrap();
    std::fs::write(inside.join(".snapshot/old"), b"x").unwrap();
    assert_eq!(names(&store, "c").await, ["c/a"]);
    // The leftover goes; what others keep there does not, and neither does anything stored.
    assert_eq!(store.remove_leftovers().await.unwrap(), 9);
    let mut left: Vec<_> = inside.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".DS_Store", ".snapshot", "a"]);
}

#[tokio::test]
async fn links_and_pipes_are_refused_and_nobody_waits_at_them() {
    let (folder, store) = store_with(&["c/a", "d/b", "e/c"]).await;
    let root = folder.path().join("store");
    symlink(root.join("c/a"), root.join("d/link")).unwrap();
    symlink(root.join("c"), root.join("linked")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("e/pipe"), rustix::fs::Mode::RWXU).unwrap();
    for prefix in ["d", "e", "linked"] {
        assert_eq!(
            store.list(&key(prefix)).await.unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{prefix}"
        );
    }
    for name in ["d/link", "e/pipe"] {
        assert_eq!(
            store.get(&key(name), 100).await.unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{name}"
        );
        assert_eq!(store.head(&key(name)).await.unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        assert!(store.put(&key(name), Bytes::from_static(b"c/a")).await.is_err(), "{name}");
    }
    assert_eq!(names(&store, "c").await, ["c/a"]);
}

#[tokio::test]
async fn damage_to_a_stored_file_is_found_where_it_can_be() {
    let (folder, store) = store_with(&["c/file"]).await;
    let (root, name) = (folder.path().join("store"), key("c/file"));
    corrupt(&root, &name, &Damage::Truncate { to: 3 }).unwrap();
    assert_eq!(store.get_range(&name, 0..6).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let again = store.put(&name, Bytes::from_static(b"c/file")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "damage is not painted over");
    corrupt(&root, &name, &Damage::Delete).unwrap();
    assert_eq!(store.get(&name, 100).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.put(&name, Bytes::from_static(b"c/file")).await.unwrap(), Put::Created);
}

#[tokio::test]
async fn a_name_cannot_be_a_file_and_a_folder() {
    let (_folder, store) = store_with(&["c/d/a"]).await;
    let onto_folder = store.put(&key("c/d"), Bytes::new()).await.unwrap_err();
    assert_eq!(onto_folder.kind(), ErrorKind::AlreadyExists);
    let below_file = store.put(&key("c/d/a/b"), Bytes::new()).await.unwrap_err();
    assert_eq!(below_file.kind(), ErrorKind::AlreadyExists);
    assert_eq!(names(&store, "c").await, ["c/d/a"]);
}

#[tokio::test]
async fn two_openings_of_one_folder_are_one_store() {
    let (folder, one) = store_with(&["c/a"]).await;
    let other = FsStore::open(folder.path().join("store")).await.unwrap();
    assert_eq!(
        other.put(&key("c/a"), Bytes::from_static(b"c/a")).await.unwrap(),
        Put::AlreadyThere
    );
    assert_eq!(other.put(&key("c/b"), Bytes::new()).await.unwrap(), Put::Created);
    assert_eq!(names(&one, "c").await, ["c/a", "c/b"]);
    // A folder that somebody removed is made again, although it was known to be there.
    durable::remove_folder(&folder.path().join("store/c")).unwrap();
    assert_eq!(one.put(&key("c/a"), Bytes::new()).await.unwrap(), Put::Created);
}
