//! What differs between two databases: tables, schema, counts, and rows by key.
//!
//! Both sides are read in one read transaction each; neither is changed. A database in use may be one side: then the rules of this folder
//! hold, and in rollback-journal mode, where a reader keeps writers waiting, the comparison gives up after `max_stall`.
//!
//! Rows are told apart by the primary key, or by the row id where there is none or where it does not tell them apart. Both sides are read
//! in the order of the key and walked side by side: memory holds two rows and a few samples, whatever the size of the table.

mod rows;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Clock, Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::sqlite;
use super::facts::{self, Facts};

pub use value::Cell;

const OP: &str = "compare";

/// One of the two databases.
#[derive(Debug, Clone)]
pub enum Side {
    /// A copy that nobody else uses.
    Copy(PathBuf),
    /// A database that may be in use.
    Live {
        /// The database file.
        path: PathBuf,
        /// How long to wait for a lock that another process holds.
        busy_timeout: Duration,
        /// How long writers may be kept waiting in rollback-journal mode.
        max_stall: Duration,
    },
}

impl Side {
    fn path(&self) -> &Path {
        match self {
            Self::Copy(path) | Self::Live { path, .. } => path,
        }
    }
}

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only these tables; all of them when empty.
    pub tables: Vec<String>,
    /// Rows shown for each kind of difference in each table.
    pub samples: usize,
}

/// A part of the schema that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// `table`, `index`, `view`, `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its SQL in the first database; none when it is not there.
    pub before: Option<String>,
    /// Its SQL in the second database; none when it is not there.
    pub after: Option<String>,
}

/// What happened to a row from the first to the second database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is only in the first one.
    Missing,
    /// It is in both, with other content.
    Changed,
    /// It is only in the second one.
    Extra,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// How.
    pub fate: Fate,
    /// The columns that tell the row apart, and their values.
    pub key: Vec<(String, Cell)>,
    /// For a changed row: the columns that differ, before and after.
    pub columns: Vec<(String, Cell, Cell)>,
}

/// How the rows of a table compare.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowChanges {
    /// Rows that are only in the first database.
    pub missing: u64,
    /// Rows that are in both with other content.
    pub changed: u64,
    /// Rows that are only in the second database.
    pub extra: u64,
    /// Some of them.
    pub samples: Vec<RowChange>,
}

/// One table on both sides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableChange {
    /// Its name.
    pub name: String,
    /// Rows in the first database; none when it has no such table, or its rows could not be counted.
    pub before: Option<u64>,
    /// Rows in the second database; likewise.
    pub after: Option<u64>,
    /// How the rows compare; none when they were not compared.
    pub rows: Option<RowChanges>,
    /// Why they were not compared, where somebody might expect it.
    pub not_compared: Option<String>,
}

impl TableChange {
    /// Whether nothing of it is known to differ.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.before == self.after
            && self
                .rows
                .as_ref()
                .is_none_or(|rows| rows.missing + rows.changed + rows.extra == 0)
    }
}

/// What two databases have not in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// Parts of the schema that differ, ordered by kind and name.
    pub schema: Vec<SchemaChange>,
    /// Every table of either, by name.
    pub tables: Vec<TableChange>,
}

impl Difference {
    /// Whether nothing differs. Tables whose rows were not compared count as far as their rows were counted.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.schema.is_empty() && self.tables.iter().all(TableChange::is_same)
    }
}

/// Compares what was counted when two backups were made: nothing is read but the facts.
#[must_use]
pub fn diff_counts(before: &Facts, after: &Facts) -> Difference {
    Difference {
        schema: Vec::new(),
        tables: side_by_side(&before.tables, &after.tables),
    }
}

fn side_by_side(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<TableChange> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let change = |name: &String| TableChange {
        name: name.clone(),
        before: before.get(name).copied(),
        after: after.get(name).copied(),
        ..TableChange::default()
    };
    names.into_iter().map(change).collect()
}

/// Compares `before` with `after`, row by row.
///
/// # Errors
/// `Usage` when the scope names a table that neither side has; `TimedOut` when a database in use and in rollback-journal mode would be kept
/// from its writers for longer than `max_stall`; what SQLite says when a side cannot be read.
pub fn diff(before: &Side, after: &Side, scope: &Scope, clock: &Arc<dyn Clock>) -> Result<Difference> {
    let (a, b) = (Reading::begin(before, clock)?, Reading::begin(after, clock)?);
    let (schema_a, schema_b) = (a.schema()?, b.schema()?);
    let schema = schema_changes(&schema_a, &schema_b);
    let (count_a, count_b) = (a.counts()?, b.counts()?);
    let mut tables = side_by_side(&count_a, &count_b);
    for wanted in &scope.tables {
        if !tables.iter().any(|table| table.name == *wanted) {
            return Err(unknown_table(wanted, before, after, &tables));
        }
    }
    tables.retain(|table| scope.tables.is_empty() || scope.tables.contains(&table.name));
    let virtual_table = |name: &str| {
        let key = ("table".to_owned(), name.to_owned());
        [schema_a.get(&key), schema_b.get(&key)]
            .into_iter()
            .flatten()
            .any(|sql| is_virtual(sql))
    };
    for table in &mut tables {
        if table.before.is_none() || table.after.is_none() {
            continue;
        }
        if virtual_table(&table.name) {
            table.not_compared = Some("it is a virtual table: the tables behind it are compared".to_owned());
            continue;
        }
        match rows::compare(&a, &b, &table.name, scope.samples)? {
            Ok(rows) => table.rows = Some(rows),
            Err(why) => table.not_compared = Some(why),
        }
    }
    a.end()?;
    b.end()?;
    let schema = if scope.tables.is_empty() {
        schema
    } else {
        let wanted = |change: &SchemaChange| change.kind == "table" && scope.tables.contains(&change.name);
        schema.into_iter().filter(wanted).collect()
    };
    Ok(Difference { schema, tables })
}

fn unknown_table(wanted: &str, before: &Side, after: &Side, tables: &[TableChange]) -> Error {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).take(20).collect();
    let subject = format!("{} and {}", before.path().display(), after.path().display());
    Error::new(ErrorKind::Usage, OP, subject, format!("neither has a table {wanted:?}"))
        .with_hint(format!("there are: {}", names.join(", ")))
}

fn is_virtual(sql: &str) -> bool {
    sql.get(..20)
        .is_some_and(|start| start.eq_ignore_ascii_case("create virtual table"))
}

type Schema = BTreeMap<(String, String), String>;

fn schema_changes(before: &Schema, after: &Schema) -> Vec<SchemaChange> {
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| SchemaChange {
            kind: key.0.clone(),
            name: key.1.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        })
        .collect()
}

/// An open side in its read transaction.
struct Reading {
    connection: Connection,
    path: PathBuf,
    encoding: value::Encoding,
    /// When it must let its writers go.
    deadline: Option<Duration>,
    clock: Arc<dyn Clock>,
}

impl Reading {
    fn begin(side: &Side, clock: &Arc<dyn Clock>) -> Result<Self> {
        let path = side.path();
        let failed = |error| sqlite(OP, path, error);
        let access = match side {
            Side::Copy(_) => OpenFlags::SQLITE_OPEN_READ_ONLY,
            // As a capture does: a journal or a WAL may have to be taken over, which reading alone cannot.
            Side::Live { .. } => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
        for (option, value) in [
            (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        ] {
            connection.set_db_config(option, value).map_err(failed)?;
        }
        if let Side::Live { busy_timeout, .. } = side {
            connection.busy_timeout(*busy_timeout).map_err(failed)?;
        }
        connection
            .execute_batch("PRAGMA query_only = ON; PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; BEGIN")
            .map_err(failed)?;
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).map_err(failed);
        // The first read begins the transaction.
        connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .map_err(failed)?;
        let encoding = value::Encoding::named(&text("PRAGMA encoding")?);
        let deadline = match side {
            Side::Live { max_stall, .. } if text("PRAGMA journal_mode")? != "wal" => Some(clock.monotonic() + *max_stall),
            Side::Live { .. } | Side::Copy(_) => None,
        };
        Ok(Self {
            connection,
            path: path.to_path_buf(),
            encoding,
            deadline,
            clock: Arc::clone(clock),
        })
    }

    /// Fails when writers were kept waiting for as long as they may be.
    fn in_time(&self) -> Result<()> {
        if self.deadline.is_none_or(|deadline| self.clock.monotonic() < deadline) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TimedOut,
            OP,
            self.path.display(),
            "it has a rollback journal: comparing any longer would keep its writers waiting for more than `max_stall`",
        )
        .with_hint("take a backup and compare that one: `lifeboat backup`, then `lifeboat diff A latest`"))
    }

    fn schema(&self) -> Result<Schema> {
        let failed = |error| sqlite(OP, &self.path, error);
        let sql = "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let lossy =
            |bytes: rusqlite::types::ValueRef<'_>| String::from_utf8_lossy(bytes.as_bytes().unwrap_or_default()).into_owned();
        let rows = statement
            .query_map([], |row| {
                Ok(((lossy(row.get_ref(0)?), lossy(row.get_ref(1)?)), lossy(row.get_ref(2)?)))
            })
            .map_err(failed)?;
        rows.collect::<rusqlite::Result<Schema>>().map_err(failed)
    }

    /// Rows of every table; a table whose module is missing is not counted.
    fn counts(&self) -> Result<BTreeMap<String, u64>> {
        self.in_time()?;
        let mut uncounted = Vec::new();
        let facts = facts::count(&self.connection, &self.path, &mut uncounted)?;
        self.in_time()?;
        Ok(facts.tables)
    }

    fn end(self) -> Result<()> {
        let failed = |error| sqlite(OP, &self.path, error);
        self.connection.execute_batch("COMMIT").map_err(failed)?;
        self.connection.close().map_err(|(_, error)| sqlite(OP, &self.path, error))
    }
}
