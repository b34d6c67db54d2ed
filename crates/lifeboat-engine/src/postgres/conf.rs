//! `postgresql.conf` as far as somebody who is not the server needs it: names and values of one file, the last of a name counting.
//!
//! Included files are not followed. Whoever needs the truth asks a running server.

use std::collections::BTreeMap;

/// The settings of the text; names in lower case. Lines that make no sense are passed over: the server would refuse them, we only look.
#[must_use]
pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(String, String)> {
    let line = line.trim_start();
    let end = line.find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.')))?;
    let (name, rest) = line.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => rest.split([' ', '\t', '#']).next()?.to_owned(),
    };
    Some((name.to_ascii_lowercase(), value))
}

/// Up to the closing quote; quotes are doubled or stand behind a backslash.
fn unquote(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut letters = text.chars().peekable();
    loop {
        match letters.next()? {
            '\'' if letters.peek() == Some(&'\'') => {
                letters.next();
                value.push('\'');
            }
            '\'' => return Some(value),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

/// A list of names as settings hold them: parted by commas, quoted or not.
#[must_use]
pub fn names(value: &str) -> Vec<String> {
    let trimmed = value.split(',').map(|name| name.trim().trim_matches('"'));
    trimmed.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_as_the_server_finds_them() {
        let found = parse(
            "# comment\nmax_connections = 100 # many\nPort 5433\narchive_command = 'cp %p \\'/a b\\'/%f' # ''\n\
             log_line_prefix='it''s'\nmax_connections=200\n= nothing\nbroken = 'no end\n",
        );
        assert_eq!(found["max_connections"], "200");
        assert_eq!(found["port"], "5433");
        assert_eq!(found["archive_command"], "cp %p '/a b'/%f");
        assert_eq!(found["log_line_prefix"], "it's");
        assert!(!found.contains_key("broken"));
    }

    #[test]
    fn lists_have_names() {
        assert_eq!(names("pg_cron, \"auto_explain\" ,,x"), ["pg_cron", "auto_explain", "x"]);
        assert!(names("").is_empty());
    }
}
