//! Results of queries as CSV, kept beside the database in the same backup.
//!
//! A query reads only the columns that it was allowed, anywhere in it: SQLite asks before it compiles each access. So a forgotten `*`, a
//! view or a function cannot carry a hash or a secret into a file that people mail to each other.

use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::dump::Flow;
use super::error::sqlite;

const OP: &str = "make the extract";

/// Bytes gathered before they are handed on.
const PIECE_BYTES: usize = 256 << 10;

/// A query and what it may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// Name of the CSV file.
    pub file: String,
    /// One SELECT.
    pub query: String,
    /// The only columns that it may read, `COLUMN` or `TABLE.COLUMN`.
    pub columns: Vec<String>,
}

/// What an extract came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtractFacts {
    /// The columns of the result, as its first line has them.
    pub columns: Vec<String>,
    /// Its rows, without that line.
    pub rows: u64,
}

impl Extract {
    /// Writes the result as CSV (RFC 4180, lines end with CR LF). NULL is nothing at all, an empty text is `""`; a blob is hexadecimal.
    ///
    /// # Errors
    /// `ConfigInvalid` where the query is no single SELECT or reads a column that it may not.
    pub(super) fn run(
        &self,
        connection: &mut Connection,
        path: &Path,
        out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>,
    ) -> Result<ExtractFacts> {
        let allowed: Vec<String> = self.columns.iter().map(|column| column.to_lowercase()).collect();
        connection
            .authorizer(Some(move |context: AuthContext<'_>| authorize(&allowed, &context)))
            .map_err(|error| sqlite(OP, path, error))?;
        let result = self.write(connection, path, out);
        connection
            .authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
            .map_err(|error| sqlite(OP, path, error))?;
        result
    }

    fn write(
        &self,
        connection: &Connection,
        path: &Path,
        out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>,
    ) -> Result<ExtractFacts> {
        let invalid = |detail: String| {
            Error::new(ErrorKind::ConfigInvalid, OP, &self.file, detail)
                .with_hint("correct `query` or `columns` of this extract in lifeboat.yaml; every column that the query reads stands under `columns`")
        };
        let mut statement = connection.prepare(&self.query).map_err(|error| match error {
            rusqlite::Error::SqliteFailure(failure, _)
                if matches!(
                    failure.code,
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseCorrupt
                        | rusqlite::ErrorCode::SystemIoFailure
                ) =>
            {
                sqlite(OP, path, error)
            }
            error => invalid(format!("SQLite refuses its query ({error})")),
        })?;
        if !statement.readonly() || statement.column_count() == 0 {
            return Err(invalid("its query is no SELECT".to_owned()));
        }
        if statement.parameter_count() > 0 {
            return Err(invalid("its query has parameters".to_owned()));
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut buffer = Vec::new();
        for (index, column) in columns.iter().enumerate() {
            field(ValueRef::Text(column.as_bytes()), index, &mut buffer);
        }
        buffer.extend_from_slice(b"\r\n");
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            // Some virtual tables prepare statements of their own when they are read.
            Some(rusqlite::ErrorCode::AuthorizationForStatementDenied | rusqlite::ErrorCode::Unknown) => {
                invalid(format!("SQLite refuses its query ({error})"))
            }
            _ => sqlite(OP, path, error),
        };
        let mut rows = statement.query([]).map_err(failed)?;
        let mut count = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            for index in 0..columns.len() {
                field(row.get_ref(index).map_err(failed)?, index, &mut buffer);
            }
            buffer.extend_from_slice(b"\r\n");
            count += 1;
            if buffer.len() >= PIECE_BYTES {
                out(&mut buffer)?;
            }
        }
        if !buffer.is_empty() {
            out(&mut buffer)?;
        }
        Ok(ExtractFacts { columns, rows: count })
    }
}

fn authorize(allowed: &[String], context: &AuthContext<'_>) -> Authorization {
    let permitted = match context.action {
        AuthAction::Select | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !function_name.eq_ignore_ascii_case("load_extension"),
        AuthAction::Read { table_name, column_name } => {
            let (table, column) = (table_name.to_lowercase(), column_name.to_lowercase());
            let qualified = allowed.contains(&format!("{table}.{column}"));
            // The bytes of the whole file, and the schema, only by their full name.
            let internal = table.starts_with("sqlite_") || table == "dbstat";
            // Counting rows reads no column.
            column.is_empty() || (qualified && table != "sqlite_dbpage") || (!internal && allowed.contains(&column))
        }
        _ => false,
    };
    if permitted {
        Authorization::Allow
    } else {
        Authorization::Deny
    }
}

fn field(value: ValueRef<'_>, index: usize, buffer: &mut Vec<u8>) {
    if index > 0 {
        buffer.push(b',');
    }
    match value {
        ValueRef::Null => {}
        ValueRef::Integer(number) => buffer.extend_from_slice(number.to_string().as_bytes()),
        ValueRef::Real(number) => buffer.extend_from_slice(format!("{number:?}").as_bytes()),
        ValueRef::Blob(bytes) if !bytes.is_empty() => buffer.extend_from_slice(hex::encode(bytes).as_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let quotes = bytes.is_empty()
                || bytes.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n'))
                || bytes.first().is_some_and(u8::is_ascii_whitespace)
                || bytes.last().is_some_and(u8::is_ascii_whitespace);
            if !quotes {
                buffer.extend_from_slice(bytes);
                return;
            }
            buffer.push(b'"');
            for byte in bytes {
                if *byte == b'"' {
                    buffer.push(b'"');
                }
                buffer.push(*byte);
            }
            buffer.push(b'"');
        }
    }
}
