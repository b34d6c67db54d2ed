//! Copying backups from one store of a repository to another, without a private key (docs/several-stores.md).
//!
//! Announce there → look there → keys, packs, maps → look again → backup file (INV-02), for each backup, oldest first. If we die, there are
//! files in the destination that nothing names; the next run finds them and goes on. Only what counts in the source is copied (INV-09).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Entry, Key, Put};
use tokio::task::JoinSet;

use crate::id::{BackupId, ComponentName};
use crate::key::instance::{Instance, Trust};
use crate::listing::{BACKUP_LIMIT_BYTES, Backup, Listing, protocol_backup};
use crate::prune::marks::marks_of;
use crate::prune::records::Place;
use crate::replicas::{COPIES, NotCopied, Wanted, copy_file, fits_name, read_whole};
use crate::repository::{Repository, another};
use crate::session::{OpenSession, announce};

/// Which backups to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// What the destination lacks and is not older than the oldest one that it holds: older ones were given up there.
    Missing,
    /// Every backup.
    All,
    /// Those named, as people type them.
    Named(Vec<String>),
}

/// What to copy, and who does it.
#[derive(Debug)]
pub struct CopyPlan {
    /// Of what.
    pub component: ComponentName,
    /// Who announces it.
    pub instance: Arc<Instance>,
    /// Whose backups count.
    pub trust: Trust,
    /// Which of them.
    pub which: Which,
}

/// What came of it.
#[derive(Debug, Default)]
#[must_use]
pub struct Copied {
    /// Backups that count in the destination now and did not before.
    pub copied: Vec<Backup>,
    /// Backups that were wanted and counted there before.
    pub there: Vec<BackupId>,
    /// Backups that were wanted and are not there, with the reason.
    pub failed: Vec<(BackupId, Error)>,
    /// Files put, backup files among them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What the operator should know: files that were taken from a third store, backups that do not count in the source.
    pub notes: Vec<String>,
}

/// Copies backups from `from` to `to`; a file that is damaged there is taken from one of `others`. A backup of which no store has a good
/// file is reported and does not keep the next one from being copied; a destination that cannot be written to ends the run with an error.
pub async fn copy(env: &Env, from: &Repository, to: &Repository, others: &[Repository], plan: &CopyPlan) -> Result<Copied> {
    for repository in others.iter().chain([to]) {
        if repository.id() != from.id() {
            return Err(another(repository.store().name(), repository.id(), from.id()));
        }
    }
    let mut report = Copied::default();
    let source = from.backups(&plan.component, &plan.trust).await?;
    for rejected in &source.rejected {
        report.notes.push(format!(
            "{} is not copied: it does not count: {}",
            rejected.name, rejected.reason
        ));
    }
    let before = to.backups(&plan.component, &plan.trust).await?;
    let wanted = choose(&source, &before, &plan.which)?;
    let (there, missing): (Vec<&Backup>, Vec<&Backup>) = wanted.into_iter().partition(|backup| holds(&before, &backup.id));
    report.there = there.iter().map(|backup| backup.id).collect();
    let marked = before.marked_bad(&plan.component)?;
    let healing = missing.is_empty() && there.iter().any(|backup| needs_one(backup, &marked));
    let newest = if healing { there.last() } else { missing.last() };
    let Some(newest) = newest else { return Ok(report) };
    let open = announce(env, to, &plan.component, &plan.instance, "copy", Some(&newest.id)).await?;
    let mut sources = vec![Arc::clone(from.store())];
    sources.extend(others.iter().map(|repository| Arc::clone(repository.store())));
    let copy = Copy {
        env,
        open,
        plan,
        sources,
        to,
    };
    let outcome = match copy.heal(&there, &marked, &mut report).await {
        Ok(()) => copy.all(missing, &source, &mut report).await,
        Err(error) => Err(error),
    };
    // What was copied stands by itself now. An announcement that names a backup which was not copied would stop the pruner there for two
    // days; where it cannot be removed, it runs out.
    for name in copy.open.names()? {
        drop(to.store().delete(&name).await);
    }
    env.progress.finish();
    outcome.map(|()| report)
}

/// Whether a file of a backup is among `marked`.
fn needs_one(backup: &Backup, marked: &BTreeSet<String>) -> bool {
    backup
        .closure
        .packs
        .iter()
        .any(|pack| marked.contains(&hex::encode(pack.hash)))
}

fn holds(listing: &Listing, id: &BackupId) -> bool {
    listing.backups.iter().any(|backup| backup.id == *id)
}

/// The wanted backups, ascending.
fn choose<'a>(source: &'a Listing, there: &Listing, which: &Which) -> Result<Vec<&'a Backup>> {
    Ok(match which {
        Which::All => source.backups.iter().collect(),
        Which::Missing => {
            let oldest = there.backups.first().map(|backup| backup.id.seq);
            let wanted = |backup: &&Backup| oldest.is_none_or(|oldest| backup.id.seq >= oldest);
            source.backups.iter().filter(wanted).collect()
        }
        Which::Named(names) => {
            let mut found: Vec<&Backup> = names.iter().map(|name| source.find(name)).collect::<Result<_>>()?;
            found.sort_by_key(|backup| backup.id);
            found.dedup_by_key(|backup| backup.id);
            found
        }
    })
}

struct Copy<'a> {
    env: &'a Env,
    open: OpenSession,
    plan: &'a CopyPlan,
    /// The source first.
    sources: Vec<Arc<dyn BlobStore>>,
    to: &'a Repository,
}

type Outcome<T> = std::result::Result<T, NotCopied>;

impl Copy<'_> {
    /// Steps 3 to 5: what is being deleted there, read after the announcement; then one backup after the other.
    async fn all(&self, missing: Vec<&Backup>, source: &Listing, report: &mut Copied) -> Result<()> {
        let place = Place {
            repository: self.to,
            component: &self.plan.component,
            trust: &self.plan.trust,
        };
        let marks = marks_of(&place).await?.map_err(|doubt| {
            let detail = format!("nobody knows what is being deleted there: {doubt}");
            Error::new(ErrorKind::Refused, "copy backups to", self.name(), detail)
                .with_hint("look at the file under `prune/`; once it is explained and removed, copy again")
        })?;
        for backup in missing {
            let as_listed = protocol_backup(&self.plan.component, &backup.id, &backup.closure)?;
            let outcome = if marks.iter().any(|marks| marks.touches(&as_listed)) {
                Err(NotCopied::Unreadable(self.given_up(&backup.id)))
            } else {
                self.one(backup, source, report).await
            };
            match outcome {
                Ok(()) => report.copied.push(backup.clone()),
                Err(NotCopied::Unreadable(error)) => report.failed.push((backup.id, error)),
                Err(NotCopied::Unwritable(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Replaces packs of the destination that a scrub found damaged, and that backups which count there need, where another store has them
    /// whole; their marks go last. If we die between the removal and the put, the file is missing, and the next copy brings it.
    async fn heal(&self, there: &[&Backup], marked: &BTreeSet<String>, report: &mut Copied) -> Result<()> {
        let (component, to) = (&self.plan.component, self.to.store());
        let mut damaged = BTreeMap::new();
        for backup in there {
            for pack in &backup.closure.packs {
                if marked.contains(&hex::encode(pack.hash)) {
                    damaged.insert(backup.closure.pack_key(pack, component)?, u64::from(pack.size_bytes));
                }
            }
        }
        for (key, size_bytes) in damaged {
            let Some(good) = self.whole(&key, size_bytes).await else {
                report
                    .notes
                    .push(format!("{key} is damaged, and no other store has it whole"));
                continue;
            };
            let mark = component.folder()?.join(&format!("bad/{}", key.file_name()))?;
            // The mark may be older than the file.
            if to.get(&key, size_bytes).await.is_ok_and(|bytes| bytes == good) {
                drop(to.delete(&mark).await);
                continue;
            }
            if let Err(error) = to.delete(&key).await {
                report
                    .notes
                    .push(format!("{key} is damaged and could not be replaced: {error}"));
                continue;
            }
            match to.put(&key, good).await? {
                Put::Created | Put::AlreadyThere => {}
            }
            to.delete(&mark).await?;
            report.files += 1;
            report.bytes += size_bytes;
            report
                .notes
                .push(format!("{key} was damaged: it was replaced by a good copy"));
        }
        Ok(())
    }

    /// The bytes of a file, from the first other store that has it undamaged.
    async fn whole(&self, key: &Key, size_bytes: u64) -> Option<Bytes> {
        for source in &self.sources {
            if let Ok(bytes) = read_whole(source, key, size_bytes).await {
                return Some(bytes);
            }
        }
        None
    }

    fn name(&self) -> &str {
        self.to.store().name()
    }

    fn given_up(&self, backup: &BackupId) -> Error {
        let detail = format!("a pruner of {} is deleting it, or a file that it needs", self.name());
        Error::new(ErrorKind::Refused, "copy backup", backup.short(), detail)
            .with_hint("copy it again once `lifeboat prune` has finished there; `lifeboat hold` keeps what is not to go")
    }

    async fn one(&self, backup: &Backup, source: &Listing, report: &mut Copied) -> Outcome<()> {
        let (component, store) = (&self.plan.component, &**self.to.store());
        let extended = self.open.keep_open(store, &self.plan.instance).await;
        extended.map_err(NotCopied::Unwritable)?;
        let wanted = Wanted::new(backup.id, &backup.closure, component).map_err(NotCopied::Unreadable)?;
        let there = self.listed().await?;
        let lacking = wanted
            .lacking(component, &there, &source.files)
            .map_err(NotCopied::Unreadable)?;
        self.clear_damaged(&lacking, &there).await?;
        let bytes = lacking.iter().map(|(_, size_bytes)| size_bytes).sum();
        self.env.progress.step("copy", Some(bytes));
        self.files(lacking, report).await?;
        // INV-02: everything is looked at once more before the backup file says that it is there.
        let there = self.listed().await?;
        if let Some(what) = wanted.wanting(component, &there).map_err(NotCopied::Unreadable)? {
            let detail = format!("{what} is no longer in the store, though it was stored");
            let error = Error::new(ErrorKind::Corrupt, "copy a backup to", self.name(), detail)
                .with_hint("something else deletes from this store; find it, then run the copy again");
            return Err(NotCopied::Unwritable(error));
        }
        let deadline = self.open.check_deadline("copy the backups of", component);
        deadline.map_err(NotCopied::Unwritable)?;
        let header = wanted.backup_key(component).map_err(NotCopied::Unreadable)?;
        if there.contains_key(&header) && !self.is_whole(&header).await? {
            self.to.store().delete(&header).await.map_err(NotCopied::Unwritable)?;
        }
        copy_file(&self.sources, self.to.store(), &header, BACKUP_LIMIT_BYTES).await?;
        report.files += 1;
        report.bytes += source.files.get(&header).copied().unwrap_or(0);
        Ok(())
    }

    async fn listed(&self) -> Outcome<BTreeMap<Key, Entry>> {
        let listed = async { self.to.store().list(&self.plan.component.folder()?).await };
        let entries = listed.await.map_err(NotCopied::Unwritable)?;
        Ok(entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect())
    }

    /// A file of the right name and the wrong size is not that file, and a put would refuse to replace it. No backup that counts there
    /// reaches it, as its size is part of what counts (INV-09, INV-14).
    async fn clear_damaged(&self, lacking: &[(Key, u64)], there: &BTreeMap<Key, Entry>) -> Outcome<()> {
        for (key, size_bytes) in lacking {
            if there.get(key).is_some_and(|entry| entry.size_bytes != *size_bytes) {
                self.to.store().delete(key).await.map_err(NotCopied::Unwritable)?;
            }
        }
        Ok(())
    }

    /// Whether a backup file of the destination hashes to its name.
    async fn is_whole(&self, header: &Key) -> Outcome<bool> {
        let bytes = self
            .to
            .store()
            .get(header, BACKUP_LIMIT_BYTES)
            .await
            .map_err(NotCopied::Unwritable)?;
        Ok(fits_name(header, &bytes))
    }

    /// Several at a time, each in memory as a whole.
    async fn files(&self, lacking: Vec<(Key, u64)>, report: &mut Copied) -> Outcome<()> {
        let mut tasks = JoinSet::new();
        let mut pending = lacking.into_iter();
        loop {
            while tasks.len() < COPIES {
                let Some((key, size_bytes)) = pending.next() else { break };
                let (sources, to) = (self.sources.clone(), Arc::clone(self.to.store()));
                tasks.spawn(async move {
                    let source = copy_file(&sources, &to, &key, size_bytes).await?;
                    Ok((key, size_bytes, source))
                });
            }
            let Some(joined) = tasks.join_next().await else {
                return Ok(());
            };
            let panicked = |error: tokio::task::JoinError| {
                let detail = "a task panicked";
                NotCopied::Unwritable(Error::new(ErrorKind::Bug, "copy", "a stored file", detail).with_source(error))
            };
            let (key, size_bytes, source) = joined.map_err(panicked)??;
            if source > 0 {
                report.notes.push(format!(
                    "{key} is missing or damaged in {}: a good copy was taken from {}",
                    self.sources[0].name(),
                    self.sources[source].name()
                ));
            }
            report.files += 1;
            report.bytes += size_bytes;
            self.env.progress.advance(size_bytes);
        }
    }
}
