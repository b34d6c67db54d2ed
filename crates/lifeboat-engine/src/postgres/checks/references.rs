//! References that have to lead somewhere: foreign keys as the catalog knows them, and those that only people know of.
//!
//! Always by `NOT EXISTS`: `NOT IN` would say of every row that it is fine as soon as one key on the other side is null.

use std::fmt;

use lifeboat_model::check::Outcome;
use serde::Deserialize;
use tokio_postgres::{Client, Error};

use super::{EVIDENCE, counted, cut};
use crate::postgres::logical::{quoted_name, quoted_text};

/// Keys that are told of one reference, at most.
const MOST_KEYS: usize = 5;

/// Rows that have to point at a row of another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphans {
    /// Whose rows: `TABLE` or `SCHEMA.TABLE`, as they are stored.
    pub table: String,
    /// The columns that point; a row with a null in one of them points nowhere, and is no orphan.
    pub columns: Vec<String>,
    /// At whose rows.
    pub references: String,
    /// The columns that are pointed at, as many.
    pub key: Vec<String>,
}

impl fmt::Display for Orphans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}({}) → {}({})",
            self.table,
            self.columns.join(", "),
            self.references,
            self.key.join(", ")
        )
    }
}

/// A table that a person named. As the server resolves it, or else the only one of that name.
const TABLE: &str = "WITH t AS (SELECT n.nspname, c.relname, pg_catalog.pg_table_is_visible(c.oid) AND c.relname = WANTED AS first \
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
      WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' \
        AND (c.relname = WANTED OR n.nspname || '.' || c.relname = WANTED)) \
    SELECT pg_catalog.quote_ident(nspname) || '.' || pg_catalog.quote_ident(relname) FROM t WHERE first OR NOT EXISTS (SELECT FROM t WHERE first) ORDER BY 1";

pub(super) async fn orphans(client: &Client, name: &str, orphans: &Orphans) -> Result<Outcome, Error> {
    let mut tables = Vec::new();
    for wanted in [&orphans.table, &orphans.references] {
        let found = client.query(&TABLE.replace("WANTED", &quoted_text(wanted)), &[]).await?;
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        match found.as_slice() {
            [one] => tables.push(one.clone()),
            [] => return Ok(Outcome::failed(name, format!("there is no table {wanted}"))),
            several => {
                let says = format!("{wanted} means several tables: {}; write SCHEMA.TABLE", several.join(", "));
                return Ok(Outcome::failed(name, says));
            }
        }
    }
    let pair = |(column, key): (&String, &String)| Pair {
        column: column.clone(),
        key: key.clone(),
        schema: None,
        operator: None,
        collation: None,
    };
    let reference = Reference {
        table: tables.first().cloned().unwrap_or_default(),
        references: tables.last().cloned().unwrap_or_default(),
        only: false,
        references_only: false,
        pairs: orphans.columns.iter().zip(&orphans.key).map(pair).collect(),
        full: false,
        period: false,
    };
    let lost = lost(client, &reference).await?;
    if lost.rows == 0 {
        let says = format!("every row of {} points at one that is there", orphans.table);
        return Ok(Outcome::passed(name, says));
    }
    let says = format!(
        "{} of {} point at nothing in {}",
        lost.words(),
        orphans.table,
        orphans.references
    );
    Ok(Outcome::failed(name, says).with_evidence(lost.keys))
}

/// Foreign keys that somebody declared; what the server derives of them for partitions is looked at with the whole.
const FOREIGN_KEYS: &str = "SELECT coalesce(json_agg(json_build_object('name', f.conname, 'validated', f.convalidated, \
      'enforced', coalesce((to_jsonb(f)->>'conenforced')::bool, true), 'reference', json_build_object( \
        'table', quote_ident(tn.nspname) || '.' || quote_ident(t.relname), 'only', t.relkind <> 'p', \
        'references', quote_ident(rn.nspname) || '.' || quote_ident(r.relname), 'references_only', r.relkind <> 'p', \
        'full', f.confmatchtype = 'f', 'period', coalesce((to_jsonb(f)->>'conperiod')::bool, false), \
        'pairs', (SELECT json_agg(json_build_object('column', a.attname, 'key', k.attname, 'schema', onsp.nspname, 'operator', o.oprname, \
            'collation', CASE WHEN a.attcollation <> k.attcollation AND k.attcollation <> 0 \
              THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END) ORDER BY u.n) \
          FROM unnest(f.conkey, f.confkey, f.conpfeqop) WITH ORDINALITY AS u(a, k, o, n) \
          JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = u.a \
          JOIN pg_catalog.pg_attribute k ON k.attrelid = f.confrelid AND k.attnum = u.k \
          LEFT JOIN pg_catalog.pg_operator o ON o.oid = u.o LEFT JOIN pg_catalog.pg_namespace onsp ON onsp.oid = o.oprnamespace \
          LEFT JOIN pg_catalog.pg_collation co ON co.oid = k.attcollation LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace))) \
      ORDER BY tn.nspname, t.relname, f.conname), '[]')::text \
    FROM pg_catalog.pg_constraint f \
    JOIN pg_catalog.pg_class t ON t.oid = f.conrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
    JOIN pg_catalog.pg_class r ON r.oid = f.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace \
    WHERE f.contype = 'f' AND f.conparentid = 0 AND t.relpersistence <> 't'";

#[derive(Debug, Deserialize)]
struct ForeignKey {
    name: String,
    validated: bool,
    enforced: bool,
    reference: Reference,
}

/// What points, and at what. Names of tables are quoted.
#[derive(Debug, Deserialize)]
struct Reference {
    table: String,
    references: String,
    /// Tables that inherit from it do not count.
    only: bool,
    references_only: bool,
    pairs: Vec<Pair>,
    /// `MATCH FULL`: all of it is null, or nothing.
    full: bool,
    /// The last pair is a period that has to be covered.
    period: bool,
}

#[derive(Debug, Deserialize)]
struct Pair {
    column: String,
    key: String,
    /// Of the operator that the server compares by.
    schema: Option<String>,
    operator: Option<String>,
    /// Where both sides have different ones: that of the key counts.
    collation: Option<String>,
}

/// Rows that point at nothing.
struct Lost {
    rows: u64,
    keys: Vec<String>,
}

impl Lost {
    fn words(&self) -> String {
        counted(self.rows, "row", "rows")
    }
}

pub(super) async fn foreign_keys(client: &Client, name: &str) -> Result<Outcome, Error> {
    // Everything below is named in full: nothing of the application is called by mistake.
    client.batch_execute("set local search_path = ''").await?;
    let row = client.query_one(FOREIGN_KEYS, &[]).await?;
    let text: String = row.get(0);
    let keys: Vec<ForeignKey> = match serde_json::from_str(&text) {
        Ok(keys) => keys,
        Err(error) => return Ok(Outcome::failed(name, format!("the catalog could not be understood: {error}"))),
    };
    if keys.is_empty() {
        return Ok(Outcome::not_available(name, "the database has no foreign keys"));
    }
    let (mut bad, mut rows, mut evidence) = (0, 0, Vec::new());
    for key in &keys {
        let lost = lost(client, &key.reference).await?;
        if lost.rows == 0 {
            continue;
        }
        bad += 1;
        rows += lost.rows;
        if bad <= EVIDENCE {
            let state = match (key.enforced, key.validated) {
                (false, _) => " (not enforced)",
                (true, false) => " (not validated)",
                (true, true) => "",
            };
            let Reference { table, references, .. } = &key.reference;
            let line = format!(
                "{}{state}: {} of {table} point at nothing in {references}",
                key.name,
                lost.words()
            );
            evidence.push(cut(&line));
            evidence.extend(lost.keys.iter().map(|key| format!("  {key}")));
        }
    }
    let all = counted(keys.len() as u64, "foreign key", "foreign keys");
    if bad == 0 {
        return Ok(Outcome::passed(name, format!("{all}: every row points at one that is there")));
    }
    let says = format!("{bad} of {all} do not hold: {}", counted(rows, "row", "rows"));
    Ok(Outcome::failed(name, says).with_evidence(evidence))
}

async fn lost(client: &Client, reference: &Reference) -> Result<Lost, Error> {
    let mut rows = 0;
    let mut keys = Vec::new();
    for row in client.query(&anti_join(reference), &[]).await? {
        let (all, of_key): (i64, i64) = (row.get(0), row.get(1));
        let values: Vec<Option<String>> = row.get(2);
        let told: Vec<String> = (reference.pairs.iter().zip(&values))
            .map(|(pair, value)| format!("{} = {}", pair.column, value.as_deref().unwrap_or("null")))
            .collect();
        rows = all.unsigned_abs();
        keys.push(cut(&format!(
            "{} ({})",
            told.join(", "),
            counted(of_key.unsigned_abs(), "row", "rows")
        )));
    }
    Ok(Lost { rows, keys })
}

/// All rows that point at nothing, and the first of their keys.
fn anti_join(reference: &Reference) -> String {
    let only = |only: bool| if only { "ONLY " } else { "" };
    let from = format!("{}{} c", only(reference.only), reference.table);
    let to = format!("{}{} k", only(reference.references_only), reference.references);
    let nulls = |word: &str, between: &str| {
        let terms: Vec<String> = (reference.pairs.iter())
            .map(|pair| format!("c.{} IS {word}", quoted_name(&pair.column)))
            .collect();
        terms.join(between)
    };
    let points = if reference.full {
        format!("({})", nulls("NOT NULL", " OR "))
    } else {
        nulls("NOT NULL", " AND ")
    };
    let mut pairs = reference.pairs.as_slice();
    let period = match pairs.split_last() {
        Some((last, rest)) if reference.period => {
            pairs = rest;
            Some(last)
        }
        _ => None,
    };
    let mut equal: Vec<String> = pairs.iter().map(Pair::equal).collect();
    let there = match period {
        None => format!("EXISTS (SELECT FROM {to} WHERE {})", equal.join(" AND ")),
        Some(pair) => {
            let (column, key) = (quoted_name(&pair.column), quoted_name(&pair.key));
            equal.push(format!("k.{key} OPERATOR(pg_catalog.&&) c.{column}"));
            format!(
                "coalesce(c.{column} OPERATOR(pg_catalog.<@) (SELECT pg_catalog.range_agg(k.{key}) FROM {to} WHERE {}), false)",
                equal.join(" AND ")
            )
        }
    };
    let values: Vec<String> = (reference.pairs.iter())
        .map(|pair| format!("c.{}::text", quoted_name(&pair.column)))
        .collect();
    format!(
        "SELECT (pg_catalog.sum(pg_catalog.count(*)) OVER ())::bigint, pg_catalog.count(*), v FROM (\
           SELECT ARRAY[{}] AS v FROM {from} WHERE {points} AND NOT {there}) o GROUP BY v ORDER BY v LIMIT {MOST_KEYS}",
        values.join(", ")
    )
}

impl Pair {
    fn equal(&self) -> String {
        let operator = match (&self.schema, &self.operator) {
            // The name of an operator has no letters, and is never quoted.
            (Some(schema), Some(operator)) => format!("OPERATOR({}.{operator})", quoted_name(schema)),
            _ => "=".to_owned(),
        };
        let collation = match &self.collation {
            Some(collation) => format!(" COLLATE {collation}"),
            None => String::new(),
        };
        let (column, key) = (quoted_name(&self.column), quoted_name(&self.key));
        format!("k.{key} {operator} c.{column}{collation}")
    }
}
