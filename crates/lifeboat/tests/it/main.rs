//! The real binary, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::string_slice,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "tests"
)]

mod cli;
mod cluster;
mod cluster_faults;
mod diff;
mod environment;
mod fetch;
mod files;
mod follow;
mod golden;
mod golden_repositories;
mod guides;
mod init;
mod keys;
mod legacy;
mod recover;
mod recovery;
mod several;
mod signals;
mod store;
mod torture;
mod upkeep;
mod world;
