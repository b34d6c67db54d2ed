//! How the operating system is touched: durable publishing (the only rename in the product), blocking work beside the
//! async spine, child processes, and the shapes in which bytes flow between engines and the repository.
//!
//! Knows nothing about backups.

pub mod background;
pub mod compute;
pub mod direct;
pub mod durable;
pub mod flow;
pub mod gather;
pub mod process;
pub mod sink;
