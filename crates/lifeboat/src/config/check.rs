//! Finds everything that is wrong with the shape of a file: unknown keys, missing keys, wrong types.
//!
//! serde stops at its first complaint; this walks the whole file beside the schema that is made from the same types, so
//! that nobody has to correct a file one line at a time. Only asked when serde refused. Must not know any key by name
//! but `version`.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::Location;

use super::file::At;
use super::problem::Problem;

/// A part of the file as it was written.
pub(super) type Node = At<Tree>;

/// What can be written.
#[derive(Debug)]
pub(super) enum Tree {
    Null,
    Integer(Option<i64>),
    Bool,
    Scalar,
    List(Vec<Node>),
    Map(Vec<(At<String>, Node)>),
}

/// Everything that `schema` does not allow. Empty when the text is not even YAML: then serde's complaint is all there is.
pub(super) fn shape(text: &str, options: serde_saphyr::Options, schema: &Json) -> Vec<Problem> {
    let Ok(root) = serde_saphyr::from_str_with_options::<Node>(text, options) else {
        return Vec::new();
    };
    if let Some(problem) = other_version(&root) {
        return vec![problem];
    }
    let mut problems = Vec::new();
    walk(&root, schema, "this file", root.place, &mut problems);
    problems
}

/// A file of another version would only be full of unknown keys: that one sentence is enough.
fn other_version(root: &Node) -> Option<Problem> {
    let Tree::Map(entries) = &root.value else { return None };
    let (_, version) = entries.iter().find(|(key, _)| key.value == "version")?;
    match version.value {
        Tree::Integer(Some(1)) => None,
        Tree::Integer(_) => Some(unknown_version(version.place)),
        _ => None,
    }
}

/// The version is not ours.
pub(super) fn unknown_version(place: Location) -> Problem {
    Problem::at(place, "the configuration has a version that this Lifeboat does not read")
        .label("not 1")
        .help("write `version: 1`, or use the Lifeboat that this file was written for")
}

fn walk(node: &Node, schema: &Json, what: &str, key: Location, problems: &mut Vec<Problem>) {
    let forms = forms(schema);
    let fits = forms.iter().any(|form| fits(&node.value, form));
    if !fits {
        problems.push(wrong_type(node, &forms, what, key));
        return;
    }
    match &node.value {
        Tree::Map(entries) => {
            let objects: Vec<&Json> = forms
                .into_iter()
                .filter(|form| types(form).any(|kind| kind == "object"))
                .collect();
            if let [object] = objects.as_slice() {
                walk_object(node, entries, object, what, key, problems);
            } else {
                walk_kinds(node, entries, &objects, what, key, problems);
            }
        }
        Tree::List(items) => {
            let item_schema = forms.iter().find_map(|form| form.get("items")).unwrap_or(&Json::Null);
            for item in items {
                walk(item, item_schema, "an entry of this list", item.place, problems);
            }
        }
        Tree::Null | Tree::Integer(_) | Tree::Bool | Tree::Scalar => {}
    }
}

/// A mapping with known keys, or one whose keys are names.
fn walk_object(
    node: &Node,
    entries: &[(At<String>, Node)],
    schema: &Json,
    what: &str,
    key: Location,
    problems: &mut Vec<Problem>,
) {
    let properties = schema.get("properties").and_then(Json::as_object);
    let known: Vec<&str> = properties
        .into_iter()
        .flat_map(|map| map.keys().map(String::as_str))
        .collect();
    let mut meant = Vec::new();
    let mut strangers = false;
    for (name, value) in entries {
        let extra = schema.get("additionalProperties").filter(|extra| extra.is_object());
        match properties.and_then(|map| map.get(&name.value)).or(extra) {
            Some(schema) => walk(value, schema, &format!("`{}`", name.value), name.place, problems),
            None => {
                strangers = true;
                meant.extend(nearest(&name.value, known.iter().copied()));
                problems.push(unknown_key(name, what, &known));
            }
        }
    }
    let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
    for name in required.filter_map(Json::as_str) {
        // An unknown key that stands for the missing one is one mistake, not two.
        let explained = meant.contains(&name) || (strangers && known.len() == 1);
        if !explained && !entries.iter().any(|(key, _)| key.value == name) {
            let place = if key.line() > 0 { key } else { node.place };
            problems.push(missing_key(place, name, what, properties.and_then(|map| map.get(name))));
        }
    }
}

/// A mapping whose one key says what kind of thing it is.
fn walk_kinds(
    node: &Node,
    entries: &[(At<String>, Node)],
    kinds: &[&Json],
    what: &str,
    key: Location,
    problems: &mut Vec<Problem>,
) {
    let known: Vec<&str> = kinds
        .iter()
        .filter_map(|kind| kind.get("properties")?.as_object()?.keys().next().map(String::as_str))
        .collect();
    let count_before = problems.len();
    for (name, value) in entries {
        match kinds.iter().find_map(|kind| kind.get("properties")?.get(&name.value)) {
            Some(schema) => walk(value, schema, &format!("`{}`", name.value), name.place, problems),
            None => problems.push(unknown_key(name, what, &known)),
        }
    }
    if entries.len() != 1 && problems.len() == count_before {
        let place = if key.line() > 0 { key } else { node.place };
        problems.push(
            Problem::at(place, format!("{what} needs exactly one of these keys: {}", list(&known)))
                .label(format!("{} given", entries.len())),
        );
    }
}

fn unknown_key(key: &At<String>, what: &str, known: &[&str]) -> Problem {
    let problem = Problem::at(key.place, format!("unknown key `{}` in {what}", key.value));
    match nearest(&key.value, known.iter().copied()) {
        Some(near) => problem
            .label(format!("did you mean `{near}`?"))
            .help(format!("known here: {}", list(known))),
        None => problem.label("not known here").help(format!("known here: {}", list(known))),
    }
}

fn missing_key(place: Location, name: &str, what: &str, schema: Option<&Json>) -> Problem {
    let problem = Problem::at(place, format!("`{name}` is missing in {what}")).label(format!("`{name}` belongs in here"));
    match schema.and_then(|schema| schema.get("description")).and_then(Json::as_str) {
        Some(description) => problem.help(format!("{name}: {}", description.replace('\n', " "))),
        None => problem,
    }
}

fn wrong_type(node: &Node, forms: &[&Json], what: &str, key: Location) -> Problem {
    let (found, place) = match &node.value {
        Tree::Null => ("nothing", key),
        Tree::Integer(_) => ("a number", node.place),
        Tree::Bool => ("true or false", node.place),
        Tree::Scalar => ("text", node.place),
        Tree::List(_) => ("a list", node.place),
        Tree::Map(_) => ("a mapping", node.place),
    };
    let mut wanted: Vec<String> = forms.iter().filter_map(|form| described(form)).collect();
    wanted.dedup();
    let wanted = wanted.join(" or ");
    Problem::at(place, format!("{what} must be {wanted}")).label(format!("{found} is written here"))
}

/// The alternatives of a schema, flat. An absent value is one of them only for what may be left out.
pub(super) fn forms(schema: &Json) -> Vec<&Json> {
    let alternatives = ["anyOf", "oneOf"]
        .iter()
        .find_map(|word| schema.get(word).and_then(Json::as_array));
    match alternatives {
        Some(alternatives) => alternatives.iter().flat_map(forms).collect(),
        None => vec![schema],
    }
}

fn types(form: &Json) -> impl Iterator<Item = &str> {
    let one = form["type"].as_str();
    let several = form["type"].as_array().into_iter().flatten().filter_map(Json::as_str);
    one.into_iter().chain(several)
}

fn fits(tree: &Tree, form: &Json) -> bool {
    types(form).any(|kind| match tree {
        Tree::Null => kind == "null",
        Tree::Integer(number) => kind == "string" || (kind == "integer" && number.is_some_and(|number| in_range(number, form))),
        Tree::Bool => kind == "string" || kind == "boolean",
        Tree::Scalar => kind == "string",
        Tree::List(_) => kind == "array",
        Tree::Map(_) => kind == "object",
    })
}

/// The smallest and largest number that a schema takes.
fn range(form: &Json) -> (i64, i64) {
    let bound = |word: &str, otherwise| form.get(word).and_then(Json::as_i64).unwrap_or(otherwise);
    (bound("minimum", 0), bound("maximum", i64::MAX))
}

fn in_range(number: i64, form: &Json) -> bool {
    let (least, most) = range(form);
    (least..=most).contains(&number)
}

fn described(form: &Json) -> Option<String> {
    types(form).find_map(|kind| match kind {
        "string" => Some("text".to_owned()),
        "boolean" => Some("true or false".to_owned()),
        "integer" => Some(match range(form) {
            (least, most) if least == most => format!("the number {least}"),
            (least, i64::MAX) => format!("a whole number of {least} or more"),
            (least, most) => format!("a whole number from {least} to {most}"),
        }),
        "array" => Some("a list".to_owned()),
        "object" => Some("a mapping".to_owned()),
        _ => None,
    })
}

/// What the YAML parser or serde said, where there is nothing better: duplicate keys, tabs, broken quotes.
pub(super) fn foreign(error: &serde_saphyr::Error) -> Problem {
    let place = error.location().unwrap_or(Location::UNKNOWN);
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error.without_snippet() {
        let key = key.as_deref().unwrap_or("this key");
        return Problem::at(place, format!("`{key}` stands twice in the same mapping"))
            .label("the second one")
            .help("merge the two, or remove one");
    }
    let message = error.render_with_options(serde_saphyr::render_options! {
        formatter: &serde_saphyr::UserMessageFormatter,
        snippets: serde_saphyr::SnippetMode::Off,
    });
    // The report shows the place anyway.
    let suffix = format!(" at line {}, column {}", place.line(), place.column());
    let message = message.strip_suffix(&suffix).unwrap_or(&message);
    let problem = Problem::at(place, message);
    if message.contains("tab") {
        problem.help("YAML is indented with spaces")
    } else {
        problem
    }
}

/// The name that somebody probably meant.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let is_near = |distance: usize, name: &str| {
        let shortened = written.len() >= 3 && name.starts_with(&written);
        shortened || distance <= 1.max(name.chars().count() / 3)
    };
    known
        .map(|name| (strsim::damerau_levenshtein(&written, &name.to_lowercase()), name))
        .filter(|(distance, name)| is_near(*distance, name))
        .min()
        .map(|(_, name)| name)
}

/// Names as they stand in a sentence.
pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Bool)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(Some(number)))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Integer(i64::try_from(number).ok()))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Integer(None))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Integer(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}
