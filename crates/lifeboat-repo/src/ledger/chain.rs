//! What a set of records says about itself: holes, forks, and records that others saw and that are gone (INV-18).
//!
//! Pure. Where the records came from, and which of them did not read, is somebody else's business.

use std::collections::{BTreeMap, BTreeSet};

use super::name::LedgerName;
use super::record::LedgerRecord;
use crate::id::ChainId;

/// How a chain is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlawKind {
    /// Records between the first and the last are not there.
    Missing,
    /// Two records have one number: a machine was set back or copied, or somebody else has its key.
    Forked,
    /// A record follows another one than the one that stands in front of it.
    Misfit,
    /// A record that another chain names is not there: the end was cut off.
    Cut,
}

/// One thing that is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which chain.
    pub chain: ChainId,
    /// The first number that it is about.
    pub seq: u64,
    /// The last one.
    pub last: u64,
    /// What sort of thing.
    pub kind: FlawKind,
    /// What was found, one sentence without a final stop.
    pub says: String,
}

type BySeq<'a> = BTreeMap<u64, Vec<&'a LedgerRecord>>;

fn chains(records: &[LedgerRecord]) -> BTreeMap<ChainId, BySeq<'_>> {
    let mut chains: BTreeMap<ChainId, BySeq<'_>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in records {
        if seen.insert(record.name) {
            let chain = chains.entry(record.name.chain).or_default();
            chain.entry(record.name.at.seq).or_default().push(record);
        }
    }
    chains
}

/// Everything that is wrong with these records together: numbers from 1 without a hole, each once, each with the hash of the one before it,
/// and every record that another one names.
#[must_use]
pub fn flaws(records: &[LedgerRecord]) -> Vec<Flaw> {
    let chains = chains(records);
    let mut flaws = Vec::new();
    for (chain, by_seq) in &chains {
        holes(*chain, by_seq, &mut flaws);
        for (seq, here) in by_seq {
            one_place(*chain, *seq, here, by_seq, &mut flaws);
        }
    }
    cut(records, &mut flaws);
    flaws.sort_by_key(|flaw| (flaw.chain, flaw.seq));
    flaws
}

fn holes(chain: ChainId, by_seq: &BySeq<'_>, flaws: &mut Vec<Flaw>) {
    let mut expected = 1;
    for seq in by_seq.keys() {
        if *seq > expected {
            let last = seq.saturating_sub(1);
            flaws.push(Flaw {
                chain,
                seq: expected,
                last,
                kind: FlawKind::Missing,
                says: format!("{} not there, and {seq} is", numbers(expected, last)),
            });
        }
        expected = seq.saturating_add(1);
    }
}

fn numbers(first: u64, last: u64) -> String {
    if first == last {
        format!("record {first} is")
    } else {
        format!("records {first} to {last} are")
    }
}

fn one_place(chain: ChainId, seq: u64, here: &[&LedgerRecord], by_seq: &BySeq<'_>, flaws: &mut Vec<Flaw>) {
    let mut flaw = |kind, says: String| {
        flaws.push(Flaw {
            chain,
            seq,
            last: seq,
            kind,
            says,
        });
    };
    if here.len() > 1 {
        let names: Vec<String> = here.iter().map(|record| record.name.short()).collect();
        flaw(
            FlawKind::Forked,
            format!("{} records have the number {seq}: {}", here.len(), names.join(", ")),
        );
    }
    for record in here {
        let before = by_seq.get(&seq.saturating_sub(1));
        let name = record.name.short();
        match (record.previous, before) {
            (None, _) if seq == 1 => {}
            (None, _) => flaw(FlawKind::Misfit, format!("record {name} says that it is the first")),
            (Some(_), _) if seq == 1 => flaw(
                FlawKind::Misfit,
                format!("record {name} is the first and names one before it"),
            ),
            // The hole is told already.
            (Some(_), None) => {}
            (Some(hash), Some(before)) => {
                if !before.iter().any(|before| before.name.at.hash == hash) {
                    flaw(
                        FlawKind::Misfit,
                        format!("record {name} follows another record {} than the one that is there", seq - 1),
                    );
                }
            }
        }
    }
}

/// Records that others name and that are not there.
fn cut(records: &[LedgerRecord], flaws: &mut Vec<Flaw>) {
    let there: BTreeSet<LedgerName> = records.iter().map(|record| record.name).collect();
    let mut told = BTreeSet::new();
    for record in records {
        for (chain, head) in &record.heads {
            let name = LedgerName {
                chain: *chain,
                at: *head,
            };
            if there.contains(&name) || !told.insert(name) {
                continue;
            }
            flaws.push(Flaw {
                chain: *chain,
                seq: head.seq,
                last: head.seq,
                kind: FlawKind::Cut,
                says: format!(
                    "record {} saw record {}, which is not there",
                    record.name.short(),
                    name.short()
                ),
            });
        }
    }
}

/// Places in the chains where the time goes back: a clock was set, or was wrong. The order is that of the numbers, so nothing is wrong with it.
#[must_use]
pub fn clock_steps(records: &[LedgerRecord]) -> Vec<(LedgerName, i64)> {
    let mut steps = Vec::new();
    for by_seq in chains(records).values() {
        let mut before: Option<i64> = None;
        for record in by_seq.values().filter_map(|here| here.first()) {
            if let Some(before) = before
                && record.at_us < before
            {
                steps.push((record.name, before.saturating_sub(record.at_us)));
            }
            before = Some(record.at_us);
        }
    }
    steps
}
