//! The tables of a database as a person knows them, a partitioned one being one, and how they refer to each other.

use lifeboat_model::Result;
use serde::Deserialize;

use super::super::catalog;
use super::super::facts::Name;
use super::super::quoted_name;
use crate::postgres::sql::Sql;

/// Tables that are nobody's partition, and foreign keys by which they refer to each other. What an extension made is not asked for, nor our canary.
const RELATIONS: &str = "WITH mine AS (SELECT c.oid, n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
      WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' \
        AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^(pg_temp_|pg_toast_temp_|lifeboat_restore_)' \
        AND (n.nspname, c.relname) <> ('lifeboat', 'canary') \
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')) \
    SELECT json_build_object(\
    'tables', (SELECT coalesce(json_agg(t ORDER BY t.schema, t.name), '[]') FROM (SELECT m.nspname AS schema, m.relname AS name, m.relkind = 'p' AS partitioned, \
      (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', l.relname)), '[]') \
        FROM pg_partition_tree(m.oid) p JOIN pg_class l ON l.oid = p.relid JOIN pg_namespace n ON n.oid = l.relnamespace \
        WHERE p.isleaf AND l.relkind = 'r') AS leaves, \
      (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a \
        WHERE a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns, \
      (SELECT coalesce(json_agg(a.attname ORDER BY k.n), '[]') FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n), pg_attribute a \
        WHERE i.indrelid = m.oid AND i.indisprimary AND k.n <= i.indnkeyatts AND a.attrelid = m.oid AND a.attnum = k.att) AS key, \
      (SELECT coalesce(json_agg((SELECT json_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = m.oid AND a.attnum = ANY (i.indkey::int2[]))), '[]') \
        FROM pg_index i WHERE i.indrelid = m.oid AND i.indisunique AND NOT i.indimmediate) AS late_unique, \
      EXISTS (SELECT FROM pg_index i WHERE i.indrelid = m.oid AND i.indisexclusion AND NOT i.indimmediate) AS late_exclusion, \
      EXISTS (SELECT FROM pg_class l WHERE l.relpersistence = 'u' AND (l.oid = m.oid OR l.oid IN (SELECT relid FROM pg_partition_tree(m.oid)))) AS unlogged, \
      EXISTS (SELECT FROM pg_partition_tree(m.oid) p JOIN pg_class l ON l.oid = p.relid WHERE l.relkind = 'f') AS elsewhere, \
      (SELECT coalesce(json_agg(g.tgname), '[]') FROM pg_trigger g WHERE g.tgrelid = m.oid AND NOT g.tgisinternal AND g.tgenabled IN ('A', 'R')) AS always, \
      (SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', s.relname, 'column', a.attname)), '[]') \
        FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace \
          JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = m.oid AND d.deptype IN ('a', 'i')) AS sequences \
      FROM mine m) t), \
    'links', (SELECT coalesce(json_agg(l ORDER BY l.child ->> 'schema', l.child ->> 'name', l.name), '[]') FROM (SELECT f.conname AS name, f.convalidated AS valid, \
      json_build_object('schema', c.nspname, 'name', c.relname) AS child, json_build_object('schema', p.nspname, 'name', p.relname) AS parent, \
      (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY k(att, n), pg_attribute a \
        WHERE a.attrelid = f.conrelid AND a.attnum = k.att) AS columns, \
      (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY k(att, n), pg_attribute a \
        WHERE a.attrelid = f.confrelid AND a.attnum = k.att) AS parent_columns, \
      (SELECT bool_and(a.attnotnull) FROM pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)) AS not_null \
      FROM pg_constraint f JOIN mine c ON c.oid = coalesce(pg_partition_root(f.conrelid)::oid, f.conrelid) \
        JOIN mine p ON p.oid = coalesce(pg_partition_root(f.confrelid)::oid, f.confrelid) \
      WHERE f.contype = 'f' AND f.conparentid = 0) l))";

/// A table, all partitions included.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Relation {
    /// Its name.
    #[serde(flatten)]
    pub name: Name,
    /// It has partitions.
    pub partitioned: bool,
    /// Where its rows are: itself, or its partitions.
    pub leaves: Vec<Name>,
    /// Its columns but the generated ones.
    pub columns: Vec<String>,
    /// Its primary key; empty without one.
    pub key: Vec<String>,
    /// Columns of unique constraints that the server looks at when a transaction ends.
    pub late_unique: Vec<Vec<String>>,
    /// It has an exclusion constraint that the server looks at when a transaction ends.
    pub late_exclusion: bool,
    /// Rows of it are in no log, and so in no copy of a cluster's files.
    pub unlogged: bool,
    /// Rows of some of its partitions live on another server, and are in no backup.
    pub elsewhere: bool,
    /// Triggers that run whatever `session_replication_role` says.
    pub always: Vec<String>,
    /// Sequences that belong to a column.
    pub sequences: Vec<Owned>,
}

/// A sequence and the column that it numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Owned {
    /// The sequence.
    #[serde(flatten)]
    pub name: Name,
    /// The column.
    pub column: String,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Link {
    /// The constraint.
    pub name: String,
    /// Which table refers.
    pub child: Name,
    /// Its columns.
    pub columns: Vec<String>,
    /// To which table.
    pub parent: Name,
    /// The columns there, in the same order.
    pub parent_columns: Vec<String>,
    /// No row can leave it out.
    pub not_null: bool,
    /// The server has looked at all rows.
    pub valid: bool,
}

/// What [`read`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Relations {
    /// By schema and name.
    pub tables: Vec<Relation>,
    /// By the table that refers, and the constraint.
    pub links: Vec<Link>,
}

impl Relation {
    /// As it stands behind FROM: its own rows, not those of tables that inherit from it.
    #[must_use]
    pub fn from(&self) -> String {
        if self.partitioned {
            self.name.sql()
        } else {
            format!("ONLY {}", self.name.sql())
        }
    }
}

impl Relations {
    /// The table of this name.
    #[must_use]
    pub fn table(&self, name: &Name) -> Option<&Relation> {
        self.tables.iter().find(|table| table.name == *name)
    }

    /// The table that `TABLE` or `SCHEMA.TABLE` means, where it is one.
    #[must_use]
    pub fn meant(&self, text: &str) -> Option<&Relation> {
        let mut found = self
            .tables
            .iter()
            .filter(|table| table.name.name == text || table.name.to_string() == text);
        found.next().filter(|_| found.next().is_none())
    }
}

/// Reads them, in whatever transaction the session is in.
pub async fn read(sql: &Sql) -> Result<Relations> {
    let mut found: Relations = catalog::ask(sql, RELATIONS).await?;
    for table in &mut found.tables {
        if !table.partitioned {
            table.leaves = vec![table.name.clone()];
        }
    }
    Ok(found)
}

/// Names as a list in SQL, each behind `before`.
#[must_use]
pub fn list(before: &str, names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{before}{}", quoted_name(name))).collect();
    names.join(", ")
}

/// That all of them are the same on both sides.
#[must_use]
pub fn same(left: &str, names: &[String], right: &str, others: &[String]) -> String {
    let pairs = names.iter().zip(others);
    let pairs: Vec<String> = pairs
        .map(|(name, other)| format!("{left}.{} = {right}.{}", quoted_name(name), quoted_name(other)))
        .collect();
    pairs.join(" AND ")
}
