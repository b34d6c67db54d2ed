//! How long a run will take, from the runs before it, and what that statement rests on.
//!
//! Pure arithmetic over what the caller measured. An estimate never goes without its basis: a figure from a model and a
//! figure from three restores are not worth the same, and whoever reads it in an emergency must see which it is.

use std::fmt;
use std::time::Duration;

use crate::time::human_bytes;

/// What the model assumes where nothing was measured, in bytes per second: the slower end of one network link and one
/// busy disk, so that the first real run is more often a pleasant surprise than a bad one.
pub const MODEL_BYTES_PER_S: u64 = 200_000_000;

/// A run is comparable when it moved at least one part in this many of what is estimated; a smaller one mostly measured
/// its own start-up.
const COMPARABLE_PART: u64 = 100;

/// One past run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it moved, in bytes.
    pub bytes: u64,
    /// How long it took, from the first to the last byte.
    pub elapsed: Duration,
}

/// What an estimate rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Past runs of comparable size.
    Measured {
        /// How many.
        runs: usize,
        /// Their median throughput.
        bytes_per_s: u64,
    },
    /// Past runs, all of them much smaller than what is estimated.
    Scaled {
        /// How many.
        runs: usize,
        /// Their median throughput.
        bytes_per_s: u64,
        /// The largest of them, in bytes.
        largest_bytes: u64,
    },
    /// Nothing was measured.
    Model {
        /// What the model assumes.
        bytes_per_s: u64,
    },
}

impl Basis {
    /// In words, for one kind of run named in the singular (`"restore"`): `3 measured restores`, `model: 200 MB/s`.
    #[must_use]
    pub fn describe(&self, noun: &str) -> String {
        let counted = |runs: usize| {
            if runs == 1 {
                format!("1 measured {noun}")
            } else {
                format!("{runs} measured {noun}s")
            }
        };
        match *self {
            Self::Measured { runs, .. } => counted(runs),
            Self::Scaled { runs, largest_bytes, .. } => {
                format!("scaled up from {}, the largest {}", counted(runs), human_bytes(largest_bytes))
            }
            Self::Model { bytes_per_s } => format!("model: {}/s", human_bytes(bytes_per_s)),
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe("run"))
    }
}

/// How long it will take, and why that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// At the median throughput of the runs used (or at the model's).
    pub expected: Duration,
    /// At the slowest throughput of the runs used: what to promise others. Equals `expected` for the model.
    pub slowest: Duration,
    /// What both rest on.
    pub basis: Basis,
}

impl Estimate {
    /// The same after a wait that comes first, such as for files in an archive: the usual one and the longest.
    #[must_use]
    pub fn after(self, expected: Duration, slowest: Duration) -> Self {
        Self {
            expected: self.expected.saturating_add(expected),
            slowest: self.slowest.saturating_add(slowest),
            basis: self.basis,
        }
    }
}

/// Estimates the time for `bytes` from past runs of the same kind on the same component and store.
///
/// Runs without bytes or without measurable time say nothing about throughput and are left out. Comparable runs win over
/// smaller ones; where none is comparable the smaller ones are used and the basis says so. The median is taken, so one
/// run on a cold cache or an idle weekend does not decide.
#[must_use]
pub fn estimate(bytes: u64, past: &[Run]) -> Estimate {
    let usable: Vec<Run> = past
        .iter()
        .copied()
        .filter(|run| run.bytes > 0 && !run.elapsed.is_zero())
        .collect();
    let comparable: Vec<Run> = usable
        .iter()
        .copied()
        .filter(|run| run.bytes >= bytes / COMPARABLE_PART)
        .collect();
    let used = if comparable.is_empty() { &usable } else { &comparable };
    let mut rates: Vec<u64> = used.iter().map(bytes_per_s).collect();
    rates.sort_unstable();
    // The lower of two middle values: late is worse than early.
    let Some(&median) = rates.get(rates.len().saturating_sub(1) / 2) else {
        let expected = time_for(bytes, MODEL_BYTES_PER_S);
        return Estimate {
            expected,
            slowest: expected,
            basis: Basis::Model {
                bytes_per_s: MODEL_BYTES_PER_S,
            },
        };
    };
    let basis = if comparable.is_empty() {
        let largest_bytes = usable.iter().map(|run| run.bytes).max().unwrap_or(0);
        Basis::Scaled {
            runs: used.len(),
            bytes_per_s: median,
            largest_bytes,
        }
    } else {
        Basis::Measured {
            runs: used.len(),
            bytes_per_s: median,
        }
    };
    Estimate {
        expected: time_for(bytes, median),
        slowest: time_for(bytes, rates.first().copied().unwrap_or(median)),
        basis,
    }
}

/// Throughput of one run, at least 1 so that no division fails.
fn bytes_per_s(run: &Run) -> u64 {
    let nanos = run.elapsed.as_nanos().max(1);
    u64::try_from(u128::from(run.bytes) * 1_000_000_000 / nanos)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// The time for `bytes` at a rate, rounded up to a whole millisecond.
fn time_for(bytes: u64, bytes_per_s: u64) -> Duration {
    let ms = (u128::from(bytes) * 1_000).div_ceil(u128::from(bytes_per_s.max(1)));
    Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
}
