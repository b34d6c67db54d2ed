//! Errors for people: what failed, why, what to do next. Causes are walked once, and never shown as Rust sees them.

use std::error::Error as _;
use std::fmt::Write as _;

use lifeboat_model::Error;
use owo_colors::OwoColorize as _;

/// The chain below an error, outermost first, without what its own sentence already says.
#[must_use]
pub(crate) fn causes(error: &Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut found = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let sentence = cause.to_string();
        if !sentence.is_empty() && !said.contains(&sentence) {
            said.push('\n');
            said.push_str(&sentence);
            found.push(sentence);
        }
        next = cause.source();
    }
    found
}

/// The error as it goes to stderr.
#[must_use]
pub(crate) fn for_people(error: &Error) -> String {
    let mut text = format!("{} {error}\n", "error:".red().bold());
    for cause in causes(error) {
        // Writing to a String cannot fail.
        if writeln!(text, "  because: {}", cause.replace('\n', "\n    ")).is_err() {}
    }
    if let Some(hint) = error.hint()
        && writeln!(text, "{} {hint}", "hint:".cyan().bold()).is_err()
    {}
    text
}
