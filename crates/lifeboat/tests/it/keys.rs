//! `lifeboat key …` as people type it: recipients that come and go, passphrases, and the way with nothing but a passphrase.

use crate::world::World;

/// Makes a key pair in `name` and returns the public half.
fn new_key(world: &World, name: &str) -> String {
    world.run(&["key", "new", name, "--json"]).ends(0).json("key-new")["public_key"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The recipient that `init` wrote.
fn configured(world: &World) -> String {
    let text = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let at = text.find("age1").unwrap();
    text[at..at + 62].to_owned()
}

#[test]
fn a_recipient_comes_and_goes() {
    let world = World::protected();
    let own = configured(&world);
    let new = new_key(&world, "new.txt");
    let before = world.run(&["key", "list"]).ends(0);
    assert!(before.stdout.contains(&own), "{}", before.stdout);
    let added = world.run(&["key", "add", &new]).ends(0);
    assert!(added.stdout.contains("1 sessions, 1 wrapped anew"), "{}", added.stdout);
    assert!(
        added.stdout.contains("Write this into") && added.stdout.contains(&new),
        "{}",
        added.stdout
    );
    world.edit_config(&own, &format!("{own}, {new}"));
    let again = world.run(&["key", "add", &new]).ends(0);
    assert!(
        again.stdout.contains("0 wrapped anew") && !again.stdout.contains("Write this"),
        "{}",
        again.stdout
    );
    let backup = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert!(!backup["components"][0]["backup"]["parent"].is_null(), "{backup}");
    let listed = world.run(&["key", "list"]).ends(0);
    assert!(!listed.stdout.contains("NOT by"), "{}", listed.stdout);
    // The new key opens both, from a place that has only it.
    let own_key = std::fs::read_to_string(world.key()).unwrap();
    std::fs::copy(world.path("new.txt"), world.key()).unwrap();
    world.run(&["key", "check"]).ends(0);
    world.run(&["restore", "shop", "--backup", "1", "--to", "one.db"]).ends(0);
    // It cannot lock itself out, and says so.
    world.run(&["key", "remove", &new]).ends(6);
    world.write(world.key().to_str().unwrap(), &own_key);
    world.edit_config(&format!("{own}, {new}"), &own);
    let removed = world.run(&["key", "remove", &new]).ends(0);
    assert!(
        removed.stdout.contains("2 wrapped anew") && removed.stdout.contains("full one under new keys"),
        "{}",
        removed.stdout
    );
    let full = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert!(full["components"][0]["backup"]["parent"].is_null(), "{full}");
    std::fs::copy(world.path("new.txt"), world.key()).unwrap();
    for seq in ["1", "2", "3"] {
        world
            .run(&["restore", "shop", "--backup", seq, "--to", &format!("no-{seq}.db")])
            .ends(12);
    }
    world.run(&["key", "remove", &own]).ends(2);
}

#[test]
fn rotation_makes_the_next_backup_full() {
    let world = World::protected();
    let rotated = world.run(&["key", "rotate"]).ends(0);
    assert!(rotated.stdout.contains("full one under new keys"), "{}", rotated.stdout);
    let full = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert!(full["components"][0]["backup"]["parent"].is_null(), "{full}");
    world.run(&["verify", "--level", "decrypt", "--all"]).ends(0);
}

#[test]
fn an_identity_under_a_passphrase_and_an_ssh_key() {
    let world = World::protected();
    let own = configured(&world);
    let secret = std::fs::read_to_string(world.key()).unwrap();
    let protected = lifeboat_repo::protect_identity(&secret, "correct horse").unwrap();
    world.write(world.key().to_str().unwrap(), &protected);
    // Nobody can be asked here.
    let asked = world.run(&["key", "check"]).ends(12);
    assert!(asked.stderr.contains("passphrase"), "{}", asked.stderr);
    let file = world.path("passphrase");
    world.write("passphrase", "correct horse\n");
    let text = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let line = text.lines().find(|line| line.trim_start().starts_with("identity:")).unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    world.edit_config(line, &format!("{line}\n{indent}passphrase: {{ file: {} }}", file.display()));
    world.run(&["key", "check"]).ends(0);
    world.write("passphrase", "wrong horse\n");
    let wrong = world.run(&["key", "check"]).ends(12);
    assert!(wrong.stderr.contains("the passphrase is wrong"), "{}", wrong.stderr);
    world.write(world.key().to_str().unwrap(), &secret);
    let keygen = world.shell("ssh-keygen -q -t ed25519 -N '' -C me -f id");
    assert_eq!(keygen.code, 0, "{}", keygen.stderr);
    world.edit_config(&own, &format!("{own}, {{ file: {} }}", world.path("id.pub").display()));
    let missing = world.run(&["key", "list"]).ends(0);
    assert!(missing.stdout.contains("NOT by"), "{}", missing.stdout);
    let public = std::fs::read_to_string(world.path("id.pub")).unwrap();
    world.run(&["key", "add", &public]).ends(0);
    std::fs::copy(world.path("id"), world.key()).unwrap();
    world.run(&["key", "check"]).ends(0);
    world.edit_config("id.pub", "id-not-there.pub");
    let gone = world.run(&["list"]).ends(7);
    assert!(gone.stderr.contains("cannot be read"), "{}", gone.stderr);
}

#[test]
fn nothing_but_a_passphrase() {
    let world = World::protected();
    let text = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let (start, end) = (text.find("keys:").unwrap(), text.find("stores:").unwrap());
    world.edit_config(
        &text[start..end],
        "keys:\n  main:\n    passphrase: { env: BACKUP_ENCRYPTION_KEY }\n",
    );
    let with = |passphrase: &str, args: &[&str]| {
        let mut command = world.command();
        command.args(args).env("BACKUP_ENCRYPTION_KEY", passphrase);
        world.finish(&mut command)
    };
    let right = "correct horse battery staple";
    let first = with(right, &["backup", "--json"]).ends(0).json("backup");
    assert!(
        first["components"][0]["backup"]["parent"].is_null(),
        "other recipients, so new keys: {first}"
    );
    with(right, &["key", "check"]).ends(0);
    with(right, &["restore", "shop", "--to", "back.db"]).ends(0);
    with("another long passphrase", &["restore", "shop", "--to", "no.db"]).ends(12);
    let doctor = with(right, &["doctor"]);
    assert!(doctor.stdout.contains("derived from a passphrase"), "{}", doctor.stdout);
    // Without it lists work, and a backup says what is missing.
    world.run(&["list"]).ends(0);
    let refused = world.run(&["backup"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("not at hand"), "{}", refused.stderr);
    // On a laptop with nothing but the passphrase.
    let derived = with(right, &["key", "derive"]).ends(0);
    world.write("identity.txt", &derived.stdout);
    let opened = world.shell("for f in lifeboat-backups/c/*/keys/*.age; do age -d -i identity.txt $f; done | grep -c data_key");
    assert_eq!(opened.stdout.trim(), "1", "{}", opened.stderr);
}
