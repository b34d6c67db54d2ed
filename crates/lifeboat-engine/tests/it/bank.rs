//! Captures of a bank whose books another process keeps writing: the sum of all accounts never changes, the ledger has no gap,
//! and whatever was committed before a capture began is in it.

use std::path::Path;

use lifeboat_engine::sqlite::companions;
use tempfile::tempdir;

use crate::other::{Other, pad, sql};
use crate::taken::{begin_patiently, finish, judge};

const CAPTURES: u32 = 12;
const ACCOUNTS: u64 = 100;

const SETUP: &str = "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER); \
    CREATE TABLE ledger (seq INTEGER PRIMARY KEY, entry TEXT); CREATE INDEX entries ON ledger (entry); \
    WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 100) INSERT INTO account SELECT x, 1000 FROM n;";

/// Moves money until it is killed.
const TELLER: &str = "import random, sqlite3, sys\n\
    c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n\
    c.execute('PRAGMA synchronous = OFF')\n\
    seq = 0\n\
    while True:\n\
    \x20   c.execute('BEGIN IMMEDIATE')\n\
    \x20   seq = c.execute('SELECT coalesce(max(seq), 0) + 1 FROM ledger').fetchone()[0]\n\
    \x20   a, b, sum = random.randint(1, 100), random.randint(1, 100), random.randint(1, 50)\n\
    \x20   c.execute('UPDATE account SET balance = balance - ? WHERE id = ?', (sum, a))\n\
    \x20   c.execute('UPDATE account SET balance = balance + ? WHERE id = ?', (sum, b))\n\
    \x20   c.execute('UPDATE pad SET v = randomblob(1000) WHERE id = ?', (random.randint(1, 6000),))\n\
    \x20   c.execute('INSERT INTO ledger VALUES (?, ?)', (seq, '%d to %d: %d' % (a, b, sum)))\n\
    \x20   c.execute('COMMIT')\n\
    \x20   if seq == 100: print('ready', flush=True)\n";

/// Empties the WAL into the database as often as it can.
const CHECKPOINTER: &str = "import sqlite3, sys\n\
    c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)\n\
    n = 0\n\
    while True:\n\
    \x20   try: c.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()\n\
    \x20   except sqlite3.OperationalError: pass\n\
    \x20   n += 1\n\
    \x20   if n == 3: print('ready', flush=True)\n";

fn last_entry(database: &Path) -> u64 {
    sql(database, ".timeout 60000\nSELECT max(seq) FROM ledger").parse().unwrap()
}

/// Waits until the teller has committed more than `entry`.
fn later_than(entry: u64, teller: &mut Other, database: &Path) -> u64 {
    loop {
        assert!(teller.is_running());
        let last = last_entry(database);
        if last > entry {
            return last;
        }
    }
}

/// Captures again and again while `teller` writes, and holds every image to the bank's rules.
/// Where a capture does not keep writers waiting, they commit in the middle of each.
fn keep_capturing(folder: &Path, database: &Path, teller: &mut Other, waits: bool) {
    let copy = folder.join("copy.db");
    let mut entries = 0;
    for round in 0..CAPTURES {
        let committed = later_than(entries, teller, database);
        let capture = begin_patiently(database);
        let after = if waits {
            u64::MAX
        } else {
            later_than(last_entry(database), teller, database)
        };
        let (image, captured) = finish(capture);
        judge(&copy, &image, &captured);
        let sum = sql(&copy, "SELECT sum(balance), count(*) FROM account");
        assert_eq!(sum, format!("{}|{ACCOUNTS}", ACCOUNTS * 1000), "round {round}");
        let ledger = sql(&copy, "SELECT count(*) = max(seq) FROM ledger");
        assert_eq!(ledger, "1", "round {round}: the ledger has a gap");
        entries = last_entry(&copy);
        assert!(
            entries >= committed,
            "round {round}: entry {committed} was committed before, the image ends with {entries}"
        );
        assert!(
            entries < after,
            "round {round}: entry {after} came after the capture began, the image ends with {entries}"
        );
        for leftover in companions(&copy) {
            drop(std::fs::remove_file(leftover));
        }
    }
}

#[test]
fn every_image_of_a_busy_wal_database_balances() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("bank.db");
    sql(&database, &format!("PRAGMA journal_mode = WAL; {SETUP}"));
    pad(&database, 6);
    let mut teller = Other::python(TELLER, &database);
    let checkpointer = Other::python(CHECKPOINTER, &database);
    keep_capturing(folder.path(), &database, &mut teller, false);
    drop((teller, checkpointer));
    assert_eq!(
        sql(&database, "PRAGMA integrity_check; SELECT sum(balance) FROM account"),
        "ok\n100000",
        "the source itself"
    );
}

#[test]
fn every_image_of_a_busy_rollback_database_balances() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("bank.db");
    sql(&database, SETUP);
    pad(&database, 6);
    let mut teller = Other::python(TELLER, &database);
    keep_capturing(folder.path(), &database, &mut teller, true);
    drop(teller);
    assert_eq!(
        sql(&database, "PRAGMA integrity_check; SELECT sum(balance) FROM account"),
        "ok\n100000",
        "the source itself"
    );
}
