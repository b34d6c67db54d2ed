//! The verbs on real databases and directory stores: backup, restore, undo, verify, and what a kill in the middle leaves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod attest;
mod bucket;
mod cluster;
mod cluster_faults;
mod cluster_stream;
mod doctor_cluster;
mod drill;
mod files;
mod files_place;
mod follow;
mod kill;
mod ledger;
mod restore;
mod rewound_database;
mod undo;
mod verify;
mod world;
