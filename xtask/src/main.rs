//! All automation of this repository: tests, checks, benchmarks, releases. `cargo xtask` without a word lists the commands.
//!
//! Nothing here ships, and nothing that ships depends on it. It drives the product only through its binary.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "automation prints, starts programs and reads the clock; the rules about that are for the product"
)]

mod bench;
mod ci;
mod golden;
mod postgres;
mod release;
mod setup;
mod sh;
mod testing;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "cargo xtask COMMAND

  test [FILTER]     install what the tests need, then run all tests
  soak [FILTER]     the same with whole fault matrices, optimised
  tidy              the rules that compilers do not check
  ci                everything a change must pass
  bench NAME        compare with the limit and with others; without a name lists what there is
  golden            make the golden repositories that are not there yet
  release           a binary, its sums and the notes in target/release-artifacts
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next();
    let rest: Vec<String> = words.collect();
    match command.as_deref() {
        Some("test") => testing::test(&rest),
        Some("soak") => testing::soak(&rest),
        Some("tidy") => tidy::run(),
        Some("ci") => ci::run(),
        Some("bench") => bench::run(&rest),
        Some("golden") => golden::run(),
        Some("release") => release::run(),
        // The limit that `bench repo` starts as a process of its own.
        Some("raw-pipeline") => bench::raw::run(&rest),
        None | Some("help" | "-h" | "--help") => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => bail!("there is no command {other:?}\n\n{HELP}"),
    }
}
