//! The operating system as the rest of the product sees it: page files and the crossing to blocking code.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod compute;
mod flow;
mod gather;
