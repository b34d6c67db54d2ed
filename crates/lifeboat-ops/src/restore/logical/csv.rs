//! The tables of a logical backup as CSV, straight from the stored text of COPY.
//!
//! Written so that `COPY … FROM … WITH (FORMAT csv, HEADER)` gives the same rows: NULL is nothing at all, an empty text is `""`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use lifeboat_engine::postgres::logical::{Database, Table, parts};
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Reader};
use tokio::sync::mpsc;

use super::copy_text::{Form, Rows, Wrong};
use super::{facts, file, with_rows};

/// Pieces that wait to be written.
const WAITING: usize = 4;
/// How lines end (RFC 4180).
const LINE_END: &[u8] = b"\r\n";

/// Writes every table of the database `name` (none: the only one) of a backup into the new folder `to`, as `SCHEMA/TABLE.csv`. Returns their bytes, and
/// what to know.
pub(crate) async fn write(
    env: &Env,
    reader: &Reader,
    backup: &Backup,
    name: Option<&str>,
    to: &Path,
) -> Result<(u64, Vec<String>)> {
    let facts = facts(reader, backup)?;
    let database = with_rows(&facts, name)?;
    env.progress.step("write", Some(database.text_bytes()));
    let mut bytes = 0;
    durable::create_folder(to)?;
    for table in &database.tables {
        bytes += one(env, reader, database, table, to).await?;
    }
    let mut notes = Vec::new();
    let mut left_out = |count: usize, what: &str| {
        if count > 0 {
            notes.push(format!("{what} are not in CSV: --format sql and --format pg_dump hold them"));
        }
    };
    left_out(usize::from(database.large_objects.is_some()), "large objects");
    left_out(database.sequences.len(), "definitions, and where sequences are,");
    Ok((bytes, notes))
}

async fn one(env: &Env, reader: &Reader, database: &Database, table: &Table, to: &Path) -> Result<u64> {
    let folder = to.join(parts::path_part(&table.name.schema));
    let path = folder.join(format!("{}.csv", parts::path_part(&table.name.name)));
    let (sender, pieces) = mpsc::channel(WAITING);
    let (columns, rows, subject, env) = (table.columns.clone(), table.digest.rows, table.name.to_string(), env.clone());
    let writing = compute::run("write CSV", move || {
        durable::create_folder(&folder)?;
        let failed = |error| Error::io("write", path.display(), error);
        let file = super::super::create_private(&path)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        header(&columns, &mut out).map_err(failed)?;
        let mut taken = Rows::new(&subject, columns.len(), Csv);
        taken.take_all(&env, pieces, &mut out).map_err(|error| match error {
            Wrong::Rows(error) => error,
            Wrong::Writing(error) => failed(error),
        })?;
        taken.end(rows)?;
        let file: File = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(file.metadata().map_err(failed)?.len())
    });
    read_beside(reader, database, table, sender, writing).await
}

/// Sends the text of a table's rows to whoever works on it meanwhile.
pub(super) async fn read_beside<T>(
    reader: &Reader,
    database: &Database,
    table: &Table,
    sender: mpsc::Sender<Vec<u8>>,
    working: impl Future<Output = Result<T>>,
) -> Result<T> {
    let reading = async move {
        for part in &table.parts {
            let record = file(reader, &format!("{}/{part}", database.folder))?;
            reader.read_in_order(record, &sender).await?;
        }
        Ok::<_, Error>(())
    };
    let (read, worked) = tokio::join!(reading, working);
    match (read, worked) {
        // Why nobody listened.
        (Err(error), Err(why)) if error.kind() == ErrorKind::Interrupted => Err(why),
        (Err(error), _) => Err(error),
        (Ok(()), worked) => worked,
    }
}

/// Lines of values with commas between them.
struct Csv;

impl Form for Csv {
    fn begin_row(&mut self, _: &mut dyn Write) -> std::io::Result<()> {
        Ok(())
    }

    fn value(&mut self, column: usize, value: Option<&[u8]>, out: &mut dyn Write) -> std::io::Result<()> {
        match value {
            Some(value) => put(column, value, out),
            None if column > 0 => out.write_all(b","),
            None => Ok(()),
        }
    }

    fn end_row(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(LINE_END)
    }
}

fn header(columns: &[String], out: &mut dyn Write) -> std::io::Result<()> {
    for (index, column) in columns.iter().enumerate() {
        put(index, column.as_bytes(), out)?;
    }
    out.write_all(LINE_END)
}

/// Writes a value that is not NULL, with the comma before it.
fn put(index: usize, value: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    if index > 0 {
        out.write_all(b",")?;
    }
    // Nothing would be NULL, and `\.` the end of all rows.
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !value.is_empty() && value != b"\\." && !value.iter().any(special) {
        return out.write_all(value);
    }
    out.write_all(b"\"")?;
    for (number, part) in value.split(|byte| *byte == b'"').enumerate() {
        if number > 0 {
            out.write_all(b"\"\"")?;
        }
        out.write_all(part)?;
    }
    out.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(columns: &[&str], pieces: &[&str]) -> String {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        header(&columns, &mut out).unwrap();
        let mut csv = Rows::new("t", columns.len(), Csv);
        for piece in pieces {
            assert!(csv.feed(piece.as_bytes(), &mut out).is_ok());
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_value_is_told_from_every_other() {
        let text = "1\t\\N\n2\t\n3\t\\\\N\n4\ta,b\"c\n5\t\\\\.\n6\tx\\ny\\r\\t\\\\\n";
        let wanted = "id,\"a \"\"b\"\",c\"\r\n1,\r\n2,\"\"\r\n3,\\N\r\n4,\"a,b\"\"c\"\r\n5,\"\\.\"\r\n6,\"x\ny\r\t\\\"\r\n";
        assert_eq!(converted(&["id", "a \"b\",c"], &[text]), wanted);
        // However it is cut.
        for at in 0..text.len() {
            let (begun, rest) = text.split_at(at);
            assert_eq!(converted(&["id", "a \"b\",c"], &[begun, rest]), wanted, "{at}");
        }
        assert_eq!(converted(&[], &["\n\n"]), "\r\n\r\n\r\n");
        assert_eq!(converted(&["a"], &["\\N\n\n"]), "a\r\n\r\n\"\"\r\n");
    }

    #[test]
    fn a_row_of_another_table_is_damage() {
        let mut out = Vec::new();
        let mut csv = Rows::new("t", 1, Csv);
        let Err(Wrong::Rows(error)) = csv.feed(b"1\t2\n", &mut out) else {
            unreachable!("two values in one column")
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
