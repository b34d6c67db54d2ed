//! PostgreSQL clusters ([docs/postgres.md](../../../../docs/postgres.md)).
//!
//! Rules that hold everywhere in this folder:
//! - The source is never changed: nothing is written into its data directory, no setting, no table. Slots are named and told about.
//! - What a server says is checked before it allocates, indexes or multiplies.

pub mod binaries;
pub mod capture;
pub mod conf;
pub mod control;
mod crc;
pub mod increment;
pub mod label;
pub mod layout;
pub mod manifest;
pub mod page;
pub mod sandbox;
pub mod tar;
