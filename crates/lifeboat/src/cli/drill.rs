//! `lifeboat drill`: restore into a sandbox, check, measure, and write down what came of it; show that; say what a person saw.

mod remarks;

use std::path::Path;
use std::time::Duration;

use lifeboat_io::{compute, durable};
use lifeboat_model::drill::Standing;
use lifeboat_model::time::parse_duration;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Protected;
use lifeboat_ops::drill::report::{Phase, Program, Took, Who, underscored};
use lifeboat_ops::drill::{self, Point, Request, Said, Written, evidence};
use lifeboat_repo::{Instance, format_utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::args::drill::{Drill, DrillCommand, ReportFormat};
use super::context::Context;
use super::outcomes::Outcomes;
use super::scratch::{self, Scratch};
use super::{Cx, time};
use crate::config::ComponentSettings;
use crate::config::plan::{Item, SystemPlan};
use crate::exit::Exit;
use crate::render;
use remarks::Word;

pub(super) async fn run(cx: &Cx, args: Drill) -> Result<Exit> {
    let context = Context::load(cx)?;
    match args.command {
        None => drills(cx, &context, args).await,
        Some(DrillCommand::Report { id, format, to, table }) => {
            settle(cx, &context)?;
            if table {
                return list(cx, &context);
            }
            report(cx, &context, id.as_deref(), format, to.as_deref())
        }
        Some(DrillCommand::Tick {
            id,
            item,
            failed,
            took,
            by,
            note,
        }) => {
            let took = took.as_deref().map(parse_duration).transpose()?;
            let said = Said {
                item,
                good: !failed,
                who: by.unwrap_or_else(user),
                at: format_utc(cx.env.clock.wall_us()),
                note,
                took_s: took.map(|took| took.as_secs()),
            };
            tick(cx, &context, &id, said)
        }
        Some(DrillCommand::Approve { id, refuse, by, note }) => remarks::approve(cx, &context, &id, !refuse, Word { by, note }),
        Some(DrillCommand::Action {
            id,
            text,
            owner,
            due,
            by,
        }) => {
            let word = Word { by, note: None };
            remarks::action(cx, &context, &id, text, owner, due.as_deref(), word)
        }
        Some(DrillCommand::Done { id, action, by, note }) => remarks::done(cx, &context, &id, action, Word { by, note }),
        Some(DrillCommand::Actions { all }) => remarks::list(cx, &context, all),
    }
}

async fn drills(cx: &Cx, context: &Context, args: Drill) -> Result<Exit> {
    let asked = planned(context, &args)?;
    settle(cx, context)?;
    let (program, tester) = (program(context).await?, args.tester.clone().unwrap_or_else(user));
    let mut outcomes = Outcomes::new(asked.components.len());
    let (last, mut before) = (asked.components.len().saturating_sub(1), Took::default());
    for (place, component) in asked.components.iter().enumerate() {
        let request = Request {
            point: asked.point,
            trigger: asked.trigger.clone(),
            who: Who {
                tester: tester.clone(),
                host: host(),
                instance: context.settings.instance_name.clone(),
            },
            program: program.clone(),
            // People look when all of it is back, and only then the phases are those of the whole.
            manual: if place == last { asked.manual.clone() } else { Vec::new() },
            phases: if place == last { asked.phases.clone() } else { Vec::new() },
            before,
        };
        match one(cx, context, component, &asked, &request).await {
            Ok((written, kind)) => {
                before = before.and(Took::of(&written.report));
                outcomes.but(kind.map_or_else(|| exit(written.standing()), Exit::of));
                outcomes.good(cx, as_json(&written), &render::drill::text(&written));
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "drill")
}

/// What is asked for, by words or by a plan.
struct Asked<'a> {
    components: Vec<&'a ComponentSettings>,
    point: Point,
    trigger: String,
    from: Option<String>,
    manual: Vec<String>,
    phases: Vec<(String, Duration)>,
    rpo: Option<Duration>,
    rto: Option<Duration>,
}

fn planned<'a>(context: &'a Context, args: &Drill) -> Result<Asked<'a>> {
    let Some(name) = &args.plan else {
        return Ok(Asked {
            components: context.select(&args.what)?,
            point: point(args, "latest")?,
            trigger: "by hand".to_owned(),
            from: args.from.clone(),
            manual: args.manual.clone(),
            phases: Vec::new(),
            rpo: None,
            rto: None,
        });
    };
    let (system, plan) = named(context, args, name)?;
    let Some(drill) = plan.drills.get(name) else {
        return Err(no_plan(context, name));
    };
    let mut components = Vec::new();
    for what in &drill.components {
        components.extend(context.select(std::slice::from_ref(what))?);
    }
    let checklist = drill.checklist.as_ref().and_then(|list| plan.checklists.get(list));
    let attested = checklist.into_iter().flatten().filter_map(|item| match item {
        Item::Attest { text, .. } => Some(text.clone()),
        Item::Fact(_) => None,
    });
    // What we cannot measure, people tell: `drill tick ID deploy --took 12m`.
    let by_people = drill.phases.iter().map(|(name, _)| name);
    let by_people = by_people.filter(|name| !Phase::is_measured(name)).cloned();
    Ok(Asked {
        components,
        point: point(args, drill.point.word())?,
        trigger: format!("{system}: {name}"),
        from: args.from.clone().or_else(|| drill.from.clone()),
        manual: drill
            .manual
            .iter()
            .cloned()
            .chain(attested)
            .chain(args.manual.clone())
            .chain(by_people)
            .collect(),
        phases: drill.phases.clone(),
        rpo: drill.rpo,
        rto: drill.rto,
    })
}

/// The system whose plan is meant.
fn named<'a>(context: &'a Context, args: &Drill, name: &str) -> Result<(&'a str, &'a SystemPlan)> {
    let plans = context.settings.plans.iter();
    let found: Vec<_> = plans
        .filter(|(system, plan)| plan.drills.contains_key(name) && (args.what.is_empty() || args.what.contains(system)))
        .collect();
    match found.as_slice() {
        [(system, plan)] => Ok((system, plan)),
        [] => Err(no_plan(context, name)),
        several => {
            let systems: Vec<&str> = several.iter().map(|(system, _)| system.as_str()).collect();
            let detail = format!("several systems have one of that name: {}", systems.join(", "));
            Err(Error::new(ErrorKind::Usage, "choose the drill", format!("{name:?}"), detail)
                .with_hint(format!("name the system: lifeboat drill {} --plan {name}", systems[0])))
        }
    }
}

fn no_plan(context: &Context, name: &str) -> Error {
    let plans = context.settings.plans.iter();
    let known: Vec<String> = plans
        .flat_map(|(system, plan)| plan.drills.keys().map(move |name| format!("{name} (of {system})")))
        .collect();
    let detail = match known.is_empty() {
        true => "the configuration has no `drills`".to_owned(),
        false => format!(
            "the configuration has no drill of that name there; it has {}",
            known.join(", ")
        ),
    };
    Error::new(ErrorKind::Usage, "choose the drill", format!("{name:?}"), detail)
        .with_hint("without --plan, `lifeboat drill WHAT` needs no plan")
}

async fn one(
    cx: &Cx,
    context: &Context,
    component: &ComponentSettings,
    asked: &Asked<'_>,
    request: &Request,
) -> Result<(Written, Option<ErrorKind>)> {
    let mut protected = context.protected(component, asked.from.as_slice()).await?;
    protected.rpo = asked.rpo.or(protected.rpo);
    protected.rto = asked.rto.or(protected.rto);
    let scratch = Scratch::create(&cx.env, &protected)?;
    // A key that cannot be read is what a drill is to find.
    let identities = context.identities(component);
    let instance = instance(context);
    let done = Box::pin(drill::run(
        &cx.env,
        &protected,
        identities,
        request,
        scratch.path(),
        instance.as_ref(),
    ));
    done.await
}

/// The instance of this host, where its key is here: evidence is signed by it.
fn instance(context: &Context) -> Option<Instance> {
    let settings = &context.settings;
    Instance::load(&settings.instance_name, &Protected::instance_key(&settings.state_dir)).ok()
}

/// What killed drills left.
fn settle(cx: &Cx, context: &Context) -> Result<()> {
    let state_dir = &context.settings.state_dir;
    scratch::sweep_killed(state_dir)?;
    let (settled, unread) = evidence::settle(&cx.env, state_dir, instance(context).as_ref())?;
    for error in unread {
        render::tell(&format!("warning: {error}"));
    }
    for id in settled {
        cx.out
            .note(&format!("note: the drill {id} was interrupted; its report says so"));
    }
    Ok(())
}

fn point(args: &Drill, otherwise: &str) -> Result<Point> {
    match (args.point.as_deref().unwrap_or(otherwise), args.seed) {
        ("random", seed) => Ok(Point::Random(seed)),
        (_, Some(_)) => Err(
            Error::new(ErrorKind::Usage, "choose", "the point", "--seed is for --point random")
                .with_hint("write --point random --seed NUMBER"),
        ),
        ("latest", None) => Ok(Point::Latest),
        (text, None) => time::parse(text).map(Point::At),
    }
}

/// How the process ends.
fn exit(standing: Standing) -> Exit {
    match standing {
        Standing::Passed | Standing::Waiting => Exit::OK,
        Standing::Incomplete => Exit::INCOMPLETE,
        Standing::ObjectiveMissed => Exit::of(ErrorKind::ObjectiveMissed),
        Standing::Failed => Exit::of(ErrorKind::Corrupt),
    }
}

/// This program and this configuration, by their digests.
async fn program(context: &Context) -> Result<Program> {
    let configuration = context.settings.path.clone();
    compute::run("look at this program", move || {
        let program = std::env::current_exe().map_err(|error| Error::io("find", "this program", error))?;
        Ok(Program {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sha256: digest(&program)?,
            // Without a file there is none: everything came from the environment.
            configuration_sha256: digest(&configuration).unwrap_or_default(),
        })
    })
    .await
}

/// SHA-256 of a file, hexadecimal.
fn digest(path: &Path) -> Result<String> {
    let failed = |error| Error::io("read", path.display(), error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(hex::encode(hasher.finalize()))
}

/// The user of this process.
pub(super) fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let number = rustix::process::geteuid().as_raw().to_string();
    named
        .filter(|name| !name.is_empty())
        .or_else(|| name_of(&number))
        .unwrap_or_else(|| format!("user {number}"))
}

/// The name of a user, by his number.
fn name_of(number: &str) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    };
    users.lines().find_map(of)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn as_json(written: &Written) -> Value {
    json!({
        "component": written.report.component,
        "id": written.report.id,
        "standing": underscored(written.standing().words()),
        "phases": written.phases(),
        "report": written.report,
        "said": written.said,
        "remarks": written.remarks,
        "folder": written.folder,
        // The ledger holds it: evidence that is changed later is found out.
        "evidence_sha256": digest(&written.folder.join("report.json")).ok(),
    })
}

/// All drills; what cannot be read is told.
fn readable(state_dir: &Path) -> Result<Vec<Written>> {
    let (all, unread) = evidence::all(state_dir)?;
    for error in unread {
        render::tell(&format!("warning: {error}"));
    }
    Ok(all)
}

fn list(cx: &Cx, context: &Context) -> Result<Exit> {
    let all = readable(&context.settings.state_dir)?;
    let rows: Vec<Value> = all.iter().map(as_json).collect();
    cx.out
        .result("drills", json!({ "drills": rows }), &render::drill::table(&all))?;
    Ok(Exit::OK)
}

fn report(cx: &Cx, context: &Context, id: Option<&str>, format: ReportFormat, to: Option<&Path>) -> Result<Exit> {
    let state_dir = &context.settings.state_dir;
    let written = evidence::find(state_dir, id)?;
    let signature = evidence::signature(&written, &context.trust()?)?;
    let earlier: Vec<Written> = (readable(state_dir)?.into_iter())
        .filter(|other| other.report.component == written.report.component && other.report.began_at <= written.report.began_at)
        .collect();
    let text = match format {
        ReportFormat::Text => render::drill::full(&written, &signature),
        ReportFormat::Json => {
            let mut text = serde_json::to_string_pretty(&as_json(&written))
                .map_err(|error| Error::new(ErrorKind::Bug, "encode", "the report", error.to_string()))?;
            text.push('\n');
            text
        }
        ReportFormat::Markdown => render::drill::markdown(&written, &signature, &earlier),
        ReportFormat::Html => render::drill_page::page(&written, &signature, &earlier),
    };
    let Some(to) = to else {
        if format == ReportFormat::Text {
            cx.out.result("drill-report", as_json(&written), &text)?;
        } else {
            render::print(&text)?;
        }
        return Ok(Exit::OK);
    };
    match durable::create_file(to, text.as_bytes(), durable::FILE_MODE)? {
        durable::Created::New => {
            let body = json!({ "id": written.report.id, "path": to });
            cx.out.result("drill-report", body, &format!("wrote {}\n", to.display()))?;
            Ok(Exit::OK)
        }
        durable::Created::AlreadyThere => Err(Error::new(
            ErrorKind::Refused,
            "write the report to",
            to.display(),
            "a file is there already",
        )
        .with_hint("name another one, or remove it")),
    }
}

fn tick(cx: &Cx, context: &Context, id: &str, said: Said) -> Result<Exit> {
    let state_dir = &context.settings.state_dir;
    let written = evidence::find(state_dir, Some(id))?;
    let numbered = said.item.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let item = numbered.and_then(|place| written.report.manual.get(place)).cloned();
    let said = Said {
        item: item.unwrap_or_else(|| said.item.clone()),
        ..said
    };
    if said.took_s.is_some() && !written.report.phases.iter().any(|phase| phase.name == said.item) {
        let detail = format!("{:?} is no phase of its plan", said.item);
        return Err(Error::new(ErrorKind::Usage, "tick", &written.report.id, detail)
            .with_hint("leave --took out; phases stand under the drill in the configuration"));
    }
    let written = evidence::tick(state_dir, &written, said)?;
    told(cx, &written)?;
    Ok(exit(written.standing()))
}

/// Shows a drill of which somebody said something, which the ledger is to know.
fn told(cx: &Cx, written: &Written) -> Result<()> {
    let json = as_json(written);
    cx.told.row(&json, Exit::OK);
    cx.out.result("drill-report", json, &render::drill::text(written))
}
