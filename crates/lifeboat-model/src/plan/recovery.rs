//! Drills, scenarios and checklists against what is there to be restored.

use std::time::Duration;

use super::{Code, Drill, Finding, Plan, Point, Scenario, System, find, span};

pub(super) fn system(plan: &Plan, system: &System, findings: &mut Vec<Finding>) {
    for drill in &system.drills {
        let subject = format!("{}: drill {}", system.name, drill.name);
        if drill.never_fires {
            let says = format!("`{}` is no day of any year", drill.says);
            find(findings, Code::NeverFires, &subject, says, "a date that exists");
        }
        sources(plan, system, &subject, &drill.components, findings);
        places(
            plan,
            &subject,
            &drill.components,
            drill.from.as_deref(),
            drill.point,
            findings,
        );
        loss(plan, &subject, &drill.components, drill.from.as_deref(), drill.rpo, findings);
        budget(plan, &subject, drill, findings);
    }
    for scenario in &system.scenarios {
        let subject = format!("{}: scenario {}", system.name, scenario.name);
        sources(plan, system, &subject, &scenario.restore, findings);
        let from = scenario.from.as_deref();
        places(plan, &subject, &scenario.restore, from, scenario.point, findings);
        loss(plan, &subject, &scenario.restore, from, scenario.rpo, findings);
        time(plan, &subject, scenario, findings);
        order(plan, &subject, scenario, findings);
    }
    disagreements(system, findings);
    checklists(system, findings);
}

/// Everything that is to be restored is backed up.
fn sources(plan: &Plan, system: &System, subject: &str, names: &[String], findings: &mut Vec<Finding>) {
    for name in names.iter().filter(|name| plan.component(name).is_none()) {
        let short = name.rsplit('/').next().unwrap_or(name);
        let says = if system.not_backed_up.iter().any(|left_out| left_out == short) {
            format!("it restores {name}, which is deliberately not backed up")
        } else {
            format!("it restores {name}, which nothing backs up")
        };
        let mend = format!("a component {short}, or take it out of the plan");
        find(findings, Code::NoSource, subject, says, mend);
    }
}

/// The store that is restored from holds them, and the moment can be reached.
fn places(plan: &Plan, subject: &str, names: &[String], from: Option<&str>, point: Point, findings: &mut Vec<Finding>) {
    for component in names.iter().filter_map(|name| plan.component(name)) {
        if let Some(store) = from {
            let scheduled = component.schedules.is_empty()
                || component
                    .schedules
                    .iter()
                    .any(|schedule| schedule.stores.iter().any(|name| name == store));
            if !component.stores.iter().any(|name| name == store) || !scheduled {
                find(
                    findings,
                    Code::RestoresFromNowhere,
                    subject,
                    format!(
                        "it restores {} from {store}, and its backups go to {}",
                        component.name,
                        component.stores.join(", ")
                    ),
                    format!("{store} under `to` of {}", component.name),
                );
            }
        }
        if point == Point::Any && !component.has_log {
            find(
                findings,
                Code::MomentWithoutLog,
                subject,
                format!(
                    "it goes to any moment, and {} keeps no log: only its backups come back",
                    component.name
                ),
                "`point: backup`, or `method: physical` and `lifeboat follow`",
            );
        }
    }
}

/// What is lost at worst, where the drill or scenario promises something of its own.
fn loss(plan: &Plan, subject: &str, names: &[String], from: Option<&str>, rpo: Option<Duration>, findings: &mut Vec<Finding>) {
    let Some(rpo) = rpo else { return };
    for component in names.iter().filter_map(|name| plan.component(name)) {
        let worst = match from {
            Some(store) => component.worst_in(store),
            None => component.worst(),
        };
        if let Some(worst) = worst.filter(|worst| worst.loss > rpo) {
            find(
                findings,
                Code::RpoMissed,
                subject,
                format!(
                    "at worst {} of {} are lost ({}), promised are {}",
                    span(worst.loss),
                    component.name,
                    worst.sum,
                    span(rpo)
                ),
                "promise what the component's schedule can keep",
            );
        }
    }
}

/// A drill that goes as planned proves the objective.
fn budget(plan: &Plan, subject: &str, drill: &Drill, findings: &mut Vec<Finding>) {
    let planned: Duration = drill.phases.iter().map(|(_, length)| *length).sum();
    let promised = drill.components.iter().filter_map(|name| plan.component(name)?.rto);
    let shortest = drill.rto.or_else(|| promised.min());
    if let Some(rto) = shortest.filter(|rto| planned > *rto) {
        let phases: Vec<String> = drill
            .phases
            .iter()
            .map(|(name, length)| format!("{name} {}", span(*length)))
            .collect();
        find(
            findings,
            Code::DrillOverRto,
            subject,
            format!(
                "its phases take {} ({}), promised are {}",
                span(planned),
                phases.join(", "),
                span(rto)
            ),
            "shorter phases, or an objective that the drill can prove",
        );
    }
}

/// A scenario's own promise against what restores were measured to take.
fn time(plan: &Plan, subject: &str, scenario: &Scenario, findings: &mut Vec<Finding>) {
    let Some(rto) = scenario.rto else { return };
    let measured = scenario
        .restore
        .iter()
        .filter_map(|name| plan.component(name)?.times.restore.as_ref());
    let all: Duration = measured.map(|time| time.takes).sum();
    if all > rto {
        find(
            findings,
            Code::RtoMissed,
            subject,
            format!(
                "its restores take {} one after the other (measured here), promised are {}",
                span(all),
                span(rto)
            ),
            "promise what was measured",
        );
    }
}

/// What others depend on comes first.
fn order(plan: &Plan, subject: &str, scenario: &Scenario, findings: &mut Vec<Finding>) {
    for (at, name) in scenario.restore.iter().enumerate() {
        let Some(component) = plan.component(name) else { continue };
        for later in scenario.restore.iter().skip(at + 1) {
            if component.depends_on.contains(later) {
                find(
                    findings,
                    Code::OrderAgainstDependency,
                    subject,
                    format!("it restores {name} before {later}, on which {name} depends"),
                    format!("{later} before {name}"),
                );
            }
        }
    }
}

/// Two drills that prove the same, at different times.
fn disagreements(system: &System, findings: &mut Vec<Finding>) {
    for (at, one) in system.drills.iter().enumerate() {
        for other in system.drills.iter().skip(at + 1) {
            let same = one.components == other.components
                && one.point == other.point
                && one.from == other.from
                && one.phases == other.phases
                && one.manual == other.manual;
            if same {
                find(
                    findings,
                    Code::DrillsDisagree,
                    format!("{}: drills {} and {}", system.name, one.name, other.name),
                    format!("both prove the same, `{}` and `{}`", one.says, other.says),
                    "one of them, or a rarer one that proves more",
                );
            }
        }
    }
}

/// Proofs that a checklist asks for are made often enough.
fn checklists(system: &System, findings: &mut Vec<Finding>) {
    let held = system
        .drills
        .iter()
        .filter_map(|drill| drill.gaps)
        .map(|(_, longest)| longest);
    let best = held.min();
    for (name, within) in &system.proven_within {
        let subject = format!("{}: checklist {name}", system.name);
        let asked = span(*within);
        match best {
            Some(longest) if longest <= *within => {}
            Some(longest) => find(
                findings,
                Code::ChecklistOutpacesDrills,
                subject,
                format!(
                    "it asks for a restore that was proven within {asked}, and up to {} lie between two drills",
                    span(longest)
                ),
                format!("a drill `every: {}`, or a longer `within`", asked.replace(' ', "")),
            ),
            None => find(
                findings,
                Code::ChecklistOutpacesDrills,
                subject,
                format!("it asks for a restore that was proven within {asked}, and no drill is scheduled"),
                "a drill with `at` or `every`",
            ),
        }
    }
}

/// Every promise of a recovery time is rehearsed.
pub(super) fn undrilled(plan: &Plan, findings: &mut Vec<Finding>) {
    let drilled = |name: &str| {
        let drills = plan.systems.iter().flat_map(|system| &system.drills);
        drills.into_iter().any(|drill| drill.components.iter().any(|own| own == name))
    };
    for component in plan.components.iter().filter(|component| component.rto.is_some()) {
        if !drilled(&component.name) {
            find(
                findings,
                Code::NeverDrilled,
                &component.name,
                "a time for its recovery is promised, and no drill restores it".to_owned(),
                "a drill of its system that names it",
            );
        }
    }
}
