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

mod audit;
mod canary;
mod checklist;
mod checks;
mod cli;
mod cluster;
mod cluster_checks;
mod cluster_drill;
mod cluster_faults;
mod cluster_reach;
mod cluster_replaced;
mod diff;
mod drill;
mod drill_kill;
mod drill_remarks;
mod dumps;
mod environment;
mod fetch;
mod files;
mod follow;
mod golden;
mod golden_repositories;
mod guides;
mod init;
mod keys;
mod kit;
mod legacy;
mod logical;
mod logical_faults;
mod logical_forms;
mod many_tables;
mod merge;
mod plans;
mod probes;
mod recover;
mod recovery;
mod several;
mod signals;
mod slices;
mod store;
mod tenants;
mod torture;
mod undelete;
mod upkeep;
mod window;
mod world;
