//! Files and a PKI as a new user meets them: set up by flags, in two stores, through every verb.
#![allow(
    clippy::disallowed_methods,
    reason = "the disasters of the tests, and what is left after them"
)]

use crate::golden::keeps;
use crate::world::World;

const SECRET: &str = "nobody-may-read-this";

/// A folder with a database, configuration, a `.env` and a PKI; nothing is set up.
fn bare() -> World {
    let world = World::with_database();
    std::fs::create_dir_all(world.path("conf/k8s")).unwrap();
    std::fs::create_dir(world.path("ca")).unwrap();
    world.write("conf/k8s/app.yaml", "replicas: 2\n");
    world.write("conf/nginx.conf", "server {}\n");
    world.write(".env", &format!("TOKEN={SECRET}\nexport MODE='{SECRET}'\n"));
    world.script(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca/ca.key -out ca/ca.crt -days 3650 -subj /CN=shop 2>/dev/null",
    );
    world
}

/// The same, protected in two stores.
fn protected() -> World {
    let world = bare();
    world
        .run(&[
            "init",
            "--path",
            "shop.db",
            "--files",
            "conf",
            "--env-structure",
            ".env",
            "--pki",
            "ca",
            "--system",
            "shop",
            "--yes",
        ])
        .ends(0);
    std::fs::create_dir(world.path("other")).unwrap();
    let text = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let text = text.replace("to: [disk]", "to: [disk, other]");
    world.write(
        "lifeboat.yaml",
        &text.replace("stores:\n", "stores:\n  other: { fs: { path: other } }\n"),
    );
    world
}

fn read(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.path(name)).unwrap()
}

#[test]
fn init_sets_up_files_and_a_pki() {
    let world = protected();
    world.run(&["config", "check"]).ends(0);
    // The second store is empty: the next backup fills it.
    let status = world.run(&["status"]).ends(4);
    assert!(
        status.stdout.contains("the store other holds nothing of Lifeboat"),
        "{}",
        status.stdout
    );
    let list = world.run(&["list"]).ends(3);
    for component in ["shop/db", "shop/config", "shop/pki"] {
        assert!(list.stdout.contains(component), "{}", list.stdout);
    }
    // What the flags name must be there, and private keys are never stored in the clear.
    let bare = bare();
    bare.run(&["init", "--env-structure", "nowhere", "--yes"]).ends(13);
    bare.run(&["init", "--pki", "conf", "--yes"]).ends(2);
    bare.run(&["init", "--pki", "ca", "--encrypt", "none", "--yes"]).ends(2);
    bare.run(&["init", "--files", "[", "--yes"]).ends(2);
    assert!(!bare.path("lifeboat.yaml").exists());
    // Without a terminal the command that goes on is printed, with every flag.
    let refused = bare.run(&["init", "--files", "conf/*.conf", "--pki", "ca"]).ends(6);
    bare.shell(&refused.proceeds_with()).ends(0);
    let list = bare.run(&["list"]).ends(0);
    assert!(
        list.stdout.contains("/config") && list.stdout.contains("/pki"),
        "{}",
        list.stdout
    );
    assert!(!list.stdout.contains("/db"), "{}", list.stdout);
}

#[test]
fn every_verb_speaks_of_files_and_of_a_pki() {
    let world = protected();
    world.run(&["backup"]).ends(0);
    world.run(&["verify"]).ends(0);
    world.run(&["status"]).ends(0);
    world.run(&["points"]).ends(0);
    let show = world.run(&["show", "shop/config"]).ends(0);
    for word in ["3 files", "patterns", "conf"] {
        assert!(show.stdout.contains(word), "{word}: {}", show.stdout);
    }
    let show = world.run(&["show", "shop/pki"]).ends(0);
    for word in ["certificate", "CN=shop", "until", "RSA"] {
        assert!(show.stdout.contains(word), "{word}: {}", show.stdout);
    }
    let check = world.run(&["check", "shop"]).ends(0);
    for word in ["3 files", "as captured", "TOKEN, MODE", "1000 rows"] {
        assert!(check.stdout.contains(word), "{word}: {}", check.stdout);
    }
    world.run(&["check", "shop/config", "--on", "conf"]).ends(2);
    let doctor = world.run(&["doctor"]);
    assert!(doctor.stdout.contains("the store other has"), "{}", doctor.stdout);
    // A key that fits nothing: told by the backup, by status, by check.
    world.script("openssl genpkey -algorithm ed25519 -out ca/ca.key");
    assert!(world.run(&["backup", "shop/pki"]).ends(0).stderr.contains("PROBLEM"));
    assert!(
        world
            .run(&["status", "shop/pki"])
            .ends(4)
            .stdout
            .contains("the PKI has a problem")
    );
    assert!(world.run(&["check", "shop/pki"]).ends(5).stdout.contains("BAD"));
    // No value was said or stored, by any of them.
    for folder in ["lifeboat-backups", "other", ".lifeboat", "home"] {
        for (path, bytes) in world.files(folder) {
            assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{}", path.display());
        }
    }
}

#[test]
fn files_are_compared_restored_filled_in_promoted_and_taken_back() {
    let world = protected();
    world.run(&["backup"]).ends(0);
    world.write("conf/nginx.conf", "server { listen 81; }\n");
    world.write("conf/new.conf", "new\n");
    std::fs::remove_file(world.path("conf/k8s/app.yaml")).unwrap();
    let diff = world
        .run(&["diff", "latest", "live", "shop/config", "--json"])
        .ends(0)
        .json("diff");
    assert_eq!(diff["same"], false);
    assert_eq!(diff["files"]["missing"], 1);
    assert_eq!(diff["files"]["extra"], 1);
    keeps("diff-files", &diff);
    let diff = world
        .run(&["diff", "latest", "live", "shop/config", "--path", "conf/*.conf"])
        .ends(0);
    assert!(
        diff.stdout.contains("content") && diff.stdout.contains("new.conf"),
        "{}",
        diff.stdout
    );
    assert!(!diff.stdout.contains("app.yaml"), "{}", diff.stdout);
    world.run(&["diff", "latest", "live", "shop/config", "--table", "t"]).ends(2);
    world.run(&["diff", "latest", "live", "shop/db", "--path", "t"]).ends(2);

    let restored = world
        .run(&["restore", "shop/config", "--to", "copy", "--json"])
        .ends(0)
        .json("restore");
    let missing = &restored["components"][0]["findings"]["missing_values"][0];
    assert_eq!(missing["keys"], serde_json::json!(["TOKEN", "MODE"]));
    let id = restored["components"][0]["id"].as_str().unwrap();
    world.write("copy/.env", "TOKEN=new\nMODE=new\n");
    let promoted = world
        .run(&["restore", "promote", id, "--yes", "--json"])
        .ends(0)
        .json("restore-promote");
    keeps("restore-promote", &promoted);
    assert_eq!(read(&world, ".env"), "TOKEN=new\nMODE=new\n");
    assert_eq!(read(&world, "conf/nginx.conf"), "server {}\n");
    assert_eq!(read(&world, "conf/new.conf"), "new\n");
    world.run(&["restore", "undo", id]).ends(0);
    assert!(read(&world, ".env").contains(SECRET));
    assert_eq!(read(&world, "conf/nginx.conf"), "server { listen 81; }\n");
    assert!(!world.path("conf/k8s/app.yaml").exists());
    world.run(&["restore", "promote", id, "--yes"]).ends(9);

    // Some files, an archive, and what leads out.
    world
        .run(&[
            "restore",
            "shop/config",
            "--path",
            "conf/k8s",
            "--backup",
            "1",
            "--to",
            "some",
        ])
        .ends(0);
    assert_eq!(read(&world, "some/conf/k8s/app.yaml"), "replicas: 2\n");
    assert!(!world.path("some/conf/nginx.conf").exists());
    world
        .run(&["restore", "export", "shop/config", "--backup", "1", "--to", "all.tar"])
        .ends(0);
    world.script("mkdir out && tar -C out -xf all.tar && cmp out/conf/k8s/app.yaml some/conf/k8s/app.yaml && test $(cat out/.env | wc -l) = 2");
    std::os::unix::fs::symlink("/etc/passwd", world.path("conf/out")).unwrap();
    assert!(
        world
            .run(&["backup", "shop/config"])
            .ends(0)
            .stderr
            .contains("conf/out leads out")
    );
    world.run(&["restore", "shop/config", "--to", "refused"]).ends(6);
    assert!(!world.path("refused").exists());
    world
        .run(&["restore", "shop/config", "--to", "taken-over", "--outside-links"])
        .ends(0);
    assert!(world.path("taken-over/conf/out").symlink_metadata().unwrap().is_symlink());
    // A whole system that is gone comes back, and a second run has nothing left to do.
    std::fs::remove_file(world.path("conf/out")).unwrap();
    world.run(&["backup"]).ends(0);
    for folder in ["ca", "conf"] {
        std::fs::remove_dir_all(world.path(folder)).unwrap();
    }
    world.run(&["restore", "shop", "--in-place", "--yes"]).ends(0);
    assert!(world.path("ca/ca.key").exists() && world.path("conf/nginx.conf").exists());
    let again = world.run(&["restore", "shop", "--in-place", "--yes", "--resume"]).ends(0);
    assert_eq!(again.stdout.matches("already").count(), 3, "{}", again.stdout);
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let world = World::empty();
    let help = world.run(&["help"]).ends(0).stdout;
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 20, "{verbs:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run(&["completions", shell]).ends(0).stdout;
        for verb in &verbs {
            assert!(script.contains(verb), "{verb} is not completed by {shell}");
        }
    }
    world.run(&["man", "--to", "pages"]).ends(0);
    for verb in &verbs {
        assert!(world.path(&format!("pages/lifeboat-{verb}.1")).exists(), "{verb} has no page");
        world.run(&[verb, "--help"]).ends(0);
    }
}

#[test]
fn what_cannot_be_read_fails_the_backup_with_its_path() {
    let world = bare();
    world.run(&["init", "--files", "conf", "--system", "shop", "--yes"]).ends(0);
    let run = |args: &str| {
        // The superuser may read everything: as somebody else then.
        let line = format!(
            "if test $(id -u) = 0; then chown -R 65534:65534 . && exec setpriv --reuid=65534 --regid=65534 --clear-groups ./lifeboat {args}; \
             else exec ./lifeboat {args}; fi"
        );
        world.shell(&line)
    };
    std::fs::copy(world.command().get_program(), world.path("lifeboat")).unwrap();
    world.script("chmod 755 . lifeboat && chmod 000 conf/nginx.conf");
    let refused = run("backup").ends(13);
    assert!(refused.stderr.contains("conf/nginx.conf"), "{}", refused.stderr);
    assert!(refused.stderr.contains("run as a user who may read it"), "{}", refused.stderr);
    world.script("chmod 644 conf/nginx.conf && chmod 000 conf/k8s");
    let refused = run("backup").ends(13);
    assert!(refused.stderr.contains("conf/k8s"), "{}", refused.stderr);
    // Nothing was skipped, and nothing of either counts.
    let list = world.run(&["list", "--json"]).ends(0).json("list");
    assert_eq!(list["components"][0]["backups"].as_array().unwrap().len(), 1);
    // Left out on purpose, it is no error.
    let text = read(&world, "lifeboat.yaml");
    let text = text.replace("          include:", "          exclude: [k8s]\n          include:");
    world.write("lifeboat.yaml", &text);
    run("backup").ends(0);
    run("restore shop --to copy").ends(0);
    assert!(world.path("copy/conf/nginx.conf").exists() && !world.path("copy/conf/k8s").exists());
}
