//! Times that people type: RFC 3339, or with a zone's name. A time without zone is refused, because it means two moments.

use jiff::civil::DateTime;
use jiff::{Timestamp, Zoned};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::protected::Choice;

use super::args::Point;

/// Microseconds since 1970 of `2026-11-21T02:10:03Z`, `2026-11-21 03:10:03+01:00` or `2026-11-21T03:10[Europe/Berlin]`.
pub(crate) fn parse(text: &str) -> Result<i64> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_microsecond());
    }
    match text.parse::<Zoned>() {
        Ok(moment) => Ok(moment.timestamp().as_microsecond()),
        Err(error) => Err(refuse(text, &error)),
    }
}

fn refuse(text: &str, error: &jiff::Error) -> Error {
    let bad = |detail: String| Error::new(ErrorKind::Usage, "use as a time", format!("{text:?}"), detail);
    match text.parse::<DateTime>() {
        Ok(civil) => {
            let civil = civil.strftime("%Y-%m-%dT%H:%M:%S");
            bad("it has no zone, so it means another moment in every country".to_owned())
                .with_hint(format!("write {civil}Z, {civil}+01:00 or {civil}[Europe/Berlin]"))
        }
        Err(_) => bad(format!("it is not a time ({error})"))
            .with_hint("write it like 2026-11-21T02:10:03Z, 2026-11-21T03:10:03+01:00 or 2026-11-21T03:10:03[Europe/Berlin]"),
    }
}

/// Which backup the flags mean.
pub(crate) fn choice(point: &Point) -> Result<Choice> {
    if let Some(lsn) = &point.lsn {
        return Err(Error::new(
            ErrorKind::Usage,
            "choose",
            lsn,
            "--lsn is a position in the log of a PostgreSQL cluster",
        )
        .with_hint("use --backup, --at or --before"));
    }
    Ok(match (&point.backup, &point.at, &point.before) {
        (Some(id), _, _) => Choice::Named(id.clone()),
        (None, Some(at), _) => Choice::At(parse(at)?),
        (None, None, Some(before)) => Choice::Before(parse(before)?),
        (None, None, None) => Choice::Latest,
    })
}

#[cfg(test)]
mod tests {
    use lifeboat_model::ErrorKind;

    use super::parse;

    #[test]
    fn the_same_moment_in_every_notation() {
        let wanted = parse("2026-11-21T02:10:03Z").unwrap();
        assert_eq!(wanted, 1_795_227_003_000_000);
        for text in [
            "2026-11-21T03:10:03+01:00",
            "2026-11-21 03:10:03+01:00",
            "2026-11-21T03:10:03[Europe/Berlin]",
            "2026-11-20T21:10:03-05",
        ] {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn a_zone_is_never_guessed() {
        for text in ["2026-11-21T02:10:03", "2026-11-21 02:10", "2026-11-21", "02:10", "now", ""] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(error.hint().unwrap().contains("Z"), "{text}");
        }
    }
}
