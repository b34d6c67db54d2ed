//! The rule that each numbered invariant of the format has a place in the code that keeps it and a test that would notice.

use std::collections::{BTreeMap, BTreeSet};

use super::{TextFile, Tree};

const FORMAT: &str = "docs/format.md";
const MAP: &str = "ARCHITECTURE.md";

/// Where an invariant was seen.
#[derive(Debug, Default)]
struct Seen {
    code: bool,
    test: bool,
    first: String,
}

/// Every `INV-nn` of the format stands in code and in a test, and nothing refers to one that does not exist.
pub(super) fn invariants(tree: &Tree) -> Vec<String> {
    let defined: BTreeSet<String> = tree
        .file(FORMAT)
        .map_or("", |file| file.text.as_str())
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- **")?.split_once("**"))
        .flat_map(|(name, _)| marks(name))
        .collect();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for file in tree
        .files
        .iter()
        .filter(|file| file.is_rust() && file.path.starts_with("crates/"))
    {
        let (code, tests) = split(file);
        for (text, is_test) in [(code, false), (tests, true)] {
            for mark in marks(text) {
                let place = seen.entry(mark).or_default();
                place.code |= !is_test;
                place.test |= is_test;
                if place.first.is_empty() {
                    place.first.clone_from(&file.path);
                }
            }
        }
    }
    let mut complaints = Vec::new();
    let map = tree.file(MAP).map_or("", |file| file.text.as_str());
    for mark in &defined {
        if !map.contains(mark.as_str()) {
            complaints.push(format!("{mark}: {MAP} does not list it"));
        }
        if !seen.get(mark).is_some_and(|place| place.code) {
            complaints.push(format!(
                "{mark}: no code says that it keeps it; write `{mark}` where it is kept"
            ));
        }
        if !seen.get(mark).is_some_and(|place| place.test) {
            complaints.push(format!(
                "{mark}: no test says that it checks it; write one and name it in its comment or name"
            ));
        }
    }
    for (mark, place) in seen.iter().filter(|(mark, _)| !defined.contains(*mark)) {
        complaints.push(format!("{}: {mark} is not in {FORMAT}", place.first));
    }
    complaints
}

/// The code and the tests of a file. The test kit and `tests/` folders are tests throughout.
fn split(file: &TextFile) -> (&str, &str) {
    if file.path.contains("/tests/") || file.path.ends_with("/tests.rs") || file.path.starts_with("crates/lifeboat-testkit/") {
        return ("", &file.text);
    }
    let boundary = file.text.match_indices("#[cfg(test)]").find(|(start, mark)| {
        let rest = file.text.get(start + mark.len()..).unwrap_or("");
        let item = rest
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with("#["));
        item.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    boundary
        .and_then(|(start, _)| file.text.split_at_checked(start))
        .unwrap_or((&file.text, ""))
}

/// All marks in a text, as `INV-nn`; test names may write `inv_nn`.
fn marks(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for sign in ["INV-", "inv_"] {
        for rest in text.split(sign).skip(1) {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if digits.len() == 2 {
                found.push(format!("INV-{digits}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tree_of;
    use super::*;

    const MAP_PAGE: (&str, &str) = (MAP, "INV-01 INV-02");
    const PAGE: (&str, &str) = (FORMAT, "- **INV-01** One.\n- **INV-02** Two, see INV-01.\n");

    #[test]
    fn code_and_tests_are_both_demanded() {
        assert_eq!(invariants(&tree_of(&[PAGE, MAP_PAGE])).len(), 4);
        assert_eq!(invariants(&tree_of(&[PAGE])).len(), 6);
        let code = "//! x\n// INV-01\n// INV-02\n#[cfg(test)]\nmod tests {\n    fn inv_01_holds() {}\n}\n";
        let complaints = invariants(&tree_of(&[PAGE, MAP_PAGE, ("crates/a/src/lib.rs", code)]));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("INV-02: no test"), "{complaints:?}");
        let test = ("crates/a/tests/it/main.rs", "// INV-02\n");
        assert!(invariants(&tree_of(&[PAGE, MAP_PAGE, ("crates/a/src/lib.rs", code), test])).is_empty());
    }

    #[test]
    fn unknown_marks_are_named() {
        let files = [("crates/a/src/lib.rs", "// INV-99\n")];
        assert_eq!(
            invariants(&tree_of(&files)),
            ["crates/a/src/lib.rs: INV-99 is not in docs/format.md"]
        );
    }
}
