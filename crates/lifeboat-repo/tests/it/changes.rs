//! Files told as what changed since the last backup: what is restored is the file as it is, and no byte of it was read from a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use lifeboat_io::flow::PageChanges;
use lifeboat_model::Result;
use lifeboat_repo::{Committed, Writer};
use lifeboat_testkit::pages::{MemoryPages, random_pages};

use super::world::{Content, Dice, Files, World, meta, seed};

const PAGE: usize = 8192;

/// The pages of `now` that are not those of `before`, and some that are: a server tells more than it must.
#[derive(Debug)]
struct Changes {
    now: Vec<u8>,
    kept: u64,
    told: std::vec::IntoIter<u64>,
}

impl Changes {
    fn between(before: &[u8], now: &[u8], kept: u64, dice: &mut Dice) -> Self {
        let zeros = [0; PAGE];
        let told: Vec<u64> = (0_u64..)
            .zip(now.chunks(PAGE))
            .filter(|(number, page)| {
                let at = usize::try_from(*number).unwrap() * PAGE;
                let old = before.get(at..at + PAGE).filter(|_| *number < kept).unwrap_or(&zeros);
                old != *page || dice.roll(40) == 0
            })
            .map(|(number, _)| number)
            .collect();
        Self {
            now: now.to_vec(),
            kept,
            told: told.into_iter(),
        }
    }
}

impl PageChanges for Changes {
    fn page_size(&self) -> u32 {
        8192
    }

    fn size_bytes(&self) -> u64 {
        self.now.len() as u64
    }

    fn kept_pages(&self) -> u64 {
        self.kept
    }

    fn next_page(&mut self, page: &mut Vec<u8>) -> Result<Option<u64>> {
        let next = self.told.next();
        if let Some(number) = next {
            let at = usize::try_from(number).unwrap() * PAGE;
            page.clear();
            page.extend_from_slice(&self.now[at..at + PAGE]);
        }
        Ok(next)
    }
}

type Sources = BTreeMap<String, Vec<u8>>;

/// How a backup was told.
#[derive(Default, Debug)]
struct Told {
    as_changes: usize,
    whole: usize,
    /// Sessions that had to be given up because a file turned out to be unknown.
    given_up: usize,
}

async fn put_whole(writer: &mut Writer, path: &str, now: &[u8]) {
    let source = Arc::new(MemoryPages::new(now.to_vec(), 8192));
    writer.put_pages(meta(path), source).await.unwrap();
}

/// One backup as an engine makes it: what cannot be told as changes comes whole, in a second session if need be.
async fn backup(
    world: &World,
    before: &Sources,
    now: &Sources,
    kept: &BTreeMap<String, u64>,
    dice: &mut Dice,
) -> (Committed, Told) {
    let mut told = Told::default();
    let mut whole: Vec<String> = Vec::new();
    loop {
        let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        let takers = writer.expect_changes(8192).unwrap();
        (told.as_changes, told.whole) = (0, 0);
        for (path, bytes) in now {
            if let Some(old) = before.get(path).filter(|_| takers.contains(path) && !whole.contains(path)) {
                told.as_changes += 1;
                let changes = Changes::between(old, bytes, kept[path], dice);
                writer.put_changes(meta(path), Box::new(changes)).await.unwrap();
            } else {
                told.whole += 1;
                put_whole(&mut writer, path, bytes).await;
            }
        }
        if writer.unknown().is_empty() {
            return (writer.commit(1, serde_json::json!({})).await.unwrap(), told);
        }
        whole.extend(writer.unknown().iter().cloned());
        writer.commit(1, serde_json::json!({})).await.unwrap_err();
        told.given_up += 1;
        assert!(told.given_up < 5);
    }
}

fn as_files(sources: &Sources) -> Files {
    let files = sources.iter();
    files
        .map(|(path, bytes)| (path.clone(), Content::Pages(bytes.clone(), 8192)))
        .collect()
}

/// A file lives for a while: pages change, it grows, it is cut; returns how many pages the cut left.
fn live(bytes: &mut Vec<u8>, dice: &mut Dice) -> u64 {
    let mut kept = bytes.len() / PAGE;
    if dice.roll(4) == 0 {
        kept = dice.index(kept + 1);
        bytes.truncate(kept * PAGE);
    }
    if dice.roll(3) == 0 {
        let more = dice.index(30);
        // Some of what is new has not been written to yet.
        let grown = if dice.roll(3) == 0 {
            vec![0; more * PAGE]
        } else {
            random_pages(dice.roll(1 << 40), 8192, more)
        };
        bytes.extend_from_slice(&grown);
    }
    let (pages, changed) = (bytes.len() / PAGE, dice.index(8));
    for _ in 0..changed.min(pages) {
        let first = dice.index(pages);
        let count = (1 + dice.index(12)).min(pages - first);
        let new = random_pages(dice.roll(1 << 40), 8192, count);
        bytes[first * PAGE..(first + count) * PAGE].copy_from_slice(&new);
    }
    kept as u64
}

#[tokio::test]
async fn files_told_as_changes_are_restored_as_they_are() {
    let rounds = if super::world::soak() { 400 } else { 40 };
    let world = World::new(seed()).await;
    let mut dice = Dice::new(seed() + 17);
    let mut now: Sources = [("a", 3), ("b", 16), ("c", 40), ("d", 200), ("e", 0), ("f", 33)]
        .into_iter()
        .map(|(path, pages)| (path.to_owned(), random_pages(dice.roll(1 << 40), 8192, pages)))
        .collect();
    // A gigabyte that was never written to is not stored.
    now.insert("z".into(), vec![0; 50 * PAGE]);
    let mut before = Sources::new();
    let mut kept = BTreeMap::new();
    let mut all = Told::default();
    for round in 0..rounds {
        let (committed, told) = backup(&world, &before, &now, &kept, &mut dice).await;
        world.assert_holds(&committed.backup, &as_files(&now)).await;
        all.as_changes += told.as_changes;
        all.whole += told.whole;
        all.given_up += told.given_up;
        before.clone_from(&now);
        kept.clear();
        for (path, bytes) in &mut now {
            kept.insert(path.clone(), live(bytes, &mut dice));
        }
        // One goes and one comes.
        if round % 7 == 3 {
            now.remove("c");
        } else if !now.contains_key("c") {
            now.insert("c".into(), random_pages(round, 8192, 20));
        }
    }
    eprintln!("{all:?}");
    assert!(all.as_changes > all.whole, "{all:?}");
}

/// What a database does all day: it grows at its end and changes here and there. Nothing of that has to come whole.
#[tokio::test]
async fn a_file_that_grows_never_comes_whole_before_its_overlays_are_full() {
    let world = World::new(seed() + 1).await;
    let mut dice = Dice::new(seed());
    let mut now = Sources::from([("t".to_owned(), random_pages(1, 8192, 70))]);
    let mut before = Sources::new();
    let mut kept = BTreeMap::from([("t".to_owned(), 70)]);
    for round in 0..7 {
        let (committed, told) = backup(&world, &before, &now, &kept, &mut dice).await;
        assert_eq!((told.given_up, told.whole), (0, usize::from(round == 0)), "round {round}");
        world.assert_holds(&committed.backup, &as_files(&now)).await;
        if round > 0 {
            assert!(committed.stats.read_bytes <= 20 * PAGE as u64, "{:?}", committed.stats);
            assert!(committed.stats.stored_bytes < 25 * PAGE as u64, "{:?}", committed.stats);
        }
        before.clone_from(&now);
        let bytes = now.get_mut("t").unwrap();
        kept.insert("t".to_owned(), (bytes.len() / PAGE) as u64);
        let last = bytes.len() / PAGE - 1;
        bytes[last * PAGE..].copy_from_slice(&random_pages(100 + round, 8192, 1));
        bytes.extend_from_slice(&random_pages(200 + round, 8192, 5));
        bytes[3 * PAGE..4 * PAGE].copy_from_slice(&random_pages(300 + round, 8192, 1));
    }
}

/// A page out of its place, or too few bytes, is no backup; a file that the parent does not have cannot be told as changes.
#[tokio::test]
async fn changes_that_make_no_sense_are_refused() {
    #[derive(Debug)]
    struct Bad(u64, std::vec::IntoIter<u64>);
    impl PageChanges for Bad {
        fn page_size(&self) -> u32 {
            8192
        }
        fn size_bytes(&self) -> u64 {
            self.0
        }
        fn kept_pages(&self) -> u64 {
            u64::MAX
        }
        fn next_page(&mut self, page: &mut Vec<u8>) -> Result<Option<u64>> {
            page.resize(PAGE, 7);
            Ok(self.1.next())
        }
    }
    let world = World::new(seed() + 2).await;
    let files = Files::from([("t".to_owned(), Content::Pages(random_pages(1, 8192, 20), 8192))]);
    world.backup(&files).await;
    for told in [vec![3, 3], vec![4, 2], vec![20]] {
        let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        writer.expect_changes(8192).unwrap();
        let bad = Bad(20 * PAGE as u64, told.into_iter());
        writer.put_changes(meta("t"), Box::new(bad)).await.unwrap_err();
        writer.commit(1, serde_json::json!({})).await.unwrap_err();
    }
    let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
    let nobody = Bad(20 * PAGE as u64, vec![3].into_iter());
    assert!(writer.put_changes(meta("unknown"), Box::new(nobody)).await.unwrap().is_none());
    assert_eq!(writer.unknown(), ["unknown"]);
    writer.commit(1, serde_json::json!({})).await.unwrap_err();
}
