//! The commands of the replication mode (PostgreSQL documentation, 55.4 "Streaming Replication Protocol"), on a [`Connection`] that was opened
//! with [`Mode::Replication`](super::wire::Mode).
//!
//! Each is one method. Those that copy take the connection and give it back at their end: [`stream`] for the log, [`backup`] for files.
//! What is read here is never believed further than it goes: positions are parsed, counted and compared, and an answer with other columns
//! than documented is an error.

pub mod backup;
mod commands;
pub mod stream;

use bytes::Bytes;
use lifeboat_model::lsn::{Lsn, Position, Timeline};
use lifeboat_model::{Error, ErrorKind, Result};

use super::wire::{Connection, ResultSet};
use crate::postgres::wire::error::broken;

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What tells clusters apart. It must be the expected one on every connection (PG-05).
    pub system: u64,
    /// The timeline, and how far its log is flushed (on a standby: received and flushed).
    pub position: Position,
}

/// The answer to `TIMELINE_HISTORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryFile {
    /// `00000002.history`
    pub name: String,
    /// The file, byte for byte.
    pub content: Bytes,
}

/// The answer to `READ_REPLICATION_SLOT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The oldest position that the server keeps for it; none where it keeps nothing yet.
    pub restart: Option<Lsn>,
    /// On which timeline.
    pub timeline: Option<Timeline>,
}

/// A slot name as the server takes it: lower-case letters, digits and underscores, at most 63.
///
/// # Errors
/// `ConfigInvalid` for any other.
pub fn check_slot_name(name: &str) -> Result<()> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(sound) {
        return Ok(());
    }
    let detail = "a name of a replication slot has lower-case letters, digits and underscores, at most 63";
    Err(Error::new(
        ErrorKind::ConfigInvalid,
        "use the slot",
        format_args!("{name:?}"),
        detail,
    ))
}

/// A text in a command.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value of the first row, parsed.
fn value<T: std::str::FromStr>(connection: &Connection, rows: &ResultSet, column: usize, what: &str) -> Result<T> {
    let text = rows.first(column);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| broken(connection.subject(), format_args!("{what} is not in the answer ({text:?})")))
}

/// Timeline and position from two columns of the first row.
fn position(rows: &ResultSet, lsn: usize, timeline: usize) -> Option<Position> {
    let lsn: Lsn = rows.first(lsn)?.parse().ok()?;
    let timeline: Timeline = rows.first(timeline)?.parse().ok()?;
    Some(Position::new(timeline, lsn))
}
