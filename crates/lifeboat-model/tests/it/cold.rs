//! What goes cold, and which rules of a bucket harm a restore.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_model::cold::{Access, Reaches, access, is_archive, may_go_cold, retrieval};
use lifeboat_model::lifecycle::{Harm, Rule, When, harms, old_versions_days, unfinished_uploads_days};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
const DAY_US: i64 = 86_400_000_000;

fn backup(day: i64, packs: &[u32]) -> Reaches<u32> {
    Reaches {
        moment_us: day * DAY_US,
        always_warm: false,
        packs: packs.to_vec(),
    }
}

/// The last one is the newest.
fn in_order(mut backups: Vec<Reaches<u32>>) -> Vec<Reaches<u32>> {
    if let Some(last) = backups.last_mut() {
        last.always_warm = true;
    }
    backups
}

fn cold(today: i64, backups: &[Reaches<u32>]) -> Vec<u32> {
    let candidates = (0..100).collect();
    may_go_cold(today * DAY_US, DAY * 30, backups, &candidates)
        .into_iter()
        .collect()
}

#[test]
fn a_pack_of_the_first_day_stays_warm_while_recent_backups_reach_it() {
    // Pack 1 holds what never changes; pack 2 was replaced on day 50.
    let backups = in_order(vec![backup(0, &[1, 2]), backup(50, &[1, 3]), backup(99, &[1, 3, 4])]);
    assert_eq!(cold(100, &backups), [2]);
}

#[test]
fn the_newest_backup_stays_warm_however_old_it_is() {
    let backups = in_order(vec![backup(0, &[1, 2]), backup(10, &[1, 3])]);
    assert_eq!(cold(1000, &backups), [2]);
    assert_eq!(cold(1000, &backups[1..]), [] as [u32; 0]);
    // Without a newest one nothing is known.
    assert_eq!(cold(1000, &backups[..1]), [] as [u32; 0]);
}

#[test]
fn a_clock_that_ran_ahead_keeps_things_warm() {
    let backups = in_order(vec![backup(900, &[1]), backup(99, &[2])]);
    assert_eq!(cold(100, &backups), [] as [u32; 0]);
}

#[test]
fn what_no_backup_reaches_is_not_moved() {
    let backups = in_order(vec![backup(0, &[1]), backup(99, &[2])]);
    assert_eq!(cold(100, &backups), [1]);
    let none = BTreeSet::new();
    assert!(may_go_cold(100 * DAY_US, DAY, &backups, &none).is_empty());
    assert!(may_go_cold(100 * DAY_US, DAY, &[], &BTreeSet::from([7])).is_empty());
}

proptest! {
    #[test]
    fn nothing_recent_goes_cold_and_another_backup_never_chills_what_it_reaches(
        days in prop::collection::vec((0_i64..200, prop::collection::vec(0_u32..20, 0..8)), 1..8),
        today in 100_i64..300,
    ) {
        let backups = in_order(days.iter().map(|(day, packs)| backup(*day, packs)).collect());
        let now = cold(today, &backups);
        for backup in &backups {
            if backup.moment_us >= (today - 30) * DAY_US || backup.always_warm {
                prop_assert!(backup.packs.iter().all(|pack| !now.contains(pack)));
            }
        }
        let later = cold(today + 1, &backups);
        prop_assert!(now.iter().all(|pack| later.contains(pack)));
    }
}

#[test]
fn the_slowest_class_decides_how_long_a_restore_waits() {
    assert_eq!(retrieval([]), (Duration::ZERO, Duration::ZERO));
    assert_eq!(
        retrieval(["STANDARD", "GLACIER_IR", "NEW_CLASS"]),
        (Duration::ZERO, Duration::ZERO)
    );
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(retrieval(["GLACIER", "STANDARD"]), (hours(4), hours(5)));
    assert_eq!(retrieval(["GLACIER", "DEEP_ARCHIVE"]), (hours(12), hours(12)));
    assert!(is_archive("GLACIER") && !is_archive("GLACIER_IR") && !is_archive("NEW_CLASS"));
    assert_eq!(access("STANDARD"), Some(Access::AtOnce));
}

fn rule(prefix: &str) -> Rule {
    Rule {
        enabled: true,
        prefix: prefix.to_owned(),
        ..Rule::default()
    }
}

#[test]
fn a_rule_by_age_freezes_or_deletes_what_a_restore_needs() {
    // architect-go's rule: to Glacier after 30 days, deleted after 90.
    let archive = Rule {
        id: "Archive".to_owned(),
        expires: Some(When::Days(90)),
        moves: vec![(When::Days(30), "GLACIER".to_owned())],
        ..rule("")
    };
    let rules = [archive.clone()];
    let found: Vec<Harm> = harms(&rules, "eu/").into_iter().map(|(_, harm)| harm).collect();
    assert_eq!(
        found,
        [
            Harm::Deletes(When::Days(90)),
            Harm::Freezes(When::Days(30), "GLACIER".to_owned())
        ]
    );
    let disabled = Rule {
        enabled: false,
        ..archive.clone()
    };
    let elsewhere = Rule {
        prefix: "logs/".to_owned(),
        ..archive.clone()
    };
    let tagged = Rule {
        tagged: true,
        ..archive.clone()
    };
    assert!(harms(&[disabled, elsewhere, tagged], "eu/").is_empty());
    let within = Rule {
        prefix: "eu/c/".to_owned(),
        ..archive
    };
    assert_eq!(harms(&[within], "eu/").len(), 2);
    let moves = |class: &str| Rule {
        moves: vec![(When::Days(1), class.to_owned())],
        ..rule("")
    };
    assert!(harms(&[moves("INTELLIGENT_TIERING")], "").is_empty());
    assert!(matches!(harms(&[moves("STANDARD_IA")], "")[..], [(_, Harm::Charges(..))]));
    assert!(matches!(harms(&[moves("BRAND_NEW")], "")[..], [(_, Harm::Unknown(..))]));
}

#[test]
fn house_keeping_counts_only_where_it_covers_the_whole_store() {
    let tidy = |prefix: &str, days| Rule {
        ends_uploads_days: Some(days),
        old_versions_days: Some(days),
        ..rule(prefix)
    };
    assert_eq!(unfinished_uploads_days(&[tidy("eu/c/", 7)], "eu/"), None);
    assert_eq!(unfinished_uploads_days(&[tidy("", 7), tidy("eu/", 3)], "eu/"), Some(3));
    assert_eq!(old_versions_days(&[tidy("us/", 7)], "eu/"), None);
    assert!(harms(&[tidy("", 7)], "eu/").is_empty());
}
