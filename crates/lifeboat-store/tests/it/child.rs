//! Runs one test of this program again in a child process, under conditions that cannot be made in a shared process: another user,
//! a limit on file sizes, a violent death. The test asks [`folder`] which of the two it is.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifeboat_io::process::Process;

const FOLDER: &str = "LIFEBOAT_TEST_CHILD_FOLDER";
const LIMIT: Duration = Duration::from_secs(120);

/// The folder to work in, in the child; `None` in the parent.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// The test `name` in a child, to be run or dropped.
pub fn of(name: &str, folder: &Path) -> Process {
    Process::new(std::env::current_exe().unwrap(), LIMIT)
        .arg("--exact")
        .arg(name)
        .variable(FOLDER, folder)
}

/// Runs the test `name` in a child that may write at most about 32 to 64 KiB into a file: the kernel refuses the rest in the middle of the write.
pub async fn with_small_files(name: &str, folder: &Path) {
    // The signal that would end the child is ignored, so that the write itself fails, as it does on a full disk.
    let output = Process::new("/bin/sh", LIMIT)
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact \"$1\"")
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .variable(FOLDER, folder)
        .run()
        .await
        .unwrap();
    passed(&output.stdout);
}

/// Runs the test `name` in a child to which permissions apply: as `nobody` where this process is root. `folder` has to be open to it.
pub fn unprivileged(name: &str, folder: &Path) {
    // Others cannot reach the build folder of root.
    let program = tempfile::tempdir().unwrap();
    std::fs::set_permissions(program.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = program.path().join("tests");
    // By another process: a descriptor of ours, open for writing, could be inherited by what another test starts meanwhile, and the
    // kernel does not start a program that somebody has open for writing.
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(copied.success());
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command.arg("--exact").arg(name).env(FOLDER, folder).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    passed(&output.stdout);
}

/// A name that matches no test would pass without running anything.
fn passed(stdout: &[u8]) {
    let said = String::from_utf8_lossy(stdout);
    assert!(said.contains("test result: ok. 1 passed"), "the child ran nothing: {said}");
}
