//! `golden`: makes the golden repositories of the current format in `tests/golden-repositories`.
//!
//! They are made once, when a format is frozen, and then only read: every later Lifeboat and `tools/recover.py` must restore them to the same
//! bytes (`crates/lifeboat/tests/it/golden_repositories.rs`). Each is a script in `xtask/golden`, which runs behind `prelude.sh`. One that is
//! there is never written over; `SHA256SUMS` beside them lists every file, and the test compares. To make a new one of an old name, remove its
//! folder by hand, and say in the commit why.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::sh;

/// What the generator runs beside the product.
const NEEDS: &[Need] = &[
    Need {
        program: "age",
        package: "age",
    },
    Need {
        program: "openssl",
        package: "openssl",
    },
    Need {
        program: "sqlite3",
        package: "sqlite3",
    },
    Need {
        program: "ssh-keygen",
        package: "openssh-client",
    },
];

/// What a scenario leaves behind, as far as it is there.
const KEPT: [&str; 4] = ["lifeboat.yaml", "store", "second", "keys"];

/// Bytes of all of them together.
const LIMIT_BYTES: u64 = 1 << 20;

/// Makes every scenario that is not there.
pub(crate) fn run() -> Result<()> {
    setup::packages(NEEDS)?;
    let tools = Tools {
        python: setup::python()?,
        folder: sh::root()?.join("xtask"),
        recover: sh::root()?.join("tools").join("recover.py"),
        binaries: built()?,
    };
    let root = sh::root()?.join("tests").join("golden-repositories");
    std::fs::create_dir_all(&root)?;
    let mut made = 0;
    for script in scripts(&tools.folder.join("golden"))? {
        let name = script
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a script without a name")?;
        let folder = root.join(name);
        if folder.try_exists()? {
            println!("{name} is there and stays as it is");
            continue;
        }
        let work = PathBuf::from(sh::output(&mut sh::program("mktemp", ["-d"]))?.trim());
        let done = tools
            .make(&script, &work, &folder)
            .with_context(|| format!("cannot make {name}"));
        if done.is_err() && folder.try_exists()? {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::remove_dir_all(&work)?;
        done?;
        println!("{name} made");
        made += 1;
    }
    if made > 0 {
        let list = "find . -type f ! -name SHA256SUMS ! -name README.md | LC_ALL=C sort | xargs -d '\\n' sha256sum";
        let sums = sh::output(sh::program("sh", ["-c", list]).current_dir(&root))?;
        std::fs::write(root.join("SHA256SUMS"), sums)?;
    }
    let size = sh::output(
        sh::program(
            "sh",
            ["-c", "find . -type f -printf '%s\\n' | awk '{ s += $1 } END { print s }'"],
        )
        .current_dir(&root),
    )?;
    println!("together {} bytes", size.trim());
    if size.trim().parse::<u64>()? > LIMIT_BYTES {
        bail!("the golden repositories are larger than {LIMIT_BYTES} bytes: make the sources of the scenarios smaller");
    }
    Ok(())
}

/// Builds the product; returns the folder of its binary.
fn built() -> Result<PathBuf> {
    // As the tests build it, so that little is built twice.
    sh::run(sh::cargo()?.args(["build", "--workspace", "--all-targets", "--locked"]))?;
    Ok(sh::target_folder()?.join("debug"))
}

/// The scenarios, in order.
fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != "prelude.sh") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

struct Tools {
    python: PathBuf,
    folder: PathBuf,
    recover: PathBuf,
    binaries: PathBuf,
}

impl Tools {
    /// A command in `work` that finds the product, and nothing of the machine's own configuration.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, work: &Path) -> Result<Command> {
        let path = std::env::var("PATH").context("PATH is not set")?;
        let mut command = Command::new(program);
        command
            .current_dir(work)
            .env("PATH", format!("{}:{path}", self.binaries.display()))
            .env("HOME", work)
            .env_remove("LIFEBOAT_CONFIG")
            .env_remove("BACKUP_ENCRYPTION_KEY")
            .env_remove("LIFEBOAT_PASSPHRASE");
        Ok(command)
    }

    fn make(&self, script: &Path, work: &Path, folder: &Path) -> Result<()> {
        let instance = self.instance(work)?;
        let text = std::fs::read_to_string(self.folder.join("golden").join("prelude.sh"))? + &std::fs::read_to_string(script)?;
        sh::output(
            self.command("sh", work)?
                .args(["-c", &text])
                .env("INSTANCE", &instance)
                .env("TOOLS", self.folder.join("python")),
        )?;
        std::fs::create_dir_all(folder.join("expected"))?;
        for name in KEPT {
            let from = work.join(name);
            // Git keeps no empty folders.
            let empty = from.is_dir() && from.read_dir()?.next().is_none();
            if from.try_exists()? && !empty {
                sh::output(sh::program("cp", ["-r"]).arg(from).arg(folder.join(name)))?;
            }
        }
        let listed = sh::output(&mut sh::program(
            "find",
            [work.join("store"), PathBuf::from("-path"), PathBuf::from("*/backups/*")],
        ))?;
        let mut backups: Vec<(String, u64)> = listed.lines().filter_map(named).collect();
        backups.sort();
        for (component, seq) in &backups {
            let expected = self.expected(work, component, *seq, &instance)?;
            std::fs::write(folder.join("expected").join(format!("{component}-{seq}")), expected)?;
        }
        if backups.is_empty() {
            bail!("there is no backup in its store");
        }
        Ok(())
    }

    /// The signing key of an installation; returns its public half.
    fn instance(&self, work: &Path) -> Result<String> {
        sh::output(self.command("sqlite3", work)?.args(["seed.db", "CREATE TABLE t (x)"]))?;
        let words = [
            "init",
            "--path",
            "seed.db",
            "--store",
            "seed",
            "--state-dir",
            "state",
            "--encrypt",
            "none",
            "--yes",
            "--no-backup",
        ];
        sh::output(self.command("lifeboat", work)?.args(words))?;
        let configuration = std::fs::read_to_string(work.join("lifeboat.yaml"))?;
        let public = configuration.split(['"', '\n']).find(|word| word.starts_with("ed25519:"));
        Ok(public.context("the configuration names no instance")?.to_owned())
    }

    /// What the independent reader restores; the test lets the product do the same.
    fn expected(&self, work: &Path, component: &str, seq: u64, instance: &str) -> Result<String> {
        let to = work.join("recovered").join(format!("{component}-{seq}"));
        std::fs::create_dir_all(work.join("recovered"))?;
        let restored = work.join("restored").join(format!("{component}-{seq}"));
        std::fs::create_dir_all(work.join("restored"))?;
        let (name, number) = (format!("golden/{component}"), seq.to_string());
        let key = |file: &str| std::fs::read_to_string(work.join("keys").join(file)).ok();
        let mut restore = self.command("lifeboat", work)?;
        restore.args(["restore", &name, "--backup", &number, "--to"]).arg(&restored);
        restore.envs(key("passphrase.txt").map(|text| ("LIFEBOAT_PASSPHRASE", text)));
        restore.envs(key("derived.txt").map(|text| ("BACKUP_ENCRYPTION_KEY", text)));
        sh::output(&mut restore)?;
        if restored.is_dir() {
            return sh::output(
                self.command(&self.python, work)?
                    .arg(self.folder.join("python/tree.py"))
                    .arg(&restored),
            );
        }
        if key("identity.txt").is_none() && work.join("keys").read_dir()?.next().is_some() {
            // The independent reader would ask for the passphrase on a terminal.
            let sum = sh::output(&mut sh::program("sha256sum", [&restored]))?;
            return Ok(format!("{} db.sqlite\n", sum.split_whitespace().next().context("no sum")?));
        }
        let mut recover = self.command(&self.python, work)?;
        recover
            .arg(&self.recover)
            .args(["restore", "store", &name, "--backup", &number, "--trust", instance, "--to"])
            .arg(&to);
        if work.join("keys/identity.txt").try_exists()? {
            recover.args(["--identity", "keys/identity.txt"]);
        }
        sh::output(&mut recover)?;
        sh::output(
            self.command(&self.python, work)?
                .arg(self.folder.join("python/tree.py"))
                .arg("--contents")
                .arg(&to),
        )
    }
}

/// Component and number of a backup, from the path of its file.
fn named(path: &str) -> Option<(String, u64)> {
    let mut parts = path.rsplit('/');
    let file = parts.next()?;
    let component = parts.nth(1)?.strip_prefix("golden~2F")?;
    let seq = u64::from_str_radix(file.split_once('-')?.0, 16).ok()?;
    Some((component.to_owned(), seq))
}
