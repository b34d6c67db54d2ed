//! Durations and sizes: what is read, what is refused, and that reading undoes writing. No clock is involved.

use std::time::Duration;

use lifeboat_model::ErrorKind;
use lifeboat_model::time::{human_bytes, human_duration, parse_duration, parse_size};
use proptest::prelude::*;

#[test]
fn durations_are_read_with_their_units() {
    for (text, seconds) in [
        ("90s", 90),
        ("24h", 86_400),
        ("1d12h", 129_600),
        ("1d 12h", 129_600),
        (" 2w ", 1_209_600),
        ("0s", 0),
        ("5m", 300),
    ] {
        assert_eq!(parse_duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
    }
    assert_eq!(parse_duration("1s500ms").unwrap(), Duration::from_millis(1_500));
}

#[test]
fn doubtful_durations_are_refused() {
    for text in [
        "",
        " ",
        "24",
        "h",
        "-1h",
        "1.5h",
        "1H",
        "1h1h",
        "1m1h",
        "1d12",
        "1y",
        "1mo",
        "1 h",
        "99999999999999999999s",
        "9999999999999999w",
        "1é",
    ] {
        let error = parse_duration(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
        assert!(error.hint().unwrap().contains("24h"), "{text}");
    }
}

#[test]
fn sizes_are_read_with_their_units() {
    for (text, bytes) in [
        ("0B", 0),
        ("1MiB", 1 << 20),
        ("16 MB", 16_000_000),
        ("1.5GiB", 3 << 29),
        ("2.50 kB", 2_500),
        ("15EiB", 15 << 60),
        ("7KB", 7_000),
    ] {
        assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
    }
}

#[test]
fn doubtful_sizes_are_refused() {
    for text in [
        "",
        "1",
        "1.5",
        "16M",
        "16mb",
        "1.5B",
        "0.1KiB",
        ".5MB",
        "5.MB",
        "1.2.3MB",
        "16EiB",
        "-1MB",
        "1e3B",
        "999999999999999999999999999999999999999999MB",
    ] {
        assert_eq!(parse_size(text).expect_err(text).kind(), ErrorKind::Usage, "{text}");
    }
}

#[test]
fn people_read_sizes_and_durations() {
    for (bytes, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (1_549, "1.5 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (16_000_000, "16 MB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (u64::MAX, "18 EB"),
    ] {
        assert_eq!(human_bytes(bytes), text);
    }
    for (ms, text) in [
        (0, "0s"),
        (350, "350ms"),
        (1_000, "1s"),
        (4_249, "4.2s"),
        (9_949, "9.9s"),
        (9_950, "10s"),
        (59_499, "59s"),
        (59_500, "1m"),
        (125_000, "2m 5s"),
        (3_599_500, "1h"),
        (5_400_000, "1h 30m"),
        (86_370_000, "1d"),
        (273_600_000, "3d 4h"),
    ] {
        assert_eq!(human_duration(Duration::from_millis(ms)), text, "{ms} ms");
    }
}

proptest! {
    #[test]
    fn a_written_duration_is_read_back(w in 0_u64..1_000, d in 0_u64..7, h in 0_u64..24, m in 0_u64..60, s in 0_u64..60, ms in 0_u64..1_000) {
        let total = ((((w * 7 + d) * 24 + h) * 60 + m) * 60 + s) * 1_000 + ms;
        prop_assert_eq!(parse_duration(&format!("{w}w{d}d{h}h{m}m{s}s{ms}ms")).unwrap(), Duration::from_millis(total));
    }

    #[test]
    fn what_people_read_is_near_the_truth(ms in 10_000_u64..4_000_000_000) {
        let shown = parse_duration(&human_duration(Duration::from_millis(ms))).unwrap();
        let off = shown.abs_diff(Duration::from_millis(ms)).as_millis();
        // Half of the smaller unit shown: at most one part in 20 from ten seconds up.
        prop_assert!(off * 20 <= u128::from(ms), "{} ms off of {} ms", off, ms);
    }

    #[test]
    fn a_size_that_people_read_is_near_the_truth(bytes in any::<u64>(), shift in 0_u32..64) {
        let bytes = bytes >> shift;
        let shown = parse_size(&human_bytes(bytes)).unwrap();
        prop_assert!(u128::from(shown.abs_diff(bytes)) * 20 <= u128::from(bytes));
    }

    #[test]
    fn any_text_is_an_answer_and_never_a_panic(text in ".{0,24}") {
        for kind in [parse_duration(&text).err(), parse_size(&text).err()].into_iter().flatten().map(|error| error.kind()) {
            prop_assert_eq!(kind, ErrorKind::Usage);
        }
    }
}
