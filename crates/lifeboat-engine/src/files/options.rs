//! What a component of files is: one root, and patterns below it.

use std::path::{Path, PathBuf};

/// Which files to capture, and how patiently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The folder that all paths of the backup are relative to.
    pub root: PathBuf,
    /// Patterns below the root, `/`-separated; each must match something. A folder that matches is taken with all that is in it.
    pub include: Vec<String>,
    /// Patterns that may match nothing.
    pub optional: Vec<String>,
    /// What is left out: a pattern with `/` is below the root, one without is a name anywhere.
    pub exclude: Vec<String>,
    /// Files of `KEY=value` lines of which only the keys are kept; patterns below the root that must match something.
    pub env_structure: Vec<String>,
    /// Take what links lead to instead of the links.
    pub follow_links: bool,
    /// How often a file that changed while it was read is read again.
    pub max_change_retries: u32,
}

/// How often a changing file is read again unless the configuration says otherwise.
pub const DEFAULT_CHANGE_RETRIES: u32 = 5;

/// The folder that a pattern stands in before its first wildcard.
#[must_use]
pub fn fixed_folder(pattern: &Path) -> PathBuf {
    let mut folder = PathBuf::new();
    let mut parts = pattern.components().peekable();
    while let Some(part) = parts.next() {
        // The last part is the name that is looked for, with or without wildcards.
        if parts.peek().is_none() || is_glob(&part.as_os_str().to_string_lossy()) {
            break;
        }
        folder.push(part);
    }
    folder
}

/// Whether a part of a path has wildcards.
pub(super) fn is_glob(part: &str) -> bool {
    part.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// The deepest folder that all of `folders` are in; `/` when they share nothing.
#[must_use]
pub fn common_folder<'a>(folders: impl IntoIterator<Item = &'a Path>) -> PathBuf {
    let mut folders = folders.into_iter();
    let Some(first) = folders.next() else {
        return PathBuf::from("/");
    };
    folders.fold(first.to_path_buf(), |common, folder| {
        common
            .components()
            .zip(folder.components())
            .take_while(|(a, b)| a == b)
            .map(|(part, _)| part)
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_share_a_folder() {
        assert_eq!(fixed_folder(Path::new("/etc/n-kudo/*.env")), Path::new("/etc/n-kudo"));
        assert_eq!(fixed_folder(Path::new("/etc/n-kudo/tls")), Path::new("/etc/n-kudo"));
        assert_eq!(fixed_folder(Path::new("/a/{b,c}/d/e")), Path::new("/a"));
        let common = common_folder([Path::new("/etc/n-kudo/ca"), Path::new("/etc/n-kudo")]);
        assert_eq!(common, Path::new("/etc/n-kudo"));
        assert_eq!(common_folder([Path::new("/a"), Path::new("/b")]), Path::new("/"));
    }
}
