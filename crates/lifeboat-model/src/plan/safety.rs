//! What is protected and how: encryption, places, archives, writers, the record itself.

use std::time::Duration;

use super::{Code, Component, Finding, Kind, Plan, find, span};
use crate::cold::{Access, access};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn component(plan: &Plan, component: &Component, findings: &mut Vec<Finding>) {
    if !component.encrypted {
        find(
            findings,
            Code::ClearBackups,
            &component.name,
            "its backups are not encrypted".to_owned(),
            "`encrypt: KEY`",
        );
    }
    let is_away = |name: &String| plan.store(name).is_some_and(|store| store.off_site);
    if !component.stores.iter().any(is_away) {
        find(
            findings,
            Code::NoOffSite,
            &component.name,
            format!("all its backups stay in one place ({})", component.stores.join(", ")),
            "a store elsewhere under `to`",
        );
    }
    if component.kind == Kind::Sqlite && component.writers > 1 {
        find(
            findings,
            Code::SeveralWriters,
            &component.name,
            format!(
                "{} copies of the application write into one SQLite database",
                component.writers
            ),
            "`writers: 1`, with one copy of the application",
        );
    }
    if component.holds_record {
        find(
            findings,
            Code::RecordInside,
            &component.name,
            "the state folder lies inside its data: with the data, what is known about its backups is lost".to_owned(),
            "another disk for `state_dir`",
        );
    }
    priority(plan, component, findings);
    archive(plan, component, findings);
}

fn priority(plan: &Plan, component: &Component, findings: &mut Vec<Finding>) {
    for name in &component.depends_on {
        let Some(needed) = plan.component(name) else { continue };
        if needed.priority.0 > component.priority.0 {
            find(
                findings,
                Code::PriorityAgainstDependency,
                &component.name,
                format!(
                    "it is {} and depends on {name}, which is {}: {name} is recovered first all the same",
                    component.priority.1, needed.priority.1
                ),
                format!("`priority: {}` for {name}", component.priority.1),
            );
        }
    }
}

/// How long an archive makes one wait, and how long it is paid for.
fn archive(plan: &Plan, component: &Component, findings: &mut Vec<Finding>) {
    let stores: Vec<_> = component.stores.iter().filter_map(|name| plan.store(name)).collect();
    let cold: Vec<_> = stores
        .iter()
        .filter_map(|store| {
            let (after, class) = store.cold.as_ref()?;
            match access(class)? {
                Access::Hours { slowest, .. } => Some((*store, *after, class, slowest)),
                Access::AtOnce => None,
            }
        })
        .collect();
    let soonest = cold.iter().map(|(_, after, _, slowest)| (*slowest, *after)).min();
    if let (Some(rto), Some((wait, after))) = (component.rto, soonest)
        && cold.len() == stores.len()
        && wait > rto
    {
        find(
            findings,
            Code::ColdBreaksRto,
            &component.name,
            format!(
                "what no backup of the last {} reaches comes back after up to {}, promised are {}",
                span(after),
                span(wait),
                span(rto)
            ),
            "one store without `cold`",
        );
    }
    let kept = component.keep.as_ref().and_then(|rules| rules.within);
    for (store, after, class, _) in &cold {
        let billed = if class.as_str() == "DEEP_ARCHIVE" {
            DAY * 180
        } else {
            DAY * 90
        };
        if let Some(kept) = kept.filter(|kept| kept.saturating_sub(*after) < billed) {
            find(
                findings,
                Code::ColdTooShort,
                format!("{} in {}", component.name, store.name),
                format!(
                    "backups are kept for {} and go to {class} after {}: {} there, of {} that are billed",
                    span(kept),
                    span(*after),
                    span(kept.saturating_sub(*after)),
                    span(billed)
                ),
                format!("`within: {}`", span(after.saturating_add(billed)).replace(' ', "")),
            );
        }
    }
}

/// Stores that nothing is written to.
pub(super) fn stores(plan: &Plan, findings: &mut Vec<Finding>) {
    for store in &plan.stores {
        let is_fed = |component: &Component| {
            let own = component.stores.contains(&store.name);
            let scheduled = |schedule: &super::Schedule| schedule.stores.contains(&store.name);
            own && (component.schedules.is_empty() || component.schedules.iter().any(scheduled))
        };
        if !plan.components.iter().any(is_fed) {
            find(
                findings,
                Code::StoreNeverFilled,
                &store.name,
                "no component's backups go there".to_owned(),
                format!("`to: [{}]`, or remove the store", store.name),
            );
        }
    }
}
