//! A folder on a full disk, and under a process that dies in the middle.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use lifeboat_model::ErrorKind;
use lifeboat_store::fs::FsStore;
use lifeboat_store::{BlobStore, Put};
use lifeboat_testkit::pages::random_bytes;

use crate::{child, key, names};

/// The kernel refuses the rest of a write after some of it was written, by a limit on file sizes: the same path through the code as a full
/// disk, and it works for every user and in every container.
#[tokio::test]
async fn a_full_disk_leaves_neither_file_nor_temporary_file() {
    const NAME: &str = "fs_disk::a_full_disk_leaves_neither_file_nor_temporary_file";
    if let Some(root) = child::folder() {
        let store = FsStore::open(&root).await.unwrap();
        assert_eq!(
            store.put(&key("c/small"), Bytes::from(random_bytes(1, 9000))).await.unwrap(),
            Put::Created
        );
        for _ in 0..2 {
            let error = store
                .put(&key("c/large"), Bytes::from(random_bytes(2, 200_000)))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("free space")), "{error:?}");
        }
        assert_eq!(
            store.put(&key("c/after"), Bytes::from(random_bytes(3, 9000))).await.unwrap(),
            Put::Created
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::create(folder.path()).await.unwrap();
    child::with_small_files(NAME, folder.path()).await;
    assert_eq!(all_names(&folder.path().join("c")), ["after", "small"], "also no hidden ones");
    let again = store
        .put(&key("c/large"), Bytes::from(random_bytes(2, 200_000)))
        .await
        .unwrap();
    assert_eq!(again, Put::Created, "the next run continues");
}

/// Kills a process with SIGKILL while it stores one file after the other, several times. Whatever is listed afterwards is whole, what it
/// was told to be stored is there, and the next process continues.
#[tokio::test]
async fn a_killed_writer_leaves_only_whole_files() {
    const NAME: &str = "fs_disk::a_killed_writer_leaves_only_whole_files";
    if let Some(root) = child::folder() {
        let store = FsStore::open(&root).await.unwrap();
        for number in 0.. {
            let put = store.put(&key(&format!("c/{number:06}")), body(number)).await.unwrap();
            if put == Put::Created {
                // What the caller was told; a separate file for each, so that telling cannot be torn.
                std::fs::write(root.join(format!(".told-{number:06}")), b"").unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let store = FsStore::create(folder.path()).await.unwrap();
    for round in 1..=6 {
        let wanted = round * 7;
        let writer = child::of(NAME, folder.path());
        tokio::select! {
            ended = writer.run() => panic!("the writer ended by itself: {ended:?}"),
            () = until_told(folder.path(), wanted) => {}
        }
        let told: Vec<_> = all_names(folder.path())
            .iter()
            .filter_map(|name| Some(format!("c/{}", name.strip_prefix(".told-")?)))
            .collect();
        let listed = names(&store, "c").await;
        assert!(
            told.iter().all(|name| listed.contains(name)),
            "what was reported as stored is there"
        );
        assert!(listed.len() >= wanted, "{listed:?}");
        for (number, name) in listed.iter().enumerate() {
            assert_eq!(*name, format!("c/{number:06}"));
            let read = store.get(&key(name), 10 << 20).await.unwrap();
            assert!(read == body(number as u64), "{name} is whole");
        }
    }
    // The last one may still be dying, and holds its file until it is dead.
    let cleared = async {
        loop {
            store.remove_leftovers().await.unwrap();
            let left = all_names(&folder.path().join("c"));
            if !left.iter().any(|name| name.starts_with('.')) {
                return left;
            }
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(60), cleared)
        .await
        .expect("leftovers stay");
    assert_eq!(left.len(), names(&store, "c").await.len());
}

fn body(number: u64) -> Bytes {
    random_bytes(number, 1_500_000).into()
}

async fn until_told(root: &Path, count: usize) {
    while all_names(root).iter().filter(|name| name.starts_with(".told-")).count() < count {
        tokio::task::yield_now().await;
    }
}

fn all_names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
