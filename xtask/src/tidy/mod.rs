//! The rules that compilers do not check. Each is a function from what lies in the checkout to a list of complaints,
//! and each has a test that shows it complaining.
//!
//! A rule never changes a file; the message says what to do.

mod crates;
mod dependencies;
mod docs;
mod invariants;
mod licences;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sh;

/// One file of the checkout that holds text.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl TextFile {
    /// Whether it is Rust.
    fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// Whether it is prose.
    fn is_markdown(&self) -> bool {
        has_extension(&self.path, "md")
    }
}

/// What the rules look at.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// All files of text.
    pub(crate) files: Vec<TextFile>,
    /// All files and folders, relative to the root.
    pub(crate) paths: Vec<String>,
    /// What cargo says about the workspace and everything it depends on.
    pub(crate) metadata: Value,
}

impl Tree {
    /// The file of that name.
    fn file(&self, path: &str) -> Option<&TextFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a file or folder of that name is there.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.paths.iter().any(|known| known == path)
    }
}

/// A rule: its name and what it complains about.
type Rule = (&'static str, fn(&Tree) -> Vec<String>);

/// Every rule, in the order in which complaints are shown.
const RULES: &[Rule] = &[
    ("module-docs", sources::module_docs),
    ("size", sources::sizes),
    ("words", sources::words),
    ("places", sources::places),
    ("serde", sources::serde_places),
    ("crates", crates::edges),
    ("sources", licences::sources),
    ("licences", licences::licences),
    ("banned", licences::banned),
    ("deny-file", licences::deny_file),
    ("cryptography", licences::duplicate_cryptography),
    ("dependencies", dependencies::table),
    ("map", docs::map),
    ("links", docs::links),
    ("line-numbers", docs::line_numbers),
    ("invariants", invariants::invariants),
];

/// Checks all rules and fails when one complains.
pub(crate) fn run() -> Result<()> {
    let tree = read(&sh::root()?)?;
    let mut complaints = 0_usize;
    for (name, rule) in RULES {
        for complaint in rule(&tree) {
            println!("tidy [{name}] {complaint}");
            complaints += 1;
        }
    }
    if complaints > 0 {
        bail!("{complaints} complaints");
    }
    println!(
        "tidy: {} rules, {} files, nothing to complain about",
        RULES.len(),
        tree.files.len()
    );
    Ok(())
}

/// Reads the checkout and asks cargo about the dependencies.
fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    walk(root, root, &mut tree)?;
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    let metadata = sh::output(sh::cargo()?.args(["metadata", "--format-version", "1", "--locked", "--quiet"]))?;
    tree.metadata = serde_json::from_str(&metadata).context("cargo metadata printed something that is not JSON")?;
    Ok(tree)
}

fn walk(root: &Path, folder: &Path, tree: &mut Tree) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let relative = relative(root, &path)?;
        if matches!(relative.as_str(), "target" | ".git") || relative.ends_with("__pycache__") {
            continue;
        }
        tree.paths.push(relative.clone());
        if entry.file_type()?.is_dir() {
            walk(root, &path, tree)?;
            continue;
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Frozen repositories and other binary fixtures are not ours to read.
        if let Ok(text) = String::from_utf8(bytes) {
            tree.files.push(TextFile { path: relative, text });
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    let relative: PathBuf = path.strip_prefix(root)?.to_path_buf();
    relative
        .into_os_string()
        .into_string()
        .ok()
        .context("a file name that is not text")
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// What tests of rules are made from.
#[cfg(test)]
pub(crate) fn tree_of(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        for (end, _) in path.match_indices('/') {
            tree.paths.extend(path.get(..end).map(str::to_owned));
        }
        tree.paths.push((*path).to_owned());
        tree.files.push(TextFile {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        });
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_read_without_what_cargo_built() {
        let tree = read(&sh::root().unwrap()).unwrap();
        assert!(tree.has("xtask/src/tidy/mod.rs") && tree.has("docs") && tree.file("docs/format.md").is_some());
        assert!(
            !tree
                .paths
                .iter()
                .any(|path| path.starts_with("target") || path.starts_with(".git/"))
        );
        assert!(tree.metadata.get("packages").is_some());
    }
}
