//! The arguments of the commands that deal with PostgreSQL's log.

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::examples;

/// `wal`.
#[derive(Debug, Subcommand)]
pub(crate) enum Wal {
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
