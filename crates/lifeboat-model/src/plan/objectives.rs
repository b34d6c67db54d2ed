//! Can the plan keep what was promised: how much is lost at worst, how long a restore takes, when anybody hears of it.

use super::{Code, Component, Finding, Plan, allowed_age, find, span};

pub(super) fn component(plan: &Plan, component: &Component, findings: &mut Vec<Finding>) {
    recovery_point(component, findings);
    off_site(plan, component, findings);
    recovery_time(component, findings);
    alarm(component, findings);
}

fn recovery_point(component: &Component, findings: &mut Vec<Finding>) {
    let (Some(rpo), Some(worst)) = (component.rpo, component.worst()) else {
        return;
    };
    if worst.loss > rpo {
        find(
            findings,
            Code::RpoMissed,
            &component.name,
            format!(
                "at worst {} are lost ({}), promised are {}",
                span(worst.loss),
                worst.sum,
                span(rpo)
            ),
            rarer_or_more(component, rpo),
        );
    }
}

/// What to write where an objective is missed.
fn rarer_or_more(component: &Component, rpo: std::time::Duration) -> String {
    let room = rpo.saturating_sub(component.whole_run());
    let seconds = room.as_secs() / 60 * 60;
    let log = match component.kind {
        super::Kind::Postgres if !component.has_log => ", or `method: physical` and `lifeboat follow`",
        _ => "",
    };
    if component.has_log || seconds == 0 {
        return format!("promise more than the runs take{log}");
    }
    let every = span(std::time::Duration::from_secs(seconds)).replace(' ', "");
    format!("`every: {every}` at most{log}, or a larger `rpo`")
}

/// The objective is to hold when the place is lost, too.
fn off_site(plan: &Plan, component: &Component, findings: &mut Vec<Finding>) {
    let (Some(rpo), Some(own)) = (component.rpo, component.worst()) else {
        return;
    };
    let away = plan.stores.iter().filter(|store| store.off_site);
    let worst = away.filter_map(|store| Some((component.worst_in(&store.name)?, store)));
    let best = worst.min_by_key(|(worst, _)| worst.loss);
    // What is as late everywhere is told already.
    if let Some((worst, store)) = best.filter(|(worst, _)| worst.loss > rpo.max(own.loss)) {
        find(
            findings,
            Code::OffSiteBehind,
            &component.name,
            format!(
                "in {}, the best off-site store, at worst {} are missing, promised are {}",
                store.name,
                span(worst.loss),
                span(rpo)
            ),
            format!("let every schedule that the objective rests on write to {}", store.name),
        );
    }
}

fn recovery_time(component: &Component, findings: &mut Vec<Finding>) {
    let (Some(rto), Some(restore)) = (component.rto, &component.times.restore) else {
        return;
    };
    if restore.takes > rto {
        find(
            findings,
            Code::RtoMissed,
            &component.name,
            format!(
                "a restore takes {} ({}), promised are {}",
                span(restore.takes),
                restore.basis,
                span(rto)
            ),
            format!("promise `rto: {}` or more", span(restore.takes).replace(' ', "")),
        );
    }
}

fn alarm(component: &Component, findings: &mut Vec<Finding>) {
    if component.schedules.is_empty() {
        return;
    }
    let own = component
        .schedules
        .iter()
        .filter_map(|schedule| Some((schedule.name.as_str(), schedule.alert_after?, schedule.gaps?.1)));
    let all = component
        .alert_after
        .and_then(|after| Some(("", after, component.times.interval?)));
    let alarms: Vec<_> = all.into_iter().chain(own).collect();
    for (name, after, interval) in &alarms {
        let subject = match *name {
            "" => component.name.clone(),
            name => format!("{}: schedule {name}", component.name),
        };
        let due = interval.saturating_add(component.whole_run());
        if *after < due {
            find(
                findings,
                Code::AlarmTooEarly,
                subject,
                format!(
                    "the alarm rings {} after a backup, and the next one is due after {}",
                    span(*after),
                    span(due)
                ),
                format!(
                    "`alert_after: {}`",
                    span(allowed_age(*interval, component.whole_run())).replace(' ', "")
                ),
            );
        }
    }
    let first = alarms.iter().map(|(_, after, _)| *after).min();
    let late = component.rpo.filter(|_| !component.has_log).zip(first);
    if let Some((rpo, after)) = late.filter(|(rpo, after)| after > rpo) {
        find(
            findings,
            Code::AlarmAfterObjective,
            &component.name,
            format!(
                "nobody is told before {} without a backup, promised is a loss of {} at most",
                span(after),
                span(rpo)
            ),
            format!("`alert_after: {}` or less", span(rpo).replace(' ', "")),
        );
    }
}
