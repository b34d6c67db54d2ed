//! Single values: names, paths, durations, sizes.
//!
//! Each check reports and goes on with something harmless, so that the rest of the file is checked too. Must not know
//! how values belong together.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use lifeboat_model::time::{parse_duration, parse_size};
use lifeboat_repo::ComponentName;

use super::{DEFAULT_LIMIT, Lowering};
use crate::config::check::{list, nearest};
use crate::config::file::At;
use crate::config::problem::Problem;
use crate::config::settings::{MinFree, Priority};

impl Lowering<'_> {
    pub(in crate::config) fn name(&mut self, name: &At<String>, what: &str) {
        // The repository has the last word on names; the other half of the test name is always sound.
        if ComponentName::new(format!("x/{}", name.value)).is_err() {
            self.problems.push(
                Problem::at(name.place, format!("`{}` is not a name for {what}", name.value)).help(
                    "a name has letters, digits, `-`, `_` and `.`, begins with a letter, digit or `_`, and has at most 64 characters",
                ),
            );
        }
    }

    pub(in crate::config) fn unknown(&mut self, name: &At<String>, what: &str, section: &str, known: &[&str]) {
        let problem = Problem::at(name.place, format!("unknown {what} `{}`", name.value));
        let problem = match nearest(&name.value, known.iter().copied()) {
            Some(near) => problem.label(format!("did you mean `{near}`?")),
            None => problem.label(format!("not known under `{section}`")),
        };
        self.problems.push(problem.help(format!("known {section}: {}", list(known))));
    }

    /// An absolute path; a relative one begins at the folder of the configuration.
    pub(super) fn path(&mut self, text: &At<String>) -> PathBuf {
        if text.value.trim().is_empty() || text.value.contains('\0') {
            self.problems
                .push(Problem::at(text.place, "this is not a path").label("empty or not allowed"));
        }
        if text.value == "~" || text.value.starts_with("~/") || text.value.contains("${") || text.value.starts_with('$') {
            self.problems.push(
                Problem::at(text.place, format!("`{}` would not be expanded", text.value))
                    .label("`~` and `$` are taken as they stand")
                    .help("write the full path"),
            );
        }
        tidy(&self.folder.join(&text.value))
    }

    pub(super) fn duration(&mut self, text: &At<String>, what: &str, example: &str) -> Duration {
        match parse_duration(&text.value) {
            Ok(duration) => duration,
            Err(error) => {
                let problem = Problem::at(text.place, format!("`{what}` is not a duration")).label(error.detail());
                let number = text.value.trim();
                let bare = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
                self.problems.push(if bare {
                    let unit = example.trim_start_matches(|letter: char| letter.is_ascii_digit());
                    problem.help(format!("write the unit: `{what}: {number}{unit}` (units: w, d, h, m, s, ms)"))
                } else {
                    problem.help(format!("write a whole number and a unit, for example `{what}: {example}`"))
                });
                DEFAULT_LIMIT
            }
        }
    }

    /// A duration that must not be zero.
    pub(in crate::config) fn some_duration(&mut self, text: &At<String>, what: &str, example: &str) -> Duration {
        let duration = self.duration(text, what, example);
        if duration.is_zero() {
            self.problems.push(
                Problem::at(text.place, format!("`{what}` is zero, which nothing can keep"))
                    .label("must be longer")
                    .help(format!("for example `{what}: {example}`")),
            );
        }
        duration
    }

    pub(super) fn priority(&mut self, text: Option<&At<String>>) -> Priority {
        let Some(text) = text else { return Priority::Normal };
        let known = Priority::ALL.map(Priority::word);
        match Priority::ALL.into_iter().find(|priority| priority.word() == text.value) {
            Some(priority) => priority,
            None => {
                self.unknown(text, "priority", "priorities", &known);
                Priority::Normal
            }
        }
    }

    pub(super) fn min_free(&mut self, text: &At<String>) -> Option<MinFree> {
        let written = text.value.trim();
        let parsed = match written.strip_suffix('%') {
            Some(number) => match number.trim().parse::<u8>() {
                Ok(percent) if percent < 100 => Ok(MinFree::Percent(percent)),
                _ => Err("a percentage is a whole number from 0% to 99%".to_owned()),
            },
            None => parse_size(written)
                .map(MinFree::Bytes)
                .map_err(|error| error.detail().to_owned()),
        };
        match parsed {
            Ok(min_free) => Some(min_free),
            Err(reason) => {
                self.problems.push(
                    Problem::at(text.place, "`min_free` is neither a percentage nor a size")
                        .label(reason)
                        .help("for example `min_free: 5%` or `min_free: 10GiB`"),
                );
                None
            }
        }
    }
}

/// Without `.`, and without `..` where that changes nothing but the text: `a/..` may lead elsewhere through a link.
fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

/// The place a path means: links are followed as far as it is there, the rest is taken as text.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut rest: Vec<Component<'_>> = Vec::new();
    let mut parts = path.components();
    loop {
        let known = parts.as_path();
        if let Ok(found) = known.canonicalize() {
            return rest.iter().rev().fold(found, |mut joined, part| {
                match part {
                    Component::ParentDir => {
                        joined.pop();
                    }
                    other => joined.push(other),
                }
                joined
            });
        }
        match parts.next_back() {
            Some(part) => rest.push(part),
            None => return path.to_owned(),
        }
    }
}
