//! Times as the format writes them: UTC, RFC 3339, microseconds, ending in `Z`.

use lifeboat_model::retention::Local;
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

/// A time zone: puts moments into the calendar of a place.
#[derive(Debug, Clone)]
pub struct Calendar(jiff::tz::TimeZone);

impl Calendar {
    /// The time zone of this name in the IANA database. Kind `ConfigInvalid` where it is none.
    pub fn of(name: &str) -> Result<Self> {
        let zone = jiff::tz::TimeZone::get(name).map_err(|error| {
            Error::new(
                ErrorKind::ConfigInvalid,
                "use the time zone",
                format!("{name:?}"),
                "there is no such time zone",
            )
            .with_hint("write a name of the IANA time zone database, for example Europe/Berlin or UTC")
            .with_source(error)
        })?;
        Ok(Self(zone))
    }

    /// A moment (microseconds since 1970) as the clocks there show it. Out of the calendar's range it is its nearest end.
    #[must_use]
    pub fn local(&self, us: i64) -> Local {
        let nearest = if us < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        let zoned = jiff::Timestamp::from_microsecond(us)
            .unwrap_or(nearest)
            .to_zoned(self.0.clone());
        let week = zoned.date().iso_week_date();
        Local {
            year: zoned.year(),
            month: zoned.month(),
            day: zoned.day(),
            hour: zoned.hour(),
            offset_s: zoned.offset().seconds(),
            week_year: week.year(),
            week: week.week(),
        }
    }
}
