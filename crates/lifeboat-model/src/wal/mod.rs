//! What is decided about a write-ahead log: its files' names, which bytes are held, which moments can be reached, what may be deleted.
//!
//! Pure: ranges and names in, answers out (`docs/postgres.md`, PG-01, PG-04, PG-08, PG-12). Who fetched a byte, and where it lies, is
//! decided elsewhere; what is not in a [`Coverage`] counts as not held.

mod coverage;
mod history;
mod keep;
mod needed;
mod recovery;
mod segment;

pub use coverage::{Coverage, Range};
pub use history::{Fork, History, Stretch};
pub use keep::{Keep, KeptBase, Needs};
pub use needed::{HeldLog, Needed, WindowBase, needed};
pub use recovery::{Base, Choice, Mark, Moment, Reachable, Refusal, Target, Why, Window};
pub use segment::{LogFile, SegmentSize};
