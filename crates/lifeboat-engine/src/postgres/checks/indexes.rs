//! Tables and indexes, by the server's own module `amcheck`: rows are where indexes say, indexes know every row, pages make sense.
//!
//! Where the server's packages do not bring the module, nothing is known, and that is what is said.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use lifeboat_model::check::Outcome;
use tokio_postgres::Error;
use tokio_postgres::types::Oid;

use super::{EVIDENCE, counted, cut, databases, words};
use crate::postgres::sandbox::{Sandbox, Session};

/// What it is called.
const NAME: &str = "tables and indexes";
/// Where the module is made, if the database does not have it: the copy is thrown away.
const SCHEMA: &str = "lifeboat_amcheck";
/// Errors by which the module says that something is damaged: `data_corrupted` and `index_corrupted`.
const DAMAGE: [&str; 2] = ["XX001", "XX002"];

/// Indexes first: the longest takes the longest.
const RELATIONS: &str = "select c.oid, c.oid::regclass::text, c.relkind = 'i' from pg_class c \
    join pg_am a on a.oid = c.relam left join pg_index i on i.indexrelid = c.oid \
    where c.relpersistence = 'p' and (c.relkind in ('r', 'm', 't') and a.amname = 'heap' \
    or c.relkind = 'i' and a.amname = 'btree' and i.indisvalid and i.indisready and i.indislive) \
    order by pg_relation_size(c.oid) desc nulls last, c.oid";

#[derive(Debug, Default)]
struct Seen {
    databases: u64,
    tables: u64,
    indexes: u64,
    damaged: u64,
    unchecked: u64,
    lines: Vec<String>,
    reasons: Vec<String>,
}

impl Seen {
    fn damaged(&mut self, line: &str) {
        self.damaged += 1;
        self.lines.push(cut(line));
    }

    fn unchecked(&mut self, line: &str) {
        self.unchecked += 1;
        self.reasons.push(cut(line));
    }
}

pub(super) async fn check(sandbox: &Sandbox) -> Outcome {
    let seen = Mutex::new(Seen::default());
    match all(sandbox, &seen).await {
        Ok(true) => judged(seen.into_inner().unwrap_or_else(PoisonError::into_inner)),
        Ok(false) => Outcome::not_available(
            NAME,
            "the server's module amcheck is not installed on this host (on Debian it comes with the package of the server)",
        ),
        // A server that breaks down over what it reads has said enough.
        Err(error) => {
            let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
            Outcome::failed(NAME, cut(&format!("the check broke off: {error}"))).with_evidence(seen.lines)
        }
    }
}

fn judged(mut seen: Seen) -> Outcome {
    let looked = format!(
        "{} and {} in {}",
        counted(seen.tables, "table", "tables"),
        counted(seen.indexes, "index", "indexes"),
        counted(seen.databases, "database", "databases"),
    );
    seen.lines.truncate(EVIDENCE);
    seen.reasons.truncate(EVIDENCE);
    if seen.damaged > 0 {
        return Outcome::failed(NAME, format!("{} of {looked} are damaged", seen.damaged)).with_evidence(seen.lines);
    }
    if seen.unchecked > 0 {
        let says = format!(
            "{} of {looked} could not be checked; the others are consistent",
            seen.unchecked
        );
        return Outcome::not_available(NAME, says).with_evidence(seen.reasons);
    }
    Outcome::passed(NAME, format!("{looked} are consistent"))
}

/// Whether the module is there at all.
async fn all(sandbox: &Sandbox, seen: &Mutex<Seen>) -> Result<bool, String> {
    let session = connect(sandbox, "postgres").await?;
    let names = databases(&session).await.map_err(|error| words(&error))?;
    drop(session);
    for name in names {
        let session = connect(sandbox, &name).await?;
        let Some(schema) = module(&session).await.map_err(|error| words(&error))? else {
            return Ok(false);
        };
        let rows = session.client().query(RELATIONS, &[]).await.map_err(|error| words(&error))?;
        let relations = rows.iter().map(|row| Relation {
            oid: row.get(0),
            name: format!("{name}: {}", row.get::<_, String>(1)),
            is_index: row.get(2),
        });
        let waiting: Mutex<VecDeque<Relation>> = Mutex::new(relations.collect());
        let second = connect(sandbox, &name).await?;
        let (one, two) = tokio::join!(
            work(&session, &schema, &waiting, seen),
            work(&second, &schema, &waiting, seen)
        );
        one.and(two)?;
        seen.lock().unwrap_or_else(PoisonError::into_inner).databases += 1;
    }
    Ok(true)
}

async fn connect(sandbox: &Sandbox, database: &str) -> Result<Session, String> {
    sandbox.connect(database).await.map_err(|error| error.to_string())
}

/// The schema of the module, which is made where it is not; `None` where this host does not have it.
async fn module(session: &Session) -> Result<Option<String>, Error> {
    let client = session.client();
    let sql = "select (select quote_ident(nspname) from pg_extension e join pg_namespace n on n.oid = extnamespace where extname = 'amcheck'), \
               exists (select from pg_available_extensions where name = 'amcheck')";
    let row = client.query_one(sql, &[]).await?;
    let (there, available): (Option<String>, bool) = (row.get(0), row.get(1));
    if there.is_some() || !available {
        return Ok(there.filter(|_| available));
    }
    let sql = format!("create schema {SCHEMA}; create extension amcheck with schema {SCHEMA}");
    client.batch_execute(&sql).await?;
    Ok(Some(SCHEMA.to_owned()))
}

#[derive(Debug)]
struct Relation {
    oid: Oid,
    name: String,
    is_index: bool,
}

/// Takes relations until there are no more.
async fn work(session: &Session, schema: &str, waiting: &Mutex<VecDeque<Relation>>, seen: &Mutex<Seen>) -> Result<(), String> {
    let index = format!("select {schema}.bt_index_check($1::oid::regclass, true)");
    let table =
        format!("select blkno, offnum, msg from {schema}.verify_heapam($1::oid::regclass, check_toast => true) limit {EVIDENCE}");
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(relation) = next else { return Ok(()) };
        let asked = session
            .client()
            .query(if relation.is_index { &index } else { &table }, &[&relation.oid])
            .await;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if relation.is_index {
            seen.indexes += 1;
        } else {
            seen.tables += 1;
        }
        let name = &relation.name;
        match asked {
            Ok(_) if relation.is_index => {}
            Ok(rows) => {
                let said = rows.iter().map(|row| {
                    let (block, item): (Option<i64>, Option<i32>) = (row.get(0), row.get(1));
                    format!(
                        "block {}, item {}: {}",
                        block.unwrap_or(-1),
                        item.unwrap_or(-1),
                        row.get::<_, String>(2)
                    )
                });
                let said: Vec<String> = said.collect();
                if !said.is_empty() {
                    seen.damaged(&format!("{name}: {}", said.join("; ")));
                }
            }
            Err(error) => match error.as_db_error() {
                Some(damage) if DAMAGE.contains(&damage.code().code()) => seen.damaged(&format!("{name}: {}", words(&error))),
                Some(_) => seen.unchecked(&format!("{name}: {}", words(&error))),
                None => return Err(format!("{name}: {}", words(&error))),
            },
        }
    }
}
