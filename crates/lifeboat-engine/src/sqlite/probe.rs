//! Judges a restored copy: is it whole, and is it what was captured.
//!
//! Nobody else may use the copy meanwhile, and no byte of the database file is changed. SQLite may leave an empty `-wal` and a `-shm`
//! beside a database in WAL mode; whoever restored the copy removes them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::companions;
use super::error::sqlite;
use super::facts::{self, Facts};

/// The first 16 bytes of every SQLite database.
pub(crate) const MAGIC: &[u8; 16] = b"SQLite format 3\0";

const OP: &str = "inspect the restored database";
const HEADER_BYTES: usize = 100;
const FOREIGN_KEY_LINES: usize = 100;

/// What an inspection found. The copy is good when `integrity` is just `ok`, and `foreign_keys` and `differences` are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The lines of `PRAGMA integrity_check`: `["ok"]` when it finds nothing.
    pub integrity: Vec<String>,
    /// Violations of `PRAGMA foreign_key_check`, one readable line each; beyond 100 of them, a last line with the total.
    pub foreign_keys: Vec<String>,
    /// What cannot be checked here, one readable line each: tables that need a function, a collation or a module of the application.
    /// No sign of damage.
    pub unchecked: Vec<String>,
    /// What was counted in the copy.
    pub facts: Facts,
    /// Where the copy is not what was captured, one readable line each.
    pub differences: Vec<String>,
}

/// Inspects the restored database `path` and compares it with the facts its capture wrote down.
///
/// # Errors
/// `Corrupt` when the file is no whole SQLite database, or is so damaged that its rows cannot be counted. `Refused` when a filled `-wal` or
/// a `-journal` lies beside it: SQLite would read that into the copy. Damage that `integrity_check` reports is no error but in the result.
pub fn inspect(path: &Path, expected: Option<&Facts>) -> Result<Inspection> {
    guard_companions(path)?;
    guard_file(path)?;
    let connection = open(path)?;
    let mut unchecked = Vec::new();
    let integrity = integrity_lines(&connection, &mut unchecked);
    let mut uncounted = Vec::new();
    let facts = count(&connection, path, &integrity, &mut uncounted)?;
    let foreign_keys = foreign_key_lines(&connection, &mut unchecked);
    let differences = expected
        .map(|expected| differences(expected, &facts, &uncounted))
        .unwrap_or_default();
    connection.close().map_err(|(_, error)| sqlite(OP, path, error))?;
    Ok(Inspection {
        integrity,
        unchecked,
        foreign_keys,
        facts,
        differences,
    })
}

pub(super) fn open(path: &Path) -> Result<Connection> {
    let failed = |error| sqlite(OP, path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed)?;
    Ok(connection)
}

/// A leftover `-wal` or `-journal` of another database would be taken for this one's.
fn guard_companions(path: &Path) -> Result<()> {
    let [wal, _, journal] = companions(path);
    for file in [wal, journal] {
        match std::fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.len() > 0 => {
                let detail = format!("{} lies beside it, and SQLite would read it into the copy", file.display());
                return Err(Error::new(ErrorKind::Refused, OP, path.display(), detail)
                    .with_hint("restore into an empty folder with `lifeboat restore`"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(OP, file.display(), error)),
        }
    }
    Ok(())
}

/// What SQLite itself does not mind: to it, an empty file is a good database without tables, and pages missing at the end may pass.
fn guard_file(path: &Path) -> Result<()> {
    let io = |error| Error::io(OP, path.display(), error);
    let corrupt = |detail: String| Err(Error::new(ErrorKind::Corrupt, OP, path.display(), detail));
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return corrupt("it is not a file".to_owned());
    }
    if metadata.len() == 0 {
        return corrupt("the file is empty".to_owned());
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let limit = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut header))
        .map_err(io)?;
    if !header.starts_with(MAGIC) {
        return corrupt("it does not begin like a SQLite database".to_owned());
    }
    let Some(shape) = Shape::of(&header) else {
        return corrupt("its header is cut off or names no valid page size".to_owned());
    };
    let (size, page_size) = (metadata.len(), shape.page_size);
    match shape.page_count {
        Some(pages) if pages * page_size != size => corrupt(format!(
            "the file has {size} bytes, its header says {pages} pages of {page_size} bytes"
        )),
        None if size % page_size != 0 => corrupt(format!(
            "the file has {size} bytes, which is no whole number of pages of {page_size} bytes"
        )),
        _ => Ok(()),
    }
}

/// How large the header says the database is.
struct Shape {
    page_size: u64,
    /// Not known when the last writer was a SQLite before 3.7.0, which does not keep the count.
    page_count: Option<u64>,
}

impl Shape {
    fn of(header: &[u8]) -> Option<Self> {
        let word = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let page_size = match header.get(16..18)? {
            // 65536 does not fit the two bytes.
            [0, 1] => 65536,
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            _ => return None,
        };
        if !page_size.is_power_of_two() || page_size < 512 {
            return None;
        }
        // The count holds only if the same transaction wrote it that last raised the change counter.
        let (changed, counted, pages) = (word(24)?, word(92)?, word(28)?);
        let page_count = (changed == counted && pages > 0).then(|| u64::from(pages));
        Some(Self { page_size, page_count })
    }
}

/// The output decides, never the result code: the pragma succeeds on a damaged database, and says so in its rows.
fn integrity_lines(connection: &Connection, unchecked: &mut Vec<String>) -> Vec<String> {
    match check(connection, "PRAGMA integrity_check") {
        Ok(lines) => lines,
        // The pragma ends at the first table that needs something of the application; the others can be checked.
        Err((_, error)) if facts::is_missing_module(&error) => integrity_by_table(connection, unchecked),
        Err((lines, error)) => with_failure(lines, &error),
    }
}

fn integrity_by_table(connection: &Connection, unchecked: &mut Vec<String>) -> Vec<String> {
    let mut names = vec!["sqlite_schema".to_owned()];
    let mut lines = Vec::new();
    let listed = each_row(
        connection,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name",
        |row| {
            names.push(row.get(0)?);
            Ok(())
        },
    );
    if let Err(error) = listed {
        lines.push(error.to_string());
    }
    for name in names {
        match check(connection, &format!("PRAGMA integrity_check('{}')", name.replace('\'', "''"))) {
            Ok(of_table) => lines.extend(of_table),
            Err((_, error)) if facts::is_missing_module(&error) => {
                unchecked.push(format!("table {name} could not be checked: {error}"))
            }
            Err((of_table, error)) => lines.extend(with_failure(of_table, &error)),
        }
    }
    lines.retain(|line| line != "ok");
    if lines.is_empty() {
        lines.push("ok".to_owned());
    }
    lines
}

fn check(connection: &Connection, pragma: &str) -> Result<Vec<String>, (Vec<String>, rusqlite::Error)> {
    let mut lines = Vec::new();
    let outcome = each_row(connection, pragma, |row| {
        lines.push(row.get(0)?);
        Ok(())
    });
    match outcome {
        Ok(()) if lines.is_empty() => Ok(vec!["PRAGMA integrity_check gave no answer".to_owned()]),
        Ok(()) => Ok(lines),
        Err(error) => Err((lines, error)),
    }
}

fn with_failure(mut lines: Vec<String>, error: &rusqlite::Error) -> Vec<String> {
    lines.retain(|line| line != "ok");
    lines.push(error.to_string());
    lines
}

fn foreign_key_lines(connection: &Connection, unchecked: &mut Vec<String>) -> Vec<String> {
    let (mut lines, mut total) = (Vec::new(), 0_u64);
    let outcome = each_row(connection, "PRAGMA foreign_key_check", |row| {
        total += 1;
        if lines.len() < FOREIGN_KEY_LINES {
            let (table, row_id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let which = row_id.map_or_else(|| "a row".to_owned(), |id| format!("row {id}"));
            lines.push(format!(
                "{which} of table {table} refers to a row that table {parent} does not have"
            ));
        }
        Ok(())
    });
    if total > lines.len() as u64 {
        lines.push(format!("{total} rows in total refer to missing rows"));
    }
    if let Err(error) = outcome {
        let list = if facts::is_missing_module(&error) {
            unchecked
        } else {
            &mut lines
        };
        list.push(format!("PRAGMA foreign_key_check could not finish: {error}"));
    }
    lines
}

fn each_row(
    connection: &Connection,
    sql: &str,
    mut f: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        f(row)?;
    }
    Ok(())
}

/// Counts; when that fails, says first what `integrity_check` found.
fn count(connection: &Connection, path: &Path, integrity: &[String], uncounted: &mut Vec<String>) -> Result<Facts> {
    let counted = facts::count(connection, path, uncounted);
    let Some(damage) = integrity.first().filter(|line| line.as_str() != "ok") else {
        return counted;
    };
    counted.map_err(|error| {
        let detail = format!("it is damaged: {damage}");
        Error::new(ErrorKind::Corrupt, OP, path.display(), detail)
            .with_hint("restore another backup (`lifeboat list`)")
            .with_source(error)
    })
}

fn differences(expected: &Facts, actual: &Facts, uncounted: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, now: &dyn std::fmt::Display, then: &dyn std::fmt::Display| {
        let (now, then) = (now.to_string(), then.to_string());
        if now != then {
            lines.push(format!("{what} is {now}, captured was {then}"));
        }
    };
    compare("the page size", &actual.page_size, &expected.page_size);
    compare("the number of pages", &actual.page_count, &expected.page_count);
    compare("the journal mode", &journal_mode(actual), &journal_mode(expected));
    compare("the encoding", &actual.encoding, &expected.encoding);
    compare("user_version", &actual.user_version, &expected.user_version);
    compare("application_id", &actual.application_id, &expected.application_id);
    if actual.schema_hash != expected.schema_hash {
        lines.push("the schema is not the one that was captured".to_owned());
    }
    for (table, then) in &expected.tables {
        match actual.tables.get(table) {
            Some(now) if now == then => {}
            Some(now) => lines.push(format!("table {table} has {now} rows, captured were {then}")),
            None => {
                let prefix = format!("table {table} was not counted: ");
                let why = uncounted.iter().find(|line| line.starts_with(&prefix)).cloned();
                lines.push(why.unwrap_or_else(|| format!("table {table} is missing, captured were {then} rows")));
            }
        }
    }
    for (table, now) in &actual.tables {
        if !expected.tables.contains_key(table) {
            lines.push(format!("table {table} with {now} rows was not there when captured"));
        }
    }
    lines
}

/// Only WAL is kept in the file; `delete`, `truncate` and the like belong to the connection.
fn journal_mode(facts: &Facts) -> &'static str {
    if facts.journal_mode.eq_ignore_ascii_case("wal") {
        "wal"
    } else {
        "rollback"
    }
}
