//! Values of rows: how they compare, and how they are shown.

use std::cmp::Ordering;

use rusqlite::types::ValueRef;

/// Letters or bytes shown of a long value.
const SHOWN: usize = 60;

/// A value as it is shown: text and blobs shortened.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// The beginning of a text, and how many bytes it has in all.
    Text(String, usize),
    /// The beginning of a blob in hex, and how many bytes it has in all.
    Blob(String, usize),
}

impl Cell {
    pub(super) fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(bytes) => {
                let shown: String = String::from_utf8_lossy(bytes).chars().take(SHOWN).collect();
                Self::Text(shown, bytes.len())
            }
            ValueRef::Blob(bytes) => Self::Blob(hex::encode(bytes.get(..SHOWN / 2).unwrap_or(bytes)), bytes.len()),
        }
    }
}

/// How texts are stored, which decides in which order they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16le,
    Utf16be,
}

impl Encoding {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "UTF-16le" => Self::Utf16le,
            "UTF-16be" => Self::Utf16be,
            _ => Self::Utf8,
        }
    }

    fn bytes(self, text: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(text);
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

/// A value that is kept over a step.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Kept {
    pub(super) fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    pub(super) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

/// Whether two values are the same to the bit, type included.
pub(super) fn is_same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// The order in which SQLite sorts (`COLLATE BINARY`): NULL, numbers, text by its stored bytes, blobs.
/// <https://www.sqlite.org/datatype3.html#comparison_expressions>
pub(super) fn order(a: ValueRef<'_>, b: ValueRef<'_>, encoding: Encoding) -> Ordering {
    match (a, b) {
        (ValueRef::Integer(a), ValueRef::Integer(b)) => a.cmp(&b),
        (ValueRef::Real(a), ValueRef::Real(b)) => reals(a, b),
        (ValueRef::Integer(a), ValueRef::Real(b)) => mixed(a, b),
        (ValueRef::Real(a), ValueRef::Integer(b)) => mixed(b, a).reverse(),
        (ValueRef::Text(a), ValueRef::Text(b)) if encoding == Encoding::Utf8 => a.cmp(b),
        (ValueRef::Text(a), ValueRef::Text(b)) => encoding.bytes(a).cmp(&encoding.bytes(b)),
        (ValueRef::Blob(a), ValueRef::Blob(b)) => a.cmp(b),
        (a, b) => class(a).cmp(&class(b)),
    }
}

const fn class(value: ValueRef<'_>) -> u8 {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 1,
        ValueRef::Text(_) => 2,
        ValueRef::Blob(_) => 3,
    }
}

fn reals(a: f64, b: f64) -> Ordering {
    // SQLite stores no NaN.
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

/// Exact up to 53 bits; beyond, where a key mixes integers and floats, neighbours may compare as equal, which the walk notices.
fn mixed(integer: i64, real: f64) -> Ordering {
    const LOW: f64 = 4_294_967_296.0;
    let high = i32::try_from(integer >> 32).map_or(0.0, f64::from);
    let low = u32::try_from(integer & 0xffff_ffff).map_or(0.0, f64::from);
    reals(high.mul_add(LOW, low), real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_the_order_of_sqlite() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let sql =
            "WITH v(x) AS (VALUES (NULL), (-9223372036854775808), (-1.5), (-1), (0), (0.5), (1), (4294967296), (4294967296.5),
                   (9007199254740993), (1e300), (''), ('A'), ('a'), ('ä'), ('a' || char(0)), (x''), (x'00'), (x'ff'))
                   SELECT x FROM v ORDER BY x";
        let mut statement = connection.prepare(sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        let mut sorted = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            sorted.push(Kept::of(row.get_ref(0).unwrap()));
        }
        assert_eq!(sorted.len(), 19);
        for pair in sorted.windows(2) {
            assert_eq!(
                order(pair[0].as_ref(), pair[1].as_ref(), Encoding::Utf8),
                Ordering::Less,
                "{pair:?}"
            );
        }
    }

    #[test]
    fn texts_of_utf_16_come_by_their_stored_bytes() {
        let (low, high) = (ValueRef::Text("Ā".as_bytes()), ValueRef::Text("a".as_bytes()));
        // U+0100 is 00 01 in little-endian order, U+0061 is 61 00.
        assert_eq!(order(low, high, Encoding::Utf16le), Ordering::Less);
        assert_eq!(order(low, high, Encoding::Utf16be), Ordering::Greater);
        assert_eq!(order(low, high, Encoding::Utf8), Ordering::Greater);
    }
}
