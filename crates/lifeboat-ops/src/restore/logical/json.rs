//! The rows of a logical backup as one JSON document: of one tenant, for example, to be read by whoever wants to.
//!
//! Values are the texts that PostgreSQL writes, because a JSON number holds less than `numeric` does; NULL is `null`.

use std::fs::File;
use std::io::{BufWriter, Write};

use lifeboat_engine::postgres::logical::{Database, Table};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, Result};
use lifeboat_repo::{Backup, Reader, format_utc};
use serde_json::json;
use tokio::sync::mpsc;

use super::copy_text::{Form, Rows, Wrong};
use super::csv::read_beside;
use super::{facts, with_rows};

/// Pieces that wait to be written.
const WAITING: usize = 4;

/// Writes the rows of the database `name` (none: the only one) of a backup.
pub(crate) async fn write(env: &Env, reader: &Reader, backup: &Backup, name: Option<&str>, file: File) -> Result<()> {
    let facts = facts(reader, backup)?;
    let database = with_rows(&facts, name)?;
    env.progress.step("write", Some(database.text_bytes()));
    let failed = |error| Error::io("write JSON of", &database.name, error);
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let head = [
        ("schema", json!("lifeboat/v1/rows")),
        ("component", json!(backup.header.component.to_string())),
        ("backup", json!(backup.id.to_string())),
        ("moment", json!(format_utc(database.moment_us))),
        ("database", json!(database.name)),
        ("tenant", json!(facts.tenant.as_ref().map(|tenant| &tenant.id))),
    ];
    for (index, (key, value)) in head.iter().enumerate() {
        let before = if index == 0 { "{" } else { ",\n " };
        write!(out, "{before}{}: {value}", json!(key)).map_err(failed)?;
    }
    out.write_all(b",\n \"tables\": [").map_err(failed)?;
    for (index, table) in database.tables.iter().enumerate() {
        let before: &[u8] = if index == 0 { b"\n" } else { b",\n" };
        out.write_all(before).map_err(failed)?;
        out = one(env, reader, database, table, out).await?;
    }
    out.write_all(b"\n ]}\n").map_err(failed)?;
    out.flush().map_err(failed)
}

async fn one(
    env: &Env,
    reader: &Reader,
    database: &Database,
    table: &Table,
    mut out: BufWriter<File>,
) -> Result<BufWriter<File>> {
    let (sender, pieces) = mpsc::channel(WAITING);
    let (table_of, env) = (table.clone(), env.clone());
    let writing = compute::run("write JSON", move || {
        let subject = table_of.name.to_string();
        let failed = |error| Error::io("write JSON of", &subject, error);
        let whose = table_of.of.as_ref().map(ToString::to_string);
        write!(
            out,
            "  {{\"table\": {}, \"partition_of\": {}, \"columns\": {}, \"rows\": [",
            json!(subject),
            json!(whose),
            json!(table_of.columns)
        )
        .map_err(failed)?;
        let keys = table_of.columns.iter().map(|column| json!(column).to_string());
        let form = Objects {
            keys: keys.collect(),
            rows: 0,
        };
        let mut rows = Rows::new(&subject, table_of.columns.len(), form);
        rows.take_all(&env, pieces, &mut out).map_err(|error| match error {
            Wrong::Rows(error) => error,
            Wrong::Writing(error) => failed(error),
        })?;
        rows.end(table_of.digest.rows)?;
        out.write_all(b"]}").map_err(failed)?;
        Ok(out)
    });
    read_beside(reader, database, table, sender, writing).await
}

/// Each row as an object.
struct Objects {
    /// Names of columns, as JSON.
    keys: Vec<String>,
    rows: u64,
}

impl Form for Objects {
    fn begin_row(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        let before: &[u8] = if self.rows == 0 { b"\n   {" } else { b",\n   {" };
        self.rows += 1;
        out.write_all(before)
    }

    fn value(&mut self, column: usize, value: Option<&[u8]>, out: &mut dyn Write) -> std::io::Result<()> {
        if column > 0 {
            out.write_all(b", ")?;
        }
        let key = self.keys.get(column).map_or("", String::as_str);
        match value {
            None => write!(out, "{key}: null"),
            Some(value) => {
                // Sessions that capture speak UTF-8.
                let text =
                    std::str::from_utf8(value).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
                write!(out, "{key}: {}", json!(text))
            }
        }
    }

    fn end_row(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(b"}")
    }
}
