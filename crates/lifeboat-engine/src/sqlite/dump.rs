//! A database as SQL text that any `sqlite3` program can load, value for value.
//!
//! Read on the connection and in the transaction of the capture, row by row, in the order of the row ids. It can stop after any row and
//! go on later on a new transaction over the same data, so that in rollback-journal mode no lock is held for longer than promised.
//!
//! What `.dump` of the shell loses and this keeps: text after a NUL, text that is not UTF-8, carriage returns, the last bits of floats,
//! row ids, `user_version`, `application_id`, encoding, page size, `auto_vacuum`. What cannot be kept: values of more than 480 MB (the
//! loader's limit on a statement), and `sqlite_stat4`, which not every loader has.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::error::sqlite;

const OP: &str = "dump";

/// Bytes gathered before they are handed on.
const PIECE_BYTES: usize = 1 << 20;

/// A value in hexadecimal has to fit into one statement of the loader (1,000,000,000 bytes).
const VALUE_LIMIT_BYTES: usize = 480_000_000;

/// Whether to go on after a piece was handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Go,
    /// Finish the statement and return: the lock has to be let go.
    Stop,
}

/// What is still to be written, in order.
enum Item {
    Text(String),
    Rows(Table),
}

/// A table whose rows are written.
struct Table {
    /// `INSERT INTO "t"("a","b") VALUES(`
    insert: String,
    /// The expressions to read.
    select: String,
    /// `FROM "t"`
    from: String,
    /// An expression that is the row id, where there is one.
    row_id: Option<String>,
    /// Where the database is UTF-16, each column is followed by its raw bytes: text of such databases is not always valid.
    raw: Option<Utf16>,
    columns: usize,
}

/// A dump under way.
pub(super) struct Dump {
    items: VecDeque<Item>,
    last_row_id: Option<i64>,
    rows_done: u64,
}

/// Which byte of a unit comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Utf16 {
    Little,
    Big,
}

/// What `PRAGMA table_list` and `table_xinfo` say of a table.
struct Shape {
    columns: Vec<String>,
    row_id: Option<String>,
    without_row_id: bool,
}

impl Dump {
    /// Reads the schema and makes the plan.
    pub(super) fn new(connection: &Connection, path: &Path) -> Result<Self> {
        let items = plan(connection).map_err(|error| sqlite(OP, path, error))?;
        Ok(Self {
            items,
            last_row_id: None,
            rows_done: 0,
        })
    }

    /// Writes on; hands pieces to `out`, which leaves its buffer empty. True when all is written.
    pub(super) fn run(
        &mut self,
        connection: &Connection,
        path: &Path,
        out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>,
    ) -> Result<bool> {
        let mut buffer = Vec::with_capacity(PIECE_BYTES + (64 << 10));
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Text(text) => buffer.extend_from_slice(text.as_bytes()),
                Item::Rows(table) => {
                    if !self.rows(connection, path, &table, &mut buffer, out)? {
                        self.items.push_front(Item::Rows(table));
                        return Ok(false);
                    }
                    self.last_row_id = None;
                    self.rows_done = 0;
                }
            }
            if buffer.len() >= PIECE_BYTES && out(&mut buffer)? == Flow::Stop {
                return Ok(false);
            }
        }
        if !buffer.is_empty() {
            out(&mut buffer)?;
        }
        Ok(true)
    }

    fn rows(
        &mut self,
        connection: &Connection,
        path: &Path,
        table: &Table,
        buffer: &mut Vec<u8>,
        out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>,
    ) -> Result<bool> {
        let failed = |error| sqlite(OP, path, error);
        let sql = match (&table.row_id, self.last_row_id) {
            (Some(id), Some(_)) => format!("SELECT {id}, {} {} WHERE {id} > ?1 ORDER BY {id}", table.select, table.from),
            (Some(id), None) => format!("SELECT {id}, {} {} WHERE ?1 IS ?1 ORDER BY {id}", table.select, table.from),
            // The same data gives the same order: a scan of the one tree there is.
            (None, _) => format!("SELECT 0, {} {} LIMIT -1 OFFSET ?1", table.select, table.from),
        };
        let start = match &table.row_id {
            Some(_) => self.last_row_id.unwrap_or(0),
            None => i64::try_from(self.rows_done).unwrap_or(i64::MAX),
        };
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([start]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            self.last_row_id = Some(row.get(0).map_err(failed)?);
            buffer.extend_from_slice(table.insert.as_bytes());
            for column in 0..table.columns {
                if column > 0 {
                    buffer.push(b',');
                }
                let at = 1 + if table.raw.is_some() { 2 * column } else { column };
                let value = row.get_ref(at).map_err(failed)?;
                let raw = match table.raw {
                    Some(order) => {
                        let bytes = row.get_ref(at + 1).map_err(failed)?.as_bytes().ok();
                        bytes.map(|bytes| (order, bytes))
                    }
                    None => None,
                };
                literal(value, raw, path, buffer, out)?;
            }
            buffer.extend_from_slice(b");\n");
            self.rows_done += 1;
            if buffer.len() >= PIECE_BYTES && out(buffer)? == Flow::Stop {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Writes the restored database `path`, which nobody else uses, as SQL text.
pub fn dump_restored(path: &Path, to: &mut dyn std::io::Write) -> Result<()> {
    let failed = |error| sqlite(OP, path, error);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.execute_batch("BEGIN").map_err(failed)?;
    let mut dump = Dump::new(&connection, path)?;
    let mut write = |buffer: &mut Vec<u8>| {
        to.write_all(buffer)
            .map_err(|error| Error::io("write", "the SQL text", error))?;
        buffer.clear();
        Ok(Flow::Go)
    };
    dump.run(&connection, path, &mut write)?;
    connection.execute_batch("COMMIT").map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))
}

/// Writes a value as SQL. A large one is handed on in pieces; whether to stop is asked again at the end of its row.
fn literal(
    value: ValueRef<'_>,
    raw: Option<(Utf16, &[u8])>,
    path: &Path,
    buffer: &mut Vec<u8>,
    out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>,
) -> Result<()> {
    match value {
        ValueRef::Null => buffer.extend_from_slice(b"NULL"),
        ValueRef::Integer(number) => buffer.extend_from_slice(number.to_string().as_bytes()),
        ValueRef::Real(number) => buffer.extend_from_slice(real(number).as_bytes()),
        ValueRef::Blob(bytes) => {
            buffer.extend_from_slice(b"x'");
            hex_pieces(bytes, path, buffer, out)?;
            buffer.push(b'\'');
        }
        ValueRef::Text(bytes) => match plain(bytes, raw) {
            Some(text) => quoted(text, path, buffer, out)?,
            None => {
                buffer.extend_from_slice(b"CAST(x'");
                hex_pieces(raw.map_or(bytes, |(_, raw)| raw), path, buffer, out)?;
                buffer.extend_from_slice(b"' AS TEXT)");
            }
        },
    }
    Ok(())
}

/// Text that may stand in quotes: valid, without NUL (where the loader would end it) and without carriage returns (which it drops).
fn plain<'a>(bytes: &'a [u8], raw: Option<(Utf16, &[u8])>) -> Option<&'a str> {
    let text = std::str::from_utf8(bytes).ok()?;
    // SQLite makes UTF-8 of half a surrogate pair and of whatever follows it: only what turns back into the same bytes is that text.
    let same = raw.is_none_or(|(order, raw)| {
        let units = text.encode_utf16().flat_map(|unit| match order {
            Utf16::Little => unit.to_le_bytes(),
            Utf16::Big => unit.to_be_bytes(),
        });
        units.eq(raw.iter().copied())
    });
    // A loader takes a mark of the byte order for no part of the text, and SQLite stores U+FFFE and U+FFFF as U+FFFD where it makes
    // UTF-16 of UTF-8 (`READ_UTF8` in its utf.c).
    (same && !text.contains(['\0', '\r', '\u{feff}', '\u{fffe}', '\u{ffff}'])).then_some(text)
}

fn fits(length: usize, path: &Path) -> Result<()> {
    if length <= VALUE_LIMIT_BYTES {
        return Ok(());
    }
    let detail = format!("a value of {length} bytes is in it, which no sqlite3 program can load from SQL text");
    Err(Error::new(ErrorKind::Refused, OP, path.display(), detail)
        .with_hint("leave `sql_dump` out for this component: its page-exact backup holds everything"))
}

fn quoted(text: &str, path: &Path, buffer: &mut Vec<u8>, out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>) -> Result<()> {
    fits(text.len(), path)?;
    buffer.push(b'\'');
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            buffer.extend_from_slice(b"''");
        }
        for piece in part.as_bytes().chunks(PIECE_BYTES) {
            buffer.extend_from_slice(piece);
            hand_on(buffer, out)?;
        }
    }
    buffer.push(b'\'');
    Ok(())
}

fn hex_pieces(bytes: &[u8], path: &Path, buffer: &mut Vec<u8>, out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>) -> Result<()> {
    fits(bytes.len(), path)?;
    for piece in bytes.chunks(PIECE_BYTES / 2) {
        buffer.extend_from_slice(hex::encode(piece).as_bytes());
        hand_on(buffer, out)?;
    }
    Ok(())
}

/// In the middle of a row nothing can stop.
fn hand_on(buffer: &mut Vec<u8>, out: &mut dyn FnMut(&mut Vec<u8>) -> Result<Flow>) -> Result<()> {
    if buffer.len() >= 2 * PIECE_BYTES {
        out(buffer)?;
    }
    Ok(())
}

/// A float that every loader reads to the same bits. Not all versions of SQLite read decimal digits exactly, but integers, and products
/// and quotients with powers of two, are exact everywhere. Whole numbers and up to three decimal places need none of that: dividing an
/// integer by at most 1,000 rounds once, also with the 64-bit significands that some versions calculate with.
pub(super) fn real(number: f64) -> String {
    if number.is_nan() {
        return "NULL".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "1e999" } else { "-1e999" }.to_owned();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0.0" } else { "0.0" }.to_owned();
    }
    let short = format!("{number:?}");
    let places = short.split_once('.').map_or(0, |(_, places)| places.len());
    let digits = short.bytes().filter(u8::is_ascii_digit).count();
    if !short.contains('e') && places <= 3 && digits <= 15 {
        return short;
    }
    exact(number)
}

fn exact(number: f64) -> String {
    const SHIFT: i64 = 62;
    let bits = number.to_bits();
    let sign = if bits >> 63 == 1 { "-" } else { "" };
    let field = i64::try_from((bits >> 52) & 0x7ff).unwrap_or(0);
    let fraction = bits & ((1 << 52) - 1);
    let (mut significand, mut exponent) = if field == 0 {
        (fraction, -1074)
    } else {
        (fraction | (1 << 52), field - 1075)
    };
    let zeros = significand.trailing_zeros();
    significand >>= zeros;
    exponent += i64::from(zeros);
    let mut text = format!("({sign}1.0*{significand}");
    let operator = if exponent < 0 { '/' } else { '*' };
    let mut left = exponent.abs();
    while left > 0 {
        let step = left.min(SHIFT);
        // Writing to a string cannot fail.
        if write!(text, "{operator}(1<<{step})").is_err() {
            break;
        }
        left -= step;
    }
    text.push(')');
    text
}

/// A name in double quotes.
pub(super) fn name(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Text in single quotes, or in hexadecimal where quotes would not do.
fn text_literal(text: &str) -> String {
    if text.contains(['\0', '\r']) {
        format!("CAST(x'{}' AS TEXT)", hex::encode(text))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
    let objects = statement.query_map([], |row| {
        Ok(Object {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            sql: row.get(3)?,
        })
    })?;
    objects.collect()
}

fn plan(connection: &Connection) -> rusqlite::Result<VecDeque<Item>> {
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    let utf16 = match encoding.as_str() {
        "UTF-16le" => Some(Utf16::Little),
        "UTF-16be" => Some(Utf16::Big),
        _ => None,
    };
    let mut items = VecDeque::new();
    items.push_back(Item::Text(format!(
        "-- A SQLite database as SQL text. Load it into a new file: sqlite3 NEW.db < THIS\n\
         PRAGMA foreign_keys=OFF;\nPRAGMA ignore_check_constraints=ON;\nPRAGMA encoding='{encoding}';\nPRAGMA page_size={};\nPRAGMA auto_vacuum={};\n\
         PRAGMA writable_schema=ON;\nBEGIN TRANSACTION;\n",
        number("page_size")?,
        number("auto_vacuum")?,
    )));
    let objects = objects(connection)?;
    let is_virtual = |object: &Object| {
        object
            .sql
            .get(..14)
            .is_some_and(|start| start.eq_ignore_ascii_case("CREATE VIRTUAL"))
    };
    let own = |object: &&Object| !object.name.to_ascii_lowercase().starts_with("sqlite_");
    for table in objects.iter().filter(own).filter(|object| object.kind == "table") {
        if is_virtual(table) {
            // Created, it would make its shadow tables, which come with their own rows.
            let (name, sql) = (text_literal(&table.name), text_literal(&table.sql));
            items.push_back(Item::Text(format!(
                "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql) VALUES('table',{name},{name},0,{sql});\n"
            )));
            continue;
        }
        items.push_back(Item::Text(format!("{};\n", table.sql)));
        items.push_back(Item::Rows(rows_of(connection, &table.name, utf16)?));
    }
    internal(connection, &objects, utf16, &mut items)?;
    for object in objects.iter().filter(own).filter(|object| object.kind != "table") {
        items.push_back(Item::Text(format!("{};\n", object.sql)));
    }
    for object in objects.iter().filter(|object| object.sql.contains('\r')) {
        items.push_back(Item::Text(format!(
            "UPDATE sqlite_schema SET sql={} WHERE type='{}' AND name={} AND tbl_name={};\n",
            text_literal(&object.sql),
            object.kind,
            text_literal(&object.name),
            text_literal(&object.table)
        )));
    }
    items.push_back(Item::Text(format!(
        "PRAGMA user_version={};\nPRAGMA application_id={};\nCOMMIT;\nPRAGMA writable_schema=OFF;\n",
        number("user_version")?,
        number("application_id")?,
    )));
    Ok(items)
}

/// `sqlite_sequence` and `sqlite_stat1`, which nobody can create by name.
fn internal(
    connection: &Connection,
    objects: &[Object],
    utf16: Option<Utf16>,
    items: &mut VecDeque<Item>,
) -> rusqlite::Result<()> {
    let there = |name: &str| objects.iter().any(|object| object.name == name);
    if there("sqlite_sequence") {
        let mut helper = "lifeboat_sequence".to_owned();
        while there(&helper) {
            helper.push('_');
        }
        items.push_back(Item::Text(format!(
            "CREATE TABLE {helper}(x INTEGER PRIMARY KEY AUTOINCREMENT);\nDROP TABLE {helper};\nDELETE FROM sqlite_sequence;\n"
        )));
        items.push_back(Item::Rows(rows_of(connection, "sqlite_sequence", utf16)?));
    }
    if there("sqlite_stat1") {
        items.push_back(Item::Text("ANALYZE sqlite_schema;\nDELETE FROM sqlite_stat1;\n".to_owned()));
        items.push_back(Item::Rows(rows_of(connection, "sqlite_stat1", utf16)?));
    }
    Ok(())
}

fn rows_of(connection: &Connection, table: &str, utf16: Option<Utf16>) -> rusqlite::Result<Table> {
    let shape = shape(connection, table)?;
    let internal = table.starts_with("sqlite_");
    let mut written: Vec<String> = shape.columns.iter().map(|column| name(column)).collect();
    // Rows of internal tables have no name beyond their content.
    if let Some(row_id) = shape.row_id.as_ref().filter(|_| !internal)
        && !shape.columns.iter().any(|column| name(column) == *row_id)
    {
        written.insert(0, row_id.clone());
    }
    let select: Vec<String> = written
        .iter()
        .map(|column| {
            if utf16.is_some() {
                format!("{column}, CAST({column} AS BLOB)")
            } else {
                column.clone()
            }
        })
        .collect();
    Ok(Table {
        insert: format!("INSERT INTO {}({}) VALUES(", name(table), written.join(",")),
        select: select.join(", "),
        from: format!("FROM {}", name(table)),
        row_id: shape.row_id.filter(|_| !shape.without_row_id),
        raw: utf16,
        columns: written.len(),
    })
}

fn shape(connection: &Connection, table: &str) -> rusqlite::Result<Shape> {
    let without_row_id: bool = connection.query_row(
        "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1",
        [table],
        |row| row.get(0),
    )?;
    let mut statement = connection.prepare(
        "SELECT name, upper(type) = 'INTEGER' AND pk = 1, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid",
    )?;
    let columns: Vec<(String, bool, i64, i64)> = statement
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let keyed: i64 = connection.query_row(
        "SELECT count(*) FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'",
        [table],
        |row| row.get(0),
    )?;
    let one_key = columns.iter().filter(|(_, _, key, _)| *key > 0).count() == 1;
    // `INTEGER PRIMARY KEY DESC` is, for historical reasons, no row id: it has an index.
    let alias = columns
        .iter()
        .find(|(_, integer, _, _)| *integer && one_key && keyed == 0 && !without_row_id);
    let free = |word: &&str| !columns.iter().any(|(column, ..)| column.eq_ignore_ascii_case(word));
    let row_id = match alias {
        Some((column, ..)) => Some(name(column)),
        None if without_row_id => None,
        None => ["rowid", "_rowid_", "oid"].into_iter().find(free).map(str::to_owned),
    };
    Ok(Shape {
        // 2 and 3: generated columns, which calculate themselves.
        columns: columns
            .into_iter()
            .filter(|(.., hidden)| *hidden == 0)
            .map(|(column, ..)| column)
            .collect(),
        row_id,
        without_row_id,
    })
}
