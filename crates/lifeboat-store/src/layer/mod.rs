//! What can be put around any store without the store or its user knowing. A layer keeps the whole contract of
//! [`BlobStore`](crate::BlobStore), and the conformance suite runs over it.

pub mod limit;
pub mod meter;
pub mod retry;
