//! Deleting frames that something replaces, beside a writer that goes on: a deletion may take as long as a put, and there are many.

use lifeboat_model::Result;

use super::name::LogName;
use super::reader::LogReader;
use super::writer::Appended;
use crate::id::{ComponentName, Lineage};
use crate::key::identity::Identities;
use crate::key::instance::Trust;
use crate::repository::Repository;

/// Deletes replaced frames of one lineage. Holds no lock: anybody may do it at any time (`docs/format.md` 11.4).
#[derive(Debug, Clone)]
pub struct LogCleaner {
    pub(super) repository: Repository,
    pub(super) component: ComponentName,
    pub(super) trust: Trust,
    pub(super) lineage: Lineage,
}

impl LogCleaner {
    /// Deletes the frames that `by` replaces. It says so in its signed header, which is read again from the store before (INV-17).
    /// Returns those that went. One that cannot be deleted is left for a pruner.
    pub async fn drop_replaced(&self, by: &Appended) -> Result<Vec<LogName>> {
        let mut gone = Vec::new();
        if by.replaces.is_empty() {
            return Ok(gone);
        }
        let standing = self.reader().header(&by.name).await?;
        for name in by.replaces.iter().filter(|name| standing.replaces.contains(&name.hash)) {
            let key = name.key(&self.component, self.lineage)?;
            self.repository.store().delete(&key).await?;
            gone.push(*name);
        }
        Ok(gone)
    }

    /// Reads headers; it has no keys.
    pub(super) fn reader(&self) -> LogReader {
        let listing = super::LogListing::default();
        LogReader::of(
            &self.repository,
            &self.component,
            &self.trust,
            Identities::none(),
            self.lineage,
            &listing,
        )
    }
}
