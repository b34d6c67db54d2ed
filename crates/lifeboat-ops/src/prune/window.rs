//! The recovery window of a component with a log: which backups it needs, how much log they need, and what it comes to (PG-12).
//!
//! The decision is `lifeboat_model::wal::needed`. It is taken from names and sizes, without a key. Times are those of the store, and for backups
//! their places in time, as for every other rule.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lifeboat_model::retention::{Candidate, InWindow, places};
use lifeboat_model::wal::{HeldLog, Needed, Range, WindowBase, needed};
use lifeboat_repo::{Backup, BackupId, Lineage, Standing};

/// What becomes of a recovery window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// How long back every moment is to be reachable.
    pub asked: Duration,
    /// Since when, microseconds since 1970.
    pub from_us: i64,
    /// Since when it is, but for what is missing; none where nothing can be reached.
    pub since_us: Option<i64>,
    /// Log that is missing in it.
    pub missing: Vec<Missing>,
}

/// Log that is missing: no moment behind it can be reached before the next backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub range: Range,
    /// The first backup behind it, with its moment.
    pub until: Option<(BackupId, i64)>,
}

/// The bases of one lineage that a restore may rest on, by their places among all backups.
struct Bases<'a> {
    log: &'a HeldLog,
    of: Vec<usize>,
    bases: Vec<WindowBase>,
}

/// Decides, and tells every candidate. Returns the backups that need all log behind their start, and what the window comes to.
pub(super) fn decide(
    asked: Duration,
    standing: &Standing<'_>,
    backups: &[&Backup],
    candidates: &mut [Candidate],
) -> (BTreeSet<BackupId>, Option<Window>) {
    let placed = places(standing.now_us, candidates);
    let from_us = standing
        .now_us
        .saturating_sub(i64::try_from(asked.as_micros()).unwrap_or(i64::MAX));
    let mut lineages: BTreeMap<Lineage, Bases<'_>> = BTreeMap::new();
    let mut onward = BTreeSet::new();
    for (place, (backup, candidate)) in backups.iter().zip(candidates.iter_mut()).enumerate() {
        let Some(need) = backup.header.log else { continue };
        candidate.window = InWindow::Free;
        // Where nothing is known to be good, all log stays.
        onward.insert(backup.id);
        let (Some(log), Some(at_us)) = (standing.log.get(&need.lineage), placed.get(place)) else {
            continue;
        };
        if !candidate.is_good() || candidate.extract {
            continue;
        }
        let lineage = lineages.entry(need.lineage).or_insert(Bases {
            log,
            of: Vec::new(),
            bases: Vec::new(),
        });
        lineage.of.push(place);
        lineage.bases.push(WindowBase {
            timeline: need.range.timeline,
            start: need.range.start,
            end: need.range.end,
            at_us: *at_us,
            clean: backup.header.bad_pages == 0,
        });
    }
    onward.retain(|id| {
        let lineage = backups
            .iter()
            .find(|backup| backup.id == *id)
            .and_then(|backup| backup.header.log);
        lineage.is_none_or(|need| !lineages.contains_key(&need.lineage))
    });
    // The one that the newest good base belongs to. Backups come newest first.
    let newest = lineages
        .iter()
        .min_by_key(|(_, bases)| bases.of.iter().min())
        .map(|(lineage, _)| *lineage);
    let mut window = None;
    for (lineage, bases) in &lineages {
        let is_newest = newest == Some(*lineage);
        let found = needed(bases.log, &bases.bases, from_us, is_newest);
        for (place, why) in &found {
            let Some((backup, candidate)) = bases
                .of
                .get(*place)
                .and_then(|at| Some((backups.get(*at)?, candidates.get_mut(*at)?)))
            else {
                continue;
            };
            candidate.window = InWindow::Needed(*why);
            onward.insert(backup.id);
        }
        if is_newest {
            window = Some(outlook(asked, from_us, bases, &found, backups));
        }
    }
    (onward, window)
}

/// What the window comes to, with the bases that it needs.
fn outlook(asked: Duration, from_us: i64, bases: &Bases<'_>, found: &BTreeMap<usize, Needed>, backups: &[&Backup]) -> Window {
    let kept = || found.iter().filter_map(|(place, why)| Some((bases.bases.get(*place)?, why)));
    let begins = kept().any(|(_, why)| *why == Needed::Begins);
    let first_us = kept().map(|(base, _)| base.at_us).min();
    let mut missing = Vec::new();
    let coverage = &bases.log.coverage;
    for timeline in coverage.timelines() {
        let starts = kept()
            .filter(|(base, _)| base.timeline == timeline)
            .map(|(base, _)| base.start);
        let (Some(start), Some(end)) = (starts.min(), coverage.end(timeline)) else {
            continue;
        };
        for range in coverage.gaps(Range::new(timeline, start, end)) {
            let behind = bases.bases.iter().zip(&bases.of);
            let behind = behind.filter(|(base, _)| base.timeline == timeline && base.start >= range.end);
            let first = behind.min_by_key(|(base, _)| base.end);
            let until = first.and_then(|(base, place)| Some((backups.get(*place)?.id, base.at_us)));
            missing.push(Missing { range, until });
        }
    }
    Window {
        asked,
        from_us,
        since_us: if begins { Some(from_us) } else { first_us },
        missing,
    }
}
