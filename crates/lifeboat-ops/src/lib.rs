//! The verbs: the only place where an engine meets the repository.
//!
//! Knows neither the command line nor byte layouts. Each verb is one function on one page; its steps lie in a folder of its name.

pub mod attest;
pub mod backup;
pub mod canary;
pub mod check;
pub mod copy;
pub mod diff;
pub mod doctor;
pub mod drill;
pub mod durations;
pub mod export;
pub mod follow;
pub mod hold;
pub mod keys;
pub mod ledger;
pub mod probe;
pub mod proof;
pub mod protected;
pub mod prune;
pub mod reach;
pub mod restore;
pub mod status;
pub mod store;
pub mod stores;
pub mod undelete;
pub mod verify;
pub mod wal;
mod words;

pub use protected::{PkiRoles, Protected, Source};
