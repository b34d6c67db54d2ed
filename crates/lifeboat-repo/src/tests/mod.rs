//! Tests that need to look inside: nonces, forged headers with good signatures, decoders on nonsense.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::disallowed_methods, reason = "tests")]

mod clones;
mod forged;
mod nonsense;
pub(crate) mod sealed;
#[path = "../../tests/it/world.rs"]
mod world;
