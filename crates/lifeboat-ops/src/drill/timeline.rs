//! When each step of a drill began: it watches the progress that the restore tells anyway, so that nothing is measured but what was done.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_model::env::{Clock, Progress};
use lifeboat_model::{Env, env};

/// A step that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    /// Since the drill began.
    pub(super) offset: Duration,
    /// By the wall clock, microseconds since 1970.
    pub(super) at_us: i64,
}

/// Watches, and tells whoever watched before.
#[derive(Debug)]
pub(super) struct Timeline {
    inner: Arc<dyn Progress>,
    clock: Arc<dyn Clock>,
    began: Duration,
    steps: Mutex<Vec<Step>>,
}

impl Timeline {
    /// Begins now. Returns the surroundings in which what is to be measured runs.
    pub(super) fn begin(env: &Env) -> (Arc<Self>, Env) {
        let timeline = Arc::new(Self {
            inner: Arc::clone(&env.progress),
            clock: Arc::clone(&env.clock),
            began: env.clock.monotonic(),
            steps: Mutex::new(Vec::new()),
        });
        let watched = Env {
            progress: Arc::clone(&timeline) as Arc<dyn Progress>,
            ..env.clone()
        };
        (timeline, watched)
    }

    /// Since it began.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.began)
    }

    /// Everything that began so far.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl env::Progress for Timeline {
    fn step(&self, name: &str, total_bytes: Option<u64>) {
        let step = Step {
            name: name.to_owned(),
            offset: self.now(),
            at_us: self.clock.wall_us(),
        };
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        self.inner.step(name, total_bytes);
    }

    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn finish(&self) {
        self.inner.finish();
    }
}
