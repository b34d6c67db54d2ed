//! How much a backup may ask of a server, and what is checked in a restored copy of it.

use std::time::Duration;

use lifeboat_engine::postgres::checks::{Asked, Assertion, Expect, Heartbeat, Orphans};
use lifeboat_engine::postgres::undelete::SoftDelete;
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_engine::sqlite::checks as sqlite;
use lifeboat_ops::Source;
use lifeboat_ops::canary::Canary;
use lifeboat_ops::protected::Care;

use super::Lowering;
use crate::config::file::{At, CheckFile, ComponentFile, ExpectFile, OrphansFile, PostgresFile, SecretFile};
use crate::config::problem::Problem;

/// How long a query may take unless something else is said.
const LIMIT: Duration = Duration::from_secs(60);
/// The least that a server takes for a limit.
const LEAST_RATE: u64 = 32 << 10;
/// The least time between two canaries.
const OFTEN: Duration = Duration::from_secs(1);
/// Characters of a query that become its name.
const NAME: usize = 60;

impl Lowering<'_> {
    /// What is asked for besides, into the source that it is for.
    pub(super) fn besides(&mut self, full: &str, component: &ComponentFile, source: &mut Source) {
        let max_rate = component.backup.max_rate.as_ref();
        match (source, &component.postgres) {
            (Source::Postgres(cluster), Some(postgres)) => {
                let care = Care::default();
                let canary = postgres.canary.as_ref().and_then(|every| self.canary(full, every, postgres));
                cluster.care = Care {
                    max_rate: max_rate.and_then(|text| self.bandwidth(text, "max_rate", LEAST_RATE)),
                    count_rows: match &postgres.count_rows {
                        Some(text) => self.duration(text, "count_rows", "5s"),
                        None => care.count_rows,
                    },
                    checks: self.checks(full, component, postgres),
                    heartbeat: match &postgres.heartbeat {
                        Some(sql) => self.heartbeat(full, sql, postgres),
                        None => canary.as_ref().map(|canary| canary.heartbeat(LIMIT)),
                    },
                    canary: canary.map(Box::new),
                    soft_delete: soft_delete(postgres),
                };
            }
            (source, _) => {
                self.checks_of_others(full, component, source);
                if let Some(text) = max_rate {
                    self.problems.push(
                        Problem::at(
                            text.place,
                            format!("{full} is no PostgreSQL cluster, and only those are read at a limited rate"),
                        )
                        .help("`stores: { NAME: { …, limit: { upload: 20MiB } } }` limits what goes to a store"),
                    );
                }
            }
        }
    }

    /// What has to hold of what is no server.
    fn checks_of_others(&mut self, full: &str, component: &ComponentFile, source: &mut Source) {
        let given = component.checks.iter().flatten();
        if let Source::Sqlite { checks, .. } = source {
            *checks = given.filter_map(|check| self.check_of_sqlite(check)).collect();
        } else if let Some(check) = component.checks.iter().flatten().next() {
            self.problems.push(
                Problem::at(
                    check.place,
                    format!("{full} is no database, and only those have checks of their own"),
                )
                .help("that files are as captured, and the parts of a PKI fit each other, is checked without being asked for"),
            );
        }
    }

    fn check_of_sqlite(&mut self, check: &At<CheckFile>) -> Option<sqlite::Assertion> {
        let file = &check.value;
        if let Some(wanted) = &file.foreign_keys {
            self.problems.push(
                Problem::at(wanted.place, "this is for PostgreSQL")
                    .help("leave it out: foreign keys of a SQLite database are checked without being asked for"),
            );
            return None;
        }
        if let Some(database) = &file.database {
            self.problems
                .push(Problem::at(database.place, "this is for PostgreSQL").help("leave it out: a SQLite file is one database"));
        }
        let (sql, expect, called) = match self.asked(check)? {
            Asked::Query { sql, expect } => (sql.clone(), expect, shortened(&sql)),
            Asked::Orphans(orphans) => {
                let sql = sqlite::orphans(&orphans.table, &orphans.columns, &orphans.references, &orphans.key);
                (sql, Expect::NoRows, format!("orphans of {orphans}"))
            }
            Asked::ForeignKeys => return None,
        };
        Some(sqlite::Assertion {
            name: file.name.as_ref().map_or(called, |name| name.value.clone()),
            sql,
            expect,
            limit: match &file.timeout {
                Some(text) => self.some_duration(text, "timeout", "60s"),
                None => LIMIT,
            },
        })
    }

    fn heartbeat(&mut self, full: &str, sql: &At<String>, postgres: &PostgresFile) -> Option<Heartbeat> {
        if sql.value.trim().is_empty() {
            self.problems.push(Problem::at(sql.place, "this is no query").label("empty"));
        }
        Some(Heartbeat {
            database: self.which_database(full, sql, "heartbeat", postgres)?,
            sql: sql.value.trim().to_owned(),
            limit: LIMIT,
        })
    }

    fn canary(&mut self, full: &str, every: &At<String>, postgres: &PostgresFile) -> Option<Canary> {
        if postgres.heartbeat.is_some() {
            self.problems.push(
                Problem::at(every.place, format!("{full} has a heartbeat already"))
                    .label("the copy is asked for one of them")
                    .help("leave the canary out where the application writes times itself, else the heartbeat"),
            );
        }
        let often = self.duration(every, "canary", "1m");
        if often < OFTEN {
            self.problems.push(
                Problem::at(
                    every.place,
                    format!("`canary` is more often than every {} s", OFTEN.as_secs()),
                )
                .label("each one is a connection to the server")
                .help("for example `canary: 1m`"),
            );
        }
        let database = match only(postgres) {
            Some(only) => only,
            None => self.which_database(full, every, "canary", postgres)?,
        };
        Some(Canary { every: often, database })
    }

    fn which_database(&mut self, full: &str, asked: &At<String>, what: &str, postgres: &PostgresFile) -> Option<String> {
        let database = database_of(postgres);
        if database.is_none() {
            self.problems.push(
                Problem::at(asked.place, format!("which database of {full} has the {what}?"))
                    .label("`database` belongs beside this")
                    .help("write `database: NAME` into `postgres`"),
            );
        }
        database
    }

    fn checks(&mut self, full: &str, component: &ComponentFile, postgres: &PostgresFile) -> Vec<Assertion> {
        let given = component.checks.iter().flatten();
        given.filter_map(|check| self.check(full, check, postgres)).collect()
    }

    fn check(&mut self, full: &str, check: &At<CheckFile>, postgres: &PostgresFile) -> Option<Assertion> {
        let file = &check.value;
        let asked = self.asked(check);
        let named = file.database.as_ref().map(|text| text.value.clone());
        let database = named.or_else(|| only(postgres)).or_else(|| database_of(postgres));
        if database.is_none() {
            let place = file.sql.as_ref().map_or(check.place, |sql| sql.place);
            self.problems.push(
                Problem::at(place, format!("which database of {full} does this ask?"))
                    .label("`database` belongs beside this")
                    .help("write `database: NAME`"),
            );
        }
        let limit = match &file.timeout {
            Some(text) => self.some_duration(text, "timeout", "60s"),
            None => LIMIT,
        };
        let (asked, database) = (asked?, database?);
        Some(Assertion {
            name: match &file.name {
                Some(name) => name.value.clone(),
                None => match &asked {
                    Asked::Query { sql, .. } => shortened(sql),
                    Asked::Orphans(orphans) => format!("orphans of {orphans}"),
                    Asked::ForeignKeys => format!("foreign keys of {database}"),
                },
            },
            database,
            asked,
            limit,
        })
    }

    /// Exactly one of the three kinds.
    fn asked(&mut self, check: &At<CheckFile>) -> Option<Asked> {
        let file = &check.value;
        let kinds = [file.sql.is_some(), file.orphans.is_some(), file.foreign_keys.is_some()];
        if kinds.into_iter().filter(|there| *there).count() != 1 {
            self.problems.push(
                Problem::at(check.place, "a check asks one thing")
                    .label("one of `sql`, `orphans` and `foreign_keys`")
                    .help("for example `{ sql: \"select count(*) from tenants\", expect: { at_least: 1 } }` or `{ foreign_keys: true }`"),
            );
            return None;
        }
        if file.expect.is_some() && file.sql.is_none() {
            self.problems.push(
                Problem::at(check.place, "`expect` is what a query has to answer")
                    .label("there is no `sql`")
                    .help("leave `expect` out"),
            );
        }
        if let Some(orphans) = &file.orphans {
            return self.orphans(orphans).map(Asked::Orphans);
        }
        if let Some(wanted) = &file.foreign_keys {
            if !wanted.value {
                self.problems.push(
                    Problem::at(wanted.place, "this asks nothing").help("leave the check out, or write `foreign_keys: true`"),
                );
            }
            return Some(Asked::ForeignKeys);
        }
        let sql = file.sql.as_ref()?;
        if sql.value.trim().is_empty() {
            self.problems.push(Problem::at(sql.place, "this is no query").label("empty"));
        }
        let Some(expect) = &file.expect else {
            self.problems.push(
                Problem::at(sql.place, "what does this have to answer?")
                    .label("`expect` belongs beside this")
                    .help("write `expect: no_rows`, `expect: { equals: VALUE }` or `expect: { at_least: NUMBER }`"),
            );
            return None;
        };
        Some(Asked::Query {
            sql: sql.value.trim().to_owned(),
            expect: match expect {
                ExpectFile::NoRows => Expect::NoRows,
                ExpectFile::Equals(value) => Expect::Equals(value.value.0.clone()),
                ExpectFile::AtLeast(number) => Expect::AtLeast(number.value),
            },
        })
    }

    fn orphans(&mut self, file: &At<OrphansFile>) -> Option<Orphans> {
        let OrphansFile {
            table,
            column,
            columns,
            references,
            key,
            keys,
        } = &file.value;
        let columns = self.names(file, ("column", column), ("columns", columns));
        let key = self.names(file, ("key", key), ("keys", keys));
        let (columns, key) = (columns?, key?);
        if columns.len() != key.len() {
            self.problems.push(
                Problem::at(file.place, format!("{} columns cannot point at {}", columns.len(), key.len()))
                    .help("write as many `keys` as `columns`, in the same order"),
            );
        }
        Some(Orphans {
            table: table.value.clone(),
            columns,
            references: references.value.clone(),
            key,
        })
    }

    /// One name or several, under the word for one or the word for several.
    fn names(
        &mut self,
        file: &At<OrphansFile>,
        (word, one): (&str, &Option<At<String>>),
        (words, several): (&str, &Option<At<Vec<String>>>),
    ) -> Option<Vec<String>> {
        match (one, several) {
            (Some(one), None) => Some(vec![one.value.clone()]),
            (None, Some(several)) if !several.value.is_empty() => Some(several.value.clone()),
            _ => {
                self.problems.push(
                    Problem::at(file.place, format!("orphans need one of `{word}` and `{words}`"))
                        .help("for example `orphans: { table: reservations, column: guest_id, references: guests, key: id }`"),
                );
                None
            }
        }
    }
}

fn soft_delete(postgres: &PostgresFile) -> SoftDelete {
    let mut mark = SoftDelete::default();
    let Some(file) = &postgres.soft_delete else { return mark };
    if let Some(column) = &file.column {
        mark.column.clone_from(&column.value);
    }
    mark.also = file.also.iter().flatten().map(|name| name.value.clone()).collect();
    mark.zone = file.zone.as_ref().map(|zone| zone.value.clone());
    mark
}

/// The database of the connection, as far as it is written down.
/// The only database of a logical backup.
fn only(postgres: &PostgresFile) -> Option<String> {
    match postgres.databases.as_deref()? {
        [only] => Some(only.value.clone()),
        _ => None,
    }
}

fn database_of(postgres: &PostgresFile) -> Option<String> {
    if let Some(database) = &postgres.database {
        return Some(database.value.clone());
    }
    match postgres.url.as_ref().map(|url| &url.value) {
        Some(SecretFile::Inline(text)) => {
            let info = ConnInfo::parse(text, &Surroundings::default()).ok()?;
            Some(info.database().to_owned())
        }
        _ => None,
    }
}

/// A query as a name: one line, not too long.
fn shortened(sql: &str) -> String {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= NAME {
        return line;
    }
    let kept: String = line.chars().take(NAME).collect();
    format!("{kept}…")
}
