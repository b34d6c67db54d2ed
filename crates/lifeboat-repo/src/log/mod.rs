//! Continuous log (`docs/format.md` 11): pieces, frames, histories, lineages, gaps; a writer and a reader.
//!
//! Apart from packs and backups, because a log has no end: a file is complete by itself, and what is held follows from what stands in the
//! store alone (PG-04). Must not know how a source hands out its log, or decide which moments can be reached: that is
//! `lifeboat_model::wal`. What is in the store if we die: files that count, each by itself, and a session that protects its key.

mod cleaner;
mod copy;
mod file;
mod listing;
mod name;
mod prepared;
mod reader;
mod record;
mod state;
mod writer;

pub use cleaner::LogCleaner;
pub use copy::{LogCopied, copy_log};
pub use file::LogHeader;
pub use listing::{LogListing, confirm_log, list_log};
pub use name::{LogFileKind, LogName};
pub use prepared::{LogPreparer, PreparedLog};
pub use reader::{Judged, LogReader, holds_two_versions};
pub use record::{GapRecord, LineageRecord};
pub use writer::{Appended, LogPlan, LogWriter, NewLog};

pub(crate) use name::LogPlace;
pub(crate) use record::read_lineage;

use lifeboat_model::Lsn;

/// A piece or a frame lies within one block of so many bytes.
pub const BLOCK_BYTES: u64 = 16 << 20;

/// The beginning of the block that holds the byte at `lsn`.
#[must_use]
pub fn block_start(lsn: Lsn) -> Lsn {
    Lsn(lsn.0 & !(BLOCK_BYTES - 1))
}

/// The end of the block that holds the byte at `lsn`.
#[must_use]
pub fn block_end(lsn: Lsn) -> Lsn {
    block_start(lsn).plus(BLOCK_BYTES)
}
