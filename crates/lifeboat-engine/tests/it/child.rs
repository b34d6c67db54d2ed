//! Runs one test of this program again in a child process to which permissions apply: as `nobody` where this process is root.
//! The test asks [`folder`] which of the two it is.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "LIFEBOAT_TEST_CHILD_FOLDER";

/// The folder to work in, in the child; `None` in the parent.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs the test `name` in the child. `folder` has to be open to it.
pub fn unprivileged(name: &str, folder: &Path) {
    // Others cannot reach the build folder of root.
    let program = tempfile::tempdir().unwrap();
    open_to_all(program.path());
    let copy = program.path().join("tests");
    // By another process: a descriptor of ours, open for writing, could be inherited by what another test starts meanwhile, and the
    // kernel does not start a program that somebody has open for writing.
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    open_to_all(&copy);
    let mut command = Command::new(&copy);
    command.arg("--exact").arg(name).env(FOLDER, folder).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // A name that matches no test would pass as well.
    assert!(text.contains("1 passed"), "{text}");
}

pub fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}
