//! Rows of a tenant, or of some tables, into a live database: staged beside, compared by key, and brought in by one transaction (docs/tenants.md, "A restore of a tenant").

use lifeboat_model::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::super::catalog;
use super::super::destination::Inside;
use super::super::facts::Name;
use super::super::{quoted_name, quoted_text};
use super::relations::{Link, Relation, list, same};
use super::steps::{plan_name, told};
use super::{NAMED, Scope, filled};
use crate::postgres::sql::Sql;
use crate::postgres::sqlstate;

const OP: &str = "bring rows into";

/// A live table, and where the rows lie that it is to have.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The live table.
    pub live: Relation,
    /// The staged one.
    pub staged: Name,
    /// Columns that were captured, in that order; the live table has them all.
    pub columns: Vec<String>,
}

/// What would be done to a table, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub table: Name,
    /// Rows that are missing there.
    pub inserts: u64,
    /// Rows that are others now.
    pub updates: u64,
    /// Rows that were not there then.
    pub deletes: u64,
    /// The keys of some, as PostgreSQL writes rows, behind what is done with each.
    pub samples: Vec<String>,
    /// Of all of them.
    fingerprint: String,
}

impl Change {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.inserts + self.updates + self.deletes == 0
    }
}

#[derive(Deserialize)]
struct Told {
    inserts: u64,
    updates: u64,
    deletes: u64,
    clashes: Vec<String>,
    samples: Vec<String>,
    fingerprint: String,
}

/// Rows of one tenant on their way into a live database.
#[derive(Debug)]
pub struct Merge {
    inside: Inside,
    scope: Scope,
    schema: String,
    /// Rows that were not there then go.
    deletes: bool,
    tables: Vec<Staged>,
}

/// How many rows, and the sum of a hash of each.
type Sum = (u64, String);

impl Merge {
    /// Into the database of `inside`, by way of the staging schema `schema`. With `deletes`, rows that were not there then go.
    #[must_use]
    pub fn new(inside: Inside, scope: Scope, schema: String, deletes: bool) -> Self {
        Self {
            inside,
            scope,
            schema,
            deletes,
            tables: Vec::new(),
        }
    }

    fn sql(&self) -> &Sql {
        self.inside.sql()
    }

    /// The session.
    #[must_use]
    pub fn inside(&self) -> &Inside {
        &self.inside
    }

    /// Triggers of these tables that run whatever is said, and see what is done.
    #[must_use]
    pub fn always(&self) -> Vec<String> {
        let of = |table: &Staged| {
            let names = table.live.always.iter();
            names.map(|name| format!("{name} of {}", table.live.name)).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of).collect()
    }

    /// Makes the staging schema, and in it a table for each of `wanted`: tables and the columns that were captured.
    ///
    /// # Errors
    /// `Refused` where a live table lacks a captured column.
    pub async fn prepare(&mut self, wanted: &[(Name, Vec<String>)]) -> Result<()> {
        let (sql, scope, schema) = (self.inside.sql(), &self.scope, &self.schema);
        // Also says that this session works on it, and removes what was left of others.
        self.inside.claim(schema).await?;
        let mut tables = Vec::new();
        sql.text(OP, &format!("CREATE SCHEMA {}", quoted_name(schema))).await?;
        for (number, (name, columns)) in wanted.iter().enumerate() {
            let Some(live) = scope.scoped().find(|table| table.name == *name) else {
                let detail = format!(
                    "{name} holds rows in the backup that are meant, and is not a table of {} here",
                    scope.what
                );
                return Err(refused(scope, detail).with_hint("say in the tenant map whose rows it holds"));
            };
            let lacking: Vec<&str> = (columns.iter().filter(|column| !live.columns.contains(column)))
                .map(String::as_str)
                .collect();
            if !lacking.is_empty() {
                let detail = format!(
                    "{name} has no {} any more: what the backup holds there would be lost",
                    lacking.join(", ")
                );
                return Err(refused(scope, detail).with_hint("restore beside (`--to`), and bring the rows over by hand"));
            }
            let staged = Staged {
                live: live.clone(),
                staged: Name {
                    schema: schema.clone(),
                    name: format!("t{number}"),
                },
                columns: columns.clone(),
            };
            if live.elsewhere {
                let detail = format!("partitions of {name} live on another server, and their rows are in no backup");
                return Err(refused(scope, detail).with_hint("restore beside (`--to`), and bring the rows over by hand"));
            }
            if columns.is_empty() {
                let detail = format!("{name} has no columns, so none of its rows is another than the others");
                return Err(refused(scope, detail).with_hint("leave it out"));
            }
            if staged.has_more() && !staged.has_key() {
                let detail = format!("{name} has columns that the backup does not know, and no primary key: they would be lost");
                return Err(refused(scope, detail).with_hint("restore beside (`--to`), and bring the rows over by hand"));
            }
            let make = format!(
                "CREATE UNLOGGED TABLE {} AS SELECT {} FROM {} WITH NO DATA",
                staged.staged.sql(),
                list("", columns),
                live.from()
            );
            sql.text(OP, &make).await?;
            tables.push(staged);
        }
        self.tables = tables;
        Ok(())
    }

    /// Removes the staging schema.
    pub async fn remove(&self) -> Result<()> {
        self.inside.drop_schema(&self.schema).await
    }

    /// Tables with rows that are meant, of which the backup has nothing: they stay as they are.
    #[must_use]
    pub fn passed_over(&self) -> Vec<String> {
        let is_staged = |name: &Name| self.tables.iter().any(|table| table.live.name == *name);
        let others = self.scope.scoped().filter(|table| !is_staged(&table.name));
        others.map(|table| table.name.to_string()).collect()
    }

    /// Tables of which all rows are meant.
    pub fn wanted(&self) -> impl Iterator<Item = &Name> {
        self.scope.whole.iter()
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &[Staged] {
        &self.tables
    }

    /// When the rows are there: they become those of the tenant of this merge, who has another name than `was`.
    pub async fn rename(&self, was: &str) -> Result<()> {
        let mut old = self.scope.clone();
        was.clone_into(&mut old.what);
        old.settle(self.sql()).await?;
        let columns = self.scope.tenant_columns();
        for table in &self.tables {
            let of_table = columns.get(&table.live.name).into_iter().flatten();
            for column in of_table.filter(|column| table.columns.contains(column)) {
                let column = quoted_name(column);
                let rename = format!(
                    "UPDATE {} SET {column} = {} WHERE {column} = {}",
                    table.staged.sql(),
                    quoted_text(&self.scope.what),
                    quoted_text(&old.what)
                );
                let renamed = self.sql().text(OP, &rename).await;
                renamed.map_err(|error| self.scope.misnamed(error))?;
            }
        }
        Ok(())
    }

    /// When the rows are there: keys, so that they are found.
    pub async fn index(&self) -> Result<()> {
        for table in &self.tables {
            let staged = table.staged.sql();
            if table.has_key() {
                let key = list("", &table.live.key);
                self.sql()
                    .text(OP, &format!("ALTER TABLE {staged} ADD PRIMARY KEY ({key})"))
                    .await?;
            }
            self.sql().text(OP, &format!("ANALYZE {staged}")).await?;
        }
        Ok(())
    }

    /// What would be done, in a transaction that changes nothing.
    pub async fn preview(&self) -> Result<Vec<Change>> {
        self.sql().text(OP, "BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let planned = self.plan().await;
        let ended = self.sql().text(OP, "ROLLBACK").await;
        let planned = planned?;
        ended?;
        Ok(planned)
    }

    async fn plan(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (number, table) in self.tables.iter().enumerate() {
            let Some(steps) = table.steps(&self.scope, number) else {
                continue;
            };
            self.sql().text(OP, &steps.plan).await?;
            if !self.deletes {
                let keep = format!("DELETE FROM pg_temp.{} WHERE lifeboat_what = 'delete'", plan_name(number));
                self.sql().text(OP, &keep).await?;
            }
            let told: Told = catalog::ask(self.sql(), &told(number)).await?;
            if !told.clashes.is_empty() {
                let detail = format!(
                    "{} has rows of somebody else under keys of the tenant: {}",
                    table.live.name,
                    told.clashes.join(", ")
                );
                return Err(
                    refused(&self.scope, detail).with_hint("restore beside (`--to`): these keys were given away meanwhile")
                );
            }
            changes.push(Change {
                table: table.live.name.clone(),
                inserts: told.inserts,
                updates: told.updates,
                deletes: told.deletes,
                samples: told.samples,
                fingerprint: told.fingerprint,
            });
        }
        Ok(changes)
    }

    /// Does what was shown, in one transaction. Returns how many rows of others were looked at, before and after, in the tables that changed.
    ///
    /// # Errors
    /// `Refused` where it is not what was shown any more, where a foreign key would lead nowhere, where rows of others would be others;
    /// `ConfigInvalid` without the right to keep triggers quiet; `Locked` where somebody holds a table. Nothing was changed then. Where the connection broke
    /// at the very end, nobody knows, and the hint says so.
    pub async fn apply(&self, shown: &[Change], lock_wait_ms: u64) -> Result<u64> {
        self.sql().text(OP, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let done = self.change(shown, lock_wait_ms).await;
        match done {
            Ok(others) => match self.sql().text(OP, "COMMIT").await {
                Ok(_) => Ok(others),
                // The server itself said no.
                Err(error) if sqlstate(&error).is_some() => Err(error),
                Err(error) => {
                    Err(error.with_hint("the server did not say whether it was done: the same command with --dry-run shows it"))
                }
            },
            Err(error) => {
                // Where the session is gone, so is what it did.
                drop(self.sql().text(OP, "ROLLBACK").await);
                Err(error)
            }
        }
    }

    async fn change(&self, shown: &[Change], lock_wait_ms: u64) -> Result<u64> {
        self.lock(lock_wait_ms).await?;
        let planned = self.plan().await?;
        if planned != shown {
            let detail = "the rows changed since they were looked at";
            return Err(refused(&self.scope, detail.to_owned()).with_hint("run it again, and look at what it would do"));
        }
        let busy: Vec<(usize, &Staged)> = (self.tables.iter().enumerate())
            .filter(|(_, table)| {
                planned
                    .iter()
                    .any(|change| change.table == table.live.name && !change.is_none())
            })
            .collect();
        let before = self.others(&busy).await?;
        for (number, table) in &busy {
            let steps = table.steps(&self.scope, *number);
            for step in steps.iter().flat_map(|steps| &steps.apply) {
                self.sql().text(OP, step).await?;
            }
        }
        self.check_links(&busy).await?;
        self.check_unique(&busy).await?;
        for (_, table) in &busy {
            self.raise_sequences(table).await?;
        }
        let after = self.others(&busy).await?;
        if before != after {
            return Err(refused(&self.scope, "rows that are not meant would be others".to_owned())
                .with_hint("a trigger that always runs changed them; nothing was kept"));
        }
        for number in 0..self.tables.len() {
            let drop = format!(
                "DROP TABLE IF EXISTS pg_temp.{}, pg_temp.lifeboat_places_{number}",
                plan_name(number)
            );
            self.sql().text(OP, &drop).await?;
        }
        let left: Vec<String> = (self.plan().await?.iter())
            .filter(|change| !change.is_none())
            .map(|change| change.table.to_string())
            .collect();
        if !left.is_empty() {
            let detail = format!("what was brought in is not what was captured: {}", left.join(", "));
            return Err(refused(&self.scope, detail).with_hint("a trigger that always runs changed it; nothing was kept"));
        }
        Ok(after.iter().map(|(rows, _)| rows).sum())
    }

    /// Nobody else writes into these tables until the end, nor into those that they refer to: triggers that would look are quiet.
    async fn lock(&self, lock_wait_ms: u64) -> Result<()> {
        self.sql()
            .text(OP, &format!("SET LOCAL lock_timeout = {lock_wait_ms}"))
            .await?;
        let quiet = self.sql().text(OP, "SET LOCAL session_replication_role = replica").await;
        quiet.map_err(|error| {
            if sqlstate(&error) == Some("42501") {
                Error::new(
                    ErrorKind::ConfigInvalid,
                    OP,
                    &self.scope.what,
                    "the role may not keep triggers quiet, which would do to rows what was done to them before",
                )
                .with_source(error)
                .with_hint("connect as a superuser, or from PostgreSQL 15 on: GRANT SET ON PARAMETER session_replication_role TO the role")
            } else {
                error
            }
        })?;
        let mut own: Vec<String> = self.scope.scoped().map(Relation::from).collect();
        own.sort();
        let referred = self
            .scope
            .relations
            .links
            .iter()
            .filter(|link| self.scope.is_scoped(&link.child) && !self.scope.is_scoped(&link.parent));
        let parents = referred.filter_map(|link| self.scope.relations.table(&link.parent));
        let mut others: Vec<String> = parents.map(Relation::from).collect();
        others.sort();
        others.dedup();
        for (tables, mode) in [(own, "SHARE ROW EXCLUSIVE"), (others, "SHARE")] {
            if !tables.is_empty() {
                let lock = format!("LOCK TABLE {} IN {mode} MODE", tables.join(", "));
                self.sql().text(OP, &lock).await?;
            }
        }
        Ok(())
    }

    /// What the rows of everybody else add up to, table by table.
    async fn others(&self, busy: &[(usize, &Staged)]) -> Result<Vec<Sum>> {
        let mut sums = Vec::new();
        for (_, table) in busy {
            let rows = self.scope.rows(&table.live, true).unwrap_or_default();
            let asked = format!(
                "SELECT json_build_array(count(*), coalesce(sum(hashtextextended(l::text, 0)::numeric), 0)::text) FROM {rows} l"
            );
            sums.push(catalog::ask(self.sql(), &asked).await?);
        }
        Ok(sums)
    }

    /// Every foreign key of a changed table, and every one to it, leads somewhere.
    async fn check_links(&self, busy: &[(usize, &Staged)]) -> Result<()> {
        let is_busy = |name: &Name| busy.iter().any(|(_, table)| table.live.name == *name);
        let links = self.scope.relations.links.iter();
        let mut broken = Vec::new();
        for link in links.filter(|link| link.valid && (is_busy(&link.child) || is_busy(&link.parent))) {
            broken.extend(self.broken(link).await?);
        }
        if broken.is_empty() {
            return Ok(());
        }
        let detail = format!("foreign keys would lead nowhere: {}", broken.join("; "));
        Err(refused(&self.scope, detail).with_hint("bring back first what these rows refer to, or restore beside (`--to`)"))
    }

    async fn broken(&self, link: &Link) -> Result<Option<String>> {
        let relations = &self.scope.relations;
        let (Some(child), Some(parent)) = (relations.table(&link.child), relations.table(&link.parent)) else {
            return Ok(None);
        };
        let named = if child.key.is_empty() { &link.columns } else { &child.key };
        let asked = format!(
            "SELECT coalesce(json_agg(ROW({all})::text), '[]') FROM (SELECT {named} FROM {} c WHERE {} \
             AND NOT EXISTS (SELECT FROM {} p WHERE {}) LIMIT {NAMED}) c",
            child.from(),
            filled("c", &link.columns),
            parent.from(),
            same("p", &link.parent_columns, "c", &link.columns),
            all = list("c.", named),
            named = list("c.", named),
        );
        let rows: Vec<String> = catalog::ask(self.sql(), &asked).await?;
        let told = || format!("{} of {} {} to {}", link.name, link.child, rows.join(", "), link.parent);
        Ok((!rows.is_empty()).then(told))
    }

    /// Unique constraints that are looked at late are looked at by triggers, which are quiet.
    async fn check_unique(&self, busy: &[(usize, &Staged)]) -> Result<()> {
        for (_, table) in busy {
            if table.live.late_exclusion {
                let detail = format!(
                    "{} has a deferrable exclusion constraint, which nobody would look at",
                    table.live.name
                );
                return Err(refused(&self.scope, detail).with_hint(
                    "restore beside (`--to`), and bring the rows over by hand; or make the constraint one that is not deferrable",
                ));
            }
            for columns in &table.live.late_unique {
                let asked = format!(
                    "SELECT coalesce(json_agg(t), '[]') FROM (SELECT ROW({columns})::text AS t FROM {} c WHERE {} GROUP BY {columns} HAVING count(*) > 1 LIMIT {NAMED}) c",
                    table.live.from(),
                    filled("c", columns),
                    columns = list("c.", columns),
                );
                let twice: Vec<String> = catalog::ask(self.sql(), &asked).await?;
                if !twice.is_empty() {
                    let detail = format!("{} would have twice what is unique: {}", table.live.name, twice.join(", "));
                    return Err(
                        refused(&self.scope, detail).with_hint("somebody else has these values now; restore beside (`--to`)")
                    );
                }
            }
        }
        Ok(())
    }

    /// Sequences go on behind what came in, and are never set back.
    async fn raise_sequences(&self, table: &Staged) -> Result<()> {
        for owned in table
            .live
            .sequences
            .iter()
            .filter(|owned| table.columns.contains(&owned.column))
        {
            let raise = format!(
                "SELECT setval({}::regclass, m.n) FROM (SELECT max({})::bigint AS n FROM {}) m, {} s WHERE m.n > s.last_value",
                quoted_text(&owned.name.sql()),
                quoted_name(&owned.column),
                table.staged.sql(),
                owned.name.sql()
            );
            self.sql().text(OP, &raise).await?;
        }
        Ok(())
    }
}

fn refused(scope: &Scope, detail: String) -> Error {
    Error::new(ErrorKind::Refused, OP, &scope.what, detail)
}
