//! Estimates: what they say, and what they say they rest on.

use std::time::Duration;

use lifeboat_model::estimate::{Basis, MODEL_BYTES_PER_S, Run, estimate};
use proptest::prelude::*;

const GB: u64 = 1_000_000_000;

fn run(bytes: u64, seconds: u64) -> Run {
    Run {
        bytes,
        elapsed: Duration::from_secs(seconds),
    }
}

#[test]
fn without_runs_the_model_speaks_and_says_so() {
    let answer = estimate(2 * GB, &[run(0, 5), run(GB, 0)]);
    assert_eq!(answer.expected, Duration::from_secs(10));
    assert_eq!(
        answer.basis,
        Basis::Model {
            bytes_per_s: MODEL_BYTES_PER_S
        }
    );
    assert_eq!(answer.basis.describe("restore"), "model: 200 MB/s");
}

#[test]
fn measured_runs_win_and_the_median_decides() {
    let answer = estimate(4 * GB, &[run(GB, 10), run(GB, 1), run(GB, 5)]);
    assert_eq!(answer.expected, Duration::from_secs(20));
    assert_eq!(answer.slowest, Duration::from_secs(40));
    assert_eq!(answer.basis.describe("restore"), "3 measured restores");
    assert_eq!(estimate(GB, &[run(GB, 2)]).basis.describe("drill"), "1 measured drill");
}

#[test]
fn tiny_runs_do_not_pass_for_large_ones() {
    let tiny = run(1_000_000, 1);
    let answer = estimate(GB, &[tiny, run(GB, 10)]);
    assert_eq!(
        answer.basis,
        Basis::Measured {
            runs: 1,
            bytes_per_s: 100_000_000
        }
    );
    let scaled = estimate(GB, &[tiny, tiny]);
    assert_eq!(scaled.expected, Duration::from_secs(1_000));
    assert_eq!(
        scaled.basis.describe("restore"),
        "scaled up from 2 measured restores, the largest 1.0 MB"
    );
}

proptest! {
    #[test]
    fn more_bytes_never_take_less_time_and_slowest_is_never_faster(
        bytes in any::<u64>(),
        runs in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..6),
    ) {
        let runs: Vec<Run> = runs.into_iter().map(|(bytes, ms)| Run { bytes, elapsed: Duration::from_millis(u64::from(ms)) }).collect();
        let answer = estimate(bytes, &runs);
        prop_assert!(answer.slowest >= answer.expected);
        // With the same runs judged comparable, the time grows with the bytes.
        let half = estimate(bytes / 2, &runs);
        if half.basis == answer.basis {
            prop_assert!(half.expected <= answer.expected);
        }
    }
}

#[test]
fn a_wait_for_an_archive_counts() {
    let hour = Duration::from_secs(3600);
    let plain = estimate(MODEL_BYTES_PER_S, &[]);
    let waiting = plain.after(hour * 4, hour * 5);
    assert_eq!(waiting.expected, plain.expected + hour * 4);
    assert_eq!(waiting.slowest, plain.slowest + hour * 5);
    assert_eq!(waiting.basis, plain.basis);
}
