//! Files that are used again: what they held is never read, however a crash leaves them.

use super::*;

const BLOCK: u64 = 16 * MIB;

fn spares(folder: &Path) -> usize {
    let names = folder.read_dir().unwrap().map(|found| found.unwrap().file_name());
    names.filter(|name| Spares::is_one(name.to_str().unwrap())).count()
}

/// Takes that log in records of that size, and makes it durable.
fn fill(spool: &mut Spool, all: Range, step: usize) {
    let mut from = all.start.0;
    while from < all.end.0 {
        let length = step.min(usize::try_from(all.end.0 - from).unwrap());
        spool.append(at(from), &bytes(from, length)).unwrap();
        from += length as u64;
    }
    spool.sync().unwrap();
}

fn held(spool: &Spool) -> Vec<Range> {
    spool.coverage().ranges().collect()
}

#[test]
fn files_of_blocks_are_used_again_and_nothing_of_before_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    for (block, step) in [(0, 200_000), (1, 9_000), (2, 1 << 20), (3, 70_000)] {
        fill(&mut spool, range(block * BLOCK, (block + 1) * BLOCK), step);
    }
    fill(&mut spool, range(4 * BLOCK, 4 * BLOCK + 100), 100);
    // Two are kept.
    spool.give_up(range(0, 3 * BLOCK)).unwrap();
    assert_eq!(
        (spares(folder.path()), held(&spool)),
        (2, vec![range(3 * BLOCK, 4 * BLOCK + 100)])
    );
    assert!(spool.bytes() < 20 * MIB, "{}", spool.bytes());
    // What is short is not.
    fill(&mut spool, range(6 * BLOCK, 6 * BLOCK + 100), 100);
    spool.give_up(range(6 * BLOCK, 7 * BLOCK)).unwrap();
    assert_eq!(
        spares(folder.path()),
        2,
        "one was used, and went back, for it is as long as it was"
    );
    let end = 6 * BLOCK + 5000;
    fill(&mut spool, range(4 * BLOCK + 100, end), 30_000);
    assert_eq!(spares(folder.path()), 0);
    for _ in 0..2 {
        assert_eq!(held(&spool), [range(3 * BLOCK, end)]);
        for block in 3..7 {
            let part = range(block * BLOCK, end.min((block + 1) * BLOCK));
            assert!(
                read(&spool, part) == bytes(part.start.0, usize::try_from(part.bytes()).unwrap()),
                "{part}"
            );
        }
        assert!(spool.look_through().unwrap().is_empty());
        drop(spool);
        spool = Spool::open(folder.path()).unwrap();
        assert!(spool.take_damaged().is_empty());
    }
    // One goes on where it was, in a file with room of before.
    fill(&mut spool, range(end, end + 700), 70);
    assert_eq!(read(&spool, range(6 * BLOCK, end + 700)), bytes(6 * BLOCK, 5700));
    // None that somebody reads: they would see other log.
    let reading = spool.reading(range(3 * BLOCK, 4 * BLOCK)).unwrap();
    spool.give_up(range(3 * BLOCK, 4 * BLOCK)).unwrap();
    assert_eq!(spares(folder.path()), 0);
    fill(&mut spool, range(8 * BLOCK, 8 * BLOCK + 100), 100);
    assert!(reading.read().unwrap() == bytes(3 * BLOCK, usize::try_from(BLOCK).unwrap()));
    spool.give_up(range(4 * BLOCK, 5 * BLOCK)).unwrap();
    assert_eq!(spares(folder.path()), 1);
    // They go at the end, and what a killed process has left goes at the next start.
    drop(spool);
    assert_eq!(spares(folder.path()), 0);
    overwrite(&folder.path().join("spare-00000001-0000000000000000"), b"left");
    let mut spool = Spool::open(folder.path()).unwrap();
    assert_eq!((spares(folder.path()), spool.take_damaged().len()), (0, 0));
}

/// The beginning of a file that was used before, as it is on the disk after each of two writes. The first is durable.
fn used_again(first: usize, second: usize) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    fill(&mut spool, range(0, BLOCK), 777);
    spool.give_up(range(0, BLOCK)).unwrap();
    let path = folder.path().join("00000001-0000000001000000");
    spool.append(at(BLOCK), &bytes(BLOCK, first)).unwrap();
    spool.sync().unwrap();
    assert_eq!(spares(folder.path()), 0);
    let cut = |mut image: Vec<u8>| {
        assert!(image.len() as u64 > BLOCK);
        image.truncate(16 << 10);
        image
    };
    let durable = cut(std::fs::read(&path).unwrap());
    spool
        .append(at(BLOCK + first as u64), &bytes(BLOCK + first as u64, second))
        .unwrap();
    (durable, cut(std::fs::read(&path).unwrap()))
}

/// PG-02: any part of the last write may have come to the disk, the beginning or the end, and what was there before shows through.
#[test]
fn a_torn_end_shows_nothing_of_before() {
    // Where the second head lies: within a page, at its end, and across two.
    for (first, second) in [(500, 200), (4000, 200), (4032, 300), (4046, 300), (4064, 5000)] {
        let (durable, written) = used_again(first, second);
        assert_eq!(durable[..first + 32], written[..first + 32]);
        assert!(
            durable[first + 32..].iter().skip(32).any(|byte| *byte != 0),
            "nothing of before is left"
        );
        let (from, until) = (first + 20, first + second + 80);
        for cut in (from..until).filter(|cut| *cut < from + 100 || *cut > until - 100 || cut % 61 == 0) {
            for is_end in [false, true] {
                let (one, other) = if is_end { (&durable, &written) } else { (&written, &durable) };
                let image = [&one[..cut], &other[cut..]].concat();
                let folder = tempfile::tempdir().unwrap();
                overwrite(&folder.path().join("00000001-0000000001000000"), &image);
                let mut spool = Spool::open(folder.path()).unwrap();
                let whole = image[..first + second + 64] == written[..first + second + 64];
                let end = BLOCK + (if whole { first + second } else { first }) as u64;
                assert_eq!(held(&spool), [range(BLOCK, end)], "{first} {second} {cut} {is_end}");
                assert!(spool.take_damaged().is_empty(), "{first} {second} {cut} {is_end}");
                spool.append(at(end), &bytes(end, 150)).unwrap();
                spool.sync().unwrap();
                drop(spool);
                let spool = Spool::open(folder.path()).unwrap();
                let all = range(BLOCK, end + 150);
                assert_eq!(read(&spool, all), bytes(BLOCK, usize::try_from(all.bytes()).unwrap()));
            }
        }
    }
}

/// The name came to the disk, and nothing that was written under it.
#[test]
fn a_file_with_the_log_of_before_alone_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    fill(&mut spool, range(0, BLOCK), 50_000);
    fill(&mut spool, range(BLOCK, BLOCK + 300), 100);
    let old = std::fs::read(folder.path().join("00000001-0000000000000000")).unwrap();
    drop(spool);
    overwrite(&folder.path().join("00000001-0000000002000000"), &old);
    let mut spool = Spool::open(folder.path()).unwrap();
    assert_eq!((held(&spool), spool.take_damaged().len()), (vec![range(0, BLOCK + 300)], 0));
    assert!(!folder.path().join("00000001-0000000002000000").try_exists().unwrap());
}

/// Damage is seen in them as in others: a bit, and a page of zeros, which is no end where sound records follow.
#[test]
fn damage_in_a_file_that_is_used_again_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    fill(&mut spool, range(0, BLOCK), 777);
    spool.give_up(range(0, BLOCK)).unwrap();
    fill(&mut spool, range(BLOCK, BLOCK + 10 * 4064), 4064);
    drop(spool);
    let path = folder.path().join("00000001-0000000001000000");
    let whole = std::fs::read(&path).unwrap();
    for zeros in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000001-0000000001000000");
        let mut bad = whole.clone();
        if zeros {
            bad[3 * 4096..4 * 4096].fill(0);
        } else {
            bad[3 * 4096 + 90] ^= 8;
        }
        overwrite(&path, &bad);
        let mut spool = Spool::open(folder.path()).unwrap();
        let hole = range(BLOCK + 3 * 4064, BLOCK + 4 * 4064);
        assert_eq!(spool.coverage().gaps(range(BLOCK, BLOCK + 10 * 4064)), [hole], "{zeros}");
        assert_eq!((spool.take_damaged().len(), aside(folder.path())), (1, 1), "{zeros}");
        spool.append(at(hole.start.0), &bytes(hole.start.0, 4064)).unwrap();
        spool.sync().unwrap();
        drop(spool);
        let mut spool = Spool::open(folder.path()).unwrap();
        assert_eq!(
            (held(&spool), spool.take_damaged().len()),
            (vec![range(BLOCK, BLOCK + 10 * 4064)], 0)
        );
    }
}
