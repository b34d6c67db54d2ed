//! `lifeboat checklist`: the checklists of the configuration. What can be known is looked at, what people say is kept, and what has expired does not hold.

use std::collections::BTreeMap;

use lifeboat_model::readiness::checklist::{self, Answer, Attested};
use lifeboat_model::retention::Compliance;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::attest::{self, Said};
use lifeboat_ops::status::Status;
use lifeboat_repo::format_utc;
use owo_colors::OwoColorize as _;
use serde_json::{Value, json};

use super::args::checklist::{Checklist, ChecklistCommand};
use super::context::Context;
use super::{Cx, drill, prune, status};
use crate::config::plan::{Fact, Item};
use crate::config::{ComponentSettings, Encrypt};
use crate::exit::Exit;

pub(super) async fn run(cx: &Cx, args: Checklist) -> Result<Exit> {
    let context = Context::load(cx)?;
    match args.command {
        None => show(cx, &context, args.what.as_deref()).await,
        Some(ChecklistCommand::Tick {
            list,
            item,
            failed,
            by,
            note,
        }) => {
            let (system, list, items) = one(&context, &list)?;
            let text = line(items, &item, list)?;
            let said = Said {
                system: system.to_owned(),
                list: list.to_owned(),
                item: text.to_owned(),
                good: !failed,
                who: by.unwrap_or_else(drill::user),
                at_us: cx.env.clock.wall_us(),
                note,
            };
            attest::record(&context.settings.state_dir, &said)?;
            let body = json!({
                "checklist": format!("{system}/{list}"),
                "item": said.item,
                "good": said.good,
                "who": said.who,
                "at": format_utc(said.at_us),
                "note": said.note,
            });
            let word = if said.good { "is so" } else { "is not so" };
            let shown = format!("{system}/{list}: {} says that it {word}: {}\n", said.who, said.item);
            // It is of the whole system, and stands in the ledger of each of its components.
            for component in context.select(&[system.to_owned()])? {
                let mut row = body.clone();
                row["component"] = component.name.clone().into();
                cx.told.row(&row, Exit::OK);
            }
            cx.out.result("checklist-tick", body, &shown)?;
            Ok(Exit::OK)
        }
    }
}

type Lists<'a> = Vec<(&'a str, &'a str, &'a [Item])>;

/// Those that `what` means.
fn meant<'a>(context: &'a Context, what: Option<&str>) -> Result<Lists<'a>> {
    let plans = context.settings.plans.iter();
    let all: Lists<'a> = plans
        .flat_map(|(system, plan)| {
            let lists = plan.checklists.iter();
            lists.map(move |(list, items)| (system.as_str(), list.as_str(), items.as_slice()))
        })
        .collect();
    let names: Vec<String> = all.iter().map(|(system, list, _)| format!("{system}/{list}")).collect();
    let wanted =
        |(system, list, _): &(&str, &str, &[Item])| what.is_none_or(|what| what == *system || what == format!("{system}/{list}"));
    let found: Lists<'a> = all.into_iter().filter(wanted).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let subject = what.unwrap_or("this configuration");
    let (detail, hint) = if names.is_empty() {
        (
            "the configuration has no checklists".to_owned(),
            "write `checklists: { NAME: [{ fact: backup_fresh }, { attest: …, valid: 90d }] }` below a system",
        )
    } else {
        (
            format!("there are {}", names.join(", ")),
            "name a system, or SYSTEM/CHECKLIST",
        )
    };
    Err(Error::new(ErrorKind::Usage, "find the checklists of", subject, detail).with_hint(hint))
}

fn one<'a>(context: &'a Context, name: &str) -> Result<(&'a str, &'a str, &'a [Item])> {
    let found = meant(context, Some(name))?;
    match found.as_slice() {
        [only] => Ok(*only),
        several => {
            let names: Vec<String> = several.iter().map(|(system, list, _)| format!("{system}/{list}")).collect();
            Err(Error::new(ErrorKind::Usage, "tick", name, format!("it has {}", names.join(", "))).with_hint("name one of them"))
        }
    }
}

/// The text of the line that a person means.
fn line<'a>(items: &'a [Item], wanted: &str, list: &str) -> Result<&'a str> {
    let numbered = wanted.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let refused = |detail: String, hint: &str| Err(Error::new(ErrorKind::Usage, "tick", list, detail).with_hint(hint));
    let item = match numbered {
        Some(place) => items.get(place),
        None => items
            .iter()
            .find(|item| matches!(item, Item::Attest { text, .. } if text == wanted)),
    };
    match item {
        Some(Item::Attest { text, .. }) => Ok(text),
        Some(Item::Fact(fact)) => refused(
            format!("{} is a fact, which nobody can say", fact.word()),
            "`lifeboat checklist` says why it does not hold, and what to do",
        ),
        None => refused(
            format!("{wanted:?} is none of its lines"),
            "name a line as `lifeboat checklist` shows it, or by its number",
        ),
    }
}

/// What is known of a component that checklists ask about.
struct Known<'a> {
    component: &'a ComponentSettings,
    status: Status,
    /// What retention keeps in each store; asked only where a line wants to know.
    kept: Option<Result<Vec<Compliance>>>,
}

async fn show(cx: &Cx, context: &Context, what: Option<&str>) -> Result<Exit> {
    let lists = meant(context, what)?;
    let all_said = attest::all(&context.settings.state_dir)?;
    let mut known: BTreeMap<&str, Vec<Known<'_>>> = BTreeMap::new();
    let mut rows = Vec::new();
    let (mut text, mut exit) = (String::new(), Exit::OK);
    for (system, list, items) in lists {
        let asks_kept = items.iter().any(|item| matches!(item, Item::Fact(Fact::RetentionHeld)));
        if !known.contains_key(system) {
            known.insert(system, facts(cx, context, system).await?);
        }
        let of_system = known.entry(system).or_default();
        if asks_kept {
            for one in of_system.iter_mut().filter(|one| one.kept.is_none()) {
                one.kept = Some(prune::kept(cx, context, one.component).await);
            }
        }
        let answers: Vec<Answer> = items
            .iter()
            .map(|item| match item {
                Item::Attest { text, valid } => {
                    let said: Option<Attested> = attest::last(&all_said, system, list, text);
                    checklist::attested(said.as_ref(), *valid, cx.env.clock.wall_us())
                }
                Item::Fact(fact) => of_all(*fact, of_system, context),
            })
            .collect();
        if !answers.iter().all(Answer::holds) {
            exit = exit.worse(Exit::of(ErrorKind::ObjectiveMissed));
        }
        text.push_str(&for_people((system, list), items, &answers));
        rows.push(as_json((system, list), items, &answers));
    }
    cx.env.progress.finish();
    cx.out.result("checklists", json!({ "checklists": rows }), &text)?;
    Ok(exit)
}

async fn facts<'a>(cx: &Cx, context: &'a Context, system: &str) -> Result<Vec<Known<'a>>> {
    let mut known = Vec::new();
    for component in context.select(&[system.to_owned()])? {
        let (status, _) = status::of(cx, context, component).await?;
        known.push(Known {
            component,
            status,
            kept: None,
        });
    }
    Ok(known)
}

/// What a fact comes to: it holds where it holds of every component of the system.
fn of_all(fact: Fact, known: &[Known<'_>], context: &Context) -> Answer {
    let answers: Vec<(&str, Answer)> = known
        .iter()
        .map(|one| (one.component.name.as_str(), of_one(fact, one, context)))
        .collect();
    let told = |holds: bool| -> Vec<String> {
        let told = answers.iter().filter(|(_, answer)| answer.holds() == holds);
        told.map(|(name, answer)| format!("{name}: {}", answer.says())).collect()
    };
    let open = told(false);
    match (answers.is_empty(), open.is_empty()) {
        (true, _) => Answer::Open("the system has no components".to_owned()),
        (false, true) => Answer::Holds(told(true).join("; ")),
        (false, false) => Answer::Open(open.join("; ")),
    }
}

fn of_one(fact: Fact, one: &Known<'_>, context: &Context) -> Answer {
    let (component, facts) = (one.component, &one.status.facts);
    match fact {
        Fact::BackupFresh => checklist::backup_fresh(facts),
        Fact::OffSiteCopy => {
            let is_off_site = |name: &&String| context.settings.stores.get(*name).is_some_and(|store| store.off_site);
            let off_site: Vec<String> = one.status.holders.iter().filter(is_off_site).cloned().collect();
            checklist::off_site_copy(facts, &off_site)
        }
        Fact::Encrypted if component.encrypt == Encrypt::None => Answer::Open("its backups are not encrypted".to_owned()),
        Fact::Encrypted => Answer::Holds("its backups are encrypted".to_owned()),
        Fact::Proven(within) => checklist::proven(facts, within),
        Fact::KeyProven => checklist::key_proven(facts),
        Fact::RetentionHeld => match &one.kept {
            Some(Ok(kept)) if kept.is_empty() => Answer::Open("there is no backup".to_owned()),
            Some(Ok(kept)) if kept.iter().all(Compliance::is_held) => Answer::Holds("every tier has what it promises".to_owned()),
            Some(Ok(_)) => Answer::Open("a tier lacks what it promises: `lifeboat prune --report`".to_owned()),
            Some(Err(error)) => Answer::Open(error.to_string()),
            None => Answer::Open("it was not looked at".to_owned()),
        },
        Fact::Alerts => {
            let schedules = &component.schedules;
            let silent = schedules
                .iter()
                .find(|one| one.alert_after.or(component.alert_after).is_none());
            match (schedules.as_slice(), silent) {
                ([], _) => Answer::Open("nobody wrote down when backups are made (`backup: { every: … }`)".to_owned()),
                (_, Some(_)) => {
                    Answer::Open("nobody is told when a backup does not come (`backup: { alert_after: … }`)".to_owned())
                }
                (_, None) => Answer::Holds("every schedule has its `alert_after`".to_owned()),
            }
        }
    }
}

fn words(item: &Item) -> String {
    match item {
        Item::Fact(fact) => fact.word().to_owned(),
        Item::Attest { text, .. } => text.clone(),
    }
}

fn for_people((system, list): (&str, &str), items: &[Item], answers: &[Answer]) -> String {
    let open = answers.iter().filter(|answer| !answer.holds()).count();
    let verdict = if open == 0 {
        "ready".green().bold().to_string()
    } else {
        format!("{} ({open} of {} open)", "not ready".red().bold(), answers.len())
    };
    let mut text = format!("{}: {verdict}\n", format!("{system}/{list}").bold());
    for (number, (item, answer)) in items.iter().zip(answers).enumerate() {
        let mark = if answer.holds() { "holds" } else { "OPEN" };
        text.push_str(&format!(
            "  {:>2}. {mark:<5} {}\n            {}\n",
            number + 1,
            words(item),
            answer.says()
        ));
    }
    text
}

fn as_json((system, list): (&str, &str), items: &[Item], answers: &[Answer]) -> Value {
    let lines: Vec<Value> = items
        .iter()
        .zip(answers)
        .map(|(item, answer)| {
            json!({
                "item": words(item),
                "kind": match item { Item::Fact(_) => "fact", Item::Attest { .. } => "attestation" },
                "holds": answer.holds(),
                "says": answer.says(),
            })
        })
        .collect();
    json!({ "checklist": format!("{system}/{list}"), "ready": answers.iter().all(Answer::holds), "items": lines })
}
