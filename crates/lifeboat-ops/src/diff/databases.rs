//! Databases of logical backups, table by table: by the counts and digests that each backup keeps, and of a live server by reading it.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_engine::postgres::logical::leader::Leader;
use lifeboat_engine::postgres::logical::{Digest, Name, parts};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Identities, Reader, Repository};

use super::Of;
use crate::protected::Protected;
use crate::restore::logical;
use crate::restore::logical::rows::{Reads, digests};

/// A table of which something differs, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In which database.
    pub database: String,
    /// Its name.
    pub table: Name,
    /// What it was; none: it was not there.
    pub before: Option<Digest>,
    /// What it is; none: it is not there.
    pub after: Option<Digest>,
}

impl Change {
    /// Whether it is the same, as far as its digest tells.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.before == self.after
    }
}

type Tables = BTreeMap<(String, Name), Digest>;

/// Compares all tables, or those of `only` (`TABLE` or `SCHEMA.TABLE`).
///
/// # Errors
/// `Usage` for a backup by another method, for two live sides, and where no table is called so.
pub async fn compare(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    (before, after): (&Of, &Of),
    identities: &Identities,
    only: &[String],
) -> Result<Vec<Change>> {
    let mut sides = (None, None);
    for (of, side) in [(before, &mut sides.0), (after, &mut sides.1)] {
        if let Of::Backup(backup) = of {
            let reader = Reader::open(env, repository, backup, identities).await?;
            let facts = logical::facts(&reader, backup)?;
            if let Some(detail) = facts.lacks() {
                return Err(Error::new(ErrorKind::Usage, "compare the rows of", backup.id.short(), detail));
            }
            *side = Some(of_backup(&facts));
        }
    }
    let (before, after) = match sides {
        (Some(before), Some(after)) => (before, after),
        (Some(before), None) => {
            let after = live(env, protected, &before).await?;
            (before, after)
        }
        (None, Some(after)) => (live(env, protected, &after).await?, after),
        (None, None) => {
            let detail = "the live databases are the same as themselves";
            return Err(Error::new(ErrorKind::Usage, "compare", &protected.component, detail));
        }
    };
    let wanted = |name: &Name| only.is_empty() || only.iter().any(|word| *word == name.name || *word == name.to_string());
    let keys: BTreeSet<&(String, Name)> = before.keys().chain(after.keys()).filter(|(_, name)| wanted(name)).collect();
    if keys.is_empty() && !only.is_empty() {
        let detail = format!("there is no table {}", only.join(", "));
        return Err(Error::new(ErrorKind::Usage, "compare", &protected.component, detail));
    }
    let changes = keys.into_iter().map(|key| Change {
        database: key.0.clone(),
        table: key.1.clone(),
        before: before.get(key).copied(),
        after: after.get(key).copied(),
    });
    Ok(changes.collect())
}

fn of_backup(facts: &lifeboat_engine::postgres::logical::Facts) -> Tables {
    let databases = facts.databases.iter();
    let tables = databases.flat_map(|database| {
        let tables = database.tables.iter();
        tables.map(|table| ((database.name.clone(), table.name.clone()), table.digest))
    });
    tables.collect()
}

/// Reads the databases of `other` as they are now, each in one snapshot. One that is gone has no tables.
async fn live(env: &Env, protected: &Protected, other: &Tables) -> Result<Tables> {
    let Some(cluster) = protected.source.cluster() else {
        return Err(super::not_a_database(protected));
    };
    let info = cluster.login.conninfo().await?;
    let wait_ms = u64::try_from(cluster.logical.lock_wait.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let databases: BTreeSet<&String> = other.keys().map(|(database, _)| database).collect();
    let mut tables = Tables::new();
    for database in databases {
        let leader = match Leader::begin(&info, database, wait_ms).await {
            Ok(leader) => leader,
            Err(error) if lifeboat_engine::postgres::sqlstate(&error) == Some("3D000") => continue,
            Err(error) => return Err(error),
        };
        env.progress.step("read", Some(leader.heap_bytes()));
        let found = leader.tables();
        let queue: Reads = parts::plan(found)
            .into_iter()
            .map(|part| (found.get(part.table).map(|table| table.name.clone()), part.sql))
            .collect();
        let sums = digests(env, leader.info(), Some(leader.snapshot()), queue).await?;
        for (name, digest) in sums {
            tables.extend(name.map(|name| ((database.clone(), name), digest)));
        }
        leader.end().await?;
    }
    Ok(tables)
}
