//! Rows of COPY's text format as its binary format, for the way in.
//!
//! A server spends half of its time with a COPY in text format on reading dates, times and numbers, which is quicker done here, where the form they
//! have is known. What is captured and what is read back for the comparison stays text, which the server itself writes: a mistake made here cannot
//! pass (LG-04). Only what the settings of our sessions make the server write is understood, of types whose binary form has been the same since PostgreSQL 10; anything
//! else is an error that [`asks_for_text`] knows, and the table goes in as text.
//!
//! The format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>; the types: their `*_recv` functions in `src/backend/utils/adt`.

mod values;

use lifeboat_model::{Error, ErrorKind, Result};

use super::facts::Name;
use super::{Table, quoted_text};
use crate::postgres::sqlstate;

const OP: &str = "send as binary";
/// Signature, flags, length of the extension of the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// How a column's text becomes what the server receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The same bytes: texts, JSON, names of enum values.
    Same,
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Bytea,
    Date,
    Time,
    /// With and without a zone.
    Timestamp,
    Uuid,
    Jsonb,
}

impl Kind {
    /// Of a type by its `typtype` and number (`src/include/catalog/pg_type.dat`).
    fn of(sort: &str, oid: u32) -> Option<Self> {
        Some(match (sort, oid) {
            ("e", _) | ("b", 19 | 25 | 114 | 1042 | 1043) => Self::Same,
            ("b", 16) => Self::Bool,
            ("b", 17) => Self::Bytea,
            ("b", 20) => Self::Int8,
            ("b", 21) => Self::Int2,
            ("b", 23) => Self::Int4,
            ("b", 26) => Self::Oid,
            ("b", 700) => Self::Float4,
            ("b", 701) => Self::Float8,
            ("b", 1082) => Self::Date,
            ("b", 1083) => Self::Time,
            ("b", 1114 | 1184) => Self::Timestamp,
            ("b", 1700) => Self::Numeric,
            ("b", 2950) => Self::Uuid,
            ("b", 3802) => Self::Jsonb,
            _ => return None,
        })
    }

    /// Puts length and value behind `out`; nothing where the text is none that the server writes.
    fn put(self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Same => sized(out, text),
            Self::Bool => sized(out, &[values::bool(text)?]),
            Self::Int2 => sized(out, &values::int::<i16>(text)?.to_be_bytes()),
            Self::Int4 => sized(out, &values::int::<i32>(text)?.to_be_bytes()),
            Self::Int8 => sized(out, &values::int::<i64>(text)?.to_be_bytes()),
            Self::Oid => sized(out, &values::int::<u32>(text)?.to_be_bytes()),
            Self::Float4 => sized(out, &values::float4(text)?.to_be_bytes()),
            Self::Float8 => sized(out, &values::float8(text)?.to_be_bytes()),
            Self::Date => sized(out, &values::date(text)?.to_be_bytes()),
            Self::Time => sized(out, &values::time(text)?.to_be_bytes()),
            Self::Timestamp => sized(out, &values::timestamp(text)?.to_be_bytes()),
            Self::Uuid => sized(out, &values::uuid(text)?),
            Self::Numeric => in_place(out, |out| values::numeric(text, out)),
            Self::Bytea => in_place(out, |out| values::bytea(text, out)),
            Self::Jsonb => in_place(out, |out| {
                // The version of the format (`jsonb_recv`).
                out.push(1);
                out.extend_from_slice(text);
                Some(())
            }),
        }
    }
}

fn sized(out: &mut Vec<u8>, value: &[u8]) -> Option<()> {
    out.extend_from_slice(&i32::try_from(value.len()).ok()?.to_be_bytes());
    out.extend_from_slice(value);
    Some(())
}

/// A value whose length is known when it is written.
fn in_place(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = i32::try_from(out.len() - at - 4).ok()?;
    out.get_mut(at..at + 4)?.copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// Takes text in pieces that end anywhere.
#[derive(Debug)]
pub struct Encoder {
    table: Name,
    columns: Vec<Kind>,
    /// The beginning of a row whose end has not come.
    begun: Vec<u8>,
    /// A value without its escapes.
    plain: Vec<u8>,
    has_header: bool,
}

/// Asks for the types of a table's columns, in the order of its rows; [`Encoder::new`] takes the answer.
#[must_use]
pub fn asks_for_types(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| quoted_text(column)).collect();
    format!(
        "SELECT json_agg(json_build_array(t.typtype, t.oid::bigint) ORDER BY u.place) FROM unnest(ARRAY[{}]::text[]) WITH ORDINALITY u (name, place) \
         JOIN pg_attribute a ON a.attrelid = {}::regclass AND a.attname = u.name AND a.attnum > 0 JOIN pg_type t ON t.oid = a.atttypid",
        columns.join(", "),
        quoted_text(&table.name.sql())
    )
}

/// Whether the rows have to go in as text, which everything can: they hold something that is not understood here, or the server did not take what was made
/// of it. Then the server says what is wrong, if something is.
#[must_use]
pub fn asks_for_text(error: &Error) -> bool {
    // 22: data that is none of its type. 08P01: a message that is shorter or longer than it should be.
    let is_data = |state: &str| state.starts_with("22") || state == "08P01";
    error.op() == OP || sqlstate(error).is_some_and(is_data)
}

impl Encoder {
    /// For a table with columns of these types; none where one of them is not understood.
    #[must_use]
    pub fn new(table: &Table, types: &str) -> Option<Self> {
        let types: Vec<(String, u32)> = serde_json::from_str(types).ok()?;
        let columns: Vec<Kind> = types.iter().map(|(sort, oid)| Kind::of(sort, *oid)).collect::<Option<_>>()?;
        // One that is not there is the server's to tell.
        (columns.len() == table.columns.len() && !columns.is_empty()).then(|| Self {
            table: table.name.clone(),
            columns,
            begun: Vec::new(),
            plain: Vec::new(),
            has_header: false,
        })
    }

    /// Puts the rows that end in `text`, and in what came before, behind `out`.
    ///
    /// # Errors
    /// One that [`asks_for_text`] knows.
    pub fn feed(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if !self.has_header {
            self.has_header = true;
            out.extend_from_slice(HEADER);
        }
        let Some(last) = memchr::memrchr(b'\n', text) else {
            self.begun.extend_from_slice(text);
            return Ok(());
        };
        let (rows, rest) = text.split_at(last + 1);
        let mut rows = rows;
        if !self.begun.is_empty() {
            let end = memchr::memchr(b'\n', rows).map_or(rows.len(), |end| end + 1);
            let (first, others) = rows.split_at(end);
            let mut begun = std::mem::take(&mut self.begun);
            begun.extend_from_slice(first);
            self.rows(&begun, out)?;
            begun.clear();
            self.begun = begun;
            rows = others;
        }
        self.rows(rows, out)?;
        self.begun.extend_from_slice(rest);
        Ok(())
    }

    /// What stands behind the last row.
    ///
    /// # Errors
    /// The same, where the last row has no end.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        // An empty table has a header as well.
        self.feed(b"", out)?;
        if !self.begun.is_empty() {
            return Err(self.odd());
        }
        out.extend_from_slice(&TRAILER);
        Ok(())
    }

    /// Whole rows.
    fn rows(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let count = i16::try_from(self.columns.len()).unwrap_or(i16::MAX).to_be_bytes();
        let (mut start, mut column, mut is_escaped, mut skipped) = (0, 0, false, usize::MAX);
        for at in memchr::memchr3_iter(b'\t', b'\n', b'\\', text) {
            if at == skipped {
                continue;
            }
            let sign = text.get(at).copied().unwrap_or_default();
            if sign == b'\\' {
                is_escaped = true;
                // What it makes another letter of is none of the three that are looked for, unless it is one itself.
                skipped = at + 1;
                continue;
            }
            if column == 0 {
                out.extend_from_slice(&count);
            }
            let value = text.get(start..at).unwrap_or_default();
            let put = self.columns.get(column).and_then(|kind| {
                if value == b"\\N" {
                    out.extend_from_slice(&NULL);
                    Some(())
                } else if is_escaped {
                    unescape(value, &mut self.plain)?;
                    kind.put(&self.plain, out)
                } else {
                    kind.put(value, out)
                }
            });
            column += 1;
            let is_whole = sign == b'\t' || column == self.columns.len();
            if put.is_none() || !is_whole {
                return Err(self.odd());
            }
            if sign == b'\n' {
                column = 0;
            }
            (start, is_escaped) = (at + 1, false);
        }
        // An end that is escaped ends nothing.
        if start < text.len() {
            return Err(self.odd());
        }
        Ok(())
    }

    fn odd(&self) -> Error {
        let detail = "a row is not as the server writes it";
        Error::new(ErrorKind::Failed, OP, &self.table, detail).with_hint("it can be sent as text")
    }
}

/// A value without the escapes that the server writes (`CopyAttributeOutText`).
fn unescape(text: &[u8], plain: &mut Vec<u8>) -> Option<()> {
    plain.clear();
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        plain.extend_from_slice(rest.get(..at)?);
        plain.push(match rest.get(at + 1)? {
            b'\\' => b'\\',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            _ => return None,
        });
        rest = rest.get(at + 2..)?;
    }
    plain.extend_from_slice(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::logical::Digest;

    fn table(columns: usize) -> Table {
        Table {
            name: Name {
                schema: "public".into(),
                name: "t".into(),
            },
            columns: (0..columns).map(|column| format!("c{column}")).collect(),
            heap_bytes: 0,
            condition: None,
            of: None,
            parts: Vec::new(),
            text_bytes: 0,
            digest: Digest::default(),
        }
    }

    fn encoded(types: &str, pieces: &[&[u8]]) -> Result<Vec<u8>> {
        let count = types.matches(',').count().div_ceil(2);
        let mut encoder = Encoder::new(&table(count), types).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            encoder.feed(piece, &mut out)?;
        }
        encoder.end(&mut out)?;
        Ok(out)
    }

    const INT_AND_TEXT: &str = r#"[["b", 23], ["b", 25]]"#;

    #[test]
    fn where_pieces_end_does_not_matter() {
        let text = b"1\tone\n-2\t\\N\n3\ta\\tb\\\\c\\n\n\\N\t\n";
        let whole = encoded(INT_AND_TEXT, &[text]).unwrap();
        let mut wanted = HEADER.to_vec();
        let mut row = |number: &[u8], word: &[u8]| {
            wanted.extend_from_slice(&[0, 2]);
            wanted.extend_from_slice(number);
            wanted.extend_from_slice(word);
        };
        row(&[0, 0, 0, 4, 0, 0, 0, 1], b"\0\0\0\x03one");
        row(&[0, 0, 0, 4, 255, 255, 255, 254], &[255; 4]);
        row(&[0, 0, 0, 4, 0, 0, 0, 3], b"\0\0\0\x06a\tb\\c\n");
        row(&[255; 4], &[0; 4]);
        wanted.extend_from_slice(&TRAILER);
        assert_eq!(whole, wanted);
        for cut in 0..=text.len() {
            let (one, two) = text.split_at(cut);
            assert_eq!(encoded(INT_AND_TEXT, &[one, two]).unwrap(), whole, "{cut}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(encoded(INT_AND_TEXT, &bytes).unwrap(), whole);
        assert_eq!(encoded(INT_AND_TEXT, &[]).unwrap(), [HEADER, &TRAILER].concat());
    }

    #[test]
    fn what_is_not_understood_asks_for_text() {
        for text in [
            &b"1\n"[..],
            b"1\ta\tb\n",
            b"\n",
            b"1\tone",
            b"one\tone\n",
            b"1\tone\\\n",
            b"1\t\\x41\n",
            b"1\t\\101\n",
            b"\\.\n",
        ] {
            let error = encoded(INT_AND_TEXT, &[text]).unwrap_err();
            assert!(asks_for_text(&error), "{}", String::from_utf8_lossy(text));
        }
        for types in [
            "",
            "[]",
            "null",
            r#"[["b", 1007]]"#,
            r#"[["d", 25]]"#,
            r#"[["b", 25], ["b", 25]]"#,
        ] {
            assert!(Encoder::new(&table(1), types).is_none(), "{types}");
        }
    }
}
