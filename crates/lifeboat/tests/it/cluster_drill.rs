//! Drills of PostgreSQL clusters: any moment of the log, by the heartbeat, with production away (docs/drills.md).

use lifeboat_testkit::postgres::{Cluster, majors};
use serde_json::Value;

use crate::cluster_checks::{INIT, cluster, set_up};
use crate::world::{Ran, World};

fn drill(ran: &Ran) -> Value {
    ran.json("drill")["components"][0].clone()
}

fn verdict(drill: &Value, name: &str) -> String {
    let checks = drill["report"]["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name}: {drill:#}"))["verdict"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Writes a heartbeat and ships the log up to it. Returns its time.
fn beat(cluster: &Cluster, world: &World) -> String {
    cluster.query("insert into heartbeat values (clock_timestamp())");
    let sql = "select to_char(max(at) at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from heartbeat";
    let at = cluster.query(sql);
    world.run(&["follow", "--once"]);
    at
}

/// Up to which time the log reaches.
fn reached_by_time(world: &World) -> String {
    let points = world.run(&["points", "--json"]).ends(0).json("points");
    points["components"][0]["windows"][0]["to"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn a_drill_of_a_cluster_reaches_its_newest_heartbeat_while_production_is_away() {
    for major in majors() {
        let cluster = cluster(major);
        let world = set_up(&cluster);
        world
            .run(&[&INIT[..], &["--postgres", &cluster.url("postgres", "postgres")]].concat())
            .ends(0);
        let mut beats: Vec<String> = (0..2).map(|_| beat(&cluster, &world)).collect();
        // Times are reached a little later than positions: what was committed just now may still lie behind.
        while reached_by_time(&world) <= beats[1] {
            assert!(beats.len() < 100, "{beats:?}");
            beats.push(beat(&cluster, &world));
        }
        drop(cluster);
        // Without amcheck, something could not be checked.
        let (code, standing) = if major == 15 { (0, "passed") } else { (3, "incomplete") };
        let latest = drill(&world.run(&["drill", "--json"]).ends(code));
        assert_eq!(latest["standing"], standing, "{major}: {latest:#}");
        let measures = &latest["report"]["measures"];
        assert_eq!(
            (&measures["recovery_point"], &measures["recovery_point_by"]),
            (&beats[beats.len() - 1].as_str().into(), &"heartbeat".into())
        );
        for name in [
            "recovery",
            "page checksums",
            "rows",
            "all tenants",
            "isolation",
            "negative control",
        ] {
            assert_eq!(verdict(&latest, name), "passed", "{major}: {latest:#}");
        }
        let sandbox = latest["report"]["sandbox"].as_str().unwrap();
        assert!(!std::path::Path::new(sandbox).exists() && latest["report"]["cleanup"]["removed"] == true);
        // To a moment, and to drawn ones.
        let at = drill(&world.run(&["drill", "--point", &beats[1], "--json"]).ends(code));
        let reached = at["report"]["measures"]["recovery_point"].as_str().unwrap();
        assert!(
            reached <= beats[1].as_str() && reached >= beats[0].as_str(),
            "{reached} {beats:?}"
        );
        for seed in 0..if major == 15 { 4 } else { 1 } {
            let words = ["drill", "--point", "random", "--seed", &seed.to_string(), "--json"];
            let random = drill(&world.run(&words).ends(code));
            let point = &random["report"]["point"];
            assert_eq!(point["drawn_from"].as_array().unwrap().len(), 1, "{random:#}");
            let (from, to) = (
                point["drawn_from"][0][0].as_str().unwrap(),
                point["drawn_from"][0][1].as_str().unwrap(),
            );
            let asked = point["asked"].as_str().unwrap();
            assert!(from <= asked && asked <= to, "{random:#}");
            let reached = random["report"]["measures"]["recovery_point"].as_str().unwrap();
            assert!(reached <= asked, "{random:#}");
        }
        if major != 15 {
            continue;
        }
        // What the configuration wants does not hold.
        world.edit_config("equals: 500", "equals: 501");
        let failed = drill(&world.run(&["drill", "--json"]).ends(5));
        assert_eq!(
            (&failed["standing"], verdict(&failed, "all tenants").as_str()),
            (&"failed".into(), "failed")
        );
        assert!(failed["report"]["measures"]["recovery_s"].is_null(), "{failed:#}");
        // Its programs are not here.
        world.edit_config("binaries: [", "binaries: [/nowhere] # ");
        let hidden = world.run(&["drill", "--json"]);
        assert!(hidden.code != 0, "{}", hidden.stdout);
    }
}
