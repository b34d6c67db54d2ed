//! Which log may go (PG-12, INV-17): asked of `lifeboat_model::wal::Keep`, and handed to the protocol as files like all others.
//!
//! Log that has to stay is not shown to the protocol at all, and neither are the key files of its sessions. So a census condemns what no
//! backup that stays needs, and a sweep looks again, sessions before log before backups. Histories, gaps and lineages are never shown.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_model::Result;
use lifeboat_model::protocol::{self, Stop, StoredFile, View};
use lifeboat_model::wal::{Coverage, HeldLog, Keep, KeptBase, Needs};
use lifeboat_store::{Entry, Key};

use super::Retired;
use super::records::{Place, below, owner_of, since_1970};
use super::view::Seen;
use crate::id::{Lineage, SessionId};
use crate::key::identity::Identities;
use crate::listing::Backup;
use crate::log::{LineageRecord, LogFileKind, LogHeader, LogListing, LogName, LogPlace, LogReader, read_lineage};

/// What was stored so long before an open session's announcement, or later, may be what its backup begins with: a standby begins at its last
/// restart point.
const MARGIN: Duration = Duration::from_secs(24 * 3600);

/// A piece, a frame or a history.
#[derive(Debug, Clone)]
pub(super) struct StoredLog {
    pub(super) key: Key,
    pub(super) lineage: Lineage,
    pub(super) name: LogName,
    pub(super) stored_at_us: i64,
    /// It is as long as its name says. One that was cut short may go like any other, and stands for nothing.
    pub(super) fits: bool,
}

/// The log of a component, as it was listed.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) files: Vec<StoredLog>,
    lineages: BTreeMap<Lineage, LineageRecord>,
}

/// Takes the files under `log/`; the record of each lineage is read.
pub(super) async fn look(place: &Place<'_>, entries: Vec<Entry>) -> Result<Log> {
    let folder = place.folder()?;
    let mut log = Log::default();
    for entry in entries {
        match LogPlace::parse(below(&folder, &entry.key)) {
            Some(LogPlace::File(lineage, name)) => log.files.push(StoredLog {
                lineage,
                name,
                fits: u64::from(name.size_bytes) == entry.size_bytes,
                stored_at_us: entry.stored_at_us,
                key: entry.key,
            }),
            Some(LogPlace::Lineage(lineage)) => {
                let record = super::view::judged(read_lineage(place, &entry.key, lineage).await)?;
                log.lineages.insert(lineage, record);
            }
            // Names that are not known end the run elsewhere.
            Some(LogPlace::Gap(_)) | None => {}
        }
    }
    Ok(log)
}

impl Log {
    fn of(&self, lineage: Lineage) -> impl Iterator<Item = &StoredLog> {
        self.files.iter().filter(move |file| file.lineage == lineage)
    }

    /// What stands of each lineage, for whoever decides about backups.
    pub(super) fn standing(&self) -> BTreeMap<Lineage, HeldLog> {
        let of_lineage = |record: &LineageRecord| {
            let mut stored_us = BTreeMap::new();
            let log = self
                .of(record.lineage)
                .filter(|file| file.fits && file.name.kind != LogFileKind::History);
            for file in log {
                let newest = stored_us.entry(file.name.range.timeline).or_insert(i64::MIN);
                *newest = file.stored_at_us.max(*newest);
            }
            HeldLog {
                size: record.segment,
                coverage: self.candidates(record.lineage),
                stored_us,
            }
        };
        let lineages = self.lineages.values();
        lineages.map(|record| (record.lineage, of_lineage(record))).collect()
    }

    /// What may be held of a lineage.
    fn candidates(&self, lineage: Lineage) -> Coverage {
        let mut coverage = Coverage::new();
        let log = self
            .of(lineage)
            .filter(|file| file.fits && file.name.kind != LogFileKind::History);
        log.for_each(|file| coverage.add(file.name.range));
        coverage
    }
}

/// The view with all log that may go among its files, when the backups of `retire` go, and without the key files that log which stays needs.
/// `retired`: which of the others need all log behind their start.
pub(super) fn with_log(seen: &Seen, retire: &BTreeSet<Key>, retired: &Retired) -> std::result::Result<View<Key>, Stop<Key>> {
    let going = protocol::condemn(&seen.view, retire)?.backups;
    let may_go = log_that_may_go(seen, &going, retired);
    let stays = seen.log.files.iter().filter(|file| !may_go.contains_key(&file.key));
    let needed: BTreeSet<SessionId> = stays.map(|file| file.name.session).collect();
    let mut view = seen.view.clone();
    view.files.retain(|file| {
        let name = file.name.as_str();
        let session = name.find("/keys/").and_then(|at| owner_of(name.get(at + 1..)?));
        session.is_none_or(|session| !needed.contains(&session))
    });
    view.files.extend(may_go.into_values());
    Ok(view)
}

fn log_that_may_go(seen: &Seen, going: &BTreeSet<Key>, retired: &Retired) -> BTreeMap<Key, StoredFile<Key>> {
    let log = &seen.log;
    let kept: Vec<(&Backup, bool)> = kept(seen, going).collect();
    let open = seen
        .view
        .sessions
        .iter()
        .filter(|session| session.is_open(seen.view.asked_at));
    let oldest_open = open.map(|session| session.announced_at).min().unwrap_or(seen.view.asked_at);
    let stored_before = oldest_open.saturating_sub(MARGIN);
    let mut may_go = BTreeMap::new();
    for record in log.lineages.values() {
        let bases: Vec<KeptBase> = kept
            .iter()
            .filter_map(|(backup, _)| kept_base(backup, record.lineage, retired))
            .collect();
        let keep = Keep::of(record.segment, &bases);
        let abandoned = bases.is_empty() && is_abandoned(log, record.lineage, &kept);
        for file in log.of(record.lineage) {
            let goes = file.name.kind != LogFileKind::History && (abandoned || keep.may_go(&file.name.range));
            if goes && since_1970(file.stored_at_us) < stored_before {
                may_go.insert(file.key.clone(), stored(file));
            }
        }
    }
    may_go
}

fn stored(file: &StoredLog) -> StoredFile<Key> {
    // The folder of the component is the first two segments of every name in it.
    let folder: Vec<&str> = file.key.as_str().splitn(3, '/').take(2).collect();
    let session = Key::new(format!("{}/sessions/{}", folder.join("/"), file.name.session));
    StoredFile {
        name: file.key.clone(),
        session: session.unwrap_or_else(|_never| file.key.clone()),
    }
}

/// Every backup file that stands and stays, and whether it counts.
fn kept<'a>(seen: &'a Seen, going: &'a BTreeSet<Key>) -> impl Iterator<Item = (&'a Backup, bool)> {
    let listing = &seen.listing;
    let counting = listing.backups.iter().map(|backup| (backup, true));
    let others = listing
        .rejected
        .iter()
        .filter_map(|rejected| rejected.backup.as_deref())
        .map(|backup| (backup, false));
    let all = counting.chain(others);
    all.filter(move |(backup, _)| !going.iter().any(|key| key.file_name() == backup.id.to_string()))
}

fn kept_base(backup: &Backup, lineage: Lineage, retired: &Retired) -> Option<KeptBase> {
    let range = backup.header.log.filter(|log| log.lineage == lineage)?.range;
    let onward = retired.onward.as_ref().is_none_or(|onward| onward.contains(&backup.id));
    Some(KeptBase {
        start: range.start,
        end: range.end,
        needs: if onward { Needs::Onward } else { Needs::Own },
    })
}

/// Whether a lineage that no backup needs is over: a backup that stays needs another one, and is newer than everything in this one.
fn is_abandoned(log: &Log, lineage: Lineage, kept: &[(&Backup, bool)]) -> bool {
    let newest = log.of(lineage).map(|file| file.stored_at_us).max();
    let newer = |backup: &Backup| backup.header.log.is_some() && newest.is_none_or(|newest| newest < backup.header.moment_us);
    kept.iter().any(|(backup, counts)| *counts && newer(backup))
}

/// Deletes frames that a file which stands names as replaced (INV-17). Returns how many.
pub(super) async fn drop_replaced(place: &Place<'_>, log: &Log) -> Result<u64> {
    let mut removed = 0;
    let mut headers: BTreeMap<LogName, Option<LogHeader>> = BTreeMap::new();
    for frame in log.files.iter().filter(|file| file.name.kind == LogFileKind::Frame) {
        let nothing = LogListing::default();
        let reader = LogReader::of(
            place.repository,
            place.component,
            place.trust,
            Identities::none(),
            frame.lineage,
            &nothing,
        );
        let longer = log.of(frame.lineage).filter(|file| file.fits).map(|file| file.name);
        for name in longer.filter(|name| *name != frame.name && name.range.contains(&frame.name.range)) {
            let header = match headers.entry(name) {
                Slot::Occupied(known) => known.into_mut(),
                Slot::Vacant(new) => new.insert(super::view::present_or_unfit(reader.header(&name).await)?),
            };
            if header
                .as_ref()
                .is_some_and(|header| header.replaces.contains(&frame.name.hash))
            {
                place.store().delete(&frame.key).await?;
                removed += 1;
                break;
            }
        }
    }
    Ok(removed)
}
