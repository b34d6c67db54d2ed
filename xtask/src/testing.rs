//! `test` and `soak`: everything the tests need, then all of them. The closing lines are those of cargo.

use std::io::Read;

use anyhow::{Context, Result};

use crate::{postgres, setup, sh};

/// Environment variable with the seed from which tests choose their share of the fault matrices.
const SEED: &str = "LIFEBOAT_TEST_SEED";

/// All tests, optionally only those whose name contains the filter.
pub(crate) fn test(filter: &[String]) -> Result<()> {
    run(filter, false)
}

/// The same with whole fault matrices instead of seeded shares.
pub(crate) fn soak(filter: &[String]) -> Result<()> {
    run(filter, true)
}

fn run(filter: &[String], whole: bool) -> Result<()> {
    setup::packages(setup::FOR_TESTS)?;
    let python = setup::python()?;
    let servers = setup::servers()?;
    let postgres = postgres::servers(&python)?;
    let seed = seed()?;
    println!("seed: {SEED}={seed} (set it to repeat this run)");
    let cargo = |targets: &[&str]| -> Result<()> {
        let mut command = sh::cargo()?;
        command.args(["test", "--workspace", "--locked"]);
        command.env(SEED, &seed).env("LIFEBOAT_TEST_PYTHON", &python);
        command
            .env("LIFEBOAT_TEST_SERVERS", &servers)
            .env("LIFEBOAT_TEST_POSTGRES", &postgres);
        if whole {
            command.arg("--release").env("LIFEBOAT_SOAK", "1");
        }
        sh::run(command.args(targets).args(filter))
    };
    // Documentation first, so that the last lines are the summaries of the real tests.
    cargo(&["--doc"])?;
    cargo(&["--lib", "--bins", "--tests"])
}

/// The given seed, or a fresh one.
fn seed() -> Result<String> {
    if let Ok(given) = std::env::var(SEED) {
        return Ok(given);
    }
    let mut bytes = [0_u8; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read random bytes")?;
    Ok(u64::from_le_bytes(bytes).to_string())
}
