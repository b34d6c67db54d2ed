//! Tests of the pure decisions, through the public interface alone.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cold;
mod compliance;
mod cron;
mod drill;
mod estimate;
mod lsn;
mod plan;
mod protocol;
mod retention;
mod time;
mod wal;
