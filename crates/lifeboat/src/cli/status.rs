//! `lifeboat status`: can I recover, to when, losing how much, how long will it take, proven when.

mod nagios;

use lifeboat_model::Result;
use lifeboat_model::readiness::Standing;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_ops::Protected;
use lifeboat_ops::status::{self, Status};
use lifeboat_ops::store::{Thaw, thaw};
use lifeboat_ops::verify::due;
use lifeboat_repo::{Backup, format_utc};
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, args, care, lint};
use crate::config::ComponentSettings;
use crate::config::plan::interval;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, args: &args::Status) -> Result<Exit> {
    if args.nagios {
        return nagios::run(cx, &args.what).await;
    }
    let context = Context::load(cx)?;
    let components = context.select(&args.what)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let (status, exit) = of(cx, &context, component).await?;
        outcomes.but(exit);
        outcomes.good(cx, as_json(&status), &for_people(cx, &status));
    }
    let named: Vec<_> = context
        .settings
        .not_backed_up
        .iter()
        .filter(|(system, _, _)| args.what.is_empty() || args.what.contains(system))
        .collect();
    let mut tail = String::new();
    for (system, name, reason) in named {
        tail.push_str(&format!("{system}: {name} is not backed up: {reason}\n"));
    }
    outcomes.finish_with(cx, "status", |text| text + &tail)
}

/// How a component stands, and how a command that says so ends.
pub(super) async fn of(cx: &Cx, context: &Context, component: &ComponentSettings) -> Result<(Status, Exit)> {
    let protected = match context.protected(component, &[]).await {
        Ok(protected) => protected,
        // A store that is away is an answer, too: the worst one.
        Err(error) => return Ok((Status::unknown(&component.name, &error), Exit::of(error.kind()))),
    };
    let mut status = status::run(&cx.env, &protected).await;
    if context.key_of(component)?.is_some_and(|key| key.has_identity()) {
        let identities = context.identities(component).await;
        status.judge_key(&cx.env, &protected, identities).await;
    }
    if let Some(thaw) = archived(context, component, &protected, &status).await {
        status.judge_archive(&thaw);
    }
    if let Some(interval) = interval(&component.schedules) {
        let says: Vec<String> = component.schedules.iter().map(|schedule| schedule.when.says()).collect();
        let whole_run = lint::times(&context.settings, component).whole_run();
        status.judge_schedule(interval, whole_run, says.join(" and "));
    }
    status.facts.verifications = due::standings(
        &protected.state_dir,
        &protected.component,
        &component.stores,
        &component.verifications,
        cx.env.clock.wall_us(),
    );
    let exit = status.failure().map_or(Exit::OK, Exit::of);
    Ok((status, exit))
}

/// What of the newest backup lies in an archive. A bucket that does not answer is told by the rest of the status.
async fn archived(context: &Context, component: &ComponentSettings, protected: &Protected, status: &Status) -> Option<Thaw> {
    let latest = status.latest.as_ref()?;
    let repository = protected.repository().await.ok()?;
    let bucket = care::bucket_of(context, component, &repository).await.ok()??;
    thaw(&bucket, &protected.component, latest, false).await.ok()
}

fn for_people(cx: &Cx, status: &Status) -> String {
    let readiness = status.readiness();
    let words = readiness.standing.words();
    let words = match readiness.standing {
        Standing::Ready => words.green().bold().to_string(),
        Standing::AtRisk => words.yellow().bold().to_string(),
        Standing::NotReady => words.red().bold().to_string(),
    };
    let mut text = format!("{}: {words}\n", status.component.bold());
    let unknown = || "unknown".to_owned();
    let to = status
        .latest
        .as_ref()
        .map_or_else(unknown, |backup| recover_to(status, backup));
    let loss = status.loss().map_or_else(unknown, |loss| {
        format!("what was written in the last {}", human_duration(loss))
    });
    let restore = status.restore.as_ref().map_or_else(unknown, |estimate| {
        format!(
            "about {} ({})",
            human_duration(estimate.expected),
            estimate.basis.describe("restore")
        )
    });
    let proven = status.proven.as_ref().map_or_else(
        || "never".to_owned(),
        |proof| {
            format!(
                "{} ({}), by restoring it in {}",
                text::time(proof.at_us),
                text::ago(cx.env.clock.wall_us(), proof.at_us),
                seconds(proof.took_s)
            )
        },
    );
    for (name, value) in [
        ("recover to", to),
        ("would lose", loss),
        ("would take", restore),
        ("proven", proven),
    ] {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    let oldest = status
        .oldest_us
        .map_or_else(String::new, |us| format!(", the oldest of {}", text::time(us)));
    text.push_str(&format!(
        "  {:<11} {}{oldest}\n",
        "backups",
        text::counted(status.backups, "backup")
    ));
    text.push_str(&log_lines(cx, status));
    for (id, interrupted) in &status.undo {
        let words = if *interrupted { "was interrupted" } else { "can be undone" };
        text.push_str(&format!(
            "  {:<11} restore {id} {words}: lifeboat restore undo {id}\n",
            "undo"
        ));
    }
    for reason in &readiness.reasons {
        text.push_str(&format!("  {:<11} {}\n", "because", reason.says));
    }
    text
}

/// Until when one can recover.
fn recover_to(status: &Status, backup: &Backup) -> String {
    match &status.reach {
        Some(reach) if reach.until_us > backup.header.moment_us => format!(
            "any moment until {} (backup {} and the log behind it)",
            text::time(reach.until_us),
            backup.id.short()
        ),
        _ => format!("{} (backup {})", text::time(backup.header.moment_us), backup.id.short()),
    }
}

/// What the follower of this host last said.
fn log_lines(cx: &Cx, status: &Status) -> String {
    let mut text = String::new();
    if let Some(log) = &status.log {
        text.push_str(&format!(
            "  {:<11} stored up to {} on timeline {}, as of {}\n",
            "log",
            log.stored,
            log.timeline,
            text::ago(cx.env.clock.wall_us(), log.stored_us)
        ));
        text.push_str(&format!(
            "  {:<11} {} in the spool; the server holds back {} for us\n",
            "",
            human_bytes(log.spool_bytes),
            log.slot_lag()
                .map_or_else(|| "an unknown amount of log".to_owned(), human_bytes)
        ));
    }
    text
}

fn seconds(seconds: f64) -> String {
    std::time::Duration::try_from_secs_f64(seconds).map_or_else(|_| "unknown time".to_owned(), human_duration)
}

fn as_json(status: &Status) -> Value {
    let readiness = status.readiness();
    let says: Vec<&str> = readiness.reasons.iter().map(|reason| reason.says.as_str()).collect();
    let codes: Vec<&str> = readiness.reasons.iter().map(|reason| reason.code).collect();
    json!({
        "component": status.component,
        "standing": readiness.standing.word(),
        "reasons": says,
        "reason_codes": codes,
        "latest": status.latest.as_ref().map(document::backup),
        "oldest": status.oldest_us.map(format_utc),
        "backups": status.backups,
        "rejected": status.rejected,
        "loss_s": status.loss().map(|loss| loss.as_secs_f64()),
        "restore": status.restore.as_ref().map(document::estimate),
        "proven": status.proven.as_ref().map(|proof| json!({
            "backup": proof.backup, "level": proof.level.word(), "at": format_utc(proof.at_us), "took_s": proof.took_s, "bytes": proof.bytes,
        })),
        "log": status.log.as_ref().map(|log| json!({
            "timeline": log.timeline, "stored": log.stored, "durable": log.durable, "server": log.server, "stored_at": format_utc(log.stored_us),
            "contact_at": format_utc(log.contact_us), "spool_bytes": log.spool_bytes, "slot_lag_bytes": log.slot_lag(), "alarms": log.alarms,
        })),
        "reach": status.reach.as_ref().map(|reach| json!({
            "store": reach.store, "timeline": reach.position.timeline.number(), "lsn": reach.position.lsn.to_string(),
            "until": format_utc(reach.until_us), "missing": reach.missing.iter().map(|range| json!({
                "timeline": range.timeline.number(), "start": range.start.to_string(), "end": range.end.to_string(),
            })).collect::<Vec<_>>(),
        })),
        "undo": status.undo.iter().map(|(id, interrupted)| json!({ "id": id, "interrupted": interrupted })).collect::<Vec<_>>(),
    })
}
