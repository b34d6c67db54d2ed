//! What an increment is built on: the manifest of the backup before, and what else must not have changed since. It is kept with the local state,
//! because whoever may only write backups cannot read them.

use std::collections::BTreeSet;

use lifeboat_model::{Error, ErrorKind, Lsn, Result};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::{BadPage, Captured, Server};
use crate::postgres::increment;
use crate::postgres::layout::{Fork, Relation};
use crate::postgres::manifest;

/// From this major on servers make increments.
const INCREMENTS: u32 = 17;
/// Before these minors a server says wrongly how far a table that `VACUUM` cut short still is its parent's (release notes of 17.8 and 18.2:
/// "Fix incorrect handling of incremental backups of large tables"): pages that are gone could come back.
const MENDED: [(u32, u32); 2] = [(17, 8), (18, 2)];

/// The backup before, as far as an increment needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    head: Head,
    manifest: Vec<u8>,
}

/// The first line of what is kept; the manifest follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Of this layout.
    version: u32,
    system_identifier: String,
    /// Whether pages carried numbers: turning them on or off changes all pages, and no log says so.
    checksums: bool,
    manifest_bytes: u64,
    /// Pages that are damaged in it: file, block of its relation, position.
    #[serde(default)]
    bad_pages: Vec<(String, u32, String)>,
    /// All of them, also where not each is named.
    #[serde(default)]
    bad_page_count: u64,
}

impl Parent {
    /// Of a capture that has ended.
    #[must_use]
    pub fn of(captured: &Captured) -> Self {
        Self {
            head: Head {
                version: 1,
                system_identifier: captured.facts.system_identifier.clone(),
                checksums: captured.facts.checksums,
                manifest_bytes: captured.manifest.len() as u64,
                bad_pages: captured.facts.bad_pages.clone(),
                bad_page_count: captured.facts.bad_page_count,
            },
            manifest: captured.manifest.clone(),
        }
    }

    /// As it is kept.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&self.head)
            .map_err(|error| Error::new(ErrorKind::Bug, "encode", "what an increment is built on", error.to_string()))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.manifest);
        Ok(bytes)
    }

    /// What was kept; `None` where that is something else or not whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, manifest) = bytes.split_at_checked(line + 1)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let is_whole = head.version == 1 && head.manifest_bytes == manifest.len() as u64;
        is_whole.then(|| Self {
            head,
            manifest: manifest.to_vec(),
        })
    }

    /// The positions at which the parent's log began; an increment names one of them.
    pub(super) fn starts(&self) -> Result<Vec<Lsn>> {
        let summary = manifest::read(self.manifest.as_slice(), |_file| Ok(()))?;
        Ok(summary.wal.iter().map(|range| range.start.lsn).collect())
    }

    /// Pages that are damaged in the parent: what does not come anew still is.
    pub(super) fn bad_pages(&self) -> Vec<BadPage> {
        let pages = self.head.bad_pages.iter();
        pages
            .map(|(path, block, lsn)| BadPage {
                path: path.clone(),
                block: *block,
                lsn: lsn.parse().unwrap_or(Lsn::INVALID),
            })
            .collect()
    }

    /// The manifest with only those main forks of relations that are among `takers`: what it lacks, the server sends whole.
    ///
    /// Visibility maps always come whole: where a bit of one is cleared, the log names only the page of the table, so summaries know nothing of
    /// it (measured on 18.4: index-only scans of what `pg_combinebackup` makes count rows that are gone). Free-space maps the server sends whole
    /// by itself.
    pub(super) fn trimmed(&self, takers: &BTreeSet<String>) -> Result<Vec<u8>> {
        let mut trimmed = Vec::new();
        manifest::trim(self.manifest.as_slice(), &mut trimmed, |file| {
            let Ok(path) = std::str::from_utf8(&file.path) else {
                return false;
            };
            let path = increment::target(path).unwrap_or_else(|| path.to_owned());
            Relation::parse(&path).is_some_and(|relation| relation.fork == Fork::Main) && takers.contains(&path)
        })?;
        Ok(trimmed)
    }

    /// Why no increment can be built on it by this server, in words; `None` if one can.
    pub async fn objection(&self, client: &Client, server: &Server) -> Result<Option<String>> {
        if let Some(objection) = Self::objection_to(client, server).await? {
            return Ok(Some(objection));
        }
        Ok(if self.head.system_identifier != server.system_identifier.to_string() {
            Some("the last backup is of another cluster".into())
        } else if self.head.checksums != server.checkable() {
            Some("page checksums were turned on or off since the last backup".into())
        } else if self.head.bad_page_count > self.head.bad_pages.len() as u64 {
            Some("the last backup has too many damaged pages".into())
        } else {
            None
        })
    }

    /// Why the server makes no increments at all, in words.
    pub async fn objection_to(client: &Client, server: &Server) -> Result<Option<String>> {
        if server.major < INCREMENTS {
            return Ok(Some(format!(
                "PostgreSQL {} makes no increments, which came with {INCREMENTS}",
                server.major
            )));
        }
        if let Some((major, minor)) = MENDED.into_iter().find(|(major, _)| *major == server.major)
            && server.minor < minor
        {
            return Ok(Some(format!(
                "increments of PostgreSQL {}.{} are wrong where a table was cut short; upgrade it to {major}.{minor}",
                server.major, server.minor
            )));
        }
        if !server.usual_sizes() {
            return Ok(Some("the server was built with pages or segments of another size".into()));
        }
        let sql = "select current_setting('summarize_wal', true)";
        let row = client.query_one(sql, &[]).await.map_err(|error| {
            Error::new(
                ErrorKind::Unreachable,
                "ask for summarize_wal",
                "PostgreSQL",
                error.to_string(),
            )
        })?;
        let is_on = row.get::<_, Option<String>>(0).is_some_and(|value| value == "on");
        Ok((!is_on).then(|| {
            "the server does not summarise its log (ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf())".into()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else_is() {
        let parent = Parent {
            head: Head {
                version: 1,
                system_identifier: "7300000000000000001".into(),
                checksums: true,
                manifest_bytes: 6,
                bad_pages: vec![("base/5/1".into(), 7, "0/1".into())],
                bad_page_count: 1,
            },
            manifest: b"a\nb\nc\n".to_vec(),
        };
        let bytes = parent.encode().unwrap();
        assert_eq!(Parent::decode(&bytes).unwrap(), parent);
        for length in 0..bytes.len() {
            assert_eq!(Parent::decode(&bytes[..length]), None);
        }
        assert_eq!(Parent::decode(&[bytes, b"x".to_vec()].concat()), None);
    }
}
