//! SQLite databases.
//!
//! Rules that hold everywhere in this folder:
//! - While a connection of this process has a database open, nothing here opens the database or its `-shm` as a plain file: closing such
//!   a descriptor would drop SQLite's POSIX locks (`fcntl` locks belong to the process, not to the descriptor). Looking at metadata is fine.
//! - The source is never changed: no checkpoint on close, no journal mode set, no table made. The one exception is a hot rollback journal,
//!   which SQLite rolls back on the first read, as the application's own next start would.
//! - If we die, the operating system drops our locks and the database is as if nobody had read it.

mod capture;
pub mod checks;
mod diff;
mod discover;
mod dump;
pub(crate) mod error;
mod extract;
mod facts;
mod filesystem;
mod locks;
mod probe;
mod queue;
mod source;
mod stream;

use std::path::{Path, PathBuf};

pub use capture::{Capture, CaptureOptions, Captured, begin};
pub use diff::{Cell, Difference, Fate, RowChange, RowChanges, SchemaChange, Scope, Side, TableChange, diff, diff_counts};
pub use discover::{Discovery, Found, discover};
pub use dump::dump_restored;
pub use extract::{Extract, ExtractFacts};
pub use facts::Facts;
pub use filesystem::network_filesystem;
pub use locks::{Holder, Holders, holders, prove_unused};
pub(crate) use probe::MAGIC;
pub use probe::{Inspection, inspect};
pub use source::SourceFile;
pub use stream::Beside;

/// The files that belong to a database besides itself: `-wal`, `-shm`, `-journal`.
#[must_use]
pub fn companions(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", "-journal"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}
