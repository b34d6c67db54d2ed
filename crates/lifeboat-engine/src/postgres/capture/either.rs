//! A capture, whichever way it is made.

use lifeboat_model::{Position, Result};
use tokio_postgres::Client;

use super::{Captured, Item, Local, Stream};

/// A capture under way.
#[derive(Debug)]
pub enum Capture {
    /// From the data directory.
    Local(Box<Local>),
    /// From the server's stream.
    Stream(Box<Stream>),
}

impl Capture {
    /// The log has to be held from here on.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Local(local) => local.position(),
            Self::Stream(stream) => stream.position(),
        }
    }

    /// Bytes that there were about, when the backup began.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        match self {
            Self::Local(local) => local.total_bytes(),
            Self::Stream(stream) => stream.total_bytes(),
        }
    }

    /// The next file; its bytes are to be read to their end. `None` after `pg_control`, the last. Blocks.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        match self {
            Self::Local(local) => local.next_item(),
            Self::Stream(stream) => stream.next_item(),
        }
    }

    /// Ends the backup. Any error means that what was read is not one. Why a stream broke off is said here, also to whoever could not store it.
    pub async fn finish(self, client: &Client) -> Result<Captured> {
        match self {
            Self::Local(local) => local.finish(client).await,
            Self::Stream(stream) => stream.finish(client).await,
        }
    }

    /// Why the stream broke off, where it did.
    #[must_use]
    pub fn failure(&self) -> Option<lifeboat_model::Error> {
        match self {
            Self::Local(_) => None,
            Self::Stream(stream) => stream.failure(),
        }
    }
}
