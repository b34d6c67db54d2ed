//! Each exit code and each promise of the command line, on real databases and a real store.

use std::fs::File;
use std::path::PathBuf;

use crate::world::World;

const STORE: &str = "lifeboat-backups";

/// Flips one bit in the middle of the largest pack.
fn damage_a_pack(world: &World) {
    let packs = world
        .files(STORE)
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("/packs/"));
    let (path, mut bytes) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let name = path.strip_prefix(world.path("")).unwrap().to_owned();
    std::fs::remove_file(&path).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the damage of the test")]
    std::fs::write(world.path(&name.to_string_lossy()), bytes).unwrap();
}

#[test]
fn the_whole_story_from_init_to_undo() {
    let world = World::with_database();
    let init = world.run(&["init", "--path", "shop.db", "--system", "shop", "--yes"]).ends(0);
    let promise = format!(
        "You can now lose {} and be back in about 1s, losing at most what was written since the last backup.",
        world.shown("shop.db")
    );
    assert!(init.stdout.contains(&promise), "{}", init.stdout);
    world.add_rows("shop.db", 10);
    world
        .run(&["backup", "shop", "--reason", "before the upgrade", "--tag", "upgrade"])
        .ends(0);
    let list = world.run(&["list"]).ends(0);
    assert!(
        list.stdout.contains("before the upgrade") && list.stdout.contains("first backup"),
        "{}",
        list.stdout
    );

    // Beside: the original stays as it is.
    world.add_rows("shop.db", 5);
    world.run(&["restore", "shop"]).ends(0);
    assert_eq!((world.rows("shop.db"), world.rows("shop.restored-2.db")), (1_015, 1_010));

    // In place, back to the first backup, and taken back again.
    let done = world
        .run(&["restore", "shop", "--backup", "1", "--in-place", "--yes", "--json"])
        .ends(0)
        .json("restore");
    assert_eq!(world.rows("shop.db"), 1_000);
    assert_eq!(done["components"][0]["fresh_backup"]["backup"]["seq"], 3);
    let id = done["components"][0]["id"].as_str().unwrap();
    world.run(&["verify"]).ends(0);
    world.run(&["restore", "undo", id]).ends(0);
    assert_eq!(world.rows("shop.db"), 1_015);
    world.run(&["restore", "undo", id]).ends(6);
}

#[test]
fn a_bad_configuration_ends_with_7_and_names_the_place() {
    let world = World::protected();
    world.edit_config("sqlite:", "sqlit:");
    for args in [&["status"][..], &["backup"], &["config", "check"], &["restore", "shop"]] {
        let ran = world.run(args).ends(7);
        assert!(
            ran.stderr.contains("sqlit") && ran.stderr.contains("lifeboat.yaml"),
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    }
    let error = world.run(&["config", "check", "--json"]).ends(7).json("error");
    assert_eq!(error["kind"], "config_invalid");
    world.run(&["--config", "absent.yaml", "status"]).ends(7);
}

#[test]
fn words_that_mean_nothing_end_with_2_and_a_suggestion() {
    let world = World::protected();
    let unknown = world.run(&["backup", "shpo"]).ends(2);
    assert!(unknown.stderr.contains("did you mean `shop`?"), "{}", unknown.stderr);
    world.run(&["list", "shop/nothing"]).ends(2);
    world.run(&["no-such-command"]).ends(2);
    world.run(&["restore"]).ends(2);
    world.run(&["restore", "shop", "--to", "x.db", "--in-place"]).ends(2);
    world
        .run(&["restore", "shop", "--backup", "1", "--at", "2026-11-21T02:00:00Z"])
        .ends(2);
    world.run(&["restore", "shop", "--from", "moon"]).ends(2);
    let error = world.run(&["no-such-command", "--json"]).ends(2).json("error");
    assert_eq!((&error["kind"], &error["exit_code"]), (&"usage".into(), &2.into()));
}

#[test]
fn a_time_without_zone_is_refused_with_the_same_time_written_right() {
    let world = World::protected();
    let ran = world.run(&["restore", "shop", "--before", "2026-11-21 02:10"]).ends(2);
    for wanted in [
        "2026-11-21T02:10:00Z",
        "2026-11-21T02:10:00+01:00",
        "2026-11-21T02:10:00[Europe/Berlin]",
    ] {
        assert!(ran.stderr.contains(wanted), "{wanted} is missing in {}", ran.stderr);
    }
    world.run(&["restore", "shop", "--at", "yesterday"]).ends(2);
    // Both ways to name a zone are understood.
    for (index, time) in [
        "2100-01-01T00:00:00+01:00",
        "2100-01-01T00:00[Europe/Berlin]",
        "2100-01-01T00:00:00Z",
    ]
    .iter()
    .enumerate()
    {
        world
            .run(&["restore", "shop", "--before", time, "--to", &format!("zoned-{index}.db")])
            .ends(0);
    }
}

#[test]
fn no_such_point_ends_with_9_and_names_the_nearest() {
    let world = World::protected();
    let ran = world.run(&["restore", "shop", "--at", "2001-01-01T00:00:00Z"]).ends(9);
    assert!(ran.stderr.contains("the first is 20"), "{}", ran.stderr);
    world.run(&["restore", "shop", "--before", "2001-01-01T00:00:00Z"]).ends(9);
    world.run(&["restore", "shop", "--backup", "77"]).ends(9);
    world.run(&["show", "shop", "--backup", "77"]).ends(9);
    world.run(&["restore", "undo", "20010101T000000-abcdef"]).ends(9);
}

#[test]
fn at_takes_exactly_the_backup_of_that_second() {
    let world = World::protected();
    let points = world.run(&["points", "shop", "--json"]).ends(0).json("points");
    let moment = points["components"][0]["points"][0]["moment"].as_str().unwrap();
    world.run(&["restore", "shop", "--at", moment, "--to", "exact.db"]).ends(0);
    assert_eq!(world.rows("exact.db"), 1_000);
}

#[test]
fn nothing_existing_is_written_onto() {
    let world = World::protected();
    world.write("there.db", "precious");
    world.run(&["restore", "shop", "--to", "there.db"]).ends(6);
    assert_eq!(std::fs::read_to_string(world.path("there.db")).unwrap(), "precious");
    // A leftover -wal would be replayed into the restored database.
    world.write("other.db-wal", "stale");
    world.run(&["restore", "export", "shop", "--to", "other.db"]).ends(6);
    world
        .run(&["restore", "export", "shop/db", "--to", "exported.db", "--backup", "1"])
        .ends(0);
    assert_eq!(world.rows("exported.db"), 1_000);
    world.run(&["key", "new", "there.db"]).ends(6);
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::protected();
    let before = world.files("");
    let plan = world
        .run(&["restore", "shop", "--in-place", "--dry-run", "--json"])
        .ends(0)
        .json("restore-plan");
    assert_eq!(plan["components"][0]["steps"].as_array().unwrap().len(), 6);
    let after = world.files("");
    let changed: Vec<_> = before
        .iter()
        .chain(&after)
        .filter(|file| !(before.contains(file) && after.contains(file)))
        .collect();
    // To prove that nobody uses the database, SQLite opens it, and may leave a -shm and an empty -wal, which hold nothing.
    let harmless =
        |path: &PathBuf, bytes: &[u8]| path.ends_with("shop.db-shm") || (path.ends_with("shop.db-wal") && bytes.is_empty());
    let changed: Vec<_> = changed
        .into_iter()
        .filter(|(path, bytes)| !harmless(path, bytes))
        .map(|(path, _)| path)
        .collect();
    assert!(changed.is_empty(), "{changed:?} changed");
}

#[test]
fn in_place_without_a_terminal_prints_the_command_that_goes_on() {
    let world = World::protected();
    world.add_rows("shop.db", 3);
    let refused = world
        .run(&["restore", "shop", "--in-place", "--reason", "it's broken"])
        .ends(6);
    assert_eq!(world.rows("shop.db"), 1_003);
    world.shell(&refused.proceeds_with()).ends(0);
    assert_eq!(world.rows("shop.db"), 1_000);
    let list = world.run(&["list"]).ends(0);
    assert!(list.stdout.contains("it's broken"), "{}", list.stdout);
}

#[test]
fn a_database_in_use_is_not_replaced() {
    let world = World::protected();
    let connection = world.open("shop.db");
    connection
        .query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, i64>(0))
        .unwrap();
    world.run(&["restore", "shop", "--in-place", "--yes"]).ends(6);
    connection
        .execute("INSERT INTO orders (what) VALUES ('still here')", [])
        .unwrap();
    connection.close().unwrap();
    assert_eq!(world.rows("shop.db"), 1_001);
}

#[test]
fn a_failed_backup_after_an_in_place_restore_ends_with_3() {
    let world = World::protected();
    world.edit_config("min_free: 1GiB", "min_free: 900PB");
    let ran = world.run(&["restore", "shop", "--in-place", "--yes", "--json"]).ends(3);
    let done = ran.json("restore");
    assert_eq!(done["components"][0]["fresh_backup_error"]["kind"], "no_space");
    assert_eq!(world.rows("shop.db"), 1_000);
    let said = world.run(&["restore", "shop", "--in-place", "--yes"]).ends(3);
    assert!(
        said.stdout.contains("THE RESTORED STATE IS NOT BACKED UP YET"),
        "{}",
        said.stdout
    );
    // An ordinary backup keeps the promise of `min_free`, too.
    world.run(&["backup"]).ends(1);
}

#[test]
fn no_repository_ends_with_10_and_no_store_with_13() {
    let world = World::protected();
    let elsewhere = world.path("elsewhere");
    #[expect(clippy::disallowed_methods, reason = "the disaster of the test")]
    std::fs::rename(world.path(STORE), &elsewhere).unwrap();
    for args in [&["list"][..], &["backup"], &["restore", "shop"], &["verify"]] {
        world.run(args).ends(13);
    }
    let status = world.run(&["status", "--json"]).ends(13).json("status");
    assert_eq!(status["components"][0]["standing"], "not_ready");
    let doctor = world.run(&["doctor"]).ends(1);
    assert!(
        doctor.stdout.contains("bad") && doctor.stdout.contains("fix:"),
        "{}",
        doctor.stdout
    );
    std::fs::create_dir(world.path(STORE)).unwrap();
    for args in [&["list"][..], &["backup"], &["restore", "shop"], &["verify"]] {
        world.run(args).ends(10);
    }
    // Nothing was made in the empty folder: it may be the mount point of a disk that is away.
    assert!(world.files(STORE).is_empty());
    let status = world.run(&["status", "--json"]);
    assert_ne!(status.code, 0);
    assert_eq!(status.json("status")["components"][0]["standing"], "not_ready");
}

#[test]
fn a_wrong_or_missing_key_ends_with_12_and_backups_go_on() {
    let world = World::protected();
    world.run(&["key", "check"]).ends(0);
    std::fs::remove_file(world.key()).unwrap();
    for args in [&["restore", "shop"][..], &["verify"], &["key", "check"], &["check", "shop"]] {
        world.run(args).ends(12);
    }
    world.run(&["key", "new", &world.key().display().to_string()]).ends(0);
    for args in [&["restore", "shop"][..], &["verify", "--level", "decrypt"], &["key", "check"]] {
        world.run(args).ends(12);
    }
    // Neither writing nor these proofs need a private key.
    for args in [
        &["backup"][..],
        &["list"],
        &["verify", "--level", "hash"],
        &["verify", "--level", "list"],
    ] {
        world.run(args).ends(0);
    }
    let shown = world.run(&["show", "shop"]).ends(0);
    assert!(
        shown.stdout.contains("sealed; the private key is not at hand"),
        "{}",
        shown.stdout
    );
}

#[test]
fn a_second_writer_ends_with_11() {
    let world = World::protected();
    let locks: Vec<PathBuf> = world
        .files(".lifeboat")
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with("lock"))
        .collect();
    assert_eq!(locks.len(), 1, "{locks:?}");
    // Held as another process would hold it.
    let held = File::open(&locks[0]).unwrap();
    held.try_lock().unwrap();
    let error = world.run(&["backup", "--json"]).ends(11).json("error");
    assert_eq!(error["kind"], "locked");
    drop(held);
    world.run(&["backup"]).ends(0);
}

#[test]
fn bad_data_ends_with_5_whoever_finds_it() {
    let world = World::protected();
    damage_a_pack(&world);
    for level in ["hash", "decrypt", "restore"] {
        world.run(&["verify", "--level", level]).ends(5);
    }
    world.run(&["restore", "shop"]).ends(5);
    world.run(&["check", "shop"]).ends(5);
    let left: Vec<_> = std::fs::read_dir(world.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.contains("restored") && !name.contains("lifeboat-restore")),
        "{left:?}"
    );
    assert!(
        std::fs::read_dir(world.path(".lifeboat/scratch")).unwrap().next().is_none(),
        "a scratch folder was left"
    );
}

#[test]
fn check_finds_damage_and_never_looks_at_the_database_in_use() {
    let world = World::protected();
    world.run(&["check", "shop"]).ends(0);
    world.run(&["check", "shop", "--on", "shop.db"]).ends(6);
    world.run(&["restore", "shop", "--to", "copy.db"]).ends(0);
    world.run(&["check", "shop", "--on", "copy.db"]).ends(0);
    let copy = world.open("copy.db");
    copy.execute_batch("PRAGMA foreign_keys = off; CREATE TABLE lines (id INTEGER, order_id INTEGER REFERENCES orders (id)); INSERT INTO lines VALUES (1, 999999)")
        .unwrap();
    copy.close().unwrap();
    let bad = world
        .run(&["check", "shop", "--on", "copy.db", "--json"])
        .ends(5)
        .json("check");
    assert_eq!(bad["components"][0]["good"], false);
}

#[test]
fn one_broken_component_does_not_stop_the_others() {
    let world = World::with_database();
    world.make_database("audit.db", 10);
    world
        .run(&["init", "--path", "audit.db", "--path", "shop.db", "--system", "both", "--yes"])
        .ends(0);
    std::fs::remove_file(world.path("audit.db")).unwrap();
    let ran = world.run(&["backup", "--json"]);
    let done = ran.json("backup");
    assert_ne!(ran.code, 0);
    assert_eq!(done["exit_code"], ran.code);
    assert_eq!(done["components"][0]["component"], "both/audit");
    assert_eq!(done["components"][0]["error"]["exit_code"], ran.code);
    assert_eq!(done["components"][1]["backup"]["seq"], 2);
    // A whole system comes back in one command.
    let restored = world
        .run(&["restore", "both", "--in-place", "--yes", "--json"])
        .ends(0)
        .json("restore");
    assert_eq!(restored["components"].as_array().unwrap().len(), 2);
    assert_eq!((world.rows("audit.db"), world.rows("shop.db")), (10, 1_000));
    world.run(&["restore", "both", "--to", "one.db"]).ends(2);
}

#[test]
fn a_system_is_replaced_only_when_all_of_it_can_be() {
    let world = World::with_database();
    world.make_database("audit.db", 10);
    world
        .run(&["init", "--path", "audit.db", "--path", "shop.db", "--system", "both", "--yes"])
        .ends(0);
    world.add_rows("audit.db", 1);
    // The second component is in use: the first one, though it could be replaced, stays as it is.
    let connection = world.open("shop.db");
    connection
        .query_row("SELECT count(*) FROM orders", [], |row| row.get::<_, i64>(0))
        .unwrap();
    let refused = world.run(&["restore", "both", "--in-place", "--yes"]).ends(6);
    assert!(refused.stderr.contains("nothing was replaced"), "{}", refused.stderr);
    connection.close().unwrap();
    assert_eq!(world.rows("audit.db"), 11);
    world.run(&["restore", "both", "--in-place", "--yes"]).ends(0);
    assert_eq!(world.rows("audit.db"), 10);
}

#[test]
fn results_go_to_stdout_and_everything_else_to_stderr() {
    let world = World::protected();
    let quiet = world.run(&["backup", "--quiet"]).ends(0);
    assert!(quiet.stderr.is_empty(), "{}", quiet.stderr);
    let error = world.run(&["list", "nobody"]).ends(2);
    assert!(error.stdout.is_empty(), "{}", error.stdout);
    for args in [&["status"][..], &["doctor"], &["list"], &["list", "nobody"]] {
        let ran = world.run(args);
        assert!(
            !ran.stdout.contains('\u{1b}') && !ran.stderr.contains('\u{1b}'),
            "colours without a terminal: {args:?}"
        );
    }
}

#[test]
fn the_version_and_completions_are_printed() {
    let world = World::with_database();
    assert!(world.run(&["--version"]).ends(0).stdout.starts_with("lifeboat 0."));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            world.run(&["completions", shell]).ends(0).stdout.contains("lifeboat"),
            "{shell}"
        );
    }
}

#[test]
fn a_folder_as_destination_and_an_empty_store_say_what_to_do() {
    let world = World::protected();
    let refused = world.run(&["restore", "shop", "--to", "home"]).ends(6);
    assert!(refused.stderr.contains("it is a folder"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--to home/restored.db"), "{}", refused.stderr);
    #[expect(clippy::disallowed_methods, reason = "the disaster of the test")]
    std::fs::rename(world.path("lifeboat-backups"), world.path("away")).unwrap();
    std::fs::create_dir(world.path("lifeboat-backups")).unwrap();
    let status = world.run(&["status"]).ends(10);
    assert!(
        status.stdout.contains("check that the right disk is mounted"),
        "{}",
        status.stdout
    );
    assert!(
        world.files("lifeboat-backups").is_empty(),
        "something was written beside the mount"
    );
}

#[test]
fn status_is_not_ready_when_the_key_here_does_not_open_the_backups() {
    let world = World::protected();
    world.run(&["status"]).ends(0);
    let key = world.key();
    let away = world.path("key-away");
    #[expect(clippy::disallowed_methods, reason = "the disaster of the test")]
    std::fs::rename(&key, &away).unwrap();
    let gone = world.run(&["status"]).ends(1);
    assert!(
        gone.stdout.contains("not ready") && gone.stdout.contains("lifeboat key check"),
        "{}",
        gone.stdout
    );
    world.run(&["key", "new", &key.display().to_string()]).ends(0);
    let wrong = world.run(&["status"]).ends(1);
    assert!(wrong.stdout.contains("none of the private keys fits"), "{}", wrong.stdout);
}

#[test]
fn a_lost_state_folder_has_a_way_back_to_backups() {
    let world = World::protected();
    std::fs::remove_file(world.path(".lifeboat/instance.key")).unwrap();
    let lost = world.run(&["backup"]).ends(7);
    assert!(lost.stderr.contains("lifeboat init"), "{}", lost.stderr);
    let renewed = world.run(&["init", "--yes"]).ends(7);
    let line = renewed
        .stderr
        .split_once("`lifeboat backup`: ")
        .and_then(|(_, rest)| rest.lines().next())
        .expect("the line to add");
    world.edit_config("instances:\n", &format!("instances:\n  {line}\n"));
    world.run(&["backup"]).ends(0);
    world.run(&["verify", "--all"]).ends(0);
}

#[test]
fn a_report_that_cannot_be_printed_does_not_deny_what_was_done() {
    let world = World::protected();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = world
        .command()
        .arg("backup")
        .stdout(full)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the command did its work") && !said.contains("nothing was published"),
        "{said}"
    );
}
