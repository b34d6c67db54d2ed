//! What a database says of itself. Every answer is one JSON text, read strictly.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::facts::{Name, Properties, Sequence};
use super::quoted_text;
use crate::postgres::sql::Sql;

const OP: &str = "read the catalog of";

/// Tables of users, and of extensions those that hold rows of users. Of one that was dropped meanwhile nothing is known; its lock says so.
const TABLES: &str = "SELECT coalesce(json_agg(t), '[]') FROM (\
    SELECT c.oid::bigint, n.nspname AS schema, c.relname AS name, \
      (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a \
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') AS columns, \
      coalesce(pg_relation_size(c.oid), 0) AS bytes, c.relam = 2 AS heap, e.condition, \
      coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), true) AS readable, row_security_active(c.oid) AS filtered, \
      (SELECT json_build_object('schema', rn.nspname, 'name', r.relname) FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace \
        WHERE c.relispartition AND r.oid = pg_partition_root(c.oid)) AS of \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension) e ON e.oid = c.oid \
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') \
      AND n.nspname NOT LIKE 'pg\\_temp\\_%' AND n.nspname NOT LIKE 'pg\\_toast\\_temp\\_%' \
      AND (e.oid IS NOT NULL OR NOT EXISTS (SELECT FROM pg_depend d \
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')) \
    ORDER BY n.nspname, c.relname) t";

const SEQUENCES: &str = "SELECT coalesce(json_agg(t), '[]') FROM (\
    SELECT n.nspname AS schema, c.relname AS name, \
      coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT'), true) AS readable \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
      AND (c.oid IN (SELECT unnest(extconfig) FROM pg_extension) OR NOT EXISTS (SELECT FROM pg_depend d \
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')) \
    ORDER BY n.nspname, c.relname) t";

const PROPERTIES: &str = "SELECT json_build_object('owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding), 'row', to_jsonb(d), \
    'tablespace', (SELECT spcname FROM pg_tablespace WHERE oid = d.dattablespace), \
    'rights', (SELECT coalesce(json_agg(json_build_array(CASE WHEN grantee = 0 THEN '' ELSE pg_get_userbyid(grantee) END, \
      privilege_type, is_grantable)), '[]') FROM aclexplode(d.datacl)), \
    'settings', (SELECT coalesce(json_agg(json_build_array(coalesce(r.rolname, ''), s.setting)), '[]') FROM \
      (SELECT setrole, unnest(setconfig) AS setting FROM pg_db_role_setting WHERE setdatabase = d.oid) s LEFT JOIN pg_roles r ON r.oid = s.setrole), \
    'comment', shobj_description(d.oid, 'pg_database')) FROM pg_database d WHERE d.datname = current_database()";

/// Of the role that the cluster was made with, the server keeps no dependencies (it is pinned): whether it owns something of a user is looked up.
/// 16384 is the first number that is not PostgreSQL's own (`FirstNormalObjectId`).
const ROLES: &str = "SELECT coalesce(json_agg(r ORDER BY r), '[]') FROM (\
    SELECT r.rolname AS r FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid \
      WHERE d.refclassid = 'pg_authid'::regclass AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
    UNION SELECT r.rolname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = current_database() \
    UNION SELECT r.rolname FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE d.datname = current_database() \
    UNION SELECT r.rolname FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase JOIN pg_roles r ON r.oid = s.setrole \
      WHERE d.datname = current_database() \
    UNION SELECT r.rolname FROM pg_roles r WHERE r.oid = 10 AND EXISTS (SELECT FROM (\
      SELECT 'pg_class'::regclass AS class, oid, relowner AS owner FROM pg_class UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc \
      UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace \
      UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator UNION ALL SELECT 'pg_collation'::regclass, oid, collowner FROM pg_collation \
      UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata) o \
      WHERE o.owner = 10 AND o.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'))) t";

const EXTENSIONS: &str =
    "SELECT coalesce(json_agg(json_build_array(extname, extversion) ORDER BY extname), '[]') FROM pg_extension";

const FOREIGN: &str = "SELECT coalesce(json_agg(t), '[]') FROM (SELECT n.nspname AS schema, c.relname AS name \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'f' ORDER BY 1, 2) t";

/// Views and what they read, to find the order of those that hold rows.
const VIEWS: &str = "SELECT json_build_object(\
    'views', (SELECT coalesce(json_agg(json_build_object('oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, \
        'filled', c.relkind = 'm' AND c.relispopulated)), '[]') \
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
      WHERE c.relkind IN ('m', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema')), \
    'reads', (SELECT coalesce(json_agg(DISTINCT jsonb_build_array(r.ev_class::bigint, d.refobjid::bigint)), '[]') \
      FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class \
      JOIN pg_class c ON c.oid = d.refobjid AND c.relkind IN ('m', 'v') \
      JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('m', 'v')))";

/// Sequences that are asked in one statement.
const AT_ONCE: usize = 200;

/// What a table is, apart from its rows: a rewrite gives it another file, and another file has no rows for an older snapshot.
fn shapes(tables: &[Found]) -> String {
    let oids: Vec<String> = tables.iter().map(|table| table.oid.to_string()).collect();
    format!(
        "SELECT coalesce(json_agg(t ORDER BY t.oid), '[]') FROM (SELECT c.oid::bigint, c.relfilenode::bigint AS file, n.nspname AS schema, c.relname AS name, \
           (SELECT md5(string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped, a.attgenerated), ';' ORDER BY a.attnum)) \
             FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS columns \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ('{{{}}}'::oid[])) t",
        oids.join(",")
    )
}

/// Whether `tables` are for another session, which sees what is there now, what they are in the snapshot of `held`. To be asked when they are locked.
pub(super) async fn are_as_in_snapshot(held: &Sql, now: &Sql, tables: &[Found]) -> Result<bool> {
    let asked = shapes(tables);
    let (then, now): (serde_json::Value, serde_json::Value) = (ask(held, &asked).await?, ask(now, &asked).await?);
    Ok(then == now)
}

/// A table as the catalog describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its number.
    pub oid: u32,
    /// Its name.
    #[serde(flatten)]
    pub name: Name,
    /// Its columns but the generated ones.
    pub columns: Vec<String>,
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether its rows have places in pages.
    pub heap: bool,
    /// Of an extension's own table: which rows are a user's.
    pub condition: Option<String>,
    /// Which rows are wanted, where not all are: `WHERE …`.
    #[serde(skip)]
    pub only: Option<String>,
    /// Of which table it is a partition.
    pub of: Option<Name>,
    /// Whether we may read it.
    pub readable: bool,
    /// Whether policies would hide rows from us.
    pub filtered: bool,
}

/// Asks for one JSON text.
pub(in crate::postgres) async fn ask<T: DeserializeOwned>(sql: &Sql, statement: &str) -> Result<T> {
    let rows = sql.text(OP, statement).await?;
    let text = rows.into_iter().flatten().flatten().next();
    let text = text.ok_or_else(|| odd(sql, "it gives no answer"))?;
    serde_json::from_str(&text).map_err(|error| odd(sql, &error.to_string()).with_source(error))
}

fn odd(sql: &Sql, detail: &str) -> Error {
    Error::new(
        ErrorKind::Incompatible,
        OP,
        sql.subject(),
        format!("an answer is not understood: {detail}"),
    )
}

/// All tables whose rows belong into a backup.
///
/// # Errors
/// `ConfigInvalid` where one of them may not be read or would be read in part; the text names all of them.
pub(super) async fn tables(sql: &Sql) -> Result<Vec<Found>> {
    let found: Vec<Found> = ask(sql, TABLES).await?;
    let named = |of: &dyn Fn(&Found) -> bool| {
        let names: Vec<String> = found
            .iter()
            .filter(|table| of(table))
            .map(|table| table.name.to_string())
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(&|table| !table.readable) {
        return Err(refused(sql, format!("it may not read {names}"))
            .with_hint("GRANT pg_read_all_data TO the role (`lifeboat init --postgres URL --create-role` makes one that may)"));
    }
    if let Some(names) = named(&|table| table.filtered) {
        return Err(refused(sql, format!("row-level security would hide rows from it in {names}"))
            .with_hint("ALTER ROLE … BYPASSRLS for the role that makes backups: a backup of some rows is none"));
    }
    Ok(found)
}

fn refused(sql: &Sql, detail: String) -> Error {
    Error::new(ErrorKind::ConfigInvalid, "back up as", sql.subject(), detail)
}

#[derive(Deserialize)]
struct SequenceName {
    #[serde(flatten)]
    name: Name,
    readable: bool,
}

/// All sequences and where they are.
pub(super) async fn sequences(sql: &Sql) -> Result<Vec<Sequence>> {
    let names: Vec<SequenceName> = ask(sql, SEQUENCES).await?;
    let closed: Vec<String> = names
        .iter()
        .filter(|one| !one.readable)
        .map(|one| one.name.to_string())
        .collect();
    if !closed.is_empty() {
        return Err(refused(sql, format!("it may not read the sequences {}", closed.join(", ")))
            .with_hint("GRANT pg_read_all_data TO the role"));
    }
    let mut all = Vec::new();
    for some in names.chunks(AT_ONCE) {
        let values: Vec<String> = some
            .iter()
            .map(|one| {
                format!(
                    "SELECT {} AS schema, {} AS name, last_value, is_called FROM {}",
                    quoted_text(&one.name.schema),
                    quoted_text(&one.name.name),
                    one.name.sql()
                )
            })
            .collect();
        let asked = format!("SELECT coalesce(json_agg(t), '[]') FROM ({}) t", values.join(" UNION ALL "));
        all.extend(ask::<Vec<Sequence>>(sql, &asked).await?);
    }
    Ok(all)
}

#[derive(Deserialize)]
struct PropertiesJson {
    owner: String,
    encoding: String,
    row: serde_json::Map<String, serde_json::Value>,
    tablespace: String,
    rights: Vec<(String, String, bool)>,
    settings: Vec<(String, String)>,
    comment: Option<String>,
}

/// What the database was made with. Columns that a version does not have are left out.
pub(super) async fn properties(sql: &Sql) -> Result<Properties> {
    let json: PropertiesJson = ask(sql, PROPERTIES).await?;
    let text = |name: &str| json.row.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    Ok(Properties {
        collate: text("datcollate"),
        ctype: text("datctype"),
        provider: text("datlocprovider").unwrap_or_else(|| "c".to_owned()),
        // `daticulocale` until 16, `datlocale` since 17.
        locale: text("datlocale").or_else(|| text("daticulocale")),
        icu_rules: text("daticurules"),
        connection_limit: json.row.get("datconnlimit").and_then(serde_json::Value::as_i64).unwrap_or(-1),
        has_rights: text("datacl").is_some() || json.row.get("datacl").is_some_and(|acl| !acl.is_null()),
        owner: json.owner,
        encoding: json.encoding,
        tablespace: json.tablespace,
        rights: json.rights,
        settings: json.settings,
        comment: json.comment,
    })
}

/// Roles that own something in the database or have rights there.
pub(super) async fn roles(sql: &Sql) -> Result<Vec<String>> {
    ask(sql, ROLES).await
}

/// Extensions and their versions.
pub(super) async fn extensions(sql: &Sql) -> Result<Vec<(String, String)>> {
    ask(sql, EXTENSIONS).await
}

/// Tables whose rows live elsewhere.
pub(super) async fn foreign(sql: &Sql) -> Result<Vec<Name>> {
    ask(sql, FOREIGN).await
}

#[derive(Deserialize)]
struct Views {
    views: Vec<View>,
    reads: Vec<(u32, u32)>,
}

#[derive(Deserialize)]
struct View {
    oid: u32,
    #[serde(flatten)]
    name: Name,
    filled: bool,
}

/// Materialised views that hold rows, each behind those that it reads.
pub(super) async fn materialized(sql: &Sql) -> Result<Vec<Name>> {
    let Views { views, reads } = ask(sql, VIEWS).await?;
    Ok(in_order(views, &reads))
}

fn in_order(views: Vec<View>, reads: &[(u32, u32)]) -> Vec<Name> {
    let mut left: BTreeMap<u32, View> = views.into_iter().map(|view| (view.oid, view)).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let waits = |oid: &u32| reads.iter().any(|(reader, read)| reader == oid && left.contains_key(read));
        let mut free: BTreeSet<u32> = left.keys().filter(|oid| !waits(oid)).copied().collect();
        if free.is_empty() {
            // Views cannot read each other in a circle; should they, no order is right.
            free = left.keys().copied().collect();
        }
        for oid in free {
            order.extend(left.remove(&oid).filter(|view| view.filled).map(|view| view.name));
        }
    }
    order
}

/// Databases that take connections and are no templates.
pub(super) async fn databases(sql: &Sql) -> Result<Vec<String>> {
    ask(
        sql,
        "SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE datallowconn AND NOT datistemplate",
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_filled_behind_what_it_reads() {
        let view = |oid: u32, name: &str, filled: bool| View {
            oid,
            name: Name {
                schema: "s".into(),
                name: name.into(),
            },
            filled,
        };
        // 1 reads the plain view 2, which reads 3; 4 reads nothing and is empty.
        let views = vec![
            view(1, "last", true),
            view(2, "plain", false),
            view(3, "first", true),
            view(4, "empty", false),
        ];
        let order = in_order(views, &[(1, 2), (2, 3)]);
        let names: Vec<&str> = order.iter().map(|name| name.name.as_str()).collect();
        assert_eq!(names, ["first", "last"]);
    }
}
