//! A program of somebody's own, which says with its exit code whether all is well.

use std::path::PathBuf;
use std::time::Duration;

use lifeboat_io::process::{Ended, Process};
use lifeboat_model::time::human_duration;
use lifeboat_model::{Env, ErrorKind};

use super::{Answer, Found, shown};

/// How many of the last lines are shown.
const LINES: usize = 10;

/// A program and its arguments.
#[derive(Debug, Clone)]
pub struct Command {
    /// What is run. A path with `/` in it begins at `folder`, a name is looked up in `PATH`.
    pub run: Vec<String>,
    /// Where it is run.
    pub folder: PathBuf,
    /// How long it may take.
    pub within: Duration,
}

pub(super) async fn ask(env: &Env, command: &Command) -> Answer {
    let Some((program, args)) = command.run.split_first() else {
        return Err(Found::new("no program is named"));
    };
    let place = if program.contains('/') {
        command.folder.join(program).into_os_string()
    } else {
        program.into()
    };
    let process = Process::new(place, command.within).folder(&command.folder);
    let process = args.iter().fold(process, |process, arg| process.arg(arg));
    let began = env.clock.monotonic();
    let ended = process.finish_or_stop().await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Found::new(format!("{program} is not there"))
            .seeing("hint: a path begins at the folder of the configuration, and a name is looked up in PATH"),
        _ => error.into(),
    })?;
    let output = match ended {
        Ended::Itself(output) => output,
        Ended::Stopped { stdout, stderr } => {
            let within = human_duration(command.within);
            return Err(Found {
                says: format!("{program} did not end within {within} and was stopped, with all that it had started"),
                evidence: last_lines(&[stdout, stderr]),
            });
        }
    };
    let took = human_duration(env.clock.monotonic().saturating_sub(began));
    let says = format!("{program} ended with {} after {took}", output.status);
    let found = Found {
        says,
        evidence: last_lines(&[output.stdout, output.stderr]),
    };
    if output.status.success() { Ok(found) } else { Err(found) }
}

/// The last lines that say anything: what stands on standard error comes last, as the reason does.
fn last_lines(streams: &[Vec<u8>]) -> Vec<String> {
    let mut lines = Vec::new();
    for stream in streams {
        let text = String::from_utf8_lossy(stream);
        lines.extend(text.lines().map(shown).filter(|line| !line.is_empty()));
    }
    let from = lines.len().saturating_sub(LINES);
    lines.split_off(from)
}
