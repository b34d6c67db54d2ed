//! What is counted of a tree while it is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pki;

/// Facts of a backup of files, as a backup keeps them (`docs/format.md` 8.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The folder that the paths are relative to.
    pub root: String,
    /// Regular files by name; each name of a hard link counts.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Pipes, sockets and devices.
    pub others: u64,
    /// Bytes of all content; holes do not count, hard links count once.
    pub size_bytes: u64,
    /// What each pattern matched: files and folders that it names itself.
    pub patterns: BTreeMap<String, u64>,
    /// Symbolic links that lead out of the root.
    pub outside_links: u64,
    /// Bytes of content in the segments that nothing of this tree needs.
    pub unused_bytes: u64,
    /// What the keys and certificates among them are, and whether they fit each other; only of a PKI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki: Option<pki::Report>,
}
