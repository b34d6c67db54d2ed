//! The configuration: `lifeboat.yaml` in, validated [`Settings`] out.
//!
//! Three stages: `file` (what may be written) -> `lower` (what is wrong with it, all of it, with line and column) ->
//! `settings` (what the program works with). Reads one file; must not open a store, a database or a secret.

mod settings;

pub(crate) use settings::{ComponentSettings, Encrypt, KeySettings, MinFree, SecretRef, Settings, StoreSettings};
