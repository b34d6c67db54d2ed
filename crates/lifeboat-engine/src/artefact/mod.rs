//! Old backup files made by other programs: read, never written. What a file is, its content says, not its name.

mod openssl;

pub use openssl::OpensslKdf;
