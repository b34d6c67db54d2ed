//! What may be typed behind `backup`.

use clap::{Args, ValueEnum};

/// `backup`.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// Only into this store: a name of the configuration, a folder or `s3://BUCKET/PREFIX`; may be given several times.
    #[arg(long, value_name = "STORE")]
    pub(crate) to: Vec<String>,
    /// Compare with no older backup: read, seal and store everything anew.
    #[arg(long)]
    pub(crate) full: bool,
    /// Of PostgreSQL: the files of the cluster and its log, or definitions and rows of its databases; without it, as configured.
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<BackupMethod>,
    /// Of PostgreSQL, with the logical method: only definitions, no rows.
    #[arg(long)]
    pub(crate) schema_only: bool,
    /// Of PostgreSQL: only the rows of these tables, `TABLE` or `SCHEMA.TABLE`. An extract: never "latest".
    #[arg(long, value_name = "TABLE,…", value_delimiter = ',', conflicts_with_all = ["schema_only", "tenant"])]
    pub(crate) tables: Vec<String>,
    /// With --tables: of which database.
    #[arg(long, value_name = "NAME", requires = "tables")]
    pub(crate) database: Option<String>,
    /// Of PostgreSQL: only the rows of this tenant, and those that are everybody's (`tenants` of the configuration). An extract: never "latest".
    #[arg(long, value_name = "ID", conflicts_with = "schema_only")]
    pub(crate) tenant: Option<String>,
    /// Why this backup is made; kept with it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// A word to find it by; may be given several times.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Keep it at least this long, whatever the retention rules say: `90d`.
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_for: Option<String>,
}

/// How a PostgreSQL server is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackupMethod {
    /// The files of the cluster; with its log, every moment comes back.
    Physical,
    /// Definitions and rows; they go to other versions and other servers.
    Logical,
}

/// `tenant-map`.
#[derive(Debug, Args)]
pub(crate) struct TenantMap {
    /// SYSTEM or SYSTEM/COMPONENT.
    #[arg(value_name = "WHAT")]
    pub(crate) what: String,
    /// Only say whether the file says of every table whose its rows are; exit 7 where it does not.
    #[arg(long)]
    pub(crate) check: bool,
}
