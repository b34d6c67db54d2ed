//! Results of queries as CSV, kept beside the database in the same backup.

/// A query and what it may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extract {
    /// Name of the CSV file.
    pub file: String,
    /// One SELECT.
    pub query: String,
    /// The only columns that it may read, `COLUMN` or `TABLE.COLUMN`.
    pub columns: Vec<String>,
}
