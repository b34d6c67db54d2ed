//! The server that a database is restored to: what it lacks, the staging database, and the name at the end (LG-04 to LG-06).

use std::collections::BTreeSet;

use lifeboat_model::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::catalog::{self, Found};
use super::facts::{Database, Name, Properties, Sequence};
use super::settings::{setting_name, setting_value};
use super::tenant::Scope;
use super::tenant::relations::{self, Relations};
use super::{SETTINGS, quoted_name, quoted_text};
use crate::postgres::conninfo::ConnInfo;
use crate::postgres::sql::Sql;

const OP: &str = "prepare the database";
/// How the names of staging databases and schemas begin.
pub const STAGING: &str = "lifeboat_restore_";
/// What they look like as a whole: nobody else's name is ever taken for one.
const STAGING_NAME: &str = "^lifeboat_restore_[0-9]{8}t[0-9]{6}_[0-9a-f]{6}$";
/// The longest name of a database, in bytes.
pub const NAME_BYTES: usize = 63;
/// What a person means by a table.
const MEANT: &str = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' \
     AND (c.relname = WANTED OR n.nspname || '.' || c.relname = WANTED)";
/// Removes the subscriptions of a database and leaves their slots on other servers alone.
const FORGET_SUBSCRIPTIONS: &str = "DO $$ DECLARE s name; BEGIN \
     FOR s IN SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) LOOP \
       EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', s); \
       EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', s); \
       EXECUTE format('DROP SUBSCRIPTION %I', s); \
     END LOOP; END $$";
/// Tables that the server has to look at, so that it plans well. With a partitioned one it looks at its partitions.
const TO_ANALYZE: &str = "SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname, \
       'is_alone', c.relkind = 'r' AND NOT c.relhassubclass, \
       'is_measured_by_more', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indexprs IS NOT NULL) \
         OR EXISTS (SELECT FROM pg_statistic_ext s WHERE s.stxrelid = c.oid)) ORDER BY c.relpages DESC), '[]') \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relpersistence <> 't' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";
/// A table to look at.
#[derive(Debug, Clone, Deserialize)]
pub struct ToAnalyze {
    /// Which.
    #[serde(flatten)]
    pub name: Name,
    /// Nothing below it is looked at with it: it can be looked at as soon as its own rows are there.
    pub is_alone: bool,
    /// An index on an expression, or a statistics object: they are looked at with it, once they are there.
    pub is_measured_by_more: bool,
}

/// The least memory with which an index on a table of so many bytes is sorted in two passes, in KiB, at most 256 MiB: more than it
/// needs was slower (docs/benchmarks.md).
///
/// A sort of `n` bytes in `m` of memory makes `n / m` runs, and merges at most `m` / 264 KiB of them at once, and at most 500
/// (`src/backend/utils/sort/tuplesort.c`: `TAPE_BUFFER_OVERHEAD`, `MERGE_BUFFER_SIZE`, `MAXORDER`).
fn sorting_memory_kib(table_bytes: u64) -> u64 {
    let table_kib = table_bytes / 1024;
    table_kib.saturating_mul(264).isqrt().max(table_kib / 500).min(256 << 10)
}

/// Sequences that are set by one statement.
const AT_ONCE: usize = 200;

/// A server that databases are restored to. Its session is in another database than any that is made or renamed.
#[derive(Debug)]
pub struct Destination {
    sql: Sql,
    info: ConnInfo,
    /// 15, for example.
    pub major: u32,
    /// Which server it is: its system identifier, or where it is if it does not say.
    pub identity: String,
}

/// What a destination says of itself.
#[derive(Deserialize)]
struct Standing {
    major: u32,
    may_create: bool,
    superuser: bool,
    user: String,
    databases: Vec<String>,
    roles: BTreeSet<String>,
    extensions: BTreeSet<String>,
    tablespaces: BTreeSet<String>,
    recovering: bool,
}

const STANDING: &str = "SELECT json_build_object('major', current_setting('server_version_num')::int / 10000, \
    'may_create', (SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user), \
    'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), 'user', current_user, \
    'databases', (SELECT json_agg(datname) FROM pg_database), 'roles', (SELECT json_agg(rolname) FROM pg_roles), \
    'extensions', (SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions), \
    'tablespaces', (SELECT json_agg(spcname) FROM pg_tablespace), 'recovering', pg_is_in_recovery())";

/// What is wanted of a restored database.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Who owns what, and who may do what, as it was.
    pub keep_owners: bool,
}

impl Destination {
    /// Connects to a database of the server that is not to be made.
    pub async fn connect(info: &ConnInfo) -> Result<Self> {
        let sql = Sql::connect(info).await?;
        sql.text(OP, SETTINGS).await?;
        let info = info.clone().with_host(sql.host().clone());
        let standing: Standing = catalog::ask(&sql, STANDING).await?;
        if standing.recovering {
            let detail = "it is a standby, which takes nothing";
            return Err(Error::new(ErrorKind::Refused, "restore to", sql.subject(), detail).with_hint("name its primary"));
        }
        // A managed server may not say.
        let identifier = sql.text(OP, "SELECT system_identifier FROM pg_control_system()").await;
        let identifier = identifier.ok().and_then(|rows| rows.into_iter().flatten().flatten().next());
        Ok(Self {
            identity: identifier.unwrap_or_else(|| format!("{}", sql.host())),
            sql,
            info,
            major: standing.major,
        })
    }

    /// How to connect to a database of it.
    #[must_use]
    pub fn info(&self, database: &str) -> ConnInfo {
        self.info.clone().with_database(database)
    }

    /// Looks for everything that would stop a restore later (LG-06). Returns what to know about the rest.
    ///
    /// # Errors
    /// `Refused` where the name is taken, `ConfigInvalid` where something is missing; the text names all of it.
    pub async fn examine(&self, database: &Database, wanted: &Wanted) -> Result<Vec<String>> {
        let standing: Standing = catalog::ask(&self.sql, STANDING).await?;
        let refused = |kind, detail: String| Error::new(kind, "restore the database", &wanted.name, detail);
        if wanted.name.is_empty() || wanted.name.len() > NAME_BYTES {
            return Err(refused(ErrorKind::Usage, format!("a name has 1 to {NAME_BYTES} bytes")));
        }
        if wanted.name.starts_with(STAGING) {
            return Err(refused(
                ErrorKind::Usage,
                format!("names that begin with {STAGING} are those of restores under way"),
            )
            .with_hint("choose another name with --to"));
        }
        if standing.databases.contains(&wanted.name) {
            return Err(refused(
                ErrorKind::Refused,
                format!("{} has a database of this name", self.sql.subject()),
            )
            .with_hint("choose another name with --to; what is there is never written over"));
        }
        if !standing.may_create {
            return Err(
                refused(ErrorKind::ConfigInvalid, format!("{} may not make databases", standing.user))
                    .with_hint("ALTER ROLE … CREATEDB, or connect as somebody who may"),
            );
        }
        let missing = |wanted: &mut dyn Iterator<Item = &String>, there: &BTreeSet<String>| {
            let names: Vec<String> = wanted.filter(|name| !there.contains(*name)).cloned().collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(names) = missing(&mut database.extensions.iter().map(|(name, _)| name), &standing.extensions) {
            return Err(refused(
                ErrorKind::ConfigInvalid,
                format!("the server does not have the extensions {names}"),
            )
            .with_hint("install them there first"));
        }
        if wanted.keep_owners
            && let Some(names) = missing(&mut database.roles.iter(), &standing.roles)
        {
            return Err(refused(ErrorKind::ConfigInvalid, format!("the server does not have the roles {names}"))
                .with_hint("make them first (`lifeboat restore export WHAT --extract globals.sql --to roles.sql` writes them), or restore with --no-owner: then everything belongs to you"));
        }
        let mut notes = Vec::new();
        if !standing.tablespaces.contains(&database.properties.tablespace) {
            notes.push(format!(
                "the server has no tablespace {}: the database goes to the default one",
                database.properties.tablespace
            ));
        }
        if !standing.superuser && wanted.keep_owners {
            notes.push(format!(
                "{} is no superuser: owners that it may not give to stop the restore (--no-owner)",
                standing.user
            ));
        }
        Ok(notes)
    }

    /// Those of the roles that the server does not have.
    pub async fn missing_roles<'a>(&self, wanted: impl Iterator<Item = &'a String>) -> Result<Vec<String>> {
        let standing: Standing = catalog::ask(&self.sql, STANDING).await?;
        Ok(wanted.filter(|name| !standing.roles.contains(*name)).cloned().collect())
    }

    /// What a database of this server was made with; that of `template1` where there is none of this name. Nothing of what was set later.
    pub async fn made_like(&self, name: &str) -> Result<Properties> {
        let (_, found) = self.look_up(0, name).await?;
        let like = if found.is_some() { name } else { "template1" };
        let sql = Sql::connect(&self.info(like)).await?;
        Ok(Properties {
            connection_limit: -1,
            has_rights: false,
            rights: Vec::new(),
            settings: Vec::new(),
            comment: None,
            ..catalog::properties(&sql).await?
        })
    }

    /// Staging databases that an interrupted restore left: nobody is in them, and no session says that it works on one.
    pub async fn leftovers(&self) -> Result<Vec<String>> {
        let asked = format!(
            "SELECT coalesce(json_agg(datname), '[]') FROM pg_database d WHERE datname ~ '{STAGING_NAME}' AND pg_has_role(datdba, 'USAGE') \
             AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = d.datname OR a.application_name = d.datname)"
        );
        catalog::ask(&self.sql, &asked).await
    }

    /// Makes an empty database like the original, which only we may enter.
    pub async fn create(&self, name: &str, like: &Properties) -> Result<()> {
        // From now on until this session ends, other restores see that somebody works on it, also while nobody is in it.
        self.run(&format!("SET application_name = {}", quoted_text(name))).await?;
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {}",
            quoted_name(name),
            quoted_text(&like.encoding)
        );
        let mut add = |word: &str, value: &Option<String>| {
            if let Some(value) = value {
                sql.push_str(&format!(" {word} {}", quoted_text(value)));
            }
        };
        if self.major >= 15 {
            match like.provider.as_str() {
                "i" => {
                    add("LOCALE_PROVIDER", &Some("icu".to_owned()));
                    add("ICU_LOCALE", &like.locale);
                    if self.major >= 16 {
                        add("ICU_RULES", &like.icu_rules);
                    }
                }
                "b" => {
                    add("LOCALE_PROVIDER", &Some("builtin".to_owned()));
                    add("BUILTIN_LOCALE", &like.locale);
                }
                _ => add("LOCALE_PROVIDER", &Some("libc".to_owned())),
            }
        }
        add("LC_COLLATE", &like.collate);
        add("LC_CTYPE", &like.ctype);
        let standing: Standing = catalog::ask(&self.sql, STANDING).await?;
        if standing.tablespaces.contains(&like.tablespace) {
            sql.push_str(&format!(" TABLESPACE {}", quoted_name(&like.tablespace)));
        }
        self.run(&sql).await?;
        self.run(&format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quoted_name(name)))
            .await
    }

    /// Settings of the database, and of roles in it, as they were; for sessions that begin after that.
    pub async fn set(&self, name: &str, like: &Properties, keep_owners: bool) -> Result<()> {
        let database = quoted_name(name);
        for (role, setting) in &like.settings {
            let Some((setting, value)) = setting.split_once('=') else {
                continue;
            };
            let whose = match role.as_str() {
                "" => format!("ALTER DATABASE {database}"),
                role if keep_owners => format!("ALTER ROLE {} IN DATABASE {database}", quoted_name(role)),
                _ => continue,
            };
            self.run(&format!(
                "{whose} SET {} TO {}",
                setting_name(setting),
                setting_value(setting, value)
            ))
            .await?;
        }
        Ok(())
    }

    /// Rights, comment and at last the owner, as they were.
    pub async fn dress(&self, name: &str, like: &Properties, keep_owners: bool) -> Result<()> {
        let database = quoted_name(name);
        if like.has_rights && keep_owners {
            for (to, right, may_pass_on) in &like.rights {
                let to = if to.is_empty() { "PUBLIC".to_owned() } else { quoted_name(to) };
                let option = if *may_pass_on { " WITH GRANT OPTION" } else { "" };
                self.run(&format!("GRANT {right} ON DATABASE {database} TO {to}{option}"))
                    .await?;
            }
        } else {
            // What everybody may where nobody said otherwise.
            self.run(&format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO PUBLIC"))
                .await?;
        }
        if let Some(comment) = &like.comment {
            self.run(&format!("COMMENT ON DATABASE {database} IS {}", quoted_text(comment)))
                .await?;
        }
        if like.connection_limit >= 0 {
            self.run(&format!(
                "ALTER DATABASE {database} CONNECTION LIMIT {}",
                like.connection_limit
            ))
            .await?;
        }
        if keep_owners {
            self.run(&format!("ALTER DATABASE {database} OWNER TO {}", quoted_name(&like.owner)))
                .await?;
        }
        Ok(())
    }

    /// Gives a database its name. Nobody may be in it.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.run(&format!("ALTER DATABASE {} RENAME TO {}", quoted_name(from), quoted_name(to)))
            .await
    }

    /// Removes a staging database, and whoever is in it.
    ///
    /// # Errors
    /// `Bug` for any other database.
    pub async fn drop_staging(&self, name: &str) -> Result<()> {
        if !name.starts_with(STAGING) {
            return Err(Error::new(ErrorKind::Bug, "remove", name, "it is not a staging database"));
        }
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted_name(name));
        let Err(error) = self.run(&drop).await else { return Ok(()) };
        // A database with subscriptions is not dropped. Ours never connected to anybody: they are let go of without asking the other server.
        let Ok(inside) = Inside::enter(&self.info(name)).await else {
            return Err(error);
        };
        inside.run(FORGET_SUBSCRIPTIONS).await?;
        std::mem::drop(inside);
        self.run(&drop).await
    }

    pub(super) fn sql(&self) -> &Sql {
        &self.sql
    }

    pub(super) async fn run(&self, sql: &str) -> Result<()> {
        self.sql.text(OP, sql).await.map(drop)
    }
}

/// Statements that set sequences to where they were.
#[must_use]
pub fn set_sequences(sequences: &[Sequence]) -> Vec<String> {
    let some = sequences.chunks(AT_ONCE);
    some.map(|some| {
        let calls: Vec<String> = some
            .iter()
            .map(|one| {
                let name = quoted_text(&one.name.sql());
                format!("setval({name}::regclass, {}, {})", one.last_value, one.is_called)
            })
            .collect();
        format!("SELECT {}", calls.join(", "))
    })
    .collect()
}

/// The settings under which rows are written and read.
#[must_use]
pub fn settings() -> &'static str {
    SETTINGS
}

/// The session in a staging database for what is not rows. While it lives, nobody takes the database for a leftover.
#[derive(Debug)]
pub struct Inside {
    sql: Sql,
}

impl Inside {
    /// Enters it.
    pub async fn enter(info: &ConnInfo) -> Result<Self> {
        let sql = Sql::connect(info).await?;
        sql.text(OP, SETTINGS).await?;
        sql.text(OP, "SET synchronous_commit = off").await?;
        Ok(Self { sql })
    }

    /// Sets sequences to where they were.
    pub async fn set_sequences(&self, sequences: &[Sequence]) -> Result<()> {
        for statement in set_sequences(sequences) {
            self.sql.text("set the sequences of", &statement).await?;
        }
        Ok(())
    }

    /// Fills materialised views, in order.
    pub async fn fill(&self, views: &[Name]) -> Result<()> {
        for view in views {
            let sql = format!("REFRESH MATERIALIZED VIEW {}", view.sql());
            self.sql.text("fill a materialised view of", &sql).await?;
        }
        Ok(())
    }

    /// Has the server look at what is there, so that it plans well.
    pub async fn analyze(&self) -> Result<()> {
        self.sql.text("analyze", "ANALYZE").await.map(drop)
    }

    /// The tables to look at, so that it plans well: those that `ANALYZE` would take, the largest first.
    pub async fn to_analyze(&self) -> Result<Vec<ToAnalyze>> {
        catalog::ask(&self.sql, TO_ANALYZE).await
    }

    /// What the building of one index, on a table of so many bytes, is to have of memory, in KiB; none: the server's own setting is enough.
    pub async fn index_memory_kib(&self, table_bytes: u64) -> Result<Option<u64>> {
        let sql = "SELECT to_json(setting::bigint) FROM pg_settings WHERE name = 'maintenance_work_mem'";
        let own_kib: u64 = catalog::ask(&self.sql, sql).await?;
        Ok(Some(sorting_memory_kib(table_bytes)).filter(|wanted| *wanted > own_kib))
    }

    /// Bytes of a table's file.
    pub async fn heap_bytes(&self, oid: u32) -> Result<u64> {
        catalog::ask(&self.sql, &format!("SELECT to_json(pg_relation_size({oid}))")).await
    }

    /// Whether it has a schema.
    pub async fn has_schema(&self, schema: &str) -> Result<bool> {
        catalog::ask(
            &self.sql,
            &format!(
                "SELECT to_json(EXISTS (SELECT FROM pg_namespace WHERE nspname = {}))",
                quoted_text(schema)
            ),
        )
        .await
    }

    /// The tables that `TABLE` or `SCHEMA.TABLE` means: of a partitioned one itself and everything below it.
    ///
    /// # Errors
    /// `Usage` where there is none, or where there are several in different schemas.
    pub async fn find_tables(&self, wanted: &str) -> Result<Vec<Name>> {
        let asked = format!(
            "SELECT json_build_array((SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname)), '[]') \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND {MEANT}), \
             (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname)), '[]') FROM ( \
               SELECT DISTINCT t.relid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, \
                 LATERAL (SELECT c.oid AS relid UNION SELECT relid FROM pg_partition_tree(c.oid)) t \
                 WHERE c.relkind IN ('r', 'p') AND {MEANT}) m \
               JOIN pg_class c ON c.oid = m.relid JOIN pg_namespace n ON n.oid = c.relnamespace))"
        )
        .replace("WANTED", &quoted_text(wanted));
        let (meant, all): (Vec<Name>, Vec<Name>) = catalog::ask(&self.sql, &asked).await?;
        let refused = |detail: String, hint: &str| {
            Error::new(ErrorKind::Usage, "find the table", wanted, detail).with_hint(hint.to_owned())
        };
        match meant.as_slice() {
            [_] => Ok(all),
            [] => Err(refused(
                "the backup has no table of this name".to_owned(),
                "`lifeboat diff` and `lifeboat show` name them; a name is written as it is stored",
            )),
            several => {
                let names: Vec<String> = several.iter().map(Name::to_string).collect();
                Err(refused(
                    format!("it means several: {}", names.join(", ")),
                    "write SCHEMA.TABLE",
                ))
            }
        }
    }

    /// Moves tables into a new schema, without what ties them to others: foreign keys, triggers, policies.
    pub async fn move_tables(&self, tables: &BTreeSet<Name>, schema: &str) -> Result<()> {
        self.run(&format!("CREATE SCHEMA {}", quoted_name(schema))).await?;
        for table in tables {
            let name = quoted_text(&table.sql());
            let free = format!(
                "DO $$ DECLARE s text; BEGIN \
                 FOR s IN SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', conrelid::regclass, conname) FROM pg_constraint \
                   WHERE conrelid = {name}::regclass AND contype = 'f' AND conparentid = 0 LOOP EXECUTE s; END LOOP; \
                 FOR s IN SELECT format('DROP TRIGGER IF EXISTS %I ON %s', tgname, tgrelid::regclass) FROM pg_trigger \
                   WHERE tgrelid = {name}::regclass AND NOT tgisinternal AND tgparentid = 0 LOOP EXECUTE s; END LOOP; \
                 FOR s IN SELECT format('DROP POLICY %I ON %s', polname, polrelid::regclass) FROM pg_policy WHERE polrelid = {name}::regclass LOOP EXECUTE s; END LOOP; \
                 FOR s IN SELECT format('DROP RULE %I ON %s', rulename, ev_class::regclass) FROM pg_rewrite \
                   WHERE ev_class = {name}::regclass AND rulename <> '_RETURN' LOOP EXECUTE s; END LOOP; \
                 EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', {name}::regclass); END $$"
            );
            self.run(&free).await?;
        }
        for table in tables {
            self.run(&format!("ALTER TABLE {} SET SCHEMA {}", table.sql(), quoted_name(schema)))
                .await?;
        }
        Ok(())
    }

    /// Says that this session works on the staging schema `name`, and removes those that interrupted restores left.
    pub async fn claim(&self, name: &str) -> Result<Vec<String>> {
        self.run(&format!("SET application_name = {}", quoted_text(name))).await?;
        let asked = format!(
            "SELECT coalesce(json_agg(nspname), '[]') FROM pg_namespace n WHERE nspname ~ '{STAGING_NAME}' AND pg_has_role(nspowner, 'USAGE') \
             AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = n.nspname)"
        );
        let left: Vec<String> = catalog::ask(&self.sql, &asked).await?;
        for schema in &left {
            self.drop_schema(schema).await?;
        }
        Ok(left)
    }

    /// Gives a schema its name.
    pub async fn rename_schema(&self, from: &str, to: &str) -> Result<()> {
        self.run(&format!("ALTER SCHEMA {} RENAME TO {}", quoted_name(from), quoted_name(to)))
            .await
    }

    /// Removes a staging schema and all in it.
    ///
    /// # Errors
    /// `Bug` for any other.
    pub async fn drop_schema(&self, schema: &str) -> Result<()> {
        if !schema.starts_with(STAGING) {
            return Err(Error::new(ErrorKind::Bug, "remove", schema, "it is not a staging schema"));
        }
        self.run(&format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted_name(schema)))
            .await
    }

    pub(super) fn sql(&self) -> &Sql {
        &self.sql
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.sql.text(OP, sql).await.map(drop)
    }

    /// Its tables as they are now.
    pub async fn tables(&self) -> Result<Vec<Found>> {
        catalog::tables(&self.sql).await
    }

    /// See [`Scope::settle`].
    pub async fn settle(&self, scope: &mut Scope) -> Result<()> {
        scope.settle(&self.sql).await
    }

    /// Looks whether a tenant is there, and whether his rows refer to those of others.
    pub async fn check_tenant(&self, scope: &Scope) -> Result<()> {
        scope.find(&self.sql).await?;
        scope.check_leaks(&self.sql).await
    }

    /// The same as a person knows them, and how they refer to each other.
    pub async fn relations(&self) -> Result<Relations> {
        relations::read(&self.sql).await
    }
}

#[cfg(test)]
mod tests {
    use super::sorting_memory_kib;

    #[test]
    fn an_index_is_sorted_in_two_passes_and_takes_no_more_than_that_needs() {
        const GIB: u64 = 1 << 30;
        // What the server has by itself is 64 MiB.
        assert!(sorting_memory_kib(15 * GIB) < 64 << 10);
        for bytes in [0, 5000, GIB, 15 * GIB, 16 * GIB, 60 * GIB, 100 * GIB, 125 * GIB] {
            let kib = sorting_memory_kib(bytes);
            let runs = (bytes / 1024).checked_div(kib).unwrap_or_default();
            assert!(kib <= 256 << 10 && runs <= (kib / 264 + 1).min(500), "{bytes}: {kib}");
        }
        assert_eq!(sorting_memory_kib(1000 * GIB), 256 << 10);
        assert_eq!(sorting_memory_kib(u64::MAX), 256 << 10);
    }
}
