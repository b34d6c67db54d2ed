//! Where following goes on: from what is held, and from what the server says about itself. Pure.
//!
//! Coverage decides, never the slot (PG-04): its first hole that may still be filled, or its end. A server that is on another timeline is followed along that timeline's history; one that
//! is behind what is held is told, not followed.

use lifeboat_model::wal::{Coverage, History, Range, SegmentSize, Stretch};
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

/// What is known of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    /// What is held, in the stores or here.
    pub(crate) held: &'a Coverage,
    /// What is recorded as gone for good.
    pub(crate) gone: &'a Coverage,
    /// Holes that end here or before are not asked for: the server keeps nothing of them for us, and retention makes such.
    pub(crate) floor: Lsn,
}

/// Decides where to begin: `way` leads to the server's timeline, on which it is at `server`. At the first hole on the way that somebody may still
/// fill, or else at the end (PG-01, PG-08).
pub(crate) fn begin(about: Known<'_>, way: &History, server: Lsn, size: SegmentSize) -> Begin {
    let held = about.held;
    if let Some(newer) = held.timelines().next_back().filter(|newer| *newer > way.timeline()) {
        return Begin::Abandoned { newer };
    }
    if let Some(end) = held.end(way.timeline()).filter(|end| *end > server) {
        let held = Position::new(way.timeline(), end);
        return Begin::Behind { held };
    }
    let mut known = held.clone();
    known.unite(about.gone);
    let stretches: Vec<Stretch> = way.stretches().collect();
    let lowest = |stretch: &Stretch| {
        let first = size.align_down(stretch.begin);
        let ranges = known.ranges().filter(|range| range.timeline == stretch.timeline);
        let reaching = ranges.filter(|range| range.end > first && stretch.end.is_none_or(|end| range.start < end));
        reaching.map(|range| range.start.max(first)).min()
    };
    let mut begun = false;
    for (place, stretch) in stretches.iter().enumerate() {
        let Some(start) = (if begun { Some(stretch.begin) } else { lowest(stretch) }) else {
            continue;
        };
        let is_last_known = || stretches.iter().skip(place + 1).all(|later| lowest(later).is_none());
        if let Some(at) = first_hole(&known, stretch, start, about.floor, is_last_known) {
            let first = size.align_down(stretch.begin);
            let from = Position::new(stretch.timeline, aligned(at, size).max(first));
            // Nothing is held of it yet: from the segment in which it left its parent.
            return if begun && at == stretch.begin {
                let from = Position::new(stretch.timeline, first);
                Begin::At { from, held: from }
            } else {
                let held = Position::new(stretch.timeline, at);
                Begin::At { from, held }
            };
        }
        begun = true;
    }
    Begin::Fresh
}

/// The first position of a stretch, from `start` on, that is not known and may be asked for; none where it is known to its end.
fn first_hole(known: &Coverage, stretch: &Stretch, start: Lsn, floor: Lsn, is_last_known: impl Fn() -> bool) -> Option<Lsn> {
    let mut at = start;
    loop {
        let reached = known.end_from(stretch.timeline, at);
        if stretch.end.is_some_and(|end| reached >= end) {
            return None;
        }
        let behind = known.ranges().filter(|range| range.timeline == stretch.timeline);
        let next = behind.map(|range| range.start).filter(|start| *start > reached).min();
        let next = next.filter(|next| stretch.end.is_none_or(|end| *next < end));
        let closed = match (next, stretch.end) {
            (Some(next), _) => next,
            (None, Some(end)) if !is_last_known() => end,
            _ => return Some(reached),
        };
        if closed > floor {
            return Some(reached);
        }
        at = closed;
    }
}

/// The beginning of the segment; in segments that are larger than a block, of the block: what is before it was checked when it came.
pub(crate) fn aligned(lsn: Lsn, size: SegmentSize) -> Lsn {
    size.align_down(lsn).max(block_start(lsn))
}

/// What is missing between the end of what is held and where the server's log begins, along the way to its timeline, less what is held of it.
pub(crate) fn missing(coverage: &Coverage, held: Position, first: Lsn, way: &History) -> Vec<Range> {
    let mut ranges = Vec::new();
    let behind = way.stretches().skip_while(|stretch| stretch.timeline != held.timeline);
    for stretch in behind {
        let start = stretch.begin.max(held.lsn);
        let end = stretch.end.map_or(first, |end| end.min(first));
        ranges.extend(coverage.gaps(Range::new(stretch.timeline, start, end)));
    }
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

    static NOTHING: std::sync::LazyLock<Coverage> = std::sync::LazyLock::new(Coverage::new);

    fn known(held: &Coverage, floor: u64) -> Known<'_> {
        Known {
            held,
            gone: &NOTHING,
            floor: Lsn(floor),
        }
    }

    fn size() -> SegmentSize {
        SegmentSize::new(MIB).unwrap()
    }

    #[test]
    fn following_goes_on_at_the_segment_of_the_end_of_coverage() {
        let way = History::first();
        let decide = |held: &Coverage, server| begin(known(held, u64::MAX), &way, Lsn(server), size());
        assert_eq!(decide(&held(&[]), 9 * MIB), Begin::Fresh);
        let some = held(&[(1, 2 * MIB, 5 * MIB + 7)]);
        let (from, end) = (at(1, 5 * MIB), at(1, 5 * MIB + 7));
        assert_eq!(decide(&some, 9 * MIB), Begin::At { from, held: end });
        assert_eq!(decide(&some, 5 * MIB + 7), Begin::At { from, held: end });
        assert_eq!(decide(&some, 5 * MIB + 6), Begin::Behind { held: end });
        // A hole that ends before what anybody keeps for us changes nothing: retention made it.
        let gap = held(&[(1, 0, MIB), (1, 3 * MIB, 4 * MIB)]);
        let end = at(1, 4 * MIB);
        assert_eq!(decide(&gap, 9 * MIB), Begin::At { from: end, held: end });
    }

    #[test]
    fn a_promotion_is_followed_along_its_history() {
        let way = History::parse(tli(5), &format!("1\t{}\tx\n2\t{}\tx\n", Lsn(3 * MIB + 9), Lsn(6 * MIB + 8))).unwrap();
        let decide = |held: &Coverage| begin(known(held, u64::MAX), &way, Lsn(9 * MIB), size());
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

    /// A backup without a follower, a torn spool, files that were pushed ahead: what lies before them is asked for as long as somebody keeps it.
    #[test]
    fn following_goes_on_at_the_first_hole_that_can_be_filled() {
        let way = History::first();
        let some = held(&[(1, MIB, 2 * MIB), (1, 3 * MIB, 4 * MIB + 9), (1, 6 * MIB, 7 * MIB)]);
        let at_hole = |lsn| Begin::At {
            from: at(1, size().align_down(Lsn(lsn)).0),
            held: at(1, lsn),
        };
        let decide = |floor, gone: &Coverage| {
            let about = Known {
                gone,
                ..known(&some, floor)
            };
            begin(about, &way, Lsn(9 * MIB), size())
        };
        assert_eq!(decide(0, &NOTHING), at_hole(2 * MIB));
        assert_eq!(decide(3 * MIB - 1, &NOTHING), at_hole(2 * MIB), "its last byte is kept");
        assert_eq!(decide(3 * MIB, &NOTHING), at_hole(4 * MIB + 9));
        assert_eq!(decide(6 * MIB, &NOTHING), at_hole(7 * MIB));
        // What is recorded as gone is not asked for; what is left beside it is.
        assert_eq!(decide(0, &held(&[(1, 2 * MIB, 3 * MIB)])), at_hole(4 * MIB + 9));
        assert_eq!(
            decide(0, &held(&[(1, 2 * MIB, 3 * MIB), (1, 4 * MIB + 9, 5 * MIB)])),
            at_hole(5 * MIB)
        );
        assert_eq!(
            decide(0, &held(&[(1, 2 * MIB, 3 * MIB), (1, 4 * MIB + 9, 8 * MIB)])),
            at_hole(8 * MIB)
        );
        assert_eq!(
            begin(known(&some, 0), &way, Lsn(7 * MIB - 1), size()),
            Begin::Behind { held: at(1, 7 * MIB) }
        );
    }

    /// A backup after a failover holds log of the new timeline; the rest of the old one comes first.
    #[test]
    fn the_rest_of_a_timeline_is_not_left_out_because_the_next_is_held() {
        let way = History::parse(tli(2), &format!("1\t{}\tx\n", Lsn(5 * MIB + 9))).unwrap();
        let some = held(&[(1, MIB, 2 * MIB + 7), (2, 7 * MIB, 8 * MIB)]);
        let decide = |floor| begin(known(&some, floor), &way, Lsn(9 * MIB), size());
        let rest = Begin::At {
            from: at(1, 2 * MIB),
            held: at(1, 2 * MIB + 7),
        };
        assert_eq!(decide(2 * MIB), rest);
        assert_eq!(decide(5 * MIB), rest);
        // The beginning of the new one, then its end.
        let from = at(2, 5 * MIB);
        assert_eq!(decide(6 * MIB), Begin::At { from, held: from });
        let from = at(2, 8 * MIB);
        assert_eq!(decide(7 * MIB), Begin::At { from, held: from });
        // With nothing behind it, the slot says nothing: only the server's answer does.
        let alone = held(&[(1, MIB, 2 * MIB + 7)]);
        assert_eq!(begin(known(&alone, u64::MAX), &way, Lsn(9 * MIB), size()), rest);
    }

    #[test]
    fn what_is_missing_is_told_by_timeline() {
        let way = History::parse(tli(2), &format!("1\t{}\tx\n", Lsn(3 * MIB + 9))).unwrap();
        let both = [
            Range::new(tli(1), Lsn(2 * MIB), Lsn(3 * MIB + 9)),
            Range::new(tli(2), Lsn(3 * MIB + 9), Lsn(5 * MIB)),
        ];
        assert_eq!(missing(&NOTHING, at(1, 2 * MIB), Lsn(5 * MIB), &way), both);
        assert_eq!(
            missing(&NOTHING, at(1, 2 * MIB), Lsn(3 * MIB), &way),
            [Range::new(tli(1), Lsn(2 * MIB), Lsn(3 * MIB))]
        );
        assert_eq!(
            missing(&NOTHING, at(2, 4 * MIB), Lsn(5 * MIB), &way),
            [Range::new(tli(2), Lsn(4 * MIB), Lsn(5 * MIB))]
        );
        assert!(missing(&NOTHING, at(2, 6 * MIB), Lsn(5 * MIB), &way).is_empty());
        let some = held(&[(1, 2 * MIB + 5, 3 * MIB), (2, 4 * MIB, 6 * MIB)]);
        assert_eq!(
            missing(&some, at(1, 2 * MIB), Lsn(5 * MIB), &way),
            [
                Range::new(tli(1), Lsn(2 * MIB), Lsn(2 * MIB + 5)),
                Range::new(tli(1), Lsn(3 * MIB), Lsn(3 * MIB + 9)),
                Range::new(tli(2), Lsn(3 * MIB + 9), Lsn(4 * MIB)),
            ]
        );
    }

    #[test]
    fn large_segments_begin_at_a_block() {
        let large = SegmentSize::new(64 * MIB).unwrap();
        assert_eq!(aligned(Lsn(100 * MIB), large), Lsn(96 * MIB));
        assert_eq!(aligned(Lsn(100 * MIB + 5), size()), Lsn(100 * MIB));
    }
}
