//! Restores of whole systems, in order and resumed; copies that are promoted; files that are replaced on purpose.

use crate::world::World;

/// A system of two databases, of which the first in the file is recovered after the other one.
fn system() -> World {
    let world = World::with_database();
    world.make_database("b.db", 10);
    world
        .run(&["init", "--path", "shop.db", "--path", "b.db", "--system", "shop", "--yes"])
        .ends(0);
    world
}

#[test]
fn a_system_is_restored_in_order_stops_at_a_failure_and_resumes() {
    let world = system();
    let plan = world
        .run(&["restore", "shop", "--dry-run", "--json"])
        .ends(0)
        .json("restore-plan");
    let name = |index: usize| {
        let full = plan["components"][index]["component"].as_str().unwrap();
        full.split('/').nth(1).unwrap().to_owned()
    };
    // By name, `b` comes first: now it waits for the other one.
    assert_eq!(name(0), "b");
    world.edit_config("b.db }\n", &format!("b.db }}\n        depends_on: [{}]\n", name(1)));
    let plan = world
        .run(&["restore", "shop", "--dry-run", "--json"])
        .ends(0)
        .json("restore-plan");
    let first = plan["components"][0]["component"].as_str().unwrap().to_owned();
    let second = plan["components"][1]["component"].as_str().unwrap().to_owned();
    assert_ne!(first, second);

    // A circle is named.
    assert_eq!(second, "shop/b");
    let text = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let circle = text.replacen("shop.db }\n", "shop.db }\n        depends_on: [b]\n", 1);
    assert_ne!(circle, text);
    world.write("circle.yaml", &circle);
    let circle = world
        .run(&["--config", "circle.yaml", "restore", "shop", "--dry-run"])
        .ends(7);
    assert!(
        circle.stderr.contains(&first) && circle.stderr.contains(&second),
        "{}",
        circle.stderr
    );

    // The first one fails while it is being restored: its destination is taken in between, so to speak.
    let blocked = plan["components"][0]["to"].as_str().unwrap().to_owned();
    world.run(&["restore", &second]).ends(0);
    world.write(&blocked, "in the way");
    let stopped = world.run(&["restore", "shop", "--resume"]);
    assert_eq!(stopped.code, 6, "{}", stopped.stderr);
    std::fs::remove_file(&blocked).unwrap();
    let resumed = world.run(&["restore", "shop", "--resume", "--json"]).ends(0).json("restore");
    assert_eq!(resumed["components"][1]["already_restored"], true, "{resumed:#}");
    assert_eq!(resumed["components"][0]["already_restored"], serde_json::Value::Null);
    let again = world.run(&["restore", "shop", "--resume", "--json"]).ends(0).json("restore");
    assert_eq!(again["components"][0]["already_restored"], true);
}

#[test]
fn a_copy_beside_is_promoted_and_taken_back() {
    let world = World::protected();
    world.add_rows("shop.db", 5);
    let done = world.run(&["restore", "shop", "--json"]).ends(0).json("restore");
    let id = done["components"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((world.rows("shop.db"), world.rows("shop.restored-1.db")), (1_005, 1_000));

    // Without a terminal there is nobody to say yes.
    let refused = world.run(&["restore", "promote", &id]).ends(6);
    let line = refused.proceeds_with();
    // Somebody who has it open is in the way, on either side.
    for name in ["shop.db", "shop.restored-1.db"] {
        let mut shell = world.held_open(name);
        world.run(&["restore", "promote", &id, "--yes"]).ends(6);
        shell.kill().unwrap();
        shell.wait().unwrap();
    }
    let promoted = world.shell(&line).ends(0);
    assert!(promoted.stdout.contains("took the place of"), "{}", promoted.stdout);
    assert_eq!(world.rows("shop.db"), 1_000);
    assert!(!world.path("shop.restored-1.db").try_exists().unwrap());
    let list = world.run(&["list"]).ends(0);
    assert!(list.stdout.contains("after promote of restore"), "{}", list.stdout);
    world.run(&["restore", "promote", &id, "--yes"]).ends(6);
    world.run(&["restore", "undo", &id]).ends(0);
    assert_eq!(world.rows("shop.db"), 1_005);
    world.run(&["restore", "promote", "never", "--yes"]).ends(9);
}

#[test]
fn a_copy_that_was_worked_on_is_promoted_as_it_is_now() {
    let world = World::protected();
    let done = world
        .run(&["restore", "shop", "--to", "elsewhere/copy.db", "--json"])
        .ends(0)
        .json("restore");
    let id = done["components"][0]["id"].as_str().unwrap().to_owned();
    world.add_rows("elsewhere/copy.db", 2);
    let promoted = world.run(&["restore", "promote", &id, "--yes"]).ends(0);
    assert!(promoted.stderr.contains("was changed since"), "{}", promoted.stderr);
    assert_eq!(world.rows("shop.db"), 1_002);
    // What is gone, or is another file, is not promoted.
    let done = world.run(&["restore", "shop", "--json"]).ends(0).json("restore");
    let (id, path) = (
        done["components"][0]["id"].as_str().unwrap(),
        done["components"][0]["path"].as_str().unwrap(),
    );
    std::fs::remove_file(path).unwrap();
    world.run(&["restore", "promote", id, "--yes"]).ends(9);
    world.write(path, "something else");
    world.run(&["restore", "promote", id, "--yes"]).ends(6);
    assert_eq!(world.rows("shop.db"), 1_002);
}

#[test]
fn overwrite_keeps_what_it_replaces() {
    let world = World::protected();
    world.make_database("test.db", 3);
    world.run(&["restore", "shop", "--to", "test.db"]).ends(6);
    world.run(&["restore", "shop", "--to", "test.db", "--overwrite"]).ends(6);
    let done = world
        .run(&["restore", "shop", "--to", "test.db", "--overwrite", "--yes", "--json"])
        .ends(0)
        .json("restore");
    assert_eq!(world.rows("test.db"), 1_000);
    // It is not the protected database: no backup of it is taken.
    assert_eq!(done["components"][0]["fresh_backup"], serde_json::Value::Null);
    world
        .run(&["restore", "undo", done["components"][0]["id"].as_str().unwrap()])
        .ends(0);
    assert_eq!(world.rows("test.db"), 3);
    world.run(&["restore", "shop", "--overwrite"]).ends(2);
}

/// What a person at a terminal would see and answer: `script` is the terminal.
#[test]
fn a_person_at_a_terminal_is_asked() {
    let world = World::protected();
    world.add_rows("shop.db", 5);
    let ask = |keys: &str| {
        world.shell(&format!(
            "printf '{keys}' | script -qec 'lifeboat restore shop --in-place' /dev/null"
        ))
    };
    let no = ask("n\\r").ends(6);
    assert!(
        no.stdout.contains("Replace") && no.stdout.contains("the answer was no"),
        "{}",
        no.stdout
    );
    assert_eq!(world.rows("shop.db"), 1_005);
    ask("y\\r").ends(0);
    assert_eq!(world.rows("shop.db"), 1_000);
}

#[test]
fn a_missed_objective_ends_with_4_and_a_limit_of_time_with_8() {
    let world = World::protected();
    world.run(&["status"]).ends(0);
    world.edit_config("rpo: 24h", "rpo: 1ms");
    world.run(&["status"]).ends(4);

    // A reader keeps the writers of a database with a rollback journal waiting: not for longer than allowed.
    let connection = world.open("shop.db");
    connection.execute_batch("PRAGMA journal_mode = delete").unwrap();
    connection.close().unwrap();
    world.edit_config("shop.db }", "shop.db, max_stall: 1ms }");
    // No machine reads and compares so many within that.
    world.add_rows("shop.db", 200_000);
    let late = world.run(&["diff", "1", "live"]).ends(8);
    assert!(
        late.stderr.contains("max_stall") && late.stderr.contains("lifeboat backup"),
        "{}",
        late.stderr
    );
}

#[test]
fn the_newest_backup_that_vanishes_is_noticed() {
    let world = World::protected();
    world.add_rows("shop.db", 1);
    world.run(&["backup"]).ends(0);
    world.run(&["verify"]).ends(0);
    world.run(&["status"]).ends(0);
    let newest = world
        .files("lifeboat-backups")
        .into_iter()
        .map(|(path, _)| path)
        .find(|path| path.to_string_lossy().contains("/backups/0000000000000002-"))
        .unwrap();
    std::fs::remove_file(newest).unwrap();
    let status = world.run(&["status"]).ends(4);
    assert!(status.stdout.contains("is not in the store any more"), "{}", status.stdout);
}

#[test]
fn what_a_killed_restore_left_is_removed_by_whatever_runs_next() {
    let world = World::protected();
    let staging = world.path("elsewhere/.lifeboat-restore-dead");
    std::fs::create_dir_all(&staging).unwrap();
    world.write("elsewhere/.lifeboat-restore-dead/database", "the data in the clear");
    let state = world.state_dir();
    std::fs::create_dir_all(state.join("restores")).unwrap();
    let marker = state.join("restores/dead.underway");
    let folder = serde_json::to_vec(&[world.path("elsewhere")]).unwrap();
    #[expect(clippy::disallowed_methods, reason = "what a killed run leaves")]
    std::fs::write(&marker, folder).unwrap();
    world.run(&["list"]).ends(0);
    assert!(!staging.try_exists().unwrap() && !marker.try_exists().unwrap());
}

#[test]
fn verbose_says_with_what_and_progress_is_json_where_asked() {
    let world = World::protected();
    let said = world.run(&["-v", "list"]).ends(0);
    assert!(
        said.stderr.contains("lifeboat.yaml") && said.stderr.contains("order of recovery"),
        "{}",
        said.stderr
    );
    world.run(&["-v", "-q", "list"]).ends(2);
    let shown = world.run(&["config", "show", "--origin"]).ends(0);
    assert!(
        shown.stdout.contains("lifeboat.yaml:") && shown.stdout.contains("default"),
        "{}",
        shown.stdout
    );
    world.run(&["verify", "--progress", "json"]).ends(0);
}

#[test]
fn a_damaged_announcement_is_shown_by_doctor() {
    let world = World::protected();
    let announcements = world.files("lifeboat-backups");
    let (path, mut bytes) = announcements
        .into_iter()
        .find(|(path, _)| path.to_string_lossy().contains("/sessions/"))
        .unwrap();
    assert!(!world.run(&["doctor"]).stdout.contains("announcement"));
    bytes[0] ^= 1;
    std::fs::remove_file(&path).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the damage of the test")]
    std::fs::write(&path, bytes).unwrap();
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("the announcement"), "{}", doctor.stdout);
}
