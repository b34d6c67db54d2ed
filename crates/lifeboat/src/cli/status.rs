//! `lifeboat status`: can I recover, to when, losing how much, how long will it take, proven when.

use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Error, Result};
use lifeboat_ops::Protected;
use lifeboat_ops::status::{self, Standing, Status};
use lifeboat_ops::store::{Thaw, thaw};
use lifeboat_repo::{Backup, format_utc};
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::context::Context;
use super::outcomes::Outcomes;
use super::{Cx, care, lint};
use crate::config::ComponentSettings;
use crate::config::plan::interval;
use crate::exit::Exit;
use crate::render::{json as document, text};

pub(super) async fn run(cx: &Cx, what: &[String]) -> Result<Exit> {
    let context = Context::load(cx)?;
    let components = context.select(what)?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let (status, exit) = match context.protected(component, &[]).await {
            Ok(protected) => {
                let mut status = status::run(&cx.env, &protected).await;
                let has_key = context.key_of(component)?.is_some_and(|key| key.has_identity());
                if has_key {
                    let identities = context.identities(component).await;
                    status.judge_key(&cx.env, &protected, identities).await;
                }
                if let Some(thaw) = archived(&context, component, &protected, &status).await {
                    status.judge_archive(component.rto, &thaw);
                }
                if let Some(interval) = interval(&component.schedules) {
                    let says: Vec<String> = component.schedules.iter().map(|schedule| schedule.when.says()).collect();
                    let whole_run = lint::times(&context.settings, component).whole_run();
                    status.judge_schedule(&cx.env, interval, whole_run, &says.join(" and "));
                }
                let exit = status.failure().map_or(Exit::OK, Exit::of);
                (status, exit)
            }
            // A store that is away is an answer, too: the worst one.
            Err(error) => (unknown(&component.name, &error), Exit::of(error.kind())),
        };
        outcomes.but(exit);
        outcomes.good(cx, as_json(&status), &for_people(cx, &status));
    }
    let named: Vec<_> = context
        .settings
        .not_backed_up
        .iter()
        .filter(|(system, _, _)| what.is_empty() || what.contains(system))
        .collect();
    let mut tail = String::new();
    for (system, name, reason) in named {
        tail.push_str(&format!("{system}: {name} is not backed up: {reason}\n"));
    }
    outcomes.finish_with(cx, "status", |text| text + &tail)
}

/// What of the newest backup lies in an archive. A bucket that does not answer is told by the rest of the status.
async fn archived(context: &Context, component: &ComponentSettings, protected: &Protected, status: &Status) -> Option<Thaw> {
    let latest = status.latest.as_ref()?;
    let repository = protected.repository().await.ok()?;
    let bucket = care::bucket_of(context, component, &repository).await.ok()??;
    thaw(&bucket, &protected.component, latest, false).await.ok()
}

/// Nothing could be found out, and this is why.
fn unknown(component: &str, error: &Error) -> Status {
    Status {
        component: component.to_owned(),
        standing: Standing::NotReady,
        reasons: vec![error.to_string()],
        latest: None,
        oldest_us: None,
        backups: 0,
        rejected: 0,
        loss: None,
        restore: None,
        proven: None,
        undo: Vec::new(),
        log: None,
        reach: None,
        silent: Some(error.kind()),
    }
}

fn for_people(cx: &Cx, status: &Status) -> String {
    let words = match status.standing {
        Standing::Ready => status.standing.words().green().bold().to_string(),
        Standing::AtRisk => status.standing.words().yellow().bold().to_string(),
        Standing::NotReady => status.standing.words().red().bold().to_string(),
    };
    let mut text = format!("{}: {words}\n", status.component.bold());
    let unknown = || "unknown".to_owned();
    let to = status
        .latest
        .as_ref()
        .map_or_else(unknown, |backup| recover_to(status, backup));
    let loss = status.loss.map_or_else(unknown, |loss| {
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
    for reason in &status.reasons {
        text.push_str(&format!("  {:<11} {reason}\n", "because"));
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
    json!({
        "component": status.component,
        "standing": match status.standing { Standing::Ready => "ready", Standing::AtRisk => "at_risk", Standing::NotReady => "not_ready" },
        "reasons": status.reasons,
        "latest": status.latest.as_ref().map(document::backup),
        "oldest": status.oldest_us.map(format_utc),
        "backups": status.backups,
        "rejected": status.rejected,
        "loss_s": status.loss.map(|loss| loss.as_secs_f64()),
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
