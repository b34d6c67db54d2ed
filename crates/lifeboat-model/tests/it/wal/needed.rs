//! PG-12: what a recovery window needs, and which log goes, compared with a reader that knows single half-segments and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::wal::{Base, Coverage, HeldLog, History, Keep, KeptBase, Needed, Needs, Range, WindowBase, needed};
use lifeboat_model::{Lsn, Timeline};
use proptest::prelude::*;

use super::recovery::{STEP, at, base, covering, fork, reaches, size, time};
use super::tli;

fn held_log(coverage: &Coverage, late_s: i64) -> HeldLog {
    let ends = coverage.timelines().map(|timeline| {
        let end = coverage.end(timeline).unwrap();
        (timeline, time(end.0 / STEP) + late_s * 1_000_000)
    });
    HeldLog {
        size: size(),
        coverage: coverage.clone(),
        stored_us: ends.collect(),
    }
}

fn window_base(base: &Base, late_s: i64, clean: bool) -> WindowBase {
    WindowBase {
        timeline: base.timeline,
        start: base.start,
        end: base.end,
        at_us: base.end_us + late_s * 1_000_000,
        clean,
    }
}

fn plain(timeline: u32, start: u64, end: u64) -> WindowBase {
    window_base(&base("", timeline, start, end), 0, true)
}

/// Which of these a window from this step on needs.
fn of(log: &[(u32, u64, u64)], bases: &[WindowBase], from: u64) -> Vec<(usize, Needed)> {
    needed(&held_log(&covering(log), 0), bases, time(from), true)
        .into_iter()
        .collect()
}

#[test]
fn the_newest_base_in_front_of_the_window_is_needed_and_those_in_it_are_not() {
    let bases = [plain(1, 0, 2), plain(1, 6, 8), plain(1, 12, 14), plain(1, 20, 22)];
    let log = [(1, 0, 40)];
    assert_eq!(of(&log, &bases, 10), [(1, Needed::Begins)]);
    assert_eq!(of(&log, &bases, 9), [(1, Needed::Begins)]);
    // A moment at which a base ended is reached from an older one only.
    assert_eq!(of(&log, &bases, 8), [(0, Needed::Begins)]);
    assert_eq!(of(&log, &bases, 1), [(0, Needed::Continues)]);
    assert_eq!(of(&log, &bases, 100), [(3, Needed::Begins)], "nothing was written for long");
    // Log is missing in the window: the first base behind it is needed, too, and the one in front for what lies before the gap.
    let gap = [(1, 0, 16), (1, 18, 40)];
    assert_eq!(of(&gap, &bases, 10), [(1, Needed::Begins), (3, Needed::Continues)]);
    // In front of the window a gap means nothing.
    assert_eq!(of(&[(1, 0, 9), (1, 12, 40)], &bases, 18), [(2, Needed::Begins)]);
    // PG-11: a base with bad pages takes nobody's place.
    let mut dirty = bases;
    dirty[2].clean = false;
    assert_eq!(of(&log, &dirty, 18), [(1, Needed::Begins), (2, Needed::Begins)]);
    dirty[0].clean = false;
    assert_eq!(
        of(&log, &dirty[..1], 18),
        [(0, Needed::Begins)],
        "something is better than nothing"
    );
}

#[test]
fn another_timeline_is_reached_from_the_base_in_front_of_where_it_left() {
    let bases = [plain(1, 0, 2), plain(1, 4, 6), plain(1, 14, 16)];
    // Timeline 2 left at 9, and the first was followed on to 20.
    let log = [(1, 0, 20), (2, 8, 30)];
    assert_eq!(of(&log, &bases, 18), [(1, Needed::Begins), (2, Needed::Begins)]);
    // Once timeline 2 has a base in front of the window, it needs none of the first.
    let more = [bases[0], bases[1], bases[2], plain(2, 20, 22)];
    assert_eq!(of(&log, &more, 26), [(3, Needed::Begins)]);
    assert_eq!(
        of(&log, &more, 18),
        [(1, Needed::Begins), (2, Needed::Begins), (3, Needed::Continues)]
    );
}

#[test]
fn an_old_lineage_is_needed_for_as_long_as_the_window_reaches_into_it() {
    let bases = [plain(1, 0, 2), plain(1, 6, 8)];
    let log = held_log(&covering(&[(1, 0, 20)]), 0);
    let needed = |from| needed(&log, &bases, time(from), false).len();
    assert_eq!((needed(15), needed(20), needed(21)), (1, 1, 0));
}

/// A standby to which nothing comes: its backups are of one position. What is needed stays needed when the rest has gone.
#[test]
fn backups_of_one_position_do_not_take_each_other_away() {
    let log = held_log(&covering(&[(1, 0, 8)]), 0);
    let at = |at: u64| WindowBase {
        at_us: time(at),
        ..plain(1, 8, 8)
    };
    let bases = [at(9), at(11)];
    let first = needed(&log, &bases, time(10), false);
    let rest: Vec<WindowBase> = first.keys().map(|place| bases[*place]).collect();
    assert!(rest.iter().any(|base| base.at_us == time(11)), "{first:?}");
    assert_eq!(needed(&log, &rest, time(10), false).len(), first.len());
    // Nor while the window moves on, past when log was last stored.
    let stored = held_log(&covering(&[(1, 0, 8)]), 2);
    let rest: Vec<WindowBase> = needed(&stored, &bases, time(10), false)
        .keys()
        .map(|place| bases[*place])
        .collect();
    assert!(!needed(&stored, &rest, time(11), false).is_empty());
}

/// A world of three timelines as servers make them: log of a timeline begins in the segment of its fork, bases lie behind it.
#[derive(Debug)]
struct World {
    coverage: Coverage,
    bases: Vec<Base>,
    ways: [History; 3],
}

type Ranges = Vec<(u32, u64, u64)>;

fn world(log: &Ranges, bases: &Ranges, forks: (u64, u64), third_left_first: bool) -> World {
    let (one, two) = (forks.0, forks.0 + forks.1);
    let second = fork(1, one);
    let third = if third_left_first {
        fork(1, two)
    } else {
        format!("{second}{}", fork(2, two))
    };
    let begin = |timeline: u32| match timeline {
        1 => 0,
        2 => one,
        _ => two,
    };
    let ranges: Vec<_> = log
        .iter()
        .map(|(timeline, start, length)| {
            // A segment has two steps.
            let start = (*start).max(begin(*timeline) / 2 * 2);
            (*timeline, start, start + length)
        })
        .collect();
    let coverage = covering(&ranges);
    let bases = bases.iter().enumerate().map(|(index, (timeline, start, length))| {
        let start = (*start).max(begin(*timeline));
        base(&index.to_string(), *timeline, start, start + length)
    });
    World {
        // Of others nothing is promised.
        bases: bases.filter(|base| coverage.holds(base.own_log())).collect(),
        coverage,
        ways: [
            History::first(),
            History::parse(tli(2), &second).unwrap(),
            History::parse(tli(3), &third).unwrap(),
        ],
    }
}

/// The log without what may go, file by file.
fn after(coverage: &Coverage, keep: &Keep, file_steps: u64) -> Coverage {
    let mut left = coverage.clone();
    for range in coverage.ranges() {
        let mut start = range.start;
        while start < range.end {
            let bytes = file_steps * STEP;
            let end = Lsn((start.0 / bytes + 1) * bytes).min(range.end);
            let file = Range::new(range.timeline, start, end);
            if keep.may_go(&file) {
                left.remove(file);
            }
            start = end;
        }
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]
    /// PG-12: every moment of the window that can be reached before a prune can be reached after it, whatever else the rules keep or give up; and as
    /// long as a base without bad pages reaches it, one does afterwards (PG-11).
    #[test]
    fn pg_12_every_moment_of_the_window_stays_reachable(
        log in prop::collection::vec((1_u32..=3, 0_u64..24, 1_u64..24), 1..7),
        bases in prop::collection::vec((1_u32..=3, 0_u64..28, 0_u64..3), 1..9),
        traits in prop::collection::vec((0_i64..3, prop::bool::weighted(0.7), prop::bool::weighted(0.2)), 9),
        forks in (2_u64..20, 0_u64..8),
        third_left_first: bool,
        from in 0_u64..50,
        late_s in 0_i64..3,
        file_steps in 1_u64..4,
        is_newest: bool,
    ) {
        let world = world(&log, &bases, forks, third_left_first);
        let all: Vec<WindowBase> = world.bases.iter().zip(&traits).map(|(base, (late_s, clean, _))| window_base(base, *late_s, *clean)).collect();
        let needed: BTreeMap<usize, Needed> = needed(&held_log(&world.coverage, late_s), &all, time(from), is_newest);
        // What nothing needs goes, but for what a count keeps.
        let stays = |place: usize| needed.contains_key(&place) || traits[place].2;
        let kept: BTreeSet<usize> = (0..all.len()).filter(|place| stays(*place)).collect();
        let keep = Keep::of(size(), &kept.iter().map(|place| KeptBase {
            start: all[*place].start,
            end: all[*place].end,
            needs: if needed.contains_key(place) { Needs::Onward } else { Needs::Own },
        }).collect::<Vec<_>>());
        let left = after(&world.coverage, &keep, file_steps);
        for way in &world.ways {
            for step in from..60 {
                for clean in [false, true] {
                    let reached = |coverage: &Coverage, place: &usize| {
                        (!clean || all[*place].clean) && reaches(&world.bases[*place], coverage, way, step)
                    };
                    let before = (0..all.len()).any(|place| reached(&world.coverage, &place));
                    let after = kept.iter().any(|place| reached(&left, place));
                    prop_assert!(!before || after, "{step} on the way to {}, clean {clean}: {needed:?} of {world:#?}", way.timeline());
                }
            }
        }
        // A base that stays can be restored to its own moment, whatever it is kept for.
        for place in &kept {
            prop_assert!(left.holds(world.bases[*place].own_log()), "{place}: {world:#?}");
        }
        // The end of the newest log is in every window.
        prop_assert!(!is_newest || all.is_empty() || !needed.is_empty());
        // Asked again with what is left, it is the same.
        let rest: Vec<WindowBase> = kept.iter().map(|place| all[*place]).collect();
        let again = self::needed(&held_log(&world.coverage, late_s), &rest, time(from), is_newest);
        prop_assert_eq!(again.len(), needed.len());
    }

    /// PG-12: log goes only in front of what is needed onward, and never where a base that stays needs it; what nobody needs does go.
    #[test]
    fn pg_12_log_that_is_needed_stays(
        bases in prop::collection::vec((0_u64..20, 0_u64..4, any::<bool>()), 0..5),
        (start, length) in (0_u64..24, 1_u64..6),
    ) {
        let kept: Vec<KeptBase> = bases.iter().map(|(start, length, onward)| KeptBase {
            start: at(*start),
            end: at(start + length),
            needs: if *onward { Needs::Onward } else { Needs::Own },
        }).collect();
        let may_go = Keep::of(size(), &kept).may_go(&Range::new(Timeline::FIRST, at(start), at(start + length)));
        let end = start + length;
        let own = kept.iter().any(|base| size().align_down(base.start) < at(end) && at(start) < size().align_up(base.end));
        let oldest = kept.iter().filter(|base| base.needs == Needs::Onward).map(|base| size().align_down(base.start)).min();
        let in_front = oldest.is_none_or(|oldest| at(end) <= oldest);
        prop_assert_eq!(may_go, !kept.is_empty() && in_front && !own);
    }
}
