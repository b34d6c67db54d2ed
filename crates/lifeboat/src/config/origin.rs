//! Where each value comes from: the file (with its line), the environment, or the defaults.
//!
//! Walks what was written beside the schema, as `check` does; must not know any key by name.

use serde_json::Value as Json;

use super::check::{Node, Tree, forms};

/// A value's path (`systems.shop.components.db.backup.to`) and where it comes from.
pub(crate) type Origins = Vec<(String, String)>;

/// Every value that is written, and every one that is left to its default, in the order of their paths. `named` says where a written
/// value comes from; its line is given.
pub(super) fn collect(root: &Node, schema: &Json, named: &dyn Fn(&str, u64) -> String) -> Origins {
    let mut found = Vec::new();
    walk(root, schema, "", named, &mut found);
    found.sort();
    found
}

fn walk(node: &Node, schema: &Json, path: &str, named: &dyn Fn(&str, u64) -> String, found: &mut Origins) {
    let Tree::Map(entries) = &node.value else {
        found.push((path.to_owned(), named(path, node.place.line())));
        return;
    };
    let forms = forms(schema);
    let property = |name: &str| forms.iter().find_map(|form| form.get("properties")?.get(name));
    let named_ones = forms
        .iter()
        .find_map(|form| form.get("additionalProperties").filter(|extra| extra.is_object()));
    for (key, value) in entries {
        let schema = property(&key.value).or(named_ones).unwrap_or(&Json::Null);
        walk(value, schema, &join(path, &key.value), named, found);
    }
    for form in &forms {
        let required: Vec<&str> = form["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        for (name, schema) in form["properties"].as_object().into_iter().flatten() {
            let written = entries.iter().any(|(key, _)| key.value == *name);
            let says_default = schema.get("default").is_some_and(|default| !default.is_null()) || describes_default(schema);
            if !written && !required.contains(&name.as_str()) && says_default {
                found.push((join(path, name), "default".to_owned()));
            }
        }
    }
}

/// Defaults that depend on something are told in words.
fn describes_default(schema: &Json) -> bool {
    schema["description"].as_str().is_some_and(|text| text.contains("Default:"))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
