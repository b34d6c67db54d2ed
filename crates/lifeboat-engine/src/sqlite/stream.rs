//! What a capture gives beside the pages: the SQL text and the extracts, as streams that are read one after the other.
//!
//! They come after the pages, in order; each ends before the next begins.

use std::io::{self, Read};
use std::sync::Arc;

use super::queue::Queue;

/// A stream beside the pages.
#[derive(Debug)]
pub struct Beside {
    /// Its name in the backup.
    pub name: String,
    pub(super) queue: Arc<Queue>,
}

impl Beside {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            queue: Arc::new(Queue::default()),
        }
    }

    /// Its bytes. An error means that the capture failed; its `finish` says why.
    #[must_use]
    pub fn reader(&self) -> Box<dyn Read + Send> {
        Box::new(Pieces {
            queue: Arc::clone(&self.queue),
            piece: Vec::new(),
            at: 0,
        })
    }
}

struct Pieces {
    queue: Arc<Queue>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            self.at = 0;
            if self.queue.take(&mut self.piece).map_err(io::Error::other)?.is_none() {
                self.piece.clear();
                return Ok(0);
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

/// The name of the SQL text: the database's, ending in `.sql`.
pub(super) fn dump_name(database: &str) -> String {
    match database.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && ending != "sql" => format!("{stem}.sql"),
        _ => format!("{database}.sql"),
    }
}
