//! Words of `diff`.

use clap::Args;

/// `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A backup: its number, its name (`12-3fa9c1d2`) or `latest`.
    #[arg(value_name = "A")]
    pub(crate) before: String,
    /// Another backup, or `live` for the database in use, or the files as they are now.
    #[arg(value_name = "B|live")]
    pub(crate) after: String,
    /// SYSTEM or SYSTEM/COMPONENT; may be left out when there is only one component.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
    /// Compare the counts that the backups keep, and nothing else: nothing is restored.
    #[arg(long)]
    pub(crate) counts: bool,
    /// Only this table. May be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "counts")]
    pub(crate) table: Vec<String>,
    /// Of files, only what this pattern names below the root. May be given several times.
    #[arg(long, value_name = "GLOB", conflicts_with_all = ["counts", "table"])]
    pub(crate) path: Vec<String>,
    /// How many rows of each table, or files, are shown for each kind of difference.
    #[arg(long, value_name = "N", default_value = "5", conflicts_with = "counts")]
    pub(crate) samples: usize,
}
