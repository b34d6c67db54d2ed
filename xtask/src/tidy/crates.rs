//! The rule about which crate may know which: `model ← io ← store ← repo ← ops ← lifeboat`, `model ← io ← engine ← ops`.

use serde_json::Value;

use super::Tree;

/// What a crate may depend on inside the workspace, and external crates that it must not see.
struct Room {
    name: &'static str,
    knows: &'static [&'static str],
    never: &'static [&'static str],
}

/// A database, a schedule or a command line has no place below the engine, the verbs and the binary.
const ROOMS: &[Room] = &[
    Room {
        name: "lifeboat-model",
        knows: &[],
        never: &[
            "serde",
            "serde_json",
            "tokio",
            "jiff",
            "getrandom",
            "rustix",
            "rusqlite",
            "clap",
        ],
    },
    Room {
        name: "lifeboat-io",
        knows: &["lifeboat-model"],
        never: &["serde", "serde_json", "jiff", "rusqlite", "clap", "ring", "zstd"],
    },
    Room {
        name: "lifeboat-store",
        knows: &["lifeboat-model", "lifeboat-io"],
        // What services answer is XML; what rests in a store is not its business.
        never: &["serde_json", "rusqlite", "clap", "ring", "zstd"],
    },
    Room {
        name: "lifeboat-repo",
        knows: &["lifeboat-model", "lifeboat-io", "lifeboat-store"],
        never: &["rusqlite", "clap", "anyhow"],
    },
    Room {
        name: "lifeboat-engine",
        knows: &["lifeboat-model", "lifeboat-io"],
        // zstd: old backups of other programs are read.
        never: &["ring", "age", "clap", "anyhow"],
    },
    Room {
        name: "lifeboat-ops",
        knows: &[
            "lifeboat-model",
            "lifeboat-io",
            "lifeboat-store",
            "lifeboat-repo",
            "lifeboat-engine",
        ],
        // rusqlite: the catalog is a SQLite file.
        never: &["clap", "anyhow", "ring", "zstd"],
    },
    Room {
        name: "lifeboat",
        knows: &[
            "lifeboat-model",
            "lifeboat-io",
            "lifeboat-store",
            "lifeboat-repo",
            "lifeboat-engine",
            "lifeboat-ops",
        ],
        never: &["ring", "zstd"],
    },
    Room {
        name: "lifeboat-testkit",
        knows: &[
            "lifeboat-model",
            "lifeboat-io",
            "lifeboat-store",
            "lifeboat-repo",
            "lifeboat-engine",
        ],
        never: &["clap"],
    },
    Room {
        name: "xtask",
        knows: &[],
        never: &["rusqlite", "clap"],
    },
];

/// Checks every edge that cargo knows.
pub(super) fn edges(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let packages = tree.metadata.get("packages").and_then(Value::as_array);
    for package in packages
        .into_iter()
        .flatten()
        .filter(|package| package.get("source").is_none_or(Value::is_null))
    {
        let name = text(package, "name");
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            complaints.push(format!(
                "{name}: a new crate needs a decision record and a line in xtask/src/tidy/crates.rs"
            ));
            continue;
        };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let other = text(dependency, "name");
            let for_tests = text(dependency, "kind") == "dev";
            let inside = ROOMS.iter().any(|room| room.name == other);
            if other == "lifeboat-testkit" && !for_tests {
                complaints.push(format!("{name} → {other}: the test kit is a dev-dependency only"));
            } else if inside && other != "lifeboat-testkit" && !for_tests && !room.knows.contains(&other) {
                complaints.push(format!("{name} → {other}: this edge is not in the table of ARCHITECTURE.md"));
            } else if !for_tests && room.never.contains(&other) {
                complaints.push(format!("{name} → {other}: {name} must not know it"));
            }
        }
    }
    complaints
}

fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn complaints(name: &str, dependencies: &Value) -> Vec<String> {
        let metadata = json!({"packages": [{"name": name, "source": null, "dependencies": dependencies}]});
        edges(&Tree {
            metadata,
            ..Tree::default()
        })
    }

    #[test]
    fn only_the_drawn_edges_pass() {
        assert!(complaints("lifeboat-io", &json!([{"name": "lifeboat-model", "kind": null}])).is_empty());
        assert_eq!(
            complaints("lifeboat-io", &json!([{"name": "lifeboat-repo", "kind": null}])).len(),
            1
        );
        assert_eq!(
            complaints("lifeboat-engine", &json!([{"name": "lifeboat-store", "kind": null}])).len(),
            1
        );
        assert_eq!(complaints("lifeboat-surprise", &json!([])).len(), 1);
    }

    #[test]
    fn the_test_kit_never_ships() {
        assert_eq!(
            complaints("lifeboat-ops", &json!([{"name": "lifeboat-testkit", "kind": null}])).len(),
            1
        );
        assert!(complaints("lifeboat-ops", &json!([{"name": "lifeboat-testkit", "kind": "dev"}])).is_empty());
    }

    #[test]
    fn the_model_knows_no_serde_and_no_runtime() {
        for banned in ["serde", "tokio"] {
            assert_eq!(
                complaints("lifeboat-model", &json!([{"name": banned, "kind": null}])).len(),
                1
            );
        }
    }
}
