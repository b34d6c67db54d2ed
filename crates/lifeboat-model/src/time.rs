//! Durations and sizes as people write and read them.
//!
//! Only text in and text out: there is no clock here. A unit is always required, because `24` means hours to one
//! reader and seconds to the next; parsing is exact and refuses rather than rounds.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// Units of a duration, largest first, in milliseconds. Months and years are absent: they have no fixed length.
const DURATION_UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Units of a size in bytes. `K`, `M` and `G` alone are absent: half of the readers take them for 1,000, half for 1,024.
const SIZE_UNITS: [(&str, u64); 14] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("EB", 1_000_000_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
    ("EiB", 1 << 60),
];

/// Reads a duration such as `24h`, `90s`, `1d12h` or `1d 12h`: whole numbers, each with a unit (`w`, `d`, `h`, `m`,
/// `s`, `ms`), the larger unit first, none twice. [`ErrorKind::Usage`] for anything else, a bare number included.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let fail = |detail: String| {
        Error::new(ErrorKind::Usage, "read duration", format_args!("'{text}'"), detail)
            .with_hint("write a whole number and a unit, for example 90s, 24h or 1d12h")
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fail("it is empty".into()));
    }
    let mut total_ms = 0_u64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (digits, tail) = split_where(rest, |c| !c.is_ascii_digit());
        if digits.is_empty() {
            return Err(fail(format!("a number is expected before '{rest}'")));
        }
        let (unit, tail) = split_where(tail, |c| !c.is_ascii_alphabetic());
        if unit.is_empty() {
            return Err(fail(format!("the unit after {digits} is missing")));
        }
        let Some(at) = DURATION_UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(fail(format!("'{unit}' is not a unit; the units are w, d, h, m, s and ms")));
        };
        if at < next_unit {
            return Err(fail(format!("'{unit}' stands twice or after a smaller unit")));
        }
        next_unit = at + 1;
        total_ms = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(DURATION_UNITS[at].1))
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| fail("it is too long".into()))?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size such as `1MiB`, `16 MB` or `1.5GiB` in bytes: a number and a unit (`B`, `kB` to `EB` in thousands,
/// `KiB` to `EiB` in 1,024s). [`ErrorKind::Usage`] for anything else, and for a fraction that is no whole number of bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let fail = |detail: String| {
        Error::new(ErrorKind::Usage, "read size", format_args!("'{text}'"), detail)
            .with_hint("write a number and a unit, for example 16MiB or 500 MB")
    };
    let (number, unit) = split_where(text.trim(), |c| !c.is_ascii_digit() && c != '.');
    if number.is_empty() {
        return Err(fail("it does not begin with a number".into()));
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(fail(format!("the unit after {number} is missing")));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(fail(format!(
            "'{unit}' is not a unit; the units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"
        )));
    };
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) if !whole.is_empty() && !fraction.is_empty() && !fraction.contains('.') => (whole, fraction),
        Some(_) => return Err(fail(format!("'{number}' is not a number"))),
    };
    // Scaled by a power of ten, the fraction is exact; 18 digits are more than any unit has bytes.
    let fraction = fraction.trim_end_matches('0');
    let scaled = format!("{whole}{fraction}").parse::<u128>().ok();
    let power = u32::try_from(fraction.len())
        .ok()
        .and_then(|digits| 10_u128.checked_pow(digits));
    let (Some(scaled), Some(power)) = (scaled, power) else {
        return Err(fail("it is too large or has too many digits".into()));
    };
    let bytes = scaled
        .checked_mul(u128::from(*factor))
        .ok_or_else(|| fail("it is too large".into()))?;
    if bytes % power != 0 {
        return Err(fail("it is not a whole number of bytes".into()));
    }
    u64::try_from(bytes / power).map_err(|source| fail("it is too large".into()).with_source(source))
}

/// A size for people, in thousands (as disks are sold and networks measured): `0 B`, `999 B`, `1.5 kB`, `16 MB`, `1.2 TB`.
/// Rounded to the nearest; one decimal below ten, none above.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut factor = 1_000_u128;
    for unit in UNITS {
        let tenths = (u128::from(bytes) * 10 + factor / 2) / factor;
        if tenths < 100 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        let whole = (u128::from(bytes) + factor / 2) / factor;
        if whole < 1_000 {
            return format!("{whole} {unit}");
        }
        factor *= 1_000;
    }
    // Unreachable for 64 bits: the largest is 18 EB. Said in full rather than wrongly, should the units ever change.
    format!("{bytes} B")
}

/// A duration for people: `0s`, `350ms`, `4.2s`, `45s`, `2m 5s`, `1h 30m`, `3d 4h`. Rounded to the nearest of the smaller
/// unit shown; a second part that is zero is left out.
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let ms = duration.as_millis() + u128::from(duration.subsec_nanos() % 1_000_000 >= 500_000);
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let tenths = (ms + 50) / 100;
    if tenths < 100 {
        return if tenths.is_multiple_of(10) {
            format!("{}s", tenths / 10)
        } else {
            format!("{}.{}s", tenths / 10, tenths % 10)
        };
    }
    let seconds = (ms + 500) / 1_000;
    if seconds < 60 {
        return format!("{seconds}s");
    }
    if seconds < 3_600 {
        return two_parts(seconds, 60, "m", "s");
    }
    let minutes = (ms + 30_000) / 60_000;
    if minutes < 1_440 {
        return two_parts(minutes, 60, "h", "m");
    }
    two_parts((ms + 1_800_000) / 3_600_000, 24, "d", "h")
}

/// `count` small units, of which `per` make a large one.
fn two_parts(count: u128, per: u128, large: &str, small: &str) -> String {
    match count % per {
        0 => format!("{}{large}", count / per),
        rest => format!("{}{large} {rest}{small}", count / per),
    }
}

/// Splits before the first character that `stop` accepts.
fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}
