//! The rows of one table on both sides, walked side by side in the order of their key.

use std::cmp::Ordering;

use lifeboat_model::Result;
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator as _;
use rusqlite::{Row, Rows};

use super::super::error::sqlite;
use super::super::facts::is_missing_module;
use super::value::{Cell, Kept, is_same, order};
use super::{Fate, OP, Reading, RowChange, RowChanges};

/// Rows between two looks at the clock.
const ROWS_PER_LOOK: u64 = 256;

/// A column of a table.
struct Column {
    name: String,
    /// Place in the primary key, from 1; 0 when it is not part of it.
    key: i64,
}

/// How the rows of a table are told apart and what of them is compared.
struct Shape {
    /// SQL of the key columns and their names.
    key: Vec<(String, String)>,
    /// Names of the columns that both sides have.
    columns: Vec<String>,
}

/// Compares the rows of `table`; a sentence says why when that cannot be done.
pub(super) fn compare(a: &Reading, b: &Reading, table: &str, samples: usize) -> Result<Result<RowChanges, String>> {
    if a.encoding != b.encoding {
        return Ok(Err("the two databases store text in different encodings".to_owned()));
    }
    let (columns_a, columns_b) = (columns(a, table)?, columns(b, table)?);
    let common: Vec<String> = columns_a
        .iter()
        .filter(|column| columns_b.iter().any(|other| other.name == column.name))
        .map(|column| column.name.clone())
        .collect();
    let mut keys = Vec::new();
    let (key_a, key_b) = (primary_key(&columns_a), primary_key(&columns_b));
    if !key_a.is_empty() && key_a == key_b {
        keys.push(key_a.into_iter().map(|name| (quoted(&name), name)).collect());
    }
    if let Some(row_id) = row_id(&columns_a, &columns_b) {
        keys.push(vec![(row_id.to_owned(), row_id.to_owned())]);
    }
    let mut why = "its rows cannot be told apart: the two sides have different primary keys".to_owned();
    for key in keys {
        let shape = Shape {
            key,
            columns: common.clone(),
        };
        match walk(a, b, table, &shape, samples)? {
            Ok(changes) => return Ok(Ok(changes)),
            Err(because) => why = because,
        }
    }
    Ok(Err(why))
}

fn columns(side: &Reading, table: &str) -> Result<Vec<Column>> {
    let failed = |error| sqlite(OP, &side.path, error);
    // Generated and hidden columns follow from the others.
    let mut statement = side
        .connection
        .prepare("SELECT name, pk FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid")
        .map_err(failed)?;
    let columns = statement
        .query_map([table], |row| {
            Ok(Column {
                name: row.get(0)?,
                key: row.get(1)?,
            })
        })
        .map_err(failed)?;
    columns.collect::<rusqlite::Result<_>>().map_err(failed)
}

fn primary_key(columns: &[Column]) -> Vec<String> {
    let mut key: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    key.sort_by_key(|column| column.key);
    key.into_iter().map(|column| column.name.clone()).collect()
}

/// A name of the row id that no column hides. A table WITHOUT ROWID has none, which its first query tells.
fn row_id(a: &[Column], b: &[Column]) -> Option<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| a.iter().chain(b).all(|column| !column.name.eq_ignore_ascii_case(name)))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn select(table: &str, shape: &Shape) -> String {
    let key = shape.key.iter().map(|(sql, _)| sql.clone());
    let columns: Vec<String> = key.chain(shape.columns.iter().map(|name| quoted(name))).collect();
    let order: Vec<String> = shape.key.iter().map(|(sql, _)| format!("{sql} COLLATE BINARY")).collect();
    format!(
        "SELECT {} FROM {} ORDER BY {}",
        columns.join(", "),
        quoted(table),
        order.join(", ")
    )
}

fn walk(a: &Reading, b: &Reading, table: &str, shape: &Shape, samples: usize) -> Result<Result<RowChanges, String>> {
    let sql = select(table, shape);
    let (mut left, mut right) = match (a.connection.prepare(&sql), b.connection.prepare(&sql)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(error), _) | (_, Err(error)) if is_missing_module(&error) || is_no_column(&error) => {
            return Ok(Err(format!("it cannot be read here: {error}")));
        }
        (Err(error), _) => return Err(sqlite(OP, &a.path, error)),
        (_, Err(error)) => return Err(sqlite(OP, &b.path, error)),
    };
    let mut left = Cursor::begin(a, shape, left.query([]).map_err(|error| sqlite(OP, &a.path, error))?)?;
    let mut right = Cursor::begin(b, shape, right.query([]).map_err(|error| sqlite(OP, &b.path, error))?)?;
    let mut found = Found {
        shape,
        limit: samples,
        changes: RowChanges::default(),
        shown: [0; 3],
    };
    loop {
        if left.stumbled || right.stumbled {
            return Ok(Err("its key does not tell its rows apart".to_owned()));
        }
        let (step_left, step_right) = match (left.key(), right.key()) {
            (None, None) => return Ok(Ok(found.changes)),
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            (Some(x), Some(y)) => match keys_order(x, y, a) {
                Ordering::Less => (true, false),
                Ordering::Greater => (false, true),
                Ordering::Equal => (true, true),
            },
        };
        match (step_left, step_right) {
            (true, true) => found.both(left.row()?, right.row()?)?,
            (true, false) => found.only(Fate::Missing, left.row()?)?,
            (_, _) => found.only(Fate::Extra, right.row()?)?,
        }
        if step_left {
            left.advance()?;
        }
        if step_right {
            right.advance()?;
        }
    }
}

fn is_no_column(error: &rusqlite::Error) -> bool {
    error.to_string().contains("no such column")
}

fn keys_order(x: &[Kept], y: &[Kept], side: &Reading) -> Ordering {
    x.iter()
        .zip(y)
        .map(|(x, y)| order(x.as_ref(), y.as_ref(), side.encoding))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// A side of the walk and the row it stands on.
struct Cursor<'r, 's> {
    side: &'s Reading,
    width: usize,
    rows: Rows<'r>,
    key: Option<Vec<Kept>>,
    /// Whether a key came that does not follow the one before.
    stumbled: bool,
    count: u64,
}

impl<'r, 's> Cursor<'r, 's> {
    fn begin(side: &'s Reading, shape: &Shape, rows: Rows<'r>) -> Result<Self> {
        let mut cursor = Self {
            side,
            width: shape.key.len(),
            rows,
            key: None,
            stumbled: false,
            count: 0,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    fn key(&self) -> Option<&[Kept]> {
        self.key.as_deref()
    }

    fn advance(&mut self) -> Result<()> {
        let failed = |error| sqlite(OP, &self.side.path, error);
        self.count += 1;
        if self.count.is_multiple_of(ROWS_PER_LOOK) {
            self.side.in_time()?;
        }
        let key = match self.rows.next().map_err(failed)? {
            None => None,
            Some(row) => Some(
                (0..self.width)
                    .map(|index| row.get_ref(index).map(Kept::of))
                    .collect::<rusqlite::Result<Vec<Kept>>>()
                    .map_err(failed)?,
            ),
        };
        if let (Some(before), Some(now)) = (&self.key, &key) {
            self.stumbled |= keys_order(before, now, self.side).is_ge();
        }
        self.key = key;
        Ok(())
    }

    fn row(&self) -> Result<&Row<'r>> {
        self.rows.get().ok_or_else(|| {
            lifeboat_model::Error::new(
                lifeboat_model::ErrorKind::Bug,
                OP,
                self.side.path.display(),
                "there is no row",
            )
        })
    }
}

/// What the walk has found so far.
struct Found<'a> {
    shape: &'a Shape,
    limit: usize,
    changes: RowChanges,
    /// Samples of each fate.
    shown: [usize; 3],
}

impl Found<'_> {
    fn both(&mut self, left: &Row<'_>, right: &Row<'_>) -> Result<()> {
        let first = self.shape.key.len();
        let mut columns = Vec::new();
        let mut differs = false;
        for (offset, name) in self.shape.columns.iter().enumerate() {
            let (x, y) = (value(left, first + offset)?, value(right, first + offset)?);
            if !is_same(x, y) {
                differs = true;
                if self.shown[1] < self.limit {
                    columns.push((name.clone(), Cell::of(x), Cell::of(y)));
                }
            }
        }
        if differs {
            self.changes.changed += 1;
            self.sample(1, Fate::Changed, left, columns)?;
        }
        Ok(())
    }

    fn only(&mut self, fate: Fate, row: &Row<'_>) -> Result<()> {
        let index = match fate {
            Fate::Missing => {
                self.changes.missing += 1;
                0
            }
            Fate::Changed | Fate::Extra => {
                self.changes.extra += 1;
                2
            }
        };
        self.sample(index, fate, row, Vec::new())
    }

    fn sample(&mut self, index: usize, fate: Fate, row: &Row<'_>, columns: Vec<(String, Cell, Cell)>) -> Result<()> {
        let Some(shown) = self.shown.get_mut(index).filter(|shown| **shown < self.limit) else {
            return Ok(());
        };
        *shown += 1;
        let mut key = Vec::new();
        for (place, (_, name)) in self.shape.key.iter().enumerate() {
            key.push((name.clone(), Cell::of(value(row, place)?)));
        }
        self.changes.samples.push(RowChange { fate, key, columns });
        Ok(())
    }
}

fn value<'r>(row: &'r Row<'_>, index: usize) -> Result<rusqlite::types::ValueRef<'r>> {
    row.get_ref(index)
        .map_err(|error| sqlite(OP, std::path::Path::new("a row"), error))
}
