//! `lifeboat restore` of a PostgreSQL cluster: to any moment that its log reaches, into a new data directory, onto a stopped one or in its place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifeboat_engine::postgres::checks::Beat;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::wal::Target;
use lifeboat_model::{Error, ErrorKind, Result, Timeline};
use lifeboat_ops::protected::Protected;
use lifeboat_ops::restore::cluster::{self, Options, Plan, Report, Way};
use lifeboat_ops::stores;
use lifeboat_ops::wal::Commit;
use lifeboat_repo::format_utc;
use serde_json::{Value, json};

use super::super::context::Context;
use super::super::{Cx, ask, time};
use super::{Done, Restore};
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::{json as document, text};

/// Everything a restore of a cluster works on.
pub(super) struct Planned {
    protected: Protected,
    plan: Plan,
    options: Options,
}

/// Where everything else but a cluster goes is said once.
pub(super) fn refuse_two_places(what: &str, args: &Restore) -> Result<()> {
    if args.in_place && args.to.is_some() {
        let detail = "--in-place replaces the original, and --to names another place";
        return Err(Error::new(ErrorKind::Usage, "restore", what, detail)
            .with_hint("leave one of them out; what lies at --to is replaced with --overwrite"));
    }
    Ok(())
}

/// Flags that only clusters know are refused for everything else.
pub(super) fn refuse_for_others(component: &ComponentSettings, args: &Restore) -> Result<()> {
    refuse_two_places(&component.name, args)?;
    let flag = [
        ("--lsn", args.point.lsn.is_some()),
        ("--tablespace", !args.tablespace.is_empty()),
        ("--timeline", args.timeline.is_some()),
        ("--lineage", args.lineage.is_some()),
        ("--no-replay", args.no_replay),
        ("--database", args.database.is_some()),
        ("--tables", !args.tables.is_empty()),
        ("--no-owner", args.no_owner),
    ]
    .into_iter()
    .find_map(|(flag, given)| given.then_some(flag));
    match flag {
        None => Ok(()),
        Some(flag) => Err(Error::new(
            ErrorKind::Usage,
            "restore",
            &component.name,
            format!(
                "{flag} is for PostgreSQL clusters, and its kind is {}",
                component.source.kind()
            ),
        )
        .with_hint("leave it out")),
    }
}

pub(super) async fn plan(cx: &Cx, context: &Context, component: &ComponentSettings, args: &Restore) -> Result<Planned> {
    let to = destination(component, args)?;
    let target = target(args)?;
    let options = options(context, args)?;
    let protected = context.protected(component, args.from.as_slice()).await?;
    let identities = context.identities(component).await?;
    let survey = stores::survey(&protected).await?;
    let target = match target {
        // By number or by name.
        Target::Base(id) => Target::Base(survey.listing().find(&id)?.id.to_string()),
        other => other,
    };
    let planned = cluster::plan_anywhere(&cx.env, &protected, &survey, &identities, &target, &to, &options).await;
    let (plan, options) = planned?;
    Ok(Planned {
        protected,
        plan,
        options,
    })
}

pub(super) fn options(context: &Context, args: &Restore) -> Result<Options> {
    let mut tablespaces = BTreeMap::new();
    for text in &args.tablespace {
        let parsed = text.split_once('=').and_then(|(oid, path)| Some((oid.parse().ok()?, path)));
        let Some((oid, path)) = parsed.filter(|(_, path): &(u32, &str)| !path.is_empty()) else {
            return Err(Error::new(
                ErrorKind::Usage,
                "place the tablespace",
                format!("{text:?}"),
                "it is not OID=PATH",
            )
            .with_hint("`--dry-run` shows the numbers of the tablespaces"));
        };
        tablespaces.insert(oid, PathBuf::from(path));
    }
    Ok(Options {
        way: match (args.in_place, args.overwrite) {
            (true, _) => Way::InPlace,
            (false, true) => Way::Onto,
            (false, false) => Way::New,
        },
        config: Some(context.settings.path.clone()),
        store: None,
        others: Vec::new(),
        lineage: args.lineage.clone(),
        tablespaces,
        replay: !args.no_replay,
        app: false,
    })
}

fn destination(component: &ComponentSettings, args: &Restore) -> Result<PathBuf> {
    let refuse = |detail: &str, hint: &str| {
        Err(Error::new(ErrorKind::Usage, "restore", &component.name, detail.to_owned()).with_hint(hint.to_owned()))
    };
    if !args.path.is_empty() || args.member.is_some() {
        return refuse(
            "--path and --member are for files",
            "leave them out; a cluster comes back as a whole",
        );
    }
    let configured = component.source.path();
    match (&args.to, configured.filter(|_| args.in_place)) {
        (Some(to), _) => Ok(to.clone()),
        (None, Some(data_dir)) => Ok(data_dir.to_path_buf()),
        (None, None) if args.in_place => refuse(
            "where its data directory is on this host is not configured",
            "name it: `--in-place --to DIR`, or `data_dir:` in the configuration",
        ),
        (None, None) => refuse(
            "a cluster needs a place to go",
            "name a new data directory with --to, for example --to /var/lib/postgresql/restored",
        ),
    }
}

pub(super) fn target(args: &Restore) -> Result<Target> {
    let timeline = args.timeline.map(Timeline::new).transpose()?;
    let point = &args.point;
    if point.before.is_some() {
        return Err(Error::new(
            ErrorKind::Usage,
            "restore",
            "a cluster",
            "--before is for what has only backups: a cluster has log in between",
        )
        .with_hint("use --at: it restores to exactly that time"));
    }
    Ok(match (&point.backup, &point.at, &point.lsn) {
        (Some(id), _, _) => Target::Base(id.clone()),
        (None, Some(at), _) => Target::Time(timeline, time::parse(at)?),
        (None, None, Some(lsn)) => Target::Lsn(timeline, lsn.parse()?),
        (None, None, None) => Target::Latest,
    })
}

pub(super) async fn one(cx: &Cx, component: &ComponentSettings, args: &Restore, planned: Planned) -> Result<Done> {
    let Planned {
        protected,
        plan,
        options,
    } = planned;
    let shown = plan_for_people(&component.name, &plan);
    if args.dry_run {
        return Ok(Done {
            exit: Exit::OK,
            json: plan_as_json(&component.name, &plan),
            text: shown,
        });
    }
    cx.out.note(&shown);
    confirm(cx, component, args, &plan)?;
    let told = plan.notes.clone();
    let report = cluster::run(&cx.env, &protected, plan, &options).await?;
    cx.env.progress.finish();
    for note in report.notes.iter().filter(|note| !told.contains(note)) {
        cx.out.note(&format!("note: {}: {note}", component.name));
    }
    Ok(Done {
        exit: Exit::OK,
        json: as_json(&component.name, &report),
        text: for_people(&component.name, &report),
    })
}

/// What is there is replaced only after a yes.
fn confirm(cx: &Cx, component: &ComponentSettings, args: &Restore, plan: &Plan) -> Result<()> {
    let (question, op) = match plan.way {
        _ if args.yes => return Ok(()),
        Way::New => return Ok(()),
        Way::InPlace => ("Replace the cluster in", "restore in place"),
        Way::Onto => ("Write over the cluster in", "restore onto"),
    };
    let question = format!("{question} {} with backup {}?", plan.to.display(), plan.backup.id.short());
    ask::confirm(cx, &question, op, &component.name, &ask::this_command_with(&["--yes"]))
}

fn plan_for_people(component: &str, plan: &Plan) -> String {
    let mut text = format!(
        "{component}: {} to {}; about {} ({})\n",
        match &plan.target {
            Target::Latest => format!(
                "the latest moment, {} on timeline {},",
                plan.choice.until, plan.choice.timeline
            ),
            Target::Base(_) => format!("the moment of backup {}", plan.backup.id.short()),
            Target::Lsn(_, lsn) => format!("position {lsn} on timeline {}", plan.choice.timeline),
            Target::Time(_, at_us) => format!("{} on timeline {}", format_utc(*at_us), plan.choice.timeline),
        },
        plan.to.display(),
        human_duration(plan.estimate.expected),
        plan.estimate.basis.describe("restore"),
    );
    for (index, step) in plan.steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", index + 1));
    }
    for note in &plan.notes {
        text.push_str(&format!("  note: {note}\n"));
    }
    text
}

fn plan_as_json(component: &str, plan: &Plan) -> Value {
    json!({
        "component": component,
        "backup": document::backup(&plan.backup),
        "to": plan.to,
        "in_place": plan.way == Way::InPlace,
        "overwrite": plan.way == Way::Onto,
        "present_bytes": plan.present_bytes,
        "tablespaces": plan.tablespaces,
        "timeline": plan.choice.timeline.number(),
        "until": plan.choice.until.to_string(),
        "size_bytes": plan.backup.header.size_bytes,
        "log_bytes": plan.log_bytes,
        "free_bytes": plan.free_bytes,
        "estimate": document::estimate(&plan.estimate),
        "steps": plan.steps,
        "notes": plan.notes,
    })
}

fn commit(commit: &Commit) -> String {
    format!("{} (transaction {}, {})", format_utc(commit.at_us), commit.xid, commit.end)
}

fn for_people(component: &str, report: &Report) -> String {
    let size = report.backup.header.size_bytes;
    let mut text = format!(
        "{component}: restored to {} from backup {}: {} in {} ({})\n",
        report.path.display(),
        report.backup.id.short(),
        human_bytes(size),
        human_duration(report.took),
        text::rate(size, report.files_took),
    );
    if report.fetched.reused_bytes > 0 {
        text.push_str(&format!(
            "  {} were there already and right; {} were fetched\n",
            human_bytes(report.fetched.reused_bytes),
            human_bytes(report.fetched.fetched_bytes)
        ));
    }
    match &report.replayed {
        Some(replayed) => text.push_str(&format!(
            "  a server replayed the log to {}, as planned, and was stopped: the directory is ready to be started\n",
            replayed.reached
        )),
        None => text.push_str(&format!(
            "  the log up to {} is replayed when a server is started there\n",
            report.until
        )),
    }
    match report.replayed.as_ref().and_then(|replayed| replayed.heartbeat.as_ref()) {
        None => {}
        Some(Beat::At(at_us)) => text.push_str(&format!("  the newest heartbeat in it: {}\n", format_utc(*at_us))),
        Some(Beat::Nothing) => text.push_str("  there is no heartbeat in it\n"),
        Some(Beat::Unknown(why)) => text.push_str(&format!("  its heartbeat could not be asked for: {why}\n")),
        Some(Beat::NotAvailable(why)) => text.push_str(&format!("  it has no heartbeat: {why}\n")),
    }
    if let Some(last) = &report.bracket.last {
        text.push_str(&format!("  the last commit that is back: {}\n", commit(last)));
    }
    if let Some(next) = &report.bracket.next {
        text.push_str(&format!("  the first commit that is not: {}\n", commit(next)));
    }
    if let Some(folder) = &report.undo_folder {
        text.push_str(&format!(
            "  the old cluster is kept in {}\n  to take this back, with the server stopped: lifeboat restore undo {}\n  once the server is started, a new backup protects what is restored: lifeboat backup {component}\n",
            folder.display(),
            report.id
        ));
    }
    text
}

fn as_json(component: &str, report: &Report) -> Value {
    let commit = |commit: &Commit| json!({ "at": format_utc(commit.at_us), "xid": commit.xid, "end": commit.end.to_string() });
    json!({
        "component": component,
        "id": report.id,
        "backup": document::backup(&report.backup),
        "path": report.path,
        "until": report.until.to_string(),
        "reached": report.replayed.as_ref().map(|replayed| replayed.reached.to_string()),
        "replay_s": report.replayed.as_ref().map(|replayed| replayed.took.as_secs_f64()),
        "heartbeat": report.replayed.as_ref().and_then(|replayed| match replayed.heartbeat {
            Some(Beat::At(at_us)) => Some(format_utc(at_us)),
            _ => None,
        }),
        "last_commit": report.bracket.last.as_ref().map(commit),
        "next_commit": report.bracket.next.as_ref().map(commit),
        "undo_folder": report.undo_folder,
        "fetched_bytes": report.fetched.fetched_bytes,
        "reused_bytes": report.fetched.reused_bytes,
        "written_bytes": report.fetched.written_bytes,
        "files_s": report.files_took.as_secs_f64(),
        "took_s": report.took.as_secs_f64(),
        "notes": report.notes,
    })
}
