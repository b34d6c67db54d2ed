//! Each guide's restore test, as a drill of its example's plan: from the copy off the host, with its checks, and what people are to look at.

use serde_json::Value;

use super::{Guide, architect_go, devops_hub, n_kudo, sortie, tartware};

/// Does the drill of a plan. Returns the reports of its components, in their order.
#[track_caller]
fn drilled(guide: &Guide, words: &[&str], code: i32) -> Vec<Value> {
    guide.world.run(&["backup"]).ends(0);
    let done = guide
        .world
        .run(&[&["drill", "--json", "--tester", "erin"], words].concat())
        .ends(code);
    let drills = done.json("drill")["components"].as_array().unwrap().clone();
    for drill in &drills {
        let report = &drill["report"];
        assert!(
            report["backup"]["stores"][0] != "disk",
            "it was not read from the other site: {report:#}"
        );
        assert_eq!(report["cleanup"]["removed"], true, "{report:#}");
        let checks = report["checks"].as_array().unwrap();
        assert!(
            checks.len() >= 2 && checks.iter().all(|check| check["verdict"] != "failed"),
            "{report:#}"
        );
    }
    drills
}

fn names(drills: &[Value]) -> Vec<&str> {
    drills.iter().map(|drill| drill["component"].as_str().unwrap()).collect()
}

/// People look, and then it passes. The report is the guide's table, and more.
#[track_caller]
fn looked_at(guide: &Guide, drill: &Value, items: usize) {
    let id = drill["id"].as_str().unwrap();
    let manual = drill["report"]["manual"].as_array().unwrap();
    assert_eq!(manual.len(), items, "{manual:?}");
    assert_eq!(drill["standing"], "waiting_for_people");
    for number in 1..=items {
        guide
            .world
            .run(&["drill", "tick", id, &number.to_string(), "--by", "erin"])
            .ends(0);
    }
    let report = guide
        .world
        .run(&["drill", "report", id, "--format", "markdown"])
        .ends(0)
        .stdout;
    assert!(
        report.starts_with("# Drill of") && report.lines().next().unwrap().ends_with("passed"),
        "{report}"
    );
    for words in [
        "| Date | Backup used | Restore time | Issues found | Tester |",
        "| none | erin |",
        "recovery time",
        "SHA-256",
        "trusts",
    ] {
        assert!(report.contains(words), "{words}: {report}");
    }
    assert_eq!(report.matches("- [x] ").count(), items, "{report}");
}

#[test]
fn sortie_each_month_from_off_the_cluster() {
    let guide = sortie::guide();
    let drills = drilled(&guide, &["--plan", "monthly"], 0);
    assert_eq!(names(&drills), ["sortie/db"]);
    assert_eq!(drills[0]["report"]["trigger"], "sortie: monthly");
    looked_at(&guide, &drills[0], 2);
    guide.world.run(&["drill", "--plan", "yearly"]).ends(2);
}

#[test]
fn devops_hub_each_month_the_configuration_too() {
    let guide = devops_hub::guide();
    let drills = drilled(&guide, &["--plan", "monthly"], 0);
    assert_eq!(names(&drills), ["devops-hub/db", "devops-hub/config"]);
    assert_eq!(drills[0]["standing"], "passed");
    looked_at(&guide, &drills[1], 3);
}

#[test]
fn architect_go_each_day() {
    let guide = architect_go::guide();
    let drills = drilled(&guide, &["--plan", "daily"], 0);
    assert_eq!(
        (names(&drills), &drills[0]["standing"]),
        (vec!["architect-go/sqlite"], &"passed".into())
    );
    let drills = drilled(&guide, &["--plan", "monthly", "--seed", "5"], 0);
    assert_eq!(drills[0]["report"]["point"]["rule"], "random");
    // The deployment is a phase that people measure, and the review is theirs.
    let phases: Vec<&str> = drills[0]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|phase| phase["name"].as_str())
        .collect();
    assert_eq!(phases, ["restore", "deploy", "checks"]);
    looked_at(&guide, &drills[0], 2);
}

#[test]
fn n_kudo_each_quarter_with_its_authority() {
    let cluster = n_kudo::control_plane();
    let guide = n_kudo::guide(&cluster, 3650);
    let drills = drilled(&guide, &["--plan", "quarterly"], 0);
    assert_eq!(names(&drills).len(), 3);
    for drill in &drills[..2] {
        assert_eq!(drill["standing"], "passed", "{drill:#}");
    }
    looked_at(&guide, &drills[2], 3);
}

#[test]
fn tartware_each_month_from_the_bucket() {
    let cluster = tartware::tartware();
    let guide = tartware::guide(&cluster);
    let drills = drilled(&guide, &["--plan", "monthly"], 0);
    assert_eq!(names(&drills), ["tartware/db"]);
    looked_at(&guide, &drills[0], 2);
}
