//! What is wrong with a configuration, and how that is shown: message, line, column and the lines around it.
//!
//! Never in colour, because the text also goes into logs and JSON. Must not let a secret through: private keys are
//! masked in messages and in the quoted lines.

use std::fmt;
use std::path::Path;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceSpan};
use serde_saphyr::Location;

/// How wide a report is, in columns.
const WIDTH: usize = 120;

/// What every age secret key begins with; the rest is the secret.
const SECRET_PREFIX: &str = "AGE-SECRET-KEY-";

/// Names of headers whose values are secrets, in lower case: in the clear they give a warning, and are never shown.
pub(super) const SECRET_HEADERS: &[&str] = &["authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"];

/// Keys whose value is a credential when it is no reference.
const SECRET_FIELDS: [&str; 5] = ["access_key", "secret_key", "session_token", "account_key", "sas_token"];

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    message: String,
    place: Option<Location>,
    label: Option<String>,
    help: Option<String>,
}

impl Problem {
    /// Something wrong at `place`.
    pub(super) fn at(place: Location, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            place: (place.line() > 0).then_some(place),
            label: None,
            help: None,
        }
    }

    /// Something wrong with the file as a whole.
    pub(super) fn general(message: impl Into<String>) -> Self {
        Self::at(Location::UNKNOWN, message)
    }

    /// What stands beside the marked text.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All problems as text, in the order of the file.
pub(super) fn render(path: &Path, text: &str, mut problems: Vec<Problem>) -> String {
    problems.sort_by_key(|problem| problem.place.map(|place| (place.line(), place.column())));
    let masked = mask(text);
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(WIDTH)
        .with_links(false);
    let mut out = match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    for problem in &problems {
        let report = Report {
            message: mask(&problem.message),
            help: problem.help.as_deref().map(mask),
            label: problem
                .place
                .map(|place| LabeledSpan::new_with_span(problem.label.as_deref().map(mask), span(&masked, place))),
            source: NamedSource::new(path.display().to_string(), masked.clone()),
        };
        let mut rendered = String::new();
        if handler.render_report(&mut rendered, &report).is_err() {
            rendered.clone_from(&report.message);
        }
        out.push_str("\n\n");
        let lines: Vec<&str> = rendered
            .lines()
            .map(str::trim_end)
            .skip_while(|line| line.is_empty())
            .collect();
        out.push_str(lines.join("\n").trim_end());
    }
    out
}

/// The bytes to mark: the scalar, but never beyond its line.
fn span(text: &str, place: Location) -> SourceSpan {
    let to_index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut start = 0;
    let mut line = "";
    for (index, candidate) in text.split_inclusive('\n').enumerate() {
        if index + 1 == to_index(place.line()) {
            line = candidate.trim_end_matches(['\n', '\r']);
            break;
        }
        start += candidate.len();
    }
    let skipped: usize = line.chars().take(to_index(place.column()) - 1).map(char::len_utf8).sum();
    let rest = line.get(skipped..).unwrap_or("");
    let length: usize = rest.chars().take(to_index(place.span().len())).map(char::len_utf8).sum();
    // A mapping or list has no length of its own: mark its first word.
    let word = rest.find([':', ' ', ',', '}', ']']).unwrap_or(rest.len());
    let length = if length == 0 { word } else { length };
    SourceSpan::from((start + skipped, length))
}

/// The text without what could be a secret, replaced character by character, so that columns stay where they are.
fn mask(text: &str) -> String {
    text.split_inclusive('\n').map(|line| mask_logins(&mask_keys(line))).collect()
}

/// A line without what stands in the clear after the keys that hold credentials, and without a password in an address.
fn mask_logins(line: &str) -> String {
    let mut letters: Vec<char> = line.chars().collect();
    // Names of headers are written in any case. ASCII keeps its length.
    let lower = line.to_ascii_lowercase();
    for field in SECRET_FIELDS.iter().chain(SECRET_HEADERS) {
        let mut from = 0;
        while let Some(end) = lower
            .get(from..)
            .and_then(|rest| rest.find(*field))
            .map(|at| from + at + field.len())
        {
            from = end;
            let rest = line.get(end..).unwrap_or("");
            let Some(value) = rest.trim_start_matches(['"', '\'']).strip_prefix(':').map(str::trim_start) else {
                continue;
            };
            let begin = line
                .get(..line.len() - value.len())
                .map_or(0, |before| before.chars().count());
            let length = match value.chars().next() {
                None | Some('{') => 0,
                Some(quote @ ('"' | '\'')) => 1 + value.chars().skip(1).take_while(|letter| *letter != quote).count(),
                Some(_) => value
                    .chars()
                    .take_while(|letter| !matches!(letter, ',' | '}' | '\n' | '\r'))
                    .count(),
            };
            letters[begin..begin + length].fill('*');
        }
    }
    if let Some(at) = line.find("://") {
        let after = line.get(at + 3..).unwrap_or("");
        let login: usize = after
            .chars()
            .take_while(|letter| !matches!(letter, '/' | ' ' | '\n' | '@'))
            .count();
        if after.chars().nth(login) == Some('@') {
            let begin = line.get(..at + 3).map_or(0, |before| before.chars().count());
            letters[begin..begin + login].fill('*');
        }
    }
    letters.into_iter().collect()
}

/// The text with the secret part of every age key replaced.
fn mask_keys(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    let mut out = String::with_capacity(text.len());
    let mut secret = false;
    for (index, letter) in text.char_indices() {
        if upper
            .as_bytes()
            .get(..index)
            .is_some_and(|before| before.ends_with(SECRET_PREFIX.as_bytes()))
        {
            secret = true;
        }
        secret = secret && letter.is_ascii_alphanumeric();
        out.push(if secret { '*' } else { letter });
    }
    out
}

/// One problem in the form that miette draws.
#[derive(Debug)]
struct Report {
    message: String,
    help: Option<String>,
    label: Option<LabeledSpan>,
    source: NamedSource<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label
            .as_ref()
            .map(|label| Box::new(std::iter::once(label.clone())) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_every_key_in_any_case_and_keeps_the_length() {
        let text = "a: AGE-SECRET-KEY-1QQ b\nb: age-secret-key-1xyz,";
        let masked = mask(text);
        assert_eq!(masked, "a: AGE-SECRET-KEY-*** b\nb: age-secret-key-****,");
        assert_eq!(masked.len(), text.len());
    }

    #[test]
    fn masks_credentials_that_stand_in_the_clear_and_no_references() {
        for (text, masked) in [
            ("a: { secret_key: abc/+=, x: 1 }\n", "a: { secret_key: ******, x: 1 }\n"),
            ("  session_token: \"a b, c\" # x", "  session_token: *******\" # x"),
            (
                "sas_token: { env: A }, account_key: ü}",
                "sas_token: { env: A }, account_key: *}",
            ),
            ("\"access_key\": x", "\"access_key\": *"),
            ("endpoint: https://a:b@host/x@y", "endpoint: https://***@host/x@y"),
            ("endpoint: https://host/x@y", "endpoint: https://host/x@y"),
            ("secret_key:", "secret_key:"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
