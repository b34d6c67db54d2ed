//! Words of `restore export`.

use clap::ValueEnum;

/// As what a database is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One file that `pg_restore` takes; made by a server on this host, which is thrown away.
    #[value(name = "pg_dump")]
    PgDump,
    /// SQL text that `psql` takes.
    Sql,
    /// A folder with one file for each table.
    Csv,
    /// One document with the rows of all tables: of one tenant, where the backup is of one.
    Json,
}
