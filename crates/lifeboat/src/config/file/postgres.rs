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
    /// Whether its log is kept between backups (`lifeboat follow`, or `lifeboat wal push`), so that every moment comes back. Only a statement: `lifeboat
    /// config check` counts on it, and `status` says how far the log reaches. Default: true with the method `physical`.
    #[serde(default)]
    #[schemars(with = "Option<bool>")]
    pub(in crate::config) follow: Option<At<bool>>,
    /// The replication slot that `lifeboat follow` makes and streams through. Default: `lifeboat`, the system and the component.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"lifeboat_tartware_db")]
    pub(in crate::config) slot: Option<At<String>>,
    /// Folders with the programs of PostgreSQL (`postgres`, `pg_controldata`), where they are not in the usual places: a restored cluster is started
    /// with those of its own major version.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["/usr/lib/postgresql/15/bin"])]
    pub(in crate::config) binaries: Option<Vec<At<String>>>,
    /// By which method it is backed up: `physical` (the default: the files of the cluster and its log; every moment comes back) or `logical` (definitions
    /// and rows of its databases; they go to other versions and servers, and nothing but the right to read is needed). `lifeboat backup --method` makes
    /// the other one.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["physical", "logical", null], "default" = "physical"))]
    pub(in crate::config) method: Option<At<String>>,
    /// Databases that a logical backup is of. Default: all that take connections and are no templates, new ones too.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["tartware"])]
    pub(in crate::config) databases: Option<Vec<At<String>>>,
    /// How long a logical backup may take. Default: a week.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"60m")]
    pub(in crate::config) timeout: Option<At<String>>,
    /// How long a logical backup waits for a table that somebody else is altering. Default: 60s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "60s"))]
    pub(in crate::config) lock_wait: Option<At<String>>,
    /// How long a database is kept whose place a restored one took (`restore promote`, `--in-place`): it is closed meanwhile, and `lifeboat prune` drops it
    /// after that. Default: 7d.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "7d"))]
    pub(in crate::config) keep_old: Option<At<String>>,
    /// Where a database keeps its tenants, for `lifeboat backup --tenant`, `restore --tenant` and `tenant-map`.
    #[serde(default)]
    pub(in crate::config) tenants: Option<TenantsFile>,
    /// How long a backup counts the rows of tables, while their files are copied, for `verify --level app` to compare with: each table up to 64 MiB,
    /// the smallest first. `0s`: not at all. Default: 5s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "5s"))]
    pub(in crate::config) count_rows: Option<At<String>>,
    /// How the application marks rows as deleted, for `lifeboat undelete`.
    #[serde(default)]
    pub(in crate::config) soft_delete: Option<SoftDeleteFile>,
    /// A query that reads, in `database`, and answers with one time: how new the data is by its own account, for example
    /// `select max(at) from heartbeat`. A restored cluster is asked for it, and what it answers is told.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) heartbeat: Option<At<String>>,
    /// Instead of `heartbeat`, for data without a time of its own: Lifeboat writes one. It keeps a table of one row, `lifeboat.canary`, in the only one of
    /// `databases`, or in `database`; writes the server's time into it so often while it follows the log, and before each backup; and asks every restored
    /// copy for it. No backup and no follower writes anything else. Schema and table have to be the role's own.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"1m")]
    pub(in crate::config) canary: Option<At<String>>,
}

/// Whose the rows of a database are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct TenantsFile {
    /// The column that names a tenant in the table of tenants: `SCHEMA.TABLE.COLUMN`.
    #[schemars(with = "String", example = &"public.tenants.id")]
    pub(in crate::config) root: At<String>,
    /// The column that says the tenant in other tables. Default: `tenant_id`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "tenant_id"))]
    pub(in crate::config) key: Option<At<String>>,
    /// The file that says of each table whose its rows are; `lifeboat tenant-map` proposes one. A table that it does not name stops everything.
    #[schemars(with = "String", example = &"tenant-map.yaml")]
    pub(in crate::config) map: At<String>,
    /// Which database. Default: the only one of `databases`, or `database`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"tartware")]
    pub(in crate::config) database: Option<At<String>>,
}

/// How an application marks rows as deleted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SoftDeleteFile {
    /// The column with the time when a row was deleted; null in a row that lives. Default: `deleted_at`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "deleted_at"))]
    pub(in crate::config) column: Option<At<String>>,
    /// Columns besides that become null when a row comes back, in the tables that have them.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["deleted_by"])]
    pub(in crate::config) also: Option<Vec<At<String>>>,
    /// Which zone the times are of, where the column is a `timestamp without time zone`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"UTC")]
    pub(in crate::config) zone: Option<At<String>>,
}
