//! How fast a data directory is read, where somebody set a limit: all readers share it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_model::Clock;

/// A limit for several readers. Blocks whoever is too fast.
#[derive(Debug)]
pub struct Pace {
    clock: Arc<dyn Clock>,
    bytes_per_s: u64,
    /// When the bytes that were given out so far will have taken their time.
    free_at: Mutex<Duration>,
}

impl Pace {
    /// So many bytes each second, one at least.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, bytes_per_s: u64) -> Self {
        Self {
            clock,
            bytes_per_s: bytes_per_s.max(1),
            free_at: Mutex::new(Duration::ZERO),
        }
    }

    /// Waits until `bytes` more may be read.
    pub(super) fn wait(&self, bytes: u64) {
        let pause = self.reserve(bytes);
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }

    /// How long to wait before these bytes; whoever comes next waits for them too. A pause of ours is not made up for.
    fn reserve(&self, bytes: u64) -> Duration {
        let now = self.clock.monotonic();
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_s);
        let takes = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = now.max(*free_at);
        *free_at = begins.saturating_add(takes);
        begins.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands at a second.
    #[derive(Debug)]
    struct At(Mutex<u64>);

    impl Clock for At {
        fn wall_us(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(*self.0.lock().unwrap())
        }
    }

    #[test]
    fn readers_share_the_limit_and_a_pause_is_not_made_up_for() {
        let clock = Arc::new(At(Mutex::new(10)));
        let pace = Pace::new(Arc::clone(&clock) as _, 1000);
        assert_eq!(pace.reserve(2000), Duration::ZERO, "the first begins at once");
        assert_eq!(pace.reserve(500), Duration::from_secs(2), "the next waits for it");
        assert_eq!(pace.reserve(1), Duration::from_millis(2500), "whoever it is");
        *clock.0.lock().unwrap() = 100;
        assert_eq!(pace.reserve(3000), Duration::ZERO);
        assert_eq!(pace.reserve(1), Duration::from_secs(3), "not 87 seconds in advance");
    }
}
