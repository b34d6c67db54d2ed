//! What bytes are, by how they begin.

use crate::sqlite::MAGIC as SQLITE;

/// Bytes that are looked at. A tar header has 512.
pub(super) const LOOK_BYTES: usize = 4096;

/// What a file, or a layer of one, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `openssl enc`.
    Openssl,
    /// `openssl enc -a`.
    OpensslBase64,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// A tar archive.
    Tar,
    /// A SQLite database.
    Database,
    /// A write-ahead log of SQLite.
    Wal,
    /// A rollback journal of SQLite.
    Journal,
    /// SQL text.
    Sql,
    /// A dump of PostgreSQL, as text or in one of its own formats.
    Postgres,
    /// Nothing at all.
    Empty,
    /// Something else.
    Other,
}

impl Kind {
    /// As it is called in sentences.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Openssl | Self::OpensslBase64 => "openssl enc",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Tar => "tar",
            Self::Database => "SQLite database",
            Self::Wal => "SQLite write-ahead log",
            Self::Journal => "SQLite rollback journal",
            Self::Sql => "SQL text",
            Self::Postgres => "PostgreSQL dump",
            Self::Empty => "empty",
            Self::Other => "other",
        }
    }

    /// What begins like this. `whole`: these are all bytes that there are.
    pub(super) fn of(beginning: &[u8], whole: bool) -> Self {
        let starts = |magic: &[u8]| beginning.starts_with(magic);
        if beginning.is_empty() {
            Self::Empty
        } else if starts(super::openssl::MAGIC) {
            Self::Openssl
        } else if starts(b"U2FsdGVkX1") {
            Self::OpensslBase64
        } else if is_gzip(beginning) {
            Self::Gzip
        } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else if starts(SQLITE) {
            Self::Database
        } else if starts(&[0x37, 0x7f, 0x06, 0x82]) || starts(&[0x37, 0x7f, 0x06, 0x83]) {
            Self::Wal
        } else if starts(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]) {
            Self::Journal
        } else if starts(b"PGDMP") {
            Self::Postgres
        } else if is_tar(beginning) {
            Self::Tar
        } else {
            text(beginning, whole)
        }
    }

    /// Whether this is a strong enough sign that a passphrase fits.
    pub(super) fn is_known(self) -> bool {
        !matches!(self, Self::Other | Self::Empty | Self::OpensslBase64)
    }
}

/// RFC 1952: the magic, deflate, and no reserved flag.
fn is_gzip(beginning: &[u8]) -> bool {
    matches!(beginning, [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0)
}

/// The checksum of the header, which every tar has, whether it says `ustar` or not.
fn is_tar(beginning: &[u8]) -> bool {
    let Some(header) = beginning.get(..512) else { return false };
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum();
    let written = header.get(148..156).unwrap_or_default();
    let digits: String = written
        .iter()
        .map(|byte| char::from(*byte))
        .skip_while(|c| *c == ' ')
        .take_while(char::is_ascii_digit)
        .collect();
    header.first() != Some(&0) && u64::from_str_radix(&digits, 8).is_ok_and(|written| written == sum)
}

fn text(beginning: &[u8], whole: bool) -> Kind {
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => text,
        // A letter may be cut by the end of what is looked at.
        Err(error) if !whole && error.valid_up_to() + 4 > beginning.len() => {
            std::str::from_utf8(beginning.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return Kind::Other,
    };
    let text = text.trim_start_matches('\u{feff}');
    if text.contains("-- PostgreSQL database") || text.contains("SET statement_timeout") || text.contains("\\connect ") {
        return Kind::Postgres;
    }
    let Some(first) = first_word(text) else { return Kind::Other };
    let known = [
        "PRAGMA", "BEGIN", "CREATE", "INSERT", "DROP", "DELETE", "ANALYZE", "REPLACE", "UPDATE",
    ];
    if known.iter().any(|word| first.eq_ignore_ascii_case(word)) {
        Kind::Sql
    } else {
        Kind::Other
    }
}

/// The first word after blanks and comments.
fn first_word(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix("--") {
            text = rest.split_once('\n')?.1;
        } else if let Some(rest) = text.strip_prefix("/*") {
            text = rest.split_once("*/")?.1;
        } else {
            return text.split(|c: char| !c.is_ascii_alphabetic()).next();
        }
    }
}
