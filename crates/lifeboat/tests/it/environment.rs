//! Without a file: the guides' variables are the configuration.

use crate::world::{Ran, World};

fn run(world: &World, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = world.command();
    // For root the default would be a folder of the machine.
    command.args(args).env("LIFEBOAT_STATE_DIR", world.path("state"));
    for (name, value) in variables {
        command.env(name, value);
    }
    world.finish(&mut command)
}

#[test]
fn the_guides_variables_are_enough_from_backup_to_restore() {
    let world = World::with_database();
    let url = format!("sqlite://{}", world.shown("shop.db"));
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("BACKUP_DIR", "store"),
        ("BACKUP_COMPRESS", "true"),
    ];
    // Nothing but a backup makes anything.
    let early = run(&world, &variables, &["status"]).ends(10);
    assert!(
        early.stderr.contains("`lifeboat backup` sets everything up"),
        "{}",
        early.stderr
    );
    assert!(!world.path("store").try_exists().unwrap());

    let first = run(&world, &variables, &["backup"]).ends(0);
    let key = world.path("home/.config/lifeboat/shop-key.txt");
    assert!(
        first.stderr.contains(&key.display().to_string()) && first.stderr.contains("BACKUP_COMPRESS changes nothing"),
        "{}",
        first.stderr
    );
    // Said once, and used ever after.
    let second = run(&world, &variables, &["backup"]).ends(0);
    assert!(!second.stderr.contains("a new key was made"), "{}", second.stderr);
    let list = run(&world, &variables, &["list", "--json"]).ends(0).json("list");
    assert!(list.to_string().contains("shop/db"), "{list:#}");
    run(&world, &variables, &["verify"]).ends(0);
    run(&world, &variables, &["restore", "shop", "--to", "back.db"]).ends(0);
    assert_eq!(world.rows("back.db"), 1_000);
    let shown = run(&world, &variables, &["config", "show", "--origin"]).ends(0);
    assert!(
        shown.stdout.contains("$BACKUP_DIR") && shown.stdout.contains("$DATABASE_URL"),
        "{}",
        shown.stdout
    );

    // Another machine has the store and the key, and says whom it trusts.
    let trust = first
        .stderr
        .split_whitespace()
        .find_map(|word| word.strip_prefix("LIFEBOAT_TRUST="))
        .unwrap()
        .to_owned();
    std::fs::remove_file(world.path("state/instance.key")).unwrap();
    run(&world, &variables, &["list"]).ends(10);
    let with_trust = [&variables[..], &[("LIFEBOAT_TRUST", trust.as_str())]].concat();
    run(&world, &with_trust, &["restore", "shop", "--to", "elsewhere.db"]).ends(0);
    assert_eq!(world.rows("elsewhere.db"), 1_000);
}

#[test]
fn no_encryption_is_written_out_and_a_file_wins() {
    let world = World::with_database();
    let path = world.shown("shop.db");
    let clear = [
        ("DATABASE_PATH", path.as_str()),
        ("BACKUP_DIR", "store"),
        ("BACKUP_ENCRYPT", "false"),
    ];
    let backup = run(&world, &clear, &["backup"]).ends(0);
    assert!(backup.stderr.contains("not encrypted"), "{}", backup.stderr);
    assert!(!world.path("home/.config").try_exists().unwrap(), "no key was asked for");

    let postgres = [("DATABASE_URL", "postgres://u:geheim@h/db"), ("BACKUP_DIR", "store")];
    let refused = run(&world, &postgres, &["backup"]).ends(7);
    assert!(
        refused.stderr.contains("follows with its engine") && !refused.stderr.contains("geheim"),
        "{}",
        refused.stderr
    );
    let nowhere = run(&world, &[("DATABASE_PATH", path.as_str())], &["backup"]).ends(7);
    assert!(nowhere.stderr.contains("BACKUP_DIR"), "{}", nowhere.stderr);
    let inside = [&clear[..2], &[("LIFEBOAT_KEY_FILE", "store/key.txt")]].concat();
    run(&world, &inside, &["backup"]).ends(6);

    // With a file, a variable that happens to be set redirects nothing.
    let world = World::protected();
    let elsewhere = [("DATABASE_URL", "sqlite:///nowhere.db"), ("BACKUP_DIR", "other")];
    run(&world, &elsewhere, &["backup"]).ends(0);
    assert!(!world.path("other").try_exists().unwrap());
}
