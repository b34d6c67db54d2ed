//! The real clock, the real randomness and the real number of threads: made once, here, and passed to everything else.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lifeboat_model::{Clock, Entropy, Env, Error, ErrorKind, Progress, Result};

/// The clock of the operating system.
#[derive(Debug)]
struct SystemClock {
    began: Instant,
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where the clock of Env comes from")]
    fn wall_us(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            // A clock before 1970 is wrong, but it must not stop a restore.
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        }
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The random source of the operating system.
#[derive(Debug)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            Error::new(ErrorKind::Failed, "draw", "random bytes", "the operating system gave none").with_source(error)
        })
    }
}

/// The surroundings of this process; `progress` is made with its clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the clock of Env comes from")]
pub(crate) fn real(progress: impl FnOnce(&Arc<dyn Clock>) -> Arc<dyn Progress>) -> Env {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock { began: Instant::now() });
    let progress = progress(&clock);
    Env {
        clock,
        entropy: Arc::new(SystemEntropy),
        progress,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    }
}
