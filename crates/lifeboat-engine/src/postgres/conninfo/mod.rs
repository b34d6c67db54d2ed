//! Where a server is and who we are there: what libpq reads from URLs, keyword strings, `PG*` variables, the service file and `.pgpass`.
//!
//! The words and their precedence are those of libpq (PostgreSQL documentation, 34.1 "Database Connection Control Functions"). Nothing is
//! connected here, and a password is in no text that this module makes.

mod defaults;
mod parse;
mod passfile;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

pub use passfile::Password;

/// What a program takes from its process: environment variables, the home folder, the name of the user.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// The environment; only names that begin with `PG` are looked at.
    pub variables: BTreeMap<String, String>,
    /// The home folder, for `.pgpass` and `.postgresql`.
    pub home: Option<PathBuf>,
    /// The user of the operating system, who is the user of the database where none is named.
    pub user: Option<String>,
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One of the variables may be a password.
        f.debug_struct("Surroundings")
            .field("variables", &self.variables.keys())
            .field("home", &self.home)
            .field("user", &self.user)
            .finish()
    }
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| name.starts_with("PG"))
                .collect(),
            home: text("HOME").map(PathBuf::from),
            user: defaults::system_user().or_else(|| text("USER")),
        }
    }
}

/// How much TLS there must be, as libpq names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// None.
    Disable,
    /// Only if the server wants it.
    Allow,
    /// If the server can.
    Prefer,
    /// Always, with whoever answers; where a root certificate is given, as `verify-ca`.
    Require,
    /// Always, with a certificate that the authority signed.
    VerifyCa,
    /// Always, with such a certificate for the name of the host.
    VerifyFull,
}

/// Whether the password exchange must be tied to the TLS connection it runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where both sides can.
    Prefer,
    /// Always.
    Require,
}

/// Which of several servers is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first that answers.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is.
    Standby,
    /// One in recovery, or any where there is none.
    PreferStandby,
}

/// One place where a server may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A folder with a socket.
    Socket(PathBuf),
    /// A host on the network.
    Tcp {
        /// As it was named: this stands in certificates and password files.
        name: String,
        /// The address to use without asking for the name.
        address: Option<String>,
    },
}

/// One server of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The port, which is also in the name of a socket.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Socket(folder) => write!(f, "{} (port {})", folder.display(), self.port),
            Endpoint::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Endpoint::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Where certificates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities (`sslrootcert`).
    pub root: Option<PathBuf>,
    /// The authorities of the system (`sslrootcert=system`).
    pub system_roots: bool,
    /// Our certificate (`sslcert`).
    pub cert: Option<PathBuf>,
    /// Its key (`sslkey`).
    pub key: Option<PathBuf>,
}

/// Everything that is needed to connect. Complete: no default is left open.
#[derive(Clone)]
pub struct ConnInfo {
    hosts: Vec<Host>,
    user: String,
    database: String,
    password: Option<Zeroizing<String>>,
    passfile: Option<PathBuf>,
    /// See [`SslMode`].
    pub ssl_mode: SslMode,
    /// See [`ChannelBinding`].
    pub channel_binding: ChannelBinding,
    /// See [`Target`].
    pub target: Target,
    /// Certificates.
    pub tls: TlsFiles,
    /// How long one server may take to let us in.
    pub connect_limit: Duration,
    /// What the server shows for us in `pg_stat_activity`.
    pub application_name: String,
    /// Settings of the session, in the syntax of the server's command line.
    pub options: Option<String>,
}

impl ConnInfo {
    /// Reads a URL (`postgresql://…`), a keyword string (`host=… dbname=…`) or nothing, then the service, then the variables, then the defaults.
    /// Kind `ConfigInvalid` for what cannot be understood; a word that libpq knows and that would weaken or change what is asked for if it were
    /// ignored is refused by name.
    pub fn parse(text: &str, surroundings: &Surroundings) -> Result<Self> {
        let mut words = parse::words(text)?;
        defaults::fill(&mut words, surroundings)?;
        defaults::build(words, surroundings)
    }

    /// The servers, in the order in which they are tried.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The user of the database.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The same servers and user, another database.
    #[must_use]
    pub fn with_database(mut self, database: &str) -> Self {
        database.clone_into(&mut self.database);
        self
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(Zeroizing::new(password.to_owned()));
        self
    }

    /// The same with only this one of its servers.
    #[must_use]
    pub fn with_host(mut self, host: Host) -> Self {
        self.hosts = vec![host];
        self
    }

    /// Whether a password was given, other than in a password file.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The password for this server: the given one, else that of the password file. `database` is what stands in its third column,
    /// `replication` for connections that replicate.
    #[must_use]
    pub fn password(&self, host: &Host, database: &str) -> Password {
        match &self.password {
            Some(password) => Password::Known(password.clone()),
            None => passfile::look_up(self.passfile.as_deref(), host, database, &self.user),
        }
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnInfo")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("has_password", &self.has_password())
            .field("ssl_mode", &self.ssl_mode)
            .finish_non_exhaustive()
    }
}

/// `user@host:port/database`, as it may stand in messages.
impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        write!(f, "{}@{}/{}", self.user, hosts.join(","), self.database)
    }
}

/// The error of everything here. The text itself is never shown: a password may stand in it.
fn invalid(subject: impl fmt::Display, detail: impl fmt::Display) -> Error {
    Error::new(ErrorKind::ConfigInvalid, "read the connection to PostgreSQL", subject, detail)
        .with_hint("write it as postgresql://user@host:5432/database or as host=… port=… user=… dbname=…")
}

/// The socket of a server in this folder.
pub(super) fn socket_path(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}
