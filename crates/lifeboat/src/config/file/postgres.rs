//! A PostgreSQL cluster, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, SecretFile};

/// A PostgreSQL cluster: all its databases. What is not written here is taken from the `PG*` variables, the password file and the other places where
/// `psql` looks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct PostgresFile {
    /// The whole connection: `postgresql://USER@HOST:PORT/DATABASE`, or `host=… user=…`. With a password in it, write where it is:
    /// `{ env: DATABASE_URL }`.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) url: Option<At<SecretFile>>,
    /// Host names or folders of sockets, separated by commas. Instead of `url`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"db.example.com")]
    pub(in crate::config) host: Option<At<String>>,
    /// The port, with `host`. Default: 5432.
    #[serde(default)]
    #[schemars(with = "Option<u16>", extend("default" = 5432))]
    pub(in crate::config) port: Option<At<u16>>,
    /// The role that connects. It needs REPLICATION, and for a backup on the server's own host the rights that `lifeboat doctor` names.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"lifeboat")]
    pub(in crate::config) user: Option<At<String>>,
    /// The database that it connects to; the backup is always of all of them. Default: the name of the role.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"postgres")]
    pub(in crate::config) database: Option<At<String>>,
    /// The password of the role. Left out, the password file of the user is looked into (`~/.pgpass`).
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) password: Option<At<SecretFile>>,
    /// Where the server's data directory is on this host, if that is another place than the server says.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"/var/lib/postgresql/15/main")]
    pub(in crate::config) data_dir: Option<At<String>>,
    /// How backups are read: `auto` (the default: on the server's own host from its data directory, otherwise from the server), `local` or `stream`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["auto", "local", "stream", null], "default" = "auto"))]
    pub(in crate::config) mode: Option<At<String>>,
    /// The replication slot that `lifeboat follow` makes and streams through. Default: `lifeboat`, the system and the component.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"lifeboat_tartware_db")]
    pub(in crate::config) slot: Option<At<String>>,
    /// Folders with the programs of PostgreSQL (`postgres`, `pg_controldata`), where they are not in the usual places: a restored cluster is started
    /// with those of its own major version.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["/usr/lib/postgresql/15/bin"])]
    pub(in crate::config) binaries: Option<Vec<At<String>>>,
    /// How long a backup counts the rows of tables, while their files are copied, for `verify --level app` to compare with: each table up to 64 MiB,
    /// the smallest first. `0s`: not at all. Default: 5s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "5s"))]
    pub(in crate::config) count_rows: Option<At<String>>,
}
