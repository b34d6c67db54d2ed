//! A database that changes in every way between backups: each backup equals the source as it was, also after many later ones.

use lifeboat_testkit::pages::{change_pages, random_bytes, table_pages};

use crate::world::{Content, Dice, Files, World, seed, soak};

const EXTENT: u64 = 131_072;

/// One change of one file.
fn change(files: &mut Files, dice: &mut Dice, page_size: u32, round: u64) {
    let path = format!("db{}", dice.roll(3));
    let page = u64::from(page_size);
    let Some(Content::Pages(bytes, _)) = files.get_mut(&path) else {
        let count = dice.index(200) * 8;
        files.insert(path, Content::Pages(table_pages(round, page_size, count), page_size));
        return;
    };
    let size = bytes.len();
    let pages_now = size as u64 / page;
    match dice.roll(12) {
        // The usual: some pages here and there.
        0..=4 => drop(change_pages(bytes, page_size, round, 1 + dice.index(30))),
        5 => drop(change_pages(bytes, page_size, round, usize::try_from(pages_now / 2).unwrap())),
        6 => bytes.truncate(usize::try_from(dice.roll(pages_now + 1) * page).unwrap()),
        7 => bytes.extend(random_bytes(round, usize::try_from(dice.roll(600) * page).unwrap())),
        // Shrinks inside its last extent.
        8 => bytes.truncate(size - usize::try_from((size as u64 % EXTENT / page).min(1 + dice.roll(5)) * page).unwrap()),
        // A page or an extent becomes zero.
        9 if size > 0 => {
            let length = if dice.roll(2) == 0 { page } else { EXTENT };
            let from = usize::try_from(dice.roll(size as u64) / length * length).unwrap();
            let to = size.min(from + usize::try_from(length).unwrap());
            bytes[from..to].fill(0);
        }
        10 => drop(files.remove(&path)),
        _ => {
            // Dropped and made again under the same name.
            let count = dice.index(900);
            files.insert(path, Content::Pages(table_pages(round + 1000, page_size, count), page_size));
        }
    }
}

async fn torture(page_size: u32, rounds: u64) {
    let world = World::new(seed()).await;
    let mut dice = Dice::new(seed() + u64::from(page_size));
    let mut files = Files::new();
    let mut history = Vec::new();
    let mut incremental = 0;
    for round in 0..rounds {
        for _ in 0..=dice.roll(3) {
            change(&mut files, &mut dice, page_size, seed() * 100_000 + round * 7);
        }
        let log = random_bytes(round / 2, 200_000 + usize::try_from(round).unwrap() * 10_000);
        files.insert("log".into(), Content::Stream(log));
        let committed = world.backup(&files).await;
        incremental += u64::from(committed.backup.header.parent.is_some());
        assert!(committed.backup.closure.packs.iter().all(|pack| pack.size_bytes <= 40 << 20));
        world.assert_holds(&committed.backup, &files).await;
        history.push((committed.backup, files.clone()));
        // And one of the older ones.
        let (backup, source) = &history[dice.index(history.len())];
        world.assert_holds(backup, source).await;
    }
    assert_eq!(incremental, rounds - 1);
    for (backup, source) in &history {
        world.assert_holds(backup, source).await;
        world.open(backup).await.unwrap().verify().await.unwrap();
    }
    assert_eq!(world.listing().await.backups.len(), history.len());
    eprintln!(
        "overlay_torture: {rounds} rounds with pages of {page_size} bytes, seed {}",
        seed()
    );
}

#[tokio::test]
async fn inv_06_overlay_torture_4096() {
    torture(4096, if soak() { 60 } else { 16 }).await;
}

#[tokio::test]
async fn overlay_torture_8192() {
    torture(8192, if soak() { 60 } else { 9 }).await;
}

#[tokio::test]
async fn overlay_torture_1024() {
    torture(1024, if soak() { 60 } else { 9 }).await;
}

#[tokio::test]
async fn overlay_torture_512_has_no_overlays() {
    torture(512, if soak() { 60 } else { 5 }).await;
}

#[tokio::test]
async fn overlay_torture_65536() {
    torture(65536, if soak() { 60 } else { 5 }).await;
}

/// One page changes each time: the ninth overlay makes the extent whole again, and a restore never reads more than eight groups.
#[tokio::test]
async fn overlays_end_after_eight() {
    let world = World::new(seed()).await;
    let mut bytes = random_bytes(1, 4 * 131_072);
    let mut stored = Vec::new();
    for round in 0..12_usize {
        bytes[round * 8192] ^= 1;
        let files = crate::world::pages("db", bytes.clone(), 8192);
        let committed = world.backup(&files).await;
        world.assert_holds(&committed.backup, &files).await;
        stored.push(committed.stats.changed_bytes);
    }
    assert_eq!(stored[0], 4 * 131_072);
    assert!(stored[1..9].iter().all(|bytes| *bytes == 8192), "{stored:?}");
    assert_eq!(stored[9], 131_072, "{stored:?}");
    assert!(stored[10..].iter().all(|bytes| *bytes == 8192), "{stored:?}");
}
