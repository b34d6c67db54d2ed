//! The real binary, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests"
)]

mod cli;
mod golden;
mod init;
mod keys;
mod recover;
mod signals;
mod store;
mod world;
