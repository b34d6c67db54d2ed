//! Looks at the announcements of a component (`docs/format.md` 4): a damaged one protects nothing, and stops a pruner.
//!
//! Only looks: what an announcement protects is decided elsewhere.

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::Key;

use crate::{ComponentName, Repository, Trust, signed};

/// An announcement is a page of JSON and a signature.
const LIMIT_BYTES: u64 = 1 << 16;

/// As many are looked at, the last ones in the order of their names; each is one request to the store.
const MOST: usize = 200;

impl Repository {
    /// Announcements that are damaged, or that nobody who is trusted signed: name and reason. At most 200 are looked at.
    ///
    /// # Errors
    /// When the store cannot be listed (INV-13) or read. One that vanishes meanwhile is not damaged.
    pub async fn damaged_announcements(&self, component: &ComponentName, trust: &Trust) -> Result<Vec<(String, Error)>> {
        let folder = Key::new(format!("{}/sessions", component.folder()?))?;
        let mut entries = self.store().list(&folder).await?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let mut damaged = Vec::new();
        for entry in entries.iter().rev().take(MOST) {
            let name = entry.key.as_str();
            let stored = match self.store().get(&entry.key, LIMIT_BYTES).await {
                Ok(stored) => stored,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let Err(error) = signed::open(signed::Kind::Session, name, &stored, trust) {
                damaged.push((name.to_owned(), error));
            }
        }
        Ok(damaged)
    }
}
