//! A component as the verbs see it: what it is, where its backups rest, who may write and read them.

mod cluster;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::{files, sqlite};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{Backup, ComponentName, Encryption, Instance, Listing, Repository, Trust};
use lifeboat_store::BlobStore;

pub use cluster::{Care, Cluster, Logical, Login, Method, Mode, Tenants, is_logical};

/// Where a component's data lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A SQLite database.
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// How long to wait for a lock.
        busy_timeout: Duration,
        /// How long writers may be kept waiting (rollback-journal mode).
        max_stall: Duration,
        /// Whether each backup also holds the database as SQL text.
        sql_dump: bool,
        /// Queries whose results each backup also holds.
        extracts: Vec<sqlite::Extract>,
        /// What has to hold of a restored copy.
        checks: Vec<sqlite::checks::Assertion>,
        /// How to ask a restored copy how new it is.
        heartbeat: Option<String>,
    },
    /// Files and folders.
    Files {
        /// Where they are.
        files: files::Options,
        /// Whether they are never stored in the clear.
        encryption_required: bool,
    },
    /// Keys, certificates and revocation lists: files that have to fit each other.
    Pki {
        /// Where they are.
        files: files::Options,
        /// Which of them is what.
        roles: PkiRoles,
        /// How long before an expiry it is warned of.
        warn_expiry: Duration,
        /// Whether they are never stored in the clear.
        encryption_required: bool,
    },
    /// A PostgreSQL cluster.
    Postgres(Cluster),
}

/// Which files of a PKI are what: patterns below the root, as in [`files::Options::include`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PkiRoles {
    /// Private keys.
    pub keys: Vec<String>,
    /// Certificates and chains.
    pub certs: Vec<String>,
    /// Certificate revocation lists.
    pub crl: Vec<String>,
}

impl Source {
    /// The word for its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Files { .. } => "files",
            Self::Pki { .. } => "pki",
            Self::Postgres(_) => cluster::KIND,
        }
    }

    /// Where it is on this host, as far as that is configured: the database file, the root folder of files, or a data directory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { path, .. } => Some(path),
            Self::Files { files, .. } | Self::Pki { files, .. } => Some(&files.root),
            Self::Postgres(cluster) => cluster.data_dir.as_deref(),
        }
    }

    /// The database file, where it is one: for what only databases have.
    #[must_use]
    pub fn database(&self) -> Option<&Path> {
        match self {
            Self::Sqlite { path, .. } => Some(path),
            Self::Files { .. } | Self::Pki { .. } | Self::Postgres(_) => None,
        }
    }

    /// The cluster, where it is one.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Postgres(cluster) => Some(cluster),
            Self::Sqlite { .. } | Self::Files { .. } | Self::Pki { .. } => None,
        }
    }

    /// The files, where it is files.
    #[must_use]
    pub fn files(&self) -> Option<&files::Options> {
        match self {
            Self::Sqlite { .. } | Self::Postgres(_) => None,
            Self::Files { files, .. } | Self::Pki { files, .. } => Some(files),
        }
    }

    /// Whether more is asked of a restored copy than what every restore checks.
    #[must_use]
    pub fn asks_more(&self) -> bool {
        match self {
            Self::Sqlite { checks, heartbeat, .. } => !checks.is_empty() || heartbeat.is_some(),
            Self::Postgres(_) => true,
            Self::Files { .. } | Self::Pki { .. } => false,
        }
    }

    pub(crate) fn capture_options(&self) -> Option<sqlite::CaptureOptions> {
        match self {
            Self::Sqlite {
                path,
                busy_timeout,
                max_stall,
                sql_dump,
                extracts,
                checks: _,
                heartbeat: _,
            } => Some(sqlite::CaptureOptions {
                path: path.clone(),
                busy_timeout: *busy_timeout,
                max_stall: *max_stall,
                sql_dump: *sql_dump,
                extracts: extracts.clone(),
            }),
            Self::Files { .. } | Self::Pki { .. } | Self::Postgres(_) => None,
        }
    }
}

/// A store that holds, or is to hold, a copy of every backup of a component.
#[derive(Debug, Clone)]
pub struct Place {
    /// What the operator calls it: the name in the configuration, or what was typed.
    pub name: String,
    /// The store. One that could not be opened is there all the same and answers every operation with the reason.
    pub store: Arc<dyn BlobStore>,
    /// Its folder, where it is one: for space and neighbourhood checks.
    pub path: Option<PathBuf>,
    /// Without a copy here a backup has failed, whatever the other stores hold.
    pub required: bool,
}

impl Place {
    /// A folder, opened, that is not required.
    #[must_use]
    pub fn folder(name: impl Into<String>, store: Arc<dyn BlobStore>, path: PathBuf) -> Self {
        Self {
            name: name.into(),
            store,
            path: Some(path),
            required: false,
        }
    }
}

/// One protected component with everything the verbs need.
#[derive(Debug, Clone)]
pub struct Protected {
    /// Its name.
    pub component: ComponentName,
    /// Where its data lives.
    pub source: Source,
    /// Where its backups rest, in the order of preference: at least one place.
    pub stores: Vec<Place>,
    /// For whom backups are encrypted.
    pub encryption: Encryption,
    /// Whose backups count.
    pub trust: Trust,
    /// Local state of this installation.
    pub state_dir: PathBuf,
    /// Promised recovery point objective.
    pub rpo: Option<Duration>,
    /// Promised recovery time objective.
    pub rto: Option<Duration>,
}

impl Protected {
    /// Opens its repository in the first store that answers and holds it. Where none does, the error of the first.
    pub async fn repository(&self) -> Result<Repository> {
        let mut first = None;
        for place in &self.stores {
            match Repository::open(Arc::clone(&place.store)).await {
                Ok(repository) => return Ok(repository),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::new(ErrorKind::Bug, "open the repository of", &self.component, "it has no store")))
    }

    /// The words for where its backups rest: `disk and s3-eu`.
    #[must_use]
    pub fn stores_text(&self) -> String {
        let names: Vec<&str> = self.stores.iter().map(|place| place.store.name()).collect();
        names.join(" and ")
    }

    /// Its backups.
    pub async fn listing(&self, repository: &Repository) -> Result<Listing> {
        repository.backups(&self.component, &self.trust).await
    }

    /// The file where this installation keeps its signing key.
    #[must_use]
    pub fn instance_key(state_dir: &Path) -> PathBuf {
        state_dir.join("instance.key")
    }

    /// The signing key of this installation; it must be one that the configuration names.
    pub fn instance(&self, name: &str) -> Result<Arc<Instance>> {
        let path = Self::instance_key(&self.state_dir);
        let instance = Instance::load(name, &path).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                error.with_kind(ErrorKind::ConfigInvalid).with_hint("bring it back from a copy of the state folder; or let `lifeboat init` make a new one, and write its public half into lifeboat.yaml under `instances:`")
            } else {
                error
            }
        })?;
        if self.trust.name_of(&instance.public_key()).is_none() {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                "use the instance key",
                path.display(),
                format!(
                    "its public key {} is not under `instances:` in the configuration",
                    instance.public_key()
                ),
            )
            .with_hint("add it there: backups of an unknown instance would not count"));
        }
        Ok(Arc::new(instance))
    }
}

/// Finds the backup that a person asked for: by name, at a moment, before a moment, or the newest.
pub fn choose<'a>(listing: &'a Listing, choice: &Choice, component: &ComponentName) -> Result<&'a Backup> {
    match choice {
        Choice::Latest => listing.latest().ok_or_else(|| no_backup(listing, component)),
        Choice::Named(text) => listing.find(text),
        Choice::At(at) => at_moment(listing, *at, component, true),
        Choice::Before(at) => at_moment(listing, *at, component, false),
    }
}

/// Which backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The newest complete one.
    Latest,
    /// By number or name.
    Named(String),
    /// Exactly at this moment (microseconds since 1970), to the second.
    At(i64),
    /// The newest one at or before this moment.
    Before(i64),
}

fn no_backup(listing: &Listing, component: &ComponentName) -> Error {
    let rejected = listing.rejected.len();
    let detail = if rejected == 0 {
        "there is no backup yet".to_owned()
    } else {
        format!("{rejected} are stored, but none of them counts")
    };
    Error::new(ErrorKind::NoSuchPoint, "find a backup of", component, detail).with_hint(if rejected == 0 {
        "`lifeboat backup` makes one"
    } else {
        "`lifeboat verify --level list` says what is wrong with each"
    })
}

fn at_moment<'a>(listing: &'a Listing, at_us: i64, component: &ComponentName, exact: bool) -> Result<&'a Backup> {
    let usable = || {
        listing
            .backups
            .iter()
            .filter(|backup| !backup.header.extract && !backup.header.incomplete)
    };
    let earlier = usable()
        .filter(|backup| backup.header.moment_us <= at_us)
        .max_by_key(|backup| (backup.header.moment_us, backup.id));
    let later = usable()
        .filter(|backup| backup.header.moment_us > at_us)
        .min_by_key(|backup| (backup.header.moment_us, backup.id));
    let same_second = |backup: &&Backup| backup.header.moment_us.div_euclid(1_000_000) == at_us.div_euclid(1_000_000);
    let found = if exact {
        earlier.filter(same_second).or_else(|| later.filter(same_second))
    } else {
        earlier
    };
    found.ok_or_else(|| {
        let name = |backup: &Backup| {
            format!(
                "{} ({})",
                lifeboat_repo::format_utc(backup.header.moment_us),
                backup.id.short()
            )
        };
        let nearest = match (earlier, later) {
            (Some(earlier), Some(later)) => format!("the nearest are {} before and {} after", name(earlier), name(later)),
            (Some(earlier), None) => format!("the nearest is {} before", name(earlier)),
            (None, Some(later)) => format!("the first is {}", name(later)),
            (None, None) => "there is no backup".to_owned(),
        };
        Error::new(
            ErrorKind::NoSuchPoint,
            "find a point of",
            component,
            format!("no backup was taken at {}; {nearest}", lifeboat_repo::format_utc(at_us)),
        )
        .with_hint("`--before TIME` takes the newest one at or before that time; `lifeboat points` shows all")
    })
}
