//! Rules about what we depend on: where it comes from, under which licence, what is not let in, and cryptography in one version.
//!
//! `deny.toml` says the same to those who have cargo-deny; building that in every run would cost minutes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Tree;

/// Licences that ask for no more than attribution. Copyleft is not among them, weak or strong.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are not let in, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "needs a C library of the host; ring does what we need"),
    ("openssl-sys", "needs a C library of the host; ring does what we need"),
    ("native-tls", "brings OpenSSL; rustls is used where TLS is needed"),
    (
        "serde_yaml",
        "no longer maintained; serde-saphyr reads YAML and keeps positions",
    ),
    (
        "serde_yml",
        "unsound and archived; serde-saphyr reads YAML and keeps positions",
    ),
    ("atty", "unsound and no longer maintained; std::io::IsTerminal"),
    ("chrono", "one calendar is enough, and it is jiff"),
    ("time", "one calendar is enough, and it is jiff"),
    ("failure", "no longer maintained"),
    ("structopt", "clap derives"),
    ("async-std", "no longer maintained; one runtime is enough, and it is tokio"),
    ("sqlx", "links a second SQLite; rusqlite is used"),
    ("git2", "links C libraries that nothing here needs"),
    ("md5", "no broken hash decides anything here"),
];

/// Who may bring a banned crate along all the same: no other library does what they do.
const BROUGHT_BY: &[(&str, &[&str])] = &[
    ("chrono", &["object_store", "s3s"]),
    ("time", &["s3s", "x509-parser", "asn1-rs"]),
];

/// Cryptography that must exist once: two versions are two places to patch.
const CRYPTOGRAPHY: &[&str] = &[
    "aes-gcm",
    "age",
    "aws-lc-rs",
    "blake3",
    "chacha20poly1305",
    "curve25519-dalek",
    "ed25519-dalek",
    "ring",
    "rustls",
    "sha2",
    "x25519-dalek",
];

/// Duplicates that are known, and why they stay.
const KNOWN_DUPLICATES: &[(&str, &str)] = &[("sha2", "age 0.12 uses both, one of them through its key derivation")];

const DENY: &str = "deny.toml";

fn packages(tree: &Tree) -> impl Iterator<Item = &Value> {
    tree.metadata.get("packages").and_then(Value::as_array).into_iter().flatten()
}

fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Everything comes from the public registry or from this workspace.
pub(super) fn sources(tree: &Tree) -> Vec<String> {
    let registry = |source: &str| source.starts_with("registry+") && source.ends_with(concat!("/crates", ".io-index"));
    packages(tree)
        .filter(|package| {
            let source = package.get("source").and_then(Value::as_str);
            source.is_some_and(|source| !registry(source))
        })
        .map(|package| {
            format!(
                "{} comes from {}: only the public registry is allowed",
                text(package, "name"),
                text(package, "source")
            )
        })
        .collect()
}

/// Every licence is on the list.
pub(super) fn licences(tree: &Tree) -> Vec<String> {
    packages(tree)
        .filter_map(|package| {
            let (name, licence) = (text(package, "name"), text(package, "license"));
            match satisfied(licence) {
                Some(true) => None,
                Some(false) => Some(format!(
                    "{name}: its licence {licence:?} is not on the list in xtask/src/tidy/licences.rs"
                )),
                None => Some(format!(
                    "{name}: its licence {licence:?} cannot be understood; look at it and decide"
                )),
            }
        })
        .collect()
}

/// Nothing that is banned, at any depth, unless only those bring it that may.
pub(super) fn banned(tree: &Tree) -> Vec<String> {
    packages(tree)
        .filter_map(|package| BANNED.iter().find(|(name, _)| *name == text(package, "name")))
        .filter_map(|(name, reason)| {
            let allowed = BROUGHT_BY.iter().find(|(banned, _)| banned == name);
            let allowed = allowed.map_or::<&[&str], _>(&[], |(_, by)| by);
            let others: Vec<&str> = dependents(tree, name).filter(|by| !allowed.contains(by)).collect();
            (allowed.is_empty() || !others.is_empty()).then(|| format!("{name} is not let in ({}): {reason}", others.join(", ")))
        })
        .collect()
}

/// The packages that ask for `name`, by themselves or as an option.
fn dependents<'tree>(tree: &'tree Tree, name: &'tree str) -> impl Iterator<Item = &'tree str> {
    packages(tree).filter_map(move |package| {
        let mut wanted = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        let asks = wanted.any(|dependency| {
            let optional = dependency.get("optional").and_then(Value::as_bool).unwrap_or(false);
            text(dependency, "name") == name && !optional && text(dependency, "kind") != "dev"
        });
        asks.then(|| text(package, "name"))
    })
}

/// Each piece of cryptography in one version, or with a reason.
pub(super) fn duplicate_cryptography(tree: &Tree) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages(tree) {
        if CRYPTOGRAPHY.contains(&text(package, "name")) {
            versions
                .entry(text(package, "name"))
                .or_default()
                .insert(text(package, "version"));
        }
    }
    let known = |name: &str| KNOWN_DUPLICATES.iter().any(|(known, _)| *known == name);
    let mut complaints = Vec::new();
    for (name, found) in &versions {
        if found.len() > 1 && !known(name) {
            let list: Vec<&str> = found.iter().copied().collect();
            complaints.push(format!("{name} is there in versions {}: settle on one", list.join(", ")));
        }
    }
    for (name, _) in KNOWN_DUPLICATES {
        if !versions.is_empty() && versions.get(name).is_none_or(|found| found.len() < 2) {
            complaints.push(format!("{name} is no longer there twice: remove it from KNOWN_DUPLICATES"));
        }
    }
    complaints
}

/// `deny.toml` says the same as the lists here.
pub(super) fn deny_file(tree: &Tree) -> Vec<String> {
    let text = tree.file(DENY).map_or("", |file| file.text.as_str());
    let said = |line: String| text.lines().any(|found| found.trim().starts_with(&line));
    let licences = ALLOWED.iter().map(|licence| format!("\"{licence}\","));
    let bans = BANNED.iter().map(|(name, _)| format!("{{ crate = \"{name}\","));
    let mut complaints: Vec<String> = licences
        .chain(bans)
        .filter(|line| !said(line.clone()))
        .map(|line| format!("{DENY}: no line begins with {line}"))
        .collect();
    let banned = text.lines().filter(|line| line.trim().starts_with("{ crate = ")).count();
    if banned > BANNED.len() {
        complaints.push(format!("{DENY}: bans more crates than xtask/src/tidy/licences.rs"));
    }
    complaints
}

/// Whether an SPDX expression can be met with allowed licences; `None` when it cannot be parsed.
fn satisfied(expression: &str) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let value = either(&words, &mut at)?;
    (at == words.len()).then_some(value)
}

fn either(words: &[&str], at: &mut usize) -> Option<bool> {
    let mut value = both(words, at)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        value |= both(words, at)?;
    }
    Some(value)
}

fn both(words: &[&str], at: &mut usize) -> Option<bool> {
    let mut value = one(words, at)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        value &= one(words, at)?;
    }
    Some(value)
}

fn one(words: &[&str], at: &mut usize) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let value = either(words, at)?;
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return closed.then_some(value);
    }
    if matches!(word, ")" | "OR" | "AND" | "WITH") {
        return None;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = *words.get(*at + 1)?;
        *at += 2;
        return Some(ALLOWED.contains(&format!("{word} WITH {exception}").as_str()));
    }
    Some(ALLOWED.contains(&word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tree(packages: &Value) -> Tree {
        Tree {
            metadata: json!({"packages": packages}),
            ..Tree::default()
        }
    }

    #[test]
    fn expressions_are_understood() {
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "GPL-2.0 OR Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(satisfied(good), Some(true), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "MPL-2.0", "Apache-2.0 WITH other-exception"] {
            assert_eq!(satisfied(bad), Some(false), "{bad}");
        }
        for broken in ["", "MIT OR", "(MIT", "MIT MIT", "AND"] {
            assert_eq!(satisfied(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_strange_licence_or_source_is_named() {
        let bad = tree(
            &json!([{"name": "a", "license": "GPL-3.0", "source": "git+https://example.org/a"}, {"name": "b", "license": null}]),
        );
        assert_eq!(licences(&bad).len(), 2);
        assert_eq!(sources(&bad).len(), 1);
        let good = concat!("registry+https://example.org/crates", ".io-index");
        assert!(sources(&tree(&json!([{"name": "a", "license": "MIT", "source": good}]))).is_empty());
    }

    #[test]
    fn the_file_for_cargo_deny_says_the_same() {
        let licences: String = ALLOWED.iter().map(|licence| format!("  \"{licence}\",\n")).collect();
        let bans: String = BANNED
            .iter()
            .map(|(name, reason)| format!("  {{ crate = \"{name}\", reason = \"{reason}\" }},\n"))
            .collect();
        let file = |text: &str| deny_file(&super::super::tree_of(&[(DENY, text)]));
        assert!(file(&format!("{licences}{bans}")).is_empty());
        assert_eq!(file(&licences).len(), BANNED.len());
        assert_eq!(file(&format!("{licences}{bans}{{ crate = \"more\", }}\n")).len(), 1);
    }

    #[test]
    fn banned_crates_are_named_with_the_reason() {
        let complaints = banned(&tree(&json!([{"name": "openssl"}, {"name": "ring"}])));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("ring does what we need"), "{complaints:?}");
    }

    #[test]
    fn cryptography_exists_once() {
        let twice = json!([
            {"name": "ring", "version": "0.16.0"}, {"name": "ring", "version": "0.17.0"},
            {"name": "sha2", "version": "0.10.0"}, {"name": "sha2", "version": "0.11.0"}
        ]);
        assert_eq!(duplicate_cryptography(&tree(&twice)).len(), 1);
        let stale = duplicate_cryptography(&tree(&json!([{"name": "sha2", "version": "0.11.0"}])));
        assert_eq!(stale.len(), 1, "{stale:?}");
    }
}
