//! The recovery kit in the stores, and `bootstrap` from it, with the real binary: nothing but the store and the private key.

use std::path::{Path, PathBuf};

use lifeboat_testkit::s3::{ACCESS_KEY, BUCKET, S3Options, S3Server, SECRET_KEY};
use lifeboat_testkit::servers::{AZURE_ACCOUNT, AZURE_KEY, Server};

use crate::world::World;

/// The kits in a store, oldest first.
fn kits(world: &World, store: &str) -> Vec<PathBuf> {
    if !world.path(store).join("kit").exists() {
        return Vec::new();
    }
    let files = world.files(&format!("{store}/kit"));
    files.into_iter().map(|(path, _)| path).collect()
}

/// The store and the key of a world that is gone, on a machine that has nothing else.
pub fn bare(lost: &World) -> World {
    let bare = World::empty();
    bare.copy_folder(&lost.path("lifeboat-backups"), "usb");
    bare.write("key.txt", &std::fs::read_to_string(lost.key()).unwrap());
    bare
}

fn signer(world: &World) -> String {
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let at = config.find("ed25519:").unwrap();
    config[at..at + 72].to_owned()
}

#[track_caller]
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    #[expect(clippy::disallowed_methods, reason = "damage on purpose")]
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn from_nothing_but_store_and_key_to_the_same_rows() {
    let lost = World::protected();
    assert_eq!(kits(&lost, "lifeboat-backups").len(), 1);
    let bare = bare(&lost);
    let ran = bare
        .run(&[
            "bootstrap",
            "usb",
            "--key",
            "key.txt",
            "--to",
            "rescue",
            "--instance",
            &signer(&lost),
            "--json",
        ])
        .ends(0);
    let document = ran.json("bootstrap");
    assert_eq!(document["components"][0]["component"], "shop/db");
    assert_eq!(document["components"][0]["newest"]["seq"], 1);
    let steps: Vec<&str> = document["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "read the key",
            "open the store",
            "find the kits",
            "open the configuration",
            "write the configuration",
            "list what can be restored"
        ]
    );
    assert!(
        document["steps"]
            .as_array()
            .unwrap()
            .iter()
            .all(|step| step["took_s"].is_number())
    );
    assert_eq!(
        std::fs::read(bare.path("rescue/lifeboat.original.yaml")).unwrap(),
        std::fs::read(lost.path("lifeboat.yaml")).unwrap()
    );
    for command in document["next"].as_array().unwrap() {
        let command = command.as_str().unwrap();
        if command.contains("restore") {
            bare.shell(&format!("{command} --to back.db")).ends(0);
        } else {
            bare.shell(command);
        }
    }
    assert_eq!(bare.rows("back.db"), 1_000);
    bare.run(&["--config", "rescue/lifeboat.yaml", "list"]).ends(0);
    bare.run(&["--config", "rescue/lifeboat.yaml", "verify", "shop", "--level", "restore"])
        .ends(0);
    // A new machine is not the old one: before it writes, somebody has to trust it.
    let refused = bare.run(&["--config", "rescue/lifeboat.yaml", "backup"]).ends(7);
    assert!(refused.stderr.contains("lifeboat init"), "{}", refused.stderr);
    // Nothing that is there is written over.
    let again = bare
        .run(&["bootstrap", "usb", "--key", "key.txt", "--to", "rescue", "--yes"])
        .ends(6);
    assert!(again.stderr.contains("lifeboat.yaml"), "{}", again.stderr);
}

#[test]
fn without_a_terminal_the_signer_is_shown_and_the_command_that_goes_on() {
    let lost = World::protected();
    let bare = bare(&lost);
    let refused = bare.run(&["bootstrap", "usb", "--key", "key.txt"]).ends(6);
    assert!(refused.stderr.contains(&signer(&lost)), "{}", refused.stderr);
    assert!(!bare.path("lifeboat.yaml").exists());
    bare.shell(&refused.proceeds_with()).ends(0);
    bare.run(&["list", "shop"]).ends(0);
    // What a killed run left behind it is in nobody's way.
    std::fs::remove_file(bare.path("lifeboat.yaml")).unwrap();
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(0);
}

/// INV-19: nothing of a kit is used that its signer did not write, or that a stranger did.
#[test]
fn wrong_keys_damage_and_strangers_are_told_apart() {
    let lost = World::protected();
    let bare = bare(&lost);
    bare.run(&["key", "new", "other.txt"]).ends(0);
    bare.run(&["bootstrap", "usb", "--key", "other.txt", "--yes"]).ends(12);
    bare.run(&["bootstrap", "usb", "--key", "nothing.txt", "--yes"]).ends(12);
    let stranger = format!("ed25519:{}", "5".repeat(64));
    let refused = bare
        .run(&["bootstrap", "usb", "--key", "key.txt", "--instance", &stranger])
        .ends(6);
    assert!(refused.stderr.contains(&signer(&lost)), "{}", refused.stderr);
    let kit = kits(&bare, "usb").pop().unwrap();
    let whole = std::fs::read(&kit).unwrap();
    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    overwrite(&kit, &flipped);
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(5);
    overwrite(&kit, &whole[..whole.len() - 1]);
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(5);
    std::fs::remove_file(&kit).unwrap();
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(9);
    std::fs::remove_file(bare.path("usb/lifeboat.json")).unwrap();
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(10);
    assert!(!bare.path("lifeboat.yaml").exists());
}

#[test]
fn a_kit_is_put_when_it_says_something_new_and_prune_leaves_it() {
    let world = World::protected();
    let first = kits(&world, "lifeboat-backups");
    assert_eq!(first.len(), 1);
    world.run(&["backup"]).ends(0);
    assert_eq!(kits(&world, "lifeboat-backups"), first);
    world.edit_config("rpo: 24h", "rpo: 12h");
    world.run(&["backup"]).ends(0);
    let second = kits(&world, "lifeboat-backups");
    assert_eq!(second.len(), 2);
    world.run(&["prune"]);
    assert_eq!(kits(&world, "lifeboat-backups"), second);
    // The newer one is whole; the older one serves where it is not.
    let bare = bare(&world);
    let newest = kits(&bare, "usb").pop().unwrap();
    overwrite(&newest, b"nonsense");
    let told = bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(0);
    assert!(told.stderr.contains("warning"), "{}", told.stderr);
    let config = std::fs::read_to_string(bare.path("lifeboat.yaml")).unwrap();
    assert!(config.contains("24h"), "{config}");
    // What was put is forgotten: one more, and nothing worse.
    std::fs::remove_dir_all(world.state_dir().join("kit")).unwrap();
    world.run(&["backup"]).ends(0);
    assert_eq!(kits(&world, "lifeboat-backups").len(), 3);
}

#[test]
fn a_kit_that_cannot_be_put_is_a_note() {
    let world = World::protected();
    world.edit_config("rpo: 24h", "rpo: 12h");
    // A file where the folder has to be: nothing can be put there, also by root.
    std::fs::remove_dir_all(world.path("lifeboat-backups/kit")).unwrap();
    world.write("lifeboat-backups/kit", "in the way");
    let noted = world.run(&["backup"]).ends(0);
    assert!(noted.stderr.contains("the recovery kit could not be put"), "{}", noted.stderr);
    std::fs::remove_file(world.path("lifeboat-backups/kit")).unwrap();
    let mended = world.run(&["backup"]).ends(0);
    assert!(!mended.stderr.contains("recovery kit"), "{}", mended.stderr);
    assert_eq!(kits(&world, "lifeboat-backups").len(), 1);
}

/// INV-19: no kit holds a secret.
#[test]
fn a_configuration_with_a_secret_in_it_is_left_out() {
    let world = World::protected();
    world.edit_config("stores:", "  old:\n    openssl: { passphrase: open-sesame }\n\nstores:");
    let noted = world.run(&["backup"]).ends(0);
    assert!(noted.stderr.contains("has no configuration"), "{}", noted.stderr);
    assert!(noted.stderr.contains("{ file: … }"), "{}", noted.stderr);
    let newest = kits(&world, "lifeboat-backups").pop().unwrap();
    let bytes = String::from_utf8_lossy(&std::fs::read(newest).unwrap()).into_owned();
    assert!(
        !bytes.contains("open-sesame") && bytes.contains("shop/db") && bytes.contains("lifeboat bootstrap"),
        "{bytes}"
    );
    let bare = bare(&world);
    let refused = bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(9);
    assert!(refused.stderr.contains("a secret stands in it"), "{}", refused.stderr);
}

#[test]
fn of_two_installations_in_one_store_one_has_to_be_named() {
    let world = World::protected();
    let (first, config) = (signer(&world), std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap());
    // Another installation, known to this one, that writes into the same store.
    let other = World::with_database();
    other.write(
        "lifeboat.yaml",
        &config.replace(&world.shown(".lifeboat"), &other.shown(".lifeboat")),
    );
    let init = other.run(&["init"]).ends(7);
    let word = init.stderr.split_whitespace().find(|word| word.contains("ed25519:")).unwrap();
    let second = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric()).to_owned();
    other.edit_config("instances:", &format!("instances:\n  other: \"{second}\""));
    other.run(&["backup"]).ends(0);
    assert_eq!(kits(&world, "lifeboat-backups").len(), 2);
    let bare = bare(&world);
    let refused = bare.run(&["bootstrap", "usb", "--key", "key.txt", "--yes"]).ends(6);
    assert!(
        refused.stderr.contains(&first) && refused.stderr.contains(&second),
        "{}",
        refused.stderr
    );
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--to", "a", "--instance", &first])
        .ends(0);
    bare.run(&["bootstrap", "usb", "--key", "key.txt", "--to", "b", "--instance", &second])
        .ends(0);
    assert!(
        !std::fs::read_to_string(bare.path("a/lifeboat.yaml"))
            .unwrap()
            .contains(&second)
    );
    assert!(
        std::fs::read_to_string(bare.path("b/lifeboat.yaml"))
            .unwrap()
            .contains(&second)
    );
}

#[test]
fn a_bucket_and_backups_in_the_clear_work_as_well() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(S3Server::start(S3Options::default())).unwrap();
    let mut lost = World::with_database();
    let mut bare = World::empty();
    for world in [&mut lost, &mut bare] {
        world.set_env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        world.set_env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        world.set_env("AWS_REGION", "us-east-1");
        world.set_env("AWS_ENDPOINT_URL", &server.endpoint());
    }
    lost.run(&[
        "init",
        "--path",
        "shop.db",
        "--system",
        "shop",
        "--encrypt",
        "none",
        "--no-backup",
        "--yes",
    ])
    .ends(0);
    let folder = format!("fs:\n      path: {}\n      min_free: 1GiB", lost.shown("lifeboat-backups"));
    let place = format!(
        "s3: {{ bucket: {BUCKET}, prefix: shop, region: us-east-1, endpoint: \"{}\" }}",
        server.endpoint()
    );
    lost.edit_config(&folder, &place);
    lost.run(&["init"]);
    lost.run(&["backup"]).ends(0);
    bare.run(&["key", "new", "key.txt"]).ends(0);
    let store = format!("s3://{BUCKET}/shop");
    let document = bare
        .run(&["bootstrap", &store, "--key", "key.txt", "--yes", "--json"])
        .ends(0)
        .json("bootstrap");
    assert_eq!(document["kit"]["encrypted"], false);
    bare.run(&["restore", "shop", "--to", "back.db"]).ends(0);
    assert_eq!(bare.rows("back.db"), 1_000);
}

#[test]
fn a_container_of_azure_works_as_well() {
    let server = Server::azurite();
    let container = server.azure_container("bootstrap");
    let endpoint = format!("{}/{AZURE_ACCOUNT}", server.endpoint());
    let mut lost = World::with_database();
    let mut bare = World::empty();
    for world in [&mut lost, &mut bare] {
        world.set_env("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY);
    }
    let words = ["init", "--path", "shop.db", "--system", "shop", "--no-backup", "--yes"];
    lost.run(&words).ends(0);
    let folder = format!("fs:\n      path: {}\n      min_free: 1GiB", lost.shown("lifeboat-backups"));
    let place = format!("azure: {{ account: {AZURE_ACCOUNT}, container: {container}, prefix: shop, endpoint: \"{endpoint}\" }}");
    lost.edit_config(&folder, &place);
    lost.run(&["init"]);
    lost.run(&["backup"]).ends(0);
    bare.write("key.txt", &std::fs::read_to_string(lost.key()).unwrap());
    bare.set_env("AZURE_STORAGE_SERVICE_ENDPOINT", &endpoint);
    let store = format!("az://{AZURE_ACCOUNT}/{container}/shop");
    bare.run(&["bootstrap", &format!("az://{AZURE_ACCOUNT}"), "--key", "key.txt", "--yes"])
        .ends(2);
    bare.run(&["bootstrap", &store, "--key", "key.txt", "--yes"]).ends(0);
    let config = std::fs::read_to_string(bare.path("lifeboat.yaml")).unwrap();
    assert!(!config.contains(AZURE_KEY) && config.contains(&container), "{config}");
    bare.run(&["restore", "shop", "--to", "back.db"]).ends(0);
    assert_eq!(bare.rows("back.db"), 1_000);
}

#[test]
fn a_copy_is_enough_to_begin_from() {
    let lost = World::protected();
    std::fs::create_dir(lost.path("usb")).unwrap();
    lost.run(&["copy", "--to", "./usb"]).ends(0);
    assert_eq!(kits(&lost, "usb").len(), 1);
    // Nothing new to say: nothing more is copied.
    lost.run(&["copy", "--to", "./usb"]).ends(0);
    assert_eq!(kits(&lost, "usb").len(), 1);
    let bare = World::empty();
    bare.copy_folder(&lost.path("usb"), "stick");
    bare.write("key.txt", &std::fs::read_to_string(lost.key()).unwrap());
    bare.run(&["bootstrap", "stick", "--key", "key.txt", "--yes"]).ends(0);
    bare.run(&["restore", "shop", "--to", "back.db"]).ends(0);
    assert_eq!(bare.rows("back.db"), 1_000);
    // A store of the configuration that was replaced gets its own again, which nothing new to say would not bring.
    let kept = kits(&lost, "lifeboat-backups").pop().unwrap();
    std::fs::remove_file(&kept).unwrap();
    lost.run(&["copy", "--from", "./usb", "--to", "disk"]).ends(0);
    assert_eq!(kits(&lost, "lifeboat-backups").len(), 1);
    // A kit that is damaged on the way is told, and does not get around.
    let kit = kits(&lost, "lifeboat-backups").pop().unwrap();
    let mut bytes = std::fs::read(&kit).unwrap();
    bytes[100] ^= 1;
    overwrite(&kit, &bytes);
    std::fs::create_dir(lost.path("second")).unwrap();
    let told = lost.run(&["copy", "--to", "./second"]).ends(0);
    assert!(told.stderr.contains("the recovery kit was not copied"), "{}", told.stderr);
    assert_eq!(kits(&lost, "second").len(), 0);
}

#[test]
fn the_page_for_people_has_what_is_needed_and_no_secret() {
    let world = World::protected();
    let plan = "systems:\n  shop:\n    contacts: { hosting: \"<support@example.com>\", database: Ada }\n    scenarios: { fire: { rto: 4h, restore: [db], manual: [call the landlord] } }";
    world.edit_config("systems:\n  shop:", plan);
    world.run(&["verify"]).ends(0);
    let page = world.run(&["kit"]).ends(0).stdout;
    let config = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    for part in [
        signer(&world).as_str(),
        "lifeboat bootstrap ",
        "lifeboat restore shop",
        "hosting: <support@example.com>",
        "shop/db: sqlite, ",
        "proven up to restore at ",
        "shop: fire",
        "- [ ] call the landlord",
        "its copy is at: ____",
        "tools/recover.py",
    ] {
        assert!(page.contains(part), "no {part:?}: {page}");
    }
    // Contacts stand in the order in which they were written.
    assert!(page.find("hosting:") < page.find("database:"), "{page}");
    let key = std::fs::read_to_string(world.key()).unwrap();
    let secret = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY")).unwrap();
    world.run(&["kit", "--format", "html", "--to", "kit.html"]).ends(0);
    world.run(&["kit", "--to", "kit.html"]).ends(6);
    let html = std::fs::read_to_string(world.path("kit.html")).unwrap();
    assert!(
        html.contains("&lt;support@example.com&gt;") && !html.contains("<support"),
        "{html}"
    );
    for shown in [&page, &html] {
        assert!(!shown.contains(secret), "the secret half is on the page");
        let recipient = config
            .split('"')
            .chain(config.split_whitespace())
            .find(|word| word.starts_with("age1"));
        assert!(
            recipient.is_none_or(|recipient| shown.contains(recipient.trim_matches(['"', ',', ']', '[']))),
            "{shown}"
        );
    }
}
