//! Words of `store`, `prune` and `hold`.

use clap::{Args, Subcommand};

use super::super::examples;

/// `store`.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Make the bucket or the folder, and set versions, locks, encryption and rules; removes nothing, and can be run again.
    #[command(after_help = examples::STORE_SETUP)]
    Setup {
        /// Names of stores; without them, all.
        #[arg(value_name = "STORE")]
        stores: Vec<String>,
        /// Print the commands and policies, do nothing.
        #[arg(long)]
        print: bool,
    },
    /// Say whether the bucket or the folder is as it should be.
    #[command(after_help = examples::STORE_CHECK)]
    Check {
        /// Names of stores; without them, all.
        #[arg(value_name = "STORE")]
        stores: Vec<String>,
    },
    /// Move packs that recent backups no longer reach to the `cold` class; with the `maintenance` credentials, after `prune`.
    #[command(after_help = examples::STORE_CHILL)]
    Chill {
        /// Names of stores; without them, all that have a `cold` class.
        #[arg(value_name = "STORE")]
        stores: Vec<String>,
    },
    /// Make the locks of everything that living backups need last longer; with the `maintenance` credentials.
    #[command(after_help = examples::STORE_EXTEND_LOCK)]
    ExtendLock {
        /// Names of stores; without them, all that lock.
        #[arg(value_name = "STORE")]
        stores: Vec<String>,
    },
}

/// `prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
    /// Only in this store.
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// How long what is given up stays before it is deleted; 48h at least.
    #[arg(long, value_name = "DURATION")]
    pub(crate) grace: Option<String>,
    /// Print what would be given up, touch nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Say what each rule promises and what is there, touch nothing; exit code 4 where something is missing.
    #[arg(long, conflicts_with = "grace")]
    pub(crate) report: bool,
}

/// `hold`.
#[derive(Debug, Subcommand)]
pub(crate) enum Hold {
    /// Hold a backup, or all of them.
    #[command(after_help = examples::HOLD_ADD)]
    Add {
        /// SYSTEM or SYSTEM/COMPONENT.
        #[arg(value_name = "WHAT")]
        what: String,
        /// Which backup: its number, its name or `latest`.
        #[arg(long, value_name = "ID", conflicts_with = "all")]
        backup: Option<String>,
        /// Every backup that there is and will be.
        #[arg(long)]
        all: bool,
        /// Why; shown wherever the hold keeps something.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// How long; without it, until it is released.
        #[arg(long = "for", value_name = "DURATION")]
        for_how_long: Option<String>,
    },
    /// Show all holds.
    #[command(after_help = examples::HOLD_LIST)]
    List {
        /// SYSTEM or SYSTEM/COMPONENT; without it, all.
        #[arg(value_name = "WHAT")]
        what: Option<String>,
    },
    /// Release a hold.
    #[command(after_help = examples::HOLD_RELEASE)]
    Release {
        /// The hold, or the beginning of its id.
        id: String,
    },
}

/// `copy`.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// The store that gets what it lacks: a name of the configuration, a folder or `s3://BUCKET/PREFIX`.
    #[arg(long, value_name = "STORE")]
    pub(crate) to: String,
    /// The store to copy from; without it, the first other one of the component that answers.
    #[arg(long, value_name = "STORE")]
    pub(crate) from: Option<String>,
    /// Which backup, or `all`; without it, what the destination lacks and the rules of retention keep, or, where there are no rules, what is
    /// not older than the oldest that it holds. May be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Vec<String>,
}

/// `show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// SYSTEM or SYSTEM/COMPONENT.
    #[arg(value_name = "WHAT")]
    pub(crate) what: String,
    /// Which backup: its number, its name (`12-3fa9c1d2`) or `latest`.
    #[arg(long, value_name = "ID", default_value = "latest")]
    pub(crate) backup: String,
    /// Only this store.
    #[arg(long, value_name = "STORE")]
    pub(crate) from: Option<String>,
}
