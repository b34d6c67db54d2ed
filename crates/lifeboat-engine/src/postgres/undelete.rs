//! Rows that an application marked as deleted, alive again: looked for, changed in one transaction, and put back as they were.
//!
//! A row is known by its primary key, and by a hash of all of it: whatever somebody changed in between shows. Values are parameters, and names come out of
//! the catalog. Triggers of users stay on: they keep the application's own books.

use std::collections::BTreeMap;

use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;

use super::conninfo::ConnInfo;
use super::logical::{SETTINGS, catalog, quoted_name, quoted_text};
use super::sql::Sql;

const OP: &str = "undelete rows in";
const UNDO: &str = "undo the undelete in";
/// How long a table or a row is waited for that somebody else holds.
const LOCK_WAIT: &str = "SET lock_timeout = '5s'";
/// While rows change, triggers of the application see what they would see in a session of its own.
const THEIRS: &str = "SET LOCAL TimeZone TO DEFAULT; SET LOCAL DateStyle TO DEFAULT; SET LOCAL row_security TO DEFAULT";
/// While they are read, text means the same each time.
const OURS: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL row_security = off";
/// Rows that one run changes, at most: they are held in memory.
pub const MOST_ROWS: usize = 1_000_000;
/// A row as a hash of its text.
const HASH: &str = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(t.*::text, 'UTF8')), 'hex')";

/// What marks a row as deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftDelete {
    /// The column with the time; null in a row that lives.
    pub column: String,
    /// Columns besides that are null in a row that lives.
    pub also: Vec<String>,
    /// Which zone its times are of, where the column does not say: `UTC`.
    pub zone: Option<String>,
}

impl Default for SoftDelete {
    fn default() -> Self {
        Self {
            column: "deleted_at".to_owned(),
            also: Vec::new(),
            zone: None,
        }
    }
}

/// Which rows.
#[derive(Debug, Clone)]
pub struct Scope {
    /// `TABLE` or `SCHEMA.TABLE`, as they are stored.
    pub tables: Vec<String>,
    /// Deleted later than this, RFC 3339.
    pub after: String,
    /// And not later than this.
    pub until: Option<String>,
    /// Columns and the values that they have.
    pub equal: Vec<(String, String)>,
}

/// A table that rows come back in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The columns of its primary key, in order.
    pub key: Vec<String>,
    /// The columns that become null: the one with the time first.
    pub columns: Vec<String>,
    /// Types of columns, as SQL.
    types: BTreeMap<String, String>,
    /// Whether its rows lie in partitions.
    partitioned: bool,
    /// Triggers of users that fire when a row changes.
    #[serde(default)]
    pub triggers: Vec<String>,
}

/// A row that was marked as deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The values of its key, as text.
    pub key: Vec<String>,
    /// What [`Table::columns`] held.
    pub old: Vec<Option<String>>,
    /// The whole row as a hash: when it was looked at, or as it was left.
    pub hash: String,
}

/// Rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Of which.
    pub table: Table,
    /// By key.
    pub rows: Vec<Row>,
}

impl Table {
    fn sql(&self) -> String {
        let only = if self.partitioned { "" } else { "ONLY " };
        format!("{only}{}.{}", quoted_name(&self.schema), quoted_name(&self.name))
    }

    fn cast(&self, parameter: usize, column: &str) -> String {
        let kind = self.types.get(column).map_or("text", String::as_str);
        format!("${parameter}::text::{kind}")
    }

    fn texts(columns: &[String]) -> String {
        let texts: Vec<String> = columns.iter().map(|name| format!("t.{}::text", quoted_name(name))).collect();
        format!("ARRAY[{}]", texts.join(", "))
    }

    /// `FROM`: the rows of these keys, whose values are the parameters from the first on. `with` is the number of texts for each row besides.
    fn keyed(&self, with: usize) -> (String, String) {
        let count = self.key.len() + with;
        let parameters: Vec<String> = (1..=count).map(|number| format!("${number}::text[]")).collect();
        let names: Vec<String> = (1..=count).map(|number| format!("v{number}")).collect();
        let from = format!(
            "unnest({}) WITH ORDINALITY AS g({}, n)",
            parameters.join(", "),
            names.join(", ")
        );
        let equal: Vec<String> = (self.key.iter().zip(&names))
            .map(|(column, name)| {
                let kind = self.types.get(column).map_or("text", String::as_str);
                format!("t.{} = g.{name}::{kind}", quoted_name(column))
            })
            .collect();
        (from, equal.join(" AND "))
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

#[derive(Deserialize)]
struct Found {
    schema: String,
    name: String,
    kind: String,
    first: bool,
    key: Vec<String>,
    types: BTreeMap<String, String>,
    triggers: Vec<String>,
}

const FIND: &str = "SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'name', c.relname, 'kind', c.relkind, \
      'first', pg_table_is_visible(c.oid) AND c.relname = WANTED, \
      'key', (SELECT coalesce(json_agg(a.attname ORDER BY u.n), '[]') FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS u(k, n) \
          JOIN pg_attribute a ON a.attnum = u.k WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND u.n <= i.indnkeyatts), \
      'types', (SELECT coalesce(json_object_agg(a.attname, format_type(a.atttypid, -1)), '{}') FROM pg_attribute a \
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), \
      'triggers', (SELECT coalesce(json_agg(tgname ORDER BY tgname), '[]') FROM pg_trigger \
          WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 16 <> 0))), '[]') \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' \
      AND (c.relname = WANTED OR n.nspname || '.' || c.relname = WANTED)";

/// A session that looks for rows and changes them.
#[derive(Debug)]
pub struct Undelete {
    sql: Sql,
    mark: SoftDelete,
}

impl Undelete {
    /// Connects to the database.
    pub async fn connect(info: &ConnInfo, mark: SoftDelete) -> Result<Self> {
        let sql = Sql::connect(info).await?;
        sql.text(OP, SETTINGS).await?;
        // Triggers of the application find its tables where it finds them.
        sql.text(OP, "SET search_path TO DEFAULT").await?;
        sql.text(OP, LOCK_WAIT).await?;
        Ok(Self { sql, mark })
    }

    /// Which server it is, as far as it says.
    pub async fn server(&self) -> Result<String> {
        let asked = "SELECT pg_catalog.to_json(system_identifier::text) FROM pg_catalog.pg_control_system()";
        match catalog::ask::<String>(&self.sql, asked).await {
            Ok(identifier) => Ok(identifier),
            // A managed server may not say.
            Err(error) if error.kind() == ErrorKind::ConfigInvalid => Ok(self.sql.host().to_string()),
            Err(error) => Err(error),
        }
    }

    /// The rows in scope, as they are now.
    ///
    /// # Errors
    /// `Usage` where a table or a column is not there, `Refused` for what rows cannot come back in, and more rows than [`MOST_ROWS`].
    pub async fn preview(&self, scope: &Scope) -> Result<Vec<Rows>> {
        let tables = self.tables(scope).await?;
        let mut all = Vec::new();
        for table in tables {
            let rows = self.select(&table, scope, "").await?;
            all.push(Rows { table, rows });
        }
        if all.iter().map(|rows| rows.rows.len()).sum::<usize>() > MOST_ROWS {
            return Err(self.refused(
                format!("more than {MOST_ROWS} rows are in scope"),
                "choose a shorter time, fewer tables, or a --where",
            ));
        }
        Ok(all)
    }

    async fn tables(&self, scope: &Scope) -> Result<Vec<Table>> {
        let mut tables: Vec<Table> = Vec::new();
        for wanted in &scope.tables {
            let table = self.table(wanted, scope).await?;
            if !tables
                .iter()
                .any(|one| (&one.schema, &one.name) == (&table.schema, &table.name))
            {
                tables.push(table);
            }
        }
        let missing = |column: &&String| !tables.iter().any(|table| table.columns.contains(column));
        if let Some(column) = self.mark.also.iter().find(missing) {
            return Err(self.usage(
                format!("none of the tables has the column {column}, which `soft_delete` names"),
                "mend `also` in lifeboat.yaml",
            ));
        }
        // Whoever else does this takes them in the same order.
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        Ok(tables)
    }

    async fn table(&self, wanted: &str, scope: &Scope) -> Result<Table> {
        let found = self.find(wanted).await?;
        self.check(wanted, &found, scope)?;
        let column = &self.mark.column;
        let also = self.mark.also.iter().filter(|column| found.types.contains_key(*column));
        Ok(Table {
            columns: std::iter::once(column).chain(also).cloned().collect(),
            partitioned: found.kind == "p",
            schema: found.schema,
            name: found.name,
            key: found.key,
            types: found.types,
            triggers: found.triggers,
        })
    }

    /// The one table that is meant.
    async fn find(&self, wanted: &str) -> Result<Found> {
        let mut found: Vec<Found> = catalog::ask(&self.sql, &FIND.replace("WANTED", &quoted_text(wanted))).await?;
        if found.iter().any(|one| one.first) {
            found.retain(|one| one.first);
        }
        let names: Vec<String> = found.iter().map(|one| format!("{}.{}", one.schema, one.name)).collect();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            _ => Err(if names.is_empty() {
                self.usage(
                    format!("there is no table {wanted}"),
                    "a name is written as it is stored: TABLE or SCHEMA.TABLE",
                )
            } else {
                self.usage(
                    format!("{wanted} means several tables: {}", names.join(", ")),
                    "write SCHEMA.TABLE",
                )
            }),
        }
    }

    /// Whether rows can come back in it, and be found again.
    fn check(&self, wanted: &str, found: &Found, scope: &Scope) -> Result<()> {
        let column = &self.mark.column;
        if !matches!(found.kind.as_str(), "r" | "p") {
            return Err(self.refused(
                format!("{wanted} is a view or a foreign table"),
                "name the tables that hold the rows",
            ));
        }
        if found.key.is_empty() {
            return Err(self.refused(
                format!("{wanted} has no primary key: what was changed in it could not be found again"),
                "give it one, or change its rows by hand",
            ));
        }
        let zoned = match found.types.get(column).map(String::as_str) {
            Some("timestamp with time zone") => true,
            Some("timestamp without time zone") => false,
            Some(kind) => {
                let detail =
                    format!("{column} of {wanted} is of the type {kind}: rows are found by the time when they were deleted");
                return Err(self.refused(
                    detail,
                    "name the column with the time: `soft_delete: { column: … }` beside `url` in lifeboat.yaml",
                ));
            }
            None => {
                let detail = format!("{wanted} has no column {column}");
                return Err(self.refused(
                    detail,
                    "`soft_delete: { column: … }` beside `url` in lifeboat.yaml says which marks a deleted row",
                ));
            }
        };
        if !zoned && self.mark.zone.is_none() {
            let detail = format!("{column} of {wanted} has no zone, so nobody knows which moments its times are");
            return Err(self.refused(detail, "write which it is into lifeboat.yaml: `soft_delete: { zone: UTC }`"));
        }
        if let Some((column, _)) = scope.equal.iter().find(|(column, _)| !found.types.contains_key(column)) {
            return Err(self.usage(
                format!("{wanted} has no column {column}, so --where cannot hold there"),
                "undelete the tables with that column first, and the others by themselves",
            ));
        }
        Ok(())
    }

    /// Rows in scope; `lock` stands at the end of the query.
    async fn select(&self, table: &Table, scope: &Scope, lock: &str) -> Result<Vec<Row>> {
        let column = quoted_name(&self.mark.column);
        let zoned = table
            .types
            .get(&self.mark.column)
            .is_some_and(|kind| kind.ends_with("with time zone"));
        let mut values: Vec<String> = vec![scope.after.clone()];
        let time = match &self.mark.zone {
            Some(zone) if !zoned => format!("(t.{column} AT TIME ZONE {})", quoted_text(zone)),
            _ => format!("t.{column}"),
        };
        let mut terms = vec![format!("{time} > $1::text::timestamptz")];
        if let Some(until) = &scope.until {
            values.push(until.clone());
            terms.push(format!("{time} <= ${}::text::timestamptz", values.len()));
        }
        for (column, value) in &scope.equal {
            values.push(value.clone());
            terms.push(format!("t.{} = {}", quoted_name(column), table.cast(values.len(), column)));
        }
        let order: Vec<String> = table.key.iter().map(|name| format!("t.{}", quoted_name(name))).collect();
        let sql = format!(
            "SELECT {}, {}, {HASH} FROM {} t WHERE {} ORDER BY {} LIMIT {}{lock}",
            Table::texts(&table.key),
            Table::texts(&table.columns),
            table.sql(),
            terms.join(" AND "),
            order.join(", "),
            MOST_ROWS + 1,
        );
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let rows = self.sql.client.query(&sql, &values).await;
        let rows = rows.map_err(|error| self.sql.error(OP, error))?;
        let row = |row: &tokio_postgres::Row| Row {
            key: row.get(0),
            old: row.get(1),
            hash: row.get(2),
        };
        Ok(rows.iter().map(row).collect())
    }

    /// Changes what the preview showed, in a transaction that stays open: the rows are locked, compared with the preview, changed, and read back. Returns
    /// them with their hashes as they are now. [`Undelete::commit`] makes it last; a session that is dropped takes it back.
    ///
    /// # Errors
    /// `Refused` where a row is not what was shown, or a trigger kept it as it is; `Locked` where somebody holds one.
    pub async fn change(&self, scope: &Scope, shown: &[Rows]) -> Result<Vec<Rows>> {
        self.begin(OP).await?;
        for rows in shown {
            let now = self.select(&rows.table, scope, " FOR UPDATE OF t").await?;
            if now != rows.rows {
                let detail = format!("rows of {} changed since they were looked at", rows.table);
                return Err(self.refused(detail, "nothing was changed: look again, then decide"));
            }
        }
        self.sql.text(OP, THEIRS).await?;
        for rows in shown {
            let Rows { table, rows } = rows;
            let set: Vec<String> = table
                .columns
                .iter()
                .map(|name| format!("{} = NULL", quoted_name(name)))
                .collect();
            let (from, equal) = table.keyed(0);
            let sql = format!("UPDATE {} t SET {} FROM {from} WHERE {equal}", table.sql(), set.join(", "));
            let keys = columns_of(table, rows, false);
            let changed = self.execute(OP, &sql, &keys).await.map_err(unique)?;
            self.all_changed(table, rows.len(), changed)?;
        }
        // Whatever would be looked at only at the end is looked at now.
        self.sql.text(OP, "SET CONSTRAINTS ALL IMMEDIATE").await.map_err(unique)?;
        self.sql.text(OP, OURS).await?;
        let mut changed = Vec::new();
        for rows in shown {
            let hashes = self.hashes(OP, &rows.table, &rows.rows, "").await?;
            let mut left = rows.clone();
            for (row, now) in left.rows.iter_mut().zip(hashes) {
                match now {
                    Some((hash, true)) => row.hash = hash,
                    _ => self.all_changed(&rows.table, 1, 0)?,
                }
            }
            changed.push(left);
        }
        Ok(changed)
    }

    /// Puts back what the columns held, in rows that still are as they were left, in a transaction that stays open. Returns those that are not, by table.
    ///
    /// # Errors
    /// `Locked` where somebody holds a row, `Refused` where a trigger kept one as it is, `Failed` where the table is not what it was.
    pub async fn put_back(&self, all: &[Rows]) -> Result<Vec<Rows>> {
        self.begin(UNDO).await?;
        let mut others = Vec::new();
        for Rows { table, rows } in all {
            self.sql.text(UNDO, OURS).await?;
            let hashes = self.hashes(UNDO, table, rows, " FOR UPDATE OF t").await?;
            self.sql.text(UNDO, THEIRS).await?;
            let (mut same, mut other) = (Vec::new(), Vec::new());
            for (row, now) in rows.iter().zip(hashes) {
                let is_ours = now.is_some_and(|(hash, _)| hash == row.hash);
                if is_ours { &mut same } else { &mut other }.push(row.clone());
            }
            let set: Vec<String> = (table.columns.iter().enumerate())
                .map(|(index, column)| {
                    let kind = table.types.get(column).map_or("text", String::as_str);
                    format!("{} = g.v{}::{kind}", quoted_name(column), table.key.len() + index + 1)
                })
                .collect();
            let (from, equal) = table.keyed(table.columns.len());
            let sql = format!("UPDATE {} t SET {} FROM {from} WHERE {equal}", table.sql(), set.join(", "));
            let changed = self.execute(UNDO, &sql, &columns_of(table, &same, true)).await?;
            self.all_changed(table, same.len(), changed)?;
            others.push(Rows {
                table: table.clone(),
                rows: other,
            });
        }
        self.sql.text(UNDO, "SET CONSTRAINTS ALL IMMEDIATE").await?;
        Ok(others)
    }

    /// Makes the change last.
    ///
    /// # Errors
    /// `Unreachable` where the connection broke: then nobody knows whether it lasts.
    pub async fn commit(self) -> Result<()> {
        self.sql.text(OP, "COMMIT").await.map(drop)
    }

    async fn begin(&self, op: &'static str) -> Result<()> {
        self.sql
            .text(op, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            .await
            .map(drop)
    }

    async fn execute(&self, op: &'static str, sql: &str, columns: &[Vec<Option<String>>]) -> Result<u64> {
        let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        let changed = self.sql.client.execute(sql, &values).await;
        changed.map_err(|error| self.sql.error(op, error))
    }

    /// The rows of these keys in their order, and whether they live; none where there is no such row.
    async fn hashes(&self, op: &'static str, table: &Table, rows: &[Row], lock: &str) -> Result<Vec<Option<(String, bool)>>> {
        let (from, equal) = table.keyed(0);
        let lives: Vec<String> = table
            .columns
            .iter()
            .map(|name| format!("t.{} IS NULL", quoted_name(name)))
            .collect();
        let sql = format!(
            "SELECT g.n, {HASH}, {} FROM {} t, {from} WHERE {equal} ORDER BY g.n{lock}",
            lives.join(" AND "),
            table.sql()
        );
        let columns = columns_of(table, rows, false);
        let values: Vec<&(dyn ToSql + Sync)> = columns.iter().map(|column| column as _).collect();
        let found = self.sql.client.query(&sql, &values).await;
        let mut hashes = vec![None; rows.len()];
        for row in found.map_err(|error| self.sql.error(op, error))? {
            let number: i64 = row.get(0);
            let place = usize::try_from(number - 1).ok().and_then(|index| hashes.get_mut(index));
            if let Some(place) = place {
                *place = Some((row.get(1), row.get(2)));
            }
        }
        Ok(hashes)
    }

    fn all_changed(&self, table: &Table, wanted: usize, changed: u64) -> Result<()> {
        if changed == wanted as u64 {
            return Ok(());
        }
        let detail = format!(
            "a trigger or a rule of {table} kept {} of {wanted} rows as they were",
            wanted as u64 - changed.min(wanted as u64)
        );
        Err(self.refused(detail, "nothing was changed: look at the triggers of the table"))
    }

    fn refused(&self, detail: String, hint: &str) -> Error {
        Error::new(ErrorKind::Refused, OP, self.sql.subject(), detail).with_hint(hint.to_owned())
    }

    fn usage(&self, detail: String, hint: &str) -> Error {
        Error::new(ErrorKind::Usage, OP, self.sql.subject(), detail).with_hint(hint.to_owned())
    }
}

/// The values of the key, and with `old` what was there, as one list for each column.
fn columns_of(table: &Table, rows: &[Row], old: bool) -> Vec<Vec<Option<String>>> {
    let key = (0..table.key.len()).map(|index| rows.iter().map(|row| row.key.get(index).cloned()).collect());
    let mut columns: Vec<Vec<Option<String>>> = key.collect();
    if old {
        let old = (0..table.columns.len()).map(|index| rows.iter().map(|row| row.old.get(index).cloned().flatten()).collect());
        columns.extend(old);
    }
    columns
}

/// Where a living row has taken the place of a deleted one, a person has to choose.
fn unique(error: Error) -> Error {
    if super::sqlstate(&error) != Some("23505") {
        return error;
    }
    let detail = format!("a living row has the place of one that would come back: {}", error.detail());
    Error::new(ErrorKind::Refused, OP, error.subject().to_owned(), detail)
        .with_hint("nothing was changed: decide which of the two stays, or leave it out with --where")
        .with_source(error)
}
