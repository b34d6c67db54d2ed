//! Locks of stored files: until when a backup is safe from deletion, and making that longer for what living backups need.
//!
//! A backup is locked only as long as the first of its files; an old pack that a new backup reaches carries an old lock. So living backups
//! are renewed, with credentials of their own. A lock is never made shorter here.

use std::collections::BTreeSet;

use lifeboat_model::{Env, Error, Result};
use lifeboat_repo::{Backup, ComponentName, Listing};
use lifeboat_store::Key;
use lifeboat_store::s3admin::{Bucket, Lock};
use tokio::task::JoinSet;

use super::cold::{AT_ONCE, lost};

const DAY_US: i64 = 86_400_000_000;

/// Until when a backup cannot be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locked {
    /// All its files are locked until then (microseconds since 1970).
    Until(i64),
    /// So many of its files are not locked at all.
    Not(u64),
}

/// What an extension did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extended {
    /// Files that were looked at.
    pub files: u64,
    /// Locks that were made longer.
    pub extended: u64,
    /// Files that carry a lock long enough.
    pub long_enough: u64,
}

impl Extended {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            extended: self.extended + other.extended,
            long_enough: self.long_enough + other.long_enough,
        }
    }
}

/// Asks for the lock of every file of a backup, the backup file among them.
pub async fn locked_until(bucket: &Bucket, component: &ComponentName, backup: &Backup) -> Result<Locked> {
    let files = files(backup, component)?;
    let (mut first, mut without) = (i64::MAX, 0);
    each(
        bucket,
        files,
        |bucket, key| async move { Ok(bucket.file(&key).await?.lock) },
        |lock| match lock {
            Some((_, until_us)) => first = first.min(until_us),
            None => without += 1,
        },
    )
    .await?;
    Ok(if without == 0 {
        Locked::Until(first)
    } else {
        Locked::Not(without)
    })
}

/// Makes the locks of everything that counted backups reach last at least half of `lock.days` from now; those that do not are set to the
/// whole. Needs the maintenance credentials.
pub async fn extend(env: &Env, bucket: &Bucket, component: &ComponentName, listing: &Listing, lock: Lock) -> Result<Extended> {
    let mut wanted = BTreeSet::new();
    for backup in &listing.backups {
        wanted.extend(files(backup, component)?);
    }
    let length_us = i64::from(lock.days).saturating_mul(DAY_US);
    let now_us = env.clock.wall_us();
    let (enough_us, until_us) = (now_us.saturating_add(length_us / 2), now_us.saturating_add(length_us));
    let mut done = Extended::default();
    each(
        bucket,
        wanted,
        move |bucket, key| async move {
            let state = bucket.file(&key).await?;
            if state.lock.is_some_and(|(_, until_us)| until_us >= enough_us) {
                return Ok(false);
            }
            let version = state.version.ok_or_else(|| {
                Error::new(
                    lifeboat_model::ErrorKind::Refused,
                    "lock",
                    &key,
                    "the bucket keeps no versions, and only versions can be locked",
                )
                .with_hint("run `lifeboat store setup`, then this command again")
            })?;
            // A stricter lock that is there stays as strict.
            let mode = state.lock.map_or(lock.mode, |(mode, _)| mode);
            bucket.set_retention(&key, &version, mode, until_us).await?;
            Ok(true)
        },
        |extended| {
            done.files += 1;
            done.extended += u64::from(extended);
            done.long_enough += u64::from(!extended);
        },
    )
    .await?;
    Ok(done)
}

/// Every file of a backup.
fn files(backup: &Backup, component: &ComponentName) -> Result<BTreeSet<Key>> {
    let mut files: BTreeSet<Key> = backup.files()?.into_iter().map(|(key, _)| key).collect();
    files.insert(component.folder()?.join(&format!("backups/{}", backup.id))?);
    Ok(files)
}

/// Calls `ask` for every file, several at once, and `take` with what it said; the first error ends it.
async fn each<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    bucket: &Bucket,
    files: BTreeSet<Key>,
    ask: impl Fn(Bucket, Key) -> F,
    mut take: impl FnMut(T),
) -> Result<()> {
    let mut waiting = files.into_iter();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE {
            let Some(key) = waiting.next() else { break };
            tasks.spawn(ask(bucket.clone(), key));
        }
        let Some(joined) = tasks.join_next().await else {
            return Ok(());
        };
        take(joined.map_err(lost)??);
    }
}
