//! `audit verify`: reads every record in every store and says what is wrong with them (INV-18).
//!
//! Never asks the catalog. A record that one store lacks and another holds is no loss, and told apart from what nobody holds any more.

use std::collections::BTreeSet;

use lifeboat_model::time::human_duration;
use lifeboat_model::{Error, Result};
use lifeboat_repo::{ChainId, Flaw, FlawKind, LedgerHead, LedgerName, RepositoryId, clock_steps, flaws};

use super::home::{Home, Span};
use super::read::{Chains, gather};
use crate::protected::Protected;
use crate::words::counted;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Good to know.
    Told,
    /// A store lacks what another one holds.
    Lacks,
    /// Somebody or something changed the ledger.
    Wrong,
}

impl Weight {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Told => "note",
            Self::Lacks => "lacks",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// In which store; none where it is about all of them together.
    pub store: Option<String>,
    /// Which record.
    pub record: String,
    /// What was found, one sentence without a final stop.
    pub says: String,
    /// What to do.
    pub hint: String,
}

/// A chain as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainStanding {
    /// Which chain.
    pub chain: ChainId,
    /// How its instance calls itself.
    pub instance: String,
    /// Records that read.
    pub records: u64,
    /// The last one.
    pub head: LedgerHead,
    /// What it tells of its time, microseconds since 1970.
    pub last_at_us: i64,
}

/// What was found.
#[derive(Debug, Default)]
#[must_use]
pub struct Audit {
    /// The chains.
    pub chains: Vec<ChainStanding>,
    /// What is to be told, the gravest first.
    pub findings: Vec<Finding>,
    /// Stores that did not answer.
    pub away: Vec<(String, Error)>,
}

impl Audit {
    /// The gravest finding.
    #[must_use]
    pub fn worst(&self) -> Option<Weight> {
        self.findings.iter().map(|finding| finding.weight).max()
    }
}

const UNEXPLAINED: &str =
    "find out who can write to the store besides Lifeboat; what the other records say still holds as far as they fit each other";
const CLONED: &str = "find out whether the state of that machine was copied or set back; give every copy a signing key of its own (`lifeboat init` makes one where \
                      there is none); both records stay";
const SHIP: &str = "`lifeboat audit ship` brings it what it lacks";

/// Looks at everything.
///
/// # Errors
/// Where no store answers.
pub async fn audit(protected: &Protected) -> Result<Audit> {
    let chains = gather(protected, None, true).await?;
    let mut audit = Audit {
        chains: standings(&chains),
        ..Audit::default()
    };
    refused(&chains, &mut audit.findings);
    audit.findings.extend(flaws(&chains.records).into_iter().map(of_flaw));
    let removed = match chains.repository {
        Some(repository) => remembered(protected, repository, &chains, &mut audit.findings)?,
        None => BTreeSet::new(),
    };
    lacks(&chains, &removed, &mut audit.findings);
    told(&chains, &mut audit.findings);
    audit.findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    audit.away = chains.away;
    Ok(audit)
}

fn standings(chains: &Chains) -> Vec<ChainStanding> {
    let mut standings: Vec<ChainStanding> = Vec::new();
    for record in &chains.records {
        let name = record.name;
        match standings.iter_mut().find(|standing| standing.chain == name.chain) {
            Some(standing) => {
                standing.records += 1;
                if name.at.seq >= standing.head.seq {
                    standing.head = name.at;
                    standing.last_at_us = record.at_us;
                    standing.instance.clone_from(&record.instance);
                }
            }
            None => standings.push(ChainStanding {
                chain: name.chain,
                instance: record.instance.clone(),
                records: 1,
                head: name.at,
                last_at_us: record.at_us,
            }),
        }
    }
    standings
}

fn refused(chains: &Chains, findings: &mut Vec<Finding>) {
    for refused in &chains.refused {
        let elsewhere = chains.records.iter().any(|record| record.name.to_string() == refused.name);
        let hint = match refused.error.hint() {
            Some(hint) => hint.to_owned(),
            None if elsewhere => {
                "another store holds it whole: keep a copy of this file as evidence, remove it, then `lifeboat audit ship`"
                    .to_owned()
            }
            None => UNEXPLAINED.to_owned(),
        };
        findings.push(Finding {
            weight: Weight::Wrong,
            store: Some(refused.store.clone()),
            record: refused.name.clone(),
            says: refused.error.detail().to_owned(),
            hint,
        });
    }
}

fn of_flaw(flaw: Flaw) -> Finding {
    let hint = match flaw.kind {
        FlawKind::Forked => CLONED,
        FlawKind::Missing | FlawKind::Misfit | FlawKind::Cut => UNEXPLAINED,
    };
    Finding {
        weight: Weight::Wrong,
        store: None,
        record: short(flaw.chain, flaw.seq),
        says: flaw.says,
        hint: hint.to_owned(),
    }
}

fn short(chain: ChainId, seq: u64) -> String {
    let chain: String = chain.to_string().chars().take(8).collect();
    format!("{chain}/{seq}")
}

/// What this machine remembers of its own chain and of others, against what is there. Returns what was taken out of single stores.
fn remembered(
    protected: &Protected,
    repository: RepositoryId,
    chains: &Chains,
    findings: &mut Vec<Finding>,
) -> Result<BTreeSet<(String, LedgerName)>> {
    let there: BTreeSet<LedgerName> = chains.records.iter().map(|record| record.name).collect();
    let mut removed = BTreeSet::new();
    let mut cut = |chain: ChainId, head: LedgerHead| {
        if !there.contains(&LedgerName { chain, at: head }) {
            findings.push(Finding {
                weight: Weight::Wrong,
                store: None,
                record: short(chain, head.seq),
                says: format!(
                    "this machine remembers record {} of that chain, and no store holds it",
                    head.seq
                ),
                hint: UNEXPLAINED.to_owned(),
            });
        }
    };
    let mut spans = Vec::new();
    for chain in Home::chains(protected, repository)? {
        let Some(standing) = Home::of_chain(protected, chain).standing(repository)? else {
            continue;
        };
        if let Some(head) = standing.head()? {
            cut(chain, head);
        }
        for (other, head) in &standing.heads {
            cut(other.parse()?, head.parse()?);
        }
        let of_stores = chains
            .stores
            .iter()
            .filter_map(|(store, names)| Some((store, names, standing.span(store)?)));
        spans.extend(of_stores.map(|(store, names, span)| (chain, store, names, span)));
    }
    for (chain, store, names, span) in spans {
        taken_out(chain, store, names, span, &there, (findings, &mut removed));
    }
    Ok(removed)
}

/// Records that this machine put into a store, or found there, and that are not there any more.
fn taken_out(
    chain: ChainId,
    store: &str,
    names: &BTreeSet<LedgerName>,
    span: Span,
    there: &BTreeSet<LedgerName>,
    (findings, removed): (&mut Vec<Finding>, &mut BTreeSet<(String, LedgerName)>),
) {
    let expected = there
        .iter()
        .filter(|name| name.chain == chain && (span.from..=span.to).contains(&name.at.seq));
    for name in expected.filter(|name| !names.contains(name)) {
        removed.insert((store.to_owned(), *name));
        findings.push(Finding {
            weight: Weight::Wrong,
            store: Some(store.to_owned()),
            record: name.short(),
            says: "it was there, and is not any more; another store or this machine has it".to_owned(),
            hint: format!("{UNEXPLAINED}; {SHIP}"),
        });
    }
}

/// What a store never got.
fn lacks(chains: &Chains, removed: &BTreeSet<(String, LedgerName)>, findings: &mut Vec<Finding>) {
    for (store, names) in &chains.stores {
        let lacking: Vec<LedgerName> = chains
            .records
            .iter()
            .map(|record| record.name)
            .filter(|name| !names.contains(name) && !removed.contains(&(store.clone(), *name)))
            .filter(|name| {
                !chains
                    .refused
                    .iter()
                    .any(|refused| refused.store == *store && refused.name == name.to_string())
            })
            .collect();
        let Some(first) = lacking.first() else { continue };
        let all_wait = lacking.iter().all(|name| chains.waiting.contains(name));
        findings.push(Finding {
            weight: Weight::Lacks,
            store: Some(store.clone()),
            record: first.short(),
            says: if all_wait {
                format!(
                    "{} on this machine for the store",
                    counted(lacking.len() as u64, "record") + " wait"
                )
            } else {
                format!(
                    "it lacks {} that another store holds",
                    counted(lacking.len() as u64, "record")
                )
            },
            hint: SHIP.to_owned(),
        });
    }
}

fn told(chains: &Chains, findings: &mut Vec<Finding>) {
    for (name, back_us) in clock_steps(&chains.records) {
        let back = std::time::Duration::from_micros(u64::try_from(back_us).unwrap_or(0));
        findings.push(Finding {
            weight: Weight::Told,
            store: None,
            record: name.short(),
            says: format!(
                "its time is {} before that of the record before it: a clock was set back",
                human_duration(back)
            ),
            hint: "nothing: the order is that of the numbers".to_owned(),
        });
    }
}
