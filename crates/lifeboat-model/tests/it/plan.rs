//! Every rule about plans: what it finds, and the nearest plan in which it finds nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat_model::plan::{
    Code, Component, Drill, Finding, Kind, Plan, Point, RULES, Scenario, Schedule, Severity, Store, System, Time, Times,
    allowed_age, judge, span,
};
use lifeboat_model::retention::Rules;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A plan in which nothing is wrong: a database every six hours, in a folder and a bucket, rehearsed each month.
fn good() -> Plan {
    Plan {
        components: vec![component("shop/db")],
        stores: vec![store("disk", false), store("bucket", true)],
        systems: vec![System {
            name: "shop".into(),
            not_backed_up: vec!["cache".into()],
            drills: vec![drill("monthly")],
            scenarios: vec![scenario("lost")],
            proven_within: vec![("before".into(), DAY * 31)],
        }],
        names_time_zone: true,
    }
}

fn component(name: &str) -> Component {
    Component {
        name: name.into(),
        kind: Kind::Sqlite,
        has_log: false,
        writers: 1,
        encrypted: true,
        rpo: Some(HOUR * 12),
        rto: Some(HOUR),
        priority: (1, "high"),
        depends_on: Vec::new(),
        stores: vec!["disk".into(), "bucket".into()],
        schedules: vec![schedule("")],
        alert_after: Some(HOUR * 7),
        keep: Some(Rules {
            daily: 7,
            within: Some(DAY * 120),
            ..Rules::default()
        }),
        times: Times {
            interval: Some(HOUR * 6),
            restore: Some(Time {
                takes: MINUTE * 10,
                basis: "measured".into(),
            }),
            ..Times::default()
        },
        holds_record: false,
    }
}

fn schedule(name: &str) -> Schedule {
    Schedule {
        name: name.into(),
        says: "at 0 */6 * * *".into(),
        gaps: Some((HOUR * 6, HOUR * 6)),
        has_times: true,
        method: String::new(),
        tag: None,
        stores: vec!["disk".into(), "bucket".into()],
        alert_after: None,
    }
}

/// A rarer schedule beside the usual one.
fn weekly() -> Schedule {
    Schedule {
        says: "at 0 3 * * 0".into(),
        gaps: Some((DAY * 7, DAY * 7)),
        ..schedule("weekly")
    }
}

fn store(name: &str, off_site: bool) -> Store {
    Store {
        name: name.into(),
        off_site,
        cold: None,
    }
}

fn drill(name: &str) -> Drill {
    Drill {
        name: name.into(),
        says: "at 0 6 1 * *".into(),
        gaps: Some((DAY * 28, DAY * 31)),
        never_fires: false,
        components: vec!["shop/db".into()],
        point: Point::Latest,
        from: Some("bucket".into()),
        phases: vec![("restore".into(), MINUTE * 30), ("checks".into(), MINUTE * 30)],
        manual: Vec::new(),
        rpo: None,
        rto: None,
    }
}

fn scenario(name: &str) -> Scenario {
    Scenario {
        name: name.into(),
        rpo: Some(HOUR * 12),
        rto: Some(HOUR * 2),
        restore: vec!["shop/db".into()],
        point: Point::Backup,
        from: Some("bucket".into()),
    }
}

type Change = fn(&mut Plan);

/// A rule, what breaks it, and the nearest change that does not.
const CASES: &[(Code, Change, Change)] = &[
    // The promise is the interval itself; with the runs it holds.
    (
        Code::RpoMissed,
        |plan| plan.components[0].rpo = Some(HOUR * 6),
        |plan| plan.components[0].rpo = Some(HOUR * 6 + MINUTE * 60),
    ),
    // The run alone breaks it.
    (
        Code::RpoMissed,
        |plan| {
            plan.components[0].rpo = Some(HOUR * 7);
            plan.components[0].times.run = Time::assumed(HOUR);
        },
        |plan| {
            plan.components[0].rpo = Some(HOUR * 7);
            plan.components[0].times.run = Time::assumed(MINUTE * 50);
        },
    ),
    // The night of 25 hours breaks it.
    (
        Code::RpoMissed,
        |plan| {
            plan.components[0].rpo = Some(HOUR * 7);
            plan.components[0].times.clocks_back = HOUR;
        },
        |plan| plan.components[0].rpo = Some(HOUR * 7),
    ),
    // Log makes the interval irrelevant, but not its own way to the store.
    (
        Code::RpoMissed,
        |plan| {
            plan.components[0].has_log = true;
            plan.components[0].rpo = Some(MINUTE);
            plan.components[0].times.lag = Time::assumed(MINUTE * 2);
        },
        |plan| {
            plan.components[0].has_log = true;
            plan.components[0].rpo = Some(MINUTE * 2);
            plan.components[0].times.lag = Time::assumed(MINUTE * 2);
        },
    ),
    // A drill that promises no loss at all; a scenario that promises more than the schedule.
    (
        Code::RpoMissed,
        |plan| plan.systems[0].drills[0].rpo = Some(Duration::ZERO),
        |plan| plan.systems[0].drills[0].rpo = Some(HOUR * 7),
    ),
    (
        Code::RpoMissed,
        |plan| plan.systems[0].scenarios[0].rpo = Some(HOUR * 6),
        |plan| plan.systems[0].scenarios[0].rpo = Some(HOUR * 7),
    ),
    (
        Code::RtoMissed,
        |plan| plan.components[0].times.restore = Some(Time::assumed(MINUTE * 61)),
        |plan| plan.components[0].times.restore = Some(Time::assumed(MINUTE * 60)),
    ),
    (
        Code::RtoMissed,
        |plan| plan.systems[0].scenarios[0].rto = Some(MINUTE * 9),
        |plan| plan.systems[0].scenarios[0].rto = Some(MINUTE * 10),
    ),
    (
        Code::DrillOverRto,
        |plan| plan.systems[0].drills[0].phases.push(("failover".into(), MINUTE)),
        |plan| {
            plan.systems[0].drills[0].phases.push(("failover".into(), MINUTE));
            plan.systems[0].drills[0].rto = Some(MINUTE * 61);
        },
    ),
    (
        Code::AlarmAfterObjective,
        |plan| plan.components[0].alert_after = Some(HOUR * 13),
        |plan| plan.components[0].alert_after = Some(HOUR * 12),
    ),
    (
        Code::AlarmTooEarly,
        |plan| plan.components[0].alert_after = Some(HOUR * 6),
        |plan| plan.components[0].alert_after = Some(HOUR * 6 + MINUTE * 15),
    ),
    (
        Code::NoAlarm,
        |plan| plan.components[0].alert_after = None,
        |plan| {
            plan.components[0].alert_after = None;
            plan.components[0].schedules[0].alert_after = Some(HOUR * 7);
        },
    ),
    (
        Code::AlarmHidesSchedule,
        |plan| {
            let mut rare = weekly();
            rare.stores = vec!["bucket".into()];
            plan.components[0].schedules[0].alert_after = Some(HOUR * 7);
            plan.components[0].schedules.push(rare);
        },
        |plan| {
            let mut rare = weekly();
            rare.stores = vec!["bucket".into()];
            rare.alert_after = Some(DAY * 8);
            plan.components[0].schedules[0].alert_after = Some(HOUR * 7);
            plan.components[0].schedules.push(rare);
        },
    ),
    (
        Code::NoSchedule,
        |plan| {
            plan.components[0].schedules.clear();
            plan.components[0].times.interval = None;
        },
        |plan| {
            plan.components[0].schedules.clear();
            plan.components[0].times.interval = None;
            plan.components[0].rpo = None;
        },
    ),
    (
        Code::NeverFires,
        |plan| plan.components[0].schedules[0].gaps = None,
        |plan| plan.components[0].schedules[0].gaps = Some((DAY, DAY * 7)),
    ),
    (
        Code::NeverFires,
        |plan| plan.systems[0].drills[0].never_fires = true,
        |plan| plan.systems[0].drills[0].never_fires = false,
    ),
    (
        Code::RunsOverlap,
        |plan| plan.components[0].schedules[0].gaps = Some((MINUTE * 4, HOUR * 6)),
        |plan| plan.components[0].schedules[0].gaps = Some((MINUTE * 5, HOUR * 6)),
    ),
    (
        Code::NoTimeZone,
        |plan| plan.names_time_zone = false,
        |plan| {
            plan.names_time_zone = false;
            plan.components[0].schedules[0].has_times = false;
        },
    ),
    (
        Code::SameScheduleTwice,
        |plan| {
            plan.components[0].schedules[0].alert_after = Some(HOUR * 7);
            plan.components[0].schedules.push(weekly());
            plan.components[0].schedules[1].alert_after = Some(DAY * 8);
        },
        |plan| {
            plan.components[0].schedules[0].alert_after = Some(HOUR * 7);
            plan.components[0].schedules.push(weekly());
            plan.components[0].schedules[1].alert_after = Some(DAY * 8);
            plan.components[0].schedules[1].tag = Some("weekly".into());
            plan.components[0].keep.as_mut().unwrap().tags.insert("weekly".into());
        },
    ),
    // A tag that no rule keeps tells nothing apart; another method does.
    (
        Code::SameScheduleTwice,
        |plan| {
            plan.components[0].schedules.push(weekly());
            plan.components[0].schedules[1].tag = Some("weekly".into());
        },
        |plan| {
            plan.components[0].schedules.push(weekly());
            plan.components[0].schedules[1].method = "logical".into();
        },
    ),
    (
        Code::TierWithoutProducer,
        |plan| {
            plan.components[0].keep.as_mut().unwrap().tags.insert("monthly".into());
        },
        |plan| {
            plan.components[0].keep.as_mut().unwrap().tags.insert("monthly".into());
            plan.components[0].schedules[0].tag = Some("monthly".into());
        },
    ),
    (
        Code::TierWithoutProducer,
        |plan| plan.components[0].keep.as_mut().unwrap().hourly = 24,
        |plan| plan.components[0].keep.as_mut().unwrap().hourly = 1,
    ),
    (
        Code::ClearBackups,
        |plan| plan.components[0].encrypted = false,
        |plan| plan.components[0].encrypted = true,
    ),
    (
        Code::NoOffSite,
        |plan| plan.stores[1].off_site = false,
        |plan| plan.stores[0].off_site = true,
    ),
    (
        Code::OffSiteBehind,
        |plan| {
            let mut rare = weekly();
            rare.stores = vec!["bucket".into()];
            plan.components[0].schedules[0].stores = vec!["disk".into()];
            plan.components[0].schedules.push(rare);
        },
        |plan| {
            let mut rare = weekly();
            rare.stores = vec!["disk".into()];
            plan.components[0].schedules[0].stores = vec!["bucket".into()];
            plan.components[0].schedules.push(rare);
        },
    ),
    (
        Code::StoreNeverFilled,
        |plan| plan.stores.push(store("tape", true)),
        |plan| {
            plan.stores.push(store("tape", true));
            plan.components[0].stores.push("tape".into());
            plan.components[0].schedules[0].stores.push("tape".into());
        },
    ),
    (
        Code::RestoresFromNowhere,
        |plan| {
            plan.stores.push(store("tape", true));
            plan.systems[0].scenarios[0].from = Some("tape".into());
        },
        |plan| plan.systems[0].scenarios[0].from = Some("disk".into()),
    ),
    (
        Code::RestoresFromNowhere,
        |plan| plan.components[0].schedules[0].stores = vec!["disk".into()],
        |plan| {
            plan.components[0].schedules[0].stores = vec!["disk".into()];
            plan.systems[0].scenarios[0].from = None;
            plan.systems[0].drills[0].from = Some("disk".into());
        },
    ),
    (
        Code::NoSource,
        |plan| plan.systems[0].scenarios[0].restore.push("shop/tls".into()),
        |plan| {
            plan.systems[0].scenarios[0].restore.push("shop/tls".into());
            let mut tls = component("shop/tls");
            tls.kind = Kind::Files;
            plan.systems[0].drills[0].components.push(tls.name.clone());
            plan.components.push(tls);
        },
    ),
    (
        Code::NoSource,
        |plan| plan.systems[0].drills[0].components.push("shop/cache".into()),
        |plan| plan.systems[0].drills[0].components.push("shop/db".into()),
    ),
    (
        Code::MomentWithoutLog,
        |plan| plan.systems[0].scenarios[0].point = Point::Any,
        |plan| {
            plan.systems[0].scenarios[0].point = Point::Any;
            plan.components[0].has_log = true;
        },
    ),
    (
        Code::SeveralWriters,
        |plan| plan.components[0].writers = 2,
        |plan| {
            plan.components[0].writers = 2;
            plan.components[0].kind = Kind::Postgres;
        },
    ),
    (
        Code::RecordInside,
        |plan| plan.components[0].holds_record = true,
        |plan| plan.components[0].holds_record = false,
    ),
    (
        Code::DrillsDisagree,
        |plan| plan.systems[0].drills.push(drill("quarterly")),
        |plan| {
            plan.systems[0].drills.push(drill("quarterly"));
            plan.systems[0].drills[1].point = Point::Random;
        },
    ),
    (
        Code::ChecklistOutpacesDrills,
        |plan| plan.systems[0].proven_within[0].1 = DAY * 30,
        |plan| plan.systems[0].proven_within[0].1 = DAY * 31,
    ),
    (
        Code::ChecklistOutpacesDrills,
        |plan| plan.systems[0].drills[0].gaps = None,
        |plan| {
            plan.systems[0].drills[0].gaps = None;
            plan.systems[0].proven_within.clear();
        },
    ),
    (
        Code::NeverDrilled,
        |plan| plan.systems[0].drills.clear(),
        |plan| {
            plan.systems[0].drills.clear();
            plan.systems[0].proven_within.clear();
            plan.components[0].rto = None;
        },
    ),
    (
        Code::ColdBreaksRto,
        |plan| {
            plan.stores[1].cold = Some((DAY * 30, "GLACIER".into()));
            plan.components[0].stores = vec!["bucket".into()];
        },
        |plan| plan.stores[1].cold = Some((DAY * 30, "GLACIER".into())),
    ),
    (
        Code::ColdBreaksRto,
        |plan| {
            plan.stores[1].cold = Some((DAY * 30, "GLACIER".into()));
            plan.components[0].stores = vec!["bucket".into()];
        },
        |plan| {
            plan.stores[1].cold = Some((DAY * 30, "GLACIER_IR".into()));
            plan.components[0].stores = vec!["bucket".into()];
        },
    ),
    (
        Code::ColdTooShort,
        |plan| plan.stores[1].cold = Some((DAY * 31, "GLACIER".into())),
        |plan| plan.stores[1].cold = Some((DAY * 30, "GLACIER".into())),
    ),
    (
        Code::OrderAgainstDependency,
        |plan| {
            add_key(plan);
            plan.systems[0].scenarios[0].restore = vec!["shop/db".into(), "shop/key".into()];
        },
        |plan| {
            add_key(plan);
            plan.systems[0].scenarios[0].restore = vec!["shop/key".into(), "shop/db".into()];
        },
    ),
    (
        Code::PriorityAgainstDependency,
        |plan| {
            add_key(plan);
            plan.components[1].priority = (2, "normal");
        },
        add_key,
    ),
];

/// What the database depends on.
fn add_key(plan: &mut Plan) {
    plan.components.push(component("shop/key"));
    plan.components[0].depends_on.push("shop/key".into());
    plan.systems[0].drills[0].components.push("shop/key".into());
}

fn changed(change: Change) -> Vec<Finding> {
    let mut plan = good();
    change(&mut plan);
    judge(&plan)
}

fn has(findings: &[Finding], code: Code) -> bool {
    findings.iter().any(|finding| finding.code == code)
}

#[test]
fn a_good_plan_has_no_finding() {
    assert_eq!(judge(&good()), []);
}

#[test]
fn each_rule_finds_what_breaks_it_and_not_the_nearest_that_does_not() {
    for (at, (code, breaks, passes)) in CASES.iter().enumerate() {
        let found = changed(*breaks);
        assert!(has(&found, *code), "case {at}: {code:?} is not found in {found:?}");
        for finding in &found {
            assert!(!finding.subject.is_empty() && !finding.says.is_empty() && !finding.mend.is_empty());
        }
        let found = changed(*passes);
        assert!(!has(&found, *code), "case {at}: {code:?} is found in {found:?}");
    }
}

#[test]
fn no_rule_is_without_a_case_and_each_says_everything() {
    let covered: BTreeSet<Code> = CASES.iter().map(|(code, ..)| *code).collect();
    let mut words = BTreeSet::new();
    for rule in RULES {
        assert!(covered.contains(&rule.code), "{} has no case", rule.word);
        assert!(words.insert(rule.word), "{} stands twice", rule.word);
        assert_eq!(Code::named(rule.word), Some(rule.code));
        assert!(!rule.wrong.is_empty() && !rule.why.is_empty() && !rule.mend.is_empty());
    }
    assert_eq!(Code::named("no-such-rule"), None);
}

#[test]
fn the_contradictions_of_the_guides_have_rules() {
    let found: BTreeSet<u8> = RULES.iter().flat_map(|rule| rule.items).copied().collect();
    for item in [18, 25, 26, 28, 29, 33, 34, 35, 38, 42, 43, 47, 48, 49, 50, 52, 57] {
        assert!(found.contains(&item), "X-{item} has no rule");
    }
}

#[test]
fn the_worst_loss_is_interval_and_run_and_upload_and_verification() {
    let mut database = component("shop/db");
    let worst = database.worst().unwrap();
    assert_eq!(worst.loss, HOUR * 6 + MINUTE * 15);
    assert_eq!(worst.after_miss, HOUR * 12 + MINUTE * 15);
    assert_eq!(
        worst.sum,
        "6h between backups + 5m run (assumed) + 5m upload (assumed) + 5m verify (assumed)"
    );
    database.times.clocks_back = HOUR;
    assert_eq!(database.worst().unwrap().loss, HOUR * 7 + MINUTE * 15);
    database.times.interval = None;
    assert_eq!(database.worst(), None);
    database.has_log = true;
    let worst = database.worst().unwrap();
    assert_eq!((worst.loss, worst.after_miss), (MINUTE, MINUTE));
}

#[test]
fn what_reaches_a_store_is_counted_by_the_schedules_that_do() {
    let mut database = component("shop/db");
    let mut rare = weekly();
    rare.stores = vec!["bucket".into()];
    database.schedules[0].stores = vec!["disk".into()];
    database.schedules.push(rare);
    assert_eq!(database.worst_in("disk").unwrap().loss, HOUR * 6 + MINUTE * 15);
    assert_eq!(database.worst_in("bucket").unwrap().loss, DAY * 7 + MINUTE * 15);
    assert_eq!(database.worst_in("tape"), None);
    database.has_log = true;
    assert_eq!(database.worst_in("bucket").unwrap().loss, MINUTE);
}

#[test]
fn the_worst_findings_come_first() {
    let mut plan = good();
    plan.components[0].encrypted = false;
    plan.components[0].rpo = Some(HOUR);
    plan.systems[0].scenarios[0].point = Point::Any;
    let found: Vec<Severity> = judge(&plan).iter().map(Finding::severity).collect();
    assert!(found.windows(2).all(|pair| pair[0] >= pair[1]), "{found:?}");
    assert_eq!(found.first(), Some(&Severity::Refused));
}

#[test]
fn a_backup_is_missing_after_interval_run_and_grace() {
    assert_eq!(allowed_age(DAY, MINUTE * 15), DAY + MINUTE * 75);
    assert_eq!(allowed_age(HOUR, MINUTE * 15), HOUR + MINUTE * 21);
    assert_eq!(allowed_age(MINUTE * 10, MINUTE), MINUTE * 16);
}

#[test]
fn a_quarter_of_an_hour_more_than_a_day_is_not_a_day() {
    let cases = [
        (Duration::from_millis(350), "350ms"),
        (MINUTE, "1m"),
        (DAY, "24h"),
        (DAY + MINUTE * 15, "24h 15m"),
        (DAY + Duration::from_secs(1), "24h 1m"),
        (DAY * 7 + MINUTE * 15, "7d 15m"),
        (DAY * 31, "31d"),
    ];
    for (duration, says) in cases {
        assert_eq!(span(duration), says);
    }
}
