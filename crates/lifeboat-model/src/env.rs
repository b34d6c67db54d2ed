//! What a program would otherwise take from the air: time, randomness, and somebody who watches progress.
//!
//! The real ones are built once, in the binary; tests inject their own, so that a clock can step back and a run can be repeated.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::Result;

/// Wall and monotonic time.
pub trait Clock: Debug + Send + Sync {
    /// Wall-clock time in microseconds since 1970-01-01T00:00:00Z. May step in either direction: never decides correctness.
    fn wall_us(&self) -> i64;
    /// Time since an arbitrary start; never steps back. All durations and deadlines are measured with it.
    fn monotonic(&self) -> Duration;
}

/// Randomness for identifiers, keys and salts.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `bytes` from a cryptographically secure source; fails rather than returning weak bytes.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// Somebody who is told how a long step gets on. Calls come from several threads and must be cheap.
pub trait Progress: Debug + Send + Sync {
    /// A named step begins; `total_bytes` is what it will process, where that is known.
    fn step(&self, name: &str, total_bytes: Option<u64>);
    /// `bytes` more were processed in the current step.
    fn advance(&self, bytes: u64);
    /// The current step is over.
    fn finish(&self);
}

/// Nobody watches.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self) {}
}

/// Everything a verb takes from its surroundings; passed first, never global. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Who watches.
    pub progress: Arc<dyn Progress>,
    /// Threads for hashing, compressing and sealing; at least 1.
    pub threads: usize,
}
