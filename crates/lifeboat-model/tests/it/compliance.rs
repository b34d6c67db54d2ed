//! What rules promise, against what is there.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_model::retention::{Candidate, Compliance, InWindow, Known, Local, Policy, Rules, Tier, comply};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// Ten in the morning of a day.
const NOW_US: i64 = 20_777 * DAY_US + 10 * HOUR_US;

/// A calendar of months of 30 days.
fn plain(us: i64) -> Local {
    let day = us.div_euclid(DAY_US);
    let hour = us.rem_euclid(DAY_US) / HOUR_US;
    Local {
        year: i16::try_from(day / 360).unwrap(),
        month: i8::try_from(day / 30 % 12 + 1).unwrap(),
        day: i8::try_from(day % 30 + 1).unwrap(),
        hour: i8::try_from(hour).unwrap(),
        offset_s: 0,
        week_year: i16::try_from(day / 364).unwrap(),
        week: i8::try_from(day / 7 % 52 + 1).unwrap(),
    }
}

/// Made at two in the morning, so many days ago.
fn backup(days_ago: i64) -> Candidate {
    Candidate {
        name: format!("{days_ago} days ago"),
        seq: u64::try_from(10_000 - days_ago).unwrap(),
        moment_us: NOW_US - 8 * HOUR_US - days_ago * DAY_US,
        method: "logical".into(),
        extract: false,
        wanting: None,
        known: Known::Unproven,
        tags: Vec::new(),
        keep_for: None,
        held: None,
        window: InWindow::Moment,
        bad_pages: 0,
    }
}

fn of(keep: Rules, candidates: &[Candidate]) -> Compliance {
    let policy = Policy {
        extracts: Rules::default(),
        keep,
        never_below: 2,
    };
    comply(&policy, NOW_US, &plain, candidates).swap_remove(0)
}

fn daily(count: u32) -> Rules {
    Rules {
        daily: count,
        ..Rules::default()
    }
}

fn only(compliance: &Compliance) -> &Tier {
    assert_eq!(compliance.tiers.len(), 1);
    &compliance.tiers[0]
}

#[test]
fn a_day_without_a_backup_is_missing_and_named() {
    let all: Vec<Candidate> = (0..7).map(backup).collect();
    let whole = of(daily(7), &all);
    assert!(whole.is_held());
    assert_eq!((only(&whole).held.len(), only(&whole).before), (7, 0));

    let holed: Vec<Candidate> = (0..7).filter(|ago| *ago != 3).map(backup).collect();
    let holed = of(daily(7), &holed);
    assert!(!holed.is_held());
    assert_eq!(only(&holed).held.len(), 6);
    let then = plain(NOW_US - 3 * DAY_US);
    assert_eq!(
        only(&holed).missing,
        [format!("{:04}-{:02}-{:02}", then.year, then.month, then.day)]
    );
}

#[test]
fn today_is_not_missing_before_it_is_over_but_yesterday_is() {
    let without_today: Vec<Candidate> = (1..7).map(backup).collect();
    assert!(of(daily(7), &without_today).is_held());
    let without_both: Vec<Candidate> = (2..7).map(backup).collect();
    assert_eq!(only(&of(daily(7), &without_both)).missing.len(), 1);
}

#[test]
fn what_lies_before_the_first_backup_is_not_missing() {
    let young: Vec<Candidate> = (0..3).map(backup).collect();
    let young = of(daily(30), &young);
    assert!(young.is_held());
    assert_eq!((only(&young).held.len(), only(&young).before), (3, 27));
}

#[test]
fn bad_backups_hold_no_tier_and_no_floor() {
    let mut candidates: Vec<Candidate> = (0..3).map(backup).collect();
    candidates[1].known = Known::Damaged;
    candidates[2].known = Known::Restored;
    let found = of(daily(3), &candidates);
    assert_eq!((found.good, found.proven, found.never_below), (2, 1, 2));
    assert_eq!(only(&found).missing.len(), 1);
    assert_eq!(found.reach_us, Some((candidates[2].moment_us, candidates[0].moment_us)));
}

#[test]
fn weeks_and_months_are_those_of_the_calendar() {
    let rules = Rules {
        weekly: 3,
        monthly: 2,
        ..Rules::default()
    };
    // One each week, but none two weeks ago.
    let found = of(rules, &[backup(0), backup(7), backup(21), backup(35)]);
    let weekly = &found.tiers[0];
    assert_eq!(
        (weekly.rule.as_str(), weekly.held.len(), weekly.missing.len()),
        ("weekly", 2, 1)
    );
    let monthly = &found.tiers[1];
    assert_eq!((monthly.held.len(), monthly.missing.len()), (2, 0));
}

#[test]
fn the_other_rules_say_what_they_have() {
    let rules = Rules {
        last: 5,
        within: Some(Duration::from_secs(3 * 86_400)),
        tags: BTreeSet::from(["monthly".to_owned()]),
        ..Rules::default()
    };
    let mut candidates: Vec<Candidate> = [0, 2, 9].map(backup).into();
    candidates[2].tags.push("monthly".into());
    let found = of(rules, &candidates);
    let told: Vec<(&str, usize, u32)> = found
        .tiers
        .iter()
        .map(|tier| (tier.rule.as_str(), tier.held.len(), tier.before))
        .collect();
    // The window begins with the one before it.
    assert_eq!(told, [("last", 3, 2), ("within", 3, 0), ("tag monthly", 1, 0)]);
}

#[test]
fn methods_and_extracts_are_told_apart() {
    let mut candidates = vec![backup(0), backup(1), backup(2)];
    candidates[1].method = "physical".into();
    candidates[2].extract = true;
    let policy = Policy {
        keep: daily(1),
        extracts: daily(9),
        never_below: 1,
    };
    let found = comply(&policy, NOW_US, &plain, &candidates);
    let told: Vec<(&str, bool, &str)> = found
        .iter()
        .map(|group| (group.method.as_str(), group.extract, group.tiers[0].wanted.as_str()))
        .collect();
    assert_eq!(
        told,
        [("logical", false, "1"), ("logical", true, "9"), ("physical", false, "1")]
    );
}
