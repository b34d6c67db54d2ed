//! The rules, in the order in which people read their reasons.

use std::time::Duration;

use super::Standing::{AtRisk, NotReady};
use super::{Facts, LogReach, Reason, Standing, loss, reached, since};
use crate::plan::allowed_age;
use crate::time::{human_bytes, human_duration};

/// Log is expected to be stored so often, where nothing was promised.
const LOG_AGE: Duration = Duration::from_secs(300);
/// A proof of another backup than the newest is worth something for so long.
const PROOF_AGE: Duration = Duration::from_secs(31 * 24 * 3600);

type Rule = fn(&Facts, &mut Vec<Reason>);

/// All of them.
pub(super) const RULES: &[Rule] = &[
    followed_log,
    interrupted_restores,
    stores,
    missing_backups,
    stored_log,
    age,
    restore_time,
    proof,
    damage,
    failed_checks,
    pki,
    unknown,
    key,
    archive,
    schedule,
    verifications,
];

fn add(reasons: &mut Vec<Reason>, code: &'static str, standing: Standing, says: impl Into<String>) {
    let says = says.into();
    reasons.push(Reason { code, standing, says });
}

/// Log that has not been stored for longer than may be lost, as whoever follows on this host last said.
fn followed_log(facts: &Facts, reasons: &mut Vec<Reason>) {
    if let Some(first) = facts.refused_log.first() {
        let says = format!(
            "{} of log that the server pushed was refused, because other bytes are held for it ({first}): two servers may archive under one name; look beside the spool, and remove what was looked at",
            counted(facts.refused_log.len(), "file")
        );
        add(reasons, "log_refused", AtRisk, says);
    }
    let Some(log) = &facts.log else { return };
    let age = since(facts.now_us, log.stored_us).unwrap_or_default();
    if age > facts.rpo.unwrap_or(LOG_AGE) {
        let age = human_duration(age);
        let says = format!("the log was last known to be stored whole {age} ago: is `lifeboat follow` running?");
        add(reasons, "log_late", AtRisk, says);
    }
    if let Some(lag) = log.slot_lag.filter(|lag| log.max_slot_lag > 0 && *lag > log.max_slot_lag) {
        let says = format!(
            "our slot holds back {} of log on the server, whose disk may fill: look at what `lifeboat follow` says",
            human_bytes(lag)
        );
        add(reasons, "slot_lag", AtRisk, says);
    }
    if log.max_spool > 0 && log.spool_bytes > log.max_spool / 5 * 4 {
        let says = format!(
            "the spool has {} of {}: the stores do not take the log fast enough",
            human_bytes(log.spool_bytes),
            human_bytes(log.max_spool)
        );
        add(reasons, "spool", AtRisk, says);
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

fn interrupted_restores(facts: &Facts, reasons: &mut Vec<Reason>) {
    for id in &facts.interrupted {
        let says = format!("restore {id} was interrupted in the middle: run it again, or `lifeboat restore undo {id}`");
        add(reasons, "restore_interrupted", AtRisk, says);
    }
}

/// Every store is to answer and to hold the newest backup.
fn stores(facts: &Facts, reasons: &mut Vec<Reason>) {
    for away in &facts.away {
        let store = &away.store;
        let says = if away.is_empty {
            format!(
                "the store {store} holds nothing of Lifeboat: the next backup fills a new one; of an old one the disk may not be mounted"
            )
        } else {
            format!("the store {store} does not answer: {}", away.says)
        };
        add(reasons, "store_away", AtRisk, says);
    }
    for (store, newest) in &facts.lacking {
        let says = format!("the store {store} lacks the newest backup ({newest}): `lifeboat copy --to {store}` brings it there");
        add(reasons, "copy_missing", AtRisk, says);
    }
}

fn missing_backups(facts: &Facts, reasons: &mut Vec<Reason>) {
    match facts.rejected.as_slice() {
        [] => {}
        [one] => add(reasons, "rejected", AtRisk, format!("1 stored backup does not count: {one}")),
        [first, ..] => {
            let many = facts.rejected.len();
            let says = format!("{many} stored backups do not count, for example: {first}");
            add(reasons, "rejected", AtRisk, says);
        }
    }
    if let Some(newest) = &facts.vanished {
        let says = format!(
            "backup {newest} was the newest one, and it is not in the store any more: somebody deleted it, or the store is an older copy of itself"
        );
        add(reasons, "vanished", AtRisk, says);
    }
}

/// How far the log in the stores reaches behind the newest backup, and what is missing of it.
fn stored_log(facts: &Facts, reasons: &mut Vec<Reason>) {
    for log in &facts.stored_log {
        let store = &log.store;
        match &log.reach {
            LogReach::Until(..) => {}
            LogReach::Nothing => {
                let says = format!("the store {store} lacks the newest backup's own log: it cannot be restored from there");
                add(reasons, "log_lacking", AtRisk, says);
            }
            LogReach::Unknown(why) => {
                let says = format!("how far the log in the store {store} reaches is not known: {why}");
                add(reasons, "log_unknown", AtRisk, says);
            }
        }
    }
    let ends = || {
        facts.stored_log.iter().filter_map(|log| match &log.reach {
            LogReach::Until(until_us, missing) => Some((&log.store, *until_us, missing)),
            LogReach::Nothing | LogReach::Unknown(_) => None,
        })
    };
    let Some((best, best_us, missing)) = ends().reduce(|best, end| if end.1 > best.1 { end } else { best }) else {
        return;
    };
    for (store, until_us, _) in ends() {
        let behind = since(best_us, until_us).unwrap_or_default();
        if behind > LOG_AGE {
            let behind = human_duration(behind);
            let says = format!("the log in the store {store} ends {behind} before that in {best}");
            add(reasons, "log_behind", AtRisk, says);
        }
    }
    for range in missing {
        let says = format!(
            "log is missing behind the newest backup ({range}): nothing behind it can be reached before the next one; run `lifeboat backup`"
        );
        add(reasons, "log_gap", AtRisk, says);
    }
}

/// What would be lost now.
fn age(facts: &Facts, reasons: &mut Vec<Reason>) {
    let Some(newest) = &facts.newest else { return };
    let Some(age) = loss(facts).flatten() else {
        let says = "the newest backup is from the future: the clock of this machine or of the writer is wrong, so nobody knows how old it is";
        return add(reasons, "clock", AtRisk, says);
    };
    match facts.rpo {
        Some(rpo) if age > rpo => {
            let old = human_duration(age);
            let what = if reached(facts).is_some_and(|until_us| until_us > newest.moment_us) {
                format!("the log in the stores is complete until {old} ago")
            } else {
                format!("the newest backup is {old} old")
            };
            let says = format!("{what}, promised is a loss of {} at most", human_duration(rpo));
            add(reasons, "rpo", AtRisk, says);
        }
        Some(_) => {}
        None => {
            let says = "no objective is configured (`objectives: { rpo: …, rto: … }`)";
            add(reasons, "objectives", AtRisk, says);
        }
    }
}

fn restore_time(facts: &Facts, reasons: &mut Vec<Reason>) {
    if let (Some(takes), Some(rto)) = (facts.restore, facts.rto)
        && takes > rto
    {
        let says = format!(
            "a restore takes about {}, promised are {}",
            human_duration(takes),
            human_duration(rto)
        );
        add(reasons, "rto", AtRisk, says);
    }
}

fn proof(facts: &Facts, reasons: &mut Vec<Reason>) {
    let Some(newest) = &facts.newest else { return };
    let Some((backup, at_us)) = &facts.proven else {
        let says = "no restore of it was ever proven from here (`lifeboat verify` does it)";
        return add(reasons, "unproven", AtRisk, says);
    };
    if *backup == newest.id {
        return;
    }
    match since(facts.now_us, *at_us) {
        None => {
            let says =
                "the last proven restore is from the future: the clock is or was wrong, so nobody knows how old the proof is";
            add(reasons, "clock", AtRisk, says);
        }
        Some(age) if age > PROOF_AGE => {
            let says = format!("the last proven restore is {} ago", human_duration(age));
            add(reasons, "proof_old", AtRisk, says);
        }
        Some(_) => {}
    }
}

/// A `verify` or `restore` that found damage has the last word until something newer is proven.
fn damage(facts: &Facts, reasons: &mut Vec<Reason>) {
    let Some(newest) = &facts.newest else { return };
    for damage in &facts.damage {
        let standing = if damage.backup == newest.id { NotReady } else { AtRisk };
        let next = if damage.renewed {
            "what it had lost was stored anew since: `lifeboat verify` proves it"
        } else if damage.marked {
            "`lifeboat backup` stores anew what it has lost, `lifeboat verify` proves it; `lifeboat copy` brings a good copy from another store"
        } else {
            "`lifeboat backup` stores everything anew, `lifeboat verify` proves it"
        };
        let says = format!("backup {} is damaged ({}); {next}", damage.backup, damage.says);
        add(reasons, "damaged", standing, says);
    }
}

/// Checks of a restored copy that failed have the last word until something newer passes them.
fn failed_checks(facts: &Facts, reasons: &mut Vec<Reason>) {
    if let Some(failed) = &facts.failed_checks {
        let says = format!(
            "what was restored from backup {} did not pass its checks ({}): `{}`",
            failed.backup, failed.says, failed.again
        );
        add(reasons, "checks", AtRisk, says);
    }
}

/// What the last backup found in a PKI, and what has ended or ends soon as of now.
fn pki(facts: &Facts, reasons: &mut Vec<Reason>) {
    let Some(pki) = &facts.pki else { return };
    for problem in &pki.problems {
        add(reasons, "pki", AtRisk, format!("the PKI has a problem: {problem}"));
    }
    let now_s = facts.now_us.div_euclid(1_000_000);
    for (what, end_s) in &pki.ends {
        match u64::try_from(end_s.saturating_sub(now_s)).map(Duration::from_secs) {
            Ok(left) if left > pki.warn => {}
            Ok(left) => add(
                reasons,
                "pki_ends",
                AtRisk,
                format!("{what} runs out in {}", human_duration(left)),
            ),
            Err(_) => add(reasons, "pki_ended", AtRisk, format!("{what} has run out")),
        }
    }
}

fn unknown(facts: &Facts, reasons: &mut Vec<Reason>) {
    if let Some(why) = &facts.unknown {
        add(reasons, "unknown", NotReady, why.clone());
    }
}

fn key(facts: &Facts, reasons: &mut Vec<Reason>) {
    if let Some(Err(why)) = &facts.key {
        add(reasons, "key", NotReady, why.clone());
    }
}

/// What lies in an archive: a restore begins only when it is back.
fn archive(facts: &Facts, reasons: &mut Vec<Reason>) {
    let Some((back_in, says)) = &facts.archived else { return };
    let says = match facts.rto {
        Some(rto) if *back_in > rto => format!("{says}; promised is a restore within {}", human_duration(rto)),
        _ => says.clone(),
    };
    add(reasons, "archived", AtRisk, says);
}

/// A backup that is older than the time between two runs, that of a run and some grace has a missing successor.
fn schedule(facts: &Facts, reasons: &mut Vec<Reason>) {
    let (Some(newest), Some(schedule)) = (&facts.newest, &facts.schedule) else {
        return;
    };
    // A backup from the future is told elsewhere.
    let age = since(facts.now_us, newest.moment_us).unwrap_or_default();
    if age > allowed_age(schedule.interval, schedule.whole_run) {
        let says = format!(
            "the newest backup is {} old, and one is made {}: a run is missing; run `lifeboat backup`, then see why cron or the timer did not",
            human_duration(age),
            schedule.says
        );
        add(reasons, "schedule", AtRisk, says);
    }
}

/// Proofs that the configuration wants so often, and that nobody gave.
fn verifications(facts: &Facts, reasons: &mut Vec<Reason>) {
    // Without a backup there is nothing to prove, which is told.
    if facts.newest.is_none() {
        return;
    }
    for wanted in facts.verifications.iter().filter(|wanted| wanted.is_late(facts.now_us)) {
        let every = human_duration(wanted.every);
        let last = match wanted.last_us {
            Some(last_us) => format!(
                "was last done {} ago",
                human_duration(since(facts.now_us, last_us).unwrap_or_default())
            ),
            None => "was never done from here".to_owned(),
        };
        let says = format!(
            "`verify` up to {} {last}, and is wanted every {every}: run `lifeboat verify --due`, and let cron or a timer do it",
            wanted.level
        );
        add(reasons, "verification_late", AtRisk, says);
    }
}
