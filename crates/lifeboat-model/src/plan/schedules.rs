//! Schedules: whether they run, overlap, repeat each other, are watched, and feed what retention keeps.

use std::time::Duration;

use super::{Code, Component, Finding, Plan, Schedule, find, span};
use crate::retention::Rules;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn component(_plan: &Plan, component: &Component, findings: &mut Vec<Finding>) {
    if component.schedules.is_empty() {
        if component.rpo.is_some() {
            find(
                findings,
                Code::NoSchedule,
                &component.name,
                "an objective is promised, and nothing says when backups are made".to_owned(),
                "`backup: { every: … }` or `backup: { at: … }`",
            );
        }
        return;
    }
    for schedule in &component.schedules {
        one(component, schedule, findings);
    }
    watched(component, findings);
    repeated(component, findings);
    if let Some(rules) = &component.keep {
        tiers(component, rules, findings);
    }
}

/// What a schedule is called in a sentence.
fn subject(component: &Component, schedule: &Schedule) -> String {
    match schedule.name.as_str() {
        "" => component.name.clone(),
        name => format!("{}: schedule {name}", component.name),
    }
}

fn one(component: &Component, schedule: &Schedule, findings: &mut Vec<Finding>) {
    let Some((shortest, _)) = schedule.gaps else {
        find(
            findings,
            Code::NeverFires,
            subject(component, schedule),
            format!("`{}` is no day of any year", schedule.says),
            "a date that exists",
        );
        return;
    };
    let run = component.times.run.takes;
    if shortest < run {
        find(
            findings,
            Code::RunsOverlap,
            subject(component, schedule),
            format!(
                "a run begins every {}, and takes {} ({})",
                span(shortest),
                span(run),
                component.times.run.basis
            ),
            format!("`every: {}` or more", span(run).replace(' ', "")),
        );
    }
}

/// Somebody is told when a schedule is dead.
fn watched(component: &Component, findings: &mut Vec<Finding>) {
    let unwatched: Vec<&str> = component
        .schedules
        .iter()
        .filter(|schedule| schedule.alert_after.is_none())
        .map(|schedule| schedule.name.as_str())
        .collect();
    if component.alert_after.is_none() && !unwatched.is_empty() {
        find(
            findings,
            Code::NoAlarm,
            &component.name,
            "backups are scheduled, and nobody is told when they stop".to_owned(),
            "`alert_after` beside the schedule",
        );
    } else if component.schedules.len() > 1 && !unwatched.is_empty() {
        find(
            findings,
            Code::AlarmHidesSchedule,
            &component.name,
            format!(
                "one alarm watches the newest backup of {} schedules: while one of them runs, nobody hears that {} stopped",
                component.schedules.len(),
                unwatched.join(" or ")
            ),
            "`alert_after` in each entry of `schedules`",
        );
    }
}

/// Two schedules whose backups nothing tells apart.
fn repeated(component: &Component, findings: &mut Vec<Finding>) {
    let kept = |schedule: &Schedule| {
        let tags = component.keep.as_ref().map(|rules| &rules.tags);
        schedule.tag.clone().filter(|tag| tags.is_some_and(|tags| tags.contains(tag)))
    };
    let schedules = component.schedules.iter().filter(|schedule| schedule.gaps.is_some());
    let schedules: Vec<&Schedule> = schedules.collect();
    for (at, one) in schedules.iter().enumerate() {
        for other in schedules.iter().skip(at + 1) {
            if one.method == other.method && one.stores == other.stores && kept(one) == kept(other) {
                let (frequent, rare) = if one.gaps.map(|(_, longest)| longest) <= other.gaps.map(|(_, longest)| longest) {
                    (one, other)
                } else {
                    (other, one)
                };
                find(
                    findings,
                    Code::SameScheduleTwice,
                    &component.name,
                    format!(
                        "{} ({}) makes the same backups as {} ({})",
                        rare.name, rare.says, frequent.name, frequent.says
                    ),
                    format!("remove {}; `retention` keeps weeks and months of the others", rare.name),
                );
            }
        }
    }
}

/// Rules that keep what nothing makes.
fn tiers(component: &Component, rules: &Rules, findings: &mut Vec<Finding>) {
    for tag in &rules.tags {
        if !component.schedules.iter().any(|schedule| schedule.tag.as_ref() == Some(tag)) {
            find(
                findings,
                Code::TierWithoutProducer,
                &component.name,
                format!("retention keeps what is tagged `{tag}`, and no schedule makes such a backup"),
                format!("a schedule with `tag: {tag}`, or remove it from `tags`"),
            );
        }
    }
    let Some(interval) = component.times.interval else { return };
    let slots = [
        ("hourly", rules.hourly, HOUR),
        ("daily", rules.daily, DAY),
        ("weekly", rules.weekly, DAY * 7),
        ("monthly", rules.monthly, DAY * 31),
        ("yearly", rules.yearly, DAY * 366),
    ];
    for (rule, count, length) in slots {
        if count > 1 && interval > length {
            find(
                findings,
                Code::TierWithoutProducer,
                &component.name,
                format!(
                    "retention keeps one backup for each of {count} ({rule}), and up to {} lie between two",
                    span(interval)
                ),
                format!("make backups at least {rule}, or remove `{rule}`"),
            );
        }
    }
}

/// Times of the day have a zone.
pub(super) fn zone(plan: &Plan, findings: &mut Vec<Finding>) {
    let schedules = plan.components.iter().flat_map(|component| &component.schedules);
    let timed = schedules
        .filter(|schedule| schedule.has_times)
        .map(|schedule| schedule.says.as_str());
    if let (Some(first), false) = (timed.into_iter().next(), plan.names_time_zone) {
        find(
            findings,
            Code::NoTimeZone,
            "instance",
            format!("`{first}` names a time of the day, and no time zone is written"),
            "`timezone: UTC` or the one that is meant, under `instance`",
        );
    }
}
