//! The arguments of the commands that deal with PostgreSQL's log.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::examples;

/// `follow`.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// SYSTEM or SYSTEM/COMPONENT; without it, every PostgreSQL cluster.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// End once everything is stored that the server had at the start.
    #[arg(long)]
    pub(crate) once: bool,
    /// How much of this host's disk log may take that the stores have not taken yet; then nothing more is received.
    #[arg(long, value_name = "SIZE", default_value = "16GiB")]
    pub(crate) max_spool: String,
    /// Warn when our slot holds back more log than this on the server.
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    pub(crate) max_slot_lag: String,
    /// Drop our slot when the spool is full and the slot holds back more log than this, before the server's disk fills; never, where it is not given.
    #[arg(long, value_name = "SIZE")]
    pub(crate) drop_slot_at: Option<String>,
    /// While nothing is written, say so often in the stores until when the log there is complete; 0s never does.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(crate) mark_every: String,
}

/// `wal`.
#[derive(Debug, Subcommand)]
pub(crate) enum Wal {
    /// Store a file of the log: archive_command = 'lifeboat wal push SYSTEM/COMPONENT %p'. Ends with 0 or 1.
    #[command(after_help = examples::WAL_PUSH)]
    Push {
        /// SYSTEM/COMPONENT, or SYSTEM where it has one cluster.
        #[arg(value_name = "WHAT")]
        what: String,
        /// The file, as the server names it with %p.
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Fetch a file of the log for a server in recovery, as its restore_command. Ends with 0, 1 (there is no such file) or 255.
    #[command(after_help = examples::WAL_FETCH)]
    Fetch {
        /// Where a restore serves the log.
        #[arg(long, value_name = "PATH", conflicts_with = "restore", required_unless_present = "restore")]
        socket: Option<PathBuf>,
        /// What a restore left in the directory; whoever serves its log is started where nobody does.
        #[arg(long, value_name = "FILE")]
        restore: Option<PathBuf>,
        /// For how long to try again, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        patience: u64,
        /// The file, as the server names it with %f.
        #[arg(value_name = "NAME")]
        name: String,
        /// Where to put it, as the server names it with %p.
        #[arg(value_name = "DEST")]
        dest: PathBuf,
    },
    /// Hand out the log for a restored directory until nobody has asked for five minutes; `wal fetch --restore` starts it.
    #[command(hide = true)]
    Serve {
        /// What a restore left in the directory.
        #[arg(long, value_name = "FILE")]
        restore: PathBuf,
    },
}
