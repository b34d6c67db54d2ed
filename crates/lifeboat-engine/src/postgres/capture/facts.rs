//! What is kept with a base besides its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::plan::Tree;
use super::{BadPage, Server};
use crate::postgres::control::Control;
use crate::postgres::manifest::WalRange;

/// Facts of a cluster, as a backup keeps them. Positions are written as PostgreSQL writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How it was read: `local`, `stream`, `increment`.
    pub mode: String,
    /// Which cluster, in decimal digits.
    pub system_identifier: String,
    /// Its version, as the server writes it.
    pub version: String,
    /// Its major version.
    pub major: u32,
    /// The log is needed from here.
    pub start: String,
    /// The cluster is consistent from here on.
    pub end: String,
    /// On this timeline.
    pub timeline: u32,
    /// It was read from a standby.
    pub from_standby: bool,
    /// Bytes of a segment of log.
    pub wal_segment_bytes: u32,
    /// Whether pages carry numbers, which were checked.
    pub checksums: bool,
    /// Pages that are damaged in the source.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_page_count: u64,
    /// The first of them: file, block, position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_pages: Vec<(String, u32, String)>,
    /// What recovery needs at least of these settings.
    pub needs: BTreeMap<String, u32>,
    /// The superuser that the cluster was made with.
    pub superuser: String,
    /// `shared_preload_libraries`
    pub preload: String,
    /// Number and location of each tablespace outside the data directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tablespaces: BTreeMap<u32, String>,
    /// Folders and their permission bits, owner and group.
    pub folders: BTreeMap<String, (u32, u32, u32)>,
    /// Links that are links in the backup, with their targets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
    /// What was a link in the source and is not in the backup, with where it led.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub followed: BTreeMap<String, String>,
    /// Files of configuration from outside the data directory; they are not restored into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
    /// Rows of tables, as they were counted while the files were copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Facts {
    pub(super) fn new(parts: &Parts<'_>) -> Self {
        let Parts {
            server,
            control,
            tree,
            range,
            ..
        } = parts;
        let needs = control.needs.settings().into_iter();
        let folders = tree.folders.iter();
        let tablespaces = tree.tablespaces.iter();
        Self {
            mode: parts.mode.to_owned(),
            system_identifier: server.system_identifier.to_string(),
            version: server.version.clone(),
            major: server.major,
            start: range.start.lsn.to_string(),
            end: range.end.to_string(),
            timeline: range.start.timeline.number(),
            from_standby: parts.from_standby,
            wal_segment_bytes: control.wal_segment_bytes,
            checksums: control.checkable(),
            bad_page_count: parts.bad_page_count,
            bad_pages: (parts.bad_pages.iter())
                .map(|page| (page.path.clone(), page.block, page.lsn.to_string()))
                .collect(),
            needs: needs.map(|(name, value)| (name.to_owned(), value)).collect(),
            superuser: server.superuser.clone(),
            preload: server.preload.clone(),
            tablespaces: tablespaces
                .map(|one| (one.oid, String::from_utf8_lossy(&one.location).into_owned()))
                .collect(),
            folders: folders
                .map(|folder| (folder.path.clone(), (folder.mode, folder.uid, folder.gid)))
                .collect(),
            links: tree.links.iter().cloned().collect(),
            followed: tree.followed.iter().cloned().collect(),
            outside: parts.outside.to_vec(),
            counts: None,
        }
    }
}

/// What facts are made of.
pub(super) struct Parts<'a> {
    pub(super) mode: &'static str,
    pub(super) server: &'a Server,
    pub(super) control: &'a Control,
    pub(super) tree: &'a Tree,
    pub(super) outside: &'a [String],
    pub(super) range: &'a WalRange,
    pub(super) from_standby: bool,
    pub(super) bad_pages: &'a [BadPage],
    pub(super) bad_page_count: u64,
}

/// A time as a manifest writes it: `2026-11-21 19:57:50 GMT`.
pub(super) fn gmt(time_us: i64) -> String {
    let seconds = time_us.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years: the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::gmt;

    #[test]
    fn times_are_written_as_the_server_writes_them() {
        assert_eq!(gmt(0), "1970-01-01 00:00:00 GMT");
        assert_eq!(gmt(951_782_399_999_999), "2000-02-28 23:59:59 GMT");
        assert_eq!(gmt(951_782_400_000_000), "2000-02-29 00:00:00 GMT");
        assert_eq!(gmt(1_795_291_070_000_000), "2026-11-21 19:57:50 GMT");
    }
}
