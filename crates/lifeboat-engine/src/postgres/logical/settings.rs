//! Settings of databases and roles as SQL.

use super::{quoted_name, quoted_text};

/// A custom setting has a dot in its name.
pub(super) fn setting_name(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quoted_name).collect();
    parts.join(".")
}

/// Settings that are lists of names: their stored form is a list of quoted identifiers, and as one text they would be one name
/// (`variable_is_guc_list_quote` in PostgreSQL's `dumputils.c`).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

pub(super) fn setting_value(name: &str, value: &str) -> String {
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return quoted_text(value);
    }
    let items = list_items(value);
    if items.is_empty() {
        return "''".to_owned();
    }
    let items: Vec<String> = items.iter().map(|item| quoted_text(item)).collect();
    items.join(", ")
}

/// The names of a stored list: `"$user", public`.
fn list_items(value: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut letters = value.chars().peekable();
    while letters.peek().is_some() {
        while letters.next_if(|letter| *letter == ',' || letter.is_whitespace()).is_some() {}
        let mut item = String::new();
        if letters.next_if_eq(&'"').is_some() {
            while let Some(letter) = letters.next() {
                if letter != '"' {
                    item.push(letter);
                } else if letters.next_if_eq(&'"').is_some() {
                    item.push('"');
                } else {
                    break;
                }
            }
            items.push(item);
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                item.push(letter);
            }
            let item = item.trim();
            if !item.is_empty() {
                items.push(item.to_owned());
            }
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_set_as_lists() {
        assert_eq!(
            setting_value("search_path", "\"$user\", public, \"a \"\"b\"\", c\""),
            "'$user', 'public', 'a \"b\", c'"
        );
        assert_eq!(setting_value("search_path", ""), "''");
        assert_eq!(setting_value("search_path", "\"\""), "''");
        assert_eq!(setting_value("work_mem", "64MB, it's"), "'64MB, it''s'");
        assert_eq!(setting_name("app.tenant"), "\"app\".\"tenant\"");
    }
}
