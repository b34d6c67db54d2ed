//! The commands: parse → one function of `lifeboat_ops` → render. No command decides about data itself.

pub(crate) mod args;
mod artefact;
mod ask;
mod backup;
mod care;
mod check;
mod completions;
mod config;
mod context;
mod copy;
mod demo;
mod diff;
mod doctor;
mod examples;
mod exit_codes;
mod export;
mod follow;
mod hold;
mod init;
pub(crate) mod interrupt;
mod key;
mod lint;
mod list;
mod man;
mod open;
mod outcomes;
mod points;
mod promote;
mod prune;
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

pub(crate) use wal_serve::{NO_LINK, refuse_as_root};

use args::{Cli, Command, RestoreCommand};
use clap::Parser as _;
use clap::error::ErrorKind as ClapKind;
use interrupt::Signals;
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};

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
pub(crate) fn interrupted_note(command: &Command) -> &'static str {
    match command {
        Command::Restore(restore) if restore.in_place || restore.command.is_some() => {
            "run the same command again: what was begun is finished or taken back"
        }
        Command::Prune(_) => "run the same command again: it goes on where it stopped",
        Command::Init(_) => "run the same command again: it goes on where it stopped",
        Command::Undelete(_) => "all of it was done or nothing: run the same command with --dry-run to see which",
        _ => "nothing was published; run the same command again",
    }
}

/// Whether a signal is this command's usual end: it is told, and ends by itself.
pub(crate) fn ends_by_signal(command: &Command) -> bool {
    matches!(command, Command::Follow(_))
}

/// Runs one command to its end and prints what came of it. `signals`: for a command that ends by them.
pub(crate) async fn run(cli: Cli, signals: Option<Signals>) -> Exit {
    let out = Out {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    let env = crate::env::real(|clock| render::progress::choose(cli.global.progress, cli.global.quiet, clock));
    let cx = Cx {
        env,
        out,
        config: cli.global.config,
    };
    let outcome = Box::pin(dispatch(&cx, cli.command, signals)).await;
    // Whatever bar is left is taken away before anything else is said.
    cx.env.progress.finish();
    outcome.unwrap_or_else(|error| fail(out, &error))
}

async fn dispatch(cx: &Cx, command: Command, signals: Option<Signals>) -> Result<Exit> {
    match command {
        Command::Init(args) => Box::pin(init::run(cx, args)).await,
        Command::Demo(args) => Box::pin(demo::run(cx, args)).await,
        Command::Status(args) => status::run(cx, &args.what).await,
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
        Command::Store { command } => store::run(cx, command).await,
        Command::Diff(args) => diff::run(cx, args).await,
        Command::Undelete(args) => undelete::run(cx, args).await,
        Command::Man { to } => man::run(cx, &to),
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
