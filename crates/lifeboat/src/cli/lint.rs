//! What the plan in the configuration comes to: what is lost at worst, and what will not go as it was meant.
//!
//! Reads what was measured on this host; opens no store. Only `lifeboat config check` judges by it.

use std::time::Duration;

use lifeboat_model::ErrorKind;
use lifeboat_model::estimate::{Estimate, Run, estimate};
use lifeboat_model::plan::{self, Code, Component, Finding, Plan, RULES, Rule, Severity, Time, Times, span};
use lifeboat_model::{Error, Result};
use lifeboat_ops::durations::{self, Took};
use lifeboat_ops::proof::{self, Level, Proof};
use lifeboat_ops::protected::Method;
use lifeboat_repo::ComponentName;
use serde_json::{Value, json};

use super::Cx;
use crate::config::{ComponentSettings, Settings, lint};
use crate::exit::Exit;
use crate::render::text;

/// A year and a day: within it, clocks change where they ever do.
const YEAR_S: i64 = 366 * 24 * 3600;

/// The plan, and what is to be said about it.
#[derive(Debug)]
pub(crate) struct Judged {
    plan: Plan,
    findings: Vec<Finding>,
}

impl Judged {
    /// Judges what `settings` says, with what was measured on this host.
    pub(crate) fn of(cx: &Cx, settings: &Settings) -> Self {
        let measured = |component: &ComponentSettings| times(settings, component);
        let plan = lint::plan_of(settings, &measured, clocks_change(cx, &settings.timezone));
        let findings = plan::judge(&plan);
        Self { plan, findings }
    }

    /// How the check ends: refused findings are a configuration that cannot be carried out, missed ones an objective that cannot be kept.
    pub(crate) fn exit(&self) -> Exit {
        match self.findings.iter().map(Finding::severity).max() {
            Some(Severity::Refused) => Exit::of(ErrorKind::ConfigInvalid),
            Some(Severity::Missed) => Exit::of(ErrorKind::ObjectiveMissed),
            Some(Severity::Warning) | None => Exit::OK,
        }
    }

    /// What is lost at worst, and the findings, for people.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for component in &self.plan.components {
            out.push_str(&worst_text(component));
        }
        for finding in &self.findings {
            out.push_str(&format!(
                "\n{}: {}: {} [{}]\n  write: {}\n",
                finding.severity().word(),
                finding.subject,
                finding.says,
                finding.code.word(),
                finding.mend
            ));
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity() == severity).count();
        let counts = [Severity::Refused, Severity::Missed, Severity::Warning].map(|severity| (severity.word(), count(severity)));
        let told: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        if told.is_empty() {
            out.push_str("nothing stands against the plan\n");
        } else {
            out.push_str(&format!(
                "\n{}: {}; `lifeboat config check --explain CODE` says why\n",
                text::counted(self.findings.len(), "finding"),
                told.join(", ")
            ));
        }
        out
    }

    /// The same for programs: `plan` and `findings`.
    pub(crate) fn json(&self) -> (Value, Value) {
        let plan = self.plan.components.iter().map(worst_json).collect();
        let findings = self.findings.iter().map(|finding| {
            json!({
                "code": finding.code.word(),
                "items": items(finding.code.rule()),
                "severity": finding.severity().word(),
                "subject": finding.subject,
                "says": finding.says,
                "mend": finding.mend,
            })
        });
        (plan, findings.collect())
    }
}

fn worst_text(component: &Component) -> String {
    let promised = component
        .rpo
        .map_or_else(|| "nothing is promised".to_owned(), |rpo| format!("promised {}", span(rpo)));
    let Some(worst) = component.worst() else {
        return format!(
            "  {}: what is lost at worst is unknown: no schedule; {promised}\n",
            component.name
        );
    };
    let missed = if worst.after_miss == worst.loss {
        String::new()
    } else {
        format!("; {} if one run is missed", span(worst.after_miss))
    };
    format!(
        "  {}: at worst {} are lost{missed}; {promised}\n    {}\n",
        component.name,
        span(worst.loss),
        worst.sum
    )
}

fn worst_json(component: &Component) -> Value {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let time = |time: &Time| json!({ "s": seconds(time.takes), "basis": time.basis });
    let worst = component.worst();
    json!({
        "component": component.name,
        "rpo_s": component.rpo.map(seconds),
        "rto_s": component.rto.map(seconds),
        "interval_s": component.times.interval.map(seconds),
        "worst_loss_s": worst.as_ref().map(|worst| seconds(worst.loss)),
        "worst_loss_after_a_missed_run_s": worst.as_ref().map(|worst| seconds(worst.after_miss)),
        "run": time(&component.times.run),
        "upload": time(&component.times.upload),
        "verify": time(&component.times.verify),
        "log_lag": component.has_log.then(|| time(&component.times.lag)),
        "restore": component.times.restore.as_ref().map(time),
    })
}

/// The contradictions of the guides that a rule finds.
fn items(rule: &Rule) -> Vec<String> {
    rule.items.iter().map(|item| format!("X-{item}")).collect()
}

/// What there is to say about a rule.
///
/// # Errors
/// A usage error that names those that there are.
pub(crate) fn explain(word: &str) -> Result<(Value, String)> {
    let Some(rule) = Code::named(word).map(Code::rule) else {
        let known: Vec<&str> = RULES.iter().map(|rule| rule.word).collect();
        return Err(
            Error::new(ErrorKind::Usage, "explain", format!("{word:?}"), "no finding has that code")
                .with_hint(format!("the codes are: {}", known.join(", "))),
        );
    };
    let says = format!(
        "{} ({})\n\n{}\n\nwhy:   {}\nwrite: {}\n",
        rule.word,
        rule.severity.word(),
        rule.wrong,
        rule.why,
        rule.mend
    );
    let body = json!({
        "code": rule.word, "items": items(rule), "severity": rule.severity.word(),
        "wrong": rule.wrong, "why": rule.why, "mend": rule.mend,
    });
    Ok((body, says))
}

/// Whether the zone has days of 25 hours. One that is not known has none: the configuration was checked before.
fn clocks_change(cx: &Cx, zone: &str) -> bool {
    let now_s = cx.env.clock.wall_us().div_euclid(1_000_000);
    let (Ok(zone), Ok(now)) = (jiff::tz::TimeZone::get(zone), jiff::Timestamp::from_second(now_s)) else {
        return false;
    };
    let next = zone.following(now).next();
    next.is_some_and(|change| change.timestamp().as_second() <= now_s.saturating_add(YEAR_S))
}

/// How long the runs of a component take: what was measured on this host, else what is assumed.
pub(crate) fn times(settings: &Settings, component: &ComponentSettings) -> Times {
    let mut times = Times::default();
    let Ok(name) = ComponentName::new(&component.name) else {
        return times;
    };
    let proofs = proof::load(&settings.state_dir, &name);
    if let Some(bytes) = proofs.last().map(|proof| proof.bytes).filter(|bytes| *bytes > 0) {
        proven(settings, component, (&proofs, bytes), &mut times);
    }
    if let Some(run) = backed_up(component, &durations::load(&settings.state_dir, &name)) {
        times.run = run;
        // What the limit of a store makes of everything counts on: the next backup may be a full one.
        if times.upload == Times::default().upload {
            times.upload = Time {
                takes: Duration::ZERO,
                basis: "part of the backup".to_owned(),
            };
        }
    }
    times
}

/// What the proofs tell, the last of which was of so many bytes.
fn proven(settings: &Settings, component: &ComponentSettings, (proofs, bytes): (&[Proof], u64), times: &mut Times) {
    let at_least = |level: Level| {
        let runs: Vec<Run> = proofs.iter().filter(|proof| proof.level >= level).filter_map(run).collect();
        (!runs.is_empty()).then(|| estimate(bytes, &runs))
    };
    if let Some(verify) = at_least(Level::Hash) {
        times.verify = measured(&verify, "verify");
    }
    times.restore = at_least(Level::Restore).map(|restore| measured(&restore, "restore"));
    let slowest = component
        .stores
        .iter()
        .filter_map(|name| settings.stores.get(name)?.limit.upload)
        .min();
    if let Some(rate) = slowest.filter(|rate| *rate > 0) {
        times.upload = Time {
            takes: Duration::from_secs(bytes / rate + 1),
            basis: "from the limit of the slowest store".to_owned(),
        };
    }
}

/// How long a backup takes, from its begin until all its stores have it: the slowest of the newest ones of each schedule, because the worst case
/// is asked for. Where none was made as a schedule says, the newest others; `None` where none was made here.
fn backed_up(component: &ComponentSettings, known: &[Took]) -> Option<Time> {
    let usual = component.source.cluster().map(|cluster| cluster.method);
    let mut sorts: Vec<(Option<Method>, &[String])> = component
        .schedules
        .iter()
        .map(|schedule| (schedule.method.or(usual), schedule.stores.as_slice()))
        .collect();
    if sorts.is_empty() {
        sorts.push((usual, &component.stores));
    }
    let is_of = |took: &Took, (method, stores): (Option<Method>, &[String])| {
        let as_planned = method.is_none_or(|method| method.word() == took.method);
        as_planned && stores.len() == took.stores.len() && stores.iter().all(|store| took.stores.contains(store))
    };
    // Schedules that make the same sort of backup share its runs, which count once.
    let mut used: Vec<&Took> = Vec::new();
    for (sort, full) in sorts.into_iter().flat_map(|sort| [(sort, true), (sort, false)]) {
        let of_sort = |took: &&Took| took.full == full && is_of(took, sort);
        for took in known.iter().rev().filter(of_sort).take(durations::KEPT) {
            if !used.contains(&took) {
                used.push(took);
            }
        }
    }
    let as_planned = !used.is_empty();
    if !as_planned {
        used.extend(known.iter().rev().take(durations::KEPT));
    }
    let takes = used.iter().map(|took| took.duration()).max()?;
    let mut basis = match used.len() {
        1 => "1 measured backup".to_owned(),
        count => format!("the slowest of {count} measured backups"),
    };
    if !as_planned {
        basis.push_str(", made otherwise than planned");
    }
    Some(Time { takes, basis })
}

fn run(proof: &Proof) -> Option<Run> {
    let elapsed = Duration::try_from_secs_f64(proof.took_s)
        .ok()
        .filter(|took| !took.is_zero())?;
    Some(Run {
        bytes: proof.bytes,
        elapsed,
    })
}

fn measured(estimate: &Estimate, verb: &str) -> Time {
    Time {
        takes: estimate.expected,
        basis: estimate.basis.describe(verb),
    }
}
