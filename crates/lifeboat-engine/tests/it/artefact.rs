//! Old files made by the programs that the scripts of the guides call: `openssl`, `gzip`, `tar`, `zstd`, `sqlite3`.

use std::path::{Path, PathBuf};
use std::process::Command;

use lifeboat_engine::artefact::{Contents, Kind, Options, Passphrase, load, unpack};
use lifeboat_engine::sqlite::inspect;
use lifeboat_model::{ErrorKind, Result};
use tempfile::{TempDir, tempdir};

fn shell(folder: &Path, script: &str) {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .env("BACKUP_ENCRYPTION_KEY", "correct horse")
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A database of 300 rows, its `.backup` and its `.dump`.
fn world() -> TempDir {
    let folder = tempdir().unwrap();
    shell(
        folder.path(),
        "sqlite3 live.db \"CREATE TABLE agents(id INTEGER PRIMARY KEY, name TEXT, seen REAL, raw BLOB);
           CREATE INDEX by_name ON agents(name);
           CREATE TRIGGER t AFTER DELETE ON agents BEGIN SELECT 'a;b'; UPDATE agents SET seen=1 WHERE id=0; END;
           WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<300)
           INSERT INTO agents SELECT x, 'it''s; '||x||char(10), x/3.0, randomblob(50) FROM n;
           PRAGMA user_version=7;\"
         sqlite3 live.db \".backup 'backup.db'\"
         sqlite3 live.db .dump > dump.sql",
    );
    folder
}

fn passphrase(secret: &str) -> Passphrase {
    Passphrase {
        name: "old".to_owned(),
        kdf: None,
        iterations: 10_000,
        secret: secret.to_owned().into(),
    }
}

fn options(secret: Option<&str>) -> Options {
    Options {
        passphrases: secret.into_iter().map(passphrase).collect(),
        limit_bytes: None,
    }
}

fn read(path: &Path, secret: Option<&str>) -> (TempDir, Result<Contents>) {
    let into = tempdir().unwrap();
    let contents = unpack(path, &options(secret), Some(into.path()));
    (into, contents)
}

/// Takes the database out and counts its rows.
#[track_caller]
fn rows(path: &Path, secret: Option<&str>) -> (Contents, u64) {
    let (into, contents) = read(path, secret);
    let contents = contents.unwrap();
    let item = contents.database(None, path).unwrap();
    let mut database: PathBuf = item.file.clone().unwrap();
    if item.kind == Kind::Sql {
        let loaded = into.path().join("loaded.db");
        load(&database, &loaded).unwrap();
        database = loaded;
    }
    let inspection = inspect(&database, None).unwrap();
    assert_eq!(inspection.integrity, ["ok"]);
    (contents, inspection.facts.tables["agents"])
}

#[test]
fn every_form_that_the_guides_make_is_read() {
    let folder = world();
    let at = folder.path();
    shell(
        at,
        "gzip -c backup.db > a.bin
         zstd -q -o b.bin backup.db
         mkdir bundle && cp backup.db bundle/devops_hub.db && cp dump.sql bundle/devops_hub.sql && echo id,name > bundle/keys.csv
         tar -czf c.bin bundle
         tar --format=v7 -cf d.bin bundle
         openssl enc -aes-256-cbc -in a.bin -out e.bin -pass env:BACKUP_ENCRYPTION_KEY 2>/dev/null
         openssl enc -aes-256-cbc -pbkdf2 -in a.bin -out f.bin -pass env:BACKUP_ENCRYPTION_KEY
         openssl enc -aes-256-cbc -md md5 -in c.bin -out g.bin -pass env:BACKUP_ENCRYPTION_KEY 2>/dev/null
         gzip -c dump.sql | openssl enc -aes-256-cbc -salt -pbkdf2 -pass env:BACKUP_ENCRYPTION_KEY > h.bin
         openssl enc -aes-256-cbc -pbkdf2 -in dump.sql -out i.bin -pass env:BACKUP_ENCRYPTION_KEY
         gzip -c backup.db > inner.db.gz && tar -cf j.bin inner.db.gz
         cat a.bin > k.bin && head -c 1000 /dev/zero >> k.bin
         head -c 10000 backup.db | gzip -c > l.bin && tail -c +10001 backup.db | gzip -c >> l.bin
         cp backup.db m.bin && cp dump.sql n.bin",
    );
    let layers = |name: &str| {
        let (contents, rows) = rows(&at.join(name), Some("correct horse"));
        assert_eq!(rows, 300, "{name}");
        assert!(contents.notes.is_empty(), "{name}: {:?}", contents.notes);
        contents.layers.join(" → ")
    };
    assert_eq!(layers("a.bin"), "gzip");
    assert_eq!(layers("b.bin"), "zstd");
    assert_eq!(layers("c.bin"), "gzip → tar");
    assert_eq!(layers("d.bin"), "tar");
    assert_eq!(layers("e.bin"), "openssl enc (aes-256-cbc, one round of sha256) → gzip");
    assert_eq!(layers("f.bin"), "openssl enc (aes-256-cbc, pbkdf2, 10000 rounds) → gzip");
    assert_eq!(layers("g.bin"), "openssl enc (aes-256-cbc, one round of md5) → gzip → tar");
    assert_eq!(layers("h.bin"), "openssl enc (aes-256-cbc, pbkdf2, 10000 rounds) → gzip");
    assert_eq!(layers("i.bin"), "openssl enc (aes-256-cbc, pbkdf2, 10000 rounds)");
    assert_eq!(layers("j.bin"), "tar → gzip");
    assert_eq!(layers("k.bin"), "gzip");
    assert_eq!(layers("l.bin"), "gzip");
    assert_eq!(layers("m.bin"), "");
    assert_eq!(layers("n.bin"), "");
    let (_into, contents) = read(&at.join("c.bin"), None);
    let contents = contents.unwrap();
    let kinds: Vec<Kind> = ["bundle/devops_hub.db", "bundle/devops_hub.sql", "bundle/keys.csv"]
        .iter()
        .map(|path| contents.items.iter().find(|item| item.path == *path).unwrap().kind)
        .collect();
    assert_eq!(kinds, [Kind::Database, Kind::Sql, Kind::Other]);
    let sql = contents.database(Some("bundle/devops_hub.sql"), Path::new("c.bin")).unwrap();
    assert_eq!(sql.kind, Kind::Sql);
    assert_eq!(
        contents.database(Some("nothing"), Path::new("c.bin")).unwrap_err().kind(),
        ErrorKind::Usage
    );
}

#[test]
fn rounds_that_were_given_are_used() {
    let folder = world();
    shell(
        folder.path(),
        "openssl enc -aes-256-cbc -pbkdf2 -iter 777 -in backup.db -out a.bin -pass env:BACKUP_ENCRYPTION_KEY",
    );
    let file = folder.path().join("a.bin");
    let error = read(&file, Some("correct horse")).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    let mut options = options(Some("correct horse"));
    options.passphrases[0].iterations = 777;
    assert_eq!(unpack(&file, &options, None).unwrap().items[0].kind, Kind::Database);
}

#[test]
fn a_wrong_passphrase_is_not_damage() {
    let folder = world();
    shell(
        folder.path(),
        "gzip -c backup.db | openssl enc -aes-256-cbc -pbkdf2 -out a.bin -pass env:BACKUP_ENCRYPTION_KEY",
    );
    let file = folder.path().join("a.bin");
    for wrong in 0..60 {
        let error = read(&file, Some(&format!("wrong {wrong}"))).1.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongKey, "{error}");
        assert!(!format!("{error:?}").contains("wrong 1"), "{error:?}");
    }
    assert_eq!(read(&file, None).1.unwrap_err().kind(), ErrorKind::WrongKey);
    // The right one after a wrong one.
    let mut options = options(Some("wrong"));
    options.passphrases.push(passphrase("correct horse"));
    assert!(unpack(&file, &options, None).is_ok());
}

#[test]
fn what_is_cut_off_or_flipped_is_damage() {
    let folder = world();
    let at = folder.path();
    shell(
        at,
        "gzip -c backup.db > gz.bin; zstd -q -o zst.bin backup.db; tar -cf tar.bin backup.db; cp dump.sql sql.bin
         openssl enc -aes-256-cbc -pbkdf2 -in gz.bin -out enc.bin -pass env:BACKUP_ENCRYPTION_KEY",
    );
    for name in ["gz.bin", "zst.bin", "tar.bin", "enc.bin"] {
        let good = std::fs::read(at.join(name)).unwrap();
        let bad = at.join("bad.bin");
        for cut in [good.len() - 1, good.len() - 1000, good.len() / 2, good.len() / 2 + 7] {
            std::fs::write(&bad, &good[..cut]).unwrap();
            match read(&bad, Some("correct horse")).1 {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{name} {cut}: {error}"),
                // Only the zeros at the end of the archive are gone.
                Ok(_) => assert!(
                    name == "tar.bin" && cut >= good.len() - 1024,
                    "{name} cut at {cut} is accepted"
                ),
            }
        }
        if name != "tar.bin" {
            let mut flipped = good.clone();
            flipped[good.len() / 2] ^= 1;
            std::fs::write(&bad, &flipped).unwrap();
            let error = read(&bad, Some("correct horse")).1.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        }
    }
    let sql = std::fs::read(at.join("sql.bin")).unwrap();
    for cut in [sql.len() - 3, sql.len() - 9, sql.len() / 2] {
        std::fs::write(at.join("cut.sql"), &sql[..cut]).unwrap();
        let into = tempdir().unwrap();
        let error = load(&at.join("cut.sql"), &into.path().join("x.db")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn what_follows_is_told() {
    let folder = world();
    shell(folder.path(), "gzip -c backup.db > a.bin; echo and more >> a.bin");
    let (contents, rows) = rows(&folder.path().join("a.bin"), None);
    assert_eq!(rows, 300);
    assert!(contents.notes[0].contains("that is no gzip follows"), "{:?}", contents.notes);
}

#[test]
fn a_bomb_is_refused_before_the_disk_is_full() {
    let folder = tempdir().unwrap();
    shell(folder.path(), "head -c 300M /dev/zero | gzip -9 -c | gzip -9 -c > a.bin");
    let (into, contents) = read(&folder.path().join("a.bin"), None);
    let error = contents.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 0);
    let mut patient = options(None);
    patient.limit_bytes = Some(1 << 30);
    assert!(unpack(&folder.path().join("a.bin"), &patient, None).is_ok());
}

#[test]
fn a_dump_of_postgresql_is_named() {
    let folder = tempdir().unwrap();
    let at = folder.path();
    std::fs::write(
        at.join("a.sql"),
        "--\n-- PostgreSQL database dump\n--\nSET statement_timeout = 0;\n",
    )
    .unwrap();
    std::fs::write(at.join("b.dump"), b"PGDMP\x01\x0e").unwrap();
    shell(at, "gzip a.sql");
    for name in ["a.sql.gz", "b.dump"] {
        let contents = read(&at.join(name), None).1.unwrap();
        let error = contents.database(None, Path::new(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.detail().contains("PostgreSQL"), "{error}");
    }
}

#[test]
fn sql_text_reaches_nothing_but_its_own_database() {
    let folder = tempdir().unwrap();
    let at = folder.path();
    let other = at.join("other.db");
    for (number, sql) in [
        format!("ATTACH '{}' AS o; CREATE TABLE o.t(x);", other.display()),
        format!("VACUUM INTO '{}';", other.display()),
        "PRAGMA temp_store_directory = '/tmp';".to_owned(),
        "SELECT load_extension('x');".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let text = at.join(format!("{number}.sql"));
        std::fs::write(&text, sql).unwrap();
        let error = load(&text, &at.join(format!("{number}.db"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
        assert!(!other.try_exists().unwrap(), "{sql}");
    }
}
