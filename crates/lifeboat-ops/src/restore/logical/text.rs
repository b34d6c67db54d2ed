//! A database of a logical backup as SQL text, which `psql` loads into an empty one: for whoever has no Lifeboat.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use lifeboat_engine::postgres::logical::programs::{self, Program, Section};
use lifeboat_engine::postgres::logical::{Database, destination, leader, parts};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Reader};
use tokio::sync::mpsc;

use super::{Folder, chosen, definitions_of, facts, file};
use crate::backup::logical::binaries;
use crate::protected::Protected;
use crate::restore::draw_id;

/// Pieces that wait to be written.
const WAITING: usize = 4;
/// What stands behind the last row of a COPY.
const END_OF_ROWS: &str = "\\.\n\n";

/// Writes the database `name` (none: the only one) of a backup into `to`, which is open for writing.
pub(crate) async fn write(
    env: &Env,
    protected: &Protected,
    reader: &Reader,
    backup: &Backup,
    name: Option<&str>,
    to: File,
) -> Result<()> {
    let facts = facts(reader, backup)?;
    let database = chosen(&facts, name)?;
    let wrote = facts.pg_dump.split('.').next().and_then(|major| major.parse().ok());
    let pg_restore = Program::find("pg_restore", wrote.unwrap_or(facts.major), binaries(protected)).await?;
    let folder = Folder(protected.state_dir.join(format!("export-{}", draw_id(env)?)));
    let archive = definitions_of(reader, database, &folder).await?;
    let (sender, pieces) = mpsc::channel(WAITING);
    let writing = compute::run("write SQL text", move || write_pieces(to, pieces));
    env.progress.step("write", Some(database.text_bytes()));
    let reading = async move {
        let read = send(reader, database, &pg_restore, &archive, facts.schema_only, &sender).await;
        drop(sender);
        read
    };
    let (read, written) = tokio::join!(reading, writing);
    match (read, written) {
        // Why nobody listened.
        (Err(error), Err(why)) if error.kind() == ErrorKind::Interrupted => Err(why),
        (Err(error), _) => Err(error),
        (Ok(()), written) => written,
    }
}

fn write_pieces(to: File, mut pieces: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, to);
    let failed = |error| Error::io("write", "the SQL text", error);
    while let Some(piece) = pieces.blocking_recv() {
        out.write_all(&piece).map_err(failed)?;
    }
    out.flush().map_err(failed)
}

async fn send(
    reader: &Reader,
    database: &Database,
    pg_restore: &Program,
    archive: &Path,
    schema_only: bool,
    to: &mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let text = async |text: String| {
        let gone = |_| Error::new(ErrorKind::Interrupted, "write", "the SQL text", "nobody wants it any more");
        to.send(text.into_bytes()).await.map_err(gone)
    };
    text(format!(
        "-- The database {} as SQL text. Load it into an empty one: psql -X -v ON_ERROR_STOP=1 -d NEW -f THIS\n\\set ON_ERROR_STOP on\n{};\n",
        database.name.replace(['\n', '\r'], " "),
        destination::settings()
    ))
    .await?;
    text(programs::as_text(pg_restore, archive, Section::PreData).await?).await?;
    if !schema_only {
        for table in database.tables.iter().filter(|table| table.digest.rows > 0) {
            text(format!("{};\n", parts::copy_in(table, false))).await?;
            for part in &table.parts {
                reader
                    .read_in_order(file(reader, &format!("{}/{part}", database.folder))?, to)
                    .await?;
            }
            text(END_OF_ROWS.to_owned()).await?;
        }
        if let Some(large_objects) = &database.large_objects {
            text(format!(
                "BEGIN;\n{};\nCOPY pg_temp.lifeboat_about FROM STDIN;\n",
                leader::LARGE_OBJECT_TABLES
            ))
            .await?;
            let record = |name: &str| file(reader, &format!("{}/{name}", database.folder));
            reader.read_in_order(record(&large_objects.about)?, to).await?;
            text(format!(
                "{END_OF_ROWS}{};\nCOPY pg_temp.lifeboat_pieces FROM STDIN;\n",
                leader::MAKE_LARGE_OBJECTS
            ))
            .await?;
            reader.read_in_order(record(&large_objects.file)?, to).await?;
            text(format!(
                "{END_OF_ROWS}{};\n{};\nCOMMIT;\n",
                leader::PUT_LARGE_OBJECTS,
                leader::DRESS_LARGE_OBJECTS
            ))
            .await?;
        }
        for statement in destination::set_sequences(&database.sequences) {
            text(format!("{statement};\n")).await?;
        }
    }
    text(programs::as_text(pg_restore, archive, Section::PostData).await?).await?;
    for view in database.materialized.iter().filter(|_| !schema_only) {
        text(format!("REFRESH MATERIALIZED VIEW {};\n", view.sql())).await?;
    }
    Ok(())
}
