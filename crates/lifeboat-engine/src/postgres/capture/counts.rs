//! Rows of tables, counted in the source while its files are copied (docs/postgres.md, "Rows").
//!
//! Each count has a snapshot of its own: no transaction of ours stays open, and no lock outlives a count. What a later comparison needs to know is a
//! position `from`: whatever a count does not hold was written behind it, because every transaction that had begun before was waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Clock, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::postgres::ConnInfo;
use crate::postgres::checks::PLACE;
use crate::postgres::records::Locator;
use crate::postgres::sql::Sql;

/// Bytes of a table that is counted, at most.
const MOST_BYTES: u64 = 64 << 20;
/// Tables that are counted, at most.
const MOST_TABLES: usize = 2_000;
/// Between two looks at which transactions are open.
const LOOK: Duration = Duration::from_millis(5);
/// How long a table may be locked by somebody before it is left out.
const LOCK_MS: u32 = 100;

const OP: &str = "count the rows of";

/// Rows as they were counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Why nothing was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What a count does not hold was written behind this position.
    pub from: String,
    /// The catalog of databases.
    pub catalog: Locator,
    /// What was counted.
    pub databases: Vec<Database>,
    /// Tables that were not counted, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub uncounted: BTreeMap<String, u64>,
}

/// A database with its tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its number.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its catalog of tables.
    pub catalog: Locator,
    /// What was counted.
    pub tables: Vec<Table>,
}

/// A table and its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its number.
    pub oid: u32,
    /// Its name, with the schema.
    pub name: String,
    /// Where its rows are.
    pub place: Locator,
    /// How many there are.
    pub rows: u64,
}

impl Counts {
    /// Nothing was counted.
    #[must_use]
    pub fn none(why: impl Into<String>) -> Self {
        Self {
            why: Some(why.into()),
            ..Self::default()
        }
    }

    fn left_out(&mut self, why: &str, tables: u64) {
        if tables > 0 {
            *self.uncounted.entry(why.to_owned()).or_default() += tables;
        }
    }
}

/// Counts for `budget` at most, the smallest tables of each database first. The backup must have begun.
pub async fn take(info: &ConnInfo, clock: &Arc<dyn Clock>, budget: Duration) -> Counts {
    if budget.is_zero() {
        return Counts::none("`count_rows` is 0s");
    }
    let limit = Limit {
        clock: Arc::clone(clock),
        ends: clock.monotonic() + budget,
    };
    // What is counted is of use, and what is not is no reason for having no backup.
    count(info, &limit)
        .await
        .unwrap_or_else(|error| Counts::none(error.to_string()))
}

struct Limit {
    clock: Arc<dyn Clock>,
    ends: Duration,
}

impl Limit {
    fn left(&self) -> Duration {
        self.ends.saturating_sub(self.clock.monotonic())
    }
}

async fn count(info: &ConnInfo, limit: &Limit) -> Result<Counts> {
    let sql = Sql::connect(info).await?;
    if one(&sql, "select pg_is_in_recovery()").await? == "t" {
        return Ok(Counts::none("the backup was read from a standby"));
    }
    let mut counts = Counts {
        from: one(&sql, "select pg_current_wal_insert_lsn()").await?,
        ..Counts::default()
    };
    wait_for_the_open(&sql, limit.left() / 2, limit).await?;
    let text = format!("select {PLACE} from pg_class c where c.oid = 'pg_database'::regclass");
    let row = sql.client.query_one(&text, &[]).await.map_err(|error| sql.error(OP, error))?;
    counts.catalog = locator(&row, 0);
    let text = "select oid, datname::text from pg_database where datallowconn and not datistemplate \
                and has_database_privilege(oid, 'connect') order by datname";
    let rows = sql.client.query(text, &[]).await.map_err(|error| sql.error(OP, error))?;
    let mut room = MOST_TABLES;
    for row in &rows {
        let name: String = row.get(1);
        // One that does not let us in does not hinder the others.
        match database(info, limit, (row.get(0), &name), &mut counts, &mut room).await {
            Ok(found) => counts.databases.push(found),
            Err(error) => counts.left_out(&format!("all of the database {name} ({})", error.detail()), 1),
        }
    }
    Ok(counts)
}

/// Waits until every transaction has ended that may have written before. Whatever has a number holds a lock on it, from before its first record until
/// it is seen to have ended; a snapshot does not do, for its end is behind the last transaction that ended, not behind the last that began.
async fn wait_for_the_open(sql: &Sql, patience: Duration, limit: &Limit) -> Result<()> {
    const OPEN: &str =
        "select transactionid::text from pg_locks where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted";
    let mut open: BTreeSet<String> = sql.text(OP, OPEN).await?.into_iter().flatten().flatten().collect();
    let ends = limit.left().saturating_sub(patience);
    while !open.is_empty() {
        if limit.left() < ends {
            let detail = "a transaction that had begun earlier was open all the time";
            return Err(Error::new(ErrorKind::TimedOut, OP, sql.subject(), detail));
        }
        tokio::time::sleep(LOOK).await;
        let now: BTreeSet<String> = sql.text(OP, OPEN).await?.into_iter().flatten().flatten().collect();
        open.retain(|number| now.contains(number));
    }
    Ok(())
}

const TABLES: &str = "c.oid, format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid), \
    has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'), row_security_active(c.oid)";
const FROM_TABLES: &str = "from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam \
    where c.relkind in ('r', 'm') and c.relpersistence = 'p' and c.relispopulated and a.amname = 'heap' \
    and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') order by 6, 4";

async fn database(
    info: &ConnInfo,
    limit: &Limit,
    (oid, name): (u32, &str),
    counts: &mut Counts,
    room: &mut usize,
) -> Result<Database> {
    let sql = Sql::connect(&info.clone().with_database(name)).await?;
    let settings = format!(
        "set lock_timeout = {LOCK_MS}; set row_security = off; set search_path = pg_catalog; set max_parallel_workers_per_gather = 0"
    );
    sql.text(OP, &settings).await?;
    let text = format!("select {PLACE} from pg_class c where c.oid = 'pg_class'::regclass");
    let row = sql.client.query_one(&text, &[]).await.map_err(|error| sql.error(OP, error))?;
    let mut found = Database {
        oid,
        name: name.to_owned(),
        catalog: locator(&row, 0),
        tables: Vec::new(),
    };
    let text = format!("select {PLACE}, {TABLES} {FROM_TABLES}");
    let rows = sql.client.query(&text, &[]).await.map_err(|error| sql.error(OP, error))?;
    for row in &rows {
        let size = row.get::<_, Option<i64>>(5).and_then(|size| u64::try_from(size).ok());
        let (may, hidden): (Option<bool>, Option<bool>) = (row.get(6), row.get(7));
        let left = limit.left();
        let why = match size {
            // Dropped meanwhile.
            None => continue,
            _ if may != Some(true) => "the role may not read them (GRANT pg_read_all_data TO the role)",
            _ if hidden != Some(false) => "their rows are hidden from the role by policies",
            Some(size) if size > MOST_BYTES => "they are larger than 64 MiB",
            _ if *room == 0 => "there are more than 2,000",
            _ if left.is_zero() => "there was no more time",
            Some(_) => {
                let table: String = row.get(4);
                match rows_of(&sql, &table, left).await {
                    Ok(rows) => {
                        *room -= 1;
                        found.tables.push(Table {
                            oid: row.get(3),
                            name: table,
                            place: locator(row, 0),
                            rows,
                        });
                        continue;
                    }
                    Err(_busy) => "they could not be read just then",
                }
            }
        };
        counts.left_out(why, 1);
    }
    Ok(found)
}

/// The rows of a table, in a snapshot of its own.
async fn rows_of(sql: &Sql, table: &str, left: Duration) -> Result<u64> {
    let limit = left.as_millis().max(1);
    let text = format!("set statement_timeout = {limit}; select count(*) from only {table}");
    number(&one(sql, &text).await?)
}

fn locator(row: &tokio_postgres::Row, from: usize) -> Locator {
    Locator {
        space: row.get(from),
        database: row.get(from + 1),
        number: row.get::<_, Option<u32>>(from + 2).unwrap_or(0),
    }
}

async fn one(sql: &Sql, text: &str) -> Result<String> {
    let rows = sql.text(OP, text).await?;
    let value = rows.into_iter().flatten().flatten().next();
    value.ok_or_else(|| Error::new(ErrorKind::Failed, OP, sql.subject(), "it gave no answer"))
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|error| Error::new(ErrorKind::Corrupt, OP, "the server", format!("{text} is no number")).with_source(error))
}
