//! Times as the format writes them: UTC, RFC 3339, microseconds, ending in `Z`.

use lifeboat_model::{Error, ErrorKind, Result};

/// Formats microseconds since 1970 as `2026-11-21T01:02:03.000004Z`.
#[must_use]
pub fn format_utc(us: i64) -> String {
    match jiff::Timestamp::from_microsecond(us) {
        Ok(time) => format!("{time:.6}"),
        // Out of the calendar's range: still a definite, readable value.
        Err(_) => format!("{us}us"),
    }
}

/// Reads what [`format_utc`] wrote, as microseconds since 1970.
pub fn parse_utc(text: &str) -> Result<i64> {
    let time: jiff::Timestamp = text.parse().map_err(|error| {
        Error::new(ErrorKind::Corrupt, "decode time", format!("{text:?}"), "it is not RFC 3339").with_source(error)
    })?;
    Ok(time.as_microsecond())
}
