//! Which commands are recorded, as what, and about whom. The match is total on purpose: a new command does not compile until somebody has decided.

use lifeboat_ops::restore::logical::place;
use lifeboat_ops::restore::record as restores;
use lifeboat_ops::undelete;
use lifeboat_ops::verify::due;
use lifeboat_repo::ComponentName;

use super::super::args::drill::DrillCommand;
use super::super::args::{Command, Hold, Key, RestoreCommand, Store};
use super::super::context::Context;
use super::told::Told;
use crate::config::ComponentSettings;

/// What is recorded of a command.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The word of the record.
    pub(super) verb: &'static str,
    whom: Whom,
    /// `--reason`.
    pub(super) reason: Option<String>,
}

/// Which components it is about.
#[derive(Debug)]
enum Whom {
    /// What these words mean; all of them where there are none.
    What(Vec<String>),
    /// The component of a restore.
    Restore(String),
    /// The component of an `undelete`.
    Undelete(String),
    /// Every component that has backups in these stores; in any where there are none.
    Stores(Vec<String>),
    /// What a plan drills: its name, and the words beside it.
    Plan(String, Vec<String>),
    /// What of these has proofs that are due.
    Due(Vec<String>),
    /// Whom the command told of.
    Told,
}

impl Subject {
    fn new(verb: &'static str, whom: Whom) -> Self {
        Self {
            verb,
            whom,
            reason: None,
        }
    }

    fn because(self, reason: Option<&String>) -> Self {
        Self {
            reason: reason.cloned(),
            ..self
        }
    }

    /// The names of the components, as far as they are known.
    pub(super) fn components(&self, context: &Context, told: &Told) -> Vec<String> {
        let mut names = told.components();
        let state_dir = &context.settings.state_dir;
        match &self.whom {
            Whom::What(what) => {
                // What nobody is called was an error of the command.
                let found = context.select(what).unwrap_or_default();
                names.extend(found.iter().map(|component| component.name.clone()));
            }
            Whom::Plan(name, what) => {
                let plans = context.settings.plans.iter();
                let meant = plans.filter(|(system, _)| what.is_empty() || what.contains(system));
                let drills = meant.filter_map(|(_, plan)| plan.drills.get(name));
                for component in drills.flat_map(|drill| &drill.components) {
                    let found = context.select(std::slice::from_ref(component)).unwrap_or_default();
                    names.extend(found.iter().map(|component| component.name.clone()));
                }
            }
            Whom::Due(what) => {
                let found = context.select(what).unwrap_or_default();
                let now_us = context.now_us();
                let is_due = |component: &&&ComponentSettings| {
                    let name = ComponentName::new(&component.name);
                    name.is_ok_and(|name| {
                        let standings = due::standings(state_dir, &name, &component.stores, &component.verifications, now_us);
                        standings.iter().any(|standing| standing.is_due(now_us))
                    })
                };
                names.extend(found.iter().filter(is_due).map(|component| component.name.clone()));
            }
            Whom::Restore(id) => {
                let known = restores::known(state_dir).unwrap_or_default();
                names.extend(known.into_iter().filter(|known| known.id == *id).map(|known| known.component));
                let database = place::find(state_dir, id).ok().flatten();
                names.extend(database.map(|restored| restored.component));
            }
            Whom::Undelete(id) => names.extend(undelete::find(state_dir, id).ok().map(|record| record.component)),
            Whom::Stores(stores) => {
                let is_there = |component: &&ComponentSettings| {
                    stores.is_empty() || component.stores.iter().any(|store| stores.contains(store))
                };
                names.extend(
                    context
                        .settings
                        .components
                        .iter()
                        .filter(is_there)
                        .map(|component| component.name.clone()),
                );
            }
            Whom::Told => {}
        }
        names
    }

    /// The stores whose rows are about a component, where the command tells of stores.
    pub(super) fn stores_of<'a>(&self, component: &'a ComponentSettings) -> &'a [String] {
        match self.whom {
            Whom::Stores(_) => &component.stores,
            _ => &[],
        }
    }
}

/// What is recorded of this command; none where it changes and proves nothing.
pub(crate) fn subject(command: &Command) -> Option<Subject> {
    let what = |verb, what: &[String]| Some(Subject::new(verb, Whom::What(what.to_vec())));
    match command {
        Command::Init(_) => Some(Subject::new("init", Whom::Told)),
        Command::Backup(args) => what("backup", &args.what).map(|subject| subject.because(args.reason.as_ref())),
        Command::Follow(args) if args.once => Some(Subject::new("follow", Whom::Told)),
        Command::Follow(args) => what("follow", &args.what),
        Command::Copy(args) => what("copy", &args.what),
        Command::Prune(args) if !args.dry_run => what("prune", args.what.as_slice()),
        Command::Hold { command } => hold(command),
        Command::Restore(args) if args.dry_run => None,
        Command::Restore(args) => match &args.command {
            None => what("restore", args.what.as_slice()).map(|subject| subject.because(args.reason.as_ref())),
            Some(RestoreCommand::Promote { id, reason, .. }) => {
                Some(Subject::new("promote", Whom::Restore(id.clone())).because(reason.as_ref()))
            }
            Some(RestoreCommand::Undo { id }) => Some(Subject::new("undo", Whom::Restore(id.clone()))),
            Some(RestoreCommand::Export { what: from, .. }) => what("export", std::slice::from_ref(from)),
        },
        Command::Import(args) => {
            what("import", std::slice::from_ref(&args.what)).map(|subject| subject.because(args.reason.as_ref()))
        }
        Command::Verify(args) if args.what.is_none() && args.from.is_some() => Some(Subject::new("verify", Whom::Told)),
        Command::Verify(args) if args.due => Some(Subject::new("verify", Whom::Due(args.what.iter().cloned().collect()))),
        Command::Verify(args) => what("verify", args.what.as_slice()),
        Command::Drill(args) => match &args.command {
            None => match &args.plan {
                Some(plan) => Some(Subject::new("drill", Whom::Plan(plan.clone(), args.what.clone()))),
                None => what("drill", &args.what),
            },
            Some(DrillCommand::Tick { .. }) => Some(Subject::new("drill-tick", Whom::Told)),
            Some(DrillCommand::Approve { .. }) => Some(Subject::new("drill-approve", Whom::Told)),
            Some(DrillCommand::Action { .. }) => Some(Subject::new("drill-action", Whom::Told)),
            Some(DrillCommand::Done { .. }) => Some(Subject::new("drill-done", Whom::Told)),
            Some(DrillCommand::Report { .. } | DrillCommand::Actions { .. }) => None,
        },
        Command::Checklist(args) => args.command.as_ref().map(|_| Subject::new("attest", Whom::Told)),
        Command::Store { command } => store(command),
        Command::Undelete(args) => match (&args.undo, &args.what) {
            (Some(id), _) => Some(Subject::new("undelete-undo", Whom::Undelete(id.clone()))),
            (None, _) if args.dry_run => None,
            (None, wanted) => what("undelete", wanted.as_slice()),
        },
        Command::Key { command } => key(command),
        Command::Prune(_)
        | Command::Demo(_)
        | Command::Status(_)
        | Command::Doctor
        | Command::Wal { .. }
        | Command::List(_)
        | Command::Show(_)
        | Command::Points(_)
        | Command::Check(_)
        | Command::TenantMap(_)
        | Command::Diff(_)
        | Command::Config { .. }
        | Command::Audit { .. }
        | Command::Catalog { .. }
        // It only reads the store, and the machine has no key to sign with.
        | Command::Kit(_)
        | Command::Bootstrap(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::ExitCodes
        | Command::DemoWriter { .. } => None,
    }
}

fn hold(command: &Hold) -> Option<Subject> {
    match command {
        Hold::Add { what, reason, .. } => Some(Subject::new("hold", Whom::What(vec![what.clone()])).because(Some(reason))),
        Hold::Release { .. } => Some(Subject::new("release", Whom::Told)),
        Hold::List { .. } => None,
    }
}

fn store(command: &Store) -> Option<Subject> {
    let (verb, stores) = match command {
        Store::Setup { print: true, .. } | Store::Check { .. } => return None,
        Store::Setup { stores, .. } => ("store-setup", stores),
        Store::Chill { stores } => ("store-chill", stores),
        Store::ExtendLock { stores } => ("store-extend-lock", stores),
    };
    Some(Subject::new(verb, Whom::Stores(stores.clone())))
}

fn key(command: &Key) -> Option<Subject> {
    let (verb, what) = match command {
        Key::New { .. } | Key::List(_) | Key::Check | Key::Derive => return None,
        Key::Add(args) => ("key-add", &args.what),
        Key::Remove(args) => ("key-remove", &args.what),
        Key::Rotate(args) => ("key-rotate", &args.what),
    };
    Some(Subject::new(verb, Whom::What(what.clone())))
}
