//! What a query has to answer, whatever database is asked; and how that is told in a line that can be read.

use std::fmt;

use lifeboat_model::check::Outcome;

/// Rows that are looked at, at most; of them the evidence is made.
pub(crate) const MOST_ROWS: usize = 5;
/// Characters of a line of evidence.
const LINE: usize = 300;

/// What a query has to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: every row is a fault.
    NoRows,
    /// One row with one value, which is written like this.
    Equals(String),
    /// One row with one number, which is this or more.
    AtLeast(i64),
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRows => f.write_str("no rows"),
            Self::Equals(value) => write!(f, "{value}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}

/// What came of a query whose first rows, at most [`MOST_ROWS`], are these, as text.
pub(crate) fn judge(name: &str, expect: &Expect, rows: &[Vec<Option<String>>]) -> Outcome {
    if *expect == Expect::NoRows {
        if rows.is_empty() {
            return Outcome::passed(name, "no rows, as expected");
        }
        let more = if rows.len() == MOST_ROWS { " or more" } else { "" };
        let found = counted(rows.len() as u64, "row", "rows");
        return Outcome::failed(name, format!("{found}{more}, and there should be none")).with_evidence(shown(rows));
    }
    let value = match rows {
        [row] => match row.as_slice() {
            [Some(value)] => value,
            [None] => return Outcome::failed(name, format!("no value (null), expected {expect}")),
            _ => {
                return Outcome::failed(name, format!("{} columns, expected one value: {expect}", row.len()))
                    .with_evidence(shown(rows));
            }
        },
        [] => return Outcome::failed(name, format!("no row, expected {expect}")),
        _ => return Outcome::failed(name, format!("several rows, expected one value: {expect}")).with_evidence(shown(rows)),
    };
    let holds = match expect {
        Expect::Equals(wanted) => value == wanted,
        Expect::AtLeast(least) => floor(value).is_some_and(|number| number >= i128::from(*least)),
        Expect::NoRows => false,
    };
    let value = cut(value);
    if holds {
        Outcome::passed(name, format!("{value}, as expected ({expect})"))
    } else {
        Outcome::failed(name, format!("{value}, expected {expect}"))
    }
}

fn shown(rows: &[Vec<Option<String>>]) -> Vec<String> {
    let line = |row: &Vec<Option<String>>| {
        let values: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("null")).collect();
        cut(&values.join(" | "))
    };
    rows.iter().map(line).collect()
}

/// The whole number at or below a decimal one: a whole number is at most the one if, and only if, it is at most the other.
fn floor(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = if whole == "-" { 0 } else { whole.parse().ok()? };
    let below = text.starts_with('-') && part.bytes().any(|byte| byte != b'0');
    Some(if below { number - 1 } else { number })
}

/// One line, of a length that can be read.
pub(crate) fn cut(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    if line.chars().count() <= LINE {
        return line;
    }
    let kept: String = line.chars().take(LINE).collect();
    format!("{kept}…")
}

/// `1 table`, `1,234 tables`.
pub(crate) fn counted(count: u64, noun: &str, nouns: &str) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if count == 1 { noun } else { nouns })
}

#[cfg(test)]
mod tests {
    use lifeboat_model::check::Verdict;

    use super::*;

    fn came_out(expect: Expect, rows: &[&[Option<&str>]]) -> Verdict {
        let rows: Vec<Vec<Option<String>>> = rows
            .iter()
            .map(|row| row.iter().map(|value| value.map(str::to_owned)).collect())
            .collect();
        judge("it", &expect, &rows).verdict
    }

    #[test]
    fn only_what_was_expected_passes() {
        let (good, bad) = (Verdict::Passed, Verdict::Failed);
        assert_eq!(came_out(Expect::NoRows, &[]), good);
        assert_eq!(came_out(Expect::NoRows, &[&[None]]), bad);
        let equals = || Expect::Equals("42".into());
        assert_eq!(came_out(equals(), &[&[Some("42")]]), good);
        for rows in [
            &[&[Some("43")][..]][..],
            &[&[None]],
            &[],
            &[&[Some("42"), Some("42")]],
            &[&[Some("42")], &[Some("42")]],
        ] {
            assert_eq!(came_out(equals(), rows), bad, "{rows:?}");
        }
        for (value, verdict) in [
            ("3", good),
            ("4.5", good),
            ("2.99", bad),
            ("-3", bad),
            ("NaN", bad),
            ("", bad),
        ] {
            assert_eq!(came_out(Expect::AtLeast(3), &[&[Some(value)]]), verdict, "{value}");
        }
    }

    #[test]
    fn a_decimal_number_is_rounded_down() {
        for (text, number) in [
            ("7", Some(7)),
            ("7.9", Some(7)),
            ("-7.0", Some(-7)),
            ("-7.1", Some(-8)),
            ("-0.5", Some(-1)),
            ("-.5", Some(-1)),
            ("1e3", None),
            ("Infinity", None),
            ("7.x", None),
        ] {
            assert_eq!(floor(text), number, "{text}");
        }
    }

    #[test]
    fn evidence_is_one_line_that_can_be_read() {
        assert_eq!(super::cut("a\nb"), "a b");
        assert_eq!(super::cut(&"x".repeat(1000)).chars().count(), super::LINE + 1);
        assert_eq!(super::counted(1, "row", "rows"), "1 row");
        assert_eq!(super::counted(1_234_567, "row", "rows"), "1,234,567 rows");
        assert_eq!(super::counted(999, "row", "rows"), "999 rows");
    }
}
