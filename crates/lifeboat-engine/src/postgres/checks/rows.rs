//! Rows of a restored cluster against those that were counted in the source (docs/postgres.md, "Rows").
//!
//! A count is of the moment at which it was made, somewhere in the middle of the backup. It may be compared with what was restored if the log that
//! was replayed has no change of that table in between; whether it has is read from the log itself. Everything else is unknown, and said to be.

use std::collections::BTreeSet;

use lifeboat_model::check::Outcome;
use lifeboat_model::{Error, Lsn, Result};
use tokio_postgres::types::Oid;

use super::{EVIDENCE, counted, cut, words};
pub use crate::postgres::capture::counts::Counts;
use crate::postgres::capture::counts::{Database, Table};
use crate::postgres::records::{Locator, Record};
use crate::postgres::sandbox::{Sandbox, Session};

/// What it is called.
const NAME: &str = "rows";

/// Looks in the log for changes of what was counted.
#[derive(Debug, Clone)]
pub struct Watch {
    from: Lsn,
    counted: BTreeSet<Locator>,
    changed: BTreeSet<Locator>,
}

impl Watch {
    /// For these counts.
    pub fn new(counts: &Counts) -> Result<Self> {
        let mut known = BTreeSet::from([counts.catalog]);
        for database in &counts.databases {
            known.insert(database.catalog);
            known.extend(database.tables.iter().map(|table| table.place));
        }
        Ok(Self {
            from: counts.from.parse()?,
            counted: known,
            changed: BTreeSet::new(),
        })
    }

    /// From where on the log is of interest.
    #[must_use]
    pub const fn from(&self) -> Lsn {
        self.from
    }

    /// Looks at the next record.
    pub fn see(&mut self, record: &Record) {
        if let Some(place) = record.relation.filter(|place| self.counted.contains(place))
            && record.end > self.from
            && changes_rows(record.kind)
        {
            self.changed.insert(place);
        }
    }

    /// The log was read to where it was replayed.
    #[must_use]
    pub fn finish(self) -> Reach {
        Reach { changed: self.changed }
    }
}

/// What changed in the log since rows were counted.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    changed: BTreeSet<Locator>,
}

/// Whether a record may change which rows there are (`access/heapam_xlog.h`, the same from 14 to 18). Who knows what managers do that are not the
/// server's own.
fn changes_rows((manager, info): (u8, u8)) -> bool {
    match manager {
        // RM_HEAP2_ID: several rows at once; all else tidies up.
        9 => info & 0x70 == 0x50,
        // RM_HEAP_ID: insert, delete, update, truncate, update within the page.
        10 => info & 0x70 <= 0x40,
        20.. => true,
        _ => false,
    }
}

#[derive(Debug, Default)]
struct Seen {
    tables: u64,
    rows: u64,
    changed: u64,
    wrong: Vec<String>,
}

pub(super) async fn check(sandbox: &Sandbox, wanted: Option<&(&Counts, Result<Reach>)>) -> Outcome {
    let Some((counts, reach)) = wanted else {
        return Outcome::not_available(NAME, "rows were not counted in the source when this backup was made");
    };
    if let Some(why) = &counts.why {
        return Outcome::not_available(NAME, format!("rows were not counted in the source: {why}"));
    }
    let reach = match reach {
        Ok(reach) => reach,
        Err(error) => return Outcome::not_available(NAME, cut(&format!("the log could not be searched for changes: {error}"))),
    };
    let mut seen = Seen::default();
    let compared = compare(sandbox, counts, reach, &mut seen).await;
    if let Err(error) = compared {
        return Outcome::failed(NAME, cut(&format!("the check broke off: {error}"))).with_evidence(seen.wrong);
    }
    judged(seen, counts)
}

fn judged(mut seen: Seen, counts: &Counts) -> Outcome {
    let mut rest = String::new();
    if seen.changed > 0 {
        rest.push_str(&format!(
            "; {} changed since they were counted and cannot be compared",
            counted(seen.changed, "table", "tables")
        ));
    }
    for (why, count) in &counts.uncounted {
        rest.push_str(&format!(
            "; {} not counted: {why}",
            counted(*count, "table was", "tables were")
        ));
    }
    let wrong = seen.wrong.len();
    seen.wrong.truncate(EVIDENCE);
    let tables = counted(seen.tables, "table", "tables");
    if wrong > 0 {
        let says = format!("{wrong} of {tables} are not as in the source{rest}");
        Outcome::failed(NAME, says).with_evidence(seen.wrong)
    } else if seen.tables == 0 {
        Outcome::not_available(NAME, format!("no table can be compared{rest}"))
    } else {
        let rows = counted(seen.rows, "row", "rows");
        Outcome::passed(NAME, format!("{tables} have as many rows as in the source ({rows}){rest}"))
    }
}

async fn compare(sandbox: &Sandbox, counts: &Counts, reach: &Reach, seen: &mut Seen) -> Result<(), String> {
    let session = sandbox.connect("postgres").await.map_err(|error: Error| error.to_string())?;
    for database in &counts.databases {
        let sql = "select datname::text from pg_database where oid = $1 and datallowconn";
        let found = session
            .client()
            .query_opt(sql, &[&database.oid])
            .await
            .map_err(|error| words(&error))?;
        let Some(row) = found else {
            let tables = database.tables.len() as u64;
            if reach.changed.contains(&counts.catalog) {
                seen.changed += tables;
            } else {
                seen.tables += tables;
                seen.wrong.push(format!("the database {} is not there", database.name));
            }
            continue;
        };
        let name: String = row.get(0);
        let inside = sandbox.connect(&name).await.map_err(|error| error.to_string())?;
        tables(&inside, database, reach, seen).await.map_err(|error| words(&error))?;
    }
    Ok(())
}

/// Where the rows of a relation are, as the log names it.
pub(in crate::postgres) const PLACE: &str = "coalesce(nullif(c.reltablespace, 0), (select dattablespace from pg_database \
    where datname = current_database())), \
    case when c.relisshared then 0::oid else (select oid from pg_database where datname = current_database()) end, \
    pg_relation_filenode(c.oid)";

async fn tables(
    session: &Session,
    database: &Database,
    reach: &Reach,
    seen: &mut Seen,
) -> std::result::Result<(), tokio_postgres::Error> {
    let oids: Vec<Oid> = database.tables.iter().map(|table| table.oid).collect();
    let sql = format!("select c.oid, c.oid::regclass::text, {PLACE} from pg_class c where c.oid = any($1)");
    let rows = session.client().query(&sql, &[&oids]).await?;
    let mut here = std::collections::BTreeMap::new();
    for row in &rows {
        let number: Option<Oid> = row.get(4);
        let place = Locator {
            space: row.get(2),
            database: row.get(3),
            number: number.unwrap_or(0),
        };
        here.insert(row.get::<_, Oid>(0), (row.get::<_, String>(1), place));
    }
    for table in &database.tables {
        let shown = format!("{}: {}", database.name, table.name);
        let made_anew = |detail: &str, seen: &mut Seen| {
            if reach.changed.contains(&database.catalog) {
                seen.changed += 1;
            } else {
                seen.tables += 1;
                seen.wrong.push(format!("{shown}: {detail}"));
            }
        };
        match here.get(&table.oid) {
            None => made_anew("it is not there", seen),
            Some((_, place)) if *place != table.place => made_anew("its rows are in another file than in the source", seen),
            Some(_) if reach.changed.contains(&table.place) => seen.changed += 1,
            Some((name, _)) => count(session, table, name, &shown, seen).await?,
        }
    }
    Ok(())
}

async fn count(
    session: &Session,
    table: &Table,
    name: &str,
    shown: &str,
    seen: &mut Seen,
) -> std::result::Result<(), tokio_postgres::Error> {
    seen.tables += 1;
    let counted = session
        .client()
        .query_one(&format!("select count(*) from only {name}"), &[])
        .await;
    match counted {
        Ok(row) => {
            let rows = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            seen.rows += rows;
            if rows != table.rows {
                seen.wrong.push(format!(
                    "{shown}: {} in the source, {rows} here",
                    super::counted(table.rows, "row", "rows")
                ));
            }
            Ok(())
        }
        // A page that cannot be read, for example.
        Err(error) if error.as_db_error().is_some() => {
            seen.wrong.push(cut(&format!("{shown}: {}", words(&error))));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Locator = Locator {
        space: 1663,
        database: 5,
        number: 16_384,
    };

    fn record(at: u64, kind: (u8, u8), relation: Option<Locator>) -> Record {
        Record {
            start: Lsn(at),
            end: Lsn(at + 8),
            xid: 700,
            kind,
            ended: None,
            relation,
        }
    }

    fn counts() -> Counts {
        Counts {
            from: "0/100".into(),
            catalog: Locator {
                space: 1664,
                database: 0,
                number: 1262,
            },
            databases: vec![Database {
                oid: 5,
                name: "postgres".into(),
                catalog: Locator { number: 1259, ..TABLE },
                tables: vec![Table {
                    oid: 16_384,
                    name: "public.t".into(),
                    place: TABLE,
                    rows: 3,
                }],
            }],
            ..Counts::default()
        }
    }

    fn changes(record: &Record) -> bool {
        let mut watch = Watch::new(&counts()).unwrap();
        watch.see(record);
        !watch.finish().changed.is_empty()
    }

    #[test]
    fn only_changes_of_rows_behind_the_count_make_it_unknown() {
        for info in [0x00, 0x10, 0x20, 0x40, 0x80] {
            assert!(changes(&record(0x100, (10, info), Some(TABLE))), "{info:#x}");
        }
        assert!(changes(&record(0x100, (9, 0x50), Some(TABLE))), "several rows at once");
        assert!(changes(&record(0x100, (20, 0), Some(TABLE))), "another manager");
        assert!(!changes(&record(0x80, (10, 0), Some(TABLE))), "in front of the count");
        for kind in [(10, 0x60), (10, 0x70), (9, 0x10), (9, 0x40), (0, 0xb0), (11, 0)] {
            assert!(!changes(&record(0x100, kind, Some(TABLE))), "{kind:?} changes no row");
        }
        assert!(!changes(&record(0x100, (10, 0), Some(Locator { number: 1, ..TABLE }))));
        assert!(!changes(&record(0x100, (10, 0), None)));
    }
}
