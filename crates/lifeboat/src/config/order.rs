//! The order in which components are recovered.
//!
//! Pure: lists in, list out. Knows nothing about files.

use std::collections::BTreeSet;

use super::settings::ComponentSettings;

/// Sorts: what others depend on first, then by priority, then by name. References must exist. If they run
/// in a circle, that circle, beginning with its smallest name, each depending on the next.
pub(super) fn by_recovery(components: Vec<ComponentSettings>) -> Result<Vec<ComponentSettings>, Vec<String>> {
    let mut waiting = components;
    waiting.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    let mut done = BTreeSet::new();
    let mut sorted = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = |component: &ComponentSettings| component.depends_on.iter().all(|name| done.contains(name));
        let Some(index) = waiting.iter().position(ready) else {
            return Err(circle(&waiting));
        };
        let component = waiting.remove(index);
        done.insert(component.name.clone());
        sorted.push(component);
    }
    Ok(sorted)
}

/// A circle among components that all wait for another of them.
fn circle(waiting: &[ComponentSettings]) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut next = waiting.iter().map(|component| component.name.as_str()).min();
    while let Some(name) = next {
        if let Some(start) = path.iter().position(|seen| *seen == name) {
            let mut found: Vec<String> = path.iter().skip(start).map(|&name| name.to_owned()).collect();
            let smallest = found
                .iter()
                .enumerate()
                .min_by_key(|(_, name)| *name)
                .map_or(0, |(index, _)| index);
            found.rotate_left(smallest);
            return found;
        }
        path.push(name);
        next = waiting
            .iter()
            .find(|component| component.name == name)
            .into_iter()
            .flat_map(|component| &component.depends_on)
            .find(|dependency| waiting.iter().any(|component| component.name == **dependency))
            .map(String::as_str);
    }
    Vec::new()
}
