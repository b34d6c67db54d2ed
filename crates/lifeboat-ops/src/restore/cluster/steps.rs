//! A plan in words, for whoever has to say yes to it.

use lifeboat_model::time::human_bytes;

use super::{Plan, Way};
use crate::words::counted;

pub(super) fn steps(plan: &Plan) -> Vec<String> {
    let to = plan.to.display();
    let (size, free) = (human_bytes(plan.backup.header.size_bytes), human_bytes(plan.free_bytes));
    let backup = plan.backup.id.short();
    let mut steps = match plan.way {
        Way::New => vec![
            format!("preflight: {to} is free, {free} may be written"),
            format!("files: {size} of backup {backup}, every byte verified"),
        ],
        Way::InPlace => vec![
            format!("preflight: no server runs on {to}, {free} may be written"),
            format!("files: {size} of backup {backup} into a folder beside it, every byte verified"),
        ],
        Way::Onto => vec![
            format!("preflight: no server runs on {to}, {free} may be written"),
            format!(
                "old cluster: from here on it cannot be started; {} that the backup does not have are removed, its log among them",
                counted(plan.removed, "name")
            ),
            format!(
                "files: {size} of backup {backup}; of {} something is there, what of it is right is kept, the rest fetched, every byte verified",
                human_bytes(plan.present_bytes)
            ),
        ],
    };
    for (oid, place) in &plan.tablespaces {
        let was = plan.facts.tablespaces.get(oid).map_or("", String::as_str);
        steps.push(format!("tablespace: {oid}, which was {was}, goes to {}", place.display()));
    }
    let log = format!(
        "{} of log up to {} on timeline {}",
        human_bytes(plan.log_bytes),
        plan.choice.until,
        plan.choice.timeline
    );
    let later = plan.binaries.is_none();
    if let Some(binaries) = &plan.binaries {
        steps.push(format!(
            "replay: {log}, by PostgreSQL {} on a socket of its own, and a look at the position it reached",
            binaries.version()
        ));
    }
    if plan.way == Way::InPlace {
        steps.push(format!("quarantine: {to} moves into an undo folder beside it, as it is"));
    }
    let replays = if later {
        format!("; its server replays {log} when it is started")
    } else {
        ", ready to be started".to_owned()
    };
    steps.push(match plan.way {
        Way::New | Way::InPlace => format!("publish: {to} gets its name last{replays}"),
        Way::Onto => format!("publish: {to} can be used again{replays}"),
    });
    steps
}
