//! Words of `bootstrap`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `bootstrap`.
#[derive(Debug, Args)]
pub(crate) struct Bootstrap {
    /// Where the backups are: a folder, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://ACCOUNT/CONTAINER/PREFIX`.
    #[arg(value_name = "STORE")]
    pub(crate) store: String,
    /// The file with the private key.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Where lifeboat.yaml goes, and the state of this machine; without it, the current folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// The public key of the installation whose kit is believed.
    #[arg(long, value_name = "ed25519:…")]
    pub(crate) instance: Option<String>,
    /// Believe whoever signed the kit, where it is only one, without asking.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `kit`.
#[derive(Debug, Args)]
pub(crate) struct Kit {
    /// How it is written.
    #[arg(long, value_name = "FORMAT", default_value = "markdown")]
    pub(crate) format: PageFormat,
    /// Write it to this new file.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PageFormat {
    /// For a document.
    Markdown,
    /// A page that needs nothing but itself.
    Html,
}
