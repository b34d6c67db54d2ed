//! The spool by itself, over real files.

mod spares;

use super::*;

const MIB: u64 = 1 << 20;

fn bytes(from: u64, length: usize) -> Vec<u8> {
    (from..)
        .take(length)
        .map(|at| u8::try_from(((at * 7) >> 3) % 251).unwrap())
        .collect()
}

fn at(lsn: u64) -> Position {
    Position::new(Timeline::FIRST, Lsn(lsn))
}

fn range(start: u64, end: u64) -> Range {
    Range::new(Timeline::FIRST, Lsn(start), Lsn(end))
}

fn read(spool: &Spool, range: Range) -> Vec<u8> {
    spool.reading(range).unwrap().read().unwrap()
}

#[test]
fn what_was_synced_is_held_and_nothing_else_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    let start = 16 * MIB - 100;
    spool.append(at(start), &bytes(start, 300)).unwrap();
    assert!(spool.coverage().is_empty(), "it was not synced");
    spool.sync().unwrap();
    assert_eq!(
        spool.ranges().collect::<Vec<_>>(),
        [range(start, 16 * MIB), range(16 * MIB, 16 * MIB + 200)]
    );
    // The same again, in other parts, and on from there.
    spool.append(at(start + 50), &bytes(start + 50, 400)).unwrap();
    spool.sync().unwrap();
    assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(start, start + 450)]);
    assert_eq!(read(&spool, range(start + 120, start + 400)), bytes(start + 120, 280));
    assert_eq!(
        spool.reading(range(start, start + 451)).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    drop(spool);
    let mut spool = Spool::open(folder.path()).unwrap();
    assert_eq!(read(&spool, range(16 * MIB, start + 450)), bytes(16 * MIB, 350));
    // Other bytes (PG-06), and what came with them, are not taken.
    let mut other = bytes(start + 440, 30);
    other[3] ^= 1;
    let error = spool.append(at(start + 440), &other).unwrap_err();
    assert!(is_conflict(&error), "{error}");
    spool.sync().unwrap();
    assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(start, start + 450)]);
    // Whole stretches inside the range go, others stay.
    spool.give_up(range(start, 16 * MIB + 1)).unwrap();
    assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(16 * MIB, start + 450)]);
    // Behind a hole a stretch of its own begins, and what fills the hole joins them.
    spool.append(at(16 * MIB + 1000), &bytes(16 * MIB + 1000, 100)).unwrap();
    spool.append(at(16 * MIB + 300), &bytes(16 * MIB + 300, 750)).unwrap();
    spool.sync().unwrap();
    assert_eq!(
        spool.coverage().ranges().collect::<Vec<_>>(),
        [range(16 * MIB, 16 * MIB + 1100)]
    );
}

/// PG-02: whatever a crash leaves of the last writes, everything before them is there, and nothing that was not written.
#[test]
fn a_torn_end_is_cut_wherever_it_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    spool.append(at(0), &bytes(0, 500)).unwrap();
    spool.sync().unwrap();
    let path = folder.path().join("00000001-0000000000000000");
    spool.append(at(500), &bytes(500, 200)).unwrap();
    drop(spool);
    let file = std::fs::read(&path).unwrap();
    // Two records, each behind its head, and room.
    let (durable, written) = (532, 764);
    let (whole, room) = file.split_at(written);
    assert!(room.len() > 1000 && room.iter().all(|byte| *byte == 0));
    for length in durable..=written {
        // Cut there, or zeros from there on, as a file system leaves them.
        for size in [length, written, file.len()] {
            let mut torn = whole[..length].to_vec();
            torn.resize(size, 0);
            #[expect(clippy::disallowed_methods, reason = "a test tears a file")]
            std::fs::write(&path, &torn).unwrap();
            let mut spool = Spool::open(folder.path()).unwrap();
            let end = if torn.starts_with(whole) { 700 } else { 500 };
            assert_eq!(spool.coverage().ranges().collect::<Vec<_>>(), [range(0, end)], "{length}");
            spool.append(at(end), &bytes(end, 10)).unwrap();
            spool.sync().unwrap();
            assert_eq!(read(&spool, range(0, end + 10)), bytes(0, usize::try_from(end).unwrap() + 10));
        }
    }
}

/// Small records are followed by room, which is no damage and counts as disk that is taken.
#[test]
fn room_is_made_for_small_records_and_is_not_taken_for_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000001-0000000000000000");
    let mut spool = Spool::open(folder.path()).unwrap();
    spool.append(at(0), &bytes(0, 100)).unwrap();
    spool.sync().unwrap();
    assert_eq!((spool.bytes(), path.metadata().unwrap().len()), (MIB, MIB));
    drop(spool);
    let mut spool = Spool::open(folder.path()).unwrap();
    assert!(spool.take_damaged().is_empty());
    assert_eq!((spool.bytes(), read(&spool, range(0, 100))), (MIB, bytes(0, 100)));
    spool.append(at(100), &bytes(100, 1000)).unwrap();
    spool.sync().unwrap();
    assert_eq!(path.metadata().unwrap().len(), MIB, "it went where room was");
    // What is long needs none; what comes last in the block leaves it behind.
    let long = usize::try_from(3 * MIB).unwrap();
    spool.append(at(1100), &bytes(1100, long)).unwrap();
    let nearly = 16 * MIB - 10;
    let rest = usize::try_from(nearly - 1100 - 3 * MIB).unwrap();
    spool.append(at(1100 + 3 * MIB), &bytes(1100 + 3 * MIB, rest)).unwrap();
    spool.append(at(nearly), &bytes(nearly, 5)).unwrap();
    spool.sync().unwrap();
    spool.append(at(nearly + 5), &bytes(nearly + 5, 5)).unwrap();
    spool.sync().unwrap();
    let stretch = &spool.stretches[&(Timeline::FIRST, Lsn(0))];
    assert!(stretch.length < stretch.size && stretch.size <= 17 * MIB, "{stretch:?}");
    assert_eq!(path.metadata().unwrap().len(), stretch.size);
    drop(spool);
    // One that is followed by others may end with room as well: where a timeline ends, for example.
    let mut spool = Spool::open(folder.path()).unwrap();
    spool.append(at(32 * MIB), &bytes(0, 10)).unwrap();
    spool.append(at(64 * MIB), &bytes(0, 10)).unwrap();
    spool.sync().unwrap();
    drop(spool);
    let mut spool = Spool::open(folder.path()).unwrap();
    assert!(spool.take_damaged().is_empty() && spool.look_through().unwrap().is_empty());
    assert_eq!(read(&spool, range(0, 16 * MIB)), bytes(0, usize::try_from(16 * MIB).unwrap()));
    assert!(spool.give_up(range(0, 16 * MIB)).unwrap() > 16 * MIB);
    assert_eq!(spool.give_up(range(32 * MIB, 33 * MIB)).unwrap(), MIB);
    assert_eq!(spool.bytes(), MIB);
}

#[test]
fn a_history_is_kept_and_no_other_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    let two = Timeline::new(2).unwrap();
    spool.put_history(two, b"1\t0/3000000\tx\n").unwrap();
    spool.put_history(two, b"1\t0/3000000\tx\n").unwrap();
    assert!(is_conflict(&spool.put_history(two, b"1\t0/4000000\tx\n").unwrap_err()));
    let mut spool = Spool::open(folder.path()).unwrap();
    assert_eq!(spool.histories().len(), 1);
    spool.give_up_history(two).unwrap();
    assert!(Spool::open(folder.path()).unwrap().histories().is_empty());
}

#[expect(clippy::disallowed_methods, reason = "a test damages a file")]
fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

fn aside(folder: &Path) -> usize {
    let names = folder.read_dir().unwrap().map(|found| found.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with(DAMAGED)).count()
}

/// One bit in a record that was acknowledged: everything else is held, and nothing is thrown away.
#[test]
fn damage_is_kept_aside_and_costs_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    for part in 0..5 {
        spool.append(at(part * 100), &bytes(part * 100, 100)).unwrap();
        spool.sync().unwrap();
    }
    let path = folder.path().join("00000001-0000000000000000");
    let whole = std::fs::read(&path).unwrap();
    drop(spool);
    for damaged in 0..5_u64 {
        let mut bad = whole.clone();
        bad[usize::try_from(damaged).unwrap() * 132 + 60] ^= 4;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000001-0000000000000000");
        overwrite(&path, &bad);
        // A newer one stands: nothing is a torn end.
        overwrite(
            &folder.path().join("00000001-0000000001000000"),
            &super::record::encode(Timeline::FIRST, Lsn(16 * MIB), &bytes(16 * MIB, 50), 0),
        );
        for round in 0..2 {
            let mut spool = Spool::open(folder.path()).unwrap();
            let hole = range(damaged * 100, damaged * 100 + 100);
            assert_eq!(spool.coverage().gaps(range(0, 500)), [hole], "{damaged}");
            assert!(spool.coverage().holds(range(16 * MIB, 16 * MIB + 50)));
            assert_eq!(spool.take_damaged().len(), usize::from(round == 0), "{damaged}");
            assert_eq!(aside(folder.path()), 1);
            if round == 1 {
                spool.append(at(hole.start.0), &bytes(hole.start.0, 100)).unwrap();
                spool.sync().unwrap();
                let held: Vec<Vec<u8>> = spool
                    .ranges()
                    .filter(|range| range.end <= Lsn(500))
                    .map(|range| read(&spool, range))
                    .collect();
                assert_eq!(held.concat(), bytes(0, 500), "{damaged}");
            }
        }
    }
}

/// As they were written before: whoever comes from there goes on behind them.
#[test]
fn records_with_blake3_are_read() {
    fn before(start: u64, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        let hashed = [
            &1_u32.to_le_bytes()[..],
            &start.to_le_bytes(),
            &u64::from(length).to_le_bytes(),
            bytes,
        ]
        .concat();
        let head = [&b"LBSR"[..], &length.to_le_bytes(), &start.to_le_bytes()].concat();
        [&head[..], &blake3::hash(&hashed).as_bytes()[..16], bytes].concat()
    }
    let records: Vec<Vec<u8>> = (0..5).map(|part| before(part * 100, &bytes(part * 100, 100))).collect();
    let name = "00000001-0000000000000000";
    let folder = tempfile::tempdir().unwrap();
    overwrite(&folder.path().join(name), &records.concat());
    let mut spool = Spool::open(folder.path()).unwrap();
    assert_eq!((read(&spool, range(0, 500)), spool.take_damaged().len()), (bytes(0, 500), 0));
    spool.append(at(500), &bytes(500, 300)).unwrap();
    spool.sync().unwrap();
    drop(spool);
    let spool = Spool::open(folder.path()).unwrap();
    assert_eq!(read(&spool, range(0, 800)), bytes(0, 800));
    drop(spool);
    // Torn, and damaged in the middle, as those of today.
    let whole = records.concat();
    for length in 528..660 {
        let folder = tempfile::tempdir().unwrap();
        overwrite(&folder.path().join(name), &whole[..length]);
        let mut spool = Spool::open(folder.path()).unwrap();
        assert_eq!((read(&spool, range(0, 400)), spool.take_damaged().len()), (bytes(0, 400), 0));
        assert!(!spool.coverage().holds(range(0, 401)));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut bad = whole;
    bad[132 + 60] ^= 4;
    overwrite(&folder.path().join(name), &bad);
    let mut spool = Spool::open(folder.path()).unwrap();
    assert_eq!(spool.coverage().gaps(range(0, 500)), [range(100, 200)]);
    assert_eq!((spool.take_damaged().len(), aside(folder.path())), (1, 1));
}

/// Log that a newer program wrote was acknowledged: whoever goes back to this one does not lose it, though only the newer one can read it.
#[test]
fn records_of_another_sort_are_kept_aside() {
    for (sound, magic) in [(0, *b"LBSY"), (3, *b"LBSY"), (3, *b"\0\0\0Y")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("00000001-0000000000000000");
        let mut spool = Spool::open(folder.path()).unwrap();
        for part in 0..5 {
            spool.append(at(part * 100), &bytes(part * 100, 100)).unwrap();
        }
        spool.sync().unwrap();
        drop(spool);
        let mut other = std::fs::read(&path).unwrap();
        for record in other.chunks_mut(132).take(5).skip(sound) {
            record[..4].copy_from_slice(&magic);
        }
        overwrite(&path, &other);
        let mut spool = Spool::open(folder.path()).unwrap();
        let held = sound as u64 * 100;
        assert_eq!(spool.coverage().gaps(range(0, 500)), [range(held, 500)]);
        let said = spool.take_damaged();
        assert!(said.len() == 1 && said[0].contains("a newer Lifeboat"), "{said:?}");
        let name = folder.path().join(format!("{DAMAGED}00000001-0000000000000000-1"));
        assert_eq!(std::fs::read(&name).unwrap(), other, "as the newer one left it");
        // What the server still has comes again.
        spool.append(at(held), &bytes(held, 500 - sound * 100)).unwrap();
        spool.sync().unwrap();
        drop(spool);
        let mut spool = Spool::open(folder.path()).unwrap();
        assert!(spool.take_damaged().is_empty());
        assert_eq!((read(&spool, range(0, 500)), aside(folder.path())), (bytes(0, 500), 1));
    }
}

/// A bit that flips while the spool is open is no other history of the source (PG-06), and is never put into a store.
#[test]
fn damage_is_seen_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(folder.path()).unwrap();
    for part in 0..3 {
        spool.append(at(part * 100), &bytes(part * 100, 100)).unwrap();
    }
    spool.sync().unwrap();
    let path = folder.path().join("00000001-0000000000000000");
    let mut bad = std::fs::read(&path).unwrap();
    bad[132 + 60] ^= 1;
    overwrite(&path, &bad);
    assert!(is_damage(&spool.reading(range(0, 300)).unwrap().read().unwrap_err()));
    let error = spool.append(at(150), &bytes(150, 10)).unwrap_err();
    assert!(is_damage(&error) && !is_conflict(&error), "{error}");
    let found = spool.look_through().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        spool.coverage().ranges().collect::<Vec<_>>(),
        [range(0, 100), range(200, 300)]
    );
    assert_eq!(aside(folder.path()), 1);
    assert!(spool.look_through().unwrap().is_empty());
}

/// PG-02: a file whose name is not durable does not count, however well its content is.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test takes a folder away")]
fn nothing_counts_before_the_folder_is_durable() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("spool");
    let mut spool = Spool::open(&folder).unwrap();
    spool.append(at(16 * MIB - 100), &bytes(16 * MIB - 100, 100)).unwrap();
    spool.sync().unwrap();
    // Both the old stretch and a new one are written to; then the folder cannot be made durable.
    spool.append(at(16 * MIB), &bytes(16 * MIB, 100)).unwrap();
    std::fs::rename(&folder, outer.path().join("elsewhere")).unwrap();
    spool.sync().unwrap_err();
    std::fs::rename(outer.path().join("elsewhere"), &folder).unwrap();
    assert_eq!(
        spool.coverage().ranges().collect::<Vec<_>>(),
        [range(16 * MIB - 100, 16 * MIB)]
    );
    spool.append(at(16 * MIB), &bytes(16 * MIB, 200)).unwrap();
    spool.sync().unwrap();
    assert_eq!(read(&spool, range(16 * MIB, 16 * MIB + 200)), bytes(16 * MIB, 200));
}
