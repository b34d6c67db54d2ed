//! That a file is there, holds something, and is not old.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use lifeboat_io::compute;
use lifeboat_model::Env;
use lifeboat_model::time::{human_bytes, human_duration};

use super::{Answer, Found};

/// A file is looked through up to here.
const LIMIT_BYTES: u64 = 64 << 20;

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// Text that stands in it.
    pub contains: Option<String>,
    /// How long ago it was changed at most.
    pub max_age: Option<Duration>,
}

pub(super) async fn ask(env: &Env, file: &File) -> Answer {
    let (file, now_us) = (file.clone(), env.clock.wall_us());
    compute::run("look at a file", move || Ok(look(&file, now_us))).await?
}

fn look(file: &File, now_us: i64) -> Answer {
    let path = file.path.display();
    let metadata = std::fs::metadata(&file.path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Found::new(format!("{path} is not there")),
        _ => Found::new(format!("{path} cannot be looked at: {error}")),
    })?;
    if !metadata.is_file() {
        return Err(Found::new(format!("{path} is no regular file")));
    }
    let changed = metadata.modified();
    let changed = changed.map_err(|error| Found::new(format!("{path} does not say when it was changed: {error}")))?;
    let since = Duration::from_micros(u64::try_from(now_us).unwrap_or(0));
    // Clocks of machines differ a little: what seems to lie ahead was changed just now.
    let age = (UNIX_EPOCH + since).duration_since(changed).unwrap_or_default();
    let seen = format!("{}, changed {} ago", human_bytes(metadata.len()), human_duration(age));
    if let Some(max_age) = file.max_age.filter(|max_age| age > *max_age) {
        let says = format!("{path} was not changed for longer than {}", human_duration(max_age));
        return Err(Found::new(says).seeing(seen));
    }
    let found = Found::new(format!("{path} is there")).seeing(seen);
    let Some(text) = &file.contains else { return Ok(found) };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(&file.path);
    let read = opened.and_then(|opened| opened.take(LIMIT_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| Found::new(format!("{path} cannot be read: {error}")))?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(Found::new(format!(
            "{path} is longer than 64 MiB, which is not looked through"
        )));
    }
    if text.is_empty() || bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
        Ok(found.seeing(format!("it contains {text:?}")))
    } else {
        let says = format!("{path} does not contain {text:?}");
        Err(Found { says, ..found })
    }
}
