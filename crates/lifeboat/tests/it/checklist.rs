//! Checklists, and the answer for monitoring, by the real binary.

use serde_json::Value;

use crate::golden::keeps;
use crate::world::{Ran, World};

/// A system with a schedule and a checklist, and a backup that was restored once.
fn world() -> World {
    let world = World::protected();
    world.edit_config(
        "    components:",
        "    checklists:\n      quarterly:\n        - { fact: backup_fresh }\n        - { fact: encrypted }\n        - { fact: key_proven }\n        - { fact: proven, within: 7d }\n        - { fact: retention_held }\n        - { fact: off_site_copy }\n        - { fact: alerts }\n        - { attest: the team is trained, valid: 90d }\n        - { attest: the key is in the safe }\n    components:",
    );
    world
}

/// `LINE HOLDS`, and why.
fn lines(ran: &Ran) -> Vec<(String, bool, String)> {
    let lists = ran.json("checklists");
    keeps("checklists", &lists);
    let items = lists["checklists"][0]["items"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    items
        .iter()
        .map(|item| (text(&item["item"]), item["holds"].as_bool().unwrap(), text(&item["says"])))
        .collect()
}

fn held(ran: &Ran) -> Vec<String> {
    let lines = lines(ran).into_iter();
    lines.filter(|(_, holds, _)| *holds).map(|(line, ..)| line).collect()
}

#[test]
fn what_is_not_known_does_not_hold_and_what_people_say_is_kept() {
    let world = world();
    let asked = |code| world.run(&["checklist", "--json"]).ends(code);
    // Nobody wrote down when backups are made. What was proven lies in the state folder, and is nothing without it.
    assert_eq!(held(&asked(4)), ["encrypted", "key_proven", "proven"]);
    std::fs::remove_dir_all(world.state_dir().join("proofs")).unwrap();
    assert_eq!(held(&asked(4)), ["encrypted", "key_proven"]);
    std::fs::rename(world.path("lifeboat-backups"), world.path("away")).unwrap();
    assert_eq!(held(&asked(4)), ["encrypted"]);
    std::fs::rename(world.path("away"), world.path("lifeboat-backups")).unwrap();
    world.edit_config("backup: {", "backup: { every: 1h, alert_after: 3h,");
    assert_eq!(held(&asked(4)), ["backup_fresh", "encrypted", "key_proven", "alerts"]);
    world.run(&["verify", "--level", "restore"]).ends(0);
    assert_eq!(
        held(&asked(4)),
        ["backup_fresh", "encrypted", "key_proven", "proven", "alerts"]
    );
    // What a person says, by number and by text.
    let ticked = world
        .run(&[
            "checklist",
            "tick",
            "shop/quarterly",
            "8",
            "--by",
            "ada",
            "--note",
            "course of May",
            "--json",
        ])
        .ends(0)
        .json("checklist-tick");
    keeps("checklist-tick", &ticked);
    assert_eq!(ticked["item"], "the team is trained");
    world
        .run(&["checklist", "tick", "shop/quarterly", "the key is in the safe", "--failed"])
        .ends(0);
    let lists = asked(4);
    assert!(held(&lists).contains(&"the team is trained".to_owned()));
    let says = |wanted: &str| lines(&lists).into_iter().find(|(line, ..)| line == wanted).unwrap().2;
    assert!(
        says("the team is trained").contains("ada said so"),
        "{}",
        says("the team is trained")
    );
    assert!(says("the team is trained").contains("course of May"));
    assert!(says("the key is in the safe").contains("not so"));
    let records = world
        .run(&["audit", "list", "--verb", "attest", "--json"])
        .ends(0)
        .json("audit-list");
    let records = records["components"][0]["records"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["facts"]["result"]["item"], "the team is trained");
    assert_eq!(records[0]["facts"]["result"]["who"], "ada");
    // For people.
    let text = world.run(&["checklist", "shop/quarterly"]).ends(4).stdout;
    assert!(text.contains("not ready"), "{text}");
    assert!(text.contains("no off-site store holds the newest backup"), "{text}");
}

#[test]
fn what_has_expired_does_not_hold_and_a_list_where_all_holds_is_ready() {
    let world = World::protected();
    world.edit_config(
        "    components:",
        "    checklists: { daily: [{ attest: it is well, valid: 1h }] }\n    components:",
    );
    world.run(&["checklist"]).ends(4);
    world.run(&["checklist", "tick", "shop/daily", "1", "--by", "ada"]).ends(0);
    let ready = world.run(&["checklist"]).ends(0).stdout;
    assert!(ready.contains("ready") && !ready.contains("not ready"), "{ready}");
    // Two hours pass.
    let said = world.state_dir().join("attestations/000000.json");
    let mut file: Value = serde_json::from_slice(&std::fs::read(&said).unwrap()).unwrap();
    file["at_us"] = (file["at_us"].as_i64().unwrap() - 7_200_000_000).into();
    std::fs::write(&said, file.to_string()).unwrap();
    let expired = world.run(&["checklist"]).ends(4).stdout;
    assert!(expired.contains("it has expired"), "{expired}");
    // Said anew, it holds; what is damaged is not guessed.
    world.run(&["checklist", "tick", "shop/daily", "it is well"]).ends(0);
    world.run(&["checklist"]).ends(0);
    std::fs::write(&said, "{").unwrap();
    let damaged = world.run(&["checklist"]).ends(5);
    assert!(damaged.stderr.contains("000000.json"), "{}", damaged.stderr);
}

/// How many ticks came back for each component.
fn rebuilt(world: &World) -> Vec<u64> {
    let rebuilt = world.run(&["catalog", "rebuild", "--json"]).ends(0).json("catalog-rebuild");
    let components = rebuilt["components"].as_array().unwrap();
    components.iter().map(|one| one["attestations"].as_u64().unwrap()).collect()
}

/// What was said, by the files that hold it.
fn said(world: &World) -> Vec<Value> {
    let files = std::fs::read_dir(world.state_dir().join("attestations")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    paths
        .iter()
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        .collect()
}

#[test]
fn what_people_said_comes_back_from_the_ledger() {
    let world = World::protected();
    world.make_database("other.db", 10);
    world.edit_config(
        "    components:",
        &format!(
            "    checklists: {{ daily: [{{ attest: it is well, valid: 1h }}, {{ attest: the key is in the safe }}] }}\n    components:\n      other:\n        sqlite: {{ path: {} }}\n        backup: {{ to: [disk], encrypt: main }}",
            world.shown("other.db")
        ),
    );
    let note = ["--by", "ada", "--note", "course of May"];
    world
        .run(&[&["checklist", "tick", "shop/daily", "1"][..], &note].concat())
        .ends(0);
    world
        .run(&["checklist", "tick", "shop/daily", "2", "--failed", "--by", "bob"])
        .ends(0);
    let before = said(&world);
    assert_eq!(before.len(), 2);
    // Nothing is lost, nothing comes back.
    assert_eq!(rebuilt(&world), [0, 0]);
    std::fs::remove_dir_all(world.state_dir().join("attestations")).unwrap();
    assert_eq!(held(&world.run(&["checklist", "--json"]).ends(4)), [""; 0]);
    // Both components have a record of each tick.
    let text = world.run(&["catalog", "rebuild"]).ends(0).stdout;
    assert!(
        text.contains("2 ticks of a checklist that this machine did not know"),
        "{text}"
    );
    assert!(text.contains("0 ticks of a checklist"), "{text}");
    assert_eq!(said(&world), before);
    let list = world.run(&["checklist", "--json"]).ends(4);
    assert_eq!(held(&list), ["it is well"]);
    assert!(
        list.stdout.contains("ada said so") && list.stdout.contains("course of May"),
        "{}",
        list.stdout
    );
    assert_eq!(rebuilt(&world), [0, 0]);
    assert_eq!(said(&world), before);
    // One file that cannot be understood: it is not guessed, and comes back.
    let first = world.state_dir().join("attestations/000000.json");
    std::fs::write(&first, "{").unwrap();
    let damaged = world.run(&["catalog", "rebuild"]).ends(5);
    assert!(
        damaged.stderr.contains("000000.json") && damaged.stderr.contains("catalog rebuild"),
        "{}",
        damaged.stderr
    );
    std::fs::remove_file(&first).unwrap();
    assert_eq!(rebuilt(&world), [1, 0]);
    // The whole state folder, the signing key too.
    std::fs::remove_dir_all(world.state_dir()).unwrap();
    assert_eq!(rebuilt(&world), [2, 0]);
    assert_eq!(said(&world), before);
}

#[test]
fn only_what_people_say_can_be_ticked() {
    let world = world();
    for (words, says) in [
        (["shop/quarterly", "1"], "is a fact"),
        (["shop/quarterly", "10"], "none of its lines"),
        (["shop/quarterly", "0"], "none of its lines"),
        (["shop/quarterly", "the team"], "none of its lines"),
        (["shop/daily", "1"], "there are shop/quarterly"),
        (["other", "1"], "there are shop/quarterly"),
    ] {
        let refused = world.run(&[&["checklist", "tick"][..], &words].concat()).ends(2);
        assert!(refused.stderr.contains(says), "{words:?}: {}", refused.stderr);
    }
    assert!(!world.state_dir().join("attestations").exists());
    let none = World::protected().run(&["checklist"]).ends(2);
    assert!(none.stderr.contains("has no checklists"), "{}", none.stderr);
}

#[test]
fn monitoring_gets_one_line_and_one_of_four_codes() {
    let world = World::protected();
    let line = |code: i32| {
        let ran = world.run(&["status", "--nagios"]).ends(code);
        assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
        ran.stdout
    };
    std::fs::rename(world.path("lifeboat-backups"), world.path("away")).unwrap();
    let none = line(2);
    assert!(none.starts_with("LIFEBOAT CRITICAL - shop/db is not ready: "), "{none}");
    std::fs::rename(world.path("away"), world.path("lifeboat-backups")).unwrap();
    std::fs::remove_dir_all(world.state_dir().join("proofs")).unwrap();
    let unproven = line(1);
    assert!(unproven.starts_with("LIFEBOAT WARNING - shop/db is at risk: "), "{unproven}");
    world.run(&["verify", "--level", "restore"]).ends(0);
    let good = line(0);
    assert!(
        good.starts_with("LIFEBOAT OK - 1 of 1 can be recovered as promised | 'shop/db loss'="),
        "{good}"
    );
    assert!(
        good.contains("'shop/db restore'=") && good.contains("'shop/db backups'=1;;;0"),
        "{good}"
    );
    let unknown = world.run(&["status", "nobody", "--nagios"]).ends(3);
    assert!(unknown.stdout.starts_with("LIFEBOAT UNKNOWN - "), "{}", unknown.stdout);
    world.write("lifeboat.yaml", "version: [");
    assert!(line(3).starts_with("LIFEBOAT UNKNOWN - "));
    world.run(&["status", "--nagios", "--json"]).ends(2);
}
