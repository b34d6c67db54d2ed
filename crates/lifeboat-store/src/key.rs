//! Names in a store: segments of plain characters, joined by `/`.

use std::fmt;

use lifeboat_model::{Error, ErrorKind, Result};

/// The name of a stored file or folder: one or more segments of `A-Z a-z 0-9 - _ . ~`, joined by `/`.
/// A segment is never empty and never begins with a dot, so a name can neither climb out of a folder nor hide in one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks and takes a name.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
        let sound = !name.is_empty()
            && name
                .split('/')
                .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain));
        if sound {
            Ok(Self(name))
        } else {
            Err(Error::new(
                ErrorKind::Corrupt,
                "use as a stored name",
                format!("{name:?}"),
                "it holds a character or a segment that no store file has",
            ))
        }
    }

    /// The name below this one.
    pub fn join(&self, below: &str) -> Result<Self> {
        Self::new(format!("{}/{below}", self.0))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether this name lies inside the folder `prefix`.
    #[must_use]
    pub fn is_under(&self, prefix: &Self) -> bool {
        self.0.strip_prefix(&prefix.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_hide_or_confuse_are_refused() {
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            ".hidden",
            "a/.hidden",
            "a b",
            "a\\b",
            "a\0b",
            "a\nb",
            "ä",
            "a:b",
            "a*",
            "~/\u{202e}a",
        ] {
            let error = Key::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name:?}");
        }
        for name in ["a", "A-Z_0.9~2F", "a/b/c", "a..b/c.", "~", "-"] {
            assert_eq!(Key::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn joining_checks_the_lower_part() {
        let key = Key::new("c/db").unwrap();
        assert_eq!(key.join("packs/1").unwrap().as_str(), "c/db/packs/1");
        for below in ["", "/x", "../x", ".."] {
            assert!(key.join(below).is_err(), "{below:?}");
        }
        assert_eq!(key.file_name(), "db");
        assert_eq!(Key::new("top").unwrap().file_name(), "top");
    }

    #[test]
    fn under_means_inside_the_folder() {
        let folder = Key::new("c/a").unwrap();
        let under = |name: &str| Key::new(name).unwrap().is_under(&folder);
        assert!(under("c/a/b") && under("c/a/b/c"));
        assert!(!under("c/a") && !under("c/ab") && !under("c/ab/c") && !under("c") && !under("x/c/a/b"));
    }
}
