//! Words of `verify`.

use clap::{Args, ValueEnum};

/// `verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
    /// Which backup; without it, the newest.
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub(crate) backup: Option<String>,
    /// Every backup.
    #[arg(long)]
    pub(crate) all: bool,
    /// In this store; without it, in the first one of the component that answers. Or an old backup file of another program, which is
    /// unpacked and checked.
    #[arg(long, value_name = "STORE|FILE")]
    pub(crate) from: Option<String>,
    /// How far: files there, files intact, everything opens, restored and checked, checked as the application sees it.
    #[arg(long, value_name = "LEVEL", default_value = "restore")]
    pub(crate) level: LevelChoice,
    /// With `--level hash`: read about so many bytes of each store and end, beginning with the files of any backup that nobody read for the longest
    /// time. Run daily, it reads everything in time.
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["all", "backup"])]
    pub(crate) budget: Option<String>,
    /// Only what the configuration wants to be proven by now (`verify` of the component), as far as it goes.
    #[arg(long, conflicts_with_all = ["all", "backup", "from", "level", "budget"])]
    pub(crate) due: bool,
}

/// How far `verify` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelChoice {
    /// Every file is there with its size.
    List,
    /// Every stored file is intact; needs no key.
    Hash,
    /// Everything opens with the key and is what it claims to be.
    Decrypt,
    /// Restored into a scratch folder and checked.
    Restore,
    /// And, of a PostgreSQL cluster: tables, indexes, rows, and the `checks` of the configuration. Of others: as `restore`.
    App,
}
