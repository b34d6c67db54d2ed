//! SQL text into a new database.
//!
//! The text comes from a file, so it is not trusted: it may fill the new database and nothing else (an authorizer refuses ATTACH, which
//! VACUUM INTO needs too, and every PRAGMA that reaches beyond the database). The first statement that fails ends it; the `sqlite3` program
//! would go on and leave a database with holes.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};

use super::statements::Statements;
use crate::sqlite::error::sqlite;

const OP: &str = "load the SQL text";

/// What a dump may set.
const PRAGMAS: &[&str] = &[
    "foreign_keys",
    "writable_schema",
    "user_version",
    "application_id",
    "encoding",
    "page_size",
    "auto_vacuum",
    "legacy_file_format",
    "defer_foreign_keys",
    "recursive_triggers",
    "synchronous",
    "cache_size",
    "ignore_check_constraints",
];

/// Makes the new database `database` of the SQL text in `text`.
///
/// # Errors
/// `Corrupt` where a statement fails, or the text ends in the middle or without COMMIT.
pub fn load(text: &Path, database: &Path) -> Result<()> {
    let failed = |error| sqlite(OP, text, error);
    let corrupt = |detail: String| {
        Error::new(ErrorKind::Corrupt, OP, text.display(), detail).with_hint("this file cannot be relied on: take another backup")
    };
    let file = File::open(text).map_err(|error| Error::io(OP, text.display(), error))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(database, flags).map_err(failed)?;
    // Nobody else sees the file, and after a crash it is made anew.
    connection
        .execute_batch("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF")
        .map_err(failed)?;
    connection.authorizer(Some(authorize)).map_err(failed)?;
    let mut statements = Statements::new(BufReader::with_capacity(256 << 10, file));
    let mut number = 0_u64;
    while let Some((statement, whole)) = statements
        .next()
        .map_err(|error| corrupt(format!("it cannot be read ({error})")))?
    {
        number += 1;
        if !whole {
            return Err(corrupt(format!("it ends in the middle of statement {number}: it is cut off")));
        }
        let statement = String::from_utf8(statement)
            .map_err(|error| corrupt(format!("statement {number} is not UTF-8 text")).with_source(error))?;
        if first_word_is(&statement, "rollback") {
            return Err(corrupt(
                "it ends with ROLLBACK: the program that wrote it had met an error".to_owned(),
            ));
        }
        connection
            .execute_batch(&statement)
            .map_err(|error| corrupt(format!("statement {number} fails ({error})")).with_source(error))?;
    }
    if !connection.is_autocommit() {
        return Err(corrupt("it ends without COMMIT: it is cut off".to_owned()));
    }
    if number == 0 {
        return Err(corrupt("no statement is in it".to_owned()));
    }
    connection
        .authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
        .map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))
}

/// Reads what lies in `-wal` or `-journal` beside `database` into it, as the application's next start would, and removes them. Returns
/// whether the database is in WAL mode.
pub fn settle(database: &Path) -> Result<bool> {
    let failed = |error| sqlite("open", database, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).map_err(failed)?;
    let journal: String = connection
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(failed)?;
    // The first read rolls a hot journal back; the checkpoint brings all of the WAL in.
    connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(failed)?;
    let wal = journal == "wal";
    if wal {
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(failed)?;
    }
    connection.close().map_err(|(_, error)| failed(error))?;
    Ok(wal)
}

fn first_word_is(statement: &str, word: &str) -> bool {
    statement
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("--"))
        .is_some_and(|line| line.get(..word.len()).is_some_and(|first| first.eq_ignore_ascii_case(word)))
}

fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Authorization::Deny,
        AuthAction::Pragma { pragma_name, .. } => {
            if PRAGMAS.iter().any(|known| known.eq_ignore_ascii_case(pragma_name)) {
                Authorization::Allow
            } else {
                Authorization::Deny
            }
        }
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => Authorization::Deny,
        _ => Authorization::Allow,
    }
}
