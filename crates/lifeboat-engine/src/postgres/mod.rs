//! PostgreSQL clusters ([docs/postgres.md](../../../../docs/postgres.md)).
//!
//! [`conninfo`] says where a server is and who we are there, [`wire`] speaks its protocol, [`replication`] the commands of its replication
//! mode, and [`sql`] hands everything else to `tokio-postgres` over the same kind of connection. The other modules read what a cluster
//! consists of, copy it, and start what was restored.
//!
//! Rules that hold everywhere in this folder:
//! - The source is never changed: nothing is written into its data directory, no setting, no table. Slots are named and told about; a [`canary`] is
//!   written where the configuration asks for one.
//! - What a server says is checked before it allocates, indexes or multiplies.

pub mod binaries;
pub mod canary;
pub mod capture;
pub mod checks;
pub mod conf;
pub mod conninfo;
pub mod control;
mod crc;
pub mod dump;
pub mod examine;
pub mod increment;
pub mod label;
pub mod layout;
pub mod logical;
pub mod manifest;
pub mod page;
pub mod records;
pub mod recovery;
pub mod replication;
pub mod role;
pub mod running;
pub mod sandbox;
pub mod segment;
pub mod sql;
pub mod tar;
pub mod undelete;
pub mod wire;

pub use conninfo::{ConnInfo, Surroundings};
pub use wire::error::{ServerError, server_error, sqlstate};
