//! Rules about prose: the map stays short and true, links lead somewhere, and nothing refers to a line number.

use super::{Tree, has_extension};

const MAP: &str = "ARCHITECTURE.md";
/// Longest map that somebody reads whole.
const MAP_LINES: usize = 250;

/// Every path that the map names is there, and the map stays a map.
pub(super) fn map(tree: &Tree) -> Vec<String> {
    let Some(file) = tree.file(MAP) else {
        return vec![format!("{MAP} is not there")];
    };
    let mut complaints = Vec::new();
    let lines = file.text.lines().count();
    if lines > MAP_LINES {
        complaints.push(format!(
            "{MAP}: {lines} lines, at most {MAP_LINES}: it is a map, put the detail where it happens"
        ));
    }
    for name in code_spans(&file.text).filter(|span| is_path(span)) {
        if !tree.has(name) {
            complaints.push(format!("{MAP}: `{name}` is not there"));
        }
    }
    complaints
}

/// Every relative link of every page leads to a file.
pub(super) fn links(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_markdown()) {
        for target in file
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target)
        {
            let target = target.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if !tree.has(&resolve(folder, target)) {
                complaints.push(format!("{}: the link to {target} leads nowhere", file.path));
            }
        }
    }
    complaints
}

/// The number of a line is wrong after the next change; names stay right.
pub(super) fn line_numbers(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_markdown() || file.is_rust()) {
        for (index, line) in file.text.lines().enumerate() {
            let numbered = |extension: &str| {
                line.split(extension)
                    .skip(1)
                    .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            let prose = file.is_markdown() || line.trim_start().starts_with("//");
            if prose && (numbered(".rs:") || numbered(".py:")) {
                complaints.push(format!(
                    "{}, line {}: refer to a name, not to a line number",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    complaints
}

/// The text between single backticks, line by line; blocks are not prose.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    let outside = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !fence && !in_block
    });
    outside.flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether it is meant as a path in the checkout: only characters of paths, and a folder or a known ending.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let ending = ["rs", "md", "toml", "txt", "py", "yaml"]
        .iter()
        .any(|extension| has_extension(span, extension));
    !span.is_empty() && span.chars().all(plain) && !span.starts_with('/') && (span.contains('/') || ending)
}

fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::tree_of;
    use super::*;

    #[test]
    fn the_map_names_only_what_is_there() {
        let text = "`src/a.rs` `src/` `gone.md` `cargo xtask` `a::b` `src/<kind>/`\n```\n`gone/too.rs`\n```\n";
        let complaints = map(&tree_of(&[(MAP, text), ("src/a.rs", "")]));
        assert_eq!(complaints, ["ARCHITECTURE.md: `gone.md` is not there"]);
    }

    #[test]
    fn the_map_stays_short() {
        assert_eq!(map(&tree_of(&[(MAP, &"x\n".repeat(251))])).len(), 1);
        assert_eq!(map(&tree_of(&[])).len(), 1);
    }

    #[test]
    fn links_lead_somewhere() {
        let page = "[a](b.md) [c](../README.md#part) [d](https://example.org/x) [e](gone.md) [f](#here)\n";
        let complaints = links(&tree_of(&[("docs/a.md", page), ("docs/b.md", ""), ("README.md", "")]));
        assert_eq!(complaints, ["docs/a.md: the link to gone.md leads nowhere"]);
    }

    #[test]
    fn line_numbers_are_found() {
        let bad = concat!("see lib.rs", ":123\n");
        assert_eq!(line_numbers(&tree_of(&[("a.md", bad)])).len(), 1);
        assert_eq!(line_numbers(&tree_of(&[("a.rs", &format!("//! {bad}"))])).len(), 1);
        assert!(line_numbers(&tree_of(&[("a.md", "see lib.rs: it says\n")])).is_empty());
    }
}
