//! The arguments of `init`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// A SQLite database to protect; without it, the current folder is searched. May be given several times.
    #[arg(long, value_name = "DB")]
    pub(crate) path: Vec<PathBuf>,
    /// Files or folders to protect as well, or instead: paths or patterns (quote them). May be given several times.
    #[arg(long, value_name = "GLOB")]
    pub(crate) files: Vec<String>,
    /// A file of KEY=value lines, such as `.env`, of which only the keys are kept and never a value. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_structure: Vec<PathBuf>,
    /// A folder with private keys (`*.key`), certificates (`*.crt`, `*.pem`, `*.cer`) and revocation lists (`*.crl`).
    #[arg(long, value_name = "DIR")]
    pub(crate) pki: Option<PathBuf>,
    /// A PostgreSQL cluster to protect: `postgresql://USER@HOST:PORT/DATABASE` or `host=… user=…`, without the password (it is looked for in
    /// PGPASSWORD and ~/.pgpass); or `env:NAME` of a variable that holds the whole.
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// Make a role with the least rights in that cluster, and use it from then on: the login of --postgres has to be allowed to. Its password
    /// goes into a file in the state folder. Without a name, `lifeboat`.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "lifeboat")]
    pub(crate) create_role: Option<String>,
    /// What to call the system; without it, the name of the current folder.
    #[arg(long, value_name = "NAME")]
    pub(crate) system: Option<String>,
    /// Where backups go; without it, a folder `lifeboat-backups` here.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Where the private key goes; never inside the store.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Where this installation keeps its own state.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// `age` (the default), or `none` for backups that everybody who gets hold of the store can read.
    #[arg(long, value_name = "HOW", default_value = "age")]
    pub(crate) encrypt: EncryptChoice,
    /// Take the proposals without asking.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Stop before the first backup.
    #[arg(long)]
    pub(crate) no_backup: bool,
}

/// Whether `init` sets up encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EncryptChoice {
    /// To a new age key pair.
    Age,
    /// Not at all.
    None,
}
