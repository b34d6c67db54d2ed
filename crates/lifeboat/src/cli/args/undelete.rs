//! Words of `undelete`.

use clap::Args;

/// `undelete`.
#[derive(Debug, Args)]
pub(crate) struct Undelete {
    /// SYSTEM or SYSTEM/COMPONENT.
    #[arg(value_name = "WHAT", required_unless_present = "undo")]
    pub(crate) what: Option<String>,
    /// In which tables: `TABLE` or `SCHEMA.TABLE`.
    #[arg(long, value_name = "TABLE,…", value_delimiter = ',', required_unless_present = "undo")]
    pub(crate) tables: Vec<String>,
    /// Rows that were deleted later than this; with zone: 2026-11-21T02:10:03Z.
    #[arg(long, value_name = "TIME", required_unless_present = "undo")]
    pub(crate) after: Option<String>,
    /// And not later than this; with zone.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only rows that have this value in this column, which every table must have; may be repeated, then all must hold.
    #[arg(long = "where", value_name = "COLUMN=VALUE")]
    pub(crate) equal: Vec<String>,
    /// In which database; without it, the only one of `databases` in the configuration, or the one of the connection.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Take one back: rows that still are as it left them hold again what they held.
    #[arg(long, value_name = "ID", conflicts_with_all = ["what", "tables", "after", "until", "equal", "database", "dry_run"])]
    pub(crate) undo: Option<String>,
    /// Show what would come back, change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}
