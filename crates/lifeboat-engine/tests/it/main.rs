//! The SQLite engine against real databases and real other processes: the `sqlite3` shell and Python, which bring their own SQLite.
//! Another connection of this process would prove nothing, for SQLite's locks belong to processes.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod artefact;
mod bad_source;
mod bank;
mod child;
mod diff;
mod discover;
mod dump;
mod exact;
mod locks;
mod other;
mod pg_capture;
mod pg_checks;
mod pg_kernels;
mod pg_rows;
mod pg_sandbox;
mod pki;
mod postgres;
mod probe;
mod sqlite_checks;
mod stall;
mod taken;
