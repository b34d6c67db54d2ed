//! The repository against everything that may happen to it: sources that change, stores that fail, machines that die, people and
//! attackers that damage files. Long matrices take a share by `LIFEBOAT_TEST_SEED`, and the whole under `LIFEBOAT_SOAK=1`.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "tests"
)]

mod bad_input;
mod changes;
mod crash;
mod keys;
mod kit;
mod ledger;
mod log;
mod memory;
mod poisoned_parent;
mod prune;
mod round_trip;
mod simulation;
mod state;
mod streams;
mod torture;
mod two_stores;
mod two_stores_pruned;
mod wire;
mod world;
