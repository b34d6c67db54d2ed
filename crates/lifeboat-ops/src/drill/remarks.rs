//! What people say of a whole drill behind it: whether somebody else than the tester accepts its report, and what has to be done about what it found.
//!
//! Files `remark-NNNN.json` beside the report, which are only added (DR-07).

use std::path::{Path, PathBuf};

use lifeboat_io::durable;
use lifeboat_model::drill::Standing;
use lifeboat_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::evidence::{self, Written};

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Remark {
    /// Who said it.
    pub who: String,
    /// When, RFC 3339.
    pub at: String,
    /// What else he said.
    pub note: Option<String>,
    /// What was said.
    #[serde(flatten)]
    pub what: What,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The report was read by somebody who did not do the drill.
    Approval {
        /// Whether he accepts it.
        accepted: bool,
        /// SHA-256 of the report that he read, hexadecimal.
        report_sha256: String,
    },
    /// Something has to be done.
    Action {
        /// What.
        text: String,
        /// By whom.
        owner: String,
        /// Until when: a date, `2026-12-01`.
        due: Option<String>,
    },
    /// It was done.
    Done {
        /// Which action, from 1.
        action: usize,
    },
}

/// Something that has to be done, and whether it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Which one of its drill, from 1.
    pub action: usize,
    /// What.
    pub text: String,
    /// By whom.
    pub owner: String,
    /// Until when: a date.
    pub due: Option<String>,
    /// Who said that it was done, and when.
    pub done: Option<(String, String)>,
}

impl Action {
    /// Whether it waits longer than it was to. `today` is a date such as `2026-11-22`.
    #[must_use]
    pub fn overdue(&self, today: &str) -> bool {
        self.done.is_none() && self.due.as_deref().is_some_and(|due| due < today)
    }
}

impl Written {
    /// What has to be done about what it found, in the order in which it was said.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        for remark in &self.remarks {
            match &remark.what {
                What::Action { text, owner, due } => actions.push(Action {
                    action: actions.len() + 1,
                    text: text.clone(),
                    owner: owner.clone(),
                    due: due.clone(),
                    done: None,
                }),
                What::Done { action } => {
                    if let Some(action) = action.checked_sub(1).and_then(|place| actions.get_mut(place)) {
                        action.done.get_or_insert((remark.who.clone(), remark.at.clone()));
                    }
                }
                What::Approval { .. } => {}
            }
        }
        actions
    }

    /// What was said last of the report as a whole, and whether it was accepted.
    #[must_use]
    pub fn approval(&self) -> Option<(&Remark, bool)> {
        let last = self.remarks.iter().rev();
        last.filter_map(|remark| match &remark.what {
            What::Approval { accepted, .. } => Some((remark, *accepted)),
            _ => None,
        })
        .next()
    }
}

fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("remark-{number:04}.json"))
}

/// All of a drill, oldest first.
pub(super) fn of(folder: &Path) -> Result<Vec<Remark>> {
    let mut found = Vec::new();
    while let Some(remark) = evidence::read::<Remark>(&path(folder, found.len()))? {
        found.push(remark);
    }
    Ok(found)
}

/// Writes down a remark. What was said before stays.
///
/// # Errors
/// `Refused` for an approval by the tester himself, or while items wait for people; `Usage` for an action that there is not, and for empty words.
pub fn add(state_dir: &Path, written: &Written, remark: &Remark) -> Result<Written> {
    refuse(written, remark)?;
    let bytes = serde_json::to_vec_pretty(remark)
        .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what was said", error.to_string()))?;
    let mut number = written.remarks.len();
    while durable::create_file(&path(&written.folder, number), &bytes, durable::FILE_MODE)? == durable::Created::AlreadyThere {
        number += 1;
    }
    evidence::find(state_dir, Some(&written.report.id))
}

fn refuse(written: &Written, remark: &Remark) -> Result<()> {
    let id = &written.report.id;
    let refused = |kind, verb: &'static str, detail: String| Error::new(kind, verb, id, detail);
    let wordless = |text: &str| text.trim().is_empty();
    if wordless(&remark.who) {
        return Err(
            refused(ErrorKind::Usage, "take a remark on", "nobody says it".to_owned()).with_hint("name somebody with --by")
        );
    }
    match &remark.what {
        What::Approval { .. } => {
            let tester = &written.report.who.tester;
            if remark.who.trim().eq_ignore_ascii_case(tester.trim()) {
                let detail = format!("{tester} did the drill: what it shows is accepted by somebody else");
                return Err(refused(ErrorKind::Refused, "approve", detail)
                    .with_hint("let another person read the report; --by names him"));
            }
            if written.standing() == Standing::Waiting {
                let detail = "items still wait for people".to_owned();
                return Err(refused(ErrorKind::Refused, "approve", detail)
                    .with_hint(format!("`lifeboat drill report {id}` lists them; tick them first")));
            }
            Ok(())
        }
        What::Action { text, owner, .. } if wordless(text) || wordless(owner) => Err(refused(
            ErrorKind::Usage,
            "take an action for",
            "it says not what, or not who".to_owned(),
        )),
        What::Action { .. } => Ok(()),
        What::Done { action } => match written.actions().iter().find(|known| known.action == *action) {
            None => Err(
                refused(ErrorKind::Usage, "close an action of", format!("it has no action {action}"))
                    .with_hint("`lifeboat drill actions` lists them"),
            ),
            Some(known) => match &known.done {
                Some((who, at)) => {
                    let detail = format!("{who} said at {at} that action {action} was done");
                    Err(refused(ErrorKind::Refused, "close an action of", detail).with_hint("there is nothing left to do"))
                }
                None => Ok(()),
            },
        },
    }
}
