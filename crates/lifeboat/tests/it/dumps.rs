//! Dumps that `pg_dump` made, restored; and backups written as files that PostgreSQL's own programs take. With real servers and the real programs.

use std::path::Path;

use lifeboat_testkit::postgres::{Cluster, Options, majors};

use crate::golden::keeps;
use crate::logical::{everything, hotel, id_of, names, world};
use crate::world::{Ran, World};

const PASSPHRASE: &str = "correct horse battery";

impl World {
    /// With the passphrase of the old files.
    fn run_old(&self, args: &[&str]) -> Ran {
        self.finish(self.command().args(args).env("BACKUP_ENCRYPTION_KEY", PASSPHRASE))
    }

    fn restore_old(&self, file: &str, to: &str) -> Ran {
        self.run_old(&["restore", "hotel", "--from", file, "--to", to])
    }

    /// A script that knows the passphrase.
    fn pack(&self, script: &str) {
        self.script(&format!("export BACKUP_ENCRYPTION_KEY='{PASSPHRASE}'\n{script}"));
    }

    fn write_bytes(&self, name: &str, bytes: &[u8]) {
        #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

const OPENSSL: &str = "openssl enc -aes-256-cbc -pbkdf2 -pass env:BACKUP_ENCRYPTION_KEY";

/// Every format of a dump of the hotel, as `custom`, `tar`, `plain` and the folder `folder`.
fn dump(cluster: &Cluster, world: &World, more: &[&str]) {
    for (name, format) in [("custom", "-Fc"), ("tar", "-Ft"), ("plain", "-Fp")] {
        let words = [&["-d", "hotel", format], more].concat();
        world.write_bytes(name, &cluster.run("pg_dump", &words).stdout);
    }
    let folder = cluster.make_folder("dumps").join("folder");
    let shown = folder.display().to_string();
    let words = [&["-d", "hotel", "-Fd", "-f", &shown], more].concat();
    cluster.run("pg_dump", &words);
    world.script(&format!("cp -r '{shown}' folder"));
}

/// The server writes down what is made and removed.
fn watched(cluster: &Cluster) {
    cluster.query("alter system set log_statement = 'ddl'");
    cluster.query("select pg_reload_conf()");
}

/// Nothing was made on the server, not even for a while.
#[track_caller]
fn untouched(cluster: &Cluster) {
    assert!(!cluster.log().contains("CREATE DATABASE \"lifeboat"), "{}", cluster.log());
    assert_eq!(names(cluster), "hotel");
}

#[test]
fn every_format_in_every_wrapping_comes_back() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        dump(&cluster, &world, &[]);
        world.pack(&format!(
            "gzip -c plain | {OPENSSL} > plain.gz.enc
             zstd -q tar -o tar.zst
             tar -czf folder.tar.gz folder; tar -C folder -cf root.tar .
             {OPENSSL} -in custom -out custom.enc"
        ));
        let wanted = everything(&cluster, "hotel");
        for (number, (file, format)) in [
            ("custom", "custom"),
            ("tar", "tar"),
            ("plain", "plain"),
            ("folder", "directory"),
            ("plain.gz.enc", "plain"),
            ("tar.zst", "tar"),
            ("folder.tar.gz", "directory"),
            ("root.tar", "directory"),
            ("custom.enc", "custom"),
        ]
        .into_iter()
        .enumerate()
        {
            // The name says nothing.
            let name = format!("some-{number}");
            std::fs::rename(world.path(file), world.path(&name)).unwrap();
            let planned = world
                .run_old(&["restore", "hotel", "--from", &name, "--to", "copy", "--dry-run", "--json"])
                .ends(0)
                .json("dump-restore-plan");
            assert_eq!(planned["dump"]["format"], format, "{file}: {planned:#}");
            assert!(
                planned["dump"]["server_version"]
                    .as_str()
                    .unwrap()
                    .starts_with(&major.to_string()),
                "{planned:#}"
            );
            let restored = world
                .run_old(&["restore", "hotel", "--from", &name, "--to", "copy", "--json"])
                .ends(0)
                .json("dump-restore");
            if file == "folder.tar.gz" {
                keeps("dump-restore-plan", &planned);
                keeps("dump-restore", &restored);
            }
            assert_eq!(everything(&cluster, "copy"), wanted, "{major} {file}");
            assert_eq!(
                cluster.query_in("copy", "select nextval('app.tickets'), (select n from app.m2)"),
                "17|41"
            );
            let taken = world.restore_old(&name, "copy").ends(6);
            assert!(taken.stderr.contains("has a database of this name"), "{}", taken.stderr);
            assert_eq!(names(&cluster), "hotel");
            cluster.query("drop database copy");
        }
    }
}

#[test]
fn a_restored_dump_takes_the_place_of_the_original() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    dump(&cluster, &world, &[]);
    world.script("mv custom hotel_20260112_120000.dump");
    let before = everything(&cluster, "hotel");
    cluster.query_in("hotel", "delete from app.nights");
    let restored = world
        .run(&["restore", "hotel", "--from", "hotel_20260112_120000.dump"])
        .ends(0);
    assert!(
        restored.stdout.contains("hotel_restored_20260112_120000"),
        "{}",
        restored.stdout
    );
    world.run(&["restore", "promote", &id_of(&restored.stdout), "--yes"]).ends(0);
    assert_eq!(everything(&cluster, "hotel"), before);
    // What other restores know is said, and nothing happens.
    for words in [["--in-place", "--yes"], ["--at", "2026-01-12T12:00:00Z"], ["--to", "a/b"]] {
        let all = [&["restore", "hotel", "--from", "plain"][..], &words].concat();
        world.run(&all).ends(2);
    }
    let refused = world
        .run(&["restore", "hotel", "--from", "plain", "--to", "copy", "--backup", "1"])
        .ends(2);
    assert!(refused.stderr.contains("one moment only"), "{}", refused.stderr);
    // A dump is no SQLite database, and the other way round.
    let refused = world.run(&["restore", "shop", "--from", "plain", "--to", "x.db"]).ends(1);
    assert!(refused.stderr.contains("a dump of PostgreSQL"), "{}", refused.stderr);
    world.run(&["restore", "hotel", "--from", "shop.db", "--to", "copy"]).ends(5);
    for file in ["plain", "tar", "folder"] {
        let checked = world.run(&["verify", "--from", file, "--json"]).ends(0).json("dump-verify");
        if file == "tar" {
            keeps("dump-verify", &checked);
        }
    }
    world.script("sed '$d' tar > cut");
    world.run(&["verify", "--from", "cut"]).ends(5);
    let listed = world.run(&["list", "--from", "folder"]).ends(0);
    assert!(listed.stdout.contains("PostgreSQL dump"), "{}", listed.stdout);
}

#[test]
fn a_dump_is_taken_over_as_a_backup_like_any_other() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        dump(&cluster, &world, &[]);
        world.pack(&format!(
            "gzip -c plain | {OPENSSL} > hotel_20260112_120000.sql.gz.enc; mv custom hotel_20260113_120000.dump; mv folder hotel_20260114"
        ));
        let wanted = everything(&cluster, "hotel");
        for (file, moment) in [
            ("hotel_20260113_120000.dump", "2026-01-13T12:00:00.000000Z"),
            ("hotel_20260112_120000.sql.gz.enc", "2026-01-12T12:00:00.000000Z"),
            ("hotel_20260114", "2026-01-14T00:00:00.000000Z"),
        ] {
            let imported = world
                .run_old(&["import", file, "--as", "hotel", "--json"])
                .ends(0)
                .json("dump-import");
            assert_eq!(imported["backup"]["moment"], moment, "{file}");
            assert_eq!(imported["backup"]["tags"], serde_json::json!(["imported"]), "{file}");
            assert!(imported["rows"].as_u64().unwrap() > 100, "{imported:#}");
            if file == "hotel_20260114" {
                keeps("dump-import", &imported);
            }
        }
        // The newest of them, while there is nothing else; with all that a logical backup can.
        cluster.query_in("hotel", "truncate app.nights");
        world.run(&["restore", "hotel", "--to", "copy"]).ends(0);
        assert_eq!(everything(&cluster, "copy"), wanted, "{major}");
        world.run(&["verify", "hotel", "--level", "restore"]).ends(0);
        world
            .run(&["restore", "hotel", "--tables", "app.nights", "--to", "old_nights"])
            .ends(0);
        assert_ne!(cluster.query_in("hotel", "select count(*) from old_nights.nights"), "0");
        cluster.query_in("hotel", "drop schema old_nights cascade");
        // Its own backup is the newest from now on, and the others are found by their moments.
        world.run(&["backup", "hotel"]).ends(0);
        world.run(&["restore", "hotel", "--to", "own"]).ends(0);
        assert_eq!(cluster.query_in("own", "select count(*) from app.nights"), "0");
        let restored = world
            .run(&[
                "restore",
                "hotel",
                "--before",
                "2026-01-12T18:00:00Z",
                "--to",
                "oldest",
                "--json",
            ])
            .ends(0)
            .json("restore");
        assert_eq!(restored["components"][0]["backup"]["moment"], "2026-01-12T12:00:00.000000Z");
        assert_eq!(everything(&cluster, "oldest"), wanted, "{major}");
    }
}

#[test]
fn what_cannot_be_taken_over_leaves_nothing() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    dump(&cluster, &world, &[]);
    world.script("head -c -20 custom > cut; sed 's/CREATE INDEX/SELECT 1 \\/ 0; CREATE INDEX/' plain > bad");
    world.run(&["import", "cut", "--as", "hotel"]).ends(5);
    let failed = world.run(&["import", "bad", "--as", "hotel"]).ends(1);
    assert!(failed.stderr.contains("division by zero"), "{}", failed.stderr);
    let failed = world.run(&["import", "custom", "--as", "shop"]).ends(1);
    assert!(failed.stderr.contains("a dump of PostgreSQL"), "{}", failed.stderr);
    let failed = world
        .run(&["import", "custom", "--as", "hotel", "--moment", "2099-01-01T00:00:00Z"])
        .ends(2);
    assert!(failed.stderr.contains("in the future"), "{}", failed.stderr);
    let failed = world.run(&["import", "shop.db", "--as", "hotel"]).ends(5);
    assert!(!failed.stderr.is_empty());
    let listed = world.run(&["list", "hotel", "--json"]).ends(0).json("list");
    assert_eq!(listed["components"][0]["backups"], serde_json::json!([]), "{listed:#}");
}

#[test]
fn a_dump_that_is_cut_off_is_recognised_before_anything_is_made() {
    for major in majors() {
        let cluster = hotel(major);
        let world = world(&cluster, "");
        dump(&cluster, &world, &[]);
        let loose = cluster.make_folder("loose").join("loose").display().to_string();
        cluster.run("pg_dump", &["-d", "hotel", "-Fd", "-Z0", "-f", &loose]);
        world.script(&format!("cp -r '{loose}' loose"));
        watched(&cluster);
        world.pack(&format!(
            "gzip -c plain > plain.gz; zstd -q plain -o plain.zst; {OPENSSL} -in custom -out custom.enc; tar -czf folder.tar.gz folder
             cut_off() {{ head -c $(($(stat -c %s \"$1\") * $2 / 100)) \"$1\" > \"cut-$2-$1\"; }}
             for file in plain plain.gz plain.zst custom custom.enc tar folder.tar.gz; do
                 for share in 30 70 99; do cut_off $file $share; done
             done
             sed '/database dump complete/d' plain > cut-plain-end
             head -c -20 custom > cut-custom-end
             for member in toc.dat $(cd folder; ls -S | grep '^[0-9].*gz$' | head -1); do
                 cp -r folder cut-folder-$member
                 head -c -9 folder/$member > cut-folder-$member/$member
             done
             cp -r folder cut-folder-missing; rm cut-folder-missing/$(cd folder; ls -S | grep '^[0-9].*gz$' | head -1)
             member=$(cd loose; ls -S | grep '^[0-9].*dat$' | head -1); cp -r loose cut-folder-plain; head -c -1000 loose/$member > cut-folder-plain/$member"
        ));
        let mut count = 0;
        for entry in std::fs::read_dir(world.path(".")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("cut-") {
                continue;
            }
            count += 1;
            let failed = world.restore_old(&name, "copy").ends(5);
            assert!(!failed.stderr.contains("1. create"), "{major} {name}: {}", failed.stderr);
            untouched(&cluster);
        }
        assert_eq!(count, 27, "{major}");
    }
}

#[test]
fn commands_for_psql_are_refused_and_not_run() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    dump(&cluster, &world, &[]);
    watched(&cluster);
    let plain = String::from_utf8(world.read("plain")).unwrap();
    let ran = cluster.make_folder("ran");
    let touch = format!("touch '{}'", ran.join("it").display());
    for evil in [
        format!("\\! {touch}\n"),
        format!("SELECT 1 \\g |{touch}\n"),
        format!("SELECT 1; \\! {touch}\n"),
        format!("\\copy app.hot from program '{touch}'\n"),
        format!("SELECT $$;$$ \\; \\! {touch}\n;"),
        "\\connect postgres\n".to_owned(),
        "\\i /etc/passwd\n".to_owned(),
    ] {
        for at in ["CREATE SCHEMA app;", "-- PostgreSQL database dump complete"] {
            world.write("evil", &plain.replacen(at, &format!("\n{evil}{at}"), 1));
            let refused = world.restore_old("evil", "copy").ends(6);
            assert!(
                refused.stderr.contains("psql") || refused.stderr.contains("\\connect"),
                "{}",
                refused.stderr
            );
            untouched(&cluster);
        }
    }
    assert_eq!(std::fs::read_dir(&ran).unwrap().count(), 0);
    // As row or text it is nothing special.
    cluster.query_in(
        "hotel",
        &format!(
            "insert into app.tenants(name) values (E'\\\\! x'); comment on schema app is E'\\n\\\\! {}'",
            touch.replace('\'', "")
        ),
    );
    world.write_bytes("good", &cluster.run("pg_dump", &["-d", "hotel"]).stdout);
    world.restore_old("good", "copy").ends(0);
    assert_eq!(everything(&cluster, "copy"), everything(&cluster, "hotel"));
    // Made for another purpose: it would go elsewhere.
    world.write_bytes("create", &cluster.run("pg_dump", &["-d", "hotel", "--create"]).stdout);
    let refused = world.restore_old("create", "copy_2").ends(6);
    assert!(refused.stderr.contains("pg_dump --create"), "{}", refused.stderr);
    world.write_bytes("all", &cluster.run("pg_dumpall", &[]).stdout);
    let refused = world.restore_old("all", "copy_2").ends(1);
    assert!(refused.stderr.contains("pg_dumpall"), "{}", refused.stderr);
}

#[test]
fn an_error_in_the_middle_leaves_nothing_on_the_server() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    dump(&cluster, &world, &[]);
    let plain = String::from_utf8(world.read("plain")).unwrap();
    // Behind the rows.
    world.write("bad", &plain.replacen("CREATE INDEX", "SELECT 1 / 0;\nCREATE INDEX", 1));
    let failed = world.restore_old("bad", "copy").ends(1);
    assert!(
        failed.stderr.contains("division by zero") && failed.stderr.contains("line "),
        "{}",
        failed.stderr
    );
    // A row that does not fit, after which psql without ON_ERROR_STOP goes on.
    world.write("bad", &plain.replacen("\\.\n", "too\tmany\tcolumns\n\\.\n", 1));
    world.restore_old("bad", "copy").ends(1);
    assert_eq!(names(&cluster), "hotel");
    // Another server has none of the roles.
    let other = Cluster::start(15, &Options::new());
    let to = other.url("postgres", "copy");
    watched(&other);
    for file in ["plain", "custom", "tar", "folder"] {
        let failed = world.restore_old(file, &to).ends(7);
        // All of them at once, and before anything is made.
        for name in ["hotel_app", "CREATE ROLE"] {
            assert!(failed.stderr.contains(name), "{file}: {}", failed.stderr);
        }
        assert_eq!(failed.stderr.contains("--no-owner"), file != "plain", "{}", failed.stderr);
        assert!(!other.log().contains("CREATE DATABASE \"lifeboat"), "{}", other.log());
        assert_eq!(
            other.query("select count(*) from pg_database where datname ~ 'copy|lifeboat'"),
            "0"
        );
    }
    world
        .run_old(&["restore", "hotel", "--from", "plain", "--to", &to, "--no-owner"])
        .ends(2);
    world
        .run_old(&["restore", "hotel", "--from", "custom", "--to", &to, "--no-owner"])
        .ends(0);
    let rows = "select count(*), min(t::text), max(t::text) from app.nights t";
    assert_eq!(other.query_in("copy", rows), cluster.query_in("hotel", rows));
}

#[test]
fn a_dump_of_a_newer_server_is_told_and_one_of_an_older_is_taken() {
    let (old, new) = (hotel(15), hotel(18));
    let (to_old, to_new) = (world(&old, ""), world(&new, ""));
    dump(&new, &to_old, &[]);
    dump(&old, &to_new, &[]);
    watched(&old);
    for file in ["plain", "custom", "tar", "folder"] {
        let refused = to_old.restore_old(file, "copy").ends(1);
        assert!(
            refused
                .stderr
                .contains("written by PostgreSQL 18, and the server is the older 15"),
            "{}",
            refused.stderr
        );
        untouched(&old);
        to_new.restore_old(file, "copy").ends(0);
        let rows = "select count(*), min(t::text), max(t::text) from app.nights t";
        assert_eq!(new.query_in("copy", rows), old.query_in("hotel", rows), "{file}");
        new.query("drop database copy");
    }
}

/// Where the user of the server's programs can read it.
fn handed_over(cluster: &Cluster, world: &World, name: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let folder = cluster.make_folder(&format!("handed-{name}"));
    for (path, bytes) in world.files(name) {
        let below = path.strip_prefix(world.path(name)).unwrap();
        let to = if below.as_os_str().is_empty() {
            folder.join(name)
        } else {
            folder.join(below)
        };
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(&to, bytes).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::set_permissions(to.parent().unwrap(), std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    folder
}

/// Everything that CSV has trouble with.
const TEXTS: &str = r#"
    create table app.texts(id int, a text, "b,""c" text);
    insert into app.texts values (1, null, ''), (2, '', null), (3, '\N', 'NULL'), (4, '\.', 'a,b'), (5, E'x\ny\r\nz', '"'), (6, E'\t\\\b\f\v', ' '), (7, 'ä€😀', '""');
    create table app.lines(a text); insert into app.lines values ('\.'), (null), (''), (E'\n'), ('x');
"#;

/// Loads every file into the database `csv`, and compares the table with the one that it came from. Returns how many there were.
fn load_csv(cluster: &Cluster, folder: &Path) -> usize {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut count = 0;
    for (schema, path) in [("app", "app"), ("odd \"name\".x/y", "odd%20%22name%22%2ex%2fy")] {
        for entry in std::fs::read_dir(folder.join(path)).unwrap() {
            let file = entry.unwrap().path();
            let name = match file.file_stem().unwrap().to_str().unwrap() {
                "a%2fb%2ec" => "a/b.c",
                name => name,
            };
            let header = std::fs::read_to_string(&file).unwrap();
            let columns = match header.split("\r\n").next().unwrap() {
                "" => String::new(),
                "id,a,\"b,\"\"c\"" => "(id, a, \"b,\"\"c\")".to_owned(),
                names => format!("({})", names.split(',').map(quoted).collect::<Vec<_>>().join(",")),
            };
            let table = format!("{}.{}", quoted(schema), quoted(name));
            // Rows as they are: what the tables do on INSERT was done.
            cluster.query_in("csv", &format!("alter table {table} disable trigger user"));
            cluster.query_in(
                "csv",
                &format!("\\copy {table} {columns} from '{}' with (format csv, header)", file.display()),
            );
            let rows = format!("select count(*), md5(string_agg(t::text, ';' order by t::text)) from only {table} t");
            assert_eq!(cluster.query_in("csv", &rows), cluster.query_in("hotel", &rows), "{table}");
            count += 1;
        }
    }
    count
}

#[test]
fn a_backup_is_written_as_an_archive_and_as_csv_that_postgresql_takes() {
    for major in majors() {
        let cluster = hotel(major);
        cluster.query_in("hotel", TEXTS);
        let world = world(&cluster, "");
        world.run(&["backup", "hotel"]).ends(0);
        let export = |format: &str, to: &str| world.run(&["restore", "export", "hotel", "--format", format, "--to", to]);
        let done = export("pg_dump", "hotel.dump").ends(0);
        assert!(done.stdout.contains("an archive for pg_restore"), "{}", done.stdout);
        world.script("mkdir archive && mv hotel.dump archive");
        let archive = handed_over(&cluster, &world, "archive")
            .join("hotel.dump")
            .display()
            .to_string();
        cluster.query("create database loaded template template0");
        cluster.run("pg_restore", &["--exit-on-error", "-d", "loaded", &archive]);
        assert_eq!(everything(&cluster, "loaded"), everything(&cluster, "hotel"), "{major}");
        // And back by Lifeboat.
        world.restore_old("archive/hotel.dump", "copy").ends(0);
        assert_eq!(everything(&cluster, "copy"), everything(&cluster, "hotel"), "{major}");

        let done = export("csv", "csv").ends(0);
        assert!(done.stderr.contains("large objects are not in CSV"), "{}", done.stderr);
        let folder = handed_over(&cluster, &world, "csv");
        cluster.query("create database csv template template0");
        cluster.run(
            "pg_restore",
            &["--exit-on-error", "--section=pre-data", "-d", "csv", &archive],
        );
        assert_eq!(load_csv(&cluster, &folder), 13, "{major}");
        let nulls = "select id, a is null, \"b,\"\"c\" is null from app.texts order by id";
        assert_eq!(cluster.query_in("csv", nulls), cluster.query_in("hotel", nulls), "{major}");
        // What is there is never written onto, and nothing is left beside it.
        for format in ["csv", "pg_dump", "sql"] {
            export(format, "csv").ends(6);
            export(format, "archive/hotel.dump").ends(6);
        }
        assert_eq!(std::fs::read_dir(world.path("archive")).unwrap().count(), 1);
        assert!(
            !std::fs::read_dir(world.path(".")).unwrap().any(|entry| entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("tmp"))
        );
    }
}

#[test]
fn only_what_was_captured_is_exported() {
    let cluster = hotel(15);
    let world = world(&cluster, "");
    world.run(&["backup", "hotel", "--schema-only"]).ends(0);
    for format in ["csv", "pg_dump"] {
        world
            .run(&[
                "restore", "export", "hotel", "--backup", "1", "--format", format, "--to", "out",
            ])
            .ends(6);
        world
            .run(&["restore", "export", "shop", "--format", format, "--to", "out"])
            .ends(2);
        assert!(!world.path("out").try_exists().unwrap());
    }
}
