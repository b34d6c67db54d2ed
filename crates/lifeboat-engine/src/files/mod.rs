//! Files and folders: configuration, certificates, whatever is not a database.

mod facts;
#[allow(dead_code, reason = "the walk follows")]
mod glob;
mod options;

pub use facts::Facts;
pub use glob::check_pattern;
pub use options::{DEFAULT_CHANGE_RETRIES, Options, common_folder, fixed_folder};
