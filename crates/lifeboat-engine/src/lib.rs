//! Who is protected: one folder per engine, each of which can capture its kind of data consistently and inspect a restored copy.
//!
//! Knows databases and files, and nothing about the repository, the stores or schedules.

pub mod artefact;
mod expect;
pub mod files;
pub mod pki;
pub mod postgres;
pub mod sqlite;
