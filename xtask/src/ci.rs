//! `ci`: everything a change must pass, cheapest first. The tests come last, so that their summary closes the output.

use std::time::Instant;

use anyhow::Result;

use crate::{sh, testing, tidy};

/// Runs all stages; the first failure ends it.
pub(crate) fn run() -> Result<()> {
    stage("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    stage("tidy", tidy::run)?;
    stage("clippy", || {
        cargo(
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
            &[],
        )
    })?;
    stage("documentation", || {
        cargo(
            &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    })?;
    stage("build for the demonstration", || {
        cargo(&["build", "--release", "--locked"], &[])
    })?;
    stage("demonstration", || {
        cargo(&["run", "--release", "--locked", "--", "demo"], &[])
    })?;
    println!("== tests");
    testing::test(&[])
}

fn stage(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    work()?;
    println!("== {name}: {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(words: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    sh::run(sh::cargo()?.args(words).envs(environment.iter().copied()))
}
