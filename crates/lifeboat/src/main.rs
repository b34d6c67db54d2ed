//! Lifeboat: back up, restore, and prove that restoring works.
//!
//! The binary parses the command line, prints results and ends with a documented exit code. It holds no logic of its own:
//! the verbs live in `lifeboat_ops`, the format in `lifeboat_repo`.

mod cli;
mod config;
mod env;
mod exit;
mod fetch;
mod render;

use std::process::ExitCode;
use std::time::Duration;

use lifeboat_model::Error;

/// How long work that cannot be cancelled may go on after the command has ended.
const SHUTDOWN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    if fetch::is_meant(&words) {
        // PG-07: a server in recovery takes nearly every other code for the end of the log, so not even a bug may have one.
        return std::panic::catch_unwind(|| fetch::main(&words)).map_or(ExitCode::from(fetch::NOT_NOW), ExitCode::from);
    }
    // A bug ends with 1, as the table says, and not with the number that Rust has for it. The panic itself is on stderr already.
    std::panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let out = render::Out {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(out, &Error::io("start", "the runtime", error)).into(),
    };
    let exit = runtime.block_on(async {
        match cli::interrupt::Signals::listen() {
            Ok(signals) => Box::pin(cli::run(cli, signals)).await,
            Err(error) => cli::fail(out, &error),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
    exit.into()
}
