//! The session that holds a database still: its snapshot is everybody's, and its locks keep tables as they are (LG-01).

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::StreamExt as _;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::catalog::{self, Found};
use super::facts::{Database, Name};
use super::parts::path_part;
use super::tenant::{Class, Scope, TenantMap, relations};
use super::{SETTINGS, Table};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::sql::Sql;
use crate::postgres::sqlstate;

const OP: &str = "hold still the database";
/// Tables that are locked by one statement.
const AT_ONCE: usize = 500;
/// How often a snapshot is taken anew because a table went away or was altered before it was locked.
const ATTEMPTS: u32 = 3;
/// Where large objects are, in the folder of the database.
pub const LARGE_OBJECTS: &str = "large_objects.copy";
/// Whose they are.
pub const ABOUT_LARGE_OBJECTS: &str = "large_objects_about.copy";
/// Bytes of a row of large objects.
const PIECE_BYTES: u32 = 256 << 10;

/// What the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// 15, for example.
    pub major: u32,
    /// As the server writes it.
    pub version: String,
    /// Which cluster, where the server says it: a managed one may not.
    pub system_identifier: Option<String>,
    /// Whether we may read the passwords of roles.
    pub reads_passwords: bool,
    /// Its databases that take connections and are no templates.
    pub databases: Vec<String>,
}

#[derive(Deserialize)]
struct AboutJson {
    number: u32,
    version: String,
    passwords: bool,
}

/// Asks a server what it is. Kind `Incompatible` for one before 14.
pub async fn ask(sql: &Sql) -> Result<About> {
    sql.text(OP, SETTINGS).await?;
    let json: AboutJson = catalog::ask(
        sql,
        "SELECT json_build_object('number', current_setting('server_version_num')::int, 'version', current_setting('server_version'), \
         'passwords', has_table_privilege('pg_authid', 'SELECT'))",
    )
    .await?;
    let major = json.number / 10_000;
    if major < 14 {
        return Err(Error::new(
            ErrorKind::Incompatible,
            "back up from",
            sql.subject(),
            format!("it is PostgreSQL {}; 14 to 18 are supported", json.version),
        ));
    }
    // Not everybody may ask, and nothing but the comparison with the last backup depends on it.
    let identifier = sql.text(OP, "SELECT system_identifier FROM pg_control_system()").await;
    let identifier = identifier.ok().and_then(|rows| rows.into_iter().flatten().flatten().next());
    Ok(About {
        major,
        version: json.version,
        system_identifier: identifier,
        reads_passwords: json.passwords,
        databases: catalog::databases(sql).await?,
    })
}

/// How many tables of a database there are, every one of which can be read whole.
///
/// # Errors
/// `ConfigInvalid` where that is not so, with their names.
pub async fn readable(info: &ConnInfo, database: &str) -> Result<usize> {
    let sql = Sql::connect(&info.clone().with_database(database)).await?;
    sql.text(OP, SETTINGS).await?;
    Ok(catalog::tables(&sql).await?.len())
}

/// A database that stands still for us.
#[derive(Debug)]
pub struct Leader {
    sql: Sql,
    /// How the workers connect: to the same server.
    info: ConnInfo,
    snapshot: String,
    moment_us: i64,
    name: String,
    tables: Vec<Found>,
    large_objects: u64,
}

impl Leader {
    /// Takes the snapshot of a database and locks its tables.
    ///
    /// # Errors
    /// `ConfigInvalid` where a table may not be read whole, `Locked` where somebody holds one for longer than `lock_wait_ms`.
    pub async fn begin(info: &ConnInfo, database: &str, lock_wait_ms: u64) -> Result<Self> {
        let sql = Sql::connect(&info.clone().with_database(database)).await?;
        sql.text(OP, SETTINGS).await?;
        sql.text(OP, &format!("SET lock_timeout = {lock_wait_ms}")).await?;
        let info = info.clone().with_database(database).with_host(sql.host().clone());
        let now = Sql::connect(&info).await?;
        now.text(OP, SETTINGS).await?;
        let mut attempt = 1;
        loop {
            match Self::hold(&sql, database).await {
                // Somebody who held a table altered it, and we waited for him with the snapshot in our hands.
                Ok((_, _, tables, _)) if !catalog::are_as_in_snapshot(&sql, &now, &tables).await? => {
                    if attempt == ATTEMPTS {
                        let detail = format!("tables were altered while they were locked, {ATTEMPTS} times");
                        return Err(Error::new(ErrorKind::Locked, OP, database, detail)
                            .with_hint("run it again when migrations are done"));
                    }
                    attempt += 1;
                    sql.text(OP, "ROLLBACK").await?;
                }
                Ok((snapshot, moment_us, tables, large_objects)) => {
                    return Ok(Self {
                        info,
                        snapshot,
                        moment_us,
                        name: database.to_owned(),
                        tables,
                        large_objects,
                        sql,
                    });
                }
                // Gone between the snapshot and the lock.
                Err(error) if attempt < ATTEMPTS && matches!(sqlstate(&error), Some("42P01" | "3F000")) => {
                    attempt += 1;
                    sql.text(OP, "ROLLBACK").await?;
                }
                Err(error) if sqlstate(&error) == Some("55P03") => {
                    return Err(error.with_hint(
                        "somebody alters a table (pg_stat_activity, pg_locks show who); try again when that is done",
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn hold(sql: &Sql, database: &str) -> Result<(String, i64, Vec<Found>, u64)> {
        sql.text(OP, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // What was committed when this statement came is in the snapshot that it takes.
        let asked = "SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, pg_export_snapshot(), \
                     (SELECT count(*) FROM pg_largeobject_metadata)";
        let rows = sql.text(OP, asked).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let [Some(moment), Some(snapshot), Some(large)] = row.as_slice() else {
            return Err(odd(database, &format!("{row:?} is no snapshot")));
        };
        let number = |text: &str| text.parse::<i64>().map_err(|error| odd(database, text).with_source(error));
        let (moment_us, large) = (number(moment)?, u64::try_from(number(large)?).unwrap_or_default());
        let tables = catalog::tables(sql).await?;
        for some in tables.chunks(AT_ONCE) {
            let names: Vec<String> = some.iter().map(|table| format!("ONLY {}", table.name.sql())).collect();
            sql.text(OP, &format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")))
                .await?;
        }
        Ok((snapshot.clone(), moment_us, tables, large))
    }

    /// From now on only the rows of a tenant, and those that are everybody's; no large objects, which are nobody's. `as_is`: also of a tenant that is not
    /// there, and where his rows refer to those of others.
    ///
    /// # Errors
    /// `NoSuchPoint` without such a tenant, `Refused` where his rows refer to those of others, `ConfigInvalid` where the map does not fit.
    pub async fn narrow(&mut self, map: &TenantMap, tenant: &str, as_is: bool) -> Result<()> {
        let mut scope = Scope::new(relations::read(&self.sql).await?, map, tenant)?;
        scope.settle(&self.sql).await?;
        match scope.find(&self.sql).await {
            Err(error) if !as_is || error.kind() != ErrorKind::NoSuchPoint => return Err(error),
            _ => {}
        }
        if !as_is {
            scope.check_leaks(&self.sql).await?;
        }
        for relation in &scope.relations.tables {
            let only = scope.condition(&relation.name).map(|condition| format!("WHERE {condition}"));
            for table in self.tables.iter_mut().filter(|table| relation.leaves.contains(&table.name)) {
                table.only.clone_from(&only);
            }
        }
        let ignored = scope
            .relations
            .tables
            .iter()
            .filter(|relation| *scope.class(&relation.name) == Class::Ignored);
        let left_out: BTreeSet<&Name> = ignored.flat_map(|relation| &relation.leaves).collect();
        self.tables.retain(|table| !left_out.contains(&table.name));
        self.large_objects = 0;
        Ok(())
    }

    /// From now on only the rows of these tables, `TABLE` or `SCHEMA.TABLE`.
    ///
    /// # Errors
    /// `Usage` where one is not there.
    pub async fn narrow_to(&mut self, tables: &[String]) -> Result<()> {
        let scope = Scope::of_tables(relations::read(&self.sql).await?, tables)?;
        let leaves: BTreeSet<&Name> = scope.scoped().flat_map(|relation| &relation.leaves).collect();
        self.tables.retain(|table| leaves.contains(&table.name));
        self.large_objects = 0;
        Ok(())
    }

    /// Copies rows by its own session, which has every lock already, and sends them to `to`.
    pub async fn copy_out(&self, statement: &str, to: &mpsc::Sender<Bytes>) -> Result<()> {
        let failed = |error| self.sql.error("copy rows from", error);
        let rows = self.sql.client.copy_out(statement).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(piece) = rows.next().await {
            if to.send(piece.map_err(failed)?).await.is_err() {
                return Err(Error::new(
                    ErrorKind::Interrupted,
                    "copy",
                    "rows",
                    "nobody wants them any more",
                ));
            }
        }
        Ok(())
    }

    /// How the workers connect.
    #[must_use]
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// The snapshot, for the workers and for `pg_dump`.
    #[must_use]
    pub fn snapshot(&self) -> &str {
        &self.snapshot
    }

    /// When it was taken, microseconds since 1970 by the server's clock.
    #[must_use]
    pub fn moment_us(&self) -> i64 {
        self.moment_us
    }

    /// Its tables.
    #[must_use]
    pub fn tables(&self) -> &[Found] {
        &self.tables
    }

    /// Bytes of the files of all tables.
    #[must_use]
    pub fn heap_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }

    /// How many large objects there are.
    #[must_use]
    pub fn large_objects(&self) -> u64 {
        self.large_objects
    }

    /// What is known of the database but its rows. Sequences have no locks: they are read soon, not after hours of copying.
    pub async fn describe(&self, folder: &str) -> Result<Database> {
        Ok(Database {
            name: self.name.clone(),
            folder: folder.to_owned(),
            moment_us: self.moment_us,
            properties: catalog::properties(&self.sql).await?,
            roles: catalog::roles(&self.sql).await?,
            extensions: catalog::extensions(&self.sql).await?,
            sequences: catalog::sequences(&self.sql).await?,
            materialized: catalog::materialized(&self.sql).await?,
            foreign: catalog::foreign(&self.sql).await?,
            tables: Vec::new(),
            large_objects: None,
        })
    }

    /// Ends the transaction.
    ///
    /// # Errors
    /// Where it no longer lives: then nobody kept the tables as they were (LG-01).
    pub async fn end(self) -> Result<()> {
        self.sql.text(OP, "COMMIT").await.map(drop)
    }
}

/// Where the files of a database are in a backup.
#[must_use]
pub fn folder_of(database: &str) -> String {
    format!("databases/{}", path_part(database))
}

/// COPY of what large objects are, without what they hold. `pg_dump --schema-only` leaves them out altogether.
pub const ABOUT_LARGE_OBJECTS_OUT: &str = "COPY (SELECT m.oid, pg_get_userbyid(m.lomowner), \
     (SELECT json_agg(json_build_array(CASE WHEN grantee = 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable)) \
       FROM aclexplode(m.lomacl)), obj_description(m.oid, 'pg_largeobject') \
     FROM pg_largeobject_metadata m ORDER BY m.oid) TO STDOUT";

/// Tables of the session that hold what is to become large objects.
pub const LARGE_OBJECT_TABLES: &str = "CREATE TEMPORARY TABLE lifeboat_about(number oid, owner text, rights json, comment text) ON COMMIT DROP; \
     CREATE TEMPORARY TABLE lifeboat_pieces(number oid, at bigint, data bytea) ON COMMIT DROP";

/// Fills them.
pub const PUT_LARGE_OBJECTS: &str = "SELECT count(lo_put(number, at, data)) FROM pg_temp.lifeboat_pieces WHERE length(data) > 0";

/// Makes large objects of what [`ABOUT_LARGE_OBJECTS_OUT`] gave, in a table `lifeboat_about` of the session.
pub const MAKE_LARGE_OBJECTS: &str = "SELECT count(lo_create(number)) FROM pg_temp.lifeboat_about";

/// Gives them to whom they belonged.
pub const DRESS_LARGE_OBJECTS: &str = "DO $$ DECLARE o record; r json; BEGIN \
     FOR o IN SELECT * FROM pg_temp.lifeboat_about LOOP \
       IF o.comment IS NOT NULL THEN EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', o.number, o.comment); END IF; \
       FOR r IN SELECT json_array_elements(o.rights) LOOP \
         EXECUTE format('GRANT %s ON LARGE OBJECT %s TO %s', r->>1, o.number, CASE WHEN r->>0 = '' THEN 'PUBLIC' ELSE quote_ident(r->>0) END) \
           || CASE WHEN (r->>2)::bool THEN ' WITH GRANT OPTION' ELSE '' END; \
       END LOOP; \
       EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %I', o.number, o.owner); \
     END LOOP; END $$";

/// COPY of all large objects, piece by piece; a piece that is shorter is the last.
#[must_use]
pub fn large_objects_out() -> String {
    format!(
        "COPY (SELECT m.oid, p.at, p.data FROM (SELECT oid FROM pg_largeobject_metadata ORDER BY oid) m, LATERAL (\
         WITH RECURSIVE piece(at, data) AS (SELECT 0::bigint, lo_get(m.oid, 0, {PIECE_BYTES}) UNION ALL \
         SELECT at + {PIECE_BYTES}, lo_get(m.oid, at + {PIECE_BYTES}, {PIECE_BYTES}) FROM piece WHERE length(data) = {PIECE_BYTES}) \
         SELECT at, data FROM piece) p) TO STDOUT"
    )
}

/// The captured table of what was found and what its parts came to.
#[must_use]
pub fn table(found: &Found, parts: Vec<String>, text_bytes: u64, digest: super::Digest) -> Table {
    Table {
        name: found.name.clone(),
        columns: found.columns.clone(),
        heap_bytes: found.bytes,
        condition: found.condition.clone(),
        of: found.of.clone(),
        parts,
        text_bytes,
        digest,
    }
}

/// The lock that a worker takes before it reads a part, without waiting behind whoever wants to alter the table: he waits for the leader, which waits
/// for the worker, and no server would see that circle. Where it is refused, the leader reads the part itself.
#[must_use]
pub fn lock(found: &Found) -> String {
    format!(
        "SAVEPOINT lifeboat; LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT lifeboat",
        found.name.sql()
    )
}

/// What brings a worker back to where it was before a refused lock.
pub const UNLOCKED: &str = "ROLLBACK TO SAVEPOINT lifeboat";

fn odd(database: &str, detail: &str) -> Error {
    Error::new(ErrorKind::Incompatible, OP, database, detail)
}
