//! The words of Lifeboat and its pure decisions.
//!
//! Nothing here touches a disk, a network, a clock, a random source or an async runtime, and nothing is serialised:
//! what this crate decides, it decides from its arguments alone, so every rule can be tested by calling it.

pub mod check;
pub mod cold;
pub mod cron;
pub mod drill;
pub mod env;
pub mod error;
pub mod estimate;
pub mod lifecycle;
pub mod lsn;
pub mod plan;
pub mod protocol;
pub mod readiness;
pub mod retention;
pub mod time;
pub mod wal;

pub use env::{Clock, Entropy, Env, Progress};
pub use error::{Error, ErrorKind, Result};
pub use lsn::{Lsn, Position, Timeline};
