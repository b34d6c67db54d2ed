//! What can be reached, compared with a reader that knows single half-MiB steps of the log and nothing else.

use lifeboat_model::wal::{Base, Choice, Coverage, History, Mark, Range, Reachable, SegmentSize, Target, Why};
use lifeboat_model::{Lsn, Position};
use proptest::prelude::*;

use super::tli;

/// Half a segment of 1 MiB: forks lie in the middle of segments, too.
pub(super) const STEP: u64 = 1 << 19;

pub(super) fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

pub(super) fn at(step: u64) -> Lsn {
    Lsn(step * STEP)
}

pub(super) fn base(name: &str, timeline: u32, start: u64, end: u64) -> Base {
    Base {
        name: name.into(),
        timeline: tli(timeline),
        start: at(start),
        end: at(end),
        end_us: time(end),
    }
}

/// The server's clock, if nothing but the log made it go: a step is a second.
pub(super) fn time(step: u64) -> i64 {
    i64::try_from(step).unwrap() * 1_000_000
}

pub(super) fn covering(ranges: &[(u32, u64, u64)]) -> Coverage {
    let mut coverage = Coverage::new();
    for (timeline, start, end) in ranges {
        coverage.add(Range::new(tli(*timeline), at(*start), at(*end)));
    }
    coverage
}

fn marks(coverage: &Coverage) -> Vec<Mark> {
    let steps = |range: Range| (range.start.0 / STEP + 1..=range.end.0 / STEP).map(move |step| (range.timeline, step));
    let mark = |(timeline, step)| Mark {
        position: Position::new(timeline, at(step)),
        at_us: time(step),
    };
    coverage.ranges().flat_map(steps).map(mark).collect()
}

fn reachable(bases: Vec<Base>, coverage: Coverage, histories: &[(u32, &str)]) -> Reachable {
    let histories = histories
        .iter()
        .map(|(timeline, text)| History::parse(tli(*timeline), text).unwrap());
    let marks = marks(&coverage);
    Reachable::new(size(), bases, coverage, histories.collect(), marks)
}

pub(super) fn fork(timeline: u32, step: u64) -> String {
    format!("{timeline}\t{}\tpromoted\n", at(step))
}

#[test]
fn pg_01_a_base_without_its_own_log_is_never_offered() {
    let all = reachable(
        vec![base("whole", 1, 4, 6), base("open", 1, 10, 14)],
        covering(&[(1, 4, 12), (1, 13, 20)]),
        &[],
    );
    let gap = Range::new(tli(1), at(12), at(13));
    assert_eq!(all.incomplete(), [(1, gap)]);
    assert_eq!(
        all.choose(&Target::Base("open".into())).unwrap_err().why,
        Why::Incomplete(gap)
    );
    assert_eq!(all.choose(&Target::Base("none".into())).unwrap_err().why, Why::NoSuchBase);
    // Behind the gap nothing is reached, and the refusal says what is.
    let refusal = all.choose(&Target::Lsn(None, at(15))).unwrap_err();
    assert_eq!(refusal.why, Why::Gap(gap));
    assert_eq!(refusal.before.unwrap().position.lsn, at(12));
    assert_eq!(refusal.after, None);
    let refusal = all.choose(&Target::Latest).unwrap_err();
    assert_eq!((refusal.why, refusal.before.unwrap().at_us), (Why::Gap(gap), Some(time(12))));
    let refusal = all.choose(&Target::Time(None, time(5))).unwrap_err();
    assert_eq!((refusal.why, refusal.after.unwrap().at_us), (Why::BeforeFirst, Some(time(6))));
}

/// PG-08: a gap is closed only by a newer base; one that lies exactly between two segments is a gap too.
#[test]
fn pg_08_a_gap_on_a_boundary_is_a_gap() {
    let coverage = covering(&[(1, 0, 8), (1, 10, 20)]);
    let all = reachable(vec![base("old", 1, 2, 3)], coverage.clone(), &[]);
    let gap = Range::new(tli(1), at(8), at(10));
    assert_eq!(all.choose(&Target::Latest).unwrap_err().why, Why::Gap(gap));
    let all = reachable(vec![base("old", 1, 2, 3), base("new", 1, 11, 12)], coverage, &[]);
    let choice = all.choose(&Target::Latest).unwrap();
    assert_eq!((choice.base, choice.until), (1, at(20)));
    let windows: Vec<_> = all
        .windows()
        .iter()
        .map(|window| (window.from.position.lsn, window.to.position.lsn))
        .collect();
    assert_eq!(windows, [(at(3), at(8)), (at(12), at(20))]);
    let refusal = all.choose(&Target::Time(None, time(9))).unwrap_err();
    assert_eq!(refusal.why, Why::Gap(gap));
    assert_eq!(refusal.before.unwrap().at_us, Some(time(8)));
    assert_eq!(refusal.after.unwrap().at_us, Some(time(12)));
}

#[test]
fn latest_follows_the_newest_timeline_and_never_ends_on_an_older_one() {
    // Timeline 4 left 2 in the middle of a segment, which the new one wrote again from its beginning.
    let second = fork(1, 5);
    let fourth = format!("{}{}", fork(1, 5), fork(2, 9));
    let log = [(1, 0, 5), (2, 4, 9), (4, 8, 14)];
    let bases = vec![base("first", 1, 1, 2), base("dead end", 2, 6, 7)];
    let all = reachable(bases.clone(), covering(&log), &[(2, &second), (4, &fourth)]);
    let choice = all.choose(&Target::Latest).unwrap();
    assert_eq!((choice.base, choice.timeline, choice.until), (1, tli(4), at(14)));
    // The last segment of the old timeline was never whole there.
    let log = [(1, 0, 4), (2, 4, 8), (4, 8, 14)];
    let all = reachable(bases.clone(), covering(&log), &[(2, &second), (4, &fourth)]);
    assert_eq!(all.choose(&Target::Latest).unwrap().until, at(14));
    // Without the history file nobody knows where the newest timeline came from: refused, not ended on timeline 2.
    let all = reachable(bases.clone(), covering(&log), &[(2, &second)]);
    assert_eq!(all.choose(&Target::Latest).unwrap_err().why, Why::NoHistory(tli(4)));
    assert_eq!(
        all.choose(&Target::Lsn(Some(tli(7)), at(3))).unwrap_err().why,
        Why::UnknownTimeline(tli(7))
    );
    assert_eq!(all.choose(&Target::Lsn(Some(tli(2)), at(8))).unwrap().timeline, tli(2));
    // A base of a branch that the newest timeline did not come from is not on its way.
    let all = reachable(
        vec![base("branch", 3, 8, 9)],
        covering(&[(1, 0, 6), (3, 6, 12), (4, 6, 12)]),
        &[(3, &fork(1, 6)), (4, &fork(1, 6))],
    );
    assert_eq!(all.choose(&Target::Latest).unwrap_err().why, Why::NoBase);
    // What can be had instead lies on the branch, and says so.
    let before = all.choose(&Target::Latest).unwrap_err().before.unwrap();
    assert_eq!(before.position, Position::new(tli(3), at(9)));
    // A base behind the point where its timeline was left is not on the way either.
    let all = reachable(
        vec![base("too late", 1, 7, 8)],
        covering(&[(1, 0, 9), (2, 6, 12)]),
        &[(2, &fork(1, 6))],
    );
    assert_eq!(all.choose(&Target::Latest).unwrap_err().why, Why::NoBase);
    assert_eq!(all.choose(&Target::Base("too late".into())).unwrap().timeline, tli(1));
}

#[test]
fn a_time_needs_a_base_before_it_and_log_that_is_known_to_pass_it() {
    let all = reachable(vec![base("a", 1, 2, 4), base("b", 1, 6, 8)], covering(&[(1, 2, 12)]), &[]);
    let choose = |us| all.choose(&Target::Time(None, us));
    assert_eq!(choose(time(4)).unwrap_err().why, Why::BeforeFirst);
    assert_eq!(choose(time(4) + 1).unwrap().base, 0);
    assert_eq!(choose(time(8)).unwrap().base, 0);
    let choice = choose(time(8) + 1).unwrap();
    assert_eq!((choice.base, choice.until), (1, at(9)));
    assert_eq!(choose(time(12)).unwrap().until, at(12));
    let refusal = choose(time(12) + 1).unwrap_err();
    assert_eq!((refusal.why, refusal.before.unwrap().at_us), (Why::Behind, Some(time(12))));
}

/// Marks of a timeline that was left do not say where the way is to be looked at, nor do those that are hardly earlier.
#[test]
fn a_time_is_looked_for_from_an_earlier_mark_of_its_own_way() {
    let coverage = covering(&[(1, 0, 12), (2, 6, 16)]);
    let all = reachable(vec![base("a", 1, 2, 4)], coverage, &[(2, &fork(1, 7))]);
    let second = 1_000_000;
    let choice = all.choose(&Target::Time(Some(tli(2)), time(14))).unwrap();
    assert_eq!((choice.timeline, choice.until), (tli(2), at(14)));
    assert_eq!(all.look_from(&choice, time(14), 0), at(14));
    assert_eq!(all.look_from(&choice, time(14), 3 * second), at(11));
    // Timeline 1 went on behind the fork, and its marks are of a time that never was on this way.
    let marks = vec![
        Mark {
            position: Position::new(tli(1), at(11)),
            at_us: time(8),
        },
        Mark {
            position: Position::new(tli(1), at(5)),
            at_us: time(5),
        },
        Mark {
            position: Position::new(tli(2), at(13)),
            at_us: time(13),
        },
    ];
    let covered = covering(&[(1, 0, 12), (2, 6, 16)]);
    let history = History::parse(tli(2), &fork(1, 7)).unwrap();
    let all = Reachable::new(size(), vec![base("a", 1, 2, 4)], covered, vec![history], marks);
    let choice = all.choose(&Target::Time(None, time(9))).unwrap();
    assert_eq!((choice.timeline, choice.until), (tli(2), at(13)));
    assert_eq!(all.look_from(&choice, time(9), 0), at(5));
    assert_eq!(all.look_from(&choice, time(9), 5 * second), at(2));
}

#[test]
fn a_history_that_cannot_be_read_closes_its_own_timeline_and_no_other() {
    let all = reachable(vec![base("a", 1, 2, 4)], covering(&[(1, 2, 12)]), &[]).with_unread([tli(2)]);
    assert_eq!(all.choose(&Target::Latest).unwrap_err().why, Why::NoHistory(tli(2)));
    assert_eq!(all.choose(&Target::Base("a".into())).unwrap().timeline, tli(1));
    assert_eq!(all.choose(&Target::Lsn(Some(tli(1)), at(9))).unwrap().until, at(9));
    assert_eq!(all.windows().len(), 1);
}

/// Times go on from lineage to lineage; positions do not.
#[test]
fn only_what_lies_before_a_lineage_is_looked_for_in_an_older_one() {
    let all = reachable(vec![base("a", 1, 9, 11)], covering(&[(1, 8, 12), (1, 14, 16)]), &[]);
    let older = |target: Target| all.may_be_older(&target, &all.choose(&target).unwrap_err());
    assert!(older(Target::Time(None, time(3))));
    assert!(older(Target::Lsn(None, at(5))));
    // In front of the first base, but it is this lineage's position.
    assert!(!older(Target::Lsn(None, at(10))));
    assert!(!older(Target::Time(None, time(15))));
    assert!(!older(Target::Lsn(None, at(15))));
    assert!(!older(Target::Latest));
    assert!(!older(Target::Base("b".into())));
    // What is refused in both is refused for what says most, with the nearest of both.
    let before = reachable(vec![base("b", 1, 1, 2)], covering(&[(1, 1, 3), (1, 5, 7)]), &[]);
    let target = Target::Time(None, time(6));
    let refusal = all.choose(&target).unwrap_err().and(before.choose(&target).unwrap_err());
    assert_eq!(refusal.why, Why::Gap(Range::new(tli(1), at(3), at(5))));
    assert_eq!(refusal.before.unwrap().at_us, Some(time(3)));
    assert_eq!(refusal.after.unwrap().at_us, Some(time(11)));
}

/// Whether the step behind `step` is held along a way, said by its own words.
fn held(coverage: &Coverage, way: &History, step: u64) -> bool {
    let byte = |timeline| coverage.holds(Range::new(timeline, at(step), at(step + 1)));
    way.stretches().any(|stretch| {
        let of_the_way = stretch.end.is_none_or(|end| at(step) < end) && at(step) >= stretch.begin;
        let same_segment = at(step) < stretch.begin && size().number_of(at(step)) == size().number_of(stretch.begin);
        (of_the_way || same_segment) && byte(stretch.timeline)
    })
}

pub(super) fn reaches(base: &Base, coverage: &Coverage, way: &History, step: u64) -> bool {
    let on_way = way.passes(Position::new(base.timeline, base.end));
    on_way && base.end <= at(step) && (base.start.0 / STEP..step).all(|step| held(coverage, way, step))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// A position is offered exactly where some base has every step of log to it; and the newest such base is taken.
    #[test]
    fn pg_01_what_is_offered_is_what_every_byte_is_held_for(
        log in prop::collection::vec((1_u32..=3, 0_u64..16, 1_u64..10), 1..7),
        forks in (2_u64..10, 0_u64..6),
        third_left_first: bool,
        bases in prop::collection::vec((1_u32..=3, 0_u64..14, 0_u64..3), 1..4),
        timeline in 1_u32..=3,
        step in 0_u64..24,
    ) {
        let (one, two) = (forks.0, forks.0 + forks.1);
        let second = fork(1, one);
        let third = if third_left_first { fork(1, two) } else { format!("{second}{}", fork(2, two)) };
        let coverage = covering(&log.iter().map(|(timeline, start, length)| (*timeline, *start, start + length)).collect::<Vec<_>>());
        let bases: Vec<Base> = bases.iter().enumerate()
            .map(|(index, (timeline, start, length))| base(&index.to_string(), *timeline, *start, start + length))
            .collect();
        let all = reachable(bases.clone(), coverage.clone(), &[(2, &second), (3, &third)]);
        let ways = [History::first(), History::parse(tli(2), &second).unwrap(), History::parse(tli(3), &third).unwrap()];
        let way = ways.iter().find(|way| way.timeline() == tli(timeline)).unwrap();
        let fit = bases.iter().filter(|base| reaches(base, &coverage, way, step));
        let newest = fit.map(|base| base.end).max();
        match all.choose(&Target::Lsn(Some(tli(timeline)), at(step))) {
            Ok(Choice { base, timeline: chosen, until }) => {
                prop_assert_eq!((chosen, until), (tli(timeline), at(step)));
                prop_assert_eq!(Some(bases[base].end), newest);
                prop_assert!(reaches(&bases[base], &coverage, way, step));
            }
            Err(refusal) => {
                prop_assert_eq!(newest, None, "{:?}", refusal);
                prop_assert!(refusal.before.is_none_or(|moment| moment.position.lsn < at(step)));
                prop_assert!(refusal.after.is_none_or(|moment| moment.position.lsn >= at(step)));
                // What is offered instead can be had.
                for moment in [refusal.before, refusal.after].into_iter().flatten() {
                    let lsn = moment.position.lsn.0 / STEP;
                    prop_assert!(ways.iter().any(|way| bases.iter().any(|base| reaches(base, &coverage, way, lsn))));
                }
            }
        }
        // Every moment of every window can be reached, and every base is in one or incomplete.
        for window in all.windows() {
            let way = ways.iter().find(|way| way.timeline() == window.timeline).unwrap();
            for step in window.from.position.lsn.0 / STEP..=window.to.position.lsn.0 / STEP {
                prop_assert!(bases.iter().any(|base| reaches(base, &coverage, way, step)), "{window:?} {step}");
            }
        }
        for (place, _) in all.incomplete() {
            prop_assert!(ways.iter().all(|way| !reaches(&bases[place], &coverage, way, bases[place].end.0 / STEP)));
        }
        // Latest comes to the end of what is held of the newest timeline, or is refused.
        if let Ok(choice) = all.choose(&Target::Latest) {
            prop_assert_eq!(choice.timeline, tli(3));
            prop_assert!(coverage.end(tli(3)).is_none_or(|end| end <= choice.until));
        }
    }
}
