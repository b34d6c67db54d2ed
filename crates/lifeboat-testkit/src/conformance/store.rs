//! The contract of [`BlobStore`], clause by clause. Each clause gets a fresh, empty store.
//!
//! Holds only what is true of every store; what is peculiar to one (a folder that cannot be read) is tested beside it.

use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::{ErrorKind, Result};
use lifeboat_store::{BlobStore, Entry, Key, Put};

use crate::pages::random_bytes;

type Store = Arc<dyn BlobStore>;

const NO_LIMIT: u64 = u64::MAX;

/// Runs every clause. `make` returns a new, empty store each time.
///
/// # Panics
/// Where the store breaks its contract; the message names the clause.
pub async fn run(make: impl AsyncFn() -> Store) {
    what_was_put_is_seen(make().await).await;
    a_second_put_of_the_same_is_already_there(make().await).await;
    a_put_onto_other_content_changes_nothing(make().await).await;
    ranges_are_exact(make().await).await;
    the_limit_is_exact(make().await).await;
    what_is_missing_is_not_found(make().await).await;
    a_folder_is_not_a_file(make().await).await;
    a_listing_is_whole_and_in_order(make().await).await;
    a_prefix_is_a_folder_and_not_a_beginning(make().await).await;
    every_legal_name_can_be_stored(make().await).await;
    deleting_is_final_and_repeatable(make().await).await;
    racing_puts_of_one_name_have_one_winner(make().await).await;
    racing_puts_of_the_same_content_all_succeed(make().await).await;
    nobody_sees_half_a_file(make().await).await;
    many_files_at_once_are_all_there(make().await).await;
}

fn key(name: &str) -> Key {
    let key = Key::new(name);
    assert!(key.is_ok(), "the suite uses a bad name: {name}");
    key.unwrap_or_else(|_| unreachable!("checked above"))
}

#[track_caller]
fn ok<T>(clause: &str, result: Result<T>) -> T {
    assert!(result.is_ok(), "{clause}: {:?}", result.err());
    result.unwrap_or_else(|_| unreachable!("checked above"))
}

#[track_caller]
fn fails<T>(clause: &str, result: Result<T>, kind: ErrorKind) {
    let found = result.err().map(|error| error.kind());
    assert_eq!(found, Some(kind), "{clause}");
}

async fn store(store: &Store, name: &str, body: &[u8]) {
    let put = ok("a put succeeds", store.put(&key(name), Bytes::copy_from_slice(body)).await);
    assert_eq!(put, Put::Created, "the first put of {name} creates it");
}

async fn names(store: &Store, prefix: &str) -> Vec<String> {
    let entries = ok("a listing succeeds", store.list(&key(prefix)).await);
    entries.into_iter().map(|entry| entry.key.as_str().to_owned()).collect()
}

async fn what_was_put_is_seen(tested: Store) {
    const CLAUSE: &str = "after a put returned, get, head and list see it";
    for (name, size) in [("c/a/empty", 0), ("c/a/one", 1), ("c/a/some", 70_001), ("c/a/large", 5 << 20)] {
        let body = random_bytes(size as u64, size);
        store(&tested, name, &body).await;
        assert!(ok(CLAUSE, tested.get(&key(name), NO_LIMIT).await) == body, "{CLAUSE}: {name}");
        let entry = ok(CLAUSE, tested.head(&key(name)).await);
        assert_eq!((entry.key.as_str(), entry.size_bytes), (name, size as u64), "{CLAUSE}");
        assert!(entry.stored_at_us > 0, "a stored file has a time");
        let listed = ok(CLAUSE, tested.list(&key("c/a")).await);
        assert!(listed.contains(&entry), "{CLAUSE}: {name} in {listed:?}");
    }
    store(&tested, "top.json", b"{}").await;
    assert!(ok(CLAUSE, tested.get(&key("top.json"), 2).await) == b"{}"[..], "{CLAUSE}");
}

async fn a_second_put_of_the_same_is_already_there(tested: Store) {
    const CLAUSE: &str = "a put of the same content onto an existing name is AlreadyThere and changes nothing";
    for size in [0, 3, 1 << 20] {
        let (name, body) = (key(&format!("c/f{size}")), Bytes::from(random_bytes(1, size)));
        store(&tested, name.as_str(), &body).await;
        let before = ok(CLAUSE, tested.head(&name).await);
        assert_eq!(
            ok(CLAUSE, tested.put(&name, body.clone()).await),
            Put::AlreadyThere,
            "{CLAUSE}"
        );
        assert_eq!(ok(CLAUSE, tested.head(&name).await), before, "{CLAUSE}");
        assert_eq!(
            ok(CLAUSE, tested.list(&key("c")).await)
                .iter()
                .filter(|entry| entry.key == name)
                .count(),
            1,
            "{CLAUSE}"
        );
    }
}

async fn a_put_onto_other_content_changes_nothing(tested: Store) {
    const CLAUSE: &str = "a put of other content onto an existing name is AlreadyExists and changes nothing";
    let (name, body) = (key("c/file"), random_bytes(1, 600_000));
    store(&tested, name.as_str(), &body).await;
    let mut last_byte_differs = body.clone();
    last_byte_differs[599_999] ^= 1;
    let mut longer = body.clone();
    longer.push(0);
    let others = [last_byte_differs, body[..599_999].to_vec(), longer, Vec::new()];
    for other in others {
        fails(CLAUSE, tested.put(&name, other.into()).await, ErrorKind::AlreadyExists);
        assert!(ok(CLAUSE, tested.get(&name, NO_LIMIT).await) == body, "{CLAUSE}");
    }
}

async fn ranges_are_exact(tested: Store) {
    const CLAUSE: &str = "get_range reads exactly the range";
    let (name, body) = (key("c/file"), random_bytes(1, 10_000));
    store(&tested, name.as_str(), &body).await;
    for (start, end) in [(0, 10_000), (0, 1), (9_999, 10_000), (1_234, 5_678), (0, 0), (10_000, 10_000)] {
        let read = ok(CLAUSE, tested.get_range(&name, start as u64..end as u64).await);
        assert!(read == body[start..end], "{CLAUSE}: {start}..{end}");
    }
    let beyond = "a file that ends before the range does is Corrupt";
    for range in [
        0..10_001,
        9_999..10_001,
        10_000..10_001,
        20_000..20_001,
        0..u64::MAX,
        10_001..10_001,
    ] {
        fails(beyond, tested.get_range(&name, range).await, ErrorKind::Corrupt);
    }
    let reversed = std::ops::Range { start: 5, end: 4 };
    fails(
        "a range that ends before it begins is a Bug",
        tested.get_range(&name, reversed).await,
        ErrorKind::Bug,
    );
}

async fn the_limit_is_exact(tested: Store) {
    const CLAUSE: &str = "a file longer than the limit is Corrupt";
    let name = key("c/file");
    store(&tested, name.as_str(), b"0123456789").await;
    assert_eq!(ok(CLAUSE, tested.get(&name, 10).await), b"0123456789"[..], "{CLAUSE}");
    fails(CLAUSE, tested.get(&name, 9).await, ErrorKind::Corrupt);
    fails(CLAUSE, tested.get(&name, 0).await, ErrorKind::Corrupt);
}

async fn what_is_missing_is_not_found(tested: Store) {
    const CLAUSE: &str = "a missing file is NotFound";
    store(&tested, "c/there", b"x").await;
    for name in ["c/missing", "missing", "missing/deep/inside", "c/ther", "c/there2"] {
        fails(CLAUSE, tested.get(&key(name), NO_LIMIT).await, ErrorKind::NotFound);
        fails(CLAUSE, tested.get_range(&key(name), 0..0).await, ErrorKind::NotFound);
        fails(CLAUSE, tested.head(&key(name)).await, ErrorKind::NotFound);
    }
    let empty = "a prefix nobody wrote to is empty";
    assert!(names(&tested, "missing").await.is_empty(), "{empty}");
    assert!(names(&tested, "c/missing/deep").await.is_empty(), "{empty}");
}

async fn a_folder_is_not_a_file(tested: Store) {
    const CLAUSE: &str = "a folder is not a file";
    store(&tested, "c/folder/file", b"x").await;
    for name in ["c", "c/folder"] {
        fails(CLAUSE, tested.get(&key(name), NO_LIMIT).await, ErrorKind::NotFound);
        fails(CLAUSE, tested.get_range(&key(name), 0..1).await, ErrorKind::NotFound);
        fails(CLAUSE, tested.head(&key(name)).await, ErrorKind::NotFound);
        ok("deleting a folder does nothing", tested.delete(&key(name)).await);
    }
    assert_eq!(names(&tested, "c").await, ["c/folder/file"], "deleting a folder does nothing");
}

async fn a_listing_is_whole_and_in_order(tested: Store) {
    const CLAUSE: &str = "a listing returns everything under the prefix, at any depth, in ascending order of name";
    let mut expected = vec![
        "c/A/x".to_owned(),
        "c/a-b".to_owned(),
        "c/a.b".to_owned(),
        "c/a/z".to_owned(),
        "c/a/b/c/d/e".to_owned(),
        "c/a_b".to_owned(),
        "c/a~b/y".to_owned(),
    ];
    expected.extend((0..300).map(|number| format!("c/many/{:03}", (number * 7) % 300)));
    for name in &expected {
        store(&tested, name, name.as_bytes()).await;
    }
    expected.sort_unstable();
    assert_eq!(names(&tested, "c").await, expected, "{CLAUSE}");
    let entries: Vec<Entry> = ok(CLAUSE, tested.list(&key("c")).await);
    for entry in entries {
        assert_eq!(entry.size_bytes, entry.key.as_str().len() as u64, "a listing tells sizes");
    }
    assert_eq!(names(&tested, "c/a").await, ["c/a/b/c/d/e", "c/a/z"], "{CLAUSE}");
}

async fn a_prefix_is_a_folder_and_not_a_beginning(tested: Store) {
    const CLAUSE: &str = "a prefix is a folder, not the beginning of a name";
    for name in ["c/ab/1", "c/abc/2", "c/ab.3", "ca/4"] {
        store(&tested, name, b"x").await;
    }
    assert_eq!(names(&tested, "c/ab").await, ["c/ab/1"], "{CLAUSE}");
    assert_eq!(names(&tested, "c").await, ["c/ab.3", "c/ab/1", "c/abc/2"], "{CLAUSE}");
    assert!(names(&tested, "c/a").await.is_empty(), "{CLAUSE}");
}

async fn every_legal_name_can_be_stored(tested: Store) {
    const CLAUSE: &str = "every legal name can be stored and told from every other";
    let long = "l".repeat(200);
    let all = [
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~",
        "upper/File",
        "upper/file",
        "tartware~2Fdb/-dash-first",
        "1/2/3/4/5/6/7/8/9/10/11/12",
        &long,
    ];
    for name in all {
        let name = format!("c/{name}");
        store(&tested, &name, name.as_bytes()).await;
    }
    for name in all {
        let name = format!("c/{name}");
        assert!(
            ok(CLAUSE, tested.get(&key(&name), 1000).await) == name.as_bytes(),
            "{CLAUSE}: {name}"
        );
    }
    assert_eq!(names(&tested, "c").await.len(), all.len(), "{CLAUSE}");
}

async fn deleting_is_final_and_repeatable(tested: Store) {
    const CLAUSE: &str = "delete removes, also when there is nothing to remove";
    let name = key("c/a/file");
    store(&tested, name.as_str(), b"first").await;
    store(&tested, "c/a/other", b"stays").await;
    for _ in 0..2 {
        ok(CLAUSE, tested.delete(&name).await);
        fails(CLAUSE, tested.get(&name, NO_LIMIT).await, ErrorKind::NotFound);
        fails(CLAUSE, tested.head(&name).await, ErrorKind::NotFound);
        assert_eq!(names(&tested, "c").await, ["c/a/other"], "{CLAUSE}");
    }
    ok(CLAUSE, tested.delete(&key("never/was/there")).await);
    store(&tested, name.as_str(), b"other content").await;
    assert_eq!(
        ok(CLAUSE, tested.get(&name, 100).await),
        b"other content"[..],
        "a deleted name can be put again"
    );
}

async fn racing_puts_of_one_name_have_one_winner(tested: Store) {
    const CLAUSE: &str = "of racing puts of different content one creates and all others are refused";
    if !tested.capabilities().conditional_put {
        return;
    }
    for round in 0..8 {
        let name = key(&format!("c/{round}"));
        let bodies: Vec<Bytes> = (0..6).map(|seed| random_bytes(seed, 100_000).into()).collect();
        let outcomes = put_all(&tested, bodies.iter().map(|body| (name.clone(), body.clone()))).await;
        let winners: Vec<usize> = (0..bodies.len())
            .filter(|number| matches!(outcomes[*number], Ok(Put::Created)))
            .collect();
        assert_eq!(winners.len(), 1, "{CLAUSE}: {outcomes:?}");
        for outcome in outcomes.into_iter().filter(|outcome| !matches!(outcome, Ok(Put::Created))) {
            fails(CLAUSE, outcome, ErrorKind::AlreadyExists);
        }
        assert!(
            ok(CLAUSE, tested.get(&name, NO_LIMIT).await) == bodies[winners[0]],
            "{CLAUSE}"
        );
    }
}

async fn racing_puts_of_the_same_content_all_succeed(tested: Store) {
    const CLAUSE: &str = "racing puts of the same content all succeed";
    let (name, body) = (key("c/file"), Bytes::from(random_bytes(1, 300_000)));
    let outcomes = put_all(&tested, (0..8).map(|_| (name.clone(), body.clone()))).await;
    let created = outcomes
        .into_iter()
        .filter(|outcome| matches!(outcome, Ok(Put::Created)))
        .count();
    if tested.capabilities().conditional_put {
        assert_eq!(created, 1, "{CLAUSE}, and one of them creates");
    }
    assert!(ok(CLAUSE, tested.get(&name, NO_LIMIT).await) == body, "{CLAUSE}");
    assert_eq!(names(&tested, "c").await, ["c/file"], "{CLAUSE}");
}

async fn nobody_sees_half_a_file(tested: Store) {
    const CLAUSE: &str = "a file is whole or absent, at every moment of a put";
    let (name, body) = (key("c/file"), Bytes::from(random_bytes(1, 6 << 20)));
    let mut putting = tokio::task::JoinSet::new();
    let (store, name_put, body_put) = (Arc::clone(&tested), name.clone(), body.clone());
    putting.spawn(async move { store.put(&name_put, body_put).await });
    let mut done = false;
    while !done {
        done = putting.is_empty();
        if let Some(ended) = putting.try_join_next() {
            assert!(matches!(ended, Ok(Ok(Put::Created))), "{CLAUSE}: {ended:?}");
        }
        for entry in ok(CLAUSE, tested.list(&key("c")).await) {
            assert_eq!(
                (entry.key.as_str(), entry.size_bytes),
                ("c/file", body.len() as u64),
                "{CLAUSE}"
            );
        }
        match tested.get(&name, NO_LIMIT).await {
            Ok(read) => assert!(read == body, "{CLAUSE}"),
            Err(error) => assert!(error.kind() == ErrorKind::NotFound && !done, "{CLAUSE}: {error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn many_files_at_once_are_all_there(tested: Store) {
    const CLAUSE: &str = "files that are put at the same time are all there";
    let name = |number: u64| key(&format!("c/{}/{number}", number % 5));
    let puts = (0..60).map(|number| (name(number), random_bytes(number, 1000).into()));
    for outcome in put_all(&tested, puts).await {
        assert_eq!(ok(CLAUSE, outcome), Put::Created, "{CLAUSE}");
    }
    for number in 0..60 {
        let read = ok(CLAUSE, tested.get(&name(number), NO_LIMIT).await);
        assert!(read == random_bytes(number, 1000), "{CLAUSE}: {number}");
    }
    assert_eq!(names(&tested, "c").await.len(), 60, "{CLAUSE}");
}

/// Puts all at the same time, each on a task of its own; outcomes in the order of `puts`.
async fn put_all(store: &Store, puts: impl Iterator<Item = (Key, Bytes)>) -> Vec<Result<Put>> {
    let mut running = tokio::task::JoinSet::new();
    for (number, (key, body)) in puts.enumerate() {
        let store = Arc::clone(store);
        running.spawn(async move { (number, store.put(&key, body).await) });
    }
    let mut outcomes = running.join_all().await;
    outcomes.sort_unstable_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}
