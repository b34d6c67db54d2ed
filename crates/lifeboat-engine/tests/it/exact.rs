//! That an image is the database to the byte, and that the database does not notice.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use lifeboat_engine::sqlite::{companions, inspect};
use tempfile::tempdir;

use crate::other::{Other, leftover_wal, pad, sql};
use crate::taken::{begin_patiently, finish, judge, take};

fn files(database: &Path) -> [Option<Vec<u8>>; 2] {
    let [wal, ..] = companions(database);
    [std::fs::read(database).ok(), std::fs::read(wal).ok()]
}

#[test]
fn an_image_is_the_file_at_every_page_size() {
    let folder = tempdir().unwrap();
    for mode in ["DELETE", "WAL"] {
        for size in [512, 1024, 4096, 65536] {
            let database = folder.path().join(format!("{mode}-{size}"));
            sql(
                &database,
                &format!("PRAGMA page_size = {size}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = {mode};"),
            );
            pad(&database, 2);
            sql(&database, "DELETE FROM pad WHERE id % 3 = 0");
            let before = std::fs::read(&database).unwrap();
            let (image, captured) = take(&database);
            assert!(image == before, "{mode} {size}");
            assert_eq!(
                (captured.facts.page_size, captured.facts.journal_mode.as_str()),
                (size, mode.to_lowercase().as_str())
            );
            judge(&folder.path().join(format!("{mode}-{size}-copy")), &image, &captured);
            assert!(std::fs::read(&database).unwrap() == before, "{mode} {size}: the source");
        }
    }
}

#[test]
fn reserved_bytes_of_pages_are_kept() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(
        &database,
        ".filectrl reserve_bytes 32\nCREATE TABLE t (x); INSERT INTO t VALUES (1); VACUUM",
    );
    let before = std::fs::read(&database).unwrap();
    assert_eq!(before.get(20), Some(&32), "the header says so");
    assert!(take(&database).0 == before);
}

#[test]
fn what_is_only_in_the_wal_is_in_the_image_and_stays_in_the_wal() {
    let folder = tempdir().unwrap();
    for keeps_shm in [true, false] {
        let database = folder.path().join(format!("{keeps_shm}"));
        leftover_wal(&database, 500);
        let [_, shm, _] = companions(&database);
        if !keeps_shm {
            std::fs::remove_file(&shm).unwrap();
        }
        let before = files(&database);
        let (image, captured) = take(&database);
        assert!(files(&database) == before, "nothing was checkpointed");
        assert_eq!(captured.facts.tables.get("t"), Some(&500));
        judge(&folder.path().join(format!("{keeps_shm}-copy")), &image, &captured);
        assert_eq!(sql(&database, "PRAGMA wal_checkpoint(TRUNCATE)"), "0|0|0");
        assert!(
            std::fs::read(&database).unwrap() == image,
            "the image is what the checkpoint makes of the file"
        );
    }
}

#[test]
fn an_idle_application_keeps_its_wal() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    let shell = Other::shell(
        &database,
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x); INSERT INTO t VALUES (1);",
    );
    let [wal, ..] = companions(&database);
    // Copied by another process: opening the files here would be no harm now, but is the habit that the engine must not have.
    let bytes = |name: &Path| sql(Path::new(":memory:"), &format!("SELECT hex(readfile('{}'))", name.display()));
    let before = [bytes(&database), bytes(&wal)];
    let (_, captured) = take(&database);
    assert_eq!(captured.facts.tables.get("t"), Some(&1));
    assert_eq!(captured.stall, std::time::Duration::ZERO, "nobody waits in WAL mode");
    assert!([bytes(&database), bytes(&wal)] == before);
    shell.kill();
}

#[test]
fn an_application_that_ends_during_the_capture_leaves_its_wal_to_nobody_else() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, "PRAGMA journal_mode = WAL;");
    pad(&database, 7);
    let before = std::fs::read(&database).unwrap();
    let capture = begin_patiently(&database);
    sql(&database, "INSERT INTO pad VALUES (-1, 'written meanwhile')");
    let [wal, ..] = companions(&database);
    let left = wal.metadata().unwrap().len();
    assert!(left > 0, "our transaction kept the application from emptying its WAL");
    let (image, _) = finish(capture);
    assert!(image == before);
    assert_eq!(
        wal.metadata().map_or(0, |metadata| metadata.len()),
        left,
        "we are the last to close, and must not checkpoint for others"
    );
    assert!(std::fs::read(&database).unwrap() == before);
    assert_eq!(sql(&database, "SELECT v FROM pad WHERE id = -1"), "written meanwhile");
}

#[test]
fn a_capture_leaves_no_files_behind() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, "PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
    take(&database);
    for companion in companions(&database) {
        assert!(!companion.try_exists().unwrap(), "{}", companion.display());
    }
}

#[test]
fn the_image_is_of_one_moment_even_if_the_database_shrinks_meanwhile() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, "PRAGMA journal_mode = WAL;");
    pad(&database, 7);
    let before = std::fs::read(&database).unwrap();
    let capture = begin_patiently(&database);
    sql(&database, "DELETE FROM pad; VACUUM; CREATE TABLE other (x);");
    let (image, captured) = finish(capture);
    assert!(image == before);
    assert_eq!(captured.facts.tables.keys().collect::<Vec<_>>(), ["pad"]);
    judge(&folder.path().join("copy"), &image, &captured);
}

#[test]
fn a_hot_journal_is_rolled_back_and_not_captured_half_way() {
    const CRASH: &str = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        c.execute('PRAGMA cache_size = 5')\n\
        c.execute('BEGIN')\n\
        c.execute('UPDATE pad SET v = zeroblob(1000)')\n\
        c.execute('INSERT INTO pad SELECT id + 100000, v FROM pad')\n\
        print('ready', flush=True)\n\
        sys.stdin.read()\n";
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    pad(&database, 2);
    let before = std::fs::read(&database).unwrap();
    Other::python(CRASH, &database).kill();
    let [.., journal] = companions(&database);
    assert!(journal.metadata().unwrap().len() > 0);
    assert!(
        std::fs::read(&database).unwrap() != before,
        "half of the transaction is in the file"
    );
    let (image, captured) = take(&database);
    assert!(image == before);
    judge(&folder.path().join("copy"), &image, &captured);
}

#[test]
fn unusual_tables_are_captured_and_counted() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("it's \"a\" dätabase.db");
    sql(
        &database,
        "CREATE VIRTUAL TABLE words USING fts5 (body); INSERT INTO words VALUES ('one two'), ('three'); \
         CREATE VIRTUAL TABLE boxes USING rtree (id, x0, x1); INSERT INTO boxes VALUES (1, 0, 1); \
         CREATE TABLE keyed (k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO keyed VALUES ('a', 1), ('b', 2), ('c', 3); \
         CREATE TABLE \"quo\"\"ted '; DROP TABLE keyed; --\" (\"sp ace\" INTEGER PRIMARY KEY AUTOINCREMENT); \
         INSERT INTO \"quo\"\"ted '; DROP TABLE keyed; --\" DEFAULT VALUES; \
         CREATE TABLE made (a, b AS (a * 2) STORED); CREATE INDEX partial ON made (b) WHERE a > 1; INSERT INTO made VALUES (1), (2); \
         CREATE VIEW seen AS SELECT * FROM keyed; ANALYZE;",
    );
    let (image, captured) = take(&database);
    let rows = |table: &str| captured.facts.tables.get(table).copied();
    assert_eq!(
        (rows("words"), rows("boxes"), rows("keyed"), rows("made")),
        (Some(2), Some(1), Some(3), Some(2))
    );
    assert_eq!(rows("quo\"ted '; DROP TABLE keyed; --"), Some(1));
    assert_eq!((rows("sqlite_sequence"), rows("seen")), (Some(1), None));
    assert!(
        rows("words_content").is_some() && captured.warnings.is_empty(),
        "{captured:?}"
    );
    judge(&folder.path().join("copy"), &image, &captured);
}

#[test]
fn a_table_of_an_unknown_module_is_captured_and_named() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(
        &database,
        "CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA writable_schema = ON; \
         INSERT INTO sqlite_schema VALUES ('table', 'special', 'special', 0, 'CREATE VIRTUAL TABLE special USING of_the_application (x)');",
    );
    let before = std::fs::read(&database).unwrap();
    let (image, captured) = take(&database);
    assert!(image == before);
    assert!(
        captured
            .warnings
            .iter()
            .any(|line| line.starts_with("table special was not counted")),
        "{:?}",
        captured.warnings
    );
    judge(&folder.path().join("copy"), &image, &captured);
}

/// SQLite never uses the page at 1 GiB, where its locks are, and does not let it be read.
#[test]
fn the_page_of_the_locks_does_not_shift_the_image() {
    const PAGES: u32 = 16_400;
    let folder = tempdir().unwrap();
    let database = folder.path().join("large.db");
    sql(&database, "PRAGMA page_size = 65536; CREATE TABLE t (x)");
    let file = std::fs::File::options().write(true).open(&database).unwrap();
    file.write_all_at(&PAGES.to_be_bytes(), 28).unwrap();
    file.set_len(u64::from(PAGES) * 65536).unwrap();
    let mark = u64::from(PAGES - 1) * 65536;
    file.write_all_at(b"the last page", mark).unwrap();
    let capture = begin_patiently(&database);
    let pages = capture.pages();
    assert_eq!(pages.size_bytes(), u64::from(PAGES) * 65536);
    let (mut buffer, mut total, mut found) = (Vec::new(), 0, false);
    while let Some(offset) = pages.next_segment(&mut buffer).unwrap() {
        assert_eq!(offset, total);
        total += buffer.len() as u64;
        if let Some(start) = mark.checked_sub(offset)
            && let Some(bytes) = buffer.get(usize::try_from(start).unwrap()..)
        {
            found |= bytes.starts_with(b"the last page");
        }
    }
    assert_eq!(total, pages.size_bytes());
    assert!(found, "the page after the locks is where it was");
    capture.finish().unwrap();
}

#[test]
fn the_capture_describes_its_source() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    sql(&database, "CREATE TABLE t (x)");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o640)).unwrap();
    let capture = begin_patiently(&database);
    let file = capture.file();
    assert_eq!(
        (file.file_name.as_str(), file.mode, file.uid),
        ("app.db", 0o640, rustix::process::getuid().as_raw())
    );
    assert_eq!(capture.identity(), format!("sqlite:{}", database.display()));
    assert!(
        capture.moment_us() >= file.modified_us,
        "{} {}",
        capture.moment_us(),
        file.modified_us
    );
    finish(capture);
}

/// Functions and collations of the application are part of its schema, but not of the file.
#[test]
fn what_only_the_application_can_compute_is_captured_and_judged() {
    const APPLICATION: &str = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        c.create_collation('backwards', lambda a, b: (a < b) - (a > b))\n\
        c.create_function('double', 1, lambda x: x * 2, deterministic=True)\n\
        c.execute('CREATE TABLE named (n TEXT COLLATE backwards)')\n\
        c.execute('CREATE INDEX by_name ON named (n)')\n\
        c.execute('INSERT INTO named VALUES (1), (2)')\n\
        c.execute('CREATE TABLE made (x, CHECK (double(x) > 0))')\n\
        c.execute('CREATE INDEX by_double ON made (double(x))')\n\
        c.execute('INSERT INTO made VALUES (1), (2), (3)')\n\
        c.execute('CREATE TABLE plain (x)')\n\
        c.execute('CREATE INDEX by_x ON plain (x)')\n\
        print('ready', flush=True)\n\
        sys.stdin.read()\n";
    let folder = tempdir().unwrap();
    let database = folder.path().join("app.db");
    assert!(Other::python(APPLICATION, &database).end());
    let before = std::fs::read(&database).unwrap();
    let (image, captured) = take(&database);
    assert!(image == before);
    let copy = folder.path().join("copy");
    judge(&copy, &image, &captured);
    let unchecked = inspect(&copy, None).unwrap().unchecked;
    assert!(
        matches!(unchecked.as_slice(), [made, named] if made.starts_with("table made ") && named.starts_with("table named ")),
        "{unchecked:?}"
    );
    // What can be checked still is: the stale page of an index.
    let at = (sql(&copy, "SELECT rootpage FROM sqlite_schema WHERE name = 'by_x'")
        .parse::<u64>()
        .unwrap()
        - 1)
        * 4096;
    let mut stale = vec![0; 4096];
    std::fs::File::open(&copy).unwrap().read_exact_at(&mut stale, at).unwrap();
    sql(&copy, "INSERT INTO plain VALUES (1)");
    std::fs::File::options()
        .write(true)
        .open(&copy)
        .unwrap()
        .write_all_at(&stale, at)
        .unwrap();
    let inspection = inspect(&copy, None).unwrap();
    assert!(
        inspection
            .integrity
            .iter()
            .any(|line| line.contains("missing from index by_x")),
        "{inspection:?}"
    );
}
