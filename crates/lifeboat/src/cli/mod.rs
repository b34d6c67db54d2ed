//! The commands: parse → one function of `lifeboat_ops` → render. No command decides about data itself.

pub(crate) mod args;
mod artefact;
mod ask;
mod audit;
mod backup;
mod bootstrap;
mod care;
mod catalog;
mod check;
mod checklist;
mod completions;
mod config;
mod context;
mod copy;
mod demo;
mod diff;
mod doctor;
mod drill;
mod examples;
mod exit_codes;
mod export;
mod follow;
mod hold;
mod init;
pub(crate) mod interrupt;
mod key;
mod kit;
mod lint;
mod list;
mod man;
mod open;
mod outcomes;
mod points;
mod promote;
mod prune;
mod recorder;
mod restore;
mod retention;
mod scratch;
mod show;
mod status;
mod store;
mod tenants;
mod time;
mod undelete;
mod undo;
mod verify;
mod wal;
mod wal_serve;
mod zero;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use wal_serve::{NO_LINK, refuse_as_root};

use args::{Cli, Command, RestoreCommand};
use clap::Parser as _;
use clap::error::ErrorKind as ClapKind;
use interrupt::Signals;
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use recorder::{Ended, Steps, Told};
use serde_json::Value;

use crate::exit::Exit;
use crate::render::{self, Out, json};

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Cx {
    /// Time, randomness, progress.
    pub(crate) env: Env,
    /// Where words go.
    pub(crate) out: Out,
    /// `--config`.
    pub(crate) config: Option<PathBuf>,
    /// What the ledger is to know of this command.
    pub(crate) told: Arc<recorder::Told>,
}

impl Cx {
    /// Prints the result, and tells the ledger.
    pub(crate) fn result(&self, kind: &str, body: Value, text: &str) -> Result<()> {
        self.told.document(&body);
        self.out.result(kind, body, text)
    }
}

/// Reads the command line. Help and version are printed and end well; anything else that is no command ends with 2.
pub(crate) fn parse() -> Result<Cli, Exit> {
    Cli::try_parse().map_err(|error| {
        let text = error.render();
        match error.kind() {
            ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
                render::print(&text.ansi().to_string()).map_or_else(|error| Exit::of(error.kind()), |()| Exit::OK)
            }
            _ if std::env::args_os().any(|arg| arg == "--json") => {
                let plain = text.to_string();
                let detail = plain
                    .trim()
                    .trim_start_matches("error: ")
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let error = Error::new(ErrorKind::Usage, "understand", "the command line", detail);
                fail(
                    Out {
                        json: true,
                        quiet: false,
                        verbose: false,
                    },
                    &error.with_hint("`lifeboat help` lists the commands, `lifeboat help COMMAND` its arguments"),
                )
            }
            _ => {
                render::tell(&text.ansi().to_string());
                Exit::of(ErrorKind::Usage)
            }
        }
    })
}

/// Prints an error where it belongs and says how to end.
pub(crate) fn fail(out: Out, error: &Error) -> Exit {
    if out.json {
        // The code of the first error is what counts, whether it could be printed or not.
        if let Err(unprinted) = render::print(&json::document("error", json::error(error))) {
            render::tell(&render::error::for_people(&unprinted));
        }
    } else {
        render::tell(&render::error::for_people(error));
    }
    Exit::of(error.kind())
}

/// What holds after an interruption of this command.
fn interrupted_note(command: &Command) -> &'static str {
    match command {
        Command::Restore(restore) if restore.in_place || restore.command.is_some() => {
            "run the same command again: what was begun is finished or taken back"
        }
        Command::Prune(_) => "run the same command again: it goes on where it stopped",
        Command::Init(_) => "run the same command again: it goes on where it stopped",
        Command::Undelete(_) => "all of it was done or nothing: run the same command with --dry-run to see which",
        Command::Bootstrap(_) => "what was read is as it was; run the same command again",
        Command::Drill(_) => "nothing but the sandbox was touched, and the next command removes it; run the same command again",
        _ => "nothing was published; run the same command again",
    }
}

/// Whether a signal is this command's usual end: it is told, and ends by itself.
fn ends_by_signal(command: &Command) -> bool {
    matches!(command, Command::Follow(_))
}

/// Runs one command to its end, prints what came of it, and records it.
pub(crate) async fn run(cli: Cli, mut signals: Signals) -> Exit {
    let out = Out {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    let mut env = crate::env::real(|clock| render::progress::choose(cli.global.progress, cli.global.quiet, clock));
    let told = Arc::new(Told::new(Arc::clone(&env.clock)));
    env.progress = Arc::new(Steps::new(env.progress, Arc::clone(&told)));
    let cx = Cx {
        env,
        out,
        config: cli.global.config,
        told,
    };
    let note = interrupted_note(&cli.command);
    let subject = recorder::subject(&cli.command);
    let run = subject.as_ref().and_then(|subject| recorder::begins(&cx, subject));
    if ends_by_signal(&cli.command) {
        let outcome = Box::pin(dispatch(&cx, cli.command, Some(signals))).await;
        let (exit, ended) = tell_end(&cx, Ended::Itself(outcome), note);
        if let Some(subject) = &subject {
            Box::pin(recorder::record(&cx, subject, &ended, run)).await;
        }
        return exit;
    }
    let ended = tokio::select! {
        biased;
        // Dropping the other future cancels the command.
        kind = signals.first() => Ended::Signal(kind),
        outcome = Box::pin(dispatch(&cx, cli.command, None)) => Ended::Itself(outcome),
    };
    let (exit, ended) = tell_end(&cx, ended, note);
    if let Some(subject) = &subject {
        // The command is over: whoever is in a hurry now does without the record's being stored; it waits here.
        tokio::select! {
            biased;
            _ = signals.first() => {}
            () = Box::pin(recorder::record(&cx, subject, &ended, run)) => {}
        }
    }
    exit
}

/// Says how it ended. A signal that has come does not come again: the second one ends the process.
fn tell_end(cx: &Cx, ended: Ended, note: &str) -> (Exit, Ended) {
    // Whatever bar is left is taken away before anything else is said.
    cx.env.progress.finish();
    let exit = match &ended {
        Ended::Itself(Ok(exit)) => *exit,
        Ended::Itself(Err(error)) => fail(cx.out, error),
        Ended::Signal(kind) => interrupted(cx.out, *kind, note),
    };
    (exit, ended)
}

/// Says what an interruption left behind.
fn interrupted(out: Out, kind: ErrorKind, note: &str) -> Exit {
    let word = if kind == ErrorKind::Terminated {
        "terminated"
    } else {
        "interrupted"
    };
    if out.json {
        return fail(out, &Error::new(kind, "finish", "the command", format!("{word}: {note}")));
    }
    render::tell(&format!("{word}: {note}"));
    Exit::of(kind)
}

async fn dispatch(cx: &Cx, command: Command, signals: Option<Signals>) -> Result<Exit> {
    match command {
        Command::Init(args) => Box::pin(init::run(cx, args)).await,
        Command::Demo(args) => Box::pin(demo::run(cx, args)).await,
        Command::Status(args) => status::run(cx, &args).await,
        Command::Doctor => doctor::run(cx).await,
        Command::Backup(args) => Box::pin(backup::run(cx, args)).await,
        Command::Follow(args) => follow::run(cx, &args, signals).await,
        Command::Wal { command } => wal::run(cx, command).await,
        Command::List(args) => list::run(cx, &args).await,
        Command::Show(args) => show::run(cx, &args).await,
        Command::Points(args) => points::run(cx, &args).await,
        Command::Copy(args) => copy::run(cx, args).await,
        Command::Prune(args) => prune::run(cx, args).await,
        Command::Hold { command } => hold::run(cx, command).await,
        Command::Check(args) => check::run(cx, args).await,
        Command::Restore(mut args) => match args.command.take() {
            None => restore::run(cx, *args).await,
            Some(RestoreCommand::Promote {
                id,
                yes,
                reason,
                accept_findings,
            }) => Box::pin(promote::run(cx, &id, yes, reason, accept_findings)).await,
            Some(RestoreCommand::Undo { id }) => undo::run(cx, id).await,
            Some(RestoreCommand::Export {
                what,
                to,
                backup,
                format,
                extract,
                database,
            }) => Box::pin(restore::export(cx, what, to, backup, (format, extract, database))).await,
        },
        Command::TenantMap(args) => tenants::run(cx, &args).await,
        Command::Import(args) => artefact::import(cx, args).await,
        Command::Verify(args) => verify::run(cx, args).await,
        Command::Drill(args) => Box::pin(drill::run(cx, args)).await,
        Command::Checklist(args) => Box::pin(checklist::run(cx, args)).await,
        Command::Store { command } => store::run(cx, command).await,
        Command::Diff(args) => diff::run(cx, args).await,
        Command::Undelete(args) => undelete::run(cx, args).await,
        Command::Kit(args) => kit::page::run(cx, &args),
        Command::Bootstrap(args) => Box::pin(bootstrap::run(cx, args)).await,
        Command::Man { to } => man::run(cx, &to),
        Command::Audit { command } => audit::run(cx, command).await,
        Command::Catalog { command } => catalog::run(cx, command).await,
        Command::Config { command } => config::run(cx, &command),
        Command::Key { command } => key::run(cx, command).await,
        Command::Completions { shell } => completions::run(shell),
        Command::ExitCodes => exit_codes::run(cx),
        Command::DemoWriter { path } => {
            compute::run("write to the demo's database", move || demo::writer::run(&path)).await?;
            Ok(Exit::OK)
        }
    }
}
