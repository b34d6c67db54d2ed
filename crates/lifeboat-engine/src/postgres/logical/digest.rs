//! The digest of a table: how many rows, and the sum of a hash of each row's text.
//!
//! A row is a line of COPY's text format, without its line end; line ends inside of values are escaped there. The hash is XXH3 with 128 bits and
//! no seed (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>), the sum is modulo 2^128: rows may come in any order and from
//! several connections. It tells damage, loss and mix-ups; whoever wants two tables to look alike can make them so.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use lifeboat_model::{Error, ErrorKind, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_128;

/// Of a table, or of some of its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many rows.
    pub rows: u64,
    /// The sum of their hashes.
    pub sum: u128,
}

impl Add for Digest {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows.wrapping_add(other.rows),
            sum: self.sum.wrapping_add(other.sum),
        }
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// `ROWS-SUM`, the sum as 32 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.rows, self.sum)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once('-').and_then(|(rows, sum)| {
            let sum = (sum.len() == 32).then_some(sum)?;
            Some(Self {
                rows: rows.parse().ok()?,
                sum: u128::from_str_radix(sum, 16).ok()?,
            })
        });
        parsed.ok_or_else(|| Error::new(ErrorKind::Corrupt, "read", "a digest", format!("{text:?} is none")))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Takes text in pieces that end anywhere.
#[derive(Default)]
pub struct Rows {
    digest: Digest,
    /// The beginning of a row whose end has not come.
    begun: Option<Box<XxHash3_128>>,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Rows {
    /// The next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if let Some(mut begun) = self.begun.take() {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                begun.write(bytes);
                self.begun = Some(begun);
                return;
            };
            let (rest, behind) = bytes.split_at(end);
            begun.write(rest);
            self.count(begun.finish_128());
            bytes = behind.get(1..).unwrap_or_default();
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.count(XxHash3_128::oneshot(bytes.get(start..end).unwrap_or_default()));
            start = end + 1;
        }
        let rest = bytes.get(start..).unwrap_or_default();
        if !rest.is_empty() {
            let mut begun = Box::new(XxHash3_128::new());
            begun.write(rest);
            self.begun = Some(begun);
        }
    }

    fn count(&mut self, hash: u128) {
        self.digest += Digest { rows: 1, sum: hash };
    }

    /// After the last.
    ///
    /// # Errors
    /// `Corrupt` where the last row has no end.
    pub fn end(self) -> Result<Digest> {
        if self.begun.is_some() {
            let detail = "the last row does not end";
            return Err(Error::new(ErrorKind::Corrupt, "read", "the rows of a table", detail));
        }
        Ok(self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[u8]]) -> Digest {
        let mut rows = Rows::default();
        for piece in pieces {
            rows.feed(piece);
        }
        rows.end().unwrap()
    }

    #[test]
    fn neither_the_order_of_rows_nor_where_pieces_end_matters() {
        let text = b"1\tone\n2\ttwo\n\n3\tthree\n";
        let whole = of(&[text]);
        assert_eq!(whole.rows, 4);
        for cut in 0..=text.len() {
            let (one, two) = text.split_at(cut);
            assert_eq!(of(&[one, two]), whole, "{cut}");
            assert_eq!(of(&[one, b"", two]), whole, "{cut}");
        }
        assert_eq!(of(&[b"3\tthree\n\n", b"2\ttwo\n1\tone\n"]), whole);
        assert_eq!(of(&[b"1\tone\n2\ttwo\n"]) + of(&[b"\n3\tthree\n"]), whole);
        for other in [
            &b"1\tone\n2\ttwo\n3\tthree\n"[..],
            b"1\tone\n2\ttwo\n\n3\tthrei\n",
            b"1\tone\n1\tone\n\n3\tthree\n",
        ] {
            assert_ne!(of(&[other]), whole);
        }
        assert_eq!(of(&[]), Digest::default());
        let mut rows = Rows::default();
        rows.feed(b"1\tone");
        assert_eq!(rows.end().unwrap_err().kind(), ErrorKind::Corrupt);
    }

    /// A stored number that every later version must make of the same rows.
    #[test]
    fn digests_are_written_and_read_and_stay_as_they_are() {
        let digest = of(&[b"1\tone\n2\ttwo\n"]);
        let text = digest.to_string();
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        // XXH3-128 of nothing, from the reference implementation.
        assert_eq!(of(&[b"\n"]).to_string(), "1-99aa06d3014798d86001c324468d497f");
        for wrong in [
            "",
            "1",
            "1-",
            "x-99aa06d3014798d86001c324468d497f",
            "1-99aa06d3014798d86001c324468d49",
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
