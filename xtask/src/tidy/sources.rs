//! Rules about single files: module documentation, sizes, words that must not stay, places that mean nothing elsewhere, serde.

use std::collections::BTreeMap;

use super::Tree;

/// Longest file without an entry in the ratchet.
const LINES: usize = 600;
/// Longest file with one.
const LINES_HARD: usize = 700;
/// Where exceptions are listed; they may only shrink.
const RATCHET: &str = "xtask/ratchet.txt";

/// Every Rust file begins by saying what it is and what it must not do.
pub(super) fn module_docs(tree: &Tree) -> Vec<String> {
    tree.files
        .iter()
        .filter(|file| file.is_rust() && !file.text.starts_with("//! "))
        .map(|file| format!("{}: begin the file with `//!`: what it is and what it must not do", file.path))
        .collect()
}

/// Files and functions stay short. Exceptions are written down with their size, and the number may only go down.
pub(super) fn sizes(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut lines, mut functions) = (BTreeMap::new(), BTreeMap::new());
    for line in tree.file(RATCHET).map_or("", |file| file.text.as_str()).lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), words.get(2).and_then(|number| number.parse::<usize>().ok())) {
            (["lines", path, _], Some(number)) => drop(lines.insert((*path).to_owned(), number)),
            (["functions", path, _], Some(number)) => drop(functions.insert((*path).to_owned(), number)),
            _ => complaints.push(format!(
                "{RATCHET}: {line:?} is neither `lines PATH N` nor `functions PATH N`"
            )),
        }
    }
    // Written in two parts, or this file would count itself.
    let exception = concat!("clippy::too_many", "_lines");
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        let found = file.text.lines().count();
        match lines.remove(&file.path) {
            _ if found > LINES_HARD => {
                complaints.push(format!("{}: {found} lines; {LINES_HARD} is the end: split it", file.path))
            }
            None if found > LINES => complaints.push(format!("{}: {found} lines, at most {LINES}: split it", file.path)),
            Some(listed) => complaints.extend(ratchet(&file.path, "lines", listed, found, LINES)),
            None => {}
        }
        let found = file.text.matches(exception).count();
        match functions.remove(&file.path) {
            None if found > 0 => complaints.push(format!(
                "{}: {found} functions are excepted from their length: split them",
                file.path
            )),
            Some(listed) => complaints.extend(ratchet(&file.path, "functions", listed, found, 0)),
            None => {}
        }
    }
    complaints.extend(
        lines
            .keys()
            .chain(functions.keys())
            .map(|path| format!("{RATCHET}: {path} is not there: remove its line")),
    );
    complaints
}

fn ratchet(path: &str, what: &str, listed: usize, found: usize, free: usize) -> Option<String> {
    if found > listed {
        Some(format!("{path}: {found} {what}, the ratchet allows {listed}: split it"))
    } else if found <= free {
        Some(format!("{RATCHET}: {path} no longer needs its line: remove it"))
    } else if found < listed {
        Some(format!("{RATCHET}: write `{what} {path} {found}`: it became smaller"))
    } else {
        None
    }
}

/// Words of unfinished work. In two parts each, or this file would contain them.
const WORDS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "do it, or write an issue"),
    (concat!("X", "XX"), "do it, or write an issue"),
    (concat!("TO", "DO"), "do it, or write an issue"),
    (concat!("todo", "!"), "write it"),
    (concat!("unimplemented", "!"), "write it"),
    (concat!("#[ig", "nore"), "no test is skipped"),
];

/// Nothing unfinished is left lying about.
pub(super) fn words(tree: &Tree) -> Vec<String> {
    find(tree, |line| {
        WORDS
            .iter()
            .find(|(word, _)| contains_word(line, word))
            .map(|(word, advice)| format!("{word:?}: {advice}"))
    })
}

/// Places that exist only on one machine or belong to whoever installs: absolute home and work folders, hosts of registries.
const PLACES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/fa", "rm/"),
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("proxy.golang", ".org"),
    concat!("maven", ".org"),
    concat!("deb.debian", ".org"),
];

/// No absolute paths of a machine and no registry hosts.
pub(super) fn places(tree: &Tree) -> Vec<String> {
    find(tree, |line| {
        PLACES
            .iter()
            .find(|place| contains_word(line, place))
            .map(|place| format!("{place:?} means nothing on another machine"))
    })
}

/// Where serde may be used: at the edges where bytes become values, never in decisions.
const SERDE: &[&str] = &[
    "crates/lifeboat-repo/src/",
    "crates/lifeboat-store/src/s3admin/",
    "crates/lifeboat-engine/src/",
    "crates/lifeboat-ops/",
    "crates/lifeboat/",
    "xtask/",
];

/// And within those, where bytes have their layout by hand: a derived format would change under a stored repository.
const NO_SERDE: &[&str] = &[
    "crates/lifeboat-repo/src/bytes.rs",
    "crates/lifeboat-repo/src/closure.rs",
    "crates/lifeboat-repo/src/id.rs",
    "crates/lifeboat-repo/src/map/",
    "crates/lifeboat-repo/src/pack/",
    "crates/lifeboat-repo/src/reader/",
];

/// The model, IO, stores and byte layouts do not serialise.
pub(super) fn serde_places(tree: &Tree) -> Vec<String> {
    let uses = |text: &str| {
        text.lines()
            .any(|line| !line.trim_start().starts_with("//") && contains_word(line, "serde"))
    };
    tree.files
        .iter()
        .filter(|file| file.is_rust() && (!within(&file.path, SERDE) || within(&file.path, NO_SERDE)))
        .filter(|file| !file.path.contains("/tests/") && uses(&file.text))
        .map(|file| format!("{}: serde has no business here; keep it at {}", file.path, SERDE.join(", ")))
        .collect()
}

fn within(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Every line of every text file but the lock file, which cargo writes.
fn find(tree: &Tree, complaint: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.files.iter().filter(|file| file.path != "Cargo.lock") {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(text) = complaint(line) {
                complaints.push(format!("{}, line {}: {text}", file.path, index + 1));
            }
        }
    }
    complaints
}

/// Whether the word stands on its own: not as a part of a longer name or path.
fn contains_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let open_end = !word.ends_with(part_of_name);
    line.match_indices(word).any(|(start, _)| {
        let before = line.get(..start).and_then(|text| text.chars().next_back());
        let after = line.get(start + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part_of_name) && (open_end || !after.is_some_and(part_of_name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree_of;
    use super::*;

    #[test]
    fn module_docs_are_demanded() {
        let tree = tree_of(&[("a.rs", "fn main() {}\n"), ("b.rs", "//! Says it.\n"), ("c.py", "x = 1\n")]);
        let complaints = module_docs(&tree);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("a.rs: "), "{complaints:?}");
    }

    #[test]
    fn long_files_fail_and_the_ratchet_only_shrinks() {
        let long = "x\n".repeat(601);
        let longest = "x\n".repeat(701);
        assert_eq!(sizes(&tree_of(&[("a.rs", &long)])).len(), 1);
        assert!(sizes(&tree_of(&[("a.rs", &long), (RATCHET, "# why\nlines a.rs 601\n")])).is_empty());
        let stale = sizes(&tree_of(&[("a.rs", &long), (RATCHET, "lines a.rs 650\n")]));
        assert!(stale[0].contains("lines a.rs 601"), "{stale:?}");
        assert_eq!(sizes(&tree_of(&[("a.rs", &longest), (RATCHET, "lines a.rs 701\n")])).len(), 1);
        assert_eq!(sizes(&tree_of(&[(RATCHET, "lines gone.rs 650\nnonsense\n")])).len(), 2);
    }

    #[test]
    fn long_functions_are_counted() {
        let text = format!("#[expect({}, reason = \"r\")]\n", concat!("clippy::too_many", "_lines"));
        assert_eq!(sizes(&tree_of(&[("a.rs", &text)])).len(), 1);
        assert!(sizes(&tree_of(&[("a.rs", &text), (RATCHET, "functions a.rs 1\n")])).is_empty());
        assert_eq!(sizes(&tree_of(&[("a.rs", ""), (RATCHET, "functions a.rs 1\n")])).len(), 1);
    }

    #[test]
    fn leftovers_are_found() {
        for (word, _) in WORDS {
            let text = format!("one\n  {word} later\n");
            let complaints = words(&tree_of(&[("a.md", &text)]));
            assert_eq!(complaints.len(), 1, "{word}");
            assert!(complaints[0].starts_with("a.md, line 2: "), "{complaints:?}");
        }
        assert!(words(&tree_of(&[("a.rs", "let axxxb = MATODO;\n"), ("Cargo.lock", WORDS[0].0)])).is_empty());
    }

    #[test]
    fn machine_places_are_found() {
        for place in PLACES {
            assert_eq!(
                places(&tree_of(&[("a.md", &format!("see {place} here\n"))])).len(),
                1,
                "{place}"
            );
        }
        assert!(places(&tree_of(&[("a.md", concat!("docs/wo", "rk/x\n"))])).is_empty());
    }

    #[test]
    fn serde_stays_at_the_edges() {
        let text = "//! x\nuse serde::Serialize;\n";
        let model = "crates/lifeboat-model/src/a.rs";
        assert_eq!(
            serde_places(&tree_of(&[(model, text), ("crates/lifeboat-ops/src/a.rs", text)])).len(),
            1
        );
        assert_eq!(
            serde_places(&tree_of(&[("crates/lifeboat-repo/src/map/row.rs", text)])).len(),
            1
        );
        assert!(serde_places(&tree_of(&[(model, "//! no serde here\n")])).is_empty());
    }
}
