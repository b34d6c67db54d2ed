//! Surroundings for tests: a clock that moves only when told, randomness from a seed, and the real ones.
//!
//! Must not be used by the product: seeded randomness protects nothing.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lifeboat_model::env::Silent;
use lifeboat_model::{Clock, Entropy, Env, Error, ErrorKind, Result};

/// Where the wall clock of [`sim_env`] begins: 2026-01-01T00:00:00Z in microseconds.
pub const START_WALL_US: i64 = 1_767_225_600_000_000;

/// A clock that stands still until a test moves it. Wall and monotonic time can be moved apart.
#[derive(Debug)]
pub struct SimClock {
    wall_us: AtomicI64,
    monotonic_us: AtomicU64,
}

impl SimClock {
    /// A clock at `wall_us` microseconds since 1970; its monotonic time begins at zero.
    #[must_use]
    pub fn new(wall_us: i64) -> Self {
        Self {
            wall_us: AtomicI64::new(wall_us),
            monotonic_us: AtomicU64::new(0),
        }
    }

    /// Lets time pass: both clocks go forward.
    pub fn advance(&self, by: Duration) {
        let wall = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let monotonic = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.wall_us.fetch_add(wall, Ordering::SeqCst);
        self.monotonic_us.fetch_add(monotonic, Ordering::SeqCst);
    }

    /// Sets the wall clock, also back; the monotonic clock does not move.
    pub fn set_wall_us(&self, wall_us: i64) {
        self.wall_us.store(wall_us, Ordering::SeqCst);
    }

    /// Steps the wall clock by `by_us` microseconds, back where it is negative; the monotonic clock does not move.
    pub fn step_wall_us(&self, by_us: i64) {
        self.wall_us.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall_us(&self) -> i64 {
        self.wall_us.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic_us.load(Ordering::SeqCst))
    }
}

/// The clock of the machine, for tests that meet real processes.
#[derive(Debug)]
pub struct RealClock {
    start: Instant,
}

impl RealClock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a clock has to read the clock")]
        let start = Instant::now();
        Self { start }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn wall_us(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "a clock has to read the clock")]
        let now = SystemTime::now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Randomness that repeats: the same seed gives the same bytes in the same order. Two of one seed behave like a machine
/// and its clone.
#[derive(Debug)]
pub struct SeededEntropy {
    stream: Mutex<blake3::OutputReader>,
}

impl SeededEntropy {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            stream: Mutex::new(stream_of(seed, "entropy")),
        }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Ok(())
    }
}

/// Randomness of the operating system, for tests in which two runs must not draw the same.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| Error::new(ErrorKind::Failed, "draw random bytes from", "the system", error))
    }
}

/// A source of randomness that is broken: every draw fails.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _bytes: &mut [u8]) -> Result<()> {
        Err(Error::new(
            ErrorKind::Failed,
            "draw random bytes from",
            "the system",
            "the test took the randomness away",
        ))
    }
}

/// Surroundings that repeat: a clock that stands at [`START_WALL_US`], randomness from `seed`, nobody watching, two threads.
#[must_use]
pub fn test_env(seed: u64) -> Env {
    sim_env(seed).0
}

/// As [`test_env`], with the clock in hand to move it.
#[must_use]
pub fn sim_env(seed: u64) -> (Env, Arc<SimClock>) {
    let clock = Arc::new(SimClock::new(START_WALL_US));
    let env = Env {
        clock: Arc::<SimClock>::clone(&clock),
        entropy: Arc::new(SeededEntropy::new(seed)),
        progress: Arc::new(Silent),
        threads: 2,
    };
    (env, clock)
}

/// Real time and real randomness, nobody watching, two threads.
#[must_use]
pub fn real_env() -> Env {
    Env {
        clock: Arc::new(RealClock::new()),
        entropy: Arc::new(RealEntropy),
        progress: Arc::new(Silent),
        threads: 2,
    }
}

/// An endless stream of bytes that look random, decided by `seed` and what it is `used_for`.
pub(crate) fn stream_of(seed: u64, used_for: &str) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_derive_key("lifeboat testkit seeded bytes");
    hasher.update(&seed.to_le_bytes());
    hasher.update(used_for.as_bytes());
    hasher.finalize_xof()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(entropy: &dyn Entropy) -> [u8; 48] {
        let mut bytes = [0; 48];
        entropy.fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_same_seed_repeats_and_goes_on() {
        let (one, clone, other) = (SeededEntropy::new(1), SeededEntropy::new(1), SeededEntropy::new(2));
        let first = draw(&one);
        assert_eq!(first, draw(&clone));
        assert_ne!(first, draw(&other));
        assert_ne!(first, draw(&one));
    }

    #[test]
    fn the_wall_steps_back_and_the_monotonic_clock_does_not() {
        let (env, clock) = sim_env(1);
        clock.advance(Duration::from_secs(5));
        assert_eq!(env.clock.wall_us(), START_WALL_US + 5_000_000);
        clock.step_wall_us(-3_600_000_000);
        assert_eq!(env.clock.wall_us(), START_WALL_US - 3_595_000_000);
        assert_eq!(env.clock.monotonic(), Duration::from_secs(5));
        clock.set_wall_us(7);
        assert_eq!(env.clock.wall_us(), 7);
    }

    #[test]
    fn broken_randomness_is_an_error() {
        assert!(NoEntropy.fill(&mut [0; 4]).is_err());
        assert_ne!(draw(&RealEntropy), draw(&RealEntropy));
    }

    #[test]
    fn the_real_clock_is_past_the_day_this_was_written() {
        let clock = RealClock::new();
        assert!(clock.wall_us() > START_WALL_US);
        let earlier = clock.monotonic();
        assert!(clock.monotonic() >= earlier);
    }
}
