//! Patterns, matched part by part while the tree is walked: a folder that no pattern can reach is never opened.

use std::ffi::{OsStr, OsString};

use globset::{GlobBuilder, GlobMatcher};
use lifeboat_model::{Error, ErrorKind, Result};

use super::options::is_glob;

/// Patterns that are walked together.
#[derive(Debug, Default)]
pub(super) struct Patterns(Vec<Vec<Part>>);

#[derive(Debug)]
enum Part {
    /// `**`: any number of folders.
    Any,
    /// A name as it stands.
    Name(OsString),
    /// A name with wildcards.
    Glob(GlobMatcher),
}

/// How far a pattern has come at some folder: its number, and the part that the next name is compared with.
type State = (usize, usize);

/// What is still possible below a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach(Vec<State>);

/// Checks a pattern without keeping it.
///
/// # Errors
/// `ConfigInvalid` with what is wrong with it.
pub fn check_pattern(pattern: &str) -> Result<()> {
    parts(pattern).map(drop)
}

fn parts(pattern: &str) -> Result<Vec<Part>> {
    let mut found = Vec::new();
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        found.push(if part == "**" {
            if matches!(found.last(), Some(Part::Any)) {
                continue;
            }
            Part::Any
        } else if is_glob(part) {
            let glob = GlobBuilder::new(part).literal_separator(true).backslash_escape(true).build();
            let glob = glob.map_err(|error| {
                Error::new(
                    ErrorKind::ConfigInvalid,
                    "read the pattern",
                    pattern,
                    error.kind().to_string(),
                )
            })?;
            Part::Glob(glob.compile_matcher())
        } else {
            Part::Name(OsString::from(part))
        });
    }
    if found.is_empty() {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "read the pattern",
            pattern,
            "it is empty",
        ));
    }
    Ok(found)
}

impl Patterns {
    /// Reads patterns below a root.
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        patterns.iter().map(|pattern| parts(pattern)).collect::<Result<_>>().map(Self)
    }

    /// What is possible at the root.
    pub(super) fn start(&self) -> Reach {
        let mut reach = Reach::default();
        for pattern in 0..self.0.len() {
            self.add(&mut reach, (pattern, 0));
        }
        reach
    }

    fn part(&self, state: State) -> Option<&Part> {
        self.0.get(state.0)?.get(state.1)
    }

    /// Adds a state, and what follows a `**` that stands for nothing.
    fn add(&self, reach: &mut Reach, state: State) {
        if reach.0.contains(&state) {
            return;
        }
        reach.0.push(state);
        if matches!(self.part(state), Some(Part::Any)) && self.part((state.0, state.1 + 1)).is_some() {
            self.add(reach, (state.0, state.1 + 1));
        }
    }

    /// Goes to `name`: the patterns that end there, and what is possible below it.
    pub(super) fn step(&self, reach: &Reach, name: &OsStr) -> (Vec<usize>, Reach) {
        let (mut ended, mut below) = (Vec::new(), Reach::default());
        for state in &reach.0 {
            let next = (state.0, state.1 + 1);
            let fits = match self.part(*state) {
                None => false,
                Some(Part::Any) => {
                    self.add(&mut below, *state);
                    // What follows has a state of its own.
                    self.part(next).is_none()
                }
                Some(Part::Name(wanted)) => wanted == name,
                Some(Part::Glob(glob)) => glob.is_match(name),
            };
            if !fits {
                continue;
            }
            if self.part(next).is_some() {
                self.add(&mut below, next);
            } else if !ended.contains(&state.0) {
                ended.push(state.0);
            }
            // `a/**` also means `a` with nothing in it only by its own name: a folder is asked for by naming it.
        }
        (ended, below)
    }

    /// Whether a pattern ends in `**`: it means a folder with all that is in it, and none of that by itself.
    pub(super) fn takes_all(&self, pattern: usize) -> bool {
        matches!(self.0.get(pattern).and_then(|parts| parts.last()), Some(Part::Any))
    }

    /// The names that can be meant next, where all of them are known without looking into the folder.
    pub(super) fn names(&self, reach: &Reach) -> Option<Vec<OsString>> {
        let mut names = Vec::new();
        for state in &reach.0 {
            match self.part(*state) {
                Some(Part::Name(name)) => names.push(name.clone()),
                None => {}
                Some(Part::Any | Part::Glob(_)) => return None,
            }
        }
        names.sort();
        names.dedup();
        Some(names)
    }
}

impl Reach {
    /// Whether nothing can be found below.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which paths of a tree a person chose; walked in the order of the tree.
#[derive(Debug, Default)]
pub struct Chosen {
    patterns: Option<Patterns>,
}

impl Chosen {
    /// Reads patterns below the root; none means everything.
    pub fn new(patterns: &[String]) -> Result<Self> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        Patterns::new(patterns).map(|patterns| Self {
            patterns: Some(patterns),
        })
    }

    /// Whether `path`, or a folder that it lies in, is meant.
    #[must_use]
    pub fn has(&self, path: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Some(patterns) = &self.patterns else { return true };
        let mut reach = patterns.start();
        for name in path.split(|byte| *byte == b'/') {
            let (ended, below) = patterns.step(&reach, OsStr::from_bytes(name));
            if !ended.is_empty() {
                return true;
            }
            reach = below;
        }
        false
    }
}

/// What is left out: names anywhere, and patterns below the root.
#[derive(Debug)]
pub(super) struct Excluded {
    names: Patterns,
    paths: Patterns,
}

impl Excluded {
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        let (paths, names): (Vec<String>, Vec<String>) = patterns.iter().cloned().partition(|pattern| pattern.contains('/'));
        Ok(Self {
            names: Patterns::new(&names)?,
            paths: Patterns::new(&paths)?,
        })
    }

    pub(super) fn start(&self) -> Reach {
        self.paths.start()
    }

    /// Whether `name` is left out, and what may be left out below it.
    pub(super) fn step(&self, reach: &Reach, name: &OsStr) -> (bool, Reach) {
        let (by_name, _) = self.names.step(&self.names.start(), name);
        let (by_path, below) = self.paths.step(reach, name);
        (!by_name.is_empty() || !by_path.is_empty(), below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `path` is what `pattern` names, and whether something below it could be.
    fn find(pattern: &str, path: &str) -> (bool, bool) {
        let patterns = Patterns::new(&[pattern.to_owned()]).unwrap();
        let (mut reach, mut ended) = (patterns.start(), Vec::new());
        for name in path.split('/') {
            (ended, reach) = patterns.step(&reach, OsStr::new(name));
        }
        (!ended.is_empty(), !reach.is_empty())
    }

    #[test]
    fn patterns_are_matched_part_by_part() {
        assert_eq!(find("k8s/*.yaml", "k8s/app.yaml"), (true, false));
        assert_eq!(find("k8s/*.yaml", "k8s"), (false, true));
        assert_eq!(find("k8s/*.yaml", "k8s/deep/app.yaml"), (false, false));
        assert_eq!(find("docker-compose*.yml", "docker-compose.prod.yml"), (true, false));
        assert_eq!(find("**/*.pem", "a.pem"), (true, true));
        assert_eq!(find("**/*.pem", "x/y/a.pem"), (true, true));
        assert_eq!(find("a/**/z", "a/z"), (true, true));
        assert_eq!(find("a/**/z", "a/b/c/z"), (true, true));
        assert_eq!(find("a/**", "a/b"), (true, true));
        assert_eq!(find("a/**", "a"), (false, true));
        assert_eq!(find("{a,b}/c", "b/c"), (true, false));
        assert_eq!(find("x\\*", "x*"), (true, false));
        assert_eq!(find("x\\*", "xy"), (false, false));
        assert!(check_pattern("{a/b,c}").is_err());
        assert!(check_pattern("[").is_err());
        assert!(check_pattern("").is_err());
    }

    #[test]
    fn folders_need_not_be_listed_where_all_names_are_known() {
        let patterns = Patterns::new(&["etc/app/*.env".to_owned(), "opt".to_owned()]).unwrap();
        let start = patterns.start();
        assert_eq!(patterns.names(&start), Some(vec!["etc".into(), "opt".into()]));
        let (_, etc) = patterns.step(&start, OsStr::new("etc"));
        assert_eq!(patterns.names(&etc), Some(vec!["app".into()]));
        let (_, app) = patterns.step(&etc, OsStr::new("app"));
        assert_eq!(patterns.names(&app), None);
    }

    #[test]
    fn names_are_left_out_anywhere_and_paths_below_the_root() {
        let excluded = Excluded::new(&["*.log".to_owned(), "a/tmp".to_owned()]).unwrap();
        let start = excluded.start();
        assert!(excluded.step(&start, OsStr::new("x.log")).0);
        assert!(!excluded.step(&start, OsStr::new("tmp")).0);
        let (out, below) = excluded.step(&start, OsStr::new("a"));
        assert!(!out);
        assert!(excluded.step(&below, OsStr::new("tmp")).0);
        assert!(excluded.step(&below, OsStr::new("y.log")).0);
    }
}
