//! What each rule of retention promises, against what is there.
//!
//! The other question than [`super::decide`]: not what may go, but what is missing. A slot of time counts from the first backup on, and the one
//! that is not over yet is not missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Candidate, Known, Local, Policy, Slot, day, hour, later, month, places, week, year};

/// How the backups of one method stand against the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compliance {
    /// Of which method.
    pub method: String,
    /// Whether of extracts, which have rules of their own.
    pub extract: bool,
    /// What each rule promises.
    pub tiers: Vec<Tier>,
    /// Backups that count.
    pub good: u32,
    /// Those of them that were proven by a restore.
    pub proven: u32,
    /// So many have to stay of each.
    pub never_below: u32,
    /// Moments of the oldest and the newest one that counts.
    pub reach_us: Option<(i64, i64)>,
}

impl Compliance {
    /// Whether nothing that was promised is missing.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.tiers.iter().all(|tier| tier.missing.is_empty())
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Which: `daily`, `within`, `tag monthly`.
    pub rule: String,
    /// What it promises, in words or as a number.
    pub wanted: String,
    /// What there is for it: the slot or the moment, and the backup.
    pub held: Vec<(String, String)>,
    /// Slots between the first backup and now in which there is none.
    pub missing: Vec<String>,
    /// Slots that it reaches back to, and that lie before the first backup.
    pub before: u32,
}

/// What `policy` promises and what is there. `local` puts a moment into the calendar.
#[must_use]
pub fn comply(policy: &Policy, now_us: i64, local: &dyn Fn(i64) -> Local, candidates: &[Candidate]) -> Vec<Compliance> {
    let placed = places(now_us, candidates);
    let mut groups: BTreeMap<(&str, bool), Vec<(&Candidate, i64)>> = BTreeMap::new();
    for (candidate, at_us) in candidates.iter().zip(placed) {
        let group = groups.entry((candidate.method.as_str(), candidate.extract)).or_default();
        if candidate.is_good() {
            group.push((candidate, at_us));
        }
    }
    let groups = groups.into_iter().map(|((method, extract), mut good)| {
        good.sort_by_key(|(candidate, _)| std::cmp::Reverse(candidate.seq));
        let rules = if extract { &policy.extracts } else { &policy.keep };
        let group = Group { good, now_us, local };
        let mut tiers: Vec<Tier> = Vec::new();
        if rules.last > 0 {
            tiers.push(group.last(rules.last));
        }
        let slots: [Slot; 5] = [
            ("hourly", rules.hourly, hour),
            ("daily", rules.daily, day),
            ("weekly", rules.weekly, week),
            ("monthly", rules.monthly, month),
            ("yearly", rules.yearly, year),
        ];
        tiers.extend(
            slots
                .into_iter()
                .filter(|(_, count, _)| *count > 0)
                .map(|slot| group.slots(slot)),
        );
        for (rule, length) in [("within", rules.within), ("window", rules.window)] {
            tiers.extend(length.map(|length| group.young(rule, length)));
        }
        tiers.extend(rules.tags.iter().map(|tag| group.tagged(tag)));
        let count = |good: usize| u32::try_from(good).unwrap_or(u32::MAX);
        let is_proven = |(candidate, _): &&(&Candidate, i64)| candidate.known == Known::Restored;
        Compliance {
            method: method.to_owned(),
            extract,
            tiers,
            good: count(group.good.len()),
            proven: count(group.good.iter().filter(is_proven).count()),
            never_below: policy.never_below,
            reach_us: group.oldest_us().zip(group.good.iter().map(|(_, at_us)| *at_us).max()),
        }
    });
    groups.collect()
}

/// The good backups of one method, newest first.
struct Group<'a> {
    good: Vec<(&'a Candidate, i64)>,
    now_us: i64,
    local: &'a dyn Fn(i64) -> Local,
}

impl Group<'_> {
    fn oldest_us(&self) -> Option<i64> {
        self.good.iter().map(|(_, at_us)| *at_us).min()
    }

    fn day_of(&self, at_us: i64) -> String {
        day(&(self.local)(at_us))
    }

    fn named(&self, (candidate, at_us): &(&Candidate, i64)) -> (String, String) {
        (self.day_of(*at_us), candidate.name.clone())
    }

    fn last(&self, count: u32) -> Tier {
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        let held: Vec<_> = self.good.iter().take(most).map(|one| self.named(one)).collect();
        let there = u32::try_from(held.len()).unwrap_or(count);
        Tier {
            rule: "last".to_owned(),
            wanted: count.to_string(),
            held,
            missing: Vec::new(),
            before: count.saturating_sub(there),
        }
    }

    /// One of each slot of time, counted back from now.
    fn slots(&self, (rule, count, slot): Slot) -> Tier {
        let step = if rule == "hourly" {
            Duration::from_secs(1800)
        } else {
            Duration::from_secs(12 * 3600)
        };
        let step_us = i64::try_from(step.as_micros()).unwrap_or(i64::MAX);
        let name = |at_us: i64| slot(&(self.local)(at_us));
        let mut there: BTreeMap<String, String> = BTreeMap::new();
        for (candidate, at_us) in &self.good {
            there.entry(name(*at_us)).or_insert_with(|| candidate.name.clone());
        }
        let (mut held, mut missing, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let first = self.oldest_us().map(name);
        let mut at_us = self.now_us;
        let now = name(at_us);
        while let Some(first) = &first {
            let slot = name(at_us);
            if seen.insert(slot.clone()) {
                match there.get(&slot) {
                    Some(backup) => held.push((slot.clone(), backup.clone())),
                    // It is not over yet.
                    None if slot == now => {}
                    None => missing.push(slot.clone()),
                }
            }
            if slot == *first || seen.len() as u64 >= u64::from(count) {
                break;
            }
            at_us = at_us.saturating_sub(step_us);
        }
        let looked_at = u32::try_from(seen.len()).unwrap_or(count);
        Tier {
            rule: rule.to_owned(),
            wanted: count.to_string(),
            held,
            missing,
            before: count.saturating_sub(looked_at),
        }
    }

    /// Everything this young, and the one before it.
    fn young(&self, rule: &str, length: Duration) -> Tier {
        let since_us = self.now_us.saturating_sub(later(0, length));
        let young = self.good.iter().filter(|(_, at_us)| *at_us >= since_us);
        let begins = self.good.iter().find(|(_, at_us)| *at_us < since_us);
        Tier {
            rule: rule.to_owned(),
            wanted: crate::time::human_duration(length),
            held: young.chain(begins).map(|one| self.named(one)).collect(),
            missing: Vec::new(),
            before: u32::from(begins.is_none()),
        }
    }

    fn tagged(&self, tag: &String) -> Tier {
        let tagged = self.good.iter().filter(|(candidate, _)| candidate.tags.contains(tag));
        Tier {
            rule: format!("tag {tag}"),
            wanted: "all".to_owned(),
            held: tagged.map(|one| self.named(one)).collect(),
            missing: Vec::new(),
            before: 0,
        }
    }
}
