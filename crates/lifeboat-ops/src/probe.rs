//! Probes: what the application itself says, before a disaster or after one. Each asks one thing of it as a user would, and none writes.
//!
//! A probe that cannot be asked has failed: whoever waits for the application cannot use it either. Must not know what was restored.

mod address;
mod certificate;
mod command;
mod file;
mod http;
mod tls;
mod websocket;

use std::time::Duration;

use lifeboat_model::check::Outcome;
use lifeboat_model::{Env, Error};

pub use address::{Address, Header};
pub use certificate::{Certificate, Place};
pub use command::Command;
pub use file::File;
pub use http::Http;
pub use websocket::WebSocket;

/// How long a probe may take unless something else is said.
pub const WITHIN: Duration = Duration::from_secs(10);
/// How long a command may take unless something else is said.
pub const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// How long a certificate has to be valid from now on unless something else is said.
pub const VALID_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Characters of something foreign that are shown in a line.
const SHOWN: usize = 200;

/// One thing that is asked, and what it is called.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What it is called in reports.
    pub name: String,
    /// What is asked.
    pub asked: Asked,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Asked {
    /// An answer to a GET.
    Http(Http),
    /// An answer to a ping over a WebSocket.
    WebSocket(WebSocket),
    /// That a program ends with 0.
    Command(Command),
    /// That certificates last.
    Certificate(Certificate),
    /// That a file is there.
    File(File),
}

/// What was found: the sentence, and what was seen.
#[derive(Debug, Default)]
struct Found {
    says: String,
    evidence: Vec<String>,
}

/// `Ok` where it holds.
type Answer = Result<Found, Found>;

impl Found {
    fn new(says: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            evidence: Vec::new(),
        }
    }

    fn seeing(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }
}

/// What stands in the way of asking, and what to do about it.
impl From<Error> for Found {
    fn from(error: Error) -> Self {
        let found = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => found.seeing(format!("hint: {hint}")),
            None => found,
        }
    }
}

/// Asks all of them, one after the other, so that none is slow because of another. One outcome for each, in their order.
pub async fn run(env: &Env, probes: &[Probe]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for probe in probes {
        env.progress.step(&format!("probe {}", probe.name), None);
        let answer = match &probe.asked {
            Asked::Http(http) => http::ask(env, http).await,
            Asked::WebSocket(websocket) => websocket::ask(env, websocket).await,
            Asked::Command(command) => command::ask(env, command).await,
            Asked::Certificate(certificate) => certificate::ask(env, certificate).await,
            Asked::File(file) => file::ask(env, file).await,
        };
        outcomes.push(match answer {
            Ok(found) => Outcome::passed(&probe.name, found.says).with_evidence(found.evidence),
            Err(found) => Outcome::failed(&probe.name, found.says).with_evidence(found.evidence),
        });
    }
    env.progress.finish();
    outcomes
}

/// The whole of an answer within a limit.
async fn within(limit: Duration, subject: &str, answer: impl Future<Output = Answer>) -> Answer {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let limit = lifeboat_model::time::human_duration(limit);
            Err(Found::new(format!("{subject} did not answer within {limit}")))
        }
    }
}

/// Text of somebody else as one line that cannot move the cursor, not too long.
fn shown(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let line: String = plain.collect();
    let line = line.trim();
    if line.chars().count() <= SHOWN {
        return line.to_owned();
    }
    let kept: String = line.chars().take(SHOWN).collect();
    format!("{kept}…")
}

/// An error with all its causes, each once: the outermost of a client alone says only that something went wrong.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_one_short_line() {
        assert_eq!(shown(" a\u{1b}[2J\nb "), "a [2J b");
        assert_eq!(shown(&"ü".repeat(300)).chars().count(), SHOWN + 1);
    }
}
