//! Words of `import`.

use std::path::PathBuf;

use clap::Args;

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file: a database, SQL text or what pg_dump wrote, each also packed by gzip, zstd, tar or `openssl enc`.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// As a backup of which component.
    #[arg(long = "as", value_name = "SYSTEM/COMPONENT")]
    pub(crate) what: String,
    /// The moment that it is of, with zone; without it, from its name, its archive or its last change.
    #[arg(long, value_name = "TIME")]
    pub(crate) moment: Option<String>,
    /// Which database, where the file holds several.
    #[arg(long, value_name = "PATH")]
    pub(crate) member: Option<String>,
    /// Of which database a dump of PostgreSQL is, where it does not say so itself.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Why; kept with the backup.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Take it over also if SQLite's integrity check finds problems.
    #[arg(long)]
    pub(crate) accept_findings: bool,
}
