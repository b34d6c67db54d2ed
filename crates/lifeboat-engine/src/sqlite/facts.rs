//! What is counted of a database, in the same transaction that reads its pages.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_model::Result;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::error::sqlite;
use super::extract::ExtractFacts;

/// Facts of a database, as a backup keeps them (`docs/format.md` 8.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the database.
    pub page_count: u64,
    /// `wal`, `delete`, …
    pub journal_mode: String,
    /// `UTF-8`, `UTF-16le`, `UTF-16be`.
    pub encoding: String,
    /// `PRAGMA user_version`.
    pub user_version: i64,
    /// `PRAGMA application_id`.
    pub application_id: i64,
    /// BLAKE3 over the schema, hex.
    pub schema_hash: String,
    /// Rows of every table, counted.
    pub tables: BTreeMap<String, u64>,
    /// The file of the backup that holds the database as SQL text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dump: Option<String>,
    /// The extracts that the backup holds, by file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extracts: BTreeMap<String, ExtractFacts>,
}

/// Counts everything on `connection`, whose read transaction is open. Tables that cannot be read because their module is missing are
/// named in `warnings` and not counted.
pub(crate) fn count(connection: &Connection, path: &Path, warnings: &mut Vec<String>) -> Result<Facts> {
    let failed = |error| sqlite("count the rows of", path, error);
    let text = |pragma: &str| {
        connection
            .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, String>(0))
            .map_err(failed)
    };
    let number = |pragma: &str| {
        connection
            .query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    let mut tables = BTreeMap::new();
    for Table { name, is_virtual } in tables_of(connection).map_err(failed)? {
        let Ok(name) = String::from_utf8(name) else {
            warnings.push("a table whose name is not UTF-8 was not counted".to_owned());
            continue;
        };
        let sql = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        match connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
            Ok(rows) => {
                tables.insert(name, rows.unsigned_abs());
            }
            Err(error) if is_missing_module(&error) || (is_virtual && is_refusal(&error)) => {
                warnings.push(format!("table {name} was not counted: {error}"));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Facts {
        page_size: u32::try_from(number("page_size")?).unwrap_or(0),
        page_count: number("page_count")?.unsigned_abs(),
        journal_mode: text("journal_mode")?,
        encoding: text("encoding")?,
        user_version: number("user_version")?,
        application_id: number("application_id")?,
        schema_hash: schema_hash(connection).map_err(failed)?,
        tables,
        dump: None,
        extracts: BTreeMap::new(),
    })
}

struct Table {
    name: Vec<u8>,
    is_virtual: bool,
}

fn tables_of(connection: &Connection) -> rusqlite::Result<Vec<Table>> {
    let sql = "SELECT name, coalesce(sql, '') LIKE 'create virtual table%' FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let tables = statement.query_map([], |row| {
        Ok(Table {
            name: row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec(),
            is_virtual: row.get(1)?,
        })
    })?;
    tables.collect()
}

/// The extension behind a virtual table would not have it so: an option or tokenizer that this build lacks. Anything that speaks of the
/// file itself (damage, a lock, input and output) is not meant.
fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.code == rusqlite::ErrorCode::Unknown)
        || matches!(error, rusqlite::Error::SqlInputError { .. })
}

/// A virtual table whose extension this process does not have; its shadow tables are counted all the same.
pub(super) fn is_missing_module(error: &rusqlite::Error) -> bool {
    let text = error.to_string();
    text.contains("unknown function")
        || text.contains("no such module")
        || text.contains("no such tokenizer")
        || text.contains("no such function")
        || text.contains("no such collation")
}

fn schema_hash(connection: &Connection) -> rusqlite::Result<String> {
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name, rowid")?;
    let mut rows = statement.query([])?;
    let mut hasher = blake3::Hasher::new();
    while let Some(row) = rows.next()? {
        for column in 0..4 {
            let field = row.get_ref(column)?.as_bytes().unwrap_or_default();
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
    }
    Ok(hasher.finalize().to_string())
}
