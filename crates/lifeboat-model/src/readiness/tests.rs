//! Each rule: the facts that make it speak, and the nearest that do not.

use super::*;

const NOW_US: i64 = 1_800_000_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn ago(time: Duration) -> i64 {
    NOW_US - i64::try_from(time.as_micros()).unwrap()
}

/// Ready.
fn good() -> Facts {
    Facts {
        now_us: NOW_US,
        rpo: Some(HOUR),
        rto: Some(HOUR),
        newest: Some(Newest {
            id: "7-abc".into(),
            moment_us: ago(HOUR / 2),
        }),
        restore: Some(HOUR / 2),
        proven: Some(("7-abc".into(), ago(HOUR / 4))),
        key: Some(Ok(())),
        ..Facts::default()
    }
}

/// What `change` makes of good facts.
#[track_caller]
fn says(change: impl FnOnce(&mut Facts), wanted: &[(&str, Standing)]) {
    let mut facts = good();
    change(&mut facts);
    let found = judge(&facts);
    let reasons: Vec<(&str, Standing)> = found.reasons.iter().map(|reason| (reason.code, reason.standing)).collect();
    assert_eq!(reasons, wanted, "{found:#?}");
    let worst = wanted.iter().map(|(_, standing)| *standing).max();
    assert_eq!(found.standing, worst.unwrap_or(Standing::Ready));
}

const RISK: Standing = Standing::AtRisk;

#[test]
fn good_facts_are_ready_and_nothing_known_is_not() {
    says(|_| {}, &[]);
    says(
        |facts| {
            *facts = Facts {
                now_us: NOW_US,
                unknown: Some("no store answers".into()),
                ..Facts::default()
            };
        },
        &[("unknown", Standing::NotReady)],
    );
    // Whoever has no key here restores elsewhere.
    says(|facts| facts.key = None, &[]);
    says(
        |facts| facts.key = Some(Err("wrong key".into())),
        &[("key", Standing::NotReady)],
    );
}

#[test]
fn the_age_of_what_would_come_back_is_that_of_the_backup_or_of_the_log_behind_it() {
    let newest = |age| {
        Some(Newest {
            id: "7-abc".into(),
            moment_us: ago(age),
        })
    };
    let log = |store: &str, reach| StoredLog {
        store: store.into(),
        reach,
    };
    says(|facts| facts.newest = newest(HOUR), &[]);
    let second = Duration::from_secs(1);
    says(|facts| facts.newest = newest(HOUR + second), &[("rpo", RISK)]);
    says(|facts| facts.rpo = None, &[("objectives", RISK)]);
    let with = |ends: Vec<LogReach>| {
        move |facts: &mut Facts| {
            facts.newest = newest(DAY);
            let named = ends.into_iter().zip(["a", "b", "c"]);
            facts.stored_log = named.map(|(reach, store)| log(store, reach)).collect();
        }
    };
    says(with(vec![LogReach::Until(ago(HOUR), vec![])]), &[]);
    says(with(vec![LogReach::Until(ago(HOUR + second), vec![])]), &[("rpo", RISK)]);
    // A server's clock that is ahead.
    says(with(vec![LogReach::Until(NOW_US + 1_000_000, vec![])]), &[]);
    says(with(vec![LogReach::Nothing]), &[("log_lacking", RISK), ("rpo", RISK)]);
    says(
        with(vec![LogReach::Unknown("x".into())]),
        &[("log_unknown", RISK), ("rpo", RISK)],
    );
    let ends = |behind| {
        vec![
            LogReach::Until(ago(HOUR), vec![]),
            LogReach::Until(ago(HOUR + behind), vec![]),
        ]
    };
    says(with(ends(Duration::from_secs(300))), &[]);
    says(with(ends(Duration::from_secs(301))), &[("log_behind", RISK)]);
    says(
        with(vec![LogReach::Until(ago(HOUR), vec!["1: 0/1 to 0/2".into()])]),
        &[("log_gap", RISK)],
    );
    // Nobody knows how old that is.
    says(
        |facts| {
            facts.newest = Some(Newest {
                id: "7-abc".into(),
                moment_us: NOW_US + 1,
            });
        },
        &[("clock", RISK)],
    );
    assert_eq!(loss(&Facts::default()), None);
    assert_eq!(loss(&good()), Some(Some(HOUR / 2)));
}

#[test]
fn a_proof_holds_for_its_backup_and_a_month_beyond() {
    says(|facts| facts.proven = None, &[("unproven", RISK)]);
    says(|facts| facts.proven = Some(("7-abc".into(), ago(DAY * 100))), &[]);
    says(|facts| facts.proven = Some(("6-def".into(), ago(DAY * 31))), &[]);
    says(
        |facts| facts.proven = Some(("6-def".into(), ago(DAY * 32))),
        &[("proof_old", RISK)],
    );
    says(|facts| facts.proven = Some(("6-def".into(), NOW_US + 1)), &[("clock", RISK)]);
}

#[test]
fn what_is_damaged_failed_or_late_says_so() {
    let damaged = |backup: &str| Damage {
        backup: backup.into(),
        says: "a file is gone".into(),
        renewed: false,
        marked: false,
    };
    says(
        |facts| facts.damage = vec![damaged("7-abc")],
        &[("damaged", Standing::NotReady)],
    );
    says(|facts| facts.damage = vec![damaged("6-def")], &[("damaged", RISK)]);
    let failed = FailedChecks {
        backup: "7-abc".into(),
        says: "orphans".into(),
        again: "lifeboat verify".into(),
    };
    says(|facts| facts.failed_checks = Some(failed), &[("checks", RISK)]);
    says(|facts| facts.restore = Some(HOUR), &[]);
    says(|facts| facts.restore = Some(HOUR + HOUR), &[("rto", RISK)]);
    says(
        |facts| {
            facts.archived = Some((HOUR * 5, "it lies in DEEP".into()));
        },
        &[("archived", RISK)],
    );
    let schedule = |interval| Schedule {
        interval,
        whole_run: Duration::from_secs(60),
        says: "every hour".into(),
    };
    says(|facts| facts.schedule = Some(schedule(HOUR)), &[]);
    says(
        |facts| facts.schedule = Some(schedule(Duration::from_secs(60))),
        &[("schedule", RISK)],
    );
    says(
        |facts| facts.interrupted = vec!["R1".into()],
        &[("restore_interrupted", RISK)],
    );
}

#[test]
fn stores_are_to_answer_and_to_hold_what_is_newest() {
    let away = |is_empty| Away {
        store: "s3".into(),
        is_empty,
        says: "no route".into(),
    };
    says(
        |facts| facts.away = vec![away(false), away(true)],
        &[("store_away", RISK), ("store_away", RISK)],
    );
    says(
        |facts| facts.lacking = vec![("s3".into(), "7-abc".into())],
        &[("copy_missing", RISK)],
    );
    says(
        |facts| facts.rejected = vec!["bad".into(), "worse".into()],
        &[("rejected", RISK)],
    );
    says(|facts| facts.vanished = Some("8-fff".into()), &[("vanished", RISK)]);
}

#[test]
fn followed_log_is_to_be_stored_and_not_to_pile_up() {
    let log = FollowedLog {
        stored_us: ago(HOUR),
        slot_lag: Some(100),
        max_slot_lag: 100,
        spool_bytes: 80,
        max_spool: 100,
    };
    let with = |change: fn(&mut FollowedLog)| {
        let mut log = log.clone();
        change(&mut log);
        move |facts: &mut Facts| facts.log = Some(log)
    };
    says(with(|_| {}), &[]);
    says(with(|log| log.stored_us -= 1), &[("log_late", RISK)]);
    says(with(|log| log.slot_lag = Some(101)), &[("slot_lag", RISK)]);
    says(with(|log| (log.slot_lag, log.max_slot_lag) = (Some(101), 0)), &[]);
    says(with(|log| log.spool_bytes = 81), &[("spool", RISK)]);
    says(|facts| facts.refused_log = vec!["a".into()], &[("log_refused", RISK)]);
}

#[test]
fn a_pki_is_to_fit_and_not_to_end_soon() {
    let end = |left: i64| Pki {
        problems: vec![],
        ends: vec![("server.pem".into(), NOW_US / 1_000_000 + left)],
        warn: Duration::from_secs(100),
    };
    says(|facts| facts.pki = Some(end(101)), &[]);
    says(|facts| facts.pki = Some(end(100)), &[("pki_ends", RISK)]);
    says(|facts| facts.pki = Some(end(-1)), &[("pki_ended", RISK)]);
    says(
        |facts| {
            facts.pki = Some(Pki {
                problems: vec!["no key".into()],
                ..Pki::default()
            });
        },
        &[("pki", RISK)],
    );
}

#[test]
fn a_proof_that_is_wanted_again_and_again_is_late_behind_its_grace() {
    let wanted = |last_us: Option<i64>| Verification {
        level: "app".into(),
        every: DAY * 8,
        last_us,
    };
    let with = |last_us: Option<i64>| move |facts: &mut Facts| facts.verifications = vec![wanted(last_us)];
    says(with(None), &[("verification_late", RISK)]);
    says(with(Some(ago(DAY * 8))), &[]);
    says(with(Some(ago(DAY * 10) + 1)), &[]);
    says(with(Some(ago(DAY * 10))), &[("verification_late", RISK)]);
    // What was done in the future was not done.
    says(with(Some(NOW_US + 1)), &[("verification_late", RISK)]);
    // A daily run is never exactly a day behind the one before it.
    let daily = |age: Duration| Verification {
        level: "hash".into(),
        every: DAY,
        last_us: Some(ago(age)),
    };
    assert!(daily(DAY - HOUR / 60).is_due(NOW_US) && !daily(HOUR * 22).is_due(NOW_US));
    let minutely = Verification {
        every: HOUR / 60,
        ..daily(HOUR / 80)
    };
    assert!(!minutely.is_due(NOW_US));
    // A backup that is not there cannot be proven.
    let mut facts = good();
    (facts.newest, facts.verifications) = (None, vec![wanted(None)]);
    assert!(judge(&facts).reasons.iter().all(|reason| reason.code != "verification_late"));
    // Due comes before late; what was done in the future was never done.
    assert_eq!(
        wanted(Some(ago(DAY))).due_us(NOW_US),
        NOW_US + i64::try_from((DAY * 7).as_micros()).unwrap()
    );
    assert_eq!(wanted(Some(NOW_US + 1)).due_us(NOW_US), NOW_US);
    assert_eq!(wanted(None).due_us(NOW_US), NOW_US);
}
