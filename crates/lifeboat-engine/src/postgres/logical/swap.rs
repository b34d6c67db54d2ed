//! One database in another's place (LG-05): connections blocked, both renames in one transaction, what was replaced is kept.
//!
//! Killed anywhere, the same call finishes: what was done is read from the server. A database is known by its number, which a rename does not
//! change.

use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::catalog;
use super::destination::Destination;
use super::{quoted_name, quoted_text};

/// How often sessions that come back between the block and the rename are ended.
const ATTEMPTS: u32 = 5;
/// How long the server has to end a session.
const PATIENCE: Duration = Duration::from_secs(10);

/// A database of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standing {
    /// Its number.
    pub oid: u32,
    /// Its name now.
    pub name: String,
    /// Whether anybody may connect.
    pub open: bool,
}

/// Two databases that change places.
#[derive(Debug, Clone)]
pub struct Swap {
    /// The number of the one that gets the name.
    pub new: u32,
    /// The name.
    pub name: String,
    /// What the one that has it now is called afterwards.
    pub old_name: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Swapped {
    /// The database that had the name before; none where nobody had it.
    pub old: Option<Standing>,
    /// Sessions that were ended.
    pub ended: u64,
}

impl Destination {
    /// The database of this number, and the one of this name.
    pub async fn look_up(&self, oid: u32, name: &str) -> Result<(Option<Standing>, Option<Standing>)> {
        let asked = format!(
            "SELECT coalesce(json_agg(json_build_object('oid', oid::bigint, 'name', datname, 'open', datallowconn)), '[]') \
             FROM pg_database WHERE oid = {oid} OR datname = {}",
            quoted_text(name)
        );
        let found: Vec<Standing> = catalog::ask(self.sql(), &asked).await?;
        let by = |of: &dyn Fn(&Standing) -> bool| found.iter().find(|one| of(one)).cloned();
        Ok((by(&|one| one.oid == oid), by(&|one| one.name == name)))
    }

    /// The number of a database.
    pub async fn oid(&self, name: &str) -> Result<u32> {
        let (_, found) = self.look_up(0, name).await?;
        found.map(|found| found.oid).ok_or_else(|| gone(name))
    }

    /// Gives `swap.new` the name, and keeps whoever has it now under `swap.old_name`, closed. Sessions in both are ended.
    ///
    /// # Errors
    /// `NoSuchPoint` where the new one is gone, `AlreadyExists` or `Failed` where the old name is taken, `Locked` where sessions cannot be ended. Whoever has
    /// the name takes connections then; the hint says so where that could not be done.
    pub async fn swap(&self, swap: &Swap) -> Result<Swapped> {
        let (new, old) = self.look_up(swap.new, &swap.name).await?;
        let new = new.ok_or_else(|| gone(&swap.name))?;
        if new.name == swap.name {
            // An earlier call came as far as that.
            self.set_open(&new.name, true).await?;
            let (_, old) = self.look_up(0, &swap.old_name).await?;
            return Ok(Swapped { old, ended: 0 });
        }
        match self.close_and_rename(&new, old.as_ref(), swap).await {
            Ok(ended) => {
                self.set_open(&swap.name, true).await?;
                Ok(Swapped { old, ended })
            }
            Err(error) => Err(self.reopen(&new, old.as_ref(), error).await),
        }
    }

    async fn close_and_rename(&self, new: &Standing, old: Option<&Standing>, swap: &Swap) -> Result<u64> {
        for one in [Some(new), old].into_iter().flatten() {
            self.set_open(&one.name, false).await?;
        }
        self.rename_both(new, old, swap).await
    }

    /// After an error before the renames: whoever has the name takes connections again, also where an earlier run that was killed had closed it.
    async fn reopen(&self, new: &Standing, old: Option<&Standing>, error: Error) -> Error {
        for one in [Some(new).filter(|new| new.open), old].into_iter().flatten() {
            if self.set_open(&one.name, true).await.is_err() {
                return error.with_hint(format!(
                    "nobody may connect to {0} now; once the cause is mended, run the command again, or: ALTER DATABASE {0} ALLOW_CONNECTIONS true",
                    quoted_name(&one.name)
                ));
            }
        }
        error
    }

    async fn rename_both(&self, new: &Standing, old: Option<&Standing>, swap: &Swap) -> Result<u64> {
        let mut renames = vec!["BEGIN".to_owned()];
        let mut rename = |from: &str, to: &str| {
            renames.push(format!("ALTER DATABASE {} RENAME TO {}", quoted_name(from), quoted_name(to)));
        };
        if let Some(old) = old {
            rename(&old.name, &swap.old_name);
        }
        rename(&new.name, &swap.name);
        renames.push("COMMIT".to_owned());
        let mut ended = 0;
        for attempt in 1..=ATTEMPTS {
            for one in [Some(new), old].into_iter().flatten() {
                ended += self.end_sessions(one).await?;
            }
            match self.run(&renames.join("; ")).await {
                Ok(()) => return Ok(ended),
                Err(error) => {
                    self.run("ROLLBACK").await?;
                    // Somebody was in between: autovacuum, or a session that was being ended.
                    if error.kind() != ErrorKind::Locked || attempt == ATTEMPTS {
                        return Err(error);
                    }
                }
            }
        }
        Ok(ended)
    }

    /// Whether anybody may connect.
    pub async fn set_open(&self, name: &str, open: bool) -> Result<()> {
        self.run(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {open}", quoted_name(name)))
            .await
    }

    /// Drops a database that was replaced and is closed.
    ///
    /// # Errors
    /// `Bug` for one that anybody may connect to.
    pub async fn drop_kept(&self, kept: &Standing) -> Result<()> {
        if kept.open {
            return Err(Error::new(ErrorKind::Bug, "drop", &kept.name, "it is open: somebody uses it"));
        }
        self.run(&format!("DROP DATABASE {}", quoted_name(&kept.name))).await
    }

    /// Ends all sessions in a database; returns how many there were.
    async fn end_sessions(&self, database: &Standing) -> Result<u64> {
        let asked = format!(
            "SELECT json_build_array(count(*), count(*) FILTER (WHERE NOT pg_terminate_backend(pid, {}))) \
             FROM pg_stat_activity WHERE datid = {} AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            PATIENCE.as_millis(),
            database.oid
        );
        let (all, left): (u64, u64) = catalog::ask(self.sql(), &asked).await?;
        if left > 0 {
            let detail = format!("{left} sessions in it do not end");
            return Err(Error::new(ErrorKind::Locked, "end the sessions in", &database.name, detail)
                .with_hint("pg_stat_activity shows them; end them, and run the command again"));
        }
        Ok(all)
    }
}

fn gone(name: &str) -> Error {
    Error::new(ErrorKind::NoSuchPoint, "find the database", name, "it is not there any more")
        .with_hint("restore it again: `lifeboat restore WHAT`")
}
