//! Drills: which point is drawn, and what came of it.

use std::time::Duration;

use lifeboat_model::check::Outcome;
use lifeboat_model::drill::{Measured, Span, Standing, draw, draw_one, judge};
use proptest::prelude::*;

fn measured(recovery: Option<u64>, loss: Option<u64>) -> Measured {
    Measured {
        rto: Some(Duration::from_secs(60)),
        rpo: Some(Duration::from_secs(10)),
        recovery: recovery.map(Duration::from_secs),
        loss: loss.map(Duration::from_secs),
    }
}

#[test]
fn only_what_was_checked_and_ticked_in_time_is_a_pass() {
    let good = [Outcome::passed("rows", "")];
    let in_time = measured(Some(60), Some(10));
    let of = |error, checks: &[Outcome], ticks: &[Option<bool>], measured: &Measured| judge(error, checks, ticks, measured);
    assert_eq!(of(false, &good, &[Some(true)], &in_time), Standing::Passed);
    assert_eq!(of(false, &good, &[Some(true), None], &in_time), Standing::Waiting);
    assert_eq!(of(false, &good, &[Some(false)], &in_time), Standing::Failed);
    assert_eq!(of(false, &[], &[], &in_time), Standing::Incomplete);
    let unknown = [Outcome::passed("rows", ""), Outcome::not_available("amcheck", "")];
    assert_eq!(of(false, &unknown, &[None], &in_time), Standing::Incomplete);
    assert_eq!(of(false, &good, &[], &measured(Some(61), Some(1))), Standing::ObjectiveMissed);
    assert_eq!(of(false, &good, &[], &measured(Some(1), Some(11))), Standing::ObjectiveMissed);
    // What cannot be said is not missed; without an end there is no recovery.
    assert_eq!(of(false, &good, &[], &measured(Some(1), None)), Standing::Passed);
    assert_eq!(of(false, &good, &[], &measured(None, Some(1))), Standing::Failed);
    assert_eq!(of(true, &good, &[], &in_time), Standing::Failed);
    let bad = [Outcome::failed("rows", ""), Outcome::not_available("amcheck", "")];
    assert_eq!(of(false, &bad, &[], &measured(Some(61), None)), Standing::Failed);
}

#[test]
fn nothing_is_drawn_from_nothing() {
    assert_eq!(draw(7, &[]), None);
    assert_eq!(draw(7, &[(5, 4)]), None);
    assert_eq!(draw_one(7, 0), None);
    assert_eq!(draw(7, &[(5, 5)]), Some(5));
    assert_eq!(draw(7, &[(i64::MIN, i64::MAX)]).map(|_| ()), Some(()));
}

#[test]
fn every_part_of_the_window_is_drawn() {
    let spans: [Span; 2] = [(0, 999), (1_000_000, 1_002_999)];
    let drawn: Vec<i64> = (0..4000).filter_map(|seed| draw(seed, &spans)).collect();
    let count = |from: i64, to: i64| drawn.iter().filter(|at| (from..=to).contains(*at)).count();
    // Each of the four equal parts has a quarter, give or take a good deal more than chance would.
    for (from, to) in [
        (0, 999),
        (1_000_000, 1_000_999),
        (1_001_000, 1_001_999),
        (1_002_000, 1_002_999),
    ] {
        assert!((850..=1150).contains(&count(from, to)), "{from}: {}", count(from, to));
    }
    let ones: Vec<usize> = (0..3000).filter_map(|seed| draw_one(seed, 3)).collect();
    for one in 0..3 {
        let share = ones.iter().filter(|drawn| **drawn == one).count();
        assert!((850..=1150).contains(&share), "{one}: {share}");
    }
}

proptest! {
    #[test]
    fn what_is_drawn_lies_in_a_span_and_is_drawn_again(seed: u64, spans in prop::collection::vec((0_i64..1_000_000, 0_i64..1_000_000), 1..6)) {
        let drawn = draw(seed, &spans);
        prop_assert_eq!(drawn, draw(seed, &spans));
        match drawn {
            Some(at) => prop_assert!(spans.iter().any(|(from, to)| (*from..=*to).contains(&at))),
            None => prop_assert!(spans.iter().all(|(from, to)| from > to)),
        }
    }
}
