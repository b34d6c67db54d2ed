//! `golden`: makes the golden repositories of the current format in `tests/golden-repositories`.
//!
//! They are made once, when a format is frozen, and then only read: every later Lifeboat and `tools/recover.py` must restore them to the same
//! bytes (`crates/lifeboat/tests/it/golden_repositories.rs`). One that is there is never written over; `SHA256SUMS` beside them lists every
//! file, and the test compares. To make new ones, remove the folder of a scenario by hand, and say in the commit why.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::sh;

/// What the generator runs beside the product.
const NEEDS: &[Need] = &[Need {
    program: "sqlite3",
    package: "sqlite3",
}];

/// Name, arguments of `init`, and the SQL before each backup.
type Scenario = (&'static str, &'static [&'static str], &'static [&'static str]);

const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)";

/// What is kept for ever. Small: together a few hundred kilobytes.
const SCENARIOS: &[Scenario] = &[
    (
        "1-sqlite-wal-age",
        &[],
        &[
            "PRAGMA journal_mode = wal; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, b BLOB);
             INSERT INTO t (v, b) {ROWS} SELECT 'row ' || i, randomblob(40) FROM n;",
            "UPDATE t SET v = 'changed' WHERE id % 300 = 7;",
            "UPDATE t SET v = 'again' WHERE id % 300 = 8; DELETE FROM t WHERE id > 1450;",
            "CREATE TABLE more (x); INSERT INTO more {ROWS} SELECT 'more ' || i FROM n; CREATE INDEX i ON t (v);",
        ],
    ),
    (
        "1-sqlite-rollback-clear",
        &["--encrypt", "none"],
        &[
            "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'; PRAGMA user_version = 7; CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
             INSERT INTO t {ROWS} SELECT 'key ' || i, i * 0.5 FROM n;",
            "UPDATE t SET v = -1 WHERE k = 'key 700';",
        ],
    ),
];

/// Makes every scenario that is not there.
pub(crate) fn run() -> Result<()> {
    setup::packages(NEEDS)?;
    let root = sh::root()?.join("tests").join("golden-repositories");
    sh::run(sh::cargo()?.args(["build", "--locked"]))?;
    let binary = sh::target_folder()?.join("debug").join("lifeboat");
    std::fs::create_dir_all(&root)?;
    let mut made = 0;
    for (name, init, steps) in SCENARIOS {
        let folder = root.join(name);
        if folder.try_exists()? {
            println!("{name} is there and stays as it is");
            continue;
        }
        make(&binary, &folder, init, steps).with_context(|| format!("cannot make {name}"))?;
        println!("{name} made");
        made += 1;
    }
    if made > 0 {
        let sums = sh::output(
            sh::program(
                "sh",
                [
                    "-c",
                    "find . -type f ! -name SHA256SUMS ! -name README.md | LC_ALL=C sort | xargs -d '\\n' sha256sum",
                ],
            )
            .current_dir(&root),
        )?;
        std::fs::write(root.join("SHA256SUMS"), sums)?;
    }
    Ok(())
}

fn make(binary: &Path, folder: &Path, init: &[&str], steps: &[&str]) -> Result<()> {
    let work = tempfile()?;
    let lifeboat = |words: &[&str]| {
        let mut command = sh::program(binary, words);
        command.current_dir(&work).env_remove("LIFEBOAT_CONFIG").env("HOME", &work);
        sh::output(&mut command)
    };
    for (index, step) in steps.iter().enumerate() {
        let sql = step.replace("{ROWS}", ROWS);
        sh::output(sh::program("sqlite3", ["golden.db", &sql]).current_dir(&work))?;
        if index == 0 {
            let mut words = vec![
                "init",
                "--path",
                "golden.db",
                "--system",
                "golden",
                "--store",
                "store",
                "--state-dir",
                "state",
                "--yes",
            ];
            if !init.contains(&"--encrypt") {
                words.extend(["--key", "key.txt"]);
            }
            words.extend(init);
            lifeboat(&words)?;
        } else {
            lifeboat(&["backup"])?;
        }
    }
    std::fs::create_dir_all(folder)?;
    sh::output(
        sh::program("cp", ["-r", "store"])
            .arg(folder.join("store"))
            .current_dir(&work),
    )?;
    if work.join("key.txt").try_exists()? {
        std::fs::copy(work.join("key.txt"), folder.join("key.txt"))?;
    }
    let configuration = std::fs::read_to_string(work.join("lifeboat.yaml"))?;
    let public = configuration
        .split(['"', '\n'])
        .find(|word| word.starts_with("ed25519:"))
        .context("the configuration names no instance")?;
    std::fs::write(folder.join("instance.txt"), format!("{public}\n"))?;
    let mut expected = String::new();
    for seq in 1..=steps.len() {
        let name = format!("backup-{seq}.db");
        lifeboat(&["restore", "golden", "--backup", &seq.to_string(), "--to", &name])?;
        expected.push_str(&sh::output(sh::program("sha256sum", [&name]).current_dir(&work))?);
    }
    if expected.lines().count() != steps.len() {
        bail!("{} sums of {} backups", expected.lines().count(), steps.len());
    }
    std::fs::write(folder.join("expected.sha256"), expected)?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

/// A new folder of our own.
fn tempfile() -> Result<PathBuf> {
    let said = sh::output(&mut sh::program("mktemp", ["-d"]))?;
    Ok(PathBuf::from(said.trim()))
}
