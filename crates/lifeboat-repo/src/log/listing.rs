//! What stands under `log/`: by names and sizes. What may be held, not yet what is.

use std::collections::{BTreeMap, BTreeSet};

use lifeboat_model::wal::Coverage;
use lifeboat_model::{Error, ErrorKind, Result, Timeline};
use lifeboat_store::Entry;

use super::name::{LogFileKind, LogName, LogPlace};
use super::reader::LogReader;
use super::record::{GapRecord, LineageRecord, read_gap, read_lineage};
use crate::id::{ComponentName, Lineage};
use crate::key::file::KeyFileName;
use crate::key::identity::Identities;
use crate::key::instance::Trust;
use crate::prune::records::{Place, below};
use crate::repository::Repository;

/// The log of a component in one store.
#[derive(Debug, Default)]
pub struct LogListing {
    /// Its lineages, the oldest first.
    pub lineages: Vec<LineageRecord>,
    /// Log that nobody can give us any more.
    pub gaps: Vec<GapRecord>,
    /// What stands there and does not count, with the reason.
    pub rejected: Vec<(String, Error)>,
    files: BTreeMap<Lineage, Vec<LogName>>,
}

/// Lists the log of a component. Records are read; of files only names and sizes are looked at.
///
/// # Errors
/// When the store cannot be listed (INV-13) or read. What cannot be judged is among the rejected.
pub async fn list_log(repository: &Repository, component: &ComponentName, trust: &Trust) -> Result<LogListing> {
    let place = Place {
        repository,
        component,
        trust,
    };
    let folder = component.folder()?;
    let entries = repository.store().list(&folder.join("log")?).await?;
    let mut listing = LogListing::default();
    for entry in entries {
        match listing.take(&place, &entry, below(&folder, &entry.key)).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) => {
                listing.rejected.push((entry.key.to_string(), error));
            }
            Err(error) => return Err(error),
        }
    }
    listing.lineages.sort_by_key(|record| (record.opened_us, record.lineage));
    // One that was begun again where its first record was away has two: the oldest says when it began.
    let mut seen = BTreeSet::new();
    listing.lineages.retain(|record| seen.insert(record.lineage));
    Ok(listing)
}

/// Of `names`, those that count in this one store: their beginning fits, and a key file of their session stands beside them. Only what a store answered
/// for may be given up elsewhere (PG-03).
///
/// # Errors
/// When the store does not answer.
pub async fn confirm_log(
    repository: &Repository,
    component: &ComponentName,
    trust: &Trust,
    lineage: Lineage,
    names: Vec<LogName>,
) -> Result<Vec<LogName>> {
    let keys = repository.store().list(&component.folder()?.join("keys")?).await?;
    let sessions: BTreeSet<_> = keys
        .iter()
        .filter_map(|entry| KeyFileName::parse(entry.key.file_name()))
        .map(|name| name.session)
        .collect();
    let asked = LogListing {
        files: BTreeMap::from([(lineage, names)]),
        ..LogListing::default()
    };
    let reader = LogReader::of(repository, component, trust, Identities::none(), lineage, &asked);
    let judged = reader.headers(|name| sessions.contains(&name.session)).await?;
    Ok(judged.fit.into_iter().map(|(name, _)| name).collect())
}

impl LogListing {
    async fn take(&mut self, place: &Place<'_>, entry: &Entry, name: &str) -> Result<()> {
        let wrong = |detail: &str| Error::new(ErrorKind::Corrupt, "accept log", &entry.key, detail);
        match LogPlace::parse(name) {
            Some(LogPlace::File(lineage, name)) if u64::from(name.size_bytes) == entry.size_bytes => {
                self.files.entry(lineage).or_default().push(name);
            }
            Some(LogPlace::File(..)) => return Err(wrong("it has another size than its name says: it is cut short")),
            Some(LogPlace::Lineage(lineage)) => self.lineages.push(read_lineage(place, &entry.key, lineage).await?),
            Some(LogPlace::Gap(lineage)) => self.gaps.push(read_gap(place, &entry.key, lineage).await?),
            None => return Err(wrong("its name is not that of a log file")),
        }
        Ok(())
    }

    /// The files of a lineage, in the order of their names.
    #[must_use]
    pub fn files(&self, lineage: Lineage) -> &[LogName] {
        self.files.get(&lineage).map_or(&[], Vec::as_slice)
    }

    /// What may be held of a lineage, by names and sizes alone.
    #[must_use]
    pub fn candidates(&self, lineage: Lineage) -> Coverage {
        let mut coverage = Coverage::new();
        let log = self.files(lineage).iter().filter(|name| name.kind != LogFileKind::History);
        log.for_each(|name| coverage.add(name.range));
        coverage
    }

    /// The timelines of which a history file stands.
    pub fn histories(&self, lineage: Lineage) -> impl Iterator<Item = Timeline> + '_ {
        let histories = self.files(lineage).iter().filter(|name| name.kind == LogFileKind::History);
        histories.map(|name| name.range.timeline)
    }

    /// The newest lineage of a cluster.
    #[must_use]
    pub fn newest(&self, system: u64) -> Option<&LineageRecord> {
        self.lineages.iter().rev().find(|record| record.system == system)
    }
}
