//! `lifeboat kit`: what a person needs on paper when nothing else is left. It asks no store, so that it can be printed at any time; no secret is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_io::durable;
use lifeboat_model::time::human_duration;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Protected;
use lifeboat_ops::proof;
use lifeboat_repo::{ComponentName, Instance};

use super::super::Cx;
use super::super::args::kit::{Kit, PageFormat};
use super::super::context::{Context, system_of};
use crate::config::plan::ScenarioSettings;
use crate::config::{ComponentSettings, Encrypt, KeySettings, StoreSettings};
use crate::exit::Exit;
use crate::render;
use crate::render::kit::{Line, Section};
use crate::render::text;

pub(crate) fn run(cx: &Cx, args: &Kit) -> Result<Exit> {
    let context = Context::load(cx)?;
    let title = format!("Recovery kit of {}", context.settings.instance_name);
    let sections = sections(cx, &context);
    let page = match args.format {
        PageFormat::Markdown => render::kit::markdown(&title, &sections),
        PageFormat::Html => render::kit::html(&title, &sections),
    };
    let Some(to) = &args.to else {
        render::print(&page)?;
        return Ok(Exit::OK);
    };
    match durable::create_file(to, page.as_bytes(), durable::FILE_MODE)? {
        durable::Created::New => {
            cx.out
                .result("kit", serde_json::json!({ "path": to }), &format!("wrote {}\n", to.display()))?;
            Ok(Exit::OK)
        }
        durable::Created::AlreadyThere => Err(Error::new(
            ErrorKind::Refused,
            "write the kit to",
            to.display(),
            "a file is there already",
        )
        .with_hint("name another one, or remove it")),
    }
}

fn sections(cx: &Cx, context: &Context) -> Vec<Section> {
    let mut sections = vec![about(cx, context), beginning(context), keys(context), stores(context)];
    let mut systems: Vec<&str> = Vec::new();
    for component in &context.settings.components {
        let system = system_of(component);
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    sections.extend(systems.iter().map(|system| of_system(context, system)));
    for system in systems {
        sections.extend(scenarios(context, system));
    }
    sections.push(without());
    sections
}

/// What this page is of.
fn about(cx: &Cx, context: &Context) -> Section {
    let settings = &context.settings;
    let instance = Instance::load(&settings.instance_name, &Protected::instance_key(&settings.state_dir));
    let signer = match instance {
        Ok(instance) => instance.public_key().to_string(),
        Err(_) => "the signing key of this machine is not here: print this page where backups are made".to_owned(),
    };
    Section::new(
        "What this is",
        vec![
            Line::pair("printed", text::time(cx.env.clock.wall_us())),
            Line::pair("by", format!("lifeboat {}", env!("CARGO_PKG_VERSION"))),
            Line::pair("configuration", settings.path.display().to_string()),
            Line::pair("signs as", signer),
            Line::Text("Print it again when the configuration changes. No secret stands here; the places for what only people know are below.".to_owned()),
        ],
    )
}

/// The first commands.
fn beginning(context: &Context) -> Section {
    // What survives the loss of the place comes first.
    let mut stores: Vec<&StoreSettings> = context.settings.stores.values().collect();
    stores.sort_by_key(|store| !store.off_site);
    let commands = stores.iter().map(|store| {
        let told = store
            .told_by_the_environment()
            .map(|told| format!("{told} "))
            .unwrap_or_default();
        format!("{told}lifeboat bootstrap {} --key FILE", store.address())
    });
    Section::new(
        "When everything is gone",
        vec![
            Line::Text("On any machine with the program, the private key and one of the stores that is left (off-site ones first):".to_owned()),
            Line::Commands(commands.collect()),
            Line::Text("Compare the public key that it shows with “signs as” above, and say yes only if it is the same. Then, in this order:".to_owned()),
            Line::Command("lifeboat status".to_owned()),
            Line::Commands(restores(context)),
        ],
    )
}

/// One command for each system, in the order of recovery.
fn restores(context: &Context) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for component in &context.settings.components {
        let command = format!("lifeboat restore {}", system_of(component));
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

/// Who can read, and where the private halves are.
fn keys(context: &Context) -> Section {
    let mut lines = vec![Line::Text(
        "Without a private key nothing encrypted can be read, by anybody. Write down where a copy is that does not go down with this machine.".to_owned(),
    )];
    for key in context.settings.keys.values() {
        lines.push(Line::pair(&format!("key {}", key.name), public(key)));
        let identity = key.identity.as_ref().or(key.derived.as_ref());
        if let Some(identity) = identity {
            lines.push(Line::pair("on this machine in", identity.to_string()));
        }
        lines.push(Line::Blank("its copy is at".to_owned()));
        lines.push(Line::Blank("who can get there".to_owned()));
    }
    if context.settings.keys.is_empty() {
        lines = vec![Line::Text("Nothing is encrypted.".to_owned())];
    }
    Section::new("Keys", lines)
}

fn public(key: &KeySettings) -> String {
    match key.recipients.is_empty() {
        true => "derived from a passphrase".to_owned(),
        false => key.recipients.join(", "),
    }
}

fn stores(context: &Context) -> Section {
    let mut lines = Vec::new();
    for (name, store) in &context.settings.stores {
        let site = if store.off_site { "off-site" } else { "on this site" };
        lines.push(Line::pair(name, format!("{} ({site})", store.address())));
        if store.off_site {
            lines.push(Line::Blank(format!("who can sign in to {name}, and how")));
        }
    }
    Section::new("Stores", lines)
}

/// What a system has, whom to call, and what is not backed up.
fn of_system(context: &Context, system: &str) -> Section {
    let mut lines = Vec::new();
    let plan = context.settings.plans.get(system);
    for (role, contact) in plan.iter().flat_map(|plan| &plan.contacts) {
        lines.push(Line::pair(role, contact.clone()));
    }
    if plan.is_none_or(|plan| plan.contacts.is_empty()) {
        lines.push(Line::Blank("whom to call".to_owned()));
    }
    let own = context
        .settings
        .components
        .iter()
        .filter(|component| system_of(component) == system);
    for (place, component) in own.enumerate() {
        lines.push(Line::pair(
            &format!("{}. {}", place + 1, component.name),
            of_component(context, component),
        ));
    }
    for (_, name, reason) in context.settings.not_backed_up.iter().filter(|(of, _, _)| of == system) {
        lines.push(Line::pair(&format!("not backed up: {name}"), reason.clone()));
    }
    Section::new(&format!("System {system}, in the order of recovery"), lines)
}

fn of_component(context: &Context, component: &ComponentSettings) -> String {
    let promised = |name: &str, limit: Option<Duration>| limit.map(|limit| format!("{name} {}", human_duration(limit)));
    let encrypted = match &component.encrypt {
        Encrypt::Key(key) => format!("with the key {key}"),
        Encrypt::None => "in the clear".to_owned(),
    };
    let mut parts = vec![
        component.source.kind().to_owned(),
        component.priority.word().to_owned(),
        format!("in {}", component.stores.join(", ")),
        encrypted,
    ];
    parts.extend(promised("RPO", component.rpo));
    parts.extend(promised("RTO", component.rto));
    if !component.depends_on.is_empty() {
        parts.push(format!("after {}", component.depends_on.join(", ")));
    }
    let name = ComponentName::new(&component.name);
    let proofs = name
        .map(|name| proof::load(&context.settings.state_dir, &name))
        .unwrap_or_default();
    parts.push(match proofs.iter().max_by_key(|proof| (proof.level, proof.at_us)) {
        Some(proof) => format!("proven up to {} at {}", proof.level.word(), text::time(proof.at_us)),
        None => "never proven on this machine".to_owned(),
    });
    parts.join(", ")
}

/// What was thought of beforehand.
fn scenarios(context: &Context, system: &str) -> Vec<Section> {
    let Some(plan) = context.settings.plans.get(system) else {
        return Vec::new();
    };
    let one = |(name, scenario): (&String, &ScenarioSettings)| {
        let mut lines = Vec::new();
        let promised: Vec<String> = [("RPO", scenario.rpo), ("RTO", scenario.rto)]
            .iter()
            .filter_map(|(name, limit)| limit.map(|limit| format!("{name} {}", human_duration(limit))))
            .collect();
        if !promised.is_empty() {
            lines.push(Line::pair("promised", promised.join(", ")));
        }
        let from = scenario
            .from
            .as_ref()
            .map(|store| format!(" --from {store}"))
            .unwrap_or_default();
        let at = if scenario.any_moment { " --at TIME" } else { "" };
        let commands = scenario
            .restore
            .iter()
            .map(|what| format!("lifeboat restore {what}{at}{from}"));
        lines.push(Line::Commands(commands.collect()));
        lines.extend(scenario.manual.iter().map(|step| Line::Step(step.clone())));
        Section::new(&format!("{system}: {name}"), lines)
    };
    let scenarios: BTreeMap<_, _> = plan.scenarios.iter().collect();
    scenarios.into_iter().map(one).collect()
}

/// The last resort.
fn without() -> Section {
    Section::new(
        "Without Lifeboat",
        vec![
            Line::Text("The format is documented, and every step can be done with stock tools: docs/recover-without-lifeboat.md of the source.".to_owned()),
            Line::Command("python3 tools/recover.py --help".to_owned()),
            Line::Text("It needs the store, the private key, Python and the program age. Keep a copy of the source beside the key.".to_owned()),
            Line::Blank("where the source and the program are kept".to_owned()),
        ],
    )
}
