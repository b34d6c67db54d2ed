//! `release`: a stripped binary, its SHA-256 sums and the gathered notes in `target/release-artifacts`.
//!
//! Publishes nothing and changes nothing in the checkout: whoever releases looks first.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::sh;

/// Builds and gathers.
pub(crate) fn run() -> Result<()> {
    let (root, target) = (sh::root()?, sh::target_folder()?);
    let mut build = sh::cargo()?;
    // The C runtime is linked in, so that one binary runs on any Linux of this processor. A target must be named for that, or
    // procedural macros would be built the same way and fail to load.
    let host = host()?;
    build.args(["build", "--release", "--locked", "--target", &host]);
    sh::run(build.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols"))?;
    let to = target.join("release-artifacts");
    if to.try_exists()? {
        std::fs::remove_dir_all(&to)?;
    }
    std::fs::create_dir_all(&to)?;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("lifeboat-{version}-{host}");
    let binary = to.join(&name);
    std::fs::copy(target.join(&host).join("release").join("lifeboat"), &binary)?;
    let said = sh::output(&mut sh::program(&binary, ["--version"]))?;
    if !said.contains(version) {
        bail!("the binary says it is {}, not {version}", said.trim());
    }
    words_of_the_command_line(&binary, &to)?;
    std::fs::copy(root.join("tools").join("recover.py"), to.join("recover.py"))?;
    std::fs::copy(root.join("LICENSE"), to.join("LICENSE"))?;
    std::fs::write(
        to.join("CHANGES.md"),
        notes(&root.join("changelog").join("unreleased"), version)?,
    )?;
    let files = [
        name.as_str(),
        "recover.py",
        "LICENSE",
        "CHANGES.md",
        "man.tar",
        "completions.tar",
    ];
    let sums = sh::output(sh::program("sha256sum", files).current_dir(&to))?;
    std::fs::write(to.join("SHA256SUMS"), &sums)?;
    print!("{sums}");
    println!("in {}", to.display());
    Ok(())
}

/// Manual pages and completions, as the binary itself writes them.
fn words_of_the_command_line(binary: &Path, to: &Path) -> Result<()> {
    let man = to.join("man");
    sh::output(sh::program(binary, ["man", "--to"]).arg(&man))?;
    let completions = to.join("completions");
    std::fs::create_dir_all(&completions)?;
    for (shell, file) in [("bash", "lifeboat.bash"), ("zsh", "_lifeboat"), ("fish", "lifeboat.fish")] {
        let script = sh::output(&mut sh::program(binary, ["completions", shell]))?;
        std::fs::write(completions.join(file), script)?;
    }
    for folder in ["man", "completions"] {
        let archive = format!("{folder}.tar");
        // Sorted, without this machine's times and owners: the same words make the same archive.
        let plain = [
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "-cf",
        ];
        sh::output(sh::program("tar", plain).arg(&archive).arg(folder).current_dir(to))?;
        std::fs::remove_dir_all(to.join(folder))?;
    }
    Ok(())
}

/// What this machine is called by the compiler.
fn host() -> Result<String> {
    let said = sh::output(&mut sh::program(
        std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()),
        ["-vV"],
    ))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say for which machine it builds")?.to_owned())
}

/// All notes in the order of their names, under the version.
fn notes(folder: &Path, version: &str) -> Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") && path.file_name().is_some_and(|name| name != "README.md")
        {
            names.push(path);
        }
    }
    names.sort();
    let mut text = format!("# {version}\n\n");
    for path in names {
        let note = std::fs::read_to_string(&path)?;
        if note.trim().is_empty() {
            bail!("{} is empty", path.display());
        }
        writeln!(text, "- {}", note.trim().replace('\n', "\n  "))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_gathered_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.md", "Second.\n"),
            ("a.md", "First,\nin two lines.\n"),
            ("README.md", "how"),
            ("x.txt", "no"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(
            notes(folder.path(), "1.2.3").unwrap(),
            "# 1.2.3\n\n- First,\n  in two lines.\n- Second.\n"
        );
        std::fs::write(folder.path().join("c.md"), " \n").unwrap();
        assert!(notes(folder.path(), "1.2.3").is_err());
        assert!(host().unwrap().contains('-'));
    }
}
