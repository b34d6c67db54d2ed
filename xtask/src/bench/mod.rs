//! Benchmarks: `cargo xtask bench NAME [--quick] [--rounds N] [--only PART]`. The last line of output is JSON with the figures.
//!
//! What is compared runs in turn, several rounds, and medians count: a machine that is busy for a while then slows all sides alike.
//! A figure that could not be measured is `null`, never a guess. Peak memory is that of a process and its children.

pub(crate) mod alternate;
pub(crate) mod bootstrap;
pub(crate) mod cluster;
pub(crate) mod data;
pub(crate) mod drill;
pub(crate) mod logical;
pub(crate) mod measure;
pub(crate) mod postgres;
pub(crate) mod raw;
pub(crate) mod repo;
pub(crate) mod s3;
pub(crate) mod scale;
pub(crate) mod sqlite;
pub(crate) mod tenant;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::sh;

/// Named results, in the order in which they were measured.
pub(crate) type Figures = Vec<(&'static str, Option<f64>)>;

/// What the command line asked for, and where things are.
#[derive(Debug)]
pub(crate) struct Options {
    /// Small data, to see that everything runs; the figures mean nothing.
    pub(crate) quick: bool,
    /// Only this part, of benchmarks that have several; other figures are `null`.
    pub(crate) only: Option<String>,
    /// How often each side runs.
    pub(crate) rounds: usize,
    /// Where data and results rest.
    pub(crate) folder: PathBuf,
    /// The product.
    pub(crate) lifeboat: PathBuf,
    /// Drives the repository alone (an example of its crate, not shipped).
    pub(crate) repo_bench: PathBuf,
    /// An S3 service in memory that counts requests and can be slow (an example of the testkit, not shipped).
    pub(crate) s3_server: PathBuf,
    /// This program, optimised: it holds the raw pipeline.
    pub(crate) xtask: PathBuf,
}

/// A benchmark: its name, what it is, and how it runs.
type Bench = (&'static str, &'static str, fn(&Options) -> Result<Figures>);

/// Every benchmark.
const BENCHES: &[Bench] = &[
    ("repo", "the data path against the raw pipeline and restic", repo::run),
    (
        "sqlite",
        "capture of a database that is written to, against sqlite3 .backup",
        sqlite::run,
    ),
    (
        "postgres",
        "a cluster of 2.5 GB against pgBackRest and pg_basebackup",
        cluster::run,
    ),
    (
        "logical",
        "databases of 2 GB by definitions and rows, against pg_dump and pg_restore",
        logical::run,
    ),
    (
        "tenant",
        "one of 200 tenants exported, deleted and restored among the others",
        tenant::run,
    ),
    (
        "drill",
        "a drill of a cluster of 2.5 GB, against its restore alone and against what others saw",
        drill::run,
    ),
    (
        "bootstrap",
        "from an empty home, the key and the store to a server of 2.5 GB that answers",
        bootstrap::run,
    ),
    (
        "s3",
        "backup and restore through S3 on loopback, plain and slow, against restic",
        s3::run,
    ),
    (
        "scale",
        "200 GiB that are made up, and 100,000 small files: maps, headers, calls, memory",
        scale::run,
    ),
];

/// Runs one benchmark.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (mut name, mut quick, mut rounds, mut only) = (None, false, 3, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => quick = true,
            "--rounds" => rounds = words.next().context("--rounds needs a number")?.parse()?,
            "--only" => only = Some(words.next().context("--only needs the name of a part")?.clone()),
            other => name = Some(other),
        }
    }
    let Some((name, about, bench)) = BENCHES.iter().find(|(known, ..)| Some(*known) == name) else {
        let list: Vec<String> = BENCHES
            .iter()
            .map(|(name, about, _)| format!("  {name:<8} {about}"))
            .collect();
        bail!(
            "usage: cargo xtask bench NAME [--quick] [--rounds N] [--only PART]\n{}",
            list.join("\n")
        );
    };
    if rounds == 0 {
        bail!("--rounds needs at least 1");
    }
    let target = sh::target_folder()?;
    // Separate builds, because building all at once would unify their features and measure another product than ours.
    sh::run(sh::cargo()?.args(["build", "--release", "--locked"]))?;
    sh::run(sh::cargo()?.args(["build", "--release", "--locked", "--package", "xtask"]))?;
    sh::run(sh::cargo()?.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "lifeboat-repo",
        "--example",
        "repo_bench",
        "--example",
        "scale_bench",
    ]))?;
    if ["s3", "postgres"].contains(name) {
        let example = ["--package", "lifeboat-testkit", "--example", "s3_server"];
        sh::run(sh::cargo()?.args(["build", "--release", "--locked"]).args(example))?;
    }
    let options = Options {
        quick,
        only,
        rounds,
        folder: target.join("bench"),
        lifeboat: target.join("release").join("lifeboat"),
        s3_server: target.join("release").join("examples").join("s3_server"),
        repo_bench: target.join("release").join("examples").join("repo_bench"),
        xtask: target.join("release").join("xtask"),
    };
    std::fs::create_dir_all(&options.folder)?;
    println!(
        "bench {name}: {about}; {rounds} rounds{}",
        if quick { ", small data" } else { "" }
    );
    let figures = bench(&options)?;
    println!("{}", line(name, &figures));
    Ok(())
}

/// The closing line.
fn line(name: &str, figures: &Figures) -> Value {
    let mut map = Map::new();
    for (figure, value) in figures {
        // Four digits are more than the machine repeats.
        let rounded = value
            .filter(|value| value.is_finite())
            .map(|value| (value * 1000.0).round() / 1000.0);
        map.insert((*figure).to_owned(), json!(rounded));
    }
    json!({"bench": name, "figures": map})
}

/// How many times faster, or larger, `a` is than `b`.
pub(crate) fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let (a, b) = (a?, b?);
    (b > 0.0).then(|| a / b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_is_json_with_null_for_what_is_unknown() {
        let figures = vec![("fast", Some(1.23456)), ("unknown", None), ("broken", Some(f64::NAN))];
        let printed = line("x", &figures).to_string();
        assert_eq!(
            printed,
            r#"{"bench":"x","figures":{"broken":null,"fast":1.235,"unknown":null}}"#
        );
        assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!(ratio(Some(3.0), None), None);
        assert_eq!(ratio(Some(3.0), Some(0.0)), None);
    }
}
