//! A PostgreSQL cluster as the configuration describes it.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::ConnInfo;
use lifeboat_engine::postgres::checks::{Assertion, Heartbeat};
use lifeboat_engine::postgres::undelete::SoftDelete;
use lifeboat_model::Result;
use lifeboat_repo::{Header, IMPORTED};

use crate::canary::Canary;

/// The word for a cluster in a backup's header.
pub(super) const KIND: &str = "postgres";

type Asked = Pin<Box<dyn Future<Output = Result<ConnInfo>> + Send>>;

/// How to connect: asked for only when it is needed, because a password may come from a program or from a file that only some commands may read.
#[derive(Clone)]
pub struct Login(Arc<dyn Fn() -> Asked + Send + Sync>);

impl Login {
    /// Asks `ask`, each time.
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<ConnInfo>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    /// Always the same.
    #[must_use]
    pub fn known(info: ConnInfo) -> Self {
        Self::new(move || std::future::ready(Ok(info.clone())))
    }

    /// How to connect, with the password where one is given.
    pub async fn conninfo(&self) -> Result<ConnInfo> {
        (self.0)().await
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Login {}

/// How a base is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The fastest way that works: see `docs/postgres.md`.
    #[default]
    Auto,
    /// From the data directory on this host.
    Local,
    /// From the server's stream.
    Stream,
}

/// By which method a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// The files of the cluster and its log: every moment (docs/postgres.md).
    #[default]
    Physical,
    /// Definitions and rows: every server (docs/logical.md).
    Logical,
}

impl Method {
    /// The word in a backup's header.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }
}

/// Whether a backup holds databases by their definitions and rows: a logical one, and one that was made of a dump.
#[must_use]
pub fn is_logical(header: &Header) -> bool {
    header.method == Method::Logical.word() || (header.method == IMPORTED && header.kind == KIND)
}

/// How a logical backup is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// Which databases; none named: all that take connections and are no templates.
    pub databases: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long it waits for a table that somebody else holds.
    pub lock_wait: Duration,
    /// How long a database that was replaced is kept.
    pub keep_old: Duration,
    /// Where a database keeps its tenants.
    pub tenants: Option<Box<Tenants>>,
}

/// Whose the rows of a database are, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenants {
    /// Which database.
    pub database: String,
    /// The table of tenants, `TABLE` or `SCHEMA.TABLE`.
    pub root: String,
    /// Its column that names a tenant.
    pub id: String,
    /// The column that says the tenant in other tables.
    pub key: String,
    /// The file with the class of each table.
    pub map: PathBuf,
}

impl Default for Logical {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            timeout: None,
            lock_wait: Duration::from_secs(60),
            keep_old: Duration::from_secs(7 * 24 * 3600),
            tenants: None,
        }
    }
}

/// A PostgreSQL cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// By which method it is backed up unless something else is said.
    pub method: Method,
    /// How the logical one does it.
    pub logical: Logical,
    /// How to connect.
    pub login: Login,
    /// Where the data directory is on this host; `None`: where the server says.
    pub data_dir: Option<PathBuf>,
    /// How a base is read.
    pub mode: Mode,
    /// The replication slot that the follower streams through.
    pub slot: String,
    /// Folders with the server's programs, looked into before the usual ones.
    pub binaries: Vec<PathBuf>,
    /// This program: a server that recovers asks it for log.
    pub program: PathBuf,
    /// What is asked for besides.
    pub care: Care,
}

/// How much a backup may ask of the server, and what is checked in a restored copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Care {
    /// Bytes a second that are read at most.
    pub max_rate: Option<u64>,
    /// How long rows are counted for a later comparison, at most.
    pub count_rows: Duration,
    /// What has to hold in a restored copy.
    pub checks: Vec<Assertion>,
    /// How new the data of a restored copy is, by its own account.
    pub heartbeat: Option<Heartbeat>,
    /// Where we write how new the data is ourselves.
    pub canary: Option<Box<Canary>>,
    /// How the application marks rows as deleted.
    pub soft_delete: SoftDelete,
}

impl Default for Care {
    fn default() -> Self {
        Self {
            max_rate: None,
            count_rows: COUNT_ROWS,
            checks: Vec::new(),
            heartbeat: None,
            canary: None,
            soft_delete: SoftDelete::default(),
        }
    }
}

/// How long rows are counted unless something else is said.
const COUNT_ROWS: Duration = Duration::from_secs(5);
