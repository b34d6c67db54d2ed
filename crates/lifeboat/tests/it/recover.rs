//! Three ways out of a repository give the same bytes: `restore`, `restore export` and the independent reader `tools/recover.py`.

use std::path::Path;
use std::process::{Command, Output};

use crate::world::World;

/// The reader, run by the Python that `cargo xtask test` prepared (its packages are not part of a plain system).
pub fn recover(world: &World, words: &[&str]) -> Output {
    let python = std::env::var_os("LIFEBOAT_TEST_PYTHON")
        .expect("run these tests through `cargo xtask test`, which prepares a Python for them");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/recover.py");
    #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
    Command::new(python)
        .arg(script)
        .args(words)
        .current_dir(world.path(""))
        .output()
        .unwrap()
}

#[track_caller]
pub fn recovered(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "\nstdout: {}\nstderr: {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Many small changes and several backups, so that overlays, shared rows and more than one session are in play.
fn with_history() -> World {
    let world = World::protected();
    for round in 0..4 {
        let connection = world.open("shop.db");
        connection
            .execute_batch(&format!("CREATE TABLE round{round} (a, b); INSERT INTO round{round} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000) SELECT i, hex(randomblob(40)) FROM n;"))
            .unwrap();
        connection
            .execute_batch("UPDATE round0 SET b = 'changed' WHERE a % 500 = 7")
            .unwrap();
        drop(connection);
        world.run(&["backup"]).ends(0);
    }
    world
}

#[test]
fn restore_export_and_the_independent_reader_give_the_same_bytes() {
    let world = with_history();
    let configuration = std::fs::read_to_string(world.path("lifeboat.yaml")).unwrap();
    let (identity, store) = (world.key(), world.path("lifeboat-backups"));
    let (identity, store) = (identity.to_str().unwrap(), store.to_str().unwrap());
    let trust = configuration
        .split("ed25519:")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .map(|hex| format!("ed25519:{hex}"))
        .unwrap();
    for seq in 1..=5 {
        let seq = seq.to_string();
        let (plain, exported, folder) = (
            format!("restored-{seq}.db"),
            format!("exported-{seq}.db"),
            format!("recovered-{seq}"),
        );
        world.run(&["restore", "shop", "--backup", &seq, "--to", &plain]).ends(0);
        world
            .run(&["restore", "export", "shop", "--backup", &seq, "--to", &exported])
            .ends(0);
        recovered(
            &recover(
                &world,
                &[
                    "restore",
                    store,
                    "shop/db",
                    "--backup",
                    &seq,
                    "--identity",
                    identity,
                    "--to",
                    &folder,
                    "--trust",
                    &trust,
                ],
            ),
            0,
        );
        let bytes = std::fs::read(world.path(&plain)).unwrap();
        assert_eq!(std::fs::read(world.path(&exported)).unwrap(), bytes, "backup {seq}");
        assert_eq!(
            std::fs::read(world.path(&folder).join("shop.db")).unwrap(),
            bytes,
            "backup {seq}"
        );
    }
    let checked = recover(&world, &["check", store, "--identity", identity, "--trust", &trust]);
    recovered(&checked, 0);
    // INV-06: the reader finds no file in a closure that nothing reaches.
    assert!(
        !String::from_utf8_lossy(&checked.stderr).contains("nothing reaches"),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

/// A folder with everything in it, and its component.
fn tree(world: &World) {
    use std::os::unix::fs::symlink;
    let write = |path: &str, text: &str| {
        let path = world.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("conf/app.yaml", "port: 1\n");
    write("conf/deep/er/b", "b");
    write("conf/.env", "export TOKEN='SECRETVALUE'\nHOST=SECRETVALUE\n");
    symlink("app.yaml", world.path("conf/link")).unwrap();
    std::fs::hard_link(world.path("conf/app.yaml"), world.path("conf/hard")).unwrap();
    let sparse = std::fs::File::create(world.path("conf/sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 7 << 20).unwrap();
    drop(sparse);
    let path = world.path("lifeboat.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let component = "    components:\n      conf:\n        files: { include: [conf], env_structure: [conf/.env] }\n        objectives: { rpo: 24h, rto: 30m }\n        backup: { to: [disk], encrypt: main }\n";
    std::fs::write(&path, text.replacen("    components:\n", component, 1)).unwrap();
}

#[test]
fn files_come_back_by_every_way() {
    use std::os::unix::fs::MetadataExt;
    let world = World::protected();
    tree(&world);
    let backup = world.run(&["backup", "shop/conf", "--json"]).ends(0);
    assert!(!backup.stdout.contains("SECRETVALUE"));
    world.run(&["verify", "shop/conf", "--level", "restore"]).ends(0);
    world.run(&["status"]).ends(0);
    world.run(&["list", "shop/conf"]).ends(0);
    world.run(&["show", "shop/conf"]).ends(0);
    let restored = world.run(&["restore", "shop/conf", "--to", "back", "--json"]).ends(0);
    let restored = restored.json("restore");
    let keys = serde_json::to_string(&restored).unwrap();
    assert!(keys.contains(r#"["TOKEN","HOST"]"#), "{keys}");
    let (identity, store) = (world.key(), world.path("lifeboat-backups"));
    let (identity, store) = (identity.to_str().unwrap(), store.to_str().unwrap());
    let words = ["restore", store, "shop/conf", "--identity", identity, "--to", "recovered"];
    recovered(&recover(&world, &words), 0);
    recovered(&recover(&world, &["check", store, "--identity", identity]), 0);
    for folder in ["back", "recovered"] {
        let at = |path: &str| world.path(folder).join("conf").join(path);
        for path in ["app.yaml", "deep/er/b", "sparse", "hard", "link"] {
            let source = world.path("conf").join(path);
            assert_eq!(
                std::fs::read(at(path)).unwrap(),
                std::fs::read(&source).unwrap(),
                "{folder}/{path}"
            );
            let (a, b) = (at(path).symlink_metadata().unwrap(), source.symlink_metadata().unwrap());
            assert_eq!(
                (a.mode(), a.mtime(), a.mtime_nsec()),
                (b.mode(), b.mtime(), b.mtime_nsec()),
                "{folder}/{path}"
            );
        }
        assert_eq!(std::fs::read_to_string(at(".env")).unwrap(), "export TOKEN=\nHOST=\n");
        assert_eq!(at("hard").metadata().unwrap().ino(), at("app.yaml").metadata().unwrap().ino());
        assert!(at("sparse").metadata().unwrap().blocks() < 2048, "{folder}");
    }
    world.run(&["restore", "export", "shop/conf", "--to", "conf.tar"]).ends(0);
    std::fs::create_dir(world.path("untarred")).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
    let tar = Command::new("tar")
        .args(["xf", "conf.tar", "-C", "untarred"])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    recovered(&tar, 0);
    assert_eq!(
        std::fs::read_to_string(world.path("untarred/conf/hard")).unwrap(),
        "port: 1\n"
    );
    // In place and back again.
    std::fs::write(world.path("conf/app.yaml"), "spoiled").unwrap();
    let restored = world
        .run(&["restore", "shop/conf", "--in-place", "--yes", "--json"])
        .ends(0)
        .json("restore");
    assert_eq!(std::fs::read_to_string(world.path("conf/app.yaml")).unwrap(), "port: 1\n");
    let id = serde_json::to_string(&restored).unwrap();
    let id = id
        .split(r#""id":""#)
        .map(|rest| rest.split('"').next().unwrap())
        .find(|id| id.contains('T'))
        .unwrap()
        .to_owned();
    world.run(&["restore", "undo", &id]).ends(0);
    assert_eq!(std::fs::read_to_string(world.path("conf/app.yaml")).unwrap(), "spoiled");
}

#[test]
fn the_independent_reader_notices_damage_and_a_wrong_key() {
    let world = with_history();
    let store = world.path("lifeboat-backups");
    let store = store.to_str().unwrap();
    let other = world.path("other.key");
    world.run(&["key", "new", other.to_str().unwrap()]).ends(0);
    recovered(
        &recover(
            &world,
            &[
                "restore",
                store,
                "shop/db",
                "--identity",
                other.to_str().unwrap(),
                "--to",
                "out",
            ],
        ),
        12,
    );
    assert!(!world.path("out").join("shop.db").try_exists().unwrap());
}

/// Key files come and go, and anybody may put one there; the independent reader takes the one that fits.
#[test]
fn the_independent_reader_follows_keys_that_were_added_and_forged() {
    let world = with_history();
    let store = world.path("lifeboat-backups");
    let store = store.to_str().unwrap();
    let new = world.path("new.txt");
    let public = world
        .run(&["key", "new", new.to_str().unwrap(), "--json"])
        .ends(0)
        .json("key-new")["public_key"]
        .as_str()
        .unwrap()
        .to_owned();
    world.run(&["key", "add", &public]).ends(0);
    let forged = world.shell(&format!(
        "for f in lifeboat-backups/c/*/keys/*.age; do s=$(basename $f | cut -c1-32); echo '{{}}' | age -r {public} > forged; \
         \"$LIFEBOAT_TEST_PYTHON\" -c 'import blake3, sys; print(blake3.blake3(open(\"forged\", \"rb\").read()).hexdigest())' > hash; \
         mv forged $(dirname $f)/$s-$(cat hash).age; done"
    ));
    assert_eq!(forged.code, 0, "{}", forged.stderr);
    for (seq, folder) in [("1", "first"), ("5", "last")] {
        let words = [
            "restore",
            store,
            "shop/db",
            "--backup",
            seq,
            "--identity",
            new.to_str().unwrap(),
            "--to",
            folder,
        ];
        recovered(&recover(&world, &words), 0);
        let plain = format!("restored-{seq}.db");
        world.run(&["restore", "shop", "--backup", seq, "--to", &plain]).ends(0);
        assert_eq!(
            std::fs::read(world.path(&plain)).unwrap(),
            std::fs::read(world.path(folder).join("shop.db")).unwrap()
        );
    }
    world.run(&["verify", "--level", "decrypt", "--all"]).ends(0);
}
