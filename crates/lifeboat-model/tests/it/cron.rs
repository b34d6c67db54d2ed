//! What schedules mean.

use std::time::Duration;

use lifeboat_model::ErrorKind;
use lifeboat_model::cron::{Cron, gaps};

const HOUR: u64 = 60;
const DAY: u64 = 24 * HOUR;

/// Shortest and longest gap in minutes.
fn of(schedules: &[&str]) -> Option<(u64, u64)> {
    let parsed: Vec<Cron> = schedules.iter().map(|text| Cron::parse(text).unwrap()).collect();
    let minutes = |gap: Duration| gap.as_secs() / 60;
    gaps(&parsed).map(|(shortest, longest)| (minutes(shortest), minutes(longest)))
}

#[test]
fn the_gaps_of_a_schedule_are_those_of_the_calendar() {
    let cases: [(&str, u64, u64); 15] = [
        ("0 2 * * *", DAY, DAY),
        ("*/15 * * * *", 15, 15),
        ("7/20 * * * *", 20, 20),
        ("* * * * *", 1, 1),
        ("0 */6 * * *", 6 * HOUR, 6 * HOUR),
        ("0 0,12-14 * * *", HOUR, 12 * HOUR),
        ("0 3 * * 0", 7 * DAY, 7 * DAY),
        ("0 3 * * 7", 7 * DAY, 7 * DAY),
        ("0 3 * * SUN", 7 * DAY, 7 * DAY),
        ("0 2 * * mon-fri", DAY, 3 * DAY),
        ("0 4 1 * *", 28 * DAY, 31 * DAY),
        ("0 6 1 1,4,7,10 *", 90 * DAY, 92 * DAY),
        ("0 9 * * friL", 28 * DAY, 35 * DAY),
        ("0 0 29 feb *", 1461 * DAY, 1461 * DAY),
        // Either is enough where both are limited.
        ("0 2 1 * mon", DAY, 7 * DAY),
    ];
    for (text, shortest, longest) in cases {
        assert_eq!(of(&[text]), Some((shortest, longest)), "{text}");
    }
}

#[test]
fn several_schedules_are_one_set_of_moments() {
    assert_eq!(of(&["0 2 * * *", "0 3 * * 0"]), Some((HOUR, DAY)));
    assert_eq!(of(&["0 2 * * *", "0 14 * * *"]), Some((12 * HOUR, 12 * HOUR)));
    assert_eq!(of(&["0 2 * * *", "0 2 * * 0"]), Some((DAY, DAY)));
    assert_eq!(of(&["0 2 * * *", "0 2 30 2 *"]), Some((DAY, DAY)));
}

#[test]
fn a_day_that_never_comes_is_no_schedule() {
    assert_eq!(of(&["0 2 30 2 *"]), None);
    assert_eq!(of(&["0 2 31 4,6,9,11 *"]), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn what_is_no_schedule_is_refused_and_says_why() {
    let cases = [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("0 0 2 * * *", "6 fields"),
        ("60 2 * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 2 0 * *", "'0' is no day of the month"),
        ("0 2 * 13 *", "'13' is no month"),
        ("0 2 * * 8", "'8' is no day of the week"),
        ("0 2 * * someday", "'someday' is no day of the week"),
        ("0 5-2 * * *", "ends before it begins"),
        ("*/0 * * * *", "is not a number of 1 or more"),
        ("+5 * * * *", "'+5' is no minute"),
        ("0 2 * * L", "'L' is no day of the week"),
        ("@daily", "1 fields"),
    ];
    for (text, says) in cases {
        let error = Cron::parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        assert!(error.detail().contains(says), "{text}: {}", error.detail());
    }
}

#[test]
fn it_is_shown_as_it_was_written() {
    assert_eq!(Cron::parse(" 0  2 * * friL ").unwrap().to_string(), "0 2 * * friL");
}
