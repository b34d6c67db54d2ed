//! Schedules, drills, scenarios and checklists: what is accepted, and what is refused.

use std::time::Duration;

use lifeboat_ops::proof::Level;

use super::super::plan::{DrillPoint, Fact, Item, When, interval};
use super::{GOOD, assert_refused, read, with};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The good configuration with this in the backup of `sortie/db`.
fn scheduled(keys: &str) -> String {
    with("encrypt: main }", &format!("encrypt: main, {keys} }}"))
}

/// The good configuration with this beside the components of `sortie`.
fn planned(keys: &str) -> String {
    with("    components:\n", &format!("    {keys}\n    components:\n"))
}

#[test]
fn schedules_arrive() {
    let settings = read(&scheduled("at: '0 2 * * *', alert_after: 25h")).unwrap();
    let db = &settings.components[1];
    assert_eq!(interval(&db.schedules), Some(DAY));
    assert_eq!((db.alert_after, db.schedules[0].name.as_str()), (Some(HOUR * 25), ""));
    assert!(!settings.names_timezone);

    let several = "schedules: { often: { every: 6h, tag: often }, rarely: { at: 0 3 * * sun, to: [disk], alert_after: 8d } }";
    let settings = read(&scheduled(several)).unwrap();
    let db = &settings.components[1];
    assert_eq!(interval(&db.schedules), Some(HOUR * 6));
    let names: Vec<&str> = db.schedules.iter().map(|schedule| schedule.name.as_str()).collect();
    assert_eq!(names, ["often", "rarely"]);
    assert_eq!(db.schedules[0].when, When::Every(HOUR * 6));
    assert_eq!(db.schedules[1].stores, ["disk"]);
    assert_eq!(interval(&read(GOOD).unwrap().components[0].schedules), None);
}

#[test]
fn what_is_proven_again_and_again_arrives() {
    let with_verify = |keys: &str| with("encrypt: main }", &format!("encrypt: main }}\n        verify: {{ {keys} }}"));
    let settings = read(&with_verify(
        "hash: { every: 1d, budget: 20GiB }, app: { every: 30d }, decrypt: { every: 7d }",
    ))
    .unwrap();
    let db = settings
        .components
        .iter()
        .find(|component| !component.verifications.is_empty())
        .unwrap();
    let all: Vec<_> = db
        .verifications
        .iter()
        .map(|wanted| (wanted.level, wanted.every, wanted.budget_bytes))
        .collect();
    let wanted = [
        (Level::Hash, DAY, Some(20 << 30)),
        (Level::Decrypt, DAY * 7, None),
        // Nothing more than a restore checks is asked of it.
        (Level::Restore, DAY * 30, None),
    ];
    assert_eq!(all, wanted);
    assert!(read(GOOD).unwrap().components[0].verifications.is_empty());
    for (name, text) in [
        ("verify-budget-nothing", with_verify("hash: { every: 1d, budget: 0B }")),
        ("verify-budget-what", with_verify("hash: { every: 1d, budget: some }")),
        ("verify-never", with_verify("app: { every: 0s }")),
        ("verify-unknown", with_verify("deep: { every: 1d }")),
    ] {
        assert_refused(name, text.as_bytes());
    }
}

#[test]
fn contacts_arrive_in_their_order() {
    let settings = read(&planned(
        "contacts: { hosting: support@example.com, database: ' Ada, 4711 ' }",
    ))
    .unwrap();
    let own = |role: &str, contact: &str| (role.to_owned(), contact.to_owned());
    let wanted = vec![own("hosting", "support@example.com"), own("database", "Ada, 4711")];
    assert!(settings.plans.values().any(|plan| plan.contacts == wanted));
    assert_refused("contact-empty", planned("contacts: { hosting: ' ' }").as_bytes());
}

#[test]
fn drills_scenarios_and_checklists_arrive() {
    let text = planned(
        "drills: { monthly: { at: '0 14 * * friL', point: random, from: disk, phases: { restore: 30m, checks: 10m, also: 1m }, manual: [it loads], checklist: before, rpo: 0s } }\n    \
         scenarios: { lost: { rto: 4h, restore: [queue, sortie/db], point: any, manual: [call somebody] } }\n    \
         checklists: { before: [{ fact: encrypted }, { fact: proven, within: 30d }, { attest: trained, valid: 90d }] }",
    );
    let settings = read(&text).unwrap();
    let plan = &settings.plans["sortie"];
    let drill = &plan.drills["monthly"];
    assert_eq!(
        drill.components,
        ["sortie/queue", "sortie/db"],
        "all of them, in the order of recovery"
    );
    assert_eq!((drill.point, drill.rpo), (DrillPoint::Random, Some(Duration::ZERO)));
    let phases: Vec<&str> = drill.phases.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(phases, ["restore", "checks", "also"], "as they were written");
    let scenario = &plan.scenarios["lost"];
    assert_eq!(scenario.restore, ["sortie/queue", "sortie/db"]);
    assert!(scenario.any_moment);
    assert_eq!(
        plan.checklists["before"],
        [
            Item::Fact(Fact::Encrypted),
            Item::Fact(Fact::Proven(DAY * 30)),
            Item::Attest {
                text: "trained".into(),
                valid: Some(DAY * 90)
            },
        ]
    );
}

#[test]
fn stores_are_off_site_where_they_are_usually() {
    let text = with(
        "  disk:",
        "  nas: { fs: { path: /mnt/nas, off_site: true } }\n  near: { s3: { bucket: b, off_site: false } }\n  far: { gcs: { bucket: c } }\n  disk:",
    );
    let settings = read(&text).unwrap();
    let off_site: Vec<(&str, bool)> = settings
        .stores
        .values()
        .map(|store| (store.name.as_str(), store.off_site))
        .collect();
    assert_eq!(off_site, [("disk", false), ("far", true), ("nas", true), ("near", false)]);
}

#[test]
fn wrong_plans_say_what_is_wrong() {
    let cases = [
        ("schedule-not-cron", scheduled("at: 2 o clock")),
        ("schedule-both", scheduled("at: '0 2 * * *', every: 6h")),
        ("schedule-zero", scheduled("every: 0h")),
        (
            "schedule-beside-schedules",
            scheduled("every: 6h, schedules: { a: { every: 1d } }"),
        ),
        ("schedule-empty", scheduled("schedules: { a: { tag: x } }")),
        (
            "schedule-method",
            scheduled("schedules: { a: { every: 6h, method: logical } }"),
        ),
        ("schedule-store", scheduled("schedules: { a: { every: 6h, to: [tape] } }")),
        ("writers-zero", with("max_stall: 3s", "max_stall: 3s, writers: 0")),
        ("drill-point", planned("drills: { a: { point: newest } }")),
        ("drill-store", planned("drills: { a: { from: dsk } }")),
        ("drill-checklist", planned("drills: { a: { checklist: none } }")),
        ("scenario-point", planned("scenarios: { a: { point: some } }")),
        (
            "checklist-both",
            planned("checklists: { a: [{ fact: encrypted, attest: x }] }"),
        ),
        ("checklist-fact", planned("checklists: { a: [{ fact: encrypt }] }")),
        ("checklist-proven", planned("checklists: { a: [{ fact: proven }] }")),
        (
            "checklist-within",
            planned("checklists: { a: [{ fact: alerts, within: 3d }] }"),
        ),
        ("checklist-valid", planned("checklists: { a: [{ fact: alerts, valid: 3d }] }")),
        ("off-site-not-bool", with("min_free: 5%", "off_site: perhaps")),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}
