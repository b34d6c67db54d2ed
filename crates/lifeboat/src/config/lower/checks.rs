//! How much a backup may ask of a server, and what is checked in a restored copy of it.

use std::time::Duration;

use lifeboat_engine::postgres::checks::{Assertion, Expect};
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_ops::Source;
use lifeboat_ops::protected::Care;

use super::Lowering;
use crate::config::file::{CheckFile, ComponentFile, ExpectFile, PostgresFile, SecretFile};
use crate::config::problem::Problem;

/// How long a query may take unless something else is said.
const LIMIT: Duration = Duration::from_secs(60);
/// The least that a server takes for a limit.
const LEAST_RATE: u64 = 32 << 10;
/// Characters of a query that become its name.
const NAME: usize = 60;

impl Lowering<'_> {
    /// What is asked for besides, into the source that it is for.
    pub(super) fn besides(&mut self, full: &str, component: &ComponentFile, source: &mut Source) {
        let max_rate = component.backup.max_rate.as_ref();
        match (source, &component.postgres) {
            (Source::Postgres(cluster), Some(postgres)) => {
                let care = Care::default();
                cluster.care = Care {
                    max_rate: max_rate.and_then(|text| self.bandwidth(text, "max_rate", LEAST_RATE)),
                    count_rows: match &postgres.count_rows {
                        Some(text) => self.duration(text, "count_rows", "5s"),
                        None => care.count_rows,
                    },
                    checks: self.checks(full, component, postgres),
                };
            }
            _ => {
                if let Some(text) = max_rate {
                    self.problems.push(
                        Problem::at(
                            text.place,
                            format!("{full} is no PostgreSQL cluster, and only those are read at a limited rate"),
                        )
                        .help("`stores: { NAME: { …, limit: { upload: 20MiB } } }` limits what goes to a store"),
                    );
                }
                if let Some(check) = component.checks.iter().flatten().next() {
                    self.problems.push(
                        Problem::at(
                            check.sql.place,
                            format!("{full} is no PostgreSQL cluster, and only those have checks of their own"),
                        )
                        .help("integrity, foreign keys and row counts of a SQLite database are checked without being asked for"),
                    );
                }
            }
        }
    }

    fn checks(&mut self, full: &str, component: &ComponentFile, postgres: &PostgresFile) -> Vec<Assertion> {
        let given = component.checks.iter().flatten();
        given.filter_map(|check| self.check(full, check, postgres)).collect()
    }

    fn check(&mut self, full: &str, check: &CheckFile, postgres: &PostgresFile) -> Option<Assertion> {
        let sql = check.sql.value.trim();
        if sql.is_empty() {
            self.problems
                .push(Problem::at(check.sql.place, "this is no query").label("empty"));
        }
        let database = check
            .database
            .as_ref()
            .map(|text| text.value.clone())
            .or_else(|| database_of(postgres));
        if database.is_none() {
            self.problems.push(
                Problem::at(check.sql.place, format!("which database of {full} does this ask?"))
                    .label("`database` belongs beside this")
                    .help("write `database: NAME`"),
            );
        }
        let limit = match &check.timeout {
            Some(text) => self.some_duration(text, "timeout", "60s"),
            None => LIMIT,
        };
        Some(Assertion {
            name: match &check.name {
                Some(name) => name.value.clone(),
                None => shortened(sql),
            },
            database: database?,
            sql: sql.to_owned(),
            expect: match &check.expect {
                ExpectFile::NoRows => Expect::NoRows,
                ExpectFile::Equals(value) => Expect::Equals(value.value.0.clone()),
                ExpectFile::AtLeast(number) => Expect::AtLeast(number.value),
            },
            limit,
        })
    }
}

/// The database of the connection, as far as it is written down.
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
