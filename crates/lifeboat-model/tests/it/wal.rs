//! The log: names, histories, coverage (PG-04), what can be reached (PG-01), what may go (PG-12).

mod needed;
mod recovery;

use std::collections::BTreeSet;

use lifeboat_model::wal::{Coverage, Fork, History, LogFile, Range, SegmentSize};
use lifeboat_model::{ErrorKind, Lsn, Position, Timeline};
use proptest::prelude::*;

pub(crate) fn tli(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

fn size_mib(mib: u64) -> SegmentSize {
    SegmentSize::new(mib << 20).unwrap()
}

#[test]
fn segments_are_named_as_the_server_names_them() {
    // Names and positions as pg_walfile_name and pg_split_walfile_name of 15 give them.
    let usual = SegmentSize::USUAL;
    for (name, size, timeline, start) in [
        ("000000010000000000000001", usual, 1, "0/1000000"),
        ("0000000A000000160000002D", usual, 10, "16/2D000000"),
        ("0000000100000001000000FF", usual, 1, "1/FF000000"),
        ("000000010000000100000FFF", size_mib(1), 1, "1/FFF00000"),
        ("000000020000000100000003", size_mib(1024), 2, "1/C0000000"),
        ("FFFFFFFFFFFFFFFF000000FF", usual, u32::MAX, "FFFFFFFF/FF000000"),
    ] {
        let start: Lsn = start.parse().unwrap();
        let file = LogFile::Segment {
            timeline: tli(timeline),
            number: size.number_of(start),
        };
        assert_eq!(LogFile::parse(name, size), Some(file), "{name}");
        assert_eq!(file.name(size).as_deref(), Some(name));
        assert_eq!(size.start_of(size.number_of(start)), start);
    }
    let others = [
        ("00000002.history", LogFile::History { timeline: tli(2) }),
        (
            "000000020000000000000003.partial",
            LogFile::Partial {
                timeline: tli(2),
                number: 3,
            },
        ),
        (
            "000000010000000000000002.00000028.backup",
            LogFile::Backup {
                timeline: tli(1),
                start: Lsn(0x200_0028),
            },
        ),
    ];
    for (name, file) in others {
        assert_eq!(LogFile::parse(name, usual), Some(file), "{name}");
        assert_eq!(file.name(usual).as_deref(), Some(name));
    }
}

#[test]
fn names_that_the_server_does_not_write_are_refused() {
    for name in [
        "",
        "00000001000000000000000",
        "0000000100000000000000011",
        "00000001000000000000000a",
        "000000000000000000000001",
        // In a segment of 16 MiB the last part ends at FF.
        "000000010000000000000100",
        "00000001000000000000+001",
        "000000010000000000000001.",
        "000000010000000000000001.gz",
        "000000010000000000000001.partial.gz",
        "000000010000000000000001.00000028",
        "000000010000000000000001.28.backup",
        "000000010000000000000001.01000000.backup",
        "00000000.history",
        "2.history",
        "00000002.History",
        "00000002.history.tmp",
        "../0000002.history",
        "ä0000001000000000000000",
    ] {
        assert_eq!(LogFile::parse(name, SegmentSize::USUAL), None, "{name:?}");
    }
    for bytes in [0, 1, 1 << 19, (16 << 20) + 1, 3 << 20, 1 << 31, u64::MAX] {
        assert_eq!(SegmentSize::new(bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{bytes}");
    }
}

#[test]
fn a_history_reads_as_the_server_reads_it() {
    let text =
        "# a comment\n\n1\t0/3000148\tno recovery target specified\n\n 2 0/50000A0 before 2000-01-01 01:00:00+00\n5\t0/50000A0\n";
    let history = History::parse(tli(9), text).unwrap();
    let fork = |timeline, at| Fork {
        timeline: tli(timeline),
        at: Lsn(at),
    };
    assert_eq!(
        history.forks(),
        [fork(1, 0x300_0148), fork(2, 0x500_00a0), fork(5, 0x500_00a0)]
    );
    assert_eq!(history.timeline_at(Lsn(0x300_0147)), tli(1));
    assert_eq!(history.timeline_at(Lsn(0x300_0148)), tli(2));
    assert_eq!(history.timeline_at(Lsn(0x500_00a0)), tli(9));
    for (timeline, lsn, passes) in [
        (1, 0x300_0148, true),
        (1, 0x300_0149, false),
        (2, 0x300_0148, true),
        (2, 0x300_0147, false),
        (5, 0x500_00a0, true),
        (5, 0x500_00a1, false),
        (9, 0x500_00a0, true),
        (9, 0x900_0000, true),
        (9, 0x500_0000, false),
        (3, 0x400_0000, false),
    ] {
        let position = Position::new(tli(timeline), Lsn(lsn));
        assert_eq!(history.passes(position), passes, "{position}");
    }
    for (timeline, text) in [
        (2, ""),
        (2, "# nothing\n"),
        (2, "2\t0/1\tself"),
        (2, "3\t0/1\tlater"),
        (4, "2\t0/1\n2\t0/2"),
        (4, "2\t0/2\n1\t0/3"),
        (4, "1\t0/2\n2\t0/1\tleft before it began"),
        (4, "1"),
        (4, "1\tzero"),
        (4, "one\t0/1"),
        (4, "0\t0/1"),
        (1, "1\t0/1"),
    ] {
        assert_eq!(
            History::parse(tli(timeline), text).unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{text:?}"
        );
    }
}

/// A coverage and the same as single bytes.
fn built(steps: &[(bool, u64, u64)]) -> (Coverage, BTreeSet<u64>) {
    let (mut coverage, mut bytes) = (Coverage::new(), BTreeSet::new());
    for (adds, start, length) in steps {
        let range = Range::new(Timeline::FIRST, Lsn(*start), Lsn(start + length));
        if *adds {
            coverage.add(range);
            bytes.extend(*start..start + length);
        } else {
            coverage.remove(range);
            bytes.retain(|byte| !(*start..start + length).contains(byte));
        }
    }
    (coverage, bytes)
}

proptest! {
    /// PG-04: what was added and not taken away is held, and nothing else is.
    #[test]
    fn coverage_is_the_set_of_its_bytes(
        steps in prop::collection::vec((prop::bool::weighted(0.7), 0_u64..40, 0_u64..12), 0..20),
        start in 0_u64..50,
        length in 0_u64..20,
    ) {
        let (coverage, bytes) = built(&steps);
        let asked = Range::new(Timeline::FIRST, Lsn(start), Lsn(start + length));
        prop_assert_eq!(coverage.holds(asked), (start..start + length).all(|byte| bytes.contains(&byte)));
        let end = (start..).find(|byte| !bytes.contains(byte)).unwrap();
        prop_assert_eq!(coverage.end_from(Timeline::FIRST, Lsn(start)), Lsn(end));
        prop_assert_eq!(coverage.end(Timeline::FIRST), bytes.last().map(|last| Lsn(last + 1)));
        let missing: BTreeSet<u64> = coverage.gaps(asked).iter().flat_map(|gap| gap.start.0..gap.end.0).collect();
        let wanted: BTreeSet<u64> = (start..start + length).filter(|byte| !bytes.contains(byte)).collect();
        prop_assert_eq!(missing, wanted);
        // Ranges are apart: one that touches another would hide a gap of nothing.
        let ranges: Vec<Range> = coverage.ranges().collect();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        prop_assert!(ranges.iter().all(|range| !range.is_empty()));
        let (other, more) = built(&[(true, start, length)]);
        let mut united = coverage.clone();
        united.unite(&other);
        let all: BTreeSet<u64> = bytes.union(&more).copied().collect();
        let held: BTreeSet<u64> = united.ranges().flat_map(|range| range.start.0..range.end.0).collect();
        prop_assert_eq!(held, all);
        // Another timeline has nothing to do with it.
        prop_assert!(!coverage.holds(Range::new(Timeline::new(2).unwrap(), Lsn(start), Lsn(start + 1))));
    }

    #[test]
    fn every_name_reads_back(timeline in 1_u32.., lsn: u64, exponent in 0_u32..=10) {
        let size = size_mib(1 << exponent);
        let (timeline, number) = (Timeline::new(timeline).unwrap(), size.number_of(Lsn(lsn)));
        let files = [
            LogFile::Segment { timeline, number },
            LogFile::Partial { timeline, number },
            LogFile::History { timeline },
            LogFile::Backup { timeline, start: Lsn(lsn) },
        ];
        for file in files {
            prop_assert_eq!(LogFile::parse(&file.name(size).unwrap(), size), Some(file));
        }
        prop_assert!(size.start_of(number) <= Lsn(lsn) && Lsn(lsn).since(size.start_of(number)) < size.bytes());
        prop_assert_eq!(size.align_down(Lsn(lsn)), size.start_of(number));
        prop_assert_eq!(size.align_down(Lsn(lsn)).plus(size.offset_of(Lsn(lsn))), Lsn(lsn));
    }
}
