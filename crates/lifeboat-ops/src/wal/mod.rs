//! Stored log for a server that recovers (PG-07): which file it may have, handing it out on a socket, and asking there.
//!
//! [`Archive`] decides and reads: a file, or that there is none (by what was decided or proven, never because something failed). [`serve()`]
//! answers on a socket, ahead of what is asked for; [`fetch()`] asks, as often as it takes. [`resolve()`] looks into the log for the exact
//! record with which a recovery ends. Nothing here writes into the repository.

mod archive;
mod fetch;
mod resolve;
mod restore_file;
mod serve;
mod sources;
mod talk;
mod walk;

pub use archive::{Answer, Archive, Limit};
pub use fetch::{Fetched, Patience, fetch};
pub use resolve::{Bracket, Commit, Goal, MARGIN_US, Resolved, resolve};
pub use restore_file::RestoreFile;
pub use serve::{Serving, serve, socket_in};
pub use sources::{Place, Source};
pub(crate) use walk::walk;
