//! Retention: what stays, with which reason, and what holds whatever the rules are.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_model::retention::{Candidate, InWindow, Known, Local, Policy, Rules, Stays, Verdict, decide, places};
use lifeboat_model::wal::Needed;
use proptest::prelude::*;

const DAY_US: i64 = 86_400_000_000;
/// 2026-11-20T00:00:00Z, the day number of which is a multiple of 86,400 seconds.
const NOW_US: i64 = 20_777 * DAY_US;

/// A calendar of days only, each month 30 of them: enough to tell slots apart. Real calendars are tested where time zones are known.
fn plain(us: i64) -> Local {
    let day = us.div_euclid(DAY_US);
    let hour = us.rem_euclid(DAY_US) / 3_600_000_000;
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

fn backup(seq: u64, moment_us: i64) -> Candidate {
    Candidate {
        name: format!("{seq}-name"),
        seq,
        moment_us,
        method: "physical".into(),
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

/// One a day, the newest today, seq rising.
fn daily(count: u64) -> Vec<Candidate> {
    (1..=count)
        .map(|seq| backup(seq, NOW_US - i64::try_from(count - seq).unwrap() * DAY_US))
        .collect()
}

fn policy(keep: Rules) -> Policy {
    Policy {
        extracts: keep.clone(),
        keep,
        never_below: 1,
    }
}

fn kept(policy: &Policy, candidates: &[Candidate]) -> Vec<u64> {
    let verdicts = decide(policy, NOW_US, &plain, candidates);
    let staying = candidates.iter().zip(&verdicts).filter(|(_, verdict)| verdict.keeps());
    staying.map(|(candidate, _)| candidate.seq).collect()
}

fn verdict_of(policy: &Policy, candidates: &[Candidate], seq: u64) -> Verdict {
    let at = candidates.iter().position(|candidate| candidate.seq == seq).unwrap();
    decide(policy, NOW_US, &plain, candidates).swap_remove(at)
}

#[test]
fn seven_daily_backups_stay() {
    let rules = policy(Rules {
        daily: 7,
        ..Rules::default()
    });
    let mut candidates = daily(20);
    assert_eq!(kept(&rules, &candidates), (14..=20).collect::<Vec<_>>());
    // Seven days with a backup, not seven backups: a second one of a day takes no slot of another.
    candidates.push(backup(21, NOW_US + 1));
    let later = decide(&rules, NOW_US + 2, &plain, &candidates);
    assert_eq!(later.iter().filter(|verdict| verdict.keeps()).count(), 7);
    assert!(
        verdict_of(&rules, &candidates, 3)
            .why()
            .contains("older than the 7 kept by daily")
    );
}

#[test]
fn the_best_proven_of_a_slot_stays_and_the_newest_too() {
    let rules = policy(Rules {
        daily: 2,
        ..Rules::default()
    });
    let mut candidates = vec![
        backup(1, NOW_US - DAY_US + 1),
        backup(2, NOW_US - DAY_US + 2),
        backup(3, NOW_US - 2),
        backup(4, NOW_US - 1),
    ];
    candidates[2].known = Known::Restored;
    candidates[0].known = Known::Opened;
    // 1 and 2 and 3 and 4 are of one day before NOW_US.
    assert_eq!(kept(&rules, &candidates), [3, 4]);
    let why = verdict_of(&rules, &candidates, 1).why();
    assert!(why.contains("is kept by 3-name"), "{why}");
    assert!(verdict_of(&rules, &candidates, 4).stays.contains(&Stays::Newest));
    assert!(verdict_of(&rules, &candidates, 3).stays.contains(&Stays::NewestProven));
}

#[test]
fn a_forged_or_wrong_date_takes_no_slot_of_another_time() {
    let rules = policy(Rules {
        monthly: 12,
        ..Rules::default()
    });
    let mut candidates = vec![
        backup(1, NOW_US - 300 * DAY_US),
        backup(2, NOW_US - 200 * DAY_US),
        backup(3, NOW_US - 100 * DAY_US),
        backup(4, NOW_US - 1),
    ];
    assert_eq!(kept(&rules, &candidates), [1, 2, 3, 4]);
    // A stolen host writes backups that claim to be old, to be proven by nobody, or to come from the future.
    for (seq, moment) in [
        (5, NOW_US - 300 * DAY_US),
        (6, NOW_US - 200 * DAY_US),
        (7, NOW_US + 5000 * DAY_US),
    ] {
        candidates.push(backup(seq, moment));
    }
    let kept = kept(&rules, &candidates);
    assert!([1, 2, 3].iter().all(|seq| kept.contains(seq)), "{kept:?}");
    assert_eq!(places(NOW_US, &candidates)[4..], [NOW_US - 1, NOW_US - 1, NOW_US]);
}

#[test]
fn what_does_not_count_never_pushes_a_good_one_out() {
    let rules = policy(Rules {
        last: 3,
        ..Rules::default()
    });
    let mut candidates = daily(10);
    for candidate in &mut candidates[6..] {
        candidate.wanting = Some("2 files are missing".into());
    }
    candidates[5].known = Known::Damaged;
    // 1 to 5 are good; 6 to 10 are not, and stay as long as something older does.
    assert_eq!(kept(&rules, &candidates), (3..=10).collect::<Vec<_>>());
    for candidate in &mut candidates {
        candidate.wanting = Some("gone".into());
    }
    assert_eq!(kept(&rules, &candidates).len(), 10, "without a good one nothing goes");
}

#[test]
fn a_window_begins_with_a_backup() {
    let rules = policy(Rules {
        within: Some(Duration::from_secs(3 * 86_400)),
        ..Rules::default()
    });
    let candidates = daily(10);
    assert_eq!(kept(&rules, &candidates), [6, 7, 8, 9, 10]);
    let begins = verdict_of(&rules, &candidates, 6);
    assert!(begins.why().contains("begins with it"), "{}", begins.why());
}

#[test]
fn holds_tags_and_keep_for_keep() {
    let rules = policy(Rules {
        last: 1,
        tags: BTreeSet::from(["upgrade".to_owned()]),
        ..Rules::default()
    });
    let mut candidates = daily(10);
    candidates[0].held = Some("incident 7".into());
    candidates[1].tags = vec!["upgrade".into()];
    candidates[2].keep_for = Some(Duration::from_secs(8 * 86_400));
    candidates[3].keep_for = Some(Duration::from_secs(86_400));
    assert_eq!(kept(&rules, &candidates), [1, 2, 3, 10]);
    assert_eq!(verdict_of(&rules, &candidates, 1).why(), "held: incident 7");
}

#[test]
fn extracts_and_methods_count_by_themselves() {
    let rules = Policy {
        extracts: Rules {
            last: 1,
            ..Rules::default()
        },
        ..policy(Rules {
            last: 2,
            ..Rules::default()
        })
    };
    let mut candidates = daily(9);
    for candidate in &mut candidates[3..6] {
        candidate.extract = true;
    }
    for candidate in &mut candidates[6..] {
        candidate.method = "logical".into();
    }
    assert_eq!(kept(&rules, &candidates), [2, 3, 6, 8, 9]);
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![
        1 => Just(Known::Damaged),
        5 => Just(Known::Unproven),
        1 => Just(Known::Intact),
        1 => Just(Known::Opened),
        2 => Just(Known::Restored),
    ]
}

/// Backups in the order of their numbers, with steps of up to two days between; now and then a clock that was wrong.
fn candidates(wrong_clocks: bool) -> impl Strategy<Value = Vec<Candidate>> {
    let step = 0..2 * DAY_US;
    let one = (
        step,
        known(),
        any::<bool>(),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
    );
    proptest::collection::vec(one, 0..60).prop_map(move |all| {
        let total: i64 = all.iter().map(|(step, ..)| step).sum();
        let mut at_us = NOW_US - total;
        let mut seq = 0;
        all.into_iter()
            .map(|(step, known, tagged, wanting, wrong)| {
                at_us += step;
                seq += 1;
                let mut candidate = backup(seq, at_us);
                if wrong && wrong_clocks {
                    candidate.moment_us += (step - DAY_US) * 40;
                }
                candidate.known = known;
                candidate.wanting = wanting.then(|| "incomplete".to_owned());
                candidate.tags = tagged.then(|| "t".to_owned()).into_iter().collect();
                candidate
            })
            .collect()
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let few = || 0_u32..9;
    (
        few(),
        few(),
        few(),
        few(),
        few(),
        few(),
        proptest::option::of(1_u64..60),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(last, hourly, daily, weekly, monthly, yearly, within, tags)| Rules {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within: within.map(|days| Duration::from_secs(days * 86_400)),
            window: None,
            tags: tags.then(|| "t".to_owned()).into_iter().collect(),
        })
}

fn good(candidates: &[Candidate]) -> Vec<&Candidate> {
    let good = candidates.iter();
    good.filter(|candidate| candidate.wanting.is_none() && candidate.known > Known::Damaged)
        .collect()
}

proptest! {
    #[test]
    fn the_floor_and_the_newest_hold_whatever_the_rules_are(candidates in candidates(true), keep in rules(), never_below in 1_u32..6) {
        let policy = Policy { extracts: keep.clone(), keep, never_below };
        let kept: BTreeSet<u64> = kept(&policy, &candidates).into_iter().collect();
        let good = good(&candidates);
        let floor = good.len().min(usize::try_from(never_below).unwrap());
        prop_assert!(good.iter().rev().take(floor).all(|candidate| kept.contains(&candidate.seq)));
        let proven = good.iter().rev().filter(|candidate| candidate.known == Known::Restored);
        for candidate in proven.take(floor) {
            prop_assert!(kept.contains(&candidate.seq));
        }
        if good.is_empty() {
            prop_assert_eq!(kept.len(), candidates.len());
        }
    }

    #[test]
    fn what_a_rule_keeps_more_rules_keep_too(candidates in candidates(true), keep in rules(), more in rules()) {
        let sum = Rules {
            last: keep.last + more.last,
            hourly: keep.hourly + more.hourly,
            daily: keep.daily + more.daily,
            weekly: keep.weekly + more.weekly,
            monthly: keep.monthly + more.monthly,
            yearly: keep.yearly + more.yearly,
            within: keep.within.max(more.within),
            window: None,
            tags: keep.tags.union(&more.tags).cloned().collect(),
        };
        let few: BTreeSet<u64> = kept(&policy(keep), &candidates).into_iter().collect();
        let many: BTreeSet<u64> = kept(&policy(sum), &candidates).into_iter().collect();
        // A window that grows begins with another backup; the old beginning lies inside it.
        prop_assert!(few.is_subset(&many), "{few:?} {many:?}");
    }

    #[test]
    fn a_second_run_finds_nothing_more(candidates in candidates(false), keep in rules()) {
        let policy = policy(keep);
        let first = kept(&policy, &candidates);
        let rest: Vec<Candidate> = candidates.into_iter().filter(|candidate| first.contains(&candidate.seq)).collect();
        prop_assert_eq!(kept(&policy, &rest), first);
    }

    #[test]
    fn every_backup_gets_a_reason(candidates in candidates(true), keep in rules()) {
        for verdict in decide(&policy(keep), NOW_US, &plain, &candidates) {
            prop_assert!(!verdict.why().is_empty());
            prop_assert_eq!(verdict.keeps(), verdict.goes.is_empty());
        }
    }
}

#[test]
fn a_recovery_window_keeps_what_it_needs_and_counts_do_the_rest() {
    let rules = policy(Rules {
        last: 1,
        window: Some(Duration::from_secs(3 * 86_400)),
        ..Rules::default()
    });
    // Without a log every backup is a moment of its own, and the window begins with the one in front of it.
    let mut candidates = daily(6);
    assert_eq!(kept(&rules, &candidates), [2, 3, 4, 5, 6]);
    assert!(verdict_of(&rules, &candidates, 1).why().contains("older than 3d"));
    // With one, only what it needs.
    for candidate in &mut candidates {
        candidate.window = InWindow::Free;
    }
    candidates[1].window = InWindow::Needed(Needed::Begins);
    candidates[3].window = InWindow::Needed(Needed::Continues);
    assert_eq!(kept(&rules, &candidates), [2, 4, 6]);
    let stays = |seq| verdict_of(&rules, &candidates, seq).stays;
    assert!(matches!(stays(2).as_slice(), [Stays::BeginsWindow(_)]), "{:?}", stays(2));
    assert!(matches!(stays(4).as_slice(), [Stays::ContinuesWindow(_)]), "{:?}", stays(4));
    assert!(verdict_of(&rules, &candidates, 5).why().contains("no moment of the window"));
}

/// PG-11.
#[test]
fn pg_11_the_newest_backup_without_damaged_pages_stays() {
    let rules = policy(Rules {
        last: 1,
        ..Rules::default()
    });
    let mut candidates = daily(6);
    for candidate in &mut candidates[3..] {
        candidate.bad_pages = 2;
    }
    assert_eq!(kept(&rules, &candidates), [3, 6]);
    assert_eq!(verdict_of(&rules, &candidates, 3).stays, [Stays::LastClean]);
    candidates.push(backup(7, NOW_US + 1));
    assert_eq!(kept(&rules, &candidates), [7], "a clean one is there again");
}
