//! Where following goes on: from what is held, and from what the server says about itself. Pure.
//!
//! The end of coverage decides, never the slot (PG-04). The slot only says which end: what it still keeps, nobody else has where a backup of a
//! later time brought its own log meanwhile, and that hole is filled first. A server that is on another timeline is followed along that
//! timeline's history; one that is behind what is held is told, not followed.

use lifeboat_model::wal::{Coverage, History, Range, SegmentSize};
use lifeboat_model::{Lsn, Position, Timeline};
use lifeboat_repo::block_start;

/// What to do with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Nothing on the way to it is held: where its slot begins.
    Fresh,
    /// Ask it for log from here on.
    At {
        /// The beginning of a segment or, in larger segments, of a block.
        from: Position,
        /// The end of what is held there; `from` where nothing is.
        held: Position,
    },
    /// It is on our timeline, and behind what is held.
    Behind {
        /// The end of what is held.
        held: Position,
    },
    /// It is on a timeline that was left, and a newer one is held.
    Abandoned {
        /// The newest timeline that is held.
        newer: Timeline,
    },
}

/// Decides where to begin: `way` leads to the server's timeline, on which it is at `server`. From `slot` on our slot keeps its log.
pub(crate) fn begin(held: &Coverage, way: &History, server: Lsn, slot: Lsn, size: SegmentSize) -> Begin {
    if let Some(newer) = held.timelines().next_back().filter(|newer| *newer > way.timeline()) {
        return Begin::Abandoned { newer };
    }
    if let Some(end) = held.end(way.timeline()).filter(|end| *end > server) {
        return Begin::Behind {
            held: Position::new(way.timeline(), end),
        };
    }
    let stretches: Vec<_> = way.stretches().collect();
    for (place, stretch) in stretches.iter().enumerate().rev() {
        let first = size.align_down(stretch.begin);
        // What begins behind the slot was brought by somebody else, with a hole before it.
        let ours = |range: &Range| range.timeline == stretch.timeline && range.start <= slot;
        let ends = held.ranges().filter(ours);
        let reaching = ends.filter(|range| range.end > first && stretch.end.is_none_or(|end| range.start < end));
        let Some(end) = reaching.map(|range| range.end).max() else {
            continue;
        };
        if let (Some(left), Some(next)) = (stretch.end, stretches.get(place + 1))
            && end >= left
        {
            let from = Position::new(next.timeline, size.align_down(left));
            return Begin::At { from, held: from };
        }
        let held = Position::new(stretch.timeline, end);
        let from = Position::new(stretch.timeline, aligned(end, size));
        return Begin::At { from, held };
    }
    Begin::Fresh
}

/// The beginning of the segment; in segments that are larger than a block, of the block: what is before it was checked when it came.
pub(crate) fn aligned(lsn: Lsn, size: SegmentSize) -> Lsn {
    size.align_down(lsn).max(block_start(lsn))
}

/// What is missing between the end of what is held and where the server's log begins, along the way to its timeline.
pub(crate) fn missing(held: Position, first: Lsn, way: &History) -> Vec<Range> {
    let mut ranges = Vec::new();
    let behind = way.stretches().skip_while(|stretch| stretch.timeline != held.timeline);
    for stretch in behind {
        let start = stretch.begin.max(held.lsn);
        let end = stretch.end.map_or(first, |end| end.min(first));
        ranges.push(Range::new(stretch.timeline, start, end));
    }
    ranges.retain(|range| !range.is_empty());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tli(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn held(ranges: &[(u32, u64, u64)]) -> Coverage {
        let mut coverage = Coverage::new();
        for (timeline, start, end) in ranges {
            coverage.add(Range::new(tli(*timeline), Lsn(*start), Lsn(*end)));
        }
        coverage
    }

    fn at(timeline: u32, lsn: u64) -> Position {
        Position::new(tli(timeline), Lsn(lsn))
    }

    fn size() -> SegmentSize {
        SegmentSize::new(MIB).unwrap()
    }

    #[test]
    fn following_goes_on_at_the_segment_of_the_end_of_coverage() {
        let way = History::first();
        let decide = |held: &Coverage, server| begin(held, &way, Lsn(server), Lsn(server), size());
        assert_eq!(decide(&held(&[]), 9 * MIB), Begin::Fresh);
        let some = held(&[(1, 2 * MIB, 5 * MIB + 7)]);
        let (from, end) = (at(1, 5 * MIB), at(1, 5 * MIB + 7));
        assert_eq!(decide(&some, 9 * MIB), Begin::At { from, held: end });
        assert_eq!(decide(&some, 5 * MIB + 7), Begin::At { from, held: end });
        assert_eq!(decide(&some, 5 * MIB + 6), Begin::Behind { held: end });
        // A gap before the end changes nothing: it is recorded, or was there before us.
        let gap = held(&[(1, 0, MIB), (1, 3 * MIB, 4 * MIB)]);
        let end = at(1, 4 * MIB);
        assert_eq!(decide(&gap, 9 * MIB), Begin::At { from: end, held: end });
    }

    #[test]
    fn the_hole_in_front_of_what_a_backup_brought_is_filled() {
        let way = History::first();
        let decide = |held: &Coverage, slot| begin(held, &way, Lsn(9 * MIB), Lsn(slot), size());
        let hole = held(&[(1, MIB, 3 * MIB + 5), (1, 6 * MIB, 8 * MIB)]);
        let end = at(1, 3 * MIB + 5);
        let fill = Begin::At {
            from: at(1, 3 * MIB),
            held: end,
        };
        for slot in [2 * MIB, 3 * MIB + 5, 5 * MIB] {
            assert_eq!(decide(&hole, slot), fill);
        }
        // Nobody keeps it any more.
        let end = at(1, 8 * MIB);
        for slot in [6 * MIB, 7 * MIB, 9 * MIB] {
            assert_eq!(decide(&hole, slot), Begin::At { from: end, held: end });
        }
        // Nothing of ours is held, only what a backup brought.
        assert_eq!(decide(&held(&[(1, 6 * MIB, 8 * MIB)]), 2 * MIB), Begin::Fresh);
        // A server that was set back is not asked to fill anything.
        let end = at(1, 8 * MIB);
        assert_eq!(
            begin(&hole, &way, Lsn(7 * MIB), Lsn(2 * MIB), size()),
            Begin::Behind { held: end }
        );
        // Beyond a promotion: the rest of the old timeline comes first.
        let way = History::parse(tli(2), &format!("1\t{}\tx\n", Lsn(5 * MIB + 9))).unwrap();
        let hole = held(&[(1, MIB, 3 * MIB + 5), (2, 6 * MIB, 8 * MIB)]);
        assert_eq!(begin(&hole, &way, Lsn(9 * MIB), Lsn(3 * MIB), size()), fill);
    }

    #[test]
    fn a_promotion_is_followed_along_its_history() {
        let way = History::parse(tli(5), &format!("1\t{}\tx\n2\t{}\tx\n", Lsn(3 * MIB + 9), Lsn(6 * MIB + 8))).unwrap();
        let decide = |held: &Coverage| begin(held, &way, Lsn(9 * MIB), Lsn(9 * MIB), size());
        // Behind on the first: its rest comes first.
        let end = at(1, 2 * MIB + 5);
        assert_eq!(
            decide(&held(&[(1, MIB, 2 * MIB + 5)])),
            Begin::At {
                from: at(1, 2 * MIB),
                held: end
            }
        );
        // To its end, or beyond it: the one that left it, from the segment in which it did.
        for end in [3 * MIB + 9, 5 * MIB] {
            let from = at(2, 3 * MIB);
            assert_eq!(decide(&held(&[(1, MIB, end)])), Begin::At { from, held: from });
        }
        let from = at(5, 6 * MIB);
        assert_eq!(
            decide(&held(&[(1, MIB, 4 * MIB), (2, 3 * MIB, 7 * MIB)])),
            Begin::At { from, held: from }
        );
        let end = at(5, 7 * MIB + 1);
        assert_eq!(
            decide(&held(&[(1, MIB, 4 * MIB), (5, 6 * MIB, 7 * MIB + 1)])),
            Begin::At {
                from: at(5, 7 * MIB),
                held: end
            }
        );
        // A sibling that is held says nothing; one that is newer means that this server was left behind.
        assert_eq!(decide(&held(&[(3, MIB, 4 * MIB)])), Begin::Fresh);
        assert_eq!(
            decide(&held(&[(6, MIB, 4 * MIB), (1, MIB, 2 * MIB)])),
            Begin::Abandoned { newer: tli(6) }
        );
    }

    #[test]
    fn what_is_missing_is_told_by_timeline() {
        let way = History::parse(tli(2), &format!("1\t{}\tx\n", Lsn(3 * MIB + 9))).unwrap();
        let both = [
            Range::new(tli(1), Lsn(2 * MIB), Lsn(3 * MIB + 9)),
            Range::new(tli(2), Lsn(3 * MIB + 9), Lsn(5 * MIB)),
        ];
        assert_eq!(missing(at(1, 2 * MIB), Lsn(5 * MIB), &way), both);
        assert_eq!(
            missing(at(1, 2 * MIB), Lsn(3 * MIB), &way),
            [Range::new(tli(1), Lsn(2 * MIB), Lsn(3 * MIB))]
        );
        assert_eq!(
            missing(at(2, 4 * MIB), Lsn(5 * MIB), &way),
            [Range::new(tli(2), Lsn(4 * MIB), Lsn(5 * MIB))]
        );
        assert!(missing(at(2, 6 * MIB), Lsn(5 * MIB), &way).is_empty());
    }

    #[test]
    fn large_segments_begin_at_a_block() {
        let large = SegmentSize::new(64 * MIB).unwrap();
        assert_eq!(aligned(Lsn(100 * MIB), large), Lsn(96 * MIB));
        assert_eq!(aligned(Lsn(100 * MIB + 5), size()), Lsn(100 * MIB));
    }
}
