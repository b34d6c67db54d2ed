//! Progress on stderr: a bar on a terminal, otherwise a plain line every 30 seconds or 10 percent.
//!
//! Called from several threads for every block of data: the common path is one atomic addition and one comparison.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lifeboat_model::env::Silent;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Clock, Progress};

use super::text;
use crate::cli::args::ProgressMode;

/// A plain line comes at least this often while something moves.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// And whenever another part of this size is done, but never oftener than this: a step of a second needs no lines.
const LINE_PARTS: u64 = 10;
const LINE_GAP: Duration = Duration::from_secs(1);

/// Chooses how progress is shown.
#[must_use]
pub(crate) fn choose(mode: ProgressMode, quiet: bool, clock: &Arc<dyn Clock>) -> Arc<dyn Progress> {
    match mode {
        _ if quiet => Arc::new(Silent),
        ProgressMode::None => Arc::new(Silent),
        ProgressMode::Bar => Arc::new(Bar::default()),
        ProgressMode::Auto if stderr().is_terminal() => Arc::new(Bar::default()),
        ProgressMode::Auto | ProgressMode::Plain => Arc::new(Plain::new(Arc::clone(clock), line, false)),
        ProgressMode::Json => Arc::new(Plain::new(Arc::clone(clock), json_line, true)),
    }
}

/// One bar at a time, redrawn in place.
#[derive(Debug, Default)]
struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn current(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Bar {
    fn step(&self, name: &str, total_bytes: Option<u64>) {
        let bar = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
        let template = if total_bytes.is_some() {
            "{msg:12} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left"
        } else {
            "{msg:12} {spinner} {decimal_bytes} in {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_message(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        if let Some(old) = self.current().replace(bar) {
            old.finish_and_clear();
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = self.current().as_ref() {
            bar.inc(bytes);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.current().take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Lines for logs.
#[derive(Debug)]
struct Plain {
    clock: Arc<dyn Clock>,
    /// How a line looks.
    form: fn(&Step, u64, Duration) -> String,
    /// Whether there is a line when a step begins: programs want to know, logs would be full of them.
    at_begin: bool,
    done: AtomicU64,
    step: Mutex<Option<Step>>,
}

#[derive(Debug)]
struct Step {
    name: String,
    total_bytes: Option<u64>,
    began: Duration,
    last_line: Duration,
    last_part: u64,
}

impl Plain {
    fn new(clock: Arc<dyn Clock>, form: fn(&Step, u64, Duration) -> String, at_begin: bool) -> Self {
        Self {
            clock,
            form,
            at_begin,
            done: AtomicU64::new(0),
            step: Mutex::new(None),
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Step>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Plain {
    fn step(&self, name: &str, total_bytes: Option<u64>) {
        let now = self.clock.monotonic();
        self.done.store(0, Ordering::Relaxed);
        let step = Step {
            name: name.to_owned(),
            total_bytes,
            began: now,
            last_line: now,
            last_part: 0,
        };
        if self.at_begin {
            say(&(self.form)(&step, 0, now));
        }
        *self.current() = Some(step);
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        // Somebody else is looking already: the next block will do.
        let Ok(mut current) = self.step.try_lock() else { return };
        let Some(step) = current.as_mut() else { return };
        let now = self.clock.monotonic();
        let part = step
            .total_bytes
            .and_then(|total| done.saturating_mul(LINE_PARTS).checked_div(total))
            .unwrap_or(0);
        let silent_for = now.saturating_sub(step.last_line);
        if (part > step.last_part && silent_for >= LINE_GAP) || silent_for >= LINE_EVERY {
            step.last_part = part;
            step.last_line = now;
            say(&(self.form)(step, done, now));
        }
    }

    fn finish(&self) {
        *self.current() = None;
    }
}

/// One JSON object on a line of its own.
fn json_line(step: &Step, done: u64, now: Duration) -> String {
    serde_json::json!({
        "schema": "lifeboat/v1/progress",
        "step": step.name,
        "done_bytes": done,
        "total_bytes": step.total_bytes,
        "elapsed_s": now.saturating_sub(step.began).as_secs_f64(),
    })
    .to_string()
}

/// `back up: 40 % (16 MB of 40 MB), 210 MB/s, 1.2s left`.
fn line(step: &Step, done: u64, now: Duration) -> String {
    let took = now.saturating_sub(step.began);
    let rate = text::rate(done, took);
    match step.total_bytes {
        Some(total) if total > 0 => {
            let done = done.min(total);
            let percent = u128::from(done) * 100 / u128::from(total);
            let left_ms = took.as_millis() * u128::from(total - done) / u128::from(done.max(1));
            let left = human_duration(Duration::from_millis(u64::try_from(left_ms).unwrap_or(u64::MAX)));
            format!(
                "{}: {percent} % ({} of {}), {rate}, {left} left",
                step.name,
                human_bytes(done),
                human_bytes(total)
            )
        }
        _ => format!(
            "{}: {}, {rate}, {} so far",
            step.name,
            human_bytes(done),
            human_duration(took)
        ),
    }
}

fn say(line: &str) {
    // A closed stderr must not stop a backup.
    if writeln!(stderr().lock(), "{line}").is_err() {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Step, line};

    fn step(total_bytes: Option<u64>) -> Step {
        Step {
            name: "back up".to_owned(),
            total_bytes,
            began: Duration::from_secs(5),
            last_line: Duration::ZERO,
            last_part: 0,
        }
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_still() {
        let now = Duration::from_secs(15);
        assert_eq!(
            line(&step(Some(40_000_000)), 10_000_000, now),
            "back up: 25 % (10 MB of 40 MB), 1.0 MB/s, 30s left"
        );
        assert_eq!(line(&step(None), 10_000_000, now), "back up: 10 MB, 1.0 MB/s, 10s so far");
        // More than was announced (the source grew), nothing yet, no time: no nonsense.
        assert_eq!(
            line(&step(Some(10)), 20, now),
            "back up: 100 % (10 B of 10 B), 2 B/s, 0s left"
        );
        assert!(line(&step(Some(10)), 0, Duration::from_secs(5)).starts_with("back up: 0 % (0 B of 10 B)"));
    }
}
