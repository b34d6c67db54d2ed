//! `init`: what it makes, what it refuses, and that it goes on where it was stopped.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::World;

#[test]
fn without_a_terminal_it_prints_the_command_that_goes_on() {
    let world = World::with_database();
    let refused = world.run(&["init"]).ends(6);
    let left: Vec<_> = std::fs::read_dir(world.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "something was made before the yes: {left:?}");
    world.shell(&refused.proceeds_with()).ends(0);
    world.run(&["status"]).ends(0);
}

#[test]
fn keys_are_private_and_the_configuration_holds_no_secret() {
    let world = World::protected();
    for path in [world.key(), world.path(".lifeboat/instance.key")] {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
    }
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    assert!(!config.contains("AGE-SECRET-KEY"), "{config}");
    world.run(&["config", "check"]).ends(0);
    // Not one row of the data rests in the clear.
    let secret = b"order 500 xxxx";
    for (path, bytes) in world.files("lifeboat-backups") {
        assert!(
            !bytes.windows(secret.len()).any(|window| window == secret),
            "{} holds data in the clear",
            path.display()
        );
    }
}

#[test]
fn a_configuration_is_never_overwritten() {
    let world = World::protected();
    let before = world.files("");
    world.run(&["init", "--path", "shop.db", "--system", "shop", "--yes"]).ends(6);
    world.make_database("other.db", 3);
    world.run(&["init", "--path", "other.db", "--yes"]).ends(6);
    let config =
        |files: &[(std::path::PathBuf, Vec<u8>)]| files.iter().find(|(path, _)| path.ends_with("lifeboat.yaml")).cloned();
    assert_eq!(config(&world.files("")), config(&before));
}

#[test]
fn an_interrupted_set_up_goes_on() {
    let world = World::with_database();
    let args = ["init", "--path", "shop.db", "--system", "shop", "--yes"];
    world.run(&[&args[..], &["--no-backup"]].concat()).ends(0);
    let key = std::fs::read_to_string(world.key()).unwrap();
    // As if it had been killed before the configuration was written: key, signing key and repository are there.
    std::fs::remove_file(world.path("lifeboat.yaml")).unwrap();
    world.run(&[&args[..], &["--no-backup"]].concat()).ends(0);
    assert_eq!(std::fs::read_to_string(world.key()).unwrap(), key);
    // As if it had been killed before the first backup.
    let done = world.run(&[&args[..], &["--json"]].concat()).ends(0).json("init");
    assert_eq!(done["components"][0]["backup"]["seq"], 1);
    world.run(&["status"]).ends(0);
    world.run(&args).ends(6);
}

#[test]
fn a_key_never_lies_inside_the_store() {
    let world = World::with_database();
    world
        .run(&[
            "init",
            "--path",
            "shop.db",
            "--store",
            "store",
            "--key",
            "store/key.txt",
            "--yes",
        ])
        .ends(6);
    assert!(!world.path("store").try_exists().unwrap());
}

#[test]
fn a_file_that_is_no_key_stays_as_it_is() {
    let world = World::with_database();
    world.write("notes.txt", "my notes");
    world
        .run(&["init", "--path", "shop.db", "--key", "notes.txt", "--yes"])
        .ends(6);
    assert_eq!(std::fs::read_to_string(world.path("notes.txt")).unwrap(), "my notes");
}

#[test]
fn without_encryption_only_when_written_out() {
    let world = World::with_database();
    world
        .run(&["init", "--path", "shop.db", "--system", "shop", "--encrypt", "none", "--yes"])
        .ends(0);
    assert!(!world.key().try_exists().unwrap());
    world.run(&["restore", "shop"]).ends(0);
    let doctor = world.run(&["doctor"]).ends(0);
    assert!(doctor.stdout.contains("backups are not encrypted"), "{}", doctor.stdout);
}

#[test]
fn nothing_to_protect_ends_with_2_and_a_missing_database_with_13() {
    let world = World::with_database();
    std::fs::create_dir(world.path("empty")).unwrap();
    world
        .finish(world.command().current_dir(world.path("empty")).args(["init", "--yes"]))
        .ends(2);
    world.run(&["init", "--path", "absent.db", "--yes"]).ends(13);
}
