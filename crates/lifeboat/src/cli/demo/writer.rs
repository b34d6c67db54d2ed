//! The demo's application: a process of its own that writes orders to a SQLite database until it is killed.
//!
//! After SQLite has confirmed a commit, and only then, its rows are appended to `DATABASE.known`, one line each. Those lines are what the
//! restored database is compared with.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::{Connection, params};

/// Rows before the first backup.
pub(super) const FIRST_ROWS: i64 = 120_000;
const PAUSE: Duration = Duration::from_millis(2);
const WORDS: [&str; 16] = [
    "anchor", "beacon", "compass", "davit", "ebb", "fathom", "galley", "halyard", "inlet", "jetty", "keel", "lantern", "mooring",
    "narrows", "oar", "pilot",
];

/// Where the writer notes what SQLite confirmed.
pub(super) fn known(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".known");
    PathBuf::from(name)
}

/// One order, as it stands in the database and in the notes.
pub(super) fn line(id: i64, customer: &str, amount: i64, note: &str) -> String {
    format!("{id}\t{customer}\t{amount}\t{note}")
}

/// A repeatable stream of numbers; the demo's data need not be secret.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn word(&mut self) -> &'static str {
        let index = usize::try_from(self.below(WORDS.len() as u64)).unwrap_or(0);
        WORDS.get(index).copied().unwrap_or("oar")
    }

    fn note(&mut self) -> String {
        let words: Vec<&str> = (0..8 + self.below(24)).map(|_| self.word()).collect();
        format!("{} {:016x}{:016x}", words.join(" "), self.next(), self.next())
    }
}

/// Writes for ever. Returns only when something fails.
pub(crate) fn run(database: &Path) -> Result<()> {
    let failed = |error: rusqlite::Error| Error::new(ErrorKind::Failed, "write to", database.display(), error.to_string());
    let mut connection = Connection::open(database).map_err(failed)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000;
             CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount INTEGER NOT NULL, note TEXT NOT NULL);
             CREATE TABLE totals (what TEXT PRIMARY KEY, amount INTEGER NOT NULL, orders INTEGER NOT NULL) WITHOUT ROWID;
             CREATE INDEX orders_customer ON orders (customer, amount);
             INSERT INTO totals VALUES ('all', 0, 0);",
        )
        .map_err(failed)?;
    let path = known(database);
    let mut notes = File::create(&path).map_err(|error| Error::io("create", path.display(), error))?;
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let mut next = 1;
    let mut rows = FIRST_ROWS;
    loop {
        let confirmed = commit(&mut connection, &mut numbers, next, rows).map_err(failed)?;
        notes
            .write_all(confirmed.as_bytes())
            .map_err(|error| Error::io("write", path.display(), error))?;
        next += rows;
        rows = i64::try_from(1 + numbers.below(5)).unwrap_or(1);
        std::thread::sleep(PAUSE);
    }
}

fn commit(connection: &mut Connection, numbers: &mut Numbers, first: i64, rows: i64) -> rusqlite::Result<String> {
    let transaction = connection.transaction()?;
    let (mut confirmed, mut sum) = (String::new(), 0);
    {
        let mut insert = transaction.prepare_cached("INSERT INTO orders VALUES (?1, ?2, ?3, ?4)")?;
        for id in first..first + rows {
            let customer = format!("{}-{}", numbers.word(), numbers.below(5000));
            let amount = i64::try_from(numbers.below(100_000)).unwrap_or(0);
            let note = numbers.note();
            insert.execute(params![id, customer, amount, note])?;
            sum += amount;
            confirmed.push_str(&line(id, &customer, amount, &note));
            confirmed.push('\n');
        }
    }
    transaction.execute(
        "UPDATE totals SET amount = amount + ?1, orders = orders + ?2 WHERE what = 'all'",
        params![sum, rows],
    )?;
    transaction.commit()?;
    Ok(confirmed)
}
