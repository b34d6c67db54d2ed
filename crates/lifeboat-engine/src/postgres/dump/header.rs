//! What a dump says of itself at its beginning.

/// How archives of `pg_dump` begin.
pub const MAGIC: &[u8] = b"PGDMP";
/// Since this version of the archive's form (PostgreSQL 16), one byte says how it is compressed; before, a number did.
const COMPRESSION_BYTE: (u8, u8) = (1, 15);
/// The numbers of a time: second, minute, hour, day, month, year, summer time.
const TIME_NUMBERS: usize = 7;
/// What a text says before the version of the server.
const FROM: &str = "-- Dumped from database version ";
/// The same of the program.
const BY: &str = "-- Dumped by pg_dump version ";

/// What a dump says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The database that it is of; SQL text does not say.
    pub database: Option<String>,
    /// The version of the server, as it writes it.
    pub server: Option<String>,
    /// The version of `pg_dump`.
    pub pg_dump: Option<String>,
}

impl About {
    /// Reads the beginning of an archive; `None` where it is none.
    #[must_use]
    pub fn of_archive(beginning: &[u8]) -> Option<Self> {
        let mut rest = Fields(beginning.strip_prefix(MAGIC)?);
        let version = (rest.byte()?, rest.byte()?);
        rest.byte()?;
        let number_bytes = usize::from(rest.byte()?);
        // How large offsets are, and the form.
        rest.byte()?;
        rest.byte()?;
        if version >= COMPRESSION_BYTE {
            rest.byte()?;
        } else {
            rest.number(number_bytes)?;
        }
        for _ in 0..TIME_NUMBERS {
            rest.number(number_bytes)?;
        }
        Some(Self {
            database: rest.text(number_bytes)?,
            server: rest.text(number_bytes)?,
            pg_dump: rest.text(number_bytes)?,
        })
    }

    /// Reads the beginning of SQL text.
    #[must_use]
    pub fn of_text(beginning: &[u8]) -> Self {
        let text = String::from_utf8_lossy(beginning);
        let behind = |start: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(start));
            line.map(|version| version.trim().to_owned())
        };
        Self {
            database: None,
            server: behind(FROM),
            pg_dump: behind(BY),
        }
    }

    /// The newest major version that had a hand in it.
    #[must_use]
    pub fn major(&self) -> Option<u32> {
        major(self.server.as_deref()).max(major(self.pg_dump.as_deref()))
    }

    /// The major version of the `pg_dump` that wrote it.
    #[must_use]
    pub fn pg_dump_major(&self) -> Option<u32> {
        major(self.pg_dump.as_deref())
    }
}

/// `15.18 (Debian 15.18-0)` → 15
fn major(version: Option<&str>) -> Option<u32> {
    let digits: String = version?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Fields of an archive, one behind the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    /// A byte that says whether it is negative, and the number, its lowest byte first.
    fn number(&mut self, count: usize) -> Option<i64> {
        let negative = self.byte()? != 0;
        let bytes = self.bytes(count)?;
        let mut number: i64 = 0;
        for byte in bytes.iter().rev() {
            number = number.checked_mul(256)?.checked_add(i64::from(*byte))?;
        }
        Some(if negative { -number } else { number })
    }

    /// `Some(None)`: there is none.
    fn text(&mut self, number_bytes: usize) -> Option<Option<String>> {
        let Ok(length) = usize::try_from(self.number(number_bytes)?) else {
            return Some(None);
        };
        let bytes = self.bytes(length)?;
        Some(Some(String::from_utf8_lossy(bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_says_what_it_is_of() {
        let number = |value: u8| vec![0, value, 0, 0, 0];
        let text = |text: &str| [number(u8::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat();
        for minor in [14, 15] {
            let mut bytes = b"PGDMP".to_vec();
            bytes.extend([1, minor, 0, 4, 8, 1]);
            bytes.extend(if minor == 15 { vec![1] } else { vec![1, 1, 0, 0, 0] });
            (0..7).for_each(|value| bytes.extend(number(value)));
            bytes.extend([text("hotel"), text("15.18 (Debian)"), text("16.2")].concat());
            let about = About::of_archive(&bytes).unwrap();
            assert_eq!(about.database.as_deref(), Some("hotel"), "{minor}");
            assert_eq!((about.major(), about.pg_dump_major()), (Some(16), Some(16)));
            assert_eq!(About::of_archive(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn a_text_says_it_in_comments() {
        let about = About::of_text(
            b"--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 18.1\n-- Dumped by pg_dump version 18.1\n",
        );
        assert_eq!((about.server.as_deref(), about.major()), (Some("18.1"), Some(18)));
        assert_eq!(About::of_text(b"SET x;").major(), None);
    }
}
