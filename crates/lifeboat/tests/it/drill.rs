//! Drills: restored into a sandbox, checked, measured, and written down whatever came of them (docs/drills.md).

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Ran, World};

const STORE: &str = "lifeboat-backups";

/// The report of the only component.
pub fn report(ran: &Ran) -> Value {
    ran.json("drill")["components"][0].clone()
}

fn verdicts(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["report"]["checks"].as_array().unwrap();
    checks
        .iter()
        .map(|check| (text(&check["name"]), text(&check["verdict"])))
        .collect()
}

/// Nothing of the data in the clear is left in the state folder.
#[track_caller]
fn nothing_is_left(world: &World) {
    let scratch = world.state_dir().join("scratch");
    let left = std::fs::read_dir(&scratch).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{} holds something", scratch.display());
}

#[test]
fn dr_01_02_a_drill_needs_no_production_and_says_what_it_checked() {
    let world = World::protected();
    std::fs::remove_file(world.path("shop.db")).unwrap();
    let done = report(&world.run(&["drill", "--json", "--tester", "erin"]).ends(0));
    assert_eq!(done["standing"], "passed", "{done:#}");
    let wanted = ["integrity", "foreign keys", "as captured", "isolation", "negative control"]
        .map(|name| (name.to_owned(), "passed".to_owned()));
    assert_eq!(verdicts(&done), wanted);
    let report = &done["report"];
    assert_eq!(
        (&report["who"]["tester"], &report["point"]["rule"]),
        (&"erin".into(), &"latest".into())
    );
    assert_eq!(report["measures"]["recovery_point"], report["backup"]["moment"]);
    assert_eq!(report["measures"]["recovery_point_by"], "backup");
    assert_eq!(report["cleanup"]["removed"], true);
    assert_eq!(report["program"]["sha256"].as_str().unwrap().len(), 64);
    // The clock of the recovery stops where the sandbox begins to be removed.
    let steps = report["steps"].as_array().unwrap();
    let cleaning = steps.iter().find(|step| step["name"] == "clean up").unwrap();
    assert_eq!(report["measures"]["recovery_s"], cleaning["offset_s"]);
    nothing_is_left(&world);
    let status = world.run(&["status", "--json"]);
    let proven = status.json("status")["components"][0]["proven"].clone();
    assert_eq!(proven["backup"], report["backup"]["name"], "{}", status.stdout);
}

#[test]
fn dr_03_a_drill_that_fails_leaves_evidence_too() {
    let mut world = World::protected();
    // Nothing that old.
    world.run(&["drill", "--point", "2020-01-01T00:00:00Z"]).ends(9);
    // The store is away.
    std::fs::rename(world.path(STORE), world.path("elsewhere")).unwrap();
    let away = world.run(&["drill"]);
    assert!(away.code == 10 || away.code == 13, "{} {}", away.code, away.stdout);
    std::fs::rename(world.path("elsewhere"), world.path(STORE)).unwrap();
    // A key that is not the one.
    let key = std::fs::read_to_string(world.key()).unwrap();
    world.run(&["key", "new", "other.txt"]).ends(0);
    std::fs::copy(world.path("other.txt"), world.key()).unwrap();
    world.run(&["drill"]).ends(12);
    #[expect(clippy::disallowed_methods, reason = "the key of the test")]
    std::fs::write(world.key(), key).unwrap();
    // Stored data is damaged.
    let packs = world
        .files(STORE)
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("/packs/"));
    let (path, mut bytes) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the damage of the test")]
    std::fs::write(&path, bytes).unwrap();
    world.run(&["drill"]).ends(5);
    nothing_is_left(&world);
    let table = world.run(&["drill", "report", "--table", "--json"]).ends(0).json("drills");
    let drills = table["drills"].as_array().unwrap();
    assert_eq!(drills.len(), 4);
    for drill in drills {
        assert_eq!(
            (&drill["standing"], &drill["report"]["verdict"]),
            (&"failed".into(), &"failed".into())
        );
        assert!(drill["report"]["measures"]["recovery_s"].is_null(), "{drill:#}");
        assert!(drill["report"]["error"]["says"].is_string(), "{drill:#}");
    }
    world.set_env("USER", "");
    let table = world.run(&["drill", "report", "--table"]).ends(0).stdout;
    assert_eq!(table.matches("failed: 1 issue").count(), 4, "{table}");
}

#[test]
fn dr_03_a_killed_drill_is_found_and_its_sandbox_removed() {
    let world = World::protected();
    let pipe = world.path("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = format!("identity: {{ file: {} }}", world.key().display());
    let from_pipe = format!("identity: {{ command: [cat, {}] }}", pipe.display());
    world.edit_config(&file, &from_pipe);
    let mut command = world.command();
    let mut child = command
        .args(["drill"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Opening for writing waits for the reader: the drill has begun.
    let writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    // One that is under way is nobody's to settle.
    let table = world.run(&["drill", "report", "--table", "--json"]).ends(0).json("drills");
    assert_eq!(table["drills"].as_array().unwrap().len(), 0);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    drop(writer);
    world.edit_config(&from_pipe, &file);
    let table = world.run(&["drill", "report", "--table", "--json"]).ends(0);
    assert!(table.stderr.contains("was interrupted"), "{}", table.stderr);
    let drill = table.json("drills")["drills"][0].clone();
    assert_eq!(drill["standing"], "failed");
    assert!(
        drill["report"]["error"]["says"].as_str().unwrap().contains("killed"),
        "{drill:#}"
    );
    nothing_is_left(&world);
    // The ledger hears of it by the next command that is recorded, once.
    world.run(&["verify", "--level", "list"]).ends(0);
    world.run(&["verify", "--level", "list"]).ends(0);
    let ledger = world
        .run(&["audit", "list", "--verb", "drill", "--json"])
        .ends(0)
        .json("audit-list");
    let records = ledger["components"][0]["records"].as_array().unwrap();
    assert_eq!(records.len(), 1, "{ledger:#}");
    assert_eq!(records[0]["outcome"], "interrupted");
    assert_eq!(records[0]["facts"]["killed"], true);
    // What is damaged keeps nobody from the next one.
    let damaged = world.state_dir().join("drills/20260101T000000-000000");
    std::fs::create_dir(&damaged).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the damage of the test")]
    std::fs::write(damaged.join("begun.json"), "{").unwrap();
    // It is told once.
    let again = world.run(&["drill"]).ends(0);
    assert!(again.stderr.contains("it is no evidence of a drill"), "{}", again.stderr);
    assert!(!again.stderr.contains("was interrupted"), "{}", again.stderr);
}

#[test]
fn dr_04_what_people_are_to_look_at_stays_open_until_they_say_so() {
    let world = World::protected();
    let words = ["drill", "--json", "--manual", "the page loads", "--manual", "login works"];
    let done = report(&world.run(&words).ends(0));
    assert_eq!(done["standing"], "waiting_for_people");
    let id = done["id"].as_str().unwrap();
    let end = &id[id.len() - 6..];
    world.run(&["drill", "tick", end, "nothing of the kind"]).ends(2);
    let told = world
        .run(&["drill", "tick", end, "1", "--by", "erin", "--note", "order 7 is there"])
        .ends(0);
    assert!(
        told.stdout.contains("ticked by erin") && told.stdout.contains("waiting for people"),
        "{}",
        told.stdout
    );
    world.run(&["drill", "tick", end, "login works", "--failed"]).ends(5);
    let done = world.run(&["drill", "tick", end, "2", "--json"]).ends(0).json("drill-report");
    assert_eq!(done["standing"], "passed");
    // What was said before stays, and so does the report.
    assert_eq!(done["said"].as_array().unwrap().len(), 3);
    assert_eq!(done["report"]["verdict"], "waiting_for_people");
}

#[test]
fn what_the_plan_gives_each_phase_stands_beside_what_it_took() {
    let world = World::protected();
    let plan =
        "systems:\n  shop:\n    drills:\n      quick: { at: \"0 4 * * *\", phases: { restore: 1h, checks: 1ms, deploy: 10m } }";
    world.edit_config("systems:\n  shop:", plan);
    let done = report(&world.run(&["drill", "--plan", "quick", "--json"]).ends(0));
    assert_eq!(done["standing"], "waiting_for_people", "{done:#}");
    let phases = done["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["restore", "checks", "deploy"]);
    let steps = done["report"]["steps"].as_array().unwrap();
    let recovery = steps.iter().take_while(|step| step["name"] != "clean up");
    let whole: f64 = recovery.map(|step| step["took_s"].as_f64().unwrap()).sum();
    let took = |place: usize| phases[place]["took_s"].as_f64().unwrap();
    assert!((took(0) + took(1) - whole).abs() < 1e-6, "{done:#}");
    assert!(phases[2]["took_s"].is_null());
    let id = done["id"].as_str().unwrap();
    world.run(&["drill", "tick", id, "deploy", "--took", "ages"]).ends(2);
    let told = world.run(&["drill", "tick", id, "deploy", "--took", "12m"]).ends(0).stdout;
    for part in ["phase deploy", "12m, longer than the 10m that are planned", " of 1h"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn dr_05_an_objective_that_is_missed_is_told_by_the_exit_code() {
    let world = World::protected();
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let line = config.lines().find(|line| line.contains("objectives:")).unwrap();
    world.edit_config(line.trim(), "objectives: { rpo: 24h, rto: 1ms }");
    let told = world.run(&["drill"]).ends(4);
    assert!(
        told.stdout.contains("objective missed") && told.stdout.contains("because: it took"),
        "{}",
        told.stdout
    );
    world.edit_config("rpo: 24h, rto: 1ms", "rpo: 1ms, rto: 1h");
    let told = world.run(&["drill"]).ends(4);
    assert!(told.stdout.contains("of work would have been lost"), "{}", told.stdout);
    // Of an older point, nothing is said about loss.
    let told = report(&world.run(&["drill", "--point", "random", "--json"]).ends(0));
    assert!(told["report"]["measures"]["loss_s"].is_null(), "{told:#}");
}

#[test]
fn dr_06_the_same_seed_draws_the_same_point() {
    let world = World::protected();
    for _ in 0..4 {
        world.add_rows("shop.db", 3);
        world.run(&["backup"]).ends(0);
    }
    let drawn = |seed: &str| {
        let done = report(&world.run(&["drill", "--point", "random", "--seed", seed, "--json"]).ends(0));
        assert_eq!(done["report"]["point"]["drawn_from"].as_array().unwrap().len(), 5);
        assert_eq!(done["report"]["point"]["seed"], seed);
        done["report"]["backup"]["id"].as_str().unwrap().to_owned()
    };
    let all: Vec<String> = (0..12).map(|seed| drawn(&seed.to_string())).collect();
    assert_eq!(drawn("7"), all[7]);
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert!(different.len() >= 3, "{all:?}");
    // Without one it is drawn, and told.
    let done = report(&world.run(&["drill", "--point", "random", "--json"]).ends(0));
    let seed = done["report"]["point"]["seed"].as_str().unwrap();
    assert_eq!(drawn(seed), done["report"]["backup"]["id"].as_str().unwrap());
    world.run(&["drill", "--seed", "7"]).ends(2);
}

#[test]
fn evidence_is_signed_and_stock_tools_can_tell() {
    let world = World::protected();
    let done = report(&world.run(&["drill", "--json"]).ends(0));
    let folder = done["folder"].as_str().unwrap();
    let check = format!(
        "cd '{folder}' && openssl pkeyutl -verify -pubin -inkey instance.pem -rawin -in report.json -sigfile report.json.sig"
    );
    world.shell(&check).ends(0);
    let digits = format!(
        "cd '{folder}' && openssl pkey -pubin -in instance.pem -outform DER | tail -c 32 | od -An -v -tx1 | tr -d ' \\n'"
    );
    let key = world.shell(&digits).ends(0).stdout;
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    assert!(
        key.len() == 64 && config.contains(&format!("ed25519:{key}")),
        "{key}: {config}"
    );
    let told = world.run(&["drill", "report"]).ends(0).stdout;
    assert!(told.contains("which the configuration trusts"), "{told}");
    // Somebody makes it look better.
    world
        .shell(&format!(
            "sed -i 's/\"rule\": \"latest\"/\"rule\": \"random\"/' '{folder}/report.json'"
        ))
        .ends(0);
    assert_ne!(world.shell(&check).code, 0);
    let told = world.run(&["drill", "report"]).ends(0).stdout;
    assert!(told.contains("its signature does not fit"), "{told}");
    // What cannot be read hides nothing else.
    world.run(&["drill"]).ends(0);
    world.shell(&format!("echo no > '{folder}/report.json'")).ends(0);
    let table = world.run(&["drill", "report", "--table", "--json"]).ends(0);
    assert!(table.stderr.contains("it is no evidence of a drill"), "{}", table.stderr);
    assert_eq!(table.json("drills")["drills"].as_array().unwrap().len(), 1);
}

#[test]
fn a_report_is_a_page_and_a_document() {
    let world = World::protected();
    world
        .run(&["drill", "--manual", "<b>the page</b> loads", "--tester", "erin & co"])
        .ends(0);
    world.run(&["drill", "--point", "random"]).ends(0);
    let first = world.run(&["drill", "report", "--table", "--json"]).json("drills")["drills"][0]["id"].clone();
    let page = world
        .run(&["drill", "report", first.as_str().unwrap(), "--format", "html"])
        .ends(0)
        .stdout;
    assert!(
        page.contains("&lt;b&gt;the page&lt;/b&gt;") && page.contains("erin &amp; co") && !page.contains("<b>"),
        "{page}"
    );
    assert!(
        page.contains("<svg") && !page.contains("http://") && !page.contains("<script"),
        "{page}"
    );
    let document = world.run(&["drill", "report", "--format", "markdown"]).ends(0).stdout;
    assert!(
        document.contains("| Date | Backup used | Restore time | Issues found | Tester |"),
        "{document}"
    );
    let rows = document.lines().rev().take_while(|line| line.starts_with("| 2"));
    assert_eq!(rows.count(), 2, "{document}");
    world
        .run(&["drill", "report", "--format", "html", "--to", "page.html"])
        .ends(0);
    world
        .run(&["drill", "report", "--format", "html", "--to", "page.html"])
        .ends(6);
    world.run(&["drill", "report", "none-such"]).ends(9);
}

#[test]
fn what_the_configuration_wants_of_a_database_is_asked_of_the_copy() {
    let world = World::protected();
    let connection = world.open("shop.db");
    connection
        .execute_batch("CREATE TABLE beats (at TEXT); INSERT INTO beats VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))")
        .unwrap();
    let beat: String = connection.query_row("SELECT at FROM beats", [], |row| row.get(0)).unwrap();
    connection.close().unwrap();
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let line = config
        .lines()
        .find(|line| line.trim().starts_with("sqlite:"))
        .unwrap()
        .to_owned();
    let blanks = " ".repeat(line.len() - line.trim_start().len());
    let wanted = format!(
        "{blanks}sqlite: {{ path: {}, heartbeat: SELECT max(at) FROM beats }}\n{blanks}checks:\n{blanks}  - {{ name: orders, sql: select count(*) from orders, expect: {{ at_least: 1000 }} }}\n{blanks}  - {{ orphans: {{ table: orders, column: id, references: orders, key: id }} }}",
        world.shown("shop.db")
    );
    assert!(line.contains("sqlite: {"), "{line}");
    world.edit_config(&line, &wanted);
    world.run(&["backup"]).ends(0);
    let done = report(&world.run(&["drill", "--json"]).ends(0));
    assert_eq!(
        (
            &done["report"]["measures"]["recovery_point"],
            &done["report"]["measures"]["recovery_point_by"]
        ),
        (&beat.replace('Z', "000Z").into(), &"heartbeat".into())
    );
    let names: Vec<String> = verdicts(&done).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    for name in ["orders", "heartbeat", "integrity"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    assert!(world.run(&["check", "shop"]).ends(0).stdout.contains("orders"));
    assert!(world.run(&["verify", "--level", "app"]).ends(0).stdout.contains("orders"));
    world.edit_config("at_least: 1000", "at_least: 1001");
    let told = world.run(&["drill"]).ends(5).stdout;
    assert!(told.contains("1000, expected at least 1001"), "{told}");
    world.run(&["check", "shop"]).ends(5);
    world.run(&["verify", "--level", "app"]).ends(5);
    // What was restored elsewhere is asked the same.
    world.run(&["restore", "shop", "--to", "copy.db"]).ends(0);
    world.run(&["check", "shop", "--on", "copy.db"]).ends(5);
}
