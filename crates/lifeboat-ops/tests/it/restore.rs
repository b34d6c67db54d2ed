//! Restores beside and in place: what comes back, what is refused, what is left.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use lifeboat_model::ErrorKind;
use lifeboat_ops::restore::Destination;

use crate::world::{World, add, beside, count, kind_of, make, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_restored_beside_is_what_was_backed_up_and_incrementals_restore_in_one_hop() {
    let world = World::new(4000).await;
    let first = world.back_up().await.unwrap();
    assert!(first.backup.header.parent.is_none() && first.stats.stored_bytes > 100_000);
    {
        let connection = open(&world.database);
        connection
            .execute("UPDATE items SET name = 'changed' WHERE id = 1999", [])
            .unwrap();
    }
    let second = world.back_up().await.unwrap();
    assert_eq!(
        second.backup.header.parent.as_deref(),
        Some(first.backup.id.to_string().as_str()),
        "{:?}",
        second.notes
    );
    assert!(second.stats.changed_bytes < 100_000, "{:?}", second.stats);
    let unchanged = world.back_up().await.unwrap();
    assert_eq!(unchanged.stats.changed_bytes, 0);

    for (backup, name) in [("1", "item"), ("2", "changed"), ("latest", "changed")] {
        let to = world.folder.join(format!("restored-{backup}.db"));
        let report = world.restore(backup, beside(&to)).await.unwrap();
        assert_eq!(report.findings.rows, 4000);
        assert_eq!(
            to.metadata().unwrap().mode() & 0o7777,
            world.database.metadata().unwrap().mode() & 0o7777
        );
        let found: String = open(&to)
            .query_row("SELECT name FROM items WHERE id = 1999", [], |row| row.get(0))
            .unwrap();
        assert!(found.starts_with(name), "{found}");
    }
    let leftovers: Vec<_> = std::fs::read_dir(&world.folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
        .collect();
    assert!(leftovers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_destination_or_a_stale_wal_beside_it_is_refused_and_stays() {
    let world = World::new(200).await;
    let _report = world.back_up().await.unwrap();
    let to = world.folder.join("there.db");
    std::fs::write(&to, "precious").unwrap();
    assert_eq!(kind_of(world.restore("latest", beside(&to)).await), ErrorKind::Refused);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "precious");
    // X-2 of the guides: a -wal that a crash left would be replayed into the restored database.
    let to = world.folder.join("fresh.db");
    std::fs::write(world.folder.join("fresh.db-wal"), "stale").unwrap();
    assert_eq!(kind_of(world.restore("latest", beside(&to)).await), ErrorKind::Refused);
    assert!(!to.try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_is_refused_while_a_process_has_it_open_and_names_that_process() {
    let world = World::new(200).await;
    let _report = world.back_up().await.unwrap();
    let mut holder = Command::new("sqlite3")
        .arg(&world.database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    {
        use std::io::{BufRead, Write};
        holder
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"SELECT count(*) FROM items;\n")
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line.trim(), "200");
    }
    let refused = world
        .restore(
            "latest",
            Destination::InPlace {
                path: world.database.clone(),
            },
        )
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains(&holder.id().to_string()), "{refused}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(count(&world.database), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_quarantines_the_old_files_keeps_mode_and_undo_brings_them_back() {
    let world = World::new(500).await;
    let first = world.back_up().await.unwrap();
    std::fs::set_permissions(&world.database, std::fs::Permissions::from_mode(0o640)).unwrap();
    add(&open(&world.database), 70);
    // A WAL with the only copy of committed rows, as a crash would leave it.
    let wal = world.folder.join("app").join("app.db-wal");
    let crashed = Command::new("python3")
        .args(["-c", "import sqlite3,sys,os; c=sqlite3.connect(sys.argv[1]); c.execute('PRAGMA wal_autocheckpoint=0'); c.execute(\"insert into items(name) values('in the wal')\"); c.commit(); os._exit(9)"])
        .arg(&world.database)
        .status()
        .unwrap();
    assert_eq!(crashed.code(), Some(9));
    let old_wal = std::fs::read(&wal).unwrap();
    assert!(!old_wal.is_empty());

    let report = world
        .restore(
            "latest",
            Destination::InPlace {
                path: world.database.clone(),
            },
        )
        .await
        .unwrap();
    assert_eq!(report.backup.id, first.backup.id);
    assert!(
        !wal.try_exists().unwrap(),
        "a stale -wal must not stay beside the restored database"
    );
    assert_eq!(world.database.metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(count(&world.database), 500);
    let undo_folder = report.undo_folder.unwrap();
    assert_eq!(std::fs::read(undo_folder.join("app.db-wal")).unwrap(), old_wal);

    lifeboat_ops::restore::quarantine::undo(&world.database, &report.id).unwrap();
    assert_eq!(count(&world.database), 571, "with the row that was in the WAL alone");
    let again = lifeboat_ops::restore::quarantine::undo(&world.database, &report.id);
    assert_eq!(kind_of(again), ErrorKind::Refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_journal_databases_restore_too_and_a_missing_database_can_be_restored_in_place() {
    let world = World::new(1).await;
    std::fs::remove_file(&world.database).unwrap();
    make(&world.database, "delete", 900);
    let report = world.back_up().await.unwrap();
    assert_eq!(report.facts.sqlite().unwrap().journal_mode, "delete");
    let image = std::fs::read(&world.database).unwrap();
    std::fs::remove_file(&world.database).unwrap();
    let restored = world
        .restore(
            "latest",
            Destination::InPlace {
                path: world.database.clone(),
            },
        )
        .await
        .unwrap();
    assert_eq!(std::fs::read(&world.database).unwrap(), image);
    assert_eq!(restored.findings.rows, 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_missing_keys_are_told_apart_from_damage_and_from_no_backup() {
    let mut world = World::new(50).await;
    let to = world.folder.join("x.db");
    assert_eq!(kind_of(world.restore("latest", beside(&to)).await), ErrorKind::NoSuchPoint);
    let _report = world.back_up().await.unwrap();
    assert_eq!(kind_of(world.restore("7", beside(&to)).await), ErrorKind::NoSuchPoint);
    world.identities = lifeboat_repo::Identities::parse(&lifeboat_repo::generate_identity().0).unwrap();
    assert_eq!(kind_of(world.restore("latest", beside(&to)).await), ErrorKind::WrongKey);
    world.identities = lifeboat_repo::Identities::none();
    assert_eq!(kind_of(world.restore("latest", beside(&to)).await), ErrorKind::WrongKey);
    assert!(!to.try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_source_ends_in_an_error_and_no_backup() {
    let world = World::new(300).await;
    let good = world.back_up().await.unwrap();
    let path = world.database.clone();
    for (what, kind) in [
        ("empty", ErrorKind::Corrupt),
        ("text", ErrorKind::Corrupt),
        ("missing", ErrorKind::Unreachable),
        ("folder", ErrorKind::ConfigInvalid),
    ] {
        for name in lifeboat_engine::sqlite::companions(&path) {
            if name.try_exists().unwrap() {
                std::fs::remove_file(name).unwrap();
            }
        }
        if path.is_file() {
            std::fs::remove_file(&path).unwrap();
        }
        match what {
            "empty" => std::fs::write(&path, "").unwrap(),
            "text" => std::fs::write(&path, "this is no database ".repeat(500)).unwrap(),
            "folder" => std::fs::create_dir(&path).unwrap(),
            _ => {}
        }
        assert_eq!(kind_of(world.back_up().await), kind, "{what}");
    }
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    assert_eq!(listing.backups.len(), 1);
    assert_eq!(listing.latest().unwrap().id, good.backup.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_through_a_link_the_plan_says_so_and_the_link_stays() {
    let mut world = World::new(300).await;
    let _report = world.back_up().await.unwrap();
    let link = world.folder.join("link.db");
    std::os::unix::fs::symlink("app/app.db", &link).unwrap();
    let lifeboat_ops::Source::Sqlite { path, .. } = &mut world.protected.source else {
        panic!("a database")
    };
    path.clone_from(&link);
    add(&open(&link), 5);
    let report = world
        .restore("latest", Destination::InPlace { path: link.clone() })
        .await
        .unwrap();
    assert!(
        report.notes.iter().any(|note| note.contains("is a link to")),
        "{:?}",
        report.notes
    );
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!((count(&link), count(&world.database)), (300, 300));
    assert_eq!(report.undo_folder.unwrap().parent(), world.database.parent());
    let status = lifeboat_ops::status::run(&world.env, &world.protected).await;
    assert_eq!(status.undo, [(report.id, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_given_up_leaves_no_data_in_the_clear() {
    let world = World::new(3000).await;
    let _report = world.back_up().await.unwrap();
    let repository = world.protected.repository().await.unwrap();
    let listing = world.protected.listing(&repository).await.unwrap();
    let backup = listing.latest().unwrap();
    let to = world.folder.join("x.db");
    let reader = lifeboat_repo::Reader::open(&world.env, &repository, backup, &world.identities)
        .await
        .unwrap();
    let destination = beside(&to);
    let staged = lifeboat_ops::restore::fetch_and_check(&world.env, &reader, &destination, "r1", false)
        .await
        .unwrap();
    let staging = world.folder.join(".lifeboat-restore-r1");
    assert!(staging.join("database").is_file());
    // Ctrl-C drops whatever the command holds.
    drop(staged);
    assert!(!staging.try_exists().unwrap());
    assert!(!to.try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dangling_references_and_what_cannot_be_checked_are_told() {
    let world = World::new(10).await;
    open(&world.database)
        .execute_batch(
            "PRAGMA foreign_keys = off;
             CREATE TABLE child (id INTEGER PRIMARY KEY, item REFERENCES items (id));
             INSERT INTO child (item) VALUES (99999);",
        )
        .unwrap();
    // A collation of the application: no check knows how to compare with it.
    let made = Command::new("python3")
        .args(["-c", "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.create_collation('mine', lambda a, b: (a > b) - (a < b)); c.execute('create table words (w text collate mine)'); c.execute('create index words_w on words (w)'); c.execute(\"insert into words values ('a'), ('b')\"); c.commit()"])
        .arg(&world.database)
        .status()
        .unwrap();
    assert!(made.success());
    let _report = world.back_up().await.unwrap();
    let to = world.folder.join("x.db");
    let report = world.restore("latest", beside(&to)).await.unwrap();
    let notes = report.findings.notes();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("table child") && note.contains("so in the source")),
        "{notes:?}"
    );
    assert!(!report.findings.unchecked.is_empty());
    assert!(notes.iter().any(|note| note.contains("words")), "{notes:?}");
}
