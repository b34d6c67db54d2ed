//! Pack buffers that go round: a fresh 16 MiB buffer costs the kernel as much time as sealing 4 MiB.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::sync::lock;

/// Buffers kept at most; more are under way only for moments.
const KEPT: usize = 8;

/// Spare buffers of one session.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer that returns to its pool when the store has let go of it.
struct Pooled {
    bytes: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut spare = lock(&self.pool.0);
        if spare.len() < KEPT {
            spare.push(bytes);
        }
    }
}

impl Pool {
    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        let mut bytes = lock(&self.0).pop().unwrap_or_default();
        bytes.reserve(capacity);
        bytes
    }

    /// Hands a filled buffer out; it comes back when nobody uses it any more.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Pooled {
            bytes,
            pool: self.clone(),
        })
    }
}
