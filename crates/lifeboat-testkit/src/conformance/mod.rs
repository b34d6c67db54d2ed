//! One suite per contract: every implementation runs it, so that an implementation cannot read the contract its own way.
//! A suite fails by panicking, with the clause in the message.

pub mod store;
