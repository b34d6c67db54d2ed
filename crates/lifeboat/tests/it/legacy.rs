//! Old files of the guides' scripts, SQL text and extracts, with the real binary and the real programs.

use serde_json::Value;

use crate::golden::keeps;
use crate::world::{Ran, World};

const PASSPHRASE: &str = "correct horse battery";

impl World {
    fn with_passphrase(&self, args: &[&str]) -> Ran {
        self.finish(self.command().args(args).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE))
    }

    /// The bundle of the DevOps Hub guide, the encrypted dump of the N-Kudo guide, the compressed copy of the architect-go guide.
    fn with_old_files() -> Self {
        let world = Self::protected();
        world.script(&format!(
            "export BACKUP_ENCRYPTION_KEY='{PASSPHRASE}'
             mkdir -p old/bundle && sqlite3 shop.db \".backup old/bundle/shop.db\" && sqlite3 shop.db .dump > old/bundle/shop.sql
             echo services: > old/bundle/docker-compose.yml
             tar -C old -czf old/hub_backup_20260112_120000.tar.gz bundle
             gzip -c old/bundle/shop.sql | openssl enc -aes-256-cbc -pass env:BACKUP_ENCRYPTION_KEY > old/backup_20240101_120000.sql.gz.enc 2>/dev/null
             gzip -c old/bundle/shop.db > old/shop_20260218_120000.db.gz",
        ));
        world.add_rows("shop.db", 5);
        world.run(&["backup"]).ends(0);
        world
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn old_files_are_listed_checked_and_restored() {
    let world = World::with_old_files();
    let bundle = "old/hub_backup_20260112_120000.tar.gz";
    let listed = world.run(&["list", "--from", bundle, "--json"]).ends(0).json("artefact-list");
    assert_eq!(listed["layers"], serde_json::json!(["gzip", "tar"]));
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    keeps("artefact-list", &listed);
    let checked = world
        .run(&["verify", "--from", bundle, "--json"])
        .ends(0)
        .json("artefact-verify");
    assert_eq!(number(&checked["tables"]["orders"]), 1000);
    keeps("artefact-verify", &checked);
    let planned = world
        .run(&["restore", "shop", "--from", bundle, "--to", "new.db", "--dry-run", "--json"])
        .ends(0)
        .json("artefact-restore-plan");
    keeps("artefact-restore-plan", &planned);
    assert!(!world.path("new.db").try_exists().unwrap());
    let restored = world
        .run(&["restore", "shop", "--from", bundle, "--to", "new.db", "--json"])
        .ends(0)
        .json("artefact-restore");
    keeps("artefact-restore", &restored);
    assert_eq!(world.rows("new.db"), 1000);
    // A name that is taken is refused, and nothing is left behind.
    world.run(&["restore", "shop", "--from", bundle, "--to", "new.db"]).ends(6);
    let names = |folder: &str| -> Vec<String> {
        std::fs::read_dir(world.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert!(!names(".").iter().any(|name| name.starts_with(".lifeboat-restore")));
    // In place, with a way back.
    world
        .run(&["restore", "shop", "--from", bundle, "--in-place", "--yes"])
        .ends(0);
    assert_eq!(world.rows("shop.db"), 1000);
}

#[test]
fn an_encrypted_file_needs_its_passphrase() {
    let world = World::with_old_files();
    let file = "old/backup_20240101_120000.sql.gz.enc";
    let ran = world.run(&["verify", "--from", file]).ends(12);
    assert!(ran.stderr.contains("there is no passphrase"), "{}", ran.stderr);
    let ran = world.with_passphrase(&["verify", "--from", file]).ends(0);
    assert!(
        ran.stdout.contains("orders: 1000 rows") || ran.stdout.contains("orders: 1,000 rows"),
        "{}",
        ran.stdout
    );
    // By the configuration.
    world.write("old/passphrase", PASSPHRASE);
    world.edit_config(
        "keys:\n",
        "keys:\n  old:\n    openssl: { passphrase: { file: old/passphrase } }\n",
    );
    world.run(&["restore", "shop", "--from", file, "--to", "x.db"]).ends(0);
    assert_eq!(world.rows("x.db"), 1000);
    world.write("old/passphrase", "wrong one");
    let ran = world.run(&["verify", "--from", file]).ends(12);
    assert!(
        !format!("{}{}", ran.stdout, ran.stderr).contains("wrong one"),
        "{}",
        ran.stderr
    );
    // Damage is another thing.
    world.script("head -c 3000 old/shop_20260218_120000.db.gz > old/cut.gz");
    world.run(&["verify", "--from", "old/cut.gz"]).ends(5);
    world
        .run(&["restore", "shop", "--from", "old/cut.gz", "--to", "y.db"])
        .ends(5);
    assert!(!world.path("y.db").try_exists().unwrap());
}

#[test]
fn an_imported_backup_is_restored_and_is_never_the_latest() {
    let world = World::with_old_files();
    let imported = world
        .run(&["import", "old/shop_20260218_120000.db.gz", "--as", "shop/db", "--json"])
        .ends(0)
        .json("import");
    keeps("import", &imported);
    assert_eq!(imported["backup"]["moment"], "2026-02-18T12:00:00.000000Z");
    assert_eq!(imported["backup"]["tags"], serde_json::json!(["imported"]));
    let second = world
        .run(&[
            "import",
            "old/hub_backup_20260112_120000.tar.gz",
            "--as",
            "shop",
            "--moment",
            "2026-01-12T13:00:00+01:00",
            "--json",
        ])
        .ends(0)
        .json("import");
    assert_eq!(second["backup"]["moment"], "2026-01-12T12:00:00.000000Z");
    world.run(&["restore", "shop", "--to", "latest.db"]).ends(0);
    assert_eq!(world.rows("latest.db"), 1005);
    world
        .run(&["restore", "shop", "--before", "2026-03-01T00:00:00Z", "--to", "old.db"])
        .ends(0);
    assert_eq!(world.rows("old.db"), 1000);
    // The next backup is small: it compares with the own one before.
    let next = world.run(&["backup", "--json"]).ends(0).json("backup");
    assert!(number(&next["components"][0]["changed_bytes"]) < 20_000, "{next:#}");
    world.run(&["verify", "--all"]).ends(0);
    // From the future it cannot be.
    world
        .run(&[
            "import",
            "old/shop_20260218_120000.db.gz",
            "--as",
            "shop",
            "--moment",
            "2999-01-01T00:00:00Z",
        ])
        .ends(2);
}

#[test]
fn sql_text_and_extracts_are_stored_and_exported() {
    let world = World::protected();
    world.edit_config(
        "sqlite: { path:",
        "sqlite: { sql_dump: true, extract: [{ file: orders.csv, query: \"SELECT id FROM orders WHERE id < 3\", columns: [id] }], path:",
    );
    world.run(&["backup"]).ends(0);
    world.run(&["verify"]).ends(0);
    world.run(&["restore", "shop", "--to", "copy.db"]).ends(0);
    assert_eq!(world.rows("copy.db"), 1000);
    let exported = world
        .run(&[
            "restore",
            "export",
            "shop",
            "--extract",
            "orders.csv",
            "--to",
            "out.csv",
            "--json",
        ])
        .ends(0)
        .json("export");
    keeps("export", &exported);
    assert_eq!(std::fs::read_to_string(world.path("out.csv")).unwrap(), "id\r\n1\r\n2\r\n");
    world
        .run(&["restore", "export", "shop", "--extract", "shop.sql", "--to", "stored.sql"])
        .ends(0);
    world.run(&["restore", "export", "shop", "--to", "fresh.sql"]).ends(0);
    assert_eq!(
        std::fs::read(world.path("stored.sql")).unwrap(),
        std::fs::read(world.path("fresh.sql")).unwrap()
    );
    world.script("sqlite3 loaded.db < fresh.sql");
    assert_eq!(world.rows("loaded.db"), 1000);
    world
        .run(&["restore", "export", "shop", "--extract", "nothing.csv", "--to", "n.csv"])
        .ends(2);
    // A column that is not allowed ends in no backup.
    world.edit_config("SELECT id FROM", "SELECT id, what FROM");
    let ran = world.run(&["backup"]).ends(7);
    assert!(ran.stderr.contains("orders.what"), "{}", ran.stderr);
}
