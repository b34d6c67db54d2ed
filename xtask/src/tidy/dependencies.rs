//! The rule that every direct dependency stands in `docs/dependencies.md` with why it is there, its licence and what else was possible.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Tree;

const TABLE: &str = "docs/dependencies.md";

/// Compares the table with the manifests, both ways.
pub(super) fn table(tree: &Tree) -> Vec<String> {
    let mut listed = BTreeMap::new();
    let mut complaints = Vec::new();
    for line in tree.file(TABLE).map_or("", |file| file.text.as_str()).lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let Some(name) = cells.first().and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`')) else {
            continue;
        };
        if cells.len() != 4 || cells.iter().any(|cell| cell.is_empty()) {
            complaints.push(format!(
                "{TABLE}: the row of {name} needs four filled cells: crate, why, licence, alternatives"
            ));
        }
        listed.insert(name, cells.get(2).copied().unwrap_or(""));
    }
    let all: Vec<&Value> = tree
        .metadata
        .get("packages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let own = |package: &&&Value| package.get("source").is_none_or(Value::is_null);
    let names: Vec<&str> = all.iter().filter(own).map(|package| text(package, "name")).collect();
    let mut direct = BTreeMap::new();
    for package in all.iter().filter(own) {
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let name = text(dependency, "name");
            if !names.contains(&name) {
                let licence = all
                    .iter()
                    .find(|package| text(package, "name") == name)
                    .map_or("", |package| text(package, "license"));
                direct.insert(name, licence);
            }
        }
    }
    for (name, licence) in &direct {
        match listed.remove(name) {
            None => complaints.push(format!("{name} is not in {TABLE}: say why it is there ({licence})")),
            Some(said) if said != *licence => complaints.push(format!("{TABLE}: the licence of {name} is {licence}, not {said}")),
            Some(_) => {}
        }
    }
    complaints.extend(
        listed
            .keys()
            .map(|name| format!("{TABLE}: nothing depends on {name}: remove its row")),
    );
    complaints
}

fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tree_of;
    use super::*;

    fn complaints(table_text: &str) -> Vec<String> {
        let mut tree = tree_of(&[(TABLE, table_text)]);
        tree.metadata = json!({"packages": [
            {"name": "lifeboat", "source": null, "dependencies": [{"name": "ring"}, {"name": "lifeboat-io"}]},
            {"name": "lifeboat-io", "source": null, "dependencies": []},
            {"name": "ring", "source": "registry+x", "license": "ISC", "dependencies": [{"name": "deep"}]}
        ]});
        table(&tree)
    }

    #[test]
    fn the_table_and_the_manifests_agree() {
        assert!(complaints("| crate | why | licence | alternatives |\n| `ring` | seals | ISC | aws-lc-rs |\n").is_empty());
        assert_eq!(complaints("").len(), 1);
        assert_eq!(complaints("| `ring` | seals | MIT | aws-lc-rs |\n").len(), 1);
        assert_eq!(complaints("| `ring` | | ISC | aws-lc-rs |\n").len(), 1);
        assert_eq!(
            complaints("| `ring` | seals | ISC | no |\n| `gone` | was | MIT | no |\n").len(),
            1
        );
    }
}
