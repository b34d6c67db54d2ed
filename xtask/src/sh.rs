//! Starting programs and finding our way around the checkout. Knows nothing about what is started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder that holds the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let parent = Path::new(&manifest).parent().context("the folder of xtask has no parent")?;
    Ok(parent.to_path_buf())
}

/// Where cargo builds, and where downloads and generated data may rest between runs.
pub(crate) fn target_folder() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => Ok(root()?.join(folder)),
        None => Ok(root()?.join("target")),
    }
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo sets for us describes xtask, not what we build. Build scripts that look at it would run again at every change
    // between `cargo xtask` and plain cargo.
    for (name, _) in std::env::vars_os() {
        let describes_us = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
                .iter()
                .any(|start| name.starts_with(start))
        };
        if name.to_str().is_some_and(describes_us) {
            command.env_remove(name);
        }
    }
    command.current_dir(root()?);
    Ok(command)
}

/// A program with arguments.
pub(crate) fn program<S: AsRef<OsStr>>(name: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

/// Runs to the end, showing what is run; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end without showing anything and returns what it printed; a failure shows what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} printed something that is not text", shown(command)))
}

/// Whether it can be started and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Whether a program of this name can be found.
pub(crate) fn have(name: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_command_and_show_what_it_said() {
        let error = output(&mut program("sh", ["-c", "echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sh -c") && error.contains("why") && error.contains('3'),
            "{error}"
        );
        assert!(run(&mut program("sh", ["-c", "exit 1"])).is_err());
        assert_eq!(output(&mut program("echo", ["one"])).unwrap(), "one\n");
        assert!(have("sh") && !have("no-such-program-here"));
    }
}
