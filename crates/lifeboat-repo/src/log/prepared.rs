//! Log that is compressed and hashed before its turn to be put: that needs neither a session nor what was put before it.

use lifeboat_io::compute;
use lifeboat_model::wal::Range;
use lifeboat_model::{Error, ErrorKind, Result};

use super::{BLOCK_BYTES, LogFileKind, LogWriter, block_end};
use crate::key::{Id, IdKeys};
use crate::pack::{Compressor, Form};

/// Prepares log for one writer. May be used on other threads, while the writer puts something else.
#[derive(Debug, Clone)]
pub struct LogPreparer {
    pub(super) ids: IdKeys,
}

/// Log with everything that can be known of it before it is sealed.
#[derive(Debug)]
pub struct PreparedLog {
    pub(super) raw: Vec<u8>,
    pub(super) content: Id,
    /// Of whose ids it is.
    pub(super) id_check: Id,
    pub(super) form: Form,
    /// Compressed; nothing where it is stored as it is.
    body: Vec<u8>,
}

impl LogPreparer {
    /// Compresses and hashes. Blocks for tens of milliseconds with a whole block.
    pub fn prepare(&self, raw: Vec<u8>) -> Result<PreparedLog> {
        let mut compressor = Compressor::new()?;
        let (form, body) = compressor.shrink(&raw)?;
        let body = match form {
            Form::Raw => Vec::new(),
            Form::Zstd => body.to_vec(),
        };
        Ok(PreparedLog {
            content: self.ids.chunk(&raw),
            id_check: self.ids.chunk(&[]),
            form,
            body,
            raw,
        })
    }
}

impl PreparedLog {
    /// What is sealed.
    pub(super) fn plain(&self) -> &[u8] {
        match self.form {
            Form::Raw => &self.raw,
            Form::Zstd => &self.body,
        }
    }
}

impl LogWriter {
    /// For log that is prepared beside what is put before it.
    #[must_use]
    pub fn preparer(&self) -> LogPreparer {
        LogPreparer { ids: self.ids.clone() }
    }

    /// Prepares log now.
    pub(super) async fn prepare(&self, raw: Vec<u8>) -> Result<PreparedLog> {
        let preparer = self.preparer();
        compute::run("compress log", move || preparer.prepare(raw)).await
    }
}

/// Log within one block.
pub(super) fn sound(kind: LogFileKind, range: Range, raw: &[u8]) -> Result<()> {
    let sound = !range.is_empty() && range.end <= block_end(range.start) && range.bytes() == raw.len() as u64;
    if kind != LogFileKind::History && sound {
        return Ok(());
    }
    let detail = "what is appended is not log within one block";
    Err(Error::new(ErrorKind::Bug, "append log", range, detail))
}

const _: () = assert!(BLOCK_BYTES <= u32::MAX as u64, "a range within a block fits the header");
