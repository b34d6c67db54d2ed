//! The format (`docs/format.md`): page files and streams in, a backup out; a backup in, verified bytes out.
//!
//! Knows every byte layout, hash and cipher, and nothing about databases or schedules. [`Writer`] and [`Reader`] are the two façades.

mod announced;
mod bytes;
mod closure;
mod copy;
mod header;
mod id;
mod key;
mod kit;
mod ledger;
mod listing;
mod log;
mod manifest;
mod map;
mod pack;
mod prune;
mod reader;
mod rekey;
mod replicas;
mod repository;
mod scrub;
mod session;
mod signed;
mod state;
mod sync;
mod time;
mod writer;

#[cfg(test)]
extern crate self as lifeboat_repo;
#[cfg(test)]
mod tests;

pub use closure::{Closure, Pack, SessionKey, is_data_pack};
pub use copy::{Copied, CopyPlan, Which, copy};
pub use header::{Header, LogNeed};
pub use id::{BackupId, ChainId, ComponentName, Lineage, RepositoryId, SessionId};
pub use key::age::Encryption;
pub use key::file::{KeyFile, KeyFileName};
pub use key::identity::{AskPassphrase, Identities, generate_identity, needs_passphrase, protect_identity};
pub use key::instance::{Instance, PublicKey, Rights, Trust};
pub use key::passphrase::identity_from_passphrase;
pub use key::recipient::{Fingerprint, Recipient, Roster};
pub use kit::{
    Content, KIT_LIMIT_BYTES, Kit, KitComponent, KitConfiguration, KitListing, KitName, NewKit, get_kit, kit_digest, kit_signer,
    list_kits, open_kit, put_kit, seal_kit,
};
pub use ledger::{
    Flaw, FlawKind, LEDGER_LIMIT_BYTES, LedgerHead, LedgerListing, LedgerName, LedgerRecord, NewLedgerRecord, ReadRecord,
    chain_of, clock_steps, digest, flaws, get_record, list_ledger, open_record, put_record, read_ledger, seal_record,
};
pub use listing::{Backup, IMPORTED, Listing, Rejected};
pub use log::{
    Appended, BLOCK_BYTES, GapRecord, Judged, LineageRecord, LogCleaner, LogCopied, LogFileKind, LogHeader, LogListing, LogName,
    LogPlan, LogPreparer, LogReader, LogWriter, NewLog, PreparedLog, block_end, block_start, confirm_log, copy_log,
    holds_two_versions, list_log,
};
pub use manifest::{FileMeta, FileRecord, Role};
pub use prune::hold::{Hold, HoldRequest, add_hold, list_holds, release_hold};
pub use prune::{Amount, PrunePlan, Pruned, Retire, Retired, Standing, prune};
pub use reader::{Fetched, ReadPlan, Reader, Verified};
pub use rekey::{Access, Rekey, Rekeyed, access, forget_parent, rekey, rekey_log};
pub use replicas::CopyOutcome;
pub use repository::Repository;
pub use scrub::{DueFile, Marker, Slice, files_of, scrub, scrub_and_mark, scrub_slice};
pub use time::{Calendar, format_utc, parse_utc};
pub use writer::{BackupPlan, Committed, Stats, StoredStream, Streams, TreeCount, Writer};
