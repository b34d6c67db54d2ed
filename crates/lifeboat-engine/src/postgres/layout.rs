//! Which names of a data directory belong into a base, and what they are.
//!
//! The lists are those of the server's own base backup (`backup/basebackup.c`); names alone decide, nothing here looks at a disk.

/// A folder whose content is not captured; it is restored empty.
const EMPTY: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

/// Folders in `pg_wal` that a server expects.
pub const WAL_FOLDERS: [&str; 2] = ["pg_wal/archive_status", "pg_wal/summaries"];

/// Left out wherever they are: they belong to the running server, or to another backup.
const LEFT_OUT: [&str; 8] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "backup_manifest.tmp",
    "postmaster.pid",
    "postmaster.opts",
];

/// Left out at the top: what a restore writes itself.
const OF_RECOVERY: [&str; 5] = [
    "recovery.signal",
    "standby.signal",
    "recovery.conf",
    "recovery.done",
    "backup_label.old",
];

/// The file that comes last (PG-09).
pub const CONTROL: &str = "global/pg_control";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Belongs into the base.
    Taken,
    /// A folder whose name is kept and whose content is not.
    Emptied,
    /// Not part of a base.
    LeftOut,
}

/// What becomes of `path` (relative to the data directory, `/`-separated; tablespaces under `pg_tblspc/OID/`). Unlogged relations need to
/// know their neighbours: see [`Relation::is_unlogged`].
#[must_use]
pub fn classify(path: &str) -> Class {
    let name = path.rsplit('/').next().unwrap_or(path);
    if LEFT_OUT.contains(&name) || name.starts_with("pgsql_tmp") || name.starts_with("pg_internal.init") {
        return Class::LeftOut;
    }
    if path == name && OF_RECOVERY.contains(&name) {
        return Class::LeftOut;
    }
    let top = path.split('/').next().unwrap_or(path);
    if EMPTY.contains(&top) {
        return if path == top || WAL_FOLDERS.contains(&path) {
            Class::Emptied
        } else {
            Class::LeftOut
        };
    }
    match Relation::parse(path) {
        Some(relation) if relation.temporary => Class::LeftOut,
        _ => Class::Taken,
    }
}

/// Whether a link at `path` to a folder is followed, because what lies there is the cluster's own: PostgreSQL's folders, wherever somebody
/// moved them. Others (a folder of server logs) stay links.
#[must_use]
pub fn is_own_folder(path: &str) -> bool {
    let top = path.split('/').next().unwrap_or(path);
    matches!(
        top,
        "base" | "global" | "pg_commit_ts" | "pg_logical" | "pg_multixact" | "pg_stat" | "pg_twophase" | "pg_xact"
    )
}

/// Which of the files that a relation consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// Rows, or an index.
    Main,
    /// The free-space map.
    FreeSpace,
    /// The visibility map.
    Visibility,
    /// What an unlogged relation begins with after a crash.
    Init,
}

/// A file that holds pages of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation<'a> {
    /// The folder that it is in.
    pub folder: &'a str,
    /// Its number there (`relfilenode`).
    pub number: u32,
    /// Which part.
    pub fork: Fork,
    /// Which gigabyte, from 0.
    pub segment: u32,
    /// Of one session, which ends with it.
    pub temporary: bool,
}

impl<'a> Relation<'a> {
    /// Recognises `global/N`, `base/DB/N` and `pg_tblspc/OID/PG_…/DB/N` with their forks and segments.
    #[must_use]
    pub fn parse(path: &'a str) -> Option<Self> {
        let (folder, name) = path.rsplit_once('/')?;
        let parts: Vec<&str> = folder.split('/').collect();
        let in_place = match parts.as_slice() {
            ["global"] => true,
            ["base", database] => number(database).is_some(),
            ["pg_tblspc", oid, version, database] => {
                number(oid).is_some() && version.starts_with("PG_") && number(database).is_some()
            }
            _ => false,
        };
        if !in_place {
            return None;
        }
        let (name, temporary) = match name.strip_prefix('t') {
            Some(rest) => (rest.split_once('_').filter(|(backend, _)| number(backend).is_some())?.1, true),
            None => (name, false),
        };
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (name, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((name, "fsm")) => (name, Fork::FreeSpace),
            Some((name, "vm")) => (name, Fork::Visibility),
            Some((name, "init")) => (name, Fork::Init),
            Some(_) => return None,
        };
        Some(Self {
            folder,
            number: number(name).filter(|number| *number > 0)?,
            fork,
            segment,
            temporary,
        })
    }

    /// The number of the file's first page in its relation.
    #[must_use]
    pub fn first_block(&self) -> u32 {
        self.segment.wrapping_mul(super::page::SEGMENT_PAGES)
    }

    /// Whether the file is left out, where `has_init` tells that its folder holds the init fork of the same number: after recovery an
    /// unlogged relation begins anew from that.
    #[must_use]
    pub fn is_unlogged(&self, has_init: bool) -> bool {
        has_init && self.fork != Fork::Init
    }
}

/// Digits as PostgreSQL writes them: no sign, no leading zero.
fn number(text: &str) -> Option<u32> {
    let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    sound.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relations_are_told_from_others() {
        for (path, number, fork, segment, temporary) in [
            ("global/1262", 1262, Fork::Main, 0, false),
            ("base/5/16384.12", 16384, Fork::Main, 12, false),
            ("base/5/16384_fsm.1", 16384, Fork::FreeSpace, 1, false),
            ("base/5/16384_vm", 16384, Fork::Visibility, 0, false),
            ("base/5/16384_init", 16384, Fork::Init, 0, false),
            ("base/5/t3_16384_vm.2", 16384, Fork::Visibility, 2, true),
            ("pg_tblspc/16500/PG_15_202209061/5/16384", 16384, Fork::Main, 0, false),
        ] {
            let relation = Relation::parse(path).unwrap_or_else(|| panic!("{path}"));
            let found = (relation.number, relation.fork, relation.segment, relation.temporary);
            assert_eq!(found, (number, fork, segment, temporary), "{path}");
            assert_eq!(relation.first_block(), segment * 131_072);
        }
        for path in [
            "1262",
            "global/pg_control",
            "global/pg_filenode.map",
            "base/5/PG_VERSION",
            "base/5/016384",
            "base/5/16384.0",
            "base/5/16384.01",
            "base/5/16384_fsm_vm",
            "base/5/t_16384",
            "base/5/t3_",
            "base/5/4294967296",
            "base/x/16384",
            "pg_tblspc/16500/5/16384",
            "pg_xact/0000",
        ] {
            assert_eq!(Relation::parse(path), None, "{path}");
        }
    }

    #[test]
    fn what_belongs_to_the_running_server_is_left_out() {
        for path in [
            "postmaster.pid",
            "backup_label",
            "base/5/pg_internal.init.1234",
            "global/pg_internal.init",
            "base/pgsql_tmp/pgsql_tmp123.0",
            "base/pgsql_tmp",
            "pg_tblspc/16500/PG_15_202209061/pgsql_tmp",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/x.done",
            "pg_replslot/lifeboat/state",
            "pg_stat_tmp/global.stat",
            "recovery.signal",
            "backup_label.old",
            "base/5/t3_16384",
        ] {
            assert_eq!(classify(path), Class::LeftOut, "{path}");
        }
        for path in [
            "pg_wal",
            "pg_wal/archive_status",
            "pg_wal/summaries",
            "pg_replslot",
            "pg_subtrans",
        ] {
            assert_eq!(classify(path), Class::Emptied, "{path}");
        }
        for path in [
            "PG_VERSION",
            "postgresql.conf",
            "postgresql.auto.conf",
            "base/5/16384",
            "pg_xact/0000",
            "pg_stat/pgstat.stat",
            "pg_logical/mappings",
            "notes/recovery.signal",
            CONTROL,
        ] {
            assert_eq!(classify(path), Class::Taken, "{path}");
        }
    }

    #[test]
    fn an_unlogged_relation_keeps_its_init_fork_alone() {
        let main = Relation::parse("base/5/16384").unwrap();
        let init = Relation::parse("base/5/16384_init").unwrap();
        assert!(main.is_unlogged(true) && !main.is_unlogged(false) && !init.is_unlogged(true));
    }
}
