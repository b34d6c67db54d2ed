//! What a drill decides: which point is drawn, and what came of it (docs/drills.md).

use std::time::Duration;

use crate::check::{Outcome, Verdict};

/// Moments, every one of which can be restored: from, to, microseconds since 1970, both included.
pub type Span = (i64, i64);

/// Draws a moment from `spans` (DR-06): each microsecond is as likely as any other. `None` where there is none. The same seed and spans draw the same.
#[must_use]
pub fn draw(seed: u64, spans: &[Span]) -> Option<i64> {
    let length = |span: &Span| u128::from(span.1.abs_diff(span.0)) + 1;
    let spans: Vec<&Span> = spans.iter().filter(|(from, to)| from <= to).collect();
    let whole: u128 = spans.iter().map(|span| length(span)).sum();
    let mut left = below(seed, whole)?;
    for span in spans {
        if left < length(span) {
            return i64::try_from(i128::from(span.0) + i128::try_from(left).ok()?).ok();
        }
        left -= length(span);
    }
    None
}

/// Draws one of `count` things. `None` where there are none.
#[must_use]
pub fn draw_one(seed: u64, count: usize) -> Option<usize> {
    usize::try_from(below(seed, count as u128)?).ok()
}

/// A number below `limit`: 128 bits drawn, so that what the remainder favours is of no account.
fn below(seed: u64, limit: u128) -> Option<u128> {
    let drawn = u128::from(mix(seed)) << 64 | u128::from(mix(seed.wrapping_add(GAMMA)));
    drawn.checked_rem(limit)
}

/// The step of SplitMix64 (Steele, Lea and Flood 2014), whose finalizer [`mix`] is.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(GAMMA);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What was promised, and what was measured of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// How long a recovery may take.
    pub rto: Option<Duration>,
    /// How much may be lost.
    pub rpo: Option<Duration>,
    /// How long it took; `None`: it did not come to its end.
    pub recovery: Option<Duration>,
    /// How much is lost; `None`: this drill cannot say.
    pub loss: Option<Duration>,
}

/// What came of a drill, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Everything holds.
    Passed,
    /// What machines can say holds; people have not said theirs.
    Waiting,
    /// Something could not be checked.
    Incomplete,
    /// It came back, later or older than was promised.
    ObjectiveMissed,
    /// A check failed, or nothing came back.
    Failed,
}

impl Standing {
    /// The words people see.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Waiting => "waiting for people",
            Self::Incomplete => "incomplete",
            Self::ObjectiveMissed => "objective missed",
            Self::Failed => "failed",
        }
    }
}

/// What a person said of an item; `None`: nothing yet.
pub type Tick = Option<bool>;

/// The verdict, from records alone (DR-04). `error`: it was ended by one. Without any check there is no pass.
#[must_use]
pub fn judge(error: bool, checks: &[Outcome], ticks: &[Tick], measured: &Measured) -> Standing {
    let any = |verdict: Verdict| checks.iter().any(|check| check.verdict == verdict);
    let over = |promise: Option<Duration>, found: Option<Duration>| matches!((promise, found), (Some(p), Some(f)) if f > p);
    let failed = error || any(Verdict::Failed) || measured.recovery.is_none() || ticks.contains(&Some(false));
    let missed = over(measured.rto, measured.recovery) || over(measured.rpo, measured.loss);
    match () {
        () if failed => Standing::Failed,
        () if missed => Standing::ObjectiveMissed,
        () if checks.is_empty() || any(Verdict::NotAvailable) => Standing::Incomplete,
        () if ticks.contains(&None) => Standing::Waiting,
        () => Standing::Passed,
    }
}
